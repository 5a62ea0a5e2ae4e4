//! The `live` gate: applications mount the volume's subdirectory `live`, and kubelet cannot prepare that mount while
//! `live` is a dangling symbolic link ("failed to create subPath directory", retried). The agent's first act is such
//! a link; when the first generation is complete it is exchanged, in one rename, for a real directory.
//!
//! The volume's root may be mode 1777 with `fs.protected_symlinks=1`, where nobody follows another user's links: so
//! files are only ever written inside a 0755 directory that the agent made.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::contract::LIVE;
use crate::deliver::volume::AtomicVolume;

/// Where a closed gate points: nothing has this name, ever.
const CLOSED: &str = ".hushpod-gate-closed";
/// Where the first generation is written; after the exchange, for a moment, the old link.
const STAGING: &str = ".live-new";

/// The gate of one volume.
#[derive(Debug)]
pub struct Gate {
    live: PathBuf,
    staging: PathBuf,
}

/// Whether applications may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateState {
    /// No container that mounts the volume can start.
    Closed,
    /// A complete generation is there.
    Open,
}

/// Why the gate cannot be used. Permanent, unless someone repairs the pod.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// `live` is there, but it is neither our link nor our finished directory.
    #[error(
        "{} is {found}: a container that runs before the agent mounted the volume (or something else wrote to it), so \
         nothing would hold the application back; mount the files only in containers after the agent, or set \
         hushpod.dev/init-order: first",
        .path.display()
    )]
    Foreign {
        /// The path of `live`.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The volume itself fails.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

// === impl Gate ===

impl Gate {
    /// Closes the gate of the volume at `root`, or adopts what an earlier agent left there, whatever step it died in.
    ///
    /// # Errors
    /// [`GateError::Foreign`] if someone else made `live`; [`GateError::Io`] if the volume cannot be used.
    pub fn claim(root: &Path) -> Result<(Self, GateState), GateError> {
        let gate = Self { live: root.join(LIVE), staging: root.join(STAGING) };
        let live = &gate.live;
        match symlink(CLOSED, live) {
            Ok(()) => return Ok((gate, GateState::Closed)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("create the gate", live)(error)),
        }
        let found = fs::symlink_metadata(live).map_err(io_error("look at", live))?;
        let state = if found.is_symlink() { adopt_link(live, &found)? } else { adopt_directory(live, &found)? };
        if state == GateState::Open {
            gate.clear_staging()?;
        }
        Ok((gate, state))
    }

    /// Where the files are once the gate is open.
    #[must_use]
    pub fn live(&self) -> &Path {
        &self.live
    }

    /// Makes the empty directory into which the first generation is to be written before [`Self::open`].
    ///
    /// # Errors
    /// [`GateError::Io`] if the volume refuses.
    pub fn stage(&self) -> Result<&Path, GateError> {
        let staging = &self.staging;
        self.clear_staging()?;
        fs::DirBuilder::new().mode(0o755).create(staging).map_err(io_error("create", staging))?;
        let mode = fs::metadata(staging).map_err(io_error("look at", staging))?.permissions().mode();
        // The umask may have taken bits away. An inherited setgid bit is what gives files the fsGroup: it stays.
        let wanted = mode & 0o2000 | 0o755;
        if mode & 0o7777 != wanted {
            fs::set_permissions(staging, fs::Permissions::from_mode(wanted))
                .map_err(io_error("set the mode of", staging))?;
        }
        Ok(staging)
    }

    /// Opens the gate: what was staged becomes `live`, in one step.
    ///
    /// # Errors
    /// [`GateError::Io`]; the gate is closed then.
    pub fn open(&self) -> Result<(), GateError> {
        renameat_with(CWD, &self.staging, CWD, &self.live, RenameFlags::EXCHANGE)
            .map_err(|error| io_error("open the gate", &self.live)(error.into()))?;
        self.clear_staging()
    }

    fn clear_staging(&self) -> Result<(), GateError> {
        let staging = &self.staging;
        let removed = match fs::symlink_metadata(staging) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(staging),
            Ok(_) => fs::remove_file(staging),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(io_error("remove", staging))
    }
}

/// Whether the gate of the volume at `root` is open; for the `ready` hook, which claims nothing.
#[must_use]
pub fn is_open(root: &Path) -> bool {
    let live = root.join(LIVE);
    fs::symlink_metadata(&live).is_ok_and(|found| found.is_dir()) && AtomicVolume::is_complete(&live)
}

fn adopt_link(live: &Path, found: &Metadata) -> Result<GateState, GateError> {
    let target = fs::read_link(live).map_err(io_error("read", live))?;
    if target == Path::new(CLOSED) && found.uid() == our_uid() {
        return Ok(GateState::Closed);
    }
    Err(GateError::Foreign {
        path: live.to_owned(),
        found: format!(
            "a link of uid {} to {}, where ours (uid {}) would be",
            found.uid(),
            target.display(),
            our_uid()
        ),
    })
}

fn adopt_directory(live: &Path, found: &Metadata) -> Result<GateState, GateError> {
    let problem = if !found.is_dir() {
        "not a directory".to_owned()
    } else if found.uid() != our_uid() {
        format!("a directory of uid {}, not of the agent's uid {}", found.uid(), our_uid())
    } else if !AtomicVolume::is_complete(live) {
        "a directory without a complete generation".to_owned()
    } else {
        return Ok(GateState::Open);
    };
    Err(GateError::Foreign { path: live.to_owned(), found: problem })
}

fn our_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> GateError + 'a {
    move |source| GateError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
