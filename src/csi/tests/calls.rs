//! What kubelet calls, over a socket.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::tempdir;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::service_fn;

use super::node::Node;
use crate::csi::calls::{CALL_BYTES, CallSocket, CsiServices};
use crate::csi::node::NodeService;

async fn connect(socket: &Path) -> SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(UnixStream::connect(socket).await.unwrap());
    let (sender, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// What becomes of a call with so many bytes of a message.
async fn call(sender: &mut SendRequest<Full<Bytes>>, method: &str, bytes: usize) -> Code {
    let mut body = vec![0];
    body.extend(u32::try_from(bytes).unwrap().to_be_bytes());
    // Fields that nobody knows: number 100, of eight bytes.
    body.extend([0xa1, 0x06, 0, 0, 0, 0, 0, 0, 0, 0].iter().cycle().take(bytes));
    let request = Request::post(format!("http://localhost/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let response = sender.send_request(request.body(Full::from(body)).unwrap()).await.unwrap();
    let head = response.headers().clone();
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned();
    let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")).or(head.get("grpc-status"));
    Code::from_bytes(status.unwrap().as_bytes())
}

#[tokio::test]
async fn each_call_comes_to_its_service() {
    let (node, dir) = (Node::new(), tempdir().unwrap());
    let life = node.start();
    let path = dir.path().join("csi.sock");
    // Of an earlier process.
    drop(UnixListener::bind(&path).unwrap());
    let socket = CallSocket::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let services = CsiServices::new(NodeService { driver: Arc::clone(&life.driver), node: "node-1".to_owned() });
    let shutdown = CancellationToken::new();
    let (serving, _) = socket.serve(services, shutdown.clone());
    let mut sender = connect(&path).await;
    for (method, bytes, expected) in [
        ("csi.v1.Identity/GetPluginInfo", 0, Code::Ok),
        ("csi.v1.Identity/GetPluginCapabilities", 0, Code::Ok),
        ("csi.v1.Identity/Probe", 0, Code::Ok),
        ("csi.v1.Identity/Other", 0, Code::Unimplemented),
        ("csi.v1.Node/NodeGetCapabilities", 0, Code::Ok),
        ("csi.v1.Node/NodeGetInfo", 0, Code::Ok),
        ("csi.v1.Node/NodePublishVolume", 0, Code::InvalidArgument),
        ("csi.v1.Node/NodePublishVolume", CALL_BYTES / 10 * 10, Code::InvalidArgument),
        ("csi.v1.Node/NodePublishVolume", CALL_BYTES / 10 * 10 + 10, Code::OutOfRange),
        ("csi.v1.Node/NodeUnpublishVolume", 0, Code::InvalidArgument),
        ("csi.v1.Node/NodeStageVolume", 0, Code::Unimplemented),
        ("csi.v1.Controller/CreateVolume", 0, Code::Unimplemented),
        ("", 0, Code::Unimplemented),
    ] {
        assert_eq!(call(&mut sender, method, bytes).await, expected, "{method} with {bytes} bytes");
        // As kubelet does: one connection for each call.
        assert_eq!(call(&mut connect(&path).await, method, bytes).await, expected, "{method} with {bytes} bytes");
    }
    // The connection stays, with nothing to do.
    shutdown.cancel();
    timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_has_begun_is_answered_though_the_driver_ends() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let (begun, mut has_begun) = tokio::sync::mpsc::channel(1);
    let service = service_fn(move |_: Request<Incoming>| {
        let begun = begun.clone();
        async move {
            begun.send(()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            let answer = Response::builder().header("grpc-status", "10").body(Body::empty());
            Ok::<_, Infallible>(answer.unwrap())
        }
    });
    let shutdown = CancellationToken::new();
    let (serving, _) = CallSocket::bind(&path).unwrap().serve(service, shutdown.clone());
    let mut sender = connect(&path).await;
    let calling = tokio::spawn(async move { call(&mut sender, "csi.v1.Node/NodePublishVolume", 0).await });
    has_begun.recv().await.unwrap();
    shutdown.cancel();
    assert_eq!(calling.await.unwrap(), Code::Aborted);
    timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
}
