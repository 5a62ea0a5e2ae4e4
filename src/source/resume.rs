//! From one process to the next: what a source leaves, and how another one goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::backoff::{Jitter, LONGEST_WISH};
use super::handover::{AnswerDigest, HandOver, HandedAnswer, HandedRetiredLease, HandedSession};
use super::history::{Fingerprints, Ledger};
use super::login_state::LoginState;
use super::request_state::{CachedAnswer, RequestState, Validity, act_before, after};
use super::retired_lease::RetiredLease;
use super::worker::Worker;
use crate::provider::Session;
use crate::reference::Request;
use crate::secret::SecretTree;

/// What of a source goes on.
pub(super) struct Resumed<'a> {
    pub(super) workers: &'a mut BTreeMap<String, Worker>,
    pub(super) ledger: &'a mut Ledger,
    pub(super) fingerprints: &'a mut Fingerprints,
    pub(super) jitter: &'a mut Jitter,
    pub(super) moment: Moment,
}

/// The present moment by both clocks, to carry points in time from one to the other.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) system: SystemTime,
}

// === impl Moment ===

impl Moment {
    pub(super) fn system(self, at: Instant) -> SystemTime {
        let ahead = self.system.checked_add(at.saturating_duration_since(self.instant)).unwrap_or(self.system);
        ahead.checked_sub(self.instant.saturating_duration_since(at)).unwrap_or(ahead)
    }

    /// `None` if it is over.
    fn instant(self, at: SystemTime) -> Option<Instant> {
        let left = at.duration_since(self.system).ok().filter(|left| !left.is_zero())?;
        Some(after(self.instant, left))
    }
}

/// What the next process needs to go on with the same logins and leases.
pub(super) fn hand_over(
    workers: &BTreeMap<String, Worker>,
    ledger: &Ledger,
    fingerprints: &Fingerprints,
    moment: Moment,
) -> HandOver {
    let mut hand_over = HandOver {
        salt: Some(fingerprints.salt().clone()),
        counter: ledger.counter,
        history: ledger.past(),
        last: ledger.last.clone(),
        ..HandOver::default()
    };
    for (name, worker) in workers {
        hand_over.sessions.extend(worker.login.as_ref().map(|login| HandedSession {
            provider: name.clone(),
            token: login.token.clone(),
            ends: login.ends.map(|ends| moment.system(ends)),
            renewable: login.renewable,
        }));
        hand_over.retired.extend(worker.retired.iter().map(|retired| HandedRetiredLease {
            provider: name.clone(),
            lease: retired.lease.clone(),
            ends: moment.system(retired.ends),
            revoke_at: retired.revoke_at.map(|at| moment.system(at)),
        }));
        let wish = worker.not_before.filter(|wish| *wish > moment.instant);
        // A second more: a hand-over rounds down to whole seconds.
        hand_over.patience.extend(wish.map(|wish| (name.clone(), moment.system(wish + Duration::from_secs(1)))));
        for (request, state) in &worker.states {
            hand_over.leased.extend(state.hand_over(request, moment));
            hand_over.digests.extend(state.remember(request, fingerprints));
        }
    }
    hand_over
}

/// Goes on where another process stopped; whether that brought answers.
pub(super) fn resume(hand_over: HandOver, resumed: Resumed<'_>) -> bool {
    let HandOver { sessions, leased, retired, patience, digests, salt, counter, history, last } = hand_over;
    let Resumed { workers, ledger, fingerprints, jitter, moment } = resumed;
    *ledger = Ledger::new(counter, last, history);
    if let Some(salt) = salt {
        *fingerprints = Fingerprints::with(salt);
    }
    for (request, digest) in digests {
        let worker = workers.get_mut(&request.provider);
        if let Some(state) = worker.and_then(|worker| worker.states.get_mut(&request)) {
            state.digest = Some(digest);
        }
    }
    let mut is_changed = false;
    let mut ended = BTreeSet::new();
    for session in sessions {
        let provider = session.provider.clone();
        if !workers.get_mut(&provider).is_some_and(|worker| worker.resume(session, moment, jitter)) {
            ended.insert(provider);
        }
    }
    for (provider, until) in patience {
        if let Some(worker) = workers.get_mut(&provider) {
            worker.not_before = moment.instant(until).map(|until| until.min(moment.instant + LONGEST_WISH));
        }
    }
    for HandedRetiredLease { provider, lease, ends, revoke_at } in retired {
        let revoke_at = revoke_at.map(|at| moment.instant(at).unwrap_or(moment.instant));
        if let (Some(worker), Some(ends)) = (workers.get_mut(&provider), moment.instant(ends)) {
            worker.retired.push(RetiredLease::new(lease, ends, revoke_at));
        }
    }
    for answer in leased {
        let provider = &answer.request.provider;
        let orphaned = ended.contains(provider) && answer.lease.is_some();
        if let Some(worker) = workers.get_mut(provider) {
            let outlives = worker.provider.as_ref().is_some_and(|provider| provider.leases_outlive_logins());
            let orphaned = orphaned && !outlives;
            is_changed |= worker.adopt(answer, orphaned, moment, jitter);
        }
    }
    is_changed
}

// === impl Worker ===

impl Worker {
    /// Whether the login still lives.
    fn resume(&mut self, session: HandedSession, moment: Moment, jitter: &mut Jitter) -> bool {
        let HandedSession { token, ends, renewable, .. } = session;
        let Some(provider) = &mut self.provider else { return false };
        let ttl = match ends.map(|ends| moment.instant(ends)) {
            Some(None) => return false,
            Some(Some(ends)) => Some(ends - moment.instant),
            None => None,
        };
        let session = Session { token, ttl, renewable };
        self.login = Some(LoginState::new(session.clone(), moment.instant, jitter));
        provider.resume(session);
        true
    }

    /// Takes an answer over if it still lives; whether it does. An orphaned lease has outlived the login that it hangs
    /// on: what is left of it is revoked once another one is delivered.
    fn adopt(&mut self, answer: HandedAnswer, orphaned: bool, moment: Moment, jitter: &mut Jitter) -> bool {
        let HandedAnswer { request, tree, ends, granted, lease, delivered } = answer;
        let Some(ends) = moment.instant(ends) else { return false };
        match self.states.get_mut(&request) {
            Some(state) if !orphaned => {
                state.due = act_before(ends, granted, jitter);
                let validity = Validity { ends, granted, lease, login: 0, delivered, must_replace: false };
                state.cached =
                    Some(CachedAnswer { tree: Arc::new(tree), version: None, validity: Some(validity), access: None });
                true
            }
            _ => {
                self.retired.extend(lease.map(|lease| RetiredLease::new(lease.id, ends, None)));
                false
            }
        }
    }
}

// === impl RequestState ===

impl RequestState {
    fn hand_over(&self, request: &Request, moment: Moment) -> Option<HandedAnswer> {
        let cached = self.cached.as_ref().filter(|_| self.is_minted())?;
        let validity = cached.validity.as_ref()?;
        Some(HandedAnswer {
            request: request.clone(),
            tree: SecretTree::clone(&cached.tree),
            ends: moment.system(validity.ends),
            granted: validity.granted,
            lease: validity.lease.clone(),
            delivered: validity.delivered,
        })
    }

    /// Of an answer that was not read yet by this process, what the one before it remembered.
    fn remember(&self, request: &Request, fingerprints: &Fingerprints) -> Option<(Request, AnswerDigest)> {
        let digest = match &self.cached {
            None => self.digest.clone()?,
            Some(cached) => AnswerDigest {
                fingerprint: fingerprints.of(request, &cached.tree),
                had_entries: cached.tree.has_entries(),
            },
        };
        Some((request.clone(), digest))
    }
}
