//! One source on this node for pods of one identity that want the same, and a delivery for each of their volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info_span, warn};

use super::attributes::{PodRef, PodToken, Record, Tokens};
use super::budget::Reservation;
use super::failure::{CallFailure, FailureKind};
use super::logins::LoginShare;
use super::metrics::FeedState;
use super::pods::Annotations;
#[cfg(test)]
use super::tests::steps::step;
use super::volume::{MountedVolume, MountedVolumeError};
use crate::audit::{AuditLog, Who};
use crate::config::Config;
use crate::contract::CA_PATH;
use crate::deliver::controls::{Control, LiveControls, Wanted};
use crate::deliver::delivery::{DeliverError, Delivery, Due};
use crate::deliver::reporting::Reporting;
use crate::generation::Generation;
use crate::metrics::board::BoardPlace;
use crate::plan::Plan;
use crate::provider::TokenSource;
use crate::report::line::{ReportedPod, Writer};
use crate::secret::SecretValue;
use crate::source::persisted::{HandOverFile, PersistedState};
use crate::source::{
    Event, HandOver, Obstacles, SetupError, Source, SourceFailure, SourceMetrics, connect_counted, refusals,
};

/// How long a refusal answers for those who ask the same: kubelet tries again after half a second.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// How soon a store that failed is asked again while a call of kubelet waits for first files: the pod starts within a second
/// of the store's return. What a store wishes itself is heeded.
const PROBE: Duration = Duration::from_millis(900);

/// How long a feed without a login waits for that of another one of its identity.
const TURN: Duration = Duration::from_secs(5);

/// Whose, and what: pods of another account, or with another plan, never share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct FeedKey(pub(super) String);

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

/// A source and its deliveries.
pub(super) struct Feed {
    key: FeedKey,
    source: Source,
    newest: Option<Generation>,
    /// When a store failed that has yet to be asked again.
    failed_at: Option<Instant>,
    /// Why it is of no use to ask for the same now.
    refused: Option<(Instant, CallFailure)>,
    config: watch::Receiver<Arc<Config>>,
    /// What the operator refuses by now, by provider: while there is any of it, no store is asked and nothing is written.
    denied: BTreeMap<String, String>,
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

/// A volume that is looked after.
struct Attached {
    record: Record,
    delivery: Delivery<MountedVolume>,
    controls: LiveControls,
    reporting: Reporting,
    tokens: Tokens,
    first: watch::Sender<First>,
    /// What is in the way of its first files, by provider.
    obstacles: Obstacles,
    /// Whether its pod was told that its files cannot be written.
    told_unwritable: bool,
    span: Span,
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

// === impl FeedKey ===

impl FeedKey {
    /// What this program calls the feed of such a volume, unless it [has a name](Record::feed) already.
    pub(super) fn of(record: &Record) -> Self {
        let Record { volume, pod, account, is_own, plan, .. } = record;
        let plan = plan.to_json().unwrap_or_default();
        Self::named(pod, account.as_deref(), is_own.then_some(volume), &plan)
    }

    /// The name, by the plan as it is written; of a feed of this volume alone, if one is given.
    pub(super) fn named(pod: &PodRef, account: Option<&str>, own: Option<&String>, plan: &str) -> Self {
        let volume = own.map(String::as_str).unwrap_or_default();
        Self(pod.digest_with(account, &[volume.as_bytes(), plan.as_bytes()]))
    }
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
        let mut source = source.audited(audit.clone()).bounded(plan.room());
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
            denied: BTreeMap::new(),
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
            if self.denied.is_empty() {
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
        let is_denied = !denied.is_empty();
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
            FeedCommand::Tokens(volume, tokens) => {
                if let Some(attached) = self.volumes.iter_mut().find(|attached| attached.record.volume == volume) {
                    attached.tokens = tokens;
                    self.hand_tokens_on();
                    if self.denied.is_empty() && self.source.failing().next().is_some() {
                        // It may be what the stores were waiting for.
                        self.source.refresh_now();
                    }
                }
            }
            FeedCommand::Annotations(pod, annotations) => {
                for attached in self.volumes.iter_mut().filter(|attached| attached.record.pod.uid == pod) {
                    let _in = attached.span.clone().entered();
                    attached.controls.update(annotations.ours());
                }
            }
            FeedCommand::Detach(volume, done) => {
                self.volumes.retain(|attached| attached.record.volume != volume);
                self.hand_tokens_on();
                // Whoever asked may have given up waiting.
                let _ = done.send(());
            }
        }
    }

    async fn attach(&mut self, new: NewVolume) {
        let NewVolume { record, tokens, volume, reservation, first } = new;
        if let Some((_, failure)) = self.refused.as_ref().filter(|(until, _)| *until > Instant::now()) {
            self.around.forget(&record.volume);
            first.send_replace(First::Refused(failure.clone()));
            return;
        }
        // One plan for all of the feed.
        let denied = refused_by(&record.plan, &self.config.borrow());
        self.set_denied(denied);
        if !self.denied.is_empty() && volume.is_empty() {
            self.around.forget(&record.volume);
            first.send_replace(First::Refused(denial(&self.denied)));
            return;
        }
        // Its namespace is the feed's.
        let span = info_span!("volume", pod = record.pod.name, volume = record.volume);
        let PodRef { namespace, name, uid } = record.pod.clone();
        let who = Who { pod: Some(name.clone()), uid: Some(uid.clone()), ..self.audit.who().clone() };
        let delivery = Delivery::new(record.plan.items.clone(), record.plan.size_limit, volume);
        let delivery = delivery.audited(self.audit.about(who));
        let advanced = record.advanced.clone().or_else(|| record.wanted.advance.clone());
        // Volumes without files have gone along with none, and will with their first.
        let advanced = advanced.filter(|_| delivery.is_open());
        let controls = LiveControls::starting_with(record.wanted.clone(), advanced);
        let account = record.plan.identity.service_account.clone();
        let pod = ReportedPod { namespace, name: Some(name), uid: Some(uid), account };
        let reporting = Reporting::new(pod, Writer::Csi, Some(record.volume.clone()));
        let mut attached = Attached {
            record,
            delivery,
            controls,
            reporting,
            tokens,
            first,
            obstacles: Obstacles::default(),
            told_unwritable: false,
            span: span.clone(),
            _reservation: reservation,
        };
        self.begin(&mut attached).instrument(span).await;
        attached.deny(&self.denied, &*self.around);
        self.volumes.push(attached);
        self.hand_tokens_on();
    }

    /// A volume's first state: its controls, and what the feed has.
    async fn begin(&mut self, attached: &mut Attached) {
        let Self { source, newest, denied, .. } = self;
        let Wanted { hold, pin, refresh_now, advance: _ } = attached.controls.wanted().clone();
        attached.delivery.resume_advanced(attached.record.advanced.clone());
        if let Some(id) = refresh_now {
            attached.delivery.refreshing(id);
        }
        let report = attached.delivery.report_mut();
        report.held = hold;
        if report.generation.is_some() {
            report.info("adopted", "the files of an earlier process are in place and are kept fresh from now on");
        }
        if let Some(pin) = pin.filter(|_| denied.is_empty()) {
            attached.delivery.pin(Some(pin), source).await;
        }
        if let Some(newest) = newest {
            attached.delivery.offer(newest.clone());
        }
    }

    /// Another configuration is in force: what it refuses is neither read nor renewed from now on, and what it refuses no
    /// more is read at once. Files that are there stay.
    fn judge(&mut self) {
        let config = self.config.borrow_and_update().clone();
        let plan = self.volumes.first().map(|attached| &attached.record.plan);
        let denied = plan.map(|plan| refused_by(plan, &config)).unwrap_or_default();
        self.set_denied(denied);
    }

    fn set_denied(&mut self, denied: BTreeMap<String, String>) {
        if denied == self.denied {
            return;
        }
        self.denied = denied;
        if self.denied.is_empty() {
            self.source.refresh_now();
        } else {
            // Others of its identity wait for a login that will not be.
            if std::mem::take(&mut self.is_first) {
                self.logins.pass();
            }
            self.refuse(&denial(&self.denied));
        }
        for attached in &mut self.volumes {
            let _in = attached.span.clone().entered();
            attached.deny(&self.denied, &*self.around);
        }
        self.note_failing();
    }

    /// To the stores goes the token of a pod that lives, and the one that lives longest: the tokens of one that was deleted
    /// by force are refused, though it is still mounted. Whether another one goes there than before.
    fn hand_tokens_on(&mut self) -> bool {
        let Self { volumes, tokens, around, .. } = self;
        let mut is_another = false;
        for (audience, sender) in tokens.values() {
            let all = volumes.iter().filter_map(|attached| Some((attached, attached.tokens.get(audience)?)));
            // One that nobody knows yet, or not any more, is better than none.
            let lives = |attached: &Attached| !around.is_going(&attached.record.pod.uid);
            let best = all.max_by_key(|(attached, PodToken { ends, .. })| (lives(attached), *ends));
            let best = best.map(|(_, token)| token.value.clone());
            if *sender.borrow() != best {
                sender.send_replace(best);
                is_another = true;
            }
        }
        is_another
    }

    fn heard(&mut self, event: Event) {
        self.note_failing();
        match event {
            Event::Changed(generation) => {
                self.refused = None;
                for attached in &mut self.volumes {
                    attached.delivery.offer(generation.clone());
                }
                self.newest = Some(generation);
            }
            Event::Failed(failures) => {
                self.failed_at = Some(Instant::now());
                if self.hand_tokens_on() {
                    // It may be the pod that has gone meanwhile that was refused.
                    self.source.refresh_now();
                } else {
                    self.failed(&failures);
                }
            }
            Event::Unchanged | Event::Silent => {}
        }
    }

    /// Asks again what failed, if first files wait for it.
    fn probe(&mut self) {
        if are_waited_for(&self.volumes) && self.failed_at.is_some_and(|at| at + PROBE <= Instant::now()) {
            self.failed_at = None;
            self.source.refresh_now();
        }
    }

    fn note_failing(&mut self) {
        let failing: BTreeSet<&str> = self.source.failing().chain(self.denied.keys().map(String::as_str)).collect();
        for attached in &mut self.volumes {
            attached.delivery.report_mut().note_failing(&failing);
            attached.obstacles.retain(&failing);
        }
    }

    /// Volumes with files stay as they are, and their pods are told. The others wait, or there is nothing to wait for.
    fn failed(&mut self, failures: &[SourceFailure]) {
        let refused: Vec<_> = failures.iter().filter(|failure| failure.error.kind.is_permanent()).collect();
        let sentence = refusals(failures, |error| error.message.public());
        if let Some(first) = refused.first() {
            let why = refusals(refused.iter().copied(), |error| error.message.public());
            let failure = CallFailure::new(FailureKind::of(first.error.kind), why);
            if self.refuse(&failure) {
                self.refused = Some((Instant::now() + REFUSED_FOR, failure));
            }
        }
        for attached in &mut self.volumes {
            if attached.delivery.is_open() {
                self.around.trouble(&attached.record.pod, &format!("the last good files stay: {sentence}"));
                continue;
            }
            attached.obstacles.note(failures);
            attached.waits();
        }
    }

    /// Gives up all volumes without files; says whether there were any.
    fn refuse(&mut self, failure: &CallFailure) -> bool {
        let (open, closed): (Vec<_>, Vec<_>) = self.volumes.drain(..).partition(|attached| attached.delivery.is_open());
        self.volumes = open;
        let any = !closed.is_empty();
        for attached in closed {
            attached.give_up(failure.clone(), &*self.around);
        }
        any
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

/// What the operator's rules refuse of a plan that was made before, in a sentence for each provider.
fn refused_by(plan: &Plan, config: &Config) -> BTreeMap<String, String> {
    let mut refused = BTreeMap::new();
    for (request, sentence) in plan.refused(config) {
        refused.entry(request.provider.clone()).or_insert(sentence);
    }
    refused
}

fn denial(denied: &BTreeMap<String, String>) -> CallFailure {
    let sentences: Vec<_> = denied.values().map(String::as_str).collect();
    CallFailure::new(FailureKind::Denied, sentences.join("; "))
}

/// Whether a call of kubelet waits for the first files of one of these.
fn are_waited_for(volumes: &[Attached]) -> bool {
    volumes.iter().any(|attached| !attached.delivery.is_open())
}

fn failure_of(error: &DeliverError<MountedVolumeError>) -> CallFailure {
    match error {
        DeliverError::Render(error) => CallFailure::invalid(format!("the files cannot be made: {}", error.public())),
        DeliverError::Volume(error) => CallFailure::new(FailureKind::Precondition, error.to_string()),
    }
}

// === impl Attached ===

impl Attached {
    /// A wave that the volume has gone along with is not gone along with again by the driver's next process.
    fn keep_advanced(&mut self, around: &dyn Surroundings) {
        let advanced = self.delivery.advanced();
        if advanced.is_some() && advanced != self.record.advanced.as_deref() {
            self.record.advanced = advanced.map(str::to_owned);
            around.remember(&self.record);
        }
    }

    /// Notes what is refused from now on, or that nothing is any more, and tells its pod.
    fn deny(&mut self, denied: &BTreeMap<String, String>, around: &dyn Surroundings) {
        let report = self.delivery.report_mut();
        let before = std::mem::replace(&mut report.denied, denied.keys().cloned().collect());
        report.note_failing(&denied.keys().map(String::as_str).collect());
        if denied.is_empty() {
            if !before.is_empty() {
                report.info("allowed_again", "the operator's rules refuse nothing of it any more: it is read now");
            }
            return;
        }
        let failure = denial(denied);
        let sentence = "nothing of it is read or renewed any more: the last good files stay";
        report.warn("denied", &failure.to_string(), sentence);
        around.trouble(&self.record.pod, &format!("{failure}; {sentence}"));
    }

    fn is_delivered(&self) {
        self.first.send_if_modified(|first| {
            let is_new = !matches!(first, First::Delivered);
            *first = First::Delivered;
            is_new
        });
    }

    /// Lets go of it, and says that there will be no files.
    fn give_up(self, failure: CallFailure, around: &dyn Surroundings) {
        let Self { record, delivery, first, .. } = self;
        drop(delivery);
        around.forget(&record.volume);
        first.send_replace(First::Refused(failure));
    }

    /// What its first files wait for.
    fn waits(&self) {
        let failing = self.obstacles.told(|error| error.message.public());
        let unwritable = self.delivery.unwritable().map(|_| "the files cannot be written".to_owned());
        let all: Vec<_> = [failing].into_iter().filter(|text| !text.is_empty()).chain(unwritable).collect();
        self.first.send_replace(First::Waiting(all.join("; ")));
    }
}
