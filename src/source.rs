//! Requests become generations: polls, renews, replaces, backs off.
//!
//! A [`Source`] owns the providers and what they answered. Each provider works in a worker of its own, so a slow or
//! failing store never holds back what another one has to say. The last good answers stay whatever fails.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

use self::backoff::Jitter;
use self::clock::{Clock, MachineClock, TimerClock};
use self::earlier::EarlierGenerations;
use self::history::{Fingerprints, Ledger};
use self::key_dependency::{KeyDependency, part_of};
use self::metrics::{ProviderState, SourceTally};
use self::request_state::{Demand, RequestState};
use self::resume::{Moment, Resumed};
use self::worker::{ApplyContext, Worker};
use crate::audit::AuditLog;
use crate::generation::{Generation, GenerationId};
use crate::plan::Plan;
use crate::provider::{ErrorKind, Provider, ProviderError};
use crate::reference::{Key, Request};

mod backoff;
mod bounds;
mod clock;
mod connect;
mod earlier;
mod failure;
mod handover;
mod history;
mod key_dependency;
mod login_state;
mod metrics;
pub mod persisted;
mod read_again;
mod request_state;
mod resume;
mod retired_lease;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod told;
mod worker;

pub use connect::{connect, connect_counted};
pub use failure::{Obstacles, SetupError, SourceFailure, refusals};
pub use handover::{AnswerDigest, HandOver, HandedAnswer, HandedLease, HandedRetiredLease, HandedSession};
pub use history::{Origin, PastGeneration, PinError};
pub use metrics::SourceMetrics;

/// What [`Source::next`] has to say. After any of them the [`HandOver`] may be another one: a login was made or a lease
/// renewed.
#[derive(Debug)]
pub enum Event {
    /// There is a new generation. The first complete set of a process is always one, also after [`Source::resume`]:
    /// whether its bytes are new is the volume's to say.
    Changed(Generation),
    /// Something was read or renewed, and no generation came of it. Also while the first one is still incomplete, and when
    /// an earlier one was read ([`Source::read_again`]).
    Unchanged,
    /// Something failed; it is tried again by itself. Already logged.
    Failed(Vec<SourceFailure>),
    /// A store has not answered for a while ([`Source::silent`]): it is waited for, as long as its provider thinks fit.
    /// Already logged.
    Silent,
}

/// Providers, what they answered, and when to ask again.
pub struct Source {
    workers: BTreeMap<String, Worker>,
    events: VecDeque<Event>,
    ledger: Ledger,
    /// What pins ask for.
    earlier: EarlierGenerations,
    fingerprints: Fingerprints,
    jitter: Jitter,
    clock: Box<dyn Clock>,
    /// Both clocks, when they were last compared.
    compared: (Instant, Duration),
    /// No generation of this process yet.
    starting: bool,
    /// Some answer is not in the last generation …
    changed: bool,
    /// … and has no version that says so.
    uncounted: bool,
    tally: SourceTally,
    /// Where accesses are told.
    audit: AuditLog,
    /// Bytes of memory that answers may take.
    most_memory: u64,
    asking: Asking,
}

/// For how long stores are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// Until the first generation.
    Once,
    /// For ever, and they may push.
    Always,
}

/// A larger gap between the two clocks means that the machine was suspended.
const SUSPENDED: Duration = Duration::from_secs(5);
/// How long a suspended machine may go unnoticed after it woke up, where something can end.
const COMPARE_CLOCKS: Duration = Duration::from_mins(1);

// === impl Source ===

impl Source {
    /// A source for the plan's requests. Asks nothing before [`Source::next`].
    #[must_use]
    pub fn new(plan: &Plan, providers: BTreeMap<String, Box<dyn Provider>>) -> Self {
        Self::with(plan, providers, Box::new(MachineClock), Jitter::random())
    }

    /// As [`Source::new`], for many in one process whose clock a test has stopped: chance follows from `seed`, and the
    /// time that all their work takes is not a suspended machine's.
    #[must_use]
    pub fn simulated(plan: &Plan, providers: BTreeMap<String, Box<dyn Provider>>, seed: u64) -> Self {
        Self::with(plan, providers, Box::new(TimerClock(Instant::now())), Jitter::seeded(seed))
    }

    fn with(
        plan: &Plan,
        providers: BTreeMap<String, Box<dyn Provider>>,
        clock: Box<dyn Clock>,
        jitter: Jitter,
    ) -> Self {
        let now = Instant::now();
        let of_plan = |(name, provider)| (String::clone(&name), Self::worker(plan, name, provider));
        let mut workers: BTreeMap<String, Worker> = providers.into_iter().map(of_plan).collect();
        let mut unknown = Vec::new();
        let wanted = plan.requests();
        let mut parts: BTreeMap<&Request, Vec<Option<Key>>> = BTreeMap::new();
        for take in plan.items.iter().flat_map(|item| item.from.references()) {
            parts.entry(&take.request).or_default().push(take.key.clone());
        }
        let mut keys: BTreeMap<&Request, Vec<Option<Key>>> = BTreeMap::new();
        for (name, planned) in &plan.providers {
            if let (Some(take), Some(worker)) = (&planned.unlock, workers.get_mut(name)) {
                worker.key_dependency = Some(KeyDependency::new(take));
                keys.entry(&take.request).or_default().push(take.key.clone());
            }
        }
        let all: BTreeSet<&Request> = wanted.iter().chain(keys.keys()).copied().collect();
        for request in all {
            if let Some(worker) = workers.get_mut(&request.provider) {
                let keys = keys.remove(request).unwrap_or_default();
                let demand = match wanted.contains(request) {
                    false => Demand::Internal,
                    true if keys.is_empty() && plan.is_optional(request) => Demand::Optional,
                    true => Demand::Required,
                };
                let parts = parts.remove(request).into_iter().flatten().chain(keys.iter().cloned()).collect();
                worker.states.insert(request.clone(), RequestState { keys, parts, ..RequestState::new(demand, now) });
            } else {
                let error = ProviderError::new(
                    ErrorKind::Invalid,
                    "the plan has a request for a provider that it does not have",
                );
                let provider = request.provider.clone();
                unknown.push(SourceFailure { provider, request: Some(request.clone()), error, retry_in: None });
            }
        }
        Self {
            workers,
            events: if unknown.is_empty() { VecDeque::new() } else { [Event::Failed(unknown)].into() },
            ledger: Ledger::default(),
            earlier: EarlierGenerations::default(),
            fingerprints: Fingerprints::random(),
            jitter,
            compared: (now, clock.since_boot()),
            clock,
            starting: true,
            changed: false,
            uncounted: false,
            tally: SourceTally::default(),
            audit: AuditLog::off(),
            most_memory: u64::MAX,
            asking: Asking::Always,
        }
    }

    fn worker(plan: &Plan, name: String, provider: Box<dyn Provider>) -> Worker {
        let planned = plan.providers.get(&name);
        let interval = Duration::from_secs(planned.map_or(60, |planned| planned.refresh_seconds.max(1)));
        let revoke_on_exit = planned.is_some_and(|planned| planned.revoke_on_exit);
        let mut worker = Worker::new(name, provider, interval, revoke_on_exit);
        worker.role = planned.and_then(|planned| planned.role.clone());
        worker
    }

    /// The same, whose logins and reads are told.
    #[must_use]
    pub fn audited(self, audit: AuditLog) -> Self {
        Self { audit, ..self }
    }

    /// The same, for who wants one generation: watches and subscriptions are begun by listening, and it takes time to end
    /// them.
    #[must_use]
    pub fn asked_once(self) -> Self {
        Self { asking: Asking::Once, ..self }
    }

    /// The same, counted and shown.
    #[must_use]
    pub fn counted_by(mut self, metrics: &SourceMetrics) -> Self {
        self.tally = metrics.tally();
        self.show();
        self
    }

    fn show(&self) {
        let moment = self.moment();
        let state = |worker: &Worker| ProviderState {
            is_failing: worker.is_failing(),
            lease_end: worker.lease_end().map(|end| moment.system(end)),
            login_end: worker.login.as_ref().and_then(|login| login.ends).map(|end| moment.system(end)),
        };
        self.tally.show(|| self.workers.iter().map(|(name, worker)| (name.clone(), state(worker))).collect());
    }

    /// Waits until something is due or pushed, asks, renews and replaces, and says what came of it.
    ///
    /// Cancel safe: what is in flight goes on with the next call.
    pub async fn next(&mut self) -> Event {
        self.earlier.forget_answered();
        loop {
            self.apply();
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.compare_clocks();
            let now = Instant::now();
            for worker in self.workers.values_mut() {
                worker.start(now);
            }
            self.wait(now).await;
        }
    }

    /// Waits for the first worker with news, or for the next due time.
    async fn wait(&mut self, now: Instant) {
        let due = self.workers.values().filter_map(Worker::next_due).min();
        let compare = self.workers.values().any(Worker::has_ends).then(|| now + COMPARE_CLOCKS);
        let silent = self.workers.values().filter_map(Worker::tell_at).min();
        let until = due.into_iter().chain(compare).chain(silent).min();
        let is_listening = self.asking == Asking::Always;
        let mut signals: FuturesUnordered<_> =
            self.workers.values_mut().map(|worker| worker.signal(is_listening)).collect();
        let alarm = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = signals.next() => {
                // Everything that is ready now goes into one generation.
                while let Some(Some(())) = signals.next().now_or_never() {}
            }
            () = alarm => {}
        }
    }

    /// Takes in what came, and queues the events that it makes.
    fn apply(&mut self) {
        let mut any = false;
        let mut failures = Vec::new();
        let memory = self.memory();
        let Self { jitter, fingerprints, audit, tally, starting, .. } = self;
        let refreshes = &tally.refreshes;
        let mut context = ApplyContext { jitter, fingerprints, refreshes, audit, starting: *starting, memory };
        for worker in self.workers.values_mut() {
            let outcome = worker.apply(&mut context);
            any |= outcome.any;
            self.changed |= outcome.changed;
            self.uncounted |= outcome.uncounted;
            failures.extend(outcome.failures);
            outcome.earlier.into_iter().for_each(|read| self.earlier.take_in(read));
        }
        self.audit.look();
        let now = Instant::now();
        if self.workers.values_mut().map(|worker| worker.tell_silence(now)).fold(false, |any, told| any | told) {
            self.events.push_back(Event::Silent);
        }
        self.set_decryption_keys();
        if let Some(generation) = self.compose() {
            self.events.push_back(Event::Changed(generation));
        } else if any && failures.is_empty() {
            self.events.push_back(Event::Unchanged);
        }
        if !failures.is_empty() {
            self.events.push_back(Event::Failed(failures));
        }
        self.show();
    }

    /// A new generation, if every request is settled and some answer changed.
    fn compose(&mut self) -> Option<Generation> {
        let states = || {
            self.workers
                .values()
                .flat_map(|worker| &worker.states)
                .filter(|(_, state)| state.demand != Demand::Internal)
        };
        if !self.changed || !states().all(|(_, state)| state.is_settled()) {
            return None;
        }
        // The map puts them into the requests' order, whatever the workers' order is.
        let origins: BTreeMap<_, _> = states().map(|(request, state)| (request.clone(), state.origin())).collect();
        let versions = origins.iter().filter_map(|(request, origin)| match origin {
            Origin::Version(version) => Some((request.clone(), version.clone())),
            _ => None,
        });
        let versions = versions.collect();
        let answers = states()
            .filter_map(|(request, state)| Some((request.clone(), Arc::clone(&state.cached.as_ref()?.tree))))
            .collect();
        let accesses = states()
            .filter_map(|(request, state)| Some((request.clone(), state.cached.as_ref()?.access.clone()?)))
            .collect();
        let id = self.ledger.enter(origins.into_iter().collect(), self.uncounted);
        (self.starting, self.changed, self.uncounted) = (false, false, false);
        Some(Generation { id, answers, versions, accesses })
    }

    /// Notices that the machine was suspended: leases ended meanwhile, though no timer ran.
    fn compare_clocks(&mut self) {
        let (instant, boot) = (Instant::now(), self.clock.since_boot());
        let ran = instant.saturating_duration_since(self.compared.0);
        let gap = boot.saturating_sub(self.compared.1).saturating_sub(ran);
        self.compared = (instant, boot);
        if gap > SUSPENDED {
            tracing::info!(seconds = gap.as_secs(), "the machine was suspended");
            self.workers.values_mut().for_each(|worker| worker.slept(gap));
        }
    }

    /// Everything that is read by polling is due now, and so are leases whose renewal or replacement failed.
    ///
    /// A healthy lease is left alone: reading it would make another credential.
    pub fn refresh_now(&mut self) {
        self.workers.values_mut().for_each(Worker::refresh);
    }

    /// What failed is due now, and nothing else.
    pub fn retry_now(&mut self) {
        self.workers.values_mut().for_each(Worker::retry);
    }

    /// Tells that the files of this generation are in place. Credentials that it replaced are revoked a drain time
    /// (10 s) after this call, and not before: applications under `hold`, or whose volume is full, still use them. Call
    /// it after each write that succeeded, also if no byte changed.
    pub fn delivered(&mut self, id: &GenerationId) {
        if self.ledger.last.as_ref() == Some(id) {
            let now = Instant::now();
            self.workers.values_mut().for_each(|worker| worker.delivered(now));
        }
    }

    /// What the next process needs to go on with the same logins and leases.
    #[must_use]
    pub fn hand_over(&self) -> HandOver {
        resume::hand_over(&self.workers, &self.ledger, &self.fingerprints, self.moment())
    }

    /// Goes on where another process stopped; to be called before the first [`Source::next`]. Leased requests are not
    /// read again as long as their lease lives; all others are due at once.
    pub fn resume(&mut self, hand_over: HandOver) {
        let moment = self.moment();
        let Self { workers, ledger, fingerprints, jitter, .. } = self;
        self.changed |= resume::resume(hand_over, Resumed { workers, ledger, fingerprints, jitter, moment });
    }

    fn moment(&self) -> Moment {
        Moment { instant: Instant::now(), system: self.clock.system() }
    }

    /// Hands over the keys that providers wait for, or that are others than before.
    fn set_decryption_keys(&mut self) {
        let new = |(name, worker): (&String, &Worker)| {
            let KeyDependency { request, part, given } = worker.key_dependency.as_ref()?;
            let state = self.workers.get(&request.provider)?.states.get(request)?;
            let value = part_of(&state.cached.as_ref()?.tree, part.as_ref()).ok()?;
            (given.as_ref() != Some(&value)).then(|| (name.clone(), value))
        };
        let new: Vec<_> = self.workers.iter().filter_map(new).collect();
        for (name, value) in new {
            if let Some(worker) = self.workers.get_mut(&name) {
                worker.set_decryption_key(value);
            }
        }
    }

    /// Revokes every lease and ends the login of the providers whose plan says `revokeOnExit`. Best effort, and unbounded in time: the
    /// caller bounds it.
    pub async fn revoke_all(&mut self) {
        let memory = self.memory();
        let Self { fingerprints, audit, tally, starting, workers, .. } = self;
        let (fingerprints, refreshes, audit, starting) = (&*fingerprints, &tally.refreshes, &*audit, *starting);
        let workers = workers.values_mut().filter(|worker| worker.revoke_on_exit);
        join_all(workers.map(|worker| async move {
            let mut jitter = Jitter::random();
            worker
                .revoke_all(&mut ApplyContext { jitter: &mut jitter, fingerprints, refreshes, audit, starting, memory })
                .await;
        }))
        .await;
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("providers", &self.workers.keys())
            .field("last", &self.ledger.last)
            .finish_non_exhaustive()
    }
}
