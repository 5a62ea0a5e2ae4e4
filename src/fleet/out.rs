//! Standard output.

use std::io::{self, Write as _};

use super::error::FleetError;

/// Writes to standard output at once: what follows may take its time.
pub(super) fn write(text: &[u8]) -> Result<(), FleetError> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        // A reader that closed the pipe has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(FleetError::Failed(format!("cannot write to standard output: {}", error.kind())))
        }
        _ => Ok(()),
    }
}
