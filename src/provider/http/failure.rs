//! What came of a call, for stores that read several things with one login.

use super::SendError;
use crate::provider::{ErrorKind, ProviderError};

/// A failed call, and what else it says about.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What it says about other calls.
    pub scope: Scope,
    /// What to tell.
    pub error: ProviderError,
}

/// What a failure says about other calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nothing.
    Call,
    /// A new login, or other credentials, might help.
    Session,
    /// Every other call would fail likewise.
    Store,
}

// === impl Failure ===

impl Failure {
    /// One that says nothing about other calls.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::of(Scope::Call, kind, message)
    }

    /// One of that scope.
    pub fn of(scope: Scope, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { scope, error: ProviderError::new(kind, message) }
    }
}

impl From<SendError> for Failure {
    fn from(failed: SendError) -> Self {
        Self { scope: if failed.is_connected { Scope::Call } else { Scope::Store }, error: failed.error }
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        Self { scope: Scope::Call, error }
    }
}
