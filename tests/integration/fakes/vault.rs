//! Vault 1.19.5 as far as the contract suite needs it: its statuses and its JSON, taken down from a real server; the
//! same cases run against a real one (see `contract.rs`), so this one cannot drift.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};

use super::server::{self, FakeServer, Fault, Received};
use super::tls::Certificates;

mod engines;
mod logins;

/// The root token. Every token and every answer of this fake that is secret has `canary` in it.
pub(crate) const ROOT: &str = "canary-root";

/// A running server.
pub(crate) struct FakeVault {
    server: FakeServer,
    state: Shared,
}

type Shared = Arc<Mutex<Server>>;

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
        let shared = Arc::clone(&state);
        let server = FakeServer::start_with(certificates, move |received| answer(&shared, received)).await;
        Self { server, state }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.state.lock().unwrap()
    }

    /// The next `times` requests for exactly this path meet this fault.
    pub(crate) fn fail(&self, path: &str, times: usize, fault: Fault) {
        let path = format!("/v1/{path}");
        self.server.fail(move |received| received.path == path, times, fault);
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
        self.server.take_seen().iter().map(Seen::from).collect()
    }

    /// How many tokens live, the root's among them.
    pub(crate) fn live_tokens(&self) -> usize {
        let server = self.server();
        server.logins.live(server.now())
    }
}

impl Deref for FakeVault {
    type Target = FakeServer;

    fn deref(&self) -> &FakeServer {
        &self.server
    }
}

// === impl Seen ===

impl From<&Received> for Seen {
    fn from(received: &Received) -> Self {
        let raw = received.path.strip_prefix("/v1/").unwrap_or_default();
        let path = if received.query.is_empty() { raw.to_owned() } else { format!("{raw}?{}", received.query) };
        Self {
            method: received.method.to_string(),
            path,
            namespace: received.header("x-vault-namespace").map(str::to_owned),
            has_request_header: received.header("x-vault-request") == Some("true"),
        }
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

fn answer(state: &Shared, received: &Received) -> server::Reply {
    let call = Call {
        method: received.method.clone(),
        path: received.path.strip_prefix("/v1/").unwrap_or_default().trim_end_matches('/').to_owned(),
        query: received.params(),
        token: received.header("x-vault-token").map(str::to_owned),
        body: received.json(),
    };
    let Reply { status, mut headers, body } = state.lock().unwrap().answer(&call);
    headers.extend([("content-type", "application/json".to_owned()), ("cache-control", "no-store".to_owned())]);
    server::Reply { status, headers, body: body.map_or_else(Body::empty, |body| Body::from(body.to_string())) }
}
