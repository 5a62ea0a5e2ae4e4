//! What lives in pods: fetches the plan's secrets behind the gate, then keeps the files fresh. Talks to no Kubernetes
//! API; what it knows comes from its plan, what it may do from the pod's own service account token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::nanosleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::audit::{AuditLog, Program, Who};
use crate::metrics::Registry;
use crate::options::Notify;
use crate::plan::{Identity, Plan, PlanReadError};
use crate::process::confine::{Needs, confine};
use crate::source::{Source, SourceMetrics, connect_counted};

pub mod cli;
pub mod controls;
pub mod gate;
pub mod notify;

mod error;
mod gated_volume;
mod install;
mod metrics;
mod restart_all;
mod settings;
mod swap;
mod sync;
mod termination;
mod usage;

pub use error::AgentError;
use gated_volume::GatedVolume;
use metrics::MetricsPort;
pub use settings::{AgentMode, AgentPaths, AgentSettings};
use sync::SyncLoop;
pub use termination::{Ended, terminate};

/// An agent that has its gate and its plan, and has yet to ask a store.
#[derive(Debug)]
pub struct Agent {
    mode: AgentMode,
    paths: AgentPaths,
    plan: Plan,
    source: Source,
    volume: GatedVolume,
    /// Whether the node may swap out what is in its volumes.
    is_swappable: bool,
    registry: Registry,
    audit: AuditLog,
}

/// Waits until the gate of the volume at `root` is open, at most `wait`; says whether it is.
///
/// Looks every few milliseconds instead of asking for events: it lives for two seconds at most, and every start of a
/// pod waits for it.
#[must_use]
pub fn ready(root: &Path, wait: Duration) -> bool {
    const PAUSE: Duration = Duration::from_millis(5);
    let start = std::time::Instant::now();
    loop {
        let left = wait.saturating_sub(start.elapsed());
        if gate::is_open(root) || left.is_zero() {
            return gate::is_open(root);
        }
        let pause = rustix::fs::Timespec { tv_sec: 0, tv_nsec: left.min(PAUSE).subsec_nanos().into() };
        // A signal may cut it short, and then it looks a little earlier.
        let _ = nanosleep(&pause);
    }
}

// === impl Agent ===

impl Agent {
    /// Closes the gate (or adopts an open one), then looks at the plan. In this order: whatever fails afterwards,
    /// nothing else holds back the containers that come after this one.
    ///
    /// # Errors
    /// [`AgentError`] if volume or plan cannot be used.
    pub fn prepare(settings: AgentSettings) -> Result<Self, AgentError> {
        let AgentSettings { mode, plan, who, paths, grace } = settings;
        let volume = GatedVolume::claim(&paths.volume, grace).map_err(|error| {
            // On no pod of ours: what is missing is not the volume.
            if plan.is_none() { AgentError::from(PlanReadError::Missing) } else { error.into() }
        })?;
        install::provide(&paths.program, &paths.bin)?;
        let plan = plan.as_deref().ok_or(PlanReadError::Missing).and_then(Plan::from_json)?;
        let token_of = |name: &str| paths.tokens.join(name).into();
        let registry = Registry::of_this_build();
        // Where nobody can ask, nothing is counted.
        let metrics = plan.metrics_port.map(|_| SourceMetrics::new(&registry));
        let providers = connect_counted(&plan, token_of, &paths.authorities, metrics.as_ref())?;
        let Identity { namespace, service_account } = plan.identity.clone();
        let who = Who { namespace, account: service_account, ..who };
        let audit = AuditLog::new(Program::Agent, who).only_if(plan.audit);
        let mut source = Source::new(&plan, providers).audited(audit.clone());
        if let Some(metrics) = metrics {
            source = source.counted_by(&metrics);
        }
        let is_swappable = swap::warn_of(&[&paths.volume, &paths.state]);
        Ok(Self { mode, paths, plan, source, volume, is_swappable, registry, audit })
    }

    /// Takes from the process, for good, what its plan does not need: call it before any other thread is started.
    pub fn confine(&self) {
        match confine(&self.needs()) {
            Ok(confined) => {
                info!(event = "confined", landlock = %confined, "the agent has its own files and no others");
            }
            // It is a second wall: the first ones are the container's.
            Err(error) => warn!(event = "not_confined", %error, "Landlock confines nothing"),
        }
    }

    fn needs(&self) -> Needs {
        let Self { paths, plan, .. } = self;
        let signals = plan.notify.iter().any(|notify| matches!(notify, Notify::Signal { .. }));
        let stores = plan.providers.values().map(|provider| provider.settings.as_settings().reads());
        // Names are looked up as /etc says.
        let mut reads: Vec<_> = vec![PathBuf::from("/etc"), paths.tokens.clone(), paths.authorities.clone()];
        reads.push(paths.controls.clone());
        for files in stores {
            reads.extend(files.unwrap_or_else(|| vec![PathBuf::from("/")]));
        }
        if signals {
            reads.push(PathBuf::from("/proc"));
        }
        let mut writes = vec![paths.volume.clone(), paths.state.clone(), paths.bin.clone()];
        // kubelet makes the file; outside of a pod it is made when there is something to say.
        let log = &paths.termination_log;
        writes.push(if log.exists() { log.clone() } else { log.parent().unwrap_or(log).to_owned() });
        Needs { reads, writes, port: plan.metrics_port, signals }
    }

    /// Works until the work is done or `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`AgentError`], if waiting is of no use. Temporary failures are waited out.
    pub async fn run(self, shutdown: &CancellationToken) -> Result<Ended, AgentError> {
        let Self { mode, paths, plan, source, mut volume, is_swappable, registry, audit } = self;
        let running = |number| MetricsPort::new(number, registry, volume.watch_running(), is_swappable);
        let port = plan.metrics_port.map(running);
        if let (Some(port), AgentMode::Sidecar) = (&port, mode) {
            tokio::spawn(port.clone().serve(shutdown.clone()));
        }
        Box::pin(SyncLoop::new(mode, plan, source, volume, &paths, port, audit).run(shutdown)).await
    }
}

#[cfg(test)]
mod tests;
