//! The agent's settings at its start.

use std::path::PathBuf;
use std::time::Duration;

use crate::audit::Who;

/// Which part of a pod's life this process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentMode {
    /// Until the pod ends.
    Sidecar,
    /// Until the first generation is in place.
    Init,
}

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPaths {
    /// Root of the secrets volume; applications mount its `live`.
    pub volume: PathBuf,
    /// State volume, for the hand-over.
    pub state: PathBuf,
    /// Downward API volume with the pod's annotations.
    pub controls: PathBuf,
    /// One projected service account token per provider.
    pub tokens: PathBuf,
    /// One file of authorities per provider that follows one.
    pub authorities: PathBuf,
    /// Volume that applications find `hushpod-agent exec` in, if there is one.
    pub bin: PathBuf,
    /// What is copied there.
    pub program: PathBuf,
    /// Where kubelet looks for a reason.
    pub termination_log: PathBuf,
}

/// All that an agent is told.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// init or sidecar.
    pub mode: AgentMode,
    /// What to deliver, from where: a [`crate::plan::Plan`] in JSON.
    pub plan: Option<String>,
    /// The pod, as far as its environment tells; namespace and account are in the plan. Nothing but what is told of it
    /// depends on it.
    pub who: Who,
    /// Where things are.
    pub paths: AgentPaths,
    /// Least time between two swaps, and the time for which readers of a replaced generation are left in peace.
    pub grace: Duration,
}
