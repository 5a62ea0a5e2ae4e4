//! Staying below the server's rate limits by the headers that it sends with each answer.
//!
//! Limits count by client address, which all pods behind one NAT share, and by kind of request. So the headers tell how
//! busy everybody is, and each pod slows down by the same measure.

use std::time::Duration;

use tokio::time::Instant;

use crate::provider::ErrorKind;
use crate::provider::http::{Failure, Response, Scope};

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
struct ToldLimit {
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
    pub(super) fn check(&self, kind: Kind, address: impl std::fmt::Display) -> Result<(), Failure> {
        let left = self.closed.get(kind as usize).copied().flatten();
        let left = left.map(|until| until.saturating_duration_since(Instant::now()));
        match left.filter(|left| !left.is_zero()) {
            None => Ok(()),
            Some(left) => Err(Failure::new(
                ErrorKind::Throttled { retry_after: Some(left) },
                format!("{address} has no request left for this network address before its rate limit is reset"),
            )
            .with(Scope::Store)),
        }
    }

    /// Takes an answer's headers in.
    pub(super) fn note(&mut self, kind: Kind, response: &Response) {
        let now = Instant::now();
        let told = ToldLimit::of(response);
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
    fn adjust(&mut self, told: Option<ToldLimit>, since: Duration, now: Instant) {
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

// === impl ToldLimit ===

impl ToldLimit {
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

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use hyper::StatusCode;
    use hyper::header::{HeaderMap, HeaderName, HeaderValue};
    use tokio::time::advance;

    use super::*;

    /// A server that counts in windows of a minute.
    struct Server {
        limit: u64,
        ends: Instant,
        count: u64,
    }

    fn response(status: u16, headers: &[(&'static str, u64)]) -> Response {
        let header = |(name, value): &(&'static str, u64)| (HeaderName::from_static(name), HeaderValue::from(*value));
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            headers: headers.iter().map(header).collect::<HeaderMap>(),
            body: Vec::new().into(),
        }
    }

    impl Server {
        fn answer(&mut self) -> Response {
            let now = Instant::now();
            if self.ends <= now {
                (self.ends, self.count) = (now + WINDOW, 0);
            }
            self.count += 1;
            let left = self.ends - now;
            let headers = [
                ("x-ratelimit-limit", self.limit),
                ("x-ratelimit-remaining", self.limit.saturating_sub(self.count)),
                ("x-ratelimit-reset", left.as_secs() + 1),
            ];
            response(if self.count > self.limit { 429 } else { 200 }, &headers)
        }
    }

    /// So many pods that poll so often; refusals and requests in each of the last ten minutes of an hour.
    async fn crowd(pods: usize, interval: u64, limit: u64) -> (usize, usize) {
        let start = Instant::now();
        let mut server = Server { limit, ends: start, count: 0 };
        let mut limits: Vec<_> = (0..pods).map(|_| Limits::default()).collect();
        // All start at the same moment.
        let mut due: BinaryHeap<_> = (0..pods).map(|pod| Reverse((start, pod))).collect();
        let mut chance = 0.5;
        let (mut refusals, mut requests) = (0, 0);
        while let Some(Reverse((at, pod))) = due.pop() {
            advance(at.saturating_duration_since(Instant::now())).await;
            if start.elapsed() > Duration::from_hours(1) {
                break;
            }
            // Any spread will do (logistic map).
            chance = 3.99 * chance * (1.0 - chance);
            let last = start.elapsed() > Duration::from_mins(50);
            let limit = &mut limits[pod];
            if limit.check(Kind::Secrets, "server").is_err() {
                due.push(Reverse((Instant::now() + WINDOW, pod)));
                continue;
            }
            let answer = server.answer();
            limit.note(Kind::Secrets, &answer);
            requests += usize::from(last);
            let wait = if answer.status.as_u16() == 429 {
                refusals += usize::from(last);
                reset(&answer).unwrap().mul_f64(1.0 + chance / 10.0)
            } else {
                let interval = Duration::from_secs(interval).max(limit.pace.unwrap_or_default());
                interval.mul_f64(0.9 + chance / 5.0)
            };
            due.push(Reverse((Instant::now() + wait, pod)));
        }
        (refusals / 10, requests / 10)
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_settles_below_the_limit_by_the_headers_alone() {
        // (pods, interval, limit) → requests a minute
        for (pods, interval, limit, least, most) in [
            (500, 300, 600, 90, 110),
            (500, 30, 600, 300, 590),
            (500, 10, 600, 300, 590),
            (200, 60, 60, 30, 59),
            (1, 5, 40, 11, 13),
        ] {
            let (refusals, requests) = crowd(pods, interval, limit).await;
            let told = format!("{pods} pods every {interval} s at {limit}: {requests} requests, {refusals} refusals");
            assert!(refusals == 0 && (least..=most).contains(&requests), "{told}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_pod_alone_has_nothing_to_spread() {
        let mut server = Server { limit: 40, ends: Instant::now(), count: 0 };
        let mut limits = Limits::default();
        for wait in [300, 300, 1, 1, 1, 0, 0, 59, 300] {
            limits.note(Kind::Secrets, &server.answer());
            assert_eq!(limits.spread, Duration::ZERO);
            advance(Duration::from_secs(wait)).await;
        }
        // Hundreds of others share its address.
        server.answer();
        server.count = 35;
        limits.note(Kind::Secrets, &server.answer());
        assert!(limits.spread > Duration::from_secs(30), "{:?}", limits.spread);
        limits.note(Kind::Secrets, &response(200, &[]));
        assert_eq!((limits.spread, limits.pace), (Duration::ZERO, None), "no headers, no limit");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_used_up_is_not_asked_for_before_the_reset() {
        let mut limits = Limits::default();
        let used_up = [("x-ratelimit-limit", 60), ("x-ratelimit-remaining", 0), ("x-ratelimit-reset", 30)];
        limits.note(Kind::Write, &response(200, &used_up));
        limits.check(Kind::Secrets, "server").unwrap();
        let failure = limits.check(Kind::Write, "server").unwrap_err();
        assert_eq!(failure.error.kind, ErrorKind::Throttled { retry_after: Some(Duration::from_secs(30)) });
        advance(Duration::from_secs(30)).await;
        limits.check(Kind::Write, "server").unwrap();
    }
}
