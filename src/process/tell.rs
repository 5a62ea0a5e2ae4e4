//! What agent and `exec` do alike to tell an application that its files changed: how often, how long, and whom a signal
//! reaches.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Pid, geteuid, getpid, kill_process};

use crate::options::Signal;

/// One HTTP request takes at most this long.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses before each further attempt: about a minute.
pub const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

/// Why a signal reached nobody.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Nobody to signal.
    #[error("no process named {process:?} runs as uid {uid}{}", of_others(*.others))]
    NoProcess {
        /// The name that was looked for.
        process: String,
        /// This process's own uid: it can signal no other.
        uid: u32,
        /// Processes of that name which belong to other users.
        others: usize,
    },
    /// `/proc` or the signal failed.
    #[error("cannot signal {process:?}: {source}")]
    Failed {
        /// The name that was looked for.
        process: String,
        /// Why not.
        source: io::Error,
    },
}

fn of_others(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" ({count} of that name run as another user, whom this one cannot signal)"),
    }
}

/// Signals every process of this name and our own uid, except this one. `proc`, where the kernel shows them, lists
/// processes only: threads stay out of it.
///
/// # Errors
/// [`SignalError`], if not one was told.
pub fn signal_all(proc: &Path, signal: Signal, process: &str) -> Result<(), SignalError> {
    let failed = |source| SignalError::Failed { process: process.to_owned(), source };
    let (mut told, mut others, mut last_error) = (0_usize, 0_usize, None);
    for entry in fs::read_dir(proc).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        match owner(&entry.path(), process) {
            Some(uid) if uid == geteuid().as_raw() && pid != getpid() => match kill_process(pid, kernel(signal)) {
                Ok(()) => told += 1,
                Err(rustix::io::Errno::SRCH) => {}
                Err(error) => last_error = Some(error.into()),
            },
            Some(uid) if uid != geteuid().as_raw() => others += 1,
            _ => {}
        }
    }
    match last_error {
        _ if told > 0 => Ok(()),
        Some(error) => Err(failed(error)),
        None => Err(SignalError::NoProcess { process: process.to_owned(), uid: geteuid().as_raw(), others }),
    }
}

/// The real uid of the process in this directory if it has that name and lives. From `status`, since the directory of
/// a process that is not dumpable belongs to root.
fn owner(dir: &Path, process: &str) -> Option<u32> {
    let name = fs::read(dir.join("comm")).ok()?;
    if name.strip_suffix(b"\n").unwrap_or(&name) != process.as_bytes() {
        return None;
    }
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let field = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line?.split_ascii_whitespace().next()
    };
    // A zombie takes signals, and does nothing about them.
    if field("State") == Some("Z") { None } else { field("Uid")?.parse().ok() }
}

/// The kernel's number for a signal.
#[must_use]
pub fn kernel(signal: Signal) -> rustix::process::Signal {
    use rustix::process::Signal as Kernel;
    match signal {
        Signal::Hup => Kernel::HUP,
        Signal::Usr1 => Kernel::USR1,
        Signal::Usr2 => Kernel::USR2,
        Signal::Winch => Kernel::WINCH,
        Signal::Int => Kernel::INT,
        Signal::Term => Kernel::TERM,
        Signal::Quit => Kernel::QUIT,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    use super::*;

    /// A child process with a name of its own: the kernel takes it from the path that is executed.
    fn sleeper(dir: &Path, name: &str) -> Child {
        let program = dir.join(name);
        drop(symlink("/bin/sleep", &program));
        Command::new(program).arg0("sleep").arg("60").spawn().unwrap()
    }

    #[test]
    fn a_signal_reaches_every_process_of_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut named = [sleeper(dir.path(), "hp-notify-a"), sleeper(dir.path(), "hp-notify-a")];
        let mut other = sleeper(dir.path(), "hp-notify-b");
        // The name stands in /proc once exec is done, which spawn() waits for.
        signal_all(Path::new("/proc"), Signal::Usr1, "hp-notify-a").unwrap();
        for child in &mut named {
            assert_eq!(child.wait().unwrap().signal(), Some(10), "SIGUSR1");
        }
        assert!(other.try_wait().unwrap().is_none(), "another name is left alone");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn nobody_to_signal_is_an_error_that_says_why() {
        let proc = tempfile::tempdir().unwrap();
        let own = geteuid().as_raw();
        // The last one is this process, which is never meant.
        let own_pid = getpid().as_raw_nonzero().to_string();
        for (pid, comm, state, uid) in [
            ("1", "nginx", "S", own + 1),
            ("2", "nginx", "Z", own),
            ("3", "other", "S", own),
            ("self", "nginx", "S", own),
            (own_pid.as_str(), "nginx", "S", own),
        ] {
            let dir = proc.path().join(pid);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
            let status = format!("Name:\t{comm}\nState:\t{state} (x)\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
            fs::write(dir.join("status"), status).unwrap();
        }
        let error = signal_all(proc.path(), Signal::Winch, "nginx").unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "no process named \"nginx\" runs as uid {own} (1 of that name run as another user, whom this one cannot \
                 signal)"
            )
        );
    }
}
