//! Vault 1.19.5 as far as the contract suite needs it: its statuses and its JSON, taken down from a real server; the
//! same cases run against a real one (see `contract.rs`), so that this one cannot drift.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use futures_util::StreamExt;
use serde_json::{Value, json};

mod engines;
mod logins;
mod tls;

pub(crate) use tls::Certificates;

/// The root token. Every token and every answer of this fake that is secret has `canary` in it.
pub(crate) const ROOT: &str = "canary-root";

/// A running server.
pub(crate) struct FakeVault {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Who vouches for it.
    pub(crate) certificates: Certificates,
    state: Shared,
    task: tokio::task::JoinHandle<()>,
}

type Shared = Arc<Mutex<Server>>;

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

/// A request that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Without `/v1/`, with its query.
    pub(crate) path: String,
    pub(crate) namespace: Option<String>,
    pub(crate) has_request_header: bool,
}

#[derive(Default)]
struct Server {
    sealed: bool,
    seen: Vec<Seen>,
    key_exchanges: BTreeSet<String>,
    faults: BTreeMap<String, (usize, Fault)>,
    quotas: BTreeMap<String, (u64, u64)>,
    /// How much later it is here than elsewhere.
    later: Duration,
    counter: u64,
    engines: BTreeMap<String, engines::Engine>,
    leases: BTreeMap<String, engines::LeaseState>,
    logins: logins::Logins,
}

/// One request, taken apart.
struct Call {
    method: Method,
    path: String,
    query: BTreeMap<String, String>,
    token: Option<String>,
    body: Value,
}

/// An answer.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

// === impl Reply ===

impl Reply {
    fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body) }
    }

    fn error(status: u16, text: &str) -> Self {
        Self::json(status, json!({"errors": [text]}))
    }

    fn not_found() -> Self {
        Self::json(404, json!({"errors": []}))
    }

    fn no_content() -> Self {
        Self { status: 204, headers: Vec::new(), body: None }
    }

    /// The frame around every answer; `fields` replace what is in it.
    fn framed(status: u16, fields: Value) -> Self {
        let mut frame = json!({
            "request_id": "04102947-d63c-27d5-03a1-1d6cb1c3a1eb", "lease_id": "", "renewable": false,
            "lease_duration": 0, "data": null, "wrap_info": null, "warnings": null, "auth": null, "mount_type": ""
        });
        let (Some(frame_fields), Value::Object(fields)) = (frame.as_object_mut(), fields) else { unreachable!() };
        frame_fields.extend(fields);
        Self::json(status, frame)
    }
}

// === impl FakeVault ===

impl FakeVault {
    /// Starts a server on a free port of 127.0.0.1.
    pub(crate) async fn start() -> Self {
        Self::start_with(Certificates::new()).await
    }

    /// Starts a server that shows the given certificate.
    pub(crate) async fn start_with(certificates: Certificates) -> Self {
        let state = Shared::default();
        state.lock().unwrap().logins = logins::Logins::with_root(ROOT);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(handle).with_state(Arc::clone(&state));
        let on_handshake = Arc::clone(&state);
        let acceptor = certificates.acceptor();
        let task = tokio::spawn(tls::serve(listener, acceptor, router, move |group| {
            on_handshake.lock().unwrap().key_exchanges.insert(group);
        }));
        Self { address, certificates, state, task }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.state.lock().unwrap()
    }

    /// The next `times` requests for exactly this path meet this fault.
    pub(crate) fn fail(&self, path: &str, times: usize, fault: Fault) {
        self.server().faults.insert(path.to_owned(), (times, fault));
    }

    /// Every request from now on finds it sealed, or no longer so.
    pub(crate) fn set_sealed(&self, sealed: bool) {
        self.server().sealed = sealed;
    }

    /// Lets time pass for tokens and leases.
    pub(crate) fn advance(&self, by: Duration) {
        self.server().later += by;
    }

    /// What came in since the last time this was asked.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.server().seen)
    }

    /// Groups that TLS key exchanges agreed on.
    pub(crate) fn key_exchanges(&self) -> BTreeSet<String> {
        self.server().key_exchanges.clone()
    }

    /// How many tokens live, the root's among them.
    pub(crate) fn live_tokens(&self) -> usize {
        let server = self.server();
        server.logins.live(server.now())
    }
}

impl Drop for FakeVault {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Server ===

impl Server {
    fn now(&self) -> Instant {
        Instant::now() + self.later
    }

    fn next_name(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}{}", self.counter)
    }

    fn quota_reply(&mut self, path: &str) -> Option<Reply> {
        let (_, (rate, used)) = self.quotas.iter_mut().find(|(prefix, _)| path.starts_with(prefix.as_str()))?;
        *used += 1;
        (*used > *rate).then(|| Reply {
            headers: vec![("retry-after", "3599".to_owned()), ("x-ratelimit-limit", rate.to_string())],
            ..Reply::error(429, &format!("request path {path:?}: rate limit quota exceeded"))
        })
    }

    fn answer(&mut self, call: &Call) -> Reply {
        if self.sealed {
            return Reply::error(503, "Vault is sealed");
        }
        if let Some(reply) = self.quota_reply(&call.path) {
            return reply;
        }
        if let Some(reply) = self.log_in(call) {
            return reply;
        }
        let now = self.now();
        if let Err(reply) = self.logins.permit(call, now) {
            return reply;
        }
        let components: Vec<_> = call.path.split('/').collect();
        match (call.method.as_str(), components.as_slice()) {
            ("GET", ["sys", "internal", "ui", "mounts", rest @ ..]) => self.show_mount(call, &rest.join("/")),
            ("POST", ["sys", "mounts", mount @ ..]) => self.mount(&mount.join("/"), &call.body),
            ("DELETE", ["sys", "mounts" | "auth" | "policies" | "quotas", ..])
            | ("POST", ["sys", "quotas", "config"]) => Reply::no_content(),
            ("POST", ["sys", "quotas", "rate-limit", _]) => {
                let field = |name: &str| call.body[name].clone();
                self.quotas.insert(field("path").as_str().unwrap().to_owned(), (field("rate").as_u64().unwrap(), 0));
                Reply::no_content()
            }
            ("PUT" | "POST", ["sys", "leases", verb]) => self.change_lease(verb, &call.body),
            ("POST", ["sys", "policies", "acl", name]) => self.logins.set_policy(name, &call.body),
            (_, ["sys" | "auth", ..]) => self.manage_logins(call, &components),
            _ => self.use_engine(call),
        }
    }
}

async fn handle(
    State(state): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let raw = uri.path().strip_prefix("/v1/").unwrap_or_default().to_owned();
    let whole = uri.query().map_or_else(|| raw.clone(), |query| format!("{raw}?{query}"));
    let fault = {
        let mut server = state.lock().unwrap();
        server.seen.push(Seen {
            method: method.to_string(),
            path: whole,
            namespace: header("x-vault-namespace"),
            has_request_header: header("x-vault-request").as_deref() == Some("true"),
        });
        match server.faults.get_mut(&raw) {
            Some((times, fault)) if *times > 0 => {
                *times -= 1;
                Some(fault.clone())
            }
            _ => None,
        }
    };
    if let Some(fault) = fault {
        return fail(fault).await;
    }
    let query = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let call = Call {
        method,
        path: raw.trim_end_matches('/').to_owned(),
        query: query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        token: header("x-vault-token"),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let reply = state.lock().unwrap().answer(&call);
    respond(reply.status, &reply.headers, reply.body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
}

async fn fail(fault: Fault) -> Response<Body> {
    match fault {
        Fault::Status(status, headers, body) => respond(status, &headers, Body::from(body)),
        Fault::Body(body) => respond(200, &[], Body::from(body)),
        Fault::Truncated => {
            let half = futures_util::stream::once(async { Ok(Bytes::from_static(br#"{"data":{"password":"cana"#)) });
            let broken = futures_util::stream::once(async {
                // The first half goes out before the rest is asked for again.
                tokio::task::yield_now().await;
                Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))
            });
            respond(200, &[], Body::from_stream(half.chain(broken)))
        }
        Fault::Silence => std::future::pending().await,
    }
}

fn respond(status: u16, headers: &[(&'static str, String)], body: Body) -> Response<Body> {
    let mut builder = Response::builder().status(StatusCode::from_u16(status).unwrap());
    builder = builder.header("content-type", "application/json").header("cache-control", "no-store");
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    builder.body(body).unwrap()
}
