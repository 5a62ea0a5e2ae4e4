//! Reading from the file system: never outside the store, never half of a write, never two of kubelet's generations.
//!
//! All of it blocks, and runs on a blocking thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::content;
use super::keys::AgeKeys;
use crate::contract::DATA;
use crate::provider::{ErrorKind, ProviderError};
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::{Sentence, store_name};

/// Most bytes of one file: what etcd, and so a Kubernetes Secret, takes.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// Most files of a directory that is asked for as a document.
const MAX_FILES: usize = 1024;
/// A file that was written this recently may be half of what it will be …
const FRESH: Duration = Duration::from_millis(10);
/// … and an empty one may have been truncated by someone who is about to write.
const FRESH_EMPTY: Duration = Duration::from_millis(250);
/// What is malformed among others of a directory, and was written this long ago, is not half of a write any more.
const LEFT: Duration = Duration::from_secs(5);

/// Answers to a batch.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) answers: Vec<Result<SecretTree, Problem>>,
    /// Some file was written just now, or while it was read: another read, a little later, is safer.
    pub(super) unsettled: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) error: ProviderError,
    /// What the file system has there, if that is what is wrong: half of a write is put right by the next one, and what
    /// is still the same at the next look is not.
    pub(super) state: Option<u64>,
}

/// A directory store, open for one batch.
struct Store<'a> {
    root: OwnedFd,
    keys: &'a AgeKeys,
    /// Kubelet's generation in use below each path, looked up once, so a batch is of one generation.
    generations: BTreeMap<String, Option<String>>,
    unsettled: bool,
}

/// Reads paths that [`super::FileSettings::resolve`] made from the store at `root`.
pub(super) fn batch(root: &Path, paths: &[String], keys: &AgeKeys) -> Batch {
    const ATTEMPTS: usize = 5;
    for _ in 0..ATTEMPTS {
        let mut store = match Store::open(root, keys) {
            Ok(Some(store)) => store,
            Ok(None) => return single_document(root, paths, keys),
            Err(error) => return failed_batch(paths, &store_error(error)),
        };
        let answers = paths.iter().map(|path| store.read(path)).collect();
        if !store.is_swapped() {
            return Batch { answers, unsettled: store.unsettled };
        }
        // Some answers are of the generation before, or of what kubelet had not removed of it yet.
    }
    let error =
        ProviderError::new(ErrorKind::Unavailable, "the store's directory is replaced faster than it can be read");
    Batch { unsettled: true, ..failed_batch(paths, &error.into()) }
}

fn failed_batch(paths: &[String], problem: &Problem) -> Batch {
    Batch { answers: paths.iter().map(|_| Err(problem.clone())).collect(), unsettled: false }
}

/// Without the store itself nothing is known about what is in it.
fn store_error(errno: Errno) -> Problem {
    match errno {
        Errno::ACCESS | Errno::PERM => {
            ProviderError::new(ErrorKind::Denied, "the agent's user may not open the store's path").into()
        }
        _ => Problem {
            error: ProviderError::new(
                ErrorKind::Unavailable,
                "the store's path cannot be opened: is it there, and mounted?",
            ),
            // A mount may still come, or come back.
            state: (errno != Errno::NOENT).then(|| hash(errno.raw_os_error())),
        },
    }
}

fn single_document(file: &Path, paths: &[String], keys: &AgeKeys) -> Batch {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let opened = fs::open(file, flags, Mode::empty()).and_then(|fd| Ok((fs::fstat(&fd)?, fd)));
    let (stat, fd) = match opened {
        Ok(opened) => opened,
        Err(errno) => return failed_batch(paths, &store_error(errno)),
    };
    let (bytes, unsettled) = read_settled(fd, &stat, name);
    let failed = |problem| Batch { unsettled, ..failed_batch(paths, &problem) };
    if !content::is_document(name) {
        let problem = "the store's path is neither a directory nor a file that ends in .json, .yaml, .yml or .env";
        return failed(ProviderError::new(ErrorKind::Invalid, problem).into());
    }
    let is_swapped_whole = file.is_symlink() && file.parent().is_some_and(|dir| dir.join(DATA).is_symlink());
    let tree = bytes.map_err(Problem::from).and_then(|bytes| {
        content::file(name, bytes, keys).map_err(|error| Problem::malformed(error, &stat, name, is_swapped_whole))
    });
    match tree {
        Ok(tree) => Batch { answers: paths.iter().map(|path| lookup(&tree, path)).collect(), unsettled },
        Err(problem) => failed(problem),
    }
}

/// The part of a document that `path` names. Errors do not list its neighbours: they may be another tenant's.
fn lookup(tree: &SecretTree, path: &str) -> Result<SecretTree, Problem> {
    if path == "." {
        return Ok(tree.clone());
    }
    let tokens: Vec<String> = path.split('/').map(str::to_owned).collect();
    let missing = |_| ProviderError::new(ErrorKind::NotFound, format!("the document has no {path:?}"));
    tree.pointer(&tokens).map_err(missing).map_err(Problem::from)
}

// === impl Problem ===

impl Problem {
    /// Something is wrong with the bytes of this file. Where they are swapped whole, they are no half of a write.
    fn malformed(error: ProviderError, stat: &Stat, path: &str, is_swapped_whole: bool) -> Self {
        if error.kind != ErrorKind::Unavailable {
            return error.into();
        }
        let state = (!is_swapped_whole).then(|| hash((path, stat.st_dev, stat.st_ino, stamp(stat))));
        let kind = if is_swapped_whole { ErrorKind::Invalid } else { error.kind };
        Self { error: ProviderError { kind, ..error }, state }
    }
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        Self { error, state: None }
    }
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

// === impl Store ===

impl<'a> Store<'a> {
    /// `None` if it is not a directory.
    fn open(root: &Path, keys: &'a AgeKeys) -> Result<Option<Self>, Errno> {
        let root = fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let is_directory = FileType::from_raw_mode(fs::fstat(&root)?.st_mode) == FileType::Directory;
        Ok(is_directory.then(|| Self { root, keys, generations: BTreeMap::new(), unsettled: false }))
    }

    fn read(&mut self, path: &str) -> Result<SecretTree, Problem> {
        let place = self.place(path);
        let (fd, stat) = self.open_at(&place, path)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let bytes = self.bytes(fd, &stat, path)?;
                let malformed = |error| Problem::malformed(error, &stat, path, is_generation(&place));
                content::file(path, bytes, self.keys).map_err(malformed)
            }
            FileType::Directory => self.directory(&fd, &place, path),
            _ => {
                let problem = format!("{path}: is neither a file nor a directory");
                Err(ProviderError::new(ErrorKind::Invalid, problem).into())
            }
        }
    }

    /// One level of files, by name, without `.age`. Names with a dot in front are not for others.
    fn directory(&mut self, fd: &OwnedFd, place: &str, path: &str) -> Result<SecretTree, Problem> {
        let unreadable = |errno| file_error(errno, path);
        let mut entries = BTreeMap::new();
        for entry in Dir::read_from(fd).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let tree = match entry.file_name().to_str() {
                Ok(name) => self.entry(place, path, name)?,
                Err(_) if entry.file_type() == FileType::Directory => None,
                Err(_) => Some(SecretTree::Withheld("has a name that is not UTF-8".into())),
            };
            let Some(tree) = tree else { continue };
            if entries.len() == MAX_FILES {
                let problem = format!("{path}: has more than {MAX_FILES} files: make several directories of it");
                return Err(ProviderError::new(ErrorKind::Invalid, problem).into());
            }
            let name = content::plain_name(&name).to_owned();
            let twice = || SecretTree::Withheld("is there both encrypted and not: remove one of them".into());
            entries.entry(name).and_modify(|entry| *entry = twice()).or_insert(tree);
        }
        Ok(SecretTree::Map(entries))
    }

    /// One file of a directory; `None` if it is not one. What is wrong with it for good is said in its place, so the
    /// others are none the worse for it; what will pass is waited for.
    fn entry(&mut self, place: &str, path: &str, name: &str) -> Result<Option<SecretTree>, ProviderError> {
        let below = join(path, name);
        let (fd, stat) = match self.open_at(&join(place, name), &below) {
            // Gone since it was listed, or a link to nothing.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            Err(error) => return withheld(error, &below, path, name).map(Some),
            Ok(opened) => opened,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let is_whole = is_generation(place) || is_left(&stat);
        let content = self.bytes(fd, &stat, &below).and_then(|bytes| {
            let malformed = |error| Problem::malformed(error, &stat, &below, is_whole).error;
            content::entry(&below, bytes, self.keys).map_err(malformed)
        });
        content.or_else(|error| withheld(error, &below, path, name)).map(Some)
    }

    fn bytes(&mut self, fd: OwnedFd, stat: &Stat, path: &str) -> Result<SecretValue, ProviderError> {
        let (bytes, unsettled) = read_settled(fd, stat, path);
        self.unsettled |= unsettled;
        bytes
    }

    fn open_at(&self, place: &str, path: &str) -> Result<(OwnedFd, Stat), ProviderError> {
        // Not blocked by a FIFO; not made a controlling terminal by a device.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.beneath(place, flags).map_err(|errno| file_error(errno, path))?;
        let stat = fs::fstat(&fd).map_err(|errno| file_error(errno, path))?;
        Ok((fd, stat))
    }

    /// Opens a place below the root. The kernel refuses links that lead out of it.
    fn beneath(&self, place: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        const ATTEMPTS: usize = 8;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 1..ATTEMPTS {
            match fs::openat2(&self.root, place, flags, Mode::empty(), resolve) {
                // A rename elsewhere at the same time makes the kernel unsure (openat2(2)).
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
        fs::openat2(&self.root, place, flags, Mode::empty(), resolve)
    }

    /// Where `path` lies: with kubelet's present generation put in behind the first directory that has one.
    fn place(&mut self, path: &str) -> String {
        let below = path.match_indices('/').filter_map(|(at, _)| Some((path.get(..at)?, path.get(at + 1..)?)));
        for (directory, rest) in std::iter::once((".", path)).chain(below).chain([(path, ".")]) {
            let Some(generation) = self.generation(directory) else { continue };
            let place = join(&join(directory, &generation), rest);
            // What lies beside kubelet's files is not in their generation.
            if self.beneath(&place, OFlags::PATH | OFlags::CLOEXEC).err() != Some(Errno::NOENT) {
                return place;
            }
        }
        path.to_owned()
    }

    fn generation(&mut self, directory: &str) -> Option<String> {
        if let Some(known) = self.generations.get(directory) {
            return known.clone();
        }
        let generation = self.read_generation(directory);
        self.generations.insert(directory.to_owned(), generation.clone());
        generation
    }

    fn read_generation(&self, directory: &str) -> Option<String> {
        let target = fs::readlinkat(&self.root, join(directory, DATA), Vec::new()).ok()?;
        let target = target.into_string().ok()?;
        // Only a sibling is kubelet's; what else it might be is left to the kernel to follow.
        (target.starts_with("..") && target.len() > 2 && !target.contains('/')).then_some(target)
    }

    /// Whether a generation that was looked up is not the present one any more.
    fn is_swapped(&self) -> bool {
        self.generations.iter().any(|(directory, known)| self.read_generation(directory) != *known)
    }
}

/// Whether a place is in one of kubelet's generations: no path that is asked for has such a component.
fn is_generation(place: &str) -> bool {
    place.split('/').any(|component| component.starts_with(".."))
}

fn join(directory: &str, name: &str) -> String {
    match (directory, name) {
        (".", name) => name.to_owned(),
        (directory, ".") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

/// What is wrong with a file of a directory, in the place of its value; or as an error, if it may pass.
fn withheld(error: ProviderError, below: &str, path: &str, name: &str) -> Result<SecretTree, ProviderError> {
    if !error.kind.is_permanent() {
        return Err(hide_name(error, below, path, name));
    }
    let said = error.message.public().strip_prefix(below).unwrap_or_default().trim_start_matches(": ");
    Ok(SecretTree::Withheld(format!("cannot be had: {said}").into()))
}

/// The error about a file of a directory that was asked for: its name is the store's.
fn hide_name(error: ProviderError, below: &str, path: &str, name: &str) -> ProviderError {
    let ProviderError { kind, message } = error;
    let rest = |text: &str| text.strip_prefix(below).unwrap_or_default().to_owned();
    let log = format!("{path}: the file {}{}", store_name(name), rest(&message));
    let public = format!("{path}: one of its files{}", rest(message.public()));
    ProviderError::new(kind, Sentence::hiding(log, public))
}

fn file_error(errno: Errno, path: &str) -> ProviderError {
    let (kind, problem) = match errno {
        Errno::NOENT | Errno::NOTDIR => (ErrorKind::NotFound, "there is no such file"),
        Errno::ACCESS | Errno::PERM => (ErrorKind::Denied, "the agent's user may not read it"),
        Errno::XDEV | Errno::LOOP => {
            (ErrorKind::Denied, "a symbolic link on its way leads out of the store, or in a circle")
        }
        Errno::NAMETOOLONG | Errno::INVAL => (ErrorKind::Invalid, "is not a file name"),
        Errno::NOSYS => (ErrorKind::Invalid, "this kernel cannot confine the read (openat2, Linux 5.6)"),
        _ => (ErrorKind::Unavailable, "cannot be read"),
    };
    ProviderError::new(kind, format!("{path}: {problem}"))
}

/// The bytes, and whether they may be half of a write: the file changed meanwhile (an error), or just before.
fn read_settled(fd: OwnedFd, before: &Stat, path: &str) -> (Result<SecretValue, ProviderError>, bool) {
    let fail = |kind, problem: String| (Err(ProviderError::new(kind, format!("{path}: {problem}"))), false);
    if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return fail(ErrorKind::Invalid, "is not a file".to_owned());
    }
    let size = u64::try_from(before.st_size).unwrap_or_default();
    if size > MAX_BYTES {
        return fail(ErrorKind::Invalid, format!("has more than {MAX_BYTES} bytes"));
    }
    // One byte more than it should need: never moved, so no copy stays behind, and growth is noticed.
    let capacity = usize::try_from(size).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    let mut file = File::from(fd);
    let read = (&mut file).take(size + 1).read_to_end(&mut bytes);
    let (Ok(_), Ok(after)) = (read, fs::fstat(&file)) else {
        return fail(ErrorKind::Unavailable, "cannot be read".to_owned());
    };
    if stamp(before) != stamp(&after) || bytes.len() + 1 != capacity {
        return (fail(ErrorKind::Unavailable, "is being written".to_owned()).0, true);
    }
    let value = SecretValue::new(std::mem::take(&mut *bytes));
    (Ok(value), is_fresh(&after))
}

fn stamp(stat: &Stat) -> (i128, i128, i128, i128) {
    (stat.st_mtime.into(), stat.st_mtime_nsec.into(), stat.st_ctime.into(), stat.st_size.into())
}

/// A clock that runs ahead, on a file server, makes nothing fresh.
fn is_fresh(stat: &Stat) -> bool {
    let settled = if stat.st_size == 0 { FRESH_EMPTY } else { FRESH };
    age(stat).is_some_and(|age| age < settled)
}

/// Whether this file's writer is done with it.
fn is_left(stat: &Stat) -> bool {
    age(stat).is_some_and(|age| age >= LEFT)
}

/// Since the last write; `None` if that is in the future.
fn age(stat: &Stat) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(stat.st_mtime).ok()?, u32::try_from(stat.st_mtime_nsec).ok()?);
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)).ok()
}
