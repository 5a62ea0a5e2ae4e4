//! Where values go: to a file of their owner, or to standard output, and to a terminal only if that was asked for.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use super::error::LocalError;
use super::private_file::write_private;
use crate::process::terminal::print;

/// A line that is no failure.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "hushpod: {line}");
}

/// Says which values a runner cannot hide.
pub(super) fn tell_unmasked(names: &[String]) {
    if !names.is_empty() {
        note(&format!("too short to be masked in logs: {}", names.join(", ")));
    }
}

/// Refuses to show values to whoever looks over a shoulder, or scrolls back.
///
/// # Errors
/// One sentence that says what to write.
pub(super) fn check_terminal(output: Option<&Path>, show: bool) -> Result<(), LocalError> {
    if output.is_none() && !show && io::stdout().is_terminal() {
        return Err(LocalError::usage("standard output is a terminal: pipe it, write -o FILE, or say --show"));
    }
    Ok(())
}

/// Writes values to a file, or prints them.
///
/// # Errors
/// One sentence, if it cannot be written. A reader that closed the pipe has seen enough.
pub(super) fn emit(output: Option<&Path>, bytes: &[u8]) -> Result<(), LocalError> {
    let Some(path) = output else {
        return print(bytes).map_err(|error| LocalError::failed(format!("standard output: {}", error.kind())));
    };
    write_private(path, bytes).map_err(|error| LocalError::failed(format!("{}: {error}", path.display())))
}
