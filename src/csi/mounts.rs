//! What the driver does to the mount table. It alone needs to be root, and tests put another in its place.

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::{fmt, fs, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::contract::{CSI_MOUNT_SOURCE, CSI_PROGRAMS_SOURCE};

/// What the driver does to the mount table. Paths are the same for kubelet and for the driver.
pub(super) trait Mounts: fmt::Debug + Send + Sync {
    /// Mounts an empty file system in memory of at most `bytes` at `target`, and makes that directory first.
    ///
    /// # Errors
    /// The system's.
    fn mount(&self, target: &Path, bytes: u64) -> io::Result<()>;

    /// Mounts a small file system in memory at `target`, which programs may be executed from.
    ///
    /// # Errors
    /// The system's.
    fn mount_programs(&self, target: &Path) -> io::Result<()>;

    /// Shows a directory of that file system at `target` too, read-only, and makes `target` first.
    ///
    /// # Errors
    /// The system's.
    fn bind(&self, source: &Path, target: &Path) -> io::Result<()>;

    /// Unmounts what of ours is mounted at `target`, and removes the directory; what is not there is fine.
    ///
    /// # Errors
    /// The system's; something of others at `target` is one.
    fn unmount(&self, target: &Path) -> io::Result<()>;

    /// Where file systems of ours are mounted.
    ///
    /// # Errors
    /// The system's.
    fn ours(&self) -> io::Result<BTreeSet<PathBuf>>;

    /// Whether one of them is mounted at `target`.
    ///
    /// # Errors
    /// The system's.
    fn is_ours(&self, target: &Path) -> io::Result<bool> {
        Ok(self.ours()?.contains(target))
    }

    /// Directories of the file system with programs that are shown somewhere, from its root.
    ///
    /// # Errors
    /// The system's.
    fn bound_directories(&self) -> io::Result<BTreeSet<PathBuf>>;
}

/// The kernel's mount table.
#[derive(Debug, Default)]
pub(super) struct KernelMounts {
    /// Whether the kernel takes `noswap`, once that was tried: since 6.4.
    noswap: OnceLock<bool>,
    table: Mutex<MountTable>,
}

/// Mounts of ours in the kernel's table, which is read again when the kernel says that it has changed: kubelet asks once a
/// minute for each volume, and a node has some hundred mounts for each question.
#[derive(Debug, Default)]
struct MountTable {
    /// What was read last, if anything was.
    file: Option<File>,
    ours: BTreeSet<PathBuf>,
}

/// Mounts of the process' namespace, which all of its threads are in.
const TABLE: &str = "/proc/thread-self/mountinfo";
/// Most bytes of a mount table: a node has some thousand mounts of some hundred bytes.
const MOST_TABLE_BYTES: u64 = 16 << 20;
/// Room for some versions of a program of a megabyte.
const PROGRAMS_BYTES: u64 = 16 << 20;
/// Containers may read files of this type on SELinux, and kubelet labels no inline volume for us.
const SELINUX_CONTEXT: &str = "system_u:object_r:container_file_t:s0";

// === impl KernelMounts ===

impl Mounts for KernelMounts {
    fn mount(&self, target: &Path, bytes: u64) -> io::Result<()> {
        make_dir(target)?;
        let options = |noswap| options(bytes, noswap, has_selinux());
        let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        if *self.noswap.get().unwrap_or(&true) {
            match mount(CSI_MOUNT_SOURCE, target, "tmpfs", flags, &*options(true)?) {
                Ok(()) => {
                    self.noswap.get_or_init(|| true);
                    return Ok(());
                }
                Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        mount(CSI_MOUNT_SOURCE, target, "tmpfs", flags, &*options(false)?)?;
        if *self.noswap.get_or_init(|| false) || !has_swap() {
            return Ok(());
        }
        tracing::warn!("the node swaps, and its kernel takes no noswap for tmpfs: secrets may reach its disk");
        Ok(())
    }

    fn mount_programs(&self, target: &Path) -> io::Result<()> {
        make_dir(target)?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        // Programs may be swapped out: there is nothing secret in them.
        Ok(mount(CSI_PROGRAMS_SOURCE, target, "tmpfs", flags, &*options(PROGRAMS_BYTES, false, has_selinux())?)?)
    }

    fn bind(&self, source: &Path, target: &Path) -> io::Result<()> {
        make_dir(target)?;
        mount_bind(source, target)?;
        // A bind takes no flags but by a second call.
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        mount_remount(target, flags, c"").inspect_err(|_| {
            // Nothing that pods could write to is left. The first error is the one to tell.
            let _ = unmount(target, UnmountFlags::DETACH);
        })?;
        Ok(())
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        // One over the other, should two calls ever have raced.
        while self.is_ours(target)? {
            unmount(target, UnmountFlags::DETACH)?;
        }
        match fs::remove_dir(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ours(&self) -> io::Result<BTreeSet<PathBuf>> {
        Ok(self.table().present()?.clone())
    }

    fn is_ours(&self, target: &Path) -> io::Result<bool> {
        Ok(self.table().present()?.contains(target))
    }

    fn bound_directories(&self) -> io::Result<BTreeSet<PathBuf>> {
        Ok(shown_in(&read_table(&File::open(TABLE)?)?))
    }
}

impl KernelMounts {
    fn table(&self) -> MutexGuard<'_, MountTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl MountTable ===

impl MountTable {
    fn present(&mut self) -> io::Result<&BTreeSet<PathBuf>> {
        let file = match self.file.take() {
            Some(file) if !has_changed(&file)? => file,
            // What changes while it is read is a change of the next time: the kernel was asked before.
            Some(file) => self.read(file)?,
            None => self.read(File::open(TABLE)?)?,
        };
        self.file = Some(file);
        Ok(&self.ours)
    }

    fn read(&mut self, mut file: File) -> io::Result<File> {
        file.rewind()?;
        self.ours = ours_in(&read_table(&file)?);
        Ok(file)
    }
}

/// Whether mounts have changed since the file was opened or this was asked last (proc(5): `/proc/[pid]/mounts`).
fn has_changed(table: &File) -> io::Result<bool> {
    let mut asked = [PollFd::new(table, PollFlags::PRI)];
    retry_on_intr(|| poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    Ok(asked.iter().any(|asked| asked.revents().intersects(PollFlags::PRI | PollFlags::ERR)))
}

/// Options of tmpfs (`tmpfs(5)`), and the label of all that is in it where there are labels: containers may neither read nor
/// execute what has the one that tmpfs has by itself.
fn options(bytes: u64, noswap: bool, has_labels: bool) -> io::Result<CString> {
    let noswap = if noswap { ",noswap" } else { "" };
    let context = if has_labels { format!(",context=\"{SELINUX_CONTEXT}\"") } else { String::new() };
    Ok(CString::new(format!("mode=0755,size={bytes}{noswap}{context}"))?)
}

fn read_table(file: &File) -> io::Result<Vec<u8>> {
    let mut table = Vec::new();
    file.take(MOST_TABLE_BYTES).read_to_end(&mut table)?;
    Ok(table)
}

/// Roots of the mounts of our file system with programs.
fn shown_in(table: &[u8]) -> BTreeSet<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let of_programs =
        lines.filter(|line| line.split(|byte| *byte == b' ').any(|field| field == CSI_PROGRAMS_SOURCE.as_bytes()));
    of_programs.filter_map(|line| line.split(|byte| *byte == b' ').nth(3)).map(unescaped).collect()
}

/// Mount points of ours, in the form of proc(5), `/proc/[pid]/mountinfo`. What stands above another one counts alone:
/// the kernel lists them in the order in which they were mounted.
fn ours_in(table: &[u8]) -> BTreeSet<PathBuf> {
    let mut ours = BTreeSet::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let Some(point) = fields.nth(4).map(unescaped) else { continue };
        let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
        let of_ours =
            |source: &[u8]| [CSI_MOUNT_SOURCE, CSI_PROGRAMS_SOURCE].iter().any(|ours| ours.as_bytes() == source);
        let is_ours = behind.next() == Some(b"tmpfs") && behind.next().is_some_and(of_ours);
        if is_ours {
            ours.insert(point);
        } else {
            ours.remove(&point);
        }
    }
    ours
}

/// Blanks, line ends and backslashes stand there as `\040`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = || {
            let digits = tail.get(..3)?;
            let digit = |byte: &u8| (b'0'..=b'7').contains(byte).then(|| u32::from(byte - b'0'));
            let number = digits.iter().try_fold(0, |number, byte| Some(number * 8 + digit(byte)?))?;
            u8::try_from(number).ok()
        };
        if let (b'\\', Some(byte)) = (first, octal()) {
            bytes.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes).into()
}

fn make_dir(target: &Path) -> io::Result<()> {
    match fs::create_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn has_selinux() -> bool {
    fs::read("/proc/self/attr/current").is_ok_and(|label| is_selinux(&label))
}

/// Whether this is SELinux's label of a process: AppArmor's have no four parts.
fn is_selinux(label: &[u8]) -> bool {
    label.split(|byte| *byte == b':').nth(3).is_some()
}

fn has_swap() -> bool {
    fs::read("/proc/swaps")
        .is_ok_and(|table| table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).nth(1).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing;

    #[test]
    fn volumes_and_programs_are_labelled_where_there_are_labels() {
        let volume = |noswap, has_labels| options(4096, noswap, has_labels).unwrap().into_string().unwrap();
        let label = r#",context="system_u:object_r:container_file_t:s0""#;
        assert_eq!(volume(true, false), "mode=0755,size=4096,noswap");
        assert_eq!(volume(false, false), "mode=0755,size=4096");
        assert_eq!(volume(true, true), format!("mode=0755,size=4096,noswap{label}"));
        assert_eq!(volume(false, true), format!("mode=0755,size=4096{label}"), "programs, and older kernels");
        for (text, has_labels) in [
            ("system_u:system_r:spc_t:s0", true),
            ("system_u:system_r:container_t:s0:c1,c2\0", true),
            ("cri-containerd.apparmor.d (enforce)\n", false),
            ("unconfined\n", false),
            ("", false),
        ] {
            assert_eq!(is_selinux(text.as_bytes()), has_labels, "{text:?}");
        }
    }

    #[test]
    fn the_mount_table_tells_what_is_ours() {
        let line = |point: &str, kind: &str, source: &str| {
            format!("96 25 0:52 / {point} rw,nosuid shared:9 master:1 - {kind} {source} rw,size=1024k\n")
        };
        let tables = [
            ("ours", line("/a/mount", "tmpfs", CSI_MOUNT_SOURCE), &["/a/mount"][..]),
            ("another's tmpfs", line("/a", "tmpfs", "tmpfs"), &[]),
            ("our name on another type", line("/a", "ext4", CSI_MOUNT_SOURCE), &[]),
            ("a path with blanks", line(r"/a\040b\134c", "tmpfs", CSI_MOUNT_SOURCE), &[r"/a b\c"]),
            ("no escape", line(r"/a\04", "tmpfs", CSI_MOUNT_SOURCE), &[r"/a\04"]),
            ("another one above ours", line("/a", "tmpfs", CSI_MOUNT_SOURCE) + &line("/a", "tmpfs", "tmpfs"), &[]),
            (
                "no optional fields",
                format!("1 2 0:3 / /a rw - tmpfs {CSI_MOUNT_SOURCE} rw\n\n- - - garbage\n"),
                &["/a"],
            ),
        ];
        for (name, table, expected) in tables {
            let expected: BTreeSet<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(ours_in(table.as_bytes()), expected, "{name}");
        }
        assert!(!KernelMounts::default().ours().unwrap().contains(Path::new("/")));
    }
    #[test]
    fn a_table_that_was_read_is_read_again_once_it_has_changed() {
        let Some(mut namespace) = testing::mount_namespace() else { return };
        let inner = testing::rerun("csi::mounts::tests::changes_are_seen");
        testing::passes(namespace.arg(inner.get_program()).args(inner.get_args()));
    }

    #[test]
    #[ignore = "run by the test above, in a mount namespace of its own"]
    fn changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let targets @ [ours, behind] = &["ours", "behind"].map(|name| dir.path().join(name));
        let mounts = KernelMounts::default();
        let are_there = || targets.each_ref().map(|target| mounts.is_ours(target).unwrap());
        assert_eq!(are_there(), [false, false]);
        mounts.mount(ours, 4096).unwrap();
        assert_eq!(are_there(), [true, false]);
        assert_eq!(are_there(), [true, false], "nothing has changed");
        fs::create_dir(behind).unwrap();
        mount(CSI_MOUNT_SOURCE, behind, "tmpfs", MountFlags::empty(), c"").unwrap();
        assert_eq!(are_there(), [true, true], "mounted by another process");
        mount("another", ours, "tmpfs", MountFlags::empty(), c"").unwrap();
        assert_eq!(are_there(), [false, true], "hidden by another's");
        unmount(ours, UnmountFlags::DETACH).unwrap();
        unmount(behind, UnmountFlags::DETACH).unwrap();
        assert_eq!(are_there(), [true, false]);
        mounts.unmount(ours).unwrap();
        assert_eq!(are_there(), [false, false]);
    }
}
