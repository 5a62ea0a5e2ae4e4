//! The client: reads.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Method as HttpMethod;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper_util::client::proxy::matcher::Matcher;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::answer::{Access, Damage, Look};
use super::complaint::{failure, is_googles};
use super::{GcpSettings, LATEST, is_number};
use crate::provider::auth::bearer::{Bearer, BearerStore, Failure, Reach};
use crate::provider::http::{Address, Call, Client, Limits, Response};
use crate::provider::{ErrorKind, Login, ProviderError, Reading, Settings as _, Version};
use crate::reference::Request;

/// Who pays for a person's requests.
const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

/// A project's readers share 600 looks a minute, but 90000 reads
/// (<https://cloud.google.com/secret-manager/quotas>): when looks are used up, reads go on for so long.
const LOOK_PAUSE: Duration = Duration::from_mins(10);

/// One Secret Manager, as one pod identity sees it.
#[derive(Debug)]
pub struct Gcp {
    pub(super) settings: GcpSettings,
    pub(super) login: Login,
    pub(super) reach: Reach,
    client: Client,
    session: Option<Bearer>,
    pub(super) quota_project: Option<String>,
    /// Secrets whose values this login may read, but not what there is to know about their versions.
    unlooked: BTreeSet<String>,
    no_looks_before: Option<Instant>,
}

// === impl Gcp ===

impl Gcp {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &GcpSettings, login: Login, proxy: Matcher) -> Result<Self, ProviderError> {
        Self::connect_with(settings, login, Limits::default(), proxy)
    }

    /// As [`Self::connect`], with other limits than the usual.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect_with(
        settings: &GcpSettings,
        login: Login,
        limits: Limits,
        proxy: Matcher,
    ) -> Result<Self, ProviderError> {
        settings.validate().map_err(|problem| ProviderError::new(ErrorKind::Invalid, problem))?;
        let reach = Reach { ca: settings.ca.clone(), limits, proxy };
        let client = reach.client(&settings.address())?;
        Ok(Self {
            settings: settings.clone(),
            login,
            reach,
            client,
            session: None,
            quota_project: None,
            unlooked: BTreeSet::new(),
            no_looks_before: None,
        })
    }

    pub(super) fn address(&self) -> &Address {
        self.client.address()
    }

    async fn get(&self, path: String) -> Result<Response, Failure> {
        let mut call = Call::new(HttpMethod::GET, path);
        if let Some(bearer) = &self.session {
            call = call.header(AUTHORIZATION, bearer.header()?);
        }
        if let Some(project) = self.quota_project.as_ref().and_then(|project| HeaderValue::from_str(project).ok()) {
            call = call.header(USER_PROJECT, project);
        }
        Ok(self.client.send(call).await?)
    }

    fn parse<T: DeserializeOwned>(&self, response: &Response, path: &str) -> Result<T, Failure> {
        serde_json::from_slice(&response.body).map_err(|_| self.damaged(path, Damage::Garbage))
    }

    fn damaged(&self, path: &str, damage: Damage) -> Failure {
        let problem = match damage {
            Damage::Garbage => "with something that is not Secret Manager's JSON",
            Damage::Checksum => "with a value that was damaged on its way (its CRC32C is another one)",
        };
        Failure::new(ErrorKind::Unavailable, format!("{} answers {path} {problem}", self.address()))
    }

    /// The present version without its value; `None` if only a full read can tell.
    async fn look(&mut self, path: &str, version: &str) -> Result<Option<Version>, Failure> {
        let is_paused = self.no_looks_before.is_some_and(|until| Instant::now() < until);
        if is_paused || self.unlooked.contains(path) {
            return Ok(None);
        }
        let response = self.get(format!("v1/{path}/versions/{version}")).await?;
        match response.status.as_u16() {
            200 => {
                let look: Look = self.parse(&response, path)?;
                look.version(path).map_err(|damage| self.damaged(path, damage))
            }
            403 if is_googles(&response) => {
                self.unlooked.insert(path.to_owned());
                Ok(None)
            }
            429 => {
                let pause = response.retry_after.unwrap_or_default().max(LOOK_PAUSE);
                self.no_looks_before = Instant::now().checked_add(pause);
                Ok(None)
            }
            404 => Ok(None),
            _ => Err(failure(&response, self, path, None)),
        }
    }

    async fn read_fully(&mut self, request: &Request, known: Option<&Version>) -> Result<Reading, Failure> {
        let path = request.path.as_str();
        let version = request.version().unwrap_or(LATEST);
        let response = self.get(format!("v1/{path}/versions/{version}:access")).await?;
        if response.status.as_u16() != 200 {
            return Err(failure(&response, self, path, request.version()));
        }
        let access: Access = self.parse(&response, path)?;
        let answer = access.into_answer(path).map_err(|damage| self.damaged(path, damage))?;
        if is_number(version) && answer.version.as_ref().is_some_and(|found| found.0 != version) {
            return Err(self.damaged(path, Damage::Garbage));
        }
        if known.is_some() && answer.version.as_ref() == known {
            return Ok(Reading::NotModified);
        }
        Ok(Reading::Fresh(answer))
    }
}

impl BearerStore for Gcp {
    fn held(&self) -> Option<&Bearer> {
        self.session.as_ref()
    }

    fn hold(&mut self, bearer: Option<Bearer>) {
        self.session = bearer;
    }

    async fn log_in(&mut self) -> Result<Bearer, Failure> {
        self.make_token().await
    }

    fn forget_denials(&mut self) {
        self.unlooked.clear();
    }

    async fn read_one(&mut self, request: &Request, known: Option<&Version>) -> Result<Reading, Failure> {
        let version = request.version().unwrap_or(LATEST);
        if let Some(known) = known {
            // A numbered version never changes.
            let is_fixed = is_number(version);
            if known.0 == version || (!is_fixed && self.look(&request.path, version).await?.as_ref() == Some(known)) {
                return Ok(Reading::NotModified);
            }
        }
        self.read_fully(request, known).await
    }
}
