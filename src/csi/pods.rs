//! The pods of this node, as the API server sees them: their annotations, for the live controls, and whether they go.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::cluster::watch::followed;
use crate::contract::PREFIX;

/// The annotations of a pod that are ours, without the prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Annotations(BTreeMap<String, String>);

/// What is known of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SeenPod {
    pub(super) annotations: Annotations,
    /// Whether it has been told to end.
    pub(super) is_deleted: bool,
}

/// What is known of all pods of the node.
#[derive(Debug, Default)]
pub(super) struct NodePods {
    pods: HashMap<String, SeenPod>,
    /// Pods that came with the list that is being read, if one is.
    listed: HashMap<String, SeenPod>,
    /// Whether a whole list was read once.
    is_complete: bool,
}

/// Knows the pods of this node.
#[derive(Debug, Clone)]
pub(super) struct Pods {
    snapshots: watch::Sender<NodePods>,
    /// Whether somebody follows the API server.
    is_followed: bool,
}

/// Pods that are asked for at a time. All of one answer are in memory at once, with what the managers of their fields wrote
/// down, which is most of it; and an allocator keeps what was needed once.
const PAGE: u32 = 25;
/// How long the first files of a volume wait for a look at their pod: a hold or a pin counts from the beginning.
const PATIENCE: Duration = Duration::from_secs(2);

// === impl Annotations ===

impl Annotations {
    pub(super) fn of<'a>(all: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let ours =
            all.into_iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?.to_owned(), value.clone())));
        Self(ours.collect())
    }

    pub(super) fn ours(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str())))
    }
}

// === impl Pods ===

impl Pods {
    /// Nobody is known yet, nor ever will be unless the API server is followed.
    pub(super) fn unknown(is_followed: bool) -> Self {
        Self { snapshots: watch::Sender::new(NodePods::default()), is_followed }
    }

    /// Follows the API server for ever. `changed` hears of each pod that is another than before.
    pub(super) async fn follow(self, client: Client, node: &str, changed: impl Fn(&str, &SeenPod)) {
        let settings = watcher::Config::default().fields(&format!("spec.nodeName={node}")).page_size(PAGE);
        let mut events = std::pin::pin!(followed(Api::<PartialObjectMeta<KubePod>>::all(client), settings));
        let mut is_failing = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if std::mem::take(&mut is_failing) {
                        info!("the pods of this node are watched again");
                    }
                    self.take_in(event, &changed);
                }
                Err(error) => {
                    self.snapshots.send_modify(|snapshot| snapshot.listed.clear());
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!(%error, "the pods of this node cannot be watched: live controls wait, files are delivered");
                    }
                }
            }
        }
    }

    fn take_in(&self, event: Event<PartialObjectMeta<KubePod>>, changed: &impl Fn(&str, &SeenPod)) {
        let mut news = Vec::new();
        self.snapshots.send_modify(|snapshot| match event {
            Event::Init => {}
            Event::InitApply(pod) => {
                let (uid, seen) = seen(&pod);
                news.extend(snapshot.is_other(&uid, &seen).then(|| (uid.clone(), seen.clone())));
                snapshot.listed.insert(uid, seen);
            }
            Event::InitDone => {
                snapshot.pods = std::mem::take(&mut snapshot.listed);
                snapshot.is_complete = true;
            }
            Event::Apply(pod) => {
                let (uid, seen) = seen(&pod);
                news.extend(snapshot.is_other(&uid, &seen).then(|| (uid.clone(), seen.clone())));
                snapshot.pods.insert(uid, seen);
            }
            Event::Delete(pod) => {
                snapshot.pods.remove(&seen(&pod).0);
            }
        });
        for (uid, seen) in news {
            changed(&uid, &seen);
        }
    }

    /// What is known of a pod, after a moment of waiting for it; `None` if the API server is not to be reached.
    pub(super) async fn look(&self, uid: &str) -> Option<SeenPod> {
        if !self.is_followed {
            return None;
        }
        let mut snapshots = self.snapshots.subscribe();
        let known = snapshots.wait_for(|snapshot| snapshot.pods.contains_key(uid));
        let known = tokio::time::timeout(PATIENCE, known).await.ok()?.ok()?;
        known.pods.get(uid).cloned()
    }

    /// Whether somebody follows the API server.
    pub(super) fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// What is known of a pod at this moment.
    pub(super) fn now(&self, uid: &str) -> Option<SeenPod> {
        self.snapshots.borrow().pods.get(uid).cloned()
    }

    /// Completes when a pod has been told to end, or is gone after it was there; pends where nothing is known of it.
    pub(super) async fn going(&self, uid: &str) {
        let mut was_there = false;
        let mut snapshots = self.snapshots.subscribe();
        let goes = snapshots.wait_for(|snapshot| match snapshot.pods.get(uid) {
            Some(seen) => {
                was_there = true;
                seen.is_deleted
            }
            None => was_there,
        });
        if goes.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the API server has no such pod on this node; `false` as long as that is not known.
    pub(super) fn is_gone(&self, uid: &str) -> bool {
        let snapshot = self.snapshots.borrow();
        snapshot.is_complete && !snapshot.pods.contains_key(uid)
    }

    /// Completes when all pods of the node were listed once.
    pub(super) async fn listed(&self) {
        let mut snapshots = self.snapshots.subscribe();
        // Its sender lives as long as `self`.
        let _ = snapshots.wait_for(|snapshot| snapshot.is_complete).await;
    }

    #[cfg(test)]
    pub(super) fn set(&self, uid: &str, seen: Option<SeenPod>) {
        self.snapshots.send_modify(|snapshot| {
            snapshot.is_complete = true;
            match seen {
                Some(seen) => drop(snapshot.pods.insert(uid.to_owned(), seen)),
                None => drop(snapshot.pods.remove(uid)),
            }
        });
    }
}

impl NodePods {
    fn is_other(&self, uid: &str, seen: &SeenPod) -> bool {
        self.pods.get(uid) != Some(seen)
    }
}

fn seen(pod: &PartialObjectMeta<KubePod>) -> (String, SeenPod) {
    let annotations = Annotations::of(pod.annotations());
    (pod.uid().unwrap_or_default(), SeenPod { annotations, is_deleted: pod.metadata.deletion_timestamp.is_some() })
}
