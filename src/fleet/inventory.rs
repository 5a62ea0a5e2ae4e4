//! What pods hold: pods of ours, and the last report of each. Agents write theirs into their own log, the CSI driver those
//! of its pods into its own; nothing is executed anywhere.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::Serialize;

use super::connect::{AT_A_TIME, Cluster};
use super::error::{FleetError, is_missing, said};
use super::logs::{LogPart, reports};
use super::our_pod::{DRIVER_CONTAINER, OurPod};
use super::progress::ProgressLine;
use super::safe::shown;
use super::select::list;
use crate::contract::CSI_DAEMON_SET_ANNOTATION;
use crate::deliver::reporting::EVERY;
use crate::options::Mode;
use crate::report::line::ReportLine;

/// The labels that the chart gives the driver's pods.
const DRIVER_LABELS: &str = "app.kubernetes.io/part-of=hushpod,app.kubernetes.io/component=csi";
/// Within this time, a minute more than [`EVERY`], every volume has a line in the driver's log.
const DRIVER_SECONDS: i64 = 11 * 60;
const _: () = assert!(EVERY.as_secs() == 10 * 60);

/// A pod, and what is known of its files.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PodStatus {
    #[serde(flatten)]
    pub(super) pod: OurPod,
    /// The last report of each of its volumes.
    pub(super) reports: Vec<ReportLine>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// What the drivers' logs say.
#[derive(Debug, Default)]
struct DriverLogs {
    /// Those that have one.
    nodes: BTreeSet<String>,
    /// By the UIDs of pods.
    reports: BTreeMap<String, Vec<ReportLine>>,
    /// Why a node's log cannot be read, as of a node that is down.
    unread: BTreeMap<String, String>,
}

/// The last reports of these pods, in the order of namespaces and names.
pub(super) async fn look(cluster: &Cluster, pods: Vec<Pod>, progress: &mut ProgressLine) -> Vec<PodStatus> {
    let ours: Vec<_> = pods.iter().filter_map(OurPod::of).collect();
    let mut statuses = look_at(cluster, ours, DRIVER_SECONDS, progress).await;
    statuses.sort_by(|a, b| (&a.pod.namespace, &a.pod.name).cmp(&(&b.pod.namespace, &b.pod.name)));
    statuses
}

/// The same of pods that are known, in a driver's log within so many seconds.
pub(super) async fn look_at(
    cluster: &Cluster,
    pods: Vec<OurPod>,
    seconds: i64,
    progress: &mut ProgressLine,
) -> Vec<PodStatus> {
    let all = pods.len();
    let of_drivers = of_drivers(cluster, &pods, seconds).await;
    let of_drivers = &of_drivers;
    let mut looks = stream::iter(pods)
        .map(|pod| async move {
            match (pod.mode, of_drivers) {
                (Mode::Csi, Ok(known)) => known.status(pod),
                (Mode::Csi, Err(problem)) => PodStatus { pod, reports: Vec::new(), problem: Some(problem.to_string()) },
                _ => of_agent(cluster, pod).await,
            }
        })
        .buffer_unordered(AT_A_TIME);
    let mut statuses = Vec::with_capacity(all);
    while let Some(status) = looks.next().await {
        statuses.push(status);
        progress.at(statuses.len(), all, "pods read");
    }
    statuses
}

/// One pod, by the log of its agent.
async fn of_agent(cluster: &Cluster, pod: OurPod) -> PodStatus {
    let api = cluster.pods_in(&pod.namespace);
    let container = pod.agent();
    let mut problem = None;
    // Nearly always the first one has it.
    for part in [LogPart::End, LogPart::LongEnd] {
        match reports(&api, &pod.name, container, part).await {
            Ok(found) => {
                if let Some(last) = found.into_iter().next_back() {
                    return PodStatus { pod, reports: vec![last], problem: None };
                }
                problem = Some(format!("no report in the log of {container}"));
            }
            Err(error) => {
                problem = Some(if is_missing(&error) { "gone".to_owned() } else { said(&error) });
                break;
            }
        }
    }
    PodStatus { pod, reports: Vec::new(), problem }
}

/// The driver's logs of all nodes that have such pods, each read once.
async fn of_drivers(cluster: &Cluster, pods: &[OurPod], seconds: i64) -> Result<DriverLogs, FleetError> {
    let nodes: BTreeSet<&str> =
        pods.iter().filter(|pod| pod.mode == Mode::Csi).filter_map(|pod| pod.node.as_deref()).collect();
    if nodes.is_empty() {
        return Ok(DriverLogs::default());
    }
    let drivers = drivers(cluster, &nodes).await?;
    let mut logs = stream::iter(drivers)
        .map(|driver| async move {
            let api = cluster.pods_in(&driver.namespace().unwrap_or_default());
            let node = driver.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            (node, reports(&api, &driver.name_any(), DRIVER_CONTAINER, LogPart::Since(seconds)).await)
        })
        .buffer_unordered(AT_A_TIME);
    let nodes_of: BTreeMap<&str, &str> =
        pods.iter().filter_map(|pod| Some((pod.uid.as_str(), pod.node.as_deref()?))).collect();
    let mut known = DriverLogs::default();
    while let Some((node, log)) = logs.next().await {
        known.nodes.insert(node.clone());
        match log {
            Ok(lines) => known.take(lines, &node, &nodes_of),
            Err(error) => {
                known.unread.insert(node, said(&error));
            }
        }
    }
    Ok(known)
}

/// The driver's pods on these nodes. Anybody can label a pod so: if several namespaces have such, the person knows which.
async fn drivers(cluster: &Cluster, nodes: &BTreeSet<&str>) -> Result<Vec<Pod>, FleetError> {
    let api = match &cluster.csi_namespace {
        Some(namespace) => cluster.pods_in(namespace),
        None => Api::all(cluster.client.clone()),
    };
    let is_there = |pod: &Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        node.is_some_and(|node| nodes.contains(node))
    };
    let found = list(&api, ListParams::default().labels(DRIVER_LABELS), is_there).await.map_err(|error| {
        FleetError::Failed(format!(
            "the CSI driver's pods cannot be looked for ({error}): say --csi-namespace, and have the right to read it"
        ))
    })?;
    let namespaces: BTreeSet<_> = found.iter().filter_map(kube::ResourceExt::namespace).collect();
    if namespaces.len() > 1 {
        let all: Vec<_> = namespaces.iter().take(8).cloned().collect();
        let all = all.join(" and ");
        return Err(FleetError::Failed(format!("pods of {all} say that they are the CSI driver: say --csi-namespace")));
    }
    Ok(found)
}

/// The driver's pod on this one's node.
pub(super) async fn driver_of(cluster: &Cluster, pod: &OurPod) -> Result<Pod, FleetError> {
    let Some(node) = pod.node.as_deref() else {
        return Err(FleetError::Failed("the pod is on no node yet".to_owned()));
    };
    let nodes = [node].into();
    let found = drivers(cluster, &nodes).await?.into_iter().next();
    found.ok_or_else(|| FleetError::Failed(without_driver(pod)))
}

fn without_driver(pod: &OurPod) -> String {
    match pod.annotations.get(CSI_DAEMON_SET_ANNOTATION) {
        Some(daemon_set) => format!("no pod of DaemonSet {} is on its node", shown(daemon_set, 507)),
        None => "no pod of the CSI driver is on its node".to_owned(),
    }
}

// === impl DriverLogs ===

impl DriverLogs {
    /// The last reports of each volume, from the log of this node's driver, which knows of its own node alone.
    fn take(&mut self, lines: Vec<ReportLine>, node: &str, nodes_of: &BTreeMap<&str, &str>) {
        for line in lines {
            let Some(uid) = line.pod.uid.clone().filter(|uid| nodes_of.get(uid.as_str()) == Some(&node)) else {
                continue;
            };
            let of_pod = self.reports.entry(uid).or_default();
            of_pod.retain(|earlier| earlier.volume != line.volume);
            of_pod.push(line);
        }
    }

    fn status(&self, pod: OurPod) -> PodStatus {
        let reports = self.reports.get(&pod.uid).cloned().unwrap_or_default();
        let node = pod.node.as_deref().unwrap_or_default();
        let problem = reports.is_empty().then(|| match self.unread.get(node) {
            Some(cause) => format!("the log of its node's driver cannot be read: {cause}"),
            None if self.nodes.contains(node) => "the driver's log has no report of it".to_owned(),
            None => without_driver(&pod),
        });
        PodStatus { pod, reports, problem }
    }
}
