//! `deny`: what the operator's configuration refuses by now reaches the agents of running pods as an annotation, since an
//! agent has no configuration and asks no API server.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::arguments::DenyArgs;
use super::connect::Cluster;
use super::control::{carry_out, look, say};
use super::denial;
use super::error::FleetError;
use super::inventory::PodStatus;
use super::next_pods::OF_DENIED;
use super::order::Order;
use super::progress::ProgressLine;
use super::select;
use super::who::refused;
use crate::annotations::DENY;
use crate::config::Config;
use crate::contract::{INIT, PLAN_VARIABLE, PREFIX, SIDECAR};
use crate::plan::Plan;
use crate::plan::policy::rules_text;
use crate::sentence::counted_with;

/// What a configuration says of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// These rules refuse something of it.
    Refused(String),
    /// None does.
    Free,
    /// Neither its plan nor its reports say what it asks for.
    Unknown,
}

/// Does it.
pub(super) async fn run(
    cluster: &Cluster,
    args: DenyArgs,
    progress: &mut ProgressLine,
) -> Result<ExitCode, FleetError> {
    let DenyArgs { config, control } = args;
    let config = denial::configuration(&config)?;
    let found = select::pods(cluster, &control.target).await?;
    let planned: BTreeMap<_, _> =
        found.pods.iter().filter_map(|pod| Some((pod.uid()?, Verdict::of_plan(&plan_of(pod)?, &config)))).collect();
    let statuses = look(cluster, found.pods, progress).await?;
    let (mut rules, mut concerned, mut unknown) = (BTreeMap::new(), Vec::new(), 0);
    for status in statuses {
        let verdict = planned.get(&status.pod.uid).cloned();
        match verdict.unwrap_or_else(|| Verdict::of_reports(&status, &config)) {
            Verdict::Refused(by) => {
                rules.insert(status.pod.uid.clone(), by);
                concerned.push(status);
            }
            Verdict::Free if is_denied(&status) => concerned.push(status),
            Verdict::Free => {}
            Verdict::Unknown => unknown += 1,
        }
    }
    if unknown > 0 {
        let are = counted_with(unknown, "pod", "is", "are");
        progress.say(&format!("{are} left alone: neither plan nor report says what is asked for"));
    }
    if concerned.is_empty() {
        say("no pod asks for what is denied, and none is stopped for it")?;
        return Ok(ExitCode::SUCCESS);
    }
    let next = if rules.is_empty() { Vec::new() } else { vec![OF_DENIED.to_owned()] };
    carry_out(cluster, &Order::Deny(rules), concerned, &next, &control, progress).await
}

/// Whether it was told so, or says so.
fn is_denied(status: &PodStatus) -> bool {
    let PodStatus { pod, reports, .. } = status;
    pod.annotations.contains_key(&format!("{PREFIX}{DENY}")) || reports.iter().any(|report| report.denied.is_some())
}

/// What the webhook wrote for the pod's agents: all that they ask for, whether they have it or not.
fn plan_of(pod: &Pod) -> Option<Plan> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let ours = containers.filter(|container| [SIDECAR, INIT].contains(&container.name.as_str()));
    let mut variables = ours.flat_map(|container| container.env.iter().flatten());
    let plan = variables.find(|variable| variable.name == PLAN_VARIABLE)?;
    Plan::from_json(plan.value.as_deref()?).ok()
}

// === impl Verdict ===

impl Verdict {
    fn of_plan(plan: &Plan, config: &Config) -> Self {
        plan.denied(config).map_or(Self::Free, |denied| Self::Refused(denied.rules))
    }

    /// Of a pod of the driver, whose plan only the driver has, or of one whose plan is of another version.
    fn of_reports(status: &PodStatus, config: &Config) -> Self {
        let PodStatus { pod, reports, .. } = status;
        let of_report = |report| refused(config, &pod.namespace, report).into_iter().map(|(_, rule)| rule);
        let rules: BTreeSet<_> = reports.iter().flat_map(of_report).collect();
        let names_all = !reports.is_empty()
            && reports.iter().all(|report| !report.secrets.is_empty() && report.secrets_left_out == 0);
        match () {
            () if !rules.is_empty() => Self::Refused(rules_text(&rules)),
            () if names_all => Self::Free,
            () => Self::Unknown,
        }
    }
}
