//! What an earlier process left and nobody asks for any more: its logins and leases are ended before they are forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::warn;

use super::Driver;
use crate::csi::record::{FeedKey, Record};

// === impl Driver ===

impl Driver {
    /// Whether there is something that kubelet has yet to ask for: these volumes, records that are not understood, or
    /// logins and leases of nobody that is known.
    pub(super) fn has_unclaimed(&self, volumes: &[Record]) -> bool {
        let known = self.known();
        let is_unknown = |feed: String| !known.feeds.contains_key(&FeedKey(feed));
        let has_unknown = self.state.feeds().into_iter().any(is_unknown);
        has_unknown || !volumes.is_empty() || !known.names.unread().is_empty()
    }

    /// Forgets what nobody has asked for meanwhile. Where the operator wants it (`revokeOnExit`), the store is told; what
    /// has no record cannot be: nobody knows at which store it is, and it ends by itself.
    pub(super) async fn end_unclaimed(self: Arc<Self>, volumes: Vec<Record>) {
        let mut ended = BTreeSet::new();
        for record in volumes {
            let feed = {
                let mut known = self.known();
                if known.volumes.contains_key(&record.volume) {
                    continue;
                }
                self.state.remove(&record.volume);
                if known.works(&record.feed) || !ended.insert(record.feed.clone()) {
                    continue;
                }
                known.names.forget(&record.feed);
                let revokes = record.plan.providers.values().any(|provider| provider.revoke_on_exit);
                let feed = revokes.then(|| self.new_feed(&record));
                // Nobody goes on with what is about to be revoked.
                self.state.remove_feed(&record.feed.0);
                feed
            };
            match feed {
                Some(Ok(feed)) => feed.end().await,
                Some(Err(error)) => {
                    warn!(error = %error.public(), "leases of a volume that is gone end by themselves");
                }
                None => {}
            }
        }
        self.forget_unread();
    }

    fn forget_unread(&self) {
        let known = self.known();
        let mut mounted = BTreeSet::new();
        for unread in known.names.unread() {
            // While its pod runs, kubelet's call or another version of the driver may still come.
            if self.is_delivered(&unread.target) {
                mounted.insert(unread.feed);
            } else {
                self.state.remove(&unread.volume);
            }
        }
        for name in self.state.feeds() {
            let feed = FeedKey(name);
            if !known.feeds.contains_key(&feed) && !mounted.contains(&feed) {
                warn!("logins and leases that no volume has end by themselves: nobody knows their store any more");
                self.state.remove_feed(&feed.0);
            }
        }
    }
}
