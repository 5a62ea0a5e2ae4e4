//! Trees of files below an open directory. Names are resolved in that directory only, and no link is followed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::bundle::FileMode;
use crate::deliver::{Owner, RenderedFile};
use crate::secret::SecretValue;

/// Bytes compared at a time: a file is never held whole beside its new bytes.
const CHUNK: usize = 4096;

/// What failed, where.
pub(super) struct TreeError {
    pub(super) action: &'static str,
    pub(super) path: String,
    pub(super) errno: Errno,
}

impl TreeError {
    pub(super) fn new(action: &'static str, path: &str, errno: Errno) -> Self {
        Self { action, path: path.to_owned(), errno }
    }

    fn from_io(action: &'static str, path: &str, error: &std::io::Error) -> Self {
        Self::new(action, path, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }
}

pub(super) fn open_dir(parent: impl AsFd, name: &str) -> Result<OwnedFd, TreeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|errno| TreeError::new("open", name, errno))
}

fn open_file(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Names in a directory, with their types, in no order.
pub(super) fn entries(dir: &OwnedFd) -> Result<Vec<(String, FileType)>, TreeError> {
    let failed = |errno| TreeError::new("list", ".", errno);
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // What is not UTF-8 is nothing that we wrote.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name != "." && name != ".." {
            let kind = match entry.file_type() {
                FileType::Unknown => rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                known => known,
            };
            names.push((name.to_owned(), kind));
        }
    }
    Ok(names)
}

/// Makes a directory with mode 0755 whatever the umask is. The set-group-id bit stays: in a volume with an fsGroup it is
/// what gives new files their group, and a chmod without it would take it away.
pub(super) fn make_dir(parent: impl AsFd, name: &str) -> Result<OwnedFd, TreeError> {
    let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    let failed = |errno| TreeError::new("make directory", name, errno);
    rustix::fs::mkdirat(&parent, name, mode).map_err(failed)?;
    let dir = open_dir(parent, name)?;
    let inherited = Mode::from_raw_mode(rustix::fs::fstat(&dir).map_err(failed)?.st_mode) & Mode::SGID;
    rustix::fs::fchmod(&dir, mode | inherited).map_err(failed)?;
    Ok(dir)
}

/// Writes files, and the directories that their paths need, into an empty directory.
pub(super) fn write_all(dir: &OwnedFd, files: &[RenderedFile], owner: Owner) -> Result<(), TreeError> {
    let mut made = BTreeSet::new();
    for file in files {
        let path = file.path.as_str();
        for parent in path.match_indices('/').filter_map(|(at, _)| path.get(..at)) {
            if made.insert(parent) {
                make_dir(dir, parent)?;
            }
        }
        write_file(dir, path, file.bytes.expose(), file.mode, owner)?;
    }
    Ok(())
}

fn write_file(dir: &OwnedFd, path: &str, bytes: &[u8], mode: FileMode, owner: Owner) -> Result<(), TreeError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |errno| TreeError::new("write", path, errno);
    let fd = rustix::fs::openat(dir, path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(|error| TreeError::from_io("write", path, &error))?;
    if owner != Owner::default() {
        let (user, group) = (owner.user.map(Uid::from_raw), owner.group.map(Gid::from_raw));
        rustix::fs::fchown(&file, user, group).map_err(|errno| TreeError::new("give away", path, errno))?;
    }
    // The mode given to open(2) is cut by the umask.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode.bits())).map_err(failed)
}

/// Whether the directory `name` has these files, with these bytes and modes, and no others.
pub(super) fn holds_exactly(root: &OwnedFd, name: &str, files: &[RenderedFile]) -> Result<bool, TreeError> {
    let dir = open_dir(root, name)?;
    for file in files {
        if !is_same(&dir, file)? {
            return Ok(false);
        }
    }
    Ok(count_files(&dir)? == files.len())
}

fn is_same(dir: &OwnedFd, wanted: &RenderedFile) -> Result<bool, TreeError> {
    let path = wanted.path.as_str();
    let fd = match open_file(dir, path) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        Err(errno) => return Err(TreeError::new("read", path, errno)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| TreeError::new("read", path, errno))?;
    let (bytes, size) = (wanted.bytes.expose(), u64::try_from(stat.st_size).unwrap_or_default());
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || stat.st_mode & 0o7777 != wanted.mode.bits() || size != bytes.len() as u64 {
        return Ok(false);
    }
    let mut file = File::from(fd);
    let mut buffer = Zeroizing::new([0; CHUNK]);
    for chunk in bytes.chunks(CHUNK) {
        let Some(there) = buffer.get_mut(..chunk.len()) else { return Ok(false) };
        file.read_exact(there).map_err(|error| TreeError::from_io("read", path, &error))?;
        if there != chunk {
            return Ok(false);
        }
    }
    Ok(true)
}

fn count_files(dir: &OwnedFd) -> Result<usize, TreeError> {
    let mut count = 0;
    for (name, kind) in entries(dir)? {
        count += if kind == FileType::Directory { count_files(&open_dir(dir, &name)?)? } else { 1 };
    }
    Ok(count)
}

/// Adds every file below `dir` to `files`, its path behind `prefix`.
pub(super) fn read_all(dir: &OwnedFd, prefix: &str, files: &mut Vec<(String, SecretValue)>) -> Result<(), TreeError> {
    for (name, kind) in entries(dir)? {
        let path = format!("{prefix}{name}");
        if kind == FileType::Directory {
            read_all(&open_dir(dir, &name)?, &format!("{path}/"), files)?;
            continue;
        }
        let failed = |errno| TreeError::new("read", &path, errno);
        let fd = open_file(dir, &name).map_err(failed)?;
        let size = usize::try_from(rustix::fs::fstat(&fd).map_err(failed)?.st_size).unwrap_or_default();
        // One byte more than needed: `read_to_end` then sees the end without growing, which would leave a copy.
        let mut bytes = Vec::with_capacity(size + 1);
        File::from(fd).read_to_end(&mut bytes).map_err(|error| TreeError::from_io("read", &path, &error))?;
        files.push((path, SecretValue::new(bytes)));
    }
    Ok(())
}

/// Removes a file, a link, or a directory with all that is in it; what does not exist is fine.
pub(super) fn remove_all(parent: &OwnedFd, name: &str) -> Result<(), TreeError> {
    let failed = |errno| TreeError::new("remove", name, errno);
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR, POSIX says EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let dir = open_dir(parent, name)?;
    for (child, _) in entries(&dir)? {
        remove_all(&dir, &child)?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(failed)
}
