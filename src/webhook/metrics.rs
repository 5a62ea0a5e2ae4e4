//! The webhook's metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::answer::Outcome;
use crate::metrics::catalogue::{
    ADMISSION_DENIALS, ADMISSION_DURATION, ADMISSION_IN_FLIGHT, ADMISSION_REQUESTS, CABUNDLE_WRITES,
    CERTIFICATE_EXPIRY, WEBHOOK_TRUSTED,
};
use crate::metrics::{Counter, Counters, Histogram, Registry, count, seconds};
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
    denials: Counters,
    duration: Arc<Histogram>,
    in_flight: Arc<AtomicU64>,
}

/// A request that is in flight until this is dropped.
#[derive(Debug)]
pub(super) struct CountedRequest(Arc<AtomicU64>);

/// What is counted of a replica that makes its own certificates. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct TrustMetrics {
    is_trusted: Arc<AtomicU64>,
    writes: Counters,
}

// === impl Metrics ===

impl Metrics {
    /// Adds the webhook's series to `registry`.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        let requests = |outcome: Outcome| registry.counter(&ADMISSION_REQUESTS, &[outcome.as_str()]);
        let in_flight = Arc::<AtomicU64>::default();
        let shown = Arc::clone(&in_flight);
        registry.read(&ADMISSION_IN_FLIGHT, move || Some(count(shown.load(Ordering::Relaxed))));
        Self {
            injected: requests(Outcome::Injected),
            unchanged: requests(Outcome::Unchanged),
            denied: requests(Outcome::Denied),
            error: requests(Outcome::Error),
            denials: registry.counters(&ADMISSION_DENIALS, &[]),
            duration: registry.histogram(&ADMISSION_DURATION, BUCKETS),
            in_flight,
            registry,
        }
    }

    /// What it adds them to.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a request as long as it is in flight.
    pub(super) fn begin(&self) -> CountedRequest {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        CountedRequest(Arc::clone(&self.in_flight))
    }

    /// Counts an answer; `reason` is a denial's.
    pub(super) fn count(&self, outcome: Outcome, reason: Option<&'static str>, took: Duration) {
        let counter = match outcome {
            Outcome::Injected => &self.injected,
            Outcome::Unchanged => &self.unchanged,
            Outcome::Denied => &self.denied,
            Outcome::Error => &self.error,
        };
        counter.increment();
        if let Some(reason) = reason {
            self.denials.increment(&[reason]);
        }
        self.duration.observe(took);
    }

    pub(super) fn show_expiry(&self, served: Served) {
        self.registry.read(&CERTIFICATE_EXPIRY, move || seconds(served.expires()?));
    }
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl TrustMetrics ===

impl TrustMetrics {
    /// Adds them to `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let is_trusted = Arc::<AtomicU64>::default();
        let shown = Arc::clone(&is_trusted);
        registry.read(&WEBHOOK_TRUSTED, move || Some(count(shown.load(Ordering::Relaxed))));
        Self { is_trusted, writes: registry.counters(&CABUNDLE_WRITES, &[]) }
    }

    /// Whether every webhook of the configuration has the certificate of what is served.
    pub(super) fn show_trust(&self, is_trusted: bool) {
        self.is_trusted.store(is_trusted.into(), Ordering::Relaxed);
    }

    /// Counts an attempt to write it there.
    pub(super) fn count_write(&self, is_written: bool) {
        self.writes.increment(&[if is_written { "ok" } else { "error" }]);
    }
}
