//! Credentials that were replaced, and are revoked once applications had time to take up the new ones.

use std::time::Duration;

use tokio::time::Instant;

use crate::provider::Lease;
use crate::secret::SecretValue;

/// A replaced credential.
pub(super) struct RetiredLease {
    pub(super) lease: SecretValue,
    pub(super) ends: Instant,
    /// `None` until what replaced it is delivered.
    pub(super) revoke_at: Option<Instant>,
    pub(super) failures: u32,
}

/// A lease whose life no longer matters.
pub(super) fn expiring(id: &SecretValue) -> Lease {
    Lease { id: id.clone(), ttl: Duration::ZERO, renewable: false }
}

// === impl RetiredLease ===

impl RetiredLease {
    pub(super) fn new(lease: SecretValue, ends: Instant, revoke_at: Option<Instant>) -> Self {
        Self { lease, ends, revoke_at, failures: 0 }
    }

    pub(super) fn due(&self, now: Instant) -> Option<Lease> {
        self.revoke_at.filter(|at| *at <= now).map(|_| expiring(&self.lease))
    }
}
