//! Pods of ours: what the API server knows of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use serde::{Serialize, Serializer};

use super::safe::shown;
use crate::contract::{CSI_DRIVER, INIT, SIDECAR};
use crate::options::Mode;

/// The container of the CSI driver's pods.
pub(super) const DRIVER_CONTAINER: &str = "csi";

/// Characters of a name, as Kubernetes has it.
const MOST_NAME: usize = 253;

/// A pod of ours.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OurPod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: Option<String>,
    /// How it gets its files: what it has of ours.
    #[serde(serialize_with = "as_text")]
    pub(super) mode: Mode,
    pub(super) phase: String,
    pub(super) is_ready: bool,
    /// Whether it is being deleted: its containers may run on for its grace period.
    pub(super) is_deleting: bool,
    /// Seconds since 1970.
    #[serde(skip)]
    pub(super) created: i64,
    #[serde(skip)]
    pub(super) annotations: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field as it is")]
fn as_text<S: Serializer>(mode: &Mode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(mode.as_str())
}

/// Whether a pod has a container or a volume of ours.
pub(super) fn is_ours(pod: &Pod) -> bool {
    mode_of(pod).is_some()
}

fn mode_of(pod: &Pod) -> Option<Mode> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten();
    let has = |name: &str| init.clone().chain(&spec.containers).any(|container: &Container| container.name == name);
    let has_volume = || {
        let drivers = spec.volumes.iter().flatten().filter_map(|volume| volume.csi.as_ref());
        drivers.into_iter().any(|volume| volume.driver == CSI_DRIVER)
    };
    match (has(INIT), has(SIDECAR)) {
        (true, true) => Some(Mode::InitAndSidecar),
        (true, false) => Some(Mode::Init),
        (false, true) => Some(Mode::Sidecar),
        (false, false) => has_volume().then_some(Mode::Csi),
    }
}

// === impl OurPod ===

impl OurPod {
    /// `None` if it has nothing of ours.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let mode = mode_of(pod)?;
        let status = pod.status.clone().unwrap_or_default();
        let is_ready = status.conditions.iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
        Some(Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            mode,
            phase: status.phase.unwrap_or_default(),
            is_ready,
            is_deleting: pod.metadata.deletion_timestamp.is_some(),
            created: pod.creation_timestamp().map_or(0, |time| time.0.as_second()),
            annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        })
    }

    /// The container whose log has the report.
    pub(super) fn agent(&self) -> &'static str {
        match self.mode {
            Mode::Sidecar | Mode::InitAndSidecar => SIDECAR,
            Mode::Init => INIT,
            Mode::Csi => DRIVER_CONTAINER,
        }
    }

    /// Whether something runs that could be told anything.
    pub(super) fn is_live(&self) -> bool {
        self.mode != Mode::Init
    }

    /// Whether it has ended, or is about to.
    pub(super) fn has_ended(&self) -> bool {
        self.is_deleting || matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Its name, for a terminal; with its namespace, if that is not the one that is being looked at.
    pub(super) fn shown_from(&self, namespace: &str) -> String {
        let name = shown(&self.name, MOST_NAME);
        if self.namespace == namespace { name } else { format!("{}/{name}", shown(&self.namespace, MOST_NAME)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_mode_is_what_it_has_of_ours() {
        let container = |name: &str| json!({"name": name});
        let volume = |driver: &str| json!([{"name": "v", "csi": {"driver": driver}}]);
        for (init, containers, volumes, mode) in [
            (vec![SIDECAR], vec!["app"], json!([]), Some(Mode::Sidecar)),
            (vec![INIT], vec!["app", SIDECAR], json!([]), Some(Mode::InitAndSidecar)),
            (vec![INIT, SIDECAR], vec!["app"], json!([]), Some(Mode::InitAndSidecar)),
            (vec![INIT], vec!["app"], json!([]), Some(Mode::Init)),
            (vec![], vec!["app"], volume(CSI_DRIVER), Some(Mode::Csi)),
            (vec![], vec!["app"], volume("other.example"), None),
            (vec!["hushpods"], vec!["app"], json!([]), None),
        ] {
            let all = |names: &[&str]| names.iter().map(|name| container(name)).collect::<Vec<_>>();
            let pod = json!({
                "metadata": {"name": "x"},
                "spec": {"initContainers": all(&init), "containers": all(&containers), "volumes": volumes},
            });
            assert_eq!(mode_of(&serde_json::from_value(pod).unwrap()), mode, "{init:?} {containers:?}");
        }
    }
}
