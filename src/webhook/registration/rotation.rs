//! The authorities of one process: which one signs, which one comes next, and since when each is trusted.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::merge::{self, Own, merge};
use crate::webhook::certificate::{Issued, Names};

/// How long after the watch has shown a certificate every API server has it too: their informers watch the same
/// object, and a second is already long for them.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

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
    pub(super) seen: Option<Instant>,
}

// === impl Rotation ===

impl Rotation {
    pub(super) fn new(issued: Issued) -> Self {
        Self { serving: Stand { issued, seen: None }, next: None, previous: None }
    }

    /// Takes note of what the watched webhooks trust.
    ///
    /// Where no webhook trusts any replica, what counted goes on counting: no other replica could answer in this one's
    /// place, and readiness would only keep it away from API servers that trust it again at once.
    pub(super) fn look(&mut self, bundles: &[Vec<u8>], now: Instant) {
        if !bundles.is_empty() && !bundles.iter().any(|bundle| merge::holds_ours(bundle)) {
            return;
        }
        for stand in [Some(&mut self.serving), self.next.as_mut()].into_iter().flatten() {
            let authority = &stand.issued.authority;
            let is_there = !bundles.is_empty() && bundles.iter().all(|bundle| merge::holds(bundle, authority));
            stand.seen = is_there.then(|| stand.seen.unwrap_or(now));
        }
    }

    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        now >= self.next.as_ref().unwrap_or(&self.serving).issued.renew_at
    }

    /// Puts the next authority in the place of the serving one, if it is trusted, or the serving one is over.
    pub(super) fn advance(&mut self, now: Instant, wall: SystemTime) -> bool {
        let is_over = wall >= self.serving.issued.expires;
        match self.next.take() {
            Some(next) if is_over || next.has_settled(now) => {
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
        let authority = &self.serving.issued.authority;
        !bundles.is_empty() && bundles.iter().all(|bundle| merge::holds(bundle, authority))
    }

    pub(super) fn wanted(&self) -> Vec<CertificateDer<'static>> {
        [Some(&self.serving), self.next.as_ref()].into_iter().flatten().map(|s| s.issued.authority.clone()).collect()
    }

    pub(super) fn wants_write(&self, bundles: &[Vec<u8>], names: &Names, now: SystemTime) -> bool {
        let wanted = self.wanted();
        let own = Own { common_name: names.common_name(), wanted: &wanted, kept: self.previous.as_slice() };
        bundles.iter().any(|bundle| merge(bundle, own, now).is_some())
    }

    /// When there is something to do even if nothing happens.
    pub(super) fn wake(&self, write_at: Option<Instant>) -> Instant {
        let now = Instant::now();
        let stands = [Some(&self.serving), self.next.as_ref()];
        let settled =
            stands.into_iter().flatten().filter_map(|stand| Some(stand.seen? + SETTLE)).filter(|at| *at > now);
        settled.chain(write_at).chain([now + TICK]).min().unwrap_or(now)
    }
}

// === impl Stand ===

impl Stand {
    fn has_settled(&self, now: Instant) -> bool {
        self.seen.is_some_and(|seen| now.duration_since(seen) >= SETTLE)
    }
}
