//! The labels of a pod's namespace, which rules may ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The labels of a namespace, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum NamespaceLabels {
    /// No rule asks for them.
    #[default]
    NotAsked,
    /// These.
    Known(Arc<BTreeMap<String, String>>),
    /// Nobody could say: why, in a few words.
    Unknown(Arc<str>),
}

// === impl NamespaceLabels ===

impl NamespaceLabels {
    /// These.
    #[must_use]
    pub fn known(labels: BTreeMap<String, String>) -> Self {
        Self::Known(Arc::new(labels))
    }

    /// Why they are not known; `None` if they are.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        match self {
            Self::NotAsked => Some("nobody asked for them"),
            Self::Known(_) => None,
            Self::Unknown(why) => Some(why),
        }
    }

    /// The value of one, if it is known and there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let Self::Known(labels) = self else { return None };
        labels.get(name).map(String::as_str)
    }
}
