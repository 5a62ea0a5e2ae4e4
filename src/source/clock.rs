//! The clocks that a suspended machine does not stop, behind a trait, so tests can move them.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// What the time is.
pub(super) trait Clock: Send {
    /// The time that processes share.
    fn system(&self) -> SystemTime;

    /// Time since boot, with the time that the machine was suspended; [`tokio::time::Instant`] leaves that out.
    fn since_boot(&self) -> Duration;
}

/// The machine's.
pub(super) struct MachineClock;

/// That of tokio's timers, which a test may stop: nothing is suspended by its measure.
pub(super) struct TimerClock(pub(super) Instant);

// === impl MachineClock ===

impl Clock for MachineClock {
    fn system(&self) -> SystemTime {
        SystemTime::now()
    }

    fn since_boot(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
    }
}

// === impl TimerClock ===

impl Clock for TimerClock {
    fn system(&self) -> SystemTime {
        SystemTime::now()
    }

    fn since_boot(&self) -> Duration {
        self.0.elapsed()
    }
}
