//! `hushpod demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::contract::AGENT_NAME;
use crate::demo::{self, DemoError, DemoSettings};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0 if every claim held, 1 if one did not or the chain broke; 130 after Ctrl-C, which leaves \
                  nothing behind."
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
}

pub(super) async fn run(args: DemoArgs) -> ExitCode {
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
