//! One bundle becomes a plan: item by item, provider by provider, each request past the operator's rules.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::policy::{Allowed, PolicyError, Refusals, Rights};
use super::{
    BuiltPlan, DEFAULT_SIZE_LIMIT, Identity, PLAN_VERSION, Plan, PlanError, PlannedFrom, PlannedItem, PlannedProvider,
    PlannedReference, RestartAll,
};
use crate::annotations::ROLE;
use crate::audit::AskedRequest;
use crate::bundle::{Bundle, FileMode, From, Item};
use crate::config::{Config, NamespaceLabels, ProviderConfig, expand, no_provider};
use crate::contract::PREFIX;
use crate::options::{Mode, Options};
use crate::parse_error::{ParseError, rule};
use crate::reference::{Reference, Request};
use crate::sentence::list;
use crate::steps::{self, OverBudget};

// === impl Plan ===

impl Plan {
    /// Plans a bundle. `options` are complete already: the tenant's, with the operator's defaults where they were
    /// silent ([`Options::or`]).
    ///
    /// # Errors
    /// [`PlanError`] names the annotation and what would be accepted.
    pub fn build(identity: Identity, bundle: &Bundle, options: &Options, config: &Config) -> Result<Self, PlanError> {
        Self::build_with_warnings(identity, &NamespaceLabels::NotAsked, bundle, options, config).map(|built| built.plan)
    }

    /// As [`Plan::build`], by rules that ask for the labels of the namespace too, and with what the operator should know
    /// of it.
    ///
    /// # Errors
    /// As [`Plan::build`].
    pub fn build_with_warnings(
        identity: Identity,
        labels: &NamespaceLabels,
        bundle: &Bundle,
        options: &Options,
        config: &Config,
    ) -> Result<BuiltPlan, PlanError> {
        let mut planner = Planner::new(&identity, labels, options, config);
        let items = bundle.items.iter().map(|item| planner.item(item)).collect::<Result<Vec<_>, _>>()?;
        if let Some(unknown) = options.roles.keys().find(|name| !config.providers.contains_key(*name)) {
            return Err(unknown_role(unknown, config));
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

    /// All for which [`Plan::build_with_warnings`] would refuse a bundle, reference by reference, with the place of the
    /// item that each stands in.
    #[must_use]
    pub fn faults(
        identity: &Identity,
        labels: &NamespaceLabels,
        bundle: &Bundle,
        options: &Options,
        config: &Config,
    ) -> Vec<PlanError> {
        let mut planner = Planner::new(identity, labels, options, config);
        let mut faults = Vec::new();
        for item in &bundle.items {
            for reference in item.from.references() {
                faults.extend(planner.plan_for(item, reference).err());
            }
        }
        let unknown = options.roles.keys().filter(|name| !config.providers.contains_key(*name));
        faults.extend(unknown.map(|name| unknown_role(name, config)));
        faults
    }
}

fn unknown_role(name: &str, config: &Config) -> PlanError {
    PlanError::new(format!("{PREFIX}{ROLE}{name}"), no_provider(name, &config.providers))
}

/// What one call of [`Plan::build`] knows and gathers.
struct Planner<'a> {
    identity: &'a Identity,
    labels: &'a NamespaceLabels,
    options: &'a Options,
    config: &'a Config,
    /// Those that were needed so far.
    providers: BTreeMap<String, PlannedProvider>,
    refusals: Refusals<'a>,
    /// What the operator's rules let this identity do, by provider.
    rights: BTreeMap<&'a str, Rights<'a>>,
    /// What the operator should know of it.
    warnings: BTreeSet<String>,
    /// The places of the rules that allow the requests.
    asked: BTreeMap<Request, Option<usize>>,
}

/// Why a reference cannot be planned: one sentence.
#[derive(Debug, thiserror::Error)]
enum Unplanned {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Rule(#[from] ParseError),
    /// It is so of what unlocks the provider.
    #[error("provider {provider:?} is unlocked by {request}: {problem}")]
    Locked { provider: String, request: Request, problem: Box<Self> },
}

// === impl Unplanned ===

impl Unplanned {
    /// Whether the operator's rules are against it, and not its form.
    fn is_denied(&self) -> bool {
        match self {
            Self::Policy(problem) => matches!(problem, PolicyError::Denied(_)),
            Self::Rule(_) => false,
            Self::Locked { problem, .. } => problem.is_denied(),
        }
    }
}

impl std::convert::From<OverBudget> for Unplanned {
    fn from(spent: OverBudget) -> Self {
        Self::Policy(spent.into())
    }
}

// === impl Planner ===

impl<'a> Planner<'a> {
    fn new(identity: &'a Identity, labels: &'a NamespaceLabels, options: &'a Options, config: &'a Config) -> Self {
        Self {
            identity,
            labels,
            options,
            config,
            providers: BTreeMap::new(),
            refusals: Refusals::of(&config.deny, identity),
            rights: BTreeMap::new(),
            warnings: BTreeSet::new(),
            asked: BTreeMap::new(),
        }
    }

    fn item(&mut self, item: &Item) -> Result<PlannedItem, PlanError> {
        let mut take = |reference: &Reference| self.plan_for(item, reference);
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

    fn plan_for(&mut self, item: &Item, reference: &Reference) -> Result<PlannedReference, PlanError> {
        self.plan_reference(reference).map_err(|problem| PlanError {
            is_denied: problem.is_denied(),
            ..PlanError::new(&item.place, format!("\"{reference}\": {problem}"))
        })
    }

    fn plan_reference(&mut self, reference: &Reference) -> Result<PlannedReference, Unplanned> {
        let providers = &self.config.providers;
        let chosen =
            reference.provider.as_ref().or(self.options.provider.as_ref()).or(self.config.default_provider.as_ref());
        let name = chosen.ok_or_else(|| {
            let known: Vec<_> = providers.keys().map(String::as_str).collect();
            let known = list(&known);
            rule(format!("names no provider and there is no default one: write <provider>:<path>; known are: {known}"))
        })?;
        steps::take(1)?;
        let (name, provider) = providers.get_key_value(name).ok_or_else(|| no_provider(name, providers))?;
        let settings = provider.settings.in_namespace(&self.identity.namespace);
        let request = settings.as_settings().resolve(name, reference)?;
        self.check(name, provider, &request)?;
        if self.options.mode == Some(Mode::Init) && settings.as_settings().is_leased(&request) {
            let sentence = "has a lease, and mode init leaves nobody to renew it: write mode sidecar or init+sidecar";
            return Err(rule(sentence).into());
        }
        self.plan_provider(name, provider)?;
        Ok(PlannedReference { request, key: reference.key.clone() })
    }

    /// Asks the operator's rules.
    fn check(&mut self, name: &'a str, provider: &'a ProviderConfig, request: &Request) -> Result<(), Unplanned> {
        self.refusals.check(request)?;
        let rights = match self.rights.entry(name) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let asked = self.options.roles.get(name);
                // What a pod is given anyway it need not be allowed to ask for.
                let given = asked.and(provider.role.as_ref()).map(|role| expand(role, self.identity)).transpose()?;
                let asked = asked.filter(|role| given.as_ref() != Some(*role));
                let rules = provider.allow.as_deref();
                vacant.insert(Rights::of(name, rules, self.identity, self.labels, asked.map(String::as_str))?)
            }
        };
        let Allowed { rule, warning } = rights.check(request, &provider.settings.as_settings().parameters())?;
        self.warnings.extend(warning);
        self.asked.entry(request.clone()).or_insert(rule);
        Ok(())
    }

    /// Plans a provider, and the one that holds what unlocks it.
    fn plan_provider(&mut self, name: &str, provider: &ProviderConfig) -> Result<(), Unplanned> {
        if self.providers.contains_key(name) {
            return Ok(());
        }
        let mut planned = self.provider(name, provider)?;
        if let Some((request, key)) = self.config.unlocking(name, self.identity)? {
            let locked = |problem| Unplanned::Locked {
                provider: name.to_owned(),
                request: request.clone(),
                problem: Box::new(problem),
            };
            // Reading the configuration has checked that it is there.
            if let Some((name, other)) = self.config.providers.get_key_value(&request.provider) {
                self.check(name, other, &request).map_err(locked)?;
                self.plan_provider(name, other).map_err(locked)?;
            }
            planned.unlock = Some(PlannedReference { request, key });
        }
        self.providers.insert(name.to_owned(), planned);
        Ok(())
    }

    fn provider(&self, name: &str, provider: &ProviderConfig) -> Result<PlannedProvider, ParseError> {
        let role = match (self.options.roles.get(name), &provider.role) {
            (Some(role), _) => Some(role.clone()),
            (None, Some(template)) => Some(expand(template, self.identity)?),
            (None, None) => None,
        };
        if role.is_none() && provider.settings.as_settings().needs_role() {
            return Err(rule(format!(
                "provider {name:?} needs a role: the operator gives all pods one with role: in its configuration, such \
                 as role: \"{{{{service_account}}}}\", or add the annotation {PREFIX}{ROLE}{name}"
            )));
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
