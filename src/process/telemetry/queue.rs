//! The lines that wait for a thread to write them, so a reader of logs who is slow, or gone, holds no request back.
//!
//! Counted in bytes, because lines have no size that could be counted on: one buffer is filled while the other is written.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait; as many again may be in the thread's hands.
pub const QUEUED: usize = 1 << 20;
/// How late a line may be that comes right after another.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the end waits for a reader.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where lines are put. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<SharedQueue>);

/// Writes what still waits when it is dropped.
#[derive(Debug)]
pub struct WrittenLines(Queue);

/// How many lines nobody took in time.
#[derive(Debug, Clone)]
pub struct Dropped(Queue);

#[derive(Debug, Default)]
struct SharedQueue {
    waiting: Mutex<Waiting>,
    /// Something waits, or nothing will any more.
    filled: Condvar,
    /// All is written, and the thread is gone.
    ended: Condvar,
    dropped: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    is_closed: bool,
    has_ended: bool,
}

// === impl Queue ===

impl Queue {
    /// Starts the thread. Without one, lines are dropped and counted.
    pub(super) fn in_front_of(writer: impl Write + Send + 'static) -> Self {
        let queue = Self(Arc::default());
        let thread = queue.clone();
        let started = std::thread::Builder::new().name("log".to_owned()).spawn(move || thread.drain(writer));
        if started.is_err() {
            queue.waiting().has_ended = true;
        }
        queue
    }

    pub(super) fn written(&self) -> WrittenLines {
        WrittenLines(self.clone())
    }

    pub(super) fn dropped(&self) -> Dropped {
        Dropped(self.clone())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::disallowed_methods, reason = "it has a thread of its own")]
    fn drain(&self, mut writer: impl Write) {
        let mut taken = Vec::new();
        loop {
            let mut waiting = self.waiting();
            while waiting.lines.is_empty() && !waiting.is_closed {
                waiting = self.0.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut waiting.lines, &mut taken);
            let is_last = waiting.is_closed;
            drop(waiting);
            // There is nobody left to tell.
            let _ = writer.write_all(&taken).and_then(|()| writer.flush());
            taken.clear();
            if is_last && self.waiting().lines.is_empty() {
                break;
            }
            // What comes meanwhile goes in one write, and wakes nobody.
            if !is_last {
                std::thread::sleep(PAUSE);
            }
        }
        self.waiting().has_ended = true;
        self.0.ended.notify_all();
    }
}

/// One call, one event.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.has_ended || waiting.lines.len() + line.len() > QUEUED {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        let was_empty = waiting.lines.is_empty();
        // Doubled, it would be more than is allowed.
        if waiting.lines.capacity() - waiting.lines.len() < line.len() {
            let room = (waiting.lines.capacity() * 2).clamp(16 * 1024, QUEUED);
            let more = room - waiting.lines.len();
            waiting.lines.reserve_exact(more);
        }
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if was_empty {
            self.0.filled.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

// === impl Dropped ===

impl Dropped {
    /// So far.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.0.0.dropped.load(Ordering::Relaxed)
    }
}

// === impl WrittenLines ===

impl Drop for WrittenLines {
    fn drop(&mut self) {
        let Self(queue) = self;
        let mut waiting = queue.waiting();
        waiting.is_closed = true;
        queue.0.filled.notify_one();
        while !waiting.has_ended {
            let (again, waited) =
                queue.0.ended.wait_timeout(waiting, LAST_WORDS).unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return;
            }
            waiting = again;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes each write only when it is told to.
    struct Reader {
        permits: mpsc::Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
        begun: mpsc::Sender<()>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            let _ = self.permits.recv();
            self.taken.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_is_gone_costs_two_buffers_and_the_lines_that_do_not_fit() {
        let (permit, permits) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let taken = Arc::default();
        let mut queue = Queue::in_front_of(Reader { permits, taken: Arc::clone(&taken), begun });
        let line = vec![b'x'; 64 * 1024];
        queue.write_all(&line).unwrap();
        has_begun.recv().unwrap();
        // To the byte.
        for _ in 0..QUEUED / line.len() {
            queue.write_all(&line).unwrap();
        }
        assert_eq!(queue.dropped().lines(), 0);
        for dropped in 1..=100 {
            queue.write_all(b"y").unwrap();
            assert_eq!(queue.dropped().lines(), dropped);
        }
        assert_eq!(queue.waiting().lines.capacity(), QUEUED);
        // The reader is back: all that fitted is there.
        permit.send(()).unwrap();
        permit.send(()).unwrap();
        drop(queue.written());
        assert_eq!(taken.lock().unwrap().len(), line.len() + QUEUED);
    }
}
