//! `hushpod-agent exec`: reads variables from the files behind the gate, and becomes the application.
//!
//! It runs in containers that are not ours: no shell, no runtime, no thread, nothing that another uid could not do, and
//! nothing left of it once the application runs, unless it is asked to watch for changes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

mod arguments;
mod failure;
mod notify;
mod post;
mod read;
mod status;
mod supervise;

use crate::contract::{EXEC_COMMAND, TERMINATION_LOG};
use crate::env_vars::{FILES, GENERATION, OUR_PREFIX};
use crate::secret::SecretValue;
use arguments::{CommandLine, SourcePath};
use failure::{ExecError, FAILED, say, terminate};
use read::ReadVariables;

pub use read::ReadError;

const HELP: &str = "\
Usage: hushpod-agent exec --env PATH... [OPTIONS] -- COMMAND [ARGUMENT]...
       hushpod-agent status [--json] [--files DIR]

exec reads PATH, sets what stands there as environment variables, and becomes COMMAND: same process, same signals, exit
code, uid, terminal and working directory. It works without a shell, and in front of probes and hooks, too:
  hushpod-agent exec --env /secrets/app.env -- /app/migrate --all

Options of exec:
  --env PATH           a dotenv file, or a directory with one file per variable, whose bytes are the value; may be given
                       several times: of one name, the last counts
  --optional-env PATH  the same, and no failure if there is none
  --keep NAME          leave NAME as the container has it
  --on-change WHAT     what happens when PATH changes: none (nothing stays to see it; the default), restart (end COMMAND
                       with SIGTERM and exit with 75, so kubelet starts the container again), signal:SIGNAL
  --jitter DURATION    restart or signal at a random moment within this time after the change (0s)
  --notify TARGET      stay, and tell TARGET of each change that does not end COMMAND: signal:SIGNAL:PROCESS (processes
                       of that name and this uid) or http:URL (a POST to localhost); may be given up to 32 times
  --grace DURATION     how long COMMAND may take to end before SIGKILL (30s)
  --termination-log FILE
                       where kubelet looks for a reason (/dev/termination-log)

status says which generation each process of this container runs with, and which is the newest (in /secrets, unless the
process or --files says otherwise). A shell of `kubectl exec` has none of the variables: put exec in front of it.

Names: letters, digits and '_'. Names that decide which code runs, such as PATH and LD_*, are refused, as is a value
with a NUL byte, or of more than 128 KiB.

Exit codes: COMMAND's own; 125 exec failed, 126 COMMAND cannot be run, 127 there is no COMMAND, 75 ended for a change.
";

/// Runs `exec` or `status`; `arguments` begin with that word.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().peekable();
    let word = arguments.next().unwrap_or_default();
    if is_help(&word) || arguments.peek().is_some_and(|argument| is_help(argument)) {
        say(&mut io::stdout(), HELP);
        return ExitCode::SUCCESS;
    }
    match word.to_str() {
        Some(EXEC_COMMAND) => {
            let (result, log) = match CommandLine::parse(arguments) {
                Ok(arguments) => (run(&arguments), arguments.termination_log),
                Err(error) => (Err(error.into()), PathBuf::from(TERMINATION_LOG)),
            };
            ExitCode::from(result.unwrap_or_else(|error| {
                let public = format!("hushpod-agent exec: {}", error.public());
                // Without a termination message kubelet may take the end of the log for one.
                if terminate(&log, &public) {
                    say(&mut io::stderr(), &format!("hushpod-agent exec: {error}\n"));
                } else {
                    say(&mut io::stderr(), &format!("{public}\n"));
                }
                error.code()
            }))
        }
        Some("status") => status::main(arguments),
        _ => {
            let problem = if word.is_empty() {
                "a command is missing".to_owned()
            } else {
                format!("unknown command {}", word.display())
            };
            say(&mut io::stderr(), &format!("hushpod-agent: {problem}\n\n{HELP}"));
            ExitCode::from(FAILED)
        }
    }
}

fn is_help(argument: &OsStr) -> bool {
    argument == "--help" || argument == "-h"
}

fn run(arguments: &CommandLine) -> Result<u8, ExecError> {
    let reading = read::read(&arguments.sources, &arguments.keep)?;
    let mut command = command(arguments, &reading);
    let stays = arguments.stays();
    let _shown = reading.origin.as_ref().and_then(|origin| origin.hold(stays));
    if !stays {
        // Returns only if it failed. What is read goes with this program's memory.
        return Err(ExecError::run(&arguments.program, &command.exec()));
    }
    supervise::supervise(arguments, reading, command)
}

/// Variables by name.
pub type Variables = BTreeMap<String, SecretValue>;

/// What a container that starts now would have of these files and directories, all of one generation. What is not there
/// is left out.
///
/// # Errors
/// [`ReadError`], if they make no variables.
pub fn variables(paths: &[PathBuf]) -> Result<Variables, ReadError> {
    let source = |path: &PathBuf| SourcePath { path: path.clone(), optional: true };
    let sources: Vec<_> = paths.iter().map(source).collect();
    read::read(&sources, &[]).map(|reading| reading.variables)
}

/// The application, with its variables and without ours.
fn command(arguments: &CommandLine, reading: &ReadVariables) -> Command {
    let mut command = Command::new(&arguments.program);
    command.args(&arguments.arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(OUR_PREFIX)) {
        command.env_remove(name);
    }
    for (name, value) in &reading.variables {
        command.env(name, OsStr::from_bytes(value.expose()));
    }
    if let Some(origin) = &reading.origin {
        command.env(GENERATION, &origin.generation).env(FILES, &origin.files);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_fits_a_terminal_and_names_every_option() {
        assert!(HELP.lines().all(|line| line.len() <= 120), "{HELP}");
        for option in arguments::OPTIONS {
            assert!(HELP.contains(option), "{option}");
        }
    }
}
