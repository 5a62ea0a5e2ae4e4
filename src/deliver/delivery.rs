//! One volume, kept at the generation that it should show: rendered, written, tried again, held, pinned.
//!
//! A [`Delivery`] knows nothing of where generations come from but what it is offered, and asks the source only for what
//! a pin needs: one source feeds as many deliveries as there are volumes.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::warn;

use self::retry::Retry;
use super::render::{RenderError, Rendered, render_beside};
use super::shown::ShownAnswers;
use crate::audit::AuditLog;
use crate::bundle::{Format, VolumePath};
use crate::generation::{Generation, GenerationId};
use crate::plan::PlannedItem;
use crate::report::Report;
use crate::report::line::{Asked, Problem};
use crate::source::Source;

mod pin;
mod retry;
mod volume;

pub use volume::{Volume, WriteOutcome};

/// How long kubelet may take to read the first variables: it opens a file for each, and tries again every 10 s where the
/// gate held the container back. What it reads meanwhile must be of one generation.
const KUBELET_READS: Duration = Duration::from_secs(30);

/// A volume and what decides on its files.
#[derive(Debug)]
pub struct Delivery<V> {
    items: Vec<PlannedItem>,
    /// Bytes of one generation.
    size_limit: u64,
    volume: V,
    report: Report,
    /// The newest generation, and how far it came.
    newest: Option<(Arc<Generation>, Progress)>,
    shown: ShownAnswers,
    position: Position,
    retry: Retry,
    /// Until when the first files stay: kubelet reads them one by one.
    settled_at: Option<Instant>,
    /// Why the files could not be written the last time.
    unwritable: Option<String>,
    /// When somebody asked for the newest in spite of a hold, and has yet to get it.
    advance_at: Option<Instant>,
    /// When somebody asked for a look at the stores that is not over.
    refresh_at: Option<Instant>,
}

/// What became of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It waits for its turn.
    Due,
    /// Its files are in place.
    Delivered,
    /// It cannot be made into files: only another one may be.
    Unusable,
}

/// Which generation the volume is to show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    /// The newest, unless the volume is held.
    Newest,
    /// This one, which is not in place yet.
    Pinning(GenerationId),
    /// This one, which a store is asked for.
    Reading(GenerationId),
    /// The one that the report names, which is in place.
    Pinned,
}

/// What a step has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Files of this generation became visible to those who read already.
    pub swapped: Option<GenerationId>,
    /// The files of the newest generation are in place: what it replaced is needed no more.
    pub delivered: Option<GenerationId>,
}

/// What [`Delivery::wait`] waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Something is to be tried again: see [`Delivery::retry`].
    Retry,
    /// A replaced generation was removed.
    Settled,
}

/// Why there are no first files, and why there will be none.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError<E: Error> {
    /// The generation does not make the files that were asked for.
    #[error(transparent)]
    Render(RenderError),
    /// They cannot be written.
    #[error("{0}")]
    Volume(E),
}

// === impl Delivery ===

impl<V: Volume> Delivery<V> {
    /// Adopts what is in the volume.
    #[must_use]
    pub fn new(items: Vec<PlannedItem>, size_limit: u64, volume: V) -> Self {
        let generation = volume.current();
        let since = generation.as_ref().and_then(|_| volume.since());
        Self {
            items,
            size_limit,
            report: Report { generation, since, ..Report::default() },
            volume,
            newest: None,
            shown: ShownAnswers::default(),
            position: Position::Newest,
            retry: Retry::new(),
            settled_at: None,
            unwritable: None,
            advance_at: None,
            refresh_at: None,
        }
    }

    /// The same, whose deliveries are told.
    #[must_use]
    pub fn audited(self, audit: AuditLog) -> Self {
        Self { shown: ShownAnswers::told_to(audit), ..self }
    }

    /// Containers start that read these files: they stay for as long as kubelet may take to.
    pub fn keep_for_readers(&mut self) {
        self.settled_at = Some(Instant::now() + KUBELET_READS);
    }

    /// Whether kubelet itself reads some of the files.
    #[must_use]
    pub fn is_for_kubelet(&self) -> bool {
        self.items.iter().any(|item| item.format == Format::Kubelet)
    }

    /// Who holds what since when.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The same, for what is not known here.
    pub fn report_mut(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Whether there are files.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.volume.current().is_some()
    }

    /// Whether it was offered a generation.
    #[must_use]
    pub fn has_newest(&self) -> bool {
        self.newest.is_some()
    }

    /// The newest generation that it was offered.
    #[must_use]
    pub fn newest(&self) -> Option<&GenerationId> {
        self.newest.as_ref().map(|(newest, _)| &newest.id)
    }

    /// Whether a pin waits for a store.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        matches!(self.position, Position::Reading(_))
    }

    /// Why the newest is not in the files, beside hold and pin.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        let is_unusable = matches!(self.newest, Some((_, Progress::Unusable)));
        is_unusable.then_some(Problem::Unusable).or(self.unwritable.as_ref().map(|_| Problem::Unwritable))
    }

    /// Why the files could not be written the last time.
    #[must_use]
    pub fn unwritable(&self) -> Option<&str> {
        self.unwritable.as_deref()
    }

    /// A generation that is newer than all before. [`Delivery::catch_up`] decides what becomes of it.
    pub fn offer(&mut self, generation: impl Into<Arc<Generation>>) {
        let generation = generation.into();
        // Another generation may well fit where the last did not.
        self.retry.reset();
        let progress = match &self.newest {
            Some((newest, progress)) if newest.id == generation.id => *progress,
            _ => Progress::Due,
        };
        self.newest = Some((generation, progress));
        self.compare_newest();
    }

    /// Freezes the present generation, or lets go.
    pub fn hold(&mut self, hold: bool) {
        self.report.held = hold;
        if hold {
            self.report.info("held", "the present generation is held; logins and leases are kept alive");
        } else {
            self.report.info("released", "the hold is over");
        }
    }

    // --- what is asked for by name ---

    /// Takes the newest once, in spite of a hold: what the stores say when they are asked after this call. `false` if
    /// they need not be: the same wave has asked already, or asks no more.
    pub fn advance(&mut self, wave: Option<String>) -> bool {
        let Some(id) = wave else {
            if self.advance_at.take().is_some() {
                self.report.advance = None;
            }
            return false;
        };
        if self.report.advance.as_ref().is_some_and(|known| known.id == id) {
            return false;
        }
        self.report.advance = Some(Asked { id, done: false });
        self.advance_at = Some(Instant::now());
        self.report.info("advancing", "the newest generation is taken once, as the annotation asks");
        true
    }

    /// The last wave that it has gone along with.
    #[must_use]
    pub fn advanced(&self) -> Option<&str> {
        self.report.advance.as_ref().filter(|asked| asked.done).map(|asked| asked.id.as_str())
    }

    /// An earlier process went along with this wave.
    pub fn resume_advanced(&mut self, wave: Option<String>) {
        self.report.advance = wave.map(|id| Asked { id, done: true });
    }

    /// Somebody asked for a look at the stores: the report says when it is over.
    pub fn refreshing(&mut self, id: String) {
        self.report.refresh = Some(Asked { id, done: false });
        self.refresh_at = Some(Instant::now());
    }

    /// What was asked for, and is there now.
    fn note_asked(&mut self, source: &Source) {
        let is_over = |at: &mut Option<Instant>| at.take_if(|at| source.is_read_since(*at)).is_some();
        if is_over(&mut self.refresh_at)
            && let Some(asked) = &mut self.report.refresh
        {
            asked.done = true;
        }
        let has_newest = self.position == Position::Newest
            && matches!(&self.newest, Some((newest, Progress::Delivered)) if self.report.generation.as_ref() == Some(&newest.id));
        if has_newest && is_over(&mut self.advance_at) {
            if let Some(asked) = &mut self.report.advance {
                asked.done = true;
            }
            self.report.info("advanced", "the newest generation is in place, as the annotation asked");
        }
    }

    /// Waits until something is due; pends for ever if nothing will be. Cancel safe.
    pub async fn wait(&mut self) -> Due {
        let Self { retry, volume, .. } = self;
        tokio::select! {
            biased;
            () = retry.due() => Due::Retry,
            () = volume.settle() => Due::Settled,
        }
    }

    /// Tries again what failed.
    pub async fn retry(&mut self, source: &mut Source) -> Changed {
        self.retry.at = None;
        self.pin_again(source).await
    }

    /// Delivers the newest generation, unless something keeps the present one in place; goes on with a pin that the source
    /// has an answer for. To be called after each of its events.
    ///
    /// # Errors
    /// [`DeliverError`] if there are no files yet, and waiting is of no use.
    pub async fn catch_up(&mut self, source: &mut Source) -> Result<Changed, DeliverError<V::Error>> {
        let mut changed = self.deliver_newest(source).await?;
        // Before the first generation nothing could be said about a pin.
        if self.is_open() && self.retry.at.is_none() {
            let pinned = self.pin_again(source).await;
            changed.swapped = pinned.swapped.or(changed.swapped);
        }
        Ok(changed)
    }

    async fn deliver_newest(&mut self, source: &mut Source) -> Result<Changed, DeliverError<V::Error>> {
        let mut changed = Changed::default();
        let Some((newest, progress)) = self.newest.take() else { return Ok(changed) };
        self.know_shown(source);
        let may_advance = self.advance_at.is_some_and(|at| source.is_read_since(at));
        let result = self.deliver(&newest, progress, may_advance, &mut changed).await;
        let progress = *result.as_ref().unwrap_or(&progress);
        self.newest = Some((newest, progress));
        self.compare_newest();
        self.note_asked(source);
        result?;
        Ok(changed)
    }

    async fn deliver(
        &mut self,
        newest: &Generation,
        progress: Progress,
        may_advance: bool,
        changed: &mut Changed,
    ) -> Result<Progress, DeliverError<V::Error>> {
        if progress != Progress::Due || self.retry.at.is_some() || self.is_being_read() {
            return Ok(progress);
        }
        let id = &newest.id;
        let is_open = self.is_open();
        let is_in_place = self.volume.current().as_ref() == Some(id);
        // A pin that waits for its store is one all the same: who set it wants anything but the newest.
        let is_held = self.report.held && !may_advance;
        if is_open && (is_held || self.position != Position::Newest) {
            if !is_in_place {
                return Ok(progress);
            }
        } else if !(is_in_place && self.report.files.is_some()) {
            // Files of an earlier process may be another plan's, whatever their generation.
            match self.put(newest).await {
                Ok(swapped) => changed.swapped = swapped,
                Err(error @ DeliverError::Render(_)) if !is_open => return Err(error),
                Err(DeliverError::Volume(error)) if !is_open && V::is_permanent(&error) => {
                    return Err(DeliverError::Volume(error));
                }
                Err(DeliverError::Render(error)) => {
                    let sentence = "the new values do not make the files that were asked for: the last good ones stay";
                    self.report.warn("not_delivered", &error.to_string(), sentence);
                    return Ok(Progress::Unusable);
                }
                Err(DeliverError::Volume(error)) => {
                    self.unwritable = Some(error.to_string());
                    let pause = self.retry.later();
                    let sentence =
                        format!("the files could not be written and stay as they are; trying again in {pause:?}");
                    self.report.warn("not_delivered", &error.to_string(), &sentence);
                    return Ok(progress);
                }
            }
        }
        self.retry.reset();
        self.unwritable = None;
        changed.delivered = Some(id.clone());
        Ok(Progress::Delivered)
    }

    /// What an earlier process has told of need not be told again.
    fn know_shown(&mut self, source: &Source) {
        if let Some(present) = self.volume.current() {
            self.shown.adopt(&present, source);
        }
    }

    /// Puts a generation in place; says which became visible to those who read already.
    async fn put(&mut self, generation: &Generation) -> Result<Option<GenerationId>, DeliverError<V::Error>> {
        let outcome = self.put_files(generation).await;
        match &outcome {
            Ok(_) => self.shown.delivered(generation),
            Err(_) => self.shown.not_delivered(generation),
        }
        outcome
    }

    async fn put_files(&mut self, generation: &Generation) -> Result<Option<GenerationId>, DeliverError<V::Error>> {
        let is_there = |path: &VolumePath| self.volume.has(path);
        let Rendered { files, left_out } =
            render_beside(&self.items, generation, self.size_limit, &is_there).map_err(DeliverError::Render)?;
        let behind = left_out.len();
        for problem in left_out {
            warn!(event = "left_out", %problem, "a key makes no file: the others of its directory are delivered");
        }
        let id = &generation.id;
        let outcome = self.volume.write(id, &files).await.map_err(DeliverError::Volume)?;
        self.report.behind = behind;
        self.report.files = Some(files.len());
        self.report.bytes = Some(files.iter().map(|file| file.bytes.len() as u64).sum());
        // Wiped before anything else is done.
        drop(files);
        self.in_place(id);
        let (event, sentence) = match outcome {
            WriteOutcome::Opened => ("delivered", "the first files are in place"),
            WriteOutcome::Unchanged => ("unchanged", "the files are the same as before, byte by byte"),
            WriteOutcome::Swapped => ("delivered", "new files are in place"),
        };
        self.report.info(event, sentence);
        if outcome == WriteOutcome::Opened && self.is_for_kubelet() {
            self.keep_for_readers();
        }
        Ok((outcome == WriteOutcome::Swapped).then(|| id.clone()))
    }

    /// Whether kubelet may be reading the first files; if so, they are looked at again afterwards.
    fn is_being_read(&mut self) -> bool {
        self.settled_at = self.settled_at.filter(|end| *end > Instant::now());
        if self.settled_at.is_some() {
            self.retry.at = self.settled_at;
        }
        self.settled_at.is_some()
    }

    fn in_place(&mut self, id: &GenerationId) {
        self.report.generation = Some(id.clone());
        self.report.since = Some(SystemTime::now());
        self.compare_newest();
    }

    fn compare_newest(&mut self) {
        let newest = self.newest.as_ref().map(|(newest, _)| &newest.id);
        self.report.newest = newest.filter(|id| self.report.generation.as_ref() != Some(*id)).cloned();
    }
}

#[cfg(test)]
mod tests;
