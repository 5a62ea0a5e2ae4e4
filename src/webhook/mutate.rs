//! The mutation: pod in, patch out. A pure function of the pod and the operator's configuration.
//!
//! It says what must hold and converges the pod to it, so a second pass, a reinvocation after another webhook, and
//! a pod copied from a running one all come to the same. What the pod holds is what counts, not a note that we left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::cache::{CacheKey, Prepared, PreparedCache};
use super::env_wrapper::EnvWrapper;
use super::patch::{Patch, Patched, at};
use super::permissions::Permissions;
use super::placement::{converge_volumes, place};
use super::pod::{LISTS, MIRROR, account_of, containers, is_ours, name_of, plan_of, runs_agent, take_annotations};
use super::refusal::Refusal;
use super::resources::Standing;
use super::selection::Selection;
use super::{csi_volume, idle, kubelet_env, mounts, pod_volumes};
use crate::annotations::{self, METRICS_PORT, MODE, NOTIFY};
use crate::audit::AskedRequests;
use crate::bundle::Bundle;
use crate::config::{Config, Identity, NamespaceLabels};
use crate::contract::{CSI_DAEMON_SET_ANNOTATION, PREFIX, VOLUME_PREFIX};
use crate::options::{Mode, Notify, Options};
use crate::steps;

/// Decides on pods by one configuration. What it decides does not depend on what it remembers.
#[derive(Debug)]
pub struct Injector {
    config: Config,
    asks_for_labels: bool,
    /// `None`: each pod is decided on anew.
    remembered: Option<PreparedCache>,
}

/// What a pod asks for.
#[derive(Debug)]
pub(super) struct AskedPod {
    /// All that are looked at.
    pub annotations: BTreeMap<String, String>,
    /// What is made of them.
    pub bundle: Bundle,
    /// What is made of them, the operator's defaults apart.
    pub options: Options,
}

/// What to do with a pod that is admitted.
#[derive(Debug, Default)]
pub struct Mutation {
    /// The patch; empty if the pod did not ask, or holds all of it already.
    pub patch: Patch,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// What it asks for; `None` if it does not ask.
    pub requests: Option<Arc<AskedRequests>>,
}

/// What a pod is to be, all of it decided.
struct WantedPod<'a> {
    prepared: &'a Prepared,
    options: &'a Options,
    mode: Mode,
    standing: Standing,
    selection: &'a Selection,
    wrapper: Option<EnvWrapper<'a>>,
    /// What a pod of mode csi is to say of the driver's DaemonSet, and does not yet.
    daemon_set: Option<&'a str>,
}

/// Kubernetes has no longer names. (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>)
const MAX_NAME_BYTES: usize = 253;

// === impl Injector ===

impl Injector {
    /// One that remembers nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { remembered: Some(PreparedCache::default()), ..Self::forgetful(config) }
    }

    /// One that never remembers: for pods of which no two are alike.
    #[must_use]
    pub(super) fn forgetful(config: Config) -> Self {
        Self { asks_for_labels: config.asks_for_labels(), config, remembered: None }
    }

    /// What it decides by.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether some rule asks for the labels of namespaces.
    #[must_use]
    pub fn asks_for_labels(&self) -> bool {
        self.asks_for_labels
    }

    /// Mutates a pod that is being created in `namespace`, which has these labels.
    ///
    /// # Errors
    /// [`Refusal`], whose sentence names the annotation, field, container or volume.
    pub fn mutate(&self, mut pod: Value, namespace: &str, labels: NamespaceLabels) -> Result<Mutation, Refusal> {
        let annotations = take_annotations(&mut pod);
        if !annotations::opts_in(&annotations) {
            return Ok(Mutation::default());
        }
        let (bundle, options) = annotations::parse(&annotations)?;
        self.inject(pod, AskedPod { annotations, bundle, options }, namespace, labels)
    }

    /// The same for a pod whose annotations are understood, and not in it any more.
    ///
    /// # Errors
    /// As [`Injector::mutate`].
    pub(super) fn inject(
        &self,
        pod: Value,
        asked: AskedPod,
        namespace: &str,
        labels: NamespaceLabels,
    ) -> Result<Mutation, Refusal> {
        let config = &self.config;
        let AskedPod { annotations, bundle, options } = asked;
        let mut options = options.or(&config.defaults);
        let spec = pod.get("spec").unwrap_or(&Value::Null);
        screen(spec, &annotations, config)?;
        check_names(spec)?;
        let mut warnings = Vec::new();
        csi_volume::fall_back(&pod, namespace, config, &mut options, &mut warnings);
        let mode = choose_mode(spec, options.mode, config, &mut warnings)?;
        options.mode = Some(mode);
        let (ours, others) = ours_and_others(spec);
        if mode == Mode::Csi {
            csi_volume::check(&mut options, config)?;
        }
        let earlier = selected_before(spec, &ours, mode);
        mounts::check_path(spec, &options, &mut warnings);
        let selection = Selection::of(spec, &options, earlier.as_deref(), config, &mut warnings)?;
        // By those that were selected at first, so what others inject later changes nothing.
        let access = Permissions::decide(spec, &selection.containers(spec), &options)
            .map_err(|problem| Refusal::Pod(format!("annotation {PREFIX}{NOTIFY}: {problem}")))?;
        options.file_mode = Some(access.file_mode);
        idle::warn(&annotations, mode, &mut warnings);
        if mode == Mode::Init {
            options.metrics_port = None;
        }
        let wrapper = EnvWrapper::of(spec, &bundle, &options, mode, config)?;
        if mode == Mode::Csi {
            csi_volume::check_notify(spec, &options, wrapper.as_ref(), &selection, &mut warnings)?;
        }
        let is_for_kubelet = check_environment(spec, &others, wrapper.as_ref(), &selection, &mut warnings)?;
        let standing = Standing::of(spec);
        if mode != Mode::Csi {
            standing.warn(&annotations, &mut warnings);
        }
        check_host_network(spec, &others, &options, &mut warnings)?;
        let daemon_set = csi_volume::daemon_set(&annotations, mode, config);
        let asked = CacheKey {
            annotations,
            identity: identity(spec, namespace)?,
            labels,
            mode,
            access,
            standing,
            containers: selection.names().map(str::to_owned).collect(),
            is_for_kubelet,
        };
        let prepared = self.prepare(asked, &bundle, &options)?;
        prepared.warnings.iter().for_each(|warning| tracing::warn!(namespace, "{warning}"));
        warnings.extend(prepared.warnings.iter().cloned());
        pod_volumes::check(spec, &prepared.reads)?;
        let wanted = WantedPod {
            prepared: &prepared,
            options: &options,
            mode,
            standing,
            selection: &selection,
            wrapper,
            daemon_set,
        };
        let patch = wanted.converge(pod, config, &mut warnings)?;
        Ok(Mutation { patch, warnings, requests: Some(Arc::clone(&prepared.requests)) })
    }

    fn prepare(&self, asked: CacheKey, bundle: &Bundle, options: &Options) -> Result<Arc<Prepared>, Refusal> {
        match &self.remembered {
            Some(remembered) => remembered.prepare(asked, bundle, options, &self.config),
            None => Ok(Arc::new(Prepared::new(&asked, bundle, options, &self.config)?)),
        }
    }
}

/// The containers of all lists, in their order.
fn ours_and_others(spec: &Value) -> (Vec<&Value>, Vec<&Value>) {
    LISTS.iter().flat_map(|list| containers(spec, list)).partition(|container| is_ours(container))
}

/// The containers that an injection before this one selected, if there was one.
fn selected_before(spec: &Value, ours: &[&Value], mode: Mode) -> Option<Vec<String>> {
    if mode == Mode::Csi {
        return csi_volume::chosen(spec);
    }
    ours.first().and_then(|container| plan_of(container)).map(|plan| plan.containers)
}

// === impl WantedPod ===

impl WantedPod<'_> {
    fn converge(&self, pod: Value, config: &Config, warnings: &mut Vec<String>) -> Result<Patch, Refusal> {
        let Self { prepared, options, mode, standing, selection, wrapper, daemon_set } = self;
        let mut patched = Patched::new(pod);
        converge_volumes(&mut patched, &prepared.volumes)?;
        place(&mut patched, &prepared.containers, options, *standing, warnings)?;
        // Before the mounts: what is started through our program needs it.
        if let Some(wrapper) = wrapper {
            wrapper.converge(&mut patched, selection)?;
        }
        mounts::converge(&mut patched, selection, options, *mode, warnings)?;
        let is_signalled = options.notify.iter().any(|notify| matches!(notify, Notify::Signal { .. }));
        if is_signalled && *mode != Mode::Csi {
            patched.set(&at!["spec", "shareProcessNamespace"], json!(true));
        }
        if *mode != Mode::Csi {
            add_pull_secrets(&mut patched, config);
        }
        if let Some(daemon_set) = daemon_set {
            patched.set(&at!["metadata", "annotations", CSI_DAEMON_SET_ANNOTATION], json!(daemon_set));
        }
        steps::check()?;
        Ok(patched.into_patch())
    }
}

/// Checks what containers take out of our volumes by themselves. Says whether kubelet sets variables for some of them.
fn check_environment(
    spec: &Value,
    others: &[&Value],
    wrapper: Option<&EnvWrapper<'_>>,
    selection: &Selection,
    warnings: &mut Vec<String>,
) -> Result<bool, Refusal> {
    let for_kubelet = match wrapper {
        Some(wrapper) => wrapper.for_kubelet(spec, selection)?,
        None => BTreeSet::new(),
    };
    for container in others {
        let known = wrapper.filter(|_| for_kubelet.contains(name_of(container)));
        kubelet_env::check_variables(container, known.map(EnvWrapper::names))?;
    }
    warnings.extend(for_kubelet.iter().map(|name| {
        format!(
            "container {name:?} has no command, so kubelet sets its variables, and the container runtime keeps their \
             values on the node's disk: add command to have them in its memory alone"
        )
    }));
    Ok(!for_kubelet.is_empty())
}

/// A subresource that adds ephemeral containers: they may not mount our volumes, where they would see what only the
/// agent may, or open the gate; nor take variables out of them, nor join the agent's processes.
///
/// # Errors
/// [`Refusal`] names the container and what it reaches for.
pub(super) fn check_ephemeral(pod: &Value) -> Result<(), Refusal> {
    const INSTEAD: &str = "look at the files through an application container";
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let running = LISTS.iter().flat_map(|list| containers(spec, list)).filter(|container| runs_agent(container));
    let agents: BTreeSet<_> = running.map(name_of).collect();
    for container in containers(spec, "ephemeralContainers") {
        let name = name_of(container);
        let mut volumes = container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten();
        if let Some(mount) = volumes.find(|mount| name_of(mount).starts_with(VOLUME_PREFIX)) {
            return Err(Refusal::Pod(format!(
                "ephemeral container {name:?} mounts the volume {:?}, which is hushpod's own: {INSTEAD}",
                name_of(mount)
            )));
        }
        let target = container.get("targetContainerName").and_then(Value::as_str);
        if let Some(target) = target.filter(|target| agents.contains(target)) {
            return Err(Refusal::Pod(format!(
                "ephemeral container {name:?} targets {target:?}, which is hushpod's own: {INSTEAD}"
            )));
        }
        kubelet_env::check_variables(container, None)?;
    }
    Ok(())
}

/// Pods that cannot be injected safely, whatever they ask for.
fn screen(spec: &Value, annotations: &BTreeMap<String, String>, config: &Config) -> Result<(), Refusal> {
    let is_windows = spec.pointer("/os/name") == Some(&json!("windows"))
        || spec.pointer("/nodeSelector/kubernetes.io~1os") == Some(&json!("windows"));
    if is_windows {
        return Err(Refusal::Pod("Windows pods have no memory volumes: hushpod cannot inject them".to_owned()));
    }
    if annotations.contains_key(MIRROR) {
        return Err(Refusal::Pod(
            "static pods start before any webhook is asked and have no service account: hushpod cannot inject them"
                .to_owned(),
        ));
    }
    match spec.get("runtimeClassName").and_then(Value::as_str) {
        Some(class) if !config.runtime_classes.iter().any(|known| known == class) => Err(Refusal::Pod(format!(
            "runtimeClassName {class:?} is not in the operator's runtimeClasses: sandboxed runtimes keep memory volumes \
             to themselves, and the application would start without its secrets"
        ))),
        _ => Ok(()),
    }
}

/// Whom the pod's agent acts as: what fills the operator's templates, and so is bounded.
fn identity(spec: &Value, namespace: &str) -> Result<Identity, Refusal> {
    let account = account_of(spec);
    if namespace.len().max(account.len()) > MAX_NAME_BYTES {
        let problem = format!("a namespace or service account has at most {MAX_NAME_BYTES} characters in its name");
        return Err(Refusal::Pod(problem));
    }
    Ok(Identity { namespace: namespace.to_owned(), service_account: account.to_owned() })
}

/// Secrets that our image is pulled with.
fn add_pull_secrets(patched: &mut Patched, config: &Config) {
    if !config.image_pull_secrets.is_empty() {
        let secrets: Vec<_> = config.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
        patched.converge(&at!["spec", "imagePullSecrets"], &Value::Array(secrets));
    }
}

/// In the host's network localhost is the node's, and a port is taken once: the API server refuses a pod that takes one
/// twice.
fn check_host_network(
    spec: &Value,
    others: &[&Value],
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    if spec.get("hostNetwork") != Some(&json!(true)) {
        return Ok(());
    }
    if options.notify.iter().any(|notify| matches!(notify, Notify::Http { .. })) {
        warnings.push(format!("{PREFIX}{NOTIFY}: with hostNetwork, http: reaches the node's localhost, not the pod's"));
    }
    let Some(port) = options.metrics_port else { return Ok(()) };
    let takes_it = |container: &&&Value| {
        let mut ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        let is_tcp = |port: &Value| port.get("protocol").is_none_or(|protocol| protocol == "TCP");
        ports.any(|taken| taken.get("containerPort") == Some(&json!(port)) && is_tcp(taken))
    };
    others.iter().find(takes_it).map_or(Ok(()), |container| {
        Err(Refusal::Pod(format!(
            "annotation {PREFIX}{METRICS_PORT}: container {:?} has port {port} of the node, too: write another one",
            name_of(container)
        )))
    })
}

/// No two containers have one name, which Kubernetes would refuse: what follows looks for them by it.
fn check_names(spec: &Value) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for container in LISTS.iter().flat_map(|list| containers(spec, list)) {
        let name = name_of(container);
        steps::look(name)?;
        if !seen.insert(name) {
            return Err(Refusal::Pod(format!("the pod has two containers of the name {name:?}: rename one of them")));
        }
    }
    steps::take(containers(spec, "volumes").len())?;
    Ok(())
}

/// The pod's mode: what it says, else what fits its restart policy and the cluster.
fn choose_mode(
    spec: &Value,
    asked: Option<Mode>,
    config: &Config,
    warnings: &mut Vec<String>,
) -> Result<Mode, Refusal> {
    let restart = spec.get("restartPolicy").and_then(Value::as_str).unwrap_or("Always");
    let has_no_sidecar = matches!(asked, Some(Mode::Init | Mode::Csi));
    if !config.native_sidecars && restart != "Always" && !has_no_sidecar {
        return Err(Refusal::Pod(format!(
            "annotation {PREFIX}{MODE}: this cluster has no native sidecars, so a pod with restartPolicy {restart} \
             would never end: write {PREFIX}{MODE}: init"
        )));
    }
    match asked {
        // A native sidecar restarts for ever whatever the pod's policy, and a Job that is refused would never fail.
        None if restart == "Never" => Ok(Mode::InitAndSidecar),
        None => Ok(Mode::Sidecar),
        Some(Mode::Sidecar) if restart == "Never" => {
            warnings.push(format!(
                "{PREFIX}{MODE}: sidecar with restartPolicy Never: if the secrets are refused, the pod waits instead of failing"
            ));
            Ok(Mode::Sidecar)
        }
        Some(mode) => Ok(mode),
    }
}
