//! Reading variables: every file of one volume from one generation.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, FlockOperation, Mode, OFlags, Timespec, flock, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::thread::nanosleep;
use zeroize::Zeroizing;

use super::arguments::SourcePath;
use crate::contract::{COUNTER, DATA, ENV_DIR, OWN_PREFIX, RUNNING};
use crate::dotenv;
use crate::env_vars::{MAX_TOTAL_BYTES, check_name, check_value};
use crate::secret::SecretValue;
use crate::sentence::{Sentence, store_name};

/// How often to try again after a generation was replaced while it was read, or while its lock is busy.
const ATTEMPTS: usize = 20;
/// Between two attempts at a lock.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// What was read.
#[derive(Debug)]
pub(super) struct ReadVariables {
    pub(super) variables: BTreeMap<String, SecretValue>,
    /// Where from; `None` outside of a volume of ours.
    pub(super) origin: Option<StoredGeneration>,
}

/// A generation in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredGeneration {
    /// The directory with the link.
    pub(super) files: PathBuf,
    /// The directory that it leads to.
    link: OsString,
    /// Its id.
    pub(super) generation: String,
}

/// Files that do not make variables. Never shows a value.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", .path.display(), &**problem)]
pub struct ReadError {
    path: PathBuf,
    problem: Sentence,
    /// Whether the generation was taken away meanwhile.
    is_gone: bool,
}

/// Reads `sources`, in this order, and leaves `keep` out.
pub(super) fn read(sources: &[SourcePath], keep: &[String]) -> Result<ReadVariables, ReadError> {
    let mut attempt = 1;
    loop {
        match read_once(sources, keep) {
            Err(error) if error.is_gone && attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

fn read_once(sources: &[SourcePath], keep: &[String]) -> Result<ReadVariables, ReadError> {
    let mut volumes = BTreeMap::new();
    let mut variables = BTreeMap::new();
    let mut first = None;
    for source in sources {
        let files = volume_of(&source.path);
        if let Some(files) = files
            && !volumes.contains_key(files)
        {
            let volume = OpenVolume::open(files).map_err(|errno| ReadError::new(&source.path, &describe(errno)))?;
            first.get_or_insert_with(|| volume.origin.clone());
            volumes.insert(files, volume);
        }
        let volume = files.and_then(|files| volumes.get(files));
        read_source(source, volume, &mut variables).map_err(|ReadProblem { sentence, is_missing }| ReadError {
            path: source.path.clone(),
            problem: sentence,
            // Looked for again only if there is something else to be found.
            is_gone: is_missing && volume.is_some_and(OpenVolume::is_replaced),
        })?;
    }
    for name in keep {
        variables.remove(name);
    }
    let total: usize = variables.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if total > MAX_TOTAL_BYTES {
        let path = sources.first().map(|source| source.path.clone()).unwrap_or_default();
        let problem = format!(
            "all variables together take {total} bytes, over the limit of {MAX_TOTAL_BYTES}: deliver large ones as files"
        );
        return Err(ReadError { path, problem: problem.into(), is_gone: false });
    }
    Ok(ReadVariables { variables, origin: first })
}

/// The generation that is in `files` now.
pub(super) fn present(files: &Path) -> Option<StoredGeneration> {
    let link = readlinkat(CWD, files.join(DATA), Vec::new()).ok()?;
    let link = OsString::from_vec(link.into_bytes());
    let name = link.to_string_lossy();
    let id = name.strip_prefix(OWN_PREFIX).unwrap_or(&name);
    let generation = id.split(COUNTER).next().unwrap_or(id).to_owned();
    Some(StoredGeneration { files: files.to_owned(), link, generation })
}

/// The nearest directory above `path` that has generations.
fn volume_of(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|dir| readlinkat(CWD, dir.join(DATA), Vec::new()).is_ok())
}

type Variables = BTreeMap<String, SecretValue>;

/// Why a file or directory cannot be read.
struct ReadProblem {
    sentence: Sentence,
    /// Whether nothing has this name.
    is_missing: bool,
}

// === impl ReadProblem ===

impl From<Errno> for ReadProblem {
    fn from(errno: Errno) -> Self {
        Self { sentence: describe(errno).into(), is_missing: errno == Errno::NOENT }
    }
}

impl From<Sentence> for ReadProblem {
    fn from(sentence: Sentence) -> Self {
        Self { sentence, is_missing: false }
    }
}

fn read_source(source: &SourcePath, volume: Option<&OpenVolume>, into: &mut Variables) -> Result<(), ReadProblem> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = match volume {
        Some(volume) => {
            let below = source.path.strip_prefix(&volume.origin.files).unwrap_or(&source.path);
            openat(&volume.data, below, flags, Mode::empty())
        }
        None => openat(CWD, &source.path, flags, Mode::empty()),
    };
    let is_replaced = volume.is_some_and(OpenVolume::is_replaced);
    let file = match opened {
        Ok(file) => file,
        Err(Errno::NOENT) if source.optional && !is_replaced => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let is_directory = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::Directory;
    let is_tenants = source.path.ends_with(ENV_DIR);
    if is_directory { read_directory(&file, is_tenants, into) } else { read_dotenv(file, into) }
}

fn read_dotenv(file: OwnedFd, into: &mut Variables) -> Result<(), ReadProblem> {
    let bytes = read_all(file).map_err(|error| Sentence::from(error.to_string()))?;
    into.extend(dotenv::variables(&bytes).map_err(|error| Sentence::from(error.to_string()))?);
    Ok(())
}

/// One file is one variable, byte by byte.
fn read_directory(directory: &OwnedFd, is_tenants: bool, into: &mut Variables) -> Result<(), ReadProblem> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let name = name.to_string_lossy().into_owned();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(directory, entry.file_name(), flags, Mode::empty())?;
        // Names of files are a store's keys, unless the tenant wrote them as variables.
        let shown = store_name(&name);
        let public = if is_tenants { shown.clone() } else { "one of its files".to_owned() };
        let bytes = read_all(file)
            .map_err(|error| Sentence::hiding(format!("{shown}: {error}"), format!("{public}: {error}")))?;
        check_name(&name)
            .and_then(|()| check_value(&name, &bytes))
            .map_err(|error| Sentence::hiding(error.of(&shown), error.of_unnamed(&public)))?;
        into.insert(name, SecretValue::new(bytes.to_vec()));
    }
    Ok(())
}

/// At once into a buffer that is never moved; a file of the volume does not grow.
fn read_all(file: impl Into<OwnedFd> + AsFd) -> io::Result<Zeroizing<Vec<u8>>> {
    let length = usize::try_from(fstat(&file)?.st_size).unwrap_or(usize::MAX);
    if length > MAX_TOTAL_BYTES {
        return Err(io::Error::other(format!("{length} bytes, over the limit of {MAX_TOTAL_BYTES} for variables")));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    std::fs::File::from(file.into()).take(MAX_TOTAL_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn describe(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "there is no such file or directory".to_owned(),
        Errno::ACCESS => {
            "this process's uid may not read it: see \"Who can read the files\" in `hushpod explain annotations`"
                .to_owned()
        }
        errno => errno.to_string(),
    }
}

/// One generation of a volume, held open.
#[derive(Debug)]
struct OpenVolume {
    origin: StoredGeneration,
    data: OwnedFd,
}

// === impl OpenVolume ===

impl OpenVolume {
    fn open(files: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for _ in 0..ATTEMPTS {
            let origin = present(files).ok_or(Errno::NOENT)?;
            match openat(CWD, files.join(&origin.link), flags, Mode::empty()) {
                Ok(data) => return Ok(Self { origin, data }),
                // It was replaced, and taken away, in between.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::NOENT)
    }

    fn is_replaced(&self) -> bool {
        present(&self.origin.files).is_none_or(|present| present != self.origin)
    }
}

// === impl StoredGeneration ===

impl StoredGeneration {
    /// Shows the agent that a process runs with this generation, for as long as what is returned is open; `None` where
    /// nobody looks. Unless this process `stays`, it is left open in the program that this process becomes.
    pub(super) fn hold(&self, stays: bool) -> Option<OwnedFd> {
        let path = self.files.join(RUNNING).join(&self.generation);
        let flags = if stays { OFlags::CLOEXEC } else { OFlags::empty() };
        let file = openat(CWD, path, OFlags::RDONLY | OFlags::NOFOLLOW | flags, Mode::empty()).ok()?;
        // The agent has the lock for an instant, to see whether anybody does; nobody else who keeps it is waited for.
        for _ in 0..ATTEMPTS {
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Err(Errno::WOULDBLOCK) => drop(nanosleep(&PAUSE)),
                result => return result.ok().map(|()| file),
            }
        }
        None
    }

    /// Whether the files are of this generation still.
    pub(super) fn is_present(&self) -> bool {
        present(&self.files).is_some_and(|present| present == *self)
    }
}

// === impl ReadVariables ===

impl ReadVariables {
    /// Tells two readings of this process apart, and nothing about what was read to anybody else.
    pub(super) fn fingerprint(&self, key: &RandomState) -> u64 {
        key.hash_one(self.variables.iter().map(|(name, value)| (name, value.expose())).collect::<Vec<_>>())
    }
}

// === impl ReadError ===

impl ReadError {
    fn new(path: &Path, problem: &str) -> Self {
        Self { path: path.to_owned(), problem: problem.into(), is_gone: false }
    }

    /// The same for a termination message: see [`Sentence::public`].
    pub(super) fn public(&self) -> String {
        format!("{}: {}", self.path.display(), self.problem.public())
    }
}
