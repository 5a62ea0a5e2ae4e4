//! Who ends this program ends the stores' programs that it runs: they have process groups of their own, so a terminal's
//! Ctrl-C does not reach them.

use std::fs;
use std::io;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// What ends a program that does not listen.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// The leaders of their groups.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
static LISTENING: Once = Once::new();
/// Whether another part of this program answers signals.
static IS_ANSWERED: AtomicBool = AtomicBool::new(false);

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a program, and ends its group before this program ends by a signal.
///
/// # Errors
/// The system's.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    LISTENING.call_once(|| {
        // Without it, a program runs to its own end; that is no reason to have no login.
        let _ = listen();
    });
    // A signal in this moment waits until it is known.
    let mut running = running();
    let child = command.spawn()?;
    running.extend(leader(&child));
    Ok(child)
}

/// Its program has ended.
pub(super) fn forget(child: &Child) {
    let leader = leader(child);
    running().retain(|known| Some(*known) != leader);
}

pub(super) fn leader(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// From now on signals are answered elsewhere: by who passes them on to a command.
pub fn leave_signals() {
    IS_ANSWERED.store(true, Ordering::Relaxed);
}

/// A thread of its own hears them, whatever the others wait for.
fn listen() -> io::Result<()> {
    let ignored = fs::read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
    let heard = ENDING.map(Signal::as_raw).into_iter().filter(|signal| (ignored >> (signal - 1)) & 1 == 0);
    let mut signals = Signals::new(heard)?;
    thread::Builder::new().spawn(move || signals.forever().for_each(end))?;
    Ok(())
}

/// What the process was started to ignore, as nohup does, one bit for each (proc(5)).
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

fn end(signal: i32) {
    if IS_ANSWERED.load(Ordering::Relaxed) {
        return;
    }
    // Kept until the end: nothing more is started.
    let running = running();
    for leader in running.iter() {
        let _ = kill_process_group(*leader, Signal::KILL);
    }
    let _ = emulate_default_handler(signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_a_bit_for_each_signal() {
        for (status, expected) in [
            ("Name:\tsh\nSigIgn:\t0000000000000003\nSigCgt:\t0000000000000004\n", 3),
            ("SigIgn:\t8000000000000000\n", 1 << 63),
            ("SigIgn:\tx\n", 0),
            ("", 0),
        ] {
            assert_eq!(ignored(status), expected, "{status}");
        }
    }
}
