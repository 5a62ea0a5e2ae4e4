//! Events of pods whose files are not kept fresh: a republish always succeeds, so kubelet has nothing to tell.

use k8s_openapi::Resource as _;
use k8s_openapi::api::core::v1::{ObjectReference, Pod as KubePod};
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tracing::debug;

use super::record::PodRef;
use crate::contract::CSI_DRIVER;

/// Events that wait to be sent. More say nothing new.
const QUEUED: usize = 64;
/// What they are filed under.
const REASON: &str = "SecretsNotRefreshed";

/// Where troubles go.
#[derive(Debug, Clone)]
pub(super) struct Troubles(Option<mpsc::Sender<(PodRef, String)>>);

// === impl Troubles ===

impl Troubles {
    /// They are not told to anybody.
    pub(super) fn untold() -> Self {
        Self(None)
    }

    /// They become events, sent by the future that is returned.
    pub(super) fn told_to(client: Client, node: &str) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, mut queue) = mpsc::channel::<(PodRef, String)>(QUEUED);
        let reporter = Reporter { controller: CSI_DRIVER.to_owned(), instance: Some(node.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let send = async move {
            while let Some((pod, note)) = queue.recv().await {
                let pod = reference(pod);
                let event = Event {
                    type_: EventType::Warning,
                    reason: REASON.to_owned(),
                    note: Some(note),
                    action: "Refresh".to_owned(),
                    secondary: None,
                };
                if let Err(error) = recorder.publish(&event, &pod).await {
                    debug!(%error, "an event was not taken");
                }
            }
        };
        (Self(Some(sender)), send)
    }

    #[cfg(test)]
    pub(super) fn heard() -> (Self, mpsc::Receiver<(PodRef, String)>) {
        let (sender, queue) = mpsc::channel(QUEUED);
        (Self(Some(sender)), queue)
    }

    pub(super) fn tell(&self, pod: &PodRef, sentence: &str) {
        if let Some(sender) = &self.0 {
            // Full: the same has been said.
            let _ = sender.try_send((pod.clone(), sentence.to_owned()));
        }
    }
}

/// By which `kubectl describe` finds a pod's events.
fn reference(PodRef { namespace, name, uid }: PodRef) -> ObjectReference {
    ObjectReference {
        api_version: Some(KubePod::API_VERSION.to_owned()),
        kind: Some(KubePod::KIND.to_owned()),
        namespace: Some(namespace),
        name: Some(name),
        uid: Some(uid),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_of_the_pod() {
        let pod = PodRef { namespace: "shop".to_owned(), name: "web".to_owned(), uid: "u".to_owned() };
        let ObjectReference { api_version, kind, namespace, name, uid, .. } = reference(pod);
        let found = [api_version, kind, namespace, name, uid].map(Option::unwrap_or_default);
        assert_eq!(found, ["v1", "Pod", "shop", "web", "u"]);
    }
}
