//! `hushpod csi`, and `hushpod-csi`, which is the same in a program of its own: a node need not have the rest.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::{CsiSettings, driver_object};
use crate::cluster;
use crate::config::Config;
use crate::config::reload::Reloading;
use crate::contract::CSI_PROGRAM;
use crate::metrics::Registry;
use crate::process::shutdown::Shutdown;
use crate::process::telemetry::{self, LogFormat};
use crate::serve::admin;
use crate::serve::readiness::Readiness;

const LONG: &str = "\
Serve volumes with secrets on this node: the CSI driver csi.hushpod.dev.

Examples:
  hushpod csi --config config.yaml --node-name \"$NODE_NAME\"
  hushpod csi --config config.yaml --print-driver | kubectl apply -f -";
const AFTER: &str = "\
Runs as root on a node, as the chart's DaemonSet does. Volumes outlive it: the
next process goes on with them.
--print-driver writes the CSIDriver object that this configuration needs, for
those who do not use the chart.

Exit codes: 0 ended by a signal; 1 it failed, and said why; 2 wrong usage";

/// What the driver is told by its arguments.
#[derive(Debug, Args)]
#[command(
    about = "Serve volumes with secrets on this node: the CSI driver csi.hushpod.dev",
    long_about = LONG,
    after_help = AFTER
)]
pub struct CsiArgs {
    /// The operator's configuration (YAML), the webhook's own.
    #[arg(long, env = "HUSHPOD_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// This node's name (downward API).
    #[arg(long, env = "NODE_NAME", value_name = "NAME", required_unless_present = "print_driver", default_value = "")]
    node_name: String,
    /// kubelet's directory, at the same path here as on the node.
    #[arg(long, env = "HUSHPOD_KUBELET_ROOT", value_name = "DIR", default_value = "/var/lib/kubelet")]
    kubelet_root: PathBuf,
    /// Where probes and Prometheus call: /healthz, /readyz, /metrics (plain HTTP).
    #[arg(long, env = "HUSHPOD_ADMIN_LISTEN", value_name = "ADDRESS", default_value_t = admin::ADDRESS)]
    admin_listen: SocketAddr,
    /// The program that applications with variables are started through, hushpod-exec; without it no pod of mode csi may
    /// have variables.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// The cluster to talk to, if the driver does not run in it.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Do without the API server: no live controls, no events.
    #[arg(long, conflicts_with = "kubeconfig")]
    no_api_server: bool,
    /// Take the taint csi.hushpod.dev/not-ready off this node once kubelet has registered the driver.
    #[arg(long, conflicts_with = "no_api_server")]
    startup_taint: bool,
    /// Print the CSIDriver object (JSON) and end.
    #[arg(long)]
    print_driver: bool,
}

/// Serves volumes with secrets on this node: the CSI driver csi.hushpod.dev.
#[derive(Debug, Parser)]
#[command(name = CSI_PROGRAM, version)]
struct DriverCli {
    #[command(flatten)]
    args: CsiArgs,
    /// Least severe level that is logged: error, warn, info, debug or trace.
    #[arg(long, env = "HUSHPOD_LOG", value_name = "LEVEL", default_value = "info")]
    log_level: Level,
    /// How log lines look: text or json.
    #[arg(long, env = "HUSHPOD_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// The whole program `hushpod-csi`.
#[must_use]
pub fn main() -> ExitCode {
    // An error says that one is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let DriverCli { args, log_level, log_format } = DriverCli::parse();
    let (_written_at_end, dropped) = telemetry::init_for_server(log_format, log_level);
    let registry = Registry::of_server(move || dropped.lines());
    // One thread is enough for what a node asks for, and a second one would be woken with it for nothing.
    telemetry::exit(match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(args, registry)),
        Err(error) => Err(format!("cannot start: {error}")),
    })
}

/// Does what the arguments say.
///
/// # Errors
/// The sentence for the log.
pub async fn run(args: CsiArgs, registry: Registry) -> Result<(), String> {
    let CsiArgs {
        config,
        node_name,
        kubelet_root,
        admin_listen,
        program,
        kubeconfig,
        no_api_server,
        startup_taint,
        print_driver,
    } = args;
    let reloading = Reloading::open(&config, |config: Config| config).map_err(|error| error.to_string())?;
    if print_driver {
        let object = driver_object(&reloading.subscribe().borrow());
        return io::stdout().write_all(object.as_bytes()).map_err(|error| error.to_string());
    }
    let shutdown = Shutdown::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let client = if no_api_server {
        None
    } else {
        Some(cluster::client(kubeconfig.as_deref()).await.map_err(|error| error.to_string())?)
    };
    let settings = CsiSettings { kubelet_root, node: node_name, program, admin: admin_listen, client, startup_taint };
    let token: CancellationToken = shutdown.token();
    let current = reloading.subscribe();
    tokio::select! {
        outcome = super::run(settings, current, registry.clone(), Readiness::default(), token) => {
            outcome.map_err(|error| error.to_string())
        }
        () = reloading.follow(&registry) => Ok(()),
    }
}
