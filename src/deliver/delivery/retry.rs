//! When to try again what the source knows nothing of.

use std::time::Duration;

use tokio::time::Instant;

/// Pauses between attempts to write or to pin.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// When to try again what the source knows nothing of.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) at: Option<Instant>,
    pause: Duration,
}

// === impl Retry ===

impl Retry {
    pub(super) fn new() -> Self {
        Self { at: None, pause: FIRST_PAUSE }
    }

    pub(super) async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn later(&mut self) -> Duration {
        let pause = self.pause;
        self.at = Some(Instant::now() + pause);
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}
