//! A request, from its head to the last byte of its answer, and what it holds meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::{GRACE, LEAST_RATE};

#[derive(Debug)]
pub(super) struct HttpExchange {
    pub(super) started: Instant,
    held: Mutex<HeldExchange>,
}

/// What a request holds. Here and not in its own task, so room can be made without asking it.
#[derive(Debug)]
pub(super) struct HeldExchange {
    body: Vec<u8>,
    /// Bytes of the body, so far.
    received: usize,
    pub(super) is_arriving: bool,
    /// Bytes charged against the connection's own, and against all connections'.
    pub(super) own: usize,
    pub(super) shared: usize,
    pub(super) stopped: Option<Stop>,
    waker: Option<Waker>,
}

/// Why a request is not read to its end, or not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its body has more bytes than any may have.
    TooLarge,
    /// Its body comes too slowly.
    Slow,
    /// Others need the memory.
    NoRoom,
    /// It ended too early.
    Broken,
}

/// Wakes the task when it is dropped.
#[derive(Debug)]
pub(super) struct Freed {
    _body: Vec<u8>,
    waker: Option<Waker>,
}

// === impl HttpExchange ===

impl HttpExchange {
    /// Of a request whose body has not come yet.
    pub(super) fn new(started: Instant) -> Arc<Self> {
        let held = HeldExchange {
            body: Vec::new(),
            received: 0,
            is_arriving: true,
            own: 0,
            shared: 0,
            stopped: None,
            waker: None,
        };
        Arc::new(Self { started, held: Mutex::new(held) })
    }

    pub(super) fn held(&self) -> MutexGuard<'_, HeldExchange> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once it has to stop; wakes the task that asked last.
    pub(super) fn poll_stopped(&self, context: &Context<'_>) -> Poll<Stop> {
        let mut held = self.held();
        if let Some(stop) = held.stopped {
            return Poll::Ready(stop);
        }
        if held.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            held.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Bytes of the body have come; says how many there are now.
    pub(super) fn received(&self, bytes: usize) -> usize {
        let mut held = self.held();
        held.received += bytes;
        held.received
    }

    /// Keeps a part of the body. `room` is how many bytes it may become at most: the system gives them as they are written,
    /// so no part is ever there twice.
    pub(super) fn append(&self, part: &[u8], room: usize) -> Result<(), Stop> {
        let mut held = self.held();
        if let Some(stop) = held.stopped {
            return Err(stop);
        }
        let length = held.body.len();
        if held.body.capacity() - length < part.len() {
            held.body.reserve_exact(room.max(length + part.len()) - length);
        }
        held.body.extend_from_slice(part);
        Ok(())
    }

    /// What was kept of the body, which is all there.
    pub(super) fn complete(&self) -> Result<Vec<u8>, Stop> {
        let mut held = self.held();
        held.is_arriving = false;
        match held.stopped {
            Some(stop) => Err(stop),
            None => Ok(std::mem::take(&mut held.body)),
        }
    }
}

// === impl HeldExchange ===

impl HeldExchange {
    /// Bytes a second, so far.
    pub(super) fn rate(&self, started: Instant, now: Instant) -> u128 {
        let nanoseconds = now.saturating_duration_since(started).as_nanos().max(1);
        self.received as u128 * 1_000_000_000 / nanoseconds
    }

    /// When the body will have been too slow, if no more of it comes.
    pub(super) fn needed_by(&self, started: Instant) -> Instant {
        let milliseconds = self.received.saturating_mul(1000) / LEAST_RATE;
        started + GRACE + Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
    }

    pub(super) fn stop(&mut self, stop: Stop) -> Freed {
        self.stopped = Some(stop);
        self.is_arriving = false;
        Freed { _body: std::mem::take(&mut self.body), waker: self.waker.take() }
    }
}

// === impl Freed ===

impl Drop for Freed {
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
