//! The subscription to changes (server-sent events), where the operator wants it and the server's plan has it.
//!
//! It only ever says "look again": polling goes on beside it, for what events do not tell (secrets that another one
//! refers to) and for those that are lost. Who waits for it may stop doing so at any moment: it goes on where it was when
//! somebody waits again, and asks nothing of the store meanwhile.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand;
use hyper::Method;
use hyper::header::{ACCEPT, HeaderValue};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use self::frames::{Frame, Frames};
use super::api::call_as;
use super::asked::{Asked, What};
use super::errors::{foreign, is_about_token, is_infisicals, is_unknown_route, throttled};
use crate::provider::ErrorKind;
use crate::provider::http::{Client, Opened, Response, StoreCall, Stream, calling};
use crate::secret::SecretValue;

mod frames;

/// What the provider holds of it.
pub(super) struct Events {
    client: Arc<Client>,
    provider: String,
    interest: Option<Interest>,
    subscription: Option<Pin<Box<dyn Future<Output = Infallible> + Send>>>,
    token: watch::Sender<Option<SecretValue>>,
    news: Arc<News>,
}

/// What the subscription and the provider say to each other.
#[derive(Debug, Default)]
struct News {
    changed: Notify,
    /// Over how many milliseconds to spread a look at what changed.
    spread: AtomicU64,
}

/// What to hear about. One project: a connection more for each other one would be too many for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Interest {
    project: String,
    folders: Vec<Folder>,
}

/// One folder, and those below it if they are read too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Folder {
    environment: String,
    path: String,
    recursive: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscription<'a> {
    project_id: &'a str,
    register: Vec<Register>,
}

#[derive(Serialize)]
struct Register {
    event: &'static str,
    conditions: Conditions,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    environment_slug: String,
    secret_path: String,
}

/// Why there is no subscription (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The server closed it, as it does each hour, or the connection broke.
    Closed,
    /// Nothing came for longer than the server is ever silent.
    Silent,
    /// The server says that something is wrong, most of all with rights.
    Error,
    /// No rights, or no such feature: only an administrator can change that.
    Refused,
    /// Another token is needed.
    Token,
    /// Not now.
    Busy(Option<Duration>),
    Unreachable,
}

const PATH: &str = "api/v1/events/subscribe/project-events";
const EVENTS: [&str; 4] = ["secret:create", "secret:update", "secret:delete", "secret:import-mutation"];
/// Most entries of one subscription.
const MOST_ENTRIES: usize = 10;

/// The server sends something every 15 s. It may be no event, so bytes are what counts.
const SILENCE: Duration = Duration::from_secs(45);
/// The server keeps a stream open for an hour.
const BRIEF: Duration = Duration::from_mins(1);
/// A burst of changes is one.
const GAP: Duration = Duration::from_millis(200);
/// How often to ask again for what was refused.
const REFUSED: Duration = Duration::from_hours(1);
/// How often to ask again where too many subscribe already.
const BUSY: Duration = Duration::from_mins(5);
const LONGEST: Duration = Duration::from_mins(1);

// === impl Events ===

impl Events {
    pub(super) fn new(client: Arc<Client>, provider: String) -> Self {
        let token = watch::Sender::new(None);
        Self { client, provider, interest: None, subscription: None, token, news: Arc::default() }
    }

    /// Subscribes with this token from now on.
    pub(super) fn use_token(&self, token: &SecretValue) {
        self.token.send_if_modified(|held| held.replace(token.clone()).as_ref() != Some(token));
    }

    pub(super) fn set_spread(&self, spread: Duration) {
        let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        self.news.spread.store(millis, Ordering::Relaxed);
    }

    /// Wants to hear of changes to what was asked for, from the next [`Self::changed`] on.
    pub(super) fn watch(&mut self, project: &str, asked: &Asked) {
        let recursive = matches!(asked.what, What::Folder { recursive: true, .. });
        let folder = Folder { environment: asked.environment.clone(), path: asked.path.clone(), recursive };
        let new = || Interest { project: project.to_owned(), folders: Vec::new() };
        let interest = self.interest.get_or_insert_with(new);
        if interest.project == project && !interest.folders.contains(&folder) {
            interest.folders.push(folder);
            // Another subscription is made in place of the present one.
            self.subscription = None;
        }
    }

    /// Completes when something may have changed. Cancel safe.
    pub(super) async fn changed(&mut self, wanted: bool) {
        let Some(interest) = self.interest.as_ref().filter(|_| wanted) else { return std::future::pending().await };
        let Self { client, provider, token, news, .. } = self;
        let subscription = self.subscription.get_or_insert_with(|| {
            let subscriber = Subscriber {
                client: Arc::clone(client),
                provider: provider.clone(),
                interest: interest.clone(),
                token: token.subscribe(),
                news: Arc::clone(news),
            };
            Box::pin(calling(StoreCall::Watch, subscriber.run()))
        });
        tokio::select! {
            () = news.changed.notified() => {}
            never = subscription => match never {},
        }
    }
}

// === impl Interest ===

impl Interest {
    /// One entry per event and folder; if that is too many, per event and environment.
    fn register(&self) -> Vec<Register> {
        let exact = |folder: &Folder| Conditions {
            environment_slug: folder.environment.clone(),
            secret_path: if folder.recursive { below(&folder.path) } else { folder.path.clone() },
        };
        let wide = |folder: &Folder| Conditions {
            environment_slug: folder.environment.clone(),
            secret_path: "/**".to_owned(),
        };
        let conditions = |of: &dyn Fn(&Folder) -> Conditions| {
            let mut all: Vec<_> = self.folders.iter().map(of).collect();
            all.sort();
            all.dedup();
            all
        };
        let mut all = conditions(&exact);
        if all.len() * EVENTS.len() > MOST_ENTRIES {
            all = conditions(&wide);
        }
        let entries =
            all.iter().flat_map(|conditions| EVENTS.map(|event| Register { event, conditions: conditions.clone() }));
        // Environments beyond that are polled.
        entries.take(MOST_ENTRIES).collect()
    }

    /// Whether a frame tells of a change in one of our folders, as far as it tells where.
    fn is_met(&self, frame: &Frame) -> bool {
        match frame {
            Frame::Change(places) => places.is_empty() || places.iter().any(|(env, path)| self.has(env, path)),
            Frame::Error => false,
        }
    }

    /// Whether a change there is one of ours.
    fn has(&self, environment: &str, path: &str) -> bool {
        self.folders.iter().any(|folder| {
            folder.environment == environment
                && (folder.path == path
                    || (folder.recursive && path.starts_with(below(&folder.path).trim_end_matches("**"))))
        })
    }
}

fn below(path: &str) -> String {
    format!("{}/**", path.trim_end_matches('/'))
}

/// Subscribes, listens, and does so again.
struct Subscriber {
    client: Arc<Client>,
    provider: String,
    interest: Interest,
    token: watch::Receiver<Option<SecretValue>>,
    news: Arc<News>,
}

// === impl Subscriber ===

impl Subscriber {
    async fn run(mut self) -> Infallible {
        let mut failures = 0_u32;
        let mut was_brief = false;
        loop {
            let opened = Instant::now();
            let mut end = match self.subscribe().await {
                Ok(mut stream) => {
                    if failures > 0 && !was_brief {
                        tracing::info!(provider = self.provider, "the store tells changes again");
                    }
                    // What happened since the last look, or while nobody listened, is told by no one.
                    self.news.changed.notify_one();
                    listen(&mut stream, &self.interest, &self.news).await
                }
                Err(end) => end,
            };
            was_brief = end == End::Closed && opened.elapsed() < BRIEF;
            if was_brief {
                // No server of events, but something before it that answers in its place.
                end = End::Unreachable;
            }
            failures = if end == End::Closed { 0 } else { failures.saturating_add(1) };
            if failures == 1 {
                tracing::warn!(provider = self.provider, why = ?end, "the store does not tell changes: polling goes on");
            } else {
                tracing::debug!(provider = self.provider, why = ?end, failures, "subscribing again");
            }
            self.wait(end, failures).await;
        }
    }

    async fn subscribe(&mut self) -> Result<Stream, End> {
        let token = self.token.borrow_and_update().clone().ok_or(End::Token)?;
        let body = Subscription { project_id: &self.interest.project, register: self.interest.register() };
        let call = call_as(Method::POST, PATH, &token).map_err(|_| End::Token)?;
        let call = call.header(ACCEPT, HeaderValue::from_static("text/event-stream")).json(&body);
        match self.client.open(call).await {
            Ok(Opened::Stream(stream)) => Ok(stream),
            Ok(Opened::Answer(response)) => Err(End::of(&response, &self.client)),
            Err(_) => Err(End::Unreachable),
        }
    }

    async fn wait(&mut self, end: End, failures: u32) {
        let wait = match end {
            // All pods lose their connection at the same moment if the server restarts.
            End::Closed => Duration::from_secs(1).mul_f64(chance()),
            End::Silent | End::Unreachable => backoff(failures),
            End::Error | End::Token => backoff(failures.saturating_add(3)),
            End::Busy(wish) => wish.unwrap_or(BUSY).mul_f64(1.0 + chance() / 2.0),
            End::Refused => REFUSED.mul_f64(0.75 + chance() / 2.0),
        };
        tokio::select! {
            () = sleep(wait) => {}
            // Without a provider there is no sender either, and nobody polls this.
            Ok(()) = self.token.changed(), if end == End::Token => {}
        }
    }
}

// === impl End ===

impl End {
    fn of(response: &Response, client: &Client) -> Self {
        if let Some(failure) = throttled(response, client.address()) {
            return match failure.error.kind {
                ErrorKind::Throttled { retry_after } => Self::Busy(retry_after),
                _ => Self::Busy(None),
            };
        }
        match response.status.as_u16() {
            _ if is_about_token(response) => Self::Token,
            404 if is_unknown_route(response) && is_infisicals(response) => Self::Refused,
            _ if foreign(response, client.address(), "a subscription").is_some() => Self::Unreachable,
            400 | 403 | 404 | 422 => Self::Refused,
            _ => Self::Unreachable,
        }
    }
}

/// Says what changed until the stream ends.
async fn listen<B>(stream: &mut Stream<B>, interest: &Interest, news: &News) -> End
where
    B: hyper::body::Body<Data = bytes::Bytes> + Unpin,
{
    let mut frames = Frames::default();
    let mut dead_at = Instant::now() + SILENCE;
    let mut told_at: Option<Instant> = None;
    let mut tell_at: Option<Instant> = None;
    let end = loop {
        let tell = async {
            match tell_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let chunk = tokio::select! {
            // What is due is told even while more and more comes.
            biased;
            () = tell => {
                (tell_at, told_at) = (None, Some(Instant::now()));
                news.changed.notify_one();
                continue;
            }
            chunk = timeout_at(dead_at, stream.chunk()) => chunk,
        };
        let bytes = match chunk {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break End::Closed,
            Err(_) => break End::Silent,
        };
        let now = Instant::now();
        dead_at = now + SILENCE;
        let found = frames.feed(&bytes);
        if found.contains(&Frame::Error) {
            break End::Error;
        }
        if found.iter().any(|frame| interest.is_met(frame)) {
            let spread = Duration::from_millis(news.spread.load(Ordering::Relaxed)).mul_f64(chance());
            let gap = told_at.map_or(now, |at| at + GAP);
            tell_at.get_or_insert(gap.max(now + spread));
        }
    };
    if tell_at.is_some() {
        news.changed.notify_one();
    }
    end
}

/// Exponential with full jitter.
fn backoff(failures: u32) -> Duration {
    let longest = Duration::from_secs(1).saturating_mul(1 << failures.min(16)).min(LONGEST);
    longest.mul_f64(chance()).max(Duration::from_millis(250))
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness all pods are in step, which is bad but no reason to stop.
    let _ = rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
