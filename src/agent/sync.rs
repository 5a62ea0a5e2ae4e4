//! The loop: wait for the source, a control, a retry or the end; deliver; notify; hand over; report.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::controls::Controls;
use super::error::AgentError;
use super::gated_volume::GatedVolume;
use super::metrics::MetricsPort;
use super::notify::Notifier;
use super::restart_all::Restarts;
use super::settings::{AgentMode, AgentPaths};
use super::termination::{Ended, LastWords};
use crate::audit::{AuditLog, Who};
use crate::deliver::controls::{Control, Wanted};
use crate::deliver::delivery::{Changed, Delivery, Due};
use crate::deliver::reporting::Reporting;
use crate::generation::GenerationId;
use crate::plan::{Identity, Plan};
use crate::report::line::{ReportedPod, Writer};
use crate::source::persisted::{HandOverFile, PersistedState};
use crate::source::{Event, Obstacles, Source, SourceFailure};

mod deny;
mod restart;
mod waiting;

/// What may be left of two seconds that kubelet gives a native sidecar after the application ended.
const REVOKE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Keeps the files of one pod fresh.
#[derive(Debug)]
pub(super) struct SyncLoop {
    mode: AgentMode,
    /// Names of the plan's.
    providers: Vec<String>,
    source: Source,
    delivery: Delivery<GatedVolume>,
    controls: Controls,
    notifier: Notifier,
    hand_over: HandOverFile,
    /// Where the report is shown.
    port: Option<MetricsPort>,
    /// Where it is told.
    reporting: Reporting,
    /// Whether leases end with the agent.
    revokes: bool,
    /// The one whose files became visible last.
    visible: Option<GenerationId>,
    /// The last one that the application was told of, or that came before the application.
    notified: Option<GenerationId>,
    /// Where all containers are restarted for a change.
    restarts: Option<Restarts>,
    has_failed: bool,
    /// What is in the way of the first files, by provider.
    obstacles: Obstacles,
    last_words: LastWords,
}

enum Woken {
    Source(Event),
    Controls(Vec<Control>),
    Delivery(Due),
    Restart,
    Report,
    Stop,
}

fn pod_of(plan: &Plan, who: &Who) -> ReportedPod {
    let Identity { namespace, service_account } = plan.identity.clone();
    ReportedPod { namespace, name: who.pod.clone(), uid: who.uid.clone(), account: service_account }
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
        audit: AuditLog,
    ) -> Self {
        // Before the first generation, and after an init container, there is nobody to tell.
        let targets = if mode == AgentMode::Sidecar { plan.notify.clone() } else { Vec::new() };
        let restarts = plan.restart_all.as_ref().map(|it| Restarts::new(it, &paths.volume, mode == AgentMode::Init));
        let revokes = plan.providers.values().any(|provider| provider.revoke_on_exit);
        let writer = if mode == AgentMode::Init { Writer::Init } else { Writer::Sidecar };
        let reporting = Reporting::new(pod_of(&plan, audit.who()), writer, None);
        Self {
            mode,
            providers: plan.providers.into_keys().collect(),
            source,
            delivery: Delivery::new(plan.items, plan.size_limit, volume).audited(audit),
            controls: Controls::open(&paths.controls),
            notifier: Notifier::new(targets)
                .counted_by(port.as_ref().map(MetricsPort::notifications).unwrap_or_default()),
            hand_over: HandOverFile::new(&paths.state),
            port,
            reporting,
            revokes,
            visible: None,
            notified: None,
            restarts,
            has_failed: false,
            obstacles: Obstacles::default(),
            last_words: LastWords::new(&paths.termination_log),
        }
    }

    /// Until the work is done (init), or `shutdown` is cancelled.
    pub(super) async fn run(mut self, shutdown: &CancellationToken) -> Result<Ended, AgentError> {
        self.start().await;
        let result = self.work(shutdown).await;
        self.reporting.tell_last(&self.delivery, &self.source);
        // What is left for the next process is written down then, and nothing of it may be revoked.
        if !matches!(result, Ok(Ended::RestartAll)) {
            // Also if stores refuse: the container is started again, and need not log in again.
            self.leave().await;
        }
        result
    }

    async fn start(&mut self) {
        let state = self.hand_over.load();
        let resumed = state.is_some();
        let PersistedState { hand_over, notified, started, restarts, advanced } = state.unwrap_or_default();
        self.notified = notified;
        if let Some(known) = &mut self.restarts {
            known.resume(started, restarts);
        }
        if resumed {
            self.source.resume(hand_over);
        }
        // Files of a process that left no word may be of after the wave that stands there.
        if resumed || !self.delivery.is_open() {
            self.controls.resume(advanced.clone());
            self.delivery.resume_advanced(advanced);
        }
        let Wanted { hold, pin, refresh_now, advance: _ } = self.controls.wanted().clone();
        if let Some(id) = refresh_now {
            self.delivery.refreshing(id);
        }
        let report = self.delivery.report_mut();
        report.held = hold;
        if let Some(present) = report.generation.clone() {
            report.info("adopted", "the files of an earlier process are in place and are kept fresh from now on");
            self.visible = Some(present.clone());
            if self.notified.as_ref().is_some_and(|notified| *notified != present) {
                // The earlier process died between the swap and the notification's end.
                self.notifier.announce(&present);
            }
            self.readers_start(&present);
        } else {
            report.info("waiting", "fetching the first time: containers after this one wait for the files");
        }
        debug!(resumed, "logins and leases of an earlier process");
        match pin {
            Some(pin) if self.controls.denied().is_some() => self.delivery.pin_later(pin),
            Some(pin) => self.pin(Some(pin)).await,
            None => {}
        }
    }

    /// An agent starts with files in place where its container alone does, or all do.
    fn readers_start(&mut self, present: &GenerationId) {
        if self.mode == AgentMode::Sidecar && (self.restarts.is_some() || self.delivery.is_for_kubelet()) {
            self.delivery.keep_for_readers();
        }
        self.look_at_variables(|restarts| restarts.look(present));
    }

    async fn work(&mut self, shutdown: &CancellationToken) -> Result<Ended, AgentError> {
        self.judge()?;
        while !self.is_done() {
            self.show();
            match self.wait(shutdown).await {
                Woken::Stop if self.mode == AgentMode::Init && !self.delivery.is_open() => {
                    return Err(self.interrupted());
                }
                Woken::Stop => {
                    self.leave_word();
                    break;
                }
                Woken::Delivery(Due::Settled) | Woken::Report => continue,
                Woken::Delivery(Due::Retry) => {
                    let changed = self.delivery.retry(&mut self.source).await;
                    self.take_in(&changed);
                }
                Woken::Restart => {
                    if self.restart_all() {
                        return Ok(Ended::RestartAll);
                    }
                }
                Woken::Source(event) => {
                    self.heard(event)?;
                    // Before the files: a process that ends in between leaves its leases to the next.
                    self.save();
                }
                Woken::Controls(changes) => {
                    self.judge()?;
                    for change in changes {
                        self.control(change).await;
                    }
                }
            }
            if !self.is_denied() {
                self.catch_up().await?;
            }
            self.leave_word();
            self.save();
        }
        Ok(Ended::Done)
    }

    /// To Prometheus and to those who read the log.
    fn show(&mut self) {
        let Self { port, delivery, source, reporting, .. } = self;
        if let Some(port) = port {
            port.show(delivery.report());
        }
        reporting.tell(delivery, source, || port.as_ref().map(MetricsPort::running));
    }

    /// An init container that finds files (kubelet runs it again in a new sandbox of the same pod) asks once if there
    /// are newer ones; a store that is down does not hold the pod back then, nor does one that must not be asked.
    fn is_done(&self) -> bool {
        let is_asked = self.delivery.has_newest() || self.has_failed || self.is_denied();
        self.mode == AgentMode::Init && self.delivery.is_open() && is_asked && !self.delivery.is_reading()
    }

    async fn wait(&mut self, shutdown: &CancellationToken) -> Woken {
        let is_denied = self.is_denied();
        let Self { source, controls, delivery, restarts, reporting, .. } = self;
        let restart = async {
            match restarts {
                Some(restarts) => restarts.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Woken::Stop,
            changes = controls.changed() => Woken::Controls(changes),
            () = restart => Woken::Restart,
            due = delivery.wait(), if !is_denied => Woken::Delivery(due),
            () = reporting.due() => Woken::Report,
            event = source.next(), if !is_denied => Woken::Source(event),
        }
    }

    fn heard(&mut self, event: Event) -> Result<(), AgentError> {
        self.note_failing();
        match event {
            Event::Changed(generation) => self.delivery.offer(generation),
            Event::Unchanged | Event::Silent => {}
            Event::Failed(failures) => return self.failed(&failures),
        }
        Ok(())
    }

    fn note_failing(&mut self) {
        let failing: BTreeSet<&str> = self.source.failing().collect();
        self.delivery.report_mut().note_failing(&failing);
        self.obstacles.retain(&failing);
    }

    fn failed(&mut self, failures: &[SourceFailure]) -> Result<(), AgentError> {
        self.has_failed = true;
        if self.delivery.is_open() {
            return Ok(());
        }
        let refused: Vec<_> = failures.iter().filter(|failure| failure.error.kind.is_permanent()).cloned().collect();
        if !refused.is_empty() {
            return Err(AgentError::Refused(refused));
        }
        self.obstacles.note(failures);
        Ok(())
    }

    async fn control(&mut self, change: Control) {
        match change {
            Control::Hold(hold) => self.delivery.hold(hold),
            Control::Pin(pin) => self.pin(pin).await,
            Control::Advance(wave) => {
                if self.delivery.advance(wave) {
                    self.source.refresh_now();
                }
            }
            Control::RefreshNow(id) => {
                let sentence = "every secret is read now, as the annotation asks";
                self.delivery.report().info("refresh_now", sentence);
                self.delivery.refreshing(id);
                self.source.refresh_now();
            }
        }
    }

    async fn pin(&mut self, pin: Option<GenerationId>) {
        let changed = self.delivery.pin(pin, &mut self.source).await;
        self.take_in(&changed);
    }

    async fn catch_up(&mut self) -> Result<(), AgentError> {
        let was_open = self.delivery.is_open();
        let changed = self.delivery.catch_up(&mut self.source).await?;
        if !was_open {
            // Nobody is told of the first.
            self.visible.clone_from(&self.delivery.report().generation);
            if let Some(first) = self.visible.clone() {
                self.look_at_variables(|restarts| restarts.opened(&first));
            }
        }
        self.take_in(&changed);
        Ok(())
    }

    /// Passes a change on to all that wait for one.
    fn take_in(&mut self, changed: &Changed) {
        if let Some(delivered) = &changed.delivered {
            self.source.delivered(delivered);
        }
        if let Some(swapped) = &changed.swapped {
            self.visible = Some(swapped.clone());
            self.notifier.announce(swapped);
            self.look_at_variables(|restarts| restarts.look(swapped));
        }
    }

    // --- leaving ---

    fn state(&self) -> PersistedState {
        let (started, restarts) = self.restarts.as_ref().map(Restarts::hand_over).unwrap_or_default();
        PersistedState {
            hand_over: self.source.hand_over(),
            notified: self.notified.clone(),
            started,
            restarts,
            advanced: self.delivery.advanced().map(str::to_owned),
        }
    }

    fn save(&mut self) {
        if self.notifier.is_idle() {
            self.notified.clone_from(&self.visible);
        }
        if let Err(error) = self.hand_over.save(self.state()) {
            warn!(%error, "the hand-over was not written: after a restart, logins and leases are made anew");
        }
    }

    async fn leave(mut self) {
        if self.revokes && self.mode == AgentMode::Sidecar && !self.is_denied() {
            // The next process must not go on with what is revoked now.
            self.hand_over.discard();
            if tokio::time::timeout(REVOKE_TIMEOUT, self.source.revoke_all()).await.is_err() {
                warn!("there was no time to revoke all leases: the rest ends by itself");
                return;
            }
        }
        self.save();
        self.show();
        let has_files = self.delivery.is_open();
        let sentence = if has_files { "the agent ends; the files stay as long as the pod" } else { "the agent ends" };
        self.delivery.report().info("stopped", sentence);
    }
}

#[cfg(test)]
mod tests;
