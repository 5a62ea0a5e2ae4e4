//! `kubectl hushpod`: what pods hold, and how to steer them, with the rights of the person who asks. The API server alone
//! is talked to: reports come from the logs of our containers, controls are annotations.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::error::ErrorKind;

use self::arguments::{FleetCommand, OutputFormat, StatusArgs};
use self::completion::script_of_plugin;
use self::connect::Cluster;
use self::error::FleetError;
use self::order::{Wish, fresh_name};
use self::out::write;
use self::progress::ProgressLine;

mod arguments;
mod audit_file;
mod completion;
mod connect;
mod control;
mod denial;
mod deny;
mod error;
mod history;
mod inventory;
mod live;
mod logs;
mod next_pods;
mod order;
mod our_pod;
mod out;
mod progress;
mod safe;
mod select;
mod table;
mod waves;
mod who;

pub use arguments::{FleetArgs, PluginCli};
pub use completion::{complete, completion_script};

/// Runs what the command line asks for.
pub async fn run(args: FleetArgs) -> ExitCode {
    match command(args).await {
        Ok(code) => code,
        Err(error) => {
            // If standard error is gone, the exit code has to do.
            let _ = clap::Error::raw(ErrorKind::Io, format!("{error}\n")).print();
            ExitCode::from(error.exit_code())
        }
    }
}

async fn command(args: FleetArgs) -> Result<ExitCode, FleetError> {
    let FleetArgs { command, cluster } = args;
    let connect = || Cluster::connect(&cluster);
    let mut progress = ProgressLine::new(io::stderr().is_terminal());
    let progress = &mut progress;
    let text = match command {
        FleetCommand::Completion { shell } => script_of_plugin(shell),
        FleetCommand::ExplainDenial(asked) => denial::explain(&asked)?.into_bytes(),
        FleetCommand::Status(asked) => status(&connect().await?, &asked, progress).await?.into_bytes(),
        FleetCommand::History(asked) => history::of(&connect().await?, &asked).await?.into_bytes(),
        FleetCommand::Who(asked) if asked.from_audit.is_some() => who::ever(&asked)?.into_bytes(),
        FleetCommand::Who(asked) => who::answer(&connect().await?, &asked, progress).await?.into_bytes(),
        FleetCommand::Hold(asked) => return control::run(&connect().await?, Wish::Hold, asked, progress).await,
        FleetCommand::Release(asked) => return control::run(&connect().await?, Wish::Release, asked, progress).await,
        FleetCommand::Pin(asked) => {
            return control::run(&connect().await?, Wish::pin(&asked.generation)?, asked.control, progress).await;
        }
        FleetCommand::Refresh(asked) => {
            return control::run(&connect().await?, Wish::Refresh(fresh_name()), asked, progress).await;
        }
        FleetCommand::Advance(asked) => {
            return control::run(&connect().await?, Wish::Advance(asked.wave), asked.control, progress).await;
        }
        FleetCommand::Deny(asked) => return deny::run(&connect().await?, asked, progress).await,
    };
    write(&text)?;
    Ok(ExitCode::SUCCESS)
}

async fn status(cluster: &Cluster, asked: &StatusArgs, progress: &mut ProgressLine) -> Result<String, FleetError> {
    let StatusArgs { target, output, live } = asked;
    let found = select::pods(cluster, target).await?;
    let statuses = inventory::look(cluster, found.pods, progress).await;
    let live = if *live { Some(live::ask(cluster, &statuses, progress).await) } else { None };
    progress.end();
    Ok(match output {
        Some(OutputFormat::Json) => table::json(&statuses, live.as_deref()),
        format => table::text(&statuses, format.is_some(), target.all_namespaces, live.as_deref()),
    })
}
