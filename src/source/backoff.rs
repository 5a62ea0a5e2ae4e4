//! How long to wait, by chance and by kind of error; and how often to say so.

use std::time::Duration;

use tokio::time::Instant;

use crate::provider::ErrorKind;

/// Randomness that spreads thousands of replicas over time. Needs no secrecy (xorshift64*, Vigna 2016).
#[derive(Debug)]
pub(super) struct Jitter(u64);

/// When failures of one provider are worth a warning: the first three, then one every ten minutes.
#[derive(Debug, Default)]
pub(super) struct LogBudget {
    failures: u32,
    warned_at: Option<Instant>,
}

const LOUD_FAILURES: u32 = 3;
const WARN_EVERY: Duration = Duration::from_mins(10);

/// A store that is down is tried again within a minute.
const UNAVAILABLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Without a first generation a pod waits, and starts within 20 s of its store's return: 10 to 15 s of these are kubelet's,
/// between two tries of the gate (`workerBackOffPeriodJitterFactor`).
const UNAVAILABLE_AT_START: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// What an administrator has to put right is not put right within a second.
const PERMANENT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(5));
/// More patience than a store may ask for would be an outage of its own: leases end, and nobody notices a rotation.
pub(super) const LONGEST_WISH: Duration = Duration::from_mins(15);
/// On top of a store's own wish: its clock is not ours.
const SHORTEST: Duration = Duration::from_millis(250);
/// A store that counts by the minute names one and the same moment to everybody, and a crowd that came back together would
/// stay together from then on.
const SPREAD: Duration = Duration::from_mins(1);

/// How long to wait after the `failures`-th failure in a row (1 is the first); `chance` is from 0 to 1.
///
/// Exponential, half of it by chance ("Equal Jitter", AWS Architecture Blog, "Exponential Backoff And Jitter", 2015): it
/// spreads a crowd, and no draw makes one pod ask twice in a moment, as full jitter's would. A store's own wish is a
/// lower bound, as far as it is no longer than [`LONGEST_WISH`].
pub(super) fn delay(kind: ErrorKind, failures: u32, starting: bool, chance: f64) -> Duration {
    let (base, cap) = match kind {
        ErrorKind::Throttled { retry_after: Some(wish) } => {
            let wish = wish.min(LONGEST_WISH);
            return wish.saturating_add(wish.mul_f64(chance / 10.0)).saturating_add(SHORTEST);
        }
        ErrorKind::Unavailable | ErrorKind::Throttled { retry_after: None } if starting => UNAVAILABLE_AT_START,
        ErrorKind::Unavailable | ErrorKind::Throttled { retry_after: None } => UNAVAILABLE,
        ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Invalid => {
            let (base, cap) = PERMANENT;
            return jittered(base, cap, failures, chance).max(base);
        }
    };
    jittered(base, cap, failures, chance)
}

/// How much longer than a store wishes one waits who has what it needs; nothing where the store names no moment.
pub(super) fn spread(kind: ErrorKind, starting: bool, chance: f64) -> Duration {
    let names_a_moment = matches!(kind, ErrorKind::Throttled { retry_after: Some(_) });
    if names_a_moment && !starting { SPREAD.mul_f64(chance) } else { Duration::ZERO }
}

fn jittered(base: Duration, cap: Duration, failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    base.saturating_mul(1 << doublings).min(cap).mul_f64(0.5 + chance / 2.0)
}

// === impl Jitter ===

impl Jitter {
    /// Seeded by the operating system.
    pub(super) fn random() -> Self {
        let mut seed = [0; 8];
        // Without randomness all replicas would be in step, which is bad but no reason to stop.
        let _ = aws_lc_rs::rand::fill(&mut seed);
        Self::seeded(u64::from_le_bytes(seed))
    }

    /// The same numbers for the same seed.
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number from 0 to 1.
    pub(super) fn chance(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        u32::try_from(drawn).map_or(0.5, |drawn| f64::from(drawn) / f64::from(u32::MAX))
    }
}

// === impl LogBudget ===

impl LogBudget {
    /// Counts a failure; whether it is worth a warning.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        let loud = self.failures <= LOUD_FAILURES
            || self.warned_at.is_none_or(|at| now.saturating_duration_since(at) >= WARN_EVERY);
        if loud {
            self.warned_at = Some(now);
        }
        loud
    }

    /// All is well again; how many failures there were.
    pub(super) fn recovered(&mut self) -> u32 {
        std::mem::take(self).failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_kind_of_error() {
        let wish = |seconds| ErrorKind::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
        for (kind, failures, starting, shortest, longest) in [
            (ErrorKind::Unavailable, 1, false, 0.5, 1.0),
            (ErrorKind::Unavailable, 4, false, 4.0, 8.0),
            (ErrorKind::Unavailable, 99, false, 30.0, 60.0),
            (ErrorKind::Unavailable, 1, true, 0.5, 1.0),
            (ErrorKind::Unavailable, 3, true, 2.0, 4.0),
            (ErrorKind::Unavailable, 99, true, 2.5, 5.0),
            (ErrorKind::Throttled { retry_after: None }, 99, true, 2.5, 5.0),
            (ErrorKind::Throttled { retry_after: None }, 99, false, 30.0, 60.0),
            (wish(7), 1, true, 7.25, 7.95),
            (wish(700), 9, false, 700.25, 770.25),
            (ErrorKind::Denied, 1, false, 30.0, 30.0),
            (ErrorKind::NotFound, 3, false, 60.0, 120.0),
            (ErrorKind::Invalid, 99, false, 150.0, 300.0),
        ] {
            let low = delay(kind, failures, starting, 0.0).as_secs_f64();
            let high = delay(kind, failures, starting, 1.0).as_secs_f64();
            assert!((low - shortest).abs() < 0.01, "{kind:?} {failures}: {low} instead of {shortest}");
            assert!((high - longest).abs() < 0.01, "{kind:?} {failures}: {high} instead of {longest}");
        }
    }

    #[test]
    fn a_stores_own_wish_is_not_undercut_unless_it_is_no_patience_but_an_outage() {
        let mut jitter = Jitter::seeded(7);
        for (failures, seconds) in (1..1000).map(|failures| (failures, 42)).chain([(1, 0), (1, u64::MAX)]) {
            let wish = Duration::from_secs(seconds);
            let kind = ErrorKind::Throttled { retry_after: Some(wish) };
            let waited = delay(kind, failures, true, jitter.chance());
            assert!(waited >= wish.min(Duration::from_mins(15)) && waited < Duration::from_mins(17), "{waited:?}");
        }
    }

    #[test]
    fn chance_is_spread_between_0_and_1() {
        let mut jitter = Jitter::seeded(1);
        let drawn: Vec<f64> = (0..1000).map(|_| jitter.chance()).collect();
        let mean = drawn.iter().sum::<f64>() / 1000.0;
        assert!(drawn.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert_ne!(Jitter::random().chance().to_bits(), Jitter::random().chance().to_bits());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_a_day_is_warned_of_rarely() {
        let mut budget = LogBudget::default();
        let mut warned = 0;
        for _ in 0..24 * 60 {
            warned += u32::from(budget.failed(Instant::now()));
            tokio::time::advance(Duration::from_mins(1)).await;
        }
        assert_eq!(warned, 3 + 143, "three at once, then one in ten minutes");
        assert_eq!(budget.recovered(), 24 * 60);
        assert!(budget.failed(Instant::now()), "the next outage is loud again");
    }
}
