//! Servers: accept, handshake, limits, drain. Knows axum's `Router` and nothing of what it answers.
//!
//! The accept loop only accepts. Whatever a client can be slow at happens in the task of its own connection and has a
//! time-out there, so that nobody's silence is somebody else's delay.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use tracing::{debug, error, warn};

pub mod admin;
pub mod metrics;
pub mod readiness;
pub mod tls;

/// How long to leave `accept` alone after the kernel refused: long enough not to spin, too short for a client to mind.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The largest record of TLS, with its header (RFC 8446 §5.2).
const RECORD: usize = 5 + (1 << 14) + 256;

/// HTTP/2 clients that do not answer a ping for this long are gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// A listening socket and how to treat who connects.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
    drain: Drain,
}

/// What one client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// From the handshake to the end of the first request's head.
    pub first_request: Duration,
    /// From a response to the end of the next request's head. Longer than kube-apiserver keeps idle connections
    /// (90 s, `SetTransportDefaults` in apimachinery), so that it is never we who close one just as it is used.
    pub idle: Duration,
    /// From a request's head to its response, its body included.
    pub request: Duration,
    /// Bytes of a request's body.
    pub body: usize,
    /// Open connections; more wait in the kernel's queue.
    pub connections: usize,
}

/// How to stop.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// How long to go on accepting after the token was cancelled, while load balancers take notice.
    pub delay: Duration,
    /// How long requests in flight have after that.
    pub deadline: Duration,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct ServeError {
    /// Where it was to listen.
    pub address: SocketAddr,
    #[source]
    cause: io::Error,
}

/// What every connection's task needs.
struct Shared {
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
    /// Set for the drain's delay: HTTP/1 clients are asked to come back on another connection.
    leaving: AtomicBool,
    /// Cancelled after the drain's delay.
    close: CancellationToken,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            idle: Duration::from_mins(2),
            request: Duration::from_secs(10),
            body: 3 * 1024 * 1024,
            connections: 1024,
        }
    }
}

// === impl Drain ===

impl Drain {
    /// Stops at once: for servers that nobody balances load to.
    pub const AT_ONCE: Self = Self { delay: Duration::ZERO, deadline: Duration::from_secs(1) };
}

// === impl Server ===

impl Server {
    /// Listens on `address`, over both IPv6 and IPv4 if it is `[::]`.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let bound = match TcpListener::bind(address).await {
            // The usual wildcard on nodes whose kernel has IPv6 switched off.
            Err(cause) if address.is_ipv6() && address.ip().is_unspecified() && is_no_ipv6(&cause) => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
            }
            bound => bound,
        };
        let started = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = started.map_err(|cause| ServeError { address, cause })?;
        Ok(Self { listener, address, tls: None, limits: Limits::default(), drain: Drain::AT_ONCE })
    }

    /// Speaks TLS, and nothing else.
    #[must_use]
    pub fn with_tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Replaces the default limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Replaces [`Drain::AT_ONCE`].
    #[must_use]
    pub fn with_drain(mut self, drain: Drain) -> Self {
        self.drain = drain;
        self
    }

    /// Where it listens; the port that the kernel chose, if it was asked to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled and the drain is over.
    pub async fn run(self, router: Router, shutdown: CancellationToken) {
        let Self { listener, address, tls, limits, drain } = self;
        let shared = Arc::new(Shared::new(router, tls, limits));
        let slots = Arc::new(Semaphore::new(limits.connections));
        let mut connections = JoinSet::new();
        let mut leave = pin!(async {
            shutdown.cancelled().await;
            shared.leaving.store(true, Ordering::Relaxed);
            sleep(drain.delay).await;
        });
        loop {
            tokio::select! {
                biased;
                () = &mut leave => break,
                Some(ended) = connections.join_next() => report(ended),
                (slot, stream) = next_connection(&slots, || listener.accept()) => {
                    connections.spawn(serve_connection(Arc::clone(&shared), stream, slot));
                }
            }
        }
        drop(listener);
        shared.close.cancel();
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if timeout(drain.deadline, drained).await.is_err() {
            warn!(%address, connections = connections.len(), "cut connections that outlasted the drain");
            connections.shutdown().await;
        }
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection's task failed");
    }
}

/// Waits for a free slot, then for a client. Errors of `accept` end here: whatever they are, later clients want in.
async fn next_connection<F, Accepted>(
    slots: &Arc<Semaphore>,
    mut accept: F,
) -> (Option<OwnedSemaphorePermit>, TcpStream)
where
    F: FnMut() -> Accepted,
    Accepted: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
{
    // The semaphore is never closed, so there always is a permit.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    let mut failed = false;
    loop {
        match accept().await {
            Ok((stream, _)) => return (slot, stream),
            // accept(2): the client left before its turn, or the network told of an earlier failure.
            Err(cause) if is_of_client(&cause) => debug!(%cause, "a client left before it was accepted"),
            // Out of descriptors or memory: the waiting client stays readable, so accepting at once would spin.
            Err(cause) => {
                if !failed {
                    error!(%cause, "cannot accept connections, trying again");
                }
                failed = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_client(cause: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        cause.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, _slot: Option<OwnedSemaphorePermit>) {
    // Answers are one write each: waiting for more to send only adds delay.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY");
    }
    let Some(acceptor) = &shared.tls else {
        return shared.serve(stream, &shared.http1).await;
    };
    // rustls asks for 4 KiB at a time: a usual request would be two system calls.
    let stream = BufReader::with_capacity(RECORD, stream);
    match timeout(shared.limits.handshake, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(tls::ALPN_HTTP2);
            shared.serve(stream, if is_http2 { &shared.http2 } else { &shared.http1 }).await;
        }
        Ok(Err(error)) => debug!(%error, "handshake failed"),
        Err(_) => debug!("handshake took too long"),
    }
}

// === impl Shared ===

impl Shared {
    fn new(router: Router, tls: Option<Arc<ServerConfig>>, limits: Limits) -> Self {
        // ALPN has said which version it is. Guessing it from the first bytes would wait for them without a limit.
        let mut http1 = auto::Builder::new(TokioExecutor::new()).http1_only();
        http1.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle);
        let mut http2 = auto::Builder::new(TokioExecutor::new()).http2_only();
        http2
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(256);
        Self {
            router,
            tls: tls.map(TlsAcceptor::from),
            limits,
            http1,
            http2,
            leaving: AtomicBool::new(false),
            close: CancellationToken::new(),
        }
    }

    async fn serve<I>(self: &Arc<Self>, stream: I, http: &auto::Builder<TokioExecutor>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            Arc::clone(self).answer(request)
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let mut first_request = pin!(sleep(self.limits.first_request));
        let (mut waits_for_first, mut closing) = (true, false);
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        debug!(%error, "connection ended");
                    }
                    return;
                }
                () = &mut first_request, if waits_for_first => {
                    if !asked.load(Ordering::Relaxed) {
                        return debug!("no request in time");
                    }
                    waits_for_first = false;
                }
                () = self.close.cancelled(), if !closing => {
                    connection.as_mut().graceful_shutdown();
                    closing = true;
                }
            }
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let is_http1 = request.version() <= Version::HTTP_11;
        let request = request.map(|body| Body::new(Limited::new(body, self.limits.body)));
        let mut response = match timeout(self.limits.request, self.router.clone().call(request)).await {
            Ok(Ok(response)) => response,
            Err(_) => status(StatusCode::REQUEST_TIMEOUT),
        };
        // RFC 9113 §8.2.2 forbids the header in HTTP/2, which says GOAWAY when the connection closes.
        if is_http1 && self.leaving.load(Ordering::Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

#[cfg(test)]
pub(crate) mod tests;
