//! Annotations that come to nothing in a pod's mode: its author is told, who would wait for what they say otherwise.

use std::collections::BTreeMap;

use crate::annotations::{
    CPU_LIMIT, CPU_REQUEST, INIT_ORDER, MEMORY_LIMIT, MEMORY_REQUEST, METRICS_PORT, NOTIFY, REFRESH, SHARE_LEASES,
};
use crate::contract::PREFIX;
use crate::options::Mode;

/// Annotations, the modes in which they come to nothing, and why.
const IDLE: [(&[&str], &[Mode], &str); 4] = [
    (&[INIT_ORDER], &[Mode::Csi], "whose files are there before the first container starts"),
    (
        &[CPU_REQUEST, CPU_LIMIT, MEMORY_REQUEST, MEMORY_LIMIT],
        &[Mode::Csi],
        "which has no container of hushpod's in the pod",
    ),
    (&[REFRESH, NOTIFY, METRICS_PORT], &[Mode::Init], "which leaves no agent once the files are there"),
    (
        &[SHARE_LEASES],
        &[Mode::Sidecar, Mode::InitAndSidecar, Mode::Init],
        "where each pod has leases of its own: pods of a node share them in mode csi",
    ),
];

/// Warns of them.
pub(super) fn warn(annotations: &BTreeMap<String, String>, mode: Mode, warnings: &mut Vec<String>) {
    for (names, _, why) in IDLE.iter().filter(|(_, modes, _)| modes.contains(&mode)) {
        for key in names.iter().map(|name| format!("{PREFIX}{name}")) {
            // `false` says what is so anyway.
            if annotations.get(&key).is_some_and(|value| value != "false") {
                warnings.push(format!("{key}: comes to nothing in mode {}, {why}", mode.as_str()));
            }
        }
    }
}
