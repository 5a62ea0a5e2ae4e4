//! The command line. By hand: a parser that could do more would be half of this program.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use crate::contract::{
    END_OF_OPTIONS, ENV_OPTION, GRACE_OPTION, JITTER_OPTION, KEEP_OPTION, MAX_NOTIFIED, NOTIFY_OPTION,
    ON_CHANGE_OPTION, OPTIONAL_ENV_OPTION, TERMINATION_LOG,
};
use crate::env_vars::check_name;
use crate::options::{Notify, OnChange};
use crate::parse_error::{ParseError, rule};
use crate::quantity::parse_wait;

/// The one option that the webhook does not write.
const TERMINATION_LOG_OPTION: &str = "--termination-log";

/// Every option of `exec`.
pub(super) const OPTIONS: [&str; 8] = [
    ENV_OPTION,
    OPTIONAL_ENV_OPTION,
    KEEP_OPTION,
    ON_CHANGE_OPTION,
    JITTER_OPTION,
    GRACE_OPTION,
    NOTIFY_OPTION,
    TERMINATION_LOG_OPTION,
];

/// What a container is started with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) sources: Vec<SourcePath>,
    pub(super) keep: Vec<String>,
    pub(super) on_change: OnChange,
    pub(super) jitter: Duration,
    pub(super) grace: Duration,
    pub(super) notify: Vec<Notify>,
    pub(super) termination_log: PathBuf,
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
}

/// A file or directory to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourcePath {
    pub(super) path: PathBuf,
    pub(super) optional: bool,
}

/// A command line that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; `hushpod-agent exec --help` says what would")]
pub(super) struct UsageError(String);

// === impl CommandLine ===

impl CommandLine {
    /// Whether a parent stays, to see the files change.
    pub(super) fn stays(&self) -> bool {
        self.on_change != OnChange::None || !self.notify.is_empty()
    }

    /// Parses what follows `exec`. `--option VALUE` and `--option=VALUE` are the same.
    pub(super) fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut parsed = Self {
            sources: Vec::new(),
            keep: Vec::new(),
            on_change: OnChange::None,
            jitter: Duration::ZERO,
            grace: Duration::from_secs(30),
            notify: Vec::new(),
            termination_log: PathBuf::from(TERMINATION_LOG),
            program: OsString::new(),
            arguments: Vec::new(),
        };
        loop {
            let Some(word) = words.next() else {
                return Err(UsageError("no command is given: write -- COMMAND".to_owned()));
            };
            if word == END_OF_OPTIONS {
                break;
            }
            let (option, value) = split(&word);
            let Some(option) = OPTIONS.into_iter().find(|known| option == *known) else {
                return Err(UsageError(format!("unknown option {option:?}; put the command after --")));
            };
            let value = value.or_else(|| words.next()).ok_or_else(|| UsageError(format!("{option} wants a value")))?;
            parsed.set(option, value).map_err(|problem| UsageError(format!("{option}: {problem}")))?;
        }
        parsed.program = words.next().ok_or_else(|| UsageError("no command stands behind --".to_owned()))?;
        parsed.arguments = words.collect();
        if parsed.sources.is_empty() {
            return Err(UsageError("nothing to read: write --env PATH".to_owned()));
        }
        Ok(parsed)
    }

    fn set(&mut self, option: &str, value: OsString) -> Result<(), ParseError> {
        match option {
            ENV_OPTION => self.sources.push(SourcePath { path: value.into(), optional: false }),
            OPTIONAL_ENV_OPTION => self.sources.push(SourcePath { path: value.into(), optional: true }),
            TERMINATION_LOG_OPTION => self.termination_log = value.into(),
            _ => {
                let text = value.to_str().ok_or_else(|| rule(format!("{} is not UTF-8", value.display())))?;
                match option {
                    KEEP_OPTION => {
                        check_name(text).map_err(|error| rule(error.of(&format!("{text:?}"))))?;
                        self.keep.push(text.to_owned());
                    }
                    ON_CHANGE_OPTION => self.on_change = own(text.parse()?)?,
                    JITTER_OPTION => self.jitter = parse_wait(text)?,
                    NOTIFY_OPTION if self.notify.len() >= MAX_NOTIFIED => {
                        return Err(rule(format!("more than {MAX_NOTIFIED} are to be told")));
                    }
                    NOTIFY_OPTION => self.notify.push(text.parse()?),
                    _ => self.grace = parse_wait(text)?,
                }
            }
        }
        Ok(())
    }
}

/// What this program can do in its one container.
fn own(on_change: OnChange) -> Result<OnChange, ParseError> {
    match on_change {
        OnChange::RestartAll => Err(rule("restart-all is the agent's to do: write it as the pod's annotation")),
        OnChange::None | OnChange::Restart | OnChange::Signal(_) => Ok(on_change),
    }
}

fn split(word: &OsStr) -> (String, Option<OsString>) {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|&byte| byte == b'=').unwrap_or(bytes.len());
    let (option, value) = bytes.split_at(at);
    let value = value.strip_prefix(b"=").map(|value| OsString::from_vec(value.to_vec()));
    (String::from_utf8_lossy(option).into_owned(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<CommandLine, UsageError> {
        CommandLine::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn options_come_before_the_command_and_its_own_are_left_alone() {
        let arguments = parsed(&[
            "--env=/s/a.env",
            "--optional-env",
            "/s/b=c",
            "--keep",
            "HOME",
            "--on-change=signal:HUP",
            "--jitter=5m",
            "--grace",
            "0s",
            "--notify=http:http://localhost:8080/x?a=b",
            "--notify",
            "signal:HUP:nginx",
            "--",
            "server",
            "--env",
            "--",
            "x",
        ])
        .unwrap();
        assert_eq!(arguments.sources[0], SourcePath { path: "/s/a.env".into(), optional: false });
        assert_eq!(arguments.sources[1], SourcePath { path: "/s/b=c".into(), optional: true });
        assert_eq!(arguments.keep, ["HOME"]);
        assert_eq!(arguments.on_change.to_string(), "signal:HUP");
        assert_eq!((arguments.jitter, arguments.grace), (Duration::from_mins(5), Duration::ZERO));
        assert_eq!(
            arguments.notify.iter().map(Notify::to_string).collect::<Vec<_>>(),
            ["http:http://localhost:8080/x?a=b", "signal:HUP:nginx"]
        );
        assert!(arguments.stays());
        assert_eq!(arguments.program, "server");
        assert_eq!(arguments.arguments, ["--env", "--", "x"]);
    }

    #[test]
    fn p9_what_means_nothing_is_refused_with_what_to_write() {
        for (words, part) in [
            (&["--env", "/a", "server"][..], "after --"),
            (&["--env", "/a"], "-- COMMAND"),
            (&["--env", "/a", "--"], "behind --"),
            (&["--", "server"], "--env PATH"),
            (&["--env"], "wants a value"),
            (&["--evn=/a", "--", "x"], "unknown option"),
            (&["--env=/a", "--keep=A-B", "--", "x"], "not a variable's name"),
            (&["--env=/a", "--on-change=restart-all", "--", "x"], "is the agent's to do"),
            (&["--env=/a", "--on-change=reload", "--", "x"], "none, restart, restart-all or signal:<SIGNAL>"),
            (&["--env=/a", "--on-change=signal:KILL", "--", "x"], "HUP"),
            (&["--env=/a", "--jitter=5", "--", "x"], "5m"),
            (&["--env=/a", "--notify=http:http://example.com/", "--", "x"], "is not on localhost"),
            (&["--env=/a", "--notify=http:http://localhost/a\r\nX: y", "--", "x"], "write it as %XX"),
            (&["--env=/a", "--notify=exec:reload", "--", "x"], "signal:<SIGNAL>:<process>"),
            (&["--env=/a", "--notify=signal:KILL:app", "--", "x"], "HUP"),
        ] {
            let message = parsed(words).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("--help"), "{words:?}: {message}");
        }
    }

    #[test]
    fn as_many_may_be_told_as_the_webhook_writes() {
        let words = |count| {
            let mut words = vec!["--env=/a"];
            words.extend(std::iter::repeat_n("--notify=signal:HUP:app", count));
            [words, vec!["--", "x"]].concat()
        };
        assert_eq!(parsed(&words(MAX_NOTIFIED)).unwrap().notify.len(), MAX_NOTIFIED);
        let message = parsed(&words(MAX_NOTIFIED + 1)).unwrap_err().to_string();
        assert!(message.contains("more than 32"), "{message}");
        assert!(!parsed(&words(0)).unwrap().stays());
    }
}
