//! The operator's settings for the CSI driver.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::allow::matches;
use super::error::{ConfigError, Faults};
use super::shape;
use crate::contract::CSI_DAEMON_SET;
use crate::quantity::parse_bytes;

/// Bytes of an object's name. (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>)
const MAX_OBJECT_NAME: usize = 253;

/// That there is a driver, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsiConfig {
    /// What volumes may take.
    pub limits: CsiLimits,
    /// Whose pods the driver is, maybe with a namespace before it: for people whose pods wait on a node without one.
    pub daemon_set: String,
    /// Pods that it cannot serve, by what they say of themselves: they get a sidecar instead.
    pub unavailable: Vec<Unavailable>,
}

/// What volumes may take of a node's memory: tmpfs pages are charged to the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsiLimits {
    /// Bytes of all volumes of one namespace on a node.
    pub bytes_per_namespace: u64,
    /// Bytes of all volumes on a node. The driver's memory limit has to leave room for them.
    pub bytes_per_node: u64,
}

/// Pods of nodes without the driver (Fargate, virtual nodes). All that is said of them must hold; texts are globs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Unavailable {
    /// Their namespace is one of these.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// They have these labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// They select such nodes.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// They tolerate one of these taints, by key.
    #[serde(default)]
    pub tolerations: Vec<String>,
}

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCsi {
    bytes_per_namespace: Option<String>,
    bytes_per_node: Option<String>,
    daemon_set: Option<String>,
    #[serde(default)]
    unavailable: Vec<Map<String, Value>>,
}

// === impl CsiConfig ===

impl CsiConfig {
    /// What can be made of the fields; it counts only if nothing is wrong.
    pub(super) fn from_fields(fields: &Map<String, Value>, faults: &mut Faults) -> Option<Self> {
        let RawCsi { bytes_per_namespace, bytes_per_node, daemon_set, unavailable: rules } =
            shape::read_all(fields, faults)?;
        let default = CsiLimits::default();
        let mut bytes = |field: &str, text: Option<String>, default| {
            let bytes = text.map(|text| parse_bytes(&text)).transpose();
            faults.take(bytes.map_err(ConfigError::at(field))).flatten().unwrap_or(default)
        };
        let limits = CsiLimits {
            bytes_per_namespace: bytes(".bytesPerNamespace", bytes_per_namespace, default.bytes_per_namespace),
            bytes_per_node: bytes(".bytesPerNode", bytes_per_node, default.bytes_per_node),
        };
        let unavailable = faults.below_each(".unavailable", &rules, |fields, faults| {
            let rule = shape::read_all::<Unavailable>(fields, faults)?;
            if faults.is_empty() && rule == Unavailable::default() {
                let problem = "would be every pod: expected namespaces, labels, nodeSelector or tolerations";
                faults.push(ConfigError::new("", problem));
            }
            Some(rule)
        });
        let daemon_set = daemon_set.unwrap_or_else(|| CSI_DAEMON_SET.to_owned());
        if !is_object_name(&daemon_set) {
            let problem = "expected <name> or <namespace>/<name> of the driver's DaemonSet";
            faults.push(ConfigError::new(".daemonSet", problem));
        }
        Some(Self { limits, daemon_set, unavailable })
    }
}

/// Whether Kubernetes could have such an object: a pod shows it to people.
fn is_object_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let is_name = |part: &str| (1..=MAX_OBJECT_NAME).contains(&part.len()) && part.bytes().all(is_plain);
    text.split('/').count() <= 2 && text.split('/').all(is_name)
}

// === impl CsiLimits ===

impl Default for CsiLimits {
    fn default() -> Self {
        // kubelet's 110 pods, all of one namespace, with the size-limit that pods have unless they say another.
        Self { bytes_per_namespace: 512 << 20, bytes_per_node: 1 << 30 }
    }
}

// === impl Unavailable ===

impl Unavailable {
    /// Whether a pod is one of these, by its namespace, its labels, its `nodeSelector` and the keys of its tolerations.
    #[must_use]
    pub fn is_met<'a>(
        &self,
        namespace: &str,
        label: impl Fn(&str) -> Option<&'a str>,
        selected: impl Fn(&str) -> Option<&'a str>,
        tolerated: &[&str],
    ) -> bool {
        let any = |globs: &[String], text: &str| globs.iter().any(|glob| matches(glob, text));
        let all = |wanted: &BTreeMap<String, String>, has: &dyn Fn(&str) -> Option<&'a str>| {
            wanted.iter().all(|(name, glob)| has(name).is_some_and(|value| matches(glob, value)))
        };
        (self.namespaces.is_empty() || any(&self.namespaces, namespace))
            && all(&self.labels, &label)
            && all(&self.node_selector, &selected)
            && (self.tolerations.is_empty() || tolerated.iter().any(|key| any(&self.tolerations, key)))
    }
}
