//! `hushpod-agent`'s command line. Paths and times are arguments alone: a mesh or vendor that adds variables to every
//! container of a pod must not move the agent's volumes, its tokens or its state.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tracing::Level;

use super::Agent;
use super::error::AgentError;
use super::settings::{AgentMode, AgentPaths, AgentSettings};
use super::termination::Ended;
use crate::audit::Who;
use crate::contract::{
    AGENT_NAME, BIN_SOURCE_PATH, CA_PATH, CONTROLS_PATH, EXEC, EXEC_COMMAND, NODE_VARIABLE, PLAN_VARIABLE,
    POD_UID_VARIABLE, POD_VARIABLE, SECRETS_PATH, STATE_PATH, TERMINATION_LOG, TOKENS_PATH,
};
use crate::process::shutdown::Shutdown;
use crate::process::telemetry::{self, LogFormat};
use crate::process::{harden, reap};
use crate::quantity::{parse_duration, parse_wait};

const AFTER_HELP: &str = "\
The plan (which secrets, from which stores, into which files) is JSON in the environment variable HUSHPOD_PLAN;
`hushpod webhook` puts it there, together with the volumes that the paths above name. HUSHPOD_POD, HUSHPOD_POD_UID and
HUSHPOD_NODE say whose reports and audit lines the agent writes.

The volume has a gate: applications mount its subdirectory `live` (subPath), which kubelet cannot prepare before the
first files are complete. Temporary failures of a store are waited out, and logged; later failures leave the last good
files where they are. A permanent failure before the first files ends the agent, with its reason as the container's
termination message, which `kubectl describe pod` shows; so does a signal then, with what the agent was waiting for.

Applications that only read environment variables are started through `hushpod-agent exec`, which comes into their
container as a program of its own: see `hushpod-agent exec --help`, also for `hushpod-agent status`.

Exit codes:
  0    done; sidecar: stopped by SIGTERM or SIGINT; ready: always
  1    a store or the operator refuses what the plan asks for, or answers do not make the files that were asked for
  2    wrong usage, or no plan that this agent understands
  3    the volume cannot be used, or its gate is not the one that this agent made
  4    the process could not be set up (signals, runtime)
  85   sidecar: variables changed, and kubelet is to restart all containers (on-change: restart-all)
  130  a second SIGINT, or 143 a second SIGTERM, before the end; 143 also: init was stopped before the files were there";

/// Fetches a pod's secrets into its memory volume and keeps them fresh there.
#[derive(Debug, Parser)]
#[command(name = AGENT_NAME, version, after_help = AFTER_HELP)]
pub struct AgentCli {
    #[command(subcommand)]
    command: AgentCommand,
    #[command(flatten)]
    options: AgentOptions,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Fetch, open the gate, then keep the files fresh and tell the application, until stopped
    Sidecar,
    /// Fetch once, write the files, leave logins and leases to a sidecar, exit
    Init,
    /// Wait until the first files are there (postStart hook); exits 0 in any case
    Ready {
        /// How long at most, such as 2s
        #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_wait)]
        wait: Duration,
    },
}

#[derive(Debug, clap::Args)]
struct AgentOptions {
    /// Root of the secrets volume
    #[arg(long, global = true, value_name = "DIR", default_value = SECRETS_PATH)]
    volume: PathBuf,
    /// State volume: the hand-over of logins and leases (optional for init)
    #[arg(long, global = true, value_name = "DIR", default_value = STATE_PATH)]
    state: PathBuf,
    /// Downward API volume with the file `annotations`: hold, pin, deny and the other controls
    #[arg(long, global = true, value_name = "DIR", default_value = CONTROLS_PATH)]
    controls: PathBuf,
    /// Projected service account tokens, one file per provider
    #[arg(long, global = true, value_name = "DIR", default_value = TOKENS_PATH)]
    tokens: PathBuf,
    /// Authorities of the stores that have theirs from a ClusterTrustBundle, one file per provider
    #[arg(long, global = true, value_name = "DIR", default_value = CA_PATH)]
    authorities: PathBuf,
    /// Volume for the program that applications are started through; without it none is copied
    #[arg(long, global = true, value_name = "DIR", default_value = BIN_SOURCE_PATH)]
    bin: PathBuf,
    /// That program
    #[arg(long, global = true, value_name = "FILE", default_value = EXEC)]
    program: PathBuf,
    /// Least time between two swaps; a replaced generation stays that long for its readers
    #[arg(long, global = true, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    grace: Duration,
    /// File for what is in the way of the first files
    #[arg(long, global = true, value_name = "FILE", default_value = TERMINATION_LOG)]
    termination_log: PathBuf,
    /// error, warn, info, debug or trace
    #[arg(long, global = true, env = "HUSHPOD_LOG", value_name = "LEVEL", default_value = "info")]
    log_level: Level,
    /// How log lines look, on standard error
    #[arg(long, global = true, env = "HUSHPOD_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// Parses the command line, runs the agent, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.peek().is_some_and(|word| word == EXEC_COMMAND || word == "status") {
        return crate::exec::main(words);
    }
    let AgentCli { command, options } = AgentCli::parse();
    let mode = match command {
        AgentCommand::Sidecar => AgentMode::Sidecar,
        AgentCommand::Init => AgentMode::Init,
        AgentCommand::Ready { wait } => {
            harden::harden();
            // A hook's exit code would kill the container: whether the files are there is the gate's business.
            let _ = super::ready(&options.volume, wait);
            return ExitCode::SUCCESS;
        }
    };
    telemetry::init(options.log_format, options.log_level);
    harden::harden();
    // An error says that one is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    match run(mode, &options) {
        Ok(ended) => ExitCode::from(ended.exit_code()),
        Err(error) => {
            super::terminate(&options.termination_log, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn told_by(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}

fn run(mode: AgentMode, options: &AgentOptions) -> Result<Ended, AgentError> {
    let AgentOptions { volume, state, controls, tokens, authorities, bin, program, grace, termination_log, .. } =
        options;
    let settings = AgentSettings {
        mode,
        plan: std::env::var(PLAN_VARIABLE).ok(),
        who: Who {
            pod: told_by(POD_VARIABLE),
            uid: told_by(POD_UID_VARIABLE),
            node: told_by(NODE_VARIABLE),
            ..Who::default()
        },
        paths: AgentPaths {
            volume: volume.clone(),
            state: state.clone(),
            controls: controls.clone(),
            tokens: tokens.clone(),
            authorities: authorities.clone(),
            bin: bin.clone(),
            program: program.clone(),
            termination_log: termination_log.clone(),
        },
        grace: *grace,
    };
    let agent = Agent::prepare(settings)?;
    agent.confine();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Blocking threads do file work now and then; none stays to hold memory.
        .thread_keep_alive(Duration::from_secs(1))
        .build()?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::listen()?;
        tokio::spawn(reap::reap_orphans());
        Box::pin(agent.run(&shutdown.token())).await
    });
    // A file that takes its time to be read, as on a network mount, must not keep the agent from ending.
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::contract::RESTART_ALL_CODE;

    #[test]
    fn the_command_line_is_well_formed_and_its_help_fits_a_terminal() {
        AgentCli::command().debug_assert();
        let help = AgentCli::command().render_help().to_string();
        assert!(help.contains("Exit codes:") && help.contains("HUSHPOD_PLAN"), "{help}");
        let after = help.split("The plan (").nth(1).unwrap();
        assert!(after.lines().all(|line| line.len() <= 120), "{after}");
    }

    #[test]
    fn every_exit_code_has_one_meaning() {
        let after = AFTER_HELP.split("Exit codes:").nth(1).unwrap();
        let codes = after.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()?.parse::<u8>().ok());
        let codes: Vec<_> = codes.collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, RESTART_ALL_CODE, 130]);
        assert_eq!((Ended::Done.exit_code(), Ended::RestartAll.exit_code()), (0, RESTART_ALL_CODE));
        // What the variables' program says when it ends by itself, and what a shell says of signals.
        assert!(![75, 125, 126, 127].contains(&RESTART_ALL_CODE) && RESTART_ALL_CODE < 128);
    }

    #[test]
    fn flags_may_stand_behind_the_command() {
        let cli = AgentCli::try_parse_from(["hushpod-agent", "ready", "--wait", "2s", "--volume", "/v"]).unwrap();
        assert_eq!(cli.options.volume, PathBuf::from("/v"));
        assert!(matches!(cli.command, AgentCommand::Ready { wait } if wait == Duration::from_secs(2)));
    }

    #[test]
    fn p6_of_the_environment_only_the_log_is_told() {
        let command = AgentCli::command();
        let variables = command.get_arguments().filter_map(|argument| argument.get_env()).collect::<Vec<_>>();
        assert_eq!(variables, ["HUSHPOD_LOG", "HUSHPOD_LOG_FORMAT"]);
    }

    #[test]
    fn p9_bad_flags_are_refused_with_what_would_be_accepted() {
        for (arguments, says) in [
            (vec!["hushpod-agent"], "Usage"),
            (vec!["hushpod-agent", "sidecars"], "sidecar"),
            (vec!["hushpod-agent", "sidecar", "--grace", "1"], "such as 500ms, 30s, 5m or 1h"),
            (vec!["hushpod-agent", "sidecar", "--log-format", "xml"], "json"),
        ] {
            let error = AgentCli::try_parse_from(&arguments).unwrap_err();
            assert!(error.to_string().contains(says), "{arguments:?}: {error}");
        }
    }
}
