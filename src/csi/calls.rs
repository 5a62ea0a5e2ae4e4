//! Where kubelet calls: gRPC over HTTP/2 at a socket that root alone may open. kubelet makes a connection for each call,
//! some three for each volume a minute, so what a connection costs is most of what the driver costs.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll};
use std::{fs, io};

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tracing::debug;

use super::node::{IdentityService, NodeService};
use super::proto::csi::identity_server::{IdentityServer, SERVICE_NAME as IDENTITY};
use super::proto::csi::node_server::NodeServer;
use super::sole::OwnSocket;
use crate::serve::accept;

/// Calls at a time on a connection: kubelet makes one.
const CALLS: u32 = 512;
/// Bytes of a call: attributes that make the longest plan, and tokens, take half as many.
pub(super) const CALL_BYTES: usize = 512 * 1024;
/// Bytes of a call's headers.
const HEADERS: u32 = 16 * 1024;
/// Bytes that kubelet may send ahead of being read: the least that RFC 9113 §6.9.2 lets a connection start with.
const WINDOW: u32 = 65_535;

/// A socket that others may call at.
pub(super) struct CallSocket {
    listener: UnixListener,
    made: OwnSocket,
}

/// The two services at the driver's socket.
#[derive(Clone)]
pub(super) struct CsiServices {
    identity: IdentityServer<IdentityService>,
    node: NodeServer<NodeService>,
}

// === impl CsiServices ===

impl CsiServices {
    pub(super) fn new(node: NodeService) -> Self {
        let node = NodeServer::new(node).max_decoding_message_size(CALL_BYTES);
        Self { identity: IdentityServer::new(IdentityService), node }
    }
}

impl Service<Request<Incoming>> for CsiServices {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split('/').next());
        match service {
            Some(IDENTITY) => self.identity.call(request),
            // It says of all others that there are no such ones.
            _ => self.node.call(request),
        }
    }
}

// === impl CallSocket ===

impl CallSocket {
    /// Makes the socket, in place of what an earlier process left.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let listener = UnixListener::bind(path)?;
        let made = OwnSocket::at(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, made })
    }

    /// Answers until `shutdown` is cancelled and calls that had begun are over. The socket in the file system stays. A task
    /// of its own, so a connection wakes nothing else.
    pub(super) fn serve<S>(self, service: S, shutdown: CancellationToken) -> (JoinHandle<()>, OwnSocket)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let Self { listener, made } = self;
        let serving = async move {
            let connections = TaskTracker::new();
            while let Some(stream) = shutdown.run_until_cancelled(accept(|| listener.accept())).await {
                connections.spawn(answer(stream, service.clone(), shutdown.clone()));
            }
            connections.close();
            connections.wait().await;
        };
        (tokio::spawn(serving), made)
    }
}

async fn answer<S>(stream: UnixStream, service: S, shutdown: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let service = service_fn(move |request| service.clone().call(request));
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .auto_date_header(false)
            .max_concurrent_streams(CALLS)
            .max_header_list_size(HEADERS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = if let Some(ended) = shutdown.run_until_cancelled(connection.as_mut()).await {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    if let Err(error) = ended {
        debug!(%error, "a connection of kubelet ended");
    }
}
