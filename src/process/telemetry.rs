//! Logs: to standard error, one line an event, times in UTC (RFC 3339).

use std::io::{self, IsTerminal as _};
#[cfg(feature = "cluster")]
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
#[cfg(feature = "cluster")]
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

/// Some megabytes at most.
#[cfg(feature = "cluster")]
const QUEUED_LINES: usize = 16_384;
/// How late a line may be that comes right after another.
#[cfg(feature = "cluster")]
const LOG_PAUSE: Duration = Duration::from_millis(10);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal, unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs of this program from `level` up, for the rest of the process; a second call does nothing.
///
/// Libraries are heard from WARN up at most: some trace whole headers and bodies, which hold tokens and values.
pub fn init(format: LogFormat, level: Level) {
    init_to(format, level, io::stderr);
}

/// The same for servers: a thread writes, so that a reader of logs who is slow, or gone, holds no request back. Lines are
/// dropped while [`QUEUED_LINES`] of them wait. What still waits is written when the [`WorkerGuard`] is dropped.
#[cfg(feature = "cluster")]
pub fn init_for_server(format: LogFormat, level: Level) -> (WorkerGuard, ErrorCounter) {
    let (writer, guard) = behind_a_thread(io::stderr());
    let dropped = writer.error_counter();
    init_to(format, level, writer);
    (guard, dropped)
}

#[cfg(feature = "cluster")]
fn behind_a_thread(writer: impl io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(QUEUED_LINES).finish(Paced(io::BufWriter::new(writer)))
}

/// Flushed whenever the queue is empty, it rests then: what comes meanwhile goes in one write, and wakes nobody.
#[cfg(feature = "cluster")]
struct Paced<W: io::Write>(io::BufWriter<W>);

#[cfg(feature = "cluster")]
impl<W: io::Write> io::Write for Paced<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    #[expect(clippy::disallowed_methods, reason = "it has a thread of its own")]
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        std::thread::sleep(LOG_PAUSE);
        Ok(())
    }
}

fn init_to<W>(format: LogFormat, level: Level, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // See https://no-color.org: any value but the empty one.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stderr().is_terminal() && !no_color;
    // Fails only if there is a subscriber already, as in tests.
    let _ = match format {
        LogFormat::Text => text(level, colour, writer).try_init(),
        LogFormat::Json => json(level, writer).try_init(),
    };
}

fn targets(level: Level) -> Targets {
    let level = LevelFilter::from_level(level);
    // "more verbose" is greater.
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("hushpod", level)
}

fn text<W>(level: Level, colour: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_ansi(colour).with_target(false);
    Registry::default().with(targets(level)).with(lines)
}

fn json<W>(level: Level, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().json().flatten_event(true).with_current_span(false).with_writer(writer);
    Registry::default().with(targets(level)).with(lines)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines<S: Subscriber + Send + Sync>(subscriber: impl FnOnce(Captured) -> S, log: impl FnOnce()) -> Vec<String> {
        let captured = Captured::default();
        tracing::subscriber::with_default(subscriber(captured.clone()), log);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn json_is_one_object_a_line_with_a_utc_time() {
        let log = || tracing::info!(provider = "vault", "read");
        let lines = lines(|out| json(Level::INFO, move || out.clone()), log);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.contains('T') && time.ends_with('Z'), "{time}");
        for (field, want) in [("level", "INFO"), ("message", "read"), ("provider", "vault")] {
            assert_eq!(line[field], want, "{line}");
        }
    }

    #[test]
    fn text_is_plain_off_a_terminal() {
        let log = || tracing::warn!(path = "a", "stale");
        let lines = lines(|out| text(Level::INFO, false, move || out.clone()), log);
        assert!(lines.len() == 1 && lines[0].ends_with("WARN stale path=\"a\""), "{lines:?}");
    }

    #[cfg(feature = "cluster")]
    #[test]
    fn a_log_that_nobody_reads_holds_nobody_back() {
        let captured = Captured::default();
        let unread = captured.0.lock().unwrap();
        let (writer, guard) = behind_a_thread(captured.clone());
        let dropped = writer.error_counter();
        let subscriber = text(Level::INFO, false, writer);
        // What is being written when the reader stops, and what waits.
        tracing::subscriber::with_default(subscriber, || {
            (0..QUEUED_LINES + 1000).for_each(|line| tracing::info!(line, "injected"));
        });
        assert!(dropped.dropped_lines() > 0, "nothing waited for the reader");
        drop(unread);
        drop(guard);
        let written = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap().lines().count();
        assert_eq!(written + dropped.dropped_lines(), QUEUED_LINES + 1000);
    }

    #[test]
    fn p5_libraries_are_heard_from_warn_up_only() {
        let log = || {
            tracing::trace!(target: "hyper::proto", "canary");
            tracing::info!(target: "rustls", "canary");
            tracing::error!(target: "hyper::proto", "failed");
            tracing::trace!(target: "hushpod::agent", "ours");
        };
        let all = lines(|out| text(Level::TRACE, false, move || out.clone()), log);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].contains("failed") && all[1].contains("ours"), "{all:?}");
        let quiet = lines(
            |out| text(Level::ERROR, false, move || out.clone()),
            || {
                tracing::warn!(target: "kube", "no");
                tracing::warn!("no");
            },
        );
        assert!(quiet.is_empty(), "{quiet:?}");
    }
}
