//! The way back to an earlier generation: its answers are read by their versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::Source;
use super::history::PinError;
use super::told::ToldAccesses;
use super::worker::Worker;
use crate::audit::AuditLog;
use crate::generation::{Access, Generation, GenerationId};
use crate::provider::{ErrorKind, ProviderError, Reading, Version};
use crate::reference::{Request, VERSION_PARAM};
use crate::secret::SecretTree;

/// An answer in the version that was asked for.
struct VersionAnswer {
    request: Request,
    tree: Arc<SecretTree>,
    access: Option<Access>,
}

// === impl Source ===

impl Source {
    /// The answers of an earlier generation, read by their versions. Does not change what [`Source::next`] holds.
    ///
    /// # Errors
    /// [`PinError`] if the id is not known (any more), a store has no versions, a lease is involved, or a read fails.
    pub async fn read_again(&mut self, id: &GenerationId) -> Result<Generation, PinError> {
        let mut generation = Generation {
            id: id.clone(),
            answers: BTreeMap::new(),
            versions: BTreeMap::new(),
            accesses: BTreeMap::new(),
        };
        let mut missing: BTreeMap<String, Vec<(Request, Version)>> = BTreeMap::new();
        for (request, version) in self.ledger.versions(id)? {
            let Some(version) = version else { continue };
            let state = self.workers.get(&request.provider).and_then(|worker| worker.states.get(&request));
            match state.and_then(|state| state.cached.as_ref()) {
                Some(cached) if cached.version.as_ref() == Some(&version) => {
                    generation.accesses.extend(cached.access.clone().map(|access| (request.clone(), access)));
                    generation.answers.insert(request.clone(), Arc::clone(&cached.tree));
                }
                _ => missing.entry(request.provider.clone()).or_default().push((request.clone(), version.clone())),
            }
            generation.versions.insert(request, version);
        }
        let audit = &self.audit;
        let reads = self.workers.values_mut().filter_map(|worker| {
            let wanted = missing.remove(&worker.name)?;
            Some(read_versions(worker, wanted, audit))
        });
        for answers in join_all(reads).await {
            for VersionAnswer { request, tree, access } in answers? {
                generation.accesses.extend(access.map(|access| (request.clone(), access)));
                generation.answers.insert(request, tree);
            }
        }
        // What the present plan's providers do not answer for would be missing in silence.
        match missing.into_values().flatten().next() {
            Some((request, _)) => Err(PinError::Unversioned(request)),
            None => Ok(generation),
        }
    }
}

async fn read_versions(
    worker: &mut Worker,
    wanted: Vec<(Request, Version)>,
    audit: &AuditLog,
) -> Result<Vec<VersionAnswer>, PinError> {
    let pinned = wanted.iter().map(|(request, version)| {
        let mut pinned = request.clone();
        pinned.params.insert(VERSION_PARAM.to_owned(), version.0.clone());
        pinned
    });
    let (results, failed_login) = worker.read_again(pinned.collect(), audit).await;
    let results = results.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    let told = ToldAccesses { audit, provider: &worker.name, role: None };
    let mut failed = None;
    let mut answers = Vec::with_capacity(wanted.len());
    for ((request, version), result) in wanted.into_iter().zip(results) {
        let error = match result {
            // A store that cannot go back may answer with what it has now.
            Some(Ok(Reading::Fresh(answer))) if answer.version.as_ref() == Some(&version) => {
                let access = told.read(&request, Some(&version), true);
                answers.push(VersionAnswer { request, tree: Arc::new(answer.tree), access });
                continue;
            }
            Some(Ok(Reading::Fresh(_))) => {
                ProviderError::new(ErrorKind::NotFound, format!("the store no longer has version {version} of it"))
            }
            Some(Err(error)) => error,
            _ => ProviderError::new(ErrorKind::Unavailable, format!("version {version} was not answered")),
        };
        told.failed(&request, &error, failed_login.as_ref());
        failed.get_or_insert(PinError::Read { request, error });
    }
    failed.map_or(Ok(answers), Err)
}
