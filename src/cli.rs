//! The `hushpod` command line: what was typed becomes settings, and nothing later reads arguments or environment.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::csi::cli::{self as csi, CsiArgs};
use crate::demo::application;
use crate::explain::explain;
use crate::fleet::{self, FleetArgs, PluginCli};
use crate::local::{self, ErrorArgs, LocalCommand, LocalError, emit};
use crate::metrics::Registry;
use crate::process::telemetry::{self, LogFormat};
use crate::process::terminal::width_of_stdout;

mod demo;
mod test;
mod webhook;

use self::demo::DemoArgs;
use self::test::TestArgs;
use self::webhook::WebhookArgs;

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
    Webhook(Box<WebhookArgs>),
    Csi(Box<CsiArgs>),
    Demo(DemoArgs),
    Test(TestArgs),
    Kubectl(Box<FleetArgs>),
    /// Say what an annotation, a field of the configuration or a store means: the pages, without a network.
    #[command(long_about = LONG_EXPLAIN, after_help = AFTER_EXPLAIN)]
    Explain(ExplainArgs),
    /// Print a shell's completion of hushpod.
    #[command(long_about = LONG_COMPLETION, after_help = AFTER_COMPLETION)]
    Completion {
        /// bash, zsh, fish, powershell or elvish
        shell: Shell,
        #[command(flatten)]
        errors: ErrorArgs,
    },
    /// Write a manual page for each command.
    #[command(long_about = LONG_MAN, after_help = AFTER_MAN)]
    Man {
        /// Where to write them: hushpod.1, hushpod-run.1 and so on; made if it is not there
        dir: PathBuf,
        #[command(flatten)]
        errors: ErrorArgs,
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
struct ExplainArgs {
    /// A topic, annotation, field, metric or word; without one, which topics there are.
    topic: Vec<String>,
    #[command(flatten)]
    errors: ErrorArgs,
}

#[derive(Debug, Args)]
struct ApplicationArgs {
    #[arg(long)]
    file: PathBuf,
    #[arg(long)]
    port: u16,
}

const LONG_COMPLETION: &str = "\
Print a shell's completion of hushpod.

Examples:
  hushpod completion bash >~/.local/share/bash-completion/completions/hushpod
  hushpod completion fish >~/.config/fish/completions/hushpod.fish
  source <(hushpod completion zsh)";
const AFTER_COMPLETION: &str = "Exit codes: 0 done; 1 it cannot be written; 2 wrong usage";

const LONG_MAN: &str = "\
Write a manual page for each command.

Examples:
  hushpod man ~/.local/share/man/man1
  hushpod man /tmp/pages && man /tmp/pages/hushpod-run.1";
const AFTER_MAN: &str = "Exit codes: 0 done; 1 a page cannot be written; 2 wrong usage";

const LONG_EXPLAIN: &str = "\
Say what an annotation, a field of the configuration or a store means: the
pages, without a network.

Examples:
  hushpod explain                              the topics
  hushpod explain vault                        a store's page
  hushpod explain hushpod.dev/notify           an annotation; notify is enough
  hushpod explain providers.vault.address      a field of the configuration
  hushpod explain live controls                a section";
const AFTER_EXPLAIN: &str = "Exit codes: 0 it is explained; 2 there is no such topic: the nearest is named";

/// The name that kubectl looks for, for `kubectl hushpod` …
const PLUGIN: &str = "kubectl-hushpod";
/// … and for the completion of what is typed behind it.
const PLUGIN_COMPLETION: &str = "kubectl_complete-hushpod";

impl Cli {
    /// Whether a person or a job of CI waits for it, and nothing else does.
    #[must_use]
    pub fn is_of_a_person(&self) -> bool {
        matches!(self.command, Command::Local(_))
    }
}

/// Reads the command line, or says what is wrong with it and ends: `hushpod run` with its own exit code, since 2 is its
/// command's to use; a person's commands in the format that they ask for.
fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        let words: Vec<_> = std::env::args_os().skip(1).collect();
        if error.use_stderr()
            && let Some(code) = local::tell_usage(&words, &error)
        {
            std::process::exit(i32::from(code));
        }
        error.exit()
    })
}

/// What has to come before there is a second thread: reads the command line of `hushpod`, under whatever `name`; `None` for
/// the plugin's, which [`run_as_plugin`] reads.
///
/// # Errors
/// The exit code, if there is nothing more to do.
pub fn prepare(name: &str) -> Result<Option<Cli>, ExitCode> {
    if [PLUGIN, PLUGIN_COMPLETION].contains(&name) {
        return Ok(None);
    }
    let mut cli = parse();
    if let Command::Local(command) = &mut cli.command {
        local::prepare(command)?;
    }
    Ok(Some(cli))
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
    let level = log_level.unwrap_or(default_level);
    let queue = match &command {
        // A thread that writes would end, with what it has yet to write, when a command takes the process over.
        Command::Local(_) => {
            telemetry::init(log_format, level);
            None
        }
        _ => Some(telemetry::init_for_server(log_format, level)),
    };
    let (_written_at_end, dropped) = queue.unzip();
    let lines = move || match &dropped {
        Some(dropped) => dropped.lines(),
        None => 0,
    };
    let registry = || Registry::of_server(lines);
    let outcome = match command {
        Command::Webhook(args) => webhook::run(*args, registry()).await,
        Command::Csi(args) => csi::run(*args, registry()).await,
        Command::Local(command) => return local::run(command).await,
        Command::Demo(args) => return demo::run(args).await,
        Command::Test(args) => return test::run(args).await,
        Command::Kubectl(args) => return fleet::run(*args).await,
        Command::Completion { shell, errors } => {
            return errors.exit(emit(None, &fleet::completion_script(Cli::command(), env!("CARGO_PKG_NAME"), shell)));
        }
        Command::Man { dir, errors } => {
            let written = man::write_pages(Cli::command(), &dir);
            return errors.exit(written.map_err(|error| LocalError::failed(format!("{}: {error}", dir.display()))));
        }
        Command::Explain(ExplainArgs { topic, errors }) => return errors.exit(run_explain(&topic.join(" "))),
        Command::DemoApplication(ApplicationArgs { file, port }) => {
            application::serve(file, port).await.map_err(|error| error.to_string())
        }
    };
    telemetry::exit(outcome)
}

/// The program as kubectl calls it, by the name that it was started under.
pub async fn run_as_plugin(name: &str, words: Vec<String>) -> ExitCode {
    if name == PLUGIN_COMPLETION {
        return ErrorArgs::default().exit(emit(None, fleet::complete(&words).as_bytes()));
    }
    let PluginCli { fleet } = PluginCli::parse();
    drop(telemetry::init_for_server(LogFormat::Text, tracing::Level::WARN));
    fleet::run(fleet).await
}

fn run_explain(asked: &str) -> Result<(), LocalError> {
    let text = explain(asked, width_of_stdout()).map_err(|unknown| LocalError::usage(unknown.to_string()))?;
    emit(None, text.as_bytes())
}
