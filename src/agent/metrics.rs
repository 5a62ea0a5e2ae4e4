//! The agent's port, where a pod asks for one: metrics for Prometheus, and what `kubectl describe pod` is to show. Plain
//! HTTP, nothing to change and nothing secret: ids of generations, and names of providers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::usage::Usage;
use crate::contract::GENERATIONS_PATH;
use crate::generation::GenerationId;
use crate::metrics::catalogue::{
    BEHIND_FILES, DELIVERED_BYTES, DELIVERED_FILES, DELIVERED_TIME, GENERATION_INFO, GENERATION_PENDING, HELD,
    NOTIFICATIONS, OUTDATED_GENERATIONS, PINNED, RESTART_DUE, RESTARTS, SWAPPABLE,
};
use crate::metrics::{CONTENT_TYPE, Counters, Registry, Sample, count, seconds};
use crate::report::Report;

/// Clients at once: kubelet, Prometheus and a person. More wait in the kernel's queue.
const CONNECTIONS: usize = 8;
/// From the connection to the end of the request's head: a client that says nothing keeps no other waiting.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// From the first byte to the last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts to accept, or to open a port that another container of the pod, or of the node, has.
const PAUSE: Duration = Duration::from_secs(10);
/// How long kubelet is told that a process runs with an old generation: longer than the time between its probes.
const TOLD_FOR: Duration = Duration::from_secs(45);
/// How often it is told again: events are kept for an hour.
const TOLD_EVERY: Duration = Duration::from_mins(30);

/// What is shown. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct MetricsPort {
    number: u16,
    registry: Registry,
    running: Usage,
    shown: Arc<Mutex<Shown>>,
}

#[derive(Debug, Default)]
struct Shown {
    status: Report,
    /// What kubelet was told last, and when it was new.
    told: Option<(String, Instant)>,
}

// === impl MetricsPort ===

impl MetricsPort {
    /// Shows what is in `registry`, and adds what the agent itself knows to it.
    pub(super) fn new(number: u16, registry: Registry, running: Usage, is_swappable: bool) -> Self {
        let shown = Arc::default();
        show(&registry, &shown, &running, is_swappable);
        Self { number, registry, running, shown }
    }

    /// Counts attempts to tell the application.
    pub(super) fn notifications(&self) -> Counters {
        self.registry.counters(&NOTIFICATIONS, &[])
    }

    /// Shows another status from now on.
    pub(super) fn show(&self, status: &Report) {
        lock(&self.shown).status.clone_from(status);
    }

    /// The generations that processes run with.
    pub(super) fn running(&self) -> Vec<GenerationId> {
        self.running.generations().into_iter().collect()
    }

    /// Serves until `shutdown` is cancelled. Whatever goes wrong here is logged: files matter more.
    pub(super) async fn serve(self, shutdown: CancellationToken) {
        let served = async {
            let listener = listen(self.number).await;
            info!(port = self.number, "metrics are served");
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                        Ok((stream, _)) => drop(connections.spawn(self.clone().connection(stream))),
                        Err(error) => {
                            warn!(%error, "metrics: cannot accept connections");
                            sleep(PAUSE).await;
                        }
                    },
                }
            }
        };
        shutdown.run_until_cancelled_owned(served).await;
    }

    async fn connection(self, stream: TcpStream) {
        let service = service_fn(|request: Request<Incoming>| {
            let answer = self.answer(request.method(), request.uri().path());
            async { Ok::<_, Infallible>(answer) }
        });
        let mut server = http1::Builder::new();
        server.keep_alive(false).max_buf_size(8192).timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        match timeout(CONNECTION_TIMEOUT, server.serve_connection(TokioIo::new(stream), service)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "metrics: connection ended"),
            Err(_) => debug!("metrics: connection took too long"),
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<String> {
        let (status, body) = match path {
            _ if method != Method::GET && method != Method::HEAD => {
                (StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".to_owned())
            }
            "/metrics" => (StatusCode::OK, self.registry.to_string()),
            GENERATIONS_PATH => self.generations(),
            _ => (StatusCode::NOT_FOUND, format!("there are /metrics and {GENERATIONS_PATH}\n")),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let text = header::HeaderValue::from_static(CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response
    }

    /// kubelet makes an event with the body of an answer from 300 to 399, and takes the probe for passed all the same
    /// (<https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/#http-probes>). 300 is one
    /// that no client follows.
    fn generations(&self) -> (StatusCode, String) {
        let running = self.running.generations();
        let mut shown = lock(&self.shown);
        let newest = shown.status.newest_known();
        let sentence = format!("running with generation {}, newest {}", listed(&running), listed(newest));
        if outdated(&running, newest) == 0 {
            shown.told = None;
            return (StatusCode::OK, sentence);
        }
        let since = match &shown.told {
            Some((told, since)) if *told == sentence => since.elapsed(),
            _ => {
                shown.told = Some((sentence.clone(), Instant::now()));
                Duration::ZERO
            }
        };
        let is_told = since.as_secs() % TOLD_EVERY.as_secs() < TOLD_FOR.as_secs();
        (if is_told { StatusCode::MULTIPLE_CHOICES } else { StatusCode::OK }, sentence)
    }
}

/// Adds what the report and the volume say to `registry`.
fn show(registry: &Registry, shown: &Arc<Mutex<Shown>>, running: &Usage, is_swappable: bool) {
    let report = |metric, of: fn(&Report) -> Option<f64>| {
        let shown = Arc::clone(shown);
        registry.read(metric, move || of(&lock(&shown).status));
    };
    let (of_infos, processes) = (Arc::clone(shown), running.clone());
    registry.read_all(&GENERATION_INFO, move || infos(&lock(&of_infos).status, &processes.generations()));
    let (of_outdated, processes) = (Arc::clone(shown), running.clone());
    registry.read(&OUTDATED_GENERATIONS, move || {
        Some(count(outdated(&processes.generations(), lock(&of_outdated).status.newest_known())))
    });
    report(&DELIVERED_TIME, |report| seconds(report.since?));
    report(&DELIVERED_FILES, |report| report.files.map(|files| count(files as u64)));
    report(&DELIVERED_BYTES, |report| report.bytes.map(count));
    report(&BEHIND_FILES, |report| Some(count(report.behind as u64)));
    report(&GENERATION_PENDING, |report| Some(count(report.newest.is_some().into())));
    report(&HELD, |report| Some(count((report.held || report.pinned.is_some()).into())));
    report(&PINNED, |report| Some(count(report.pinned.is_some().into())));
    report(&RESTART_DUE, |report| seconds(report.restart_due?));
    report(&RESTARTS, |report| report.restarts.map(count));
    registry.read(&SWAPPABLE, move || Some(count(is_swappable.into())));
}

fn infos(report: &Report, running: &BTreeSet<GenerationId>) -> Vec<Sample> {
    let delivered = report.generation.iter().map(|id| ("delivered", id));
    let newest = report.newest_known().map(|id| ("newest", id));
    let roles = delivered.chain(newest).chain(running.iter().map(|id| ("running", id)));
    roles.map(|(role, GenerationId(id))| (vec![role.to_owned(), id.clone()], 1.0)).collect()
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until it is free: in a host's network, for one, another pod may have it.
async fn listen(port: u16) -> TcpListener {
    loop {
        let bound = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Err(error) if is_no_ipv6(&error) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
            bound => bound,
        };
        match bound {
            Ok(listener) => return listener,
            Err(error) => warn!(port, %error, "no metrics: the port cannot be opened; trying again in {PAUSE:?}"),
        }
        sleep(PAUSE).await;
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

fn outdated(running: &BTreeSet<GenerationId>, newest: Option<&GenerationId>) -> u64 {
    running.iter().filter(|id| Some(*id) != newest).count() as u64
}

fn listed<'a>(ids: impl IntoIterator<Item = &'a GenerationId>) -> String {
    let ids: Vec<_> = ids.into_iter().map(|id| id.0.as_str()).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(" and ") }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::UNIX_EPOCH;

    use rustix::fs::{FlockOperation, flock};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::advance;

    use super::*;
    use crate::contract::RUNNING;
    use crate::metrics::tests::{announced, names_of, samples};
    use crate::source::SourceMetrics;

    fn id(text: &str) -> GenerationId {
        GenerationId(text.to_owned())
    }

    /// A volume where processes run with `g1`, and with `g2`.
    fn volume() -> (tempfile::TempDir, MetricsPort, [File; 2]) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(RUNNING)).unwrap();
        let held = ["g1", "g2"].map(|id| {
            let file = File::create_new(dir.path().join(RUNNING).join(id)).unwrap();
            flock(&file, FlockOperation::NonBlockingLockShared).unwrap();
            file
        });
        let port = MetricsPort::new(0, Registry::of_this_build(), Usage::new(dir.path()), true);
        (dir, port, held)
    }

    fn status(delivered: &str, newest: Option<&str>) -> Report {
        Report { generation: Some(id(delivered)), newest: newest.map(id), ..Report::default() }
    }

    fn ask(port: &MetricsPort) -> (u16, String) {
        let response = port.answer(&Method::GET, GENERATIONS_PATH);
        (response.status().as_u16(), response.into_body())
    }

    #[tokio::test(start_paused = true)]
    async fn kubelet_is_told_for_a_while_of_processes_that_run_with_an_old_generation() {
        let (_dir, port, held) = volume();
        port.show(&status("g2", None));
        let both = "running with generation g1 and g2, newest g2".to_owned();
        let seconds = async |seconds| advance(Duration::from_secs(seconds)).await;
        for (wait, expected) in [(0, 300), (30, 300), (20, 200), (1700, 200), (60, 300), (60, 200)] {
            seconds(wait).await;
            assert_eq!(ask(&port), (expected, both.clone()), "after another {wait} s");
        }
        // Held back, or not read by anybody yet: the newest is what the store has.
        port.show(&status("g2", Some("g3")));
        assert_eq!(ask(&port), (300, "running with generation g1 and g2, newest g3".to_owned()));
        let [first, second] = held;
        drop(first);
        assert_eq!(ask(&port), (300, "running with generation g2, newest g3".to_owned()));
        port.show(&status("g2", None));
        assert_eq!(ask(&port), (200, "running with generation g2, newest g2".to_owned()));
        port.show(&status("g4", None));
        assert_eq!(ask(&port).0, 300, "new again");
        drop(second);
        assert_eq!(ask(&port), (200, "running with generation none, newest g4".to_owned()));
    }

    /// Whatever a client says within the first second, it has said all of its head by then or is cut off.
    #[tokio::test(start_paused = true)]
    async fn a_client_has_a_second_for_its_head() {
        let (_dir, port, _held) = volume();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // (what it says at once, what it adds every 300 ms) → how an answer begins
        for (first, more, answer) in [
            ("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", "", "HTTP/1.1 200"),
            ("", "", ""),
            ("GET /metrics HTTP/1.1\r\nhost: x\r\n", "", ""),
            ("GET /metrics HTTP/1.1\r\n", "a: b\r\n", ""),
        ] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let start = Instant::now();
            let served = tokio::spawn(port.clone().connection(stream));
            client.write_all(first.as_bytes()).await.unwrap();
            while !more.is_empty() && !served.is_finished() {
                sleep(Duration::from_millis(300)).await;
                drop(client.write_all(more.as_bytes()).await);
            }
            served.await.unwrap();
            let took = start.elapsed();
            let mut told = Vec::new();
            // A client that still writes finds the connection reset.
            drop(client.read_to_end(&mut told).await);
            let told = String::from_utf8(told).unwrap();
            match answer {
                "" => assert!((HEAD_TIMEOUT..HEAD_TIMEOUT * 3 / 2).contains(&took), "{first:?}: {took:?}, {told}"),
                answer => assert!(told.starts_with(answer) && took < HEAD_TIMEOUT, "{first:?}: {took:?}, {told}"),
            }
            assert_eq!(told.is_empty(), answer.is_empty(), "{first:?}: {told}");
        }
    }

    #[test]
    fn metrics_say_what_is_delivered_what_is_newest_and_what_runs() {
        let (_dir, port, _held) = volume();
        let since = Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let said = || port.answer(&Method::GET, "/metrics").into_body();
        let version = concat!("hushpod_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1");
        let empty = [
            version,
            r#"hushpod_generation_info{role="running",generation="g1"} 1"#,
            r#"hushpod_generation_info{role="running",generation="g2"} 1"#,
            "hushpod_outdated_generations 2",
            "hushpod_behind_files 0",
            "hushpod_generation_pending 0",
            "hushpod_held 0",
            "hushpod_pinned 0",
            "hushpod_swappable 1",
        ];
        let full = [
            version,
            r#"hushpod_generation_info{role="delivered",generation="g2"} 1"#,
            r#"hushpod_generation_info{role="newest",generation="g3"} 1"#,
            r#"hushpod_generation_info{role="running",generation="g1"} 1"#,
            r#"hushpod_generation_info{role="running",generation="g2"} 1"#,
            "hushpod_outdated_generations 2",
            "hushpod_delivered_timestamp_seconds 1700000000",
            "hushpod_delivered_files 3",
            "hushpod_delivered_bytes 4096",
            "hushpod_behind_files 1",
            "hushpod_generation_pending 1",
            "hushpod_held 1",
            "hushpod_pinned 0",
            "hushpod_restart_due_timestamp_seconds 1700000000",
            "hushpod_restarts_total 2",
            "hushpod_swappable 1",
        ];
        let report = Report {
            since,
            files: Some(3),
            bytes: Some(4096),
            behind: 1,
            held: true,
            restart_due: since,
            restarts: Some(2),
            ..status("g2", Some("g3"))
        };
        for (report, expected) in [(Report::default(), &empty[..]), (report, &full[..])] {
            port.show(&report);
            let text = said();
            samples(&text);
            let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines, expected);
        }
        port.show(&Report { pinned: Some(id("g2")), ..status("g2", Some("g3")) });
        let pinned = samples(&said());
        assert_eq!((pinned["hushpod_held"], pinned["hushpod_pinned"]), (1.0, 1.0));
        for (method, path, expected) in [(Method::GET, "/", 404), (Method::POST, "/metrics", 405)] {
            assert_eq!(port.answer(&method, path).status().as_u16(), expected, "{method} {path}");
        }
    }

    #[test]
    fn the_agents_metrics_are_those_of_the_page() {
        let (_dir, port, _held) = volume();
        let sources = SourceMetrics::new(&port.registry);
        let (_, _) = (sources.meter("vault"), port.notifications());
        assert_eq!(announced(&port.registry.to_string()), names_of("The agent"));
    }
}
