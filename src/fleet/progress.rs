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
        if let Some(text) = self.text(Instant::now(), done, all, what) {
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }

    /// What to write now, if it is time to.
    fn text(&mut self, now: Instant, done: usize, all: usize, what: &str) -> Option<String> {
        let is_early = self.is_silent || !self.is_terminal && now - self.start < QUIET;
        let every = if self.is_terminal { OFTEN } else { EVERY };
        if is_early || self.last.is_some_and(|last| now - last < every) {
            return None;
        }
        self.last = Some(now);
        let line = format!("{done}/{all} {what}");
        if !self.is_terminal {
            return Some(format!("{line}\n"));
        }
        let room = self.columns.max(line.len());
        self.columns = line.len();
        Some(format!("\r{line:<room$}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of a thousand pods that are read in so many milliseconds each.
    fn written(mut line: ProgressLine, each: u64) -> Vec<String> {
        let start = line.start;
        (1..=1000)
            .filter_map(|done: usize| {
                line.text(start + Duration::from_millis(each) * u32::try_from(done).unwrap(), done, 1000, "pods read")
            })
            .collect()
    }

    #[test]
    fn a_thousand_pods_are_counted_now_and_then() {
        // Twenty seconds, to a file: nothing at first, then a line every five.
        let lines = ["100/1000 pods read\n", "350/1000 pods read\n", "600/1000 pods read\n", "850/1000 pods read\n"];
        assert_eq!(written(ProgressLine::new(false), 20), lines);
        // Done within two seconds: not a word.
        assert_eq!(written(ProgressLine::new(false), 1), [""; 0]);
        assert_eq!(written(ProgressLine::silent(), 20), [""; 0]);
        // On a terminal at once, over the line before, ten times a second.
        let shown = written(ProgressLine::new(true), 20);
        assert_eq!((shown.len(), shown[0].as_str()), (200, "\r1/1000 pods read"));
        assert!(shown.iter().all(|line| line.starts_with('\r') && line.trim_end().ends_with("/1000 pods read")));
        // A shorter one leaves nothing of a longer one.
        let mut line = ProgressLine::new(true);
        let later = line.start + Duration::from_secs(1);
        assert_eq!(line.text(line.start, 10, 10, "pods read").unwrap(), "\r10/10 pods read");
        assert_eq!(line.text(later, 1, 1, "agents").unwrap(), "\r1/1 agents     ");
    }
}
