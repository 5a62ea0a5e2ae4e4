//! A directory in memory that ends with the command which has it.
//!
//! Either a file system that only this process and what it starts can see, in a mount namespace of their own: the kernel
//! removes it with the last of them. Or, where the system forbids that, a directory below `$XDG_RUNTIME_DIR`, which a
//! guardian removes: a process of its own that waits for the end of the command. What even that one leaves, since
//! somebody killed it as well, the next command removes.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, PidfdFlags, getegid, geteuid, getpid, pidfd_open, setsid};
use rustix::thread::UnshareFlags;

use super::error::LocalError;
use super::private_file::random_hex;
use crate::env_vars::FILES;

/// Where directories are that a guardian removes, and where file systems are mounted, below `$XDG_RUNTIME_DIR`.
const OURS: &str = env!("CARGO_PKG_NAME");
/// Where a file system is mounted if nobody says.
const USUAL: &str = "files";
/// How names of directories begin that a guardian removes.
const GUARDED: &str = "run-";
/// What a mount table calls it.
const SOURCE: &str = "hushpod-run";
/// This program, whatever its name is now.
pub(super) const MYSELF: &str = "/proc/self/exe";
/// The hidden command that leads to the parts of `run`.
pub(super) const HELPER: &str = "run-helper";
/// File systems in memory, by their numbers (statfs(2)): tmpfs and ramfs.
const IN_MEMORY: [i128; 2] = [0x0102_1994, 0x8584_58f6];
/// Most directories that are looked at for what was left.
const MOST_LEFT: usize = 1000;

/// A directory for values, empty and its owner's.
#[derive(Debug)]
pub(super) struct PrivateDir {
    /// What the command is told.
    pub(super) path: PathBuf,
}

/// What a guardian removes.
#[derive(Debug, Clone, clap::Args)]
pub struct GuardArgs {
    /// The directory.
    dir: PathBuf,
    /// A link to it.
    link: Option<PathBuf>,
}

// === impl PrivateDir ===

impl PrivateDir {
    /// Makes one at `wanted`, or where it usually is. There may be no other thread yet: namespaces are a thread's.
    ///
    /// # Errors
    /// One sentence, if values would lie where they may stay.
    pub(super) fn make(wanted: Option<&Path>) -> Result<Self, LocalError> {
        let wanted = wanted.map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
        let path = match &wanted {
            Some(dir) => dir.clone(),
            None => runtime_dir("name an empty directory, --files DIR")?.join(USUAL),
        };
        let failed = |problem: &str| LocalError::failed(format!("--files {}: {problem}", path.display()));
        // A guardian's link, in use or left: this system lets nobody mount.
        if !fs::read_link(&path).is_ok_and(|to| is_guarded(&to)) {
            if path.exists() && !is_empty(&path) {
                let is_of_outer = std::env::var_os(FILES).is_some_and(|files| Path::new(&files) == path);
                return Err(failed(if is_of_outer {
                    "has the files of the hushpod run --files that this one runs in: name another directory"
                } else {
                    "is not an empty directory: name one that is empty, or not there"
                }));
            }
            make_dir(&path).map_err(|error| failed(&error.to_string()))?;
            if can_mount(&path) {
                mount_private(&path).map_err(|error| failed(&format!("cannot be mounted: {error}")))?;
                return Ok(Self { path });
            }
        }
        let dir = guarded(wanted.as_deref())?;
        Ok(Self { path: wanted.unwrap_or(dir) })
    }
}

/// `$XDG_RUNTIME_DIR/hushpod`, this user's alone; where there is none, `advice` says what to do.
fn runtime_dir(advice: &str) -> Result<PathBuf, LocalError> {
    let failed = |problem: String| LocalError::failed(format!("--files: {problem}"));
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let Some(base) = base else {
        return Err(failed(format!("XDG_RUNTIME_DIR is not set: {advice}")));
    };
    let dir = base.join(OURS);
    make_dir(&dir).map_err(|error| failed(format!("{}: {error}", dir.display())))?;
    let is_own = fs::symlink_metadata(&dir)
        .is_ok_and(|there| there.is_dir() && there.uid() == geteuid().as_raw() && there.mode().trailing_zeros() >= 6);
    if !is_own {
        return Err(failed(format!("{} is not a directory that only you can enter: remove it", dir.display())));
    }
    Ok(dir)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Whether a path is that of a directory which a guardian removes.
fn is_guarded(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(GUARDED.as_bytes()))
        && path.parent().and_then(Path::file_name).is_some_and(|parent| parent == OURS)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// A process of this program, with its words, that nobody hears.
fn helper(words: &[&OsStr]) -> Command {
    let mut command = Command::new(MYSELF);
    command.arg(HELPER).args(words).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Tries it in a process that ends: some systems let a namespace be made and forbid everything in it, and there is no way
/// back out of one.
fn can_mount(dir: &Path) -> bool {
    helper(&["mount".as_ref(), dir.as_os_str()]).status().is_ok_and(|status| status.success())
}

/// Mounts an empty file system in memory that only this process and what it starts can see.
///
/// # Errors
/// What the system says.
pub(super) fn mount_private(dir: &Path) -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if unshare(UnshareFlags::NEWNS).is_err() {
        unshare(UnshareFlags::NEWNS | UnshareFlags::NEWUSER)?;
        // The order is the kernel's (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    // What the system mounts later is seen here too, but nothing of ours outside.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    // Since Linux 6.4, and in the first user namespace alone. What is written is bounded before.
    match mount(SOURCE, dir, "tmpfs", flags, c"mode=0700,noswap") {
        Err(Errno::INVAL) => Ok(mount(SOURCE, dir, "tmpfs", flags, c"mode=0700")?),
        other => Ok(other?),
    }
}

#[expect(deprecated, reason = "its danger is that of UnshareFlags::FILES; the other one needs unsafe code")]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(flags)?)
}

/// A directory below `$XDG_RUNTIME_DIR` that ends with this process, and a link to it.
fn guarded(link: Option<&Path>) -> Result<PathBuf, LocalError> {
    let base = runtime_dir("this system lets no user mount a directory in memory, so set it to one that is there")?;
    let failed = |problem: &str| LocalError::failed(format!("--files: {}: {problem}", base.display()));
    let is_in_memory = rustix::fs::statfs(&base).is_ok_and(|stat| IN_MEMORY.contains(&i128::from(stat.f_type)));
    if !is_in_memory {
        return Err(failed("is on a disk, and this system lets no user mount a directory in memory"));
    }
    sweep(&base);
    let name = random_hex(8).map_err(|error| failed(&error.to_string()))?;
    let own = OwnerProcess::of(getpid()).ok_or_else(|| failed("/proc says nothing of this process"))?;
    let dir = base.join(format!("{GUARDED}{}-{}-{name}", own.pid, own.started));
    let made = make_dir(&dir).and_then(|()| {
        let lock = File::open(&dir)?;
        lock.lock()?;
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty())?;
        start_guardian(&dir, link, pidfd, lock.into())?;
        link.map_or(Ok(()), |link| replace_by_link(link, &dir))
    });
    // The guardian, if there is one, removes it as well.
    made.inspect_err(|_| drop(fs::remove_dir_all(&dir))).map_err(|error| failed(&error.to_string()))?;
    Ok(dir)
}

/// Of what is there, an empty directory and a link that leads nowhere may go.
fn replace_by_link(link: &Path, dir: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(there) if there.is_symlink() && !link.exists() => fs::remove_file(link),
        Ok(there) if there.is_dir() => fs::remove_dir(link),
        Ok(_) => Err(io::Error::other("another command has its files there")),
    };
    removed.and_then(|()| symlink(dir, link)).map_err(|error| io::Error::other(format!("{}: {error}", link.display())))
}

/// It inherits the lock, and must be no child of the command: that would wait for it.
fn start_guardian(dir: &Path, link: Option<&Path>, pidfd: OwnedFd, lock: OwnedFd) -> io::Result<()> {
    let mut words = vec!["detach".as_ref(), dir.as_os_str()];
    words.extend(link.map(Path::as_os_str));
    let status = helper(&words).stdin(pidfd).stdout(lock).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("its guardian cannot be started")) }
}

/// Starts the guardian, and ends: it belongs to no terminal and to no command then.
///
/// # Errors
/// What the system says.
pub(super) fn detach(args: &GuardArgs) -> io::Result<()> {
    setsid()?;
    let mut words = vec!["guard".as_ref(), args.dir.as_os_str()];
    words.extend(args.link.as_deref().map(Path::as_os_str));
    helper(&words).stdin(Stdio::inherit()).stdout(Stdio::inherit()).spawn().map(drop)
}

/// Waits for the end of the process that standard input is a pidfd of, and removes its directory.
///
/// # Errors
/// What the system says.
pub(super) fn guard(args: &GuardArgs) -> io::Result<()> {
    let process = io::stdin();
    while let Err(errno) = poll(&mut [PollFd::new(&process, PollFlags::IN)], None) {
        if errno != Errno::INTR {
            return Err(errno.into());
        }
    }
    if let Some(link) = args.link.as_deref().filter(|link| fs::read_link(link).is_ok_and(|to| to == args.dir)) {
        fs::remove_file(link)?;
    }
    fs::remove_dir_all(&args.dir)
}

/// Removes what commands left whose guardians were killed.
fn sweep(base: &Path) {
    let entries = fs::read_dir(base).into_iter().flatten().flatten().take(MOST_LEFT);
    for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(GUARDED.as_bytes())) {
        let owner = entry.file_name().to_str().and_then(OwnerProcess::parse);
        // Of another process namespace, the lock alone says that it lives.
        let is_alive = owner.is_some_and(|owner| OwnerProcess::of_raw(owner.pid).is_some_and(|there| there == owner));
        let is_locked = open_dir(&entry.path()).is_ok_and(|dir| dir.try_lock().is_err());
        if !is_alive && !is_locked {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Opens a directory, and is not blocked by what is none, such as a FIFO.
fn open_dir(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::DIRECTORY.bits().cast_signed()).open(path)
}

/// A process, and when it was started: numbers are given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnerProcess {
    pid: i32,
    /// In ticks since the boot.
    started: u64,
}

// === impl OwnerProcess ===

impl OwnerProcess {
    fn of(pid: Pid) -> Option<Self> {
        Self::of_raw(pid.as_raw_nonzero().get())
    }

    fn of_raw(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The second field may have blanks and brackets in it (proc(5)); this is the twenty-second.
        let behind = stat.rsplit(|byte| *byte == b')').next()?;
        let started = behind.split(|byte| *byte == b' ').nth(20)?;
        Some(Self { pid, started: std::str::from_utf8(started).ok()?.parse().ok()? })
    }

    /// Of a directory's name.
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(GUARDED)?.split('-');
        Some(Self { pid: parts.next()?.parse().ok()?, started: parts.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn what_is_left_goes_and_what_lives_stays() {
        let base = tempfile::tempdir().unwrap();
        let own = OwnerProcess::of(getpid()).unwrap();
        let dir = |name: &str| {
            let dir = base.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("value"), "canary").unwrap();
            dir
        };
        let alive = dir(&format!("run-{}-{}-aa", own.pid, own.started));
        let another = dir(&format!("run-{}-{}-aa", own.pid, own.started + 1));
        let ended = dir("run-2147483647-1-aa");
        let guarded = dir("run-2147483647-2-aa");
        let of_others = dir("files");
        mkfifoat(CWD, base.path().join("run-2147483647-3-aa"), Mode::RUSR | Mode::WUSR).unwrap();
        let lock = File::open(&guarded).unwrap();
        lock.lock().unwrap();
        sweep(base.path());
        let left = [&alive, &another, &ended, &guarded, &of_others].map(|dir| dir.exists());
        assert_eq!(left, [true, false, false, true, true], "alive, pid given again, ended, guarded, not ours");
        drop(lock);
        sweep(base.path());
        assert!(!guarded.exists());
    }

    #[test]
    fn a_link_replaces_nothing_that_somebody_has() {
        let base = tempfile::tempdir().unwrap();
        let (at, to) = (base.path().join("at"), base.path().join("to"));
        fs::create_dir(&to).unwrap();
        replace_by_link(&at, &to).unwrap();
        assert_eq!(fs::read_link(&at).unwrap(), to);
        assert!(replace_by_link(&at, &to).unwrap_err().to_string().contains("another command"), "it leads somewhere");
        fs::remove_dir(&to).unwrap();
        replace_by_link(&at, &to).unwrap();
        fs::remove_file(&at).unwrap();
        fs::create_dir(&at).unwrap();
        fs::write(at.join("mine"), "").unwrap();
        assert!(replace_by_link(&at, &to).is_err() && at.join("mine").exists());
        fs::remove_file(at.join("mine")).unwrap();
        replace_by_link(&at, &to).unwrap();
    }
}
