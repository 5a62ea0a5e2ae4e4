//! Stores that are asked again, as a source thinks fit, for as long as a command runs.

use std::collections::BTreeSet;

use super::arguments::VariableArgs;
use super::error::LocalError;
use super::files::Contents;
use super::output::note;
use super::wanted::{Fetched, WantedSecrets};
use crate::generation::GenerationId;
use crate::source::{Event, Source, SourceFailure};

/// What is wanted, and a source that asks for it.
#[derive(Debug)]
pub(super) struct FollowedStores {
    wanted: WantedSecrets,
    source: Source,
    /// What was fetched last.
    last: Fetched,
    /// Whether a person was told that a store fails.
    is_told: bool,
}

// === impl FollowedStores ===

impl FollowedStores {
    pub(super) fn new(wanted: WantedSecrets, source: Source, last: Fetched) -> Self {
        Self { wanted, source, last, is_told: false }
    }

    /// Waits for another generation. What fails is told once, and tried again by itself. Cancel safe.
    pub(super) async fn changed(&mut self) -> &Fetched {
        loop {
            match self.source.next().await {
                Event::Changed(generation) => {
                    self.last.generation = generation;
                    self.tell_recovery();
                    return &self.last;
                }
                Event::Failed(failures) => self.tell(&failures),
                Event::Unchanged => self.tell_recovery(),
                Event::Silent => {}
            }
        }
    }

    /// What was fetched last.
    pub(super) fn last(&self) -> &Fetched {
        &self.last
    }

    /// The same, as a command has it; `before`: the paths of what it had.
    ///
    /// # Errors
    /// As [`WantedSecrets::contents`].
    pub(super) fn contents(&self, args: &VariableArgs, before: &BTreeSet<String>) -> Result<Contents, LocalError> {
        self.wanted.contents(&self.last, args, before)
    }

    /// A command has this generation: what it replaced may be revoked.
    pub(super) fn delivered(&mut self, id: &GenerationId) {
        self.source.delivered(id);
    }

    fn tell(&mut self, failures: &[SourceFailure]) {
        if let (Some(first), false) = (failures.first(), self.is_told) {
            self.is_told = true;
            let problem = LocalError::of_store(&first.provider, &first.error).problem;
            note(&format!("{problem}; what was fetched before stays, and it is tried again"));
        }
    }

    fn tell_recovery(&mut self) {
        if self.is_told && self.source.failing().next().is_none() {
            self.is_told = false;
            note("all stores answer again");
        }
    }
}
