//! What a source says of itself, without asking anybody: which stores fail or are silent, and what is due when.

use std::time::Duration;

use tokio::time::Instant;

use super::Source;
use super::history::Origin;
use super::request_state::RequestState;
use super::worker::Worker;
use crate::generation::GenerationId;
use crate::reference::Request;

// === impl Source ===

impl Source {
    /// Providers whose last answer to some request, or to a login, was an error.
    pub fn failing(&self) -> impl Iterator<Item = &str> {
        self.workers.values().filter(|worker| worker.is_failing()).map(|worker| worker.name.as_str())
    }

    /// What the last answer of a failing provider was, in a word.
    #[must_use]
    pub fn failure(&self, provider: &str) -> Option<&'static str> {
        self.workers.get(provider)?.failure()
    }

    /// Whether all that is polled was asked for at `at` or later, and answered. Leases are made, not polled.
    #[must_use]
    pub fn is_read_since(&self, at: Instant) -> bool {
        let is_read = |state: &RequestState| state.is_minted() || state.asked.is_some_and(|asked| asked >= at);
        // An event that nobody took yet may be what it came to.
        self.events.is_empty() && self.workers.values().flat_map(|worker| worker.states.values()).all(is_read)
    }

    /// When a store is asked for something next; `None` while all of them have yet to answer.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.workers.values().filter_map(Worker::next_due).min()
    }

    /// When the first lease ends, or the first answer that has an end, if nothing renews it.
    #[must_use]
    pub fn lease_end(&self) -> Option<Instant> {
        self.workers.values().filter_map(Worker::lease_end).min()
    }

    /// What a generation was made of, if it is one of the last.
    #[must_use]
    pub fn origins(&self, id: &GenerationId) -> Option<&[(Request, Origin)]> {
        self.ledger.origins(id)
    }

    /// Providers whose store has yet to answer, and for how long, after a second.
    pub fn silent(&self) -> impl Iterator<Item = (&str, Duration)> {
        let since =
            |worker: &Worker| worker.silent_for(Instant::now()).filter(|since| *since >= Duration::from_secs(1));
        self.workers.values().filter_map(move |worker| Some((worker.name.as_str(), since(worker)?)))
    }
}
