//! What injection adds to a pod: the agent's containers, and the volumes between it and the application.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ClusterTrustBundleProjection, Container, ContainerPort, DownwardAPIProjection, DownwardAPIVolumeFile,
    DownwardAPIVolumeSource, EmptyDirVolumeSource, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, ImageVolumeSource,
    Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe, ProjectedVolumeSource, SeccompProfile, SecurityContext,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::csi_volume;
use super::permissions::Permissions;
use super::resources::{self, Need, Standing, kibibytes};
use crate::config::{CaBundle, Config};
use crate::contract::{
    AGENT, ANNOTATIONS_FILE, BIN_SOURCE_PATH, BIN_VOLUME, CA_PATH, CA_VOLUME, CONTROLS_PATH, CONTROLS_VOLUME,
    GENERATIONS_PATH, INIT, METRICS_PORT_NAME, NODE_VARIABLE, PLAN_VARIABLE, POD_UID_VARIABLE, POD_VARIABLE,
    RESTART_ALL_CODE, SECRETS_PATH, SECRETS_VOLUME, SIDECAR, SOURCES_PATH, STATE_PATH, STATE_VOLUME, TOKENS_PATH,
    TOKENS_VOLUME,
};
use crate::options::{Mode, Options};
use crate::parse_error::ParseError;
use crate::plan::Plan;

/// Room for the program twice: a restarted agent copies it anew.
const BIN_LIMIT: &str = "8Mi";

/// The agent's own need, measured with room to spare: see tests/bench/README.md.
const AGENT_REQUEST: u64 = 8 << 20;
const AGENT_LIMIT: u64 = 32 << 20;

/// An injected container or volume.
#[derive(Debug)]
pub(super) struct Injected {
    /// The list of a pod's `spec` that it stands in.
    pub list: &'static str,
    /// Its name.
    pub name: String,
    /// All of it, as patches write it.
    pub json: Box<RawValue>,
}

/// Everything that the containers and volumes are made from.
#[derive(Debug)]
pub(super) struct Blueprint<'a> {
    /// The operator's configuration.
    pub config: &'a Config,
    /// The pod's options, complete.
    pub options: &'a Options,
    /// The pod's mode, decided.
    pub mode: Mode,
    /// What the agent is told.
    pub plan: &'a Plan,
    /// The same, in the form that it reads.
    pub plan_json: &'a str,
    /// As whom it runs.
    pub access: Permissions,
    /// What the pod itself says of resources.
    pub standing: Standing,
}

/// A container with a field that Kubernetes 1.34 and later know.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sidecar<'a> {
    #[serde(flatten)]
    container: &'a Container,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    restart_policy_rules: Vec<Value>,
}

// === impl Blueprint ===

impl Blueprint<'_> {
    /// The containers, in the order in which they start.
    ///
    /// # Errors
    /// [`ParseError`], if resources contradict each other.
    pub(super) fn containers(&self) -> Result<Vec<Injected>, ParseError> {
        if self.mode == Mode::Csi {
            return Ok(Vec::new());
        }
        let resources = resources::requirements(&self.options.resources, self.standing, self.need())?;
        let mut mounts = vec![
            mount(SECRETS_VOLUME, SECRETS_PATH, false),
            mount(STATE_VOLUME, STATE_PATH, false),
            mount(CONTROLS_VOLUME, CONTROLS_PATH, true),
            mount(TOKENS_VOLUME, TOKENS_PATH, true),
        ];
        mounts.extend(self.plan.volumes().into_iter().map(|name| mount(name, &format!("{SOURCES_PATH}/{name}"), true)));
        if self.bundles().next().is_some() {
            mounts.push(mount(CA_VOLUME, CA_PATH, true));
        }
        if self.has_variables() && !self.config.image_volumes {
            mounts.push(mount(BIN_VOLUME, BIN_SOURCE_PATH, false));
        }
        let container = |name: &'static str, subcommand: &str| Container {
            name: name.to_owned(),
            image: Some(self.config.image.clone()),
            image_pull_policy: self.config.image_pull_policy.clone(),
            command: Some(vec![AGENT.to_owned()]),
            args: Some(vec![subcommand.to_owned()]),
            // One arena: a second one would hold memory for a thread that is gone.
            env: Some(vec![
                variable(PLAN_VARIABLE, self.plan_json),
                variable("MALLOC_ARENA_MAX", "1"),
                field_variable(POD_VARIABLE, "metadata.name"),
                field_variable(POD_UID_VARIABLE, "metadata.uid"),
                field_variable(NODE_VARIABLE, "spec.nodeName"),
            ]),
            resources: Some(resources.clone()),
            security_context: Some(self.security_context()),
            volume_mounts: Some(mounts.clone()),
            ..Container::default()
        };
        let native = self.config.native_sidecars;
        let mut injected = Vec::with_capacity(2);
        if self.mode != Mode::Sidecar || !native {
            injected.push(Injected::new("initContainers", INIT, &container(INIT, "init")));
        }
        if self.mode != Mode::Init {
            let mut sidecar = container(SIDECAR, "sidecar");
            if native {
                sidecar.restart_policy = Some("Always".to_owned());
            }
            if let Some(port) = self.plan.metrics_port {
                open_metrics(&mut sidecar, port.into());
            }
            if self.mode == Mode::Sidecar && native {
                let command = [AGENT, "ready", "--wait", "2s"].map(str::to_owned).to_vec();
                let exec = Some(ExecAction { command: Some(command) });
                let post_start = Some(LifecycleHandler { exec, ..LifecycleHandler::default() });
                sidecar.lifecycle = Some(Lifecycle { post_start, ..Lifecycle::default() });
            }
            let list = if native { "initContainers" } else { "containers" };
            let rules = self.plan.restart_all.iter().map(|_| restart_all_rule()).collect();
            injected.push(Injected::new(list, SIDECAR, &Sidecar { container: &sidecar, restart_policy_rules: rules }));
        }
        Ok(injected)
    }

    /// The volumes. Those of mode csi have the pod's own annotations in them.
    #[must_use]
    pub(super) fn volumes(&self, annotations: &BTreeMap<String, String>) -> Vec<Injected> {
        let volumes = if self.mode == Mode::Csi { self.csi_volumes(annotations) } else { self.agent_volumes() };
        volumes.iter().map(|volume| Injected::new("volumes", &volume.name, volume)).collect()
    }

    fn csi_volumes(&self, annotations: &BTreeMap<String, String>) -> Vec<Volume> {
        let mut volumes = vec![csi_volume::files(annotations, self.access, self.options, &self.plan.containers)];
        if self.has_variables() {
            volumes.push(if self.config.image_volumes { self.bin_volume() } else { csi_volume::program() });
        }
        volumes
    }

    fn agent_volumes(&self) -> Vec<Volume> {
        let annotations = DownwardAPIVolumeSource {
            items: Some(vec![pod_field(ANNOTATIONS_FILE, "metadata.annotations")]),
            ..DownwardAPIVolumeSource::default()
        };
        let tokens = ProjectedVolumeSource { sources: Some(self.token_sources()), ..ProjectedVolumeSource::default() };
        let mut volumes = vec![
            empty_dir(SECRETS_VOLUME, Some("Memory"), kibibytes(self.plan.volume_bytes())),
            empty_dir(STATE_VOLUME, Some("Memory"), "1Mi".to_owned()),
            Volume { name: TOKENS_VOLUME.to_owned(), projected: Some(tokens), ..Volume::default() },
            Volume { name: CONTROLS_VOLUME.to_owned(), downward_api: Some(annotations), ..Volume::default() },
        ];
        let bundles: Vec<_> = self.bundles().map(|(name, bundle)| trust_bundle(name, bundle)).collect();
        if !bundles.is_empty() {
            let bundles = ProjectedVolumeSource { sources: Some(bundles), ..ProjectedVolumeSource::default() };
            volumes.push(Volume { name: CA_VOLUME.to_owned(), projected: Some(bundles), ..Volume::default() });
        }
        if self.has_variables() {
            volumes.push(self.bin_volume());
        }
        volumes
    }

    /// Where the authorities of the plan's stores come from, if they may change while the pod runs.
    fn bundles(&self) -> impl Iterator<Item = (&str, &CaBundle)> {
        let planned = self.plan.providers.iter().filter(|(_, provider)| provider.ca_bundle);
        planned.filter_map(|(name, _)| Some((name.as_str(), self.config.providers.get(name)?.ca_bundle.as_ref()?)))
    }

    fn has_variables(&self) -> bool {
        !self.options.environment.is_empty()
    }

    /// Our image itself where the runtime can mount one, and executes from it; else room for a copy.
    fn bin_volume(&self) -> Volume {
        if !self.config.image_volumes {
            return empty_dir(BIN_VOLUME, None, BIN_LIMIT.to_owned());
        }
        let image = ImageVolumeSource {
            reference: Some(self.config.image.clone()),
            pull_policy: self.config.image_pull_policy.clone(),
        };
        Volume { name: BIN_VOLUME.to_owned(), image: Some(image), ..Volume::default() }
    }

    /// One token per provider that takes one, each with that provider's audience: no store can replay it at another.
    fn token_sources(&self) -> Vec<VolumeProjection> {
        let tokens: Vec<_> = self
            .plan
            .providers
            .iter()
            .filter(|(_, provider)| provider.audience.is_some())
            .map(|(name, provider)| {
                let seconds = self.config.providers.get(name).map_or(600, |provider| provider.token_seconds);
                let token = ServiceAccountTokenProjection {
                    path: name.clone(),
                    audience: provider.audience.clone(),
                    expiration_seconds: Some(seconds),
                };
                VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }
            })
            .collect();
        if !tokens.is_empty() {
            return tokens;
        }
        // The mount must exist all the same, to keep the API token out; an empty projection is refused by some versions.
        let namespace = DownwardAPIProjection { items: Some(vec![pod_field("namespace", "metadata.namespace")]) };
        vec![VolumeProjection { downward_api: Some(namespace), ..VolumeProjection::default() }]
    }

    fn security_context(&self) -> SecurityContext {
        SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            run_as_user: self.access.user,
            run_as_group: self.access.group,
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..SecurityContext::default()
        }
    }

    /// The volume's, and as much again as one generation for names: to the kernel, three small files and the link to them
    /// are a page of inodes and entries.
    fn charged_bytes(&self) -> u64 {
        self.plan.room().saturating_mul(4)
    }

    /// tmpfs pages are charged to their writer: the agent.
    fn need(&self) -> Need {
        Need {
            request: AGENT_REQUEST.saturating_add(self.plan.room()),
            limit: AGENT_LIMIT.saturating_add(self.charged_bytes()),
        }
    }
}

// === impl Injected ===

impl Injected {
    fn new(list: &'static str, name: &str, object: &impl Serialize) -> Self {
        // Objects have strings for keys, and memory takes what is written.
        Self { list, name: name.to_owned(), json: to_raw_value(object).unwrap_or_default() }
    }

    /// What later steps look at, instead of all of it: see [`is_ours`].
    #[must_use]
    pub(super) fn seen(&self) -> Value {
        json!({"name": self.name})
    }

    /// All of it, to be compared with what a pod has.
    #[must_use]
    pub(super) fn value(&self) -> Value {
        serde_json::from_str(self.json.get()).unwrap_or_default()
    }
}

fn open_metrics(sidecar: &mut Container, port: i32) {
    sidecar.liveness_probe = Some(generations_probe(port));
    let name = Some(METRICS_PORT_NAME.to_owned());
    sidecar.ports = Some(vec![ContainerPort { name, container_port: port, ..ContainerPort::default() }]);
}

/// Asks which generations run, for the events that kubelet makes of the answers. It never ends the agent: a port that
/// cannot be reached is not a reason to.
fn generations_probe(port: i32) -> Probe {
    let path = Some(GENERATIONS_PATH.to_owned());
    Probe {
        http_get: Some(HTTPGetAction { path, port: IntOrString::Int(port), ..HTTPGetAction::default() }),
        period_seconds: Some(30),
        timeout_seconds: Some(5),
        failure_threshold: Some(i32::MAX),
        ..Probe::default()
    }
}

/// kubelet restarts all containers if ours ends with the code for it (`ContainerRestartRule`, KEP-5532).
fn restart_all_rule() -> Value {
    json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [RESTART_ALL_CODE]}})
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

/// A variable with a field of the pod.
fn field_variable(name: &str, field: &str) -> EnvVar {
    let field_ref = Some(ObjectFieldSelector { field_path: field.to_owned(), api_version: None });
    let source = EnvVarSource { field_ref, ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

fn mount(volume: &str, path: &str, is_read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        // As the API server writes it.
        read_only: is_read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn empty_dir(name: &str, medium: Option<&str>, limit: String) -> Volume {
    let source = EmptyDirVolumeSource { medium: medium.map(str::to_owned), size_limit: Some(Quantity(limit)) };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

/// The file of a provider's authorities. Not optional: kubelet does not start the agent before there are some, and says
/// so in an event.
fn trust_bundle(provider: &str, bundle: &CaBundle) -> VolumeProjection {
    let mut projection = ClusterTrustBundleProjection { path: provider.to_owned(), ..Default::default() };
    match bundle {
        CaBundle::Named(name) => projection.name = Some(name.clone()),
        CaBundle::Signed { signer_name, label_selector } => {
            projection.signer_name = Some(signer_name.clone());
            let some = |values: &Vec<_>| Some(values.clone()).filter(|values| !values.is_empty());
            let requirements = label_selector.match_expressions.iter().map(|requirement| LabelSelectorRequirement {
                key: requirement.key.clone(),
                operator: requirement.operator.as_str().to_owned(),
                values: some(&requirement.values),
            });
            let requirements: Vec<_> = requirements.collect();
            projection.label_selector = Some(LabelSelector {
                match_labels: Some(label_selector.match_labels.clone()).filter(|labels| !labels.is_empty()),
                match_expressions: Some(requirements).filter(|requirements| !requirements.is_empty()),
            });
        }
    }
    VolumeProjection { cluster_trust_bundle: Some(projection), ..VolumeProjection::default() }
}

/// A file with a field of the pod.
fn pod_field(file: &str, field: &str) -> DownwardAPIVolumeFile {
    DownwardAPIVolumeFile {
        path: file.to_owned(),
        field_ref: Some(ObjectFieldSelector { field_path: field.to_owned(), api_version: None }),
        ..DownwardAPIVolumeFile::default()
    }
}
