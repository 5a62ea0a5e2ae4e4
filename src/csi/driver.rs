//! Which volumes there are, and which feed looks after each: published, unpublished, and found again after a restart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info, info_span, warn};

use super::attributes::{Publication, PublishCall};
use super::budget::VolumeBudget;
use super::events::Troubles;
use super::failure::{CallFailure, FailureKind};
use super::feed::Feed;
use super::known::{KnownFeed, KnownVolume, KnownVolumes};
use super::logins::Logins;
use super::metrics::DriverMetrics;
use super::mounts::Mounts;
use super::pods::{Pods, SeenPod};
use super::proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use super::record::{PodRef, Record};
use super::state::StateDir;
use super::surroundings::{FeedCommand, First, NewVolume, SourceMaker, Surroundings};
use super::volume::MountedVolume;
use crate::audit::{AuditLog, AuditOutcome};
use crate::cluster::namespaces::Namespaces;
use crate::config::{Config, CsiLimits, NamespaceLabels};
use crate::deliver::controls::Wanted;
use crate::source::SetupError;

mod left;
mod surroundings;
mod unclaimed;

/// kubelet gives a call two minutes, and never cancels it.
const LONGEST_WAIT: Duration = Duration::from_secs(110);
/// How long a feed may take to let go of a volume: it is between two steps, of which none waits for a store.
const LETTING_GO: Duration = Duration::from_secs(20);
/// What waits to be heard by a feed: calls of kubelet, one for each volume at a time.
const QUEUED: usize = 1024;

/// The volumes of this node.
pub(super) struct Driver {
    kubelet_root: PathBuf,
    config: watch::Receiver<Arc<Config>>,
    /// Directory with the program for variables, if there is one.
    program: Option<PathBuf>,
    mounts: Arc<dyn Mounts>,
    limits: Arc<VolumeBudget>,
    logins: Arc<Logins>,
    state: StateDir,
    pods: Pods,
    namespaces: Namespaces,
    troubles: Troubles,
    metrics: DriverMetrics,
    /// Of the node; each line is about somebody else.
    audit: AuditLog,
    sources: SourceMaker,
    known: Mutex<KnownVolumes>,
    /// The feeds at work, and what ends leases of nobody.
    work: TaskTracker,
    shutdown: CancellationToken,
}

/// What a driver is made of.
pub(super) struct DriverParts {
    pub(super) kubelet_root: PathBuf,
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) program: Option<PathBuf>,
    pub(super) mounts: Arc<dyn Mounts>,
    pub(super) state: StateDir,
    pub(super) pods: Pods,
    pub(super) namespaces: Namespaces,
    pub(super) troubles: Troubles,
    pub(super) metrics: DriverMetrics,
    pub(super) audit: AuditLog,
    pub(super) sources: SourceMaker,
    pub(super) shutdown: CancellationToken,
}

// === impl Driver ===

impl Driver {
    pub(super) fn new(parts: DriverParts) -> Arc<Self> {
        let DriverParts {
            kubelet_root,
            config,
            program,
            mounts,
            state,
            pods,
            namespaces,
            troubles,
            metrics,
            audit,
            sources,
            shutdown,
        } = parts;
        let limits = Arc::new(VolumeBudget::default());
        metrics.show_bytes(Arc::clone(&limits));
        Arc::new(Self {
            kubelet_root,
            config,
            program,
            mounts,
            limits,
            logins: Arc::default(),
            state,
            pods,
            namespaces,
            troubles,
            metrics,
            audit,
            sources,
            known: Mutex::default(),
            work: TaskTracker::new(),
            shutdown,
        })
    }

    /// Makes a volume, or feeds one that is there with kubelet's tokens. The latter always succeeds: before 1.34.9, 1.35.6
    /// and 1.36.2 kubelet removed the mount after an error (kubernetes/kubernetes#121271).
    ///
    /// # Errors
    /// [`CallFailure`]; if it is final, nothing of the volume is left.
    pub(super) async fn publish(self: &Arc<Self>, request: NodePublishVolumeRequest) -> Result<(), CallFailure> {
        let is_delivered = self.is_delivered(Path::new(&request.target_path));
        let named = NodeUnpublishVolumeRequest {
            volume_id: request.volume_id.clone(),
            target_path: request.target_path.clone(),
        };
        let asked = match PublishCall::of(request, &self.kubelet_root) {
            Ok(asked) => asked,
            Err(failure) if is_delivered => {
                warn!(%failure, "kubelet's call for a volume that is there is not understood: its files stay");
                return Ok(());
            }
            Err(failure) => {
                // It may have been understood before, and wait for its files.
                if let Ok((volume, target)) = super::attributes::unpublication(named, &self.kubelet_root) {
                    self.take_away(&volume, &target).await?;
                }
                self.metrics.count_publish(Some(failure.kind));
                return Err(failure);
            }
        };
        let (volume, target, pod) = (asked.volume.clone(), asked.target.clone(), asked.pod.clone());
        self.has_its_own_path(&volume, &target)?;
        if is_delivered {
            self.metrics.republished.increment();
            if let Err(failure) = self.feed(asked).await {
                warn!(namespace = pod.namespace, pod = pod.name, %failure, "the files of a volume are not kept fresh");
                self.troubles.tell(&pod, &failure.to_string());
            }
            return Ok(());
        }
        let made = match asked.is_program() {
            Ok(true) => self.show_program(&target),
            Ok(false) => self.make(asked).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &made {
            info!(namespace = pod.namespace, pod = pod.name, volume, %failure, "a volume cannot be published");
            if failure.kind.is_final() {
                self.take_away(&volume, &target).await?;
            }
        }
        self.metrics.count_publish(made.as_ref().err().map(|failure| failure.kind));
        made
    }

    /// kubelet gives each volume a path of its own. Nothing is taken away when it is another's: that would be the other's.
    fn has_its_own_path(&self, volume: &str, target: &Path) -> Result<(), CallFailure> {
        self.known().other_at(volume, target).map_or(Ok(()), |other| {
            self.metrics.count_publish(Some(FailureKind::Precondition));
            let sentence = format!("the target path is volume {other}'s: expected one where no other volume is");
            Err(CallFailure::new(FailureKind::Precondition, sentence))
        })
    }

    /// Takes a volume away; one that is not known, or not there, is fine.
    ///
    /// # Errors
    /// [`CallFailure`] if something is left. kubelet tries again.
    pub(super) async fn unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<(), CallFailure> {
        let (volume, target) = super::attributes::unpublication(request, &self.kubelet_root)?;
        self.take_away(&volume, &target).await
    }

    /// Whether the mount table has a file system of ours there, with a complete generation in it. What the driver
    /// remembers does not count.
    fn is_delivered(&self, target: &Path) -> bool {
        MountedVolume::is_there(target, &*self.mounts)
    }

    fn show_program(&self, target: &Path) -> Result<(), CallFailure> {
        let Some(program) = &self.program else {
            let sentence = "the driver has no program for variables: start it with --program";
            return Err(CallFailure::new(FailureKind::Precondition, sentence));
        };
        if self.mounts.is_ours(target).unwrap_or_default() {
            return Ok(());
        }
        self.mounts.bind(program, target).map_err(|error| {
            CallFailure::new(FailureKind::Waiting, format!("the program cannot be shown to the pod: {}", error.kind()))
        })
    }

    /// Plans what is asked for; a pod that may not have it is told of.
    async fn planned(&self, asked: PublishCall) -> Result<Publication, CallFailure> {
        let config = self.config();
        let labels = self.labels(&config, &asked.pod.namespace).await;
        let who = asked.who(self.audit.who().node.clone());
        asked.planned(&config, &labels).inspect_err(|failure| {
            let outcome = match failure.kind {
                FailureKind::Denied => AuditOutcome::Denied,
                _ => AuditOutcome::Invalid,
            };
            self.audit.about(who).only_if(config.audit).volume_denied(&failure.to_string(), outcome);
        })
    }

    async fn make(self: &Arc<Self>, asked: PublishCall) -> Result<(), CallFailure> {
        let mut publication = self.planned(asked).await?;
        let pod = publication.record.pod.uid.clone();
        let seen = self.pods.look(&pod).await;
        if seen.is_none() {
            warn!(pod, "the API server has not told of this pod yet: a hold or a pin of it counts from later on");
        }
        let seen = seen.unwrap_or_default();
        if seen.is_deleted {
            return Err(gone());
        }
        publication.record.wanted = Wanted::default().updated(seen.annotations.ours());
        let mut first = self.attach(publication).await?;
        let outcome = first.wait_for(|first| !matches!(first, First::Waiting(_)));
        tokio::select! {
            biased;
            outcome = outcome => match outcome.map(|first| first.clone()) {
                Ok(First::Refused(failure)) => return Err(failure),
                Ok(_) => return Ok(()),
                // Its feed is gone: kubelet's next call makes another.
                Err(_) => return Err(CallFailure::new(FailureKind::Waiting, "the driver is ending: kubelet tries again")),
            },
            () = self.pods.going(&pod) => return Err(gone()),
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(LONGEST_WAIT) => {}
        }
        let obstacle = match &*first.borrow() {
            First::Waiting(obstacle) if !obstacle.is_empty() => obstacle.clone(),
            _ => "no answer of the stores yet".to_owned(),
        };
        Err(CallFailure::new(FailureKind::Waiting, format!("waiting for the first files: {obstacle}")))
    }

    /// Gives a volume to its feed; one that has it already goes on with it.
    async fn attach(self: &Arc<Self>, publication: Publication) -> Result<watch::Receiver<First>, CallFailure> {
        let Publication { mut record, tokens, limits } = publication;
        let other = {
            let mut known = self.known();
            known.names.name(&mut record);
            let key = &record.feed;
            match known.volumes.get(&record.volume) {
                Some(same)
                    if same.feed == *key
                        && same.target == record.target
                        && known.works(key)
                        // What was delivered and is not there was taken away by somebody else.
                        && (!matches!(*same.first.borrow(), First::Delivered) || self.is_delivered(&same.target)) =>
                {
                    let first = same.first.clone();
                    known.tell_tokens(&record.volume, &tokens);
                    return Ok(first);
                }
                other => other.map(|other| (record.volume.clone(), other.target.clone())),
            }
        };
        // The operator's configuration has changed since the last call, so there is another plan; or its files are gone.
        if let Some((volume, target)) = other {
            self.take_away(&volume, &target).await?;
        }
        let room = record.plan.volume_bytes();
        let reservation = self.limits.reserve_volume(&record.pod.namespace, room, &limits)?;
        let volume = MountedVolume::new(record.target.clone(), room, record.owner, Arc::clone(&self.mounts));
        let (first, told) = watch::channel(First::Waiting(String::new()));
        self.state.save(&record).map_err(|error| {
            CallFailure::new(
                FailureKind::Exhausted,
                format!("the driver cannot keep the volume in mind: {}", error.kind()),
            )
        })?;
        let id = record.volume.clone();
        let new = NewVolume { record, tokens, volume, reservation: Some(reservation), first };
        match self.hand_to_feed(new, &limits) {
            Ok(()) => Ok(told),
            Err(failure) => {
                self.state.remove(&id);
                Err(failure)
            }
        }
    }

    /// Tells the feed of a volume, and makes one if there is none.
    fn hand_to_feed(self: &Arc<Self>, mut volume: NewVolume, limits: &CsiLimits) -> Result<(), CallFailure> {
        let mut known = self.known();
        known.share_plan(&mut volume.record);
        let NewVolume { record, first, tokens, .. } = &volume;
        let key = &record.feed.clone();
        let entry = KnownVolume {
            feed: key.clone(),
            pod: record.pod.uid.clone(),
            target: record.target.clone(),
            first: first.subscribe(),
            tokens: tokens.clone(),
        };
        let (id, pod) = (record.volume.clone(), record.pod.uid.clone());
        if !known.works(key) {
            let answers = self.limits.reserve_feed(&record.pod.namespace, record.plan.room(), limits)?;
            let feed = self.new_feed(record).map_err(|error| {
                // What an earlier process left is another version's to go on with.
                self.state.remove_empty_feed(&key.0);
                CallFailure::invalid(error.public())
            })?;
            let (sender, commands) = mpsc::channel(QUEUED);
            let PodRef { namespace, .. } = &record.pod;
            let account = &record.plan.identity.service_account;
            let span = info_span!("feed", namespace, account);
            self.work.spawn(feed.with_room(answers).run(commands).instrument(span));
            known.feeds.insert(key.clone(), KnownFeed { commands: sender, plan: Arc::clone(&record.plan) });
        }
        if !known.tell(key, FeedCommand::Attach(Box::new(volume))) {
            return Err(CallFailure::new(FailureKind::Exhausted, "the driver has too much to do: kubelet tries again"));
        }
        known.volumes.insert(id, entry);
        drop(known);
        // The API server may have told of its pod since that was looked at, when nobody listened.
        if let Some(seen) = self.pods.now(&pod) {
            self.pod_changed(&pod, &seen);
        }
        Ok(())
    }

    fn new_feed(self: &Arc<Self>, record: &Record) -> Result<Feed, SetupError> {
        let (hand_over, logins) = (self.state.hand_over(&record.feed.0), self.logins.share(record));
        let around: Arc<dyn Surroundings> = Arc::clone(self) as _;
        let audit = self.audit.clone().only_if(record.plan.audit);
        Feed::new(record, hand_over, logins, around, &self.sources, &audit, self.shutdown.child_token())
    }

    /// A volume whose files are there: kubelet's new tokens go to its feed. One that nobody knows any more gets a feed.
    async fn feed(self: &Arc<Self>, asked: PublishCall) -> Result<(), CallFailure> {
        if self.known().tell_tokens(&asked.volume, &asked.tokens) {
            return Ok(());
        }
        let Publication { mut record, tokens, .. } = self.planned(asked).await?;
        self.known().names.name(&mut record);
        // Nobody knows yet whether they are held: while that is so, they are.
        let seen = self.pods.look(&record.pod.uid).await;
        let unknown = Wanted { hold: self.pods.is_followed(), ..Wanted::default() };
        record.wanted = seen.map_or(unknown, |seen| Wanted::default().updated(seen.annotations.ours()));
        self.adopt(record, tokens)
    }

    async fn take_away(&self, volume: &str, target: &Path) -> Result<(), CallFailure> {
        let busy = || CallFailure::new(FailureKind::Waiting, "the volume is still being written: kubelet tries again");
        let (done, left) = oneshot::channel();
        let is_told = {
            let known = self.known();
            match known.volumes.get(volume).and_then(|entry| known.feeds.get(&entry.feed)) {
                Some(feed) => match feed.commands.try_send(FeedCommand::Detach(volume.to_owned(), done)) {
                    Err(TrySendError::Full(_)) => return Err(busy()),
                    told => told.is_ok(),
                },
                None => false,
            }
        };
        // It stays known until its feed has let go: what is unmounted before could be mounted again.
        if is_told && timeout(LETTING_GO, left).await.is_err() {
            return Err(busy());
        }
        self.known().volumes.remove(volume);
        self.mounts.unmount(target).map_err(|error| {
            CallFailure::new(FailureKind::Waiting, format!("the volume cannot be unmounted: {}", error.kind()))
        })?;
        self.state.remove(volume);
        Ok(())
    }

    /// A pod of this node is another than before.
    pub(super) fn pod_changed(&self, uid: &str, seen: &SeenPod) {
        let known = self.known();
        let feeds: BTreeSet<_> =
            known.volumes.values().filter(|volume| volume.pod == uid).map(|volume| &volume.feed).collect();
        for feed in feeds {
            known.tell(feed, FeedCommand::Annotations(uid.to_owned(), seen.annotations.clone()));
        }
    }

    /// Waits, once `shutdown` is cancelled, until no feed writes any more: the next process reads what they have written.
    pub(super) async fn ended(&self) {
        self.work.close();
        if timeout(LETTING_GO, self.work.wait()).await.is_err() {
            warn!("some feeds do not end: the driver ends without them");
        }
    }

    /// Volumes, feeds, and bytes set aside.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, u64) {
        let known = self.known();
        (known.volumes.len(), known.feeds.len(), self.limits.taken())
    }

    /// The labels of a namespace, if some rule asks for them.
    async fn labels(&self, config: &Config, namespace: &str) -> NamespaceLabels {
        if config.asks_for_labels() { self.namespaces.look(namespace).await } else { NamespaceLabels::NotAsked }
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    fn known(&self) -> MutexGuard<'_, KnownVolumes> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone() -> CallFailure {
    CallFailure::new(FailureKind::PodGone, "the pod is being deleted")
}
