//! Azure Key Vault: what the operator sets, and what a reference means there.
//!
//! [API](https://learn.microsoft.com/rest/api/keyvault/secrets/operation-groups), version 7.4.

use std::path::PathBuf;

use self::settings::{AUDIENCE, DEFAULT_SCOPE, MAX_NAME, VERSION_DIGITS, is_kind, is_tenant, is_version};
use super::{Settings, SettingsFaults, auth, http};
use crate::parse_error::{ParseError, invalid, rule, unknown};
use crate::reference::{Reference, Request, VERSION_PARAM};
use crate::secret::SecretValue;

mod api_types;
mod errors;
mod login;
mod settings;
mod store;

pub use settings::{AzureAuth, AzureSettings, Method};
pub use store::{Azure, AzureStore};

impl Settings for AzureSettings {
    /// The name in lower case, since vaults do not tell cases apart; `version` as 32 hexadecimal digits.
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
        let given = &reference.path;
        let components: Vec<_> = self.below_address(given)?.trim_start_matches('/').split('/').collect();
        let (name, version) = match components.as_slice() {
            // A certificate's private key and chain are the secret of its name.
            [kind, name] if is_kind(kind) => (name, None),
            [kind, name, version] if is_kind(kind) => (name, Some(version)),
            [name] => (name, None),
            [kind, ..] if kind.eq_ignore_ascii_case("keys") => {
                return Err(rule(format!(
                    "{given:?} is a key, which never leaves its vault: name a secret or certificate"
                )));
            }
            _ => return Err(invalid("secret", given, "its name in the vault, such as db-password")),
        };
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(invalid("secret name", name, format!("letters, digits and '-' only, at most {MAX_NAME}")));
        }
        if let Some(other) = reference.params.keys().find(|param| *param != VERSION_PARAM) {
            return Err(unknown("parameter", other, &[VERSION_PARAM]));
        }
        let mut params = reference.params.clone();
        if let Some(version) = version.map(|version| (*version).to_owned()) {
            if params.get(VERSION_PARAM).is_some_and(|other| !other.eq_ignore_ascii_case(&version)) {
                return Err(rule(format!("{given:?} names two versions: leave one out")));
            }
            params.insert(VERSION_PARAM.to_owned(), version);
        }
        if let Some(version) = params.get_mut(VERSION_PARAM) {
            if !is_version(version) {
                return Err(invalid("version", version, format!("{VERSION_DIGITS} hexadecimal digits")));
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

    fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    fn reads(&self) -> Option<Vec<PathBuf>> {
        Some(self.auth.token_file.iter().cloned().collect())
    }

    fn credential(&self) -> Option<SecretValue> {
        login::credential(&self.auth)
    }

    fn check(&self, faults: &mut SettingsFaults) {
        faults.of("address", http::check_address(Some(&self.address)));
        faults.of("ca", self.ca().map_or(Ok(()), http::check_ca));
        faults.of("authority", http::check_address(self.authority.as_deref()));
        match &self.tenant {
            Some(tenant) if !is_tenant(tenant) => {
                faults.of("tenant", Err(invalid("tenant", tenant, "the directory's id or domain")));
            }
            None if self.auth.method == Method::WorkloadIdentity => {
                let sentence = "write the id of the directory that the vault belongs to";
                faults.missing("tenant", &[auth::METHOD], sentence);
            }
            _ => {}
        }
        if let Some(scope) = self.scope.as_ref().filter(|scope| !scope.ends_with(DEFAULT_SCOPE)) {
            faults.of("scope", Err(invalid("scope", scope, format!("<resource>{DEFAULT_SCOPE}"))));
        }
        self.auth.check(faults);
    }
}

#[cfg(test)]
mod tests;
