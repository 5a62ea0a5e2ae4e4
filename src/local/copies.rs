//! Copies of what stores answered, for the next command and for the train: encrypted for their owner's age identity, in
//! `$XDG_CACHE_HOME/hushpod/copies`.
//!
//! A copy belongs to a file of references and a profile. It has whole sets of answers, each of one moment: two moments are
//! never mixed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::arguments::CacheArgs;
use super::error::{LocalError, LocalFailure};
use super::fetch::names_of;
use super::id_token;
use super::output::{note, spoken};
use super::private_file::{own_directory, write_private};
use crate::bounded_read::{BoundedReadError, read_bytes};
use crate::generation::{Generation, GenerationId};
use crate::plan::{Plan, PlannedProvider};
use crate::provider::file::OwnKeys;
use crate::reference::Request;
use crate::secret::sealed::SealedTree;
use crate::secret::{SecretTree, SecretValue};

/// Below the cache directory (XDG Base Directory Specification).
const DIRECTORY: &str = "hushpod/copies";
/// Another form of the document.
const FORMAT: u32 = 1;
/// Most bytes of one copy; sets that are older make room. Without optimizations, encrypting so much takes half a minute.
const MAX_BYTES: usize = if cfg!(test) { 1 << 20 } else { 32 << 20 };
/// Most sets of answers of one copy, and most copies: the oldest goes.
const MAX_SETS: usize = 16;
const MAX_COPIES: usize = 64;

/// The copy that a command may take, or keep.
pub(super) struct Copies {
    path: PathBuf,
    keys: OwnKeys,
    /// How old it may be; `None` as old as it is.
    most: Option<Duration>,
}

/// What lies encrypted in the file.
#[derive(Serialize, Deserialize)]
struct CopyDocument {
    format: u32,
    /// The newest first.
    sets: Vec<KeptSet>,
}

/// Why a copy is of no use, to stand behind its name.
#[derive(Debug, thiserror::Error)]
enum CopyProblem {
    #[error(transparent)]
    Read(#[from] BoundedReadError),
    #[error("is not yours alone")]
    NotOwn,
    #[error("{0}")]
    Sealed(&'static str),
    #[error("is of another version of hushpod")]
    Version,
}

/// What stores answered at one moment.
#[derive(Serialize, Deserialize)]
struct KeptSet {
    /// Milliseconds since 1970, by this machine's clock.
    taken: u64,
    id: GenerationId,
    /// Marks of what each provider is and who logged in: keyed digests, so they tell nothing of a token.
    stores: BTreeMap<String, String>,
    /// `None` was asked for, and is not there.
    answers: Vec<(Request, Option<SealedTree>)>,
}

/// The name of a copy's file: a digest of where the references are, the container and the profile; of no reference.
pub(super) fn copy_name(path: Option<&Path>, container: Option<&str>, profile: Option<&str>) -> String {
    let path = path.unwrap_or(Path::new("")).as_os_str().as_encoded_bytes();
    let parts = [path, container.unwrap_or_default().as_bytes(), profile.unwrap_or_default().as_bytes()];
    format!("{}.age", digest_of(&parts.join(&0)))
}

fn digest_of(bytes: &[u8]) -> String {
    let mut digits = hex::encode(digest(&SHA256, bytes));
    digits.truncate(32);
    digits
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

// === impl Copies ===

impl Copies {
    /// `None` if the command line asks for no copy.
    ///
    /// # Errors
    /// One sentence that says how to make an identity, if there is none.
    pub(super) fn open(args: &CacheArgs, name: &str) -> Result<Option<Self>, LocalError> {
        if args.cache.is_none() && !args.offline {
            return Ok(None);
        }
        let keys = OwnKeys::load().map_err(|error| LocalError::usage(error.message.to_string()))?;
        let keys = keys.ok_or_else(|| {
            LocalError::usage("--cache and --offline need an age identity, and there is none").with_hint(
                "mkdir -p ~/.config/sops/age && age-keygen -o ~/.config/sops/age/keys.txt makes one; SOPS_AGE_KEY_FILE \
                 names another place",
            )
        })?;
        let directory = own_directory("XDG_CACHE_HOME", ".cache")
            .ok_or_else(|| LocalError::usage("there is no home directory for copies: set XDG_CACHE_HOME"))?;
        Ok(Some(Self { path: directory.join(DIRECTORY).join(name), keys, most: args.cache }))
    }

    /// The answers for a plan, if the copy has them and they are young enough.
    ///
    /// # Errors
    /// With `--offline`, why there are none.
    pub(super) fn take(&self, plan: &Plan) -> Result<Option<Generation>, LocalError> {
        self.take_at(plan, now())
    }

    fn take_at(&self, plan: &Plan, now: u64) -> Result<Option<Generation>, LocalError> {
        let failed =
            |problem: String| LocalError::failed(problem).with_hint("--cache AGE keeps one, once the stores answer");
        let document = match (self.read(), self.most) {
            (Ok(document), _) => document,
            (Err(problem), Some(_)) => {
                note(&format!("{} {problem}: the stores are asked, and it is replaced", self.path.display()));
                return Ok(None);
            }
            (Err(problem), None) => return Err(failed(format!("{} {problem}", self.path.display()))),
        };
        let marks = self.marks(plan);
        let sets = document.map(|document| document.sets).unwrap_or_default();
        let is_of_others = sets.iter().any(|set| set.has_all(plan));
        let newest = sets.into_iter().find(|set| set.is_of(plan, &marks));
        match (newest, self.most) {
            (None, None) if is_of_others => {
                Err(failed("there is a copy, but of another login, or of other settings of a store".to_owned()))
            }
            (None, None) => Err(failed("there is no copy of all that is asked for".to_owned())),
            (Some(set), None) => {
                note(&format!("offline: the stores' answers of {}", set.describe(now)));
                Ok(Some(set.into_generation(plan)))
            }
            (set, Some(most)) => {
                let young = set.filter(|set| set.age(now).is_some_and(|age| age < most));
                Ok(young.map(|set| set.into_generation(plan)))
            }
        }
    }

    /// Says that there is a copy, where a store did not answer.
    pub(super) fn hint(&self, plan: &Plan, error: LocalError) -> LocalError {
        let kept = self.read().ok().flatten();
        let marks = self.marks(plan);
        let newest = kept.and_then(|document| document.sets.into_iter().find(|set| set.is_of(plan, &marks)));
        match newest {
            Some(set) if error.kind == LocalFailure::Unreachable => {
                error.with_hint(format!("--offline takes the copy of {}", set.describe(now())))
            }
            _ => error,
        }
    }

    /// Keeps what stores answered just now. What goes wrong is told, and no failure: the values are in hand.
    pub(super) fn keep(&self, plan: &Plan, generation: &Generation, leased: &BTreeSet<Request>) {
        let names: BTreeSet<_> = leased.iter().flat_map(|request| names_of(plan, request)).collect();
        if !names.is_empty() {
            let names: Vec<_> = names.into_iter().collect();
            note(&format!("not kept, since it was made for this command and ends: {}", names.join(", ")));
        }
        let set = KeptSet::new(plan, generation, leased, self.marks(plan), now());
        if !set.answers.is_empty()
            && let Err(problem) = self.keep_set(set)
        {
            note(&format!("no copy is kept: {}: {problem}", self.path.display()));
        }
    }

    fn keep_set(&self, set: KeptSet) -> io::Result<()> {
        let mut sets = vec![set];
        let before = self.read().ok().flatten().map(|document| document.sets);
        let others = before.into_iter().flatten();
        let is_more = |other: &KeptSet| sets.first().is_some_and(|set| !set.replaces(other));
        let others: Vec<_> = others.filter(is_more).take(MAX_SETS - 1).collect();
        sets.extend(others);
        let mut document = CopyDocument { format: FORMAT, sets };
        let sealed = loop {
            let sealed = self.keys.seal(|to| {
                serde_json::to_writer(BoundedWriter { to, left: MAX_BYTES }, &document).map_err(io::Error::from)
            });
            match sealed {
                Ok(sealed) => break sealed,
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge && document.sets.len() > 1 => {
                    document.sets.truncate(1);
                }
                Err(error) => return Err(error),
            }
        };
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // What is no file is nobody's copy, and would stay in the way.
        if self.path.metadata().is_ok_and(|there| !there.is_file()) {
            fs::remove_file(&self.path)?;
        }
        write_private(&self.path, &sealed)?;
        make_room(directory)
    }

    /// What each of a plan's providers is, and who logs in there now.
    fn marks(&self, plan: &Plan) -> BTreeMap<String, String> {
        let mark = |(name, provider): (&String, &PlannedProvider)| {
            let mut told = Zeroizing::new(serde_json::to_vec(provider).unwrap_or_default());
            let credentials =
                [provider.settings.as_settings().credential(), id_token::credential(name, &provider.settings)];
            for credential in &credentials {
                told.push(u8::from(credential.is_some()));
                told.extend(credential.iter().flat_map(SecretValue::expose));
            }
            (name.clone(), self.keys.mark(&told))
        };
        plan.providers.iter().map(mark).collect()
    }

    /// The copy; `None` if there is none.
    ///
    /// # Errors
    /// Why it is of no use, to stand behind its name.
    fn read(&self) -> Result<Option<CopyDocument>, CopyProblem> {
        // Not blocked by a FIFO.
        let no_wait = OFlags::NONBLOCK.bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(no_wait).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BoundedReadError::Io(error).into()),
        };
        let about = file.metadata().map_err(BoundedReadError::Io)?;
        // age tells that nobody changed it, not who made it.
        if !about.is_file() || about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o077 != 0 {
            return Err(CopyProblem::NotOwn);
        }
        // Encrypted, it is a little longer.
        let most = MAX_BYTES + MAX_BYTES / 64;
        let sealed = read_bytes(Ok(file), most)?;
        let plain = self.keys.open(&sealed).map_err(CopyProblem::Sealed)?;
        let document = serde_json::from_slice(plain.expose()).ok();
        let document = document.filter(|document: &CopyDocument| document.format == FORMAT);
        document.map(Some).ok_or(CopyProblem::Version)
    }
}

/// Of too many copies, the oldest go; also what a crash left of one. What cannot be looked at or removed, another command
/// is removing just now.
fn make_room(directory: &Path) -> io::Result<()> {
    let entries = fs::read_dir(directory)?.flatten();
    let mut copies: Vec<_> =
        entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    copies.sort();
    let surplus = copies.len().saturating_sub(MAX_COPIES);
    for (_, path) in copies.into_iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// Lets so many bytes through.
struct BoundedWriter<'a> {
    to: &'a mut dyn io::Write,
    left: usize,
}

// === impl BoundedWriter ===

impl io::Write for BoundedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.to.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

// === impl KeptSet ===

impl KeptSet {
    fn new(
        plan: &Plan,
        generation: &Generation,
        leased: &BTreeSet<Request>,
        stores: BTreeMap<String, String>,
        taken: u64,
    ) -> Self {
        let answer = |request: &Request| {
            let tree = generation.answers.get(request).map(|tree| SealedTree::from(SecretTree::clone(tree)));
            (request.clone(), tree)
        };
        let answers = plan.requests().into_iter().filter(|request| !leased.contains(*request)).map(answer);
        Self { taken, id: generation.id.clone(), stores, answers: answers.collect() }
    }

    /// Whether it has everything that a plan asks for, of the same stores and logins.
    fn is_of(&self, plan: &Plan, marks: &BTreeMap<String, String>) -> bool {
        marks.iter().all(|(name, mark)| self.stores.get(name) == Some(mark)) && self.has_all(plan)
    }

    fn has_all(&self, plan: &Plan) -> bool {
        plan.requests().into_iter().all(|request| {
            let answer = self.answers.iter().find(|(asked, _)| asked == request);
            answer.is_some_and(|(_, tree)| tree.is_some() || plan.is_optional(request))
        })
    }

    /// Whether it has all that another one has.
    fn replaces(&self, other: &Self) -> bool {
        let has = |request: &Request| self.answers.iter().any(|(asked, _)| asked == request);
        other.stores.iter().all(|(name, store)| self.stores.get(name) == Some(store))
            && other.answers.iter().all(|(request, _)| has(request))
    }

    /// `None` if it is of a time that has not come: the clock went back.
    fn age(&self, now: u64) -> Option<Duration> {
        now.checked_sub(self.taken).map(Duration::from_millis)
    }

    fn describe(&self, now: u64) -> String {
        match self.age(now) {
            Some(age) => format!("{} ago", spoken(age)),
            None => "a time that this machine's clock has yet to reach".to_owned(),
        }
    }

    fn into_generation(self, plan: &Plan) -> Generation {
        let wanted = plan.requests();
        let answers = self.answers.into_iter().filter_map(|(request, tree)| Some((request, tree?)));
        let answers = answers.filter(|(request, _)| wanted.contains(request));
        Generation {
            id: self.id,
            answers: answers.map(|(request, tree)| (request, Arc::new(SecretTree::from(tree)))).collect(),
            versions: BTreeMap::new(),
            accesses: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;
