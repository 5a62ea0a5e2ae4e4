//! Secrets Manager: reads.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::api::{Api, Outcomes, Service};
use super::errors::Refusal;
use super::keys::Keys;
use super::name::{CURRENT, is_version_id};
use super::settings::AwsSettings;
use crate::provider::http::{Failure, Reach};
use crate::provider::session::{LoggedIn, Outcome, Store, Token};
use crate::provider::{Answer, Known, Login, ProviderError, Reading, Version};
use crate::reference::Request;
use crate::secret::{SecretTree, SecretValue};

const SERVICE: Service = Service { name: "secretsmanager", target: "secretsmanager", title: "Secrets Manager" };

/// Most secrets of one `BatchGetSecretValue`.
const BATCH: usize = 20;

/// Secrets Manager of one region, as one pod identity sees it.
///
/// Only credentials that AWS no longer knows are replaced: rights are looked up at each call, so a denial would be
/// the same after another login.
pub type SecretsManager = LoggedIn<SecretsManagerStore>;

/// What is Secrets Manager's own.
#[derive(Debug)]
pub struct SecretsManagerStore {
    api: Api,
    denied: Denied,
}

/// What was denied and is not tried again with the same login.
#[derive(Debug, Default)]
struct Denied {
    /// `BatchGetSecretValue`, a right of its own.
    batch: bool,
    /// `DescribeSecret`, by secret.
    metadata: BTreeSet<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Describe<'a> {
    secret_id: &'a str,
}

/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DescribeSecret.html>
#[derive(Deserialize)]
struct Description {
    #[serde(rename = "ARN")]
    _arn: String,
    /// When it was, or will be, deleted.
    #[serde(rename = "DeletedDate", default)]
    deleted: Option<f64>,
    /// Staging labels by version id; a version without any is about to go.
    #[serde(rename = "VersionIdsToStages", default)]
    versions: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Get<'a> {
    secret_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_stage: Option<&'a str>,
}

/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    version_id: String,
    #[serde(rename = "SecretString", default)]
    text: Option<SecretValue>,
    #[serde(rename = "SecretBinary", default)]
    base64: Option<SecretValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetBatch<'a> {
    secret_id_list: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<&'a str>,
}

/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batch {
    secret_values: Vec<Secret>,
    #[serde(default)]
    errors: Option<Vec<BatchError>>,
    #[serde(default)]
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchError {
    secret_id: String,
    error_code: String,
    #[serde(default)]
    message: Option<SecretValue>,
}

// === impl Secret ===

impl Secret {
    /// `None` if it is not a secret's value.
    fn into_answer(self) -> Option<Answer> {
        let tree = match (self.text, self.base64) {
            (Some(text), _) => SecretTree::Text(text),
            (None, Some(base64)) => SecretTree::from_bytes(STANDARD.decode(base64.expose()).ok()?),
            (None, None) => return None,
        };
        Some(Answer { tree, version: Some(Version(self.version_id)), expires_in: None, lease: None })
    }

    fn is_called(&self, path: &str) -> bool {
        self.name == path || self.arn == path
    }
}

// === impl Description ===

impl Description {
    /// The version that a request means now.
    fn version(&self, request: &Request) -> Option<Version> {
        let versions = self.versions.as_ref()?;
        let wanted = request.version().unwrap_or(CURRENT);
        let (id, _) =
            versions.iter().find(|(id, stages)| id.as_str() == wanted || stages.iter().any(|stage| stage == wanted))?;
        Some(Version(id.clone()))
    }
}

/// What a request asks for, in a message.
fn describe(request: &Request) -> String {
    match request.version() {
        Some(version) => format!("version {version} of secret {}", request.path),
        None => format!("secret {}", request.path),
    }
}

// === impl SecretsManager ===

impl SecretsManager {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &AwsSettings, login: Login, reach: Reach) -> Result<Self, ProviderError> {
        let api = Api::connect(&SERVICE, settings, login, reach)?;
        Ok(Self::new(SecretsManagerStore { api, denied: Denied::default() }))
    }
}

// === impl SecretsManagerStore ===

impl SecretsManagerStore {
    /// Asks only which versions there are. Where that is not allowed, the answer is no: then all is read in full.
    async fn is_unchanged(&mut self, request: &Request, known: Option<&Version>) -> Result<bool, Failure> {
        let Some(known) = known else { return Ok(false) };
        if request.version().is_some_and(|version| version == known.0 && is_version_id(version)) {
            // What has an id never changes.
            return Ok(true);
        }
        let secret_id = request.path.as_str();
        if self.denied.metadata.contains(secret_id) {
            return Ok(false);
        }
        let what = describe(request);
        match self.api.call::<Description>("DescribeSecret", &Describe { secret_id }, &what).await {
            Ok(description) if description.deleted.is_some() => {
                Err(Failure::not_found(format!("{what} is marked for deletion")))
            }
            Ok(description) => match description.version(request) {
                Some(version) => Ok(version == *known),
                None => Err(Failure::not_found(format!("{what} does not exist"))),
            },
            Err(failure) if failure.is_denial() => {
                self.denied.metadata.insert(secret_id.to_owned());
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn get(&mut self, request: &Request) -> Outcome {
        let (version_id, version_stage) = match request.version() {
            Some(version) if is_version_id(version) => (Some(version), None),
            stage => (None, stage),
        };
        let what = describe(request);
        let body = Get { secret_id: &request.path, version_id, version_stage };
        let secret = self.api.call::<Secret>("GetSecretValue", &body, &what).await?;
        secret.into_answer().map(Reading::Fresh).ok_or_else(|| self.api.garbage(&what))
    }

    /// Reads up to twenty secrets with one call. What it leaves open is to be read one by one: all of it, if calls of
    /// this kind are not allowed.
    async fn get_batch<'a>(&mut self, requests: &[&'a Request]) -> Outcomes<'a, Reading> {
        let mut outcomes = Outcomes::new();
        if requests.len() < 2 || self.denied.batch {
            return outcomes;
        }
        let ids: Vec<_> = requests.iter().map(|request| request.path.as_str()).collect();
        let what = format!("{} secrets", ids.len());
        let mut next_token = None;
        // Each page brings something, or there is something wrong with it.
        for _ in 0..ids.len() {
            let body = GetBatch { secret_id_list: &ids, next_token: next_token.as_deref() };
            let page = match self.api.call::<Batch>("BatchGetSecretValue", &body, &what).await {
                Ok(page) => page,
                Err(failure) if failure.is_denial() => {
                    self.denied.batch = true;
                    break;
                }
                // One name that AWS does not like spoils no other: each is read alone.
                Err(failure) if failure.is_about_one() => break,
                Err(failure) => {
                    for request in requests {
                        outcomes.entry(request).or_insert_with(|| Err(failure.clone()));
                    }
                    break;
                }
            };
            outcomes.extend(self.pick(page.secret_values, page.errors.unwrap_or_default(), requests));
            next_token = page.next_token.filter(|token| !token.is_empty());
            if next_token.is_none() {
                break;
            }
        }
        outcomes
    }

    fn pick<'a>(
        &self,
        secrets: Vec<Secret>,
        errors: Vec<BatchError>,
        requests: &[&'a Request],
    ) -> Outcomes<'a, Reading> {
        let mut outcomes = Outcomes::new();
        for secret in secrets {
            let Some(request) = requests.iter().find(|request| secret.is_called(&request.path)) else { continue };
            let reading = secret.into_answer().map(Reading::Fresh);
            outcomes.insert(request, reading.ok_or_else(|| self.api.garbage(&describe(request))));
        }
        for error in errors {
            let Some(request) = requests.iter().find(|request| request.path == error.secret_id) else { continue };
            let text = error.message.as_ref().map(SecretValue::expose).unwrap_or_default();
            let refusal = Refusal { status: 400, code: error.error_code, text, retry_after: None };
            outcomes.insert(request, Err(self.api.explain(&refusal, "GetSecretValue", &describe(request))));
        }
        outcomes
    }
}

impl Store for SecretsManagerStore {
    async fn log_in(&mut self) -> Result<Token, Failure> {
        self.api.log_in().await
    }

    fn use_token(&mut self, token: &SecretValue) {
        self.api.use_token(token);
        self.denied = Denied::default();
    }

    fn resume(&self, token: Token) -> Option<Token> {
        Keys::unpack(&token.value).map(|_| token)
    }

    async fn read_batch(&mut self, requests: &[&Request], known: &Known) -> Vec<Outcome> {
        self.api.begin();
        let mut outcomes = Outcomes::new();
        let mut wanted = Vec::new();
        for &request in requests {
            match self.is_unchanged(request, known.get(request)).await {
                Ok(true) => drop(outcomes.insert(request, Ok(Reading::NotModified))),
                Ok(false) => wanted.push(request),
                Err(failure) => drop(outcomes.insert(request, Err(failure))),
            }
        }
        let (pinned, current): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|request| request.version().is_some());
        for batch in current.chunks(BATCH) {
            outcomes.extend(self.get_batch(batch).await);
        }
        let left = current.into_iter().filter(|request| !outcomes.contains_key(request)).collect::<Vec<_>>();
        for request in pinned.into_iter().chain(left) {
            let outcome = self.get(request).await;
            outcomes.insert(request, outcome);
        }
        self.api.in_order(requests, known, &outcomes)
    }
}
