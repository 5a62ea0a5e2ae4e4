//! One driver works on a node at a time, whatever became of the pod of the one before: it may have been deleted by force
//! while its process lives on.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two looks whether the other process has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// State, volumes and sockets are this process's alone, until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct SoleDriver(#[expect(dead_code, reason = "the lock lives as long as the open file")] File);

/// A socket in the file system, by what it is and not by its name: another process may make one of the same name.
#[derive(Debug)]
pub(super) struct OwnSocket {
    path: PathBuf,
    device: u64,
    inode: u64,
}

// === impl SoleDriver ===

impl SoleDriver {
    /// Waits until no other process has the directory; `None` if `shutdown` comes before.
    ///
    /// # Errors
    /// The system's.
    pub(super) async fn of(own: &Path, shutdown: &CancellationToken) -> io::Result<Option<Self>> {
        let file = File::create(own.join("lock"))?;
        let mut is_waiting = false;
        loop {
            match file.try_lock() {
                Ok(()) if is_waiting => info!("the other process of the driver has ended"),
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut is_waiting, true) {
                        warn!("another process of the driver works on this node: waiting for its end");
                    }
                    match shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await {
                        Some(()) => continue,
                        None => return Ok(None),
                    }
                }
            }
            return Ok(Some(Self(file)));
        }
    }
}

// === impl OwnSocket ===

impl OwnSocket {
    /// The one that this process has just made there.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// Removes it, and no other one.
    pub(super) fn remove(self) {
        let is_own = |other: &fs::Metadata| (other.dev(), other.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(|other| is_own(&other)) {
            // kubelet looks whether it is there.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_driver_waits_for_the_end_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let first = SoleDriver::of(dir.path(), &shutdown).await.unwrap().unwrap();
        let second = SoleDriver::of(dir.path(), &shutdown);
        let start = Instant::now();
        let ends = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, ends);
        assert!(second.unwrap().is_some() && (30..=31).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        let third = SoleDriver::of(dir.path(), &shutdown).await.unwrap().unwrap();
        shutdown.cancel();
        assert!(SoleDriver::of(dir.path(), &shutdown).await.unwrap().is_none(), "it is told to end while it waits");
        drop(third);
    }

    #[test]
    fn a_driver_that_ends_takes_no_others_socket_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reg.sock");
        for is_replaced in [false, true] {
            let _first = UnixListener::bind(&path).unwrap();
            let own = OwnSocket::at(&path).unwrap();
            let second = is_replaced.then(|| {
                // A second one beside it, so its inode is not given out again.
                fs::rename(&path, dir.path().join("old")).unwrap();
                UnixListener::bind(&path).unwrap()
            });
            own.remove();
            assert_eq!(path.exists(), is_replaced);
            drop(second);
        }
    }
}
