//! Stores that mean ill, on 127.0.0.1: every exchange is bounded in time, bytes and count, and whatever a first read
//! waits for is told while it is waited for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hushpod::plan::Plan;
use hushpod::provider::http::{Address, Call, Client, Limits, Opened, Reach};
use hushpod::provider::{ArrivalRoom, Arrivals, ErrorKind, Login, ProviderSettings};
use hushpod::source::{Event, Source};
use hyper::Method;
use hyper_util::client::proxy::matcher::Matcher;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::Level;

use crate::log::Log;

/// Says something, and then the same piece for ever.
#[derive(Clone)]
struct Behaviour {
    head: Vec<u8>,
    piece: Vec<u8>,
    pause: Duration,
}

impl Behaviour {
    fn new(head: &str, piece: impl Into<Vec<u8>>) -> Self {
        Self { head: head.replace('\n', "\r\n").into_bytes(), piece: piece.into(), pause: Duration::ZERO }
    }

    fn slow(head: &str, piece: impl Into<Vec<u8>>) -> Self {
        Self { pause: Duration::from_millis(50), ..Self::new(head, piece) }
    }

    /// Where it listens, and how many bytes of it were taken so far.
    async fn start(self) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(self.clone().behave(tcp, Arc::clone(&counter)));
            }
        });
        (address, sent)
    }

    async fn behave(self, mut tcp: TcpStream, sent: Arc<AtomicUsize>) {
        let mut request = [0; 4096];
        // Requests come one after the other, each in one piece.
        while tcp.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
            if tcp.write_all(&self.head).await.is_err() {
                return;
            }
            while !self.piece.is_empty() {
                if tcp.write_all(&self.piece).await.is_err() {
                    return;
                }
                sent.fetch_add(self.piece.len(), Ordering::Relaxed);
                if self.pause.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(self.pause).await;
                }
            }
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n";

/// Long enough for a machine that is busy with other tests.
const EXCHANGE: Duration = Duration::from_secs(3);

fn client(address: &str, body_bytes: usize) -> Client {
    let limits = Limits { connect: EXCHANGE, exchange: EXCHANGE, body_bytes };
    let address = Address::parse(&format!("http://{address}")).unwrap();
    Client::new(address, None, limits, &Matcher::builder().build()).unwrap()
}

/// Clocks are real here: what comes for ever leaves a paused one no moment to go on.
#[tokio::test]
async fn p3_every_exchange_with_a_store_is_bounded_in_time_bytes_and_count() {
    const BODY: usize = 4096;
    let (late, large, broken, other) = ("did not answer within 3s", "more than 4096 bytes", "broke off", "not HTTP");
    let headers = |count: usize| format!("{OK}{}", "X: y\n".repeat(count));
    let cases = [
        ("silence", Behaviour::new("", ""), late),
        ("a slow head", Behaviour::slow("HTTP/1.1 200 OK", "\r\nX: y"), late),
        ("one header without end", Behaviour::new(&format!("{OK}X: "), "y".repeat(4096)), other),
        ("headers without end", Behaviour::new(OK, "X: y\r\n".repeat(100)), other),
        ("a hundred and one headers", Behaviour::new(&format!("{}\n", headers(101)), ""), other),
        ("hints without end", Behaviour::new("", "HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"), late),
        ("a slow body", Behaviour::slow(&format!("{OK}Content-Length: 4000\n\n"), " "), late),
        ("a body that stops", Behaviour::new(&format!("{OK}Content-Length: 4000\n\nx"), ""), late),
        ("a boast", Behaviour::new(&format!("{OK}Content-Length: 999999999999999999\n\n"), ""), large),
        ("a body without end", Behaviour::new(&format!("{OK}\n"), " ".repeat(16 * 1024)), large),
        ("chunks without end", Behaviour::new(CHUNKED, format!("4000\r\n{}\r\n", " ".repeat(0x4000))), large),
        ("chunks of a byte", Behaviour::new(CHUNKED, "1\r\n \r\n".repeat(500)), large),
        ("slow chunks", Behaviour::slow(CHUNKED, "1\r\n \r\n"), late),
        ("a chunk's extensions", Behaviour::new(&format!("{CHUNKED}1;"), "x".repeat(4096)), broken),
        ("trailers without end", Behaviour::new(&format!("{CHUNKED}0\n"), "X: y\r\n".repeat(100)), broken),
        ("a circle", Behaviour::new("HTTP/1.1 307 On\nLocation: /x\nContent-Length: 0\n\n", ""), "more than 2 times"),
    ];
    let mut exchanges = tokio::task::JoinSet::new();
    for (name, behaviour, part) in cases {
        exchanges.spawn(async move {
            let is_head = !matches!(part, "more than 4096 bytes" | "broke off") && !name.contains("body");
            let (address, sent) = behaviour.start().await;
            let client = client(&address, BODY);
            let start = Instant::now();
            let error = client.send(Call::new(Method::GET, "x")).await.unwrap_err().error;
            let took = start.elapsed();
            assert!(error.message.contains(part), "{name}: {error}");
            assert!(error.message.contains(&address), "{name}: {error}");
            // A good answer that is too large will be so again.
            let kind = if part == large { ErrorKind::Invalid } else { ErrorKind::Unavailable };
            assert_eq!(error.kind, kind, "{name}: {error}");
            assert!(took < Duration::from_secs(20), "{name}: {took:?}");
            // What the kernel holds for both sides is not read.
            let sent = sent.load(Ordering::Relaxed);
            assert!(part == late || sent < 16 << 20, "{name}: {sent} bytes");
            // A head is bounded alike where the body may go on for ever.
            if is_head && name != "slow chunks" {
                let error = client.open(Call::new(Method::GET, "x")).await.unwrap_err().error;
                assert!(error.message.contains(part), "{name}, opened: {error}");
            }
        });
    }
    while let Some(ended) = exchanges.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn an_error_that_is_too_large_is_the_stores_trouble_and_no_answer() {
    let long = "canary".repeat(2000);
    for (status, kind) in [("200 OK", ErrorKind::Invalid), ("500 Oh", ErrorKind::Unavailable)] {
        let head = format!("HTTP/1.1 {status}\nContent-Length: {}\n\n{long}", long.len());
        let (address, _) = Behaviour::new(&head, "").start().await;
        let client = client(&address, 1000);
        let error = client.send(Call::new(Method::GET, "x")).await.unwrap_err().error;
        assert_eq!((error.kind, error.message.contains("canary")), (kind, false), "{error}");
        if status.starts_with("200") {
            let opened = client.open(Call::new(Method::GET, "x")).await.unwrap();
            assert!(matches!(opened, Opened::Stream(_)), "a stream has no length");
        }
    }
}

/// What is left of the memory for answers on their way.
struct Room(AtomicU64);

impl ArrivalRoom for Room {
    fn take(&self, bytes: u64) -> Result<(), String> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|left| format!("finds room for {left} bytes"))
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A process with many sources has room for so much of all their answers together; values take more of it than their text.
#[tokio::test]
async fn answers_take_no_more_than_there_is_room_for() {
    const ROOM: u64 = 16 * 1024;
    let list = format!("[{}0]", "0,".repeat(1000));
    let chunks = |text: &str| format!("{CHUNKED}{:x}\n{text}\n0\n\n", text.len());
    let whole = |text: &str| format!("{OK}Content-Length: {}\n\n{text}", text.len());
    let text = "canary".repeat(500);
    let room = Arc::new(Room(AtomicU64::new(ROOM)));
    let arrivals = Arrivals::of(Arc::clone(&room) as _);
    for (answer, fits) in [(whole(&text), true), (chunks(&text), true), (whole(&list), false), (chunks(&list), false)] {
        let (address, _) = Behaviour::new(&answer, "").start().await;
        let client = client(&address, 1 << 20);
        let answered = arrivals.count(client.send(Call::new(Method::GET, "x"))).await;
        match (&answered, fits) {
            (Ok(response), true) => assert!(response.body.len() == 3000 && room.0.load(Ordering::Relaxed) < ROOM),
            (Err(failed), false) => {
                let error = &failed.error;
                assert!(error.kind == ErrorKind::Unavailable && error.message.contains("finds room for"), "{error}");
            }
            _ => panic!("{answered:?} of {answer}"),
        }
        // Nobody counts: there is no bound.
        client.send(Call::new(Method::GET, "x")).await.unwrap();
        arrivals.settle();
        assert_eq!(room.0.load(Ordering::Relaxed), ROOM, "given back");
    }
    // Several of one operation count together, and what is given up is given back.
    let (address, _) = Behaviour::new(&whole(&text), "").start().await;
    let client = client(&address, 1 << 20);
    let answered = arrivals.count(async {
        let mut answered = 0;
        while client.send(Call::new(Method::GET, "x")).await.is_ok() {
            answered += 1;
        }
        answered
    });
    assert_eq!(answered.await, 2);
    drop(arrivals);
    assert_eq!(room.0.load(Ordering::Relaxed), ROOM);
}

fn source(provider: &Value, path: &str, token_file: &Path) -> Source {
    let settings: ProviderSettings = serde_json::from_value(provider.clone()).unwrap();
    let role = match provider["type"].as_str().unwrap() {
        "aws" => "arn:aws:iam::123456789012:role/web",
        "azure" => "0f0e0d0c-0000-4000-8000-000000000001",
        "gcp" => "web@shop.iam.gserviceaccount.com",
        _ => "web",
    };
    let plan = json!({
        "version": 1, "identity": {"namespace": "shop", "serviceAccount": "web"}, "sizeLimit": 65536,
        "providers": {"store": {"settings": settings, "role": role, "refreshSeconds": 30}},
        "items": [{"target": {"dir": "app"}, "from": {"one": format!("store:{path}")}, "mode": "0400"}],
    });
    let role = Some(role.to_owned());
    let login = Login { provider: "store".to_owned(), role, token: token_file.to_owned().into() };
    let provider = settings.connect(login, Reach::default()).unwrap();
    Source::new(&Plan::from_json(&plan.to_string()).unwrap(), BTreeMap::from([("store".to_owned(), provider)]))
}

/// What is waited for, at which store, for which path → what is told in the end.
fn first_reads(
    token: &str,
    closed: SocketAddr,
    silent: &str,
    stalls: &str,
    trickles: &str,
) -> [(&'static str, Value, &'static str, &'static str); 11] {
    let vault =
        |address: &str| json!({"type": "vault", "address": address, "auth": {"method": "token", "tokenFile": token}});
    let jwt =
        |address: &str| json!({"type": "vault", "address": address, "auth": {"method": "jwt", "tokenFile": token}});
    let infisical = |address: &str| {
        json!({"type": "infisical", "address": address, "project": "p", "environment": "prod",
            "auth": {"method": "token", "tokenFile": token}, "events": true})
    };
    [
        ("a port", vault(&format!("http://{closed}")), "kv/data/x", "connection refused"),
        ("a TLS handshake", vault(&format!("https://{silent}")), "kv/data/x", "no connection within 5s"),
        ("a login", jwt(&format!("http://{silent}")), "kv/data/x", "did not answer within 15s"),
        ("an answer", vault(&format!("http://{silent}")), "kv/data/x", "did not answer within 15s"),
        ("a body", vault(&format!("http://{stalls}")), "kv/data/x", "did not answer within 15s"),
        ("a body byte by byte", vault(&format!("http://{trickles}")), "kv/data/x", "did not answer within 15s"),
        ("Infisical", infisical(&format!("http://{silent}")), "/x", "did not answer within 15s"),
        (
            "a machine's metadata service",
            json!({"type": "azure", "address": "https://shop.vault.azure.net", "auth": {"method": "managed-identity",
                "metadata": format!("http://{silent}")}}),
            "x",
            "did not answer within",
        ),
        (
            "another cloud's",
            json!({"type": "gcp", "project": "shop", "auth": {"method": "metadata", "metadata": format!("http://{silent}")}}),
            "x",
            "did not answer within",
        ),
        (
            "an agent on the node",
            json!({"type": "aws", "region": "eu-west-1", "auth": {"method": "pod-identity",
                "agent": format!("http://{silent}/v1/credentials")}}),
            "x",
            "did not answer within",
        ),
        (
            "a token service",
            json!({"type": "aws", "region": "eu-west-1", "stsEndpoint": format!("http://{silent}"),
                "auth": {"method": "web-identity", "tokenFile": token}}),
            "x",
            "did not answer within",
        ),
    ]
}

/// Nothing is waited for without a word: whatever a first read is at, people are told within ten seconds, and it comes to
/// an end within a minute, to be tried again.
#[tokio::test(start_paused = true)]
async fn p7_whatever_a_first_read_waits_for_is_bounded_and_told_within_ten_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "canary-token").unwrap();
    let token_file = token.as_path();
    let token = token.to_str().unwrap();
    let serve = async |behaviour: Behaviour| behaviour.start().await.0;
    let silent = serve(Behaviour::new("", "")).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stalls = serve(Behaviour::new(&format!("{OK}Content-Length: 99\n\n{{"), "")).await;
    let trickles = serve(Behaviour { pause: Duration::from_secs(1), ..Behaviour::new(CHUNKED, "1\r\n \r\n") }).await;
    for (what, provider, path, part) in first_reads(token, closed, &silent, &stalls, &trickles) {
        let (log, _listening) = Log::listen(Level::WARN);
        let mut source = source(&provider, path, token_file);
        let start = tokio::time::Instant::now();
        let mut told = None;
        let failures = loop {
            let event = source.next().await;
            told.get_or_insert_with(|| start.elapsed());
            match event {
                Event::Silent => assert!(source.silent().any(|(name, _)| name == "store"), "{what}"),
                Event::Failed(failures) => break failures,
                other => panic!("{what}: {other:?}"),
            }
        };
        assert!(told.unwrap() < Duration::from_secs(10), "{what}: told after {told:?}");
        assert!(start.elapsed() < Duration::from_mins(1), "{what}: bounded by {:?}", start.elapsed());
        assert!(failures.iter().all(|failure| failure.error.message.contains(part)), "{what}: {failures:?}");
        let log = log.text();
        assert!(log.contains("cannot refresh") && log.contains("store"), "{what}: {log}");
        assert!(log.contains("no answer yet") || start.elapsed() < Duration::from_secs(6), "{what}: {log}");
        assert!(!log.contains("canary"), "{log}");
    }
}
