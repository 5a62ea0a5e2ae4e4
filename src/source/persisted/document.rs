//! The hand-over as JSON: every secret is base64, every point in time whole seconds since 1970 (rounded down, so
//! nothing is believed to live longer than it does, and the same state always is the same bytes).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::generation::GenerationId;
use crate::reference::Request;
use crate::secret::SecretValue;
use crate::secret::sealed::{SealedTree, SealedValue};
use crate::source::{
    AnswerDigest, HandOver, HandedAnswer, HandedLease, HandedRetiredLease, HandedSession, PastGeneration,
};

/// The format that this program writes and understands.
const VERSION: u32 = 1;

/// What one process of the agent leaves to the next.
#[derive(Debug, Clone, Default)]
pub struct PersistedState {
    /// The source's part.
    pub hand_over: HandOver,
    /// The last generation that the application was told of: if another one is in place, it has yet to be.
    pub notified: Option<GenerationId>,
    /// What containers were started with, where all are to be restarted for a change.
    pub started: Option<StartedWith>,
    /// How often they were.
    pub restarts: u64,
    /// The last wave that the volume has gone along with (`advance`).
    pub advanced: Option<String>,
}

/// The variables that containers were started with. With the key, other variables can be compared with them.
#[derive(Debug, Clone)]
pub struct StartedWith {
    /// The generation that they came from.
    pub generation: GenerationId,
    /// Of the digest.
    pub key: SecretValue,
    /// HMAC-SHA256 of names and values.
    pub digest: SecretValue,
}

#[derive(Serialize, Deserialize)]
pub(super) struct HandOverDocument {
    version: u32,
    told: Option<GenerationId>,
    last: Option<GenerationId>,
    counter: u64,
    salt: Option<SealedValue>,
    sessions: Vec<Session>,
    leased: Vec<Answer>,
    draining: Vec<Drained>,
    /// Absent in what agents of earlier versions wrote.
    #[serde(default)]
    patience: Vec<(String, Seconds)>,
    seen: Vec<Remembered>,
    history: Vec<PastGeneration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<Started>,
    #[serde(default, skip_serializing_if = "is_zero")]
    restarts: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advanced: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Started {
    generation: GenerationId,
    key: SealedValue,
    digest: SealedValue,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field as it is")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Seconds since 1970.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
struct Seconds(u64);

#[derive(Serialize, Deserialize)]
struct Session {
    provider: String,
    token: SealedValue,
    ends: Option<Seconds>,
    renewable: bool,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    request: Request,
    tree: SealedTree,
    ends: Seconds,
    life_seconds: u64,
    lease: Option<(SealedValue, bool)>,
    delivered: bool,
}

#[derive(Serialize, Deserialize)]
struct Drained {
    provider: String,
    lease: SealedValue,
    ends: Seconds,
    revoke_at: Option<Seconds>,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    request: Request,
    fingerprint: SealedValue,
    had_entries: bool,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// Why a document cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnreadHandOver {
    #[error("it is damaged at byte {0}")]
    Damaged(usize),
    #[error("it has format {0}, and this agent understands {VERSION}")]
    Format(u32),
}

// === impl HandOverDocument ===

impl HandOverDocument {
    pub(super) fn new(state: PersistedState) -> Self {
        let PersistedState { hand_over, notified, started, restarts, advanced } = state;
        let HandOver { sessions, leased, retired, patience, digests, salt, counter, history, last } = hand_over;
        Self {
            version: VERSION,
            told: notified,
            last,
            counter,
            salt: salt.map(SealedValue),
            sessions: sessions.into_iter().map(Session::from).collect(),
            leased: leased.into_iter().map(Answer::from).collect(),
            draining: retired.into_iter().map(Drained::from).collect(),
            patience: patience.into_iter().map(|(name, at)| (name, at.into())).collect(),
            seen: digests.into_iter().map(Remembered::from).collect(),
            history,
            started: started.map(Started::from),
            restarts,
            advanced,
        }
    }

    /// # Errors
    /// [`UnreadHandOver`]. It is in our words alone: serde's would quote what they stumbled over.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, UnreadHandOver> {
        let place = |error: serde_json::Error| UnreadHandOver::Damaged(error.column());
        let VersionOnly { version } = serde_json::from_slice(bytes).map_err(place)?;
        if version != VERSION {
            return Err(UnreadHandOver::Format(version));
        }
        serde_json::from_slice(bytes).map_err(place)
    }

    pub(super) fn into_state(self) -> PersistedState {
        let Self { told, last, counter, salt, sessions, leased, draining, patience, seen, history, .. } = self;
        let hand_over = HandOver {
            sessions: sessions.into_iter().map(HandedSession::from).collect(),
            leased: leased.into_iter().map(HandedAnswer::from).collect(),
            retired: draining.into_iter().map(HandedRetiredLease::from).collect(),
            patience: patience.into_iter().map(|(name, at)| (name, at.into())).collect(),
            digests: seen.into_iter().map(Remembered::into_digest).collect(),
            salt: salt.map(|SealedValue(salt)| salt),
            counter,
            history,
            last,
        };
        PersistedState {
            hand_over,
            notified: told,
            started: self.started.map(StartedWith::from),
            restarts: self.restarts,
            advanced: self.advanced,
        }
    }
}

// === impl Started ===

impl From<StartedWith> for Started {
    fn from(started: StartedWith) -> Self {
        let StartedWith { generation, key, digest } = started;
        Self { generation, key: SealedValue(key), digest: SealedValue(digest) }
    }
}

impl From<Started> for StartedWith {
    fn from(started: Started) -> Self {
        let Started { generation, key: SealedValue(key), digest: SealedValue(digest) } = started;
        Self { generation, key, digest }
    }
}

// === impl Seconds ===

impl From<SystemTime> for Seconds {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

impl From<Seconds> for SystemTime {
    fn from(Seconds(seconds): Seconds) -> Self {
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
    }
}

// === impl Session ===

impl From<HandedSession> for Session {
    fn from(session: HandedSession) -> Self {
        let HandedSession { provider, token, ends, renewable } = session;
        Self { provider, token: SealedValue(token), ends: ends.map(Seconds::from), renewable }
    }
}

impl From<Session> for HandedSession {
    fn from(session: Session) -> Self {
        let Session { provider, token: SealedValue(token), ends, renewable } = session;
        Self { provider, token, ends: ends.map(SystemTime::from), renewable }
    }
}

// === impl Answer ===

impl From<HandedAnswer> for Answer {
    fn from(answer: HandedAnswer) -> Self {
        let HandedAnswer { request, tree, ends, granted, lease, delivered } = answer;
        let lease = lease.map(|HandedLease { id, renewable }| (SealedValue(id), renewable));
        Self { request, tree: tree.into(), ends: ends.into(), life_seconds: granted.as_secs(), lease, delivered }
    }
}

impl From<Answer> for HandedAnswer {
    fn from(answer: Answer) -> Self {
        let Answer { request, tree, ends, life_seconds, lease, delivered } = answer;
        let lease = lease.map(|(SealedValue(id), renewable)| HandedLease { id, renewable });
        let granted = Duration::from_secs(life_seconds);
        Self { request, tree: tree.into(), ends: ends.into(), granted, lease, delivered }
    }
}

// === impl Drained ===

impl From<HandedRetiredLease> for Drained {
    fn from(draining: HandedRetiredLease) -> Self {
        let HandedRetiredLease { provider, lease, ends, revoke_at } = draining;
        Self { provider, lease: SealedValue(lease), ends: ends.into(), revoke_at: revoke_at.map(Seconds::from) }
    }
}

impl From<Drained> for HandedRetiredLease {
    fn from(drained: Drained) -> Self {
        let Drained { provider, lease: SealedValue(lease), ends, revoke_at } = drained;
        Self { provider, lease, ends: ends.into(), revoke_at: revoke_at.map(SystemTime::from) }
    }
}

// === impl Remembered ===

impl From<(Request, AnswerDigest)> for Remembered {
    fn from((request, AnswerDigest { fingerprint, had_entries }): (Request, AnswerDigest)) -> Self {
        Self { request, fingerprint: SealedValue(fingerprint), had_entries }
    }
}

impl Remembered {
    fn into_digest(self) -> (Request, AnswerDigest) {
        let Self { request, fingerprint: SealedValue(fingerprint), had_entries } = self;
        (request, AnswerDigest { fingerprint, had_entries })
    }
}
