//! Infisical as far as the contract suite needs it: its statuses, headers and error bodies, as servers of three years
//! give them (`anchors`: documentation, published source, and an old server that was run).
//!
//! Every token and every answer of this fake that is secret has `canary` in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use serde_json::{Value, json};

use super::server::{FakeServer, Received, Reply};
use super::tls::Certificates;

mod clock;
mod events;
mod leases;
mod logins;
mod projects;
mod secrets;

pub(crate) use leases::Dynamic;
pub(crate) use logins::{API_SERVER, Identity, Rights};

/// The project that is there from the start.
pub(crate) const PROJECT: &str = "5f1d3a70-0b52-4c5e-9b0a-3f4e1d2c7a11";
pub(crate) const PROJECT_SLUG: &str = "shop-x1";

/// A running server.
pub(crate) struct FakeInfisical {
    server: FakeServer,
    state: Shared,
}

type Shared = Arc<Mutex<Server>>;

/// Which year's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Year {
    /// Only v3. A renewal past the maximum ends the token; a reached limit is a 500; validation is a 401.
    Y2024,
    /// v4 with `include_imports`, default false, and references left alone by default.
    Y2025,
    /// v4 with `includeImports`, default true; `ETag`s are kept for a while; renewals are clamped.
    Y2026,
}

/// Kinds of requests that are limited apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Limited {
    Secrets,
    Read,
    Write,
}

pub(crate) struct Server {
    year: Year,
    /// Who signs pods' tokens; `None` for the tests themselves.
    keys: Option<Value>,
    /// How much later it is here than elsewhere.
    later: Duration,
    /// When it is, for a clock that is set by hand, and when that was first.
    time: Option<Duration>,
    started: Option<Duration>,
    counter: u64,
    /// Requests a minute, by kind.
    limits: BTreeMap<Limited, u64>,
    windows: BTreeMap<Limited, Window>,
    /// Whether the plan has dynamic secrets and events.
    has_plan: bool,
    logins: logins::Logins,
    projects: BTreeMap<String, projects::Project>,
    dynamics: BTreeMap<(String, String, String), Dynamic>,
    leases: BTreeMap<String, leases::LeaseState>,
    /// `ETag`s that are still kept.
    etags: BTreeMap<String, String>,
    streams: Vec<events::Subscriber>,
    /// What was answered: method, path, status.
    answered: Vec<(String, String, u16)>,
}

struct Window {
    ends: Duration,
    count: u64,
}

/// One request of any caller, taken apart.
struct Call<'a> {
    received: &'a Received,
    query: BTreeMap<String, String>,
    body: Value,
}

/// An answer, or the error that is one too.
type Answer = Result<Reply, Reply>;

// === impl FakeInfisical ===

impl FakeInfisical {
    /// Starts a server of that year on a free port of 127.0.0.1.
    pub(crate) async fn of(year: Year) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), Certificates::new(), Server::new(year)).await
    }

    /// Starts a server without TLS, for crowds; its clock stands still unless [`Server::set_time`] moves it.
    pub(crate) async fn plain(year: Year) -> Self {
        let state = Arc::new(Mutex::new(Server::new(year)));
        let shared = Arc::clone(&state);
        let server = FakeServer::start_plain(move |received| answer(&shared, received)).await;
        state.lock().unwrap().set_time(Duration::ZERO);
        Self { server, state }
    }

    /// Starts a server for pods of a cluster with these keys (JWKS).
    #[allow(dead_code, reason = "for the server of its own that `hushpod-bench store` is")]
    pub(crate) async fn for_cluster(listen: SocketAddr, keys: Value) -> Self {
        let certificates = Certificates::of(&[&listen.ip().to_string()], 4096);
        Self::on(listen, certificates, Server { keys: Some(keys), ..Server::new(Year::Y2026) }).await
    }

    async fn on(listen: SocketAddr, certificates: Certificates, server: Server) -> Self {
        let state = Arc::new(Mutex::new(server));
        let shared = Arc::clone(&state);
        let server = FakeServer::start_on(listen, certificates, move |received| answer(&shared, received)).await;
        Self { server, state }
    }

    pub(crate) fn server(&self) -> MutexGuard<'_, Server> {
        self.state.lock().unwrap()
    }

    /// Lets time pass for tokens, leases and limits.
    pub(crate) fn advance(&self, by: Duration) {
        self.server().later += by;
    }

    /// Method, path and status of what was answered since the last time this was asked.
    pub(crate) fn take_answered(&self) -> Vec<(String, String, u16)> {
        std::mem::take(&mut self.server().answered)
    }
}

impl Deref for FakeInfisical {
    type Target = FakeServer;

    fn deref(&self) -> &FakeServer {
        &self.server
    }
}

// === impl Server ===

impl Server {
    fn new(year: Year) -> Self {
        Self {
            year,
            keys: None,
            later: Duration::ZERO,
            time: None,
            started: None,
            counter: 0,
            limits: BTreeMap::new(),
            windows: BTreeMap::new(),
            has_plan: true,
            logins: logins::Logins::default(),
            projects: BTreeMap::from([(PROJECT.to_owned(), projects::Project::new(PROJECT_SLUG))]),
            dynamics: BTreeMap::new(),
            leases: BTreeMap::new(),
            etags: BTreeMap::new(),
            streams: Vec::new(),
            answered: Vec::new(),
        }
    }

    /// Since 1970, by this server's clock.
    pub(crate) fn now(&self) -> Duration {
        self.time.unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap() + self.later)
    }

    /// Sets the clock: so long after it was first set.
    pub(crate) fn set_time(&mut self, since: Duration) {
        let started = *self.started.get_or_insert_with(|| UNIX_EPOCH.elapsed().unwrap());
        self.time = Some(started + since);
    }

    pub(crate) fn set_limit(&mut self, kind: Limited, a_minute: u64) {
        self.limits.insert(kind, a_minute);
        self.windows.remove(&kind);
    }

    pub(crate) fn set_plan(&mut self, has_plan: bool) {
        self.has_plan = has_plan;
    }

    fn next_id(&mut self) -> String {
        self.counter += 1;
        format!("00000000-0000-4000-8000-{:012}", self.counter)
    }

    fn answer(&mut self, received: &Received) -> Reply {
        let call = Call { received, query: received.params(), body: received.json() };
        let path = received.path.strip_prefix("/api/").unwrap_or_default();
        let components: Vec<_> = path.split('/').map(super::server::decode).collect();
        let components: Vec<_> = components.iter().map(String::as_str).collect();
        let is_old = self.year == Year::Y2024;
        let result = match (received.method.as_str(), components.as_slice()) {
            ("POST", ["v1", "auth", "token", verb @ ("renew" | "revoke")]) => {
                self.limited(Limited::Write, |this| this.change_token(verb, &call))
            }
            ("POST", ["v1", "auth", method, "login"]) => {
                self.limited(Limited::Write, |this| this.log_in(method, &call))
            }
            ("GET", ["v3", "secrets", "raw", rest @ ..]) => self.get_secrets(&call, false, rest),
            ("GET", ["v4", "secrets", rest @ ..]) if !is_old => self.get_secrets(&call, true, rest),
            ("GET", ["v1", "projects", "slug", slug]) if !is_old => self.show_project(&call, slug, false),
            ("GET", ["v1", "projects", id]) if !is_old => self.show_project(&call, id, true),
            ("GET", ["v2", "workspace", slug]) => self.show_project(&call, slug, false),
            ("GET", ["v1", "workspace", id]) => self.show_project(&call, id, true),
            ("POST", ["v1", "dynamic-secrets", "leases"]) => self.make_lease(&call),
            ("POST", ["v1", "dynamic-secrets", "leases", id, "renew"]) => self.renew_lease(&call, id),
            ("DELETE", ["v1", "dynamic-secrets", "leases", id]) => self.end_lease(&call, id),
            ("POST", ["v1", "events", "subscribe", "project-events"]) if !is_old => self.subscribe(&call),
            // The image has the web pages in it, which take what the API does not know.
            _ if is_old => Err(web_page()),
            (method, _) => {
                let message = format!("Route {method}:{} not found", received.path);
                Err(Reply::json(404, &json!({"message": message, "error": "Not Found", "statusCode": 404})))
            }
        };
        let reply = result.unwrap_or_else(|error| error);
        self.answered.push((received.method.to_string(), path.to_owned(), reply.status));
        reply
    }

    /// Counts a request, refuses it if it is one too many, and tells of the limit.
    fn limited(&mut self, kind: Limited, act: impl FnOnce(&mut Self) -> Answer) -> Answer {
        let Some(limit) = self.limits.get(&kind).copied() else { return act(self) };
        let now = self.now();
        let window = self.windows.entry(kind).or_insert(Window { ends: Duration::ZERO, count: 0 });
        if window.ends <= now {
            *window = Window { ends: now + Duration::from_mins(1), count: 0 };
        }
        window.count += 1;
        let remaining = limit.saturating_sub(window.count);
        let (is_over, left) = (window.count > limit, window.ends.saturating_sub(now).as_secs_f64().ceil());
        let tell = |reply: Reply| {
            reply
                .header("x-ratelimit-limit", limit.to_string())
                .header("x-ratelimit-remaining", remaining.to_string())
                .header("x-ratelimit-reset", left.to_string())
        };
        if is_over {
            let message = format!("Rate limit exceeded. Please try again in {left} seconds");
            let reply = match self.year {
                Year::Y2024 => error(500, "InternalServerError", "Something went wrong"),
                _ => error(429, "RateLimitExceeded", &message),
            };
            return Err(tell(reply.header("retry-after", left.to_string())));
        }
        match act(self) {
            Ok(reply) => Ok(tell(reply)),
            Err(reply) => Err(tell(reply)),
        }
    }

    /// What schemas refuse.
    fn invalid(&self, path: &str, message: &str) -> Reply {
        let issues = json!([{"code": "custom", "path": [path], "message": message}]);
        let (status, body) = match self.year {
            Year::Y2024 => (401, json!({"statusCode": 401, "error": "ValidationFailure", "message": issues})),
            _ => (
                422,
                json!({"reqId": "req-canary", "statusCode": 422, "error": "ValidationFailure", "message": issues}),
            ),
        };
        Reply::json(status, &body)
    }
}

impl Call<'_> {
    fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }
}

fn error(status: u16, name: &str, message: &str) -> Reply {
    let body = json!({"reqId": "req-canary", "statusCode": status, "message": message, "error": name});
    Reply::json(status, &body)
}

/// What a server of 2024 shows of a path that it does not know.
fn web_page() -> Reply {
    let page = "<!DOCTYPE html><html><head><title>404: This page could not be found</title></head></html>";
    let headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
    Reply { status: 404, headers, body: Body::from(page) }
}

fn unauthorized(message: &str) -> Reply {
    error(401, "UnauthorizedError", message)
}

fn answer(state: &Shared, received: &Received) -> Reply {
    let reply = state.lock().unwrap().answer(received);
    if reply.status == 304 { Reply { body: Body::empty(), ..reply } } else { reply }
}
