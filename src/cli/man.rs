//! `hushpod man`: the commands' help as manual pages.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;

/// Writes a page for a command and for each below it that is shown, into a directory that is made if it is not there.
///
/// # Errors
/// What the system says.
pub(super) fn write_pages(command: Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command, directory)
}
