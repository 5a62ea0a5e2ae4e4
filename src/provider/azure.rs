//! Azure Key Vault: what the operator sets, and what a reference means there.
//!
//! [API](https://learn.microsoft.com/rest/api/keyvault/secrets/operation-groups), version 7.4.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Settings, auth, http};
use crate::reference::{Reference, Request, VERSION_PARAM};

mod api_types;
mod errors;
mod login;
mod store;

pub use store::{Azure, AzureStore};

/// Where the vault is and how to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AzureSettings {
    /// `https://<vault>.vault.azure.net`.
    pub address: String,
    /// PEM certificates of the authorities that may sign the vault's and the authority's; without them, the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Id or domain of the tenant that the vault belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Who gives tokens; the one of the vault's cloud if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// What the token is for; the vaults of the vault's cloud if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// How to log in.
    #[serde(default)]
    pub auth: AzureAuth,
}

/// An auth method and where its proof comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AzureAuth {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// `workload-identity`: a JWT to show instead of the pod's projected token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// `managed-identity`: address of the machine's metadata service, `http://169.254.169.254` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

/// Ways to a token that fit a pod, a laptop or a CI job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A service-account token, which Entra ID trusts by a federated credential of the role.
    #[default]
    WorkloadIdentity,
    /// Whoever the node is, or one of the identities that are assigned to it.
    ManagedIdentity,
    /// `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET`.
    Environment,
}

/// A cloud, by the end of its vaults' host names: what its tokens are for and who gives them.
struct Cloud {
    suffix: &'static str,
    resource: &'static str,
    authority: &'static str,
}

/// <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#dns-suffixes-for-base-url>
const CLOUDS: [Cloud; 3] = [
    Cloud {
        suffix: ".vault.azure.net",
        resource: "https://vault.azure.net",
        authority: "https://login.microsoftonline.com",
    },
    Cloud {
        suffix: ".vault.azure.cn",
        resource: "https://vault.azure.cn",
        authority: "https://login.chinacloudapi.cn",
    },
    Cloud {
        suffix: ".vault.usgovcloudapi.net",
        resource: "https://vault.usgovcloudapi.net",
        authority: "https://login.microsoftonline.us",
    },
];

/// What follows a resource in the scope of a program's own token.
const DEFAULT_SCOPE: &str = "/.default";

/// Who a token is for that Entra ID exchanges.
const AUDIENCE: &str = "api://AzureADTokenExchange";

const MAX_NAME: usize = 127;
const VERSION_DIGITS: usize = 32;

// === impl Method ===

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

// === impl AzureAuth ===

impl AzureAuth {
    fn validate(&self) -> Result<(), String> {
        let fields = [
            ("tokenFile", self.token_file.is_some(), self.method == Method::WorkloadIdentity),
            ("metadata", self.metadata.is_some(), self.method == Method::ManagedIdentity),
        ];
        auth::check_fields(self.method, &fields)?;
        http::check_address("auth.metadata", self.metadata.as_deref())
    }
}

// === impl AzureSettings ===

impl AzureSettings {
    fn cloud(&self) -> &'static Cloud {
        let [public, ..] = &CLOUDS;
        let Ok(address) = http::Address::parse(&self.address) else { return public };
        let host = address.host().to_ascii_lowercase();
        CLOUDS.iter().find(|cloud| host.ends_with(cloud.suffix)).unwrap_or(public)
    }

    fn authority(&self) -> &str {
        self.authority.as_deref().unwrap_or(self.cloud().authority)
    }

    fn scope(&self) -> String {
        self.scope.clone().unwrap_or_else(|| format!("{}{DEFAULT_SCOPE}", self.cloud().resource))
    }

    /// The scope's resource, as older ends of the protocol want it.
    fn resource(&self) -> String {
        let scope = self.scope();
        scope.strip_suffix(DEFAULT_SCOPE).map(str::to_owned).unwrap_or(scope)
    }

    /// What stands behind this vault's address, if the path begins with one.
    fn below_address<'a>(&self, path: &'a str) -> Result<&'a str, String> {
        let Some(rest) = path.strip_prefix("https://") else { return Ok(path) };
        let (host, below) = rest.split_once('/').unwrap_or((rest, ""));
        let own = self.address.trim_start_matches("https://").trim_end_matches('/');
        if host.trim_end_matches(":443").eq_ignore_ascii_case(own.trim_end_matches(":443")) {
            Ok(below)
        } else {
            Err(format!(
                "{path:?} is in another vault than this provider's: ask the operator for a provider of that vault"
            ))
        }
    }
}

impl Settings for AzureSettings {
    /// The name in lower case, since vaults do not tell cases apart; `version` as 32 hexadecimal digits.
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, String> {
        let given = &reference.path;
        let components: Vec<_> = self.below_address(given)?.trim_start_matches('/').split('/').collect();
        let (name, version) = match components.as_slice() {
            // A certificate's private key and chain are the secret of its name.
            [kind, name] if is_kind(kind) => (name, None),
            [kind, name, version] if is_kind(kind) => (name, Some(version)),
            [name] => (name, None),
            [kind, ..] if kind.eq_ignore_ascii_case("keys") => {
                return Err(format!("{given:?} is a key, which never leaves its vault: name a secret or certificate"));
            }
            _ => return Err(format!("{given:?} is no secret of a vault: write its name, such as db-password")),
        };
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(format!("{name:?} is no name of a secret: letters, digits and '-' only, at most {MAX_NAME}"));
        }
        if let Some(other) = reference.params.keys().find(|param| *param != VERSION_PARAM) {
            return Err(format!("{other:?} is no parameter of a vault's secret: only version is"));
        }
        let mut params = reference.params.clone();
        if let Some(version) = version.map(|version| (*version).to_owned()) {
            if params.get(VERSION_PARAM).is_some_and(|other| !other.eq_ignore_ascii_case(&version)) {
                return Err(format!("{given:?} names two versions: leave one out"));
            }
            params.insert(VERSION_PARAM.to_owned(), version);
        }
        if let Some(version) = params.get_mut(VERSION_PARAM) {
            if !is_version(version) {
                return Err(format!(
                    "version {version:?} is no version: write its {VERSION_DIGITS} hexadecimal digits"
                ));
            }
            version.make_ascii_lowercase();
        }
        Ok(Request { provider: provider.to_owned(), path: name.to_ascii_lowercase(), params })
    }

    fn default_audience(&self) -> Option<&str> {
        self.needs_role().then_some(AUDIENCE)
    }

    /// The client id. A managed identity may go without, if the machine has but one.
    fn needs_role(&self) -> bool {
        self.auth.method == Method::WorkloadIdentity
    }

    /// All of a vault's readers share 4000 requests in ten seconds: a thousand pods of twenty secrets use a hundredth.
    fn default_refresh(&self) -> std::time::Duration {
        std::time::Duration::from_mins(5)
    }

    fn validate(&self) -> Result<(), String> {
        http::Address::parse(&self.address)?;
        self.ca.as_deref().map_or(Ok(()), http::check_ca)?;
        http::check_address("authority", self.authority.as_deref())?;
        match &self.tenant {
            Some(tenant) if !is_tenant(tenant) => {
                return Err(format!("tenant {tenant:?} is none: write the directory's id or domain"));
            }
            None if self.auth.method == Method::WorkloadIdentity => {
                return Err("tenant is missing: write the id of the directory that the vault belongs to".to_owned());
            }
            _ => {}
        }
        if let Some(scope) = self.scope.as_ref().filter(|scope| !scope.ends_with(DEFAULT_SCOPE)) {
            return Err(format!("scope {scope:?} is no program's: write <resource>{DEFAULT_SCOPE}"));
        }
        self.auth.validate()
    }
}

fn is_kind(component: &str) -> bool {
    ["secrets", "certificates"].iter().any(|kind| component.eq_ignore_ascii_case(kind))
}

fn is_version(text: &str) -> bool {
    text.len() == VERSION_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_tenant(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) && !text.starts_with('.')
}

#[cfg(test)]
mod tests;
