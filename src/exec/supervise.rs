//! The parent that stays where an application is to hear of changes: it passes signals on and the exit code back, waits
//! for orphans as PID 1 must, and watches for a new generation. One thread, which waits for nothing but in one place,
//! and no value kept.

use std::hash::RandomState;
use std::io::{self, IsTerminal, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::arguments::CommandLine;
use super::failure::{ExecError, say, terminate};
use super::notify::Notifications;
use super::read::{self, ReadVariables, StoredGeneration};
use crate::options::OnChange;
use crate::process::PASSED_ON;
use crate::process::chance::at_random;
use crate::process::harden::harden;
use crate::process::tell::kernel;

/// Ended for a change, as sysexits(3) says "try again": under any restart policy but Never kubelet does.
const RESTARTED: u8 = 75;
/// Some mounts lose events, so the volume is looked at anyway …
const LOOK_ANYWAY: Duration = Duration::from_mins(1);
/// … and more often where the kernel gives us none.
const LOOK_WITHOUT_EVENTS: Duration = Duration::from_secs(2);

/// What a terminal sends to the whole foreground, the application included.
const FROM_TERMINALS: [Signal; 4] = [Signal::INT, Signal::QUIT, Signal::TSTP, Signal::WINCH];

/// Runs the application as a child until it ends; gives the exit code.
pub(super) fn supervise(
    arguments: &CommandLine,
    reading: ReadVariables,
    mut command: Command,
) -> Result<u8, ExecError> {
    let key = RandomState::new();
    let fingerprint = reading.fingerprint(&key);
    let Some(started) = reading.origin else {
        return Err(
            io::Error::other("--on-change and --notify need files of hushpod's volume, which has generations").into()
        );
    };
    // Before the child is there, so none is lost.
    let signals = Signals::listen()?;
    let events = watch(&started.files);
    let child = spawn(&mut command).map_err(|error| ExecError::run(&arguments.program, &error))?;
    drop((reading.variables, command));
    // After the child is there: it is the application's to decide about its own core dumps.
    harden();
    let supervisor = Supervisor {
        arguments,
        key,
        fingerprint,
        seen: started.clone(),
        started,
        child,
        signals,
        events,
        notifications: Notifications::new(&arguments.notify),
        is_terminal: io::stdin().is_terminal(),
        next_look: Instant::now(),
        due: None,
        kill_at: None,
        is_stopped: false,
    };
    Ok(supervisor.run()?)
}

/// It is waited for by its pid, together with all orphans.
fn spawn(command: &mut Command) -> io::Result<Pid> {
    Ok(Pid::from_child(&command.spawn()?))
}

struct Supervisor<'a> {
    arguments: &'a CommandLine,
    key: RandomState,
    /// Of the variables that the application has.
    fingerprint: u64,
    /// The generation that it was started with.
    started: StoredGeneration,
    /// The generation that was looked at last.
    seen: StoredGeneration,
    child: Pid,
    signals: Signals,
    events: Option<OwnedFd>,
    notifications: Notifications<'a>,
    is_terminal: bool,
    next_look: Instant,
    /// When the application is told of the change, or ended for it.
    due: Option<Instant>,
    /// When SIGKILL follows SIGTERM; the application was ended for a change.
    kill_at: Option<Instant>,
    /// Somebody else ends the container.
    is_stopped: bool,
}

// === impl Supervisor ===

impl Supervisor<'_> {
    fn run(mut self) -> io::Result<u8> {
        loop {
            for signal in self.signals.take() {
                self.pass_on(signal);
            }
            if let Some(status) = self.reap() {
                return Ok(self.ended(status));
            }
            let now = Instant::now();
            if now >= self.next_look {
                self.look(now);
            }
            if self.due.is_some_and(|due| now >= due) {
                self.act(now);
            }
            if self.kill_at.is_some_and(|at| now >= at) {
                self.send(Signal::KILL);
            }
            self.notifications.go_on(now).iter().for_each(|line| note(line));
            self.wait(now)?;
        }
    }

    /// Until a signal, an event, or the next moment at which something is to be done.
    fn wait(&mut self, now: Instant) -> io::Result<()> {
        let moments = [Some(self.next_look), self.due, self.kill_at, self.notifications.next()];
        let next = moments.into_iter().flatten().min().unwrap_or(now);
        // After SIGKILL there is nothing to wait for but the end.
        let pause = next.saturating_duration_since(now).max(Duration::from_millis(1));
        let timeout = Timespec::try_from(pause).ok();
        let mut descriptors = vec![PollFd::new(&self.signals.woken, PollFlags::IN)];
        if let Some(events) = &self.events {
            descriptors.push(PollFd::new(events, PollFlags::IN));
        }
        descriptors.extend(self.notifications.sockets());
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if self.events.as_ref().is_some_and(has_events) {
            self.next_look = now;
        }
        Ok(())
    }

    fn pass_on(&mut self, signal: Signal) {
        if self.is_terminal && FROM_TERMINALS.contains(&signal) {
            return;
        }
        if signal == Signal::TERM {
            self.is_stopped = true;
            self.notifications.give_up();
        }
        self.send(signal);
    }

    /// To a child that is not waited for yet: its pid is nobody else's.
    fn send(&self, signal: Signal) {
        let _ = kill_process(self.child, signal);
    }

    /// Waits for a child that ended; gives the application's status.
    fn reap(&self) -> Option<WaitStatus> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.child {
                return Some(status);
            }
        }
        None
    }

    fn ended(&self, status: WaitStatus) -> u8 {
        if self.kill_at.is_none() || self.is_stopped {
            let signalled = status.terminating_signal().map(|signal| 128 + signal);
            return status.exit_status().or(signalled).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
        }
        let text = format!("restarted for generation {} (ran with {})", self.seen.generation, self.started.generation);
        note(&text);
        let _ = terminate(&self.arguments.termination_log, &text);
        RESTARTED
    }

    /// Whether there is another generation, and whether it matters.
    fn look(&mut self, now: Instant) {
        self.next_look = now + if self.events.is_some() { LOOK_ANYWAY } else { LOOK_WITHOUT_EVENTS };
        if self.seen.is_present() {
            return;
        }
        let Some(present) = read::present(&self.started.files) else { return };
        let id = present.generation.clone();
        self.seen = present;
        let matters = self.matters(&id);
        if !matters {
            // Back to the variables that it has, or another file of the volume: nothing that it would notice.
            if self.due.take().is_some() {
                note(&format!("generation {id} has the variables that the application runs with: it runs on"));
            }
        } else if self.due.is_none() && self.kill_at.is_none() && !self.is_stopped {
            let pause = at_random(self.arguments.jitter);
            note(&format!("generation {id} is there: {} in {} s", self.arguments.on_change, pause.as_secs()));
            self.due = Some(now + pause);
        }
        let restarts = self.arguments.on_change == OnChange::Restart && self.due.is_some();
        if restarts || self.kill_at.is_some() || self.is_stopped {
            // Who starts anew reads everything, and who ends needs nothing.
            self.notifications.give_up();
        } else {
            self.notifications.announce(&id, now);
        }
    }

    /// Whether the application is ended or signalled for a generation.
    fn matters(&self, id: &str) -> bool {
        match self.arguments.on_change {
            OnChange::Restart => match read::read(&self.arguments.sources, &self.arguments.keep) {
                Ok(reading) => reading.fingerprint(&self.key) != self.fingerprint,
                Err(error) => {
                    note(&format!("generation {id} makes no variables, so the application runs on: {error}"));
                    false
                }
            },
            OnChange::Signal(_) => true,
            OnChange::RestartAll | OnChange::None => false,
        }
    }

    fn act(&mut self, now: Instant) {
        self.due = None;
        match self.arguments.on_change {
            _ if self.is_stopped => {}
            OnChange::Restart => {
                self.send(Signal::TERM);
                self.kill_at = Some(now + self.arguments.grace);
            }
            OnChange::Signal(signal) => self.send(kernel(signal)),
            OnChange::RestartAll | OnChange::None => {}
        }
    }
}

/// A line in the application's log, since a container has one.
fn note(text: &str) {
    say(&mut io::stderr(), &format!("hushpod-agent exec: {text}\n"));
}

/// `None` where the kernel has no watches left for this uid: then the volume is looked at more often.
fn watch(files: &Path) -> Option<OwnedFd> {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&events, files, inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE).ok()?;
    Some(events)
}

/// Takes all events there are; says whether there was one.
fn has_events(events: &OwnedFd) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut reader = inotify::Reader::new(events.as_fd(), &mut buffer);
    let mut found = false;
    while reader.next().is_ok() {
        found = true;
    }
    found
}

/// Signals that came, without a thread to wait for them.
struct Signals {
    woken: UnixStream,
    came: Vec<(Signal, Arc<AtomicBool>)>,
}

// === impl Signals ===

impl Signals {
    fn listen() -> io::Result<Self> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let mut came = Vec::with_capacity(PASSED_ON.len());
        for signal in PASSED_ON {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag first: the thread that is woken must find it.
            signal_hook::flag::register(signal.as_raw(), Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(signal.as_raw(), waker.try_clone()?)?;
            came.push((signal, flag));
        }
        signal_hook::low_level::pipe::register(Signal::CHILD.as_raw(), waker)?;
        Ok(Self { woken, came })
    }

    /// Those that came since the last time.
    fn take(&mut self) -> Vec<Signal> {
        let mut buffer = [0; 64];
        while self.woken.read(&mut buffer).is_ok_and(|read| read > 0) {}
        self.came.iter().filter(|(_, flag)| flag.swap(false, Ordering::SeqCst)).map(|(signal, _)| *signal).collect()
    }
}
