//! SIGTERM and SIGINT: the first asks for an orderly end, the second does not ask.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Turns the first SIGTERM or SIGINT into a cancelled token.
#[derive(Debug)]
pub struct Shutdown {
    token: CancellationToken,
}

// === impl Shutdown ===

impl Shutdown {
    /// Listens from now on, in a task of the current runtime. A second signal ends the process at once, with the status
    /// that a shell gives the signal: 143 or 130. Other signals are not touched.
    ///
    /// # Errors
    /// If the signals cannot be listened to.
    pub fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let token = CancellationToken::new();
        tokio::spawn(watch(terminate, interrupt, token.clone()));
        Ok(Self { token })
    }

    /// Cancelled when the process should end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

async fn watch(mut terminate: Signal, mut interrupt: Signal, token: CancellationToken) {
    loop {
        let (name, status) = tokio::select! {
            _ = terminate.recv() => ("SIGTERM", 128 + 15),
            _ = interrupt.recv() => ("SIGINT", 128 + 2),
        };
        if token.is_cancelled() {
            tracing::warn!(signal = name, "second signal: ending at once");
            std::process::exit(status);
        }
        tracing::info!(signal = name, "ending");
        token.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::process::Stdio;

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::process::testing;

    fn say(word: &str) {
        let mut out = std::io::stdout();
        writeln!(out, "{word}").and_then(|()| out.flush()).unwrap();
    }

    #[tokio::test]
    #[ignore = "run by the_first_signal_asks_and_the_second_ends"]
    async fn in_a_process_of_its_own() {
        let shutdown = Shutdown::listen().unwrap();
        say("listening");
        shutdown.token().cancelled().await;
        say("asked");
        std::future::pending::<()>().await;
    }

    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        for (first, second, status) in
            [(Signal::TERM, Signal::TERM, 143), (Signal::INT, Signal::INT, 130), (Signal::TERM, Signal::INT, 130)]
        {
            let mut command = testing::rerun("process::shutdown::tests::in_a_process_of_its_own");
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let pid = Pid::from_child(&child);
            let mut out = BufReader::new(child.stdout.take().unwrap());
            let mut heard = |word: &str| {
                let mut lines = out.by_ref().lines().map(Result::unwrap);
                assert!(lines.any(|line| line.contains(word)), "the child never said {word:?}");
            };
            heard("listening");
            kill_process(pid, first).unwrap();
            heard("asked");
            kill_process(pid, second).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(status), "{first:?}, {second:?}");
            let mut rest = String::new();
            out.read_to_string(&mut rest).unwrap();
        }
    }
}
