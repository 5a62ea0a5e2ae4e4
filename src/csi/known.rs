//! The volumes that the driver has been asked for, and the feeds that look after them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::sync::{mpsc, watch};

use super::names::FeedNames;
use super::record::FeedKey;
use super::surroundings::{FeedCommand, First};

#[derive(Default)]
pub(super) struct KnownVolumes {
    pub(super) volumes: BTreeMap<String, KnownVolume>,
    pub(super) feeds: BTreeMap<FeedKey, mpsc::Sender<FeedCommand>>,
    pub(super) names: FeedNames,
}

pub(super) struct KnownVolume {
    pub(super) feed: FeedKey,
    pub(super) pod: String,
    pub(super) target: PathBuf,
    pub(super) first: watch::Receiver<First>,
}

// === impl KnownVolumes ===

impl KnownVolumes {
    /// Whether there is such a feed.
    pub(super) fn works(&self, feed: &FeedKey) -> bool {
        self.feeds.get(feed).is_some_and(|feed| !feed.is_closed())
    }

    /// Says whether the feed will hear it.
    pub(super) fn tell(&self, feed: &FeedKey, command: FeedCommand) -> bool {
        self.feeds.get(feed).is_some_and(|feed| feed.try_send(command).is_ok())
    }
}
