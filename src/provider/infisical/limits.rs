//! Staying below the server's rate limits by the headers that it sends with each answer.
//!
//! Limits count by client address, which all pods behind one NAT share, and by kind of request. So the headers tell how
//! busy everybody is, and each pod slows down by the same measure.

use std::time::Duration;

use tokio::time::Instant;

use super::complaint::Failure;
use crate::provider::ErrorKind;
use crate::provider::http::Response;

/// Kinds of requests that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads of secrets.
    Secrets,
    /// Other reads.
    Read,
    /// Logins and leases.
    Write,
}

/// What is known of the limits.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// By kind: no request before.
    closed: [Option<Instant>; 3],
    /// When secrets were last read, and how far apart that should be.
    read_at: Option<Instant>,
    pub(super) pace: Option<Duration>,
    /// The longest time between reads, of late: how often everybody polls, as far as one pod can tell.
    rhythm: Duration,
    /// Reads of this pod in the server's window, and when that ends.
    own: (f64, Option<Instant>),
    /// Over how long all should spread a read that all of them want at once.
    pub(super) spread: Duration,
}

/// The headers of `@fastify/rate-limit`.
#[derive(Debug, Clone, Copy)]
struct Told {
    limit: f64,
    remaining: f64,
    reset: Duration,
}

/// The server's window.
const WINDOW: Duration = Duration::from_mins(1);
/// What of a limit all pods together may use up: the rest is for those that start.
const SHARE: f64 = 0.8;
/// What happened in the first part of a window says little about the rest.
const SETTLED: f64 = 0.25;
/// A pace at most doubles at once: a burst is not the rule.
const STEP: f64 = 2.0;
/// No pace is slower.
const SLOWEST: Duration = Duration::from_hours(1);
/// Nobody waits longer than this with what the store has pushed …
const WIDEST: Duration = Duration::from_mins(1);
/// … nor at all, where the limit bears that all come at once.
const NARROWEST: Duration = Duration::from_secs(2);

/// Until when the limit is used up, as the answer tells.
pub(super) fn reset(response: &Response) -> Option<Duration> {
    header(response, "x-ratelimit-reset").map(Duration::from_secs)
}

fn header(response: &Response, name: &str) -> Option<u64> {
    response.headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

// === impl Limits ===

impl Limits {
    /// Refuses what the server would refuse.
    pub(super) fn check(&self, kind: Kind, address: &dyn std::fmt::Display) -> Result<(), Failure> {
        let left = self.closed.get(kind as usize).copied().flatten();
        let left = left.map(|until| until.saturating_duration_since(Instant::now()));
        match left.filter(|left| !left.is_zero()) {
            None => Ok(()),
            Some(left) => Err(Failure::of_store(
                ErrorKind::Throttled { retry_after: Some(left) },
                format!("{address} has no request left for this network address before its rate limit is reset"),
            )),
        }
    }

    /// Takes an answer's headers in.
    pub(super) fn note(&mut self, kind: Kind, response: &Response) {
        let now = Instant::now();
        let told = Told::of(response);
        let used_up = told.filter(|told| told.remaining < 1.0);
        if let Some(closed) = self.closed.get_mut(kind as usize) {
            *closed = used_up.map(|told| now + told.reset);
        }
        if kind == Kind::Secrets {
            let since = self.read_at.replace(now).map(|at| now.saturating_duration_since(at));
            self.adjust(told, since.unwrap_or_default(), now);
        }
    }

    /// If everybody polled so much slower or faster, together they would use their share of the limit.
    fn adjust(&mut self, told: Option<Told>, since: Duration, now: Instant) {
        let Some(told) = told else {
            (self.pace, self.spread) = (None, Duration::ZERO);
            return;
        };
        let (count, ends) = self.own;
        let count = if ends.is_some_and(|ends| now < ends) { count + 1.0 } else { 1.0 };
        self.own = (count, Some(now + told.reset));
        let interval = since.max(self.pace.unwrap_or_default());
        self.pace = Some(interval.mul_f64((told.load(0.0) / SHARE).min(STEP)).min(SLOWEST));
        self.rhythm = since.max(self.rhythm.mul_f64(0.9)).min(SLOWEST);
        let spread = self.rhythm.mul_f64(told.load(count) / SHARE).min(WIDEST);
        self.spread = if spread < NARROWEST { Duration::ZERO } else { spread };
    }
}

// === impl Told ===

impl Told {
    #[expect(clippy::cast_precision_loss, reason = "limits are small numbers")]
    fn of(response: &Response) -> Option<Self> {
        let limit = header(response, "x-ratelimit-limit").filter(|limit| *limit > 0)? as f64;
        let remaining = header(response, "x-ratelimit-remaining")? as f64;
        Some(Self { limit, remaining: remaining.min(limit), reset: reset(response)?.min(WINDOW) })
    }

    /// The part of the limit that the window will have used up at its end, if it goes on like this; without the
    /// requests of `own`.
    fn load(self, own: f64) -> f64 {
        let passed = 1.0 - self.reset.as_secs_f64() / WINDOW.as_secs_f64();
        (self.limit - self.remaining - own).max(0.0) / self.limit / passed.max(SETTLED)
    }
}
