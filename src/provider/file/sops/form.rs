//! What is SOPS' about a document, and what can be wrong with it.

use crate::provider::ErrorKind;
use crate::secret::DocumentError;
use crate::sentence::{Sentence, store_name};

/// What is wrong with a document. Never what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(super) kind: ErrorKind,
    pub(super) text: Sentence,
}

/// Where a document keeps its metadata …
pub(super) const METADATA: &str = "sops";
/// … and a dotenv file.
pub(super) const METADATA_PREFIX: &str = "sops_";
/// What every encrypted value begins with.
pub(super) const ENCRYPTED: &str = "ENC[AES256_GCM,";

// === impl Problem ===

impl Problem {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, text: problem.into().into() }
    }

    /// It may be half of a write, and is put right by the next one.
    pub(super) fn unreadable(problem: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, text: problem.into().into() }
    }

    /// Says where in the document.
    pub(super) fn at(self, path: &str) -> Self {
        let Self { kind, text } = self;
        let place = store_name(path.trim_end_matches(':'));
        let text = Sentence::hiding(format!("the value at {place} {}", &*text), format!("a value {}", text.public()));
        Self { kind, text }
    }
}

impl From<DocumentError> for Problem {
    fn from(error: DocumentError) -> Self {
        let problem = error.to_string();
        if error.is_malformed() { Self::unreadable(problem) } else { Self::new(problem) }
    }
}
