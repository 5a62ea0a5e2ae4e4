use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::Event;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::rotation::SETTLE;
use super::*;
use crate::cluster::events::EventQueue;
use crate::metrics::Registry;
use crate::metrics::tests::samples;
use crate::webhook::certificate::LIFE;
use crate::webhook::metrics::TrustMetrics;

mod real;

const NAME: &str = "hushpod";
const HALF_LIFE: Duration = Duration::from_hours(12);
const PLACEHOLDER: &str = "Cg==";

/// An API server that holds one webhook configuration, or none: list, watch, get, and patch with an optimistic lock.
#[derive(Clone)]
struct ApiServer(Arc<Inner>);

struct Inner {
    /// And the resource version of the last change.
    object: watch::Sender<(u64, Option<Value>)>,
    /// Answers 503 and ends watches.
    down: AtomicBool,
    /// How long a patch is on its way, so writers overlap.
    latency: Duration,
    lost_races: AtomicU32,
    patches: Mutex<Vec<String>>,
}

fn configuration(bundles: &[&str]) -> Value {
    let webhooks: Vec<_> = bundles
        .iter()
        .enumerate()
        .map(|(index, bundle)| {
            json!({
                "name": format!("{index}.hushpod.dev"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"caBundle": bundle, "service": {"name": "hushpod", "namespace": "secrets"}},
            })
        })
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME, "resourceVersion": "1"}, "webhooks": webhooks,
    })
}

fn versioned(mut object: Value, version: u64) -> Value {
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    object
}

fn failure(code: u16, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": message});
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}

impl ApiServer {
    fn new(object: Option<Value>) -> Self {
        Self::slow(object, Duration::from_millis(50))
    }

    fn slow(object: Option<Value>, latency: Duration) -> Self {
        Self(Arc::new(Inner {
            object: watch::Sender::new((1, object)),
            down: AtomicBool::new(false),
            latency,
            lost_races: AtomicU32::new(0),
            patches: Mutex::default(),
        }))
    }

    fn client(&self) -> kube::Client {
        let all = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let router = Router::new()
            .route(all, get(async |server: State<Self>, query: RawQuery| Self::list(server, query)))
            .route(&format!("{all}/{NAME}"), get(async |server: State<Self>| Self::get(server)).patch(Self::patch))
            .with_state(self.clone());
        kube::Client::new(router, "default")
    }

    fn list(State(server): State<Self>, RawQuery(query): RawQuery) -> Response {
        let query = query.unwrap_or_default();
        let has = |parameter: &str| query.split('&').any(|given| given == parameter);
        assert!(has("fieldSelector=metadata.name%3Dhushpod"), "RBAC's resourceNames demand it: {query:?}");
        if server.0.down.load(Ordering::SeqCst) {
            return failure(503, "down");
        }
        let mut object = server.0.object.subscribe();
        let (version, items) = object.borrow_and_update().clone();
        if !has("watch=true") {
            let list = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfigurationList",
                "metadata": {"resourceVersion": version.to_string()}, "items": items.as_slice()});
            return list.to_string().into_response();
        }
        // What has changed since the list comes at once.
        if !has(&format!("resourceVersion={version}")) {
            object.mark_changed();
        }
        let events = stream::unfold((server, object), async |(server, mut object)| {
            object.changed().await.ok()?;
            if server.0.down.load(Ordering::SeqCst) {
                return None;
            }
            let event = match object.borrow_and_update().clone() {
                (_, Some(now)) => json!({"type": "MODIFIED", "object": now}),
                (version, None) => json!({"type": "DELETED", "object": versioned(configuration(&[]), version)}),
            };
            Some((Ok::<_, Infallible>(Bytes::from(format!("{event}\n"))), (server, object)))
        });
        Body::from_stream(events).into_response()
    }

    fn get(State(server): State<Self>) -> Response {
        if server.0.down.load(Ordering::SeqCst) {
            return failure(503, "down");
        }
        server.object().map_or_else(|| failure(404, "not found"), |object| object.to_string().into_response())
    }

    async fn patch(State(server): State<Self>, body: String) -> Response {
        sleep(server.0.latency).await;
        if server.0.down.load(Ordering::SeqCst) {
            return failure(503, "down");
        }
        let patch: json_patch::Patch = serde_json::from_str(&body).unwrap();
        assert!(matches!(patch.0.first(), Some(PatchOperation::Test(_))), "an optimistic lock first: {body}");
        let Some(mut object) = server.object() else { return failure(404, "not found") };
        if json_patch::patch(&mut object, &patch).is_err() {
            server.0.lost_races.fetch_add(1, Ordering::SeqCst);
            return failure(422, "the test operation failed");
        }
        server.0.patches.lock().unwrap().push(body);
        server.set(Some(object.clone()));
        object.to_string().into_response()
    }

    /// What a person or another controller does.
    fn set(&self, object: Option<Value>) {
        self.0.object.send_modify(|(version, present)| {
            *version += 1;
            *present = object.map(|object| versioned(object, *version));
        });
    }

    fn object(&self) -> Option<Value> {
        self.0.object.borrow().1.clone()
    }

    fn go(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
        self.0.object.send_modify(|_| {});
    }

    /// The pods whose authorities each webhook trusts.
    fn trusted(&self) -> Vec<Vec<String>> {
        let webhooks = self.object().map(|object| object["webhooks"].as_array().unwrap().clone()).unwrap_or_default();
        let bundle = |webhook: &Value| STANDARD.decode(webhook["clientConfig"]["caBundle"].as_str().unwrap()).unwrap();
        webhooks.iter().map(|webhook| merge::tests::pods(&bundle(webhook))).collect()
    }
}

/// A replica under test.
struct Replica {
    served: Served,
    readiness: Readiness,
    registry: Registry,
    told: mpsc::Receiver<(ObjectReference, Event)>,
    born: SystemTime,
    task: JoinHandle<Result<Infallible, CertificateError>>,
}

impl Replica {
    fn start(api: &ApiServer, pod: &str) -> Self {
        let (born, start) = (UNIX_EPOCH + Duration::from_hours(500_000), Instant::now());
        let clock = RenewalClock::new(move || born + start.elapsed());
        Self::of(api.client(), NAME, pod, clock, born)
    }

    fn of(client: kube::Client, configuration: &str, pod: &str, clock: RenewalClock, born: SystemTime) -> Self {
        let names = Names {
            pod: pod.to_owned(),
            container: None,
            service: "hushpod".to_owned(),
            namespace: "secrets".to_owned(),
        };
        let (served, readiness) = (Served::default(), Readiness::default());
        let registry = Registry::default();
        let (events, told) = EventQueue::heard();
        let report = TrustReport::new(TrustMetrics::new(&registry), events, &names, None);
        let own = SelfManaged::new(names, configuration.to_owned(), served.clone(), readiness.clone(), clock);
        let own = own.reporting_to(report);
        assert_eq!(readiness.pending(), [WAITS_FOR], "before anything has run");
        Self { served, readiness, registry, told, born, task: tokio::spawn(own.run(client)) }
    }

    fn is_ready(&self) -> bool {
        self.readiness.pending().is_empty()
    }

    /// Whether its metrics say that it is trusted; writes that succeeded and that did not.
    #[expect(clippy::float_cmp, reason = "samples are whole numbers")]
    fn shown(&self) -> (bool, u32, u32) {
        let shown = samples(&self.registry.to_string());
        let writes = |outcome| shown[&format!("hushpod_webhook_cabundle_writes_total{{outcome=\"{outcome}\"}}")];
        let whole = |number: f64| number.to_string().parse().unwrap();
        (shown["hushpod_webhook_trusted"] == 1.0, whole(writes("ok")), whole(writes("error")))
    }

    /// Reasons of the events that it has told since the last look, with their pod.
    fn told(&mut self) -> Vec<(String, String)> {
        let told = std::iter::from_fn(|| self.told.try_recv().ok());
        told.map(|(pod, event)| (pod.name.unwrap(), event.reason)).collect()
    }

    /// How much later than the first certificate of all the served one was made.
    fn age_at_issue(&self) -> Duration {
        self.served.expires().unwrap().duration_since(self.born + LIFE).unwrap()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long until it is so; panics after a minute.
async fn until(what: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_mins(1), "not within a minute");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn ready_five_seconds_after_every_webhook_was_seen_to_trust_it() {
    let api = ApiServer::new(Some(configuration(&[PLACEHOLDER, PLACEHOLDER])));
    let replica = Replica::start(&api, "pod-a");
    let trusts = || api.trusted() == [["pod-a"], ["pod-a"]];
    assert!(until(trusts).await < seconds(1));
    let settled = until(|| replica.is_ready()).await;
    assert!(settled >= SETTLE && settled < SETTLE + seconds(1), "{settled:?}");
    sleep(seconds(600)).await;
    assert_eq!(api.0.patches.lock().unwrap().len(), 1, "one write, then peace");
}

#[tokio::test(start_paused = true)]
async fn what_strips_its_certificate_alone_makes_a_replica_unready_unless_it_is_back_within_two_seconds() {
    let others = merge::tests::bundle_of("pod-b");
    for (latency, is_lost) in [(50, false), (1_800, false), (3_000, true)] {
        let api = ApiServer::slow(Some(configuration(&[PLACEHOLDER])), Duration::from_millis(latency));
        let replica = Replica::start(&api, "pod-a");
        until(|| replica.is_ready()).await;
        for round in 0..3 {
            sleep(seconds(30)).await;
            api.set(Some(configuration(&[&others])));
            let mut lost = None;
            for step in 0..1_000 {
                lost = lost.or_else(|| (!replica.is_ready()).then_some(10 * step));
                sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(lost.is_some(), is_lost, "{latency} ms, round {round}");
            assert!(lost.is_none_or(|ms| (2_000..2_100).contains(&ms)), "{latency} ms, round {round}: {lost:?} ms");
            until(|| replica.is_ready()).await;
            assert_eq!(api.trusted(), [["pod-b", "pod-a"]]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_strips_every_replicas_certificate_leaves_them_ready_to_answer_as_soon_as_they_are_trusted() {
    let api = ApiServer::new(Some(configuration(&[PLACEHOLDER])));
    let replicas = [Replica::start(&api, "pod-a"), Replica::start(&api, "pod-b")];
    until(|| replicas.iter().all(Replica::is_ready)).await;
    let lost = api.0.lost_races.load(Ordering::SeqCst);
    // Emptied, or deleted and created; some before the replicas would be ready again if they were not all along.
    for (round, (is_deleted, pause)) in
        [(false, 20), (false, 2), (true, 1), (false, 1), (true, 20)].into_iter().enumerate()
    {
        if is_deleted {
            api.set(None);
            sleep(Duration::from_millis(300)).await;
        }
        api.set(Some(configuration(&[PLACEHOLDER])));
        let back = until(|| api.trusted()[0].len() == 2).await;
        assert!(back < Duration::from_millis(250), "round {round}: {back:?}, and one of them writes after the other");
        for _ in 0..pause * 100 {
            assert!(replicas.iter().all(Replica::is_ready), "round {round}");
            sleep(Duration::from_millis(10)).await;
        }
    }
    assert!(api.0.lost_races.load(Ordering::SeqCst) >= lost + 5, "they did collide");
}

#[tokio::test(start_paused = true)]
async fn metrics_and_events_say_whether_it_is_trusted_and_what_became_of_its_writes() {
    let api = ApiServer::new(Some(configuration(&[PLACEHOLDER])));
    let mut replica = Replica::start(&api, "pod-a");
    let told = |reason: &str| ("pod-a".to_owned(), reason.to_owned());
    assert_eq!(replica.shown(), (false, 0, 0));
    until(|| replica.is_ready()).await;
    assert_eq!(replica.shown(), (true, 1, 0));
    assert_eq!(replica.told(), [], "it was trusted by nobody before, and lost nothing");
    // It stays ready where nobody is trusted, and says that it is not.
    api.set(Some(configuration(&[PLACEHOLDER])));
    until(|| !replica.shown().0).await;
    assert!(replica.is_ready());
    assert_eq!(replica.told(), [told("CertificateNotTrusted")]);
    // Its patch is on its way.
    api.go(true);
    until(|| replica.shown().2 > 0).await;
    assert_eq!(replica.shown().1, 1);
    api.go(false);
    until(|| replica.shown().0).await;
    assert_eq!(replica.shown().1, 2);
    let heard = replica.told();
    let (last, failed) = heard.split_last().unwrap();
    assert_eq!(last, &told("CertificateTrusted"));
    assert!(!failed.is_empty() && failed.iter().all(|each| *each == told("CertificateNotWritten")), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn one_webhook_of_two_is_not_enough() {
    let api = ApiServer::slow(Some(configuration(&[PLACEHOLDER])), seconds(3));
    let replica = Replica::start(&api, "pod-a");
    until(|| replica.is_ready()).await;
    let mut object = api.object().unwrap();
    let mut second = configuration(&[PLACEHOLDER])["webhooks"][0].clone();
    second["clientConfig"]["caBundle"].take();
    object["webhooks"].as_array_mut().unwrap().push(second);
    api.set(Some(object));
    until(|| !replica.is_ready()).await;
    until(|| replica.is_ready()).await;
    assert_eq!(api.trusted(), [["pod-a"], ["pod-a"]]);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_comes_later_or_goes() {
    let api = ApiServer::new(None);
    let replica = Replica::start(&api, "pod-a");
    sleep(seconds(120)).await;
    assert!(!replica.is_ready());
    api.set(Some(configuration(&[PLACEHOLDER])));
    until(|| replica.is_ready()).await;
    // Nobody calls, and everybody does as soon as it is there again.
    api.set(None);
    until(|| !replica.shown().0).await;
    sleep(seconds(600)).await;
    assert!(replica.is_ready());
    api.set(Some(configuration(&[PLACEHOLDER])));
    assert!(until(|| replica.shown().0).await < seconds(1));
    assert!(replica.is_ready());
}

#[tokio::test(start_paused = true)]
async fn replicas_that_write_at_once_both_get_in() {
    let api = ApiServer::new(Some(configuration(&[PLACEHOLDER])));
    let replicas: Vec<_> = (0..5).map(|index| Replica::start(&api, &format!("pod-{index}"))).collect();
    for replica in &replicas {
        until(|| replica.is_ready()).await;
    }
    let mut trusted = api.trusted().remove(0);
    trusted.sort();
    assert_eq!(trusted, ["pod-0", "pod-1", "pod-2", "pod-3", "pod-4"]);
    assert!(api.0.lost_races.load(Ordering::SeqCst) > 0, "they did collide");
    sleep(seconds(60)).await;
    assert!(replicas.iter().all(Replica::is_ready));
    assert_eq!(api.0.patches.lock().unwrap().len(), 5, "nobody overwrites anybody");
}

#[tokio::test(start_paused = true)]
async fn renewal_overlaps_and_never_unreadies() {
    let api = ApiServer::new(Some(configuration(&[PLACEHOLDER])));
    let replica = Replica::start(&api, "pod-a");
    let other = Replica::start(&api, "pod-b");
    until(|| replica.is_ready() && other.is_ready()).await;
    drop(other);
    let count = |pod: &str| api.trusted()[0].iter().filter(|trusted| *trusted == pod).count();

    sleep(HALF_LIFE.saturating_sub(seconds(30))).await;
    assert_eq!((count("pod-a"), replica.age_at_issue()), (1, seconds(0)));
    let mut switched = None;
    let mut added = None;
    // Two minutes around half of its life, in small steps.
    for step in 0..1200 {
        sleep(Duration::from_millis(100)).await;
        assert!(replica.is_ready(), "step {step}");
        if count("pod-a") == 2 {
            added.get_or_insert(step);
        }
        if replica.age_at_issue() > seconds(0) {
            switched.get_or_insert(step);
        }
    }
    let (added, switched) = (added.unwrap(), switched.unwrap());
    assert!(switched - added >= 49, "trusted for five seconds before it is served: {added} {switched}");
    assert!(switched - added < 60, "{added} {switched}");

    sleep(seconds(3600)).await;
    assert_eq!((count("pod-a"), count("pod-b")), (2, 1), "the old authority stays until it expires");
    sleep(HALF_LIFE).await;
    assert_eq!((count("pod-a"), count("pod-b")), (2, 0), "the third came, the first is over; so is the dead pod's");
    assert!(replica.is_ready());
    assert!(replica.age_at_issue() >= LIFE);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_changes_nothing_and_renewal_waits_for_it() {
    let api = ApiServer::new(Some(configuration(&[PLACEHOLDER])));
    let replica = Replica::start(&api, "pod-a");
    until(|| replica.is_ready()).await;
    sleep(HALF_LIFE.saturating_sub(seconds(60))).await;
    api.go(true);
    for _ in 0..12 {
        sleep(seconds(600)).await;
        assert!(replica.is_ready(), "what was trusted is trusted");
        assert_eq!(replica.age_at_issue(), seconds(0), "what is not trusted is not served");
    }
    api.go(false);
    until(|| replica.age_at_issue() > seconds(0)).await;
    assert!(replica.is_ready());

    sleep(HALF_LIFE.saturating_sub(seconds(7200))).await;
    api.go(true);
    sleep(HALF_LIFE + seconds(7200)).await;
    assert!(!replica.is_ready(), "over is not ready, whatever the bundle says");
    api.go(false);
    until(|| replica.is_ready()).await;
}

#[tokio::test(start_paused = true)]
async fn p1_nothing_but_certificates_is_written() {
    let api = ApiServer::new(Some(configuration(&[PLACEHOLDER, PLACEHOLDER])));
    let replica = Replica::start(&api, "pod-a");
    until(|| replica.is_ready()).await;
    sleep(LIFE).await;
    let patches = api.0.patches.lock().unwrap();
    assert!(patches.len() >= 2);
    for patch in patches.iter() {
        let operations: Vec<Value> = serde_json::from_str(patch).unwrap();
        let (lock, adds) = operations.split_first().unwrap();
        assert_eq!(lock["path"], "/metadata/resourceVersion");
        for add in adds {
            let bundle = String::from_utf8(STANDARD.decode(add["value"].as_str().unwrap()).unwrap()).unwrap();
            assert!(!bundle.contains("PRIVATE"));
            let certificates = bundle.matches("-----BEGIN CERTIFICATE-----").count();
            assert_eq!(
                (bundle.matches("-----BEGIN").count(), merge::tests::pods(bundle.as_bytes()).len()),
                (certificates, certificates)
            );
        }
    }
}

#[test]
fn errors_say_what_the_api_server_said() {
    let status = kube::core::Status::failure("patch is forbidden: no such right", "Forbidden").with_code(403).boxed();
    let error = RegistrationError::Api { name: NAME.to_owned(), cause: Box::new(kube::Error::Api(status)) };
    let expected = "mutatingwebhookconfiguration \"hushpod\": patch is forbidden: no such right (403)";
    assert_eq!(error.to_string(), expected);
}
