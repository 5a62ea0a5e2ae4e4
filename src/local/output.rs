//! Where values go: to a file of their owner, or to standard output, and to a terminal only if that was asked for.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::error::{ErrorFormat, LocalError};
use super::private_file::write_private;
use crate::process::terminal::print;
use crate::sentence::list;

/// After so long a person is told what is waited for.
const TELL: Duration = Duration::from_secs(1);

/// How this process tells what is no failure: as it tells failures. Nobody said it yet: as sentences.
static NOTES: OnceLock<ErrorFormat> = OnceLock::new();

/// Tells all notes from now on as failures are told.
pub(super) fn tell_notes_as(format: ErrorFormat) {
    // A process has one command line.
    let _ = NOTES.set(format);
}

/// A line that is no failure.
pub(super) fn note(line: &str) {
    let told = match NOTES.get() {
        Some(ErrorFormat::Json) => format!("{}\n", json!({"code": "note", "message": line})),
        Some(ErrorFormat::Text) | None => format!("hushpod: {line}\n"),
    };
    // If nobody hears it, nothing is lost that was asked for.
    let _ = io::stderr().write_all(told.as_bytes());
}

/// Says what is waited for, if that takes long.
pub(super) async fn patiently<T>(names: &[&str], work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(TELL, work.as_mut()).await {
        return done;
    }
    note(&format!("waiting for {}", list(names)));
    work.await
}

/// Says which values a runner cannot hide.
pub(super) fn tell_unmasked(names: &[String]) {
    if !names.is_empty() {
        note(&format!("too short to be masked in logs: {}", names.join(", ")));
    }
}

/// Refuses to show values on a terminal, where others look over a shoulder, or scroll back.
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
pub(crate) fn emit(output: Option<&Path>, bytes: &[u8]) -> Result<(), LocalError> {
    let Some(path) = output else {
        return print(bytes).map_err(|error| LocalError::failed(format!("standard output: {}", error.kind())));
    };
    write_private(path, bytes).map_err(|error| LocalError::failed(format!("{}: {error}", path.display())))
}

/// A time in the largest unit that has two of it.
pub(super) fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let unit = units.iter().find(|(length, _)| seconds >= length * 2);
    unit.map_or_else(|| format!("{seconds}s"), |(length, unit)| format!("{}{unit}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_largest_unit_that_fits() {
        for (seconds, expected) in [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(spoken(Duration::from_secs(seconds)), expected);
        }
    }
}
