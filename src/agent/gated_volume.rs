//! The volume behind its gate: the first generation opens it, later ones are swapped inside.

use std::path::Path;
use std::time::Duration;

use super::error::AgentError;
use super::gate::{Gate, GateError, GateState};
use super::usage::Usage;
use crate::deliver::RenderedFile;
use crate::deliver::delivery::{DeliverError, Volume, WriteOutcome};
use crate::deliver::volume::{AtomicVolume, VolumeError};
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

/// Why writing failed. What was there still is.
#[derive(Debug, thiserror::Error)]
pub(super) enum GatedVolumeError {
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

// === impl GatedVolumeError ===

impl From<DeliverError<GatedVolumeError>> for AgentError {
    fn from(error: DeliverError<GatedVolumeError>) -> Self {
        match error {
            DeliverError::Render(error) => error.into(),
            DeliverError::Volume(GatedVolumeError::Gate(error)) => error.into(),
            DeliverError::Volume(GatedVolumeError::Volume(error)) => Self::Volume(error),
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
}

impl Volume for GatedVolume {
    type Error = GatedVolumeError;

    /// Nobody else makes room, or repairs a gate.
    fn is_permanent(error: &GatedVolumeError) -> bool {
        match error {
            GatedVolumeError::Gate(_) => true,
            GatedVolumeError::Volume(error) => AtomicVolume::is_permanent(error),
        }
    }

    fn present(&self) -> Option<&AtomicVolume> {
        self.volume.as_ref()
    }

    fn present_mut(&mut self) -> Option<&mut AtomicVolume> {
        self.volume.as_mut()
    }

    async fn write(&mut self, id: &GenerationId, files: &[RenderedFile]) -> Result<WriteOutcome, GatedVolumeError> {
        if let Some(volume) = &mut self.volume {
            let outcome = Volume::write(volume, id, files).await?;
            self.offer();
            return Ok(outcome);
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

    async fn roll_back(&mut self, id: &GenerationId) -> Result<bool, GatedVolumeError> {
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
