//! What came of a call, for stores that read several things with one login.

use std::fmt;

use super::client::SendError;
use super::response::Response;
use crate::provider::{ErrorKind, ProviderError};
use crate::sentence::Sentence;

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
    /// Nothing by itself; twice in a row, that the store is down: nobody waits for twenty time-outs.
    Silence,
    /// This identity may not do this. A new login may know of rights given since.
    Right,
    /// The token is worth nothing; a new one may be.
    Login,
    /// Every other call would fail likewise.
    Store,
}

// === impl Failure ===

impl Failure {
    /// One that says nothing about other calls.
    pub fn new(kind: ErrorKind, message: impl Into<Sentence>) -> Self {
        ProviderError::new(kind, message).into()
    }

    /// There is no such secret or version.
    pub fn not_found(message: impl Into<Sentence>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The identity may not do this.
    pub fn denied(message: impl Into<Sentence>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }

    /// The request makes no sense to this store.
    pub fn invalid(message: impl Into<Sentence>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The store cannot answer now.
    pub fn unavailable(message: impl Into<Sentence>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// The store asks for patience, for so long as the answer says.
    pub fn throttled(response: &Response, message: impl Into<Sentence>) -> Self {
        Self::new(ErrorKind::Throttled { retry_after: response.retry_after }, message)
    }

    /// An answer that is not in `whose` language, such as `Vault's`.
    pub fn garbage(address: impl fmt::Display, what: &str, whose: &str) -> Self {
        Self::unavailable(format!("{address} answers {what} with something that is not {whose} JSON"))
    }

    /// The same with another scope.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }
}

impl From<SendError> for Failure {
    fn from(failed: SendError) -> Self {
        let scope = match failed.error.kind {
            ErrorKind::Unavailable if failed.is_connected => Scope::Silence,
            ErrorKind::Unavailable => Scope::Store,
            _ => Scope::Call,
        };
        Self { scope, error: failed.error }
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        Self { scope: Scope::Call, error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}
