//! The volume: one set of files, replaced as one.
//!
//! kubelet's `AtomicWriter` protocol (`pkg/volume/util/atomic_writer.go`): files live in a generation's directory, the
//! symlink `..data` points at it, and every top-level name is a symlink through `..data`, so renaming a new link
//! over `..data` replaces all files at once. Two differences: the previous generation stays for a grace period, so
//! readers that resolved `..data` finish and the way back is one rename; and links are made before they are needed.
//!
//! ```text
//! db.json    -> ..data/db.json
//! ..data     -> ..4f1c          the one atomic step: rename(2) over this link
//! ..4f1c/db.json                the present generation
//! ..93ab/db.json                the previous one, until the grace period is over
//! ```
//!
//! Everything below the volume is reached through one directory handle, so the volume may be moved while it is open:
//! the agent moves it into place when the first generation is complete.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::time::{Instant, sleep_until};

use crate::bundle::VolumePath;
use crate::contract::{COUNTER, DATA, OWN_PREFIX, RUNNING};
use crate::deliver::{Owner, RenderedFile};
use crate::generation::GenerationId;
use crate::secret::SecretValue;

mod error;
mod tree;

pub use error::VolumeError;
use tree::TreeError;

/// A link about to be renamed over another one.
const LINK_TMP: &str = "..link_tmp";
/// A generation being written. Its name is not a generation's, so a crash never leaves half of one under an id.
const WRITING: &str = "..writing_tmp";
/// A generation being removed, for the same reason.
const REMOVED: &str = "..removed_tmp";

/// A directory whose files change all at once or not at all.
#[derive(Debug)]
pub struct AtomicVolume {
    root: OwnedFd,
    grace: Duration,
    owner: Owner,
    present: Option<Stored>,
    kept: Option<Stored>,
    /// When `present` became visible: earlier than this nobody resolved it, later nobody resolved `kept`.
    swapped: Option<Instant>,
}

/// A generation on disk.
#[derive(Debug, Clone)]
struct Stored {
    name: String,
    id: GenerationId,
    /// A later generation with the same files, which needs no directory of its own.
    same_as: Option<GenerationId>,
}

/// What [`AtomicVolume::write`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Readers see the new files.
    Swapped,
    /// The files were already there, with these bytes and modes: nothing happened.
    Unchanged,
}

/// Reads every file of the present generation, as an application should: `..data` is resolved once, so all files
/// are of one generation. Paths are relative to the volume and sorted.
///
/// # Errors
/// `NotFound` before the first generation, or if reading took longer than the grace period and the generation is gone.
pub fn read_set(dir: &Path) -> io::Result<Vec<(String, SecretValue)>> {
    let data = rustix::fs::open(dir.join(DATA), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut files = Vec::new();
    tree::read_all(&data, "", &mut files).map_err(|failure| io::Error::from(failure.errno))?;
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

// === impl AtomicVolume ===

impl AtomicVolume {
    /// Opens a directory that nobody else writes, adopts the generation that is there and clears what a crashed writer
    /// left. A complete generation beside the present one may still be read: it is kept for another `grace`.
    ///
    /// # Errors
    /// [`VolumeError`] if the directory is missing or may not be written.
    pub fn open(dir: &Path, grace: Duration) -> Result<Self, VolumeError> {
        let root = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| VolumeError::Open { dir: dir.to_owned(), errno })?;
        let present = present_name(&root).map(Stored::adopt);
        let mut volume = Self { root, grace, owner: Owner::default(), present, kept: None, swapped: None };
        volume.clear_leftovers()?;
        if let Some(present) = &volume.present {
            volume.link(&present.name)?;
        }
        volume.unlink_obsolete()?;
        Ok(volume)
    }

    /// The same, with files that belong to `owner` from the next write on. Needs the right to give files away.
    #[must_use]
    pub fn owned_by(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    /// Whether `dir` holds a complete generation: whatever `..data` points at was written to its end before.
    #[must_use]
    pub fn is_complete(dir: &Path) -> bool {
        rustix::fs::openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .is_ok_and(|root| present_name(&root).is_some())
    }

    /// The generation that readers see.
    #[must_use]
    pub fn current(&self) -> Option<GenerationId> {
        self.present.as_ref().map(|stored| stored.same_as.as_ref().unwrap_or(&stored.id).clone())
    }

    /// When the present generation was put in place.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        let link = rustix::fs::statat(&self.root, DATA, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(UNIX_EPOCH + Duration::from_secs(link.st_mtime.try_into().ok()?))
    }

    /// Whether the present generation has this file.
    #[must_use]
    pub fn has(&self, path: &VolumePath) -> bool {
        let file = format!("{DATA}/{path}");
        let stat = rustix::fs::statat(&self.root, file, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
    }

    /// The generation that its directory is named after: an earlier one, if it had the same files.
    #[must_use]
    pub fn directory(&self) -> Option<GenerationId> {
        self.present.as_ref().map(|stored| stored.id.clone())
    }

    /// Whether [`roll_back`](Self::roll_back) can go to this generation: it is the present or the kept one.
    #[must_use]
    pub fn holds(&self, id: &GenerationId) -> bool {
        self.present.iter().chain(&self.kept).any(|stored| stored.has_id(id))
    }

    /// Whether a previous generation waits for its removal by [`settle`](Self::settle).
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.kept.is_some()
    }

    /// Waits until no reader can be in the previous generation any more, then removes it; returns at once if there is
    /// none. Cancel safe.
    ///
    /// # Errors
    /// [`VolumeError`] if it cannot be removed; it is tried again next time.
    pub async fn settle(&mut self) -> Result<(), VolumeError> {
        if self.is_settling() {
            self.wait_out_grace().await;
        }
        self.remove_kept()
    }

    /// Replaces all files by `files`, which become visible in one instant; the generation before stays for the grace
    /// period. Waits first until the last swap is a grace period ago, so there are never more than three
    /// generations on disk. Files that are there already, with the same bytes and modes, are left alone.
    ///
    /// Cancel safe: after the wait it does not yield.
    ///
    /// # Errors
    /// [`VolumeError`]; what readers see is then unchanged, and nothing of the new files is left.
    pub async fn write(&mut self, id: &GenerationId, files: &[RenderedFile]) -> Result<Written, VolumeError> {
        check_id(id)?;
        if let Some(present) = &mut self.present
            && tree::holds_exactly(&self.root, &present.name, files)?
        {
            present.same_as = (present.id != *id).then(|| id.clone());
            let name = present.name.clone();
            self.link(&name)?;
            return Ok(Written::Unchanged);
        }
        self.wait_out_grace().await;
        self.remove_kept()?;
        self.check_space(files)?;
        let stored = Stored { name: self.free_name(id), id: id.clone(), same_as: None };
        let made = self.write_generation(&stored.name, files).and_then(|()| self.swap(&stored));
        if let Err(failure) = made {
            self.clear_failed(&stored.name);
            return Err(match failure {
                VolumeError::Io { errno: Errno::NOSPC | Errno::DQUOT, .. } => {
                    VolumeError::NoSpace { needed: needed_bytes(files, 1), free: None }
                }
                other => other,
            });
        }
        Ok(Written::Swapped)
    }

    /// Goes back to a generation that is still on disk, by one rename and without waiting: what readers may have
    /// resolved stays. `false` if this generation is not here any more.
    ///
    /// # Errors
    /// [`VolumeError`]; what readers see is then unchanged.
    #[expect(clippy::unused_async, reason = "its callers await every change of the volume alike")]
    pub async fn roll_back(&mut self, id: &GenerationId) -> Result<bool, VolumeError> {
        if let Some(present) = &mut self.present
            && present.has_id(id)
        {
            present.same_as = (present.id != *id).then(|| id.clone());
            return Ok(true);
        }
        let Some(mut target) = self.kept.clone().filter(|kept| kept.has_id(id)) else { return Ok(false) };
        target.same_as = (target.id != *id).then(|| id.clone());
        if let Err(failure) = self.swap(&target) {
            self.clear_failed(WRITING);
            return Err(failure);
        }
        Ok(true)
    }

    async fn wait_out_grace(&self) {
        if let Some(swapped) = self.swapped {
            sleep_until(swapped + self.grace).await;
        }
    }

    fn remove_kept(&mut self) -> Result<(), VolumeError> {
        if let Some(kept) = &self.kept {
            self.remove(&kept.name)?;
            self.kept = None;
        }
        Ok(())
    }

    /// The id's own name; another one if the present generation has the same id but other bytes, as happens when a
    /// counter starts again.
    fn free_name(&self, id: &GenerationId) -> String {
        let name = format!("{OWN_PREFIX}{id}");
        let taken = self.present.as_ref().is_some_and(|present| present.name == name);
        if taken { format!("{name}{COUNTER}1") } else { name }
    }

    /// Free space where the file system knows it; a tmpfs without a limit says 0 of 0.
    fn check_space(&self, files: &[RenderedFile]) -> Result<(), VolumeError> {
        let Ok(space) = rustix::fs::fstatvfs(&self.root) else { return Ok(()) };
        let (needed, free) = (needed_bytes(files, space.f_frsize.max(1)), space.f_bavail * space.f_frsize);
        if space.f_blocks > 0 && needed > free {
            return Err(VolumeError::NoSpace { needed, free: Some(free) });
        }
        Ok(())
    }

    /// No fsync anywhere: tmpfs has nothing to sync to, and after a crash of the node the pod and its volume are gone.
    fn write_generation(&self, name: &str, files: &[RenderedFile]) -> Result<(), VolumeError> {
        let dir = tree::make_dir(&self.root, WRITING)?;
        tree::write_all(&dir, files, self.owner)?;
        rustix::fs::renameat(&self.root, WRITING, &self.root, name)
            .map_err(|errno| TreeError::new("name", name, errno).into())
    }

    /// Links, the rename, then links that nobody needs any more.
    fn swap(&mut self, target: &Stored) -> Result<(), VolumeError> {
        self.link(&target.name)?;
        self.replace_link(DATA, &target.name)?;
        self.swapped = Some(Instant::now());
        self.kept = self.present.replace(target.clone());
        if let Err(error) = self.unlink_obsolete() {
            // The new set is complete and visible; the next swap or start tries again.
            tracing::warn!(%error, "obsolete links stay");
        }
        Ok(())
    }

    /// A top-level link for every name in the generation `name`.
    fn link(&self, name: &str) -> Result<(), VolumeError> {
        let dir = tree::open_dir(&self.root, name)?;
        for (file, _) in tree::entries(&dir)? {
            let target = format!("{DATA}/{file}");
            match rustix::fs::readlinkat(&self.root, &file, Vec::new()) {
                Ok(present) if present.to_bytes() == target.as_bytes() => {}
                Ok(_) | Err(Errno::NOENT) => self.replace_link(&file, &target)?,
                Err(_) => return Err(VolumeError::InTheWay { name: file }),
            }
        }
        Ok(())
    }

    fn replace_link(&self, name: &str, target: &str) -> Result<(), VolumeError> {
        let failed = |errno| TreeError::new("link", name, errno);
        tree::remove_all(&self.root, LINK_TMP)?;
        rustix::fs::symlinkat(target, &self.root, LINK_TMP).map_err(failed)?;
        rustix::fs::renameat(&self.root, LINK_TMP, &self.root, name).map_err(|errno| failed(errno).into())
    }

    /// Removes our links to names that the present generation does not have.
    fn unlink_obsolete(&self) -> Result<(), VolumeError> {
        let wanted = match &self.present {
            Some(present) => tree::entries(&tree::open_dir(&self.root, &present.name)?)?,
            None => Vec::new(),
        };
        for (name, kind) in tree::entries(&self.root)? {
            let obsolete = !name.starts_with(OWN_PREFIX) && wanted.iter().all(|(file, _)| *file != name);
            if obsolete && kind == FileType::Symlink && self.is_our_link(&name) {
                rustix::fs::unlinkat(&self.root, &name, AtFlags::empty())
                    .map_err(|errno| TreeError::new("remove", &name, errno))?;
            }
        }
        Ok(())
    }

    fn is_our_link(&self, name: &str) -> bool {
        rustix::fs::readlinkat(&self.root, name, Vec::new())
            .is_ok_and(|target| target.to_bytes() == format!("{DATA}/{name}").as_bytes())
    }

    /// Renames first, so a crash in the middle leaves nothing that looks like a generation.
    fn remove(&self, name: &str) -> Result<(), VolumeError> {
        tree::remove_all(&self.root, REMOVED)?;
        match rustix::fs::renameat(&self.root, name, &self.root, REMOVED) {
            Ok(()) => Ok(tree::remove_all(&self.root, REMOVED)?),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(TreeError::new("remove", name, errno).into()),
        }
    }

    /// After a failure before the swap: nothing of the new generation stays.
    fn clear_failed(&self, name: &str) {
        let cleared = tree::remove_all(&self.root, WRITING)
            .and_then(|()| tree::remove_all(&self.root, LINK_TMP))
            .map_err(VolumeError::from)
            .and_then(|()| self.remove(name))
            .and_then(|()| self.unlink_obsolete());
        if let Err(error) = cleared {
            tracing::warn!(%error, "files of the failed generation stay until the next start");
        }
    }

    fn clear_leftovers(&mut self) -> Result<(), VolumeError> {
        for (name, kind) in tree::entries(&self.root)? {
            let is_present = self.present.as_ref().is_some_and(|present| present.name == name);
            if !name.starts_with(OWN_PREFIX) || [DATA, RUNNING].contains(&name.as_str()) || is_present {
                continue;
            }
            let is_complete = kind == FileType::Directory && ![WRITING, REMOVED].contains(&name.as_str());
            if is_complete && self.present.is_some() && self.kept.is_none() {
                self.kept = Some(Stored::adopt(name));
                self.swapped = Some(Instant::now());
            } else {
                tree::remove_all(&self.root, &name)?;
            }
        }
        Ok(())
    }
}

/// The directory that `..data` points at, if it is one of the volume's.
fn present_name(root: &OwnedFd) -> Option<String> {
    let target = rustix::fs::readlinkat(root, DATA, Vec::new()).ok()?.into_string().ok()?;
    let is_own = target.starts_with(OWN_PREFIX) && target.len() > OWN_PREFIX.len() && !target.contains('/');
    let stat = rustix::fs::statat(root, &target, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    (is_own && FileType::from_raw_mode(stat.st_mode) == FileType::Directory).then_some(target)
}

fn check_id(GenerationId(id): &GenerationId) -> Result<(), VolumeError> {
    // '_' stands only in names of our own.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if id.is_empty() || id.len() > 200 || id == "data" || !id.bytes().all(fits) {
        return Err(VolumeError::BadId(id.clone()));
    }
    Ok(())
}

fn needed_bytes(files: &[RenderedFile], block: u64) -> u64 {
    files.iter().map(|file| (file.bytes.len() as u64).next_multiple_of(block)).sum()
}

// === impl Stored ===

impl Stored {
    fn adopt(name: String) -> Self {
        let id = name.strip_prefix(OWN_PREFIX).unwrap_or(&name);
        let id = id.split_once(COUNTER).map_or(id, |(id, _)| id).to_owned();
        Self { name, id: GenerationId(id), same_as: None }
    }

    fn has_id(&self, id: &GenerationId) -> bool {
        self.id == *id || self.same_as.as_ref() == Some(id)
    }
}

#[cfg(test)]
mod tests;
