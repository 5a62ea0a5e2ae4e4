//! A patched pod without kubelet: its injected containers and its application as processes of this user.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::application::ServedSecret;
use super::claim::pointer;
use super::error::DemoError;
use super::exchange::exchange;
use super::stage::{DemoStore, Stage};
use super::watcher::is_whole;
use crate::contract::{ANNOTATIONS_FILE, DATA, LIVE, PREFIX};
use crate::options::Mode;

/// Nothing in the demo takes this long, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long what a process did may take to be seen after its end.
const SETTLED: Duration = Duration::from_millis(500);

/// How often the gate is looked at while there is nothing to deliver, a millisecond apart.
const LOOKS: u32 = 300;

/// A pod of the demo.
#[derive(Debug)]
pub(super) struct Pod {
    mode: Mode,
    directory: PathBuf,
    manifest: Value,
    port: u16,
    processes: Vec<Child>,
}

/// How a pod's files came: whether anything could be mounted without them.
#[derive(Debug)]
pub(super) struct Start {
    /// Looks at the gate while the store had nothing to deliver.
    pub(super) looks: u32,
    /// Those that found it open.
    pub(super) open: u32,
    /// Whether all files were there when it was first found open.
    pub(super) is_whole: bool,
    /// From the store's having the secret to the files.
    pub(super) first: Duration,
}

// === impl Start ===

impl Start {
    pub(super) fn holds(&self) -> bool {
        self.looks > 0 && self.open == 0 && self.is_whole
    }

    pub(super) fn words(&self) -> String {
        let Self { looks, open, is_whole, .. } = self;
        let files = if *is_whole { "all files there" } else { "files MISSING" };
        format!("gate open in {open} of {looks} looks while the store had nothing; {files} when it opened")
    }
}

// === impl Pod ===

impl Pod {
    /// Lays out what kubelet would mount, and picks the application's port.
    pub(super) async fn prepare(stage: &Stage, mode: Mode) -> Result<Self, DemoError> {
        let name = mode.as_str();
        for volume in ["volume", "state", "controls", "tokens"] {
            stage.directory(&format!("{name}/{volume}"))?;
        }
        let directory = stage.directory(name)?;
        let listener =
            tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.map_err(DemoError::io("find a free port"))?;
        let port = listener.local_addr().map_err(DemoError::io("find a free port"))?.port();
        let mut annotations = json!({
            "hushpod.dev/file.token": "store:app#token",
            "hushpod.dev/secrets": "- {file: app.env, from: \"store:app\", format: dotenv}\n- {dir: app, from: \"store:app\"}\n",
            "hushpod.dev/mode": name,
        });
        if let (true, Some(annotations)) = (mode != Mode::Init, annotations.as_object_mut()) {
            let notify = format!("http:http://127.0.0.1:{port}/reload");
            annotations.insert("hushpod.dev/notify".to_owned(), json!(notify));
        }
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "demo-", "annotations": annotations},
            "spec": {"serviceAccountName": "demo", "containers": [{"name": "app", "image": "demo"}]},
        });
        let pod = Self { mode, directory, manifest, port, processes: Vec::new() };
        pod.set_control("hold", None)?;
        Ok(pod)
    }

    pub(super) fn manifest(&self) -> &Value {
        &self.manifest
    }

    pub(super) fn annotations(&self) -> Vec<(String, String)> {
        let annotations = self.manifest.pointer("/metadata/annotations").and_then(Value::as_object);
        let pairs = annotations.into_iter().flatten();
        pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    }

    /// What the application has mounted.
    pub(super) fn live(&self) -> PathBuf {
        self.directory.join("volume").join(LIVE)
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    /// Everything the agents have logged.
    pub(super) fn logs(&self) -> Result<String, DemoError> {
        fs::read_to_string(self.log_file()).map_err(DemoError::io("read the agent's log"))
    }

    /// Runs the injected containers as kubelet would: in order, init containers to their end, the sidecar until the
    /// pod ends. The store gets its secret only when the first of them has been without it for a while.
    pub(super) async fn start_agents(
        &mut self,
        agent: &Path,
        patched: &Value,
        store: &DemoStore,
    ) -> Result<Start, DemoError> {
        store.withhold()?;
        let mut start = Start { looks: 0, open: 0, is_whole: false, first: Duration::ZERO };
        let containers = patched.pointer("/spec/initContainers").and_then(Value::as_array).cloned().unwrap_or_default();
        for container in &containers {
            let child = self.spawn_agent(agent, container)?;
            self.processes.push(child);
            if start.looks == 0 {
                self.look_without_secret(&mut start).await?;
                store.release()?;
                let begun = Instant::now();
                let live = self.live();
                let mut at_opening = None;
                self.until("the first files", || {
                    let is_open = live.exists();
                    let is_whole = is_open && is_whole(&live);
                    if is_open {
                        at_opening.get_or_insert(is_whole);
                    }
                    is_whole
                })
                .await?;
                start.is_whole = at_opening == Some(true);
                start.first = begun.elapsed();
            }
            if container.get("restartPolicy").is_some() {
                continue;
            }
            let deadline = Instant::now() + PATIENCE;
            let status = loop {
                let ended = self.processes.last_mut().map_or(Ok(None), Child::try_wait);
                match ended.map_err(DemoError::io("wait for the init container"))? {
                    Some(status) => break status,
                    None if Instant::now() > deadline => return Err(self.broken("the init container did not end")),
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            self.processes.pop();
            if !status.success() {
                return Err(self.broken(&format!("the init container ended with {status}")));
            }
        }
        Ok(start)
    }

    /// Looks at the gate again and again, while the agent has nothing to open it for.
    async fn look_without_secret(&mut self, start: &mut Start) -> Result<(), DemoError> {
        let live = self.live();
        self.until("the gate", || fs::symlink_metadata(&live).is_ok()).await?;
        while start.looks < LOOKS {
            start.looks += 1;
            start.open += u32::from(live.exists());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// The container's command, with the directories in place of its mounts.
    fn spawn_agent(&self, agent: &Path, container: &Value) -> Result<Child, DemoError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .map_err(DemoError::io("open the agent's log"))?;
        let arguments = container.get("args").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let variables = container.get("env").and_then(Value::as_array).into_iter().flatten();
        let mut command = Command::new(agent);
        command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.envs(variables.map(|variable| (pointer(variable, "/name"), pointer(variable, "/value"))));
        for mount in ["volume", "state", "controls", "tokens"] {
            command.arg(format!("--{mount}")).arg(self.directory.join(mount));
        }
        command.arg("--termination-log").arg(self.directory.join("termination-log"));
        command.spawn().map_err(DemoError::io(format!("start {}", agent.display())))
    }

    /// Starts the application and waits for its first answer; gives its process id back.
    pub(super) async fn start_application(&mut self, live: &Path) -> Result<u32, DemoError> {
        let program = std::env::current_exe().map_err(DemoError::io("find this program"))?;
        let mut child = Command::new(program)
            .arg("demo-application")
            .arg("--file")
            .arg(live.join("token"))
            .args(["--port", &self.port.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .map_err(DemoError::io("start the application"))?;
        let deadline = Instant::now() + PATIENCE;
        let served = loop {
            match self.application_reads().await {
                Ok(served) => break served,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(self.broken(&format!("the application ended with {status}")));
            }
        };
        self.processes.push(child);
        Ok(served.pid)
    }

    /// Asks the application.
    pub(super) async fn application_reads(&self) -> Result<ServedSecret, DemoError> {
        let address = format!("127.0.0.1:{}", self.port);
        let stream = TcpStream::connect(&address).await.map_err(DemoError::io("connect to the application"))?;
        let body = exchange(stream, &address, "/", None).await?;
        serde_json::from_slice(&body).map_err(|_| DemoError::Broken("the application's answer is not JSON".to_owned()))
    }

    /// Asks the application until it was told of a change, which comes after the files; or for as long as nothing takes.
    pub(super) async fn until_told(&self) -> Result<ServedSecret, DemoError> {
        let begun = Instant::now();
        loop {
            let served = self.application_reads().await?;
            if served.notified > 0 || begun.elapsed() > PATIENCE {
                return Ok(served);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How long until the application reads `value`, from now.
    pub(super) async fn until_visible(&mut self, value: &str) -> Result<Duration, DemoError> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.application_reads().await?.token == value {
                return Ok(begun.elapsed());
            }
            self.check_running()?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(self.broken("a rotation did not reach the application"))
    }

    /// Waits until the agent has logged an event.
    pub(super) async fn until_logged(&mut self, event: &str) -> Result<(), DemoError> {
        let log = self.log_file();
        let is_told = || fs::read_to_string(&log).is_ok_and(|logs| logs.contains(event));
        self.until(&format!("the agent's log of {event:?}"), is_told).await
    }

    async fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        let mut ended: Option<Instant> = None;
        while !holds() {
            if Instant::now() > deadline {
                return Err(self.broken(&format!("waited in vain for {what}")));
            }
            // An init container ends right after what it is waited for, which others may see a moment later.
            match self.check_running() {
                Err(_) if ended.get_or_insert_with(Instant::now).elapsed() < SETTLED => {}
                checked => checked?,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Sets or clears a live control, the way kubelet carries annotations in: a new directory, swapped by rename.
    pub(super) fn set_control(&self, name: &str, value: Option<&str>) -> Result<(), DemoError> {
        let directory = self.directory.join("controls");
        let mut annotations: BTreeMap<_, _> = self.annotations().into_iter().collect();
        if let Some(value) = value {
            annotations.insert(format!("{PREFIX}{name}"), value.to_owned());
        }
        // Go's quoting and JSON's agree on what stands here.
        let lines: Vec<_> = annotations.iter().map(|(key, value)| format!("{key}={}", json!(value))).collect();
        let stamp = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let version = format!("..{stamp}");
        let swap = || {
            fs::create_dir(directory.join(&version))?;
            fs::write(directory.join(&version).join(ANNOTATIONS_FILE), lines.join("\n"))?;
            std::os::unix::fs::symlink(&version, directory.join("..data_tmp"))?;
            fs::rename(directory.join("..data_tmp"), directory.join(DATA))?;
            match std::os::unix::fs::symlink(Path::new(DATA).join(ANNOTATIONS_FILE), directory.join(ANNOTATIONS_FILE)) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        };
        swap().map_err(DemoError::io("write the live controls"))
    }

    /// What ends while it is needed will not do what is waited for.
    fn check_running(&mut self) -> Result<(), DemoError> {
        let ended = self.processes.iter_mut().find_map(|child| child.try_wait().ok().flatten());
        match ended {
            Some(status) => Err(self.broken(&format!("a process ended with {status}, where it should have gone on"))),
            None => Ok(()),
        }
    }

    /// An error, with what the agent had to say.
    fn broken(&self, what: &str) -> DemoError {
        let log = self.logs().unwrap_or_default();
        let mode = self.mode.as_str();
        if log.trim().is_empty() {
            return DemoError::Broken(format!("mode {mode}: {what}; it said nothing: is --agent a hushpod-agent?"));
        }
        let tail: Vec<_> = log.lines().rev().take(5).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        DemoError::Broken(format!("mode {mode}: {what}; the agent's last words:\n{}", tail.join("\n")))
    }

    /// Ends the processes: the application, then the agents, as kubelet does.
    pub(super) async fn stop(&mut self) {
        for mut child in self.processes.drain(..).rev() {
            let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let deadline = Instant::now() + Duration::from_secs(3);
            while child.try_wait().is_ok_and(|status| status.is_none()) {
                if Instant::now() > deadline {
                    let _ = child.kill();
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
