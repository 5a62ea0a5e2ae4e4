//! Events about pods, sent by one task: what has something to tell never waits for the API server.
//!
//! Needs `create` and `patch` on `events.events.k8s.io` in the pods' namespaces; without, nothing is lost but the events.

use k8s_openapi::Resource as _;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tracing::debug;

use crate::sentence::fitting;

/// Bytes of an event's note that API servers take ([`ValidateEvent`]'s `NoteLengthLimit`).
///
/// [`ValidateEvent`]: https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/apis/core/validation/events.go
const LONGEST_NOTE: usize = 1024;
/// Events that wait to be sent. More say nothing new.
const QUEUED: usize = 64;

/// Where events go.
#[derive(Debug, Clone, Default)]
pub struct EventQueue(Option<mpsc::Sender<(ObjectReference, Event)>>);

/// An event of `type_` under this reason, in CamelCase; `action` is what was done, in CamelCase too, and `note` the
/// sentence that people read, as much of it as API servers take.
#[must_use]
pub fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    let note = fitting(note, LONGEST_NOTE).into_owned();
    Event { type_, reason: reason.to_owned(), note: Some(note), action: action.to_owned(), secondary: None }
}

/// By which `kubectl describe` finds a pod's events: it looks for the UID.
#[must_use]
pub fn pod_reference(namespace: String, name: String, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some(Pod::API_VERSION.to_owned()),
        kind: Some(Pod::KIND.to_owned()),
        namespace: Some(namespace),
        name: Some(name),
        uid,
        ..ObjectReference::default()
    }
}

// === impl EventQueue ===

impl EventQueue {
    /// Told to nobody.
    #[must_use]
    pub fn untold() -> Self {
        Self(None)
    }

    /// Events of `controller`'s process `instance`, sent by the future that is returned.
    pub fn told_to(
        client: Client,
        controller: &str,
        instance: &str,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, mut queue) = mpsc::channel::<(ObjectReference, Event)>(QUEUED);
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let send = async move {
            while let Some((about, event)) = queue.recv().await {
                if let Err(error) = recorder.publish(&event, &about).await {
                    debug!(%error, "an event was not taken");
                }
            }
        };
        (Self(Some(sender)), send)
    }

    /// A queue, and what is told to it.
    #[cfg(test)]
    pub(crate) fn heard() -> (Self, mpsc::Receiver<(ObjectReference, Event)>) {
        let (sender, queue) = mpsc::channel(QUEUED);
        (Self(Some(sender)), queue)
    }

    /// Tells it, unless so many wait already that it says nothing new.
    pub fn tell(&self, about: ObjectReference, event: Event) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send((about, event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_of_the_pod() {
        let pod = pod_reference("shop".to_owned(), "web".to_owned(), Some("u".to_owned()));
        let ObjectReference { api_version, kind, namespace, name, uid, .. } = pod;
        let found = [api_version, kind, namespace, name, uid].map(Option::unwrap_or_default);
        assert_eq!(found, ["v1", "Pod", "shop", "web", "u"]);
    }

    #[test]
    fn notes_are_cut_where_api_servers_take_no_more() {
        for (length, expected) in [(0, 0), (1024, 1024), (1025, 1024), (100_000, 1024)] {
            let note = event(EventType::Warning, "Long", "Tell", &"x".repeat(length)).note.unwrap();
            assert_eq!((note.len(), note.ends_with('…')), (expected, length > 1024), "{length}");
        }
        // No character is cut in two.
        assert!(event(EventType::Warning, "Long", "Tell", &"é".repeat(1000)).note.unwrap().len() <= 1024);
    }

    #[test]
    fn a_full_queue_loses_what_comes_last() {
        let (queue, mut heard) = EventQueue::heard();
        let pod = pod_reference("shop".to_owned(), "web".to_owned(), None);
        for number in 0..QUEUED + 3 {
            queue.tell(pod.clone(), event(EventType::Warning, "Full", "Tell", &number.to_string()));
        }
        let told: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).filter_map(|(_, event)| event.note).collect();
        assert_eq!((told.len(), told.last().map(String::as_str)), (QUEUED, Some("63")));
    }
}
