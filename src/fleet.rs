//! `kubectl hushpod`: what pods hold, and how to steer them, with the rights of the person who asks. The API server alone
//! is talked to: reports come from the logs of our containers, controls are annotations.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::error::ErrorKind;

use self::arguments::{FleetCommand, OutputFormat};
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
    let command = match command {
        FleetCommand::Completion { shell } => {
            write(&completion_script(shell))?;
            return Ok(ExitCode::SUCCESS);
        }
        FleetCommand::ExplainDenial(asked) => {
            write(denial::explain(&asked)?.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        command => command,
    };
    let cluster = Cluster::connect(&cluster).await?;
    let mut progress = ProgressLine::new(io::stderr().is_terminal());
    let text = match command {
        FleetCommand::Status(asked) => {
            let found = select::pods(&cluster, &asked.target).await?;
            let mut statuses = inventory::look(&cluster, found.pods, &mut progress).await;
            let live = if asked.live { Some(live::ask(&cluster, &statuses, &mut progress).await) } else { None };
            progress.end();
            statuses.sort_by(|a, b| (&a.pod.namespace, &a.pod.name).cmp(&(&b.pod.namespace, &b.pod.name)));
            match asked.output {
                Some(OutputFormat::Json) => table::json(&statuses, live.as_deref()),
                format => table::text(&statuses, format.is_some(), asked.target.all_namespaces, live.as_deref()),
            }
        }
        FleetCommand::History(asked) => history::of(&cluster, &asked).await?,
        FleetCommand::Who(asked) => who::answer(&cluster, &asked, &mut progress).await?,
        FleetCommand::Hold(asked) => {
            return control::run(&cluster, Wish::Hold, asked, &mut progress).await;
        }
        FleetCommand::Release(asked) => {
            return control::run(&cluster, Wish::Release, asked, &mut progress).await;
        }
        FleetCommand::Pin(asked) => {
            let wish = Wish::pin(&asked.generation)?;
            return control::run(&cluster, wish, asked.control, &mut progress).await;
        }
        FleetCommand::Refresh(asked) => {
            let wish = Wish::Refresh(fresh_name());
            return control::run(&cluster, wish, asked, &mut progress).await;
        }
        FleetCommand::Advance(asked) => {
            let wish = Wish::Advance(asked.wave);
            return control::run(&cluster, wish, asked.control, &mut progress).await;
        }
        FleetCommand::Completion { .. } | FleetCommand::ExplainDenial(_) => String::new(),
    };
    write(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
