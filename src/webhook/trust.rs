//! What people hear of the API servers' trust in this replica: metrics, and events of its pod when trust ends or comes
//! back.

use std::fmt;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::EventType;

use super::certificate::Names;
use super::metrics::TrustMetrics;
use crate::cluster::events::{EventQueue, event, pod_reference};
use crate::metrics::Registry;

/// Whose events they are.
const CONTROLLER: &str = "hushpod-webhook";

/// Tells of one replica.
#[derive(Debug)]
pub(super) struct TrustReport {
    metrics: TrustMetrics,
    events: EventQueue,
    pod: ObjectReference,
    /// `None` until it was trusted the first time.
    is_trusted: Option<bool>,
}

// === impl TrustReport ===

impl TrustReport {
    /// Of the replica whose certificate has these `names`: its series are added to `registry`, and the future that is
    /// returned sends its events.
    pub(super) fn of_pod(
        client: Client,
        names: &Names,
        uid: Option<String>,
        registry: &Registry,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (events, send) = EventQueue::told_to(client, CONTROLLER, &names.pod);
        let pod = pod_reference(names.namespace.clone(), names.pod.clone(), uid);
        (Self::new(TrustMetrics::new(registry), events, pod), send)
    }

    /// `pod` is the replica's own.
    pub(super) fn new(metrics: TrustMetrics, events: EventQueue, pod: ObjectReference) -> Self {
        Self { metrics, events, pod, is_trusted: None }
    }

    /// Whether every webhook of `configuration` has the certificate of what is served. Only what was trusted once can lose
    /// it.
    pub(super) fn show(&mut self, is_trusted: bool, configuration: &str) {
        self.metrics.show_trust(is_trusted);
        if self.is_trusted.is_none() && !is_trusted {
            return;
        }
        match self.is_trusted.replace(is_trusted) {
            Some(true) if !is_trusted => self.tell(
                EventType::Warning,
                "CertificateNotTrusted",
                "Watch",
                &format!(
                    "mutatingwebhookconfiguration {configuration:?} lost this replica's certificate, so API servers refuse \
                     its answers: something else writes the caBundle, or made the configuration anew; it is written again"
                ),
            ),
            Some(false) if is_trusted => self.tell(
                EventType::Normal,
                "CertificateTrusted",
                "Watch",
                &format!("mutatingwebhookconfiguration {configuration:?} has this replica's certificate again"),
            ),
            _ => {}
        }
    }

    /// An attempt to write it there, and why it failed.
    pub(super) fn wrote<E: fmt::Display>(&self, outcome: &Result<(), E>) {
        self.metrics.count_write(outcome.is_ok());
        if let Err(error) = outcome {
            let note = format!("cannot write this replica's certificate: {error}");
            self.tell(EventType::Warning, "CertificateNotWritten", "Write", &note);
        }
    }

    fn tell(&self, type_: EventType, reason: &str, action: &str, note: &str) {
        self.events.tell(self.pod.clone(), event(type_, reason, action, note));
    }
}
