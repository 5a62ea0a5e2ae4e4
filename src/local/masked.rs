//! A command whose output is masked: somebody has to read what it prints, in a pipe or as its terminal.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::fcntl_setpipe_size;
use zeroize::Zeroizing;

use super::files::NamedValues;
use super::mask::{Masker, Needles, PresentNeedles};
use super::template::CommandTemplate;
use super::terminal::{OuterTerminal, open_pair, resize};
use crate::process::terminal::write_whole;

/// What processes that outlive the command may still print.
const AFTER_END: Duration = Duration::from_secs(2);
/// What is read at once.
const PIECE: usize = 256 * 1024;

/// The threads that read what a command prints.
pub(super) struct MaskedStreams {
    /// Says of each what became of it.
    ended: Receiver<io::Result<()>>,
    running: usize,
    needles: PresentNeedles,
    /// Terminals that are only printed to, which have to be as wide as ours.
    printed_to: Option<OwnedFd>,
}

/// Begins a command whose output is masked. In a terminal of its own, what is begun leads its session; else it may have
/// a process group of its own.
///
/// # Errors
/// The system's.
pub(super) fn begin(
    template: &CommandTemplate,
    variables: &NamedValues,
    needles: Needles,
    outer: Option<&OuterTerminal>,
    is_apart: bool,
) -> io::Result<(Child, MaskedStreams)> {
    let (done, ended) = channel();
    let streams = MaskedStreams { ended, running: 0, needles: PresentNeedles::new(needles), printed_to: None };
    match outer {
        Some(outer) => in_own_terminal(template, variables, streams, outer, done),
        None => in_pipes(template, variables, streams, &done, is_apart),
    }
}

fn in_pipes(
    template: &CommandTemplate,
    variables: &NamedValues,
    mut streams: MaskedStreams,
    done: &Sender<io::Result<()>>,
    is_apart: bool,
) -> io::Result<(Child, MaskedStreams)> {
    let is_terminal = [io::stdout().is_terminal(), io::stderr().is_terminal()];
    let pair = match is_terminal {
        [true, _] => Some(open_pair(io::stdout())?),
        [_, true] => Some(open_pair(io::stderr())?),
        _ => None,
    };
    let stream = |is_terminal: bool| match &pair {
        Some(pair) if is_terminal => pair.theirs.try_clone().map(Stdio::from),
        _ => Ok(Stdio::piped()),
    };
    let mut command = template.command(variables);
    command.stdout(stream(is_terminal[0])?).stderr(stream(is_terminal[1])?);
    if is_apart {
        command.process_group(0);
    }
    if let Some(pair) = &pair {
        pair.as_it_is()?;
    }
    let mut child = command.spawn()?;
    // Its copies of the command's end.
    drop(command);
    let printed_to = pair.map(|pair| pair.ours);
    if let Some(ours) = &printed_to {
        let ours = ours.try_clone()?;
        if is_terminal[0] {
            streams.pump(ours, io::stdout(), done)?;
        } else {
            streams.pump(ours, io::stderr(), done)?;
        }
    }
    if let Some(out) = child.stdout.take() {
        streams.pump(out.into(), io::stdout(), done)?;
    }
    if let Some(err) = child.stderr.take() {
        streams.pump(err.into(), io::stderr(), done)?;
    }
    Ok((child, MaskedStreams { printed_to, ..streams }))
}

fn in_own_terminal(
    template: &CommandTemplate,
    variables: &NamedValues,
    mut streams: MaskedStreams,
    outer: &OuterTerminal,
    done: Sender<io::Result<()>>,
) -> io::Result<(Child, MaskedStreams)> {
    let pair = outer.lend()?;
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut command = template.leader(variables);
    // The leader's standard output is the command's standard error: its own is the socket.
    let err = if io::stderr().is_terminal() { Stdio::from(pair.theirs.try_clone()?) } else { Stdio::piped() };
    command.stdin(pair.theirs).stdout(err).stderr(OwnedFd::from(theirs));
    let mut child = command.spawn()?;
    drop(command);
    let (shown, all_shown) = channel();
    if let Some(err) = child.stdout.take() {
        streams.pump(err.into(), io::stderr(), &done)?;
    }
    streams.pump(pair.ours, io::stdout(), &shown)?;
    thread::Builder::new().spawn(move || {
        // The command's end; what it printed is shown before its session ends.
        let _ = ours.read(&mut [0]);
        let outcome = all_shown.recv_timeout(AFTER_END).unwrap_or(Ok(()));
        drop(ours);
        let _ = done.send(outcome);
    })?;
    Ok((child, streams))
}

// === impl MaskedStreams ===

impl MaskedStreams {
    /// Masks one stream in a thread of its own, which says when it has ended.
    ///
    /// # Errors
    /// The system's.
    fn pump(&mut self, from: OwnedFd, to: impl AsFd, done: &Sender<io::Result<()>>) -> io::Result<()> {
        // The stream itself, and not Rust's, which looks for line ends and writes what is behind the last one apart.
        let to = File::from(to.as_fd().try_clone_to_owned()?);
        let (masker, done) = (Masker::new(self.needles.clone()), done.clone());
        // A pipe that holds more lets the command and us take turns less often; a terminal is none.
        let _ = fcntl_setpipe_size(&from, PIECE);
        thread::Builder::new().spawn(move || {
            let _ = done.send(copy(from.into(), &to, masker));
        })?;
        self.running += 1;
        Ok(())
    }

    /// What the command printed to is as wide as our terminal is now.
    pub(super) fn resize(&self) {
        if let Some(ours) = &self.printed_to {
            resize(ours, io::stdout());
        }
    }

    /// Looks for these from now on.
    pub(super) fn mask(&self, needles: Needles) {
        self.needles.replace(needles);
    }

    /// Waits until everything is shown. Blocks; what processes that outlive the command print is not waited for long.
    ///
    /// # Errors
    /// The system's, if something was printed that could not be shown.
    pub(super) fn drain(self) -> io::Result<()> {
        let ended = (0..self.running).map_while(|_| self.ended.recv_timeout(AFTER_END).ok());
        // All are waited for, whatever becomes of one.
        ended.fold(Ok(()), Result::and)
    }
}

/// Until the command, and all that it started, prints no more. A reader that is gone has seen enough.
fn copy(mut from: File, to: &File, mut masker: Masker) -> io::Result<()> {
    let show = |out: &[u8]| match write_whole(to, out) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        shown => Ok(shown.is_ok()),
    };
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    loop {
        let wait = masker.due().map(|due| due.saturating_duration_since(Instant::now()));
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let is_silent = poll(&mut [PollFd::new(&from, PollFlags::IN)], wait.as_ref()).is_ok_and(|ready| ready == 0);
        let length = if is_silent {
            0
        } else {
            match from.read(&mut piece) {
                // A terminal that nobody has open any more gives an error.
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            }
        };
        let out = masker.push(piece.get(..length).unwrap_or_default(), Instant::now());
        // As for a command that prints itself: who does not read ends it, once the pipe is closed.
        if !show(&out)? {
            return Ok(());
        }
    }
    show(&masker.flush()).map(drop)
}
