//! Earlier generations, as far as they were read again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::history::PinError;
use crate::generation::{Access, Generation, GenerationId};
use crate::provider::Version;
use crate::reference::{Request, VERSION_PARAM};
use crate::secret::SecretTree;

/// Generations that are read again; what came of it stays until [`Source::next`] is called again.
#[derive(Default)]
pub(super) struct EarlierGenerations(pub(super) BTreeMap<GenerationId, EarlierGeneration>);

/// A generation, as far as it was read.
pub(super) struct EarlierGeneration {
    pub(super) generation: Generation,
    /// How many providers have yet to answer.
    pub(super) missing: usize,
    pub(super) failed: Option<PinError>,
}

/// What one provider is asked for.
pub(super) struct VersionsWanted {
    pub(super) id: GenerationId,
    pub(super) versions: Vec<(Request, Version)>,
    pub(super) since: Instant,
}

/// What it has answered.
pub(super) struct VersionsRead {
    pub(super) id: GenerationId,
    pub(super) answers: Result<Vec<VersionAnswer>, PinError>,
}

/// An answer in the version that was asked for.
pub(super) struct VersionAnswer {
    pub(super) request: Request,
    pub(super) tree: Arc<SecretTree>,
    pub(super) access: Option<Access>,
}

// === impl EarlierGenerations ===

impl EarlierGenerations {
    /// Those who asked had their answer.
    pub(super) fn forget_answered(&mut self) {
        self.0.retain(|_, earlier| earlier.missing > 0);
    }

    pub(super) fn take_in(&mut self, VersionsRead { id, answers }: VersionsRead) {
        let Some(EarlierGeneration { generation, missing, failed }) = self.0.get_mut(&id) else { return };
        *missing = missing.saturating_sub(1);
        match answers {
            Ok(answers) => {
                for VersionAnswer { request, tree, access } in answers {
                    generation.accesses.extend(access.map(|access| (request.clone(), access)));
                    generation.answers.insert(request, tree);
                }
            }
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
}

// === impl EarlierGeneration ===

impl EarlierGeneration {
    pub(super) fn outcome(&self) -> Result<Option<Generation>, PinError> {
        match &self.failed {
            _ if self.missing > 0 => Ok(None),
            Some(error) => Err(error.clone()),
            None => Ok(Some(self.generation.clone())),
        }
    }
}

// === impl VersionsWanted ===

impl VersionsWanted {
    /// What to ask the provider for.
    pub(super) fn requests(&self) -> Vec<Request> {
        let pinned = self.versions.iter().map(|(request, version)| {
            let mut pinned = request.clone();
            pinned.params.insert(VERSION_PARAM.to_owned(), version.0.clone());
            pinned
        });
        pinned.collect()
    }
}
