//! A generation: one complete and consistent set of answers, and its name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::reference::{Request, Version};
use crate::secret::SecretTree;

/// Name of a generation: a digest of (canonical request, version) pairs, never of values, which could be guessed from
/// it. The same versions have the same id on every replica. A `-N` at its end is a counter: some request has neither
/// version nor lease that would name its state, so only this pod knows what the id means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenerationId(pub String);

/// Id of an access: by chance for each process, and counted in it. What was read and what was delivered of it share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Access(pub String);

/// A complete and consistent set of answers.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Its name.
    pub id: GenerationId,
    /// The answer to each request of the plan; absent are those that only optional items wanted and no store has.
    pub answers: BTreeMap<Request, Arc<SecretTree>>,
    /// The versions it is made of, for the way back (`pin`); absent for stores without versions.
    pub versions: BTreeMap<Request, Version>,
    /// The accesses that brought the answers; absent for what an earlier process read, and where none are told.
    pub accesses: BTreeMap<Request, Access>,
}

// === impl GenerationId ===

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
