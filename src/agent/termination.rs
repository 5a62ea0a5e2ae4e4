//! The container's termination message: kubelet keeps what stands in its file when the process ends, however it ends, and
//! `kubectl describe pod` shows it. With that the text goes into etcd: our own words only, and no name that only a store
//! knows.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tracing::{debug, error};

use super::error::AgentError;
use crate::contract::RESTART_ALL_CODE;

/// What kubelet keeps of a termination message.
const MAX_BYTES: usize = 4096;

/// Writes a termination message, and says the same in the log.
///
/// A file in `/dev` is not created: without a container there is nobody to read it.
pub fn terminate(path: &Path, problem: &AgentError) {
    let sentence = match problem {
        AgentError::Interrupted(_) => "the agent ends: it was stopped",
        _ => "the agent ends: waiting would not help",
    };
    error!(event = "ended", exit_code = problem.exit_code(), problem = %problem, "{sentence}");
    write(path, &problem.public());
}

/// How an agent ended that has nothing to complain of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was done, or stopped.
    Done,
    /// For kubelet to restart all containers of the pod.
    RestartAll,
}

// === impl Ended ===

impl Ended {
    /// The process's exit code, as `--help` documents it.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::RestartAll => RESTART_ALL_CODE,
        }
    }
}

/// What the container would leave if it were killed now, by the node's memory or its own deadline.
#[derive(Debug)]
pub(super) struct LastWords {
    path: PathBuf,
    written: String,
}

// === impl LastWords ===

impl LastWords {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), written: String::new() }
    }

    /// Leaves these in place of what stood there. Nothing is written twice.
    pub(super) fn are(&mut self, text: String) {
        if self.written != text {
            write(&self.path, &text);
            self.written = text;
        }
    }
}

fn write(path: &Path, text: &str) {
    let message = text.get(..text.floor_char_boundary(MAX_BYTES)).unwrap_or_default();
    if let Err(error) = try_write(path, message.as_bytes()) {
        debug!(%error, path = %path.display(), "no termination message was written");
    }
}

fn try_write(path: &Path, message: &[u8]) -> io::Result<()> {
    let create = path.parent() != Some(Path::new("/dev"));
    OpenOptions::new().write(true).truncate(true).create(create).open(path)?.write_all(message)
}
