//! Signals that this program gets while a command is its child, and where they come from.

use std::io;
use std::thread;

use rustix::process::Signal;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use tokio::sync::mpsc::{Receiver, channel};

use crate::process::PASSED_ON;
use crate::provider::auth::tool::leave_signals;

/// Most signals that wait to be heard; the thread that catches them waits then.
const WAITING: usize = 64;

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentSignal {
    pub(super) signal: Signal,
    /// Whether a process sent it to this one; else the terminal did, and to the whole foreground.
    pub(super) is_from_process: bool,
}

/// Signals, in the order in which they came.
#[derive(Debug)]
pub(super) struct IncomingSignals(Receiver<SentSignal>);

// === impl IncomingSignals ===

impl IncomingSignals {
    /// Listens from now on, for as long as this process is there.
    ///
    /// # Errors
    /// If the system forbids it.
    pub(super) fn listen() -> io::Result<Self> {
        leave_signals();
        // What a command hears of, and that a child ended or stopped.
        let heard = || PASSED_ON.into_iter().chain([Signal::CHILD]);
        let mut signals = SignalsInfo::<WithOrigin>::new(heard().map(Signal::as_raw))?;
        let (sender, receiver) = channel(WAITING);
        thread::Builder::new().spawn(move || {
            for origin in signals.forever() {
                let Some(signal) = heard().find(|signal| signal.as_raw() == origin.signal) else { continue };
                let is_from_process = matches!(origin.cause, Cause::Sent(_));
                if sender.blocking_send(SentSignal { signal, is_from_process }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self(receiver))
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> SentSignal {
        match self.0.recv().await {
            Some(sent) => sent,
            // The thread ends with the process.
            None => std::future::pending().await,
        }
    }
}
