//! The client: calls, answers, and their bounds.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::address::{self, Address};
use super::authorities::Authorities;
use super::connect;
use super::meter::StoreMeter;
use super::pool::Pool;
use crate::provider::{ErrorKind, ProviderError};
use crate::secret::SecretValue;

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

/// One request.
#[derive(Clone)]
pub struct Call {
    method: Method,
    path: String,
    /// What is told of the path, if it is private.
    told: Option<&'static str>,
    query: Vec<(String, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    is_throttling: Option<fn(&Response) -> bool>,
}

/// What the store answered, whatever its status. The body is wiped when dropped.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// `Retry-After` in seconds (RFC 9110, 10.2.3); its form with a date is passed over.
    pub retry_after: Option<Duration>,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
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

/// A header value that is wiped after use and marked sensitive.
///
/// # Errors
/// `Invalid` if the secret has bytes that no header can carry, such as a line's end; `what` names it.
pub fn secret_header(secret: &SecretValue, what: &str) -> Result<HeaderValue, ProviderError> {
    let bytes = Bytes::from_owner(Zeroizing::new(secret.expose().to_vec()));
    let mut value = HeaderValue::from_maybe_shared(bytes).map_err(|_| {
        ProviderError::new(ErrorKind::Invalid, format!("{what} has characters that no HTTP header can carry"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A bearer token's `Authorization` header (RFC 6750); `what` names it.
///
/// # Errors
/// As [`secret_header`].
pub fn bearer(token: &SecretValue, what: &str) -> Result<HeaderValue, ProviderError> {
    let mut value = Zeroizing::new(Vec::with_capacity(7 + token.len()));
    value.extend_from_slice(b"Bearer ");
    value.extend_from_slice(token.expose());
    secret_header(&SecretValue::new(std::mem::take(&mut *value)), what)
}

/// The frame of a refusal. JSON objects alone are frames: what is read into fields by their names, a list would fill by
/// their order.
#[must_use]
pub fn frame<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(body).ok()).flatten()
}

/// Whether a store's text has these words: it may hold a value, so it is only searched, and never passed on.
#[must_use]
pub fn contains_ignore_case(text: &[u8], words: &str) -> bool {
    text.windows(words.len()).any(|part| part.eq_ignore_ascii_case(words.as_bytes()))
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), exchange: Duration::from_secs(15), body_bytes: 1024 * 1024 }
    }
}

// === impl Call ===

impl Call {
    /// A request for `path` below the store's address; it is percent-encoded on its way.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            told: None,
            query: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            is_throttling: None,
        }
    }

    /// Tells this instead of the path, which has something in it that is nobody else's.
    #[must_use]
    pub fn told_as(self, told: &'static str) -> Self {
        Self { told: Some(told), ..self }
    }

    fn told(&self) -> &str {
        self.told.unwrap_or(&self.path)
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Counts answers as throttling of which the store says so otherwise than by 429.
    #[must_use]
    pub fn throttled_if(self, is_throttling: fn(&Response) -> bool) -> Self {
        Self { is_throttling: Some(is_throttling), ..self }
    }

    /// Sets a JSON body, wiped after use.
    #[must_use]
    pub fn json(self, value: &impl Serialize) -> Self {
        self.body(to_json(value), "application/json")
    }

    /// Sets a body of form fields, wiped after use.
    #[must_use]
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        self.body(to_form(fields), "application/x-www-form-urlencoded")
    }

    /// Sets a body of that type, wiped after use.
    #[must_use]
    pub fn body(mut self, body: Zeroizing<Vec<u8>>, content_type: &'static str) -> Self {
        self.body = Bytes::from_owner(body);
        self.header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("method", &self.method).field("path", &self.told()).finish_non_exhaustive()
    }
}

// === impl Response ===

impl Response {
    /// The whole body, if it is JSON of that kind.
    #[must_use]
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the body has these words; see [`contains_ignore_case`].
    #[must_use]
    pub fn contains(&self, words: &str) -> bool {
        contains_ignore_case(&self.body, words)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
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
        let pool = Pool::new(&address, authorities, limits.connect, proxy).map_err(ProviderError::invalid)?;
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
        tracing::debug!(method = %call.method, host = %self.address.host(), path = %format_args!("{}{more}", call.told()),
            status = outcome, ms, "request to store");
    }

    async fn exchange(&self, call: &Call) -> Result<hyper::Response<Incoming>, SendError> {
        let mut uri = self.address.uri(&call.path, &call.query).map_err(|problem| self.failed(problem))?;
        let unverifiable = |problem| SendError { is_connected: false, ..self.failed(problem) };
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
        let mut body = Zeroizing::new(Vec::with_capacity(announced));
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|_| self.failed("broke off in the middle of its answer"))?;
            let Some(bytes) = frame.data_ref() else { continue };
            if body.len() + bytes.len() > limit {
                return Err(too_large());
            }
            append(&mut body, bytes);
        }
        if values_in(&body) > MAX_VALUES {
            let message = format!("{} answers more than {MAX_VALUES} values to one request", self.address);
            return Err(SendError { is_connected: true, error: ProviderError::new(ErrorKind::Invalid, message) });
        }
        let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        Ok(Response { status: head.status, retry_after, headers: head.headers, body })
    }

    fn failed(&self, what: impl fmt::Display) -> SendError {
        let error = ProviderError::new(ErrorKind::Unavailable, format!("{} {what}", self.address));
        SendError { is_connected: true, error }
    }
}

fn request(call: &Call, uri: Uri) -> hyper::Request<Full<Bytes>> {
    let mut request = hyper::Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("hushpod/", env!("CARGO_PKG_VERSION"))));
    headers.extend(call.headers.iter().cloned());
    request
}

/// JSON that is wiped after use.
pub(crate) fn to_json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // Room for a long token, so growing leaves no copy behind.
    let mut json = Zeroizing::new(Vec::with_capacity(8 * 1024));
    // Structs of text cannot fail to become JSON; if one did, the store would refuse the empty body.
    let _ = serde_json::to_writer(&mut *json, value);
    json
}

/// A form that is wiped after use.
fn to_form(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    // Room for the worst, so growing leaves no copy behind.
    let room = fields.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut form = Zeroizing::new(Vec::with_capacity(room));
    for (name, value) in fields {
        let separator = if form.is_empty() { "" } else { "&" };
        for part in [separator].into_iter().chain(address::encode(name)).chain(["="]).chain(address::encode(value)) {
            form.extend_from_slice(part.as_bytes());
        }
    }
    form
}

/// Appends without leaving an unwiped copy behind, as a growing `Vec` would.
fn append(body: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    if body.capacity() - body.len() < bytes.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((body.len() + bytes.len()) * 2));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        for (fields, text) in [
            (
                [("scope", "https://vault.azure.net/.default"), ("x", "a b+c&d=ü")],
                "scope=https%3A%2F%2Fvault.azure.net%2F.default&x=a%20b%2Bc%26d%3D%C3%BC",
            ),
            (
                [("RoleArn", "arn:aws:iam::1:role/a+b c"), ("WebIdentityToken", "a.b-c_d")],
                "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa%2Bb%20c&WebIdentityToken=a.b-c_d",
            ),
        ] {
            assert_eq!(std::str::from_utf8(&to_form(&fields)).unwrap(), text);
        }
    }
}
