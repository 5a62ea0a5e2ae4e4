//! One volume of a feed: its pod's wishes, its delivery, and what kubelet's call is told of it.

use tokio::sync::watch;
use tracing::Span;

use super::budget::Reservation;
use super::failure::{CallFailure, FailureKind};
use super::record::Record;
use super::surroundings::{First, Surroundings};
use super::tokens::Tokens;
use super::volume::MountedVolume;
use crate::deliver::controls::LiveControls;
use crate::deliver::delivery::Delivery;
use crate::deliver::reporting::Reporting;
use crate::report::Denial;
use crate::source::Obstacles;

/// A volume that is looked after.
pub(super) struct Attached {
    pub(super) record: Record,
    pub(super) delivery: Delivery<MountedVolume>,
    pub(super) controls: LiveControls,
    pub(super) reporting: Reporting,
    pub(super) tokens: Tokens,
    pub(super) first: watch::Sender<First>,
    /// What is in the way of its first files, by provider.
    pub(super) obstacles: Obstacles,
    /// Whether its pod was told that its files cannot be written.
    pub(super) told_unwritable: bool,
    pub(super) span: Span,
    pub(super) _reservation: Option<Reservation>,
}

// === impl Attached ===

impl Attached {
    /// A wave that the volume has gone along with is not gone along with again by the driver's next process.
    pub(super) fn keep_advanced(&mut self, around: &dyn Surroundings) {
        let advanced = self.delivery.advanced();
        if advanced.is_some() && advanced != self.record.advanced.as_deref() {
            self.record.advanced = advanced.map(str::to_owned);
            around.remember(&self.record);
        }
    }

    /// Notes what is refused from now on, or that nothing is any more, and tells its pod.
    pub(super) fn deny(&mut self, denied: Option<Denial>, around: &dyn Surroundings) {
        if let Some(told) = self.delivery.report_mut().note_denied(denied) {
            around.trouble(&self.record.pod, &told);
        }
    }

    pub(super) fn is_delivered(&self) {
        self.first.send_if_modified(|first| {
            let is_new = !matches!(first, First::Delivered);
            *first = First::Delivered;
            is_new
        });
    }

    /// Lets go of it, and says that there will be no files.
    pub(super) fn give_up(self, failure: CallFailure, around: &dyn Surroundings) {
        let Self { record, delivery, first, .. } = self;
        drop(delivery);
        around.forget(&record.volume);
        first.send_replace(First::Refused(failure));
    }

    /// What its first files wait for.
    pub(super) fn waits(&self) {
        let failing = self.obstacles.describe(|error| error.message.public());
        let unwritable = self.delivery.unwritable().map(|_| "the files cannot be written".to_owned());
        let all: Vec<_> = [failing].into_iter().filter(|text| !text.is_empty()).chain(unwritable).collect();
        self.first.send_replace(First::Waiting(all.join("; ")));
    }
}

pub(super) fn denial(denied: &Denial) -> CallFailure {
    CallFailure::new(FailureKind::Denied, denied.why())
}

/// Whether a call of kubelet waits for the first files of one of these.
pub(super) fn are_waited_for(volumes: &[Attached]) -> bool {
    volumes.iter().any(|attached| !attached.delivery.is_open())
}
