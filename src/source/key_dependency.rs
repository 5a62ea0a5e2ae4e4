//! Providers that cannot read without another provider's secret. That one is read and polled as any other, and is part
//! of no generation.

use crate::plan::PlannedReference;
use crate::provider::{ErrorKind, ProviderError};
use crate::reference::{Key, Request};
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::Sentence;

/// The secret that a provider waits for.
pub(super) struct KeyDependency {
    pub(super) request: Request,
    pub(super) part: Option<Key>,
    /// What the provider was given last; nothing is asked of it before.
    pub(super) given: Option<SecretValue>,
}

/// The key itself, out of a store's answer.
pub(super) fn part_of(tree: &SecretTree, part: Option<&Key>) -> Result<SecretValue, ProviderError> {
    let invalid = |problem: Sentence| ProviderError::new(ErrorKind::Invalid, problem.behind("as an identity: "));
    let found = match part {
        None => Ok(tree.clone()),
        Some(Key::Literal(key)) => tree.key(key),
        Some(Key::Pointer(tokens)) => tree.pointer(tokens),
    };
    let found = found.map_err(|error| invalid(error.sentence()))?;
    if let Some(why) = found.withheld() {
        return Err(invalid(why.into()));
    }
    let value = found.as_value().ok_or_else(|| invalid("is a document: name one of its keys behind '#'".into()))?;
    Ok(value.clone())
}

// === impl KeyDependency ===

impl KeyDependency {
    pub(super) fn new(take: &PlannedReference) -> Self {
        Self { request: take.request.clone(), part: take.key.clone(), given: None }
    }
}
