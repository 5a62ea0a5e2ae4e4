//! Applies a completed operation: answers, renewals, logins and failures.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::answer::{answers, take_in, tell_read};
use super::{ApplyContext, Completed, Worker};
use crate::provider::{ErrorKind, Extended, Lease, ProviderError, ReadResult};
use crate::reference::Request;
use crate::secret::SecretValue;
use crate::source::backoff::{self, Jitter};
use crate::source::earlier::VersionsRead;
use crate::source::failure::SourceFailure;
use crate::source::login_state::LoginState;
use crate::source::metrics::RefreshKind;
use crate::source::request_state::{Demand, RequestState, after, in_time};
use crate::source::told::ToldAccesses;

/// Spreads what thousands of replicas ask of a store that came back just now.
const STALLED_WAKE: Duration = Duration::from_secs(2);

/// What came of what was applied.
#[derive(Default)]
pub(in crate::source) struct Applied {
    /// Something came at all.
    pub(in crate::source) any: bool,
    /// Requests that the store answered, be it that nothing changed.
    pub(in crate::source) answers: usize,
    /// Some answer is another one.
    pub(in crate::source) changed: bool,
    /// … and no version says so.
    pub(in crate::source) uncounted: bool,
    pub(in crate::source) failures: Vec<SourceFailure>,
    /// What was read for pins.
    pub(in crate::source) earlier: Vec<VersionsRead>,
}

// === impl Worker ===

impl Worker {
    /// Takes in what came since the last time.
    pub(in crate::source) fn apply(&mut self, context: &mut ApplyContext<'_>) -> Applied {
        let mut applied = Applied::default();
        if std::mem::take(&mut self.pushed) {
            self.poll_now();
        }
        let now = Instant::now();
        for completed in std::mem::take(&mut self.completed) {
            applied.any = true;
            self.observe_login(now, context.jitter);
            let failed_login = self.tell_logins(context.audit);
            match completed {
                Completed::Read(requests, results) => {
                    let read = requests.into_iter().zip(answers(results));
                    self.apply_reads(read, failed_login.as_ref(), now, context, &mut applied);
                }
                Completed::Renewed(results) => self.apply_renewals(results, now, context, &mut applied),
                Completed::Extended(result) => self.apply_extension(result, now, context, &mut applied),
                Completed::Revoked(results) => self.apply_revocations(&results, now, context.jitter),
                Completed::ReadAgain(wanted, results) => {
                    for kind in results.iter().filter_map(|result| Some(result.as_ref().err()?.kind)) {
                        self.heed(kind, now, backoff::delay(kind, 1, false, 0.5));
                    }
                    applied.earlier.push(wanted.answered(results, self, failed_login.as_ref(), context));
                }
            }
            if std::mem::take(&mut self.again) {
                self.poll_now();
            }
        }
        if applied.answers > 0 {
            self.down = None;
        }
        if applied.answers > 0 && applied.failures.is_empty() {
            self.wake_stalled(now, context.jitter);
        } else if applied.answers == 0 && !applied.failures.is_empty() {
            self.gather_stalled();
        }
        if applied.any {
            self.arrivals.settle();
            self.report(now, &applied.failures);
        }
        applied
    }

    fn apply_reads(
        &mut self,
        read: impl Iterator<Item = (Request, ReadResult)>,
        failed_login: Option<&ProviderError>,
        now: Instant,
        context: &mut ApplyContext<'_>,
        applied: &mut Applied,
    ) {
        let interval =
            self.provider.as_ref().and_then(|provider| provider.pace()).unwrap_or_default().max(self.interval);
        // One draw for the batch: what was read together stays together.
        let chance = context.jitter.chance();
        let mut wishes = Vec::new();
        let told = ToldAccesses { audit: context.audit, provider: &self.name, role: self.role.as_deref() };
        for (request, result) in read {
            let Some(state) = self.states.get_mut(&request) else { continue };
            let result = state.checked(result);
            match take_in(state, &request, result, (self.started, self.logins), context) {
                Ok(taken) => {
                    tell_read(told, state, &request, &taken);
                    state.settle(now, interval, context.jitter, chance);
                    state.asked = Some(self.started);
                    applied.answers += 1;
                    context.refreshes.succeeded(RefreshKind::Read, taken.changed);
                    let counts = state.demand != Demand::Internal;
                    applied.changed |= taken.changed && counts;
                    applied.uncounted |= taken.uncounted && counts;
                    self.retired.extend(taken.replaced.and_then(|old| old.into_retired(now)));
                }
                Err(error) => {
                    context.refreshes.failed(RefreshKind::Read, error.kind);
                    let wait = state.failed(error.kind, now, context.starting, chance);
                    wishes.push((error.kind, wait));
                    told.failed(&request, &error, failed_login);
                    applied.failures.push(SourceFailure {
                        provider: self.name.clone(),
                        request: Some(request),
                        error,
                        retry_in: Some(wait),
                    });
                }
            }
        }
        for (kind, wait) in wishes {
            self.heed(kind, now, wait);
        }
    }

    fn apply_renewals(
        &mut self,
        results: Vec<(Request, Result<Lease, ProviderError>)>,
        now: Instant,
        context: &mut ApplyContext<'_>,
        applied: &mut Applied,
    ) {
        let chance = context.jitter.chance();
        for (request, result) in results {
            let Some(state) = self.states.get_mut(&request) else { continue };
            let error = match result {
                Ok(lease) => {
                    context.refreshes.succeeded(RefreshKind::Renew, false);
                    state.renewed(lease, self.started, context.jitter);
                    applied.answers += 1;
                    continue;
                }
                Err(error) => error,
            };
            context.refreshes.failed(RefreshKind::Renew, error.kind);
            if error.kind.is_permanent() {
                info!(provider = self.name, %request, kind = error.kind.as_str(), %error, "lease cannot be renewed, replacing it");
                state.replace_now(now);
                continue;
            }
            let wait = state.failed(error.kind, now, context.starting, chance);
            self.heed(error.kind, now, wait);
            let provider = self.name.clone();
            applied.failures.push(SourceFailure { provider, request: Some(request), error, retry_in: Some(wait) });
        }
    }

    fn apply_extension(
        &mut self,
        result: Result<Extended, ProviderError>,
        now: Instant,
        context: &mut ApplyContext<'_>,
        applied: &mut Applied,
    ) {
        let Some(login) = &mut self.login else { return };
        match result {
            Ok(extended) => {
                context.refreshes.succeeded(RefreshKind::Login, extended == Extended::Replaced);
                // Whether it was replaced is seen by its token.
                login.failures = 0;
                applied.answers += 1;
                if login.extend_at.is_some() {
                    login.schedule(now, context.jitter);
                }
            }
            Err(error) => {
                context.refreshes.failed(RefreshKind::Login, error.kind);
                login.failures = login.failures.saturating_add(1);
                let chance = context.jitter.chance();
                let wait = backoff::delay(error.kind, login.failures, context.starting, chance)
                    + backoff::spread(error.kind, context.starting, chance);
                let wait = login.ends.map_or(wait, |ends| in_time(wait, ends, now));
                login.extend_at = Some(after(now, wait));
                self.heed(error.kind, now, wait);
                let provider = self.name.clone();
                applied.failures.push(SourceFailure { provider, request: None, error, retry_in: Some(wait) });
            }
        }
    }

    fn apply_revocations(
        &mut self,
        results: &[(SecretValue, Result<(), ProviderError>)],
        now: Instant,
        jitter: &mut Jitter,
    ) {
        for (lease, result) in results {
            let Some(at) = self.retired.iter().position(|retired| retired.lease == *lease) else { continue };
            match result {
                Err(error) if !error.kind.is_permanent() => {
                    if let Some(retired) = self.retired.get_mut(at) {
                        retired.failures = retired.failures.saturating_add(1);
                        let wait = backoff::delay(error.kind, retired.failures, false, jitter.chance());
                        retired.revoke_at = Some(after(now, wait));
                    }
                }
                Ok(()) => drop(self.retired.swap_remove(at)),
                Err(error) => {
                    // It ends by itself; that the store lets us not revoke is the operator's choice.
                    debug!(provider = self.name, kind = error.kind.as_str(), %error, "replaced lease cannot be revoked");
                    drop(self.retired.swap_remove(at));
                }
            }
        }
    }

    /// Notes which login the provider holds now. Where leases end with the login that they hang on, another login means
    /// other leases, also if another process made it.
    fn observe_login(&mut self, now: Instant, jitter: &mut Jitter) {
        let leases_outlive = self.provider.as_ref().is_some_and(|provider| provider.leases_outlive_logins());
        let Some(session) = self.provider.as_ref().and_then(|provider| provider.session()) else {
            if let Some(login) = &mut self.login {
                login.extend_at = None;
            }
            return;
        };
        match &mut self.login {
            None => self.login = Some(LoginState::new(session, now, jitter)),
            Some(login) if login.token == session.token => login.update(&session, now, jitter),
            Some(login) => {
                *login = LoginState::new(session, now, jitter);
                if leases_outlive {
                    return;
                }
                self.logins += 1;
                let logins = self.logins;
                let hangs_on_another = |state: &&mut RequestState| {
                    state.validity().is_some_and(|validity| validity.lease.is_some() && validity.login != logins)
                };
                self.states.values_mut().filter(hangs_on_another).for_each(|state| state.replace_now(now));
            }
        }
    }

    /// A store that answers one request again will answer the others, however long each of them was to wait.
    fn wake_stalled(&mut self, now: Instant, jitter: &mut Jitter) {
        let soon = after(now, STALLED_WAKE.mul_f64(jitter.chance()));
        for state in self.states.values_mut().filter(|state| state.failure == Some(ErrorKind::Unavailable)) {
            state.due = state.due.min(soon);
        }
    }

    /// A store that is down is asked as seldom as for what has failed longest: each request at its own pace would be many
    /// times that. What ends is looked after all the same.
    fn gather_stalled(&mut self) {
        let is_stalled =
            |state: &&mut RequestState| state.failure == Some(ErrorKind::Unavailable) && state.validity().is_none();
        let latest = self.states.values_mut().filter(is_stalled).map(|state| (state.due, state.failures)).max();
        let Some((due, failures)) = latest else { return };
        for state in self.states.values_mut().filter(is_stalled) {
            (state.due, state.failures) = (due, state.failures.max(failures));
        }
        if failures > 1 && self.states.values().all(|state| state.validity().is_none()) {
            self.down.get_or_insert(0);
        }
    }

    /// A store that asks for patience asks for all requests; what ends soon is not kept waiting longer than it asks.
    pub(super) fn heed(&mut self, kind: ErrorKind, now: Instant, wait: Duration) {
        if matches!(kind, ErrorKind::Throttled { .. }) {
            let first_end = self.states.values().filter_map(|state| Some(state.validity()?.ends)).min();
            let asked = backoff::delay(kind, 1, false, 1.0);
            let wait = first_end.map_or(wait, |ends| wait.min(in_time(wait, ends, now).max(asked)));
            self.not_before = self.not_before.max(Some(after(now, wait)));
        }
    }

    fn report(&mut self, now: Instant, failures: &[SourceFailure]) {
        let Some(first) = failures.first() else {
            if !self.is_failing() {
                self.silences.recovered();
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
