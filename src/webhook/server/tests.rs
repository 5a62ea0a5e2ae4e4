use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;

use axum::body::to_bytes;
use axum::http::Request;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use super::*;
use crate::metrics::Registry;
use crate::process::telemetry::queue::QUEUED;
use crate::serve::WORKERS;
use crate::serve::tests::{Client, HOST, HandClock};

/// Says what it got; panics when told to.
fn review() -> Reviewer {
    Arc::new(|request| {
        assert_ne!(request, b"panic");
        let outcome = if request == b"bad" { Outcome::Denied } else { Outcome::Injected };
        Answer {
            body: request.to_vec(),
            outcome,
            reason: (outcome == Outcome::Denied).then_some("pod"),
            unknown_namespace: None,
        }
    })
}

async fn send(router: &Router, request: Request<Body>) -> (u16, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    (status, String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn answers_by_request() {
    let registry = Registry::default();
    let router = router(review(), Metrics::new(registry.clone()), Namespaces::default());
    let json = Some("application/json");
    let cases = [
        ("POST", MUTATE_PATH, json, "good", 200),
        ("POST", MUTATE_PATH, Some("application/json; charset=utf-8"), "good", 200),
        ("POST", MUTATE_PATH, Some("Application/JSON"), "bad", 200),
        ("POST", MUTATE_PATH, Some("application/jsonx"), "good", 415),
        ("POST", MUTATE_PATH, Some("text/plain"), "good", 415),
        ("POST", MUTATE_PATH, None, "good", 415),
        ("GET", MUTATE_PATH, json, "", 405),
        ("POST", "/", json, "good", 404),
        ("POST", MUTATE_PATH, json, "panic", 500),
        ("POST", MUTATE_PATH, json, "good", 200),
    ];
    for (method, path, content_type, body, expected) in cases {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let (status, answer) = send(&router, request.body(Body::from(body)).unwrap()).await;
        assert_eq!(status, expected, "{method} {path} {content_type:?} {body}");
        assert!(status != 200 || answer == body);
    }
    let shown = registry.to_string();
    for expected in [
        "hushpod_admission_requests_total{outcome=\"injected\"} 3\n",
        "hushpod_admission_requests_total{outcome=\"unchanged\"} 0\n",
        "hushpod_admission_requests_total{outcome=\"denied\"} 1\n",
        "hushpod_admission_requests_total{outcome=\"error\"} 1\n",
        "hushpod_admission_denials_total{reason=\"pod\"} 1\n",
        "hushpod_admission_denials_total{reason=\"policy\"} 0\n",
        "hushpod_admission_duration_seconds_count 5\n",
        "hushpod_admission_in_flight 0\n",
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
}

#[tokio::test]
async fn a_pod_and_its_old_state_fit() {
    let router = router(review(), Metrics::new(Registry::default()), Namespaces::default());
    let body = "x".repeat(2_900_000);
    let request =
        Request::post(MUTATE_PATH).header("content-type", "application/json").body(Body::from(body.clone())).unwrap();
    assert_eq!(send(&router, request).await, (200, body));
}

/// A mounted Secret as kubelet writes it: `tls.crt` → `..data/tls.crt`, `..data` → a directory that is swapped.
struct MountedSecret {
    directory: TempDir,
    generation: u32,
}

impl MountedSecret {
    fn new() -> Self {
        let mounted = Self { directory: TempDir::new().unwrap(), generation: 0 };
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), mounted.directory.path().join(file)).unwrap();
        }
        mounted
    }

    fn swap(&mut self, certificate: &str, key: &str) {
        self.generation += 1;
        let root = self.directory.path();
        let generation = format!("..generation_{}", self.generation);
        fs::create_dir(root.join(&generation)).unwrap();
        fs::write(root.join(&generation).join("tls.crt"), certificate).unwrap();
        fs::write(root.join(&generation).join("tls.key"), key).unwrap();
        symlink(&generation, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    }

    /// A new certificate and its key.
    fn renew(&mut self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![HOST.to_owned()]).unwrap().self_signed(&key).unwrap();
        self.swap(&certificate.pem(), &key.serialize_pem());
        certificate.into()
    }
}

struct Running {
    listen: SocketAddr,
    admin: SocketAddr,
    shutdown: CancellationToken,
    webhook: JoinHandle<Result<(), WebhookError>>,
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn start(mounted: &MountedSecret) -> Running {
    start_with(mounted, review()).await
}

async fn start_with(mounted: &MountedSecret, review: Reviewer) -> Running {
    run_by(settings(mounted).await, review)
}

async fn settings(mounted: &MountedSecret) -> WebhookSettings {
    WebhookSettings {
        pod_uid: None,
        listen: free_address().await,
        admin: free_address().await,
        tls_dir: Some(mounted.directory.path().to_owned()),
        names: Names {
            pod: "pod-a".to_owned(),
            container: None,
            service: "hushpod".to_owned(),
            namespace: "test".to_owned(),
        },
        configuration: "hushpod".to_owned(),
        client_ca: None,
        namespaces: Namespaces::default(),
        kubeconfig: None,
        drain_delay: Duration::ZERO,
    }
}

/// One of several at the same port.
async fn start_beside(mounted: &MountedSecret, listen: SocketAddr, container: &str) -> Running {
    let alone = settings(mounted).await;
    let names = Names { container: Some(container.to_owned()), ..alone.names.clone() };
    run_by(WebhookSettings { listen, names, ..alone }, review())
}

fn run_by(settings: WebhookSettings, review: Reviewer) -> Running {
    let (listen, admin, shutdown) = (settings.listen, settings.admin, CancellationToken::new());
    let (metrics, readiness) = (Metrics::new(Registry::default()), Readiness::default());
    let webhook = tokio::spawn(run(settings, review, metrics, readiness, shutdown.clone()));
    Running { listen, admin, shutdown, webhook }
}

impl Running {
    /// Whether a client that trusts `root` alone is served.
    async fn serves(&self, root: &CertificateDer<'static>) -> bool {
        Client { address: self.listen, root: root.clone(), host: HOST }.connect(b"http/1.1").await.is_ok()
    }

    async fn until_serves(&self, root: &CertificateDer<'static>) {
        let served = async {
            while !self.serves(root).await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), served).await.expect("the certificate is served");
    }

    async fn admin(&self, path: &str) -> Option<(u16, String)> {
        let stream = tokio::net::TcpStream::connect(self.admin).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Body>(hyper_util::rt::TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let response =
            sender.send_request(Request::get(path).header("host", "x").body(Body::empty()).unwrap()).await.ok()?;
        let status = response.status().as_u16();
        let body = to_bytes(Body::new(response.into_body()), usize::MAX).await.ok()?;
        Some((status, String::from_utf8(body.to_vec()).ok()?))
    }
}

#[tokio::test]
async fn a_directory_is_served_as_it_changes_and_the_last_good_stays() {
    let mut mounted = MountedSecret::new();
    let running = start(&mounted).await;
    while running.admin("/healthz").await.is_none() {
        tokio::task::yield_now().await;
    }
    let waiting = "waiting for: certificate in the TLS directory\n".to_owned();
    assert_eq!(running.admin("/readyz").await, Some((503, waiting)), "an empty directory");

    let first = mounted.renew();
    running.until_serves(&first).await;
    assert_eq!(running.admin("/readyz").await.unwrap().0, 200);
    assert!(running.admin("/metrics").await.unwrap().1.contains("\nhushpod_webhook_certificate_expiry_seconds "));

    let second = mounted.renew();
    running.until_serves(&second).await;
    assert!(!running.serves(&first).await);

    // A key of another certificate, and then a good pair: when that is served, the bad one was there to be seen.
    let key = KeyPair::generate().unwrap();
    let other = CertificateParams::new(vec![HOST.to_owned()]).unwrap().self_signed(&key).unwrap();
    mounted.swap(&other.pem(), &KeyPair::generate().unwrap().serialize_pem());
    for _ in 0..20 {
        assert!(running.serves(&second).await, "a bad pair changes nothing");
    }
    let third = mounted.renew();
    running.until_serves(&third).await;
}

#[tokio::test]
async fn of_two_at_one_port_the_other_has_all_that_comes_when_one_dies() {
    let mut mounted = MountedSecret::new();
    let mut unready = MountedSecret::new();
    let root = mounted.renew();
    let listen = free_address().await;
    let first = start_beside(&mounted, listen, "webhook").await;
    first.until_serves(&root).await;
    // It would have had half of these, and could answer none.
    let second = start_beside(&unready, listen, "twin").await;
    while second.admin("/readyz").await.is_none() {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        assert!(first.serves(&root).await, "one that is not ready takes a connection");
    }

    let other_root = unready.renew();
    second.until_serves(&other_root).await;
    first.webhook.abort();
    while !first.webhook.is_finished() {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        assert!(second.serves(&other_root).await, "a connection went to the dead one");
    }
}

#[tokio::test]
async fn one_that_is_told_to_stop_before_it_is_ready_stops() {
    let empty = MountedSecret::new();
    let running = start_beside(&empty, free_address().await, "twin").await;
    running.shutdown.cancel();
    running.webhook.await.unwrap().unwrap();
}

#[tokio::test]
async fn drain_is_unready_first_and_serves_on_for_five_seconds() {
    let mut mounted = MountedSecret::new();
    let root = mounted.renew();
    let running = start(&mounted).await;
    running.until_serves(&root).await;
    assert_eq!(running.admin("/readyz").await.unwrap().0, 200);

    let clock = HandClock::start();
    running.shutdown.cancel();
    for _ in 0..4 {
        assert_eq!(running.admin("/readyz").await, Some((503, "waiting for: draining\n".to_owned())));
        assert!(running.serves(&root).await);
        clock.pass(1.0).await;
    }
    assert!(running.serves(&root).await);
    assert!(!running.webhook.is_finished());
    let mut took = 4.0;
    while running.serves(&root).await {
        clock.pass(0.1).await;
        took += 0.1;
    }
    assert!((5.0..6.0).contains(&took), "{took}");
    running.webhook.await.unwrap().unwrap();
    let left = Client { address: running.listen, root, host: HOST };
    assert!(left.connect(b"http/1.1").await.is_err());
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mounted = MountedSecret::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = WebhookSettings {
        pod_uid: None,
        listen: taken.local_addr().unwrap(),
        admin: "127.0.0.1:0".parse().unwrap(),
        tls_dir: Some(mounted.directory.path().join("missing")),
        ..settings(&mounted).await
    };
    let run = |settings| {
        run(settings, review(), Metrics::new(Registry::default()), Readiness::default(), CancellationToken::new())
    };
    let error = run(settings.clone()).await.unwrap_err();
    assert!(matches!(error, WebhookError::Serve(_)), "{error}");
    let error = run(WebhookSettings { listen: "127.0.0.1:0".parse().unwrap(), ..settings }).await.unwrap_err();
    assert!(matches!(error, WebhookError::Watch(_)), "{error}");
}

/// A review that waits, for requests longer than [`SMALL`], until it is told to go on.
fn waiting_review() -> (Reviewer, std::sync::mpsc::Sender<()>, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let (go_on, told) = std::sync::mpsc::channel();
    let (begun, has_begun) = tokio::sync::mpsc::unbounded_channel();
    let told = std::sync::Mutex::new(told);
    let review: Reviewer = Arc::new(move |request| {
        if request.len() > SMALL {
            begun.send(()).unwrap();
            told.lock().unwrap().recv().unwrap();
        }
        Answer { body: request.to_vec(), outcome: Outcome::Injected, reason: None, unknown_namespace: None }
    });
    (review, go_on, has_begun)
}

#[tokio::test]
async fn large_requests_hold_up_each_other_alone() {
    let (review, go_on, mut has_begun) = waiting_review();
    let router = router(review, Metrics::new(Registry::default()), Namespaces::default());
    let ask = |length: usize| {
        let request =
            Request::post(MUTATE_PATH).header("content-type", "application/json").body(Body::from(vec![b'x'; length]));
        let router = router.clone();
        async move { send(&router, request.unwrap()).await.0 }
    };
    let large = [tokio::spawn(ask(SMALL + 1)), tokio::spawn(ask(SMALL + 1))];
    has_begun.recv().await.unwrap();
    assert_eq!(ask(SMALL).await, 200);
    assert!(has_begun.try_recv().is_err(), "one after the other");
    for _ in 0..2 {
        go_on.send(()).unwrap();
    }
    for asked in large {
        assert_eq!(asked.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn probes_are_answered_while_every_thread_decides() {
    let mut mounted = MountedSecret::new();
    let root = mounted.renew();
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let review: Reviewer = Arc::new(move |request| {
        told.lock().unwrap().recv().unwrap();
        Answer { body: request.to_vec(), outcome: Outcome::Injected, reason: None, unknown_namespace: None }
    });
    let running = start_with(&mounted, review).await;
    running.until_serves(&root).await;
    // The only thread of this test decides; another one asks.
    let admin = running.admin;
    let asking = std::thread::spawn(move || {
        let mut answers = Vec::new();
        for path in ["/healthz", "/readyz", "/metrics"] {
            let mut stream = std::net::TcpStream::connect(admin).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answers.push(answer);
        }
        go_on.send(()).unwrap();
        answers
    });
    let client = Client { address: running.listen, root, host: HOST };
    let mut sender = client.http1().await.unwrap();
    let request = Request::post(MUTATE_PATH).header("content-type", "application/json").body(Body::from("x")).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
    for answer in asking.join().unwrap() {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn all_that_can_be_asked_for_at_once_fits_into_the_limit() {
    // What clients can make it hold; the chart's limit of 128 MiB leaves the rest to the program and its allocator.
    let sum = [
        ("the webhook's port", Limits::WEBHOOK.most_memory(true)),
        ("the admin port", Limits::ADMIN.most_memory(false)),
        ("small reviews", WORKERS * SMALL_REVIEW),
        ("large reviews, whose clients may have left", LARGE_REVIEWS * (Limits::WEBHOOK.body + LARGE_REVIEW)),
        ("lines of the log, waiting and being written", 2 * QUEUED),
    ];
    let total: usize = sum.iter().map(|(_, bytes)| bytes).sum();
    assert!(total <= 100 << 20, "{} KiB: {sum:#?}", total >> 10);
    let values = include_str!("../../../charts/hushpod/values.yaml");
    assert!(values.contains("limits: {memory: 128Mi}"));
}

#[tokio::test]
async fn a_review_that_wants_a_namespaces_labels_is_made_once_more_and_counted_once() {
    let registry = Registry::default();
    let review: Reviewer = Arc::new(|request| {
        let namespace = str::from_utf8(request).unwrap().trim().to_owned();
        Answer {
            body: b"denied".to_vec(),
            outcome: Outcome::Denied,
            reason: Some("policy"),
            unknown_namespace: Some(namespace),
        }
    });
    let namespaces = Namespaces::default();
    let router = router(review, Metrics::new(registry.clone()), namespaces.clone());
    for length in [4, SMALL + 1] {
        let body = format!("{:>length$}", "shop");
        let request = Request::post(MUTATE_PATH).header(header::CONTENT_TYPE, "application/json");
        let answer = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(to_bytes(answer.into_body(), 100).await.unwrap(), "denied");
    }
    assert!(namespaces.now("shop").is_some(), "it was looked for");
    let denied = registry.to_string();
    let denied = denied.lines().find(|line| line.contains("total") && line.contains("denied")).unwrap();
    assert!(denied.ends_with(" 2"), "{denied}");
}
