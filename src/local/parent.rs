//! This program as a command's parent, where somebody has to stay: to mask what it prints, and to start it anew when its
//! variables change.

use std::future::pending;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Child;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpgrp, getpid, getsid, kill_current_process_group, kill_process,
    kill_process_group, waitid,
};
use tokio::time::{Instant, sleep_until};

use super::arguments::{VariableArgs, WatchFor};
use super::error::LocalError;
use super::files::{Contents, NamedValues};
use super::followed::FollowedStores;
use super::github;
use super::mask::Needles;
use super::masked::{self, MaskedStreams};
use super::output::note;
use super::signals::{IncomingSignals, SentSignal};
use super::template::CommandTemplate;
use super::terminal::{OuterTerminal, has_terminal};
use crate::deliver::volume::{AtomicVolume, Written};
use crate::process::tell::kernel;

/// No command is started anew within this time of its last start.
const LEAST_RUN: Duration = Duration::from_secs(2);
/// After SIGKILL there is nothing to wait for but the end.
const NOT_AGAIN: Duration = Duration::from_hours(1);

/// What changes while a command runs, and what is done then.
pub(super) struct Watching {
    pub(super) stores: FollowedStores,
    pub(super) arguments: VariableArgs,
    /// Variables that stay as the shell has them.
    pub(super) keep: Vec<String>,
    pub(super) volume: Option<AtomicVolume>,
    pub(super) on_change: WatchFor,
    pub(super) grace: Duration,
    /// Whether a runner masks values, and has to be told of new ones.
    pub(super) tells_runner: bool,
}

/// A command, and what this program does for it as its parent.
pub(super) struct CommandParent<'a> {
    template: &'a CommandTemplate,
    /// The terminal that is lent to the command.
    outer: Option<OuterTerminal>,
    /// Whether the command has a process group of its own: then nobody else's signals reach it.
    is_apart: bool,
    signals: IncomingSignals,
    watching: Option<Watching>,
    /// What the command has.
    present: Contents,
    /// What it had when it was started, and may print ever after.
    at_start: NamedValues,
    child: Child,
    pid: Pid,
    streams: Option<MaskedStreams>,
    started: Instant,
    /// What the next one is to have.
    next: Option<Contents>,
    restart_at: Option<Instant>,
    /// When SIGKILL follows SIGTERM; the command is ended to be started anew.
    kill_at: Option<Instant>,
    /// Somebody else ends the command.
    is_stopping: bool,
    /// The command was stopped (^Z), and this program with it.
    is_suspended: bool,
}

/// What a parent waits for.
enum Occasion {
    Signal(SentSignal),
    Generation,
    Moment,
}

/// Names whose values are others, or are there in one of both alone.
fn changed_names(before: &NamedValues, now: &NamedValues) -> Vec<String> {
    let is_other = |name: &&String| before.get(*name) != now.get(*name);
    let mut names: Vec<_> = before.keys().chain(now.keys()).filter(is_other).cloned().collect();
    names.sort();
    names.dedup();
    names
}

/// Whether nobody would continue this program, once it is stopped: who leads a session has no shell above it.
fn is_orphaned() -> bool {
    getsid(None).is_ok_and(|session| session == getpgrp())
}

/// Without the variables that stay as the shell has them.
pub(super) fn keep(variables: &mut NamedValues, keep: &[String]) {
    variables.retain(|name, _| !keep.contains(name) || std::env::var_os(name).is_none());
}

// === impl Watching ===

impl Watching {
    /// Waits for another generation. Cancel safe.
    async fn changed(&mut self) {
        let Self { stores, volume, .. } = self;
        let settled = async {
            if let Some(volume) = volume.as_mut().filter(|volume| volume.is_settling()) {
                // What fails is tried again with the next generation.
                let _ = volume.settle().await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            _ = stores.changed() => {}
            () = settled => {}
        }
    }
}

// === impl CommandParent ===

impl<'a> CommandParent<'a> {
    /// Begins the command.
    ///
    /// # Errors
    /// The system's; the command was not begun.
    pub(super) fn begin(
        template: &'a CommandTemplate,
        present: Contents,
        masks: bool,
        watching: Option<Watching>,
    ) -> io::Result<Self> {
        // Before the command is there, so none is lost.
        let signals = IncomingSignals::listen()?;
        let outer = if masks { OuterTerminal::open()? } else { None };
        let is_apart = outer.is_some() || !has_terminal();
        let (child, streams) = start(template, &present, masks, outer.as_ref(), is_apart)?;
        let pid = Pid::from_child(&child);
        let at_start = present.all_values();
        Ok(Self {
            template,
            outer,
            is_apart,
            signals,
            watching,
            present,
            at_start,
            child,
            pid,
            streams,
            started: Instant::now(),
            next: None,
            restart_at: None,
            kill_at: None,
            is_stopping: false,
            is_suspended: false,
        })
    }

    /// Stays until the command ends; gives its exit code, or 128 and the signal that ended it.
    ///
    /// # Errors
    /// The system's, if it cannot be started anew.
    pub(super) async fn stay(mut self) -> io::Result<u8> {
        loop {
            match self.wait().await {
                Occasion::Signal(SentSignal { signal: Signal::CHILD, .. }) => {
                    if self.has_ended()? {
                        if self.kill_at.is_none() || self.is_stopping {
                            return self.end().await;
                        }
                        self.start_anew()?;
                    }
                }
                Occasion::Signal(sent) => self.hear(sent)?,
                Occasion::Generation => self.renew().await,
                Occasion::Moment => self.act(),
            }
        }
    }

    /// Cancel safe.
    async fn wait(&mut self) -> Occasion {
        let moment = self.restart_at.into_iter().chain(self.kill_at).min();
        let Self { signals, watching, .. } = self;
        tokio::select! {
            biased;
            sent = signals.next() => Occasion::Signal(sent),
            () = sleep_until(moment.unwrap_or_else(Instant::now)), if moment.is_some() => Occasion::Moment,
            () = async {
                match watching {
                    Some(watching) => watching.changed().await,
                    None => pending().await,
                }
            } => Occasion::Generation,
        }
    }

    /// Whether the command has ended; it has yet to be waited for. One that was stopped in its own terminal takes this
    /// program with it.
    fn has_ended(&mut self) -> io::Result<bool> {
        let look = |options| waitid(WaitId::Pid(self.pid), options | WaitIdOptions::NOHANG);
        if look(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?.is_some() {
            return Ok(true);
        }
        if let (Some(outer), Some(_)) = (&self.outer, look(WaitIdOptions::STOPPED)?) {
            if is_orphaned() {
                self.send(Signal::CONT);
                return Ok(false);
            }
            outer.restore();
            self.is_suspended = true;
            // All of the job, as the keys would: a shell script may stand between us and the shell.
            kill_current_process_group(Signal::TSTP)?;
        }
        Ok(false)
    }

    async fn end(mut self) -> io::Result<u8> {
        let status = self.child.wait()?;
        let mut code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        if let Some(streams) = self.streams.take() {
            let shown = tokio::task::spawn_blocking(|| streams.drain()).await.map_err(io::Error::other)?;
            if let Err(error) = shown {
                note(&format!("not all that the command printed could be written: {}", error.kind()));
                // It has not heard of that, and may say that all is well.
                code = code.max(1);
            }
        }
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }

    fn hear(&mut self, SentSignal { signal, is_from_process }: SentSignal) -> io::Result<()> {
        // What the terminal sends to the whole foreground has reached a command that belongs to it.
        let is_for_us_alone = is_from_process || self.is_apart;
        match signal {
            Signal::TSTP if self.is_suspended => return Ok(kill_process(getpid(), Signal::STOP)?),
            Signal::TSTP => {
                if is_for_us_alone {
                    self.send(signal);
                }
                // In a terminal of its own it may decide not to stop.
                if self.outer.is_none() && !is_orphaned() {
                    kill_process(getpid(), Signal::STOP)?;
                }
                return Ok(());
            }
            Signal::CONT => {
                self.is_suspended = false;
                if let Some(outer) = &self.outer {
                    outer.resume();
                }
            }
            Signal::WINCH => {
                if let Some(outer) = &self.outer {
                    // The kernel tells the command.
                    outer.resize();
                    return Ok(());
                }
                if let Some(streams) = &self.streams {
                    streams.resize();
                }
            }
            Signal::TERM | Signal::INT | Signal::QUIT | Signal::HUP => {
                self.is_stopping |= is_from_process || self.kill_at.is_some();
            }
            _ => {}
        }
        if is_for_us_alone {
            self.send(signal);
        }
        Ok(())
    }

    /// To the command alone, which is not waited for yet: its pid is nobody else's. Who leads its session passes it on.
    fn send(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }

    /// To the command and what it has started, as far as that is known.
    fn send_to_all(&self, signal: Signal) {
        match &self.outer {
            None if self.is_apart => {
                let _ = kill_process_group(self.pid, signal);
            }
            Some(outer) if signal == Signal::KILL => {
                outer.kill();
                self.send(signal);
            }
            _ => self.send(signal),
        }
    }

    /// Takes in another generation: files at once, variables by a restart.
    async fn renew(&mut self) {
        let Some(watching) = &mut self.watching else { return };
        let contents = watching.stores.contents(&watching.arguments, &self.present.paths);
        let id = watching.stores.last().generation.id.clone();
        let mut contents = match contents {
            Ok(contents) => contents,
            Err(error) => return note(&format!("generation {id} cannot be used, so all stays as it is: {error}")),
        };
        keep(&mut contents.variables, &watching.keep);
        if watching.tells_runner {
            github::tell_masks(&contents.all_values());
        }
        if let Err(error) = self.mask(&contents) {
            return note(&format!("generation {id} cannot be masked, so all stays as it is: {error}"));
        }
        let Some(watching) = &mut self.watching else { return };
        let mut has_other_files = false;
        if let Some(volume) = &mut watching.volume {
            match volume.write(&id, &contents.files).await {
                Ok(written) => has_other_files = written == Written::Swapped,
                Err(error) => return note(&format!("generation {id} cannot be written: {error}")),
            }
        }
        self.present.paths.clone_from(&contents.paths);
        let names = changed_names(&self.present.variables, &contents.variables);
        match watching.on_change {
            WatchFor::Restart if !names.is_empty() => {
                self.next = Some(contents);
                if self.kill_at.is_none() {
                    let earliest = self.started + LEAST_RUN;
                    self.restart_at.get_or_insert_with(|| earliest.max(Instant::now()));
                }
                return;
            }
            // Back to the variables that it has.
            WatchFor::Restart => (self.next, self.restart_at) = (None, None),
            WatchFor::Signal(signal) => {
                if has_other_files {
                    self.send(kernel(signal));
                }
                let Some(watching) = &mut self.watching else { return };
                if !names.is_empty() {
                    let names = names.join(", ");
                    note(&format!("generation {id} has other variables, which only a new start takes: {names}"));
                }
                // What was told is not told again.
                self.present = contents;
                watching.stores.delivered(&id);
                return;
            }
        }
        watching.stores.delivered(&id);
    }

    /// The command that runs may print what comes now, what it has, and what it was started with.
    fn mask(&self, coming: &Contents) -> Result<(), LocalError> {
        let Some(streams) = &self.streams else { return Ok(()) };
        let (coming, present) = (coming.all_values(), self.present.all_values());
        let all = self.at_start.iter().chain(&present).chain(&coming);
        streams.mask(Needles::of(all)?.0);
        Ok(())
    }

    /// What is due.
    fn act(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = Some(now + NOT_AGAIN);
            self.send_to_all(Signal::KILL);
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            let grace = self.watching.as_ref().map(|watching| watching.grace).unwrap_or_default();
            self.kill_at = Some(now + grace);
            self.send_to_all(Signal::TERM);
            // One that is stopped would not hear of it.
            self.send_to_all(Signal::CONT);
        }
    }

    fn start_anew(&mut self) -> io::Result<()> {
        if self.is_apart && self.outer.is_none() {
            // What it has started and left: the group is still its own, since it was not waited for.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        self.child.wait()?;
        self.kill_at = None;
        let mut names = Vec::new();
        if let Some(next) = self.next.take() {
            names = changed_names(&self.present.variables, &next.variables);
            self.present = next;
        }
        let (child, streams) =
            start(self.template, &self.present, self.streams.is_some(), self.outer.as_ref(), self.is_apart)?;
        self.at_start = self.present.all_values();
        (self.pid, self.child, self.streams, self.started) = (Pid::from_child(&child), child, streams, Instant::now());
        if let Some(watching) = &mut self.watching {
            let id = watching.stores.last().generation.id.clone();
            note(&format!("restarted for generation {id} ({})", names.join(", ")));
            watching.stores.delivered(&id);
        }
        Ok(())
    }
}

fn start(
    template: &CommandTemplate,
    present: &Contents,
    masks: bool,
    outer: Option<&OuterTerminal>,
    is_apart: bool,
) -> io::Result<(Child, Option<MaskedStreams>)> {
    if masks {
        let (needles, _) = Needles::of(&present.all_values()).map_err(|error| io::Error::other(error.problem))?;
        let (child, streams) = masked::begin(template, &present.variables, needles, outer, is_apart)?;
        return Ok((child, Some(streams)));
    }
    let mut command = template.command(&present.variables);
    if is_apart {
        command.process_group(0);
    }
    Ok((command.spawn()?, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretValue;

    #[test]
    fn names_whose_values_are_others_are_told() {
        let values = |pairs: &[(&str, &str)]| -> NamedValues {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), SecretValue::from(*value))).collect()
        };
        let before = values(&[("A", "1"), ("B", "1"), ("C", "1")]);
        for (now, names) in [
            (&[("A", "1"), ("B", "1"), ("C", "1")][..], &[][..]),
            (&[("A", "2"), ("B", "1"), ("C", "1")], &["A"]),
            (&[("A", "1"), ("C", "1"), ("D", "")], &["B", "D"]),
        ] {
            assert_eq!(changed_names(&before, &values(now)), names);
        }
    }
}
