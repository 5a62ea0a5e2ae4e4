//! The same secrets on a person's machine and in CI: `hushpod run`, `get`, `export`, `render`, `login`, `trust`, `check`.
//!
//! References come from `.hushpod.yaml` or from a manifest's annotations; bundle, plan, providers and source are those
//! of pods. A person's logins are read where each store's own tools left them, and kept nowhere.

mod arguments;
mod check;
mod copies;
mod error;
mod export;
mod fetch;
mod files;
mod followed;
mod get;
mod github;
mod id_token;
mod login;
mod manifest;
mod mask;
mod masked;
mod output;
mod parent;
mod private_dir;
mod private_file;
mod project;
mod render;
mod run;
mod signals;
mod source_file;
mod template;
mod terminal;
mod trust;
mod wanted;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Subcommand as _;

pub use arguments::{
    ExportArgs, GetArgs, LocalCommand, LoginCommand, RenderArgs, RunArgs, RunHelper, StatusOfLogins, TrustArgs,
};

pub use private_dir::GuardArgs;

use crate::contract::END_OF_OPTIONS;
use error::ErrorFormat;
pub(crate) use error::{ErrorArgs, LocalError};
pub(crate) use output::emit;

/// The command whose exit codes are another program's.
const RUN: &str = "run";
/// Other commands that take `--error-format`.
const OTHERS: [&str; 3] = ["completion", "explain", "man"];

/// Tells what is wrong with the words of one of a person's commands, in the format that they ask for; gives the exit code.
/// `None` if they are of another command.
#[must_use]
pub fn tell_usage(words: &[OsString], error: &clap::Error) -> Option<u8> {
    let is_of_a_person = |name: &&str| LocalCommand::has_subcommand(name) || OTHERS.contains(name);
    let name = words.first()?.to_str().filter(is_of_a_person)?;
    let own: Vec<_> = words.iter().take_while(|word| *word != END_OF_OPTIONS).collect();
    let is_json = own.iter().any(|word| *word == "--error-format=json")
        || own.windows(2).any(|pair| matches!(pair, [name, value] if *name == "--error-format" && *value == "json"));
    if is_json {
        // Up to the help that clap adds.
        let told = error.render().to_string();
        let sentence = told.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        LocalError::usage(sentence.split_whitespace().collect::<Vec<_>>().join(" ")).tell(ErrorFormat::Json);
    } else {
        let _ = error.print();
    }
    Some(LocalError::usage("").exit_code(name == RUN))
}

/// What has to come before there is a second thread: the directory of `run --files`.
///
/// # Errors
/// The exit code, if there is nothing more to do: it failed, and said why, or it was a part of `run`.
pub fn prepare(command: &mut LocalCommand) -> Result<(), ExitCode> {
    match command {
        LocalCommand::Run(args) => run::prepare(args).map_err(|error| args.stores.errors.fail(&error, true)),
        LocalCommand::RunHelper(helper) => Err(ExitCode::from(run::help(helper))),
        _ => Ok(()),
    }
}

/// Runs what was typed.
pub async fn run(command: LocalCommand) -> ExitCode {
    let errors = match &command {
        LocalCommand::Run(args) => args.stores.errors,
        LocalCommand::Get(args) => args.stores.errors,
        LocalCommand::Export(args) => args.stores.errors,
        LocalCommand::Render(args) => args.stores.errors,
        LocalCommand::Login { command: LoginCommand::Status(args) } => args.stores.errors,
        LocalCommand::Trust(args) => args.errors,
        LocalCommand::Check(args) => args.errors,
        LocalCommand::RunHelper(_) => ErrorArgs::default(),
    };
    output::tell_notes_as(errors.error_format);
    let is_run = matches!(command, LocalCommand::Run(_));
    let outcome = match command {
        LocalCommand::Run(args) => Box::pin(run::run(*args)).await,
        LocalCommand::Get(args) => get::get(*args).await.map(|()| 0),
        LocalCommand::Export(args) => export::export(*args).await.map(|()| 0),
        LocalCommand::Render(args) => render::render(*args).await.map(|()| 0),
        LocalCommand::Login { command: LoginCommand::Status(args) } => login::status(args).await.map(|()| 0),
        LocalCommand::Trust(args) => remember(&args).map(|()| 0),
        LocalCommand::Check(args) => check::check(*args).await,
        LocalCommand::RunHelper(helper) => Ok(run::help(&helper)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => errors.fail(&error, is_run),
    }
}

fn remember(args: &TrustArgs) -> Result<(), LocalError> {
    let found = wanted::destinations_of(&args.path)?;
    if found.is_empty() {
        return Ok(());
    }
    trust::remember(&found)?;
    for destination in &found {
        let _ = writeln!(io::stdout(), "trusted: {destination}");
    }
    Ok(())
}
