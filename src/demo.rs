//! `hushpod demo`: the whole chain on one machine, without a cluster and without root.
//!
//! Everything is real but kubelet: a webhook over TLS answers an AdmissionReview, the patched pod's injected containers
//! run as processes, an application reads its file at every request while the store rotates. What is claimed at the
//! end was measured; a claim that does not hold makes the exit code 1.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

pub mod application;
mod exchange;
mod pod;
mod report;
mod stage;

use crate::annotations::Mode;
use pod::{Pod, Watcher};
use report::{Report, Style};
use stage::{Stage, Store, Webhook};

/// Longer than the agent keeps the previous generation for readers.
const GRACE: Duration = Duration::from_millis(1100);

/// How to run the demo.
#[derive(Debug)]
pub struct DemoSettings {
    /// JSON for scripts instead of text for people.
    pub json: bool,
    /// How often the secret is rotated in each mode that refreshes.
    pub rotations: u32,
    /// The agent's program.
    pub agent: PathBuf,
}

/// Why the demo could not go on. A claim that fails is no error: it stands in the report.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The agent's program is not where it should be.
    #[error("there is no agent at {0}: build it with `cargo build --bins`, or name it with --agent")]
    NoAgent(PathBuf),
    /// Something on this machine did not work.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// A part of the chain did not do what it should.
    #[error("{0}")]
    Broken(String),
}

/// One thing that the demo set out to show.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// What is claimed.
    pub claim: String,
    /// Whether it was seen to hold.
    pub holds: bool,
    /// What was seen.
    pub seen: String,
}

impl DemoError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |cause| Self::Io { what, cause }
    }
}

/// Runs the demo and writes to `out`; `true` if every claim held.
///
/// # Errors
/// [`DemoError`] if the chain broke before there was anything to claim.
pub async fn run(settings: DemoSettings, out: &mut (dyn Write + Send)) -> Result<bool, DemoError> {
    let DemoSettings { json, rotations, agent } = settings;
    if !agent.is_file() {
        return Err(DemoError::NoAgent(agent));
    }
    let mut report = Report::new(out, if json { Style::Json } else { Style::of_stdout() });
    report.line("hushpod demo: a webhook, an agent and an application on this machine; no cluster, no root")?;
    let stage = Stage::set()?;
    let mut store = Store::create(&stage)?;
    let webhook = Webhook::start(&store).await?;
    report.step("store", &format!("one file that is rotated by rename, in {}", stage.kind()))?;
    report.step("webhook", &webhook.describe())?;
    for mode in [Mode::Sidecar, Mode::InitAndSidecar, Mode::Init] {
        show_mode(mode, rotations, &agent, &stage, &mut store, &webhook, &mut report).await?;
    }
    let holds = report.finish()?;
    webhook.stop().await;
    Ok(holds)
}

/// One mode, from the annotated pod to its last rotation.
async fn show_mode(
    mode: Mode,
    rotations: u32,
    agent: &std::path::Path,
    stage: &Stage,
    store: &mut Store,
    webhook: &Webhook,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    report.heading(&format!("mode {}", mode.as_str()))?;
    let mut pod = Pod::prepare(stage, mode).await?;
    for (key, value) in pod.annotations() {
        report.step("annotation", &format!("{key}: {}", value.trim_end().replace('\n', "\n                  ")))?;
    }
    let (patched, patch) = webhook.review(pod.manifest()).await?;
    for line in report::describe_patch(&patch, &patched) {
        report.step("patch", &line)?;
    }
    let closed = pod.start_agents(agent, &patched).await?;
    report.step(
        "agent",
        &format!("{} before the first fetch; files there after {}", closed.words(), report::millis(closed.first)),
    )?;
    let live = pod.live();
    let first_pid = pod.start_application(&live).await?;
    report
        .step("application", &format!("process {first_pid} reads {} at every request", live.join("token").display()))?;

    let watcher = Watcher::start(live);
    let mut delays = Vec::new();
    for round in 1..=if mode == Mode::Init { 1 } else { rotations } {
        // The agent swaps once a second at most, so that readers finish: let that pass, to measure the way alone.
        tokio::time::sleep(GRACE).await;
        let value = store.rotate()?;
        if mode == Mode::Init {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let still = pod.application_reads().await?.token != value;
            report.step("rotation", "not followed: this mode fetches once, before the application starts")?;
            report.claim(
                "mode init: fetched once, never refreshed",
                still,
                "one rotation later the first value is still there",
            );
            break;
        }
        let delay = pod.until_visible(&value).await?;
        report.step(
            "rotation",
            &format!("{round}: the application reads the new value after {}", report::millis(delay)),
        )?;
        delays.push(delay);
    }
    if mode == Mode::Sidecar {
        show_hold(&pod, store, report).await?;
    }
    let (reads, torn) = watcher.stop().await;
    let end = pod.application_reads().await?;
    pod.stop().await;

    let name = mode.as_str();
    report.claim(format!("mode {name}: files before the application's first instruction"), closed.gate, closed.words());
    let seen = format!("process {first_pid} at the start, {} at the end", end.pid);
    report.claim(format!("mode {name}: no restart"), end.pid == first_pid, seen);
    report.claim(
        format!("mode {name}: no torn read"),
        torn == 0 && reads > 0,
        format!("{torn} of {reads} reads of the whole set"),
    );
    if !delays.is_empty() {
        let told = end.notified > 0;
        report.claim(format!("mode {name}: the application is told"), told, format!("{} notifications", end.notified));
    }
    let values = store.values();
    let in_pod = values.iter().filter(|value| patched.to_string().contains(value.as_str())).count();
    report.claim(
        format!("mode {name}: the patched pod holds no value"),
        in_pod == 0,
        format!("{in_pod} of {} values found", values.len()),
    );
    let logs = pod.logs()?;
    let in_logs = values.iter().filter(|value| logs.contains(value.as_str())).count();
    report.claim(
        format!("mode {name}: the agent's log shows no value"),
        in_logs == 0,
        format!("{in_logs} of {} values found", values.len()),
    );
    report.measured(name, &delays, reads, torn);
    Ok(())
}

/// `kubectl annotate … hushpod.dev/hold=true`, as kubelet would carry it in.
async fn show_hold(pod: &Pod, store: &mut Store, report: &mut Report<'_>) -> Result<(), DemoError> {
    pod.set_control("hold", Some("true"))?;
    pod.until_logged("held").await?;
    let held = store.rotate()?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let frozen = pod.application_reads().await?.token != held;
    pod.set_control("hold", None)?;
    let delay = pod.until_visible(&held).await?;
    report.step(
        "hold",
        &format!("a rotation waited until the hold was taken off, then was there after {}", report::millis(delay)),
    )?;
    report.claim("mode sidecar: hold freezes the files", frozen, "a rotation under hold did not reach the application");
    Ok(())
}

/// The pod's manifest in a review, pretty enough to read.
fn pointer<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}
