//! The clocks that a suspended machine does not stop, behind a trait so that tests can move them.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// What the time is.
pub(super) trait Clock: Send {
    /// The time that processes share.
    fn system(&self) -> SystemTime;

    /// Time since boot, with the time that the machine was suspended; [`tokio::time::Instant`] leaves that out.
    fn since_boot(&self) -> Duration;
}

/// The machine's.
pub(super) struct MachineClock;

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
