//! The same volume without a container: a CSI driver for inline volumes, one process on each node.
//!
//! kubelet calls [`driver::Driver`] through [`node`]; a call becomes a plan in [`attributes`]; pods of one identity that
//! want the same share a [`feed`], which has a source and a delivery for each volume. Contract:
//! <https://github.com/container-storage-interface/spec/blob/v1.13.0/spec.md>, and what kubelet makes of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::{fmt, fs, io};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::calls::{CallSocket, CsiServices};
use self::driver::{Driver, DriverParts};
use self::events::Troubles;
use self::metrics::DriverMetrics;
use self::mounts::{KernelMounts, Mounts as _};
use self::node::NodeService;
use self::pods::Pods;
use self::proto::registration::registration_server::RegistrationServer;
use self::registration::{REGISTRATION_SOCKET, RegistrationService};
use self::sole::SoleDriver;
use self::state::StateDir;
use self::surroundings::connected;
use crate::audit::{AuditLog, Program, Who};
use crate::cluster::events::EventQueue;
use crate::cluster::namespaces::Namespaces;
use crate::config::Config;
use crate::contract::CSI_DRIVER;
use crate::metrics::Registry;
use crate::serve::readiness::Readiness;
use crate::serve::{Limits as ServeLimits, ServeError, Server as AdminServer, admin};
use crate::source::SourceMetrics;

mod attached;
mod attributes;
mod budget;
mod calls;
pub mod cli;
mod driver;
mod events;
mod failure;
mod feed;
mod known;
mod logins;
mod metrics;
mod mounts;
mod names;
mod node;
mod object;
mod pods;
mod program;
mod proto;
mod record;
mod registration;
mod sole;
mod state;
mod surroundings;
mod taint;
#[cfg(test)]
mod tests;
mod tokens;
mod volume;

#[doc(hidden)]
pub use attributes::plan_of_context;
pub use object::driver_object;
pub use state::StateError;

/// How the driver runs.
#[derive(Clone)]
pub struct CsiSettings {
    /// kubelet's directory, at the same path here as on the node.
    pub kubelet_root: PathBuf,
    /// The node's name.
    pub node: String,
    /// The program that applications with variables are started through; `None` if no pod may have one.
    pub program: Option<PathBuf>,
    /// Where kubelet's probes and Prometheus call.
    pub admin: SocketAddr,
    /// The cluster, for the live controls and events; `None` does without them.
    pub client: Option<kube::Client>,
    /// Whether the node's startup taint goes once kubelet has registered the driver.
    pub startup_taint: bool,
}

impl fmt::Debug for CsiSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsiSettings").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Why the driver ended.
#[derive(Debug, thiserror::Error)]
pub enum CsiError {
    /// A port is not to be had.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A directory or socket cannot be made.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// kubelet refuses the driver.
    #[error("kubelet does not register the driver: {0}")]
    Registration(String),
    /// A part that should run for ever did not.
    #[error("a part of the driver failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Bytes of the file system that the driver keeps its state in; it takes no more than what stands in it.
const STATE_BYTES: u64 = 64 << 20;

/// Runs the driver until `shutdown` is cancelled. Volumes stay as they are, and the next process goes on with them.
pub async fn run(
    settings: CsiSettings,
    config: watch::Receiver<Arc<Config>>,
    registry: Registry,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> Result<(), CsiError> {
    let CsiSettings { kubelet_root, node, admin, .. } = &settings;
    let admin = AdminServer::bind(*admin)?.with_limits(ServeLimits::ADMIN);
    let probes = admin::router(readiness.clone(), registry.clone());
    let all_served = CancellationToken::new();
    let admin_over = admin.run_apart("admin", probes, all_served.clone())?;
    let registering = readiness.block("registration with kubelet");

    let own = kubelet_root.join("plugins").join(CSI_DRIVER);
    let failed = |source| CsiError::Io { path: own.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&own).map_err(failed)?;
    let Some(_sole) = SoleDriver::of(&own, &shutdown).await.map_err(failed)? else {
        all_served.cancel();
        let _ = admin_over.await;
        return Ok(());
    };
    let mut tasks = JoinSet::new();
    let driver = start(&settings, &own, config, registry, &shutdown, &mut tasks)?;

    // kubelet calls the driver as soon as it has seen the second one.
    let socket = own.join("csi.sock");
    let services = CsiServices::new(NodeService { driver: Arc::clone(&driver), node: node.clone() });
    let (calls, _) = listen(&socket)?.serve(services, shutdown.clone());
    let (told, registered) = oneshot::channel();
    let endpoint = socket.to_string_lossy().into_owned();
    let registrations = watch::Sender::new(0);
    if let Some(client) = settings.client.clone().filter(|_| settings.startup_taint) {
        tasks.spawn(taint::remove_when_registered(client, node.clone(), registrations.subscribe()));
    }
    let service = RegistrationService { endpoint, registered: Mutex::new(Some(told)), registrations };
    let registry_socket = kubelet_root.join("plugins_registry").join(REGISTRATION_SOCKET);
    let registry_socket = listen(&registry_socket)?;
    let (registration, registry_socket) = registry_socket.serve(RegistrationServer::new(service), shutdown.clone());
    info!(socket = %socket.display(), "the CSI driver listens");

    let until_registered = async {
        match registered.await {
            Ok(Ok(())) => drop(registering),
            Ok(Err(problem)) => return Err(CsiError::Registration(problem)),
            Err(_) => {}
        }
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = calls => outcome.map_err(CsiError::from),
        outcome = registration => outcome.map_err(CsiError::from),
        outcome = until_registered => outcome,
    };
    // Without its socket kubelet takes the driver for gone, which it is.
    registry_socket.remove();
    tasks.shutdown().await;
    // While this process is the sole one: another goes on with what feeds have written.
    shutdown.cancel();
    driver.ended().await;
    all_served.cancel();
    let _ = admin_over.await;
    outcome
}

/// The driver with the volumes of an earlier process, and what goes on beside it in `tasks`.
fn start(
    settings: &CsiSettings,
    own: &Path,
    config: watch::Receiver<Arc<Config>>,
    registry: Registry,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<Driver>, CsiError> {
    let CsiSettings { kubelet_root, node, program, client, .. } = settings;
    let mounts = Arc::new(KernelMounts::default());
    let state = open_state(own, &mounts)?;
    let program = program.as_ref().map(|file| {
        let programs = own.join("programs");
        program::install(file, &programs, &*mounts).map_err(|source| CsiError::Io { path: file.clone(), source })
    });
    let program = program.transpose()?;
    if let Some(present) = &program {
        program::remove_unused(present, &*mounts);
    }
    let pods = Pods::unknown(client.is_some());
    let namespaces = Namespaces::default();
    let troubles = match client {
        Some(client) => {
            let (events, send) = EventQueue::told_to(client.clone(), CSI_DRIVER, node);
            tasks.spawn(send);
            Troubles(events)
        }
        None => Troubles(EventQueue::untold()),
    };
    let sources = SourceMetrics::new(&registry);
    let configs = config.clone();
    let driver = Driver::new(DriverParts {
        kubelet_root: kubelet_root.clone(),
        config,
        program,
        mounts,
        state,
        pods: pods.clone(),
        namespaces: namespaces.clone(),
        troubles,
        metrics: DriverMetrics::new(registry),
        audit: AuditLog::new(Program::Csi, Who { node: Some(node.clone()), ..Who::default() }),
        sources: Arc::new(move |plan, token_of| connected(plan, token_of, &sources)),
        shutdown: shutdown.clone(),
    });
    driver.resume();
    if let Some(client) = client.clone() {
        let watched = client.clone();
        let (watching, node) = (Arc::clone(&driver), node.clone());
        tasks.spawn(async move { pods.follow(client, &node, |uid, seen| watching.pod_changed(uid, seen)).await });
        tasks.spawn(async move {
            let connect = || std::future::ready(Ok::<_, Infallible>(watched.clone()));
            namespaces.follow(connect, configs, Config::asks_for_labels).await;
        });
        let collecting = Arc::clone(&driver);
        tasks.spawn(async move { collecting.collect().await });
    }
    Ok(driver)
}

/// The driver's own file system in memory, which outlives its process.
fn open_state(own: &Path, mounts: &KernelMounts) -> Result<StateDir, CsiError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CsiError::Io { path, source }
    };
    let dir = own.join("state");
    if !mounts.is_ours(&dir).map_err(failed(&dir))? {
        mounts.mount(&dir, STATE_BYTES).map_err(failed(&dir))?;
    }
    Ok(StateDir::open(&dir)?)
}

fn listen(socket: &Path) -> Result<CallSocket, CsiError> {
    CallSocket::bind(socket).map_err(|source| CsiError::Io { path: socket.to_owned(), source })
}
