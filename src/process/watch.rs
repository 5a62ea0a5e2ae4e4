//! Watching a directory for changes of the files in it.
//!
//! The directory, not its files: kubelet and we replace files by renaming a symlink beside them, which a watch on a file
//! never sees (kubernetes#111947).

use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// A change is over when nothing happened for this long…
const QUIET: Duration = Duration::from_millis(10);
/// …or, where something always happens, after this.
const LONGEST_BURST: Duration = Duration::from_millis(100);
/// Some overlay and CSI mounts lose events, so the directory is looked at anyway.
const LOOK_ANYWAY: Duration = Duration::from_mins(1);
/// While no events can come: the directory is away, or the kernel gives us no watch.
const LOOK_WITHOUT_EVENTS: Duration = Duration::from_secs(2);

/// A watched directory.
#[derive(Debug)]
pub struct Watch {
    dir: PathBuf,
    /// `None` if the kernel has no notifications left for us.
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of the directory that `watcher` watches.
    armed: Option<(u64, u64)>,
    woken: Arc<Notify>,
    /// Something happened that nobody was told yet. Kept here, so a cancelled `changed` loses nothing.
    is_pending: bool,
    fingerprint: u64,
    next_look: Instant,
    /// The first wait has yet to ask the kernel for events.
    is_asleep: bool,
}

/// A directory that cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {dir:?}: {source}; it must be a directory that this process may read")]
pub struct WatchError {
    dir: PathBuf,
    source: io::Error,
}

// === impl Watch ===

impl Watch {
    /// Watches `dir` from now on: its entries, not what is in directories below it.
    ///
    /// Where the kernel refuses (`fs.inotify.max_user_instances` counts all processes of a uid on the node), the
    /// directory is looked at every two seconds instead, and a warning says so.
    ///
    /// # Errors
    /// [`WatchError`] if there is no such directory.
    pub fn directory(dir: &Path) -> Result<Self, WatchError> {
        let mut watch = Self::from_first_wait(dir)?;
        watch.wake();
        Ok(watch)
    }

    /// The same, for what may never be waited for: events are asked for by the first [`Self::changed`], which compares with
    /// what is there now. A thread and a watch cost little to have, but the kernel takes up to 20 ms to close one.
    ///
    /// What is written in place until then, as long as before and in one tick of the kernel's clock (10 ms at most) with the
    /// write before it, is not told.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn from_first_wait(dir: &Path) -> Result<Self, WatchError> {
        if let Err(source) = fs::read_dir(dir) {
            return Err(WatchError { dir: dir.to_owned(), source });
        }
        Ok(Self {
            dir: dir.to_owned(),
            watcher: None,
            armed: None,
            woken: Arc::new(Notify::new()),
            is_pending: false,
            fingerprint: fingerprint(dir),
            next_look: Instant::now(),
            is_asleep: true,
        })
    }

    /// Asks for events; what changed before is told.
    fn wake(&mut self) {
        self.is_asleep = false;
        let waker = Arc::clone(&self.woken);
        let on_event = move |event: notify::Result<Event>| {
            // An error may mean lost events, so it wakes too.
            if event.as_ref().map_or(true, is_change) {
                waker.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(on_event);
        self.watcher = watcher.inspect_err(|error| warn_without_events(&self.dir, error)).ok();
        self.look_for_change();
    }

    /// Completes when something in the directory may have changed since the last time, or since the watch began; a burst
    /// of changes counts once. The directory itself may be replaced or be away for a while. Cancel safe.
    pub async fn changed(&mut self) {
        if self.is_asleep {
            self.wake();
        }
        while !self.is_pending {
            tokio::select! {
                () = self.woken.notified() => self.is_pending = true,
                () = sleep_until(self.next_look) => self.look_for_change(),
            }
        }
        let longest = Instant::now() + LONGEST_BURST;
        while Instant::now() < longest {
            let quiet = (Instant::now() + QUIET).min(longest);
            if timeout_at(quiet, self.woken.notified()).await.is_err() {
                break;
            }
        }
        self.look();
        self.is_pending = false;
    }

    fn look_for_change(&mut self) {
        let before = self.fingerprint;
        self.look();
        self.is_pending = self.fingerprint != before;
    }

    /// Takes the present state for known, and watches the directory that has the name now.
    fn look(&mut self) {
        self.arm();
        self.fingerprint = fingerprint(&self.dir);
        let pause = if self.armed.is_some() { LOOK_ANYWAY } else { LOOK_WITHOUT_EVENTS };
        self.next_look = Instant::now() + pause;
    }

    fn arm(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let there = fs::metadata(&self.dir).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if there == self.armed {
            return;
        }
        if self.armed.take().is_some() {
            // Fails if the directory is gone, and its watch with it.
            let _ = watcher.unwatch(&self.dir);
        }
        if there.is_some() {
            match watcher.watch(&self.dir, RecursiveMode::NonRecursive) {
                Ok(()) => self.armed = there,
                Err(error) if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) => {
                    warn_without_events(&self.dir, &error);
                    self.watcher = None;
                }
                // It went away just now: the next look tries again.
                Err(error) => tracing::debug!(dir = %self.dir.display(), %error, "not watched yet"),
            }
        }
    }
}

fn warn_without_events(dir: &Path, error: &notify::Error) {
    tracing::warn!(
        dir = %dir.display(),
        %error,
        "no file notifications, looking every {} s: raise fs.inotify.max_user_instances and max_user_watches",
        LOOK_WITHOUT_EVENTS.as_secs()
    );
}

/// Whether an event can mean other contents. Opening and reading cannot: else our own reading would wake us for ever.
fn is_change(event: &Event) -> bool {
    !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

/// The directory, and what each name in it leads to. The order in which the names are listed does not matter.
fn fingerprint(dir: &Path) -> u64 {
    fn hash(name: &Path, metadata: Option<&Metadata>) -> u64 {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let parts =
            metadata.map(|m| (m.dev(), m.ino(), m.len(), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec())));
        parts.hash(&mut hasher);
        hasher.finish()
    }
    let own = hash(dir, fs::metadata(dir).ok().as_ref());
    let Ok(entries) = fs::read_dir(dir) else { return own };
    entries.flatten().fold(own, |sum, entry| {
        let path = entry.path();
        sum.wrapping_add(hash(&path, fs::metadata(&path).ok().as_ref()))
    })
}

#[cfg(test)]
mod tests;
