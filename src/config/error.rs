//! What is wrong with the operator's configuration, and where.

use crate::parse_error::ParseError;
use crate::sentence::one_line;

/// A configuration that cannot be used: where, and what would be. Says no scalar of the file, which may be another than
/// was meant: a token, say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration{place}: {problem}")]
pub struct ConfigError {
    pub(super) place: String,
    pub(super) problem: String,
}

// === impl ConfigError ===

impl ConfigError {
    /// The field, as `.providers.vault.address`; empty for the file itself.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong with it, in one sentence.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    pub(super) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: one_line(&place.into()), problem: one_line(&problem.into()) }
    }

    /// What is wrong with a field, told by what reads its value.
    pub(super) fn at(place: &str) -> impl FnOnce(ParseError) -> Self {
        move |problem| Self::new(place, problem)
    }

    /// The same in fields that stand below `place`.
    pub(super) fn below(mut self, place: &str) -> Self {
        self.place.insert_str(0, &one_line(place));
        self
    }
}
