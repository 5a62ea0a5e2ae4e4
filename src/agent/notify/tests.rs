use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::metrics::Registry;
use crate::metrics::catalogue::NOTIFICATIONS;
use crate::metrics::tests::samples;
use crate::options::Signal;

fn id(text: &str) -> GenerationId {
    GenerationId(text.to_owned())
}

/// A server on 127.0.0.1 that answers each connection with the next of `statuses` (and hangs up when they run out);
/// what it was sent comes out of the channel.
async fn server(statuses: Vec<&'static str>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/reload?x=1", listener.local_addr().unwrap().port());
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = String::new();
            while !text.ends_with('}') {
                let mut buffer = [0; 1024];
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "the request ended early: {text:?}");
                text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            seen.send(text).unwrap();
            let head = format!("HTTP/1.1 {status}\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
        }
    });
    (url, requests)
}

#[tokio::test]
async fn http_posts_the_generation_and_takes_only_2xx() {
    for (status, error) in [
        ("200 OK", None),
        ("204 No Content", None),
        ("302 Found", Some("the application answered 302 Found")),
        ("503 Service Unavailable", Some("the application answered 503 Service Unavailable")),
    ] {
        let (url, mut requests) = server(vec![status]).await;
        let result = tell_once(&Notify::Http { url: url.clone() }, &id("0a1b")).await;
        assert_eq!(result.err().map(|error| error.to_string()).as_deref(), error);
        let request = requests.recv().await.unwrap();
        let authority = url.trim_start_matches("http://").trim_end_matches("/reload?x=1");
        assert!(request.starts_with("POST /reload?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("host: {authority}\r\n")), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"generation\":\"0a1b\"}"), "{request}");
        assert!(requests.recv().await.is_none(), "one request, and no redirect followed");
    }
}

#[tokio::test]
async fn a_refused_connection_names_the_port() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/");
    let error = tell_once(&Notify::Http { url }, &id("0a1b")).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot connect to port {port} on localhost")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_backed_off() {
    let start = tokio::time::Instant::now();
    let registry = Registry::default();
    let outcomes = registry.counters(&NOTIFICATIONS, &[]);
    tell(Notify::Signal { signal: Signal::Hup, process: "hp-nobody".to_owned() }, id("0a1b"), outcomes).await;
    assert_eq!(start.elapsed().as_secs(), 60, "1 + 2 + 4 + 8 + 15 + 30 s, then it is given up");
    let of = |outcome: &str, number| (format!("hushpod_notify_total{{outcome=\"{outcome}\"}}"), number);
    assert_eq!(samples(&registry.to_string()), [of("error", 6.0), of("given_up", 1.0)].into());
}

#[tokio::test]
async fn a_failed_notification_is_tried_again_and_each_target_is_on_its_own() {
    let (flaky, mut flaky_requests) = server(vec!["500 Oops", "200 OK"]).await;
    let (good, mut good_requests) = server(vec!["200 OK"]).await;
    let registry = Registry::default();
    let notifier = Notifier::new(vec![Notify::Http { url: flaky }, Notify::Http { url: good }]);
    let mut notifier = notifier.counted_by(registry.counters(&NOTIFICATIONS, &[]));
    notifier.announce(&id("0a1b"));
    assert!(good_requests.recv().await.unwrap().contains("0a1b"));
    assert!(flaky_requests.recv().await.unwrap().contains("0a1b"));
    assert!(flaky_requests.recv().await.unwrap().contains("0a1b"), "again, after a second");
    while notifier.running.join_next().await.is_some() {}
    let of = |outcome: &str, number| (format!("hushpod_notify_total{{outcome=\"{outcome}\"}}"), number);
    assert_eq!(samples(&registry.to_string()), [of("ok", 2.0), of("error", 1.0)].into());
}

#[tokio::test]
async fn a_newer_generation_replaces_what_is_still_tried() {
    let (url, mut requests) = server(vec!["500 Oops", "200 OK", "200 OK"]).await;
    let mut notifier = Notifier::new(vec![Notify::Http { url }]);
    notifier.announce(&id("old"));
    assert!(requests.recv().await.unwrap().contains("old"));
    notifier.announce(&id("new"));
    assert!(requests.recv().await.unwrap().contains("new"));
    while notifier.running.join_next().await.is_some() {}
    assert!(requests.try_recv().is_err(), "the old one is not tried again");
}
