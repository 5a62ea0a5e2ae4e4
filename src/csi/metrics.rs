//! The driver's metrics.

use std::sync::Arc;

use super::budget::VolumeBudget;
use super::failure::FailureKind;
use crate::serve::metrics::{Counter, Registry};

/// What the driver counts. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct DriverMetrics {
    registry: Registry,
    pub(super) republished: Arc<Counter>,
    pub(super) troubles: Arc<Counter>,
}

// === impl DriverMetrics ===

impl DriverMetrics {
    /// Adds the driver's series to `registry`.
    pub(super) fn new(registry: Registry) -> Self {
        Self {
            republished: registry.counter(
                "hushpod_csi_republish_total",
                "Calls of kubelet for volumes that had their files.",
                &[],
            ),
            troubles: registry.counter(
                "hushpod_csi_troubles_total",
                "Failures of stores, counted for each volume whose last good files stayed.",
                &[],
            ),
            registry,
        }
    }

    /// Counts a call for a volume without files.
    pub(super) fn published(&self, failure: Option<FailureKind>) {
        let outcome = match failure {
            None => "ok",
            Some(FailureKind::Waiting) => "waiting",
            Some(FailureKind::Exhausted) => "exhausted",
            Some(FailureKind::PodGone) => "pod_gone",
            Some(FailureKind::Denied) => "denied",
            Some(FailureKind::NotFound) => "not_found",
            Some(FailureKind::Invalid | FailureKind::Precondition) => "invalid",
        };
        let labels = [("outcome", outcome)];
        self.registry.counter("hushpod_csi_publish_total", "Calls of kubelet for new volumes.", &labels).increment();
    }

    /// Shows what volumes may take.
    pub(super) fn show_bytes(&self, limits: Arc<VolumeBudget>) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no node has 2^53 bytes of secrets")]
        let read = move || Some(limits.taken() as f64);
        self.registry.gauge("hushpod_csi_reserved_bytes", "Bytes of memory that the node's volumes may take.", read);
    }
}
