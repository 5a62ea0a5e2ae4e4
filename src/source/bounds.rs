//! What answers may take of the process's memory: those that are kept, and those on their way.

use std::sync::Arc;

use super::Source;
use super::request_state::AnswerMemory;
use crate::provider::{ArrivalRoom, Arrivals};

// === impl Source ===

impl Source {
    /// The same, whose answers take at most so many bytes of memory, and those on their way what `arriving` has left: what
    /// does not fit is a failure that says so.
    #[must_use]
    pub fn bounded(mut self, bytes: u64, arriving: &Arc<dyn ArrivalRoom>) -> Self {
        for worker in self.workers.values_mut() {
            worker.arrivals = Arrivals::of(Arc::clone(arriving));
        }
        Self { most_memory: bytes, ..self }
    }

    /// Bytes of memory that answers take now, if they are bounded.
    pub(super) fn memory(&self) -> AnswerMemory {
        let most = self.most_memory;
        let states = || self.workers.values().flat_map(|worker| worker.states.values());
        let taken = match most {
            u64::MAX => 0,
            _ => states().filter_map(|state| state.cached.as_ref()).map(|cached| cached.tree.memory()).sum(),
        };
        AnswerMemory { most, taken }
    }
}
