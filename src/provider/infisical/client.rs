//! The client: reads, renews, revokes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use hyper::Method;
use hyper::header::AUTHORIZATION;
use hyper_util::client::proxy::matcher::Matcher;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::InfisicalSettings;
use super::asked::{Asked, What};
use super::complaint::{refused, throttled};
use super::events::Events;
use super::limits::{Kind, Limits as RateLimits};
use super::projects::Projects;
use super::secrets::{Api, Seen};
use super::session::{Held, Refusal};
use crate::provider::http::{Address, Call, Client, Failure, Limits, Response, Scope, secret_header};
use crate::provider::{
    ErrorKind, Extended, Known, Lease, Login, Pending, Provider, ProviderError, ReadResult, Reading, Session,
    Settings as _, Version,
};
use crate::reference::Request;
use crate::secret::SecretValue;

/// One Infisical, as one pod identity sees it.
pub struct Infisical {
    pub(super) settings: InfisicalSettings,
    pub(super) login: Login,
    /// Shared with the subscription to events.
    pub(super) client: Arc<Client>,
    pub(super) session: Option<Held>,
    pub(super) refusal: Option<Refusal>,
    pub(super) limits: RateLimits,
    pub(super) projects: Projects,
    /// The newest API that the server is known to have: it has answered.
    pub(super) api: Option<Api>,
    /// What was read, for the next time.
    pub(super) seen: BTreeMap<Request, Seen>,
    /// Key of the digests in `seen`: they stay in this process.
    pub(super) key: hmac::Key,
    pub(super) events: Events,
}

/// What is to become of a lease.
#[derive(Debug, Clone, Copy)]
enum Change {
    Renew,
    Revoke,
}

/// JSON that is wiped after use.
pub(super) fn to_json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // Room for a long token, so that growing leaves no copy behind.
    let mut json = Zeroizing::new(Vec::with_capacity(8 * 1024));
    // Structs of text cannot fail to become JSON; if one did, the store would refuse the empty body.
    let _ = serde_json::to_writer(&mut *json, value);
    json
}

/// A call by whoever has this token.
pub(super) fn call_as(method: Method, path: impl Into<String>, token: &SecretValue) -> Result<Call, Failure> {
    let mut bearer = Zeroizing::new(Vec::with_capacity(token.len() + 7));
    bearer.extend_from_slice(b"Bearer ");
    bearer.extend_from_slice(token.expose());
    let value = secret_header(&SecretValue::new(std::mem::take(&mut *bearer)), "access token")?;
    Ok(Call::new(method, path).header(AUTHORIZATION, value))
}

// === impl Infisical ===

impl Infisical {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &InfisicalSettings, login: Login, proxy: &Matcher) -> Result<Self, ProviderError> {
        Self::connect_with(settings, login, Limits::default(), proxy)
    }

    /// As [`Self::connect`], with other limits than the usual.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect_with(
        settings: &InfisicalSettings,
        login: Login,
        limits: Limits,
        proxy: &Matcher,
    ) -> Result<Self, ProviderError> {
        let invalid = |problem| ProviderError::new(ErrorKind::Invalid, problem);
        settings.validate().map_err(invalid)?;
        let address = Address::parse(&settings.address).map_err(invalid)?;
        let client = Arc::new(Client::new(address, settings.ca.as_deref(), limits, proxy)?);
        let mut key = Zeroizing::new([0; 32]);
        // Without randomness the digests are still no one's but this process's.
        let _ = rand::fill(&mut *key);
        Ok(Self {
            settings: settings.clone(),
            events: Events::new(Arc::clone(&client), login.provider.clone()),
            login,
            client,
            session: None,
            refusal: None,
            limits: RateLimits::default(),
            projects: Projects::default(),
            api: None,
            seen: BTreeMap::new(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
        })
    }

    /// Sends a call, unless the server would refuse it for its number.
    pub(super) async fn send(&mut self, kind: Kind, call: Call) -> Result<Response, Failure> {
        self.limits.check(kind, self.client.address())?;
        let response = self.client.send(call).await?;
        self.limits.note(kind, &response);
        Ok(response)
    }

    /// A call by whoever is logged in.
    pub(super) fn call(&self, method: Method, path: impl Into<String>) -> Result<Call, Failure> {
        match &self.session {
            Some(held) => call_as(method, path, &held.token),
            None => Ok(Call::new(method, path)),
        }
    }

    /// Takes a login over.
    pub(super) fn adopt(&mut self, held: Held) {
        self.events.use_token(&held.token);
        self.session = Some(held);
    }

    /// Whom we act as, for messages.
    pub(super) fn who(&self) -> String {
        match (&self.login.role, self.settings.needs_role()) {
            (Some(role), true) => format!("identity {role:?}"),
            _ => "this login".to_owned(),
        }
    }

    pub(super) fn refused(&self, response: &Response, what: &str) -> Failure {
        refused(response, self.client.address(), &self.who(), what)
    }

    pub(super) fn garbage(&self, what: &str) -> Failure {
        let message = format!("{} answers {what} with something that is not Infisical's JSON", self.client.address());
        Failure::new(ErrorKind::Unavailable, message)
    }

    /// What a 200 says; any other status is an error.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&self, response: &'a Response, what: &str) -> Result<T, Failure> {
        if response.status.as_u16() != 200 || throttled(response, self.client.address()).is_some() {
            return Err(self.refused(response, what));
        }
        serde_json::from_slice(&response.body).map_err(|_| self.garbage(what))
    }

    /// Whether a login was made just now, because there was none.
    async fn ensure_login(&mut self) -> Result<bool, Failure> {
        if self.session.as_ref().is_some_and(|held| !held.has_ended()) {
            return Ok(false);
        }
        self.session = None;
        self.log_in().await?;
        Ok(true)
    }

    async fn read_all(&mut self, requests: &[Request], known: &Known) -> Vec<ReadResult> {
        let mut is_fresh = match self.ensure_login().await {
            Ok(is_fresh) => is_fresh,
            Err(failure) => return requests.iter().map(|_| Err(failure.error.clone())).collect(),
        };
        let mut down: Option<Failure> = None;
        let mut results = Vec::with_capacity(requests.len());
        for request in requests {
            let result = match &down {
                Some(failure) => Err(failure.clone()),
                None => self.read_or_log_in(request, known.get(request), &mut is_fresh).await,
            };
            if let Err(failure) = &result
                && failure.scope != Scope::Call
            {
                down = Some(failure.clone());
            }
            results.push(result.map_err(|failure| failure.error));
        }
        self.events.set_spread(self.limits.spread);
        results
    }

    /// Reads; if the token is worth nothing, logs in and reads again, once in a batch.
    async fn read_or_log_in(
        &mut self,
        request: &Request,
        known: Option<&Version>,
        is_fresh: &mut bool,
    ) -> Result<Reading, Failure> {
        match self.read_one(request, known).await {
            Err(failure) if failure.scope == Scope::Session && !*is_fresh => {
                *is_fresh = true;
                self.replace_login(failure).await?;
                self.read_one(request, known).await
            }
            result => result,
        }
    }

    /// Logs in because of this failure, unless that would bring the same token again.
    async fn replace_login(&mut self, failure: Failure) -> Result<(), Failure> {
        let old = self.session.as_ref().map(|held| held.token.clone());
        self.log_in().await.map_err(|failure| Failure { scope: Scope::Store, ..failure })?;
        match &self.session {
            Some(held) if Some(&held.token) != old.as_ref() => Ok(()),
            _ => Err(failure),
        }
    }

    async fn read_one(&mut self, request: &Request, known: Option<&Version>) -> Result<Reading, Failure> {
        let asked = Asked::of(&self.settings, request).map_err(|problem| Failure::new(ErrorKind::Invalid, problem))?;
        match (&asked.what, request.version()) {
            (What::Lease { name, ttl }, _) => self.make_lease(&asked, name, ttl.as_deref()).await.map(Reading::Fresh),
            (What::Folder { .. }, Some(_)) => Err(Failure::new(
                ErrorKind::NotFound,
                format!("{}: a folder has no versions, so that what it was cannot be read again", asked.told()),
            )),
            (What::Secret { version: Some(pinned), .. }, _) if known.is_some_and(|known| known.0 == *pinned) => {
                // A version never changes.
                Ok(Reading::NotModified)
            }
            _ => self.read_secrets(request, &asked, known).await,
        }
    }

    /// Does that with a lease as whoever is logged in, or logs in for it once.
    async fn change_lease(&mut self, lease: &Lease, change: Change) -> Result<Lease, Failure> {
        let is_fresh = self.ensure_login().await?;
        match self.change_lease_once(lease, change).await {
            Err(failure) if failure.scope == Scope::Session && !is_fresh => {
                self.replace_login(failure).await?;
                self.change_lease_once(lease, change).await
            }
            result => result,
        }
    }

    async fn change_lease_once(&mut self, lease: &Lease, change: Change) -> Result<Lease, Failure> {
        match change {
            Change::Renew => self.renew_lease(lease).await,
            Change::Revoke => self.revoke_lease(lease).await.map(|()| lease.clone()),
        }
    }
}

impl Provider for Infisical {
    fn read<'a>(&'a mut self, requests: &'a [Request], known: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        Box::pin(self.read_all(requests, known))
    }

    fn renew<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<Lease, ProviderError>> {
        Box::pin(async move { self.change_lease(lease, Change::Renew).await.map_err(|failure| failure.error) })
    }

    fn revoke<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<(), ProviderError>> {
        Box::pin(
            async move { self.change_lease(lease, Change::Revoke).await.map(drop).map_err(|failure| failure.error) },
        )
    }

    fn changed(&mut self) -> Pending<'_, ()> {
        Box::pin(self.events.changed(self.settings.events))
    }

    fn session(&self) -> Option<Session> {
        self.session.as_ref().map(Session::from)
    }

    fn resume(&mut self, session: Session) {
        self.adopt(session.into());
    }

    fn extend_session(&mut self) -> Pending<'_, Result<Extended, ProviderError>> {
        Box::pin(async move { self.extend().await.map_err(|failure| failure.error) })
    }

    fn leases_outlive_logins(&self) -> bool {
        true
    }

    fn pace(&self) -> Option<Duration> {
        self.limits.pace
    }

    fn end_session(&mut self) -> Pending<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            let Some(held) = self.session.take() else { return Ok(()) };
            self.end(&held.token).await.map_err(|failure| failure.error)
        })
    }
}

impl fmt::Debug for Infisical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Infisical")
            .field("settings", &self.settings)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}
