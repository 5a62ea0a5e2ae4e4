//! A volume of its own for each pod: mounted when the first generation is in hand, and not before.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::mounts::Mounts;
#[cfg(test)]
use super::tests::steps::step_in;
use crate::deliver::delivery::{Volume, WriteOutcome};
use crate::deliver::volume::{AtomicVolume, VolumeError};
use crate::deliver::{Owner, RenderedFile};
use crate::generation::GenerationId;

/// Least time between two swaps, and the time for which readers of a replaced generation are left in peace.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// A tmpfs at kubelet's target path, with the files in its root: no gate is needed, since kubelet starts no container
/// before the call returns.
#[derive(Debug)]
pub(super) struct MountedVolume {
    target: PathBuf,
    /// Most bytes of the file system.
    bytes: u64,
    owner: Owner,
    mounts: Arc<dyn Mounts>,
    /// `None` until there is something to show.
    volume: Option<AtomicVolume>,
}

/// Why writing failed. What was there still is.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountedVolumeError {
    #[error("cannot mount the volume at kubelet's path: {0}")]
    Mount(io::Error),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

// === impl MountedVolume ===

impl MountedVolume {
    /// One that has yet to be mounted.
    pub(super) fn new(target: PathBuf, bytes: u64, owner: Owner, mounts: Arc<dyn Mounts>) -> Self {
        Self { target, bytes, owner, mounts, volume: None }
    }

    /// Takes over one that is mounted and holds a complete generation; `None` if there is no such thing.
    pub(super) fn adopt(target: PathBuf, bytes: u64, owner: Owner, mounts: Arc<dyn Mounts>) -> Option<Self> {
        if !Self::is_there(&target, &*mounts) {
            return None;
        }
        let volume = AtomicVolume::open(&target, GRACE).ok()?.owned_by(owner);
        Some(Self { volume: Some(volume), ..Self::new(target, bytes, owner, mounts) })
    }

    /// Whether there is nothing to show yet.
    pub(super) fn is_empty(&self) -> bool {
        self.volume.is_none()
    }

    /// Whether the mount table has a file system of ours at `target`, and that holds a complete generation.
    pub(super) fn is_there(target: &Path, mounts: &dyn Mounts) -> bool {
        mounts.is_ours(target).unwrap_or_default() && AtomicVolume::is_complete(target)
    }

    async fn mount(&mut self, id: &GenerationId, files: &[RenderedFile]) -> Result<AtomicVolume, MountedVolumeError> {
        self.unmount()?;
        self.mounts.mount(&self.target, self.bytes).map_err(MountedVolumeError::Mount)?;
        let mut volume = AtomicVolume::open(&self.target, GRACE)?.owned_by(self.owner);
        volume.write(id, files).await?;
        Ok(volume)
    }

    /// Takes away what is mounted: nothing of a first generation that came to nothing is left.
    fn unmount(&self) -> Result<(), MountedVolumeError> {
        self.mounts.unmount(&self.target).map_err(MountedVolumeError::Mount)
    }
}

impl Volume for MountedVolume {
    type Error = MountedVolumeError;

    /// Nobody else makes room.
    fn is_permanent(error: &MountedVolumeError) -> bool {
        match error {
            MountedVolumeError::Mount(_) => false,
            MountedVolumeError::Volume(error) => AtomicVolume::is_permanent(error),
        }
    }

    fn present(&self) -> Option<&AtomicVolume> {
        self.volume.as_ref()
    }

    fn present_mut(&mut self) -> Option<&mut AtomicVolume> {
        self.volume.as_mut()
    }

    async fn write(&mut self, id: &GenerationId, files: &[RenderedFile]) -> Result<WriteOutcome, MountedVolumeError> {
        #[cfg(test)]
        step_in(&self.target);
        if let Some(volume) = &mut self.volume {
            return Ok(Volume::write(volume, id, files).await?);
        }
        match self.mount(id, files).await {
            Ok(volume) => {
                self.volume = Some(volume);
                Ok(WriteOutcome::Opened)
            }
            Err(error) => {
                if let Err(left) = self.unmount() {
                    tracing::warn!(%left, "a volume without files stays mounted: the next try takes it away");
                }
                Err(error)
            }
        }
    }

    async fn roll_back(&mut self, id: &GenerationId) -> Result<bool, MountedVolumeError> {
        match &mut self.volume {
            Some(volume) => Ok(volume.roll_back(id).await?),
            None => Ok(false),
        }
    }
}
