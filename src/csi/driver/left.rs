//! What others left on the node: volumes of an earlier process, and volumes of pods that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::Driver;
use crate::csi::failure::{CallFailure, FailureKind};
use crate::csi::record::Record;
use crate::csi::surroundings::{FeedKey, First, NewVolume};
use crate::csi::tokens::Tokens;
use crate::csi::volume::MountedVolume;

/// Between two looks for volumes of pods that are gone.
const COLLECT_EVERY: Duration = Duration::from_mins(5);

/// How long logins and leases of an earlier process wait for the call of kubelet that asks for their volume again: its
/// pauses grow to two minutes.
const UNCLAIMED: Duration = Duration::from_mins(10);

// === impl Driver ===

impl Driver {
    /// Looks after files that are there.
    pub(super) fn adopt(self: &Arc<Self>, record: Record, tokens: Tokens) -> Result<(), CallFailure> {
        let room = record.plan.volume_bytes();
        let mounts = Arc::clone(&self.mounts);
        let Some(volume) = MountedVolume::adopt(record.target.clone(), room, record.owner, mounts) else {
            return Err(CallFailure::new(
                FailureKind::Waiting,
                "the volume's files are gone: kubelet's next call makes it anew",
            ));
        };
        // They are there, whatever the limits say by now.
        let reservation = self.limits.reserve(&record.pod.namespace, room, u64::MAX, u64::MAX).ok();
        if let Err(error) = self.state.save(&record) {
            warn!(%error, volume = record.volume, "the driver cannot keep a volume in mind: after a restart kubelet tells of it");
        }
        let (first, _) = watch::channel(First::Delivered);
        self.hand_to_feed(&FeedKey::of(&record), NewVolume { record, tokens, volume, reservation, first })
    }

    /// Goes on with the volumes of an earlier process, and forgets those that are not mounted any more: kubelet asks for
    /// them anew.
    pub(crate) fn resume(self: &Arc<Self>) {
        if let Err(error) = self.mounts.ours() {
            warn!(%error, "the mount table cannot be read: kubelet's next calls bring the volumes of an earlier process back");
            return;
        }
        let (mut resumed, mut forgotten) = (0, 0);
        let mut feeds = BTreeSet::new();
        for record in self.state.load() {
            let (volume, target) = (record.volume.clone(), record.target.clone());
            // Also of a volume that has yet to be made: its lease may have been granted already.
            feeds.insert(FeedKey::of(&record).0);
            if self.is_delivered(&target) {
                match self.adopt(record, Tokens::new()) {
                    Ok(()) => resumed += 1,
                    // Its pod runs: the files are worth more than nothing.
                    Err(failure) => {
                        warn!(%failure, volume, "a volume's files stay as they are: nobody keeps them fresh");
                    }
                }
                continue;
            }
            if let Err(error) = self.mounts.unmount(&target) {
                warn!(%error, volume, "what is left of a volume cannot be taken away yet");
            }
            self.state.remove(&volume);
            forgotten += 1;
        }
        self.state.keep_feeds(|feed| feeds.contains(feed));
        if forgotten > 0 {
            let driver = Arc::clone(self);
            tokio::spawn(async move {
                let waited = driver.shutdown.run_until_cancelled(tokio::time::sleep(UNCLAIMED)).await;
                if waited.is_some() {
                    let known = driver.known();
                    driver.state.keep_feeds(|feed| known.feeds.contains_key(&FeedKey(feed.to_owned())));
                }
            });
        }
        if resumed + forgotten > 0 {
            info!(resumed, forgotten, "the volumes of an earlier process");
        }
    }

    /// Takes away, for ever, the volumes of pods that are not on this node any more, should kubelet have forgotten them:
    /// after two looks, since it unpublishes those of a deleted pod only when its containers have ended.
    pub(crate) async fn collect(&self) {
        let mut missed = BTreeSet::new();
        loop {
            self.pods.listed().await;
            let gone: BTreeMap<_, _> = {
                let known = self.known();
                let gone = known.volumes.iter().filter(|(_, volume)| self.pods.is_gone(&volume.pod));
                gone.map(|(id, volume)| (id.clone(), volume.target.clone())).collect()
            };
            for (volume, target) in gone.iter().filter(|(volume, _)| missed.contains(*volume)) {
                match self.take_away(volume, target).await {
                    Ok(()) => info!(volume, "the volume of a pod that is gone was taken away"),
                    Err(error) => warn!(%error, volume, "the volume of a pod that is gone stays"),
                }
            }
            missed = gone.into_keys().collect();
            tokio::time::sleep(COLLECT_EVERY).await;
        }
    }
}
