//! Logging in and staying so, the same for every store: [`LoggedIn`] makes a [`Provider`] of what is a [`Store`]'s own.
//!
//! It logs in before the first read, once more in a batch if the store refuses, renews a login or replaces it before it
//! ends, hands it on, and asks a store that is down no further.

use std::future::Future;
use std::time::Duration;

use self::store::{is_refusal, unanswered};
use super::http::{Failure, Scope, StoreCall, calling};
use super::interface::{Extended, Known, Lease, Pending, Provider, ProviderError, ReadResult, Session};
use crate::reference::Request;

mod store;
mod token;

pub use store::{Health, Outcome, Store, Worth};
pub use token::{Renewal, Token};

/// A store, and the login held there.
#[derive(Debug)]
pub struct LoggedIn<S> {
    store: S,
    token: Option<Token>,
    /// A read has replaced the login, and the source was not told yet.
    is_replaced: bool,
    /// What came of those that were tried, for [`Provider::take_logins`].
    tried: Vec<Result<(), ProviderError>>,
}

/// A login in whose place another one is tried.
#[derive(Debug)]
struct Kept {
    token: Token,
    was_replaced: bool,
    /// How many requests it was refused.
    refusals: usize,
}

/// What is to become of a lease.
#[derive(Debug, Clone, Copy)]
enum Change {
    Renew,
    Revoke,
}

fn is_refused(outcome: Option<&Outcome>) -> bool {
    outcome.is_some_and(is_refusal)
}

// === impl LoggedIn ===

impl<S: Store> LoggedIn<S> {
    /// A provider that has not yet logged in.
    pub fn new(store: S) -> Self {
        Self { store, token: None, is_replaced: false, tried: Vec::new() }
    }

    async fn log_in(&mut self) -> Result<Token, Failure> {
        /// Nobody asks after the logins of some users of a provider.
        const KEPT: usize = 16;
        let made = calling(StoreCall::Login, self.store.log_in()).await;
        if self.tried.len() < KEPT {
            self.tried.push(made.as_ref().map(drop).map_err(|failure| failure.error.clone()));
        }
        made
    }

    /// Takes a login over; whether its token is another one than before.
    fn adopt(&mut self, fresh: Token) -> bool {
        let is_new = self.token.as_ref().is_none_or(|held| held.value != fresh.value);
        if is_new {
            self.store.use_token(&fresh.value);
        }
        self.token = Some(fresh);
        is_new
    }

    /// Whether a login was made just now, because there was none.
    async fn ensure_login(&mut self) -> Result<bool, Failure> {
        match &self.token {
            Some(token) if !token.has_ended() => return Ok(false),
            Some(_) => (self.token, self.is_replaced) = (None, true),
            None => {}
        }
        let fresh = self.log_in().await?;
        self.adopt(fresh);
        Ok(true)
    }

    async fn read_all(&mut self, requests: &[Request], known: &Known) -> Vec<ReadResult> {
        let mut may_log_in = match self.ensure_login().await {
            Ok(is_fresh) => !is_fresh,
            Err(failure) => return requests.iter().map(|_| Err(failure.error.clone())).collect(),
        };
        let mut outcomes: Vec<Option<Outcome>> = requests.iter().map(|_| None).collect();
        let mut kept = None;
        loop {
            let open = requests.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
            let open: Vec<_> = open.map(|(request, _)| request).collect();
            let found = if open.is_empty() {
                Vec::new()
            } else {
                calling(StoreCall::Read, self.store.read_batch(&open, known)).await
            };
            if found.is_empty() {
                break;
            }
            let refused = found.iter().find(|outcome| is_refusal(outcome)).and_then(|outcome| outcome.clone().err());
            for (outcome, found) in outcomes.iter_mut().filter(|outcome| outcome.is_none()).zip(found) {
                *outcome = Some(found);
            }
            match refused {
                Some(refused) if may_log_in => {
                    may_log_in = false;
                    kept = self.log_in_again(&refused, &mut outcomes).await;
                }
                Some(refused) if refused.scope == Scope::Login => {
                    replace(&mut outcomes, |outcome| outcome.is_none(), &refused);
                }
                _ => {}
            }
        }
        let refusals = outcomes.iter().filter(|outcome| is_refused(outcome.as_ref())).count();
        if let Some(kept) = kept.filter(|kept| kept.refusals == refusals) {
            self.give_back(kept).await;
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(unanswered).map_err(|failure| failure.error))
            .collect()
    }

    /// Logs in because of a refusal. What was refused is open again if there is another login; if there is none, it says
    /// why. The login before is kept until it shows what the new one is good for, if it is worth that.
    async fn log_in_again(&mut self, refused: &Failure, outcomes: &mut [Option<Outcome>]) -> Option<Kept> {
        let held = self.token.clone()?;
        let made = match calling(StoreCall::Login, self.store.worth(&held)).await {
            Ok(Worth::Only) => return None,
            Ok(worth) => self.log_in().await.map(|fresh| (worth, fresh)),
            Err(failure) => Err(failure),
        };
        let is_dead = refused.scope == Scope::Login;
        match made {
            Ok((worth, fresh)) => {
                if self.adopt(fresh) {
                    let was_replaced = std::mem::replace(&mut self.is_replaced, true);
                    let refusals = outcomes.iter_mut().filter(|outcome| is_refused(outcome.as_ref()));
                    let refusals = refusals.map(Option::take).count();
                    return (worth == Worth::Alive).then_some(Kept { token: held, was_replaced, refusals });
                }
                // The same token again is not news.
                if is_dead {
                    replace(outcomes, |outcome| outcome.is_none(), refused);
                }
            }
            Err(failure) if is_dead => {
                self.token = None;
                replace(outcomes, |outcome| outcome.is_none_or(is_refusal), &failure);
            }
            Err(failure) if S::KEEPS_LOGINS => replace(outcomes, is_refused, &failure),
            // The old one is still good for other requests.
            Err(_) => {}
        }
        None
    }

    /// Goes back to a login that saw as much as the new one.
    async fn give_back(&mut self, kept: Kept) {
        let Kept { token, was_replaced, .. } = kept;
        let fresh = self.token.take();
        self.adopt(token);
        self.is_replaced = was_replaced;
        if let Some(fresh) = fresh {
            // It is one more login at the store until it ends by itself; the denial matters more.
            let _ = calling(StoreCall::Revoke, self.store.end(&fresh.value)).await;
        }
    }

    /// Renews the login held, or logs in anew where that is of little or no use.
    async fn extend(&mut self) -> Result<Extended, Failure> {
        let is_renewed = match self.token.clone() {
            Some(held) if held.life().is_none() => true,
            Some(held) if held.is_renewable() => self.renew(&held).await?,
            _ => false,
        };
        let is_same = is_renewed || {
            let fresh = self.log_in().await?;
            !self.adopt(fresh)
        };
        let was_replaced = std::mem::take(&mut self.is_replaced);
        Ok(if is_same && !was_replaced { Extended::Renewed } else { Extended::Replaced })
    }

    /// Whether the renewal was worthwhile.
    async fn renew(&mut self, held: &Token) -> Result<bool, Failure> {
        let Some(renewed) = calling(StoreCall::Login, self.store.renew(held)).await? else { return Ok(false) };
        let (renewed, is_worthwhile) = renewed.after(held);
        self.adopt(renewed);
        Ok(is_worthwhile)
    }

    /// Does that with a lease; if the token is worth nothing, logs in and does it again, once.
    async fn change_lease(&mut self, lease: &Lease, change: Change) -> Result<Lease, Failure> {
        let is_fresh = self.ensure_login().await?;
        match self.change_lease_once(lease, change).await {
            Err(failure) if failure.scope == Scope::Login && !is_fresh => {
                let fresh = self.log_in().await?;
                if self.adopt(fresh) { self.change_lease_once(lease, change).await } else { Err(failure) }
            }
            result => result,
        }
    }

    async fn change_lease_once(&mut self, lease: &Lease, change: Change) -> Result<Lease, Failure> {
        match change {
            Change::Renew => calling(StoreCall::Renew, self.store.renew_lease(lease)).await,
            Change::Revoke => calling(StoreCall::Revoke, self.store.revoke_lease(lease)).await.map(|()| lease.clone()),
        }
    }

    async fn end(&mut self) -> Result<(), Failure> {
        match self.token.take() {
            Some(token) => calling(StoreCall::Revoke, self.store.end(&token.value)).await,
            None => Ok(()),
        }
    }
}

impl<S: Store> Provider for LoggedIn<S> {
    fn read<'a>(&'a mut self, requests: &'a [Request], known: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        Box::pin(self.read_all(requests, known))
    }

    fn renew<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<Lease, ProviderError>> {
        Box::pin(without_scope(self.change_lease(lease, Change::Renew)))
    }

    fn revoke<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<(), ProviderError>> {
        Box::pin(async move { without_scope(self.change_lease(lease, Change::Revoke)).await.map(drop) })
    }

    fn changed(&mut self) -> Pending<'_, ()> {
        Box::pin(calling(StoreCall::Watch, self.store.changed()))
    }

    fn session(&self) -> Option<Session> {
        self.token.as_ref().map(Session::from)
    }

    fn resume(&mut self, session: Session) {
        if let Some(token) = self.store.resume(session.into()) {
            self.adopt(token);
        }
    }

    fn extend_session(&mut self) -> Pending<'_, Result<Extended, ProviderError>> {
        Box::pin(without_scope(self.extend()))
    }

    fn take_logins(&mut self) -> Vec<Result<(), ProviderError>> {
        std::mem::take(&mut self.tried)
    }

    fn leases_outlive_logins(&self) -> bool {
        self.store.leases_outlive_logins()
    }

    fn pace(&self) -> Option<Duration> {
        self.store.pace()
    }

    fn end_session(&mut self) -> Pending<'_, Result<(), ProviderError>> {
        Box::pin(without_scope(self.end()))
    }
}

async fn without_scope<T>(result: impl Future<Output = Result<T, Failure>>) -> Result<T, ProviderError> {
    result.await.map_err(|failure| failure.error)
}

fn replace(outcomes: &mut [Option<Outcome>], which: impl Fn(Option<&Outcome>) -> bool, failure: &Failure) {
    for outcome in outcomes.iter_mut().filter(|outcome| which(outcome.as_ref())) {
        *outcome = Some(Err(failure.clone()));
    }
}

#[cfg(test)]
mod tests;
