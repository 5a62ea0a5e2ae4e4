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
    /// Whose certificate it is, where the pod has several processes.
    container: Option<String>,
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
        (Self::new(TrustMetrics::new(registry), events, names, uid), send)
    }

    /// The same, of which `events` hears.
    pub(super) fn new(metrics: TrustMetrics, events: EventQueue, names: &Names, uid: Option<String>) -> Self {
        let pod = pod_reference(names.namespace.clone(), names.pod.clone(), uid);
        Self { metrics, events, pod, container: names.container.clone(), is_trusted: None }
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
        let of_container = self.container.as_ref().map(|name| format!(" (container {name})")).unwrap_or_default();
        self.events.tell(self.pod.clone(), event(type_, reason, action, &format!("{note}{of_container}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_which_container_of_the_pod_it_is_about() {
        let names = |container: Option<&str>| Names {
            pod: "pod-a".to_owned(),
            container: container.map(str::to_owned),
            service: "hushpod".to_owned(),
            namespace: "secrets".to_owned(),
        };
        for (container, end) in [(None, "written again"), (Some("twin"), "written again (container twin)")] {
            let (events, mut told) = EventQueue::heard();
            let metrics = TrustMetrics::new(&Registry::default());
            let mut report = TrustReport::new(metrics, events, &names(container), None);
            report.show(true, "hushpod");
            report.show(false, "hushpod");
            let (pod, event) = told.try_recv().unwrap();
            assert_eq!(pod.name.as_deref(), Some("pod-a"));
            assert!(event.note.as_deref().unwrap().ends_with(end), "{:?}", event.note);
        }
    }
}
