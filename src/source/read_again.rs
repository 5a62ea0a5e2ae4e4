//! An earlier generation, read by its versions for a pin: by workers that have nothing more urgent to ask, while
//! everything else goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Source;
use super::earlier::{EarlierGeneration, VersionAnswer, VersionsRead, VersionsWanted};
use super::history::PinError;
use super::request_state::AnswerMemory;
use super::told::ToldAccesses;
use super::worker::{ApplyContext, Worker};
use crate::generation::{Generation, GenerationId};
use crate::provider::{ErrorKind, ProviderError, ReadResult, Reading, Version};
use crate::reference::Request;

// === impl Source ===

impl Source {
    /// The answers of an earlier generation, read by their versions; `None` while stores are asked for them, which
    /// [`Source::next`] does: after one of its events, this has the answer for all who ask before its next call. Does not
    /// change what [`Source::next`] holds.
    ///
    /// # Errors
    /// [`PinError`] if the id is not known (any more), a store has no versions, a lease is involved, or a read fails.
    pub fn read_again(&mut self, id: &GenerationId) -> Result<Option<Generation>, PinError> {
        if let Some(earlier) = self.earlier.0.get(id) {
            return earlier.outcome();
        }
        let mut generation = Generation {
            id: id.clone(),
            answers: BTreeMap::new(),
            versions: BTreeMap::new(),
            accesses: BTreeMap::new(),
        };
        let mut missing: BTreeMap<String, Vec<(Request, Version)>> = BTreeMap::new();
        for (request, version) in self.ledger.versions(id)? {
            let Some(version) = version else { continue };
            // What the present plan's providers do not answer for would be missing in silence.
            let Some(worker) = self.workers.get(&request.provider) else { return Err(PinError::Unversioned(request)) };
            match worker.states.get(&request).and_then(|state| state.cached.as_ref()) {
                Some(cached) if cached.version.as_ref() == Some(&version) => {
                    generation.accesses.extend(cached.access.clone().map(|access| (request.clone(), access)));
                    generation.answers.insert(request.clone(), Arc::clone(&cached.tree));
                }
                _ => {
                    worker
                        .patience()
                        .map_or(Ok(()), |error| Err(PinError::Read { request: request.clone(), error }))?;
                    missing.entry(request.provider.clone()).or_default().push((request.clone(), version.clone()));
                }
            }
            generation.versions.insert(request, version);
        }
        if missing.is_empty() {
            return Ok(Some(generation));
        }
        let earlier = EarlierGeneration { generation, missing: missing.len(), failed: None };
        self.earlier.0.insert(id.clone(), earlier);
        for (provider, versions) in missing {
            if let Some(worker) = self.workers.get_mut(&provider) {
                worker.earlier.push_back(VersionsWanted { id: id.clone(), versions, since: Instant::now() });
            }
        }
        Ok(None)
    }
}

// === impl VersionsWanted ===

impl VersionsWanted {
    /// Takes its answers in, and tells of them.
    pub(super) fn answered(
        self,
        results: Vec<ReadResult>,
        worker: &Worker,
        failed_login: Option<&ProviderError>,
        context: &ApplyContext<'_>,
    ) -> VersionsRead {
        let Self { id, versions, .. } = self;
        let results = results.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let told = ToldAccesses { audit: context.audit, provider: &worker.name, role: None };
        // For a moment they stand beside the present ones.
        let mut memory = AnswerMemory { taken: 0, ..context.memory };
        let mut failed = None;
        let mut answers = Vec::with_capacity(versions.len());
        for ((request, version), result) in versions.into_iter().zip(results) {
            let error = match result {
                // A store that cannot go back may answer with what it has now.
                Some(Ok(Reading::Fresh(answer))) if answer.version.as_ref() == Some(&version) => {
                    let tree = match worker.states.get(&request) {
                        Some(state) => state.only(answer.tree),
                        None => answer.tree,
                    };
                    match memory.replace(None, &tree) {
                        Ok(()) => {
                            let access = told.read(&request, Some(&version), true);
                            answers.push(VersionAnswer { request, tree: Arc::new(tree), access });
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Some(Ok(Reading::Fresh(_))) => {
                    ProviderError::new(ErrorKind::NotFound, format!("the store no longer has version {version} of it"))
                }
                Some(Err(error)) => error,
                _ => ProviderError::new(ErrorKind::Unavailable, format!("version {version} was not answered")),
            };
            told.failed(&request, &error, failed_login);
            failed.get_or_insert(PinError::Read { request, error });
        }
        VersionsRead { id, answers: failed.map_or(Ok(answers), Err) }
    }
}

// === impl Worker ===

impl Worker {
    /// What stands for answers while the store asks for patience.
    fn patience(&self) -> Option<ProviderError> {
        let now = Instant::now();
        let wish = self.not_before.filter(|wish| *wish > now)? - now;
        let problem = format!("the store asked for patience, for another {} s", wish.as_secs() + 1);
        Some(ProviderError::new(ErrorKind::Throttled { retry_after: Some(wish) }, problem))
    }
}
