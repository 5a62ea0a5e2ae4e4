//! The volumes that the driver has been asked for, and the feeds that look after them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::names::FeedNames;
use super::record::{FeedKey, Record};
use super::surroundings::{FeedCommand, First};
use super::tokens::Tokens;
use crate::plan::Plan;

#[derive(Default)]
pub(super) struct KnownVolumes {
    pub(super) volumes: BTreeMap<String, KnownVolume>,
    pub(super) feeds: BTreeMap<FeedKey, KnownFeed>,
    pub(super) names: FeedNames,
}

pub(super) struct KnownFeed {
    pub(super) commands: mpsc::Sender<FeedCommand>,
    /// Of all its volumes.
    pub(super) plan: Arc<Plan>,
}

pub(super) struct KnownVolume {
    pub(super) feed: FeedKey,
    pub(super) pod: String,
    pub(super) target: PathBuf,
    pub(super) first: watch::Receiver<First>,
    /// What its feed was told last.
    pub(super) tokens: Tokens,
}

// === impl KnownVolumes ===

impl KnownVolumes {
    /// Whether there is such a feed.
    pub(super) fn works(&self, feed: &FeedKey) -> bool {
        self.feeds.get(feed).is_some_and(|feed| !feed.commands.is_closed())
    }

    /// Another volume that is shown at this path, or is to be.
    pub(super) fn other_at(&self, volume: &str, target: &Path) -> Option<&str> {
        let is_there = |known: &KnownVolume| known.target.as_os_str() == target.as_os_str();
        self.volumes.iter().find(|(id, known)| *id != volume && is_there(known)).map(|(id, _)| id.as_str())
    }

    /// Plans stand in memory once for each feed.
    pub(super) fn share_plan(&self, record: &mut Record) {
        if let Some(KnownFeed { plan, .. }) = self.feeds.get(&record.feed).filter(|feed| feed.plan == record.plan) {
            record.plan = Arc::clone(plan);
        }
    }

    /// Says whether the feed will hear it.
    pub(super) fn tell(&self, feed: &FeedKey, command: FeedCommand) -> bool {
        self.feeds.get(feed).is_some_and(|feed| feed.commands.try_send(command).is_ok())
    }

    /// Tells a volume's feed of its tokens, unless it has them: kubelet brings the same ones until they are about to end,
    /// once a minute. Says whether there is such a feed, which has heard of them.
    pub(super) fn tell_tokens(&mut self, volume: &str, tokens: &Tokens) -> bool {
        let Some(known) = self.volumes.get_mut(volume) else { return false };
        let Some(KnownFeed { commands, .. }) = self.feeds.get(&known.feed) else { return false };
        if known.tokens == *tokens {
            return !commands.is_closed();
        }
        let is_told = commands.try_send(FeedCommand::Tokens(volume.to_owned(), tokens.clone())).is_ok();
        if is_told {
            known.tokens.clone_from(tokens);
        }
        is_told
    }
}
