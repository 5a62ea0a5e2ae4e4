//! Events of pods whose files are not kept fresh: a republish always succeeds, so kubelet has nothing to tell.

use kube::runtime::events::EventType;

use super::record::PodRef;
use crate::cluster::events::{EventQueue, event, pod_reference};

/// What they are filed under.
const REASON: &str = "SecretsNotRefreshed";

/// Where troubles go.
#[derive(Debug, Clone)]
pub(super) struct Troubles(pub(super) EventQueue);

// === impl Troubles ===

impl Troubles {
    pub(super) fn tell(&self, PodRef { namespace, name, uid }: &PodRef, sentence: &str) {
        let pod = pod_reference(namespace.clone(), name.clone(), Some(uid.clone()));
        self.0.tell(pod, event(EventType::Warning, REASON, "Refresh", sentence));
    }
}
