//! What others left on the node: volumes of an earlier process, and volumes of pods that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::Driver;
use crate::config::CsiLimits;
use crate::csi::failure::{CallFailure, FailureKind};
use crate::csi::record::Record;
use crate::csi::state::KeptVolumes;
use crate::csi::surroundings::{First, NewVolume};
use crate::csi::tokens::Tokens;
use crate::csi::volume::MountedVolume;

/// Between two looks for volumes of pods that are gone.
const COLLECT_EVERY: Duration = Duration::from_mins(5);

/// How long logins and leases of an earlier process wait for the call of kubelet that asks for their volume again, before
/// they are ended: its pauses grow to two minutes.
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
        let limits = CsiLimits { bytes_per_namespace: u64::MAX, bytes_per_node: u64::MAX };
        let reservation = self.limits.reserve_volume(&record.pod.namespace, room, &limits).ok();
        if let Err(error) = self.state.save(&record) {
            warn!(%error, volume = record.volume, "the driver cannot keep a volume in mind: after a restart kubelet tells of it");
        }
        let (first, _) = watch::channel(First::Delivered);
        self.hand_to_feed(NewVolume { record, tokens, volume, reservation, first }, &limits)
    }

    /// Goes on with the volumes of an earlier process, and forgets those that are not mounted any more: kubelet asks for
    /// them anew.
    pub(crate) fn resume(self: &Arc<Self>) {
        if let Err(error) = self.mounts.ours() {
            warn!(%error, "the mount table cannot be read: kubelet's next calls bring the volumes of an earlier process back");
            return;
        }
        let KeptVolumes { records, unread } = self.state.load();
        let (mut resumed, mut unclaimed) = (0, Vec::new());
        {
            let names = &mut self.known().names;
            for record in &records {
                names.keep(record);
            }
            for unread in unread {
                names.keep_unread(unread);
            }
        }
        for record in records {
            let (volume, target) = (record.volume.clone(), record.target.clone());
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
            // Its lease may have been granted already.
            unclaimed.push(record);
        }
        if resumed + unclaimed.len() > 0 {
            info!(resumed, forgotten = unclaimed.len(), "the volumes of an earlier process");
        }
        if self.has_unclaimed(&unclaimed) {
            let driver = Arc::clone(self);
            let shutdown = self.shutdown.clone();
            self.work.spawn(shutdown.run_until_cancelled_owned(async move {
                tokio::time::sleep(UNCLAIMED).await;
                driver.end_unclaimed(unclaimed).await;
            }));
        }
    }

    /// Takes away, for ever, the volumes of pods that are not on this node any more, should kubelet have forgotten them, or
    /// the driver: after two looks, since kubelet unpublishes those of a deleted pod only when its containers have ended.
    pub(crate) async fn collect(&self) {
        let mut missed = BTreeSet::new();
        loop {
            self.pods.listed().await;
            let gone = self.gone();
            for (target, volume) in gone.iter().filter(|(target, _)| missed.contains(*target)) {
                let taken = match volume {
                    Some(volume) => self.take_away(volume, target).await.map_err(|error| error.to_string()),
                    None => self.mounts.unmount(target).map_err(|error| error.kind().to_string()),
                };
                match taken {
                    Ok(()) => info!(volume, "the volume of a pod that is gone was taken away"),
                    Err(error) => warn!(error, volume, "the volume of a pod that is gone stays"),
                }
            }
            missed = gone.into_keys().collect();
            tokio::time::sleep(COLLECT_EVERY).await;
        }
    }

    /// What is there of pods that are gone, and the volumes' names where they are known.
    fn gone(&self) -> BTreeMap<PathBuf, Option<String>> {
        let mounted = self.mounts.ours().unwrap_or_default();
        let pods = self.kubelet_root.join("pods");
        let is_gone = |target: &PathBuf| {
            let pod = target.strip_prefix(&pods).ok().and_then(|rest| rest.iter().next()?.to_str());
            pod.is_some_and(|pod| self.pods.is_gone(pod))
        };
        let known = self.known();
        let volumes = known.volumes.iter().filter(|(_, volume)| self.pods.is_gone(&volume.pod));
        let mut gone: BTreeMap<_, _> = mounted.into_iter().filter(is_gone).map(|target| (target, None)).collect();
        gone.extend(volumes.map(|(id, volume)| (volume.target.clone(), Some(id.clone()))));
        gone
    }
}
