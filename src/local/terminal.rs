//! Terminals of a command whose output is masked: what it prints to has to be one where ours is one.
//!
//! Where standard input and output are terminals, the command has a terminal of its own, in a session of its own: a part
//! of this program leads it ([`lead`]), and this one gives it what is typed, in raw mode, and shows what is printed.
//! Elsewhere, in a pipeline, only what is a terminal of standard output and error is another one, to print to.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, getpid, ioctl_tiocsctty, kill_process, kill_process_group, setsid, waitpid,
};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use rustix::termios::{
    OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetpgrp, tcsetwinsize,
};
use signal_hook::iterator::Signals;

/// While another process has the terminal, this is how often we look whether it is ours again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What the one who leads a command's session passes on to it.
const PASSED_ON: [Signal; 8] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::TERM, Signal::ALARM, Signal::TSTP];

/// Both ends of a terminal: ours, and the command's.
pub(super) struct TerminalPair {
    pub(super) ours: OwnedFd,
    pub(super) theirs: OwnedFd,
}

/// The terminal that a person sits at, lent to the command's own. It is as it was before when this is dropped.
#[derive(Debug)]
pub(super) struct OuterTerminal {
    tty: Arc<File>,
    before: Termios,
    /// Our end of the terminal of the command that runs now.
    inner: Arc<Mutex<Option<OwnedFd>>>,
}

/// Whether this process belongs to a terminal, whatever its streams are.
pub(super) fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Makes a terminal of the size of `like`.
///
/// # Errors
/// The system's: there are so many of them.
pub(super) fn open_pair(like: impl AsFd) -> io::Result<TerminalPair> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    let pair = TerminalPair { ours, theirs };
    resize(&pair.ours, like);
    Ok(pair)
}

/// Gives a command's terminal the size of another one.
pub(super) fn resize(ours: impl AsFd, like: impl AsFd) {
    if let Ok(size) = tcgetwinsize(like) {
        let _ = tcsetwinsize(ours, size);
    }
}

// === impl TerminalPair ===

impl TerminalPair {
    /// For printing alone: whatever is printed reaches the outer terminal as it is, which then does what terminals do.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn as_it_is(&self) -> io::Result<()> {
        let mut plain = tcgetattr(&self.theirs)?;
        plain.make_raw();
        Ok(tcsetattr(&self.theirs, OptionalActions::Now, &plain)?)
    }
}

// === impl OuterTerminal ===

impl OuterTerminal {
    /// Of this process, if standard input and output are one; what is typed goes to the command's from now on.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let Ok(tty) = File::options().read(true).write(true).open("/dev/tty") else { return Ok(None) };
        let outer = Self { before: tcgetattr(&tty)?, tty: Arc::new(tty), inner: Arc::default() };
        let (tty, inner) = (Arc::clone(&outer.tty), Arc::clone(&outer.inner));
        thread::Builder::new().spawn(move || pass_typing(&tty, &inner))?;
        Ok(Some(outer))
    }

    /// Lends it to a command: the terminal that the command has looks and behaves as this one did.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn lend(&self) -> io::Result<TerminalPair> {
        let pair = open_pair(&*self.tty)?;
        tcsetattr(&pair.theirs, OptionalActions::Now, &self.before)?;
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Some(pair.ours.try_clone()?);
        self.resume();
        Ok(pair)
    }

    /// Takes what is typed as it is, if this process has the terminal: what keys do, the command's own decides.
    pub(super) fn resume(&self) {
        if !is_in_foreground(&self.tty) {
            return;
        }
        let mut raw = self.before.clone();
        raw.make_raw();
        let _ = tcsetattr(&*self.tty, OptionalActions::Drain, &raw);
        self.resize();
    }

    /// The command's terminal has this one's size.
    pub(super) fn resize(&self) {
        if let Some(inner) = &*self.inner.lock().unwrap_or_else(PoisonError::into_inner) {
            resize(inner, &*self.tty);
        }
    }

    /// Ends what has the command's terminal.
    pub(super) fn kill(&self) {
        if let Some(inner) = &*self.inner.lock().unwrap_or_else(PoisonError::into_inner)
            && let Ok(group) = tcgetpgrp(inner)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// As it was before.
    pub(super) fn restore(&self) {
        // In the background it is another's, who made it what it is.
        if is_in_foreground(&self.tty) {
            let _ = tcsetattr(&*self.tty, OptionalActions::Drain, &self.before);
        }
    }
}

impl Drop for OuterTerminal {
    fn drop(&mut self) {
        self.restore();
    }
}

fn is_in_foreground(tty: &File) -> bool {
    tcgetpgrp(tty).is_ok_and(|group| group == getpgrp())
}

/// Passes on what is typed, until this process ends.
fn pass_typing(tty: &File, inner: &Mutex<Option<OwnedFd>>) {
    let pause = Timespec::try_from(LOOK_AGAIN).ok();
    let mut typed = [0; 4096];
    loop {
        let is_typed = poll(&mut [PollFd::new(tty, PollFlags::IN)], pause.as_ref()).is_ok_and(|ready| ready > 0);
        // Who reads in the background is stopped.
        if !is_typed || !is_in_foreground(tty) {
            if is_typed {
                thread::park_timeout(LOOK_AGAIN);
            }
            continue;
        }
        let mut tty = tty;
        let Ok(length @ 1..) = tty.read(&mut typed) else { return };
        let inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = inner.as_ref().and_then(|inner| inner.try_clone().ok()) {
            let _ = File::from(inner).write_all(typed.get(..length).unwrap_or_default());
        }
    }
}

/// Leads the session of a command to its end; gives its exit code, which [`hang_up`] takes. The command's terminal is
/// standard input, and its standard error is our standard output.
///
/// # Errors
/// The system's; or why there is no such command.
pub(super) fn lead(file: &OsString, words: &[OsString]) -> io::Result<u8> {
    setsid()?;
    let terminal = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    ioctl_tiocsctty(&terminal)?;
    let mut heard: Vec<_> = PASSED_ON.map(Signal::as_raw).to_vec();
    heard.extend([Signal::CHILD, Signal::CONT].map(Signal::as_raw));
    let mut signals = Signals::new(heard)?;
    let (name, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(file);
    command.arg0(name).args(arguments).process_group(0);
    command.stdout(terminal.try_clone()?).stderr(io::stdout().as_fd().try_clone_to_owned()?);
    let child = Pid::from_child(&command.spawn()?);
    drop(command);
    // One that was quicker, and read before the terminal was its own, was stopped.
    tcsetpgrp(&terminal, child)?;
    let _ = kill_process_group(child, Signal::CONT);
    for signal in signals.forever() {
        if signal == Signal::CHILD.as_raw() {
            match waitpid(Some(child), WaitOptions::UNTRACED | WaitOptions::NOHANG) {
                // Who shows what is printed sees that, and stops with the rest of its job.
                Ok(Some((_, status))) if status.stopped() => kill_process(getpid(), Signal::STOP)?,
                Ok(Some((_, status))) => {
                    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                    return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
                }
                _ => {}
            }
        } else if signal == Signal::CONT.as_raw() {
            // ^Z stopped all of them.
            let _ = kill_process_group(child, Signal::CONT);
        } else if let Some(signal) = PASSED_ON.into_iter().find(|it| it.as_raw() == signal) {
            let _ = kill_process(child, signal);
        }
    }
    Ok(u8::MAX)
}

/// Says to the one who shows what is printed, by the socket that is standard error, that there will be no more, and waits
/// until everything is shown: a session's end throws away what nobody has read from its terminal.
///
/// # Errors
/// The system's.
pub(super) fn hang_up() -> io::Result<()> {
    let nothing = File::open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    let mut shown = UnixStream::from(io::stderr().as_fd().try_clone_to_owned()?);
    shown.write_all(&[0])?;
    shown.read(&mut [0]).map(drop)
}
