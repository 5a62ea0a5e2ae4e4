//! The operator's settings for Vault.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::parse_error::{ParseError, invalid, rule};
use crate::provider::{SettingsFaults, auth};
use crate::reference::VERSION_PARAM;

/// Where Vault is and how to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VaultSettings {
    /// `https://host:port`; plain `http://` only on this machine.
    pub address: String,
    /// PEM certificates of the authorities that may sign Vault's; without them, the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Namespace (Vault Enterprise, `OpenBao`), sent as `X-Vault-Namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Paths of mounts, without `/` at their ends, that the operator knows to be no KV: parameters may be written there
    /// even if a login may not be told what is mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writable_mounts: Vec<String>,
    /// How to log in.
    #[serde(default)]
    pub auth: VaultAuth,
}

/// An auth method and where its proof comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VaultAuth {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// Where it is mounted, without `auth/`; the method's own name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// `token`: a file with a Vault token. `kubernetes`, `jwt`: a JWT to show instead of the pod's projected token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// `approle`: a file with the role id; `VAULT_ROLE_ID` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_id_file: Option<PathBuf>,
    /// `approle`: a file with the secret id; `VAULT_SECRET_ID` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_id_file: Option<PathBuf>,
}

/// Vault's auth methods that fit a pod, a laptop or a CI job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A service-account token, which Vault lets the cluster review.
    #[default]
    Kubernetes,
    /// A JWT, which Vault verifies with its issuer's keys.
    Jwt,
    /// A token made elsewhere: `tokenFile`, else `VAULT_TOKEN`, else `~/.vault-token`.
    Token,
    /// A role id and a secret id: the files, else `VAULT_ROLE_ID` and `VAULT_SECRET_ID`.
    Approle,
}

/// First components of paths that hold no secrets but Vault's own affairs.
pub(super) const NOT_SECRETS: [(&str, &str); 4] = [
    ("v1", "the API's version, which stands there once or not at all"),
    ("sys", "Vault's administration"),
    ("auth", "logins, which hushpod does itself"),
    ("cubbyhole", "private to each login, so nothing can be there"),
];

// === impl Method ===

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

// === impl VaultAuth ===

impl VaultAuth {
    /// Where the method is mounted, without `auth/`.
    pub(super) fn mount(&self) -> String {
        self.mount.clone().unwrap_or_else(|| self.method.to_string())
    }

    pub(super) fn check(&self, faults: &mut SettingsFaults) {
        let method = self.method;
        if let Some(mount) = &self.mount {
            let is_plain = mount.split('/').all(is_plain_component);
            if self.method == Method::Token || !is_plain || mount.starts_with("auth/") {
                let what = "what stands between auth/ and /login, and nothing for method token";
                faults.together("auth.mount", &[auth::METHOD], invalid("mount", mount, what));
            }
        }
        let is_approle = self.method == Method::Approle;
        let files = [("roleIdFile", self.role_id_file.is_some()), ("secretIdFile", self.secret_id_file.is_some())];
        if is_approle && self.role_id_file.is_some() != self.secret_id_file.is_some() {
            let problem = rule("auth.roleIdFile and auth.secretIdFile belong together: set both, or none");
            faults.together("auth.roleIdFile", &["auth.secretIdFile", auth::METHOD], problem);
        }
        let [role_id, secret_id] = files.map(|(field, is_set)| (field, is_set, is_approle));
        let token = ("tokenFile", self.token_file.is_some(), !is_approle);
        auth::check_fields(method, &[role_id, secret_id, token], faults);
    }
}

// === impl VaultSettings ===

impl VaultSettings {
    /// Whether the operator says that parameters may be written to this canonical path.
    #[must_use]
    pub(super) fn is_writable(&self, path: &str) -> bool {
        let below = |mount: &String| path.strip_prefix(mount.as_str()).is_some_and(|rest| rest.starts_with('/'));
        self.writable_mounts.iter().any(below)
    }

    /// A parameter makes a request a write, and a KV engine would take it for the new values of a secret: what is
    /// certainly none is refused before it is sent.
    pub(super) fn check_parameters(&self, path: &str, params: &BTreeMap<String, String>) -> Result<(), ParseError> {
        let Some(name) = params.keys().find(|name| *name != VERSION_PARAM) else { return Ok(()) };
        if let Some(typo) = params.keys().find(|name| is_nearly_version(name)) {
            return Err(rule(format!("unknown parameter {typo:?}; did you mean \"{VERSION_PARAM}\"?")));
        }
        let is_kv_path = path.split('/').skip(1).any(|component| component == "data");
        if is_kv_path && !self.is_writable(path) {
            return Err(rule(format!(
                "parameter {name:?} would be written, and {path} has the form of a KV secret, which takes no parameter \
                 but {VERSION_PARAM}: leave it out, or the operator lists the mount in writableMounts"
            )));
        }
        Ok(())
    }
}

/// Whether a name is `version` with one letter wrong. No engine has a parameter of such a name that a secret is asked by.
fn is_nearly_version(name: &str) -> bool {
    name != VERSION_PARAM
        && name.len().abs_diff(VERSION_PARAM.len()) <= 1
        && strsim::damerau_levenshtein(&name.to_ascii_lowercase(), VERSION_PARAM) <= 1
}

pub(super) fn is_plain_component(component: &str) -> bool {
    !matches!(component, "" | "." | "..") && !component.contains(char::is_control)
}
