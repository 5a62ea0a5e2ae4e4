//! Answers on their way, where a process with many sources bounds what they take of its memory together.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory that answers on their way share with those of other sources.
pub trait ArrivalRoom: Send + Sync {
    /// Sets so many bytes aside.
    ///
    /// # Errors
    /// What is in the way, to stand behind a store's address.
    fn take(&self, bytes: u64) -> Result<(), String>;

    /// Gives as many back.
    fn give_back(&self, bytes: u64);
}

/// What the answers to one provider's requests have taken of the room and are not taken in yet. Clones share it; the
/// default has no bound.
#[derive(Clone, Default)]
pub struct Arrivals(Option<Arc<Counted>>);

struct Counted {
    room: Arc<dyn ArrivalRoom>,
    taken: AtomicU64,
}

tokio::task_local! {
    /// Whose answers come at the time: stores need not say it of each request.
    static ARRIVALS: Arrivals;
}

/// Sets room aside for so many bytes of an answer that comes.
///
/// # Errors
/// As [`ArrivalRoom::take`]: there is none at the time.
pub(crate) fn arrive(bytes: u64) -> Result<(), String> {
    ARRIVALS.try_with(|arrivals| arrivals.take(bytes)).unwrap_or(Ok(()))
}

// === impl Arrivals ===

impl Arrivals {
    /// They take their memory of `room`.
    #[must_use]
    pub fn of(room: Arc<dyn ArrivalRoom>) -> Self {
        Self(Some(Arc::new(Counted { room, taken: AtomicU64::new(0) })))
    }

    /// Answers that come while `work` runs are counted here.
    pub fn count<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        ARRIVALS.scope(self.clone(), work)
    }

    fn take(&self, bytes: u64) -> Result<(), String> {
        let Some(counted) = &self.0 else { return Ok(()) };
        counted.room.take(bytes)?;
        counted.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// All that came is taken in, or of no use.
    pub fn settle(&self) {
        if let Some(counted) = &self.0 {
            counted.settle();
        }
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arrivals")
    }
}

// === impl Counted ===

impl Counted {
    fn settle(&self) {
        self.room.give_back(self.taken.swap(0, Ordering::Relaxed));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.settle();
    }
}
