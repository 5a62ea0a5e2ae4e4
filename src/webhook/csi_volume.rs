//! Mode csi: no container of ours, but a volume of the driver's, which plans and decides by itself. The webhook writes down
//! what it alone can know of the pod, and refuses what the driver would.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{CSIVolumeSource, Volume};
use serde::Deserialize;
use serde_json::{Value, json};

use super::env_wrapper::EnvWrapper;
use super::permissions::Permissions;
use super::pod::{containers, name_of};
use super::refusal::Refusal;
use super::selection::Selection;
use crate::annotations::{
    CONTAINERS, DIR, ENV_VARIABLE, FILE, FILE_MODE, METRICS_PORT, MODE, NOTIFY, PROVIDER, REFRESH, ROLE, RUN_AS_GROUP,
    RUN_AS_USER, SECRETS, SHARE_LEASES, SIZE_LIMIT,
};
use crate::bundle::FileMode;
use crate::config::Config;
use crate::contract::{
    BIN_VOLUME, CSI_DAEMON_SET_ANNOTATION, CSI_DRIVER, CSI_PROGRAM_ATTRIBUTE, EXEC_COMMAND, MAX_NOTIFIED, PREFIX,
    SECRETS_VOLUME,
};
use crate::options::{Mode, Notify, Options};
use crate::plan::Plan;
use crate::steps;

/// Annotations that the driver reads.
const OF_THE_VOLUME: [&str; 5] = [SECRETS, PROVIDER, REFRESH, SIZE_LIMIT, SHARE_LEASES];
/// Families of them.
const FAMILIES: [&str; 4] = [FILE, DIR, ENV_VARIABLE, ROLE];

/// As far as rules look at it.
#[derive(Deserialize)]
struct Toleration<'a> {
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
}

/// Another mode, where the operator says that the driver is not where this pod will run.
pub(super) fn fall_back(
    pod: &Value,
    namespace: &str,
    config: &Config,
    options: &mut Options,
    warnings: &mut Vec<String>,
) {
    if options.mode == Some(Mode::Csi) && is_unavailable(pod, namespace, config) {
        warnings.push(format!(
            "{PREFIX}{MODE}: the CSI driver is not where this pod will run (config.csi.unavailable): a sidecar instead"
        ));
        options.mode = None;
    }
}

fn is_unavailable(pod: &Value, namespace: &str, config: &Config) -> bool {
    let mut rules = config.csi.iter().flat_map(|csi| &csi.unavailable).peekable();
    if rules.peek().is_none() {
        return false;
    }
    let labels: BTreeMap<Cow<'_, str>, Cow<'_, str>> = parsed(pod.pointer("/metadata/labels"));
    let tolerations: Vec<Toleration<'_>> = parsed(pod.pointer("/spec/tolerations"));
    let tolerated: Vec<_> = tolerations.iter().filter_map(|one| one.key.as_deref()).collect();
    steps::spend(labels.len() + tolerations.len());
    let selector = pod.pointer("/spec/nodeSelector");
    rules.any(|rule| {
        let label = |name: &str| labels.get(name).map(|value| &**value);
        let selected = |name: &str| selector?.get(name)?.as_str();
        rule.is_met(namespace, label, selected, &tolerated)
    })
}

/// What [`super::pod_view`] keeps as text; nothing, if it is not what Kubernetes would take.
fn parsed<'a, T: Deserialize<'a> + Default>(text: Option<&'a Value>) -> T {
    text.and_then(|text| serde_json::from_str(text.as_str()?).ok()).unwrap_or_default()
}

/// What the driver cannot do for this pod. There is no place among init containers: kubelet mounts the files before it
/// starts the first.
///
/// # Errors
/// [`Refusal`] names the annotation or field, and the way out.
pub(super) fn check(options: &mut Options, config: &Config) -> Result<(), Refusal> {
    options.init_order = None;
    let refuse =
        |annotation: &str, problem: &str| Err(Refusal::Pod(format!("annotation {PREFIX}{annotation}: {problem}")));
    if config.csi.is_none() {
        return refuse(
            MODE,
            "this cluster has no CSI driver of hushpod (csi.enabled in the chart): expected mode sidecar",
        );
    }
    if options.metrics_port.is_some() {
        let problem = "mode csi has no agent in the pod: leave it out, the driver has the metrics of its node's pods";
        return refuse(METRICS_PORT, problem);
    }
    Ok(())
}

/// Notifications come from the parents of applications with variables: the only processes of ours in the pod.
///
/// # Errors
/// [`Refusal`] says what to do where no such parent stays, or what it must not reach.
pub(super) fn check_notify(
    spec: &Value,
    options: &Options,
    wrapper: Option<&EnvWrapper<'_>>,
    selection: &Selection,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let refuse = |problem: &str| Err(Refusal::Pod(format!("annotation {PREFIX}{NOTIFY}: {problem}")));
    if options.notify.is_empty() {
        return Ok(());
    }
    if options.notify.len() > MAX_NOTIFIED {
        return refuse(&format!("mode csi tells at most {MAX_NOTIFIED}: write fewer, or use mode sidecar"));
    }
    let tellers = wrapper.map_or(0, |wrapper| wrapper.tellers(spec, selection).count());
    if tellers == 0 {
        return refuse(
            "mode csi has nothing in the pod that could notify, but in containers with variables (env): watch the \
             directory, or use mode sidecar",
        );
    }
    let is = |field: &str| spec.get(field) == Some(&json!(true));
    if options.notify.iter().any(|notify| matches!(notify, Notify::Signal { .. })) {
        if is("hostPID") {
            return refuse("with hostPID a signal would reach processes of other pods: use http: instead");
        }
        if tellers > 1 && is("shareProcessNamespace") {
            warnings.push(format!(
                "{PREFIX}{NOTIFY}: with shareProcessNamespace each of {tellers} containers with variables signals all \
                 processes of that name and its uid: one of them may hear of a change {tellers} times"
            ));
        }
    }
    Ok(())
}

/// What the driver's volumes cannot read.
///
/// # Errors
/// [`Refusal`] names the pod's volume.
pub(super) fn check_plan(plan: &Plan) -> Result<(), Refusal> {
    match plan.volumes().into_iter().next() {
        Some(volume) => Err(Refusal::Pod(format!(
            "annotation {PREFIX}{MODE}: the provider reads the pod's own volume {volume:?}, which the CSI driver cannot \
             see: expected mode sidecar"
        ))),
        None => Ok(()),
    }
}

/// What the pod is to say of the driver's DaemonSet, unless it does: kubelet's event of a node without the driver names the
/// driver alone.
pub(super) fn daemon_set<'a>(
    annotations: &BTreeMap<String, String>,
    mode: Mode,
    config: &'a Config,
) -> Option<&'a str> {
    let daemon_set = config.csi.as_ref().filter(|_| mode == Mode::Csi)?.daemon_set.as_str();
    (annotations.get(CSI_DAEMON_SET_ANNOTATION).map(String::as_str) != Some(daemon_set)).then_some(daemon_set)
}

/// The volume with the files. Its attributes are the pod's annotations without their prefix, who may read the files, and
/// which containers were chosen to: a later pass gives the mount to no others.
pub(super) fn files(
    annotations: &BTreeMap<String, String>,
    access: Permissions,
    options: &Options,
    selected: &[String],
) -> Volume {
    let ours = annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    let is_of_the_volume =
        |name: &str| OF_THE_VOLUME.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family));
    let mut attributes: BTreeMap<String, String> =
        ours.filter(|(name, _)| is_of_the_volume(name)).map(|(name, value)| (name.to_owned(), value.clone())).collect();
    let mut set = |name: &str, value: String| drop(attributes.insert(name.to_owned(), value));
    set(FILE_MODE, access.file_mode.to_string());
    // The files belong to whom they are for: to one agreed user, else to the pod's fsGroup, which kubelet tells the driver.
    let user = options.run_as_user.or(access.user.filter(|_| access.file_mode == FileMode::OWNER));
    if let Some(user) = user {
        set(RUN_AS_USER, user.to_string());
    }
    if let Some(group) = options.run_as_group {
        set(RUN_AS_GROUP, group.to_string());
    }
    set(CONTAINERS, selected.join(","));
    volume(SECRETS_VOLUME, attributes)
}

/// The volume with the program that applications with variables are started through.
pub(super) fn program() -> Volume {
    volume(BIN_VOLUME, BTreeMap::from([(CSI_PROGRAM_ATTRIBUTE.to_owned(), EXEC_COMMAND.to_owned())]))
}

/// The containers that an earlier pass chose, if there was one.
pub(super) fn chosen(spec: &Value) -> Option<Vec<String>> {
    let volume = containers(spec, "volumes").iter().find(|volume| name_of(volume) == SECRETS_VOLUME)?;
    let csi = volume.get("csi").filter(|csi| csi.get("driver") == Some(&json!(CSI_DRIVER)))?;
    let names = csi.pointer("/volumeAttributes").and_then(|attributes| attributes.get(CONTAINERS)?.as_str())?;
    Some(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn volume(name: &str, attributes: BTreeMap<String, String>) -> Volume {
    let csi = CSIVolumeSource {
        driver: CSI_DRIVER.to_owned(),
        read_only: Some(true),
        volume_attributes: Some(attributes),
        ..CSIVolumeSource::default()
    };
    Volume { name: name.to_owned(), csi: Some(csi), ..Volume::default() }
}
