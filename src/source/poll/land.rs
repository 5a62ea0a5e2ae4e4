//! What an operation came to: answers, renewals, logins and failures are taken in.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Drain, Landed, Lane, Login};
use crate::provider::{ErrorKind, Extended, Lease, ProviderError, ReadResult, Reading, Version};
use crate::reference::Request;
use crate::secret::document::MAX_VALUES;
use crate::secret::{SecretTree, SecretValue};
use crate::source::Failure;
use crate::source::backoff::{self, Jitter};
use crate::source::history::{Fingerprints, Origin};
use crate::source::lease::{Demand, Held, Slot, after, in_time};

/// Spreads what thousands of replicas ask of a store that came back just now.
const STALLED_WAKE: Duration = Duration::from_secs(2);

/// Most bytes of a version's name. Stores' own have up to a hundred.
const MAX_VERSION: usize = 1024;

/// What came of a landing.
#[derive(Default)]
pub(in crate::source) struct Outcome {
    /// Something landed at all.
    pub(in crate::source) any: bool,
    /// Requests that the store answered, be it that nothing changed.
    pub(in crate::source) answers: usize,
    /// Some answer is another one.
    pub(in crate::source) changed: bool,
    /// … and no version says so.
    pub(in crate::source) uncounted: bool,
    pub(in crate::source) failures: Vec<Failure>,
}

/// What landings need of the source.
pub(in crate::source) struct Desk<'a> {
    pub(in crate::source) jitter: &'a mut Jitter,
    pub(in crate::source) fingerprints: &'a Fingerprints,
    /// There is no generation yet.
    pub(in crate::source) starting: bool,
}

// === impl Lane ===

impl Lane {
    /// Takes in what came since the last time.
    pub(in crate::source) fn land(&mut self, desk: &mut Desk<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        if std::mem::take(&mut self.pushed) {
            self.poll_now();
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
                self.poll_now();
            }
        }
        if outcome.answers > 0 {
            self.down = None;
        }
        if outcome.answers > 0 && outcome.failures.is_empty() {
            self.wake_stalled(now, desk.jitter);
        } else if outcome.answers == 0 && !outcome.failures.is_empty() {
            self.gather_stalled();
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
        let interval =
            self.provider.as_ref().and_then(|provider| provider.pace()).unwrap_or_default().max(self.interval);
        // One draw for the batch: what was read together stays together.
        let chance = desk.jitter.chance();
        let short = || Err(ProviderError::new(ErrorKind::Unavailable, "the provider left this request unanswered"));
        let results = results.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (request, result) in requests.into_iter().zip(results) {
            let Some(slot) = self.slots.get_mut(&request) else { continue };
            let result = slot.checked(result.unwrap_or_else(short));
            match take(slot, &request, result, self.started, self.logins, desk.fingerprints) {
                Ok(taken) => {
                    slot.settle(now, interval, desk.jitter, chance);
                    outcome.answers += 1;
                    let counts = slot.demand != Demand::Hidden;
                    outcome.changed |= taken.changed && counts;
                    outcome.uncounted |= taken.uncounted && counts;
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
            Ok(lease) => {
                slot.renewed(lease, self.started, desk.jitter);
                outcome.answers += 1;
            }
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
                outcome.answers += 1;
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

    /// Notes which login the provider holds now. Where leases end with the login that they hang on, another login means
    /// other leases, whoever made it.
    fn observe_login(&mut self, now: Instant, jitter: &mut Jitter) {
        let leases_outlive = self.provider.as_ref().is_some_and(|provider| provider.leases_outlive_logins());
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
                if leases_outlive {
                    return;
                }
                self.logins += 1;
                let logins = self.logins;
                let hangs_on_another =
                    |slot: &&mut Slot| slot.life().is_some_and(|life| life.lease.is_some() && life.login != logins);
                self.slots.values_mut().filter(hangs_on_another).for_each(|slot| slot.replace_now(now));
            }
        }
    }

    /// A store that answers one request again will answer the others, however long each of them was to wait.
    fn wake_stalled(&mut self, now: Instant, jitter: &mut Jitter) {
        let soon = after(now, STALLED_WAKE.mul_f64(jitter.chance()));
        for slot in self.slots.values_mut().filter(|slot| slot.failure == Some(ErrorKind::Unavailable)) {
            slot.due = slot.due.min(soon);
        }
    }

    /// A store that is down is asked as seldom as for what has failed longest: each request at its own pace would be many
    /// times that. What ends is looked after all the same.
    fn gather_stalled(&mut self) {
        let is_stalled = |slot: &&mut Slot| slot.failure == Some(ErrorKind::Unavailable) && slot.life().is_none();
        let latest = self.slots.values_mut().filter(is_stalled).map(|slot| (slot.due, slot.failures)).max();
        let Some((due, failures)) = latest else { return };
        for slot in self.slots.values_mut().filter(is_stalled) {
            (slot.due, slot.failures) = (due, slot.failures.max(failures));
        }
        if failures > 1 && self.slots.values().all(|slot| slot.life().is_none()) {
            self.down.get_or_insert(0);
        }
    }

    /// A store that asks for patience asks for all requests.
    pub(super) fn heed(&mut self, kind: ErrorKind, now: Instant, wait: Duration) {
        if matches!(kind, ErrorKind::Throttled { .. }) {
            self.not_before = self.not_before.max(Some(after(now, wait)));
        }
    }

    fn report(&mut self, now: Instant, failures: &[Failure]) {
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
        // It is kept for every generation that is remembered.
        Ok(Reading::Fresh(answer)) if answer.version.as_ref().is_some_and(|Version(name)| name.len() > MAX_VERSION) => {
            return Err(ProviderError::new(ErrorKind::Unavailable, "the store names a version with more than 1 KiB"));
        }
        Ok(Reading::Fresh(answer)) if answer.tree.count() > MAX_VALUES => {
            let message = format!("{request} has more than {MAX_VALUES} values: ask for less of it");
            return Err(ProviderError::new(ErrorKind::Invalid, message));
        }
        Ok(Reading::Fresh(answer)) => answer,
        Ok(Reading::NotModified) if slot.held.is_some() => return Ok(nothing),
        Ok(Reading::NotModified) => {
            return Err(ProviderError::new(
                ErrorKind::Unavailable,
                "the store says \"not modified\" of what was never read",
            ));
        }
        // Once it was there, "not found" is no reason to take it away: the last good answer stays.
        Err(error) if error.kind == ErrorKind::NotFound && slot.demand == Demand::Optional && slot.held.is_none() => {
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

pub(in crate::source) fn has_entries(tree: &SecretTree) -> bool {
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
