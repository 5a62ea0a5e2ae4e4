//! Where the files of a delivery go.

use std::error::Error;
use std::future::Future;
use std::time::SystemTime;

use tracing::warn;

use crate::bundle::VolumePath;
use crate::deliver::RenderedFile;
use crate::deliver::volume::{AtomicVolume, VolumeError, Written};
use crate::generation::GenerationId;

/// Where the files of a delivery go.
pub trait Volume: Send {
    /// Why writing failed. What was there still is.
    type Error: Error + Send;

    /// Whether the first files would not fare better later.
    fn is_permanent(error: &Self::Error) -> bool;

    /// What readers see; `None` before the first generation.
    fn present(&self) -> Option<&AtomicVolume>;

    /// The same, to be changed.
    fn present_mut(&mut self) -> Option<&mut AtomicVolume>;

    /// The generation that readers see; `None` before the first.
    fn current(&self) -> Option<GenerationId> {
        self.present()?.current()
    }

    /// When it was put there.
    fn since(&self) -> Option<SystemTime> {
        self.present()?.since()
    }

    /// Whether it has this file.
    fn has(&self, path: &VolumePath) -> bool {
        self.present().is_some_and(|volume| volume.has(path))
    }

    /// Whether [`roll_back`](Self::roll_back) can go to this generation.
    fn holds(&self, id: &GenerationId) -> bool {
        self.present().is_some_and(|volume| volume.holds(id))
    }

    /// Puts a generation in place. Finishes what it began also while the process is being stopped.
    fn write(
        &mut self,
        id: &GenerationId,
        files: &[RenderedFile],
    ) -> impl Future<Output = Result<WriteOutcome, Self::Error>> + Send;

    /// Returns to a generation that is still there; `false` if it is not.
    fn roll_back(&mut self, id: &GenerationId) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Removes a replaced generation once no reader is left in it; pends for ever if there is none. Cancel safe.
    fn settle(&mut self) -> impl Future<Output = ()> + Send {
        async {
            if let Some(volume) = self.present_mut().filter(|volume| volume.is_settling()) {
                match volume.settle().await {
                    Ok(()) => return,
                    Err(error) => {
                        warn!(%error, "a replaced generation could not be removed: the next write tries again");
                    }
                }
            }
            std::future::pending::<()>().await;
        }
    }
}

/// What writing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The first generation is there: nobody reads yet.
    Opened,
    /// Readers see other bytes from now on.
    Swapped,
    /// The same bytes were there.
    Unchanged,
}

// === impl AtomicVolume ===

impl Volume for AtomicVolume {
    type Error = VolumeError;

    /// Nobody else makes room.
    fn is_permanent(error: &VolumeError) -> bool {
        matches!(error, VolumeError::NoSpace { .. })
    }

    fn present(&self) -> Option<&AtomicVolume> {
        Some(self)
    }

    fn present_mut(&mut self) -> Option<&mut AtomicVolume> {
        Some(self)
    }

    async fn write(&mut self, id: &GenerationId, files: &[RenderedFile]) -> Result<WriteOutcome, VolumeError> {
        let is_first = self.current().is_none();
        Ok(match self.write(id, files).await? {
            Written::Swapped if is_first => WriteOutcome::Opened,
            Written::Swapped => WriteOutcome::Swapped,
            Written::Unchanged => WriteOutcome::Unchanged,
        })
    }

    async fn roll_back(&mut self, id: &GenerationId) -> Result<bool, VolumeError> {
        self.roll_back(id).await
    }
}
