//! The driver's metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::VolumeBudget;
use super::failure::FailureKind;
use crate::serve::metrics::{Counter, Registry};

/// What the driver counts. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct DriverMetrics {
    registry: Registry,
    /// By outcome.
    published: BTreeMap<&'static str, Arc<Counter>>,
    pub(super) republished: Arc<Counter>,
    pub(super) troubles: Arc<Counter>,
}

/// What calls for new volumes come to.
const OUTCOMES: [&str; 7] = ["ok", "waiting", "exhausted", "pod_gone", "denied", "not_found", "invalid"];

// === impl DriverMetrics ===

impl DriverMetrics {
    /// Adds the driver's series to `registry`.
    pub(super) fn new(registry: Registry) -> Self {
        let published = |outcome: &'static str| {
            let labels = [("outcome", outcome)];
            let help = "Calls of kubelet for new volumes.";
            (outcome, registry.counter("hushpod_csi_publish_total", help, &labels))
        };
        Self {
            published: OUTCOMES.into_iter().map(published).collect(),
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
    pub(super) fn count_publish(&self, failure: Option<FailureKind>) {
        let outcome = match failure {
            None => "ok",
            Some(FailureKind::Waiting) => "waiting",
            Some(FailureKind::Exhausted) => "exhausted",
            Some(FailureKind::PodGone) => "pod_gone",
            Some(FailureKind::Denied) => "denied",
            Some(FailureKind::NotFound) => "not_found",
            Some(FailureKind::Invalid | FailureKind::Precondition) => "invalid",
        };
        if let Some(counter) = self.published.get(outcome) {
            counter.increment();
        }
    }

    /// Shows what volumes may take.
    pub(super) fn show_bytes(&self, limits: Arc<VolumeBudget>) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no node has 2^53 bytes of secrets")]
        let read = move || Some(limits.taken() as f64);
        self.registry.gauge("hushpod_csi_reserved_bytes", "Bytes of memory that the node's volumes may take.", read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_one_series_however_often_it_comes() {
        use FailureKind::*;
        let registry = Registry::default();
        let metrics = DriverMetrics::new(registry.clone());
        for failure in [None, Some(Invalid), Some(Precondition), Some(NotFound), Some(Denied), Some(Waiting)]
            .into_iter()
            .chain([Some(Exhausted), Some(PodGone)])
        {
            metrics.count_publish(failure);
        }
        let shown = registry.to_string();
        let series: Vec<_> = shown.lines().filter(|line| line.starts_with("hushpod_csi_publish_total{")).collect();
        assert_eq!(series.len(), OUTCOMES.len(), "{shown}");
        for outcome in OUTCOMES {
            let times = if outcome == "invalid" { 2 } else { 1 };
            let line = format!("hushpod_csi_publish_total{{outcome=\"{outcome}\"}} {times}");
            assert!(series.contains(&line.as_str()), "{line} is not in {shown}");
        }
    }
}
