//! The client: one exchange with a store, and its bounds.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header;
use hyper::{StatusCode, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::address::Address;
use super::authorities::Authorities;
use super::call::{Call, request};
use super::connect;
use super::meter::StoreMeter;
use super::pool::Pool;
use super::response::Response;
use crate::provider::arrivals::arrive;
use crate::provider::{ErrorKind, ProviderError};
use crate::secret::SecretTree;

/// How many redirects within one address are followed.
const MAX_REDIRECTS: u8 = 2;

/// Most values of one answer. As structures they take up to a hundred times the room that they take as text, and an
/// agent has 32 MiB; those that are delivered have a bound of their own.
const MAX_VALUES: usize = 100_000;

/// Bounds of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For name resolution, TCP, a proxy's tunnel and TLS together.
    pub connect: Duration,
    /// For the whole exchange: connecting, redirects and the last byte of the body.
    pub exchange: Duration,
    /// Most bytes of an answer's body.
    pub body_bytes: usize,
}

/// A client of one store.
pub struct Client {
    address: Address,
    limits: Limits,
    pool: Pool,
    meter: StoreMeter,
}

/// What [`Client::open`] came to.
#[derive(Debug)]
pub enum Opened {
    /// The store answers 200 and goes on answering.
    Stream(Stream),
    /// Any other answer, complete.
    Answer(Response),
}

/// A body that is read as it comes and may never end.
pub struct Stream<B = Incoming>(B);

/// Why there is no complete answer: `Unavailable`, or `Invalid` if a good one is too large or has too many values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct SendError {
    /// Whether there was a connection. If not, other requests will fare no better.
    pub is_connected: bool,
    /// What to tell.
    pub error: ProviderError,
}

/// How many values, lists and maps are in a body, if it is JSON; at most one too few for each list and map.
fn values_in(body: &[u8]) -> usize {
    let (mut values, mut is_text, mut is_escaped) = (0, false, false);
    for &byte in body {
        match byte {
            b'"' if !is_escaped => is_text = !is_text,
            b',' | b'[' | b'{' if !is_text => values += 1,
            _ => {}
        }
        is_escaped = is_text && byte == b'\\' && !is_escaped;
    }
    values
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), exchange: Duration::from_secs(15), body_bytes: 1024 * 1024 }
    }
}

// === impl Stream ===

impl<B: hyper::body::Body<Data = Bytes> + Unpin> Stream<B> {
    /// A stream of this body.
    pub fn new(body: B) -> Self {
        Self(body)
    }

    /// What came next; `None` at the end, or where it broke off. Cancel safe.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if let Ok(bytes) = self.0.frame().await?.ok()?.into_data() {
                return Some(bytes);
            }
        }
    }
}

impl<B> fmt::Debug for Stream<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

// === impl Client ===

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for the store at `address`. `ca` are PEM certificates that replace the public authorities; `proxy`
    /// says which addresses are reached through an HTTP proxy.
    ///
    /// # Errors
    /// `Invalid` if the CA bundle or the proxy cannot be used.
    pub fn new(address: Address, ca: Option<&str>, limits: Limits, proxy: &Matcher) -> Result<Self, ProviderError> {
        Self::trusting(address, &Authorities::of(ca), limits, proxy)
    }

    /// The same, for a store that these authorities vouch for.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn trusting(
        address: Address,
        authorities: &Authorities,
        limits: Limits,
        proxy: &Matcher,
    ) -> Result<Self, ProviderError> {
        let pool = Pool::new(&address, authorities, limits.connect, proxy)?;
        Ok(Self { address, limits, pool, meter: StoreMeter::default() })
    }

    /// The same, counted.
    pub(super) fn counted_by(self, meter: StoreMeter) -> Self {
        Self { meter, ..self }
    }

    /// Where the store is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request and waits for the whole answer. An answer of any status is not an error here.
    ///
    /// # Errors
    /// [`SendError`] if there is no complete answer in time, or one beyond the limits.
    pub async fn send(&self, call: Call) -> Result<Response, SendError> {
        let started = Instant::now();
        let answer = self.in_time(async { self.collect(self.exchange(&call).await?).await }).await;
        self.trace(&call, started, answer.as_ref().ok().map(|response| response.status));
        self.count(&call, answer.as_ref());
        answer
    }

    /// Sends a request whose answer goes on for ever, and waits for its head. What is not a 200 is read to its end.
    ///
    /// # Errors
    /// As [`Self::send`]; the limits bound the head alone, and the caller the rest.
    pub async fn open(&self, call: Call) -> Result<Opened, SendError> {
        let started = Instant::now();
        let opened = self.in_time(async {
            let response = self.exchange(&call).await?;
            match response.status() {
                StatusCode::OK => Ok(Opened::Stream(Stream(response.into_body()))),
                _ => self.collect(response).await.map(Opened::Answer),
            }
        });
        let opened = opened.await;
        let status = opened.as_ref().ok().map(|opened| match opened {
            Opened::Stream(_) => StatusCode::OK,
            Opened::Answer(response) => response.status,
        });
        self.trace(&call, started, status);
        match &opened {
            Ok(Opened::Stream(_)) => self.meter.answered(StatusCode::OK, false),
            Ok(Opened::Answer(response)) => self.count(&call, Ok(response)),
            Err(error) => self.count(&call, Err(error)),
        }
        opened
    }

    fn count(&self, call: &Call, answer: Result<&Response, &SendError>) {
        match answer {
            Ok(response) => {
                let is_throttling = call.is_throttling.is_some_and(|is_throttling| is_throttling(response));
                self.meter.answered(response.status, is_throttling);
            }
            Err(SendError { error, .. }) => self.meter.failed(error.kind),
        }
    }

    async fn in_time<T>(&self, exchange: impl Future<Output = Result<T, SendError>>) -> Result<T, SendError> {
        match timeout(self.limits.exchange, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(self.failed(format!("did not answer within {:?}", self.limits.exchange))),
        }
    }

    fn trace(&self, call: &Call, started: Instant, status: Option<StatusCode>) {
        let outcome = status.as_ref().map_or("failed", StatusCode::as_str);
        let ms = started.elapsed().as_millis();
        // Parameters may be private, so only their being there is told.
        let more = if call.query.is_empty() { "" } else { "?…" };
        tracing::debug!(method = %call.method, host = %self.address.host(), path = %format_args!("{}{more}", call.described()),
            status = outcome, ms, "request to store");
    }

    async fn exchange(&self, call: &Call) -> Result<hyper::Response<Incoming>, SendError> {
        let mut uri = self.address.uri(&call.path, &call.query).map_err(|problem| self.failed(problem))?;
        let unverifiable =
            |error| SendError { is_connected: false, ..self.failed(format_args!("cannot be verified: {error}")) };
        let sender = self.pool.sender().map_err(unverifiable)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = sender.request(request(call, uri.clone())).await.map_err(|error| SendError {
                is_connected: !error.is_connect(),
                ..self.failed(connect::explain(&error, self.limits.connect))
            })?;
            match redirect_target(&response, &uri) {
                None => return Ok(response),
                Some(next) if self.address.is_same_origin(&next) => uri = next,
                Some(_) => {
                    return Err(self.failed(
                        "redirects to another host, which is not followed: set an address that reaches the active \
                         node, or let this one forward requests",
                    ));
                }
            }
        }
        Err(self.failed(format!("redirects more than {MAX_REDIRECTS} times")))
    }

    async fn collect(&self, response: hyper::Response<Incoming>) -> Result<Response, SendError> {
        let limit = self.limits.body_bytes;
        let (head, mut incoming) = response.into_parts();
        let too_large = || {
            let mut failed = self.failed(format!("answers more than {limit} bytes to one request"));
            if head.status.is_success() {
                // No error page, but an answer: it will be too large again.
                failed.error.kind = ErrorKind::Invalid;
            }
            failed
        };
        let announced = usize::try_from(hyper::body::Body::size_hint(&incoming).lower()).unwrap_or(usize::MAX);
        if announced > limit {
            return Err(too_large());
        }
        let mut body = Zeroizing::new(Vec::new());
        self.grow(&mut body, announced)?;
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|_| self.failed("broke off in the middle of its answer"))?;
            let Some(bytes) = frame.data_ref() else { continue };
            if body.len() + bytes.len() > limit {
                return Err(too_large());
            }
            if body.capacity() - body.len() < bytes.len() {
                let capacity = ((body.len() + bytes.len()) * 2).min(limit);
                self.grow(&mut body, capacity)?;
            }
            body.extend_from_slice(bytes);
        }
        let values = values_in(&body);
        if values > MAX_VALUES {
            let message =
                format!("{} answers more than {MAX_VALUES} values to one request: ask for less of it", self.address);
            return Err(SendError { is_connected: true, error: ProviderError::new(ErrorKind::Invalid, message) });
        }
        // What is made of it stands beside it.
        self.arrived(SecretTree::memory_of(values, body.len()))?;
        let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        Ok(Response { status: head.status, retry_after, headers: head.headers, body })
    }

    /// Makes room without leaving an unwiped copy behind, as a growing `Vec` would.
    fn grow(&self, body: &mut Zeroizing<Vec<u8>>, capacity: usize) -> Result<(), SendError> {
        self.arrived(capacity as u64)?;
        let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
        larger.extend_from_slice(body);
        *body = larger;
        Ok(())
    }

    fn arrived(&self, bytes: u64) -> Result<(), SendError> {
        arrive(bytes).map_err(|problem| self.failed(problem))
    }

    fn failed(&self, what: impl fmt::Display) -> SendError {
        let error = ProviderError::new(ErrorKind::Unavailable, format!("{} {what}", self.address));
        SendError { is_connected: true, error }
    }
}

/// Where a redirect leads that keeps method and body (RFC 9110, 15.4): 307 and 308; or any, if it is a plain read.
fn redirect_target(response: &hyper::Response<Incoming>, from: &Uri) -> Option<Uri> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let next: Uri = location.parse().ok()?;
    if next.authority().is_some() {
        return Some(next);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = next.into_parts().path_and_query;
    Uri::from_parts(parts).ok()
}
