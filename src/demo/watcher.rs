//! Reads a demo's files as an application would, and looks for a mixture.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::deliver::volume::read_set;

/// What the annotations ask for, as far as it carries the value.
const FILES: usize = 5;

/// Reads the whole set over and over, as many replicas of an application would.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<(u64, u64)>,
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn start(live: PathBuf) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::task::spawn_blocking(move || {
            let (mut reads, mut torn) = (0, 0);
            while !stopped.is_cancelled() {
                reads += 1;
                torn += u64::from(!is_whole(&live));
            }
            (reads, torn)
        });
        Self { stop, task }
    }

    /// Reads, and how many of them saw a mixture.
    pub(super) async fn stop(mut self) -> (u64, u64) {
        self.stop.cancel();
        (&mut self.task).await.unwrap_or_default()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // A demo that breaks off must not wait for a thread that reads for ever.
        self.stop.cancel();
    }
}

/// Whether one look at the volume finds all files, and one value in them.
pub(super) fn is_whole(live: &Path) -> bool {
    let Ok(files) = read_set(live) else { return false };
    let values = files.iter().filter_map(|(_, value)| {
        let text = value.expose_str()?;
        let begin = text.find("demo-")?;
        Some(text.get(begin..)?.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>())
    });
    let values: Vec<_> = values.collect();
    values.len() == FILES && values.iter().all(|value| Some(value) == values.first())
}
