//! The driver as its feeds know it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::Driver;
use crate::config::Config;
use crate::csi::metrics::FeedState;
use crate::csi::record::{FeedKey, PodRef, Record};
use crate::csi::surroundings::{FeedCommand, Surroundings};
use crate::metrics::board::BoardPlace;
use crate::provider::ArrivalRoom;

// === impl Driver ===

impl Surroundings for Driver {
    fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.config.clone()
    }

    fn retire(&self, key: &FeedKey, commands: &mut mpsc::Receiver<FeedCommand>) -> Option<FeedCommand> {
        let mut known = self.known();
        // Who sends holds the lock: what is not there now will not come.
        let command = commands.try_recv().ok();
        if command.is_none() {
            known.feeds.remove(key);
            known.names.forget(key);
            self.state.remove_feed(&key.0);
        }
        command
    }

    fn remember(&self, record: &Record) {
        if let Err(error) = self.state.save(record) {
            warn!(%error, volume = record.volume, "a hold or pin is not kept in mind: after a restart it counts from later on");
        }
    }

    fn forget(&self, volume: &str) {
        self.known().volumes.remove(volume);
        self.state.remove(volume);
    }

    fn is_going(&self, pod: &str) -> bool {
        self.pods.is_gone(pod) || self.pods.now(pod).is_some_and(|seen| seen.is_deleted)
    }

    fn trouble(&self, pod: &PodRef, sentence: &str) {
        self.metrics.troubles.increment();
        self.troubles.tell(pod, sentence);
    }

    fn arrivals(&self, namespace: &str) -> Arc<dyn ArrivalRoom> {
        self.limits.arrivals(namespace)
    }

    fn place(&self) -> BoardPlace<FeedState> {
        self.metrics.place()
    }
}
