//! Servers: accept, handshake, limits, drain. Knows axum's `Router` and nothing of what it answers.
//!
//! The accept loop only accepts. Whatever a client can be slow at happens in the task of its own connection and has a
//! time-out there, so nobody's silence is somebody else's delay.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use tracing::{debug, error, warn};

use self::body::InFlight;
#[cfg(test)]
pub(crate) use self::limits::WORKERS;
use self::limits::{HEAD, HEADER_LIST, RECORD, STREAMS, TLS_SEND, WINDOW};
pub use self::limits::{Limits, workers};
pub(crate) use self::listener::accept;
use self::listener::{Port, is_no_ipv6, listen};
use self::peers::{Peer, Peers, Seat};

pub mod admin;
mod body;
pub mod clients;
mod exchange;
mod limits;
mod listener;
mod opening;
mod peers;
pub mod readiness;
pub mod tls;

/// A listening socket and how to treat who connects.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
    drain: Drain,
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
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    /// Set for the drain's delay: HTTP/1 clients are asked to come back on another connection.
    leaving: AtomicBool,
    /// Cancelled after the drain's delay.
    close: CancellationToken,
}

// === impl Drain ===

impl Drain {
    /// Stops at once: for servers without a load balancer in front.
    pub const AT_ONCE: Self = Self { delay: Duration::ZERO, deadline: Duration::from_secs(1) };
}

// === impl Server ===

impl Server {
    /// Listens on `address`, over both IPv6 and IPv4 if it is `[::]`.
    pub fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        Self::bind_as(address, Port::Own)
    }

    /// The same beside other processes at the same port: the kernel gives each connection to one that listens, and none to
    /// one that died. They need the same uid.
    pub fn bind_beside(address: SocketAddr) -> Result<Self, ServeError> {
        Self::bind_as(address, Port::Shared)
    }

    fn bind_as(address: SocketAddr, port: Port) -> Result<Self, ServeError> {
        let bound = match listen(address, port) {
            // The usual wildcard on nodes whose kernel has IPv6 switched off.
            Err(cause) if address.is_ipv6() && address.ip().is_unspecified() && is_no_ipv6(&cause) => {
                listen((Ipv4Addr::UNSPECIFIED, address.port()).into(), port)
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
        let peers = Peers::new(limits);
        let mut connections = JoinSet::new();
        let mut leave = pin!(async {
            shutdown.cancelled().await;
            shared.leaving.store(true, Ordering::Relaxed);
            sleep(drain.delay).await;
        });
        {
            let mut next = pin!(next_connection(&listener, &peers));
            loop {
                tokio::select! {
                    biased;
                    () = &mut leave => break,
                    Some(ended) = connections.join_next() => report(ended),
                    (seat, stream) = &mut next => {
                        connections.spawn(serve_connection(Arc::clone(&shared), stream, seat));
                        next.set(next_connection(&listener, &peers));
                    }
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

    /// The same on a thread of its own, which the work of others does not hold up. Over when the receiver hears so, or the
    /// sender is gone.
    pub fn run_apart(
        self,
        name: &str,
        router: Router,
        shutdown: CancellationToken,
    ) -> Result<oneshot::Receiver<()>, ServeError> {
        let address = self.address;
        let failed = |cause| ServeError { address, cause };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let Self { listener, tls, limits, drain, .. } = self;
        let listener = listener.into_std().map_err(failed)?;
        let (over, is_over) = oneshot::channel();
        let run = move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => Self { listener, address, tls, limits, drain }.run(router, shutdown).await,
                    Err(cause) => error!(%address, %cause, "cannot serve"),
                }
            });
            // Nobody waits any more.
            let _ = over.send(());
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(failed)?;
        Ok(is_over)
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection's task failed");
    }
}

/// Waits for a client.
async fn next_connection(listener: &TcpListener, peers: &Arc<Peers>) -> (Seat, TcpStream) {
    let stream = accept(|| listener.accept()).await;
    (peers.enter(), stream)
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, seat: Seat) {
    tokio::select! {
        () = shared.hear(stream, seat.peer()) => {}
        () = seat.peer().told_to_leave() => debug!("a connection made room for another"),
    }
}

// === impl Shared ===

impl Shared {
    fn new(router: Router, tls: Option<Arc<ServerConfig>>, limits: Limits) -> Self {
        // All that is waited for, and how long, is known to the connection's `Peer`: hyper would not count what it is idle
        // for as HTTP/2, and pings would keep it.
        let mut http1 = http1::Builder::new();
        http1.header_read_timeout(None).keep_alive(limits.keep_alive).max_buf_size(HEAD).max_header_size(HEAD);
        // Queued and not copied, an answer is held for as long as it is charged.
        http1.writev(true);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADER_LIST)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(HEAD);
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

    /// A client whose first words are not whole has nothing of ours but its place in the list.
    async fn hear(self: &Arc<Self>, stream: TcpStream, peer: &Arc<Peer>) {
        match timeout(self.limits.handshake, opening::is_whole(&stream, self.tls.is_some())).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return debug!("left before it had asked"),
            Ok(Err(error)) => return debug!(%error, "connection ended"),
            Err(_) => return debug!("no word in time"),
        }
        // However long others take: it is not this client who is slow.
        peer.heard().await;
        // A large future, which silent clients do not have.
        Box::pin(self.greet(stream, peer)).await;
    }

    async fn greet(self: &Arc<Self>, stream: TcpStream, peer: &Arc<Peer>) {
        // Answers are one write each: waiting for more to send only adds delay.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY");
        }
        let service = service_fn(|request| Arc::clone(self).answer(Arc::clone(peer), request));
        let Some(acceptor) = &self.tls else {
            let connection = self.http1.serve_connection(TokioIo::new(stream), service);
            return self.serve(pin!(connection), http1::Connection::graceful_shutdown, peer).await;
        };
        // rustls asks for 4 KiB at a time: a usual request would be two system calls.
        let stream = BufReader::with_capacity(RECORD, stream);
        let greeting = acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(TLS_SEND)));
        let stream = match timeout(self.limits.handshake, greeting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%error, "handshake failed"),
            Err(_) => return debug!("handshake took too long"),
        };
        // ALPN has said which version it is. Guessing it from the first bytes would wait for them.
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(tls::ALPN_HTTP2);
        peer.greeted(is_http2).await;
        let stream = TokioIo::new(stream);
        if is_http2 {
            let connection = self.http2.serve_connection(stream, service);
            self.serve(pin!(connection), http2::Connection::graceful_shutdown, peer).await;
        } else {
            let connection = self.http1.serve_connection(stream, service);
            self.serve(pin!(connection), http1::Connection::graceful_shutdown, peer).await;
        }
    }

    async fn serve<C>(&self, mut connection: Pin<&mut C>, finish: fn(Pin<&mut C>), peer: &Peer)
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut look = pin!(sleep_until(Instant::now()));
        let mut closing = false;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        debug!(%error, "connection ended");
                    }
                    return;
                }
                () = &mut look => match peer.look() {
                    Ok(next) => look.as_mut().reset(next),
                    Err(reason) => return debug!(reason, "cut a connection"),
                },
                () = self.close.cancelled(), if !closing => {
                    finish(connection.as_mut());
                    closing = true;
                }
            }
        }
    }

    async fn answer(
        self: Arc<Self>,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let in_flight = InFlight::begin(&peer);
        let (head, body) = request.into_parts();
        let is_http1 = head.version <= Version::HTTP_11;
        let answered = match in_flight.read(body, self.limits.body).await {
            Ok(body) => {
                let request = Request::from_parts(head, Body::from(body));
                let Ok(answer) = self.router.clone().call(request).await;
                let (head, body) = answer.into_parts();
                // Bodies of ours are in memory, and cannot fail.
                let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                in_flight.answer(bytes).map(|body| Response::from_parts(head, body))
            }
            Err(stop) => Err(stop),
        };
        let is_last = is_http1 && (answered.is_err() || self.leaving.load(Ordering::Relaxed));
        let mut response = answered.unwrap_or_else(|stop| {
            debug!(?stop, "a request was not answered");
            let mut refused = Response::new(Full::default());
            *refused.status_mut() = stop.status();
            refused
        });
        // RFC 9113 §8.2.2 forbids the header in HTTP/2, which says GOAWAY when the connection closes.
        if is_last {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

#[cfg(test)]
pub(crate) mod tests;
