//! Which processes run with which generation: `hushpod-agent exec` leaves the application an open, locked file, the one
//! of the generation that its variables come from. A lock is seen across containers, pid namespaces and uids, goes with
//! the last process that has it, and asks nothing of the application.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::debug;

use crate::contract::RUNNING;
use crate::deliver::volume::AtomicVolume;
use crate::generation::GenerationId;

/// The locks of one volume. Clones share what is known of them.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    directory: PathBuf,
    known: Arc<Mutex<OfferedGenerations>>,
}

#[derive(Debug, Default)]
struct OfferedGenerations {
    /// What processes that start now hold.
    present: Option<GenerationId>,
    /// Later generations with the same files: who runs with the key runs with the value.
    same_as: BTreeMap<GenerationId, GenerationId>,
}

// === impl Usage ===

impl Usage {
    /// Of the volume whose files are in `live`, once they are.
    pub(super) fn new(live: &Path) -> Self {
        Self { directory: live.join(RUNNING), known: Arc::default() }
    }

    /// Lets processes that start now show that they run with the volume's present generation. `files` is where the
    /// volume is at the moment.
    pub(super) fn offer(&self, files: &Path, volume: &AtomicVolume) {
        let (Some(directory), Some(current)) = (volume.directory(), volume.current()) else { return };
        if let Err(error) = offer(&files.join(RUNNING), &directory) {
            debug!(%error, "it will not be seen who runs with this generation");
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.same_as.insert(directory.clone(), current);
        known.present = Some(directory);
    }

    /// The generations that processes run with. Entries that no process uses, or can still pick up, are removed.
    pub(super) fn generations(&self) -> BTreeSet<GenerationId> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = BTreeSet::new();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let Ok(id) = entry.file_name().into_string().map(GenerationId) else { continue };
            if is_locked(&entry.path()) {
                running.insert(known.same_as.get(&id).unwrap_or(&id).clone());
            } else if known.present.as_ref() != Some(&id) {
                known.same_as.remove(&id);
                if let Err(error) = fs::remove_file(entry.path()) {
                    debug!(%error, "a generation that nobody runs with is still listed");
                }
            }
        }
        running
    }
}

/// Whatever the umask is, everybody may lock the file.
fn offer(directory: &Path, GenerationId(id): &GenerationId) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::set_permissions(directory, Permissions::from_mode(0o755))?,
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o444).open(directory.join(id)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        opened => opened?.set_permissions(Permissions::from_mode(0o444)),
    }
}

fn is_locked(path: &Path) -> bool {
    // Closing the file unlocks it.
    File::open(path).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bundle::FileMode;
    use crate::deliver::RenderedFile;
    use crate::secret::SecretValue;

    fn ids(ids: &[&str]) -> BTreeSet<GenerationId> {
        ids.iter().map(|id| GenerationId((*id).to_owned())).collect()
    }

    /// As `exec` does it, and what it starts inherits.
    fn start(live: &Path, id: &str) -> File {
        let file = File::open(live.join(RUNNING).join(id)).unwrap();
        flock(&file, FlockOperation::NonBlockingLockShared).unwrap();
        file
    }

    #[tokio::test(start_paused = true)]
    async fn generations_are_listed_while_somebody_runs_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let live = dir.path();
        let mut volume = AtomicVolume::open(live, Duration::from_secs(1)).unwrap();
        let running = Usage::new(live);
        running.offer(live, &volume);
        assert_eq!(running.generations(), ids(&[]), "no generation, no directory, nobody");
        let deliver = async |volume: &mut AtomicVolume, id: &str, text: &str| {
            let bytes = SecretValue::new(text.as_bytes().to_vec());
            let file = RenderedFile { path: "app.env".parse().unwrap(), mode: FileMode::OWNER, bytes };
            volume.write(&GenerationId(id.to_owned()), &[file]).await.unwrap();
            running.offer(live, volume);
        };
        deliver(&mut volume, "g1", "A=1").await;
        assert_eq!(running.generations(), ids(&[]));
        let (first, probe) = (start(live, "g1"), start(live, "g1"));
        assert_eq!(running.generations(), ids(&["g1"]), "two processes, one generation");
        drop(probe);
        assert_eq!(running.generations(), ids(&["g1"]));
        deliver(&mut volume, "g2", "A=1").await;
        assert_eq!(running.generations(), ids(&["g2"]), "the same bytes");
        deliver(&mut volume, "g3", "A=3").await;
        let second = start(live, "g3");
        assert_eq!(running.generations(), ids(&["g2", "g3"]));
        // A new agent does not know what had the same bytes.
        let volume = AtomicVolume::open(live, Duration::from_secs(1)).unwrap();
        let again = Usage::new(live);
        again.offer(live, &volume);
        assert_eq!(again.generations(), ids(&["g1", "g3"]));
        drop((first, second));
        assert_eq!(again.generations(), ids(&[]));
        let left: Vec<_> = fs::read_dir(live.join(RUNNING)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["g3"], "the next process's, and no other");
        assert_eq!(fs::metadata(live.join(RUNNING).join("g3")).unwrap().permissions().mode() & 0o777, 0o444);
    }
}
