//! A command whose output is masked: a child, since somebody has to read what it prints.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::mask::{HOLD, Masker, Needles};

/// What is passed on to the command.
const PASSED_ON: [Signal; 6] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];
/// What processes that outlive the command may still print.
const AFTER_END: Duration = Duration::from_secs(2);
const PIECE: usize = 64 * 1024;

/// Runs the command to its end; gives its exit code, or 128 and the signal that ended it.
///
/// # Errors
/// If it cannot be started.
pub(super) async fn run(mut command: Command, needles: Needles) -> io::Result<u8> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = Pid::from_child(&child);
    for passed in PASSED_ON {
        let mut signals = signal(SignalKind::from_raw(passed.as_raw()))?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // One that has ended needs none.
                let _ = kill_process(pid, passed);
            }
        });
    }
    let needles = Arc::new(needles);
    let (done, ended) = channel();
    let streams = [
        child.stdout.take().map(|out| pump(out, io::stdout(), Arc::clone(&needles), done.clone())),
        child.stderr.take().map(|err| pump(err, io::stderr(), needles, done.clone())),
    ];
    let streams = streams.into_iter().flatten().count();
    let waiting = move || -> io::Result<ExitStatus> {
        let status = Child::wait(&mut child)?;
        for _ in 0..streams {
            if ended.recv_timeout(AFTER_END).is_err() {
                break;
            }
        }
        Ok(status)
    };
    let status = tokio::task::spawn_blocking(waiting).await.map_err(io::Error::other)??;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Masks one stream in a thread of its own, and says when it has ended.
fn pump<R, W>(from: R, to: W, needles: Arc<Needles>, done: Sender<()>)
where
    R: io::Read + AsFd + Send + 'static,
    W: Write + Send + 'static,
{
    thread::spawn(move || {
        copy(from, to, Masker::new(needles));
        let _ = done.send(());
    });
}

fn copy(mut from: impl io::Read + AsFd, mut to: impl Write, mut masker: Masker) {
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    let hold = Timespec::try_from(HOLD).ok();
    loop {
        let wait = if masker.is_holding() { hold.as_ref() } else { None };
        let is_silent = poll(&mut [PollFd::new(&from, PollFlags::IN)], wait).is_ok_and(|ready| ready == 0);
        let out = if is_silent {
            masker.flush()
        } else {
            match from.by_ref().read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(length) => masker.push(piece.get(..length).unwrap_or_default()),
            }
        };
        // As for a command that prints itself: who does not read ends it, once the pipe is closed.
        if to.write_all(&out).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
    let _ = to.write_all(&masker.flush()).and_then(|()| to.flush());
}
