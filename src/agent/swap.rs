//! Whether the kernel may write values to a disk: a memory volume that is not kept out of swap (`noswap`, Linux 6.4;
//! KEP-2400) on a node that swaps.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tracing::warn;

/// More mounts, or more swap areas, than that are not looked at.
const MOST: u64 = 1 << 20;

/// Whether one of these volumes may be swapped out; says so in the log.
pub(super) fn warn_of(volumes: &[&Path]) -> bool {
    let proc = Path::new("/proc");
    if !is_on(&read(&proc.join("swaps"))) {
        return false;
    }
    let mounts = read(&proc.join("self/mountinfo"));
    let exposed: Vec<_> = volumes.iter().filter(|volume| is_swappable(&mounts, volume)).collect();
    for volume in &exposed {
        warn!(event = "swappable", volume = %volume.display(),
            "the node swaps, and this volume has no noswap (Linux 6.4): values may be written to the node's disk");
    }
    !exposed.is_empty()
}

/// What cannot be read is as empty: a guard is no reason to fail.
fn read(path: &Path) -> String {
    let mut text = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

/// Whether `/proc/swaps` (proc_swaps(5)) lists anything below its heading.
fn is_on(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

/// Whether the last mount at `path` of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) is a tmpfs that may be swapped.
fn is_swappable(mounts: &str, path: &Path) -> bool {
    let at = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_there = unescaped(mount.split(' ').nth(4)?) == path.as_os_str().as_bytes();
        let mut fields = file_system.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        is_there.then(|| kind == "tmpfs" && !options.split(',').any(|option| option == "noswap"))
    };
    mounts.lines().rev().find_map(at).unwrap_or(false)
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'\\').then(|| tail.get(..3)).flatten();
        let code = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    #[test]
    fn swap_is_on_if_an_area_is_listed() {
        for (swaps, expected) in [
            ("", false),
            (HEAD, false),
            (&*format!("{HEAD}\n"), false),
            (&*format!("{HEAD}/dev/sda2   partition\t8388604\t\t0\t\t-2\n"), true),
            (&*format!("{HEAD}/swap\\040file file\t1\t\t0\t\t-2\n/dev/zram0 partition 1 0 5"), true),
        ] {
            assert_eq!(is_on(swaps), expected, "{swaps:?}");
        }
    }

    #[test]
    fn the_last_mount_at_the_place_says_whether_it_may_be_swapped() {
        let mount = |at: &str, kind: &str, options: &str| {
            format!("540 521 0:61 / {at} rw,nosuid,relatime shared:7 master:1 - {kind} {kind} {options}\n")
        };
        let (swappable, kept) = ("rw,size=1024k,inode64", "rw,size=1024k,inode64,noswap");
        for (mounts, expected) in [
            (String::new(), false),
            ("540 521 0:61 / /v rw\n540\n - \n".to_owned(), false),
            (mount("/v", "tmpfs", swappable), true),
            (mount("/v", "tmpfs", kept), false),
            (mount("/v", "tmpfs", "noswap"), false),
            (mount("/v", "tmpfs", "rw,noswapper"), true),
            (mount("/v", "ext4", "rw"), false),
            (mount("/v/below", "tmpfs", swappable), false),
            (mount("/other", "tmpfs", swappable) + &mount("/v", "tmpfs", kept), false),
            (mount("/v", "tmpfs", swappable) + &mount("/v", "tmpfs", kept), false),
            (mount("/v", "tmpfs", kept) + &mount("/v", "tmpfs", swappable), true),
            ("540 521 0:61 / /v rw - tmpfs tmpfs rw\n".to_owned(), true),
        ] {
            assert_eq!(is_swappable(&mounts, Path::new("/v")), expected, "{mounts}");
        }
        let escaped = mount("/a\\040b\\134c", "tmpfs", swappable);
        assert!(is_swappable(&escaped, Path::new("/a b\\c")));
        for text in ["\\", "\\0", "\\04", "\\9zz", "\\777"] {
            assert_eq!(unescaped(text), text.as_bytes(), "{text}");
        }
    }
}
