//! What is left of a value when somebody is killed: nothing in the environment of other processes, and in no file.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::private_files::soon;
use super::{Machine, PROJECT, text};

/// Other tests have processes with their values at the same time.
const SECRET: &str = "canary-crash-9b7e";

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The command.
    Command,
    /// `hushpod`, where it is the command's parent.
    Parent,
}

/// The processes of this machine whose environment has the secret, as far as it may be read.
fn holders() -> BTreeSet<i32> {
    let has_it = |process: &fs::DirEntry| {
        fs::read(process.path().join("environ")).is_ok_and(|bytes| text(&bytes).contains(SECRET))
    };
    let holders = fs::read_dir("/proc").unwrap().flatten().filter(has_it);
    holders.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

/// Files below a directory with the secret in them.
fn files(directory: &Path) -> usize {
    let each = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => files(&entry.path()),
        kind if kind.is_file() => fs::read(entry.path()).map_or(0, |bytes| text(&bytes).matches(SECRET).count().min(1)),
        _ => 0,
    });
    each.sum()
}

fn kill(process: i32) {
    // It may have ended with another.
    let _ = kill_process(Pid::from_raw(process).unwrap(), Signal::KILL);
}

#[test]
fn p5_who_is_killed_leaves_no_value_to_others() {
    for (flags, victim) in [
        (&[][..], Victim::Command),
        (&["--mask", "always"], Victim::Command),
        (&["--mask", "always"], Victim::Parent),
        (&["--watch"], Victim::Command),
        (&["--watch"], Victim::Parent),
        (&["--files", "here"], Victim::Command),
        (&["--files", "here", "--watch"], Victim::Command),
        (&["--files", "here", "--watch"], Victim::Parent),
    ] {
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let machine = Machine::new(PROJECT);
        machine.write("store/token", SECRET);
        let home = machine.directory.path();
        fs::create_dir(home.join("tmp")).unwrap();
        let mut command = machine.command(&["run"]);
        command.args(flags).args(["--", "sh", "-c", "echo $$; read line"]);
        command.env("TMPDIR", home.join("tmp")).env("XDG_RUNTIME_DIR", memory.path());
        let mut hushpod = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(hushpod.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let child: i32 = line.trim().parse().unwrap();
        let parent = i32::try_from(hushpod.id()).unwrap();
        assert_eq!(holders(), BTreeSet::from([child]), "{flags:?}: the command alone has it");
        match victim {
            Victim::Command => kill(child),
            Victim::Parent => {
                assert_ne!(child, parent, "{flags:?}");
                kill(parent);
            }
        }
        hushpod.wait().unwrap();
        let left = holders();
        assert!(left.is_subset(&BTreeSet::from([child])), "{flags:?} {victim:?}: {left:?}");
        // Who was not killed goes on, as its page says.
        kill(child);
        soon("nobody has it", || holders().is_empty());
        soon("no file has it", || files(memory.path()) == 0);
        assert_eq!(files(home), 1, "{flags:?} {victim:?}: the store's own");
    }
}
