//! Failures, and when the operation is tried again.

use std::time::Duration;

use crate::provider::ProviderError;
use crate::reference::Request;

/// One thing that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFailure {
    /// The provider's name.
    pub provider: String,
    /// The request; `None` if the login failed to be extended.
    pub request: Option<Request>,
    /// Why. Until the first generation, [`crate::provider::ErrorKind::is_permanent`] means that waiting is of no use.
    pub error: ProviderError,
    /// When it is tried again.
    pub retry_in: Option<Duration>,
}
