//! Which pods are meant: by name, by workload, by label, or all.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::core::Selector;
use kube::{Api, ResourceExt as _};
use serde::Deserialize;

use super::arguments::TargetArgs;
use super::connect::{Cluster, in_time};
use super::error::FleetError;
use super::our_pod::is_ours;
use super::safe::shown;
use crate::parse_error::invalid;
use crate::sentence::suggestion;

/// Pods that one answer of the API server has.
const PAGE: u32 = 500;
/// How often a list is begun, if the API server forgets the first page before the last.
const LISTS: usize = 3;
/// Pods that are kept in mind: more than any cluster has.
const MOST: usize = 200_000;

/// What was found.
#[derive(Default)]
pub(super) struct SelectedPods {
    /// Pods of ours.
    pub(super) pods: Vec<Pod>,
    /// Workloads by their names, with the annotations that their next pods will have.
    pub(super) templates: Vec<(String, BTreeMap<String, String>)>,
}

/// A kind of workload: how it may be written, and where the API has it.
struct WorkloadKind {
    names: &'static [&'static str],
    group: &'static str,
    plural: &'static str,
}

const KINDS: [WorkloadKind; 5] = [
    WorkloadKind { names: &["deployment", "deployments", "deploy"], group: "apps/v1", plural: "deployments" },
    WorkloadKind { names: &["statefulset", "statefulsets", "sts"], group: "apps/v1", plural: "statefulsets" },
    WorkloadKind { names: &["daemonset", "daemonsets", "ds"], group: "apps/v1", plural: "daemonsets" },
    WorkloadKind { names: &["replicaset", "replicasets", "rs"], group: "apps/v1", plural: "replicasets" },
    WorkloadKind { names: &["job", "jobs"], group: "batch/v1", plural: "jobs" },
];

// === impl WorkloadKind ===

impl WorkloadKind {
    /// As people write it, or as `kubectl get -o name` does: `deployment.apps`.
    fn is_called(&self, kind: &str) -> bool {
        let group = self.group.split('/').next().unwrap_or_default();
        let name = kind.strip_suffix(group).and_then(|name| name.strip_suffix('.')).unwrap_or(kind);
        self.names.contains(&name)
    }
}

/// What all of them have.
#[derive(Deserialize)]
struct Workload {
    spec: WorkloadSpec,
}

#[derive(Deserialize)]
struct WorkloadSpec {
    selector: Option<LabelSelector>,
    template: Template,
}

#[derive(Deserialize)]
struct Template {
    #[serde(default)]
    metadata: TemplateMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TemplateMetadata {
    annotations: BTreeMap<String, String>,
}

/// The pods of ours among those that are meant.
///
/// # Errors
/// A name that does not exist, or what the API server does not let the person see.
pub(super) async fn pods(cluster: &Cluster, target: &TargetArgs) -> Result<SelectedPods, FleetError> {
    let mut found = SelectedPods::default();
    let all = if target.all_namespaces { Api::all(cluster.client.clone()) } else { cluster.pods() };
    if target.names.is_empty() {
        let params = ListParams { label_selector: target.selector.clone(), ..ListParams::default() };
        found.pods = list(&all, params, is_ours).await?;
        return Ok(found);
    }
    for name in &target.names {
        match name.split_once('/') {
            None => found.pods.push(pod(cluster, name).await?),
            Some(("pod" | "pods" | "po", name)) => found.pods.push(pod(cluster, name).await?),
            Some((kind, name)) => {
                let kind = &kind.to_ascii_lowercase();
                let WorkloadSpec { selector, template } = workload(cluster, kind, name).await?;
                let selector = selector.ok_or_else(|| FleetError::Failed(format!("{kind}/{name} selects no pods")))?;
                let selector: Selector =
                    selector.try_into().map_err(|_| FleetError::Failed(format!("{kind}/{name}: unknown selector")))?;
                found.pods.extend(list(&cluster.pods(), ListParams::default().labels_from(&selector), is_ours).await?);
                found.templates.push((format!("{kind}/{name}"), template.metadata.annotations));
            }
        }
    }
    // Some may be named, and be of a named workload too.
    let mut seen = std::collections::BTreeSet::new();
    found.pods.retain(|pod| seen.insert(pod.uid().unwrap_or_else(|| pod.name_any())));
    Ok(found)
}

/// All pages of a list, without what is not wanted.
pub(super) async fn list(
    api: &Api<Pod>,
    params: ListParams,
    is_wanted: impl Fn(&Pod) -> bool,
) -> Result<Vec<Pod>, FleetError> {
    let mut pods = Vec::new();
    let mut params = ListParams { limit: Some(PAGE), ..params };
    let mut again = LISTS;
    loop {
        let page = match in_time(api.list(&params)).await {
            // The list is older than what the API server remembers: what it has now is as good.
            Err(kube::Error::Api(status)) if status.code == 410 && again > 1 => {
                again -= 1;
                params.continue_token = None;
                pods.clear();
                continue;
            }
            page => page.map_err(|error| FleetError::of_api("pods cannot be listed", &error))?,
        };
        let next = page.metadata.continue_.clone().filter(|token| !token.is_empty());
        pods.extend(page.items.into_iter().filter(&is_wanted));
        if pods.len() > MOST {
            return Err(FleetError::Failed(format!("more than {MOST} pods: name a namespace or a selector")));
        }
        match next {
            Some(token) if params.continue_token.as_ref() == Some(&token) => {
                let problem = "pods cannot be listed: the API server gives one page again and again";
                return Err(FleetError::Failed(problem.to_owned()));
            }
            Some(token) => params.continue_token = Some(token),
            None => return Ok(pods),
        }
    }
}

async fn pod(cluster: &Cluster, name: &str) -> Result<Pod, FleetError> {
    check_name(name)?;
    let pod = in_time(cluster.pods().get(name)).await;
    let pod = pod.map_err(|error| FleetError::of_api(&format!("pod {}", shown(name, 253)), &error))?;
    if is_ours(&pod) {
        Ok(pod)
    } else {
        Err(FleetError::Failed(format!(
            "pod {name} has no secrets of hushpod: neither a container nor a volume of ours"
        )))
    }
}

async fn workload(cluster: &Cluster, kind: &str, name: &str) -> Result<WorkloadSpec, FleetError> {
    check_name(name)?;
    let Some(WorkloadKind { group, plural, .. }) = KINDS.iter().find(|known| known.is_called(kind)) else {
        let known: Vec<_> = KINDS.iter().flat_map(|kind| kind.names).copied().chain(["pod"]).collect();
        return Err(FleetError::Usage(format!("unknown kind {:?}{}", shown(kind, 64), suggestion(kind, &known))));
    };
    check_name(&cluster.namespace)?;
    let path = format!("/apis/{group}/namespaces/{}/{plural}/{name}", cluster.namespace);
    let request = http_get(&path)?;
    let found = in_time(cluster.client.request::<Workload>(request)).await;
    Ok(found.map_err(|error| FleetError::of_api(&format!("{kind}/{name}"), &error))?.spec)
}

fn http_get(path: &str) -> Result<hyper::Request<Vec<u8>>, FleetError> {
    let request = hyper::Request::get(path).body(Vec::new());
    request.map_err(|_| FleetError::Usage(format!("invalid name in {:?}", shown(path, 253))))
}

/// A name becomes part of a path.
fn check_name(name: &str) -> Result<(), FleetError> {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if !name.is_empty() && name.len() <= 253 && name.bytes().all(is_fine) && !name.starts_with('.') {
        return Ok(());
    }
    Err(FleetError::Usage(invalid("name", &shown(name, 253), "lower-case letters, digits, '-' and '.'").to_string()))
}
