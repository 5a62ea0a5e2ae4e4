use std::sync::Mutex;

use axum::http::StatusCode;
use axum::routing::post;
use bytes::BytesMut;
use futures_util::FutureExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::listener::ACCEPT_PAUSE;
use super::tls::{Served, TlsCredentials, provider, server_config};
use super::*;

mod room;

pub(crate) const HOST: &str = "hushpod.test.svc";

/// TlsCredentials for [`HOST`], and the certificate to trust for them.
pub(crate) fn credentials() -> (TlsCredentials, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate: CertificateDer<'static> =
        CertificateParams::new(vec![HOST.to_owned()]).unwrap().self_signed(&key).unwrap().into();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let certified = CertifiedKey::from_der(vec![certificate.clone()], key, &provider()).unwrap();
    (TlsCredentials::new(certified).unwrap(), certificate)
}

/// A client that trusts `root` alone.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) host: &'static str,
}

impl Client {
    pub(crate) async fn connect(&self, alpn: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        self.connect_by(alpn, &rustls::version::TLS13).await
    }

    async fn connect_by(
        &self,
        alpn: &[u8],
        version: &'static SupportedProtocolVersion,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(self.host).unwrap(), stream).await
    }

    /// One connection that can send any number of requests.
    pub(crate) async fn http1(&self) -> io::Result<http1::SendRequest<Body>> {
        let stream = self.connect(b"http/1.1").await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Status and body of one request on a connection of its own.
    pub(crate) async fn post(&self, body: impl Into<Body>) -> io::Result<(StatusCode, Bytes)> {
        post_on(&mut self.http1().await?, body.into()).await
    }
}

pub(crate) async fn post_on(sender: &mut http1::SendRequest<Body>, body: Body) -> io::Result<(StatusCode, Bytes)> {
    sender.ready().await.map_err(io::Error::other)?;
    let request =
        Request::post("/").header("host", HOST).header("content-type", "application/json").body(body).unwrap();
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    Ok((status, response.into_body().collect().await.map_err(io::Error::other)?.to_bytes()))
}

/// A body that is sent piece by piece.
fn piecemeal() -> (mpsc::Sender<&'static str>, Body) {
    let (sender, mut pieces) = mpsc::channel(1);
    let pieces = futures_util::stream::poll_fn(move |context| {
        pieces
            .poll_recv(context)
            .map(|piece| piece.map(|piece: &str| Ok::<_, Infallible>(Frame::data(Bytes::from(piece)))))
    });
    (sender, Body::new(StreamBody::new(pieces)))
}

/// A server that answers with the length of what it got, and how to stop it.
struct Running {
    client: Client,
    served: Served,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

fn start(limits: Limits, drain: Drain) -> Running {
    start_with(Router::new().route("/", post(async |body: Bytes| body.len().to_string())), limits, drain)
}

fn start_with(router: Router, limits: Limits, drain: Drain) -> Running {
    let (credentials, root) = credentials();
    let served = Served::default();
    served.publish(credentials);
    let bound = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = Client { address: bound.address(), root, host: HOST };
    let bound = bound.with_tls(server_config(&served).unwrap()).with_limits(limits).with_drain(drain);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(bound.run(router, shutdown.clone()));
    Running { client, served, shutdown, server: task }
}

/// Time that moves only when told to. tokio's paused clock moves by itself whenever all tasks wait, also while bytes
/// are on their way through a socket; a blocking task keeps it from that.
pub(crate) struct HandClock {
    _running: std::sync::mpsc::Sender<()>,
}

impl HandClock {
    pub(crate) fn start() -> Self {
        let (running, ended) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || ended.recv());
        tokio::time::pause();
        Self { _running: running }
    }

    pub(crate) async fn pass(&self, seconds: f64) {
        Self::turns().await;
        tokio::time::advance(Duration::from_secs_f64(seconds)).await;
        Self::turns().await;
    }

    /// Passes time in small steps until the task is over; says how many seconds went by.
    pub(crate) async fn until_finished<T>(&self, task: &JoinHandle<T>) -> f64 {
        let start = Instant::now();
        while !task.is_finished() {
            self.pass(0.1).await;
            assert!(start.elapsed() < Duration::from_secs(1000), "never ends");
        }
        start.elapsed().as_secs_f64()
    }

    /// Lets every task do what it can, and set its timers by the present time.
    async fn turns() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

async fn read_to_close(stream: &mut (impl AsyncRead + Unpin)) {
    while !matches!(stream.read_buf(&mut BytesMut::with_capacity(1024)).await, Ok(0) | Err(_)) {}
}

/// A whole exchange, after which the server has done what was due before: it serves all from one thread, in turn.
async fn settle(client: &Client) {
    for _ in 0..2 {
        assert_eq!(client.post("x").await.unwrap().0, StatusCode::OK);
    }
}

/// Cut once `seconds` have passed, and not before. Passes the time.
async fn assert_cut_after(seconds: f64, clock: &HandClock, client: &Client, stream: &mut (impl AsyncRead + Unpin)) {
    settle(client).await;
    clock.pass(seconds - 0.5).await;
    settle(client).await;
    assert!(read_to_close(stream).now_or_never().is_none(), "cut too early");
    clock.pass(1.0).await;
    for _ in 0..10 {
        if read_to_close(stream).now_or_never().is_some() {
            return;
        }
        settle(client).await;
    }
    panic!("never cut");
}

#[tokio::test]
async fn key_exchange_is_post_quantum_and_both_http_versions_are_offered() {
    let Running { client, .. } = start(Limits::default(), Drain::AT_ONCE);
    let stream = client.connect(b"h2").await.unwrap();
    let (_, tls) = stream.get_ref();
    assert_eq!(tls.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(tls.alpn_protocol(), Some(&b"h2"[..]));

    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("https://{HOST}/")).body(Full::new(Bytes::from("1234"))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "4");

    assert_eq!(client.post("12345").await.unwrap(), (StatusCode::OK, Bytes::from("5")));
    let old = client.connect_by(b"http/1.1", &rustls::version::TLS12).await.unwrap();
    assert_eq!(old.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
}

#[tokio::test]
async fn silent_clients_hold_up_nobody_and_are_cut() {
    let clock = HandClock::start();
    let Running { client, .. } = start(Limits::default(), Drain::AT_ONCE);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(client.address).await.unwrap());
    }
    let mut handshaken = client.connect(b"http/1.1").await.unwrap();
    let mut handshaken_http2 = client.connect(b"h2").await.unwrap();
    assert_cut_after(5.0, &clock, &client, &mut silent[0]).await;
    for stream in &mut silent {
        read_to_close(stream).await;
    }
    read_to_close(&mut handshaken).await;
    read_to_close(&mut handshaken_http2).await;
}

#[tokio::test]
async fn slow_heads_are_cut() {
    let clock = HandClock::start();
    let Running { client, .. } = start(Limits::default(), Drain::AT_ONCE);
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n";

    let mut first = client.connect(b"http/1.1").await.unwrap();
    first.write_all(head).await.unwrap();
    assert_cut_after(5.0, &clock, &client, &mut first).await;

    let mut second = client.connect(b"http/1.1").await.unwrap();
    second.write_all(&[&head[..], b"\r\nx"].concat()).await.unwrap();
    let mut answer = BytesMut::with_capacity(1024);
    second.read_buf(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{answer:?}");
    second.write_all(head).await.unwrap();
    // As long as an idle connection.
    assert_cut_after(120.0, &clock, &client, &mut second).await;
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let limits = Limits { body: 1000, ..Limits::default() };
    let router = Router::new()
        .route("/", post(async |body: Bytes| body.len().to_string()))
        .layer(axum::extract::DefaultBodyLimit::disable());
    let Running { client, .. } = start_with(router, limits, Drain::AT_ONCE);
    assert_eq!(client.post(vec![b'x'; 1000]).await.unwrap(), (StatusCode::OK, Bytes::from("1000")));
    assert_eq!(client.post(vec![b'x'; 1001]).await.unwrap().0, StatusCode::PAYLOAD_TOO_LARGE);
    // Without a length in its head, and without an end.
    let (sender, body) = piecemeal();
    let request = tokio::spawn(async move { client.post(body).await.unwrap().0 });
    for _ in 0..101 {
        sender.send("0123456789").await.unwrap();
    }
    assert_eq!(request.await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn drain_finishes_what_is_in_flight_and_refuses_the_rest() {
    let clock = HandClock::start();
    let drain = Drain { delay: Duration::from_secs(5), deadline: Duration::from_secs(10) };
    let Running { client, shutdown, server, .. } = start(Limits::default(), drain);
    let mut idle = client.http1().await.unwrap();
    post_on(&mut idle, Body::empty()).await.unwrap();
    shutdown.cancel();
    settle(&client).await;

    // While others take notice, everything goes on, but HTTP/1 clients are asked to leave.
    clock.pass(4.5).await;
    let (sender, body) = piecemeal();
    sender.send("123").await.unwrap();
    let in_flight = tokio::spawn({
        let client = client.clone();
        async move { client.post(body).await }
    });
    let mut during = client.http1().await.unwrap();
    let request = Request::post("/").header("host", HOST).body(Body::empty()).unwrap();
    let response = during.send_request(request).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["connection"]),
        (StatusCode::OK, &HeaderValue::from_static("close"))
    );

    clock.pass(1.0).await;
    // Idle connections are closed, which is after the listener is gone.
    for _ in 0..1000 {
        HandClock::turns().await;
    }
    assert!(idle.is_closed());
    assert!(TcpStream::connect(client.address).await.is_err(), "nobody listens any more");
    assert!(!server.is_finished(), "waits for the request in flight");
    sender.send("45").await.unwrap();
    drop(sender);
    assert_eq!(in_flight.await.unwrap().unwrap(), (StatusCode::OK, Bytes::from("5")));
    server.await.unwrap();
}

#[tokio::test]
async fn drain_has_a_deadline() {
    let clock = HandClock::start();
    let (started, mut is_started) = mpsc::channel(1);
    let router = Router::new().route(
        "/",
        post(async move || {
            started.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }),
    );
    let limits = Limits { request: Duration::from_hours(1), ..Limits::default() };
    let drain = Drain { delay: Duration::from_secs(5), deadline: Duration::from_secs(10) };
    let Running { client, shutdown, server, .. } = start_with(router, limits, drain);
    let request = tokio::spawn(async move { client.post("x").await });
    is_started.recv().await.unwrap();
    shutdown.cancel();
    let took = clock.until_finished(&server).await;
    assert!((15.0..15.5).contains(&took), "{took}");
    server.await.unwrap();
    assert!(request.await.unwrap().is_err());
}

#[tokio::test]
async fn next_handshake_gets_what_was_published_last() {
    let Running { client, served, .. } = start(Limits::default(), Drain::AT_ONCE);
    let mut before = client.http1().await.unwrap();
    let (other, root) = credentials();
    served.publish(other);
    assert!(client.connect(b"h2").await.is_err(), "the old certificate is gone");
    let renewed = Client { root, ..client };
    assert!(renewed.connect(b"h2").await.is_ok());
    assert_eq!(post_on(&mut before, Body::empty()).await.unwrap().0, StatusCode::OK, "connections live on");
}

#[tokio::test(start_paused = true)]
async fn failing_accept_does_not_spin_and_recovers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    // What a process without free descriptors gets, and what a client causes that left.
    let emfile = rustix::io::Errno::MFILE.raw_os_error();
    for (errno, failures, expected) in
        [(emfile, 50, ACCEPT_PAUSE * 50), (rustix::io::Errno::CONNABORTED.raw_os_error(), 50, Duration::ZERO)]
    {
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let left = Mutex::new(failures);
        let next = async || {
            let fails = {
                let mut left = left.lock().unwrap();
                *left -= 1;
                *left >= 0
            };
            if fails { Err(io::Error::from_raw_os_error(errno)) } else { listener.accept().await }
        };
        let start = Instant::now();
        accept(next).await;
        assert_eq!((start.elapsed().as_millis(), *left.lock().unwrap()), (expected.as_millis(), -1));
    }
}

#[tokio::test]
async fn listens_on_both_families() {
    let server = Server::bind("[::]:0".parse().unwrap()).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", server.address().port())).await.is_ok());
    let taken = Server::bind(server.address()).unwrap_err().to_string();
    assert!(taken.starts_with("cannot listen on [::]:"), "{taken}");
}
