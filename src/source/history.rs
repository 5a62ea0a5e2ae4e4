//! Names of generations, and the way back to them.

use serde::{Deserialize, Serialize};

use super::GenerationId;
use crate::provider::{ProviderError, Version};
use crate::reference::Request;

/// A generation that was, without its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastGeneration {
    /// Its name.
    pub id: GenerationId,
    /// What it was made of.
    pub origins: Vec<(Request, Origin)>,
}

/// What names the state of one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The store's version.
    Version(Version),
    /// A credential that was made for this pod.
    Lease,
    /// Nothing: the store has no versions.
    Unversioned,
    /// There was no such secret, and only optional items wanted it.
    Absent,
}

/// Why a generation cannot be read again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// It is none of the last ones.
    #[error("generation {0} is none of the last {limit} that this pod had", limit = super::history::LIMIT)]
    Unknown(GenerationId),
    /// A credential that was made for it is gone.
    #[error(
        "{0} is a lease, which a store does not hand out twice: a generation with it can be held, not pinned later"
    )]
    Leased(Request),
    /// The store keeps no earlier versions.
    #[error("{0} has no versions at its store, so that what it was cannot be read again")]
    Unversioned(Request),
    /// The store failed.
    #[error("{request}: {error}")]
    Read {
        /// What was asked.
        request: Request,
        /// Why it failed.
        error: ProviderError,
    },
}

/// How many generations are remembered.
pub(super) const LIMIT: usize = 16;
