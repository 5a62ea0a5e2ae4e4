//! Keeps a process to its own files, by Landlock (<https://docs.kernel.org/userspace-api/landlock.html>): an attacker
//! who runs code in it reads and writes no others, runs no program, opens no other port, and signals nobody.

use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, NetPort, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};

/// The newest rules that are used: Linux 6.12. Older kernels take those that they know.
const NEWEST: ABI = ABI::V6;

/// What a process needs from then on. All else is taken from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files and directories that it reads, with all below them. A file is read with its directory, since another may
    /// take its place; what is not there yet, with the directory on the way to it.
    pub reads: Vec<PathBuf>,
    /// Files and directories that it changes, with all below them; they have to be there.
    pub writes: Vec<PathBuf>,
    /// The TCP port that it opens.
    pub port: Option<u16>,
    /// Whether it signals processes other than its children.
    pub signals: bool,
}

/// How much of it the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confined {
    /// All of it.
    Fully,
    /// What this kernel knows: files since Linux 5.13, ports since 6.7, signals since 6.12.
    Partly,
    /// Nothing: the kernel has no Landlock, or it is switched off.
    Not,
}

/// Takes everything but `needs` from the calling thread and from all that it starts: call it before any other thread.
/// What is open stays open. It lasts until the process ends.
///
/// # Errors
/// If the kernel refuses what it said it knows.
pub fn confine(needs: &Needs) -> Result<Confined, RulesetError> {
    let reading = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let scope = if needs.signals { Scope::AbstractUnixSocket.into() } else { Scope::from_all(NEWEST) };
    let reads = needs.reads.iter().map(|path| directory(path));
    let ports = needs.port.into_iter().map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::BindTcp)));
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::BindTcp)?
        .scope(scope)?
        .create()?
        .add_rules(path_beneath_rules(reads, reading))?
        .add_rules(path_beneath_rules(&needs.writes, reading | changing()))?
        .add_rules(ports)?;
    Ok(match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Confined::Fully,
        RulesetStatus::PartiallyEnforced => Confined::Partly,
        RulesetStatus::NotEnforced => Confined::Not,
    })
}

/// No devices, sockets and pipes: nobody makes them in a volume of ours.
fn changing() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{
        WriteFile | Truncate | RemoveDir | RemoveFile | MakeDir | MakeReg | MakeSym | Refer
    })
}

/// The last directory on the way to `path` and further.
fn directory(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(path)
}

// === impl Confined ===

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fully => "fully",
            Self::Partly => "partly",
            Self::Not => "not",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{ErrorKind, Write as _};
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::process::testing;

    fn port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    #[ignore = "run by p6_a_confined_process_has_its_own_files_and_no_others"]
    fn in_a_process_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["own", "own/below", "read", "other"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), "x").unwrap();
        }
        fs::write(at("log"), "x").unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (mine, others) = (port(), port());
        let needs = Needs {
            reads: vec![at("read"), at("read/later/file")],
            writes: vec![at("own"), at("log")],
            port: Some(mine),
            signals: false,
        };
        match confine(&needs).unwrap() {
            Confined::Fully => {}
            // Said aloud, by the run: a kernel without it proves nothing.
            confined => {
                child.kill().unwrap();
                child.wait().unwrap();
                writeln!(std::io::stderr(), "SKIPPED: this kernel confines {confined}").unwrap();
                return;
            }
        }

        assert!(fs::read(at("own/file")).is_ok() && fs::read(at("read/file")).is_ok());
        fs::write(at("own/below/new"), "y").unwrap();
        fs::create_dir(at("own/generation")).unwrap();
        fs::rename(at("own/below/new"), at("own/generation/new")).unwrap();
        std::os::unix::fs::symlink("generation", at("own/..data")).unwrap();
        fs::remove_dir_all(at("own/generation")).unwrap();
        fs::write(at("log"), "y").unwrap();
        TcpListener::bind(("127.0.0.1", mine)).unwrap();

        let denied = |what: &str, result: std::io::Result<()>| {
            assert_eq!(result.map_err(|error| error.kind()), Err(ErrorKind::PermissionDenied), "{what}");
        };
        denied("reading another's", fs::read(at("other/file")).map(drop));
        denied("listing another's", fs::read_dir(at("other")).map(drop));
        denied("writing what is to be read", fs::write(at("read/file"), "y"));
        denied("making a file where nothing is ours", File::create(at("other/new")).map(drop));
        denied("removing", fs::remove_file(at("other/file")));
        denied("running", Command::new("/bin/true").status().map(drop));
        denied("another port", TcpListener::bind(("127.0.0.1", others)).map(drop));
        denied("signalling", kill_process(pid, Signal::TERM).map_err(Into::into));
        assert!(child.try_wait().unwrap().is_none());
        // No longer ours to kill, it ends with its input.
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn p6_a_confined_process_has_its_own_files_and_no_others() {
        testing::passes_alone("process::confine::tests::in_a_process_of_its_own");
    }

    #[test]
    fn files_and_what_is_not_there_yet_are_read_with_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/file"), "x").unwrap();
        for (path, expected) in [("a", "a"), ("a/b/c", "a"), ("a/file", "a"), ("b", "")] {
            assert_eq!(directory(&dir.path().join(path)), dir.path().join(expected).as_path(), "{path}");
        }
    }
}
