//! Why a command of a person's machine did not do what it was asked for, and the exit code that says so.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::config::ConfigError;
use crate::plan::PlanError;
use crate::provider::{ErrorKind, ProviderError};

/// What kind of failure it is (src/local.md, Exit codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalFailure {
    /// It failed.
    Failed,
    /// The command line, or a file that it reads, is wrong.
    Usage,
    /// There is no such secret, version or key.
    Missing,
    /// The store refuses: the login, or the right to read.
    Denied,
    /// The store does not answer in time.
    Unreachable,
    /// A repository's file sends tokens where nobody has said that they may go.
    Untrusted,
    /// The command cannot be executed.
    NotExecutable,
    /// There is no such command.
    NoCommand,
}

/// How errors are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ErrorFormat {
    /// Sentences.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How a command tells that it failed.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ErrorArgs {
    /// How errors are told
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) error_format: ErrorFormat,
}

/// One failure. Says names, never a value.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct LocalError {
    pub(super) kind: LocalFailure,
    /// One sentence; for several secrets, one a line.
    pub(super) problem: String,
    /// The variables or files that it is about.
    pub(super) names: Vec<String>,
    /// The provider that it is about, if it is one.
    pub(super) provider: Option<String>,
    /// What to do, if the sentence does not say so.
    pub(super) hint: Option<String>,
    /// Of several failures, each.
    pub(super) parts: Box<[Self]>,
}

/// The exit code of `run` where hushpod itself fails, as env(1) has it.
pub(super) const RUN_FAILED: u8 = 125;

// === impl ErrorArgs ===

impl ErrorArgs {
    /// Tells a failure, and gives the exit code of a command, which `run` has its own of.
    pub(super) fn fail(self, error: &LocalError, is_run: bool) -> ExitCode {
        error.tell(self.error_format);
        ExitCode::from(error.exit_code(is_run))
    }

    /// How a command that is not `run` ends.
    pub(crate) fn exit(self, outcome: Result<(), LocalError>) -> ExitCode {
        outcome.map_or_else(|error| self.fail(&error, false), |()| ExitCode::SUCCESS)
    }
}

// === impl LocalFailure ===

impl LocalFailure {
    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Throttled { .. } | ErrorKind::Unavailable => Self::Unreachable,
            ErrorKind::Invalid => Self::Failed,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Missing => "missing",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::NotExecutable => "not-executable",
            Self::NoCommand => "no-command",
        }
    }

    fn exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::Untrusted => 1,
            Self::Usage => 2,
            Self::Missing => 3,
            Self::Denied => 4,
            Self::Unreachable => 5,
            Self::NotExecutable => 126,
            Self::NoCommand => 127,
        }
    }
}

// === impl LocalError ===

impl LocalError {
    pub(super) fn new(kind: LocalFailure, problem: impl Into<String>) -> Self {
        Self { kind, problem: problem.into(), names: Vec::new(), provider: None, hint: None, parts: Box::default() }
    }

    pub(crate) fn failed(problem: impl Into<String>) -> Self {
        Self::new(LocalFailure::Failed, problem)
    }

    pub(crate) fn usage(problem: impl Into<String>) -> Self {
        Self::new(LocalFailure::Usage, problem)
    }

    /// What a store answered.
    pub(super) fn of_store(provider: &str, error: &ProviderError) -> Self {
        let told = Self::new(LocalFailure::of(error.kind), format!("provider {provider}: {}", &*error.message));
        Self { provider: Some(provider.to_owned()), ..told }
    }

    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn about(self, names: Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// One failure of several: all their sentences and names, and the kind of the one that is told first.
    pub(super) fn all(errors: Vec<Self>) -> Self {
        let first = errors.first().map_or(LocalFailure::Failed, |first| first.kind);
        let provider = errors.first().and_then(|first| first.provider.clone());
        let is_one = errors.iter().all(|error| error.provider == provider);
        let problems: Vec<_> = errors.iter().map(|error| error.problem.as_str()).collect();
        Self {
            kind: first,
            problem: problems.join("\n"),
            names: errors.iter().flat_map(|error| error.names.clone()).collect(),
            provider: provider.filter(|_| is_one),
            hint: errors.iter().find_map(|error| error.hint.clone()),
            parts: errors.into_boxed_slice(),
        }
    }

    /// Each failure of several; itself, if it is one.
    pub(super) fn parts(&self) -> &[Self] {
        if self.parts.is_empty() { std::slice::from_ref(self) } else { &self.parts }
    }

    /// What a shell sees; `is_run`: the command's own codes begin at 0.
    pub(super) fn exit_code(&self, is_run: bool) -> u8 {
        match self.kind {
            LocalFailure::NotExecutable | LocalFailure::NoCommand => self.kind.exit_code(),
            _ if is_run => RUN_FAILED,
            kind => kind.exit_code(),
        }
    }

    /// Tells it on standard error; a terminal that is gone is not another failure.
    pub(super) fn tell(&self, format: ErrorFormat) {
        let told = match format {
            ErrorFormat::Text => {
                let lines: Vec<_> = self.problem.lines().chain(self.hint.as_deref()).collect();
                format!("hushpod: {}\n", lines.join("\nhushpod: "))
            }
            ErrorFormat::Json => {
                let Self { kind, problem, names, provider, hint, parts: _ } = self;
                let code = kind.word();
                let told =
                    json!({"code": code, "message": problem, "names": names, "provider": provider, "hint": hint});
                format!("{told}\n")
            }
        };
        let _ = io::stderr().write_all(told.as_bytes());
    }
}

impl From<PlanError> for LocalError {
    fn from(error: PlanError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ConfigError> for LocalError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        for (kind, code, of_run) in [
            (LocalFailure::Failed, 1, 125),
            (LocalFailure::Usage, 2, 125),
            (LocalFailure::Missing, 3, 125),
            (LocalFailure::Denied, 4, 125),
            (LocalFailure::Unreachable, 5, 125),
            (LocalFailure::Untrusted, 1, 125),
            (LocalFailure::NotExecutable, 126, 126),
            (LocalFailure::NoCommand, 127, 127),
        ] {
            let error = LocalError::new(kind, "x");
            assert_eq!((error.exit_code(false), error.exit_code(true)), (code, of_run), "{kind:?}");
        }
    }

    #[test]
    fn several_failures_are_told_together() {
        let one = |name: &str| LocalError { provider: Some("vault".to_owned()), ..LocalError::failed(name) };
        let both = LocalError::all(vec![one("a").about(vec!["A".to_owned()]), one("b").about(vec!["B".to_owned()])]);
        assert_eq!((both.problem.as_str(), both.provider.as_deref()), ("a\nb", Some("vault")));
        assert_eq!(both.names, ["A", "B"]);
        assert_eq!(both.parts().iter().map(|part| part.problem.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(one("a").parts().len(), 1);
    }
}
