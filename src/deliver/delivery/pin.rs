//! Returns a volume to the generation that `pin` names, and keeps it there.

use std::sync::Arc;

use super::volume::Volume;
use super::{Changed, DeliverError, Delivery, Position, Progress};
use crate::generation::GenerationId;
use crate::source::{Origin, PinError, Source};

/// Why a pin is not obeyed.
enum PinRefusal {
    /// Not before the source has an answer.
    Unread,
    /// Tried again by itself.
    Later(String),
    /// Not before the annotation changes.
    Never(String),
}

// === impl Delivery ===

impl<V: Volume> Delivery<V> {
    /// Returns to the generation that is named, and stays there; `None` goes back to the newest with the next
    /// [`Delivery::catch_up`], which also goes on where a store has to be asked.
    pub async fn pin(&mut self, pin: Option<GenerationId>, source: &mut Source) -> Changed {
        self.report.pin_refused = None;
        let Some(id) = pin else {
            self.position = Position::Newest;
            if self.report.pinned.take().is_some() {
                self.report.info("unpinned", "the pin is over");
            }
            return Changed::default();
        };
        // The report tells the earlier pin until this one is in place.
        self.position = Position::Pinning(id);
        if self.is_open() { self.pin_again(source).await } else { Changed::default() }
    }

    /// Returns to it with the next [`Delivery::catch_up`]: nothing is written, and no store is asked, before.
    pub fn pin_later(&mut self, id: GenerationId) {
        self.position = Position::Pinning(id);
    }

    /// Looks at a pin that could not be looked at yet.
    pub(super) async fn pin_again(&mut self, source: &mut Source) -> Changed {
        let (Position::Pinning(id) | Position::Reading(id)) = self.position.clone() else { return Changed::default() };
        match self.return_to(&id, source).await {
            Ok(swapped) => {
                self.position = Position::Pinned;
                self.report.pinned = Some(id);
                self.report.info("pinned", "the generation that the annotation names is in place, and stays");
                Changed { swapped, delivered: None }
            }
            Err(refusal) => {
                self.refuse_pin(id, &refusal);
                Changed::default()
            }
        }
    }

    fn refuse_pin(&mut self, id: GenerationId, refusal: &PinRefusal) {
        match refusal {
            PinRefusal::Unread => self.position = Position::Reading(id),
            PinRefusal::Never(problem) => {
                self.report.pin_refused = Some(id);
                self.position = if self.report.pinned.is_some() { Position::Pinned } else { Position::Newest };
                self.report.warn("pin_refused", problem, "the files stay as they are");
            }
            PinRefusal::Later(problem) => {
                self.position = Position::Pinning(id);
                let pause = self.retry.later();
                let sentence = format!("the files stay as they are; trying again in {pause:?}");
                self.report.warn("pin_failed", problem, &sentence);
            }
        }
    }

    async fn return_to(&mut self, id: &GenerationId, source: &mut Source) -> Result<Option<GenerationId>, PinRefusal> {
        if self.volume.current().as_ref() == Some(id) {
            return Ok(None);
        }
        self.know_shown(source);
        if self.is_being_read() {
            return Err(PinRefusal::Later("kubelet reads the first variables".to_owned()));
        }
        if self.volume.holds(id) && can_return_to(id, source) && self.roll_back(id).await? {
            self.shown.rolled_back(id, source);
            return Ok(Some(id.clone()));
        }
        let generation = match &self.newest {
            Some((newest, _)) if newest.id == *id => Arc::clone(newest),
            _ => source.read_again(id)?.ok_or(PinRefusal::Unread)?.into(),
        };
        self.newest_is_due();
        match self.put(&generation).await {
            Ok(swapped) => Ok(swapped),
            Err(DeliverError::Render(error)) => Err(PinRefusal::Never(error.to_string())),
            Err(DeliverError::Volume(error)) => Err(PinRefusal::Later(error.to_string())),
        }
    }

    async fn roll_back(&mut self, id: &GenerationId) -> Result<bool, PinRefusal> {
        let is_back = self.volume.roll_back(id).await.map_err(|error| PinRefusal::Later(error.to_string()))?;
        if is_back {
            self.in_place(id);
            (self.report.files, self.report.bytes, self.report.behind) = (None, None, 0);
            self.newest_is_due();
            self.report.info("rolled_back", "the files of an earlier generation, still in the volume, are back");
        }
        Ok(is_back)
    }

    /// Whatever became of it, another one takes its place.
    fn newest_is_due(&mut self) {
        if let Some((_, progress @ Progress::Delivered)) = &mut self.newest {
            *progress = Progress::Due;
        }
    }
}

/// A credential of an earlier generation may be revoked by now: then only the source can say what is to be done.
fn can_return_to(id: &GenerationId, source: &Source) -> bool {
    let history = source.hand_over().history;
    let past = history.iter().find(|past| past.id == *id);
    past.is_some_and(|past| past.origins.iter().all(|(_, origin)| *origin != Origin::Lease))
}

// === impl PinRefusal ===

impl From<PinError> for PinRefusal {
    fn from(error: PinError) -> Self {
        match &error {
            PinError::Read { error: read, .. } if !read.kind.is_permanent() => Self::Later(error.to_string()),
            _ => Self::Never(error.to_string()),
        }
    }
}
