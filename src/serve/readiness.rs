//! Readiness: what still has to happen before this process can do its work. Not ready says who is missing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Ready while nothing blocks it and no drain has begun. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<ReadinessState>);

/// Blocks readiness until it is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard releases readiness"]
pub struct Guard {
    state: Arc<ReadinessState>,
    id: u64,
}

#[derive(Debug, Default)]
struct ReadinessState {
    /// Names by guard, since two guards may wait for things of one name.
    pending: Mutex<BTreeMap<u64, &'static str>>,
    next_id: AtomicU64,
    draining: AtomicBool,
    /// A guard is gone.
    released: Notify,
}

// === impl Readiness ===

impl Readiness {
    /// Not ready until the guard is dropped; `name` says to people what is waited for.
    pub fn block(&self, name: &'static str) -> Guard {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        self.0.pending().insert(id, name);
        Guard { state: Arc::clone(&self.0), id }
    }

    /// Not ready any more, for good.
    pub fn begin_drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until it is ready: at once if it is, and for ever once a drain has begun. Cancel safe.
    pub async fn ready(&self) {
        loop {
            let released = self.0.released.notified();
            if self.pending().is_empty() {
                return;
            }
            released.await;
        }
    }

    /// What is waited for, in the order in which it was blocked; empty means ready.
    #[must_use]
    pub fn pending(&self) -> Vec<&'static str> {
        let draining = self.0.draining.load(Ordering::Relaxed).then_some("draining");
        draining.into_iter().chain(self.0.pending().values().copied()).collect()
    }
}

// === impl ReadinessState ===

impl ReadinessState {
    fn pending(&self) -> MutexGuard<'_, BTreeMap<u64, &'static str>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Guard ===

impl Drop for Guard {
    fn drop(&mut self) {
        self.state.pending().remove(&self.id);
        self.state.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn says_who_is_missing_until_the_last_guard_is_gone() {
        let readiness = Readiness::default();
        assert!(readiness.pending().is_empty());
        let first = readiness.block("configuration");
        let second = readiness.block("certificate");
        let third = readiness.block("certificate");
        assert_eq!(readiness.pending(), ["configuration", "certificate", "certificate"]);
        drop(second);
        assert_eq!(readiness.pending(), ["configuration", "certificate"]);
        drop((first, third));
        assert!(readiness.pending().is_empty());
    }

    #[tokio::test]
    async fn who_waits_hears_of_the_last_guard_and_of_no_other() {
        let readiness = Readiness::default();
        let guards = [readiness.block("configuration"), readiness.block("certificate")];
        let mut ready = pin!(readiness.ready());
        for guard in guards {
            assert_eq!(ready.as_mut().now_or_never(), None);
            drop(guard);
        }
        assert_eq!(ready.as_mut().now_or_never(), Some(()));
        assert_eq!(readiness.ready().now_or_never(), Some(()));
        readiness.begin_drain();
        assert_eq!(readiness.ready().now_or_never(), None);
    }

    #[test]
    fn a_drain_is_for_good() {
        let readiness = Readiness::default();
        readiness.begin_drain();
        drop(readiness.block("certificate"));
        assert_eq!(readiness.pending(), ["draining"]);
    }
}
