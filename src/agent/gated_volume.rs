//! The volume behind its gate: the first generation opens it, later ones are swapped inside.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tracing::warn;

use super::error::AgentError;
use super::gate::{Gate, GateError, GateState};
use super::usage::Usage;
use crate::bundle::VolumePath;
use crate::contract::DATA;
use crate::deliver::RenderedFile;
use crate::deliver::volume::{AtomicVolume, VolumeError, Written};
use crate::generation::GenerationId;

/// A volume that applications can mount once it holds a generation.
#[derive(Debug)]
pub(super) struct GatedVolume {
    gate: Gate,
    /// `None` while the gate is closed.
    volume: Option<AtomicVolume>,
    grace: Duration,
    /// Who runs with which generation, where somebody wants to know.
    running: Option<Usage>,
}

/// What writing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// The first generation is there, and the gate open: nobody reads yet.
    Opened,
    /// Readers see other bytes from now on.
    Swapped,
    /// The same bytes were there.
    Unchanged,
}

/// Why writing failed. What was there still is.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

// === impl DeliveryError ===

impl DeliveryError {
    /// Whether the first files would not fare better later: nobody else makes room, or repairs a gate.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Gate(_) | Self::Volume(VolumeError::NoSpace { .. }))
    }
}

impl From<DeliveryError> for AgentError {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::Gate(error) => error.into(),
            DeliveryError::Volume(error) => Self::Volume(error),
        }
    }
}

// === impl GatedVolume ===

impl GatedVolume {
    /// Closes the gate at `root`, or adopts what an earlier agent left behind it.
    pub(super) fn claim(root: &Path, grace: Duration) -> Result<Self, GateError> {
        let (gate, state) = Gate::claim(root)?;
        let volume = match state {
            GateState::Closed => None,
            GateState::Open => Some(AtomicVolume::open(gate.live(), grace).map_err(|error| GateError::Io {
                action: "adopt",
                path: gate.live().to_owned(),
                source: std::io::Error::other(error),
            })?),
        };
        Ok(Self { gate, volume, grace, running: None })
    }

    /// From now on it can be seen which generations processes run with.
    pub(super) fn watch_running(&mut self) -> Usage {
        let running = self.running.insert(Usage::new(self.gate.live())).clone();
        self.offer();
        running
    }

    fn offer(&self) {
        if let (Some(volume), Some(running)) = (&self.volume, &self.running) {
            running.offer(self.gate.live(), volume);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.volume.is_some()
    }

    pub(super) fn current(&self) -> Option<GenerationId> {
        self.volume.as_ref()?.current()
    }

    /// Whether the present generation has this file.
    pub(super) fn has(&self, path: &VolumePath) -> bool {
        let files = self.gate.live().join(DATA);
        self.is_open() && std::fs::symlink_metadata(files.join(path.as_str())).is_ok()
    }

    /// When the present generation was put in place.
    pub(super) fn since(&self) -> Option<SystemTime> {
        std::fs::symlink_metadata(self.gate.live().join(DATA)).ok()?.modified().ok()
    }

    /// Puts a generation in place. Finishes what it began also while the process is being stopped.
    pub(super) async fn write(
        &mut self,
        id: &GenerationId,
        files: &[RenderedFile],
    ) -> Result<WriteOutcome, DeliveryError> {
        if let Some(volume) = &mut self.volume {
            let written = volume.write(id, files).await?;
            self.offer();
            return Ok(match written {
                Written::Swapped => WriteOutcome::Swapped,
                Written::Unchanged => WriteOutcome::Unchanged,
            });
        }
        let staged = self.gate.stage()?;
        let mut volume = AtomicVolume::open(staged, self.grace)?;
        volume.write(id, files).await?;
        if let Some(running) = &self.running {
            running.offer(staged, &volume);
        }
        self.gate.open()?;
        self.volume = Some(volume);
        Ok(WriteOutcome::Opened)
    }

    /// Removes a replaced generation once no reader is left in it; pends for ever if there is none. Cancel safe.
    pub(super) async fn settle(&mut self) {
        if let Some(volume) = self.volume.as_mut().filter(|volume| volume.is_settling()) {
            match volume.settle().await {
                Ok(()) => return,
                Err(error) => warn!(%error, "a replaced generation could not be removed: the next write tries again"),
            }
        }
        std::future::pending::<()>().await;
    }

    /// Whether a generation other than the present one is still there.
    pub(super) fn holds(&self, id: &GenerationId) -> bool {
        self.volume.as_ref().is_some_and(|volume| volume.holds(id))
    }

    /// Returns to a generation that is still there; `false` if it is not.
    pub(super) async fn roll_back(&mut self, id: &GenerationId) -> Result<bool, DeliveryError> {
        match &mut self.volume {
            Some(volume) => {
                let is_back = volume.roll_back(id).await?;
                self.offer();
                Ok(is_back)
            }
            None => Ok(false),
        }
    }
}
