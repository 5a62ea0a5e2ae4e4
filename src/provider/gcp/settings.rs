//! The operator's settings for Google Cloud.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::parse_error::{ParseError, invalid, rule};
use crate::provider::{SettingsFaults, auth, http};

/// Where Secret Manager is and how to log in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GcpSettings {
    /// `https://secretmanager.googleapis.com`, or that of the location, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// PEM certificates of the authorities that may sign Google's; without them, the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Project of references that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// For regional secrets, such as `europe-west3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// How to log in.
    #[serde(default)]
    pub auth: GcpAuth,
}

/// An auth method and where its proof comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GcpAuth {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// `workload-identity-federation`: the provider that trusts the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<IdentityProvider>,
    /// `workload-identity-federation`: a JWT to show instead of the pod's projected token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Who exchanges tokens: `https://sts.googleapis.com/v1/token` if absent; for `application-default-credentials`
    /// instead of what the file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// Who gives tokens of service accounts: `https://iamcredentials.googleapis.com` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonation_url: Option<String>,
    /// `metadata`: address of the machine's metadata service; `GCE_METADATA_HOST`, else `http://169.254.169.254` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// `application-default-credentials`: the file; `GOOGLE_APPLICATION_CREDENTIALS`, else what `gcloud auth
    /// application-default login` left if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Ways to a token that fit a pod, a laptop or a CI job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A service-account token, which a workload identity pool trusts.
    #[default]
    WorkloadIdentityFederation,
    /// The identity that the metadata service names: on GKE the pod's own identity, else the node's service account.
    Metadata,
    /// A file: a service account's key, a person's login, or the configuration of a federation.
    ApplicationDefaultCredentials,
    /// What `gcloud auth login` made, which `gcloud` itself is asked for.
    Cli,
}

/// A provider of a workload identity pool, as the URL that projected tokens are made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdentityProvider(pub(super) String);

/// What a version is called that is always the newest.
pub(super) const LATEST: &str = "latest";

const MAX_NAME: usize = 255;
const MAX_ALIAS: usize = 63;

// === impl IdentityProvider ===

impl IdentityProvider {
    /// As the token service wants it.
    pub(super) fn resource(&self) -> &str {
        self.0.trim_start_matches("https:")
    }
}

impl TryFrom<String> for IdentityProvider {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        let rest = text.strip_prefix("https:").unwrap_or(&text);
        let path = rest.strip_prefix("//iam.googleapis.com/").unwrap_or_default();
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["projects", number, "locations", location, "workloadIdentityPools", pool, "providers", provider]
                if is_number(number) && [location, pool, provider].into_iter().all(|id| is_id(id)) =>
            {
                Ok(Self(format!("https://iam.googleapis.com/{path}")))
            }
            _ => Err(invalid(
                "audience",
                &text,
                "//iam.googleapis.com/projects/<project number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>",
            )),
        }
    }
}

impl From<IdentityProvider> for String {
    fn from(provider: IdentityProvider) -> Self {
        provider.resource().to_owned()
    }
}

// === impl Method ===

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

// === impl GcpAuth ===

impl GcpAuth {
    pub(super) fn check(&self, faults: &mut SettingsFaults) {
        let is_federation = self.method == Method::WorkloadIdentityFederation;
        let is_metadata = self.method == Method::Metadata;
        let is_file = self.method == Method::ApplicationDefaultCredentials;
        let fields = [
            ("audience", self.audience.is_some(), is_federation),
            ("tokenFile", self.token_file.is_some(), is_federation),
            ("tokenUrl", self.token_url.is_some(), is_federation || is_file),
            ("metadata", self.metadata.is_some(), is_metadata),
            ("file", self.file.is_some(), is_file),
        ];
        auth::check_fields(self.method, &fields, faults);
        if is_federation && self.audience.is_none() {
            let needs = "needs the provider of a workload identity pool, //iam.googleapis.com/projects/…";
            faults.missing("auth.audience", &[auth::METHOD], &format!("method {} {needs}", self.method));
        }
        faults.of("auth.tokenUrl", self.token_url.as_deref().map_or(Ok(()), http::check_endpoint));
        faults.of("auth.impersonationUrl", http::check_address(self.impersonation_url.as_deref()));
        faults.of("auth.metadata", http::check_address(self.metadata.as_deref()));
    }
}

// === impl GcpSettings ===

impl GcpSettings {
    pub(super) fn address(&self) -> String {
        match (&self.address, &self.location) {
            (Some(address), _) => address.clone(),
            (None, Some(location)) => format!("https://secretmanager.{location}.rep.googleapis.com"),
            (None, None) => "https://secretmanager.googleapis.com".to_owned(),
        }
    }

    /// `projects/<project>[/locations/<location>]/secrets/<name>`.
    pub(super) fn full_name(&self, project: &str, location: Option<&str>, name: &str) -> Result<String, ParseError> {
        if !is_project(project) {
            return Err(invalid("project", project, "its id or number"));
        }
        if name.is_empty() || name.len() > MAX_NAME || !is_id(name) {
            return Err(invalid("secret name", name, format!("letters, digits, '-' and '_', at most {MAX_NAME}")));
        }
        match (location, self.location.as_deref()) {
            (Some(given), Some(own)) if given == own => {}
            (Some(given), _) => {
                return Err(rule(format!(
                    "{name:?} is in location {given:?}, which another address serves: ask the operator for a provider with location {given:?}"
                )));
            }
            (None, Some(own)) => {
                return Err(rule(format!(
                    "{name:?} is global, and this provider's secrets are in {own:?}: write projects/<project>/locations/{own}/secrets/<name>"
                )));
            }
            (None, None) => {}
        }
        let location = location.map(|location| format!("/locations/{location}")).unwrap_or_default();
        Ok(format!("projects/{project}{location}/secrets/{name}"))
    }
}

/// A number without leading zeros, an alias, or `latest`.
pub(super) fn canonical_version(text: &str) -> Result<String, ParseError> {
    let number = text.trim_start_matches('0');
    if is_number(text) && !number.is_empty() {
        return Ok(number.to_owned());
    }
    let is_alias = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.len() <= MAX_ALIAS && is_id(text);
    if is_alias {
        return Ok(text.to_owned());
    }
    Err(invalid("version", text, format!("a number above zero, an alias, or {LATEST}")))
}

pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

pub(super) fn is_location(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// An id, with a domain before it in old organizations, or a number.
pub(super) fn is_project(text: &str) -> bool {
    let is_fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:".contains(&b);
    !text.is_empty() && text.bytes().all(is_fine) && !text.starts_with(['.', '-', ':'])
}
