//! A generation becomes files: rendered, then written as one set.

pub mod controls;
pub mod delivery;
pub mod render;
pub mod reporting;
mod shown;
pub mod volume;

use std::fmt;

use crate::bundle::{FileMode, VolumePath};
use crate::secret::SecretValue;

/// One file, ready to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// Where, relative to the volume.
    pub path: VolumePath,
    /// Its bytes.
    pub bytes: SecretValue,
    /// Its permission bits.
    pub mode: FileMode,
}

/// Whose files are; `None` leaves them to the process that writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub user: Option<u32>,
    /// Group id.
    pub group: Option<u32>,
}

impl fmt::Debug for RenderedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenderedFile").field("path", &self.path).field("mode", &self.mode).finish_non_exhaustive()
    }
}
