//! Parameter Store.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::identity::Caller;
use super::{ACCOUNT, REGION, Refusal, Server, field};

pub(super) struct Version {
    kind: String,
    value: String,
    number: u64,
    modified: f64,
    labels: Vec<String>,
}

// === impl Server ===

impl Server {
    pub(super) fn parameters_call(&mut self, caller: &Caller, operation: &str, body: &Value) -> Result<Value, Refusal> {
        let action = format!("ssm:{operation}");
        match operation {
            "GetParameters" => self.get_parameters(caller, &action, body),
            "GetParametersByPath" => {
                self.permit(caller, &action, field(body, "Path")?)?;
                self.get_by_path(caller, body)
            }
            "PutParameter" => {
                self.permit(caller, &action, field(body, "Name")?)?;
                self.put_parameter(body)
            }
            "DeleteParameter" => {
                let name = field(body, "Name")?;
                self.permit(caller, &action, name)?;
                let gone = self.parameters.remove(name);
                gone.map(|_| json!({})).ok_or_else(|| ("ParameterNotFound", "canary".to_owned()))
            }
            "LabelParameterVersion" => {
                let name = field(body, "Name")?;
                self.permit(caller, &action, name)?;
                let (number, label) = (body["ParameterVersion"].as_u64(), body["Labels"][0].as_str().unwrap());
                for version in self.parameters.get_mut(name).unwrap() {
                    version.labels.retain(|other| other != label);
                    if Some(version.number) == number {
                        version.labels.push(label.to_owned());
                    }
                }
                Ok(json!({"InvalidLabels": [], "ParameterVersion": number}))
            }
            _ => Err(("UnknownOperationException", String::new())),
        }
    }

    fn put_parameter(&mut self, body: &Value) -> Result<Value, Refusal> {
        let modified = format!("{}.{:03}", self.now(), self.unique() % 1000).parse().unwrap();
        let versions = self.parameters.entry(field(body, "Name")?.to_owned()).or_default();
        if !versions.is_empty() && body["Overwrite"] != json!(true) {
            return Err(("ParameterAlreadyExists", "canary".to_owned()));
        }
        let number = versions.last().map_or(1, |last| last.number + 1);
        let (kind, value) = (field(body, "Type")?.to_owned(), field(body, "Value")?.to_owned());
        versions.push(Version { kind, value, number, modified, labels: Vec::new() });
        Ok(json!({"Version": number, "Tier": "Standard"}))
    }

    /// What the caller may not decrypt fails the whole call, as what they may not read does.
    fn get_parameters(&self, caller: &Caller, action: &str, body: &Value) -> Result<Value, Refusal> {
        let names: Vec<_> = body["Names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !(1..=10).contains(&names.len()) {
            return Err(("ValidationException", "canary".to_owned()));
        }
        let (mut found, mut invalid) = (Vec::new(), Vec::new());
        for given in names {
            let prefix = format!("arn:aws:ssm:{REGION}:{ACCOUNT}:parameter");
            let plain = given.strip_prefix(&prefix).unwrap_or(given);
            let (name, selector) = plain.split_once(':').map_or((plain, None), |(name, of)| (name, Some(of)));
            self.permit(caller, action, name)?;
            let versions = self.parameters.get(name).map(Vec::as_slice).unwrap_or_default();
            let version = match selector {
                None => versions.last(),
                Some(selector) => versions.iter().find(|version| version.is_meant(selector)),
            };
            let Some(version) = version else {
                invalid.push(given);
                continue;
            };
            let mut shown = self.shown(caller, name, version, body)?;
            if let Some(selector) = selector {
                shown["Selector"] = json!(format!(":{selector}"));
            }
            found.push(shown);
        }
        Ok(json!({"Parameters": found, "InvalidParameters": invalid}))
    }

    fn get_by_path(&self, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
        let size = usize::try_from(body["MaxResults"].as_u64().unwrap_or(10)).unwrap();
        if !(1..=10).contains(&size) {
            return Err(("ValidationException", "canary".to_owned()));
        }
        let path = format!("{}/", field(body, "Path")?.trim_end_matches('/'));
        let is_below = |name: &str| {
            name.strip_prefix(&path).is_some_and(|rest| body["Recursive"] == json!(true) || !rest.contains('/'))
        };
        let all: Vec<_> = self.parameters.iter().filter(|(name, _)| is_below(name)).collect();
        let start = body["NextToken"].as_str().map_or(0, |token| token.parse::<usize>().unwrap());
        let page = all.iter().skip(start).take(size);
        let page = page.map(|(name, versions)| self.shown(caller, name, versions.last().unwrap(), body));
        let mut answer = json!({"Parameters": page.collect::<Result<Vec<_>, _>>()?});
        if start + size < all.len() {
            answer["NextToken"] = json!((start + size).to_string());
        }
        Ok(answer)
    }

    fn shown(&self, caller: &Caller, name: &str, version: &Version, body: &Value) -> Result<Value, Refusal> {
        let decrypts = body["WithDecryption"] == json!(true);
        let value = match version.kind.as_str() {
            "SecureString" if !decrypts => STANDARD.encode(format!("AQICAHh{}", version.number)),
            "SecureString" => {
                let may = self.permit(caller, "kms:Decrypt", name);
                may.map_err(|_| {
                    let text = "The ciphertext refers to a customer master key that does not exist, does not exist in \
                                this region, or you are not allowed to access. canary";
                    ("AccessDeniedException", text.to_owned())
                })?;
                version.value.clone()
            }
            _ => version.value.clone(),
        };
        let slash = if name.starts_with('/') { "" } else { "/" };
        Ok(json!({"ARN": format!("arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{slash}{name}"), "DataType": "text",
            "LastModifiedDate": version.modified, "Name": name, "Type": version.kind, "Value": value,
            "Version": version.number}))
    }
}

// === impl Version ===

impl Version {
    fn is_meant(&self, selector: &str) -> bool {
        selector == self.number.to_string() || self.labels.iter().any(|label| label == selector)
    }
}
