//! A cache of results per pod template: computed for the first pod, reused for the others. A storm of pods, such as a
//! rollout's, is one of few templates.

use std::collections::BTreeMap;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::containers::{Blueprint, Injected};
use super::permissions::Permissions;
use super::pod_volumes::{self, VolumeRead};
use super::refusal::Refusal;
use super::resources::Standing;
use super::{csi_volume, kubelet_env};
use crate::audit::AskedRequests;
use crate::bundle::Bundle;
use crate::config::{Config, Identity, NamespaceLabels};
use crate::contract::PREFIX;
use crate::options::{Mode, Options};
use crate::plan::{BuiltPlan, Plan};

/// Templates that are remembered, about.
const TEMPLATES: usize = 512;

/// Bytes that they may take together: tenants annotate what they like.
const BYTES: u64 = 4 << 20;

/// Everything that decides what is added to a pod, besides the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CacheKey {
    /// What its bundle and options are parsed from.
    pub annotations: BTreeMap<String, String>,
    /// Whom its agent acts as.
    pub identity: Identity,
    /// Of its namespace, where rules ask for them.
    pub labels: NamespaceLabels,
    /// Its mode, decided.
    pub mode: Mode,
    /// As whom its agent runs.
    pub access: Permissions,
    /// What it says of resources itself.
    pub standing: Standing,
    /// Which of them get the files.
    pub containers: Vec<String>,
    /// Whether kubelet reads variables for some of them.
    pub is_for_kubelet: bool,
}

/// What is added.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What the agent reads of the pod's own volumes.
    pub reads: Vec<VolumeRead>,
    /// The containers, in the order in which they start.
    pub containers: Vec<Injected>,
    /// The volumes.
    pub volumes: Vec<Injected>,
    /// What the operator should know of it.
    pub warnings: Vec<String>,
    /// What it asks for, and by which rules it may.
    pub requests: Arc<AskedRequests>,
}

/// What was prepared by one configuration: those that are asked for again, as far as there is room.
#[derive(Debug)]
pub(super) struct PreparedCache(Cache<CacheKey, Arc<Prepared>, Bytes>);

/// What an entry takes, about.
#[derive(Debug, Clone)]
struct Bytes;

// === impl Prepared ===

impl Prepared {
    /// `bundle` and `options` are what `asked` and `config` come to: nothing else may decide here.
    ///
    /// # Errors
    /// [`Refusal`], if it cannot be had.
    pub(super) fn new(asked: &CacheKey, bundle: &Bundle, options: &Options, config: &Config) -> Result<Self, Refusal> {
        let CacheKey { annotations, identity, labels, mode, access, standing, containers, is_for_kubelet } = asked;
        let with_variables = is_for_kubelet.then(|| kubelet_env::with_variables(bundle)).transpose()?;
        let bundle = with_variables.as_ref().unwrap_or(bundle);
        let BuiltPlan { mut plan, warnings, asked: requests } =
            Plan::build_with_warnings(identity.clone(), labels, bundle, options, config)?;
        plan.containers.clone_from(containers);
        if *mode == Mode::Csi {
            csi_volume::check_plan(&plan)?;
        }
        let plan_json = plan.to_json()?;
        let blueprint = Blueprint {
            config,
            options,
            mode: *mode,
            plan: &plan,
            plan_json: &plan_json,
            access: *access,
            standing: *standing,
        };
        let containers = blueprint
            .containers()
            .map_err(|problem| Refusal::Pod(format!("annotations {PREFIX}resources.*: {problem}")))?;
        Ok(Self {
            reads: pod_volumes::reads(bundle, &plan),
            containers,
            volumes: blueprint.volumes(annotations),
            warnings,
            requests: Arc::new(AskedRequests::new(requests)),
        })
    }
}

// === impl PreparedCache ===

impl PreparedCache {
    /// What was asked for, remembered or worked out.
    ///
    /// # Errors
    /// [`Refusal`], which is never remembered, if it cannot be had.
    pub(super) fn prepare(
        &self,
        asked: CacheKey,
        bundle: &Bundle,
        options: &Options,
        config: &Config,
    ) -> Result<Arc<Prepared>, Refusal> {
        if let Some(prepared) = self.0.get(&asked) {
            return Ok(prepared);
        }
        let prepared = Arc::new(Prepared::new(&asked, bundle, options, config)?);
        self.0.insert(asked, Arc::clone(&prepared));
        Ok(prepared)
    }
}

impl Default for PreparedCache {
    fn default() -> Self {
        Self(Cache::with_weighter(TEMPLATES, BYTES, Bytes))
    }
}

// === impl Bytes ===

impl Weighter<CacheKey, Arc<Prepared>> for Bytes {
    fn weight(&self, asked: &CacheKey, prepared: &Arc<Prepared>) -> u64 {
        let annotations: usize = asked.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        let selected: usize = asked.containers.iter().map(String::len).sum();
        let injected = prepared.containers.iter().chain(&prepared.volumes);
        let texts: usize = injected.map(|injected| injected.json.get().len()).sum();
        let warnings: usize = prepared.warnings.iter().map(String::len).sum();
        (annotations + selected + texts + warnings + prepared.requests.bytes()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::FileMode;

    #[test]
    fn what_tenants_ask_for_fills_no_memory() {
        const CONFIG: &str =
            "image: i\ndefaultProvider: v\nproviders: {v: {type: vault, address: 'https://v', role: r}}";
        let config = Config::from_yaml(CONFIG).unwrap();
        let remembered = PreparedCache::default();
        let prepare = |path: &str| {
            let annotations = BTreeMap::from([(format!("{PREFIX}file.db"), path.to_owned())]);
            let (bundle, options) = crate::annotations::parse(&annotations).unwrap();
            let identity = Identity { namespace: "shop".to_owned(), service_account: "web".to_owned() };
            let access = Permissions { user: None, group: None, file_mode: FileMode::OWNER };
            let asked = CacheKey {
                annotations,
                identity,
                labels: NamespaceLabels::NotAsked,
                mode: Mode::Sidecar,
                access,
                standing: Standing::default(),
                containers: Vec::new(),
                is_for_kubelet: false,
            };
            remembered.prepare(asked, &bundle, &options, &config).unwrap()
        };
        for (length, number) in [(10, 2000), (4000, 1200)] {
            for index in 0..number {
                prepare(&format!("secret/data/{index:0length$}#k"));
                assert!(remembered.0.weight() <= BYTES);
            }
            assert!(remembered.0.len() > 32, "{} of {length} bytes", remembered.0.len());
        }
        let large = format!("secret/data/{}#k", "x".repeat(4000));
        assert!(prepare(&large).containers.iter().all(|container| container.json.get().contains(&large)));
        assert!(Arc::ptr_eq(&prepare("secret/data/same#k"), &prepare("secret/data/same#k")), "it is remembered");
    }
}
