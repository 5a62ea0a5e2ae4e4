//! Stores that are read one call per request by whoever bears a token of limited life (RFC 6750).
//!
//! What they share is what to do about the token: log in before the first read, once more when a store refuses, and
//! hand it on.

use std::future::Future;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::provider::http::{self, Address, Client, Limits, SendError, secret_header};
use crate::provider::{
    ErrorKind, Extended, Known, Pending, Provider, ProviderError, ReadResult, Reading, Session, Version,
};
use crate::reference::Request;
use crate::secret::SecretValue;

/// An access token and its life.
#[derive(Debug, Clone)]
pub struct Bearer {
    token: SecretValue,
    /// `None` if nobody said.
    ends: Option<Instant>,
}

/// A failed call, and what else it says about.
pub type Failure = http::Failure<Scope>;

/// What a failure says about other calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Nothing.
    #[default]
    Call,
    /// Nothing by itself; twice in a row, that the store is down: nobody waits for twenty time-outs.
    Silence,
    /// This identity may not do this. A new login may know of rights given since.
    Right,
    /// The token is worth nothing; a new one may be.
    Login,
    /// Every other call would fail likewise.
    Store,
}

/// A store with such tokens; whoever is one is a [`Provider`].
pub trait BearerStore: Send {
    /// The token held.
    fn held(&self) -> Option<&Bearer>;

    /// Holds another token, or none.
    fn hold(&mut self, bearer: Option<Bearer>);

    /// Makes a token, whatever is held.
    fn log_in(&mut self) -> impl Future<Output = Result<Bearer, Failure>> + Send;

    /// Whatever the last login could not see may be in sight now.
    fn forget_denials(&mut self);

    /// Reads one request with the token held.
    fn read_one(
        &mut self,
        request: &Request,
        known: Option<&Version>,
    ) -> impl Future<Output = Result<Reading, Failure>> + Send;
}

/// How to reach what a login needs beside the store itself.
#[derive(Debug)]
pub struct Reach {
    /// PEM certificates that replace the public authorities.
    pub ca: Option<String>,
    /// Bounds of each exchange.
    pub limits: Limits,
    /// Which addresses are reached through an HTTP proxy.
    pub proxy: Matcher,
}

/// Reads a batch, one call after the other over one connection.
async fn read_all<S: BearerStore>(store: &mut S, requests: &[Request], known: &Known) -> Vec<ReadResult> {
    if store.held().is_some_and(Bearer::has_ended) {
        store.hold(None);
    }
    let mut may_log_in = store.held().is_some();
    if !may_log_in && let Err(failure) = renew_login(store).await {
        return requests.iter().map(|_| Err(failure.error.clone())).collect();
    }
    let mut down: Option<Failure> = None;
    let mut was_silent = false;
    let mut results = Vec::with_capacity(requests.len());
    for request in requests {
        if let Some(failure) = &down {
            results.push(Err(failure.error.clone()));
            continue;
        }
        let result = read_with_login(store, request, known.get(request), &mut may_log_in).await;
        if let Err(failure) = &result {
            let is_silent = failure.scope == Scope::Silence;
            if matches!(failure.scope, Scope::Store | Scope::Login) || (is_silent && was_silent) {
                down = Some(failure.clone());
            }
            was_silent = is_silent;
        } else {
            was_silent = false;
        }
        results.push(result.map_err(|failure| failure.error));
    }
    results
}

/// Makes a new login before the old one ends; such tokens cannot be renewed.
///
/// # Errors
/// Why there is none; the old one stays.
async fn extend<S: BearerStore>(store: &mut S) -> Result<Extended, ProviderError> {
    let is_new = renew_login(store).await.map_err(|failure| failure.error)?;
    Ok(if is_new { Extended::Replaced } else { Extended::Renewed })
}

/// Reads one request; if it is refused, once more with a new login, as often as `may_log_in` allows in one batch.
async fn read_with_login<S: BearerStore>(
    store: &mut S,
    request: &Request,
    known: Option<&Version>,
    may_log_in: &mut bool,
) -> Result<Reading, Failure> {
    let refused = match store.read_one(request, known).await {
        Err(failure) if *may_log_in && matches!(failure.scope, Scope::Right | Scope::Login) => failure,
        result => return result,
    };
    *may_log_in = false;
    match renew_login(store).await {
        Ok(true) => store.read_one(request, known).await,
        Err(failure) if refused.scope == Scope::Login => {
            store.hold(None);
            Err(Failure { scope: Scope::Store, ..failure })
        }
        // The same token again is no news; and without a new one, the old one is still good for other requests.
        Ok(false) | Err(_) => Err(refused),
    }
}

/// Logs in; whether the token is another one than before.
async fn renew_login<S: BearerStore>(store: &mut S) -> Result<bool, Failure> {
    let fresh = store.log_in().await?;
    let is_new = store.held().is_none_or(|held| held.token != fresh.token);
    store.hold(Some(fresh));
    if is_new {
        store.forget_denials();
    }
    Ok(is_new)
}

impl<S: BearerStore> Provider for S {
    fn read<'a>(&'a mut self, requests: &'a [Request], known: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        Box::pin(read_all(self, requests, known))
    }

    fn session(&self) -> Option<Session> {
        self.held().map(Session::from)
    }

    fn resume(&mut self, session: Session) {
        self.hold(Some(session.into()));
    }

    fn extend_session(&mut self) -> Pending<'_, Result<Extended, ProviderError>> {
        Box::pin(extend(self))
    }

    fn end_session(&mut self) -> Pending<'_, Result<(), ProviderError>> {
        // Such a token lives until its end, whoever lets go of it.
        self.hold(None);
        Box::pin(std::future::ready(Ok(())))
    }
}

// === impl Bearer ===

impl Bearer {
    /// A token that lives so long from now on.
    #[must_use]
    pub fn new(token: SecretValue, life: Option<Duration>) -> Self {
        Self { token, ends: life.and_then(|life| Instant::now().checked_add(life)) }
    }

    /// The value of an `Authorization` header.
    ///
    /// # Errors
    /// `Invalid` if the token has characters that no header can carry.
    pub fn header(&self) -> Result<HeaderValue, ProviderError> {
        let mut value = Zeroizing::new(Vec::with_capacity(7 + self.token.len()));
        value.extend_from_slice(b"Bearer ");
        value.extend_from_slice(self.token.expose());
        secret_header(&SecretValue::new(std::mem::take(&mut *value)), "the access token")
    }

    /// What is left of its life.
    #[must_use]
    pub fn life(&self) -> Option<Duration> {
        self.ends.map(|ends| ends.saturating_duration_since(Instant::now()))
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &SecretValue {
        &self.token
    }

    fn has_ended(&self) -> bool {
        self.life().is_some_and(|life| life.is_zero())
    }
}

impl From<Session> for Bearer {
    fn from(session: Session) -> Self {
        Self::new(session.token, session.ttl)
    }
}

impl From<&Bearer> for Session {
    fn from(bearer: &Bearer) -> Self {
        Self { token: bearer.token.clone(), ttl: bearer.life(), renewable: false }
    }
}

// === impl Failure ===

impl From<SendError> for Failure {
    fn from(failed: SendError) -> Self {
        let scope = match failed.error.kind {
            ErrorKind::Unavailable if failed.is_connected => Scope::Silence,
            ErrorKind::Unavailable => Scope::Store,
            _ => Scope::Call,
        };
        Self { scope, error: failed.error }
    }
}

// === impl Reach ===

impl Reach {
    /// A client for that address, to be dropped after the login: its buffers are memory in every pod.
    ///
    /// # Errors
    /// `Invalid` if the address or the CA bundle cannot be used.
    pub fn client(&self, address: &str) -> Result<Client, ProviderError> {
        let address = Address::parse(address).map_err(|problem| ProviderError::new(ErrorKind::Invalid, problem))?;
        Client::new(address, self.ca.as_deref(), self.limits, &self.proxy)
    }

    /// A client for the one thing at that URL, and its path.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn endpoint(&self, url: &str) -> Result<(Client, String), ProviderError> {
        let (address, path) = split_url(url);
        Ok((self.client(address)?, path.to_owned()))
    }
}

/// Checks the URL of an endpoint.
///
/// # Errors
/// One sentence that says what to write.
pub fn check_endpoint(url: &str) -> Result<(), String> {
    match split_url(url) {
        (address, path) if !path.is_empty() && path.bytes().all(|b| b.is_ascii_graphic() && !b"%?#".contains(&b)) => {
            Address::parse(address).map(drop)
        }
        _ => Err(format!("{url:?} is no URL of an endpoint: write https://<host>/<path>")),
    }
}

/// The address, and the last component of the path.
fn split_url(url: &str) -> (&str, &str) {
    match url.rsplit_once('/') {
        Some((address, path)) if !address.ends_with('/') => (address, path),
        _ => (url, ""),
    }
}

#[cfg(test)]
mod tests;
