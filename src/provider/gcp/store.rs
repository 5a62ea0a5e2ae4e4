//! The store: reads.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Method as HttpMethod;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::api_types::{AccessedVersion, Damage, VersionState};
use super::errors::{failure, is_googles};
use super::login::Issuer;
use super::settings::{GcpSettings, LATEST, is_number};
use crate::provider::http::{Call, Client, Failure, Reach, Response, bearer};
use crate::provider::session::{LoggedIn, Outcome, Store, Token};
use crate::provider::{Login, ProviderError, Reading, Settings as _, Version};
use crate::reference::Request;
use crate::secret::SecretValue;

/// Who pays for a person's requests.
const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

/// A project's readers share 600 checks of versions a minute, but 90000 reads
/// (<https://cloud.google.com/secret-manager/quotas>): when checks are used up, reads go on for so long.
const CHECK_PAUSE: Duration = Duration::from_mins(10);

/// One Secret Manager, as one pod identity sees it.
pub type Gcp = LoggedIn<GcpStore>;

/// What is Secret Manager's own.
#[derive(Debug)]
pub struct GcpStore {
    issuer: Issuer,
    client: Client,
    token: Option<SecretValue>,
    /// Secrets whose values this login may read, but not what there is to know about their versions.
    metadata_denied: BTreeSet<String>,
    no_checks_before: Option<Instant>,
}

// === impl Gcp ===

impl Gcp {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &GcpSettings, login: Login, reach: Reach) -> Result<Self, ProviderError> {
        settings.validate().map_err(ProviderError::invalid)?;
        let reach = reach.with_ca(settings.ca.as_deref());
        let client = reach.client(&settings.address())?;
        let issuer = Issuer { settings: settings.clone(), login, reach, quota_project: None };
        let metadata_denied = BTreeSet::new();
        Ok(Self::new(GcpStore { issuer, client, token: None, metadata_denied, no_checks_before: None }))
    }
}

// === impl GcpStore ===

impl GcpStore {
    async fn get(&self, path: String) -> Result<Response, Failure> {
        let mut call = Call::new(HttpMethod::GET, path);
        if let Some(token) = &self.token {
            call = call.header(AUTHORIZATION, bearer(token, "the access token")?);
        }
        if let Some(project) =
            self.issuer.quota_project.as_ref().and_then(|project| HeaderValue::from_str(project).ok())
        {
            call = call.header(USER_PROJECT, project);
        }
        Ok(self.client.send(call).await?)
    }

    fn failure(&self, response: &Response, path: &str, version: Option<&str>) -> Failure {
        failure(response, self.issuer.asked(self.client.address()), path, version)
    }

    fn damaged(&self, path: &str, damage: Damage) -> Failure {
        let address = self.client.address();
        match damage {
            Damage::Garbage => Failure::garbage(address, path, "Secret Manager's"),
            Damage::Checksum => Failure::unavailable(format!(
                "{address} answers {path} with a value that was damaged on its way (its CRC32C is another one)"
            )),
        }
    }

    /// The present version without its value; `None` if only a full read can tell.
    async fn check_version(&mut self, path: &str, version: &str) -> Result<Option<Version>, Failure> {
        let is_paused = self.no_checks_before.is_some_and(|until| Instant::now() < until);
        if is_paused || self.metadata_denied.contains(path) {
            return Ok(None);
        }
        let response = self.get(format!("v1/{path}/versions/{version}")).await?;
        match response.status.as_u16() {
            200 => {
                let found = response.parse::<VersionState>().ok_or(Damage::Garbage);
                found.and_then(|state| state.version(path)).map_err(|damage| self.damaged(path, damage))
            }
            403 if is_googles(&response) => {
                self.metadata_denied.insert(path.to_owned());
                Ok(None)
            }
            429 => {
                let pause = response.retry_after.unwrap_or_default().max(CHECK_PAUSE);
                self.no_checks_before = Instant::now().checked_add(pause);
                Ok(None)
            }
            404 => Ok(None),
            _ => Err(self.failure(&response, path, None)),
        }
    }

    async fn read_fully(&mut self, request: &Request, known: Option<&Version>) -> Outcome {
        let path = request.path.as_str();
        let version = request.version().unwrap_or(LATEST);
        let response = self.get(format!("v1/{path}/versions/{version}:access")).await?;
        if response.status.as_u16() != 200 {
            return Err(self.failure(&response, path, request.version()));
        }
        let answer =
            response.parse::<AccessedVersion>().ok_or(Damage::Garbage).and_then(|access| access.into_answer(path));
        let answer = answer.map_err(|damage| self.damaged(path, damage))?;
        if is_number(version) && answer.version.as_ref().is_some_and(|found| found.0 != version) {
            return Err(self.damaged(path, Damage::Garbage));
        }
        if known.is_some() && answer.version.as_ref() == known {
            return Ok(Reading::NotModified);
        }
        Ok(Reading::Fresh(answer))
    }
}

impl Store for GcpStore {
    async fn log_in(&mut self) -> Result<Token, Failure> {
        self.issuer.log_in().await
    }

    fn use_token(&mut self, token: &SecretValue) {
        self.token = Some(token.clone());
        self.metadata_denied.clear();
    }

    async fn read_one(&mut self, request: &Request, known: Option<&Version>) -> Outcome {
        let version = request.version().unwrap_or(LATEST);
        if let Some(known) = known {
            // A numbered version never changes.
            let is_fixed = is_number(version);
            if known.0 == version
                || (!is_fixed && self.check_version(&request.path, version).await?.as_ref() == Some(known))
            {
                return Ok(Reading::NotModified);
            }
        }
        self.read_fully(request, known).await
    }
}
