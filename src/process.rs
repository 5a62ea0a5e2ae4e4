//! Every binary's chores as a process: logs, signals, watched directories, hardening, orphans.

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
