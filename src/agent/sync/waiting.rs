//! What the first files wait for, as the end of this process says it.

use super::SyncLoop;
use crate::agent::error::AgentError;
use crate::sentence::Sentence;

// === impl SyncLoop ===

impl SyncLoop {
    /// What the first files wait for; empty if nothing has failed, and nobody is waited for.
    fn in_the_way(&self) -> Sentence {
        let silent = self.source.silent();
        let silent = silent.map(|(provider, since)| format!("{provider}: no answer for {} s", since.as_secs()));
        let silent: Vec<_> = silent.collect();
        let all = |failing: String, unwritable: Option<&str>| {
            let known = [failing].into_iter().filter(|text| !text.is_empty()).chain(unwritable.map(str::to_owned));
            known.chain(silent.iter().cloned()).collect::<Vec<_>>().join("; ")
        };
        Sentence::hiding(
            all(self.obstacles.describe(|error| &error.message), self.delivery.unwritable()),
            all(
                self.obstacles.describe(|error| error.message.public()),
                self.delivery.unwritable().map(|_| "the files cannot be written"),
            ),
        )
    }

    pub(super) fn interrupted(&self) -> AgentError {
        let said = "stopped before the files were in place";
        let reason = self.in_the_way();
        AgentError::Interrupted(if reason.is_empty() { said.into() } else { reason.behind(&format!("{said}: ")) })
    }

    /// Leaves the reason for the end of this process, also if it is ended by force.
    pub(super) fn leave_word(&mut self) {
        let reason = self.in_the_way();
        let is_waiting = !self.delivery.is_open() && !reason.is_empty();
        let words =
            if is_waiting { format!("waiting for the first files: {}", reason.public()) } else { String::new() };
        self.last_words.are(words);
    }
}
