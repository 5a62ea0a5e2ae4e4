//! The loop: wait for the source, a control, a retry or the end; deliver; notify; hand over; report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::controls::{Control, Controls, Wanted};
use super::error::{AgentError, refusals};
use super::gated_volume::{DeliveryError, GatedVolume, WriteOutcome};
use super::handover::{HandOverFile, PersistedState};
use super::metrics::MetricsPort;
use super::notify::Notifier;
use super::settings::{AgentMode, AgentPaths};
use super::termination::LastWords;
use crate::bundle::VolumePath;
use crate::deliver::render::{RenderError, Rendered, render_beside};
use crate::generation::{Generation, GenerationId};
use crate::plan::Plan;
use crate::report::Report;
use crate::sentence::Sentence;
use crate::source::{Event, Failure, Origin, PinError, Source};

/// What may be left of two seconds that kubelet gives a native sidecar after the application ended.
const REVOKE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Pauses between attempts to write or to pin.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Keeps the files of one pod fresh.
#[derive(Debug)]
pub(super) struct SyncLoop {
    mode: AgentMode,
    plan: Plan,
    source: Source,
    volume: GatedVolume,
    controls: Controls,
    notifier: Notifier,
    hand_over: HandOverFile,
    /// Where the status is shown.
    port: Option<MetricsPort>,
    status: Report,
    /// The newest generation, delivered or not.
    newest: Option<Generation>,
    /// The last one that is known to be in place.
    delivered: Option<GenerationId>,
    /// The one whose files became visible last.
    visible: Option<GenerationId>,
    /// The last one that the application was told of, or that came before the application.
    notified: Option<GenerationId>,
    /// One that cannot be made into files: tried again only when the stores have another.
    unusable: Option<GenerationId>,
    /// A pin that could not be looked at yet.
    pending_pin: Option<GenerationId>,
    retry: Retry,
    has_failed: bool,
    /// What is in the way of the first files, by provider.
    obstacles: BTreeMap<String, Vec<Failure>>,
    /// Why they could not be written.
    unwritable: Option<String>,
    last_words: LastWords,
}

/// When to try again what the source knows nothing of.
#[derive(Debug)]
struct Retry {
    at: Option<Instant>,
    pause: Duration,
}

enum Woken {
    Source(Event),
    Controls(Vec<Control>),
    Retry,
    Settled,
    Stop,
}

/// Why a generation is not in place.
#[derive(Debug, thiserror::Error)]
enum PutError {
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

/// Why a pin is not obeyed.
enum PinRefusal {
    /// Tried again by itself.
    Later(String),
    /// Not before the annotation changes.
    Never(String),
}

// === impl SyncLoop ===

impl SyncLoop {
    pub(super) fn new(
        mode: AgentMode,
        plan: Plan,
        source: Source,
        volume: GatedVolume,
        paths: &AgentPaths,
        port: Option<MetricsPort>,
    ) -> Self {
        // Before the first generation, and after an init container, there is nobody to tell.
        let targets = if mode == AgentMode::Sidecar { plan.notify.clone() } else { Vec::new() };
        Self {
            mode,
            plan,
            source,
            volume,
            controls: Controls::open(&paths.controls),
            notifier: Notifier::new(targets),
            hand_over: HandOverFile::new(&paths.state),
            port,
            status: Report::default(),
            newest: None,
            delivered: None,
            visible: None,
            notified: None,
            unusable: None,
            pending_pin: None,
            retry: Retry { at: None, pause: FIRST_PAUSE },
            has_failed: false,
            obstacles: BTreeMap::new(),
            unwritable: None,
            last_words: LastWords::new(&paths.termination_log),
        }
    }

    /// Until the work is done (init), or `shutdown` is cancelled.
    pub(super) async fn run(mut self, shutdown: &CancellationToken) -> Result<(), AgentError> {
        self.start(shutdown).await;
        let result = self.work(shutdown).await;
        // Also if stores refuse: the container is started again, and need not log in again.
        self.leave().await;
        result
    }

    async fn start(&mut self, shutdown: &CancellationToken) {
        let state = self.hand_over.load();
        let resumed = state.is_some();
        let PersistedState { hand_over, notified } = state.unwrap_or_default();
        self.notified = notified;
        if resumed {
            self.source.resume(hand_over);
        }
        let Wanted { hold, pin, refresh_now: _ } = self.controls.wanted().clone();
        self.status.held = hold;
        if let Some(present) = self.volume.current() {
            self.status.since = self.volume.since();
            self.status.generation = Some(present.clone());
            self.visible = Some(present.clone());
            self.status.info("adopted", "the files of an earlier process are in place and are kept fresh from now on");
            if self.notified.as_ref().is_some_and(|notified| *notified != present) {
                // The earlier process died between the swap and the notification's end.
                self.announce(&present);
            }
        } else {
            self.status.info("waiting", "fetching the first time: containers after this one wait for the files");
        }
        debug!(resumed, "logins and leases of an earlier process");
        if let Some(pin) = pin {
            self.pin(pin, shutdown).await;
        }
    }

    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), AgentError> {
        while !self.is_done() {
            if let Some(port) = &self.port {
                port.show(&self.status);
            }
            match self.wait(shutdown).await {
                Woken::Stop if self.mode == AgentMode::Init && !self.volume.is_open() => {
                    return Err(self.interrupted());
                }
                Woken::Stop => {
                    self.leave_word();
                    break;
                }
                Woken::Settled => continue,
                Woken::Source(event) => self.heard(event)?,
                Woken::Controls(changes) => {
                    for change in changes {
                        self.control(change, shutdown).await;
                    }
                }
                Woken::Retry => {
                    self.retry.at = None;
                    if let Some(pin) = self.pending_pin.take() {
                        self.pin(pin, shutdown).await;
                    }
                }
            }
            self.catch_up(shutdown).await?;
            self.leave_word();
            self.save();
        }
        Ok(())
    }

    /// An init container that finds files (kubelet runs it again in a new sandbox of the same pod) asks once if there
    /// are newer ones; a store that is down does not hold the pod back then.
    fn is_done(&self) -> bool {
        self.mode == AgentMode::Init && self.volume.is_open() && (self.newest.is_some() || self.has_failed)
    }

    async fn wait(&mut self, shutdown: &CancellationToken) -> Woken {
        let Self { source, controls, retry, volume, .. } = self;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Woken::Stop,
            changes = controls.changed() => Woken::Controls(changes),
            () = retry.due() => Woken::Retry,
            () = volume.settle() => Woken::Settled,
            event = source.next() => Woken::Source(event),
        }
    }

    fn heard(&mut self, event: Event) -> Result<(), AgentError> {
        self.note_failing();
        match event {
            Event::Changed(generation) => {
                // Another generation may well fit where the last did not.
                self.retry.reset();
                self.newest = Some(generation);
                self.compare_newest();
            }
            Event::Unchanged | Event::Silent => {}
            Event::Failed(failures) => return self.failed(&failures),
        }
        Ok(())
    }

    fn note_failing(&mut self) {
        let failing: BTreeSet<&str> = self.source.failing().collect();
        let since = &mut self.status.failing;
        since.retain(|provider, _| failing.contains(provider.as_str()));
        self.obstacles.retain(|provider, _| failing.contains(provider.as_str()));
        for provider in failing {
            since.entry(provider.to_owned()).or_insert_with(SystemTime::now);
        }
    }

    fn failed(&mut self, failures: &[Failure]) -> Result<(), AgentError> {
        self.has_failed = true;
        if self.volume.is_open() {
            return Ok(());
        }
        let refused: Vec<_> = failures.iter().filter(|failure| failure.error.kind.is_permanent()).cloned().collect();
        if !refused.is_empty() {
            return Err(AgentError::Refused(refused));
        }
        for provider in failures.iter().map(|failure| &failure.provider) {
            let latest = failures.iter().filter(|failure| failure.provider == *provider).cloned().collect();
            self.obstacles.insert(provider.clone(), latest);
        }
        Ok(())
    }

    /// What the first files wait for; empty if nothing has failed, and nobody is waited for.
    fn in_the_way(&self) -> Sentence {
        let silent = self.source.silent();
        let silent = silent.map(|(provider, since)| format!("{provider}: no answer for {} s", since.as_secs()));
        let silent: Vec<_> = silent.collect();
        let all = |failing: String, unwritable: Option<&str>| {
            let known = [failing].into_iter().filter(|text| !text.is_empty()).chain(unwritable.map(str::to_owned));
            known.chain(silent.iter().cloned()).collect::<Vec<_>>().join("; ")
        };
        let failing = || self.obstacles.values().flatten();
        Sentence::hiding(
            all(refusals(failing(), |error| &error.message), self.unwritable.as_deref()),
            all(
                refusals(failing(), |error| error.message.public()),
                self.unwritable.as_ref().map(|_| "the files cannot be written"),
            ),
        )
    }

    fn interrupted(&self) -> AgentError {
        let said = "stopped before the files were in place";
        let reason = self.in_the_way();
        AgentError::Interrupted(if reason.is_empty() { said.into() } else { reason.behind(&format!("{said}: ")) })
    }

    /// Whoever ends this process leaves the reason, also if it is by force.
    fn leave_word(&mut self) {
        let reason = self.in_the_way();
        let is_waiting = !self.volume.is_open() && !reason.is_empty();
        let words =
            if is_waiting { format!("waiting for the first files: {}", reason.public()) } else { String::new() };
        self.last_words.are(words);
    }

    async fn control(&mut self, change: Control, shutdown: &CancellationToken) {
        match change {
            Control::Hold(hold) => {
                self.status.held = hold;
                if hold {
                    self.status.info("held", "the present generation is held; logins and leases are kept alive");
                } else {
                    self.status.info("released", "the hold is over");
                }
            }
            Control::Pin(pin) => {
                self.pending_pin = None;
                match pin {
                    Some(pin) => self.pin(pin, shutdown).await,
                    None if self.status.pinned.take().is_some() => self.status.info("unpinned", "the pin is over"),
                    None => {}
                }
            }
            Control::RefreshNow => {
                self.status.info("refresh_now", "every secret is read now, as the annotation asks");
                self.source.refresh_now();
            }
        }
    }

    // --- delivering ---

    /// Delivers the newest generation, unless something keeps the present one in place.
    async fn catch_up(&mut self, shutdown: &CancellationToken) -> Result<(), AgentError> {
        let Some(newest) = self.newest.take() else { return Ok(()) };
        let result = self.deliver(&newest).await;
        self.newest = Some(newest);
        self.compare_newest();
        // Before the first generation nothing could be said about a pin.
        if result.is_ok()
            && self.volume.is_open()
            && self.retry.at.is_none()
            && let Some(pin) = self.pending_pin.take()
        {
            self.pin(pin, shutdown).await;
        }
        result
    }

    async fn deliver(&mut self, newest: &Generation) -> Result<(), AgentError> {
        let id = &newest.id;
        if self.delivered.as_ref() == Some(id) || self.unusable.as_ref() == Some(id) || self.retry.at.is_some() {
            return Ok(());
        }
        // A pin that waits for its store is one all the same: who set it wants anything but the newest.
        let is_pinned = self.status.pinned.is_some() || self.pending_pin.is_some();
        if self.volume.is_open() && (self.status.held || is_pinned) {
            if self.volume.current().as_ref() == Some(id) {
                self.is_delivered(id);
            }
            return Ok(());
        }
        let was_open = self.volume.is_open();
        match self.put(newest).await {
            Ok(()) => self.is_delivered(id),
            Err(PutError::Render(error)) if !was_open => return Err(error.into()),
            Err(PutError::Delivery(error)) if !was_open && error.is_permanent() => return Err(error.into()),
            Err(PutError::Render(error)) => {
                self.unusable = Some(id.clone());
                let sentence = "the new values do not make the files that were asked for: the last good ones stay";
                self.status.warn("not_delivered", &error.to_string(), sentence);
            }
            Err(PutError::Delivery(error)) => {
                self.unwritable = Some(error.to_string());
                let pause = self.retry.later();
                let sentence =
                    format!("the files could not be written and stay as they are; trying again in {pause:?}");
                self.status.warn("not_delivered", &error.to_string(), &sentence);
            }
        }
        Ok(())
    }

    /// Puts a generation in place and tells whoever wants to know.
    async fn put(&mut self, generation: &Generation) -> Result<(), PutError> {
        let is_there = |path: &VolumePath| self.volume.has(path);
        let rendered = render_beside(&self.plan.items, generation, self.plan.size_limit, &is_there)?;
        let Rendered { files, left_out } = rendered;
        for problem in left_out {
            warn!(event = "left_out", %problem, "a value cannot be had: the other files of its directory are delivered");
        }
        let outcome = self.volume.write(&generation.id, &files).await?;
        self.status.files = Some(files.len());
        self.status.bytes = Some(files.iter().map(|file| file.bytes.len() as u64).sum());
        // Wiped before anything else is done.
        drop(files);
        self.in_place(&generation.id);
        match outcome {
            WriteOutcome::Opened => {
                self.visible = Some(generation.id.clone());
                self.status.info("delivered", "the first files are in place, and the gate is open");
            }
            WriteOutcome::Unchanged => self.status.info("unchanged", "the files are the same as before, byte by byte"),
            WriteOutcome::Swapped => {
                self.status.info("delivered", "new files are in place");
                self.announce(&generation.id);
            }
        }
        Ok(())
    }

    fn announce(&mut self, id: &GenerationId) {
        self.visible = Some(id.clone());
        self.notifier.announce(id);
    }

    fn in_place(&mut self, id: &GenerationId) {
        self.status.generation = Some(id.clone());
        self.status.since = Some(SystemTime::now());
        self.compare_newest();
    }

    fn is_delivered(&mut self, id: &GenerationId) {
        self.retry.reset();
        self.unusable = None;
        self.delivered = Some(id.clone());
        self.source.delivered(id);
    }

    fn compare_newest(&mut self) {
        let newest = self.newest.as_ref().map(|newest| &newest.id);
        self.status.newest = newest.filter(|id| self.status.generation.as_ref() != Some(*id)).cloned();
    }

    // --- pinning ---

    async fn pin(&mut self, id: GenerationId, shutdown: &CancellationToken) {
        if !self.volume.is_open() {
            self.pending_pin = Some(id);
            return;
        }
        match self.return_to(&id, shutdown).await {
            Ok(()) => {
                self.status.pinned = Some(id);
                self.status.info("pinned", "the generation that the annotation names is in place, and stays");
            }
            Err(PinRefusal::Never(problem)) => {
                self.status.warn("pin_refused", &problem, "the files stay as they are");
            }
            Err(PinRefusal::Later(problem)) => {
                self.pending_pin = Some(id);
                let pause = self.retry.later();
                let sentence = format!("the files stay as they are; trying again in {pause:?}");
                self.status.warn("pin_failed", &problem, &sentence);
            }
        }
    }

    async fn return_to(&mut self, id: &GenerationId, shutdown: &CancellationToken) -> Result<(), PinRefusal> {
        if self.volume.current().as_ref() == Some(id) {
            return Ok(());
        }
        if self.volume.holds(id) && self.can_return_to(id) && self.volume.roll_back(id).await? {
            self.in_place(id);
            (self.status.files, self.status.bytes, self.delivered) = (None, None, None);
            self.status.info("rolled_back", "the files of an earlier generation, still in the volume, are back");
            self.announce(id);
            return Ok(());
        }
        let generation = match &self.newest {
            Some(newest) if newest.id == *id => newest.clone(),
            _ => match shutdown.run_until_cancelled(self.source.read_again(id)).await {
                Some(read) => read?,
                None => return Err(PinRefusal::Later("the agent is being stopped".to_owned())),
            },
        };
        self.delivered = None;
        Ok(self.put(&generation).await?)
    }

    /// A credential of an earlier generation may be revoked by now: then only the source can say what is to be done.
    fn can_return_to(&self, id: &GenerationId) -> bool {
        let history = self.source.hand_over().history;
        let past = history.iter().find(|past| past.id == *id);
        past.is_some_and(|past| past.origins.iter().all(|(_, origin)| *origin != Origin::Lease))
    }

    // --- leaving ---

    fn save(&mut self) {
        if self.notifier.is_idle() {
            self.notified.clone_from(&self.visible);
        }
        let state = PersistedState { hand_over: self.source.hand_over(), notified: self.notified.clone() };
        if let Err(error) = self.hand_over.save(state) {
            warn!(%error, "the hand-over was not written: after a restart, logins and leases are made anew");
        }
    }

    async fn leave(mut self) {
        let revokes = self.plan.providers.values().any(|provider| provider.revoke_on_exit);
        if revokes && self.mode == AgentMode::Sidecar {
            // Whoever is started next must not go on with what is revoked now.
            self.hand_over.discard();
            if tokio::time::timeout(REVOKE_TIMEOUT, self.source.revoke_all()).await.is_err() {
                warn!("there was no time to revoke all leases: the rest ends by itself");
                return;
            }
        }
        self.save();
        let has_files = self.volume.is_open();
        let sentence = if has_files { "the agent ends; the files stay as long as the pod" } else { "the agent ends" };
        self.status.info("stopped", sentence);
    }
}

// === impl Retry ===

impl Retry {
    async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn later(&mut self) -> Duration {
        let pause = self.pause;
        self.at = Some(Instant::now() + pause);
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    fn reset(&mut self) {
        *self = Self { at: None, pause: FIRST_PAUSE };
    }
}

// === impl PinRefusal ===

impl From<DeliveryError> for PinRefusal {
    fn from(error: DeliveryError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<PutError> for PinRefusal {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Render(error) => Self::Never(error.to_string()),
            PutError::Delivery(error) => error.into(),
        }
    }
}

impl From<PinError> for PinRefusal {
    fn from(error: PinError) -> Self {
        match &error {
            PinError::Read { error: read, .. } if !read.kind.is_permanent() => Self::Later(error.to_string()),
            _ => Self::Never(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
