//! Every binary's chores as a process: logs, signals, watched directories, hardening, orphans.

use rustix::process::Signal;

pub mod chance;
pub mod confine;
pub mod harden;
pub mod reap;
pub mod shutdown;
pub mod telemetry;
pub mod tell;
#[cfg(feature = "cluster")]
pub mod terminal;
pub mod watch;

#[cfg(test)]
pub(crate) mod testing;

/// What a parent that stays passes on to the application. What the kernel sends for a fault, and SIGPIPE, are the
/// receiver's own.
pub const PASSED_ON: [Signal; 10] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::TERM,
    Signal::ALARM,
    Signal::CONT,
    Signal::TSTP,
    Signal::WINCH,
];
