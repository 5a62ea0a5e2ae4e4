//! Why a command did not do what it was asked for.

use super::safe::shown;
use crate::cluster;

/// Most characters of what others say that an error repeats.
const MOST: usize = 500;

/// One sentence, and the exit code that goes with it (src/fleet.md, Exit codes).
#[derive(Debug, thiserror::Error)]
pub(super) enum FleetError {
    /// The command line, or a file that it names, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The API server, or a file, does not give what was asked for.
    #[error("{0}")]
    Failed(String),
    /// Some pods have not reported in time that it is done.
    #[error("{0}")]
    NotInTime(String),
    /// A pod that was ready is not any more, so no other one is touched.
    #[error("{0}")]
    Stopped(String),
}

// === impl FleetError ===

impl FleetError {
    /// What a shell sees.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotInTime(_) => 3,
            Self::Stopped(_) => 4,
        }
    }

    /// What the API server said to `what`.
    pub(super) fn of_api(what: &str, error: &kube::Error) -> Self {
        Self::Failed(format!("{what}: {}", said(error)))
    }
}

/// What an error of the API server says, for a terminal.
pub(super) fn said(error: &kube::Error) -> String {
    shown(&cluster::said(error), MOST)
}

/// Whether the API server has no such object.
pub(super) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
