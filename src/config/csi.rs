//! The operator's settings for the CSI driver.

use serde::Deserialize;

use crate::quantity::parse_bytes;

/// What volumes may take of a node's memory: tmpfs pages are charged to the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsiLimits {
    /// Bytes of all volumes of one namespace on a node.
    pub bytes_per_namespace: u64,
    /// Bytes of all volumes on a node. The driver's memory limit has to leave room for them.
    pub bytes_per_node: u64,
}

/// As it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawCsi {
    bytes_per_namespace: Option<String>,
    bytes_per_node: Option<String>,
}

// === impl CsiLimits ===

impl Default for CsiLimits {
    fn default() -> Self {
        Self { bytes_per_namespace: 256 << 20, bytes_per_node: 1 << 30 }
    }
}

impl CsiLimits {
    /// # Errors
    /// The field, and one sentence.
    pub(super) fn checked(raw: RawCsi) -> Result<Self, (&'static str, String)> {
        let RawCsi { bytes_per_namespace, bytes_per_node } = raw;
        let default = Self::default();
        let bytes = |field, text: Option<String>, default| match text.map(|text| parse_bytes(&text)).transpose() {
            Ok(bytes) => Ok(bytes.unwrap_or(default)),
            Err(problem) => Err((field, problem.to_string())),
        };
        Ok(Self {
            bytes_per_namespace: bytes(".csi.bytesPerNamespace", bytes_per_namespace, default.bytes_per_namespace)?,
            bytes_per_node: bytes(".csi.bytesPerNode", bytes_per_node, default.bytes_per_node)?,
        })
    }
}
