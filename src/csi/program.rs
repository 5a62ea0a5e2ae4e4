//! The program that applications with variables are started through: copied once for each version of it, and shown to
//! pods from there, so a container that starts again finds it whatever became of the driver's image.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use aws_lc_rs::digest;
use tracing::{info, warn};

use super::mounts::Mounts;
use crate::contract::AGENT_NAME;

/// Bytes of a program; ours has a million.
const MOST: u64 = 8 << 20;
const NEW: &str = ".new";

/// Puts the program into a directory named after its digest below `programs`, and gives that directory.
///
/// # Errors
/// The system's.
pub(super) fn install(program: &Path, programs: &Path, mounts: &dyn Mounts) -> io::Result<PathBuf> {
    if !mounts.is_ours(programs)? {
        mounts.mount_programs(programs)?;
    }
    if fs::metadata(program)?.len() > MOST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let bytes = fs::read(program)?;
    let directory = programs.join(hex::encode(digest::digest(&digest::SHA256, &bytes)));
    if !directory.join(AGENT_NAME).exists() {
        let new = programs.join(NEW);
        let _ = fs::remove_dir_all(&new);
        fs::create_dir(&new)?;
        let file = new.join(AGENT_NAME);
        fs::write(&file, &bytes)?;
        // Never dumpable: see src/README.md, Who can read the files.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o111))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        fs::rename(&new, &directory)?;
        info!(directory = %directory.display(), "the program for variables is in place");
    }
    Ok(directory)
}

/// Removes the programs of other versions that no pod has mounted.
pub(super) fn remove_unused(present: &Path, mounts: &dyn Mounts) {
    let (Some(programs), Ok(shown)) = (present.parent(), mounts.bound_directories()) else { return };
    let used: BTreeSet<_> = shown.iter().filter_map(|root| root.file_name()).collect();
    for entry in fs::read_dir(programs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if entry.path() == present || used.contains(name.as_os_str()) {
            continue;
        }
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            warn!(%error, "a program that no pod uses stays");
        }
    }
}
