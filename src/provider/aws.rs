//! AWS Secrets Manager and Systems Manager Parameter Store: what the operator sets, and what a reference means there.
//!
//! Both speak the same protocol with the same signatures and credentials.
//! [Secrets Manager](https://docs.aws.amazon.com/secretsmanager/latest/apireference/),
//! [Parameter Store](https://docs.aws.amazon.com/systems-manager/latest/APIReference/).

use std::path::PathBuf;
use std::time::Duration;

use self::settings::REFRESH;
use super::{Settings, SettingsFaults};
use crate::parse_error::ParseError;
use crate::reference::{Reference, Request};
use crate::secret::SecretValue;

mod api;
mod credentials;
mod errors;
mod keys;
mod name;
mod parameters;
mod profile;
mod secrets;
mod settings;
mod sso;
mod sts;

pub use api::within_limits;
pub use parameters::{ParameterStore, SsmStore};
pub use secrets::{SecretsManager, SecretsManagerStore};
pub use settings::{AwsAuth, AwsSettings, Method, SsmSettings};

impl Settings for AwsSettings {
    /// A secret's name; of another account, its whole ARN. `version` is a staging label or a version's id.
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
        name::secret(self, provider, reference)
    }

    fn default_audience(&self) -> Option<&str> {
        self.default_audience()
    }

    fn needs_role(&self) -> bool {
        self.auth.method == Method::WebIdentity
    }

    fn default_refresh(&self) -> Duration {
        REFRESH
    }

    fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    fn reads(&self) -> Option<Vec<PathBuf>> {
        let is_telling = self.auth.method != Method::Profile;
        is_telling.then(|| self.auth.token_file.iter().cloned().collect())
    }

    fn credential(&self) -> Option<SecretValue> {
        credentials::credential(&self.auth)
    }

    fn check(&self, faults: &mut SettingsFaults) {
        self.check(faults);
    }
}

// === impl SsmSettings ===

impl Settings for SsmSettings {
    /// A parameter's name, or a path with `/` at its end for all parameters below it; of another account, a parameter's
    /// whole ARN. `version` is a number or a label.
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
        name::parameter(&self.0, provider, reference)
    }

    fn default_audience(&self) -> Option<&str> {
        self.0.default_audience()
    }

    fn needs_role(&self) -> bool {
        Settings::needs_role(&self.0)
    }

    fn default_refresh(&self) -> Duration {
        REFRESH
    }

    fn ca(&self) -> Option<&str> {
        self.0.ca.as_deref()
    }

    fn reads(&self) -> Option<Vec<PathBuf>> {
        self.0.reads()
    }

    fn credential(&self) -> Option<SecretValue> {
        self.0.credential()
    }

    fn check(&self, faults: &mut SettingsFaults) {
        self.0.check(faults);
    }
}

#[cfg(test)]
mod tests;
