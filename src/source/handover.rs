//! What one process leaves to the next: init container to sidecar, and a sidecar to itself after a restart.
//!
//! Ends are points of the system clock, which both processes share. Whoever writes it down writes secrets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Source;
use super::backoff::{Jitter, LONGEST_WISH};
use super::history::{Fingerprints, Ledger, PastGeneration};
use super::lease::{Held, Life, Memory, Slot, act_before, after};
use super::poll::land::has_entries;
use super::poll::{Drain, Lane, Login};
use crate::generation::GenerationId;
use crate::provider::Session;
use crate::reference::Request;
use crate::secret::{SecretTree, SecretValue};

/// Logins, leases and names. Has secrets in it; `Debug` shows none.
#[derive(Debug, Clone, Default)]
pub struct HandOver {
    /// The login held at each provider.
    pub sessions: Vec<HandedSession>,
    /// Answers that a read would make anew, with their values: the next process goes on with them.
    pub leased: Vec<HandedAnswer>,
    /// Replaced credentials that are still to be revoked.
    pub draining: Vec<Draining>,
    /// Providers whose store asked for patience, and until when.
    pub patience: Vec<(String, SystemTime)>,
    /// What is remembered of the other answers; not their values.
    pub seen: Vec<Seen>,
    /// Key of the fingerprints in `seen`.
    pub salt: Option<SecretValue>,
    /// The counter in ids of generations without versions.
    pub counter: u64,
    /// The last generations, oldest first.
    pub history: Vec<PastGeneration>,
    /// The present generation.
    pub last: Option<GenerationId>,
}

/// A login.
#[derive(Debug, Clone)]
pub struct HandedSession {
    /// The provider's name.
    pub provider: String,
    /// The store's token.
    pub token: SecretValue,
    /// When it ends; `None` for never.
    pub ends: Option<SystemTime>,
    /// Whether it can be renewed.
    pub renewable: bool,
}

/// An answer with a limited life.
#[derive(Debug, Clone)]
pub struct HandedAnswer {
    /// What was asked.
    pub request: Request,
    /// The values.
    pub tree: SecretTree,
    /// When they stop being valid.
    pub ends: SystemTime,
    /// How long they were granted for at first.
    pub life: Duration,
    /// The lease, if the store gave one.
    pub lease: Option<HandedLease>,
    /// Whether the files with it are known to have been written.
    pub delivered: bool,
}

/// A store's handle on a credential.
#[derive(Debug, Clone)]
pub struct HandedLease {
    /// The handle.
    pub id: SecretValue,
    /// Whether the store lets it be renewed.
    pub renewable: bool,
}

/// A replaced credential.
#[derive(Debug, Clone)]
pub struct Draining {
    /// The provider's name.
    pub provider: String,
    /// The store's handle.
    pub lease: SecretValue,
    /// When it ends by itself.
    pub ends: SystemTime,
    /// When it may be revoked; `None`: not before what replaced it is delivered.
    pub revoke_at: Option<SystemTime>,
}

/// What is remembered of an answer without its values.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What was asked.
    pub request: Request,
    /// Keyed digest of the answer, to notice a change across a restart. As secret as the values.
    pub fingerprint: SecretValue,
    /// Whether it was a document with entries, which must not become empty.
    pub had_entries: bool,
}

/// The present moment by both clocks, to carry points in time from one to the other.
#[derive(Clone, Copy)]
struct Moment {
    instant: Instant,
    system: SystemTime,
}

// === impl Moment ===

impl Moment {
    fn system(self, at: Instant) -> SystemTime {
        let ahead = self.system.checked_add(at.saturating_duration_since(self.instant)).unwrap_or(self.system);
        ahead.checked_sub(self.instant.saturating_duration_since(at)).unwrap_or(ahead)
    }

    /// `None` if it is over.
    fn instant(self, at: SystemTime) -> Option<Instant> {
        let left = at.duration_since(self.system).ok().filter(|left| !left.is_zero())?;
        Some(after(self.instant, left))
    }
}

// === impl Source ===

impl Source {
    /// What the next process needs to go on with the same logins and leases.
    #[must_use]
    pub fn hand_over(&self) -> HandOver {
        let moment = self.moment();
        let mut hand_over = HandOver {
            salt: Some(self.fingerprints.salt().clone()),
            counter: self.ledger.counter,
            history: self.ledger.past(),
            last: self.ledger.last.clone(),
            ..HandOver::default()
        };
        for (name, lane) in &self.lanes {
            hand_over.sessions.extend(lane.login.as_ref().map(|login| HandedSession {
                provider: name.clone(),
                token: login.token.clone(),
                ends: login.ends.map(|ends| moment.system(ends)),
                renewable: login.renewable,
            }));
            hand_over.draining.extend(lane.draining.iter().map(|drain| Draining {
                provider: name.clone(),
                lease: drain.lease.clone(),
                ends: moment.system(drain.ends),
                revoke_at: drain.revoke_at.map(|at| moment.system(at)),
            }));
            let wish = lane.not_before.filter(|wish| *wish > moment.instant);
            // Whoever writes it down in whole seconds does not undercut it.
            hand_over.patience.extend(wish.map(|wish| (name.clone(), moment.system(wish + Duration::from_secs(1)))));
            for (request, slot) in &lane.slots {
                hand_over.leased.extend(slot.hand_over(request, moment));
                hand_over.seen.extend(slot.remember(request, &self.fingerprints));
            }
        }
        hand_over
    }

    /// Goes on where another process stopped; to be called before the first [`Source::next`]. Leased requests are not
    /// read again as long as their lease lives; all others are due at once.
    pub fn resume(&mut self, hand_over: HandOver) {
        let HandOver { sessions, leased, draining, patience, seen, salt, counter, history, last } = hand_over;
        let moment = self.moment();
        self.ledger = Ledger::new(counter, last, history);
        if let Some(salt) = salt {
            self.fingerprints = Fingerprints::with(salt);
        }
        for Seen { request, fingerprint, had_entries } in seen {
            if let Some(slot) = self.slot(&request) {
                slot.seen = Some(Memory { fingerprint, had_entries });
            }
        }
        let mut ended = BTreeSet::new();
        for session in sessions {
            let provider = session.provider.clone();
            if !self.lanes.get_mut(&provider).is_some_and(|lane| lane.resume(session, moment, &mut self.jitter)) {
                ended.insert(provider);
            }
        }
        for (provider, until) in patience {
            if let Some(lane) = self.lanes.get_mut(&provider) {
                lane.not_before = moment.instant(until).map(|until| until.min(moment.instant + LONGEST_WISH));
            }
        }
        for Draining { provider, lease, ends, revoke_at } in draining {
            let revoke_at = revoke_at.map(|at| moment.instant(at).unwrap_or(moment.instant));
            if let (Some(lane), Some(ends)) = (self.lanes.get_mut(&provider), moment.instant(ends)) {
                lane.draining.push(Drain::new(lease, ends, revoke_at));
            }
        }
        for answer in leased {
            let provider = &answer.request.provider;
            let orphaned = ended.contains(provider) && answer.lease.is_some();
            if let Some(lane) = self.lanes.get_mut(provider) {
                let outlives = lane.provider.as_ref().is_some_and(|provider| provider.leases_outlive_logins());
                let orphaned = orphaned && !outlives;
                self.changed |= lane.adopt(answer, orphaned, moment, &mut self.jitter);
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment { instant: Instant::now(), system: self.clock.system() }
    }

    fn slot(&mut self, request: &Request) -> Option<&mut Slot> {
        self.lanes.get_mut(&request.provider)?.slots.get_mut(request)
    }
}

// === impl Lane ===

impl Lane {
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
        self.login = Some(Login::new(session.clone(), moment.instant, jitter));
        provider.resume(session);
        true
    }

    /// Takes an answer over if it still lives; whether it does. An orphaned lease has outlived the login that it hangs
    /// on: what is left of it is revoked once another one is delivered.
    fn adopt(&mut self, answer: HandedAnswer, orphaned: bool, moment: Moment, jitter: &mut Jitter) -> bool {
        let HandedAnswer { request, tree, ends, life, lease, delivered } = answer;
        let Some(ends) = moment.instant(ends) else { return false };
        match self.slots.get_mut(&request) {
            Some(slot) if !orphaned => {
                slot.due = act_before(ends, life, jitter);
                let life = Life { ends, granted: life, lease, login: 0, delivered, worn_out: false };
                slot.held = Some(Held { tree: Arc::new(tree), version: None, life: Some(life) });
                true
            }
            _ => {
                self.draining.extend(lease.map(|lease| Drain::new(lease.id, ends, None)));
                false
            }
        }
    }
}

// === impl Slot ===

impl Slot {
    fn hand_over(&self, request: &Request, moment: Moment) -> Option<HandedAnswer> {
        let held = self.held.as_ref().filter(|_| self.is_minted())?;
        let life = held.life.as_ref()?;
        Some(HandedAnswer {
            request: request.clone(),
            tree: SecretTree::clone(&held.tree),
            ends: moment.system(life.ends),
            life: life.granted,
            lease: life.lease.clone(),
            delivered: life.delivered,
        })
    }

    /// Of an answer that was not read yet by this process, what the one before it remembered.
    fn remember(&self, request: &Request, fingerprints: &Fingerprints) -> Option<Seen> {
        let memory = match &self.held {
            None => self.seen.clone()?,
            Some(held) => {
                Memory { fingerprint: fingerprints.of(request, &held.tree), had_entries: has_entries(&held.tree) }
            }
        };
        Some(Seen { request: request.clone(), fingerprint: memory.fingerprint, had_entries: memory.had_entries })
    }
}
