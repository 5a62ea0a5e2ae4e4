//! Pods of ours: what the API server knows of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use serde::Serialize;

use crate::contract::{CSI_DRIVER, INIT, SIDECAR};

/// The container of the CSI driver's pods.
pub(super) const DRIVER_CONTAINER: &str = "csi";

/// A pod of ours.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OurPod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: Option<String>,
    pub(super) mode: PodMode,
    pub(super) phase: String,
    pub(super) is_ready: bool,
    /// Seconds since 1970.
    #[serde(skip)]
    pub(super) created: i64,
    #[serde(skip)]
    pub(super) annotations: BTreeMap<String, String>,
}

/// How it gets its files: what the pod has of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum PodMode {
    #[serde(rename = "sidecar")]
    Sidecar,
    #[serde(rename = "init+sidecar")]
    InitAndSidecar,
    #[serde(rename = "init")]
    Init,
    #[serde(rename = "csi")]
    Csi,
}

/// Whether a pod has a container or a volume of ours.
pub(super) fn is_ours(pod: &Pod) -> bool {
    mode_of(pod).is_some()
}

fn mode_of(pod: &Pod) -> Option<PodMode> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten();
    let has = |name: &str| init.clone().chain(&spec.containers).any(|container: &Container| container.name == name);
    let has_volume = || {
        let drivers = spec.volumes.iter().flatten().filter_map(|volume| volume.csi.as_ref());
        drivers.into_iter().any(|volume| volume.driver == CSI_DRIVER)
    };
    match (has(INIT), has(SIDECAR)) {
        (true, true) => Some(PodMode::InitAndSidecar),
        (true, false) => Some(PodMode::Init),
        (false, true) => Some(PodMode::Sidecar),
        (false, false) => has_volume().then_some(PodMode::Csi),
    }
}

// === impl PodMode ===

impl PodMode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::InitAndSidecar => "init+sidecar",
            Self::Init => "init",
            Self::Csi => "csi",
        }
    }

    /// The container whose log has the report.
    pub(super) fn agent(self) -> &'static str {
        match self {
            Self::Sidecar | Self::InitAndSidecar => SIDECAR,
            Self::Init => INIT,
            Self::Csi => DRIVER_CONTAINER,
        }
    }

    /// Whether something runs that could be told anything.
    pub(super) fn is_live(self) -> bool {
        self != Self::Init
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
            created: pod.creation_timestamp().map_or(0, |time| time.0.as_second()),
            annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        })
    }

    /// Whether it has ended, or is about to.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
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
            (vec![SIDECAR], vec!["app"], json!([]), Some(PodMode::Sidecar)),
            (vec![INIT], vec!["app", SIDECAR], json!([]), Some(PodMode::InitAndSidecar)),
            (vec![INIT, SIDECAR], vec!["app"], json!([]), Some(PodMode::InitAndSidecar)),
            (vec![INIT], vec!["app"], json!([]), Some(PodMode::Init)),
            (vec![], vec!["app"], volume(CSI_DRIVER), Some(PodMode::Csi)),
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
