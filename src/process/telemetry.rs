//! Logs: to standard error, one line an event, times in UTC (RFC 3339).

use std::io::{self, IsTerminal as _};
#[cfg(feature = "csi")]
use std::process::ExitCode;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

use self::lines::Lines;
#[cfg(feature = "csi")]
use self::queue::{Dropped, Queue, WrittenLines};
use crate::audit;
use crate::report::line;

mod lines;
#[cfg(feature = "csi")]
pub mod queue;

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

/// The same for servers: a thread writes, so a reader of logs who is slow, or gone, holds no request back. Lines are
/// dropped while [`queue::QUEUED`] bytes of them wait. What still waits is written when [`WrittenLines`] is dropped.
#[cfg(feature = "csi")]
#[must_use]
pub fn init_for_server(format: LogFormat, level: Level) -> (WrittenLines, Dropped) {
    let queue = Queue::in_front_of(io::stderr());
    let handles = (queue.written(), queue.dropped());
    init_to(format, level, queue);
    handles
}

/// How a program ends, which logs why it failed: a line for each reason, so none is cut.
#[cfg(feature = "csi")]
#[must_use]
pub fn exit(outcome: Result<(), String>) -> ExitCode {
    let Err(problem) = outcome else { return ExitCode::SUCCESS };
    problem.lines().for_each(|line| tracing::error!("{line}"));
    ExitCode::FAILURE
}

fn init_to<W>(format: LogFormat, level: Level, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // See https://no-color.org: any value but the empty one.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stderr().is_terminal() && !no_color;
    let lines = match format {
        LogFormat::Text => Lines::Text { colour },
        LogFormat::Json => Lines::Json,
    };
    // Fails only if there is a subscriber already, as in tests.
    let _ = subscriber(lines, level, writer).try_init();
}

fn subscriber<W>(lines: Lines, level: Level, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = LevelFilter::from_level(level);
    // "more verbose" is greater.
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("hushpod", level);
    // It logs answers that it does not understand as they came, and every error that it returns to us.
    let targets = targets.with_target("kube_client", LevelFilter::OFF);
    // Who got what is told whatever people want to read.
    let targets = targets.with_target(audit::TARGET, LevelFilter::INFO);
    let targets = targets.with_target(line::TARGET, LevelFilter::INFO);
    Registry::default().with(targets).with(fmt::layer().fmt_fields(lines).event_format(lines).with_writer(writer))
}

#[cfg(test)]
mod tests {
    use std::fmt::{self as std_fmt, Debug, Display};
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::lines::FIELD;
    use super::*;

    const TEXT: Lines = Lines::Text { colour: false };

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

    fn lines(lines: Lines, level: Level, log: impl FnOnce()) -> Vec<String> {
        let captured = Captured::default();
        let out = captured.clone();
        tracing::subscriber::with_default(subscriber(lines, level, move || out.clone()), log);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    /// The line's JSON, and its text from the sentence on.
    fn both(log: impl Fn()) -> (serde_json::Value, String) {
        let json = lines(Lines::Json, Level::INFO, &log);
        let text = lines(TEXT, Level::INFO, &log);
        assert_eq!((json.len(), text.len()), (1, 1), "{json:?} {text:?}");
        let (_, after_level) = text[0].split_once("INFO ").unwrap();
        (serde_json::from_str(&json[0]).unwrap(), after_level.to_owned())
    }

    #[test]
    fn json_is_one_object_a_line_with_a_utc_time() {
        let (line, _) = both(|| tracing::info!(provider = "vault", count = 3, part = 0.5, ok = true, "read"));
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.contains('T') && time.ends_with('Z'), "{time}");
        assert_eq!((&line["count"], &line["part"], &line["ok"]), (&3.into(), &0.5.into(), &true.into()));
        for (field, want) in [
            ("level", "INFO"),
            ("message", "read"),
            ("provider", "vault"),
            ("target", "hushpod::process::telemetry::tests"),
        ] {
            assert_eq!(line[field], want, "{line}");
        }
    }

    #[test]
    fn a_line_for_programs_is_the_same_in_every_format_and_level() {
        let log = || {
            let _in = tracing::info_span!("volume", pod = "web-1").entered();
            tracing::info!(target: line::TARGET, "{}", r#"{"event":"report"}"#);
        };
        for format in [TEXT, Lines::Text { colour: true }, Lines::Json] {
            assert_eq!(lines(format, Level::ERROR, log), [r#"{"event":"report"}"#], "{format:?}");
        }
    }

    #[test]
    fn text_is_plain_off_a_terminal_and_coloured_on_one() {
        let log = || tracing::warn!(path = "a", count = 1, nan = f64::NAN, "stale");
        let plain = lines(TEXT, Level::INFO, log);
        assert!(plain.len() == 1 && plain[0].ends_with("Z  WARN stale path=\"a\" count=1 nan=NaN"), "{plain:?}");
        let coloured = lines(Lines::Text { colour: true }, Level::INFO, log);
        assert!(coloured[0].contains("\x1b[33m WARN\x1b[0m stale"), "{coloured:?}");
    }

    #[test]
    fn fields_are_escaped_and_quoted_where_they_need_it() {
        for (value, expected) in [
            ("word", "word"),
            ("two words", r#""two words""#),
            ("a=b", r#""a=b""#),
            ("", r#""""#),
            (r#"say "no""#, r#""say \"no\"""#),
            (r"back\slash", r#""back\\slash""#),
            ("new\nline\r\t", r#""new\nline\r\t""#),
            ("\u{1b}[31m\u{7f}\u{9b}\0", r#""\u{1b}[31m\u{7f}\u{9b}\u{0}""#),
            ("a\u{202e}b\u{2028}c\u{2066}", r#""a\u{202e}b\u{2028}c\u{2066}""#),
            ("é", "é"),
        ] {
            let (json, text) = both(|| tracing::info!(pod = %value, "injected"));
            assert_eq!(text, format!("injected pod={expected}"));
            assert_eq!(json["pod"], value);
            // As the message, it has no quotes to end.
            let (json, text) = both(|| tracing::info!("{value}"));
            assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
            assert_eq!(json["message"], value);
        }
        let raw = lines(Lines::Json, Level::INFO, || tracing::info!(pod = "\u{9b}\u{202e}", "x"));
        assert!(raw[0].contains(r#""pod":"\u009b\u202e""#), "{raw:?}");
    }

    /// Counts what is asked of it, and would never end.
    struct Endless<'a>(&'a Mutex<usize>);

    impl Display for Endless<'_> {
        fn fmt(&self, f: &mut std_fmt::Formatter<'_>) -> std_fmt::Result {
            loop {
                *self.0.lock().unwrap() += 1;
                f.write_str("x")?;
            }
        }
    }

    impl Debug for Endless<'_> {
        fn fmt(&self, f: &mut std_fmt::Formatter<'_>) -> std_fmt::Result {
            Display::fmt(self, f)
        }
    }

    #[test]
    fn fields_are_cut_before_they_are_formatted() {
        let at_limit = "x".repeat(FIELD);
        let (json, text) = both(|| tracing::info!(pod = %at_limit, "injected"));
        assert_eq!((json["pod"].as_str(), text.len()), (Some(&*at_limit), "injected pod=".len() + FIELD));
        let asked = Mutex::new(0);
        let cut = format!("{at_limit}…");
        let (json, text) = both(|| tracing::info!(a = %Endless(&asked), b = ?Endless(&asked), "{}", Endless(&asked)));
        assert_eq!(text, format!("{cut} a={cut} b={cut}"));
        for field in ["a", "b", "message"] {
            assert_eq!(json[field], *cut, "{field}");
        }
        assert!(*asked.lock().unwrap() <= 6 * (FIELD + 1));
        // Neither between the bytes of a character, nor between those of an escape.
        let odd = format!("x{}", "é\u{1}".repeat(FIELD));
        let (json, text) = both(|| tracing::info!(pod = odd, "injected"));
        assert!(json["pod"].as_str().unwrap().len() <= FIELD && text.len() <= FIELD + 40, "{text}");
    }

    #[test]
    fn audit_lines_are_json_whatever_the_format_and_level() {
        let user = "a\u{202e}\"\n\u{9b}é";
        let log = || {
            let admission = audit::Admission { user, ..audit::Admission::default() };
            audit::write_admission(&admission, audit::AuditOutcome::Allowed);
        };
        for (format, level) in [(TEXT, Level::ERROR), (Lines::Json, Level::INFO), (TEXT, Level::TRACE)] {
            let written = lines(format, level, log);
            let [line] = &written[..] else { panic!("{written:?}") };
            assert!(line.starts_with("{\"audit\":\"hushpod.dev/v1\"") && line.ends_with('}'), "{line}");
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
            assert_eq!(audit::AuditLine::read(line).unwrap().user.as_deref(), Some(user));
        }
    }

    #[cfg(feature = "csi")]
    #[test]
    fn a_log_that_nobody_reads_holds_nobody_back() {
        let captured = Captured::default();
        let unread = captured.0.lock().unwrap();
        let queue = Queue::in_front_of(captured.clone());
        let (written, dropped) = (queue.written(), queue.dropped());
        let count = queue::QUEUED / 32;
        tracing::subscriber::with_default(subscriber(TEXT, Level::INFO, queue), || {
            (0..count).for_each(|line| tracing::info!(line, "injected"));
        });
        assert!(dropped.lines() > 0, "nothing waited for the reader");
        drop(unread);
        drop(written);
        let lines = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap().lines().count();
        assert_eq!(lines + dropped.lines(), count);
    }

    #[test]
    fn p5_libraries_are_heard_from_warn_up_only() {
        let log = || {
            tracing::trace!(target: "hyper::proto", "canary");
            tracing::info!(target: "rustls", "canary");
            tracing::error!(target: "hyper::proto", "failed");
            tracing::error!(target: "kube_client::client", "canary");
            tracing::trace!(target: "hushpod::agent", "ours");
        };
        let all = lines(TEXT, Level::TRACE, log);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].contains("failed") && all[1].contains("ours"), "{all:?}");
        let quiet = lines(TEXT, Level::ERROR, || {
            tracing::warn!(target: "kube", "no");
            tracing::warn!("no");
        });
        assert!(quiet.is_empty(), "{quiet:?}");
    }
}
