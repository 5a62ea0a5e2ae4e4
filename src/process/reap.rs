//! PID 1's duty: orphans that nobody waits for.

use std::io;

use rustix::process::{WaitOptions, getpid, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for orphans if this process is PID 1, else returns at once: then someone else is (the pause container, in a pod
/// with a shared process namespace). In a container of its own the agent inherits what hooks leave behind.
///
/// Runs until it is dropped. Not for programs that wait for children of their own: it would take their exit status.
///
/// # Errors
/// If SIGCHLD cannot be listened to.
pub async fn reap_orphans() -> io::Result<()> {
    if getpid().is_init() {
        let mut ended = signal(SignalKind::child())?;
        reap(&mut ended).await;
    }
    Ok(())
}

async fn reap(ended: &mut Signal) {
    loop {
        // One signal may stand for several ends, and some may have come before we listened.
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        if ended.recv().await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use rustix::process::set_child_subreaper;

    use super::*;
    use crate::process::testing;

    /// An orphan of this process, alive until its standard input is closed.
    fn orphan() -> (PathBuf, std::process::ChildStdin) {
        // The shell ends while its background child still reads; the child's pid is all that it says.
        let script = "exec 3<&0; cat <&3 >&2 & echo $! >&2; exec 2>&-";
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stderr(file.reopen().unwrap())
            .spawn()
            .unwrap();
        let input = shell.stdin.take().unwrap();
        shell.wait().unwrap();
        let pid = std::fs::read_to_string(file.path()).unwrap();
        (PathBuf::from("/proc").join(pid.trim()), input)
    }

    #[tokio::test]
    #[ignore = "run by orphans_are_reaped"]
    async fn in_a_process_of_its_own() {
        reap_orphans().await.unwrap(); // Not PID 1: returns at once.
        set_child_subreaper(Some(getpid())).unwrap();
        let (early, input) = orphan();
        let mut ended = signal(SignalKind::child()).unwrap();
        let (late, late_input) = orphan();
        drop(input);
        assert!(early.exists() && late.exists(), "nobody has waited yet");
        let gone = async {
            drop(late_input);
            while early.exists() || late.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = reap(&mut ended) => panic!("reaping never ends"),
            done = tokio::time::timeout(Duration::from_secs(20), gone) => done.unwrap(),
        }
    }

    #[test]
    fn orphans_are_reaped() {
        testing::passes_alone("process::reap::tests::in_a_process_of_its_own");
    }
}
