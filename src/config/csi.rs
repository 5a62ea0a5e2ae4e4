//! The operator's settings for the CSI driver.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::allow::matches;
use super::error::ConfigError;
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
pub(super) struct RawCsi {
    bytes_per_namespace: Option<String>,
    bytes_per_node: Option<String>,
    daemon_set: Option<String>,
    #[serde(default)]
    unavailable: Vec<Unavailable>,
}

// === impl CsiConfig ===

impl CsiConfig {
    /// # Errors
    /// [`ConfigError`] names the field.
    pub(super) fn checked(raw: RawCsi) -> Result<Self, ConfigError> {
        let RawCsi { bytes_per_namespace, bytes_per_node, daemon_set, unavailable } = raw;
        let default = CsiLimits::default();
        let bytes = |place: &str, text: Option<String>, default| {
            let bytes = text.map(|text| parse_bytes(&text)).transpose().map_err(ConfigError::at(place))?;
            Ok::<_, ConfigError>(bytes.unwrap_or(default))
        };
        let limits = CsiLimits {
            bytes_per_namespace: bytes(".csi.bytesPerNamespace", bytes_per_namespace, default.bytes_per_namespace)?,
            bytes_per_node: bytes(".csi.bytesPerNode", bytes_per_node, default.bytes_per_node)?,
        };
        if let Some(index) = unavailable.iter().position(|rule| *rule == Unavailable::default()) {
            return Err(ConfigError::new(
                format!(".csi.unavailable[{index}]"),
                "would be every pod: expected namespaces, labels, nodeSelector or tolerations",
            ));
        }
        let daemon_set = daemon_set.unwrap_or_else(|| CSI_DAEMON_SET.to_owned());
        if !is_object_name(&daemon_set) {
            return Err(ConfigError::new(
                ".csi.daemonSet",
                "expected <name> or <namespace>/<name> of the driver's DaemonSet",
            ));
        }
        Ok(Self { limits, daemon_set, unavailable })
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
