//! A lane: one provider, its login, and the requests that it answers. One operation is in flight at a time; it owns the
//! provider meanwhile, so that dropping whoever waits for it loses nothing.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use tokio::time::Instant;

use self::land::Desk;
use super::backoff::{self, Jitter, LogBudget};
use super::lease::{Action, Slot, act_before, after};
use super::unlock::Lock;
use crate::provider::{
    ErrorKind, Extended, Known, Lease, Pending, Provider, ProviderError, ReadResult, Session, Version,
};
use crate::reference::Request;
use crate::secret::SecretValue;

pub(super) mod land;

/// One provider and its requests.
pub(super) struct Lane {
    pub(super) name: String,
    /// `None` while an operation is in flight.
    pub(super) provider: Option<Box<dyn Provider>>,
    running: Option<Pending<'static, (Box<dyn Provider>, Landed)>>,
    started: Instant,
    /// When people are to be told that what is in flight takes its time; `None` once they were.
    tell_at: Option<Instant>,
    landed: Vec<Landed>,
    pub(super) pushed: bool,
    pub(super) slots: BTreeMap<Request, Slot>,
    pub(super) lock: Option<Lock>,
    pub(super) draining: Vec<Drain>,
    pub(super) login: Option<Login>,
    /// How many logins were made after the first; a lease hangs on one of them.
    pub(super) logins: u64,
    interval: Duration,
    pub(super) revoke_on_exit: bool,
    /// A store's wish not to be asked before.
    pub(super) not_before: Option<Instant>,
    /// Due times were moved up while an answer was on its way.
    again: bool,
    budget: LogBudget,
    silences: LogBudget,
    /// Nothing was answered, twice in a row and more: which of the requests is tried next.
    down: Option<usize>,
}

/// What an operation came to.
enum Landed {
    Read(Vec<Request>, Vec<ReadResult>),
    Renewed(Vec<(Request, Result<Lease, ProviderError>)>),
    Extended(Result<Extended, ProviderError>),
    Revoked(Vec<(SecretValue, Result<(), ProviderError>)>),
    ReadAgain(Vec<ReadResult>),
}

/// A login, as last seen.
pub(super) struct Login {
    pub(super) token: SecretValue,
    pub(super) renewable: bool,
    pub(super) ends: Option<Instant>,
    extend_at: Option<Instant>,
    failures: u32,
}

/// A replaced credential.
pub(super) struct Drain {
    pub(super) lease: SecretValue,
    pub(super) ends: Instant,
    /// `None` until what replaced it is delivered.
    pub(super) revoke_at: Option<Instant>,
    failures: u32,
}

/// How long an operation may be in flight before people are told: providers bound it, some after several calls.
const SILENCE: Duration = Duration::from_secs(5);

/// Applications get this long to take up new credentials before the old ones are revoked.
pub(super) const DRAIN: Duration = Duration::from_secs(10);

// === impl Lane ===

impl Lane {
    pub(super) fn new(name: String, provider: Box<dyn Provider>, interval: Duration, revoke_on_exit: bool) -> Self {
        Self {
            name,
            provider: Some(provider),
            running: None,
            started: Instant::now(),
            tell_at: None,
            landed: Vec::new(),
            pushed: false,
            slots: BTreeMap::new(),
            lock: None,
            draining: Vec::new(),
            login: None,
            logins: 0,
            interval,
            revoke_on_exit,
            not_before: None,
            again: false,
            budget: LogBudget::default(),
            silences: LogBudget::default(),
            down: None,
        }
    }

    /// Waits until what is in flight lands, or the idle provider pushes. Cancel safe: both are noted in the lane.
    pub(super) async fn signal(&mut self) {
        if !self.landed.is_empty() {
            return;
        }
        if self.running.is_some() {
            self.settle().await;
        } else if let Some(provider) = &mut self.provider {
            provider.changed().await;
            self.pushed = true;
        } else {
            pending::<()>().await;
        }
    }

    /// Waits until nothing is in flight. Cancel safe.
    pub(super) async fn settle(&mut self) {
        if let Some(running) = &mut self.running {
            let (provider, landed) = running.await;
            self.running = None;
            self.provider = Some(provider);
            self.landed.push(landed);
        }
    }

    /// When [`Self::start`] will have something to do; `None` while something is in flight, and while it is locked.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.provider.as_ref().filter(|_| !self.is_locked())?;
        let extend = self.login.as_ref().and_then(|login| login.extend_at);
        let slots = self.slots.values().map(|slot| slot.due);
        let drains = self.draining.iter().filter_map(|drain| drain.revoke_at);
        let due = slots.chain(drains).chain(extend).min()?;
        Some(self.not_before.map_or(due, |wish| due.max(wish)))
    }

    /// How long what is in flight has been so.
    pub(super) fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.running.as_ref().map(|_| now.saturating_duration_since(self.started))
    }

    /// When [`Self::tell_silence`] will have something to say.
    pub(super) fn tell_at(&self) -> Option<Instant> {
        self.tell_at.filter(|_| self.running.is_some())
    }

    /// Whether people have to be told that the store has yet to answer; they were, then.
    pub(super) fn tell_silence(&mut self, now: Instant) -> bool {
        let is_silent = self.tell_at().is_some_and(|at| at <= now);
        if is_silent {
            self.tell_at = None;
            if self.silences.failed(now) {
                tracing::warn!(
                    provider = self.name,
                    seconds = SILENCE.as_secs(),
                    "no answer yet: still waiting for it"
                );
            }
        }
        is_silent
    }

    /// Whether a suspended machine could make something end unnoticed.
    pub(super) fn has_ends(&self) -> bool {
        self.login.is_some() || self.slots.values().any(|slot| slot.life().is_some())
    }

    /// Whether the last attempt at some request, or at the login, failed.
    pub(super) fn is_failing(&self) -> bool {
        let login = self.login.as_ref().is_some_and(|login| login.failures > 0);
        login || self.slots.values().any(|slot| slot.failures > 0)
    }

    /// Sends what is most urgent among what is due: login, renewals, reads, revocations.
    pub(super) fn start(&mut self, now: Instant) {
        if !self.landed.is_empty() || self.next_due().is_none_or(|due| due > now) {
            return;
        }
        self.draining.retain(|drain| drain.ends > now);
        let extend = self.login.as_ref().and_then(|login| login.extend_at).is_some_and(|at| at <= now);
        let due = || self.slots.iter().filter(|(_, slot)| slot.due <= now);
        let renewals: Vec<(Request, Lease)> = due()
            .filter_map(|(request, slot)| match slot.action(now) {
                Action::Renew(lease) => Some((request.clone(), lease)),
                Action::Read => None,
            })
            .collect();
        let reads = self.reads(now);
        let revocations: Vec<Lease> = self.draining.iter().filter_map(|drain| drain.due(now)).collect();
        if extend {
            self.run(now, |mut provider| async move {
                let extended = provider.extend_session().await;
                (provider, Landed::Extended(extended))
            });
        } else if !renewals.is_empty() {
            self.run(now, |provider| renew(provider, renewals));
        } else if !reads.is_empty() {
            let known = reads.iter().filter_map(|request| self.known(request)).collect();
            self.read(now, reads, known);
        } else if !revocations.is_empty() {
            self.run(now, |provider| revoke(provider, revocations));
        }
    }

    /// What is to be read now. A store that is down is asked for one thing, each time for another: when it answers, the
    /// rest follows ([`Self::land`]).
    fn reads(&mut self, now: Instant) -> Vec<Request> {
        let mut due: Vec<_> =
            self.slots.iter().filter(|(_, slot)| slot.due <= now).map(|(request, _)| request).collect();
        if let Some(at) = self.down.and_then(|probe| probe.checked_rem(due.len())) {
            self.down = Some(at + 1);
            due = due.into_iter().skip(at).take(1).collect();
        }
        due.into_iter().cloned().collect()
    }

    fn known(&self, request: &Request) -> Option<(Request, Version)> {
        Some((request.clone(), self.slots.get(request)?.known()?.clone()))
    }

    fn read(&mut self, now: Instant, requests: Vec<Request>, known: Known) {
        self.run(now, |mut provider| async move {
            let results = provider.read(&requests, &known).await;
            (provider, Landed::Read(requests, results))
        });
    }

    fn run<F>(&mut self, now: Instant, operation: impl FnOnce(Box<dyn Provider>) -> F)
    where
        F: Future<Output = (Box<dyn Provider>, Landed)> + Send + 'static,
    {
        let Some(provider) = self.provider.take() else { return };
        self.started = now;
        self.tell_at = Some(now + SILENCE);
        self.running = Some(Box::pin(operation(provider)));
    }

    /// Reads besides the schedule, but not before the store wishes it; the answers are the caller's.
    pub(super) async fn read_again(&mut self, requests: Vec<Request>) -> Vec<ReadResult> {
        self.settle().await;
        let now = Instant::now();
        if let Some(wish) = self.not_before.filter(|wish| *wish > now) {
            let kind = ErrorKind::Throttled { retry_after: Some(wish - now) };
            let problem = format!("the store asked for patience, for another {} s", (wish - now).as_secs() + 1);
            let error = ProviderError::new(kind, problem);
            return requests.iter().map(|_| Err(error.clone())).collect();
        }
        self.run(now, |mut provider| async move {
            let results = provider.read(&requests, &Known::new()).await;
            (provider, Landed::ReadAgain(results))
        });
        self.settle().await;
        let Some(Landed::ReadAgain(results)) = self.landed.pop() else { return Vec::new() };
        let now = Instant::now();
        for kind in results.iter().filter_map(|result| Some(result.as_ref().err()?.kind)) {
            self.heed(kind, now, backoff::delay(kind, 1, false, 0.5));
        }
        results
    }

    /// Revokes all that is held and ends the login, best effort.
    pub(super) async fn revoke_all(&mut self, desk: &mut Desk<'_>) {
        self.settle().await;
        self.land(desk);
        let leases = self.slots.values().filter_map(|slot| slot.life()?.lease.as_ref()).map(|lease| &lease.id);
        let leases = leases.chain(self.draining.iter().map(|drain| &drain.lease)).map(expiring).collect();
        self.run(Instant::now(), |provider| async move {
            let (mut provider, landed) = revoke(provider, leases).await;
            if let Err(error) = provider.end_session().await {
                tracing::warn!(kind = error.kind.as_str(), %error, "the login could not be ended: it ends by itself");
            }
            (provider, landed)
        });
        self.settle().await;
        for slot in self.slots.values_mut().filter(|slot| slot.life().is_some_and(|life| life.lease.is_some())) {
            slot.held = None;
            slot.due = Instant::now();
        }
        self.login = None;
        self.land(desk);
    }

    /// Everything that is polled is due now.
    pub(super) fn poll_now(&mut self) {
        let now = Instant::now();
        self.slots.values_mut().filter(|slot| !slot.is_minted()).for_each(|slot| slot.due = now);
    }

    /// Everything that is polled is due now, and every credential that failed to be renewed or replaced.
    pub(super) fn refresh(&mut self) {
        self.poll_now();
        let now = Instant::now();
        self.slots.values_mut().filter(|slot| slot.failures > 0).for_each(|slot| slot.due = now);
        self.again = self.running.is_some();
    }

    /// What this generation replaced may be revoked soon.
    pub(super) fn delivered(&mut self, now: Instant) {
        for life in self.slots.values_mut().filter_map(|slot| slot.held.as_mut()?.life.as_mut()) {
            life.delivered = true;
        }
        for drain in &mut self.draining {
            drain.revoke_at.get_or_insert(now + DRAIN);
        }
    }

    /// The machine slept for `gap`: ends and due times came nearer without the clock of [`Instant`] running.
    pub(super) fn slept(&mut self, gap: Duration) {
        let earlier = |at: &mut Instant| *at = at.checked_sub(gap).unwrap_or(*at);
        for slot in self.slots.values_mut() {
            earlier(&mut slot.due);
            if let Some(life) = slot.held.as_mut().and_then(|held| held.life.as_mut()) {
                earlier(&mut life.ends);
            }
        }
        if let Some(login) = &mut self.login {
            login.ends.iter_mut().chain(&mut login.extend_at).for_each(earlier);
        }
        for drain in &mut self.draining {
            earlier(&mut drain.ends);
            drain.revoke_at.iter_mut().for_each(earlier);
        }
    }
}

async fn renew(mut provider: Box<dyn Provider>, leases: Vec<(Request, Lease)>) -> (Box<dyn Provider>, Landed) {
    let mut results = Vec::with_capacity(leases.len());
    for (request, lease) in leases {
        let renewed = provider.renew(&lease).await;
        results.push((request, renewed));
    }
    (provider, Landed::Renewed(results))
}

async fn revoke(mut provider: Box<dyn Provider>, leases: Vec<Lease>) -> (Box<dyn Provider>, Landed) {
    let mut results = Vec::with_capacity(leases.len());
    for lease in leases {
        let revoked = provider.revoke(&lease).await;
        results.push((lease.id, revoked));
    }
    (provider, Landed::Revoked(results))
}

/// A lease whose life no longer matters.
fn expiring(id: &SecretValue) -> Lease {
    Lease { id: id.clone(), ttl: Duration::ZERO, renewable: false }
}

// === impl Drain ===

impl Drain {
    pub(super) fn new(lease: SecretValue, ends: Instant, revoke_at: Option<Instant>) -> Self {
        Self { lease, ends, revoke_at, failures: 0 }
    }

    fn due(&self, now: Instant) -> Option<Lease> {
        self.revoke_at.filter(|at| *at <= now).map(|_| expiring(&self.lease))
    }
}

// === impl Login ===

impl Login {
    pub(super) fn new(session: Session, now: Instant, jitter: &mut Jitter) -> Self {
        let Session { token, ttl, renewable } = session;
        let mut login = Self { token, renewable, ends: ttl.map(|ttl| after(now, ttl)), extend_at: None, failures: 0 };
        login.schedule(now, jitter);
        login
    }

    fn update(&mut self, session: &Session, now: Instant, jitter: &mut Jitter) {
        // Stores count in whole seconds.
        const ROUNDING: Duration = Duration::from_secs(2);
        let ends = session.ttl.map(|ttl| after(now, ttl));
        let extended = match (ends, self.ends) {
            (Some(ends), Some(known)) => ends > known + ROUNDING,
            (ends, known) => ends != known,
        };
        self.renewable = session.renewable;
        if extended || self.extend_at.is_none() {
            self.ends = ends;
            self.schedule(now, jitter);
        }
    }

    /// Two thirds of what is left; never more than once a second.
    fn schedule(&mut self, now: Instant, jitter: &mut Jitter) {
        self.extend_at = self.ends.map(|ends| {
            let left = ends.saturating_duration_since(now);
            act_before(ends, left, jitter).max(now + Duration::from_secs(1))
        });
    }
}
