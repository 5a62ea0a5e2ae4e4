//! `hushpod demo`: the whole chain on one machine, without a cluster and without root.
//!
//! Everything is real but kubelet: a webhook over TLS answers an AdmissionReview, the patched pod's injected containers
//! run as processes, an application reads its file at every request while the store rotates. What is claimed at the
//! end was measured; a claim that does not hold makes the exit code 1.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

pub mod application;
mod claim;
mod error;
mod exchange;
mod pages;
mod pod;
mod report;
mod stage;
mod watcher;

use crate::options::Mode;
use crate::process::terminal;
pub use claim::Claim;
pub use error::DemoError;
pub use pages::write_store;
use pod::Pod;
use report::{DemoReport, Style};
use stage::{DemoStore, Stage, Webhook};
use watcher::Watcher;

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

/// What every mode is shown with.
struct Demo<'a> {
    rotations: u32,
    agent: PathBuf,
    stage: Stage,
    store: DemoStore,
    webhook: Webhook,
    report: DemoReport<'a>,
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
    let style = if json { Style::Json } else { Style::of_stdout() };
    let mut report = DemoReport::new(out, style, terminal::width_of_stdout());
    report.line("hushpod demo: a webhook, an agent and an application on this machine; no cluster, no root")?;
    let stage = Stage::set()?;
    let store = DemoStore::create(&stage)?;
    let webhook = Webhook::start(&store)?;
    report.step("store", &format!("one file that is rotated by rename, in {}", stage.kind()))?;
    report.step("webhook", &webhook.describe())?;
    let mut demo = Demo { rotations, agent, stage, store, webhook, report };
    for mode in [Mode::Sidecar, Mode::InitAndSidecar, Mode::Init] {
        demo.show_mode(mode).await?;
    }
    let holds = demo.report.finish()?;
    demo.webhook.stop().await;
    Ok(holds)
}

// === impl Demo ===

impl Demo<'_> {
    /// One mode, from the annotated pod to its last rotation.
    async fn show_mode(&mut self, mode: Mode) -> Result<(), DemoError> {
        let Self { agent, stage, store, webhook, report, .. } = self;
        let name = mode.as_str();
        report.heading(&format!("mode {name}"))?;
        let mut pod = Pod::prepare(stage, mode).await?;
        for (key, value) in pod.annotations() {
            report.step("annotation", &format!("{key}: {}", value.trim_end().replace('\n', "\n                  ")))?;
        }
        let (patched, patch) = webhook.review(pod.manifest()).await?;
        for line in report::describe_patch(&patch, &patched) {
            report.step("patch", &line)?;
        }
        let start = pod.start_agents(agent, &patched, store).await?;
        report.step("agent", &start.words())?;
        report
            .step("agent", &format!("files there {} after the secret was in the store", report::millis(start.first)))?;
        let live = pod.live();
        let process = pod.start_application(&live).await?;
        let file = live.join("token");
        report.step("application", &format!("process {process} reads {} at every request", file.display()))?;

        let watcher = Watcher::start(live);
        let delays =
            if mode == Mode::Init { self.show_no_rotation(&pod).await? } else { self.show_rotations(&mut pod).await? };
        if mode == Mode::Sidecar {
            self.show_hold(&mut pod).await?;
        }
        let Self { store, report, .. } = self;
        let (reads, torn) = watcher.stop().await;
        let end = if mode == Mode::Init { pod.application_reads().await? } else { pod.until_told().await? };
        pod.stop().await;

        report.claim(
            format!("mode {name}: files before the application's first instruction"),
            start.holds(),
            start.words(),
        );
        let seen = format!("process {process} at the start, {} at the end", end.pid);
        report.claim(format!("mode {name}: no restart"), end.pid == process, seen);
        let seen = format!("{torn} of {reads} reads of the whole set");
        report.claim(format!("mode {name}: no torn read"), torn == 0 && reads > 0, seen);
        if mode != Mode::Init {
            let seen = format!("{} notifications", end.notified);
            report.claim(format!("mode {name}: the application is told"), end.notified > 0, seen);
        }
        for (what, text) in [("the patched pod", patched.to_string()), ("the agent's log", pod.logs()?)] {
            let values = store.values();
            let found = values.iter().filter(|value| text.contains(value.as_str())).count();
            let seen = format!("{found} of {} values found", values.len());
            report.claim(format!("mode {name}: {what} shows no value"), found == 0, seen);
        }
        report.measured(name, &delays, reads, torn);
        Ok(())
    }

    /// Rotates, and measures how long each time until the application reads the new value.
    async fn show_rotations(&mut self, pod: &mut Pod) -> Result<Vec<Duration>, DemoError> {
        let Self { rotations, store, report, .. } = self;
        let mut delays = Vec::new();
        for round in 1..=*rotations {
            // The agent swaps once a second at most, so readers finish: let that pass, to measure the way alone.
            tokio::time::sleep(GRACE).await;
            let value = store.rotate()?;
            let delay = pod.until_visible(&value).await?;
            let words = report::millis(delay);
            report.step("rotation", &format!("{round}: the application reads the new value after {words}"))?;
            delays.push(delay);
        }
        Ok(delays)
    }

    /// Rotates once where nobody follows.
    async fn show_no_rotation(&mut self, pod: &Pod) -> Result<Vec<Duration>, DemoError> {
        let Self { store, report, .. } = self;
        let value = store.rotate()?;
        tokio::time::sleep(GRACE).await;
        let still = pod.application_reads().await?.token != value;
        report.step("rotation", "not followed: this mode fetches once, before the application starts")?;
        let seen = "one rotation later the first value is still there";
        report.claim("mode init: fetched once, never refreshed", still, seen);
        Ok(Vec::new())
    }

    /// `kubectl annotate … hushpod.dev/hold=true`, as kubelet would carry it in.
    async fn show_hold(&mut self, pod: &mut Pod) -> Result<(), DemoError> {
        let Self { store, report, .. } = self;
        pod.set_control("hold", Some("true"))?;
        // Every line of the log has `held=…`: only the event itself says that the hold is in force.
        pod.until_logged("event=\"held\"").await?;
        let held = store.rotate()?;
        tokio::time::sleep(GRACE).await;
        let frozen = pod.application_reads().await?.token != held;
        pod.set_control("hold", None)?;
        let delay = pod.until_visible(&held).await?;
        report.step(
            "hold",
            &format!("a rotation waited until the hold was taken off, then was there after {}", report::millis(delay)),
        )?;
        report.claim(
            "mode sidecar: hold freezes the files",
            frozen,
            "a rotation under hold did not reach the application",
        );
        Ok(())
    }
}
