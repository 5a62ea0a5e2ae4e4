//! What is one store's own.

use std::future::{Future, ready};
use std::time::Duration;

use super::token::Token;
use crate::provider::http::{Failure, Scope};
use crate::provider::interface::{Known, Lease, Reading, no_leases};
use crate::reference::{Request, Version};
use crate::secret::SecretValue;

/// What a login is still good for whose right was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// Nothing, or as much as another.
    Nothing,
    /// It is alive, and leases hang on it: it is given up only if another one sees more.
    Alive,
    /// It is alive, and another would be the same.
    Only,
}

/// What came of one request.
pub type Outcome = Result<Reading, Failure>;

/// What is one store's own: how to log in, to read and to understand. A store keeps the token that it was told to use,
/// and knows nothing of when that ends.
///
/// One of [`Store::read_one`] and [`Store::read_batch`] is written by each store; the other comes of it.
pub trait Store: Send + Sized {
    /// Whether leases hang on logins, so one which is alive is kept unless another sees more. Denials are then
    /// tried again when all else is read.
    const KEEPS_LOGINS: bool = false;

    /// Logs in, whatever login is held.
    fn log_in(&mut self) -> impl Future<Output = Result<Token, Failure>> + Send;

    /// From now on, calls are made with this token. What was denied to another one may be allowed to it.
    fn use_token(&mut self, token: &SecretValue);

    /// Reads one request.
    fn read_one(&mut self, request: &Request, known: Option<&Version>) -> impl Future<Output = Outcome> + Send {
        let known = known.map(|version| (request.clone(), version.clone())).into_iter().collect();
        async move { self.read_batch(&[request], &known).await.pop().unwrap_or_else(unanswered) }
    }

    /// Reads some requests; answers stand in their order. It may stop behind a refusal that another login may change:
    /// the rest is then asked for again.
    fn read_batch(&mut self, requests: &[&Request], known: &Known) -> impl Future<Output = Vec<Outcome>> + Send {
        one_by_one(self, requests, known)
    }

    /// Renews a login; `None` if the store does not want to.
    fn renew(&mut self, _token: &Token) -> impl Future<Output = Result<Option<Token>, Failure>> + Send {
        ready(Ok(None))
    }

    /// What the login held is good for after a refusal.
    fn worth(&mut self, _token: &Token) -> impl Future<Output = Result<Worth, Failure>> + Send {
        ready(Ok(Worth::Nothing))
    }

    /// Ends a login of our own making. Where it cannot be ended, it lives until its end, also if it is dropped.
    fn end(&mut self, _token: &SecretValue) -> impl Future<Output = Result<(), Failure>> + Send {
        ready(Ok(()))
    }

    /// A login that another process made; `None` if it is not one of this store's.
    fn resume(&self, token: Token) -> Option<Token> {
        Some(token)
    }

    /// See [`Provider::renew`].
    fn renew_lease(&mut self, _lease: &Lease) -> impl Future<Output = Result<Lease, Failure>> + Send {
        ready(no_leases().map_err(Failure::from))
    }

    /// See [`Provider::revoke`].
    fn revoke_lease(&mut self, _lease: &Lease) -> impl Future<Output = Result<(), Failure>> + Send {
        ready(no_leases().map_err(Failure::from))
    }

    /// See [`Provider::leases_outlive_logins`].
    fn leases_outlive_logins(&self) -> bool {
        false
    }

    /// See [`Provider::changed`].
    fn changed(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// See [`Provider::pace`].
    fn pace(&self) -> Option<Duration> {
        None
    }
}

/// Tells when a store is down: nothing more is asked of it in this batch.
#[derive(Debug, Default)]
pub struct Health {
    was_silent: bool,
}

/// Reads one request after the other over one connection, until the store is down.
async fn one_by_one<S: Store>(store: &mut S, requests: &[&Request], known: &Known) -> Vec<Outcome> {
    let mut health = Health::default();
    let mut outcomes = Vec::with_capacity(requests.len());
    for request in requests {
        let outcome = store.read_one(request, known.get(request)).await;
        let is_down = health.is_down_after(outcome.as_ref().err());
        let is_refused = is_refusal(&outcome) && !S::KEEPS_LOGINS;
        outcomes.push(outcome);
        if is_refused {
            break;
        }
        if is_down {
            let last = outcomes.last().cloned();
            outcomes.extend(last.into_iter().cycle().take(requests.len() - outcomes.len()));
            break;
        }
    }
    outcomes
}

/// Whether another login may change it.
pub(super) fn is_refusal(outcome: &Outcome) -> bool {
    matches!(outcome, Err(Failure { scope: Scope::Right | Scope::Login, .. }))
}

pub(super) fn unanswered() -> Outcome {
    Err(Failure::unavailable("the store left it unanswered"))
}

// === impl Health ===

impl Health {
    /// Whether every other call would fail as this one did.
    pub fn is_down_after(&mut self, failure: Option<&Failure>) -> bool {
        let scope = failure.map_or(Scope::Call, |failure| failure.scope);
        let was_silent = std::mem::replace(&mut self.was_silent, scope == Scope::Silence);
        matches!(scope, Scope::Store | Scope::Login) || (was_silent && self.was_silent)
    }
}
