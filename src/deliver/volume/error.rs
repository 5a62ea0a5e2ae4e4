//! Why files could not be written.

use std::path::PathBuf;

use rustix::io::Errno;

use super::tree::TreeError;
use crate::annotations::SIZE_LIMIT;
use crate::contract::PREFIX;

/// Why files could not be written. Those that are there stay as they are. Names paths, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// The directory cannot be used at all.
    #[error("cannot open the volume {dir:?}: {errno}; it must be a directory that the agent's user may write")]
    Open {
        /// The directory.
        dir: PathBuf,
        /// The system's reason.
        errno: Errno,
    },
    /// A system call failed.
    #[error("cannot {action} {path:?} in the volume: {errno}; the present files stay")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path, relative to the volume.
        path: String,
        /// The system's reason.
        errno: Errno,
    },
    /// The files do not fit.
    #[error(
        "no space in the volume for {needed} bytes of files{}: raise {PREFIX}{SIZE_LIMIT}; the present files stay",
        free.map_or_else(String::new, |free| format!(", {free} are free"))
    )]
    NoSpace {
        /// Bytes on disk of the files to write, whole blocks.
        needed: u64,
        /// Free bytes, if they were found out before writing.
        free: Option<u64>,
    },
    /// Something that is not ours has a file's name.
    #[error("{name:?} in the volume is in the way of a file: remove it; only the agent may write into the volume")]
    InTheWay {
        /// Its name.
        name: String,
    },
    /// The id cannot name a directory.
    #[error("{0:?} cannot name a generation: letters, digits, '-' and '.' can, and \"data\" is taken")]
    BadId(String),
}

// === impl VolumeError ===

impl From<TreeError> for VolumeError {
    fn from(TreeError { action, path, errno }: TreeError) -> Self {
        Self::Io { action, path, errno }
    }
}
