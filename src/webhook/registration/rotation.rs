//! The authorities of one process: which one signs, which one comes next, and since when each is trusted.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::merge::{self, Own, merge};
use crate::webhook::certificate::{Issued, Names};

/// How long after the watch has shown a certificate every API server has it too: their informers watch the same
/// object, and a second is already long for them.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// How long a certificate may be missing beside another replica's before it counts as lost. Replicas that heal one bundle
/// write one after the stranger, and kubelet, which looks every two seconds, would learn of it when it is long over.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Between looks at the clock, which may jump, and at what has expired.
const TICK: Duration = Duration::from_mins(1);

/// The three generations of authorities of one process.
#[derive(Debug)]
pub(super) struct Rotation {
    pub(super) serving: Stand,
    pub(super) next: Option<Stand>,
    /// Stays in the bundle until it expires, for API servers that lag.
    pub(super) previous: Option<CertificateDer<'static>>,
}

/// An authority, and since when every webhook of the watched configuration trusts it.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) issued: Issued,
    seen: Option<Instant>,
    /// Since when some webhook lacks it, whatever counts.
    missing: Option<Instant>,
}

// === impl Rotation ===

impl Rotation {
    pub(super) fn new(issued: Issued) -> Self {
        Self { serving: Stand::new(issued), next: None, previous: None }
    }

    /// Takes note of what the watched webhooks trust.
    ///
    /// Where no webhook trusts any replica, or there is none, what counted goes on counting: no other replica could answer
    /// in this one's place, and readiness would only keep it away from API servers that trust it again at once.
    pub(super) fn look(&mut self, bundles: &[Vec<u8>], now: Instant) {
        if !bundles.iter().any(|bundle| merge::holds_ours(bundle)) {
            return;
        }
        for stand in [Some(&mut self.serving), self.next.as_mut()].into_iter().flatten() {
            stand.look(bundles, now);
        }
    }

    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        now >= self.next.as_ref().unwrap_or(&self.serving).issued.renew_at
    }

    /// Puts the next authority in the place of the serving one, if it is trusted, or the serving one is over.
    pub(super) fn advance(&mut self, now: Instant, wall: SystemTime) -> bool {
        let is_over = wall >= self.serving.issued.expires;
        match self.next.take() {
            Some(next) if is_over || (next.missing.is_none() && next.has_settled(now)) => {
                let former = std::mem::replace(&mut self.serving, next);
                self.previous = Some(former.issued.authority);
                true
            }
            next => {
                self.next = next;
                false
            }
        }
    }

    pub(super) fn is_trusted(&self, now: Instant, wall: SystemTime) -> bool {
        self.serving.has_settled(now) && wall < self.serving.issued.expires
    }

    /// Whether all of these have what is served, whatever counts otherwise.
    pub(super) fn is_known_to(&self, bundles: &[Vec<u8>]) -> bool {
        self.serving.is_in(bundles)
    }

    /// How long a write may take: until what is served counts as lost, which has to be told then, if that is to come.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        let lost = self.serving.missing.filter(|_| self.serving.seen.is_some())? + GRACE;
        Some(lost.saturating_duration_since(now))
    }

    pub(super) fn wanted(&self) -> Vec<CertificateDer<'static>> {
        [Some(&self.serving), self.next.as_ref()].into_iter().flatten().map(|s| s.issued.authority.clone()).collect()
    }

    pub(super) fn wants_write(&self, bundles: &[Vec<u8>], names: &Names, now: SystemTime) -> bool {
        let wanted = self.wanted();
        let own = Own { common_name: &names.common_name(), wanted: &wanted, kept: self.previous.as_slice() };
        bundles.iter().any(|bundle| merge(bundle, own, now).is_some())
    }

    /// When there is something to do even if nothing happens.
    pub(super) fn wake(&self, write_at: Option<Instant>) -> Instant {
        let now = Instant::now();
        let stands = [Some(&self.serving), self.next.as_ref()];
        let turns = stands.into_iter().flatten().flat_map(Stand::turns).filter(|at| *at > now);
        turns.chain(write_at).chain([now + TICK]).min().unwrap_or(now)
    }
}

// === impl Stand ===

impl Stand {
    /// One that is trusted by nobody yet.
    pub(super) fn new(issued: Issued) -> Self {
        Self { issued, seen: None, missing: None }
    }

    fn is_in(&self, bundles: &[Vec<u8>]) -> bool {
        !bundles.is_empty() && bundles.iter().all(|bundle| merge::holds(bundle, &self.issued.authority))
    }

    fn look(&mut self, bundles: &[Vec<u8>], now: Instant) {
        if self.is_in(bundles) {
            self.missing = None;
            self.seen.get_or_insert(now);
        } else if now.duration_since(*self.missing.get_or_insert(now)) >= GRACE {
            self.seen = None;
        }
    }

    /// When it will have been there, or missing, for long enough.
    fn turns(&self) -> impl Iterator<Item = Instant> {
        [self.seen.map(|at| at + SETTLE), self.missing.map(|at| at + GRACE)].into_iter().flatten()
    }

    fn has_settled(&self, now: Instant) -> bool {
        self.seen.is_some_and(|seen| now.duration_since(seen) >= SETTLE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::merge::pem;
    use super::*;
    use crate::webhook::certificate::issue;

    #[test]
    fn what_is_missing_beside_others_counts_for_two_seconds_and_is_not_switched_to_meanwhile() {
        let wall = SystemTime::now();
        let make = |pod: &str| {
            let names = Names {
                pod: pod.to_owned(),
                container: None,
                service: "hushpod".to_owned(),
                namespace: "secrets".to_owned(),
            };
            issue(&names, wall).unwrap()
        };
        let (serving, next, stranger) = (make("pod-a"), make("pod-a"), make("pod-b"));
        let bundle = |of: &[&Issued]| vec![of.iter().map(|each| pem(&each.authority)).collect::<String>().into_bytes()];
        let (all, fewer) = (bundle(&[&serving, &next, &stranger]), bundle(&[&serving, &stranger]));
        let (others, nobody, gone) = (bundle(&[&stranger]), bundle(&[]), Vec::new());
        let start = Instant::now();
        // (milliseconds, what the webhooks trust then, whether the replica counts as trusted, whether it has switched)
        for looks in [
            vec![(0, &all, false, false), (4_900, &all, false, false), (5_000, &all, true, true)],
            vec![(0, &all, false, false), (4_900, &fewer, false, false), (6_000, &fewer, true, false)],
            vec![(0, &all, false, false), (4_900, &fewer, false, false), (5_500, &all, true, true)],
            vec![
                (0, &all, false, false),
                (4_000, &fewer, false, false),
                (6_000, &fewer, true, false),
                (7_000, &all, true, false),
            ],
            vec![(0, &fewer, false, false), (9_000, &others, true, false), (10_900, &others, true, false)],
            vec![(0, &fewer, false, false), (9_000, &others, true, false), (11_000, &others, false, false)],
            vec![(0, &fewer, false, false), (9_000, &others, true, false), (10_900, &fewer, true, false)],
            vec![(0, &nobody, false, false), (9_000, &nobody, false, false)],
            vec![(0, &fewer, false, false), (9_000, &nobody, true, false), (99_000, &nobody, true, false)],
            vec![(0, &fewer, false, false), (9_000, &gone, true, false), (99_000, &gone, true, false)],
        ] {
            let mut rotation = Rotation::new(serving.clone());
            rotation.next = Some(Stand::new(next.clone()));
            for (milliseconds, bundles, is_trusted, has_switched) in looks {
                let now = start + Duration::from_millis(milliseconds);
                rotation.look(bundles, now);
                rotation.advance(now, wall);
                let found = (rotation.is_trusted(now, wall), rotation.previous.is_some());
                assert_eq!(found, (is_trusted, has_switched), "after {milliseconds} ms");
            }
        }
    }
}
