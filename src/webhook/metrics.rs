//! The webhook's metrics.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::answer::Outcome;
use crate::serve::metrics::{Counter, Histogram, Registry, ReloadCounters};
use crate::serve::tls::Served;

/// Upper bounds of the duration histogram in seconds.
const BUCKETS: &[f64] = &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25];

/// What the webhook counts. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    injected: Arc<Counter>,
    unchanged: Arc<Counter>,
    denied: Arc<Counter>,
    error: Arc<Counter>,
    duration: Arc<Histogram>,
    reloads: ReloadCounters,
}

// === impl Metrics ===

impl Metrics {
    /// Adds the webhook's series to `registry`.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        let requests = |outcome: Outcome| {
            let labels = [("outcome", outcome.as_str())];
            registry.counter("hushpod_admission_requests_total", "Admission requests answered.", &labels)
        };
        Self {
            injected: requests(Outcome::Injected),
            unchanged: requests(Outcome::Unchanged),
            denied: requests(Outcome::Denied),
            error: requests(Outcome::Error),
            duration: registry.histogram(
                "hushpod_admission_duration_seconds",
                "Time from a request's last byte to its answer.",
                BUCKETS,
            ),
            reloads: ReloadCounters::new(&registry),
            registry,
        }
    }

    /// What it adds them to.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts one reading of the operator's configuration.
    pub fn count_reload(&self, is_ok: bool) {
        self.reloads.count(is_ok);
    }

    pub(super) fn count(&self, outcome: Outcome, took: Duration) {
        let counter = match outcome {
            Outcome::Injected => &self.injected,
            Outcome::Unchanged => &self.unchanged,
            Outcome::Denied => &self.denied,
            Outcome::Error => &self.error,
        };
        counter.increment();
        self.duration.observe(took);
    }

    pub(super) fn show_expiry(&self, served: Served) {
        let expires = move || Some(served.expires()?.duration_since(UNIX_EPOCH).ok()?.as_secs_f64());
        self.registry.gauge(
            "hushpod_webhook_certificate_expiry_seconds",
            "End of the served certificate, in seconds since 1970.",
            expires,
        );
    }
}
