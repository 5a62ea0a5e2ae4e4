//! The answer to a review.

use std::sync::Arc;

/// Decides on one `AdmissionReview`. Pure and short, so it runs where the request is: a hand-over to another thread
/// would cost more.
pub type Reviewer = Arc<dyn Fn(&[u8]) -> Answer + Send + Sync>;

/// What [`Reviewer`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// An `AdmissionReview` with a response, in JSON.
    pub body: Vec<u8>,
    /// For the metrics.
    pub outcome: Outcome,
    /// Of a denial, what stands in the way, in a word of [`ADMISSION_DENIALS`](crate::metrics::catalogue::ADMISSION_DENIALS).
    pub reason: Option<&'static str>,
    /// A namespace whose labels a rule asks for and nobody knows yet: worth another review once they are.
    pub unknown_namespace: Option<String>,
}

/// What became of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Patched.
    Injected,
    /// Left as it was: it does not ask, or has all it needs.
    Unchanged,
    /// Refused, with a sentence.
    Denied,
    /// The request was not one that an API server sends.
    Error,
}

// === impl Outcome ===

impl Outcome {
    /// A word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Unchanged => "unchanged",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}
