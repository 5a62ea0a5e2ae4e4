//! What is logged while a test listens.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::dispatcher::DefaultGuard;
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Level};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

/// The lines so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// Listens, on the thread that made it, until it is dropped.
pub(crate) struct Listening {
    _guard: DefaultGuard,
    _second: Dispatch,
}

// === impl Log ===

impl Log {
    /// What this thread logs from now on, from `level` up; of others' code what our programs let through.
    pub(crate) fn listen(level: Level) -> (Self, Listening) {
        let log = Self::default();
        let targets = Targets::new().with_default(level.min(Level::WARN)).with_target("hushpod", level);
        let lines = tracing_subscriber::fmt::layer().with_writer(log.clone()).with_ansi(false);
        let subscriber = Registry::default().with(targets).with(lines);
        // With a single subscriber, tracing would ask the subscriber of whichever thread comes to an event first, and
        // remember what it says: other tests have none.
        let second = Dispatch::new(NoSubscriber::default());
        (log, Listening { _guard: tracing::subscriber::set_default(subscriber), _second: second })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
