//! What a feed is told, and what it needs of the driver.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::budget::Reservation;
use super::failure::CallFailure;
use super::metrics::FeedState;
use super::pods::Annotations;
use super::record::{FeedKey, PodRef, Record};
use super::tokens::Tokens;
use super::volume::MountedVolume;
use crate::config::Config;
use crate::contract::CA_PATH;
use crate::metrics::board::BoardPlace;
use crate::plan::Plan;
use crate::provider::{ArrivalRoom, TokenSource};
use crate::source::{SetupError, Source, SourceMetrics, connect_counted};

/// What a feed is told.
pub(super) enum FeedCommand {
    /// One volume more.
    Attach(Box<NewVolume>),
    /// kubelet's tokens for a volume's pod.
    Tokens(String, Tokens),
    /// The annotations of a pod.
    Annotations(String, Annotations),
    /// One volume less. Answered when nothing is written there any more.
    Detach(String, oneshot::Sender<()>),
}

/// A volume to look after.
#[derive(Debug)]
pub(super) struct NewVolume {
    pub(super) record: Record,
    pub(super) tokens: Tokens,
    pub(super) volume: MountedVolume,
    pub(super) reservation: Option<Reservation>,
    pub(super) first: watch::Sender<First>,
}

/// What became of a volume's first files.
#[derive(Debug, Clone)]
pub(super) enum First {
    /// Nothing yet; and what they wait for, as far as it is known.
    Waiting(String),
    /// They are there.
    Delivered,
    /// There will be none, and nothing of the volume is left.
    Refused(CallFailure),
}

/// What a feed needs of the driver.
pub(super) trait Surroundings: Send + Sync {
    /// The operator's configuration, now and later.
    fn config(&self) -> watch::Receiver<Arc<Config>>;
    /// Takes the feed off the list, unless somebody has told it something that it has yet to hear.
    fn retire(&self, key: &FeedKey, commands: &mut mpsc::Receiver<FeedCommand>) -> Option<FeedCommand>;
    /// Keeps in mind what a volume's pod asks for.
    fn remember(&self, record: &Record);
    /// Forgets a volume that was refused.
    fn forget(&self, volume: &str);
    /// Whether a pod was deleted, or is nowhere to be seen.
    fn is_going(&self, pod: &str) -> bool;
    /// Tells of a running pod's trouble.
    fn trouble(&self, pod: &PodRef, sentence: &str);
    /// What answers on their way to feeds of a namespace may take.
    fn arrivals(&self, namespace: &str) -> Arc<dyn ArrivalRoom>;
    /// Where the feed's state is shown.
    fn place(&self) -> BoardPlace<FeedState>;
}

/// Makes the source of a plan, with the token that is named for each of its providers.
pub(super) type SourceMaker =
    Arc<dyn Fn(&Plan, &dyn Fn(&str) -> TokenSource) -> Result<Source, SetupError> + Send + Sync>;

/// The plan's own stores.
pub(super) fn connected(
    plan: &Plan,
    token_of: &dyn Fn(&str) -> TokenSource,
    metrics: &SourceMetrics,
) -> Result<Source, SetupError> {
    let providers = connect_counted(plan, token_of, Path::new(CA_PATH), Some(metrics))?;
    Ok(Source::new(plan, providers).counted_by(metrics))
}
