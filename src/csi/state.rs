//! What outlives the driver's process: which volume is whose, and the logins and leases of each feed. It lies in a file
//! system in memory of the driver's own, readable by root alone; after a boot of the node it is gone, as the volumes are.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::record::{FeedKey, PodRef, Record};
#[cfg(test)]
use super::tests::steps::step;
use crate::deliver::Owner;
use crate::deliver::controls::Wanted;
use crate::generation::GenerationId;
use crate::plan::{MAX_PLAN_BYTES, Plan, PlanReadError};
use crate::source::persisted::HandOverFile;

/// The format that this program writes. Fields that it does not know are no other format: a field that a later version adds
/// is passed over, and one that it needs has a default.
const SCHEMA: u32 = 1;
/// Hexadecimal digits of a feed's name.
const NAME_DIGITS: usize = 64;
/// Bytes of a record: a plan, escaped, and some names.
const MOST_RECORD: u64 = 4 * MAX_PLAN_BYTES as u64;
/// Records that are read: more pods than any kubelet runs.
const MOST_RECORDS: usize = 4096;
const VOLUMES: &str = "volumes";
const FEEDS: &str = "feeds";
/// No volume's name begins like this.
const NEW: &str = ".new";
/// statfs(2) of tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The directory, in memory.
#[derive(Debug)]
pub(super) struct StateDir {
    dir: PathBuf,
}

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Values would reach a disk.
    #[error("{} is on a disk: expected a tmpfs, since logins and leased values are kept there", .0.display())]
    Disk(PathBuf),
    /// The system refuses.
    #[error("cannot use the state directory {}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct RecordDocument {
    schema: u32,
    target: PathBuf,
    pod: PodRef,
    account: Option<String>,
    user: Option<u32>,
    group: Option<u32>,
    own: bool,
    /// What the pod's annotations asked for.
    #[serde(default)]
    hold: bool,
    pin: Option<GenerationId>,
    /// The last wave that the volume has gone along with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advanced: Option<String>,
    /// Under which logins and leases lie. Absent in what earlier versions wrote: then it is the plan's, as it stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feed: Option<FeedKey>,
    /// A plan in its own format, which has a version of its own.
    plan: String,
}

/// What records of all versions say.
#[derive(Deserialize)]
struct RecordHead {
    target: PathBuf,
    pod: PodRef,
    account: Option<String>,
    own: bool,
    #[serde(default)]
    feed: Option<FeedKey>,
    plan: String,
}

/// What an earlier process knew of volumes.
#[derive(Debug, Default)]
pub(super) struct KeptVolumes {
    pub(super) records: Vec<Record>,
    pub(super) unread: Vec<UnreadRecord>,
}

/// A record of another version's format, or with a plan of one, as far as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnreadRecord {
    pub(super) volume: String,
    pub(super) target: PathBuf,
    pub(super) pod: PodRef,
    pub(super) feed: FeedKey,
}

/// A record that is of no use.
struct UnusableRecord {
    problem: RecordProblem,
    /// What is understood of it.
    unread: Option<Box<UnreadRecord>>,
}

/// Why a record is of no use. In our own words: a record has no secrets, but whatever lies there may be something else.
#[derive(Debug, thiserror::Error)]
enum RecordProblem {
    #[error("it is too large")]
    TooLarge,
    #[error("{0}")]
    Io(io::ErrorKind),
    #[error("it is damaged at byte {0}")]
    Damaged(usize),
    #[error("it has format {0}, and this driver understands {SCHEMA}")]
    Format(u32),
    #[error(transparent)]
    Plan(#[from] PlanReadError),
}

// === impl RecordProblem ===

impl From<serde_json::Error> for RecordProblem {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(error.column())
    }
}

// === impl UnusableRecord ===

impl From<RecordProblem> for UnusableRecord {
    fn from(problem: RecordProblem) -> Self {
        Self { problem, unread: None }
    }
}

impl From<serde_json::Error> for UnusableRecord {
    fn from(error: serde_json::Error) -> Self {
        RecordProblem::from(error).into()
    }
}

// === impl StateDir ===

impl StateDir {
    /// Opens the directory, which has to be in memory.
    ///
    /// # Errors
    /// [`StateError`] if it is on a disk, or cannot be written.
    pub(super) fn open(dir: &Path) -> Result<Self, StateError> {
        let failed = |source: io::Error| StateError::Io { path: dir.to_owned(), source };
        let kind = rustix::fs::statfs(dir).map_err(|errno| failed(errno.into()))?.f_type;
        if u64::try_from(kind) != Ok(TMPFS_MAGIC) {
            return Err(StateError::Disk(dir.to_owned()));
        }
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
        for part in [VOLUMES, FEEDS] {
            fs::create_dir_all(dir.join(part)).map_err(failed)?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Writes a volume down.
    ///
    /// # Errors
    /// The system's. What was known of it before still is.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        let Record { volume, target, pod, account, owner, is_own, feed, wanted, advanced, plan } = record;
        let document = RecordDocument {
            schema: SCHEMA,
            target: target.clone(),
            pod: pod.clone(),
            account: account.clone(),
            user: owner.user,
            group: owner.group,
            own: *is_own,
            hold: wanted.hold,
            pin: wanted.pin.clone(),
            advanced: advanced.clone(),
            feed: Some(feed.clone()),
            plan: plan.to_json().map_err(io::Error::other)?,
        };
        let new = self.dir.join(VOLUMES).join(format!("{NEW}-{volume}"));
        let bytes = serde_json::to_vec(&document)?;
        #[cfg(test)]
        step("write record");
        let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let written = open().and_then(|mut file| file.write_all(&bytes)).and_then(|()| {
            #[cfg(test)]
            step("record written");
            fs::rename(&new, self.record(volume))
        });
        if written.is_err() {
            // A full directory gets its room back.
            drop(fs::remove_file(&new));
        }
        written
    }

    /// Forgets a volume.
    pub(super) fn remove(&self, volume: &str) {
        #[cfg(test)]
        step("remove record");
        match fs::remove_file(self.record(volume)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, volume, "the record of a volume that is gone stays until the driver starts again");
            }
            _ => {}
        }
    }

    /// Every volume that an earlier process knew. What cannot be read is logged: the next call of kubelet brings it back.
    pub(super) fn load(&self) -> KeptVolumes {
        let entries = match fs::read_dir(self.dir.join(VOLUMES)) {
            Ok(entries) => entries,
            Err(error) => {
                warn!(%error, "the volumes of an earlier process cannot be listed: kubelet's next calls bring them back");
                return KeptVolumes::default();
            }
        };
        let mut kept = KeptVolumes::default();
        for entry in entries.flatten().take(MOST_RECORDS) {
            let name = entry.file_name();
            let Some(volume) = name.to_str() else { continue };
            if volume.starts_with(NEW) {
                // A killed process was writing it.
                self.remove(volume);
                continue;
            }
            match read(&entry.path(), volume) {
                Ok(record) => kept.records.push(record),
                Err(UnusableRecord { problem, unread }) => {
                    let problem = problem.to_string();
                    warn!(volume, problem, "the record of a volume is of no use: kubelet's next call brings it back");
                    if unread.is_none() {
                        self.remove(volume);
                    }
                    kept.unread.extend(unread.map(|unread| *unread));
                }
            }
        }
        kept.records.sort_by(|a, b| a.volume.cmp(&b.volume));
        kept
    }

    /// Where a feed's logins and leases lie.
    pub(super) fn hand_over(&self, feed: &str) -> HandOverFile {
        #[cfg(test)]
        step("open hand-over");
        let dir = self.dir.join(FEEDS).join(feed);
        if let Err(error) = fs::create_dir_all(&dir) {
            warn!(%error, "a feed's logins and leases are not kept: after a restart of the driver they are made anew");
        }
        HandOverFile::new(&dir)
    }

    /// Forgets a feed.
    pub(super) fn remove_feed(&self, feed: &str) {
        #[cfg(test)]
        step("remove feed");
        match fs::remove_dir_all(self.dir.join(FEEDS).join(feed)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, "what is known of a feed that is over stays until the node starts again");
            }
            _ => {}
        }
    }

    /// Forgets a feed that has left nothing.
    pub(super) fn remove_empty_feed(&self, feed: &str) {
        // The system refuses if something is in there.
        let _ = fs::remove_dir(self.dir.join(FEEDS).join(feed));
    }

    /// The feeds that have left something; the others are forgotten.
    pub(super) fn feeds(&self) -> Vec<String> {
        let names = || {
            let entries = fs::read_dir(self.dir.join(FEEDS)).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok())
        };
        names().for_each(|name| self.remove_empty_feed(&name));
        names().collect()
    }

    fn record(&self, volume: &str) -> PathBuf {
        self.dir.join(VOLUMES).join(volume)
    }
}

fn read(path: &Path, volume: &str) -> Result<Record, UnusableRecord> {
    let text = match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MOST_RECORD => return Err(RecordProblem::TooLarge.into()),
        _ => fs::read(path).map_err(|error| RecordProblem::Io(error.kind()))?,
    };
    let RecordHead { target, pod, account, own, feed, plan } = serde_json::from_slice(&text)?;
    let own = own.then(|| volume.to_owned());
    let feed =
        feed.filter(FeedKey::is_whole).unwrap_or_else(|| FeedKey::named(&pod, account.as_deref(), own.as_ref(), &plan));
    parsed(&text, volume, feed.clone()).map_err(|problem| {
        let unread = UnreadRecord { volume: volume.to_owned(), target, pod, feed };
        UnusableRecord { problem, unread: Some(Box::new(unread)) }
    })
}

fn parsed(text: &[u8], volume: &str, feed: FeedKey) -> Result<Record, RecordProblem> {
    let document: RecordDocument = serde_json::from_slice(text)?;
    let RecordDocument { schema, target, pod, account, user, group, own, hold, pin, advanced, feed: _, plan } =
        document;
    if schema != SCHEMA {
        return Err(RecordProblem::Format(schema));
    }
    let plan = Arc::new(Plan::from_json(&plan)?);
    let (volume, owner) = (volume.to_owned(), Owner { user, group });
    // The wave that it has gone along with, and no other, until its pod is seen.
    let wanted = Wanted { hold, pin, advance: advanced.clone(), refresh_now: None };
    Ok(Record { volume, target, pod, account, owner, is_own: own, feed, wanted, advanced, plan })
}

// === impl FeedKey ===

impl FeedKey {
    /// Whether it can be a directory's name, and nothing else.
    fn is_whole(&self) -> bool {
        self.0.len() == NAME_DIGITS && self.0.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}
