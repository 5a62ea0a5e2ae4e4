//! Parameter Store: reads.
//!
//! What has changed is asked with the same two operations that read, without decryption: that takes no further right,
//! costs no call of KMS, and shows no value of a `SecureString`. `DescribeParameters` would show not even the others',
//! but it cannot be allowed for less than the names of all parameters of the account, and its rate cannot be raised.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::api::{Api, Outcomes, Service};
use super::keys::Keys;
use super::name::is_tree;
use super::settings::SsmSettings;
use crate::provider::http::{Failure, Reach};
use crate::provider::session::{LoggedIn, Outcome, Store, Token};
use crate::provider::{Answer, ErrorKind, Known, Login, ProviderError, Reading, Version};
use crate::reference::Request;
use crate::secret::{SecretTree, SecretValue};

const SERVICE: Service = Service { name: "ssm", target: "AmazonSSM", title: "Parameter Store" };

/// Most parameters of one `GetParameters`, and of one page of `GetParametersByPath`.
const BATCH: usize = 10;

/// A tree of more was not meant to be files.
const MAX_PAGES: usize = 100;

/// Bytes of a tree's version.
const DIGEST: usize = 16;

/// Parameter Store of one region, as one pod identity sees it.
///
/// Only credentials that AWS no longer knows are replaced: rights are looked up at each call, so a denial would be
/// the same after another login.
pub type ParameterStore = LoggedIn<SsmStore>;

/// What is Parameter Store's own.
#[derive(Debug)]
pub struct SsmStore {
    api: Api,
    /// What would spoil every call that names others too, since this login may not read it.
    spoilers: BTreeSet<Request>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Get<'a> {
    names: &'a [String],
    with_decryption: bool,
}

/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    #[serde(default)]
    parameters: Vec<Parameter>,
    #[serde(default)]
    invalid_parameters: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetByPath<'a> {
    path: &'a str,
    recursive: bool,
    with_decryption: bool,
    max_results: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<&'a str>,
}

/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParametersByPath.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    parameters: Vec<Parameter>,
    #[serde(default)]
    next_token: Option<String>,
}

/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_Parameter.html>
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    name: String,
    #[serde(rename = "ARN", default)]
    arn: Option<String>,
    #[serde(rename = "Type")]
    kind: String,
    /// Encrypted, if it is a `SecureString` and decryption was not asked for.
    value: SecretValue,
    version: u64,
    /// Seconds since 1970.
    last_modified_date: f64,
}

// === impl Parameter ===

impl Parameter {
    /// A parameter that is deleted and made anew counts from 1 again: its number alone is not a version.
    fn version(&self) -> Version {
        Version(format!("{}@{:.3}", self.version, self.last_modified_date))
    }

    /// Whether decryption makes a difference.
    fn is_encrypted(&self) -> bool {
        self.kind == "SecureString"
    }

    fn into_answer(self) -> Answer {
        let version = Some(self.version());
        Answer { tree: SecretTree::Text(self.value), version, expires_in: None, lease: None }
    }
}

/// As `GetParameters` takes it. Of a version of ours, which also says when it was made, the store takes the number.
fn name(request: &Request) -> String {
    match request.version() {
        Some(version) => format!("{}:{}", request.path, version.split('@').next().unwrap_or(version)),
        None => request.path.clone(),
    }
}

/// What a request asks for, in a message.
fn describe(request: &Request) -> String {
    match request.version() {
        Some(version) => format!("version {version} of parameter {}", request.path),
        None if is_tree(&request.path) => format!("every parameter below {}", request.path),
        None => format!("parameter {}", request.path),
    }
}

/// Splits requests: a call names each parameter once, and those that must be alone, alone.
fn batches<'a>(requests: &[&'a Request], spoilers: &BTreeSet<Request>) -> Vec<Vec<&'a Request>> {
    let (alone, mut left): (Vec<_>, Vec<_>) = requests.iter().copied().partition(|request| spoilers.contains(*request));
    let mut batches: Vec<_> = alone.into_iter().map(|request| vec![request]).collect();
    while !left.is_empty() {
        let mut names = BTreeSet::new();
        let (batch, rest) =
            left.into_iter().partition(|request| names.len() < BATCH && names.insert(request.path.as_str()));
        batches.push(batch);
        left = rest;
    }
    batches
}

/// Parameters of a tree that this login may not read, and why.
type WithheldParameters = BTreeMap<String, &'static str>;

/// Behind a parameter's name.
const UNDECRYPTED: &str = "cannot be had: this login lacks kms:Decrypt on its KMS key, or ssm:GetParameters on it";

/// The version of a tree: a digest of its parameters' names and versions, never of values, and of what is withheld.
fn tree_version(parameters: &BTreeMap<String, Parameter>, withheld: &WithheldParameters) -> Version {
    let mut digest = Context::new(&SHA256);
    for (name, parameter) in parameters {
        digest.update(format!("{name}\0{}\n", parameter.version()).as_bytes());
    }
    for name in withheld.keys() {
        digest.update(format!("{name}\0withheld\n").as_bytes());
    }
    let mut text = hex::encode(digest.finish());
    text.truncate(2 * DIGEST);
    Version(text)
}

// === impl ParameterStore ===

impl ParameterStore {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &SsmSettings, login: Login, reach: Reach) -> Result<Self, ProviderError> {
        let api = Api::connect(&SERVICE, &settings.0, login, reach)?;
        Ok(Self::new(SsmStore { api, spoilers: BTreeSet::new() }))
    }
}

// === impl SsmStore ===

impl SsmStore {
    async fn read_single<'a>(&mut self, requests: &[&'a Request], known: &Known) -> Outcomes<'a, Reading> {
        let (held, mut wanted): (Vec<_>, Vec<_>) = requests.iter().partition(|request| known.contains_key(**request));
        let mut outcomes = Outcomes::new();
        for (request, found) in self.get_all(&held, false).await {
            let outcome = match found {
                Ok(parameter) if known.get(request) == Some(&parameter.version()) => Ok(Reading::NotModified),
                Ok(parameter) if parameter.is_encrypted() => {
                    wanted.push(request);
                    continue;
                }
                found => found.map(Parameter::into_answer).map(Reading::Fresh),
            };
            outcomes.insert(request, outcome);
        }
        let found = self.get_all(&wanted, true).await;
        let fresh = |found: Result<Parameter, _>| found.map(Parameter::into_answer).map(Reading::Fresh);
        outcomes.extend(found.into_iter().map(|(request, found)| (request, fresh(found))));
        outcomes
    }

    /// Gets parameters, ten with a call. One that may not be read would keep the others from being read: then each is
    /// asked for alone, and from then on that one is.
    async fn get_all<'a>(&mut self, requests: &[&'a Request], decrypted: bool) -> Outcomes<'a, Parameter> {
        let mut outcomes = Outcomes::new();
        for batch in batches(requests, &self.spoilers) {
            let found = match self.get(&batch, decrypted).await {
                Err(failure) if failure.is_about_one() && batch.len() > 1 => {
                    outcomes.extend(self.get_each(&batch, decrypted).await);
                    continue;
                }
                found => found,
            };
            for request in batch {
                let outcome = found.as_ref().map_err(Failure::clone).and_then(|found| self.pick(request, found));
                outcomes.insert(request, outcome);
            }
        }
        outcomes
    }

    async fn get_each<'a>(&mut self, requests: &[&'a Request], decrypted: bool) -> Outcomes<'a, Parameter> {
        let mut outcomes = Outcomes::new();
        for request in requests {
            let outcome = match self.get(&[request], decrypted).await {
                Ok(found) => self.pick(request, &found),
                Err(failure) => {
                    if failure.is_about_one() {
                        self.spoilers.insert((*request).clone());
                    }
                    Err(failure)
                }
            };
            outcomes.insert(request, outcome);
        }
        outcomes
    }

    async fn get(&mut self, requests: &[&Request], with_decryption: bool) -> Result<Found, Failure> {
        let names: Vec<_> = requests.iter().map(|request| name(request)).collect();
        let what = match requests {
            [request] => describe(request),
            _ => format!("{} parameters", requests.len()),
        };
        self.api.call("GetParameters", &Get { names: &names, with_decryption }, &what).await
    }

    fn pick(&self, request: &Request, found: &Found) -> Result<Parameter, Failure> {
        let is_it = |parameter: &&Parameter| {
            parameter.name == request.path || parameter.arn.as_deref() == Some(request.path.as_str())
        };
        if let Some(parameter) = found.parameters.iter().find(is_it) {
            return Ok(parameter.clone());
        }
        if found.invalid_parameters.contains(&name(request)) {
            return Err(Failure::not_found(format!("{} does not exist", describe(request))));
        }
        Err(self.api.garbage(&describe(request)))
    }

    async fn read_tree(&mut self, request: &Request, known: Option<&Version>) -> Result<Reading, Failure> {
        let mut found = None;
        if !self.spoilers.contains(request) {
            if known.is_some() {
                let listed = self.get_tree(request, false).await?;
                if known == Some(&tree_version(&listed, &WithheldParameters::new())) {
                    return Ok(Reading::NotModified);
                }
                found = Some(listed).filter(|listed| !listed.values().any(Parameter::is_encrypted));
            }
            if found.is_none() {
                match self.get_tree(request, true).await {
                    Ok(whole) => found = Some(whole),
                    // One that may not be decrypted spoils it for the others.
                    Err(failure) if failure.is_about_one() => drop(self.spoilers.insert(request.clone())),
                    Err(failure) => return Err(failure),
                }
            }
        }
        let (parameters, withheld) = match found {
            Some(parameters) => (parameters, WithheldParameters::new()),
            None => self.get_tree_each(request).await?,
        };
        if parameters.is_empty() && withheld.is_empty() {
            let message = format!("there are no parameters below {}", request.path);
            return Err(Failure::not_found(message));
        }
        let version = Some(tree_version(&parameters, &withheld));
        let entries = parameters.into_iter().map(|(name, parameter)| (name, SecretTree::Text(parameter.value)));
        let entries = entries.chain(withheld.into_iter().map(|(name, why)| (name, SecretTree::Withheld(why.into()))));
        let answer = Answer { tree: SecretTree::Map(entries.collect()), version, expires_in: None, lease: None };
        Ok(Reading::Fresh(answer))
    }

    /// A tree in which not everything may be decrypted: the others of it, and why those not.
    async fn get_tree_each(
        &mut self,
        request: &Request,
    ) -> Result<(BTreeMap<String, Parameter>, WithheldParameters), Failure> {
        let listed = self.get_tree(request, false).await?;
        let (encrypted, mut parameters): (BTreeMap<_, _>, BTreeMap<_, _>) =
            listed.into_iter().partition(|(_, parameter)| parameter.is_encrypted());
        let single = |parameter: &Parameter| Request { path: parameter.name.clone(), ..request.clone() };
        let requests: Vec<Request> = encrypted.values().map(single).collect();
        let mut outcomes = self.get_all(&requests.iter().collect::<Vec<_>>(), true).await;
        let mut withheld = WithheldParameters::new();
        for (name, request) in encrypted.into_keys().zip(&requests) {
            match outcomes.remove(request) {
                Some(Ok(parameter)) => drop(parameters.insert(name, parameter)),
                Some(Err(failure)) if failure.is_about_one() => drop(withheld.insert(name, UNDECRYPTED)),
                // Gone meanwhile.
                Some(Err(failure)) if failure.error.kind == ErrorKind::NotFound => {}
                Some(Err(failure)) => return Err(failure),
                None => {}
            }
        }
        Ok((parameters, withheld))
    }

    /// All parameters of a tree, by their names within it.
    async fn get_tree(
        &mut self,
        request: &Request,
        with_decryption: bool,
    ) -> Result<BTreeMap<String, Parameter>, Failure> {
        let path = request.path.trim_end_matches('/');
        let what = describe(request);
        let mut parameters = BTreeMap::new();
        let mut next_token = None;
        for _ in 0..MAX_PAGES {
            let body = GetByPath {
                path,
                recursive: true,
                with_decryption,
                max_results: BATCH,
                next_token: next_token.as_deref(),
            };
            let page: Page = self.api.call("GetParametersByPath", &body, &what).await?;
            for parameter in page.parameters {
                let Some(name) = parameter.name.strip_prefix(&request.path) else { continue };
                parameters.insert(name.to_owned(), parameter);
            }
            next_token = page.next_token.filter(|token| !token.is_empty());
            if next_token.is_none() {
                return Ok(parameters);
            }
        }
        let message = format!("there are more than {MAX_PAGES} pages of parameters below {path}: write a longer path");
        Err(Failure::invalid(message))
    }
}

impl Store for SsmStore {
    async fn log_in(&mut self) -> Result<Token, Failure> {
        self.api.log_in().await
    }

    fn use_token(&mut self, token: &SecretValue) {
        self.api.use_token(token);
        self.spoilers.clear();
    }

    fn resume(&self, token: Token) -> Option<Token> {
        Keys::unpack(&token.value).map(|_| token)
    }

    async fn read_batch(&mut self, requests: &[&Request], known: &Known) -> Vec<Outcome> {
        self.api.begin();
        let (trees, single): (Vec<_>, Vec<_>) = requests.iter().partition(|request| is_tree(&request.path));
        let mut outcomes = self.read_single(&single, known).await;
        for request in trees {
            let outcome = self.read_tree(request, known.get(request)).await;
            outcomes.insert(request, outcome);
        }
        self.api.in_order(requests, known, &outcomes)
    }
}

#[cfg(test)]
mod tests;
