//! Who is let in, who has to leave, and what is charged: each limit at its edge.

use std::sync::atomic::AtomicUsize;

use tokio::sync::Notify;

use super::*;
use crate::metrics::Registry;
use crate::metrics::catalogue::STORE_REQUESTS;
use crate::serve::admin;
use crate::serve::limits::{GRACE, LEAST_RATE, OPENING, PATIENCE};
use crate::serve::readiness::Readiness;

/// Bytes that are left free of what one connection may hold, so numbers are small.
fn limits() -> Limits {
    Limits { body: 3000, own: 1000, shared: 2000, ..Limits::default() }
}

fn lengths() -> Router {
    let length = async |body: Bytes| body.len().to_string();
    Router::new().route("/", post(length)).layer(axum::extract::DefaultBodyLimit::disable())
}

/// An HTTP/1 connection by hand, whose requests are as complete as the test wants.
async fn raw(client: &Client, text: &[u8]) -> TlsStream<TcpStream> {
    let mut stream = client.connect(b"http/1.1").await.unwrap();
    stream.write_all(text).await.unwrap();
    stream
}

fn head(length: usize) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {length}\r\n\r\n").into_bytes()
}

/// The status of the next answer.
async fn status_of(stream: &mut TlsStream<TcpStream>) -> u16 {
    let mut answer = BytesMut::with_capacity(1024);
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed after {answer:?}");
    }
    std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
}

async fn http2_on(client: &Client) -> io::Result<http2::SendRequest<Body>> {
    let stream = client.connect(b"h2").await?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(10)).keep_alive_while_idle(true);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn post_http2(sender: &mut http2::SendRequest<Body>, body: Body) -> io::Result<u16> {
    let request = Request::post(format!("https://{HOST}/")).body(body).unwrap();
    Ok(sender.send_request(request).await.map_err(io::Error::other)?.status().as_u16())
}

#[tokio::test]
async fn the_longest_idle_makes_room_and_the_busy_stay() {
    let limits = Limits { connections: 3, waiting: 2, ..limits() };
    let Running { client, .. } = start_with(lengths(), limits, Drain::AT_ONCE);
    let mut busy = raw(&client, &head(2)).await;
    let mut first = client.http1().await.unwrap();
    let mut second = client.http1().await.unwrap();
    for sender in [&mut first, &mut second] {
        post_on(sender, Body::empty()).await.unwrap();
    }
    post_on(&mut first, Body::empty()).await.unwrap();
    // The second is idle for longer now, however long it is connected.
    assert_eq!(client.post("x").await.unwrap().0, StatusCode::OK);
    assert!(post_on(&mut second, Body::empty()).await.is_err());
    assert_eq!(post_on(&mut first, Body::empty()).await.unwrap().0, StatusCode::OK);
    busy.write_all(b"xy").await.unwrap();
    assert_eq!(status_of(&mut busy).await, 200);
}

#[tokio::test]
async fn those_who_ask_nothing_make_room_for_each_other_and_cost_no_one_else_a_place() {
    let clock = HandClock::start();
    let limits = Limits { connections: 4, waiting: 2, ..limits() };
    let Running { client, .. } = start_with(lengths(), limits, Drain::AT_ONCE);
    let mut idle = client.http1().await.unwrap();
    post_on(&mut idle, Body::empty()).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(client.address).await.unwrap());
    }
    // Neither those who say nothing, nor those who begin, are even in the way of others.
    for word in [&b""[..], b"\x16\x03\x01"] {
        for stream in &mut silent {
            stream.write_all(word).await.unwrap();
        }
        // No time passes meanwhile: nobody is waited for.
        assert_eq!(client.post("x").await.unwrap().0, StatusCode::OK);
    }
    // Those who say enough to be let in, and go no further, leave one by one, each when it had its time.
    for stream in &mut silent {
        // The first half of a record that is as long as any.
        stream.write_all(&[&[0x40, 0x00][..], &[0; OPENING]].concat()).await.unwrap();
    }
    HandClock::turns().await;
    let late = tokio::spawn(async move { client.post("x").await.unwrap().0 });
    let took = clock.until_finished(&late).await;
    assert!(took <= 101.0 * PATIENCE.as_secs_f64() + 1.0, "{took}");
    assert_eq!(late.await.unwrap(), StatusCode::OK);
    assert_eq!(post_on(&mut idle, Body::empty()).await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn bodies_that_are_slow_make_room_where_all_are_busy() {
    let clock = HandClock::start();
    let limits = Limits { connections: 2, waiting: 1, ..limits() };
    let Running { client, .. } = start_with(lengths(), limits, Drain::AT_ONCE);
    let mut slow = raw(&client, &[&head(1000)[..], b"x"].concat()).await;
    let mut faster = raw(&client, &[&head(1000)[..], &[b'x'; 900]].concat()).await;
    let late = tokio::spawn(async move { client.post("x").await.unwrap().0 });
    clock.until_finished(&late).await;
    assert_eq!(late.await.unwrap(), StatusCode::OK);
    read_to_close(&mut slow).await;
    faster.write_all(&[b'x'; 100]).await.unwrap();
    assert_eq!(status_of(&mut faster).await, 200);
}

#[tokio::test]
async fn pings_keep_no_connection() {
    let clock = HandClock::start();
    let Running { client, .. } = start(Limits::default(), Drain::AT_ONCE);
    let mut pinging = http2_on(&client).await.unwrap();
    assert_eq!(post_http2(&mut pinging, Body::empty()).await.unwrap(), 200);
    for _ in 0..119 {
        clock.pass(1.0).await;
        settle(&client).await;
    }
    assert!(!pinging.is_closed());
    clock.pass(2.0).await;
    settle(&client).await;
    HandClock::turns().await;
    assert!(pinging.is_closed());
}

#[tokio::test]
async fn http2_has_a_share_of_the_connections() {
    let limits = Limits { http2: 1, ..limits() };
    let Running { client, .. } = start_with(lengths(), limits, Drain::AT_ONCE);
    let mut first = http2_on(&client).await.unwrap();
    assert_eq!(post_http2(&mut first, Body::from("x")).await.unwrap(), 200);
    let mut other = client.http1().await.unwrap();
    post_on(&mut other, Body::empty()).await.unwrap();
    let mut second = http2_on(&client).await.unwrap();
    assert_eq!(post_http2(&mut second, Body::from("x")).await.unwrap(), 200);
    assert!(post_http2(&mut first, Body::from("x")).await.is_err());
    assert_eq!(post_on(&mut other, Body::empty()).await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn what_is_announced_is_not_charged() {
    let Running { client, .. } = start_with(lengths(), limits(), Drain::AT_ONCE);
    let mut announced = Vec::new();
    for _ in 0..20 {
        announced.push(raw(&client, &[&head(3000)[..], b"x"].concat()).await);
    }
    settle(&client).await;
    for stream in &mut announced {
        stream.write_all(&[b'y'; 2999]).await.unwrap();
        assert_eq!(status_of(stream).await, 200);
    }
}

#[tokio::test]
async fn the_slowest_body_makes_room_and_a_first_one_is_never_refused() {
    let clock = HandClock::start();
    let Running { client, .. } = start_with(lengths(), limits(), Drain::AT_ONCE);
    // 500 of all, and 1500: nothing is left.
    let mut slowest = raw(&client, &[&head(3000)[..], &[b'x'; 1500]].concat()).await;
    settle(&client).await;
    clock.pass(1.0).await;
    let mut slow = raw(&client, &[&head(3000)[..], &[b'x'; 2500]].concat()).await;
    settle(&client).await;
    // Its own, to the byte.
    for _ in 0..10 {
        assert_eq!(client.post(vec![b'x'; 1000]).await.unwrap().0, StatusCode::OK);
    }
    assert!(read_to_close(&mut slowest).now_or_never().is_none());
    // One more.
    assert_eq!(client.post(vec![b'x'; 1001]).await.unwrap().0, StatusCode::OK);
    assert_eq!(status_of(&mut slowest).await, 503);
    slow.write_all(&[b'x'; 500]).await.unwrap();
    assert_eq!(status_of(&mut slow).await, 200);
}

#[tokio::test]
async fn what_is_decided_keeps_its_memory_and_others_are_told_so() {
    let (started, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let router = {
        let (started, go_on) = (Arc::clone(&started), Arc::clone(&go_on));
        lengths().route(
            "/slow",
            post(async move |body: Bytes| {
                started.notify_one();
                go_on.notified().await;
                body.len().to_string()
            }),
        )
    };
    let Running { client, .. } = start_with(router, limits(), Drain::AT_ONCE);
    let text = [&b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 3000\r\n\r\n"[..], &[b'x'; 3000]].concat();
    let mut deciding = raw(&client, &text).await;
    started.notified().await;
    assert_eq!(client.post(vec![b'x'; 1000]).await.unwrap().0, StatusCode::OK);
    assert_eq!(client.post(vec![b'x'; 1001]).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    go_on.notify_one();
    assert_eq!(status_of(&mut deciding).await, 200);
    // All was given back.
    for _ in 0..10 {
        assert_eq!(client.post(vec![b'x'; 3000]).await.unwrap().0, StatusCode::OK);
    }
}

#[tokio::test]
async fn streams_share_what_their_connection_may_hold() {
    let Running { client, .. } = start_with(lengths(), limits(), Drain::AT_ONCE);
    let mut sender = http2_on(&client).await.unwrap();
    // Its client knows then how many it may have.
    assert_eq!(post_http2(&mut sender, Body::empty()).await.unwrap(), 200);
    let mut answers = Vec::new();
    let mut pieces = Vec::new();
    for _ in 0..=STREAMS {
        let (piece, body) = piecemeal();
        let mut sender = sender.clone();
        answers.push(tokio::spawn(async move { post_http2(&mut sender, body).await.unwrap() }));
        pieces.push(piece);
    }
    // The last is complete, and waits for a place.
    pieces.pop();
    settle(&client).await;
    assert!(!answers[STREAMS as usize].is_finished());
    drop(pieces);
    for answer in answers {
        assert_eq!(answer.await.unwrap(), 200);
    }
    // The last byte of all is one too many.
    assert_eq!(post_http2(&mut sender, Body::from(vec![b'x'; 3000])).await.unwrap(), 200);
    assert_eq!(post_http2(&mut sender, Body::from(vec![b'x'; 3001])).await.unwrap(), 413);
}

#[tokio::test]
async fn a_body_needs_a_least_rate() {
    let clock = HandClock::start();
    let limits = Limits { request: Duration::from_secs(10), ..Limits::default() };
    let Running { client, .. } = start_with(lengths(), limits, Drain::AT_ONCE);
    // Nothing, half a second's worth, and what is in time whenever it comes.
    for (bytes, lasts) in [(1, 0.0), (LEAST_RATE / 2, 0.5), (LEAST_RATE * 20, 8.0)] {
        let mut stream = raw(&client, &head(bytes + 1)).await;
        stream.write_all(&vec![b'x'; bytes]).await.unwrap();
        settle(&client).await;
        clock.pass(GRACE.as_secs_f64() + lasts - 0.1).await;
        settle(&client).await;
        let mut early = [0];
        assert!(stream.read(&mut early).now_or_never().is_none(), "{bytes} bytes");
        for _ in 0..12 {
            clock.pass(0.1).await;
        }
        assert_eq!(status_of(&mut stream).await, 408, "{bytes} bytes");
    }
}

#[tokio::test]
async fn who_does_not_take_an_answer_is_cut_and_the_answer_freed() {
    let clock = HandClock::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let large = async move |_: Bytes| {
        counted.fetch_add(1, Ordering::Relaxed);
        vec![b'x'; 8 << 20]
    };
    let router = lengths().route("/large", post(large));
    let Running { client, .. } = start_with(router, Limits::default(), Drain::AT_ONCE);
    let text = b"POST /large HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx";
    let mut deaf = raw(&client, text).await;
    while asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    settle(&client).await;
    // Two of them do not fit.
    let mut refused = raw(&client, text).await;
    assert_eq!(status_of(&mut refused).await, 503);
    for _ in 0..16 {
        clock.pass(1.0).await;
    }
    settle(&client).await;
    let mut served = raw(&client, text).await;
    assert_eq!(status_of(&mut served).await, 200);
    let mut rest = BytesMut::new();
    while !matches!(deaf.read_buf(&mut rest).await, Ok(0) | Err(_)) {}
    assert!(rest.len() < 8 << 20, "it was cut");
}

#[tokio::test]
async fn heads_have_a_limit() {
    let Running { client, .. } = start_with(lengths(), limits(), Drain::AT_ONCE);
    let with =
        |bytes: usize| format!("POST / HTTP/1.1\r\nhost: x\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "y".repeat(bytes));
    let around = with(0).len();
    for (bytes, expected) in [(HEAD - around, 200), (HEAD - around + 1, 431), (400_000, 431)] {
        let mut stream = client.connect(b"http/1.1").await.unwrap();
        // It may be refused before it is all there.
        let _ = stream.write_all(with(bytes).as_bytes()).await;
        assert_eq!(status_of(&mut stream).await, expected, "{bytes}");
    }
    let mut sender = http2_on(&client).await.unwrap();
    for (bytes, expected) in [(HEADER_LIST as usize - 1000, 200), (HEADER_LIST as usize, 431)] {
        let request = Request::post(format!("https://{HOST}/")).header("x", "y".repeat(bytes));
        let response = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{bytes}");
    }
}

#[tokio::test]
async fn the_admin_port_keeps_nobody_waiting() {
    // As long as a test may take on a busy machine.
    let patient = Duration::from_mins(1);
    let limits = Limits { handshake: patient, first_request: patient, ..Limits::ADMIN };
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_limits(limits);
    let address = server.address();
    let shutdown = CancellationToken::new();
    let router = Router::new().route("/", axum::routing::get(async || "ok"));
    let over = server.run_apart("test", router, shutdown.clone()).unwrap();
    let mut held = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..200 {
        held.push(TcpStream::connect(address).await.unwrap());
        // Asks for the connection to be kept.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n").await.unwrap();
        answers.push(stream);
    }
    for mut stream in answers {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer:?}");
    }
    shutdown.cancel();
    over.await.unwrap();
}

#[tokio::test]
async fn metrics_of_many_stores_are_told_whole() {
    let registry = Registry::default();
    for number in 0..64 {
        let requests = registry.counters(&STORE_REQUESTS, &[&format!("store-of-a-long-name-{number:02}")]);
        let [_, calls, outcomes] = STORE_REQUESTS.labels else { panic!("other labels") };
        for call in calls.words {
            outcomes.words.iter().for_each(|outcome| requests.increment(&[call, outcome]));
        }
    }
    let expected = registry.to_string();
    assert!(expected.len() > 128 * 1024, "{}", expected.len());
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_limits(Limits::ADMIN);
    let address = server.address();
    let shutdown = CancellationToken::new();
    let router = admin::router(Readiness::default(), registry);
    let over = server.run_apart("test", router, shutdown.clone()).unwrap();
    // And again: what one answer took is there for the next.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&expected), "{}", &answer[..200]);
    }
    shutdown.cancel();
    over.await.unwrap();
}
