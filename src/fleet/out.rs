//! Standard output.

use super::error::FleetError;
use crate::process::terminal::print;

/// [`print`], with a sentence of ours if it fails.
pub(super) fn write(text: &[u8]) -> Result<(), FleetError> {
    print(text).map_err(|error| FleetError::Failed(format!("cannot write to standard output: {}", error.kind())))
}
