//! The hand-over file: logins, leases and their values, from the init container to the sidecar, and from a sidecar to
//! itself after a restart. It lies in a memory volume that only the agent's containers mount, mode 0600.
//!
//! All buffers are wiped.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde::Serialize;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{HandOver, HandedRetiredLease};

mod document;

use document::HandOverDocument;
pub use document::{PersistedState, StartedWith};

/// The file in the state volume.
pub const FILE: &str = "hand-over.json";
const NEW: &str = ".hand-over.json.new";
/// The state volume has 1 MiB, and for a moment the old file lies beside the new one.
const MAX_BYTES: usize = 480 * 1024;

/// The file, and what is known to stand in it.
#[derive(Debug)]
pub struct HandOverFile {
    dir: PathBuf,
    saved: Option<digest::Digest>,
    too_large: bool,
}

/// Why the hand-over was not written. The next process logs in and takes leases anew; this one is not hampered.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The state volume fails.
    #[error("cannot write {}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Logins and names alone do not fit.
    #[error("the hand-over has {bytes} bytes even without values, and {MAX_BYTES} is the most that fits")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// What the next process finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// Everything.
    Whole,
    /// No leased values, which do not fit: it takes leases anew.
    WithoutValues,
    /// Nothing: there is no state volume.
    Nothing,
}

// === impl HandOverFile ===

impl HandOverFile {
    /// The file in this directory, which need not exist: a lone init container has nobody to hand over to.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), saved: None, too_large: false }
    }

    /// What an earlier process left. What cannot be used is logged and passed over.
    #[must_use]
    pub fn load(&mut self) -> Option<PersistedState> {
        let path = self.dir.join(FILE);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(%error, path = %path.display(), "the hand-over cannot be read: logging in anew");
                return None;
            }
        };
        match HandOverDocument::parse(&bytes) {
            Ok(document) => {
                self.saved = Some(fingerprint(&bytes));
                Some(document.into_state())
            }
            Err(problem) => {
                let problem = problem.to_string();
                warn!(problem, path = %path.display(), "the hand-over cannot be used: logging in anew");
                None
            }
        }
    }

    /// Writes it down, if it differs from what stands there.
    ///
    /// # Errors
    /// [`HandOverError`]; what stood there still does.
    pub fn save(&mut self, state: PersistedState) -> Result<Saved, HandOverError> {
        if !self.dir.is_dir() {
            return Ok(Saved::Nothing);
        }
        let whole = HandOverDocument::new(state.clone());
        let size = size_of(&whole);
        let saved = if size <= MAX_BYTES { Saved::Whole } else { Saved::WithoutValues };
        let bytes = if size <= MAX_BYTES {
            self.too_large = false;
            encode(&whole, size)
        } else {
            if !std::mem::replace(&mut self.too_large, true) {
                warn!(
                    bytes = size,
                    limit = MAX_BYTES,
                    "the leased values do not fit into the hand-over: after a restart, leases are replaced"
                );
            }
            let logins = HandOverDocument::new(PersistedState { hand_over: without_values(state.hand_over), ..state });
            let size = size_of(&logins);
            if size > MAX_BYTES {
                return Err(HandOverError::TooLarge { bytes: size });
            }
            encode(&logins, size)
        };
        let present = fingerprint(&bytes);
        if self.saved.as_ref().is_some_and(|saved| saved.as_ref() == present.as_ref()) {
            return Ok(saved);
        }
        self.write(&bytes)?;
        self.saved = Some(present);
        Ok(saved)
    }

    /// Takes it away: what it names is about to be revoked.
    pub fn discard(&mut self) {
        self.saved = None;
        let path = self.dir.join(FILE);
        match fs::remove_file(&path) {
            Ok(()) => info!("the hand-over is withdrawn before logins and leases are revoked"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(%error, path = %path.display(), "the hand-over cannot be withdrawn"),
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<(), HandOverError> {
        let (path, new) = (self.dir.join(FILE), self.dir.join(NEW));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| HandOverError::Io { path, source }
        };
        // One that a killed process left; its mode would stay.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&new)(error)),
            _ => {}
        }
        let write = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?.write_all(bytes);
        write().map_err(|error| {
            // A full volume gets its room back. The first error is the one to tell.
            drop(fs::remove_file(&new));
            failed(&new)(error)
        })?;
        fs::rename(&new, &path).map_err(failed(&path))
    }
}

/// The same, but for values: credentials that the next process cannot go on with are left for it to revoke, once those
/// that replace them are delivered.
fn without_values(mut hand_over: HandOver) -> HandOver {
    for answer in hand_over.leased.drain(..) {
        let Some(lease) = answer.lease else { continue };
        hand_over.retired.push(HandedRetiredLease {
            provider: answer.request.provider,
            lease: lease.id,
            ends: answer.ends,
            revoke_at: None,
        });
    }
    hand_over
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let size = usize::try_from(fs::metadata(path)?.len()).unwrap_or(usize::MAX);
    if size > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // Of its final size from the start, since a growing buffer leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; size]);
    io::Read::read_exact(&mut fs::File::open(path)?, &mut bytes)?;
    Ok(bytes)
}

fn size_of(document: &impl Serialize) -> usize {
    let mut counter = ByteCounter(0);
    // A counter takes everything, and every key is text.
    drop(serde_json::to_writer(&mut counter, document));
    counter.0
}

fn encode(document: &impl Serialize, size: usize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    drop(serde_json::to_writer(&mut *bytes, document));
    bytes
}

fn fingerprint(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

struct ByteCounter(usize);

impl Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
