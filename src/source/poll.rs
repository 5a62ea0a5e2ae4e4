//! A lane: one provider, its login, and the requests that it answers. One operation is in flight at a time; it owns the
//! provider meanwhile, so that dropping whoever waits for it loses nothing.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Failure;
use super::backoff::{self, Jitter, LogBudget};
use super::history::{Fingerprints, Origin};
use super::lease::{Action, Held, Slot, act_before, after, in_time};
use crate::provider::{
    ErrorKind, Extended, Known, Lease, Pending, Provider, ProviderError, ReadResult, Reading, Session,
};
use crate::reference::Request;
use crate::secret::{SecretTree, SecretValue};

/// One provider and its requests.
pub(super) struct Lane {
    pub(super) name: String,
    /// `None` while an operation is in flight.
    pub(super) provider: Option<Box<dyn Provider>>,
    running: Option<Pending<'static, (Box<dyn Provider>, Landed)>>,
    started: Instant,
    landed: Vec<Landed>,
    pub(super) pushed: bool,
    pub(super) slots: BTreeMap<Request, Slot>,
    pub(super) draining: Vec<Drain>,
    pub(super) login: Option<Login>,
    /// How many logins were made after the first; a lease hangs on one of them.
    pub(super) logins: u64,
    interval: Duration,
    pub(super) revoke_on_exit: bool,
    /// A store's wish not to be asked before.
    not_before: Option<Instant>,
    /// Due times were moved up while an answer was on its way.
    again: bool,
    budget: LogBudget,
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

/// What came of a landing.
#[derive(Default)]
pub(super) struct Outcome {
    /// Something landed at all.
    pub(super) any: bool,
    /// Some answer is another one.
    pub(super) changed: bool,
    /// … and no version says so.
    pub(super) uncounted: bool,
    pub(super) failures: Vec<Failure>,
}

/// What landings need of the source.
pub(super) struct Desk<'a> {
    pub(super) jitter: &'a mut Jitter,
    pub(super) fingerprints: &'a Fingerprints,
    /// There is no generation yet.
    pub(super) starting: bool,
}

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
            landed: Vec::new(),
            pushed: false,
            slots: BTreeMap::new(),
            draining: Vec::new(),
            login: None,
            logins: 0,
            interval,
            revoke_on_exit,
            not_before: None,
            again: false,
            budget: LogBudget::default(),
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

    /// When [`Self::start`] will have something to do; `None` while something is in flight.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.provider.as_ref()?;
        let extend = self.login.as_ref().and_then(|login| login.extend_at);
        let slots = self.slots.values().map(|slot| slot.due);
        let drains = self.draining.iter().filter_map(|drain| drain.revoke_at);
        let due = slots.chain(drains).chain(extend).min()?;
        Some(self.not_before.map_or(due, |wish| due.max(wish)))
    }

    /// Whether a suspended machine could make something end unnoticed.
    pub(super) fn has_ends(&self) -> bool {
        self.login.is_some() || self.slots.values().any(|slot| slot.life().is_some())
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
        let reads: Vec<Request> = due().map(|(request, _)| request.clone()).collect();
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

    fn known(&self, request: &Request) -> Option<(Request, crate::provider::Version)> {
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
        self.running = Some(Box::pin(operation(provider)));
    }

    /// Reads besides the schedule; the answers are the caller's.
    pub(super) async fn read_again(&mut self, requests: Vec<Request>) -> Vec<ReadResult> {
        self.settle().await;
        self.run(Instant::now(), |mut provider| async move {
            let results = provider.read(&requests, &Known::new()).await;
            (provider, Landed::ReadAgain(results))
        });
        self.settle().await;
        match self.landed.pop() {
            Some(Landed::ReadAgain(results)) => results,
            _ => Vec::new(),
        }
    }

    /// Revokes all that is held, best effort.
    pub(super) async fn revoke_all(&mut self, desk: &mut Desk<'_>) {
        self.settle().await;
        self.land(desk);
        let leases = self.slots.values().filter_map(|slot| slot.life()?.lease.as_ref()).map(|lease| &lease.id);
        let leases = leases.chain(self.draining.iter().map(|drain| &drain.lease)).map(expiring).collect();
        self.run(Instant::now(), |provider| revoke(provider, leases));
        self.settle().await;
        for slot in self.slots.values_mut().filter(|slot| slot.life().is_some_and(|life| life.lease.is_some())) {
            slot.held = None;
            slot.due = Instant::now();
        }
        self.land(desk);
    }

    /// Everything that is polled is due, and what is failing.
    pub(super) fn refresh(&mut self) {
        let now = Instant::now();
        for slot in self.slots.values_mut() {
            if !slot.is_minted() || slot.failures > 0 {
                slot.due = now;
            }
        }
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

// What landed.
impl Lane {
    /// Takes in what came since the last time.
    pub(super) fn land(&mut self, desk: &mut Desk<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        if std::mem::take(&mut self.pushed) {
            self.refresh();
        }
        let now = Instant::now();
        for landed in std::mem::take(&mut self.landed) {
            outcome.any = true;
            self.observe_login(now, desk.jitter);
            match landed {
                Landed::Read(requests, results) => self.land_reads(requests, results, now, desk, &mut outcome),
                Landed::Renewed(results) => {
                    let chance = desk.jitter.chance();
                    for (request, result) in results {
                        self.land_renewal(request, result, now, chance, desk, &mut outcome);
                    }
                }
                Landed::Extended(result) => self.land_extension(result, now, desk, &mut outcome),
                Landed::Revoked(results) => self.land_revocations(&results, now, desk.jitter),
                Landed::ReadAgain(_) => {}
            }
            if std::mem::take(&mut self.again) {
                self.refresh();
            }
        }
        if outcome.any {
            self.report(now, &outcome.failures);
        }
        outcome
    }

    fn land_reads(
        &mut self,
        requests: Vec<Request>,
        results: Vec<ReadResult>,
        now: Instant,
        desk: &mut Desk<'_>,
        outcome: &mut Outcome,
    ) {
        // One draw for the batch: what was read together stays together.
        let chance = desk.jitter.chance();
        let short = || Err(ProviderError::new(ErrorKind::Unavailable, "the provider left this request unanswered"));
        let results = results.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (request, result) in requests.into_iter().zip(results) {
            let Some(slot) = self.slots.get_mut(&request) else { continue };
            let result = result.unwrap_or_else(short);
            match take(slot, &request, result, self.started, self.logins, desk.fingerprints) {
                Ok(taken) => {
                    slot.settle(now, self.interval, desk.jitter, chance);
                    outcome.changed |= taken.changed;
                    outcome.uncounted |= taken.uncounted;
                    self.draining.extend(taken.replaced.and_then(|old| old.into_drain(now)));
                }
                Err(error) => {
                    let wait = slot.failed(error.kind, now, desk.starting, chance);
                    self.heed(error.kind, now, wait);
                    outcome.failures.push(Failure {
                        provider: self.name.clone(),
                        request: Some(request),
                        error,
                        retry_in: Some(wait),
                    });
                }
            }
        }
    }

    fn land_renewal(
        &mut self,
        request: Request,
        result: Result<Lease, ProviderError>,
        now: Instant,
        chance: f64,
        desk: &mut Desk<'_>,
        outcome: &mut Outcome,
    ) {
        let Some(slot) = self.slots.get_mut(&request) else { return };
        match result {
            Ok(lease) => slot.renewed(lease, self.started, desk.jitter),
            Err(error) if error.kind.is_permanent() => {
                info!(provider = self.name, %request, kind = error.kind.as_str(), %error, "lease cannot be renewed, replacing it");
                slot.replace_now(now);
            }
            Err(error) => {
                let wait = slot.failed(error.kind, now, desk.starting, chance);
                self.heed(error.kind, now, wait);
                let provider = self.name.clone();
                outcome.failures.push(Failure { provider, request: Some(request), error, retry_in: Some(wait) });
            }
        }
    }

    fn land_extension(
        &mut self,
        result: Result<Extended, ProviderError>,
        now: Instant,
        desk: &mut Desk<'_>,
        outcome: &mut Outcome,
    ) {
        let Some(login) = &mut self.login else { return };
        match result {
            Ok(_) => {
                // Whether it was replaced is seen by its token.
                login.failures = 0;
                if login.extend_at.is_some() {
                    login.schedule(now, desk.jitter);
                }
            }
            Err(error) => {
                login.failures = login.failures.saturating_add(1);
                let wait = backoff::delay(error.kind, login.failures, desk.starting, desk.jitter.chance());
                let wait = login.ends.map_or(wait, |ends| in_time(wait, ends, now));
                login.extend_at = Some(after(now, wait));
                self.heed(error.kind, now, wait);
                let provider = self.name.clone();
                outcome.failures.push(Failure { provider, request: None, error, retry_in: Some(wait) });
            }
        }
    }

    fn land_revocations(
        &mut self,
        results: &[(SecretValue, Result<(), ProviderError>)],
        now: Instant,
        jitter: &mut Jitter,
    ) {
        for (lease, result) in results {
            let Some(at) = self.draining.iter().position(|drain| drain.lease == *lease) else { continue };
            match result {
                Err(error) if !error.kind.is_permanent() => {
                    if let Some(drain) = self.draining.get_mut(at) {
                        drain.failures = drain.failures.saturating_add(1);
                        let wait = backoff::delay(error.kind, drain.failures, false, jitter.chance());
                        drain.revoke_at = Some(after(now, wait));
                    }
                }
                Ok(()) => drop(self.draining.swap_remove(at)),
                Err(error) => {
                    // It ends by itself; that the store lets us not revoke is the operator's choice.
                    debug!(provider = self.name, kind = error.kind.as_str(), %error, "replaced lease cannot be revoked");
                    drop(self.draining.swap_remove(at));
                }
            }
        }
    }

    /// Notes which login the provider holds now. Leases end with the login that they hang on, so another login means
    /// other leases, whoever made it.
    fn observe_login(&mut self, now: Instant, jitter: &mut Jitter) {
        let Some(session) = self.provider.as_ref().and_then(|provider| provider.session()) else {
            if let Some(login) = &mut self.login {
                login.extend_at = None;
            }
            return;
        };
        match &mut self.login {
            None => self.login = Some(Login::new(session, now, jitter)),
            Some(login) if login.token == session.token => login.update(&session, now, jitter),
            Some(login) => {
                *login = Login::new(session, now, jitter);
                self.logins += 1;
                let logins = self.logins;
                let hangs_on_another =
                    |slot: &&mut Slot| slot.life().is_some_and(|life| life.lease.is_some() && life.login != logins);
                self.slots.values_mut().filter(hangs_on_another).for_each(|slot| slot.replace_now(now));
            }
        }
    }

    /// A store that asks for patience asks for all requests.
    fn heed(&mut self, kind: ErrorKind, now: Instant, wait: Duration) {
        if matches!(kind, ErrorKind::Throttled { .. }) {
            self.not_before = self.not_before.max(Some(after(now, wait)));
        }
    }

    fn report(&mut self, now: Instant, failures: &[Failure]) {
        let Some(first) = failures.first() else {
            let well = self.slots.values().all(|slot| slot.failures == 0);
            let extended = self.login.as_ref().is_none_or(|login| login.failures == 0);
            if well && extended {
                let failed = self.budget.recovered();
                if failed > 0 {
                    info!(provider = self.name, attempts_failed = failed, "provider answers again");
                }
            }
            return;
        };
        let what = first.request.as_ref().map_or_else(|| "login".to_owned(), ToString::to_string);
        let (kind, error, others) = (first.error.kind.as_str(), &first.error, failures.len() - 1);
        let retry = first.retry_in.unwrap_or_default().as_secs_f64();
        if self.budget.failed(now) {
            warn!(provider = self.name, what, kind, %error, others, retry_in_seconds = retry, "cannot refresh; what was there stays");
        } else {
            debug!(provider = self.name, what, kind, %error, others, retry_in_seconds = retry, "still cannot refresh");
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

/// What an answer changed.
struct Taken {
    changed: bool,
    uncounted: bool,
    replaced: Option<Held>,
}

/// Puts a good answer into the slot.
fn take(
    slot: &mut Slot,
    request: &Request,
    result: ReadResult,
    started: Instant,
    login: u64,
    fingerprints: &Fingerprints,
) -> Result<Taken, ProviderError> {
    let nothing = Taken { changed: false, uncounted: false, replaced: None };
    let answer = match result {
        Ok(Reading::Fresh(answer)) => answer,
        Ok(Reading::NotModified) if slot.held.is_some() => return Ok(nothing),
        Ok(Reading::NotModified) => {
            return Err(ProviderError::new(
                ErrorKind::Unavailable,
                "the store says \"not modified\" of what was never read",
            ));
        }
        // Once it was there, "not found" is no reason to take it away: the last good answer stays.
        Err(error) if error.kind == ErrorKind::NotFound && slot.optional && slot.held.is_none() => {
            let changed = !std::mem::replace(&mut slot.absent, true);
            return Ok(Taken { changed, ..nothing });
        }
        Err(error) => return Err(error),
    };
    let had_entries = match (&slot.held, &slot.seen) {
        (Some(held), _) => has_entries(&held.tree),
        (None, seen) => seen.as_ref().is_some_and(|seen| seen.had_entries),
    };
    if had_entries && answer.tree.is_empty() {
        let problem = "the secret is suddenly empty; what it was stays, until it has entries again";
        return Err(ProviderError::new(ErrorKind::Unavailable, problem));
    }
    let same = match (&slot.held, &slot.seen) {
        (Some(held), _) => *held.tree == answer.tree,
        (None, Some(seen)) => fingerprints.of(request, &answer.tree) == seen.fingerprint,
        (None, None) => false,
    };
    let held = Held::new(answer, started, login);
    let (same_version, was_held) = match &slot.held {
        Some(old) => (old.version == held.version, true),
        None => (true, false),
    };
    if was_held && same_version && held.version.is_some() && !same {
        slot.untrusted = true;
    }
    slot.absent = false;
    slot.seen = None;
    // The same values under another lease: revoking the first might end them.
    let replaced = slot.held.replace(held).filter(|_| !same);
    let counted = matches!(slot.origin(), Origin::Version(_));
    Ok(Taken { changed: !was_held || !same || !same_version, uncounted: !same && !counted, replaced })
}

pub(super) fn has_entries(tree: &SecretTree) -> bool {
    matches!(tree, SecretTree::Map(_) | SecretTree::List(_)) && !tree.is_empty()
}

// === impl Held ===

impl Held {
    /// What is left to do about a replaced answer. One that no application can have seen need not wait.
    fn into_drain(self, now: Instant) -> Option<Drain> {
        let life = self.life?;
        let lease = life.lease?;
        Some(Drain { lease: lease.id, ends: life.ends, revoke_at: (!life.delivered).then_some(now), failures: 0 })
    }
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
