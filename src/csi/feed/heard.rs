//! What a feed makes of the stores' answers: generations for its volumes, or what is in the way of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Feed, PROBE, REFUSED_FOR};
use crate::csi::attached::are_waited_for;
use crate::csi::failure::{CallFailure, FailureKind};
use crate::source::{Event, SourceFailure, refusals};

// === impl Feed ===

impl Feed {
    pub(super) fn heard(&mut self, event: Event) {
        self.note_failing();
        match event {
            Event::Changed(generation) => {
                self.refused = None;
                let generation = Arc::new(generation);
                for attached in &mut self.volumes {
                    attached.delivery.offer(Arc::clone(&generation));
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
    pub(super) fn probe(&mut self) {
        if are_waited_for(&self.volumes) && self.failed_at.is_some_and(|at| at + PROBE <= Instant::now()) {
            self.failed_at = None;
            self.source.retry_now();
        }
    }

    pub(super) fn note_failing(&mut self) {
        let denied = self.denied.iter().flat_map(|denied| denied.providers.keys());
        let failing: BTreeSet<&str> = self.source.failing().chain(denied.map(String::as_str)).collect();
        for attached in &mut self.volumes {
            attached.delivery.report_mut().note_failing(&failing);
            attached.obstacles.retain(&failing);
        }
    }

    /// Volumes with files stay as they are, and their pods are told. The others wait, or there is nothing to wait for.
    pub(super) fn failed(&mut self, failures: &[SourceFailure]) {
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
    pub(super) fn refuse(&mut self, failure: &CallFailure) -> bool {
        let (open, closed): (Vec<_>, Vec<_>) = self.volumes.drain(..).partition(|attached| attached.delivery.is_open());
        self.volumes = open;
        let any = !closed.is_empty();
        for attached in closed {
            attached.give_up(failure.clone(), &*self.around);
        }
        any
    }
}
