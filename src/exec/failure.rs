//! Why `exec` did not come to an application, and whom it tells.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::arguments::UsageError;
use super::read::ReadError;

/// The wrapper itself failed, as env(1) and timeout(1) say it.
pub(super) const FAILED: u8 = 125;

/// Why the command is not run. Shown as logs have it; what goes into the termination message, and with it into etcd, is
/// [`ExecError::public`]. Our own words only.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecError {
    #[error("{0}")]
    Usage(#[from] UsageError),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("cannot run {program:?}: {problem}")]
    Run { program: OsString, problem: String, code: u8 },
    #[error("the process cannot be set up: {0}")]
    Process(#[from] io::Error),
}

/// A terminal or log that is gone is not a reason to fail.
pub(super) fn say(out: &mut impl Write, text: &str) {
    let _ = out.write_all(text.as_bytes());
}

/// A string in JSON, cut: ids and names of processes are made of plain characters, and any other is not shown.
pub(super) fn json_text(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') { c } else { '?' };
    format!("\"{}\"", text.chars().map(plain).take(128).collect::<String>())
}

/// Tells kubelet why the container ended. Without a container there is no such file, and nobody to tell.
/// Says whether it was told.
pub(super) fn terminate(log: &Path, text: &str) -> bool {
    let file = OpenOptions::new().write(true).truncate(true).open(log);
    file.and_then(|mut file| file.write_all(text.as_bytes())).is_ok()
}

// === impl ExecError ===

impl ExecError {
    pub(super) fn run(program: &OsStr, error: &io::Error) -> Self {
        let (code, problem) = match error.kind() {
            io::ErrorKind::NotFound => (127, "there is no such program, or no interpreter that it names".to_owned()),
            io::ErrorKind::ArgumentListTooLong => (
                126,
                "arguments and variables together are more than the kernel takes: deliver large ones as files"
                    .to_owned(),
            ),
            _ => (126, error.to_string()),
        };
        Self::Run { program: program.to_owned(), problem, code }
    }

    /// For readers of the pod's status: without names that only a store knows.
    pub(super) fn public(&self) -> String {
        match self {
            Self::Read(error) => error.public(),
            Self::Usage(_) | Self::Run { .. } | Self::Process(_) => self.to_string(),
        }
    }

    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Run { code, .. } => *code,
            Self::Usage(_) | Self::Read(_) | Self::Process(_) => FAILED,
        }
    }
}
