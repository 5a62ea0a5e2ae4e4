//! The operator's settings for Azure.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::parse_error::{ParseError, rule};
use crate::provider::{SettingsFaults, auth, http};

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
    /// The node's own identity, or one of the identities that are assigned to it.
    ManagedIdentity,
    /// `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET`.
    Environment,
    /// What `az login` made, which `az` itself is asked for.
    Cli,
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
pub(super) const DEFAULT_SCOPE: &str = "/.default";

/// Who a token is for that Entra ID exchanges.
pub(super) const AUDIENCE: &str = "api://AzureADTokenExchange";

pub(super) const MAX_NAME: usize = 127;
pub(super) const VERSION_DIGITS: usize = 32;

// === impl Method ===

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

// === impl AzureAuth ===

impl AzureAuth {
    pub(super) fn check(&self, faults: &mut SettingsFaults) {
        let fields = [
            ("tokenFile", self.token_file.is_some(), self.method == Method::WorkloadIdentity),
            ("metadata", self.metadata.is_some(), self.method == Method::ManagedIdentity),
        ];
        auth::check_fields(self.method, &fields, faults);
        faults.of("auth.metadata", http::check_address(self.metadata.as_deref()));
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

    pub(super) fn authority(&self) -> &str {
        self.authority.as_deref().unwrap_or(self.cloud().authority)
    }

    pub(super) fn scope(&self) -> String {
        self.scope.clone().unwrap_or_else(|| format!("{}{DEFAULT_SCOPE}", self.cloud().resource))
    }

    /// The scope's resource, as older ends of the protocol want it.
    pub(super) fn resource(&self) -> String {
        let scope = self.scope();
        scope.strip_suffix(DEFAULT_SCOPE).map(str::to_owned).unwrap_or(scope)
    }

    /// What stands behind this vault's address, if the path begins with one.
    pub(super) fn below_address<'a>(&self, path: &'a str) -> Result<&'a str, ParseError> {
        let Some(rest) = path.strip_prefix("https://") else { return Ok(path) };
        let (host, below) = rest.split_once('/').unwrap_or((rest, ""));
        let own = self.address.trim_start_matches("https://").trim_end_matches('/');
        if host.trim_end_matches(":443").eq_ignore_ascii_case(own.trim_end_matches(":443")) {
            Ok(below)
        } else {
            Err(rule(format!(
                "{path:?} is in another vault than this provider's: ask the operator for a provider of that vault"
            )))
        }
    }
}

pub(super) fn is_kind(component: &str) -> bool {
    ["secrets", "certificates"].iter().any(|kind| component.eq_ignore_ascii_case(kind))
}

pub(super) fn is_version(text: &str) -> bool {
    text.len() == VERSION_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(super) fn is_tenant(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) && !text.starts_with('.')
}
