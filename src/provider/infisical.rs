//! Infisical: what the operator sets, and what a reference means there.
//!
//! [API](https://infisical.com/docs/api-reference); where it is silent, servers of several years were asked.

use std::path::PathBuf;
use std::time::Duration;

use self::settings::is_name;
use super::{Parameters, Settings, SettingsFaults, http};
use crate::parse_error::{ParseError, invalid, rule};
use crate::reference::{Reference, Request};
use crate::secret::SecretValue;

mod api;
mod api_types;
mod asked;
mod cli;
mod errors;
mod events;
mod lease;
mod limits;
mod login;
mod projects;
mod secrets;
mod settings;
mod store;

pub use settings::{InfisicalAuth, InfisicalSettings, Method, Place, PlaceParam};
pub use store::{Infisical, InfisicalStore};

impl Settings for InfisicalSettings {
    /// The folder's path from the root, and parameters that say more than the place already does. `#KEY` is taken from
    /// the folder's answer, so a folder is asked for once, whatever files it feeds; only `?version=` asks for one
    /// secret, the one that `#KEY` or `?secret=` names.
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
        asked::resolve(self, provider, reference)
    }

    fn parameters(&self) -> Parameters {
        asked::PARAMETERS
    }

    fn is_leased(&self, request: &Request) -> bool {
        request.params.contains_key(asked::DYNAMIC)
    }

    fn default_audience(&self) -> Option<&str> {
        self.needs_role().then_some("infisical")
    }

    fn needs_role(&self) -> bool {
        self.auth.method.shows_jwt()
    }

    /// Every request counts against a limit that all pods behind one address share, and is an entry in the audit log.
    fn default_refresh(&self) -> Duration {
        Duration::from_mins(5)
    }

    fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    fn reads(&self) -> Option<Vec<PathBuf>> {
        let auth = &self.auth;
        let files = [&auth.token_file, &auth.client_id_file, &auth.client_secret_file];
        Some(files.into_iter().flatten().cloned().collect())
    }

    fn credential(&self) -> Option<SecretValue> {
        login::credential(&self.auth)
    }

    fn check(&self, faults: &mut SettingsFaults) {
        faults.of("address", http::Address::parse(&self.address).and_then(|address| address.must_not_end_in("api")));
        faults.of("ca", self.ca().map_or(Ok(()), http::check_ca));
        if let Some(slug) = self.organization.as_deref().filter(|slug| !is_name(slug)) {
            faults.of("organization", Err(invalid("organization", slug, "its slug")));
        }
        self.place().check(faults);
        for (namespace, place) in &self.namespaces {
            let field = format!("namespaces.{namespace}");
            if *place == Place::default() {
                faults.of(&field, Err(rule("is empty: write {project: …, environment: …}")));
            }
            faults.below(&field, |faults| place.check(faults));
        }
        self.auth.check(faults);
    }
}

#[cfg(test)]
mod tests;
