//! The plan: everything the agent needs to know, and nothing secret. `(identity, bundle, options, config) → Plan`, pure.
//!
//! The webhook makes it, puts it as JSON into one environment variable of the agent's container, and the agent reads
//! only that. Making it fills defaults, lets each provider resolve references to canonical requests, and asks
//! [`policy`].

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::annotations::{ROLE, SECRETS};
use crate::audit::AskedRequest;
use crate::bundle::{Bundle, Decode, FileMode, Format, From, Item, Target, VolumePath};
use crate::config::{Config, ProviderConfig, expand, no_provider};
use crate::contract::{PLAN_VARIABLE, PREFIX};
use crate::options::{DEFAULT_JITTER, Mode, Notify, OnChange, Options};
use crate::provider::ProviderSettings;
use crate::provider::http::Proxy;
use crate::reference::{self, Key, Reference, ReferenceError, Request};
use crate::sentence::{list, one_line};
use crate::steps;

pub use crate::config::Identity;

pub mod policy;

use self::policy::{Allowed, Rights};

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
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = |problem: &str| format!("{text:?}: {problem}");
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
    /// Plans a bundle. `options` are complete already: the tenant's, with the operator's defaults where they were
    /// silent ([`Options::or`]).
    ///
    /// # Errors
    /// [`PlanError`] names the annotation and what would be accepted.
    pub fn build(identity: Identity, bundle: &Bundle, options: &Options, config: &Config) -> Result<Self, PlanError> {
        Self::build_with_warnings(identity, bundle, options, config).map(|built| built.plan)
    }

    /// As [`Plan::build`], with what the operator should know of it.
    ///
    /// # Errors
    /// As [`Plan::build`].
    pub fn build_with_warnings(
        identity: Identity,
        bundle: &Bundle,
        options: &Options,
        config: &Config,
    ) -> Result<BuiltPlan, PlanError> {
        let mut planner = Planner {
            identity: &identity,
            options,
            config,
            providers: BTreeMap::new(),
            rights: BTreeMap::new(),
            warnings: BTreeSet::new(),
            asked: BTreeMap::new(),
            is_denied: false,
        };
        let items = bundle.items.iter().map(|item| planner.item(item)).collect::<Result<Vec<_>, _>>()?;
        if let Some(unknown) = options.roles.keys().find(|name| !config.providers.contains_key(*name)) {
            let problem = no_provider(unknown, &config.providers);
            return Err(PlanError::new(format!("{PREFIX}{ROLE}{unknown}"), problem));
        }
        let Planner { providers, warnings, asked, .. } = planner;
        let plan = Self {
            version: PLAN_VERSION,
            identity,
            providers,
            items,
            notify: options.notify.clone(),
            size_limit: options.size_limit.unwrap_or(DEFAULT_SIZE_LIMIT),
            metrics_port: options.metrics_port,
            restart_all: RestartAll::of(options),
            containers: Vec::new(),
            audit: config.audit,
        };
        let asked = asked.into_iter().map(|(request, rule)| AskedRequest {
            rule: rule.map(|index| format!("providers.{}.allow[{index}]", request.provider)),
            reference: request.to_string(),
        });
        Ok(BuiltPlan { plan, warnings: warnings.into_iter().collect(), asked: asked.collect() })
    }

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

/// What one call of [`Plan::build`] knows and gathers.
struct Planner<'a> {
    identity: &'a Identity,
    options: &'a Options,
    config: &'a Config,
    providers: BTreeMap<String, PlannedProvider>,
    /// What the operator's rules let this identity do, by provider.
    rights: BTreeMap<&'a str, Rights<'a>>,
    warnings: BTreeSet<String>,
    /// The places of the rules that allow the requests.
    asked: BTreeMap<Request, Option<usize>>,
    /// Whether the operator's rules are against something.
    is_denied: bool,
}

impl<'a> Planner<'a> {
    fn item(&mut self, item: &Item) -> Result<PlannedItem, PlanError> {
        let mut take = |reference: &Reference| {
            self.take(reference).map_err(|problem| PlanError {
                is_denied: self.is_denied,
                ..PlanError::new(&item.place, format!("\"{reference}\": {problem}"))
            })
        };
        let from = match &item.from {
            From::One(one) => PlannedFrom::One(take(one)?),
            From::Merge(list) => PlannedFrom::Merge(list.iter().map(take).collect::<Result<_, _>>()?),
            From::Named(map) => PlannedFrom::Named(
                map.iter().map(|(name, reference)| Ok((name.clone(), take(reference)?))).collect::<Result<_, _>>()?,
            ),
        };
        Ok(PlannedItem {
            target: item.target.clone(),
            from,
            format: item.format,
            mode: item.file_mode.or(self.options.file_mode).unwrap_or(FileMode::OWNER),
            decode: item.decode,
            template: item.template.clone(),
            optional: item.optional,
        })
    }

    fn take(&mut self, reference: &Reference) -> Result<PlannedReference, String> {
        let providers = &self.config.providers;
        let chosen =
            reference.provider.as_ref().or(self.options.provider.as_ref()).or(self.config.default_provider.as_ref());
        let name = chosen.ok_or_else(|| {
            let known: Vec<_> = providers.keys().map(String::as_str).collect();
            let known = list(&known);
            format!("names no provider and there is no default one: write <provider>:<path>; known are: {known}")
        })?;
        steps::take(1)?;
        let (name, provider) = providers.get_key_value(name).ok_or_else(|| no_provider(name, providers))?;
        let settings = provider.settings.in_namespace(&self.identity.namespace);
        let request = settings.as_settings().resolve(name, reference)?;
        self.check(name, provider, &request)?;
        if self.options.mode == Some(Mode::Init) && settings.as_settings().is_leased(&request) {
            return Err(
                "has a lease, and mode init leaves nobody to renew it: write mode sidecar or init+sidecar".to_owned()
            );
        }
        self.plan_provider(name, provider)?;
        Ok(PlannedReference { request, key: reference.key.clone() })
    }

    /// Asks the operator's rules.
    fn check(&mut self, name: &'a str, provider: &'a ProviderConfig, request: &Request) -> Result<(), String> {
        let rights = match self.rights.entry(name) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let asked = self.options.roles.get(name);
                // What a pod is given anyway it need not be allowed to ask for.
                let given = asked.and(provider.role.as_ref()).map(|role| expand(role, self.identity)).transpose()?;
                let asked = asked.filter(|role| given.as_ref() != Some(*role));
                let rules = provider.allow.as_deref();
                let rights = Rights::of(name, rules, self.identity, asked.map(String::as_str));
                vacant.insert(rights.inspect_err(|_| self.is_denied = steps::check().is_ok())?)
            }
        };
        let allowed = rights.check(request, &provider.settings.as_settings().parameters());
        let Allowed { rule, warning } = allowed.inspect_err(|_| self.is_denied = steps::check().is_ok())?;
        self.warnings.extend(warning);
        self.asked.entry(request.clone()).or_insert(rule);
        Ok(())
    }

    /// Plans a provider, and the one that holds what unlocks it.
    fn plan_provider(&mut self, name: &str, provider: &ProviderConfig) -> Result<(), String> {
        if self.providers.contains_key(name) {
            return Ok(());
        }
        let mut planned = self.provider(name, provider)?;
        if let Some((request, key)) = self.config.unlocking(name, self.identity)? {
            let locked = |problem: String| format!("provider {name:?} is unlocked by {request}: {problem}");
            // Of a configuration that was read there is always one.
            if let Some((name, other)) = self.config.providers.get_key_value(&request.provider) {
                self.check(name, other, &request).map_err(locked)?;
                self.plan_provider(name, other).map_err(locked)?;
            }
            planned.unlock = Some(PlannedReference { request, key });
        }
        self.providers.insert(name.to_owned(), planned);
        Ok(())
    }

    fn provider(&self, name: &str, provider: &ProviderConfig) -> Result<PlannedProvider, String> {
        let role = match (self.options.roles.get(name), &provider.role) {
            (Some(role), _) => Some(role.clone()),
            (None, Some(template)) => Some(expand(template, self.identity)?),
            (None, None) => None,
        };
        if role.is_none() && provider.settings.as_settings().needs_role() {
            return Err(format!(
                "provider {name:?} needs a role: the operator gives all pods one with role: in its configuration, such \
                 as role: \"{{{{service_account}}}}\", or add the annotation {PREFIX}{ROLE}{name}"
            ));
        }
        let refresh = self
            .options
            .refresh
            .or(provider.refresh)
            .unwrap_or_else(|| provider.settings.as_settings().default_refresh());
        Ok(PlannedProvider {
            settings: provider.settings.in_namespace(&self.identity.namespace).into_owned(),
            role,
            audience: provider.audience.clone(),
            refresh_seconds: refresh.as_secs().max(1),
            revoke_on_exit: provider.revoke_on_exit,
            proxy: provider.proxy.clone(),
            ca_bundle: provider.ca_bundle.is_some(),
            unlock: None,
        })
    }
}

#[cfg(test)]
mod tests;
