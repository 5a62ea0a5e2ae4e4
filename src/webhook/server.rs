//! The webhook's server: HTTP in front of a pure decision, TLS that it manages itself or reads from a directory.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::answer::{Answer, Outcome, Reviewer};
use super::certificate::CertificateError;
use super::registration::{RenewalClock, SelfManaged};
use super::trust::TrustReport;
use crate::cluster::namespaces::Namespaces;
use crate::cluster::{self, ClusterError};
use crate::contract::MUTATE_PATH;
use crate::process::watch::{Watch, WatchError};
use crate::serve::clients::ClientAuthorities;
use crate::serve::readiness::{Guard, Readiness};
use crate::serve::tls::{self, Served, TlsError};
use crate::serve::{Drain, Limits, ServeError, Server, admin};

pub use super::certificate::{Issued, Names, issue};
pub use super::metrics::Metrics;
pub use super::mutate::Injector;
pub use super::reload::reviewer;
pub use super::trial::{Trial, TrialError};

/// How long requests in flight have when the drain's delay is over: longer than any `timeoutSeconds` of ours.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How the webhook runs.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Where kube-apiserver calls.
    pub listen: SocketAddr,
    /// Where kubelet and Prometheus call.
    pub admin: SocketAddr,
    /// A directory with `tls.crt` and `tls.key`; `None` makes own certificates.
    pub tls_dir: Option<PathBuf>,
    /// Whom own certificates are for.
    pub names: Names,
    /// This pod's UID, of which its events are.
    pub pod_uid: Option<String>,
    /// The `MutatingWebhookConfiguration` that has to trust them.
    pub configuration: String,
    /// A PEM file of authorities: a client without a certificate of theirs is not heard. `None` hears every client.
    pub client_ca: Option<PathBuf>,
    /// What rules may ask of namespaces.
    pub namespaces: Namespaces,
    /// How to reach the API server from elsewhere; `None` in the cluster.
    pub kubeconfig: Option<PathBuf>,
    /// How long to go on serving after SIGTERM while not ready: at least [`WebhookSettings::LEAST_DRAIN_DELAY`].
    pub drain_delay: Duration,
}

/// Why the webhook ended.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// A port is not to be had.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The directory of `--tls-dir` cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// No certificate of our own.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There is no way to the API server.
    #[error(transparent)]
    Kubernetes(#[from] ClusterError),
    /// A part that should run for ever did not.
    #[error("a part of the webhook failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Where it serves.
enum Front {
    /// At a port of its own, at once: a port that is not to be had is told before anything else is begun.
    Own(Box<Server>),
    /// At a port that others of this pod have, too, once it is ready: whom the kernel sends here before could not trust it,
    /// and the others would have served them.
    Shared(SocketAddr),
}

/// A decision needs the labels of this namespace.
struct UnknownNamespace(String);

struct AdmissionState {
    review: Reviewer,
    metrics: Metrics,
    namespaces: Namespaces,
    large: Arc<Semaphore>,
}

/// Bytes of a request that is decided where it is; larger ones are decided one after the other, on a thread of their own,
/// so they hold up each other alone.
const SMALL: usize = 32 * 1024;

/// Bytes that the review of a small request may take beside it. Worst are objects of one field: seven bytes on the wire
/// become a node of a B-tree, of 640.
pub const SMALL_REVIEW: usize = 4 << 20;
/// Bytes that the review of any request may take beside it: 25,000 such objects, and a copy of each text.
pub const LARGE_REVIEW: usize = 22 << 20;
/// Large requests that are decided at once.
pub const LARGE_REVIEWS: usize = 1;

/// `POST /mutate`. Oversize bodies are refused by the server's limit ([`crate::serve::Limits::body`]).
pub fn router(review: Reviewer, metrics: Metrics, namespaces: Namespaces) -> Router {
    Router::new().route(MUTATE_PATH, post(mutate)).layer(DefaultBodyLimit::disable()).with_state(Arc::new(
        AdmissionState { review, metrics, namespaces, large: Arc::new(Semaphore::new(LARGE_REVIEWS)) },
    ))
}

async fn mutate(
    State(admission): State<Arc<AdmissionState>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response<Body> {
    if !is_json(&headers) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json\n").into_response();
    }
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return rejection.into_response(),
    };
    let start = Instant::now();
    let in_flight = admission.metrics.begin();
    let mut decided = decide(&admission, &body, start, false).await;
    if let Err(UnknownNamespace(namespace)) = decided {
        // Known then or not, the second answer is the last.
        admission.namespaces.look(&namespace).await;
        decided = decide(&admission, &body, start, true).await;
    }
    drop(in_flight);
    decided.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The answer to a request whose last byte came at `start`; or, unless it is the last, the namespace whose labels it
/// wants.
async fn decide(
    admission: &Arc<AdmissionState>,
    body: &Bytes,
    start: Instant,
    is_last: bool,
) -> Result<Response<Body>, UnknownNamespace> {
    if body.len() <= SMALL {
        return admission.answer(body, start, is_last);
    }
    // Never closed, so there always is one in time.
    let permit = Arc::clone(&admission.large).acquire_owned().await;
    let (admission, body) = (Arc::clone(admission), body.clone());
    let decided = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        admission.answer(&body, start, is_last)
    });
    decided.await.unwrap_or_else(|_| Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = |value: &HeaderValue| {
        let value = value.to_str().ok()?;
        Some(value.split(';').next()?.trim().eq_ignore_ascii_case("application/json"))
    };
    headers.get(header::CONTENT_TYPE).and_then(essence).unwrap_or(false)
}

/// Runs the webhook until `shutdown` is cancelled and the drain is over.
///
/// `readiness` may be blocked by the caller too, until there is a configuration to decide by.
pub async fn run(
    settings: WebhookSettings,
    review: Reviewer,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> Result<(), WebhookError> {
    let WebhookSettings { listen, admin, client_ca, drain_delay, .. } = &settings;
    let certificate = Served::default();
    metrics.show_expiry(certificate.clone());
    let drain = Drain { delay: (*drain_delay).max(WebhookSettings::LEAST_DRAIN_DELAY), deadline: DRAIN_DEADLINE };
    let clients = client_ca.as_deref().map(ClientAuthorities::open).transpose()?;
    let tls = match &clients {
        Some(clients) => tls::server_config_for(&certificate, Arc::new(clients.clone()))?,
        None => tls::server_config(&certificate)?,
    };
    let front = match settings.names.container {
        None => Front::Own(Box::new(Server::bind(*listen)?)),
        Some(_) => Front::Shared(*listen),
    };
    let admin = Server::bind(*admin)?.with_limits(Limits::ADMIN);
    info!(address = %front, admin = %admin.address(), "webhook listens");

    let router = router(review, metrics.clone(), settings.namespaces.clone());
    let probes = admin::router(readiness.clone(), metrics.registry().clone());
    let mut parts = parts(settings, clients, certificate, &metrics, &readiness).await?;
    // kubelet must be able to ask until the end, and whatever is being decided.
    let all_served = CancellationToken::new();
    let admin_over = admin.run_apart("admin", probes, all_served.clone())?;
    let leave = CancellationToken::new();
    let begin_drain = async {
        shutdown.cancelled().await;
        readiness.begin_drain();
        leave.cancel();
        Ok::<_, WebhookError>(())
    };
    let serve = async {
        if let Some(server) = front.server(&readiness, &leave).await? {
            server.with_tls(tls).with_drain(drain).run(router, leave.clone()).await;
        }
        Ok(())
    };
    tokio::select! {
        served = async { tokio::try_join!(begin_drain, serve) } => {
            let ((), ()) = served?;
        }
        Some(ended) = parts.join_next() => match ended? { Ok(never) => match never {}, Err(error) => return Err(error) },
    }
    all_served.cancel();
    // It has said all that it had to say, or is gone.
    let _ = admin_over.await;
    Ok(())
}

/// What goes on beside the answers, for ever: who may ask, and the certificate, of which `certificate` is served.
async fn parts(
    settings: WebhookSettings,
    clients: Option<ClientAuthorities>,
    certificate: Served,
    metrics: &Metrics,
    readiness: &Readiness,
) -> Result<JoinSet<Result<Infallible, WebhookError>>, WebhookError> {
    let WebhookSettings { tls_dir, names, pod_uid, configuration, kubeconfig, .. } = settings;
    let mut parts = JoinSet::new();
    if let Some(clients) = clients {
        let directory = clients.path().parent().filter(|parent| !parent.as_os_str().is_empty());
        let watch = Watch::directory(directory.unwrap_or(Path::new(".")))?;
        parts.spawn(async move { Ok(follow_clients(&clients, watch).await) });
    }
    if let Some(directory) = tls_dir {
        let watch = Watch::directory(&directory)?;
        let waiting = readiness.block("certificate in the TLS directory");
        parts.spawn(async move { Ok(follow(&directory, watch, certificate, waiting).await) });
    } else {
        let client = cluster::client(kubeconfig.as_deref()).await?;
        let (report, send) = TrustReport::of_pod(client.clone(), &names, pod_uid, metrics.registry());
        let own = SelfManaged::new(names, configuration, certificate, readiness.clone(), RenewalClock::default());
        let own = own.reporting_to(report);
        parts.spawn(async move {
            tokio::select! { never = own.run(client) => Ok(never?), () = send => pending().await }
        });
    }
    Ok(parts)
}

/// Hears the clients of whatever authorities the file names.
async fn follow_clients(clients: &ClientAuthorities, mut watch: Watch) -> Infallible {
    loop {
        watch.changed().await;
        match clients.reload() {
            Ok(true) => info!(path = %clients.path().display(), "clients are verified by other authorities"),
            Ok(false) => {}
            Err(error) => warn!(%error, "keeping the last authorities of clients"),
        }
    }
}

/// Serves what the directory holds, now and whenever it changes. What cannot be used is logged, and the last good
/// certificate stays.
async fn follow(directory: &Path, mut watch: Watch, served: Served, waiting: Guard) -> Infallible {
    let mut waiting = Some(waiting);
    let mut last = None;
    loop {
        match tls::load(directory).await {
            Ok(credentials) if last.as_ref() == Some(&credentials) => {}
            Ok(credentials) => {
                info!(directory = %directory.display(), ?credentials, "serving the certificate of the directory");
                served.publish(credentials.clone());
                last = Some(credentials);
                waiting = None;
            }
            Err(error) if waiting.is_some() => warn!(%error, "no certificate to serve yet"),
            Err(error) => warn!(%error, "cannot serve the new certificate, keeping the last one"),
        }
        watch.changed().await;
    }
}

// === impl Front ===

impl Front {
    /// `None` if it is told to leave before it could serve.
    async fn server(self, readiness: &Readiness, leave: &CancellationToken) -> Result<Option<Server>, ServeError> {
        match self {
            Self::Own(server) => Ok(Some(*server)),
            Self::Shared(address) => tokio::select! {
                () = readiness.ready() => Server::bind_beside(address).map(Some),
                () = leave.cancelled() => Ok(None),
            },
        }
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(server) => server.address().fmt(f),
            Self::Shared(address) => write!(f, "{address}, once it is ready"),
        }
    }
}

// === impl WebhookSettings ===

impl WebhookSettings {
    /// Until every node has heard that this replica is not ready, requests still come.
    pub const LEAST_DRAIN_DELAY: Duration = Duration::from_secs(5);
}

// === impl AdmissionState ===

impl AdmissionState {
    /// Decides on a request whose last byte came at `start`.
    fn answer(&self, request: &[u8], start: Instant, is_last: bool) -> Result<Response<Body>, UnknownNamespace> {
        // A panic is a fault of ours: the API server denies the pod (fail closed), all other requests go on.
        let answer = catch_unwind(AssertUnwindSafe(|| (self.review)(request)));
        if let Ok(Answer { unknown_namespace: Some(namespace), .. }) = &answer
            && !is_last
        {
            return Err(UnknownNamespace(namespace.clone()));
        }
        let (outcome, reason) =
            answer.as_ref().map_or((Outcome::Error, None), |answer| (answer.outcome, answer.reason));
        self.metrics.count(outcome, reason, start.elapsed());
        let Ok(Answer { body, .. }) = answer else {
            error!("the review of a request panicked");
            return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        };
        Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
    }
}

#[cfg(test)]
mod tests;
