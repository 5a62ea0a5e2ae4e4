//! One source on this node for pods of one identity that want the same, and a delivery for each of their volumes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use super::attached::{Attached, are_waited_for};
use super::budget::Reservation;
use super::failure::{CallFailure, FailureKind};
use super::logins::LoginShare;
use super::metrics::FeedState;
use super::record::{FeedKey, Record};
use super::surroundings::{FeedCommand, SourceMaker, Surroundings};
#[cfg(test)]
use super::tests::steps::step;
use super::volume::MountedVolumeError;
use crate::audit::{AuditLog, Who};
use crate::config::Config;
use crate::deliver::controls::Control;
use crate::deliver::delivery::{DeliverError, Due};
use crate::generation::Generation;
use crate::metrics::board::BoardPlace;
use crate::plan::Plan;
use crate::provider::TokenSource;
use crate::report::Denial;
use crate::secret::SecretValue;
use crate::source::persisted::{HandOverFile, PersistedState};
use crate::source::{Event, HandOver, SetupError, Source};

mod attach;
mod deny;
mod heard;

/// How long a refusal answers for those who ask the same: kubelet tries again after half a second.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// How soon a store that failed is asked again while a call of kubelet waits for first files: the pod starts within a second
/// of the store's return. What a store wishes itself is heeded.
const PROBE: Duration = Duration::from_millis(900);

/// How long a feed without a login waits for that of another one of its identity.
const TURN: Duration = Duration::from_secs(5);

/// A source and its deliveries.
pub(super) struct Feed {
    key: FeedKey,
    source: Source,
    newest: Option<Arc<Generation>>,
    /// When a store failed that has yet to be asked again.
    failed_at: Option<Instant>,
    /// Why it is of no use to ask for the same now.
    refused: Option<(Instant, CallFailure)>,
    config: watch::Receiver<Arc<Config>>,
    /// What the operator refuses by now: while there is any of it, no store is asked and nothing is written.
    denied: Option<Denial>,
    volumes: Vec<Attached>,
    /// By provider: the audience, and where its token goes.
    tokens: BTreeMap<String, (String, watch::Sender<Option<SecretValue>>)>,
    hand_over: HandOverFile,
    logins: LoginShare,
    /// Until when it waits for another feed's login, if it does, and what it goes on with then.
    turn: Option<(Instant, HandOver)>,
    /// Whether others may be waiting for its own.
    is_first: bool,
    revokes: bool,
    shown: BoardPlace<FeedState>,
    around: Arc<dyn Surroundings>,
    /// About the account.
    audit: AuditLog,
    shutdown: CancellationToken,
    /// What its source may take.
    _reservation: Option<Reservation>,
}

enum FeedWoken {
    Stop,
    Told(Option<FeedCommand>),
    Delivery(usize, Due),
    Source(Event),
    Configured,
    Turn,
    Time,
}

// === impl Feed ===

impl Feed {
    /// A feed for this volume and others like it; goes on with what an earlier process left.
    pub(super) fn new(
        record: &Record,
        mut hand_over: HandOverFile,
        logins: LoginShare,
        around: Arc<dyn Surroundings>,
        sources: &SourceMaker,
        audit: &AuditLog,
        shutdown: CancellationToken,
    ) -> Result<Self, SetupError> {
        let plan = &record.plan;
        let node = audit.who().node.clone();
        let account = plan.identity.service_account.clone();
        let audit = audit.about(Who { namespace: record.pod.namespace.clone(), account, node, ..Who::default() });
        let tokens = channels(plan);
        let source_of = |name: &str| {
            let (_, sender) = tokens.get(name)?;
            Some(TokenSource::Channel(sender.subscribe()))
        };
        // A provider without an audience asks for no token.
        let nowhere = || TokenSource::Channel(watch::Sender::new(None).subscribe());
        let source = sources(plan, &|name| source_of(name).unwrap_or_else(nowhere))?;
        let arrivals = around.arrivals(&record.pod.namespace);
        let mut source = source.audited(audit.clone()).bounded(plan.room(), &arrivals);
        let kept = hand_over.load().map(|kept| kept.hand_over).unwrap_or_default();
        let turn = if kept.sessions.is_empty() {
            Some((Instant::now() + TURN, kept))
        } else {
            logins.offer(&kept.sessions);
            source.resume(kept);
            None
        };
        Ok(Self {
            key: record.feed.clone(),
            source,
            newest: None,
            failed_at: None,
            refused: None,
            config: around.config(),
            denied: None,
            volumes: Vec::new(),
            tokens,
            hand_over,
            logins,
            turn,
            is_first: false,
            revokes: plan.providers.values().any(|provider| provider.revoke_on_exit),
            shown: around.place(),
            around,
            audit,
            shutdown,
            _reservation: None,
        })
    }

    /// The same, with what is set aside for the answers that it keeps.
    pub(super) fn with_room(self, answers: Reservation) -> Self {
        Self { _reservation: Some(answers), ..self }
    }

    /// Works until the last volume is gone, or the driver ends.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<FeedCommand>) {
        loop {
            match self.wait(&mut commands).await {
                FeedWoken::Stop | FeedWoken::Told(None) => return self.save(),
                // kubelet brings them for each volume once a minute, and no volume has anything to do for them.
                FeedWoken::Told(Some(FeedCommand::Tokens(volume, tokens))) => {
                    self.keep_tokens(&volume, tokens);
                    continue;
                }
                FeedWoken::Told(Some(command)) => self.hear(command).await,
                FeedWoken::Source(event) => {
                    self.heard(event);
                    // Before it is seen anywhere: a lease that nobody remembers is granted twice.
                    self.save();
                    if std::mem::take(&mut self.is_first) {
                        self.logins.pass();
                    }
                }
                FeedWoken::Turn => {
                    self.is_first = true;
                    if let Some((_, kept)) = self.turn.take() {
                        self.source.resume(HandOver { sessions: self.logins.sessions(), ..kept });
                    }
                }
                FeedWoken::Time => self.probe(),
                FeedWoken::Configured => self.judge(),
                FeedWoken::Delivery(_, Due::Settled) => {}
                FeedWoken::Delivery(at, Due::Retry) => self.retry(at).await,
            }
            if self.denied.is_none() {
                self.obey().await;
                self.catch_up().await;
            }
            self.save();
            self.tell();
            while self.is_idle() {
                match self.around.retire(&self.key, &mut commands) {
                    Some(command) => self.hear(command).await,
                    None => return self.close().await,
                }
            }
        }
    }

    /// Whether nobody needs it. A refusal stays for a moment: sixty replicas ask at once.
    fn is_idle(&self) -> bool {
        self.volumes.is_empty() && self.refused.as_ref().is_none_or(|(until, _)| *until <= Instant::now())
    }

    async fn wait(&mut self, commands: &mut mpsc::Receiver<FeedCommand>) -> FeedWoken {
        let Self { source, volumes, failed_at, refused, config, denied, logins, turn, shutdown, .. } = self;
        let now = Instant::now();
        let is_denied = denied.is_some();
        let controls = volumes.iter().filter_map(|volume| volume.controls.next(now)).min().filter(|_| !is_denied);
        let refused = refused.as_ref().map(|(until, _)| *until).filter(|_| volumes.is_empty());
        let probe = failed_at.filter(|_| are_waited_for(volumes) && !is_denied);
        let reports = volumes.iter().filter_map(|volume| volume.reporting.due_at()).min();
        let until = controls.into_iter().chain(reports).chain(refused).chain(probe.map(|at| at + PROBE)).min();
        let is_empty = volumes.is_empty();
        let mut due: FuturesUnordered<_> = volumes
            .iter_mut()
            .enumerate()
            .map(|(at, volume)| async move { (at, volume.delivery.wait().await) })
            .collect();
        let alarm = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let may_ask = turn.is_none();
        let turn = async {
            match turn {
                Some((until, _)) => drop(tokio::time::timeout_at(*until, logins.turn()).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => FeedWoken::Stop,
            command = commands.recv() => FeedWoken::Told(command),
            () = alarm => FeedWoken::Time,
            Ok(()) = config.changed() => FeedWoken::Configured,
            Some((at, due)) = due.next(), if !is_denied => FeedWoken::Delivery(at, due),
            () = turn, if !is_empty && !is_denied => FeedWoken::Turn,
            // Nobody asks a store for nobody.
            event = source.next(), if !is_empty && may_ask && !is_denied => FeedWoken::Source(event),
        }
    }

    async fn hear(&mut self, command: FeedCommand) {
        match command {
            FeedCommand::Attach(volume) => self.attach(*volume).await,
            FeedCommand::Tokens(volume, tokens) => self.keep_tokens(&volume, tokens),
            FeedCommand::Annotations(pod, annotations) => {
                for attached in self.volumes.iter_mut().filter(|attached| attached.record.pod.uid == pod) {
                    let _in = attached.span.clone().entered();
                    attached.controls.update(annotations.ours());
                }
            }
            FeedCommand::Detach(volume, done) => {
                self.volumes.retain(|attached| attached.record.volume != volume);
                self.hand_tokens_on();
                // The caller may have given up waiting.
                let _ = done.send(());
            }
        }
    }

    /// What the pods' annotations ask for now.
    async fn obey(&mut self) {
        let Self { source, volumes, around, .. } = self;
        let mut refresh = false;
        for attached in volumes {
            let due = attached.controls.due(Instant::now());
            if !due.is_empty() {
                attached.record.wanted = attached.controls.wanted().clone();
                around.remember(&attached.record);
            }
            for control in due {
                let delivery = &mut attached.delivery;
                async {
                    match control {
                        Control::Hold(hold) => delivery.hold(hold),
                        Control::Pin(pin) => drop(delivery.pin(pin, source).await),
                        Control::Advance(wave) => refresh |= delivery.advance(wave),
                        Control::RefreshNow(id) => {
                            refresh = true;
                            delivery.refreshing(id);
                            let sentence = "every secret is read now, as the annotation asks";
                            delivery.report().info("refresh_now", sentence);
                        }
                    }
                }
                .instrument(attached.span.clone())
                .await;
            }
        }
        if refresh {
            source.refresh_now();
        }
    }

    async fn retry(&mut self, at: usize) {
        let Self { source, volumes, .. } = self;
        if let Some(attached) = volumes.get_mut(at) {
            let span = attached.span.clone();
            attached.delivery.retry(source).instrument(span).await;
        }
    }

    async fn catch_up(&mut self) {
        let mut refused = Vec::new();
        for (at, attached) in self.volumes.iter_mut().enumerate() {
            let span = attached.span.clone();
            match attached.delivery.catch_up(&mut self.source).instrument(span).await {
                Ok(_) if attached.delivery.is_open() => {
                    // A pin counts from the beginning.
                    if !attached.delivery.is_reading() {
                        attached.is_delivered();
                    }
                    attached.keep_advanced(&*self.around);
                    let is_unwritable = attached.delivery.unwritable().is_some();
                    if is_unwritable && !attached.told_unwritable {
                        // Not why: paths may have names in them that only the store knows.
                        self.around
                            .trouble(&attached.record.pod, "the last good files stay: new ones cannot be written");
                    }
                    attached.told_unwritable = is_unwritable;
                }
                Ok(_) => attached.waits(),
                Err(error) => refused.push((at, failure_of(&error))),
            }
        }
        // From the last on: what takes the place of one that goes was looked at already.
        for (at, failure) in refused.into_iter().rev() {
            self.volumes.swap_remove(at).give_up(failure, &*self.around);
        }
        self.tell_delivered();
    }

    /// What the newest generation replaced ends only when no volume shows it any more, held ones included.
    fn tell_delivered(&mut self) {
        let Some(newest) = &self.newest else { return };
        let has_newest = |attached: &Attached| attached.delivery.report().generation.as_ref() == Some(&newest.id);
        if !self.volumes.is_empty() && self.volumes.iter().all(has_newest) {
            self.source.delivered(&newest.id);
        }
    }

    /// A line of the log for each volume that has news, or whose turn it is; and metrics.
    fn tell(&mut self) {
        for attached in &mut self.volumes {
            attached.reporting.tell(&attached.delivery, &self.source, || None);
        }
        // One plan for all of the feed.
        let providers = self.volumes.first().into_iter().flat_map(|attached| attached.record.plan.providers.keys());
        let reports = self.volumes.iter().map(|attached| attached.delivery.report());
        self.shown.tell(FeedState::of(reports, providers));
    }

    fn save(&mut self) {
        if self.turn.is_some() {
            // What was kept still counts.
            return;
        }
        let hand_over = self.source.hand_over();
        self.logins.offer(&hand_over.sessions);
        if let Err(error) = self.hand_over.save(PersistedState { hand_over, ..PersistedState::default() }) {
            warn!(%error, "the hand-over was not written: after a restart, logins and leases are made anew");
        }
        #[cfg(test)]
        step("hand-over written");
    }

    /// Ends what an earlier process left and nobody has asked for since.
    pub(super) async fn end(mut self) {
        if let Some((_, kept)) = self.turn.take() {
            self.source.resume(kept);
        }
        self.close().await;
    }

    /// Nobody needs its leases any more, and what was kept of them is gone with its place on the list.
    async fn close(mut self) {
        /// Stores that do not answer get no more time than this.
        const REVOKE: Duration = Duration::from_secs(10);
        if self.revokes && tokio::time::timeout(REVOKE, self.source.revoke_all()).await.is_err() {
            warn!("there was no time to revoke all leases: the rest ends by itself");
        }
    }
}

fn channels(plan: &Plan) -> BTreeMap<String, (String, watch::Sender<Option<SecretValue>>)> {
    let with_audience = plan.providers.iter().filter_map(|(name, provider)| {
        let audience = provider.audience.clone()?;
        Some((name.clone(), (audience, watch::Sender::new(None))))
    });
    with_audience.collect()
}

fn failure_of(error: &DeliverError<MountedVolumeError>) -> CallFailure {
    match error {
        DeliverError::Render(error) => CallFailure::invalid(format!("the files cannot be made: {}", error.public())),
        DeliverError::Volume(error) => CallFailure::new(FailureKind::Precondition, error.to_string()),
    }
}
