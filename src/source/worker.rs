//! A worker: one provider, its login, and the requests that it answers. One operation is in flight at a time; it owns the
//! provider meanwhile, so dropping a future that waits for it loses nothing.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{Jitter, LogBudget};
use super::earlier::VersionsWanted;
use super::history::Fingerprints;
use super::key_dependency::KeyDependency;
use super::login_state::LoginState;
use super::metrics::Refreshes;
use super::request_state::{Action, AnswerMemory, RequestState};
use super::retired_lease::{RetiredLease, expiring};
use super::told::ToldAccesses;
use crate::audit::AuditLog;
use crate::provider::{
    Arrivals, ErrorKind, Extended, Known, Lease, Pending, Provider, ProviderError, ReadResult, Version,
};
use crate::reference::Request;
use crate::secret::SecretValue;

mod answer;
mod apply;

/// One provider and its requests.
pub(super) struct Worker {
    pub(super) name: String,
    /// `None` while an operation is in flight.
    pub(super) provider: Option<Box<dyn Provider>>,
    running: Option<Pending<'static, (Box<dyn Provider>, Completed)>>,
    started: Instant,
    /// When people are to be told that what is in flight takes its time; `None` once they were.
    tell_at: Option<Instant>,
    completed: Vec<Completed>,
    /// What has come and is not taken in yet.
    pub(super) arrivals: Arrivals,
    pub(super) pushed: bool,
    pub(super) states: BTreeMap<Request, RequestState>,
    pub(super) key_dependency: Option<KeyDependency>,
    pub(super) retired: Vec<RetiredLease>,
    /// What pins ask for.
    pub(super) earlier: VecDeque<VersionsWanted>,
    pub(super) login: Option<LoginState>,
    /// How many logins were made after the first; a lease hangs on one of them.
    pub(super) logins: u64,
    interval: Duration,
    /// The role that its logins ask for.
    pub(super) role: Option<String>,
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
enum Completed {
    Read(Vec<Request>, Vec<ReadResult>),
    Renewed(Vec<(Request, Result<Lease, ProviderError>)>),
    Extended(Result<Extended, ProviderError>),
    Revoked(Vec<(SecretValue, Result<(), ProviderError>)>),
    ReadAgain(VersionsWanted, Vec<ReadResult>),
}

/// What workers share when they apply what came.
pub(super) struct ApplyContext<'a> {
    pub(super) jitter: &'a mut Jitter,
    pub(super) fingerprints: &'a Fingerprints,
    pub(super) refreshes: &'a Refreshes,
    pub(super) audit: &'a AuditLog,
    /// There is no generation yet.
    pub(super) starting: bool,
    pub(super) memory: AnswerMemory,
}

/// How long an operation may be in flight before people are told: providers bound it, some after several calls.
const SILENCE: Duration = Duration::from_secs(5);

/// Applications get this long to take up new credentials before the old ones are revoked.
pub(super) const REVOKE_DELAY: Duration = Duration::from_secs(10);

// === impl Worker ===

impl Worker {
    pub(super) fn new(name: String, provider: Box<dyn Provider>, interval: Duration, revoke_on_exit: bool) -> Self {
        Self {
            name,
            provider: Some(provider),
            running: None,
            started: Instant::now(),
            tell_at: None,
            completed: Vec::new(),
            arrivals: Arrivals::default(),
            pushed: false,
            states: BTreeMap::new(),
            key_dependency: None,
            retired: Vec::new(),
            earlier: VecDeque::new(),
            login: None,
            logins: 0,
            interval,
            role: None,
            revoke_on_exit,
            not_before: None,
            again: false,
            budget: LogBudget::default(),
            silences: LogBudget::default(),
            down: None,
        }
    }

    /// Waits until what is in flight lands, or the idle provider pushes, if anybody listens. Cancel safe: both are noted in
    /// the worker.
    pub(super) async fn signal(&mut self, is_listening: bool) {
        if !self.completed.is_empty() {
            return;
        }
        if self.running.is_some() {
            self.settle().await;
        } else if let Some(provider) = self.provider.as_mut().filter(|_| is_listening) {
            provider.changed().await;
            self.pushed = true;
        } else {
            pending::<()>().await;
        }
    }

    /// Waits until nothing is in flight. Cancel safe.
    pub(super) async fn settle(&mut self) {
        if let Some(running) = &mut self.running {
            let (provider, completed) = running.await;
            self.running = None;
            self.provider = Some(provider);
            self.completed.push(completed);
        }
    }

    /// When [`Self::start`] will have something to do; `None` while something is in flight, and while it is locked.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.provider.as_ref().filter(|_| !self.waits_for_key())?;
        let extend = self.login.as_ref().and_then(|login| login.extend_at);
        let states = self.states.values().map(|state| state.due);
        let retired = self.retired.iter().filter_map(|retired| retired.revoke_at);
        let earlier = self.earlier.front().map(|wanted| wanted.since);
        let due = states.chain(retired).chain(extend).chain(earlier).min()?;
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
        self.login.is_some() || self.states.values().any(|state| state.validity().is_some())
    }

    /// Whether the last attempt at some request, or at the login, failed.
    pub(super) fn is_failing(&self) -> bool {
        let login = self.login.as_ref().is_some_and(|login| login.failures > 0);
        login || self.states.values().any(|state| state.failures > 0)
    }

    /// When the first lease ends, or the first answer that has an end.
    pub(super) fn lease_end(&self) -> Option<Instant> {
        self.states.values().filter_map(|state| state.validity().map(|validity| validity.ends)).min()
    }

    /// What kind of error the last one was, if the last attempt failed.
    pub(super) fn failure(&self) -> Option<&'static str> {
        let of_a_request = self.states.values().filter(|state| state.failures > 0).find_map(|state| state.failure);
        let of_the_login = self.login.as_ref().filter(|login| login.failures > 0).map(|_| "login");
        of_a_request.map(ErrorKind::as_str).or(of_the_login)
    }

    /// Sends what is most urgent among what is due: login, renewals, reads, what pins ask for, revocations.
    pub(super) fn start(&mut self, now: Instant) {
        if !self.completed.is_empty() || self.next_due().is_none_or(|due| due > now) {
            return;
        }
        self.retired.retain(|retired| retired.ends > now);
        let extend = self.login.as_ref().and_then(|login| login.extend_at).is_some_and(|at| at <= now);
        let due = || self.states.iter().filter(|(_, state)| state.due <= now);
        let renewals: Vec<(Request, Lease)> = due()
            .filter_map(|(request, state)| match state.action(now) {
                Action::Renew(lease) => Some((request.clone(), lease)),
                Action::Read => None,
            })
            .collect();
        let reads = self.reads(now);
        let revocations: Vec<Lease> = self.retired.iter().filter_map(|retired| retired.due(now)).collect();
        if extend {
            self.run(now, |mut provider| async move {
                let extended = provider.extend_session().await;
                (provider, Completed::Extended(extended))
            });
        } else if !renewals.is_empty() {
            self.run(now, |provider| renew(provider, renewals));
        } else if !reads.is_empty() {
            let known = reads.iter().filter_map(|request| self.known(request)).collect();
            self.read(now, reads, known);
        } else if let Some(wanted) = self.earlier.pop_front() {
            self.run(now, |mut provider| async move {
                let results = provider.read(&wanted.requests(), &Known::new()).await;
                (provider, Completed::ReadAgain(wanted, results))
            });
        } else if !revocations.is_empty() {
            self.run(now, |provider| revoke(provider, revocations));
        }
    }

    /// What is to be read now. A store that is down is asked for one thing, each time for another: when it answers, the
    /// rest follows ([`Self::apply`]).
    fn reads(&mut self, now: Instant) -> Vec<Request> {
        let mut due: Vec<_> =
            self.states.iter().filter(|(_, state)| state.due <= now).map(|(request, _)| request).collect();
        if let Some(at) = self.down.and_then(|probe| probe.checked_rem(due.len())) {
            self.down = Some(at + 1);
            due = due.into_iter().skip(at).take(1).collect();
        }
        due.into_iter().cloned().collect()
    }

    fn known(&self, request: &Request) -> Option<(Request, Version)> {
        Some((request.clone(), self.states.get(request)?.known()?.clone()))
    }

    fn read(&mut self, now: Instant, requests: Vec<Request>, known: Known) {
        self.run(now, |mut provider| async move {
            let results = provider.read(&requests, &known).await;
            (provider, Completed::Read(requests, results))
        });
    }

    fn run<F>(&mut self, now: Instant, operation: impl FnOnce(Box<dyn Provider>) -> F)
    where
        F: Future<Output = (Box<dyn Provider>, Completed)> + Send + 'static,
    {
        let Some(provider) = self.provider.take() else { return };
        self.started = now;
        self.tell_at = Some(now + SILENCE);
        self.running = Some(Box::pin(self.arrivals.count(operation(provider))));
    }

    /// Logins that were tried, as they are told; the error of the last, if it failed.
    fn tell_logins(&mut self, audit: &AuditLog) -> Option<ProviderError> {
        let tried = self.provider.as_mut().map(|provider| provider.take_logins()).unwrap_or_default();
        ToldAccesses { audit, provider: &self.name, role: self.role.as_deref() }.logins(tried)
    }

    /// Revokes all that is held and ends the login, best effort.
    pub(super) async fn revoke_all(&mut self, context: &mut ApplyContext<'_>) {
        self.settle().await;
        self.apply(context);
        let leases = self.states.values().filter_map(|state| state.validity()?.lease.as_ref()).map(|lease| &lease.id);
        let leases = leases.chain(self.retired.iter().map(|retired| &retired.lease)).map(expiring).collect();
        self.run(Instant::now(), |provider| async move {
            let (mut provider, completed) = revoke(provider, leases).await;
            if let Err(error) = provider.end_session().await {
                tracing::warn!(kind = error.kind.as_str(), %error, "the login could not be ended: it ends by itself");
            }
            (provider, completed)
        });
        self.settle().await;
        for state in
            self.states.values_mut().filter(|state| state.validity().is_some_and(|validity| validity.lease.is_some()))
        {
            state.cached = None;
            state.due = Instant::now();
        }
        self.login = None;
        self.apply(context);
    }

    pub(super) fn waits_for_key(&self) -> bool {
        self.key_dependency.as_ref().is_some_and(|dependency| dependency.given.is_none())
    }

    /// While something is in flight there is nobody to give it to: what lands then brings us back here.
    pub(super) fn set_decryption_key(&mut self, value: SecretValue) {
        if let (Some(dependency), Some(provider)) = (&mut self.key_dependency, &mut self.provider) {
            provider.set_decryption_key(value.clone());
            dependency.given = Some(value);
            self.poll_now();
        }
    }

    /// Everything that is polled is due now.
    pub(super) fn poll_now(&mut self) {
        let now = Instant::now();
        self.states.values_mut().filter(|state| !state.is_minted()).for_each(|state| state.due = now);
    }

    /// Everything that is polled is due now, and every credential that failed to be renewed or replaced.
    pub(super) fn refresh(&mut self) {
        self.poll_now();
        self.retry();
        self.again = self.running.is_some();
    }

    /// What failed is due now.
    pub(super) fn retry(&mut self) {
        let now = Instant::now();
        self.states.values_mut().filter(|state| state.failures > 0).for_each(|state| state.due = now);
    }

    /// What this generation replaced may be revoked soon.
    pub(super) fn delivered(&mut self, now: Instant) {
        for validity in self.states.values_mut().filter_map(|state| state.cached.as_mut()?.validity.as_mut()) {
            validity.delivered = true;
        }
        for retired in &mut self.retired {
            retired.revoke_at.get_or_insert(now + REVOKE_DELAY);
        }
    }

    /// The machine slept for `gap`: ends and due times came nearer without the clock of [`Instant`] running.
    pub(super) fn slept(&mut self, gap: Duration) {
        let earlier = |at: &mut Instant| *at = at.checked_sub(gap).unwrap_or(*at);
        for state in self.states.values_mut() {
            earlier(&mut state.due);
            if let Some(validity) = state.cached.as_mut().and_then(|cached| cached.validity.as_mut()) {
                earlier(&mut validity.ends);
            }
        }
        if let Some(login) = &mut self.login {
            login.ends.iter_mut().chain(&mut login.extend_at).for_each(earlier);
        }
        for retired in &mut self.retired {
            earlier(&mut retired.ends);
            retired.revoke_at.iter_mut().for_each(earlier);
        }
    }
}

async fn renew(mut provider: Box<dyn Provider>, leases: Vec<(Request, Lease)>) -> (Box<dyn Provider>, Completed) {
    let mut results = Vec::with_capacity(leases.len());
    for (request, lease) in leases {
        let renewed = provider.renew(&lease).await;
        results.push((request, renewed));
    }
    (provider, Completed::Renewed(results))
}

async fn revoke(mut provider: Box<dyn Provider>, leases: Vec<Lease>) -> (Box<dyn Provider>, Completed) {
    let mut results = Vec::with_capacity(leases.len());
    for lease in leases {
        let revoked = provider.revoke(&lease).await;
        results.push((lease.id, revoked));
    }
    (provider, Completed::Revoked(results))
}
