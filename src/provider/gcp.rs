//! Google Secret Manager: what the operator sets, and what a reference means there.
//!
//! [API](https://cloud.google.com/secret-manager/docs/reference/rest), version 1.

use std::path::PathBuf;
use std::time::Duration;

use self::settings::{LATEST, canonical_version, is_location, is_project};
use super::{Settings, SettingsFaults, auth, http};
use crate::parse_error::{ParseError, invalid, rule, unknown};
use crate::reference::{Reference, Request, VERSION_PARAM};
use crate::secret::SecretValue;

mod adc;
mod api_types;
mod assertion;
mod errors;
mod gcloud;
mod login;
mod settings;
mod store;

pub(super) use adc::{HOME_FILE as CREDENTIALS_FILE, VARIABLE as CREDENTIALS_VARIABLE};
pub use settings::{GcpAuth, GcpSettings, IdentityProvider, Method};
pub use store::{Gcp, GcpStore};

impl Settings for GcpSettings {
    /// The full resource name; `version` as a number or an alias, left out for the newest.
    ///
    /// A project has a number beside its id, and nobody but Google knows that both are one: requests with the one are
    /// others than those with the other, and a glob of the operator's policy that allows the one allows only the one.
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
        let given = &reference.path;
        let path = given.strip_prefix("//secretmanager.googleapis.com/").unwrap_or(given);
        let components: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let (rest, version) = match components.as_slice() {
            [rest @ .., "versions", version] if rest.len() > 1 => (rest, Some(*version)),
            rest => (rest, None),
        };
        let own_project = || {
            let own = self.project.as_deref();
            own.ok_or_else(|| rule("this provider has no project of its own: write projects/<project>/secrets/<name>"))
        };
        let path = match rest {
            [name] | ["secrets", name] => self.full_name(own_project()?, self.location.as_deref(), name)?,
            ["projects", project, "secrets", name] => self.full_name(project, None, name)?,
            ["projects", project, "locations", location, "secrets", name] => {
                self.full_name(project, Some(location), name)?
            }
            _ => {
                return Err(invalid("secret", given, "its name, or projects/<project>/secrets/<name>"));
            }
        };
        if let Some(other) = reference.params.keys().find(|param| *param != VERSION_PARAM) {
            return Err(unknown("parameter", other, &[VERSION_PARAM]));
        }
        let mut params = reference.params.clone();
        let pinned = params.remove(VERSION_PARAM).map(|version| canonical_version(&version)).transpose()?;
        let version = version.map(canonical_version).transpose()?;
        if let (Some(one), Some(other)) = (&pinned, &version)
            && one != other
        {
            return Err(rule(format!("{given:?} names two versions: leave one out")));
        }
        if let Some(version) = pinned.or(version).filter(|version| version != LATEST) {
            params.insert(VERSION_PARAM.to_owned(), version);
        }
        Ok(Request { provider: provider.to_owned(), path, params })
    }

    fn default_audience(&self) -> Option<&str> {
        self.auth.audience.as_ref().map(|provider| provider.0.as_str())
    }

    /// A project's readers share 600 looks in a minute.
    fn default_refresh(&self) -> Duration {
        Duration::from_mins(5)
    }

    fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    fn reads(&self) -> Option<Vec<PathBuf>> {
        let is_telling = self.auth.method != Method::ApplicationDefaultCredentials;
        is_telling.then(|| self.auth.token_file.iter().cloned().collect())
    }

    fn credential(&self) -> Option<SecretValue> {
        match self.auth.method {
            Method::ApplicationDefaultCredentials => adc::read(self.auth.file.as_deref()).ok(),
            Method::WorkloadIdentityFederation => auth::secret_file(self.auth.token_file.as_deref()?, "JWT").ok(),
            Method::Cli => gcloud::account(),
            Method::Metadata => None,
        }
    }

    fn check(&self, faults: &mut SettingsFaults) {
        if let Some(location) = self.location.as_ref().filter(|location| !is_location(location)) {
            faults.of("location", Err(invalid("location", location, "a region such as europe-west3")));
        }
        let address = self.address.as_deref().map(http::Address::parse).transpose();
        faults.of("address", address.and_then(|it| it.map_or(Ok(()), |address| address.must_not_end_in("v1"))));
        faults.of("ca", self.ca().map_or(Ok(()), http::check_ca));
        if let Some(project) = self.project.as_ref().filter(|project| !is_project(project)) {
            faults.of("project", Err(invalid("project", project, "its id or number")));
        }
        self.auth.check(faults);
    }
}

#[cfg(test)]
mod tests;
