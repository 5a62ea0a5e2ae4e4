//! Chance, which keeps replicas apart that know nothing of each other. Needs no secrecy.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

/// Anything up to `most`, equally often.
#[must_use]
pub fn at_random(most: Duration) -> Duration {
    let mut bytes = [0; 8];
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    let nanoseconds = (most.as_nanos() * u128::from(u64::from_ne_bytes(bytes))) >> 64;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_at_random_fill_the_whole_time_and_no_more() {
        let most = Duration::from_secs(100);
        let mut found: Vec<_> = (0..2000).map(|_| at_random(most).as_secs()).collect();
        found.sort_unstable();
        assert!(found.iter().all(|seconds| *seconds < 100));
        // Each tenth has 200 of 2000, and a chance of one in billions to have less than 100.
        for tenth in 0..10 {
            let count = found.iter().filter(|seconds| **seconds / 10 == tenth).count();
            assert!(count > 100, "{tenth}: {count}");
        }
        assert_eq!(at_random(Duration::ZERO), Duration::ZERO);
    }
}
