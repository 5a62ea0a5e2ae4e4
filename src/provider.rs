//! Stores that secrets are read from. The trait knows no vendor; the only `match` on a provider's type is here.
//!
//! A provider answers requests; *when* to ask again, renew or replace is the [`crate::source`]'s business.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

mod arrivals;
pub mod auth;
pub mod aws;
pub mod azure;
mod faults;
pub mod file;
pub mod gcp;
pub mod http;
pub mod infisical;
mod interface;
mod names;
pub mod session;
pub mod vault;

pub use crate::reference::Version;
#[cfg(test)]
pub(crate) use arrivals::arrive;
pub use arrivals::{ArrivalRoom, Arrivals};
pub use faults::{SettingsFault, SettingsFaults};
pub use interface::{
    Answer, ErrorKind, Extended, Known, Lease, Login, Parameters, Pending, Provider, ProviderError, ReadResult,
    Reading, Session, Settings, TokenSource,
};

/// The operator's settings of one store, by type; the plan carries them to the agent. No secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ProviderSettings {
    /// HashiCorp Vault (and what speaks its API).
    Vault(vault::VaultSettings),
    /// A directory of files, or one YAML, JSON or dotenv file.
    File(file::FileSettings),
    /// AWS Secrets Manager.
    Aws(aws::AwsSettings),
    /// AWS Systems Manager Parameter Store.
    Ssm(aws::SsmSettings),
    /// Infisical, cloud or self-hosted.
    Infisical(infisical::InfisicalSettings),
    /// Azure Key Vault.
    Azure(azure::AzureSettings),
    /// Google Secret Manager.
    Gcp(gcp::GcpSettings),
}

// === impl ProviderSettings ===

impl ProviderSettings {
    /// Every type's name.
    pub const TYPES: [&'static str; 7] = ["vault", "file", "aws", "ssm", "azure", "gcp", "infisical"];

    /// How a person on a machine of theirs, or a job of CI, logs in to a type of store where nobody says: the `method`
    /// of its `auth`. `has_id_token`: there is a token of CI's own issuer, and a role to show it for. `is_set` tells
    /// whether an environment variable is, `is_left` whether there is a file below the home directory.
    #[must_use]
    pub fn method_of_person(
        kind: &str,
        has_id_token: bool,
        is_set: &dyn Fn(&str) -> bool,
        is_left: &dyn Fn(&str) -> bool,
    ) -> Option<&'static str> {
        Some(match kind {
            "vault" if is_set("VAULT_TOKEN") => "token",
            "vault" if is_set("VAULT_ROLE_ID") && is_set("VAULT_SECRET_ID") => "approle",
            "vault" if has_id_token => "jwt",
            "infisical" if is_set("INFISICAL_TOKEN") => "token",
            "infisical" if is_set("INFISICAL_UNIVERSAL_AUTH_CLIENT_ID") => "universal",
            "infisical" if has_id_token => "oidc",
            "vault" => "token",
            "aws" | "ssm" if is_set("AWS_ACCESS_KEY_ID") => "environment",
            "aws" | "ssm" if has_id_token => "web-identity",
            "aws" | "ssm" => "profile",
            "azure" if is_set("AZURE_CLIENT_SECRET") => "environment",
            "azure" if has_id_token => "workload-identity",
            "gcp" if is_set(gcp::CREDENTIALS_VARIABLE) || is_left(gcp::CREDENTIALS_FILE) => {
                "application-default-credentials"
            }
            "azure" | "gcp" | "infisical" => "cli",
            _ => return None,
        })
    }

    /// What one Kubernetes namespace is to know of the settings: no other namespace's.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Cow<'_, Self> {
        match self {
            Self::Infisical(settings) => {
                settings.in_namespace(namespace).map_or(Cow::Borrowed(self), |own| Cow::Owned(Self::Infisical(own)))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Makes a client that reaches stores so, with the certificates of its settings if those have any. Does no I/O
    /// beyond reading local files: the first read logs in.
    ///
    /// # Errors
    /// `Invalid` if settings such as certificates cannot be used.
    pub fn connect(&self, login: Login, reach: http::Reach) -> Result<Box<dyn Provider>, ProviderError> {
        Ok(match self {
            Self::Vault(settings) => Box::new(vault::Vault::connect(settings, login, reach)?),
            Self::File(settings) => Box::new(file::Files::connect(settings, login)?),
            Self::Aws(settings) => Box::new(aws::SecretsManager::connect(settings, login, aws::within_limits(reach))?),
            Self::Ssm(settings) => Box::new(aws::ParameterStore::connect(settings, login, aws::within_limits(reach))?),
            Self::Infisical(settings) => Box::new(infisical::Infisical::connect(settings, login, reach)?),
            Self::Azure(settings) => Box::new(azure::Azure::connect(settings, login, reach)?),
            Self::Gcp(settings) => Box::new(gcp::Gcp::connect(settings, login, reach)?),
        })
    }

    /// What is the same for every type.
    #[must_use]
    pub fn as_settings(&self) -> &dyn Settings {
        match self {
            Self::Vault(settings) => settings,
            Self::File(settings) => settings,
            Self::Aws(settings) => settings,
            Self::Ssm(settings) => settings,
            Self::Infisical(settings) => settings,
            Self::Azure(settings) => settings,
            Self::Gcp(settings) => settings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_logs_in_as_the_stores_own_tools_would() {
        for (kind, has_id_token, set, expected) in [
            ("vault", false, &[][..], Some("token")),
            ("vault", true, &[], Some("jwt")),
            ("vault", true, &["VAULT_TOKEN"], Some("token")),
            ("vault", true, &["VAULT_ROLE_ID", "VAULT_SECRET_ID"], Some("approle")),
            ("vault", false, &["VAULT_ROLE_ID"], Some("token")),
            ("infisical", true, &["INFISICAL_UNIVERSAL_AUTH_CLIENT_ID"], Some("universal")),
            ("infisical", true, &[], Some("oidc")),
            ("ssm", true, &[], Some("web-identity")),
            ("aws", false, &["AWS_ACCESS_KEY_ID"], Some("environment")),
            ("aws", false, &[], Some("profile")),
            ("infisical", false, &[], Some("cli")),
            ("azure", true, &["AZURE_CLIENT_SECRET"], Some("environment")),
            ("azure", true, &[], Some("workload-identity")),
            ("azure", false, &[], Some("cli")),
            ("gcp", true, &[], Some("cli")),
            ("gcp", false, &["GOOGLE_APPLICATION_CREDENTIALS"], Some("application-default-credentials")),
            (
                "gcp",
                false,
                &[".config/gcloud/application_default_credentials.json"],
                Some("application-default-credentials"),
            ),
            ("file", true, &[], None),
        ] {
            let is_there = |name: &str| set.contains(&name);
            let method = ProviderSettings::method_of_person(kind, has_id_token, &is_there, &is_there);
            assert_eq!(method, expected, "{kind} {has_id_token} {set:?}");
        }
    }
}
