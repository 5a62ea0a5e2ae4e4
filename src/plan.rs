//! The plan: everything the agent needs to know, and nothing secret. `(identity, bundle, options, config) → Plan`, pure.
//!
//! The webhook makes it, puts it as JSON into one environment variable of the agent's container, and the agent reads
//! only that. Making it fills defaults, lets each provider resolve references to canonical requests, and asks
//! [`policy`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::annotations::SECRETS;
use crate::audit::AskedRequest;
use crate::bundle::{Decode, FileMode, Format, Target, VolumePath};
use crate::config::Config;
use crate::contract::{PLAN_VARIABLE, PREFIX};
use crate::options::{DEFAULT_JITTER, Notify, OnChange, Options};
use crate::parse_error::{ParseError, rule};
use crate::provider::ProviderSettings;
use crate::provider::http::Proxy;
use crate::reference::{self, Key, Reference, ReferenceError, Request};
use crate::report::Denial;
use crate::sentence::one_line;

pub use crate::config::Identity;

mod planner;
pub mod policy;

use self::policy::{Refusals, rules_text};

/// The format that this program writes and understands.
pub const PLAN_VERSION: u32 = 1;

/// Linux refuses one environment string above 128 KiB; this leaves room for its name and for growth by other webhooks.
pub const MAX_PLAN_BYTES: usize = 96 * 1024;

/// Most bytes of one generation, where nobody says.
pub const DEFAULT_SIZE_LIMIT: u64 = 1 << 20;

/// tmpfs gives each file whole pages.
pub const PAGE: u64 = 4096;
/// Files of a directory that the size limit need not leave room for: how many there are only its store knows.
const FILES_PER_DIR: u64 = 32;

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
    /// Where the sidecar serves metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<u16>,
    /// When all containers are restarted in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_all: Option<RestartAll>,
    /// Names of the containers that get the files: when the webhook is asked again, it gives them to no others. Agents
    /// do not look at it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// Whether there are audit lines.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub audit: bool,
}

/// A plan that was made, and what the operator should know of it.
#[derive(Debug)]
pub struct BuiltPlan {
    /// The plan.
    pub plan: Plan,
    /// Sentences.
    pub warnings: Vec<String>,
    /// Each distinct request, and the rule that allows it.
    pub asked: Vec<AskedRequest>,
}

/// Restarts of all containers of the pod for changed variables (`on-change: restart-all`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RestartAll {
    /// The files and directories that variables are made of, in their order.
    pub variables: Vec<VolumePath>,
    /// Within which time after the change, in milliseconds.
    pub jitter_ms: u64,
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
    #[serde(default, skip_serializing_if = "is_default")]
    pub revoke_on_exit: bool,
    /// How the store is reached; `None` as the environment says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Whether its authorities are in the file of its name in [`CA_VOLUME`](crate::contract::CA_VOLUME), whatever they
    /// are at the time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ca_bundle: bool,
    /// Another provider's secret that this store cannot be read without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock: Option<PlannedReference>,
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
    #[serde(default, skip_serializing_if = "is_default")]
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
    #[serde(default, skip_serializing_if = "is_default")]
    pub optional: bool,
}

/// What an item takes from which requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlannedFrom {
    /// One.
    One(PlannedReference),
    /// Several, merged.
    Merge(Vec<PlannedReference>),
    /// Several, by name.
    Named(BTreeMap<String, PlannedReference>),
}

/// A request, and the part of its answer that is wanted: shown, and written in a plan, as the reference of both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PlannedReference {
    /// The canonical request.
    pub request: Request,
    /// The part; `None` is all of it.
    pub key: Option<Key>,
}

/// A bundle that cannot be planned: the annotation or field, and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct PlanError {
    /// An annotation's key, with the place in its value.
    pub place: String,
    /// One sentence that says what to write instead.
    pub problem: String,
    /// Whether the operator's rules are against it.
    pub is_denied: bool,
}

/// A plan that cannot be read. None of these passes by waiting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanReadError {
    /// There is none.
    #[error("there is no plan: the webhook puts it into the environment as {PLAN_VARIABLE}")]
    Missing,
    /// It has as many bytes.
    #[error("the plan in {PLAN_VARIABLE} has {0} bytes, over the limit of {MAX_PLAN_BYTES}")]
    TooLarge(usize),
    /// It is not a plan.
    #[error("the plan in {PLAN_VARIABLE} is damaged at line {line}, column {column}")]
    Damaged {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Another version of this program made it.
    #[error(
        "the plan in {PLAN_VARIABLE} has format {0}, and this agent understands {PLAN_VERSION}: webhook and agent image \
         are of different versions"
    )]
    Version(u32),
}

impl PlanError {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: one_line(&problem.into()), is_denied: false }
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field as it is")]
fn is_true(truth: &bool) -> bool {
    *truth
}

/// What the reader fills in again need not be written: the plan stands in every pod.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// === impl PlannedReference ===

impl fmt::Display for PlannedReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.fmt(f)?;
        reference::write_key(f, self.key.as_ref())
    }
}

impl Serialize for PlannedReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TryFrom<String> for PlannedReference {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        let bad = |problem: &str| rule(format!("{text:?}: {problem}"));
        let Reference { provider, path, params, key } =
            text.parse().map_err(|error: ReferenceError| bad(&error.to_string()))?;
        let provider = provider.ok_or_else(|| bad("a plan's references name their provider"))?;
        Ok(Self { request: Request { provider, path, params }, key })
    }
}

// === impl PlannedFrom ===

impl PlannedFrom {
    /// Every part that is taken.
    pub fn references(&self) -> impl Iterator<Item = &PlannedReference> {
        let (list, map) = match self {
            Self::One(one) => (std::slice::from_ref(one), None),
            Self::Merge(list) => (list.as_slice(), None),
            Self::Named(map) => (&[][..], Some(map)),
        };
        list.iter().chain(map.into_iter().flat_map(BTreeMap::values))
    }
}

// === impl RestartAll ===

impl RestartAll {
    /// `None` if the pod does not ask for it.
    fn of(options: &Options) -> Option<Self> {
        if options.on_change != OnChange::RestartAll {
            return None;
        }
        let jitter = options.on_change_jitter.unwrap_or(DEFAULT_JITTER);
        Some(Self {
            variables: options.environment.iter().map(|source| source.path.clone()).collect(),
            jitter_ms: u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

// === impl Plan ===

impl Plan {
    /// The form that the agent reads.
    ///
    /// # Errors
    /// [`PlanError`] if it is larger than [`MAX_PLAN_BYTES`].
    pub fn to_json(&self) -> Result<String, PlanError> {
        let json = serde_json::to_string(self).map_err(|error| PlanError::new("plan", error.to_string()))?;
        if json.len() <= MAX_PLAN_BYTES {
            return Ok(json);
        }
        let problem = format!(
            "the plan has {} bytes, over the limit of {MAX_PLAN_BYTES}: take directories instead of many files, or shorter templates",
            json.len()
        );
        Err(PlanError::new(format!("{PREFIX}{SECRETS}"), problem))
    }

    /// Reads what [`Plan::to_json`] wrote.
    ///
    /// # Errors
    /// [`PlanReadError`] says where it is damaged, and nothing of what stands there.
    pub fn from_json(json: &str) -> Result<Self, PlanReadError> {
        #[derive(Deserialize)]
        struct VersionOnly {
            version: u32,
        }
        let damaged = |error: serde_json::Error| PlanReadError::Damaged { line: error.line(), column: error.column() };
        if json.len() > MAX_PLAN_BYTES {
            return Err(PlanReadError::TooLarge(json.len()));
        }
        let VersionOnly { version } = serde_json::from_str(json).map_err(damaged)?;
        if version != PLAN_VERSION {
            return Err(PlanReadError::Version(version));
        }
        serde_json::from_str(json).map_err(damaged)
    }

    /// What the operator's refusals say by now of a plan that was made before, what unlocks a store included.
    #[must_use]
    pub fn denied(&self, config: &Config) -> Option<Denial> {
        if config.deny.is_empty() {
            return None;
        }
        let refusals = Refusals::of(&config.deny, &self.identity);
        let unlocking = self.providers.values().filter_map(|provider| provider.unlock.as_ref());
        let all: BTreeSet<_> = self.requests().into_iter().chain(unlocking.map(|take| &take.request)).collect();
        let (mut rules, mut providers) = (BTreeSet::new(), BTreeMap::new());
        for request in all {
            if let Err(refusal) = refusals.check(request) {
                rules.extend(refusals.rule(request));
                providers.entry(request.provider.clone()).or_insert_with(|| refusal.to_string());
            }
        }
        (!providers.is_empty()).then(|| Denial { rules: rules_text(&rules), providers })
    }

    /// Bytes of a volume that one generation may fill, in whole pages: the size limit, and a page for each file that is
    /// known here. The volume is made for so much, and what comes of the stores' answers is held against it.
    #[must_use]
    pub fn room(&self) -> u64 {
        room(&self.items, self.size_limit)
    }

    /// Bytes of the volume: three generations, the present one, the one kept for readers, and the one being written.
    #[must_use]
    pub fn volume_bytes(&self) -> u64 {
        self.room().saturating_mul(3)
    }

    /// The pod's own volumes that requests read.
    #[must_use]
    pub fn volumes(&self) -> BTreeSet<&str> {
        self.requests().into_iter().filter_map(|request| self.volume(request)).collect()
    }

    /// The pod's own volume that a request reads.
    #[must_use]
    pub fn volume<'a>(&self, request: &'a Request) -> Option<&'a str> {
        self.providers.get(&request.provider)?.settings.as_settings().volume(request)
    }

    /// Each distinct request once, in order. Without those that only unlock providers.
    #[must_use]
    pub fn requests(&self) -> BTreeSet<&Request> {
        self.items.iter().flat_map(|item| item.from.references()).map(|take| &take.request).collect()
    }

    /// Requests that only optional items need: their absence is not a failure.
    #[must_use]
    pub fn is_optional(&self, request: &Request) -> bool {
        self.items
            .iter()
            .filter(|item| item.from.references().any(|take| &take.request == request))
            .all(|item| item.optional)
    }
}

/// [`Plan::room`] for these items.
#[must_use]
pub fn room(items: &[PlannedItem], size_limit: u64) -> u64 {
    let files = items.iter().map(|item| if matches!(item.target, Target::Dir(_)) { FILES_PER_DIR } else { 1 });
    size_limit.saturating_add(files.sum::<u64>().saturating_mul(PAGE))
}

#[cfg(test)]
mod tests;
