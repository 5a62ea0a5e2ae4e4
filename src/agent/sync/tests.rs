use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant as RealInstant;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Level;

use super::*;
use crate::agent::gate;
use crate::audit::Program;
use crate::bundle::Format;
use crate::contract::LIVE;
use crate::options::Notify;
use crate::plan::RestartAll;
use crate::process::testing::log::Log;
use crate::provider::ErrorKind;
use crate::source::persisted::FILE;
use crate::source::tests::fake::{FakeClock, Secret, Store, plan, with_plan};

mod audit;
mod controls;
mod denied;
mod restarts;
mod waves;

/// A pod's volumes, its store, and what is asked of it.
struct Pod {
    dir: tempfile::TempDir,
    requests: Vec<&'static str>,
    store: Store,
    clock: FakeClock,
    notify: Vec<Notify>,
    revoke_on_exit: bool,
    refresh_seconds: u64,
    grace: Duration,
    /// Within which time all containers restart for a change of the first request, whose keys are variables.
    restart_all: Option<Duration>,
    /// Who it is, if that is told.
    who: Option<Who>,
}

/// An agent at work.
struct Agent {
    task: JoinHandle<Result<Ended, AgentError>>,
    stop: CancellationToken,
}

impl Pod {
    /// Each request makes a file `f0`, `f1` … with its whole answer as JSON.
    fn new(requests: &[&'static str]) -> Self {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        for name in ["volume", "state", "controls"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::set_permissions(dir.path().join("volume"), fs::Permissions::from_mode(0o1777)).unwrap();
        let (store, clock) = (Store::default(), FakeClock::new());
        Self {
            dir,
            requests: requests.to_vec(),
            store,
            clock,
            notify: Vec::new(),
            revoke_on_exit: false,
            refresh_seconds: 60,
            grace: Duration::from_millis(1),
            restart_all: None,
            who: None,
        }
    }

    /// One whose agent has delivered the first version of `a:x`, to `f0`.
    async fn at_work() -> (Self, Agent) {
        let pod = Self::new(&["a:x"]);
        pod.put("1");
        let agent = pod.start(AgentMode::Sidecar);
        pod.until_file("f0", "x1").await;
        (pod, agent)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, mode: AgentMode) -> Agent {
        let mut plan = plan(&self.requests);
        plan.notify.clone_from(&self.notify);
        if let Some(jitter) = self.restart_all {
            plan.items[0].format = Format::Dotenv;
            let jitter_ms = u64::try_from(jitter.as_millis()).unwrap();
            plan.restart_all = Some(RestartAll { variables: vec!["f0".parse().unwrap()], jitter_ms });
        }
        for provider in plan.providers.values_mut() {
            provider.revoke_on_exit = self.revoke_on_exit;
            provider.refresh_seconds = self.refresh_seconds;
        }
        let audit = self.who.clone().map_or_else(AuditLog::off, |who| AuditLog::new(Program::Agent, who));
        let source = with_plan(&plan, &[("a", &self.store)], &self.clock).audited(audit.clone());
        let paths = AgentPaths {
            volume: self.path("volume"),
            state: self.path("state"),
            controls: self.path("controls"),
            tokens: self.path("tokens"),
            authorities: self.path("ca"),
            bin: self.path("bin"),
            program: self.path("program"),
            termination_log: self.path("termination-log"),
        };
        let stop = CancellationToken::new();
        let (shutdown, grace) = (stop.clone(), self.grace);
        let task = tokio::spawn(async move {
            let volume = GatedVolume::claim(&paths.volume, grace)?;
            Box::pin(SyncLoop::new(mode, plan, source, volume, &paths, None, audit).run(&shutdown)).await
        });
        Agent { task, stop }
    }

    /// Puts a new version of `a:x` and tells the agent.
    fn put(&self, version: &str) {
        self.store.put("x", version, &format!("{{\"k\":\"x{version}\"}}"));
        self.store.push.notify_one();
    }

    /// As kubelet does it: a new directory, and `..data` renamed to it.
    fn annotate(&self, lines: &[&str]) {
        let dir = self.path("controls");
        let next = format!("..{}", fs::read_dir(&dir).unwrap().count());
        fs::create_dir(dir.join(&next)).unwrap();
        fs::write(dir.join(&next).join("annotations"), lines.join("\n")).unwrap();
        symlink(&next, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        drop(symlink("..data/annotations", dir.join("annotations")));
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path("volume").join(LIVE).join(name)).unwrap_or_default()
    }

    fn is_open(&self) -> bool {
        gate::is_open(&self.path("volume"))
    }

    /// What `kubectl describe pod` would show if the container ended now.
    fn last_words(&self) -> String {
        fs::read_to_string(self.path("termination-log")).unwrap_or_default()
    }

    /// The name of the present generation.
    fn generation(&self) -> String {
        let data = fs::read_link(self.path("volume").join(LIVE).join("..data")).unwrap();
        data.to_str().unwrap().trim_start_matches("..").to_owned()
    }

    async fn until_file(&self, name: &str, part: &str) {
        until(&format!("{part:?} in {name}"), || self.file(name).contains(part)).await;
    }

    fn calls(&self, of: &str) -> Vec<String> {
        self.store.state().calls.iter().filter(|call| call.starts_with(of)).cloned().collect()
    }
}

impl Agent {
    async fn stop(self) -> Result<Ended, AgentError> {
        self.stop.cancel();
        self.done().await
    }

    async fn done(self) -> Result<Ended, AgentError> {
        tokio::time::timeout(Duration::from_secs(100_000), self.task).await.expect("the agent does not end").unwrap()
    }

    /// As SIGKILL does.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Virtual time runs on until `condition` holds; real time is bounded.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = RealInstant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Long enough for anything that is going to happen to happen.
async fn a_while() {
    tokio::time::sleep(Duration::from_mins(5)).await;
}

#[tokio::test(start_paused = true)]
async fn p7_the_gate_opens_with_the_first_files_and_a_temporary_failure_is_waited_out() {
    let pod = Pod::new(&["a:x"]);
    pod.put("1");
    pod.store.state().failing = Some(ErrorKind::Unavailable);
    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    assert!(!pod.is_open());
    assert!(pod.calls("read").len() > 10, "it goes on asking");
    pod.store.state().failing = None;
    pod.until_file("f0", "x1").await;
    assert!(pod.is_open());
    pod.put("2");
    pod.until_file("f0", "x2").await;
    agent.stop().await.unwrap();
    assert!(pod.file("f0").contains("x2"), "the files outlive the agent");
}

#[tokio::test(start_paused = true)]
async fn p7_a_permanent_refusal_before_the_first_files_ends_the_agent_with_the_gate_closed() {
    for kind in [ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Invalid] {
        for mode in [AgentMode::Sidecar, AgentMode::Init] {
            let pod = Pod::new(&["a:x", "a:y"]);
            pod.put("1");
            pod.store.put("y", "1", "{}");
            pod.store.state().failing_path.insert("y".to_owned(), kind);
            let error = pod.start(mode).done().await.unwrap_err();
            assert_eq!((error.exit_code(), error.to_string()), (1, format!("a:y: {} failed", kind.as_str())));
            assert!(!pod.is_open());
        }
    }
}

/// As much as an answer may have: with the newline at its end, the file is over the size limit.
fn largest(beginning: &str) -> String {
    let (before, after) = (format!("{{\"k\":\"{beginning}"), "\"}");
    format!("{before}{}{after}", "x".repeat((1 << 20) - before.len() - after.len()))
}

#[tokio::test(start_paused = true)]
async fn p7_answers_that_make_no_files_end_the_agent_too() {
    let pod = Pod::new(&["a:x"]);
    pod.store.put("x", "1", &largest("canary-"));
    let error = pod.start(AgentMode::Sidecar).done().await.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("size-limit") && !error.to_string().contains("canary"), "{error}");
    assert!(!pod.is_open());
}

#[tokio::test(start_paused = true)]
async fn p3_the_last_good_files_stay_whatever_happens_to_the_store_and_recovery_needs_no_one() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Invalid] {
        let pod = Pod::new(&["a:x"]);
        pod.put("1");
        let agent = pod.start(AgentMode::Sidecar);
        pod.until_file("f0", "x1").await;
        pod.store.state().failing = Some(kind);
        pod.put("2");
        a_while().await;
        assert!(pod.file("f0").contains("x1"), "{kind:?}");
        pod.store.state().failing = None;
        pod.until_file("f0", "x2").await;
        agent.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn p3_values_that_do_not_fit_and_a_volume_that_cannot_be_written_leave_the_files() {
    let pod = Pod::new(&["a:x", "a:y?"]);
    pod.put("1");
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "x1").await;
    // More than the size limit.
    pod.store.put("x", "2", &largest("x2"));
    pod.store.push.notify_one();
    a_while().await;
    assert!(pod.file("f0").contains("x1"));
    // Something stands where a new file would be.
    let in_the_way = pod.path("volume").join(LIVE).join("f1");
    fs::write(&in_the_way, "").unwrap();
    pod.store.put("y", "1", "{}");
    pod.put("3");
    a_while().await;
    assert!(pod.file("f0").contains("x1"));
    fs::remove_file(in_the_way).unwrap();
    pod.until_file("f0", "x3").await;
    assert_eq!(pod.file("f1").trim(), "{}");
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p4_a_sidecar_takes_over_from_init_and_from_itself_with_one_login_and_one_lease() {
    let pod = Pod::new(&["a:x", "a:creds"]);
    pod.put("1");
    pod.store.state().logins = Some((7200, true));
    pod.store.put_leased("creds", 3600, 36_000, true);

    pod.start(AgentMode::Init).done().await.unwrap();
    let (credential, generation) = (pod.file("f1"), pod.generation());
    assert!(credential.contains("lease-1"), "{credential}");

    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    agent.kill().await;
    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    assert_eq!((pod.file("f1"), pod.generation()), (credential, generation), "nothing changed, nothing is written");
    assert_eq!(pod.calls("login"), ["login token-1"]);
    assert_eq!(pod.store.state().live("creds"), 1);
    assert_eq!(pod.store.state().leases.len(), 1, "none was issued besides");

    // The lease is looked after by the process that took it over.
    tokio::time::sleep(Duration::from_secs(7000)).await;
    assert!(!pod.calls("renew lease-1").is_empty());
    assert!(pod.file("f1").contains("lease-1"));
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p4_without_the_hand_over_a_second_login_would_be_seen() {
    let pod = Pod::new(&["a:creds"]);
    pod.store.state().logins = Some((7200, true));
    pod.store.put_leased("creds", 3600, 36_000, true);
    pod.start(AgentMode::Init).done().await.unwrap();
    fs::remove_file(pod.path("state").join(FILE)).unwrap();
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "lease-2").await;
    assert_eq!(pod.calls("login").len(), 2);
    agent.stop().await.unwrap();
}

/// A lease's whole life: granted, handed over, renewed, replaced, revoked, and each of them refused.
#[tokio::test(start_paused = true)]
async fn p5_a_leases_id_is_never_logged() {
    let (log, _listening) = Log::listen(Level::TRACE);
    let mut pod = Pod::new(&["a:creds"]);
    pod.revoke_on_exit = true;
    pod.store.state().logins = Some((100_000, true));
    pod.store.put_leased("creds", 600, 1_000_000, true);
    pod.start(AgentMode::Init).done().await.unwrap();
    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    pod.store.state().failing_renewals = Some(ErrorKind::Invalid);
    pod.store.state().failing_revocations = Some(ErrorKind::Denied);
    pod.until_file("f0", "lease-2").await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    pod.store.state().failing_renewals = Some(ErrorKind::Unavailable);
    agent.kill().await;
    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    pod.store.state().failing_revocations = Some(ErrorKind::Unavailable);
    agent.stop().await.unwrap();
    assert!(!pod.calls("renew lease-1").is_empty() && !pod.calls("revoke lease-1").is_empty());
    let told = log.text();
    for line in ["lease cannot be renewed", "replaced lease cannot be revoked", "cannot refresh"] {
        assert!(told.contains(line), "{line} is not in: {told}");
    }
    assert!(!told.contains("lease-"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn init_that_finds_files_does_not_wait_for_a_store_that_is_down() {
    let pod = Pod::new(&["a:x"]);
    pod.put("1");
    pod.start(AgentMode::Init).done().await.unwrap();
    pod.store.state().failing = Some(ErrorKind::Unavailable);
    pod.put("2");
    pod.start(AgentMode::Init).done().await.unwrap();
    assert!(pod.file("f0").contains("x1"));
    pod.store.state().failing = None;
    pod.start(AgentMode::Init).done().await.unwrap();
    assert!(pod.file("f0").contains("x2"));
}

#[tokio::test(start_paused = true)]
async fn p7_init_that_is_stopped_before_the_files_are_there_does_not_look_done() {
    let pod = Pod::new(&["a:x"]);
    pod.store.state().failing = Some(ErrorKind::Unavailable);
    let agent = pod.start(AgentMode::Init);
    a_while().await;
    assert_eq!(agent.stop().await.unwrap_err().exit_code(), 143);
    assert!(!pod.is_open());
}

/// Which failure before the first files ends the agent, which is waited out, and what `kubectl describe pod` shows.
#[tokio::test(start_paused = true)]
async fn p7_every_failure_before_the_first_files_ends_or_waits_and_leaves_its_reason() {
    let throttled = ErrorKind::Throttled { retry_after: Some(Duration::from_mins(10)) };
    for (kind, is_waited_out) in [
        (ErrorKind::Unavailable, true),
        (ErrorKind::Throttled { retry_after: None }, true),
        (throttled, true),
        (ErrorKind::Denied, false),
        (ErrorKind::Invalid, false),
        (ErrorKind::NotFound, false),
    ] {
        for mode in [AgentMode::Init, AgentMode::Sidecar] {
            for wanted in ["a:x", "a:x?", "a:creds", "a:creds?"] {
                let shown = format!("{kind:?} of {wanted} in mode {mode:?}");
                let pod = Pod::new(&[wanted, "a:other"]);
                pod.put("1");
                pod.store.put_leased("creds", 3600, 36_000, true);
                pod.store.put("other", "1", "{}");
                let path = wanted[2..].trim_end_matches('?');
                pod.store.state().failing_path.insert(path.to_owned(), kind);
                let agent = pod.start(mode);
                if kind == ErrorKind::NotFound && wanted.ends_with('?') {
                    until("files without it", || pod.is_open()).await;
                    assert_eq!(pod.last_words(), "", "{shown}");
                    agent.stop().await.unwrap();
                    continue;
                }
                a_while().await;
                assert!(!pod.is_open(), "{shown}");
                let reason = format!("a:{path}: {} failed", kind.as_str());
                if !is_waited_out {
                    let error = agent.done().await.unwrap_err();
                    assert_eq!((error.exit_code(), error.to_string()), (1, reason), "{shown}");
                    continue;
                }
                let waiting = format!("waiting for the first files: {reason}");
                assert_eq!(pod.last_words(), waiting, "{shown}: for a kill that nobody can answer");
                let ended = agent.stop().await;
                match mode {
                    AgentMode::Init => {
                        let error = ended.unwrap_err();
                        let sentence = format!("stopped before the files were in place: {reason}");
                        assert_eq!((error.exit_code(), error.to_string()), (143, sentence), "{shown}");
                    }
                    // kubelet takes what the log holds, whatever the exit code is.
                    AgentMode::Sidecar => assert!(ended.is_ok() && pod.last_words() == waiting, "{shown}"),
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_words_are_of_what_is_in_the_way_now_and_of_nothing_once_the_files_are_there() {
    let pod = Pod::new(&["a:x", "a:y"]);
    pod.put("1");
    pod.store.put("y", "1", "{}");
    pod.store.state().slow = Duration::from_secs(40);
    let agent = pod.start(AgentMode::Sidecar);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(pod.last_words(), "waiting for the first files: a: no answer for 5 s");
    pod.store.state().slow = Duration::ZERO;
    pod.store.state().failing_path.insert("x".to_owned(), ErrorKind::Unavailable);
    until("x is in the way", || pod.last_words() == "waiting for the first files: a:x: unavailable failed").await;
    pod.store.state().failing_path = [("x".to_owned(), ErrorKind::Throttled { retry_after: None })].into();
    until("it is busy now", || pod.last_words() == "waiting for the first files: a:x: throttled failed").await;
    pod.store.state().failing_path.clear();
    until("open", || pod.is_open()).await;
    a_while().await;
    assert_eq!(pod.last_words(), "");
    pod.store.state().failing = Some(ErrorKind::Unavailable);
    a_while().await;
    assert_eq!(pod.last_words(), "", "the application has its files: nothing ends because of this");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn init_that_is_stopped_while_nothing_answers_says_so() {
    let pod = Pod::new(&["a:x"]);
    pod.store.state().slow = Duration::from_hours(1);
    let agent = pod.start(AgentMode::Init);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let error = agent.stop().await.unwrap_err().to_string();
    assert_eq!(error, "stopped before the files were in place: a: no answer for 3 s");
}

#[tokio::test(start_paused = true)]
async fn leases_are_revoked_at_the_end_only_if_the_plan_says_so_and_are_not_handed_over_then() {
    for revoke_on_exit in [false, true] {
        let mut pod = Pod::new(&["a:creds"]);
        pod.revoke_on_exit = revoke_on_exit;
        pod.store.put_leased("creds", 3600, 36_000, true);
        let agent = pod.start(AgentMode::Sidecar);
        pod.until_file("f0", "lease-1").await;
        agent.stop().await.unwrap();
        assert_eq!(pod.store.state().is_live("lease-1"), !revoke_on_exit);
        let agent = pod.start(AgentMode::Sidecar);
        pod.until_file("f0", if revoke_on_exit { "lease-2" } else { "lease-1" }).await;
        agent.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn revoking_is_bounded_in_time() {
    let mut pod = Pod::new(&["a:creds"]);
    pod.revoke_on_exit = true;
    pod.store.put_leased("creds", 3600, 36_000, true);
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "lease-1").await;
    pod.store.state().slow = Duration::from_hours(1);
    let start = Instant::now();
    agent.stop().await.unwrap();
    assert!(!pod.path("state").join(FILE).exists(), "nobody goes on with a lease that may be revoked any moment");
    assert!(start.elapsed() <= REVOKE_TIMEOUT + Duration::from_millis(100), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn p5_no_value_reaches_the_state_in_the_clear() {
    let pod = Pod::new(&["a:x"]);
    pod.store.set("x", Secret { json: "{\"k\":\"canary-value\"}".to_owned(), ..Secret::default() });
    pod.start(AgentMode::Init).done().await.unwrap();
    let state = fs::read_to_string(pod.path("state").join(FILE)).unwrap();
    assert!(!state.contains("canary"), "{state}");
    // base64 of "canary-value" at its three alignments.
    for part in ["Y2FuYXJ5LXZhbHVl", "NhbmFyeS12YWx1Z", "jYW5hcnktdmFsdW"] {
        assert!(!state.contains(part), "an answer that can be read again is not kept: {state}");
    }
}
