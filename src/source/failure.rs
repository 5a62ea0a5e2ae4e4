//! Failures, and when the operation is tried again.

use std::collections::{BTreeMap, BTreeSet};
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

/// What first files wait for: the last failures of each provider that still fails.
#[derive(Debug, Default)]
pub struct Obstacles(BTreeMap<String, Vec<SourceFailure>>);

/// A provider that cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider {provider}: {error}")]
pub struct SetupError {
    /// Its name.
    pub provider: String,
    /// Why not.
    pub error: ProviderError,
}

// === impl Obstacles ===

impl Obstacles {
    /// Forgets those of providers that fail no more.
    pub fn retain(&mut self, failing: &BTreeSet<&str>) {
        self.0.retain(|provider, _| failing.contains(provider.as_str()));
    }

    /// Takes in what failed now: of a provider it takes the place of what failed before.
    pub fn note(&mut self, failures: &[SourceFailure]) {
        for provider in failures.iter().map(|failure| &failure.provider) {
            let latest = failures.iter().filter(|failure| failure.provider == *provider).cloned().collect();
            self.0.insert(provider.clone(), latest);
        }
    }

    /// All of them in one line, as `told` tells each; empty if there are none.
    pub fn describe(&self, told: impl Fn(&ProviderError) -> &str) -> String {
        refusals(self.0.values().flatten(), told)
    }
}

// === impl SetupError ===

impl SetupError {
    /// For readers of the pod's status: without names that only a store knows.
    #[must_use]
    pub fn public(&self) -> String {
        format!("provider {}: {}", self.provider, self.error.message.public())
    }
}

/// All of them in one line, as `told` tells each.
pub fn refusals<'a>(
    failures: impl IntoIterator<Item = &'a SourceFailure>,
    told: impl Fn(&ProviderError) -> &str,
) -> String {
    let each = failures.into_iter().map(|SourceFailure { provider, request, error, .. }| match request {
        Some(request) => format!("{request}: {}", told(error)),
        None => format!("{provider}: {}", told(error)),
    });
    each.collect::<Vec<_>>().join("; ")
}
