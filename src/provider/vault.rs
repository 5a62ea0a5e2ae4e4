//! `HashiCorp` Vault, and what speaks its API: what the operator sets, and what a reference means there.
//!
//! [API](https://developer.hashicorp.com/vault/api-docs); where it is silent, Vault 1.19.5 was asked.

use std::path::PathBuf;

use hyper::header::HeaderValue;

use self::settings::{NOT_SECRETS, is_plain_component};
use super::{Parameters, Settings, SettingsFaults, http};
use crate::parse_error::{ParseError, invalid, rule};
use crate::reference::{Reference, Request, VERSION_PARAM};
use crate::secret::SecretValue;

mod api;
mod api_types;
mod errors;
mod kv;
mod login;
mod settings;
mod store;

pub use settings::{Method, VaultAuth, VaultSettings};
pub use store::{Vault, VaultStore};

impl Settings for VaultSettings {
    /// The API path without `v1/`; `version` as a plain number.
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
        let given = &reference.path;
        let rooted = given.trim_start_matches('/');
        let components: Vec<_> =
            rooted.strip_prefix("v1/").unwrap_or(rooted).split('/').filter(|component| !component.is_empty()).collect();
        let Some(first) = components.first() else {
            return Err(invalid("Vault path", given, "the API path, such as secret/data/db"));
        };
        if components.iter().any(|component| !is_plain_component(component)) {
            return Err(rule(format!(
                "{given:?} has a '.', '..' or control character in its path, which Vault refuses"
            )));
        }
        if let Some((name, what)) = NOT_SECRETS.iter().find(|(name, _)| name == first) {
            return Err(rule(format!("{given:?} is not a secret: {name}/ is {what}")));
        }
        let mut params = reference.params.clone();
        if let Some(version) = params.get_mut(VERSION_PARAM) {
            match version.parse::<u32>() {
                Ok(number) if number > 0 && !version.starts_with('+') => *version = number.to_string(),
                _ => return Err(invalid("version", version, "a whole number above zero")),
            }
        }
        let path = components.join("/");
        self.check_parameters(&path, &params)?;
        Ok(Request { provider: provider.to_owned(), path, params })
    }

    /// Every other parameter is the engine's, and written.
    fn parameters(&self) -> Parameters {
        Parameters { narrowing: &[VERSION_PARAM], widening: None }
    }

    /// Whether the path has the form `<mount>/creds/<role>` that engines with leases share. Not every one does, and an
    /// old KV engine may have such a path too: what an answer says at read time counts.
    fn is_leased(&self, request: &Request) -> bool {
        let mut components = request.path.split('/').rev().skip(1);
        components.next() == Some("creds") && components.next().is_some() && !request.path.contains("/data/")
    }

    /// What is written with parameters makes something anew, a certificate say.
    fn is_generated(&self, request: &Request) -> bool {
        self.is_leased(request) || request.params.keys().any(|name| !self.parameters().narrows(name))
    }

    fn default_audience(&self) -> Option<&str> {
        self.needs_role().then_some("vault")
    }

    fn needs_role(&self) -> bool {
        matches!(self.auth.method, Method::Kubernetes | Method::Jwt)
    }

    fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    fn reads(&self) -> Option<Vec<PathBuf>> {
        let auth = &self.auth;
        Some([&auth.token_file, &auth.role_id_file, &auth.secret_id_file].into_iter().flatten().cloned().collect())
    }

    fn credential(&self) -> Option<SecretValue> {
        login::credential(&self.auth)
    }

    fn check(&self, faults: &mut SettingsFaults) {
        faults.of("address", http::Address::parse(&self.address).and_then(|address| address.must_not_end_in("v1")));
        faults.of("ca", self.ca().map_or(Ok(()), http::check_ca));
        if let Some(namespace) = &self.namespace
            && (namespace.trim_matches('/').is_empty() || HeaderValue::from_str(namespace).is_err())
        {
            faults.of("namespace", Err(invalid("namespace", namespace, "its path, such as admin/team")));
        }
        let is_mount = |mount: &str| mount.split('/').all(is_plain_component) && !mount.starts_with("v1/");
        for (index, mount) in self.writable_mounts.iter().enumerate().filter(|(_, mount)| !is_mount(mount)) {
            let problem = invalid("mount", mount, "its path, such as pki or team/pki");
            faults.of(&format!("writableMounts[{index}]"), Err(problem));
        }
        self.auth.check(faults);
    }
}

#[cfg(test)]
mod tests;
