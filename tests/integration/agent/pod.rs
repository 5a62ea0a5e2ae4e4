//! A pod's volumes, a store of files, and agents that run in them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hushpod::bundle::{FileMode, Format, Target};
use hushpod::options::Notify;
use hushpod::plan::{Identity, PLAN_VERSION, Plan, PlannedFrom, PlannedItem, PlannedProvider, PlannedReference};
use hushpod::provider::ProviderSettings;
use hushpod::provider::file::FileSettings;
use rustix::process::{Pid, Signal, kill_process};

/// No wait is longer; none is ever this long unless something is broken.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Pod {
    dir: tempfile::TempDir,
    notify: Vec<Notify>,
    metrics_port: Option<u16>,
}

/// A command line that is not started yet.
pub(super) struct Invocation {
    command: Command,
}

/// A running agent; killed when it goes out of scope.
pub(super) struct Agent {
    child: Child,
    log: Arc<Mutex<String>>,
}

/// Waits for a condition, looking every few milliseconds.
#[expect(clippy::disallowed_methods, reason = "other processes are waited for, outside of any runtime")]
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Pod {
    pub(super) fn new() -> Self {
        Self::with(Vec::new())
    }

    pub(super) fn notifying(target: &str) -> Self {
        let target = if target.starts_with("http://") { format!("http:{target}") } else { target.to_owned() };
        Self::with(vec![target.parse().unwrap()])
    }

    fn with(notify: Vec<Notify>) -> Self {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        for name in ["volume", "state", "controls", "store", "tokens"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::set_permissions(dir.path().join("volume"), fs::Permissions::from_mode(0o1777)).unwrap();
        Self { dir, notify, metrics_port: None }
    }

    /// With metrics at a port that is free now.
    pub(super) fn with_metrics() -> (Self, u16) {
        let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        (Self { metrics_port: Some(port), ..Self::new() }, port)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn live(&self) -> PathBuf {
        self.path("volume").join("live")
    }

    pub(super) fn termination_log(&self) -> PathBuf {
        self.path("termination-log")
    }

    /// One file `token` with the value of the store's `token`.
    fn plan(&self) -> Plan {
        let settings = ProviderSettings::File(FileSettings::at(self.path("store").to_str().unwrap()));
        let request = settings.as_settings().resolve("files", &"token".parse().unwrap()).unwrap();
        let item = PlannedItem {
            target: Target::File("token".parse().unwrap()),
            from: PlannedFrom::One(PlannedReference { request, key: None }),
            format: Format::Raw,
            mode: FileMode::OWNER,
            decode: None,
            template: None,
            optional: false,
        };
        let provider = PlannedProvider {
            settings,
            role: None,
            audience: None,
            refresh_seconds: 60,
            revoke_on_exit: false,
            proxy: None,
            ca_bundle: false,
            unlock: None,
        };
        Plan {
            version: PLAN_VERSION,
            identity: Identity { namespace: "team".to_owned(), service_account: "web".to_owned() },
            providers: BTreeMap::from([("files".to_owned(), provider)]),
            items: vec![item],
            notify: self.notify.clone(),
            size_limit: 1 << 20,
            metrics_port: self.metrics_port,
            restart_all: None,
            containers: Vec::new(),
            audit: true,
        }
    }

    pub(super) fn command(&self, mode: &str) -> Invocation {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod-agent"));
        command.arg(mode).env_clear().env("HUSHPOD_PLAN", serde_json::to_string(&self.plan()).unwrap());
        for volume in ["volume", "state", "controls", "tokens"] {
            command.arg(format!("--{volume}")).arg(self.path(volume));
        }
        command.arg("--termination-log").arg(self.termination_log());
        Invocation { command }
    }

    pub(super) fn start(&self, mode: &str) -> Agent {
        self.command(mode).run()
    }

    /// Replaces a secret in the store, in one step.
    pub(super) fn store(&self, name: &str, value: &str) {
        let new = self.path("new");
        fs::write(&new, value).unwrap();
        fs::rename(new, self.path("store").join(name)).unwrap();
    }

    /// As kubelet updates a downward API volume: a new directory, and `..data` renamed to it.
    pub(super) fn annotate(&self, lines: &[&str]) {
        let dir = self.path("controls");
        let next = format!("..{}", fs::read_dir(&dir).unwrap().count());
        fs::create_dir(dir.join(&next)).unwrap();
        fs::write(dir.join(&next).join("annotations"), lines.join("\n")).unwrap();
        symlink(&next, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        drop(symlink("..data/annotations", dir.join("annotations")));
    }

    /// What the application reads.
    pub(super) fn file(&self) -> String {
        fs::read_to_string(self.live().join("token")).unwrap_or_default()
    }

    pub(super) fn until_file(&self, value: &str) {
        until(&format!("the file is {value:?}"), || self.file() == value);
    }

    /// The name of the present generation.
    pub(super) fn generation(&self) -> String {
        let data = fs::read_link(self.live().join("..data")).unwrap();
        data.to_str().unwrap().trim_start_matches("..").to_owned()
    }
}

impl Invocation {
    pub(super) fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(super) fn run(mut self) -> Agent {
        if !self.command.get_args().any(|arg| arg.as_encoded_bytes().starts_with(b"--grace")) {
            self.command.arg("--grace=1ms");
        }
        let mut child = self.command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = collected.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Agent { child, log }
    }
}

impl Agent {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(super) fn until_log(&self, part: &str) {
        let start = Instant::now();
        until(&format!("{part:?} in the log"), || {
            assert!(start.elapsed() < PATIENCE, "no {part:?} in the log:\n{}", self.log());
            self.log().contains(part)
        });
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its exit code.
    pub(super) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        until("the agent ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    pub(super) fn terminate(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.wait()
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
