//! `hushpod run`: the command takes this process over, with the variables of the store.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use super::arguments::{MaskWhen, RunArgs, RunHelper, WatchFor};
use super::error::{self, LocalError, LocalFailure};
use super::files::{Contents, NamedValues};
use super::followed::FollowedStores;
use super::github;
use super::mask::Needles;
use super::output::{note, tell_unmasked};
use super::parent::{self, CommandParent, Watching};
use super::private_dir::{self, PrivateDir};
use super::template::CommandTemplate;
use super::terminal;
use super::wanted::WantedSecrets;
use crate::deliver::volume::{AtomicVolume, VolumeError};

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

/// How long readers may be in the generation before, as in pods.
const GRACE: Duration = Duration::from_secs(1);

/// Makes the directory of `--files`. Before there is another thread, since it may be in a namespace of its own.
///
/// # Errors
/// One sentence, if there cannot be one.
pub(super) fn prepare(args: &mut RunArgs) -> Result<(), LocalError> {
    if let (Some(WatchFor::Signal(_)), None) = (args.watch, &args.files) {
        return Err(LocalError::usage("--watch=signal tells of files: it needs --files"));
    }
    if let Some(wanted) = &args.files {
        args.place = Some(PrivateDir::make(wanted.as_deref())?);
    }
    Ok(())
}

/// Fetches, checks, and becomes the command: nothing of this program is left. With masks and `--watch` it stays, and gives
/// the command's exit code.
///
/// # Errors
/// Why there is no command now; it was not begun.
pub(super) async fn run(args: RunArgs) -> Result<u8, LocalError> {
    let RunArgs { stores, copies, variables, verbose, keep, place, watch, grace, mask, clean, pass, command, .. } =
        args;
    let masking = Masking::of(mask);
    let mut wanted = WantedSecrets::read(&stores, &variables.variables)?.caching(copies);
    wanted.select(&variables, place.is_some())?;
    let (fetched, source) = wanted.fetch_for(watch.is_some()).await?;
    let mut contents = wanted.contents(&fetched, &variables, &BTreeSet::new())?;
    parent::keep(&mut contents.variables, &keep);
    if place.is_none() {
        contents.files.clear();
    }
    let mut words = command.into_iter();
    let program = words.next().ok_or_else(|| LocalError::usage("there is no command"))?;
    if verbose {
        for line in fetched.origins(&contents) {
            note(&line);
        }
        tell_empty_words(words.as_slice());
    }
    let files = place.as_ref().map(|place| place.path.clone());
    let template = CommandTemplate::new(program, words.collect(), clean.then_some(pass), files);
    tell_replaced(&contents.variables, |name| template.inherited(name));
    let mut unmasked = match masking {
        Masking::Nobody => Vec::new(),
        Masking::Runner => github::tell_masks(&contents.all_values()),
        Masking::Ourselves => Needles::of(&contents.all_values())?.1,
    };
    // Files have short lines that are nobody's secret.
    unmasked.retain(|name| contents.variables.contains_key(name));
    tell_unmasked(&unmasked);
    let volume = match &place {
        Some(place) => Some(write_files(place, &contents).await?),
        None => None,
    };
    let watching = watch.zip(source).map(|(on_change, mut source)| {
        source.delivered(&contents.generation);
        let stores = FollowedStores::new(wanted, source, fetched);
        let tells_runner = masking == Masking::Runner;
        Watching { stores, arguments: variables, keep, volume, on_change, grace, tells_runner }
    });
    let is_masked = masking == Masking::Ourselves;
    if !is_masked && watching.is_none() {
        return Err(not_run(&template.program, &template.command(&contents.variables).exec()));
    }
    let outcome = match CommandParent::begin(&template, contents, is_masked, watching) {
        Ok(parent) => parent.stay().await,
        Err(error) => Err(error),
    };
    outcome.map_err(|error| not_run(&template.program, &error))
}

/// The first files; the volume that they are in changes as a pod's does.
async fn write_files(place: &PrivateDir, contents: &Contents) -> Result<AtomicVolume, LocalError> {
    let failed = |error: VolumeError| LocalError::failed(format!("{}: {error}", place.path.display()));
    let mut volume = AtomicVolume::open(&place.path, GRACE).map_err(failed)?;
    volume.write(&contents.generation, &contents.files).await.map_err(failed)?;
    Ok(volume)
}

/// What this program started of itself, to its end.
pub(super) fn help(helper: &RunHelper) -> u8 {
    let outcome = match helper {
        RunHelper::Mount { dir } => private_dir::mount_private(dir),
        RunHelper::Detach(args) => private_dir::detach(args),
        RunHelper::Guard(args) => private_dir::guard(args),
        RunHelper::Foreground { file, command } => {
            let code = terminal::lead(file, command).unwrap_or_else(|error| {
                let program = command.first().unwrap_or(file);
                let error = not_run(program, &error);
                // The command's standard error; ours is a socket.
                let _ = writeln!(io::stdout(), "hushpod: {error}");
                error.exit_code(true)
            });
            // If nobody shows anything any more, there is nothing to wait for.
            let _ = terminal::hang_up();
            return code;
        }
    };
    // Nobody hears more than that.
    if outcome.is_ok() { 0 } else { error::RUN_FAILED }
}

/// Says which words of the command have nothing in them: often a shell has put a variable in that it does not have.
fn tell_empty_words(words: &[OsString]) {
    let empty = words.iter().enumerate().filter(|(_, word)| word.is_empty());
    for (index, _) in empty {
        note(&format!(
            "argument {} of the command is empty: if it was to be a variable of the store, your shell filled it in before \
             hushpod began: write -- sh -c '… \"$NAME\" …'",
            index + 1
        ));
    }
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
    fn of(when: MaskWhen) -> Self {
        let is_shown = io::stdout().is_terminal();
        match when {
            MaskWhen::Always => Self::Ourselves,
            MaskWhen::Auto if !is_shown && github::is_runner() => Self::Runner,
            MaskWhen::Auto if !is_shown && is_ci() => Self::Ourselves,
            MaskWhen::Auto | MaskWhen::Never => Self::Nobody,
        }
    }
}

/// As GitLab and nearly every other system has it.
fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !matches!(value.as_bytes(), b"" | b"0" | b"false"))
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
