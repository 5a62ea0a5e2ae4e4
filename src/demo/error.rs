//! Why the demo could not go on.

use std::io;
use std::path::PathBuf;

/// Why the demo could not go on. A claim that fails is not an error: it stands in the report.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The agent's program is not where it should be.
    #[error("there is no agent at {0}: build it with `cargo build --bins`, or name it with --agent")]
    NoAgent(PathBuf),
    /// Something on this machine did not work.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// A part of the chain did not do what it should.
    #[error("{0}")]
    Broken(String),
    /// Nobody reads the report any more, as behind `| head`.
    #[error("nobody reads the report any more")]
    Unread,
}

impl DemoError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |cause| Self::Io { what, cause }
    }
}
