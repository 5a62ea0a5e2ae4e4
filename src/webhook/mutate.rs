//! The mutation: pod in, patch out. A pure function of the pod and the operator's configuration.
//!
//! It says what must hold and converges the pod to it, so that a second pass, a reinvocation after another webhook, and
//! a pod copied from a running one all come to the same. What the pod holds is what counts, not a note that we left.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::access::Access;
use super::containers::{Injected, is_ours, plan_of, runs_agent};
use super::own::{check_variables, replace_container, replace_volume};
use super::patch::{Patch, Patched, Step, at, below};
use super::prepared::{Asked, Remembered};
use super::resources::Standing;
use super::wrap::Wrapper;
use super::{mounts, sources};
use crate::annotations::{self, AnnotationError, METRICS_PORT, MODE, NOTIFY};
use crate::config::{Config, Identity};
use crate::contract::{INIT, PREFIX, SIDECAR, VOLUME_PREFIX};
use crate::options::{InitOrder, Mode, Notify, Options};
use crate::plan::PlanError;
use crate::steps::{self, OverBudget};

/// Decides on pods by one configuration. What it decides does not depend on what it remembers.
#[derive(Debug)]
pub struct Injector {
    config: Config,
    remembered: Remembered,
}

/// What to do with a pod that is admitted.
#[derive(Debug, Default)]
pub struct Mutation {
    /// The patch; empty if the pod did not ask, or holds all of it already.
    pub patch: Patch,
    /// What its author should know.
    pub warnings: Vec<String>,
}

/// Why a pod is denied, in one sentence for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An annotation cannot be understood.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// The bundle cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The pod itself stands in the way.
    #[error("{0}")]
    Pod(String),
}

impl From<OverBudget> for Refusal {
    fn from(spent: OverBudget) -> Self {
        Self::Pod(spent.to_string())
    }
}

impl From<String> for Refusal {
    fn from(problem: String) -> Self {
        Self::Pod(problem)
    }
}

/// Where containers stand in a pod's `spec`.
pub(super) const LISTS: [&str; 2] = ["initContainers", "containers"];

/// Kubernetes has no longer names. (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>)
const MAX_NAME_BYTES: usize = 253;

/// The annotation of static pods. (<https://kubernetes.io/docs/reference/labels-annotations-taints/>)
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

// === impl Injector ===

impl Injector {
    /// One that remembers nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, remembered: Remembered::default() }
    }

    /// What it decides by.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Mutates a pod that is being created in `namespace`.
    ///
    /// # Errors
    /// [`Refusal`], whose sentence names the annotation, field, container or volume.
    pub fn mutate(&self, mut pod: Value, namespace: &str) -> Result<Mutation, Refusal> {
        let config = &self.config;
        let annotations = take_annotations(&mut pod);
        if !annotations::opts_in(&annotations) {
            return Ok(Mutation::default());
        }
        let (bundle, options) = annotations::parse(&annotations)?;
        let mut options = options.or(&config.defaults);
        let spec = pod.get("spec").unwrap_or(&Value::Null);
        screen(spec, &annotations, config)?;
        check_names(spec)?;
        let mut warnings = Vec::new();
        let mode = choose_mode(spec, options.mode, config, &mut warnings)?;
        options.mode = Some(mode);
        let (ours, others): (Vec<_>, Vec<_>) =
            LISTS.iter().flat_map(|list| containers(spec, list)).partition(|container| is_ours(container));
        others.iter().try_for_each(|container| check_variables(container))?;
        let earlier = ours.first().and_then(|container| plan_of(container));
        mounts::check_path(spec, &options, &mut warnings);
        let selection = mounts::Selection::of(spec, &options, earlier.as_ref(), config, &mut warnings)?;
        // By those that were selected at first, so that what others inject later changes nothing.
        let access = Access::decide(spec, &selection.containers(spec), &options)
            .map_err(|problem| Refusal::Pod(format!("annotation {PREFIX}{NOTIFY}: {problem}")))?;
        options.file_mode = Some(access.file_mode);
        if mode == Mode::Init && options.metrics_port.take().is_some() {
            warnings.push(format!("{PREFIX}{METRICS_PORT}: mode init leaves no agent that could serve metrics"));
        }
        let wrapper = Wrapper::of(spec, &bundle, &options, mode)?;
        let standing = Standing::of(spec, others.iter().copied());
        standing.warn(&annotations, &mut warnings);
        check_host_network(spec, &others, &options, &mut warnings)?;
        let asked = Asked {
            annotations,
            identity: identity(spec, namespace)?,
            mode,
            access,
            standing,
            containers: selection.names().map(str::to_owned).collect(),
        };
        let prepared = self.remembered.prepare(asked, &bundle, &options, config)?;
        prepared.warnings.iter().for_each(|warning| tracing::warn!(namespace, "{warning}"));
        warnings.extend(prepared.warnings.iter().cloned());
        sources::check(spec, &prepared.reads)?;

        let mut patched = Patched::new(pod);
        converge_volumes(&mut patched, &prepared.volumes)?;
        place(&mut patched, &prepared.containers, &options, standing, &mut warnings)?;
        // Before the mounts: what is started through our program needs it.
        if let Some(wrapper) = wrapper {
            wrapper.converge(&mut patched, &selection)?;
        }
        mounts::converge(&mut patched, &selection, &options, &mut warnings)?;
        if options.notify.iter().any(|notify| matches!(notify, Notify::Signal { .. })) {
            patched.set(&at!["spec", "shareProcessNamespace"], json!(true));
        }
        add_pull_secrets(&mut patched, config);
        steps::check()?;
        Ok(Mutation { patch: patched.into_patch(), warnings })
    }
}

/// A subresource that adds ephemeral containers: they may not mount our volumes, where they would see what only the
/// agent may, or open the gate; nor take variables out of them, nor join the agent's processes.
///
/// # Errors
/// [`Refusal`] names the container and what it reaches for.
pub fn check_ephemeral(pod: &Value) -> Result<(), Refusal> {
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
        check_variables(container)?;
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
    let account = spec.get("serviceAccountName").and_then(Value::as_str).filter(|name| !name.is_empty());
    let account = account.unwrap_or("default");
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
    if !config.native_sidecars && restart != "Always" && asked.is_none_or(|mode| mode != Mode::Init) {
        return Err(Refusal::Pod(format!(
            "annotation {PREFIX}{MODE}: this cluster has no native sidecars, so that a pod with restartPolicy {restart} \
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

/// Our volumes, added or converged; one of our names on anything else is refused.
fn converge_volumes(patched: &mut Patched, wanted: &[Injected]) -> Result<(), Refusal> {
    let list = at!["spec", "volumes"];
    let taken = |name: &str| Refusal::Pod(format!("volume name {name:?} is hushpod's own: rename the pod's volume"));
    let known = |name: &str| wanted.iter().any(|volume| volume.name == name);
    let mut present = patched.list(&list).iter().map(name_of);
    if let Some(stranger) = present.find(|name| name.starts_with(VOLUME_PREFIX) && !known(name)) {
        return Err(taken(stranger));
    }
    for volume in wanted {
        let name = &volume.name;
        let Some(index) = patched.list(&list).iter().position(|present| name_of(present) == name) else {
            patched.insert(&list, usize::MAX, &volume.json, volume.seen());
            continue;
        };
        let volume = volume.value();
        let kinds = |volume: &Value| -> Vec<String> {
            volume.as_object().map(|v| v.keys().filter(|key| *key != "name").cloned().collect()).unwrap_or_default()
        };
        if patched.list(&list).get(index).is_none_or(|present| kinds(present) != kinds(&volume)) {
            return Err(taken(name));
        }
        replace_volume(patched, &at!["spec", "volumes", index], volume);
    }
    Ok(())
}

/// Our containers, added or converged, at the place that `init-order` names.
fn place(
    patched: &mut Patched,
    wanted: &[Injected],
    options: &Options,
    standing: Standing,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    remove_unwanted(patched, wanted)?;
    let order = options.init_order.clone().unwrap_or(InitOrder::First);
    let mut next = first_place(patched, &order, warnings)?;
    let has_host_network = patched.get(&at!["spec", "hostNetwork"]) == Some(&json!(true));
    for injected in wanted {
        let is_init = injected.list == "initContainers";
        let list = at!["spec", injected.list];
        let present = patched.list(&list).iter().position(|present| name_of(present) == injected.name);
        let index = match present {
            // Behind the container that it must follow is enough: others that were put between do no harm.
            Some(index) if is_init && index < next && matches!(order, InitOrder::After(_)) => {
                next = move_behind(patched, &list, index, next);
                next
            }
            Some(index) => index,
            None => {
                if is_init {
                    next
                } else {
                    patched.list(&list).len()
                }
            }
        };
        if present.is_some() {
            let path = below(&list, Step::Index(index));
            if patched.get(&path).is_some_and(|container| !runs_agent(container)) {
                warnings.push(format!(
                    "container {:?} has hushpod's own name: all but its image and resources is replaced",
                    injected.name
                ));
            }
            replace_container(patched, &path, injected.value(), has_host_network);
            standing.release(patched, &path);
        } else {
            patched.insert(&list, index, &injected.json, injected.seen());
        }
        if is_init {
            next = index + 1;
        }
    }
    Ok(())
}

/// Moves an item of a list behind the one before `next`; gives its new index.
fn move_behind(patched: &mut Patched, list: &[Step<'_>], index: usize, next: usize) -> usize {
    let moved = patched.list(list).get(index).cloned().unwrap_or_default();
    patched.remove(&below(list, Step::Index(index)));
    // What stood behind it has moved up by one.
    let next = next.saturating_sub(1);
    patched.insert(list, next, moved.clone(), moved);
    next
}

/// The index among init containers where our first one belongs.
fn first_place(patched: &Patched, order: &InitOrder, warnings: &mut Vec<String>) -> Result<usize, Refusal> {
    let present = patched.list(&at!["spec", "initContainers"]);
    match order {
        InitOrder::First => Ok(0),
        // Once placed we stay, whatever others add behind us later.
        InitOrder::Last => Ok(present.iter().position(is_ours).unwrap_or(present.len())),
        // Behind itself it would be moved at every pass.
        InitOrder::After(name) if name == SIDECAR || name == INIT => Err(Refusal::Pod(format!(
            "annotation {PREFIX}init-order: {name:?} is hushpod's own container: name one of the pod's, or write first"
        ))),
        InitOrder::After(name) => {
            if let Some(index) = present.iter().position(|container| name_of(container) == name) {
                return Ok(index + 1);
            }
            if patched.list(&at!["spec", "containers"]).iter().any(|container| name_of(container) == name) {
                return Err(Refusal::Pod(format!(
                    "annotation {PREFIX}init-order: {name:?} is an application container: name an init container"
                )));
            }
            warnings.push(format!(
                "{PREFIX}init-order: no init container {name:?} yet; placed first until another webhook adds it"
            ));
            Ok(0)
        }
    }
}

/// Takes away our containers of a mode that the pod no longer has. An application that has one of our names where none
/// of ours belongs is not ours to take away.
fn remove_unwanted(patched: &mut Patched, wanted: &[Injected]) -> Result<(), Refusal> {
    for list in LISTS {
        let mut index = 0;
        while let Some(container) = patched.list(&at!["spec", list]).get(index) {
            let name = name_of(container);
            if !is_ours(container) || wanted.iter().any(|injected| injected.name == name && injected.list == list) {
                index += 1;
            } else if runs_agent(container) {
                patched.remove(&at!["spec", list, index]);
            } else {
                return Err(Refusal::Pod(format!(
                    "container name {name:?} is hushpod's own: rename the pod's container"
                )));
            }
        }
    }
    Ok(())
}

/// The containers of one list of a pod's `spec`.
pub(super) fn containers<'a>(spec: &'a Value, list: &str) -> &'a [Value] {
    spec.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// An object's `name`; empty if it has none.
pub(super) fn name_of(object: &Value) -> &str {
    object.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// They are looked at once, and never patched.
fn take_annotations(pod: &mut Value) -> BTreeMap<String, String> {
    let taken = pod.pointer_mut("/metadata/annotations").map(Value::take);
    let Some(Value::Object(annotations)) = taken else { return BTreeMap::new() };
    let text = |(key, value)| if let Value::String(value) = value { Some((key, value)) } else { None };
    annotations.into_iter().filter_map(text).collect()
}
