//! One request's answer and its life: when to read it again, renew it or replace it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{self, Jitter};
use super::handover::{AnswerDigest, HandedLease};
use super::history::Origin;
use super::key_dependency::part_of;
use crate::generation::Access;
use crate::provider::{Answer, ErrorKind, Lease, ProviderError, ReadResult, Reading, Version};
use crate::reference::Key;
use crate::secret::SecretTree;

/// What is known of one request.
pub(super) struct RequestState {
    pub(super) demand: Demand,
    /// Parts of it that are other providers' keys.
    pub(super) keys: Vec<Option<Key>>,
    /// Parts of it that anybody wants; the rest is not kept.
    pub(super) parts: Vec<Option<Key>>,
    /// The last good answer.
    pub(super) cached: Option<CachedAnswer>,
    /// The store has no such secret, and none is needed.
    pub(super) absent: bool,
    /// What an earlier process knew of it.
    pub(super) digest: Option<AnswerDigest>,
    /// When something is to be done about it.
    pub(super) due: Instant,
    /// Failures in a row.
    pub(super) failures: u32,
    /// What the last of them was.
    pub(super) failure: Option<ErrorKind>,
    /// When the store was asked for what it last answered.
    pub(super) asked: Option<Instant>,
    /// The store once gave other content under the same version: its versions name nothing.
    pub(super) untrusted: bool,
}

/// Who wants a request's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// Items that cannot do without.
    Required,
    /// Optional items only.
    Optional,
    /// No item: it is another provider's key, and part of no generation.
    Internal,
}

/// An answer.
pub(super) struct CachedAnswer {
    pub(super) tree: Arc<SecretTree>,
    pub(super) version: Option<Version>,
    pub(super) validity: Option<Validity>,
    /// The access that brought these values; `None` if an earlier process read them, or nobody is told.
    pub(super) access: Option<Access>,
}

/// What the answers of a source may take of its process's memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerMemory {
    pub(super) most: u64,
    pub(super) taken: u64,
}

/// How long an answer is valid.
pub(super) struct Validity {
    pub(super) ends: Instant,
    /// What was granted at first; renewals that grant much less are near the store's maximum.
    pub(super) granted: Duration,
    pub(super) lease: Option<HandedLease>,
    /// The login that it hangs on.
    pub(super) login: u64,
    /// Applications may be using it.
    pub(super) delivered: bool,
    /// It is not worth renewing: read anew.
    pub(super) must_replace: bool,
}

/// What to do about a request that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Renew(Lease),
}

/// No life is longer, so points in time can be added up.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

/// `now` and then `wait`, however long that is.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(LONGEST)
}

/// When to act on something that was granted for `granted` and ends at `ends`: while a third of its life is left, or up
/// to four tenths, so replicas that began together part.
pub(super) fn act_before(ends: Instant, granted: Duration, jitter: &mut Jitter) -> Instant {
    let margin = granted.min(LONGEST).mul_f64(1.0 / 3.0 + jitter.chance() / 15.0);
    ends.checked_sub(margin).unwrap_or(ends)
}

// === impl RequestState ===

impl RequestState {
    pub(super) fn new(demand: Demand, now: Instant) -> Self {
        Self {
            demand,
            keys: Vec::new(),
            parts: vec![None],
            cached: None,
            absent: false,
            digest: None,
            due: now,
            failures: 0,
            failure: None,
            asked: None,
            untrusted: false,
        }
    }

    /// Whether a generation can be made of it.
    pub(super) fn is_settled(&self) -> bool {
        self.cached.is_some() || self.absent
    }

    pub(super) fn validity(&self) -> Option<&Validity> {
        self.cached.as_ref()?.validity.as_ref()
    }

    /// Whether each read makes a new credential: then it is not read just to see what is new.
    ///
    /// An answer with an end and a version (a key vault's entry with an expiry date) can be polled; one with an end and
    /// no version (a certificate, an access token) was made for us.
    pub(super) fn is_minted(&self) -> bool {
        let Some(cached) = &self.cached else { return false };
        cached.validity.as_ref().is_some_and(|validity| validity.lease.is_some() || cached.version.is_none())
    }

    pub(super) fn origin(&self) -> Origin {
        match &self.cached {
            None => Origin::Absent,
            Some(_) if self.is_minted() => Origin::Lease,
            Some(CachedAnswer { version: Some(version), .. }) if !self.untrusted => Origin::Version(version.clone()),
            Some(_) => Origin::Unversioned,
        }
    }

    /// The version to ask the store for changes since.
    pub(super) fn known(&self) -> Option<&Version> {
        if self.is_minted() || self.untrusted { None } else { self.cached.as_ref()?.version.as_ref() }
    }

    pub(super) fn action(&self, now: Instant) -> Action {
        let Some(Validity { ends, granted, lease: Some(lease), must_replace, .. }) = self.validity() else {
            return Action::Read;
        };
        let left = ends.saturating_duration_since(now);
        // If renewing keeps failing, another read may still get through before the end.
        let too_late = left.is_zero() || (self.failures > 0 && left < *granted / 6);
        if *must_replace || !lease.renewable || too_late {
            return Action::Read;
        }
        Action::Renew(Lease { id: lease.id.clone(), ttl: left, renewable: true })
    }

    /// When to look at an answer again that just came.
    pub(super) fn settle(&mut self, now: Instant, interval: Duration, jitter: &mut Jitter, chance: f64) {
        self.failures = 0;
        self.failure = None;
        let poll = after(now, interval.mul_f64(0.9 + chance / 5.0));
        self.due = match self.validity() {
            None => poll,
            Some(validity) if self.is_minted() => {
                act_before(validity.ends, validity.granted, jitter).max(now + validity.shortest())
            }
            // Once before its end and once at it; what the store then still gives is polled as ever.
            Some(validity) => [act_before(validity.ends, validity.granted, jitter), validity.ends]
                .into_iter()
                .filter(|at| *at > now + validity.shortest())
                .chain([poll])
                .min()
                .unwrap_or(poll),
        };
    }

    /// Takes a renewal in. One that leaves no more than the last third of the first life has met the store's maximum: a
    /// read makes a new credential at once, while this one still lives.
    pub(super) fn renewed(&mut self, lease: Lease, started: Instant, jitter: &mut Jitter) {
        self.failures = 0;
        self.failure = None;
        let Some(validity) = self.cached.as_mut().and_then(|cached| cached.validity.as_mut()) else { return };
        let ends = after(started, lease.ttl);
        self.due = act_before(ends, validity.granted, jitter);
        validity.must_replace = self.due <= started + validity.shortest();
        validity.ends = ends;
        validity.lease = Some(HandedLease { id: lease.id, renewable: lease.renewable });
        if validity.must_replace {
            self.due = started;
        }
    }

    /// The lease is gone, or will be: replaces it now.
    pub(super) fn replace_now(&mut self, now: Instant) {
        if let Some(validity) = self.cached.as_mut().and_then(|cached| cached.validity.as_mut()) {
            validity.must_replace = true;
        }
        self.due = now;
    }

    /// An answer that does not have what another provider is unlocked with does not count.
    pub(super) fn checked(&self, result: ReadResult) -> ReadResult {
        if let Ok(Reading::Fresh(answer)) = &result {
            self.keys.iter().try_for_each(|part| part_of(&answer.tree, part.as_ref()).map(drop))?;
        }
        result
    }

    /// What is wanted of an answer.
    pub(super) fn only(&self, tree: SecretTree) -> SecretTree {
        let paths = self.parts.iter().map(|part| match part {
            None => [].as_slice(),
            Some(Key::Literal(key)) => std::slice::from_ref(key),
            Some(Key::Pointer(tokens)) => tokens.as_slice(),
        });
        tree.only(&paths.collect::<Vec<_>>())
    }

    /// Counts a failure; when to try again.
    pub(super) fn failed(&mut self, kind: ErrorKind, now: Instant, starting: bool, chance: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(kind);
        let mut wait = backoff::delay(kind, self.failures, starting, chance);
        let spread = backoff::spread(kind, starting, chance);
        wait += self.validity().map_or(spread, |validity| in_time(spread, validity.ends, after(now, wait)));
        if let (Some(validity), ErrorKind::Unavailable | ErrorKind::Throttled { retry_after: None }) =
            (self.validity(), kind)
        {
            wait = in_time(wait, validity.ends, now);
        }
        self.due = after(now, wait);
        wait
    }
}

/// Leaves room for several more attempts before `ends`.
pub(super) fn in_time(wait: Duration, ends: Instant, now: Instant) -> Duration {
    let left = ends.saturating_duration_since(now);
    if left.is_zero() { wait } else { wait.min((left / 4).max(Duration::from_secs(1))) }
}

// === impl AnswerMemory ===

impl AnswerMemory {
    /// Counts an answer in the place of another.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there is no room for it.
    pub(super) fn replace(&mut self, old: Option<&SecretTree>, new: &SecretTree) -> Result<(), ProviderError> {
        if self.most == u64::MAX {
            return Ok(());
        }
        let taken = self.taken.saturating_sub(old.map_or(0, SecretTree::memory)).saturating_add(new.memory());
        if taken > self.most {
            let most = self.most;
            let problem = format!(
                "with it, what stores answered takes {taken} bytes of memory, and {most} is the most: ask for less of \
                 it, or raise size-limit"
            );
            return Err(ProviderError::new(ErrorKind::Invalid, problem));
        }
        self.taken = taken;
        Ok(())
    }
}

// === impl Validity ===

impl Validity {
    /// However short the life, a store is not asked twice within a second, or within half of that life.
    fn shortest(&self) -> Duration {
        (self.granted / 2).min(Duration::from_secs(1))
    }
}

// === impl CachedAnswer ===

impl CachedAnswer {
    /// An answer to what was asked at `started`: its life counts from then, since nobody knows how long it was on its way.
    pub(super) fn new(answer: Answer, started: Instant, login: u64) -> Self {
        let Answer { tree, version, expires_in, lease } = answer;
        // A lease of no length is one without an end, as a token's is.
        let leased = lease.as_ref().map(|lease| if lease.ttl.is_zero() { LONGEST } else { lease.ttl });
        let granted = leased.or(expires_in.filter(|validity| !validity.is_zero()));
        let validity = granted.map(|granted| Validity {
            ends: after(started, granted),
            granted,
            lease: lease.map(|Lease { id, renewable, .. }| HandedLease { id, renewable }),
            login,
            delivered: false,
            must_replace: false,
        });
        Self { tree: Arc::new(tree), version, validity, access: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn leased(ttl: u64, renewable: bool) -> RequestState {
        let now = Instant::now();
        let lease = Some(Lease { id: "id".into(), ttl: seconds(ttl), renewable });
        let answer = Answer { tree: SecretTree::Text("v".into()), version: None, expires_in: None, lease };
        let mut state = RequestState::new(Demand::Required, now);
        state.cached = Some(CachedAnswer::new(answer, now, 0));
        state.settle(now, seconds(1), &mut Jitter::seeded(1), 0.5);
        state
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_acted_on_while_a_third_of_its_life_is_left() {
        for (ttl, earliest, latest) in [(20, 12.0, 13.4), (3600, 2160.0, 2400.0), (1, 0.6, 0.67)] {
            let wait = (leased(ttl, true).due - Instant::now()).as_secs_f64();
            assert!((earliest..=latest).contains(&wait), "ttl {ttl}: {wait}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_are_worth_while_only_as_long_as_they_extend() {
        // (TTL at first, when it was renewed, TTL granted then) → is it replaced at once?
        for (ttl, at, granted, replaced) in [
            (20, 13, 20, false),
            (20, 13, 7, true),       // capped: ends when it would have ended anyway
            (20, 13, 12, false),     // capped soon: lives on a little
            (3600, 2400, 300, true), // the operator shortened the role's TTL
            (3600, 2400, 3600, false),
            (20, 13, 0, true),
        ] {
            let mut state = leased(ttl, true);
            let renewed = Lease { id: "id2".into(), ttl: seconds(granted), renewable: true };
            state.renewed(renewed, Instant::now() + seconds(at), &mut Jitter::seeded(1));
            assert_eq!(state.validity().unwrap().must_replace, replaced, "{ttl} at {at} for {granted}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_renewed_or_else_read() {
        let start = Instant::now();
        let is_read = |state: &RequestState, at: u64| state.action(start + seconds(at)) == Action::Read;
        let mut state = leased(60, true);
        assert!(!is_read(&state, 40) && is_read(&state, 60), "renew while it lives");
        state.failures = 3;
        assert!(!is_read(&state, 49) && is_read(&state, 51), "renewing fails: read before the end");
        state.replace_now(start);
        assert!(is_read(&state, 1));
        assert!(is_read(&leased(60, false), 40), "not renewable");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_near_the_end_of_a_lease_leave_room_for_more_attempts() {
        let start = Instant::now();
        let mut state = leased(60, true);
        state.failures = 10;
        let wait = state.failed(ErrorKind::Unavailable, start + seconds(40), false, 1.0);
        assert_eq!(wait, seconds(5));
        let wish = ErrorKind::Throttled { retry_after: Some(seconds(30)) };
        assert!(state.failed(wish, start + seconds(40), false, 0.0) >= seconds(30), "a store's wish is kept");
    }
}
