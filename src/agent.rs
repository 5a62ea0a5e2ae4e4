//! What lives in pods: fetches the plan's secrets behind the gate, then keeps the files fresh. Talks to no Kubernetes
//! API; what it knows comes from its plan, what it may do from the pod's own service account token.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::nanosleep;
use tokio_util::sync::CancellationToken;

use crate::deliver::render::RenderError;
use crate::deliver::volume::VolumeError;
use crate::plan::{PLAN_VERSION, Plan, PlannedProvider};
use crate::provider::http::Proxy;
use crate::provider::{Login, Provider, ProviderError};
use crate::sentence::Sentence;
use crate::source::{Failure, Source};

pub mod cli;
pub mod controls;
pub mod gate;
pub mod handover;
pub mod notify;
pub mod report;

mod gated;
mod keeper;
mod port;
mod program;
mod running;
mod termination;

use gate::GateError;
use gated::GatedVolume;
use keeper::Keeper;
use port::Port;
pub use termination::terminate;

/// Which part of a pod's life this process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until the pod ends.
    Sidecar,
    /// Until the first generation is in place.
    Init,
}

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPaths {
    /// Root of the secrets volume; applications mount its `live`.
    pub volume: PathBuf,
    /// State volume, for the hand-over.
    pub state: PathBuf,
    /// Downward API volume with the pod's annotations.
    pub controls: PathBuf,
    /// One projected service account token per provider.
    pub tokens: PathBuf,
    /// Volume that applications find `hushpod-agent exec` in, if there is one.
    pub bin: PathBuf,
    /// What is copied there.
    pub program: PathBuf,
    /// Where kubelet looks for a reason.
    pub termination_log: PathBuf,
}

/// All that an agent is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// init or sidecar.
    pub mode: Mode,
    /// What to deliver, from where: a [`Plan`] in JSON.
    pub plan: Option<String>,
    /// Where things are.
    pub paths: AgentPaths,
    /// Least time between two swaps, and the time for which readers of a replaced generation are left in peace.
    pub grace: Duration,
}

/// An agent that has its gate and its plan, and has yet to ask a store.
#[derive(Debug)]
pub struct Agent {
    mode: Mode,
    paths: AgentPaths,
    plan: Plan,
    source: Source,
    volume: GatedVolume,
}

/// Why the agent ends without having done its work. None of these passes by waiting. Shown as logs have it; what goes
/// into the container's termination message, and with it into etcd, is [`AgentError::public`]. Our own words only.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is no plan, or none that this agent understands.
    #[error("{0}")]
    Plan(String),
    /// Stores refuse what the plan asks for.
    #[error("{}", refusals(.0, |error| &error.message))]
    Refused(Vec<Failure>),
    /// A provider cannot be set up.
    #[error("provider {provider}: {error}")]
    Provider {
        /// Its name.
        provider: String,
        /// Why not.
        error: ProviderError,
    },
    /// The stores' answers do not make the files that were asked for.
    #[error("the files cannot be made: {0}")]
    Render(#[from] RenderError),
    /// The volume is not as it has to be.
    #[error("{0}")]
    Gate(#[from] GateError),
    /// The files do not fit into the volume that was made for them.
    #[error("{0}")]
    Volume(VolumeError),
    /// A signal came before an init container was done; and what stood in its way, if anything did.
    #[error("{}", &**.0)]
    Interrupted(Sentence),
    /// The program that applications are to be started through cannot be given to them.
    #[error("cannot copy {} to {}: {source}", .program.display(), .bin.display())]
    Program {
        /// What.
        program: PathBuf,
        /// Where to.
        bin: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Signals cannot be listened for, or there is no runtime.
    #[error("the process cannot be set up: {0}")]
    Process(#[from] io::Error),
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

fn connect(plan: &Plan, tokens: &Path) -> Result<BTreeMap<String, Box<dyn Provider>>, AgentError> {
    let mut providers = BTreeMap::new();
    for (name, PlannedProvider { settings, role, proxy, .. }) in &plan.providers {
        let login = Login { provider: name.clone(), role: role.clone(), token_file: tokens.join(name) };
        let provider = settings
            .as_settings()
            .connect(login, Proxy::matcher_of(proxy.as_ref()))
            .map_err(|error| AgentError::Provider { provider: name.clone(), error })?;
        providers.insert(name.clone(), provider);
    }
    Ok(providers)
}

fn refusals<'a>(failures: impl IntoIterator<Item = &'a Failure>, told: impl Fn(&ProviderError) -> &str) -> String {
    let each = failures.into_iter().map(|Failure { provider, request, error, .. }| match request {
        Some(request) => format!("{request}: {}", told(error)),
        None => format!("{provider}: {}", told(error)),
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Reads the plan that the webhook made.
///
/// # Errors
/// [`AgentError::Plan`] if it is missing, damaged or of another version.
pub fn read_plan(json: Option<&str>) -> Result<Plan, AgentError> {
    #[derive(serde::Deserialize)]
    struct VersionOnly {
        version: u32,
    }
    let json = json.ok_or_else(|| {
        AgentError::Plan("there is no plan: the webhook puts it into the environment as HUSHPOD_PLAN".to_owned())
    })?;
    let damaged = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        AgentError::Plan(format!("the plan in HUSHPOD_PLAN is damaged at line {line}, column {column}"))
    };
    let VersionOnly { version } = serde_json::from_str(json).map_err(damaged)?;
    if version != PLAN_VERSION {
        return Err(AgentError::Plan(format!(
            "the plan in HUSHPOD_PLAN has format {version}, and this agent understands {PLAN_VERSION}: \
             webhook and agent image are of different versions"
        )));
    }
    serde_json::from_str(json).map_err(damaged)
}

// === impl Agent ===

impl Agent {
    /// Closes the gate (or adopts an open one), then looks at the plan. In this order: whatever fails afterwards,
    /// nothing else holds back the containers that come after this one.
    ///
    /// # Errors
    /// [`AgentError`] if volume or plan cannot be used.
    pub fn prepare(settings: Settings) -> Result<Self, AgentError> {
        let Settings { mode, plan, paths, grace } = settings;
        let volume = GatedVolume::claim(&paths.volume, grace)?;
        program::provide(&paths.program, &paths.bin)?;
        let plan = read_plan(plan.as_deref())?;
        let source = Source::new(&plan, connect(&plan, &paths.tokens)?);
        Ok(Self { mode, paths, plan, source, volume })
    }

    /// Works until the work is done or `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`AgentError`], if waiting is of no use. Temporary failures are waited out.
    pub async fn run(self, shutdown: &CancellationToken) -> Result<(), AgentError> {
        let Self { mode, paths, plan, source, mut volume } = self;
        let port = plan.metrics_port.map(|number| Port::new(number, &plan, volume.watch_running()));
        if let (Some(port), Mode::Sidecar) = (&port, mode) {
            tokio::spawn(port.clone().serve(shutdown.clone()));
        }
        Keeper::new(mode, plan, source, volume, &paths, port).run(shutdown).await
    }
}

// === impl AgentError ===

impl AgentError {
    /// For whoever may see the pod: without names that only a store knows.
    #[must_use]
    pub fn public(&self) -> String {
        match self {
            Self::Refused(failures) => refusals(failures, |error| error.message.public()),
            Self::Provider { provider, error } => format!("provider {provider}: {}", error.message.public()),
            Self::Render(error) => format!("the files cannot be made: {}", error.public()),
            Self::Interrupted(sentence) => sentence.public().to_owned(),
            Self::Plan(_) | Self::Gate(_) | Self::Volume(_) | Self::Program { .. } | Self::Process(_) => {
                self.to_string()
            }
        }
    }

    /// The process's exit code, as `--help` documents it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Provider { .. } | Self::Render(_) => 1,
            Self::Plan(_) => 2,
            Self::Gate(_) | Self::Volume(_) | Self::Program { .. } => 3,
            Self::Process(_) => 4,
            // As a shell says it of SIGTERM: kubelet must not take the init container for done.
            Self::Interrupted(_) => 143,
        }
    }
}

#[cfg(test)]
mod tests;
