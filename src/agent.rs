//! What lives in pods: fetches the plan's secrets behind the gate, then keeps the files fresh. Talks to no Kubernetes
//! API; what it knows comes from its plan, what it may do from the pod's own service account token.

use std::path::Path;
use std::time::Duration;

use rustix::thread::nanosleep;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditLog, Program, Who};
use crate::plan::{Identity, Plan, PlanReadError};
use crate::source::{Source, connect};

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
        let volume = GatedVolume::claim(&paths.volume, grace)?;
        install::provide(&paths.program, &paths.bin)?;
        let plan = plan.as_deref().ok_or(PlanReadError::Missing).and_then(Plan::from_json)?;
        let token_of = |name: &str| paths.tokens.join(name).into();
        let Identity { namespace, service_account } = plan.identity.clone();
        let who = Who { namespace, account: service_account, ..who };
        let audit = AuditLog::new(Program::Agent, who).only_if(plan.audit);
        let source = Source::new(&plan, connect(&plan, token_of, &paths.authorities)?).audited(audit.clone());
        Ok(Self { mode, paths, plan, source, volume, audit })
    }

    /// Works until the work is done or `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`AgentError`], if waiting is of no use. Temporary failures are waited out.
    pub async fn run(self, shutdown: &CancellationToken) -> Result<Ended, AgentError> {
        let Self { mode, paths, plan, source, mut volume, audit } = self;
        let is_swappable = swap::warn_of(&[&paths.volume, &paths.state]);
        let running = |number| MetricsPort::new(number, &plan, volume.watch_running(), is_swappable);
        let port = plan.metrics_port.map(running);
        if let (Some(port), AgentMode::Sidecar) = (&port, mode) {
            tokio::spawn(port.clone().serve(shutdown.clone()));
        }
        SyncLoop::new(mode, plan, source, volume, &paths, port, audit).run(shutdown).await
    }
}

#[cfg(test)]
mod tests;
