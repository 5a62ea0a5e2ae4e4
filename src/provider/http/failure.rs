//! What came of a call, for stores that read several things with one login.

use std::fmt;

use super::SendError;
use crate::provider::{ErrorKind, ProviderError};
use crate::sentence::Sentence;

/// A failed call, and what else it says about: how far that can go depends on how a store is logged in to. The default
/// scope is the call alone.
#[derive(Debug, Clone)]
pub struct Failure<S = Scope> {
    /// What it says about other calls.
    pub scope: S,
    /// What to tell.
    pub error: ProviderError,
}

/// What a failure says about other calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Nothing.
    #[default]
    Call,
    /// A new login, or other credentials, might help.
    Session,
    /// Every other call would fail likewise.
    Store,
}

// === impl Failure ===

impl<S: Default> Failure<S> {
    /// One that says nothing about other calls.
    pub fn new(kind: ErrorKind, message: impl Into<Sentence>) -> Self {
        ProviderError::new(kind, message).into()
    }

    /// The same with another scope.
    #[must_use]
    pub fn with(self, scope: S) -> Self {
        Self { scope, ..self }
    }
}

impl From<SendError> for Failure {
    fn from(failed: SendError) -> Self {
        Self { scope: if failed.is_connected { Scope::Call } else { Scope::Store }, error: failed.error }
    }
}

impl<S: Default> From<ProviderError> for Failure<S> {
    fn from(error: ProviderError) -> Self {
        Self { scope: S::default(), error }
    }
}

impl<S> fmt::Display for Failure<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}
