//! Why an agent ends, as its log, its termination message and its exit code say it.

use std::io;
use std::path::PathBuf;

use super::gate::GateError;
use crate::annotations::DENY;
use crate::contract::PREFIX;
use crate::deliver::render::RenderError;
use crate::deliver::volume::VolumeError;
use crate::plan::PlanReadError;
use crate::sentence::Sentence;
use crate::source::{SetupError, SourceFailure, refusals};

/// Why the agent ends without having done its work. None of these passes by waiting. Shown as logs have it; what goes
/// into the container's termination message, and with it into etcd, is [`AgentError::public`]. Our own words only.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is no plan, or none that this agent understands.
    #[error("{0}")]
    Plan(#[from] PlanReadError),
    /// Stores refuse what the plan asks for.
    #[error("{}", refusals(.0, |error| &error.message))]
    Refused(Vec<SourceFailure>),
    /// The operator's rules refuse what the plan asks for, as the pod's annotation says, and there are no files.
    #[error("the operator denies what this pod asks for: {0} (annotation {PREFIX}{DENY})")]
    Denied(String),
    /// A provider cannot be set up.
    #[error("{0}")]
    Provider(#[from] SetupError),
    /// The stores' answers do not make the files that were asked for.
    #[error("the files cannot be made: {0}")]
    Render(#[from] RenderError),
    /// The volume is not as it has to be.
    #[error("{0}")]
    Gate(#[from] GateError),
    /// The files do not fit into the volume that was made for them.
    #[error("{0}")]
    Volume(VolumeError),
    /// A signal came before an init container was done; and what stood in its way, if anything did.
    #[error("{}", &**.0)]
    Interrupted(Sentence),
    /// The program that applications are to be started through cannot be given to them.
    #[error("cannot copy {} to {}: {source}", .program.display(), .bin.display())]
    Program {
        /// What.
        program: PathBuf,
        /// Where to.
        bin: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Signals cannot be listened for, or there is no runtime.
    #[error("the process cannot be set up: {0}")]
    Process(#[from] io::Error),
}

// === impl AgentError ===

impl AgentError {
    /// For readers of the pod's status: without names that only a store knows.
    #[must_use]
    pub fn public(&self) -> String {
        match self {
            Self::Refused(failures) => refusals(failures, |error| error.message.public()),
            Self::Provider(error) => error.public(),
            Self::Render(error) => format!("the files cannot be made: {}", error.public()),
            Self::Interrupted(sentence) => sentence.public().to_owned(),
            Self::Denied(_)
            | Self::Plan(_)
            | Self::Gate(_)
            | Self::Volume(_)
            | Self::Program { .. }
            | Self::Process(_) => self.to_string(),
        }
    }

    /// The process's exit code, as `--help` documents it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Denied(_) | Self::Provider(_) | Self::Render(_) => 1,
            Self::Plan(_) => 2,
            Self::Gate(_) | Self::Volume(_) | Self::Program { .. } => 3,
            Self::Process(_) => 4,
            // As a shell says it of SIGTERM: kubelet must not take the init container for done.
            Self::Interrupted(_) => 143,
        }
    }
}
