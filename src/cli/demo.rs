//! `hushpod demo`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::contract::AGENT_NAME;
use crate::demo::{self, DemoError, DemoSettings};
use crate::process::telemetry;
use crate::process::terminal::print;

const LONG: &str = "\
Show the whole chain on this machine: webhook, agent, application, rotation. No
cluster, no root.

Examples:
  hushpod demo
  hushpod demo --rotations 20 --json | jq .holds
  hushpod demo --store store >.hushpod.local.yaml
                              made-up secrets for what the pages show";
const AFTER: &str = "\
Exit codes: 0 every claim held; 1 one did not, or the chain broke; 2 wrong
usage; 130 after Ctrl-C, which leaves nothing behind";

#[derive(Debug, Args)]
#[command(
    about = "Show the whole chain on this machine: webhook, agent, application, rotation. No cluster, no root",
    long_about = LONG,
    after_help = AFTER
)]
pub(super) struct DemoArgs {
    /// One JSON document for scripts, instead of lines for people.
    #[arg(long)]
    json: bool,
    /// How often the secret is rotated in each mode that refreshes.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rotations: u32,
    /// The hushpod-agent program; the one beside this program if left out.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Instead of all that, write the store that the pages `local` and `ci` ask, with made-up secrets, to a new directory,
    /// and print what .hushpod.local.yaml needs to have it in the place of theirs.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["json", "rotations", "agent"])]
    store: Option<PathBuf>,
}

pub(super) async fn run(args: DemoArgs) -> ExitCode {
    let DemoArgs { json, rotations, agent, store } = args;
    if let Some(directory) = store {
        return keep_store(&directory);
    }
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

/// Writes the store that stays, and what names it.
fn keep_store(directory: &Path) -> ExitCode {
    let written = demo::write_store(directory).map_err(|error| error.to_string());
    let printed = written.and_then(|text| print(text.as_bytes()).map_err(|error| format!("standard output: {error}")));
    telemetry::exit(printed)
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
