//! `kubectl hushpod` against an API server in this process, with agents that obey their pods' annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hushpod::generation::GenerationId;
use hushpod::report::line::{Asked, FailingProvider, HeldSecret, Problem, ReportLine, ReportedPod, Variables, Writer};
use serde_json::{Value, json};

use crate::readme::page;

mod deny;

/// Pods that the server lets pass in one page, whatever is asked for.
const PAGE: usize = 400;

/// What an agent does, or a driver for a pod.
#[derive(Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is what may become of a pod")]
struct Pod {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    mode: &'static str,
    node: String,
    generation: String,
    newest: String,
    pinned: Option<String>,
    pin_refused: Option<String>,
    advance: Option<Asked>,
    refresh: Option<Asked>,
    failing: bool,
    /// The rules that its report says it is denied by.
    denied: Option<String>,
    /// In the environment of its agent, if it has one.
    plan: Option<String>,
    is_unready: bool,
    /// Whether it is on its way out, in its grace period.
    is_deleting: bool,
    /// Whether it goes when it is told something.
    goes: bool,
    /// Running, unless it is said.
    phase: &'static str,
    /// Whether it heeds its annotations.
    is_deaf: bool,
    /// What is in its log instead of a report, or why kubelet does not give it.
    log: Option<Result<Vec<u8>, &'static str>>,
}

#[derive(Default)]
struct World {
    pods: Vec<Pod>,
    /// The template of the one Deployment, `web`.
    template: BTreeMap<String, String>,
    /// What was asked: method and path, without names.
    requests: Vec<String>,
    /// The names of pods in the order in which they were told something.
    told: Vec<String>,
    at_work: usize,
    most_at_work: usize,
    /// After so many patches a pod that is told something is ready no more.
    breaks_after: Option<usize>,
    /// Some proxy between does not know `continue`.
    repeats_pages: bool,
}

#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<World>>);

// === impl Pod ===

impl Pod {
    fn new(namespace: &str, name: &str, mode: &'static str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            mode,
            node: "n1".to_owned(),
            phase: "Running",
            generation: "aaaa".to_owned(),
            newest: "aaaa".to_owned(),
            ..Self::default()
        }
    }

    fn uid(&self) -> String {
        format!("uid-{}-{}", self.namespace, self.name)
    }

    fn held(&self) -> bool {
        self.annotations.get("hushpod.dev/hold").is_some_and(|value| value == "true")
    }

    /// What an agent makes of the annotations at once.
    fn obey(&mut self) {
        let text = |name: &str| self.annotations.get(&format!("hushpod.dev/{name}")).cloned();
        let (pin, advance, refresh) = (text("pin"), text("advance"), text("refresh-now"));
        let is_new = advance.is_some() && self.advance.as_ref().map(|asked| &asked.id) != advance.as_ref();
        if is_new || (!self.held() && pin.is_none()) {
            self.generation.clone_from(&self.newest);
        }
        let had = |pin: &String| ["aaaa", "bbbb", "cccc", "dddd"].contains(&pin.as_str());
        self.pin_refused = pin.clone().filter(|pin| !had(pin));
        let pin = pin.filter(had);
        if let Some(pin) = &pin {
            self.generation.clone_from(pin);
        }
        self.pinned = pin;
        self.advance = advance.map(|id| Asked { id, done: true });
        self.refresh = refresh.map(|id| Asked { id, done: true });
        if self.mode != "csi" {
            self.denied = self.annotations.get("hushpod.dev/deny").cloned();
        }
    }

    fn report(&self) -> String {
        let id = |text: &String| Some(GenerationId(text.clone()));
        let failing = FailingProvider {
            provider: "vault".into(),
            kind: Some("denied".into()),
            since: "2026-01-01T00:00:00Z".into(),
        };
        ReportLine {
            timestamp: "2026-01-01T00:00:00Z".to_owned(),
            pod: ReportedPod {
                namespace: self.namespace.clone(),
                name: Some(self.name.clone()),
                uid: Some(self.uid()),
                account: "web".to_owned(),
            },
            writer: if self.mode == "csi" { Writer::Csi } else { Writer::Sidecar },
            volume: (self.mode == "csi").then(|| "csi-1".to_owned()),
            generation: id(&self.generation),
            since: Some("2026-01-01T00:00:00Z".to_owned()),
            newest: id(&self.newest),
            held: self.held(),
            pinned: self.pinned.clone().map(GenerationId),
            pin_refused: self.pin_refused.clone().map(GenerationId),
            advance: self.advance.clone(),
            refresh: self.refresh.clone(),
            denied: self.denied.clone(),
            failing: if self.failing { vec![failing] } else { Vec::new() },
            secrets: vec![HeldSecret {
                reference: "vault:secret/data/db".to_owned(),
                version: Some(if self.generation == "aaaa" { "1" } else { "2" }.to_owned()),
                lease: false,
            }],
            ..ReportLine::default()
        }
        .to_text()
    }

    fn object(&self) -> Value {
        let container = |name: &str| {
            let plan = self.plan.as_ref().filter(|_| name.starts_with("hushpod"));
            let env: Vec<_> = plan.iter().map(|plan| json!({"name": "HUSHPOD_PLAN", "value": plan})).collect();
            json!({"name": name, "image": "x", "env": env})
        };
        let (init, volumes) = match self.mode {
            "sidecar" => (vec![container("hushpod")], json!([])),
            "init+sidecar" => (vec![container("hushpod-init"), container("hushpod")], json!([])),
            "init" => (vec![container("hushpod-init")], json!([])),
            "csi" => (vec![], json!([{"name": "hushpod-secrets", "csi": {"driver": "csi.hushpod.dev"}}])),
            _ => (vec![], json!([])),
        };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": self.namespace, "name": self.name, "uid": self.uid(), "labels": self.labels,
                "annotations": self.annotations, "creationTimestamp": "2025-01-01T00:00:00Z",
                "deletionTimestamp": self.is_deleting.then_some("2026-01-01T00:00:00Z"),
            },
            "spec": {
                "nodeName": Some(&self.node).filter(|node| !node.is_empty()), "initContainers": init, "containers": [container("app")], "volumes": volumes,
            },
            "status": {
                "phase": self.phase,
                "conditions": [{"type": "Ready", "status": if self.is_unready { "False" } else { "True" }}],
            },
        })
    }
}

// === impl World ===

impl World {
    fn rotate(&mut self, newest: &str) {
        for pod in &mut self.pods {
            newest.clone_into(&mut pod.newest);
            if !pod.held() && pod.pinned.is_none() {
                newest.clone_into(&mut pod.generation);
            }
        }
    }

    fn generations(&self) -> Vec<&str> {
        self.pods.iter().map(|pod| pod.generation.as_str()).collect()
    }

    fn list(&self, namespace: Option<&str>, query: &BTreeMap<String, String>) -> Value {
        let selector = query.get("labelSelector").cloned().unwrap_or_default();
        let wanted: Vec<_> = selector.split(',').filter_map(|part| part.split_once('=')).collect();
        let is_wanted = |pod: &&Pod| {
            let has = |(name, value): &(&str, &str)| pod.labels.get(*name).is_some_and(|label| label == value);
            namespace.is_none_or(|namespace| pod.namespace == namespace) && wanted.iter().all(has)
        };
        let all: Vec<_> = self.pods.iter().filter(is_wanted).collect();
        let limit = query.get("limit").map_or(PAGE, |limit| limit.parse().unwrap()).min(PAGE);
        let from: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
        let to = (from + limit).min(all.len());
        let token = match () {
            () if self.repeats_pages => from.to_string(),
            () if to < all.len() => to.to_string(),
            () => String::new(),
        };
        let items: Vec<_> = all[from..to].iter().map(|pod| pod.object()).collect();
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": token}, "items": items})
    }

    /// Of whatever kind, and whatever stands in its spec besides, such as `paused`.
    fn workload(&self, name: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"app": name}}, "paused": true,
                "template": {"metadata": {"annotations": self.template}},
            },
        })
    }

    fn patch(&mut self, namespace: &str, name: &str, patch: &Value) -> (StatusCode, Value) {
        let count = self.told.len();
        let breaks = self.breaks_after.is_some_and(|after| count >= after);
        let Some(pod) = self.pods.iter_mut().find(|pod| pod.namespace == namespace && pod.name == name) else {
            return (StatusCode::NOT_FOUND, status(404, "not found"));
        };
        assert_eq!(patch["metadata"]["uid"], pod.uid(), "another pod of the same name may be there by now");
        for (key, value) in patch["metadata"]["annotations"].as_object().unwrap() {
            match value.as_str() {
                Some(value) => pod.annotations.insert(key.clone(), value.to_owned()),
                None => pod.annotations.remove(key),
            };
        }
        pod.is_deleting |= pod.goes;
        if !pod.is_deaf && !pod.is_deleting {
            pod.obey();
        }
        pod.is_unready |= breaks;
        let object = pod.object();
        self.told.push(name.to_owned());
        (StatusCode::OK, object)
    }

    fn log(&self, namespace: &str, name: &str, query: &BTreeMap<String, String>) -> (StatusCode, Vec<u8>) {
        let Some(pod) = self.pods.iter().find(|pod| pod.namespace == namespace && pod.name == name) else {
            return (StatusCode::NOT_FOUND, status(404, "not found").to_string().into_bytes());
        };
        assert!(
            query.contains_key("tailLines") && query.contains_key("limitBytes"),
            "every look is bounded: {query:?}"
        );
        if query.contains_key("previous") {
            return (
                StatusCode::BAD_REQUEST,
                status(400, "previous terminated container not found").to_string().into_bytes(),
            );
        }
        if let Some(Err(message)) = pod.log {
            return (StatusCode::INTERNAL_SERVER_ERROR, status(500, message).to_string().into_bytes());
        }
        let container = query.get("container").map_or("", String::as_str);
        let log = if container == "csi" {
            let of_node = self.pods.iter().filter(|other| other.mode == "csi" && other.node == pod.node);
            of_node.map(|other| other.report() + "\n").collect::<String>().into_bytes()
        } else {
            assert!(["hushpod", "hushpod-init"].contains(&container), "{container}");
            let text = "2026-01-01T00:00:00Z  INFO the first files are in place\n".to_owned() + &pod.report() + "\n";
            pod.log.clone().and_then(Result::ok).unwrap_or(text.into_bytes())
        };
        // As kubelet does: the last lines, and of these the first bytes.
        let number = |name: &str| query.get(name).and_then(|number| number.parse::<usize>().ok()).unwrap();
        let lines: Vec<_> = log.split_inclusive(|byte| *byte == b'\n').collect();
        let mut tail = lines[lines.len().saturating_sub(number("tailLines"))..].concat();
        tail.truncate(number("limitBytes"));
        (StatusCode::OK, tail)
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "NotFound", "message": message, "metadata": {}})
}

async fn answer(State(cluster): State<Cluster>, request: Request) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let decoded =
        |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let query: BTreeMap<_, _> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
    {
        let mut world = cluster.world();
        world.at_work += 1;
        world.most_at_work = world.most_at_work.max(world.at_work);
    }
    // Others come meanwhile.
    tokio::task::yield_now().await;
    let mut world = cluster.world();
    world.at_work -= 1;
    let parts: Vec<_> = uri.path().split('/').skip(1).collect();
    let asked;
    let (kind, response) = match (&method, &parts[..]) {
        (&Method::GET, ["api", "v1", "pods"]) => {
            ("list pods", (StatusCode::OK, Body::from(world.list(None, &query).to_string())))
        }
        (&Method::GET, ["api", "v1", "namespaces", namespace, "pods"]) => {
            ("list pods", (StatusCode::OK, Body::from(world.list(Some(namespace), &query).to_string())))
        }
        (&Method::GET, ["api", "v1", "namespaces", namespace, "pods", name]) => {
            let found = world.pods.iter().find(|pod| pod.namespace == *namespace && pod.name == *name).map(Pod::object);
            let code = if found.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
            (
                "get pods",
                (code, Body::from(found.unwrap_or_else(|| status(404, "pods not found\u{1b}[2J")).to_string())),
            )
        }
        (&Method::PATCH, ["api", "v1", "namespaces", namespace, "pods", name]) => {
            let (code, object) = world.patch(namespace, name, &serde_json::from_slice(&body).unwrap());
            ("patch pods", (code, Body::from(object.to_string())))
        }
        (&Method::GET, ["api", "v1", "namespaces", namespace, "pods", name, "log"]) => {
            let (code, bytes) = world.log(namespace, name, &query);
            ("get pods/log", (code, Body::from(bytes)))
        }
        (&Method::GET, ["apis", group, "v1", "namespaces", _, plural, name @ ("web" | "idle")]) => {
            assert_eq!(*group, if *plural == "jobs" { "batch" } else { "apps" });
            let workload = world.workload(name);
            asked = format!("get {plural}");
            (&*asked, (StatusCode::OK, Body::from(workload.to_string())))
        }
        _ => ("unknown", (StatusCode::NOT_FOUND, Body::from(status(404, "no such thing").to_string()))),
    };
    world.requests.push(kind.to_owned());
    response.into_response()
}

// === impl Cluster ===

impl Cluster {
    fn of(pods: impl IntoIterator<Item = Pod>) -> Self {
        let cluster = Self::default();
        cluster.world().pods.extend(pods);
        cluster
    }

    /// Four replicas.
    fn of_four() -> Self {
        Self::of((1..=4).map(|n| Pod::new("a", &format!("web-{n}"), if n == 4 { "init+sidecar" } else { "sidecar" })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn annotate_all(&self, name: &str, value: &str) {
        for pod in &mut self.world().pods {
            pod.annotations.insert(format!("hushpod.dev/{name}"), value.to_owned());
        }
    }

    /// Runs the program, as a person would, in namespace `a`.
    fn run(&self, line: &str) -> Told {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("config");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "a"}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let app = Router::new().fallback(answer).with_state(self.clone());
        runtime.spawn(async { axum::serve(listener, app).await });
        let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod"));
        command.arg("kubectl").args(line.split(' ')).arg("--kubeconfig").arg(&kubeconfig).stdin(Stdio::null());
        let told = Told::of(command.output().unwrap());
        runtime.shutdown_timeout(Duration::from_secs(1));
        told
    }
}

/// What the program said.
#[derive(Debug)]
struct Told {
    code: i32,
    out: String,
    err: String,
}

impl Told {
    fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[test]
fn a_thousand_pods_cost_a_request_each_and_a_list_in_pages() {
    let mut pods: Vec<_> =
        (0..1000).map(|n| Pod::new(&format!("ns-{}", n % 7), &format!("web-{n}"), "sidecar")).collect();
    // Such as have nothing of ours are not looked at any further.
    pods.extend((0..100).map(|n| Pod::new("others", &format!("other-{n}"), "none")));
    let cluster = Cluster::of(pods);
    let told = cluster.run("status -A -o json");
    assert_eq!((told.code, told.json()["pods"].as_array().unwrap().len()), (0, 1000), "{}", told.err);
    let world = cluster.world();
    let count = |kind: &str| world.requests.iter().filter(|request| *request == kind).count();
    assert_eq!((count("list pods"), count("get pods/log"), world.requests.len()), (3, 1000, 1003));
    assert!((2..=16).contains(&world.most_at_work), "{} at a time", world.most_at_work);
    drop(world);
    cluster.world().repeats_pages = true;
    let told = cluster.run("status -A");
    assert!(told.code == 1 && told.err.contains("one page again and again"), "{told:?}");
}

#[test]
fn a_status_says_what_pods_hold_in_every_mode() {
    let mut pods: Vec<_> = ["sidecar", "init+sidecar", "init", "csi"]
        .into_iter()
        .enumerate()
        .map(|(n, mode)| Pod::new("a", &format!("p{n}"), mode))
        .collect();
    pods[1].failing = true;
    pods[3].node = "n2".to_owned();
    pods[3].newest = "bbbb".to_owned();
    pods[3].annotations.insert("hushpod.dev/hold".to_owned(), "true".to_owned());
    pods.extend([driver_of("n1"), driver_of("n2")]);
    let cluster = Cluster::of(pods);
    let told = cluster.run("status");
    let lines: Vec<_> = told.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(told.code, 0, "{told:?}");
    for (line, parts) in [
        (0, &["POD MODE GENERATION SINCE NEWEST STATE"][..]),
        (1, &["p0 sidecar aaaa", "same current"]),
        (2, &["p1 init+sidecar aaaa", "vault denied for"]),
        (3, &["p2 init aaaa", "same current"]),
        (4, &["p3 csi aaaa", "bbbb held"]),
    ] {
        assert!(parts.iter().all(|part| lines[line].contains(part)), "{lines:?}");
    }
    // The log of one node's driver, since no pod of the other is of mode csi.
    assert_eq!(cluster.world().requests.iter().filter(|request| *request == "get pods/log").count(), 4);
    // A pod with the driver's labels in another namespace is not believed.
    let mut liar = cluster.world().pods.last().unwrap().clone();
    liar.namespace = "tenant".to_owned();
    cluster.world().pods.push(liar);
    let told = cluster.run("status p3");
    assert!(told.out.contains("say --csi-namespace"), "{told:?}");
    let told = cluster.run("status p3 --csi-namespace kube-system");
    assert!(told.out.contains("held"), "{told:?}");
    // A node that is down hides its own pods alone.
    let mut other = cluster.world().pods[3].clone();
    (other.name, other.node) = ("p4".to_owned(), "n1".to_owned());
    cluster.world().pods.push(other);
    let cut_off = "Get https://10.0.0.2:10250/containerLogs: dial tcp: i/o timeout\u{1b}[2J";
    cluster.world().pods.iter_mut().filter(|pod| pod.name == "driver-n1").for_each(|pod| pod.log = Some(Err(cut_off)));
    let told = cluster.run("status --csi-namespace kube-system");
    let line = |name: &str| told.out.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("p3").contains("held"), "{told:?}");
    assert!(line("p4").contains("cannot be read") && line("p4").contains("i/o timeout\\u{1b}"), "{told:?}");
}

fn driver_of(node: &str) -> Pod {
    let mut driver = Pod::new("kube-system", &format!("driver-{node}"), "none");
    node.clone_into(&mut driver.node);
    let labels = [("app.kubernetes.io/part-of", "hushpod"), ("app.kubernetes.io/component", "csi")];
    driver.labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    driver
}

#[test]
fn on_a_node_without_the_driver_a_pod_says_whose_pods_it_would_be() {
    for (annotation, part) in [
        (None, "no pod of the CSI driver is on its node"),
        (Some("nodes/hushpod-csi"), "no pod of DaemonSet nodes/hushpod-csi is on its node"),
        (Some("x\u{1b}[2J"), "no pod of DaemonSet x\\u{1b}[2J is on its node"),
    ] {
        let mut pod = Pod::new("a", "p0", "csi");
        "n2".clone_into(&mut pod.node);
        pod.annotations.extend(annotation.map(|text| ("csi.hushpod.dev/daemon-set".to_owned(), text.to_owned())));
        let told = Cluster::of(vec![pod, driver_of("n1")]).run("status --csi-namespace kube-system");
        assert!(told.out.lines().any(|line| line.starts_with("p0") && line.contains(part)), "{told:?}");
    }
}

#[test]
fn the_last_report_counts_however_long_the_ones_before_it_are() {
    let many = |generation: &str| ReportLine {
        generation: Some(GenerationId(generation.to_owned())),
        secrets: vec![HeldSecret { reference: "vault:secret/data/x".repeat(10), ..HeldSecret::default() }; 90],
        ..ReportLine::default()
    };
    let old = many("0000").to_text() + "\n";
    let pod = |name: &str, noise: &str, end: &str| {
        let log = (old.clone() + noise).repeat(300) + &many("ffff").to_text() + "\n" + end;
        Pod { log: Some(Ok(log.into_bytes())), ..Pod::new("a", name, "sidecar") }
    };
    let (long, endless) = ("x".repeat(12 << 10) + "\n", "x".repeat(3 << 20));
    let cluster = Cluster::of([pod("web", "", ""), pod("wordy", &long, ""), pod("noisy", "", &endless)]);
    for (name, reads) in [("web", 1), ("wordy", 2), ("noisy", 3)] {
        cluster.world().requests.clear();
        let told = cluster.run(&format!("status {name}"));
        assert!(told.out.contains("ffff") && !told.out.contains("0000"), "{told:?}");
        let made = cluster.world().requests.iter().filter(|request| *request == "get pods/log").count();
        assert_eq!(made, reads, "{name}");
    }
}

#[test]
fn p5_what_tenants_write_into_logs_gives_the_terminal_no_orders() {
    let mut pods = Vec::new();
    let hostile = Pod { generation: "\u{1b}]0;x\u{7}\u{202e}".to_owned(), ..Pod::new("a", "liar", "sidecar") };
    let log = |name: &str, bytes: Vec<u8>| Pod { log: Some(Ok(bytes)), ..Pod::new("a", name, "sidecar") };
    pods.push(log("raw", hostile.report().replace("\\u001b", "\u{1b}").into_bytes()));
    pods.push(hostile);
    pods.push(log("noise", vec![0x1b; 3 << 20]));
    pods.push(log(
        "long",
        format!("{{\"event\":\"report\",\"schema\":1,\"x\":\"{}\"}}\n", "x".repeat(2 << 20)).into_bytes(),
    ));
    pods.push(log("empty", Vec::new()));
    let cluster = Cluster::of(pods);
    for line in
        ["status", "status -o wide", "status -o json", "history liar", "who vault:secret/data/db", "status gone"]
    {
        let told = cluster.run(line);
        let text = (told.out.clone() + &told.err).replace('\n', "");
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line}: {text:?}");
    }
    let told = cluster.run("status");
    assert_eq!(told.out.matches("no report in the log of hushpod").count(), 4, "{told:?}");
}

#[test]
fn held_pods_advance_in_waves_and_go_on_where_they_were() {
    let cluster = Cluster::of_four();
    let told = cluster.run("hold deploy/web");
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.contains("next pods of deploy/web start with the newest, and follow it"), "{told:?}");
    assert!(cluster.world().pods.iter().all(Pod::held));
    cluster.world().rotate("bbbb");

    let told = cluster.run("advance deploy/web --dry-run --max 25%");
    assert!(told.code == 0 && told.out.contains("4: web-") && told.out.contains("nothing was changed"), "{told:?}");
    assert_eq!(cluster.world().generations(), ["aaaa"; 4]);

    // The third pod does not do as it is told, as after Ctrl-C.
    cluster.world().pods[2].is_deaf = true;
    cluster.world().told.clear();
    let told = cluster.run("advance deploy/web --max 1 --timeout 1s");
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.err.contains("web-3") && told.err.contains("to go on"), "{told:?}");
    assert_eq!(cluster.world().generations(), ["bbbb", "bbbb", "aaaa", "aaaa"]);
    assert_eq!(cluster.world().told, ["web-1", "web-2", "web-3"], "one at a time, and the fourth was not touched");

    // It comes to its senses, and the same command goes on with the same wave.
    {
        let mut world = cluster.world();
        world.pods[2].is_deaf = false;
        world.pods[2].obey();
        world.told.clear();
        world.rotate("cccc");
    }
    let told = cluster.run("advance deploy/web --max 1");
    assert!(told.code == 0 && told.err.contains("goes on"), "{told:?}");
    assert_eq!(cluster.world().told, ["web-4"]);
    assert_eq!(cluster.world().generations(), ["bbbb", "bbbb", "bbbb", "cccc"]);
    assert!(cluster.world().pods.iter().all(Pod::held), "all are held as before");

    // Another one is for all.
    cluster.world().told.clear();
    assert_eq!(cluster.run("advance deploy/web --max 50%").code, 0);
    assert_eq!(cluster.world().generations(), ["cccc"; 4]);
    assert_eq!(cluster.world().told.len(), 4);
    cluster.world().told.clear();
    let wave = cluster.world().pods[0].advance.clone().unwrap().id;
    let told = cluster.run(&format!("advance deploy/web --wave {wave}"));
    assert!(told.code == 0 && told.out.contains("4 done before") && cluster.world().told.is_empty(), "{told:?}");

    cluster.world().rotate("dddd");
    assert_eq!(cluster.run("release deploy/web").code, 0);
    assert_eq!(cluster.world().generations(), ["dddd"; 4]);
    assert!(cluster.world().pods.iter().all(|pod| pod.annotations.is_empty()), "nothing of it is left");
}

#[test]
fn a_wave_stops_where_a_pod_is_ready_no_more() {
    let cluster = Cluster::of_four();
    cluster.annotate_all("hold", "true");
    cluster.world().rotate("bbbb");
    cluster.world().breaks_after = Some(1);
    let told = cluster.run("advance deploy/web --max 1 --timeout 1s");
    assert_eq!(told.code, 4, "{told:?}");
    assert!(told.err.contains("not ready any more: web-2"), "{told:?}");
    assert_eq!(cluster.world().generations(), ["bbbb", "bbbb", "aaaa", "aaaa"]);
}

/// What an on-call person meets: pods that go, that have ended, that are not there yet, whose node is away.
#[test]
fn pods_that_go_are_not_waited_for() {
    let cluster = Cluster::of_four();
    {
        let mut world = cluster.world();
        world.pods[0].is_deleting = true;
        world.pods[1].phase = "Succeeded";
        // Told, it is deleted, and its last report stays in its log.
        world.pods[2].goes = true;
    }
    let told = cluster.run("refresh deploy/web");
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.starts_with("2 pods are left out: ended, being deleted"), "{told:?}");
    assert!(told.out.contains("refresh: 2 pods\n") && told.out.ends_with("done: 1 pod, 1 is gone\n"), "{told:?}");
    assert_eq!(cluster.world().told.len(), 2);
    let told = cluster.run("status -o json");
    let pods = told.json()["pods"].as_array().unwrap().clone();
    let deleting: Vec<_> = pods.iter().map(|pod| pod["is_deleting"].as_bool().unwrap()).collect();
    assert_eq!(deleting, [true, false, true, false], "{told:?}");
    let told = cluster.run("status web-1");
    assert!(told.out.contains("being deleted"), "{told:?}");
    // Those alone are left: nothing could be told, which is no success.
    cluster.world().pods.truncate(3);
    let told = cluster.run("refresh -l app=web");
    assert!(told.code == 1 && told.out.starts_with("3 pods are left out"), "{told:?}");
    assert!(told.err.contains("no pod to tell"), "{told:?}");
}

#[test]
fn pods_without_a_report_are_named_with_the_reason() {
    let waiting = "container \"hushpod\" in pod \"web-1\" is waiting to start: PodInitializing";
    let away = "Get https://10.0.0.9:10250/containerLogs: dial tcp: connect: no route to host";
    for (message, phase) in [(waiting, "Pending"), (away, "Running")] {
        let cluster = Cluster::of([
            Pod { log: Some(Err(message)), phase, ..Pod::new("a", "web-1", "sidecar") },
            Pod::new("b", "web-1", "sidecar"),
        ]);
        let told = cluster.run("status");
        assert!(told.code == 0 && told.out.contains(message), "{told:?}");
        let told = cluster.run("who vault:secret/data/db");
        let why = format!("1 pod has no report that can be read ({message})");
        assert!(told.code == 0 && told.err.contains(&why), "{told:?}");
        // Of two of one name, the one that is meant.
        let told = cluster.run("hold -A -l app=web --timeout 1s");
        assert!(told.code == 3 && told.err.contains("1 pod has not reported within 1 s"), "{told:?}");
        assert!(told.err.contains(message) && !told.err.contains("b/web-1"), "{told:?}");
        let told = cluster.run("advance -A -l app=web --dry-run");
        assert!(told.out.contains("1: web-1 b/web-1") || told.out.contains("1: b/web-1"), "{told:?}");
    }
    // On no node yet, and on one without a driver.
    for (node, part) in [("", "on no node yet"), ("fargate-1", "no pod of the CSI driver is on its node")] {
        let cluster = Cluster::of([Pod { node: node.to_owned(), ..Pod::new("a", "web-1", "csi") }]);
        let told = cluster.run("history web-1");
        assert!(told.code == 1 && told.err.contains(part), "{told:?}");
        assert_eq!(cluster.run("status").code, 0);
    }
}

#[test]
fn pin_and_refresh_wait_for_the_reports() {
    let cluster = Cluster::of_four();
    cluster.world().rotate("bbbb");
    assert_eq!(cluster.run("pin aaaa web-1 web-2").code, 0);
    assert_eq!(cluster.world().generations(), ["aaaa", "aaaa", "bbbb", "bbbb"]);
    let told = cluster.run("status web-1");
    assert!(told.out.contains("pinned"), "{told:?}");
    let told = cluster.run("pin 0123 web-3");
    assert!(told.code == 1 && told.err.contains("cannot go back to that generation: web-3"), "{told:?}");
    assert_eq!(cluster.run("release web-3").code, 0);
    assert_eq!(cluster.run("release web-1").code, 0);
    assert_eq!(cluster.run("refresh -l app=web --max 2").code, 0);
    assert!(cluster.world().pods.iter().all(|pod| pod.refresh.as_ref().is_some_and(|asked| asked.done)));
}

#[test]
fn p9_what_is_asked_wrongly_is_answered_with_what_would_be_accepted() {
    let mut cluster = Cluster::of_four();
    cluster.world().pods.push(Pod::new("a", "bare", "none"));
    cluster.world().pods.push(Pod::new("a", "once", "init"));
    for (line, code, part) in [
        ("status nobody", 1, "pods not found"),
        ("status bare", 1, "has no secrets of hushpod"),
        ("status deploi/web", 2, "did you mean \"deploy"),
        ("status deploy/other", 1, "deploy/other"),
        ("status ../x", 2, "unknown kind"),
        ("status deploy/a/b", 2, "invalid name"),
        ("hold", 2, "say which pods"),
        ("hold -A", 2, "say which pods"),
        ("pin latest web-1", 2, "invalid generation"),
        ("advance web-1 --wave a/b", 2, "invalid wave"),
        ("hold web-1 --max 0", 2, "10%"),
        ("hold web-1 --max 101%", 2, "from 1% to 100%"),
        ("status cronjob/web", 2, "expected one of deployment"),
        ("status deployment.batch/web", 2, "unknown kind"),
        ("status ingress/web", 2, "expected one of deployment"),
        ("history deploy/web", 2, "a history is of one pod: those of deploy/web are web-1, web-2, web-3, web-4"),
        ("history deploy/idle", 2, "are none now"),
        ("hold -l app=wbe", 1, "nothing in namespace a has running pods with secrets of hushpod for labels app=wbe"),
        ("advance -A -l app=wbe", 1, "no namespace has running pods"),
        ("release deploy/idle --dry-run", 1, "for deploy/idle"),
        ("hold once", 1, "no pod to tell"),
        ("explain-denial /nowhere", 2, "/nowhere"),
    ] {
        let told = cluster.run(line);
        assert_eq!(told.code, code, "{line}: {told:?}");
        assert!(told.err.contains(part), "{line}: {told:?}");
    }
    cluster = Cluster::default();
    assert!(cluster.run("status -A").out.contains("no pods"));
}

/// A kubeconfig of a person whose cluster, or whose login, is not what it was.
#[test]
fn p5_what_is_in_the_way_to_the_cluster_is_said_without_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let exec = |script: &str| json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}});
    let config = |user: Value, context: &str| {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{nobody}")}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "a"}}],
            "users": [{"name": "u", "user": user}],
        })
        .to_string()
    };
    let absent = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/nowhere/login", "interactiveMode": "Never"}});
    for (text, part) in [
        (config(json!({}), "c"), "pods cannot be listed: the API server cannot be reached: Connection refused"),
        (config(absent, "c"), "program for logins cannot be started: No such file"),
        (config(exec("echo canary; exit 3"), "c"), "ends with exit status: 3: run it by hand"),
        (
            config(exec("echo canary; echo 'the session has ended' >&2; exit 1"), "c"),
            "exit status: 1: the session has ended",
        ),
        (config(exec("echo canary-token"), "c"), "prints something other than an ExecCredential"),
        (config(json!({}), ""), "current context"),
        (config(json!({}), "gone"), "gone"),
        ("users: [{name: u, user: {token: canary}}".to_owned(), "is not a kubeconfig"),
        ("canary".to_owned(), "is not a kubeconfig"),
    ] {
        std::fs::write(&file, &text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod"));
        let told = Told::of(command.args(["kubectl", "status", "--kubeconfig"]).arg(&file).output().unwrap());
        assert!(told.code == 1 && told.err.contains(part), "{text}: {told:?}");
        assert!(!told.err.contains("canary") && told.err.lines().count() == 1, "{text}: {told:?}");
    }
}

#[test]
fn who_holds_a_secret_and_who_ever_did() {
    let cluster = Cluster::of_four();
    cluster.annotate_all("hold", "true");
    cluster.world().rotate("bbbb");
    cluster.run("advance web-1");
    let told = cluster.run("who secret/data/db --version 2");
    assert!(told.out.contains("web-1") && !told.out.contains("web-2"), "{told:?}");
    let told = cluster.run("who vault:secret/data/db#password -o json");
    assert_eq!(told.json()["pods"].as_array().unwrap().len(), 4, "{told:?}");
    let told = cluster.run("who vault:secret/data/other");
    assert!(told.out.contains("no pod reports"), "{told:?}");
    let told = cluster.run("history web-1");
    assert!(told.out.contains("bbbb") && told.out.contains("advance"), "{told:?}");

    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: Vec<_> =
        page("src/audit.md").lines().filter(|line| line.starts_with("{\"audit\"")).map(str::to_owned).collect();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    cluster.world().requests.clear();
    let told = cluster.run(&format!("who vault:secret/data/db --version 7 --from-audit {}", file.path().display()));
    assert!(told.out.contains("web-7d4b9") && told.out.contains("shop"), "the page's own lines: {told:?}");
    assert!(cluster.world().requests.is_empty(), "the cluster is not asked");
    let file = file.path().to_str().unwrap();
    let told = Command::new(env!("CARGO_BIN_EXE_hushpod"))
        .args(["kubectl", "who", "secret/data/db", "--from-audit", file, "--kubeconfig", "/nowhere/config"])
        .env_clear()
        .env("KUBECONFIG", "/nowhere/config")
        .output()
        .unwrap();
    let told = Told::of(told);
    assert!(told.code == 0 && told.out.contains("web-7d4b9"), "no configuration of a cluster is needed: {told:?}");
}

#[test]
fn who_holds_what_a_changed_configuration_refuses() {
    let mut pods: Vec<_> = (1..=3).map(|n| Pod::new("a", &format!("web-{n}"), "sidecar")).collect();
    pods.push(Pod::new("b", "other", "sidecar"));
    let cluster = Cluster::of(pods);
    let asked = |deny: &str, more: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let vault = "image: i\nproviders: {vault: {type: vault, address: 'https://v'}}\n";
        std::fs::write(file.path(), format!("{vault}{deny}")).unwrap();
        cluster.run(&format!("who -A --denied-by {}{more}", file.path().display()))
    };
    for (deny, holders) in [
        (
            "deny: [{references: ['vault:secret/data/other']}, {references: ['vault:secret/data/*'], namespaces: [a]}]",
            3,
        ),
        ("deny: [{references: ['vault:v1/secret/data/db']}]", 4),
        ("deny: [{namespaces: [b], serviceAccounts: [web]}]", 1),
        ("deny: [{namespaces: [b], serviceAccounts: [other]}]", 0),
    ] {
        let told = asked(deny, " -o json");
        assert_eq!((told.code, told.json()["pods"].as_array().unwrap().len()), (0, holders), "{deny}: {told:?}");
    }
    let told = asked("deny: [{namespaces: [c]}, {namespaces: [b]}]", "");
    assert!(told.out.contains("RULE") && told.out.contains("other") && told.out.contains("deny[1]"), "{told:?}");
    assert!(!told.out.contains("web-1"), "{told:?}");
    assert!(asked("deny: [{namespaces: [c]}]", "").out.contains("no pod reports that it holds what is denied"));
    // Both faults, with their places.
    let told = asked("deny: [{}]\nmadeUp: 1", "");
    assert!(told.code == 2 && told.err.contains(":3:") && told.err.contains(":4:"), "{told:?}");
    let told = asked("", "");
    assert!(told.code == 2 && told.err.contains("has no deny"), "{told:?}");
    assert_eq!(asked("deny: [{namespaces: [a]}]", " secret/data/db").code, 2, "one question at a time");
}

#[test]
fn the_program_is_kubectls_plugin_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let run = |name: &str, arguments: &[&str]| {
        let link = directory.path().join(name);
        drop(std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hushpod"), &link));
        Told::of(Command::new(link).args(arguments).stdin(Stdio::null()).output().unwrap())
    };
    let help = run("kubectl-hushpod", &["--help"]);
    assert!(help.code == 0 && help.out.contains("Usage: kubectl hushpod"), "{help:?}");
    let told = run("kubectl_complete-hushpod", &["adv"]);
    assert_eq!((told.code, told.out.as_str()), (0, "advance\n:4\n"), "{told:?}");
    let script = run("kubectl-hushpod", &["completion", "bash"]);
    assert!(script.code == 0 && script.out.contains("explain-denial"), "{script:?}");
    assert!(run("hushpod", &["completion", "fish"]).out.contains("kubectl"));
    let help = run("hushpod", &["kubectl", "--help"]);
    assert!(help.out.contains("explain-denial"), "{help:?}");
}

#[test]
fn what_a_denial_is_about_is_explained() {
    let explain = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod"));
        Told::of(command.args(["kubectl", "explain-denial"]).arg(file.path()).output().unwrap())
    };
    let topics = |told: &Told| -> BTreeSet<String> {
        told.out.lines().filter_map(|line| Some(line.split_once("hushpod explain ")?.1.to_owned())).collect()
    };
    let mut seen = BTreeSet::new();
    for text in [
        "Error from server: admission webhook \"hushpod.dev\" denied the request: annotation hushpod.dev/notify: x",
        "annotation hushpod.dev/file.x: namespace \"a\" may not request vault:b (the operator's allow rules)",
        "annotation hushpod.dev/fiel.x: unknown key",
        "runtimeClassName \"kata\" is not in the operator's runtimeClasses: x",
        "ephemeral container \"x\" mounts the volume \"hushpod-secrets\", which is hushpod's own: x",
        "annotation hushpod.dev/mode: this cluster has no native sidecars, so a pod",
        "container \"x\" has no command, and the image's own is not known here",
        "init container \"x\" mounts \"v\" but runs before the agent, when there are no files yet",
        "container \"x\" mounts \"v\" but does not get the files: leave the mount out",
        "mode: the CSI driver is not where this pod will run (config.csi.unavailable)",
        "but hushpod does not inject pods of namespace kube-system",
        "they came after the webhook's turn; write them into the pod template",
        "annotations in the metadata of a workload have no effect",
        "Windows pods have no memory volumes",
        "the pod asks for more than one review may take: write fewer",
        "failed calling webhook \"hushpod.dev\": context deadline exceeded",
        "the volume hushpod-bin is not the one that the webhook made: leave it as it is",
        "{\"kind\": \"Status\", \"message\": \"annotation hushpod.dev/hold: x\"}",
    ] {
        let told = explain(text);
        assert!(told.code == 0 && !topics(&told).is_empty(), "{text}: {told:?}");
        seen.extend(topics(&told));
    }
    assert!(seen.len() > 10, "{seen:?}");
    for topic in seen {
        let told = Told::of(Command::new(env!("CARGO_BIN_EXE_hushpod")).arg("explain").arg(&topic).output().unwrap());
        assert_eq!(told.code, 0, "{topic}: {told:?}");
    }
    let told = explain("pods \"x\" is forbidden: exceeded quota");
    assert!(told.code == 1 && told.err.contains("expected the text of a denial"), "{told:?}");
}

/// The rules of a ClusterRole of the chart: `verb resource`.
fn rights(role: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/hushpod/templates/clusterroles.yaml"),
    )
    .unwrap();
    let part = text.split("---\n").find(|part| part.contains(&format!("name: {role}\n"))).unwrap();
    let lists = |line: &str| -> Vec<String> {
        line.split(['[', ']']).nth(1).unwrap().split(',').map(|word| word.trim().to_owned()).collect()
    };
    let mut found = BTreeSet::new();
    let mut resources = Vec::new();
    for line in part.lines() {
        if line.trim().starts_with("resources:") {
            resources = lists(line);
        } else if line.trim().starts_with("verbs:") {
            found.extend(
                lists(line).iter().flat_map(|verb| resources.iter().map(move |resource| format!("{verb} {resource}"))),
            );
        }
    }
    found
}

#[test]
fn the_charts_roles_have_the_rights_that_the_commands_use_and_no_others() {
    let used = |lines: &[&str]| -> BTreeSet<String> {
        let mut driver = Pod::new("kube-system", "driver", "none");
        let labels = [("app.kubernetes.io/part-of", "hushpod"), ("app.kubernetes.io/component", "csi")];
        driver.labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let cluster = Cluster::of_four();
        let of_driver = Pod { denied: Some("deny[0]".to_owned()), ..Pod::new("a", "csi-1", "csi") };
        cluster.world().pods.extend([driver, of_driver]);
        for line in lines {
            assert_eq!(cluster.run(line).code, 0, "{line}");
        }
        cluster.world().requests.iter().cloned().collect()
    };
    let viewer = used(&[
        "status",
        "status deploy/web StatefulSet/web daemonset.apps/web rs/web job.batch/web",
        "status csi-1",
        "history web-1",
        "who vault:x",
    ]);
    assert_eq!(rights("hushpod-viewer"), viewer);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.yaml");
    let rules = "image: i\nproviders: {vault: {type: vault, address: 'https://v'}}\ndeny: [{namespaces: [a]}]\n";
    std::fs::write(&config, rules).unwrap();
    let deny = format!("deny --config {} deploy/web", config.display());
    let mut controls = used(&[
        "hold deploy/web",
        "advance deploy/web",
        "refresh web-1",
        "pin aaaa web-1",
        "release -l app=web",
        &deny,
    ]);
    controls.extend(viewer);
    assert_eq!(rights("hushpod-controls"), controls);
    let page = page("src/fleet.md");
    for right in controls {
        let (verb, resource) = right.split_once(' ').unwrap();
        assert!(
            page.contains(&format!("`{resource}`")) && page.contains(verb),
            "src/fleet.md does not tell of {right}"
        );
    }
}

/// The first cells of a table of the page, by its mark.
fn first_cells(mark: &str) -> Vec<String> {
    let page = page("src/fleet.md");
    let (_, rest) = page.split_once(mark).unwrap_or_else(|| panic!("no {mark}"));
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    table.trim().lines().skip(2).map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect()
}

#[test]
fn the_page_tells_of_every_field_of_a_report_line_and_of_every_exit_code() {
    let id = || GenerationId("4f1c".to_owned());
    let asked = || Some(Asked { id: "w1".to_owned(), done: true });
    let line = ReportLine {
        volume: Some("csi-1".to_owned()),
        problem: Some(Problem::Unusable),
        pin_refused: Some(id()),
        advance: asked(),
        refresh: asked(),
        denied: Some("deny[0]".to_owned()),
        failing: vec![FailingProvider { kind: Some("denied".to_owned()), ..FailingProvider::default() }; 500],
        secrets: vec![HeldSecret { reference: "x".repeat(5000), lease: true, ..HeldSecret::default() }; 2],
        variables: Some(Variables { running: Some(vec![id()]), restart_due: Some(String::new()), restarts: Some(1) }),
        ..ReportLine::default()
    };
    let text = line.to_text();
    let written: Value = serde_json::from_str(&text).unwrap();
    let written: BTreeSet<_> = written.as_object().unwrap().keys().cloned().collect();
    let told = first_cells("<!-- report: tested by tests/integration/fleet.rs -->");
    let told = told.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    assert_eq!(written, told, "{text}");

    let example = page("src/fleet.md");
    let example = example.lines().find(|line| line.starts_with("{\"event\":\"report\"")).unwrap();
    let read = ReportLine::parse(example).unwrap();
    assert_eq!(read.to_text(), example, "the example is what the code writes");

    let help = Command::new(env!("CARGO_BIN_EXE_hushpod")).args(["kubectl", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, codes) = help.split_once("Exit codes: ").unwrap();
    let codes: Vec<_> = codes.split(';').map(|part| part.trim().split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(first_cells("<!-- exit codes: tested by tests/integration/fleet.rs -->"), codes);
}
