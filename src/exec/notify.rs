//! Whom the parent tells that the files changed, in pods where no agent does: after the swap, never in the loop's way.
//! What fails is tried again for about a minute, or until a newer generation replaces it.
//!
//! The application's log is where it is said: at most two lines for a target and a generation, whatever fails.

use std::path::Path;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use rustix::event::PollFd;

use super::post::{Post, PostError};
use crate::options::Notify;
use crate::process::tell::{HTTP_TIMEOUT, PAUSES, SignalError, signal_all};

/// Whom to tell, and who is being told.
#[derive(Debug)]
pub(super) struct Notifications<'a> {
    targets: &'a [Notify],
    running: Vec<Telling<'a>>,
}

/// One target, and one generation that it is to hear of.
#[derive(Debug)]
struct Telling<'a> {
    target: &'a Notify,
    generation: Rc<str>,
    /// Attempts that failed.
    failed: usize,
    attempt: Attempt,
}

#[derive(Debug)]
enum Attempt {
    /// Comes at this moment.
    Due(Instant),
    /// Goes on until this moment.
    Asked { post: Post, until: Instant },
}

/// Why a target was not told.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error("{0}")]
    Signal(#[from] SignalError),
    #[error("{0}")]
    Post(#[from] PostError),
}

// === impl Notifications ===

impl<'a> Notifications<'a> {
    /// Nobody is told before [`Self::announce`].
    pub(super) fn new(targets: &'a [Notify]) -> Self {
        Self { targets, running: Vec::new() }
    }

    /// Tells everyone of a generation, each on its own; what was still being tried for an earlier one is given up.
    pub(super) fn announce(&mut self, generation: &str, now: Instant) {
        let generation: Rc<str> = generation.into();
        let tell =
            |target| Telling { target, generation: Rc::clone(&generation), failed: 0, attempt: Attempt::Due(now) };
        self.running = self.targets.iter().map(tell).collect();
    }

    /// Nobody is told any more.
    pub(super) fn give_up(&mut self) {
        self.running.clear();
    }

    /// Does what is to be done now, without waiting for anybody; gives what is to be said of it.
    pub(super) fn go_on(&mut self, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        self.running.retain_mut(|telling| telling.go_on(now, &mut lines));
        lines
    }

    /// The next moment at which something is to be done, even if no socket is ready.
    pub(super) fn next(&self) -> Option<Instant> {
        let moments = self.running.iter().map(|telling| match &telling.attempt {
            Attempt::Due(at) => *at,
            Attempt::Asked { until, .. } => *until,
        });
        moments.min()
    }

    /// What answers are waited for at.
    pub(super) fn sockets(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.running.iter().filter_map(|telling| match &telling.attempt {
            Attempt::Due(_) => None,
            Attempt::Asked { post, .. } => Some(post.socket()),
        })
    }
}

// === impl Telling ===

impl Telling<'_> {
    /// Whether it is to go on.
    fn go_on(&mut self, now: Instant, lines: &mut Vec<String>) -> bool {
        let result = match &mut self.attempt {
            Attempt::Due(at) if now < *at => return true,
            Attempt::Due(_) => match self.target {
                Notify::Signal { signal, process } => {
                    signal_all(Path::new("/proc"), *signal, process).map_err(TellError::from)
                }
                Notify::Http { url } => match Post::start(url, &self.generation) {
                    Ok(post) => {
                        self.attempt = Attempt::Asked { post, until: now + HTTP_TIMEOUT };
                        return true;
                    }
                    Err(error) => Err(error.into()),
                },
            },
            Attempt::Asked { post, until } => match post.go_on() {
                Poll::Pending if now < *until => return true,
                Poll::Pending => Err(PostError::TimedOut.into()),
                Poll::Ready(result) => result.map_err(TellError::from),
            },
        };
        let Err(error) = result else {
            lines.push(format!("generation {}: {:?} was told", self.generation, self.target.to_string()));
            return false;
        };
        self.failed += 1;
        let pause = PAUSES.get(self.failed - 1);
        lines.extend(self.failure(&error, pause.is_some()));
        pause.inspect(|pause| self.attempt = Attempt::Due(now + **pause)).is_some()
    }

    /// What is said of a failed attempt: of the first, and of the last unless it is known by then. A process that is
    /// not here may be in another container, whose own parent tells it.
    fn failure(&self, error: &TellError, goes_on: bool) -> Option<String> {
        let (generation, target) = (&self.generation, self.target.to_string());
        match error {
            _ if self.failed == 1 => Some(format!(
                "generation {generation}: {target:?} was not told yet, and it is tried again for a minute: {error}"
            )),
            TellError::Signal(SignalError::NoProcess { .. }) => None,
            _ if goes_on => None,
            _ => Some(format!(
                "generation {generation}: {target:?} could not be told, and will hear of the next change: {error}"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
