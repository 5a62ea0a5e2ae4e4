//! The plan: everything the agent needs to know, and nothing secret. `(identity, bundle, options, config) → Plan`, pure.
//!
//! The webhook makes it, puts it as JSON into one environment variable of the agent's container, and the agent reads
//! only that. Making it fills defaults, lets each provider resolve references to canonical requests, and asks
//! [`policy`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::annotations::{Notify, Options};
use crate::bundle::{Bundle, Decode, FileMode, Format, From, Item, Target};
use crate::config::Config;
use crate::provider::ProviderSettings;
use crate::reference::{Key, Reference, Request};

pub mod policy;

/// The format that this program writes and understands.
pub const PLAN_VERSION: u32 = 1;

/// Linux refuses one environment string above 128 KiB; this leaves room for its name and for growth by other webhooks.
pub const MAX_PLAN_BYTES: usize = 96 * 1024;

/// Who asks: the pod's namespace and service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Identity {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service account in that namespace.
    pub service_account: String,
}

/// The agent's whole instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// Whom the agent acts as.
    pub identity: Identity,
    /// The stores this pod uses, by name.
    pub providers: BTreeMap<String, PlannedProvider>,
    /// What to write.
    pub items: Vec<PlannedItem>,
    /// Whom to tell after a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Notify>,
    /// Most bytes one generation may have.
    pub size_limit: u64,
}

/// One store and how this pod uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedProvider {
    /// Type, address and the like.
    pub settings: ProviderSettings,
    /// Role to log in as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Audience of the projected token; `None` if this store takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Poll interval in whole seconds, before jitter.
    pub refresh_seconds: u64,
    /// Whether leases and login are revoked when the agent ends.
    #[serde(default)]
    pub revoke_on_exit: bool,
}

/// One file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PlannedItem {
    /// Where it goes.
    pub target: Target,
    /// What goes in.
    pub from: PlannedFrom,
    /// How values become bytes.
    #[serde(default)]
    pub format: Format,
    /// Permission bits.
    pub mode: FileMode,
    /// Transformation of each value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<Decode>,
    /// Template that makes the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// A missing secret leaves it out.
    #[serde(default)]
    pub optional: bool,
}

/// What an item takes from which requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlannedFrom {
    /// One.
    One(Take),
    /// Several, merged.
    Merge(Vec<Take>),
    /// Several, by name.
    Named(BTreeMap<String, Take>),
}

/// A request, and the part of its answer that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Take {
    /// The canonical request.
    pub request: Request,
    /// The part; `None` is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

// === impl PlannedFrom ===

impl PlannedFrom {
    /// Every part that is taken.
    pub fn takes(&self) -> impl Iterator<Item = &Take> {
        let (list, map) = match self {
            Self::One(one) => (std::slice::from_ref(one), None),
            Self::Merge(list) => (list.as_slice(), None),
            Self::Named(map) => (&[][..], Some(map)),
        };
        list.iter().chain(map.into_iter().flat_map(BTreeMap::values))
    }
}

// === impl Plan ===

impl Plan {
    /// Each distinct request once, in order.
    #[must_use]
    pub fn requests(&self) -> BTreeSet<&Request> {
        self.items.iter().flat_map(|item| item.from.takes()).map(|take| &take.request).collect()
    }

    /// Requests that only optional items need: their absence is no failure.
    #[must_use]
    pub fn is_optional(&self, request: &Request) -> bool {
        self.items
            .iter()
            .filter(|item| item.from.takes().any(|take| &take.request == request))
            .all(|item| item.optional)
    }
}
