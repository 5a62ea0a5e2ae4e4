//! What every fake store is made of: a TLS server that notes what comes in, and fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use futures_util::StreamExt;
use serde_json::Value;

use super::tls::{self, Certificates};

/// A running server.
pub(crate) struct FakeServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Who vouches for it.
    pub(crate) certificates: Certificates,
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

struct Inner {
    answer: Box<dyn Fn(&Received) -> Reply + Send + Sync>,
    state: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    seen: Vec<Received>,
    key_exchanges: BTreeSet<String>,
    faults: Vec<Planned>,
}

/// A fault and whom it meets.
struct Planned {
    meets: Box<dyn Fn(&Received) -> bool + Send>,
    times: usize,
    fault: Fault,
}

/// A request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    /// As it stood in the request line, without the query.
    pub(crate) path: String,
    /// As it stood in the request line, without `?`.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
}

/// What happens instead of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Another status, with these headers and this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// A 200 with this body.
    Body(String),
    /// Half of an answer, then the connection breaks.
    Truncated,
    /// No answer at all.
    Silence,
}

// === impl Received ===

impl Received {
    /// A header's text, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The parameters, decoded.
    pub(crate) fn params(&self) -> BTreeMap<String, String> {
        form(&self.query)
    }

    /// The parameters of a form in the body, decoded.
    pub(crate) fn form(&self) -> BTreeMap<String, String> {
        form(std::str::from_utf8(&self.body).unwrap_or_default())
    }

    /// The body as JSON; `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// `application/x-www-form-urlencoded`, decoded.
fn form(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

/// Percent-decoded, `+` as a space.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let hex = [*high, *low];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            (b'+', _) => b' ',
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

// === impl Reply ===

impl Reply {
    /// An answer in JSON.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: Body::from(body.to_string()) }
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn into_response(self) -> Response<Body> {
        let mut builder = Response::builder().status(StatusCode::from_u16(self.status).unwrap());
        for (name, value) in &self.headers {
            builder = builder.header(*name, value);
        }
        builder.body(self.body).unwrap()
    }
}

// === impl FakeServer ===

impl FakeServer {
    /// Starts a server on a free port of 127.0.0.1 that answers so.
    pub(crate) async fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(Certificates::new(), answer).await
    }

    /// Starts a server that shows the given certificate.
    pub(crate) async fn start_with(
        certificates: Certificates,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), certificates, answer).await
    }

    /// Starts a server that listens there.
    pub(crate) async fn start_on(
        listen: SocketAddr,
        certificates: Certificates,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let inner = Arc::new(Inner { answer: Box::new(answer), state: Mutex::default() });
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(handle).with_state(Arc::clone(&inner));
        let on_handshake = Arc::clone(&inner);
        let task = tokio::spawn(tls::serve(listener, certificates.acceptor(), router, move |group| {
            on_handshake.state().key_exchanges.insert(group);
        }));
        Self { address, certificates, inner, task }
    }

    /// Starts a server without TLS, as machines' metadata services are.
    pub(crate) async fn start_plain(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let inner = Arc::new(Inner { answer: Box::new(answer), state: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(handle).with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, certificates: Certificates::new(), inner, task }
    }

    /// `https://` and the address.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The next `times` requests that `meets` picks find this fault. What was planned before comes first.
    pub(crate) fn fail(&self, meets: impl Fn(&Received) -> bool + Send + 'static, times: usize, fault: Fault) {
        self.inner.state().faults.push(Planned { meets: Box::new(meets), times, fault });
    }

    /// What was planned and has not been met is forgotten.
    pub(crate) fn heal(&self) {
        self.inner.state().faults.clear();
    }

    /// What came in since the last time this was asked.
    pub(crate) fn take_seen(&self) -> Vec<Received> {
        std::mem::take(&mut self.inner.state().seen)
    }

    /// Groups that TLS key exchanges agreed on.
    pub(crate) fn key_exchanges(&self) -> BTreeSet<String> {
        self.inner.state().key_exchanges.clone()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Inner ===

impl Inner {
    fn state(&self) -> MutexGuard<'_, Noted> {
        self.state.lock().unwrap()
    }

    fn note(&self, received: &Received) -> Option<Fault> {
        let mut state = self.state();
        state.seen.push(received.clone());
        let planned = state.faults.iter_mut().find(|planned| planned.times > 0 && (planned.meets)(received))?;
        planned.times -= 1;
        Some(planned.fault.clone())
    }
}

async fn handle(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    let received = Received { method, path, query, headers, body };
    match inner.note(&received) {
        None => (inner.answer)(&received).into_response(),
        Some(fault) => fail(fault).await.into_response(),
    }
}

async fn fail(fault: Fault) -> Reply {
    match fault {
        Fault::Status(status, headers, body) => Reply { status, headers, body: Body::from(body) },
        Fault::Body(body) => Reply { status: 200, headers: Vec::new(), body: Body::from(body) },
        Fault::Truncated => {
            let half = futures_util::stream::once(async { Ok(Bytes::from_static(br#"{"data":{"password":"cana"#)) });
            let broken = futures_util::stream::once(async {
                // The first half goes out before the rest is asked for again.
                tokio::task::yield_now().await;
                Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))
            });
            Reply { status: 200, headers: Vec::new(), body: Body::from_stream(half.chain(broken)) }
        }
        Fault::Silence => std::future::pending().await,
    }
}
