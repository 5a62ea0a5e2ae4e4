//! Secrets Manager.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::identity::Caller;
use super::{ACCOUNT, REGION, Refusal, Server, field};

pub(super) struct Secret {
    arn: String,
    deleted: Option<i64>,
    versions: BTreeMap<String, Version>,
}

struct Version {
    /// `SecretString` or `SecretBinary`, as it was given.
    value: (&'static str, Value),
    created: i64,
    stages: Vec<String>,
}

/// Pages are of the server's choosing: small ones, so there are several.
const PAGE: usize = 8;

fn missing(what: &str) -> Refusal {
    ("ResourceNotFoundException", format!("Secrets Manager can't find the specified secret{what}. canary"))
}

// === impl Server ===

impl Server {
    pub(super) fn secrets_call(&mut self, caller: &Caller, operation: &str, body: &Value) -> Result<Value, Refusal> {
        let action = format!("secretsmanager:{operation}");
        if operation == "BatchGetSecretValue" {
            self.permit(caller, &action, "*")?;
            return self.batch(caller, body);
        }
        let given = field(body, if operation == "CreateSecret" { "Name" } else { "SecretId" })?;
        let name = self.name_of(given);
        self.permit(caller, &action, name.as_deref().unwrap_or(given))?;
        if operation == "CreateSecret" {
            if name.is_some() {
                return Err(("ResourceExistsException", "canary".to_owned()));
            }
            let suffix: String =
                format!("{:06}", self.unique()).chars().map(|c| (b'a' + c as u8 - b'0') as char).collect();
            let arn = format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{given}-{suffix}");
            let secret = Secret { arn, deleted: None, versions: BTreeMap::new() };
            self.secrets.insert(given.to_owned(), secret);
            return self.put(given, body);
        }
        let name = name.ok_or_else(|| missing(""))?;
        match operation {
            "PutSecretValue" => self.put(&name, body),
            "DeleteSecret" => {
                let deleted = self.now() + 30 * 24 * 3600;
                let secret = self.secrets.get_mut(&name).unwrap();
                secret.deleted = Some(deleted);
                Ok(json!({"ARN": secret.arn, "Name": name, "DeletionDate": deleted}))
            }
            "DescribeSecret" => Ok(self.secrets[&name].describe(&name)),
            "GetSecretValue" => self.secrets[&name].get(&name, body),
            _ => Err(("UnknownOperationException", String::new())),
        }
    }

    /// The name of a secret that is asked for by name, ARN or the ARN without its suffix.
    fn name_of(&self, id: &str) -> Option<String> {
        let is_meant = |(name, secret): &(&String, &Secret)| {
            *name == id || secret.arn == id || secret.arn.rsplit_once('-').is_some_and(|(short, _)| short == id)
        };
        self.secrets.iter().find(is_meant).map(|(name, _)| name.clone())
    }

    fn put(&mut self, name: &str, body: &Value) -> Result<Value, Refusal> {
        let value = ["SecretString", "SecretBinary"].into_iter().find(|kind| body[*kind].is_string());
        let value = value.map(|kind| (kind, body[kind].clone()));
        let (id, created) = (format!("00000000-0000-4000-8000-{:012}", self.unique()), self.now());
        let secret = self.secrets.get_mut(name).unwrap();
        secret.refuse_deleted()?;
        let value = value.ok_or_else(|| ("InvalidRequestException", "canary".to_owned()))?;
        for version in secret.versions.values_mut() {
            let was_current = version.stages.iter().any(|stage| stage == "AWSCURRENT");
            version.stages = if was_current { vec!["AWSPREVIOUS".to_owned()] } else { Vec::new() };
        }
        let version = Version { value, created, stages: vec!["AWSCURRENT".to_owned()] };
        secret.versions.insert(id.clone(), version);
        Ok(json!({"ARN": secret.arn, "Name": name, "VersionId": id, "VersionStages": ["AWSCURRENT"]}))
    }

    fn batch(&self, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
        let ids: Vec<_> = body["SecretIdList"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !(1..=20).contains(&ids.len()) {
            return Err(("InvalidParameterException", "canary".to_owned()));
        }
        let start = body["NextToken"].as_str().map_or(0, |token| token.parse::<usize>().unwrap());
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        for id in ids.iter().skip(start).take(PAGE) {
            let name = self.name_of(id).ok_or_else(|| missing(""));
            let found = name.and_then(|name| {
                self.permit(caller, "secretsmanager:GetSecretValue", &name)?;
                self.secrets[&name].get(&name, &json!({}))
            });
            match found {
                Ok(value) => values.push(value),
                Err((code, message)) => errors.push(json!({"SecretId": id, "ErrorCode": code, "Message": message})),
            }
        }
        let mut answer = json!({"SecretValues": values, "Errors": errors});
        if start + PAGE < ids.len() {
            answer["NextToken"] = json!((start + PAGE).to_string());
        }
        Ok(answer)
    }
}

// === impl Secret ===

impl Secret {
    fn refuse_deleted(&self) -> Result<(), Refusal> {
        let text = "You can't perform this operation on the secret because it was marked for deletion. canary";
        self.deleted.map_or(Ok(()), |_| Err(("InvalidRequestException", text.to_owned())))
    }

    fn describe(&self, name: &str) -> Value {
        let staged = self.versions.iter().filter(|(_, version)| !version.stages.is_empty());
        let versions: BTreeMap<_, _> = staged.map(|(id, version)| (id, &version.stages)).collect();
        let mut description = json!({"ARN": self.arn, "Name": name, "VersionIdsToStages": versions});
        if let Some(deleted) = self.deleted {
            description["DeletedDate"] = json!(deleted);
        }
        description
    }

    fn get(&self, name: &str, body: &Value) -> Result<Value, Refusal> {
        self.refuse_deleted()?;
        let stage = body["VersionStage"].as_str();
        let is_meant = |(id, version): &(&String, &Version)| match (body["VersionId"].as_str(), stage) {
            (Some(wanted), _) => *id == wanted,
            (None, stage) => version.stages.iter().any(|is| is == stage.unwrap_or("AWSCURRENT")),
        };
        let found = self.versions.iter().find(is_meant);
        let (id, version) = found.ok_or_else(|| missing(" value for staging label"))?;
        let mut answer = json!({"ARN": self.arn, "Name": name, "VersionId": id, "VersionStages": version.stages,
            "CreatedDate": version.created});
        answer[version.value.0] = version.value.1.clone();
        Ok(answer)
    }
}
