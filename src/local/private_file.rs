//! Files that only their owner can read, replaced as a whole.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;

/// A directory of the person's own: the one that `variable` names, else `usual` in the home directory (XDG Base Directory
/// Specification).
pub(super) fn own_directory(variable: &str, usual: &str) -> Option<PathBuf> {
    let set = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| env::home_dir().map(|home| home.join(usual)))
}

/// So many bytes of chance, which nobody guesses, as hexadecimal digits.
///
/// # Errors
/// If the system gives none.
pub(super) fn random_hex(bytes: usize) -> io::Result<String> {
    let mut chance = vec![0; bytes];
    rand::fill(&mut chance).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(hex::encode(chance))
}

/// Writes a file of mode 0600 in place of the one that may be there, by renaming: readers see the one or the other.
///
/// # Errors
/// What the system says; nothing is left then.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // As root, `/dev/stdout` would be replaced for everybody, where it leads to a file.
    let is_open_file = fs::read_link(path).is_ok_and(|to| to.starts_with("/proc"));
    if is_open_file || path.metadata().is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other("is not a file"));
    }
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", random_hex(8)?));
    let temporary = path.with_file_name(temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_its_owners() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "before").unwrap();
        let before = fs::File::open(&path).unwrap();
        write_private(&path, b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(io::read_to_string(before).unwrap(), "before", "who reads keeps what was there");
        // What /dev/stdout is, here of an open file.
        let open_file = directory.path().join("stdout");
        symlink(format!("/proc/self/fd/{}", fs::File::open(&path).unwrap().into_raw_fd()), &open_file).unwrap();
        assert!(open_file.is_file());
        for bad in [directory.path(), Path::new("/dev/null"), &directory.path().join("none/f"), &open_file] {
            assert!(write_private(bad, b"canary").is_err(), "{}", bad.display());
        }
        assert!(open_file.is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
    }
}
