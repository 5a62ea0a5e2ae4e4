//! What feeds are called. Logins and leases lie under a feed's name, and the name is a digest of a plan as one version of
//! this program writes it: another version goes on with the names that it finds.

use std::collections::BTreeMap;

use super::record::{FeedKey, PodRef, Record};
use super::state::UnreadRecord;

/// Names that an earlier process gave and this one would not.
#[derive(Debug, Default)]
pub(super) struct FeedNames {
    /// By what this process would call the feed.
    given: BTreeMap<FeedKey, FeedKey>,
    /// By volume: records that are not understood. kubelet's next call says what they are.
    unread: BTreeMap<String, UnreadRecord>,
}

// === impl FeedNames ===

impl FeedNames {
    /// Keeps the name that stands in a record.
    pub(super) fn keep(&mut self, record: &Record) {
        let own = FeedKey::of(record);
        if own != record.feed {
            self.given.insert(own, record.feed.clone());
        }
    }

    /// Keeps what is understood of a record.
    pub(super) fn keep_unread(&mut self, unread: UnreadRecord) {
        self.unread.insert(unread.volume.clone(), unread);
    }

    /// Names the feed of a volume that was planned just now.
    pub(super) fn name(&mut self, record: &mut Record) {
        let own = FeedKey::of(record);
        if let Some(UnreadRecord { feed, .. }) =
            self.take_unread(&record.volume, &record.pod).filter(|it| it.feed != own)
        {
            self.given.entry(own.clone()).or_insert(feed);
        }
        record.feed = self.given.get(&own).cloned().unwrap_or(own);
    }

    fn take_unread(&mut self, volume: &str, pod: &PodRef) -> Option<UnreadRecord> {
        self.unread.remove(volume).filter(|unread| unread.pod == *pod)
    }

    /// A feed is over, and what it left is gone.
    pub(super) fn forget(&mut self, feed: &FeedKey) {
        self.given.retain(|_, given| given != feed);
    }

    /// Records that nobody has asked for yet.
    pub(super) fn unread(&self) -> Vec<UnreadRecord> {
        self.unread.values().cloned().collect()
    }
}
