//! `hushpod run`: the command takes this process over, with the variables of the store.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::arguments::{MaskWhen, RunArgs};
use super::error::{LocalError, LocalFailure};
use super::files::NamedValues;
use super::github;
use super::id_token::TOKEN_PREFIX;
use super::mask::Needles;
use super::masked;
use super::output::{note, tell_unmasked};
use super::wanted::WantedSecrets;

/// Who keeps values out of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Masking {
    /// Nobody.
    Nobody,
    /// GitHub's runner, which is told what to hide.
    Runner,
    /// This program, which stays as the command's parent.
    Ourselves,
}

/// Fetches, checks, and becomes the command: nothing of this program is left. With masks it stays, and gives the
/// command's exit code.
///
/// # Errors
/// Why there is no command now; it was not begun.
pub(super) async fn run(args: RunArgs) -> Result<u8, LocalError> {
    let RunArgs { stores, copies, variables, keep, mask, clean, pass, command } = args;
    let masking = Masking::of(mask)?;
    let mut wanted = WantedSecrets::read(&stores, &variables.variables)?.caching(copies);
    let mut found = wanted.variables(&variables).await?;
    found.retain(|name, _| !keep.contains(name) || env::var_os(name).is_none());
    tell_replaced(&found, |name| if clean && !pass.contains(name) { None } else { env::var_os(name) });
    let (program, arguments) = command.split_first().ok_or_else(|| LocalError::usage("there is no command"))?;
    let mut command = command_of(program, arguments, &found, clean.then_some(pass.as_slice()));
    match masking {
        Masking::Nobody => {}
        Masking::Runner => {
            // On standard error, which the runner reads as well: what the command prints may be taken by a script.
            let (masks, unmasked) = github::masks(&found);
            let _ = io::stderr().write_all(masks.expose());
            tell_unmasked(&unmasked);
        }
        Masking::Ourselves => {
            let (needles, unmasked) = Needles::of(&found)?;
            tell_unmasked(&unmasked);
            return masked::run(command, needles).await.map_err(|error| not_run(program, &error));
        }
    }
    Err(not_run(program, &command.exec()))
}

/// Says which variables of the shell are others now.
fn tell_replaced(found: &NamedValues, of_shell: impl Fn(&String) -> Option<OsString>) {
    let is_other = |(name, value): &(&String, &crate::secret::SecretValue)| {
        of_shell(name).is_some_and(|there| there.as_bytes() != value.expose())
    };
    let names: Vec<_> = found.iter().filter(is_other).map(|(name, _)| name.as_str()).collect();
    if !names.is_empty() {
        note(&format!("the store's go before your shell's: {} (--keep NAME turns that round)", names.join(", ")));
    }
}

// === impl Masking ===

impl Masking {
    fn of(when: MaskWhen) -> Result<Self, LocalError> {
        let is_shown = io::stdout().is_terminal();
        match when {
            MaskWhen::Always if is_shown || io::stderr().is_terminal() => Err(LocalError::usage(
                "--mask always: standard output and error have to be pipes or files, not a terminal",
            )),
            MaskWhen::Always => Ok(Self::Ourselves),
            MaskWhen::Auto if !is_shown && github::is_runner() => Ok(Self::Runner),
            MaskWhen::Auto if !is_shown && is_ci() => Ok(Self::Ourselves),
            MaskWhen::Auto | MaskWhen::Never => Ok(Self::Nobody),
        }
    }
}

/// As GitLab and nearly every other system has it.
fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !matches!(value.as_bytes(), b"" | b"0" | b"false"))
}

/// `passed`: the names that are left of the shell's variables; `None` is all.
fn command_of(program: &OsStr, arguments: &[OsString], found: &NamedValues, passed: Option<&[String]>) -> Command {
    let mut command = match passed {
        // It is looked for where the shell would, whatever path it has itself.
        Some(_) => Command::new(in_path(program).unwrap_or_else(|| program.into())),
        None => Command::new(program),
    };
    command.arg0(program).args(arguments);
    if let Some(passed) = passed {
        command.env_clear().envs(passed.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    }
    // Whom the job may log in as is not the command's to know.
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(TOKEN_PREFIX.as_bytes())) {
        command.env_remove(name);
    }
    command.envs(found.iter().map(|(name, value)| (name, OsStr::from_bytes(value.expose()))));
    command
}

fn in_path(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return None;
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

fn not_run(program: &OsStr, error: &io::Error) -> LocalError {
    let (kind, problem) = match error.kind() {
        io::ErrorKind::NotFound => {
            (LocalFailure::NoCommand, "there is no such program, or no interpreter that it names".to_owned())
        }
        io::ErrorKind::ArgumentListTooLong => (
            LocalFailure::NotExecutable,
            "arguments and variables together are more than the kernel takes: take --only, or files".to_owned(),
        ),
        kind => (LocalFailure::NotExecutable, kind.to_string()),
    };
    LocalError::new(kind, format!("cannot run {}: {problem}", program.display()))
}
