//! A provider's login, as it was last seen, and when to extend it.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Jitter;
use super::request_state::{act_before, after};
use crate::provider::Session;
use crate::secret::SecretValue;

/// A login, as last seen.
pub(super) struct LoginState {
    pub(super) token: SecretValue,
    pub(super) renewable: bool,
    pub(super) ends: Option<Instant>,
    pub(super) extend_at: Option<Instant>,
    pub(super) failures: u32,
}

// === impl LoginState ===

impl LoginState {
    pub(super) fn new(session: Session, now: Instant, jitter: &mut Jitter) -> Self {
        let Session { token, ttl, renewable } = session;
        let mut login = Self { token, renewable, ends: ttl.map(|ttl| after(now, ttl)), extend_at: None, failures: 0 };
        login.schedule(now, jitter);
        login
    }

    pub(super) fn update(&mut self, session: &Session, now: Instant, jitter: &mut Jitter) {
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
    pub(super) fn schedule(&mut self, now: Instant, jitter: &mut Jitter) {
        self.extend_at = self.ends.map(|ends| {
            let left = ends.saturating_duration_since(now);
            act_before(ends, left, jitter).max(now + Duration::from_secs(1))
        });
    }
}
