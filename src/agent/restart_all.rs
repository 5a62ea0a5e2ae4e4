//! When all containers of the pod are restarted (`on-change: restart-all`): once for each change of what variables are
//! made of, at random within the jitter. The agent ends with a code that makes kubelet do it, and the next process must
//! know: what containers were started with is handed over, as a keyed digest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use tokio::time::Instant;

use crate::contract::LIVE;
use crate::exec;
use crate::generation::GenerationId;
use crate::plan::RestartAll;
use crate::process::chance::at_random;
use crate::secret::SecretValue;
use crate::source::persisted::StartedWith;

/// From an agent's start to the restart that it may ask for: kubelet has no back-off for this one.
const APART: Duration = Duration::from_mins(1);
/// Until one is tried again that could not be handed over.
const LATER: Duration = Duration::from_mins(1);

/// What containers run with, and whether that is old.
#[derive(Debug)]
pub(super) struct Restarts {
    variables: Vec<PathBuf>,
    jitter: Duration,
    /// Whether no other container runs beside this one: an init container's process.
    is_alone: bool,
    earliest: Instant,
    started: Option<StartedWith>,
    /// What containers would be started with now, if that is known.
    present: Option<StartedWith>,
    due: Option<Instant>,
    /// How many there were in the life of the pod.
    count: u64,
}

/// What has changed by a look at the files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Nothing.
    Same,
    /// All containers restart after this time.
    In(Duration),
    /// They need not any more.
    CalledOff,
    /// The files make no variables: why not.
    Unreadable(String),
}

// === impl Restarts ===

impl Restarts {
    /// `volume` is where the gate is.
    pub(super) fn new(planned: &RestartAll, volume: &Path, is_alone: bool) -> Self {
        let live = volume.join(LIVE);
        Self {
            variables: planned.variables.iter().map(|path| live.join(path.as_str())).collect(),
            jitter: Duration::from_millis(planned.jitter_ms),
            is_alone,
            earliest: Instant::now() + APART,
            started: None,
            present: None,
            due: None,
            count: 0,
        }
    }

    /// Goes on where an earlier process was.
    pub(super) fn resume(&mut self, started: Option<StartedWith>, count: u64) {
        (self.started, self.count) = (started, count);
    }

    /// For the next process.
    pub(super) fn hand_over(&self) -> (Option<StartedWith>, u64) {
        (self.started.clone(), self.count)
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The files became those of `generation` before any container was started with them.
    pub(super) fn opened(&mut self, generation: &GenerationId) -> Outlook {
        self.started = None;
        self.look(generation)
    }

    /// The files are those of `generation` now.
    pub(super) fn look(&mut self, generation: &GenerationId) -> Outlook {
        if self.is_alone {
            self.started = None;
        }
        self.present = match exec::variables(&self.variables) {
            Ok(variables) => {
                let key = self.started.as_ref().map_or_else(random_key, |started| started.key.clone());
                let digest = digest(&key, &variables);
                Some(StartedWith { generation: generation.clone(), key, digest })
            }
            Err(error) => {
                self.due = None;
                self.present = None;
                return Outlook::Unreadable(error.to_string());
            }
        };
        match (&self.started, &self.present) {
            (Some(started), Some(present)) if started.digest != present.digest => self.plan(),
            (None, present) => {
                self.started.clone_from(present);
                Outlook::Same
            }
            _ => self.due.take().map_or(Outlook::Same, |_| Outlook::CalledOff),
        }
    }

    fn plan(&mut self) -> Outlook {
        if self.due.is_some() {
            return Outlook::Same;
        }
        let now = Instant::now();
        let due = (now + at_random(self.jitter)).max(self.earliest);
        self.due = Some(due);
        Outlook::In(due - now)
    }

    /// Pends until one is due, for ever if none is. Cancel safe.
    pub(super) async fn wait(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// From now on containers count as started with what is there; gives what they were started with, for
    /// [`Self::put_off`].
    pub(super) fn begin(&mut self) -> Option<StartedWith> {
        self.due = None;
        self.count += 1;
        std::mem::replace(&mut self.started, self.present.clone())
    }

    /// Takes [`Self::begin`] back, and tries again later; says when.
    pub(super) fn put_off(&mut self, started: Option<StartedWith>) -> Duration {
        self.started = started;
        self.count = self.count.saturating_sub(1);
        self.due = Some(Instant::now() + LATER);
        LATER
    }

    /// What containers count as started with.
    pub(super) fn generation(&self) -> Option<&GenerationId> {
        self.started.as_ref().map(|started| &started.generation)
    }
}

fn random_key() -> SecretValue {
    let mut key = vec![0; 32];
    // It is only ever kept beside credentials.
    let _ = rand::fill(&mut key);
    SecretValue::new(key)
}

fn digest(key: &SecretValue, variables: &exec::Variables) -> SecretValue {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    for (name, value) in variables {
        for part in [name.as_bytes(), value.expose()] {
            // Lengths, so no two lists of pairs run together into the same bytes.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    SecretValue::new(context.sign().as_ref().to_vec())
}
