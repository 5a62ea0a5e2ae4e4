//! How far a command has come, on standard error: at once on a terminal, else after two seconds, and never often.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// How long others than terminals hear nothing.
const QUIET: Duration = Duration::from_secs(2);
/// Between two lines to others than terminals, and two looks of a terminal.
const EVERY: Duration = Duration::from_secs(5);
const OFTEN: Duration = Duration::from_millis(100);

/// The line that says it.
pub(super) struct ProgressLine {
    is_terminal: bool,
    is_silent: bool,
    start: Instant,
    last: Option<Instant>,
    /// Columns of the line that a terminal shows.
    columns: usize,
}

// === impl ProgressLine ===

impl ProgressLine {
    pub(super) fn new(is_terminal: bool) -> Self {
        Self { is_terminal, is_silent: false, start: Instant::now(), last: None, columns: 0 }
    }

    /// For what others count.
    pub(super) fn silent() -> Self {
        Self { is_silent: true, ..Self::new(false) }
    }

    /// Says so, if it is time to.
    pub(super) fn at(&mut self, done: usize, all: usize, what: &str) {
        let now = Instant::now();
        let is_early = self.is_silent || !self.is_terminal && now - self.start < QUIET;
        let every = if self.is_terminal { OFTEN } else { EVERY };
        if is_early || self.last.is_some_and(|last| now - last < every) {
            return;
        }
        self.last = Some(now);
        let line = format!("{done}/{all} {what}");
        if self.is_terminal {
            let room = self.columns.max(line.len());
            self.columns = line.len();
            let _ = write!(io::stderr(), "\r{line:<room$}");
        } else {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }

    /// A sentence that stays.
    pub(super) fn say(&mut self, sentence: &str) {
        self.end();
        let _ = writeln!(io::stderr(), "{sentence}");
    }

    /// Leaves the line empty.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.columns) > 0 {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
