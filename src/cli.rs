//! The `hushpod` command line: what was typed becomes settings, and nothing later reads arguments or environment.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cluster;
use crate::cluster::namespaces::Namespaces;
use crate::config::Config;
use crate::config::metrics::ConfigMetrics;
use crate::config::reload::Reloading;
use crate::contract::{AGENT_NAME, WEBHOOK_PORT};
use crate::csi::{self, CsiSettings, driver_object};
use crate::demo::{self, DemoError, DemoSettings, application};
use crate::explain::explain;
use crate::fleet::{self, FleetArgs, PluginCli};
use crate::local::check::{self, CheckArgs};
use crate::local::{self, LocalCommand};
use crate::metrics::Registry;
use crate::metrics::catalogue::LOG_DROPPED_LINES;
use crate::process::shutdown::Shutdown;
use crate::process::telemetry::{self, LogFormat};
use crate::process::terminal::{self, width_of_stdout};
use crate::quantity::parse_duration;
use crate::serve::readiness::Readiness;
use crate::webhook::server;
use crate::webhook::server::{Injector, Metrics, Names, WebhookSettings, reviewer};
use crate::webhook::trial::Trial;

mod man;

/// Secrets for Kubernetes pods that never touch etcd: fetched into memory, refreshed in place, no restart.
#[derive(Debug, Parser)]
#[command(
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start with `hushpod demo`: the whole chain on this machine, in under a minute.\n\n\
                  Exit codes: 0 all is well · 1 it failed, and said why · 2 the command line is wrong"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Local(LocalCommand),
    /// Answer the API server: patch pods that ask for secrets by annotation.
    Webhook(Box<WebhookArgs>),
    /// Serve volumes with secrets on this node: the CSI driver csi.hushpod.dev.
    Csi(Box<CsiArgs>),
    /// Show the whole chain on this machine: webhook, agent, application, rotation. No cluster, no root.
    Demo(DemoArgs),
    /// Ask the API server whether a pod with annotations of ours would get its secrets: what `helm test` runs.
    Test(TestArgs),
    /// Say all that is wrong with an operator's configuration, and which rule lets whom have what. No cluster is asked.
    Check(Box<CheckArgs>),
    /// See and steer the secrets of running pods, with your own kubeconfig: `kubectl hushpod` is the same.
    Kubectl(Box<FleetArgs>),
    /// Say what an annotation, a field of the configuration or a store means: the pages, without a network.
    Explain(ExplainArgs),
    /// Print a shell's completion of hushpod.
    Completion {
        /// bash, zsh, fish, powershell or elvish
        shell: Shell,
    },
    /// Write a manual page for each command.
    #[command(after_help = MAN_HELP)]
    Man {
        /// Where to write them: hushpod.1, hushpod-run.1 and so on; made if it is not there
        dir: PathBuf,
    },
    /// The demo's application.
    #[command(hide = true)]
    DemoApplication(ApplicationArgs),
}

#[derive(Debug, Args)]
struct LogArgs {
    /// Least severe level that is logged: error, warn, info, debug or trace [default: info; for demo and kubectl: warn].
    #[arg(long, env = "HUSHPOD_LOG", value_name = "LEVEL", global = true)]
    log_level: Option<tracing::Level>,
    /// How log lines look: text or json.
    #[arg(long, env = "HUSHPOD_LOG_FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without --tls-dir the webhook makes its own certificate, keeps the key in memory, and puts its \
                        authority into the MutatingWebhookConfiguration.\n\n\
                        A changed configuration file is in force at once; a bad one is refused with a log line, and the \
                        last good one stays."
)]
struct WebhookArgs {
    /// The operator's configuration (YAML): providers, who may use them, defaults.
    #[arg(long, env = "HUSHPOD_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Directory with tls.crt and tls.key, as cert-manager mounts it; followed when they change.
    #[arg(long, env = "HUSHPOD_TLS_DIR", value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// PEM file of the authorities that sign the API server's client certificate: without one of theirs nobody is heard.
    /// Followed when it changes; without this option everyone who can connect is heard.
    #[arg(long, env = "HUSHPOD_CLIENT_CA", value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// Where the API server calls.
    #[arg(long, env = "HUSHPOD_LISTEN", value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, WEBHOOK_PORT)))]
    listen: SocketAddr,
    /// Where probes and Prometheus call: /healthz, /readyz, /metrics (plain HTTP).
    #[arg(long, env = "HUSHPOD_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8081")]
    admin_listen: SocketAddr,
    /// The Service in front of the webhook: its own certificate is for this name.
    #[arg(long, env = "HUSHPOD_SERVICE", value_name = "NAME", default_value = "hushpod")]
    service: String,
    /// The MutatingWebhookConfiguration that has to trust it.
    #[arg(long, env = "HUSHPOD_WEBHOOK_CONFIGURATION", value_name = "NAME", default_value = "hushpod")]
    webhook_configuration: String,
    /// The cluster to talk to, if the webhook does not run in it; ~/.kube/config is never looked for.
    #[arg(long, value_name = "FILE", conflicts_with = "tls_dir")]
    kubeconfig: Option<PathBuf>,
    /// How long to go on serving after SIGTERM; 5s is the least.
    #[arg(long, env = "HUSHPOD_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    drain: Duration,
    /// This pod's name (downward API).
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "hushpod")]
    pod_name: String,
    /// This pod's namespace (downward API).
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "hushpod")]
    pod_namespace: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Runs as root on a node, as the chart's DaemonSet does. Volumes outlive it: the next process goes on \
                        with them.\n\n\
                        --print-driver writes the CSIDriver object that this configuration needs, for those who do not \
                        use the chart: kubectl apply -f - takes it."
)]
struct CsiArgs {
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
    #[arg(long, env = "HUSHPOD_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8081")]
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

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0 if every claim held, 1 if one did not or the chain broke; 130 after Ctrl-C, which leaves \
                  nothing behind."
)]
struct DemoArgs {
    /// One JSON document for scripts, instead of lines for people.
    #[arg(long)]
    json: bool,
    /// How often the secret is rotated in each mode that refreshes.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rotations: u32,
    /// The hushpod-agent program; the one beside this program if left out.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "The pod is a server-side dry run: none is made, and no store is asked.\n\n\
                  Exit codes: 0 injected · 1 not injected, or there was no asking: why, and what to do · 2 the command \
                  line is wrong")]
struct TestArgs {
    /// Where the pod would be.
    #[arg(long, value_name = "NAME")]
    namespace: String,
    /// An annotation of it, such as hushpod.dev/file.password=secret/data/web/db#password.
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = name_and_value, required = true)]
    annotations: Vec<(String, String)>,
    /// A label of it.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = name_and_value)]
    labels: Vec<(String, String)>,
    /// The cluster to ask, if this does not run in it.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_HELP)]
struct ExplainArgs {
    /// A topic, annotation, field, metric or word; without one, which topics there are.
    topic: Vec<String>,
}

#[derive(Debug, Args)]
struct ApplicationArgs {
    #[arg(long)]
    file: PathBuf,
    #[arg(long)]
    port: u16,
}

const MAN_HELP: &str = "\
Examples:
  hushpod man ~/.local/share/man/man1
  hushpod man /tmp/pages && man /tmp/pages/hushpod-run.1

Exit codes: 0 done; 1 a page cannot be written";

const EXPLAIN_HELP: &str = "\
Examples:
  hushpod explain                              the topics
  hushpod explain vault                        a store's page
  hushpod explain hushpod.dev/notify           an annotation; notify is enough
  hushpod explain providers.vault.address      a field of the configuration
  hushpod explain live controls                a section

Exit codes: 0 it is explained · 2 there is no such topic: the nearest is named";

/// Reads the command line, or says what is wrong with it and ends: `hushpod run` with its own exit code, since 2 is its
/// command's to use.
#[must_use]
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        let is_run = std::env::args_os().nth(1).is_some_and(|word| word == local::RUN);
        if is_run && error.use_stderr() {
            let _ = error.print();
            std::process::exit(i32::from(local::RUN_FAILED));
        }
        error.exit()
    })
}

/// Runs what the command line asks for.
pub async fn run(cli: Cli) -> ExitCode {
    let Cli { command, log: LogArgs { log_level, log_format } } = cli;
    let default_level = match &command {
        // What fails is told once, by the command itself.
        Command::Local(_) => tracing::Level::ERROR,
        Command::Demo(_) | Command::Kubectl(_) => tracing::Level::WARN,
        _ => tracing::Level::INFO,
    };
    let (_written_at_end, dropped) = telemetry::init_for_server(log_format, log_level.unwrap_or(default_level));
    let registry = || {
        let registry = Registry::of_this_build();
        registry.read(&LOG_DROPPED_LINES, move || u32::try_from(dropped.lines()).ok().map(f64::from));
        registry
    };
    let outcome = match command {
        Command::Webhook(args) => run_webhook(*args, registry()).await,
        Command::Csi(args) => run_csi(*args, registry()).await,
        Command::Local(command) => return local::run(command).await,
        Command::Demo(args) => return run_demo(args).await,
        Command::Test(args) => return run_test(args).await,
        Command::Check(args) => return check::run(*args),
        Command::Kubectl(args) => return fleet::run(*args).await,
        Command::Completion { shell } => {
            return print(&fleet::completion_script(Cli::command(), env!("CARGO_PKG_NAME"), shell));
        }
        Command::Man { dir } => {
            man::write_pages(Cli::command(), &dir).map_err(|error| format!("{}: {error}", dir.display()))
        }
        Command::Explain(ExplainArgs { topic }) => return run_explain(&topic.join(" ")),
        Command::DemoApplication(ApplicationArgs { file, port }) => {
            application::serve(file, port).await.map_err(|error| error.to_string())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run_webhook(args: WebhookArgs, registry: Registry) -> Result<(), String> {
    let WebhookArgs {
        config,
        tls_dir,
        client_ca,
        listen,
        admin_listen,
        service,
        webhook_configuration,
        kubeconfig,
        drain,
        pod_name,
        pod_namespace,
    } = args;
    let shutdown = Shutdown::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let reloading = Reloading::open(&config, Injector::new).map_err(|error| error.to_string())?;
    let reloads = ConfigMetrics::new(&registry);
    let metrics = Metrics::new(registry);
    let namespaces = Namespaces::default();
    let review = reviewer(&reloading, namespaces.clone());
    let current = reloading.subscribe();
    let connect = {
        let kubeconfig = kubeconfig.clone();
        move || {
            let kubeconfig = kubeconfig.clone();
            async move { cluster::client(kubeconfig.as_deref()).await.map_err(|error| error.to_string()) }
        }
    };
    let settings = WebhookSettings {
        listen,
        admin: admin_listen,
        tls_dir,
        names: Names { pod: pod_name, service, namespace: pod_namespace },
        configuration: webhook_configuration,
        client_ca,
        namespaces: namespaces.clone(),
        kubeconfig,
        drain_delay: drain,
    };
    let token: CancellationToken = shutdown.token();
    tokio::select! {
        outcome = server::run(settings, review, metrics, Readiness::default(), token) => {
            outcome.map_err(|error| error.to_string())
        }
        () = reloading.follow(reloads) => Ok(()),
        () = namespaces.follow(connect, current, Injector::asks_for_labels) => Ok(()),
    }
}

async fn run_csi(args: CsiArgs, registry: Registry) -> Result<(), String> {
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
    let reloads = ConfigMetrics::new(&registry);
    let token: CancellationToken = shutdown.token();
    let current = reloading.subscribe();
    tokio::select! {
        outcome = csi::run(settings, current, registry, Readiness::default(), token) => {
            outcome.map_err(|error| error.to_string())
        }
        () = reloading.follow(reloads) => Ok(()),
    }
}

async fn run_test(args: TestArgs) -> ExitCode {
    let TestArgs { namespace, annotations, labels, kubeconfig } = args;
    let map = |pairs: Vec<(String, String)>| pairs.into_iter().collect::<BTreeMap<_, _>>();
    let trial = Trial { namespace, annotations: map(annotations), labels: map(labels) };
    let outcome = match cluster::client(kubeconfig.as_deref()).await {
        Ok(client) => trial.ask(client).await,
        Err(error) => Err(error.to_string()),
    };
    let is_injected = outcome.is_ok();
    let (Ok(sentence) | Err(sentence)) = outcome;
    // If nobody takes the sentence, the exit code has to do.
    let _ = writeln!(io::stdout(), "{sentence}");
    if is_injected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The program as kubectl calls it, by the name that it was started under: `None` if that is another one.
pub async fn run_as_plugin(name: &str, words: Vec<String>) -> Option<ExitCode> {
    match name {
        "kubectl-hushpod" => {
            let PluginCli { fleet } = PluginCli::parse();
            drop(telemetry::init_for_server(LogFormat::Text, tracing::Level::WARN));
            Some(fleet::run(fleet).await)
        }
        "kubectl_complete-hushpod" => Some(print(fleet::complete(&words).as_bytes())),
        _ => None,
    }
}

fn print(text: &[u8]) -> ExitCode {
    if terminal::print(text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_explain(asked: &str) -> ExitCode {
    match explain(asked, width_of_stdout()) {
        Ok(text) => print(text.as_bytes()),
        Err(unknown) => {
            // If standard error is gone, the exit code has to do.
            let _ = clap::Error::raw(ErrorKind::InvalidValue, format!("{unknown}\n")).print();
            ExitCode::from(2)
        }
    }
}

async fn run_demo(args: DemoArgs) -> ExitCode {
    let DemoArgs { json, rotations, agent } = args;
    let beside = || std::env::current_exe().unwrap_or_default().with_file_name(AGENT_NAME);
    let settings = DemoSettings { json, rotations, agent: agent.unwrap_or_else(beside) };
    let mut out = std::io::stdout();
    // What was set up goes with the future that is not polled any more.
    let outcome = tokio::select! {
        outcome = demo::run(settings, &mut out) => outcome,
        stopped = stopped() => match stopped {
            Ok(status) => return ExitCode::from(status),
            Err(error) => Err(DemoError::Broken(format!("cannot listen for signals: {error}"))),
        },
    };
    match outcome {
        // The reader who closed the pipe has seen enough.
        Ok(true) | Err(DemoError::Unread) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for a signal that ends a program of a terminal, and gives the exit code that a shell makes of it.
async fn stopped() -> std::io::Result<u8> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = hangup.recv() => 128 + 1,
        _ = interrupt.recv() => 128 + 2,
        _ = terminate.recv() => 128 + 15,
    })
}
