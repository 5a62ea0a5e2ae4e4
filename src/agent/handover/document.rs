//! The hand-over as JSON: every secret is base64, every point in time whole seconds since 1970 (rounded down, so that
//! nothing is believed to live longer than it does, and so that the same state always is the same bytes).

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Estate;
use crate::reference::Request;
use crate::secret::{SecretTree, SecretValue};
use crate::source::{Draining, GenerationId, HandOver, HandedAnswer, HandedLease, HandedSession, PastGeneration, Seen};

/// The format that this program writes and understands.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
pub(super) struct Document {
    version: u32,
    told: Option<GenerationId>,
    last: Option<GenerationId>,
    counter: u64,
    salt: Option<Sealed>,
    sessions: Vec<Session>,
    leased: Vec<Answer>,
    draining: Vec<Drained>,
    /// Absent in what agents of earlier versions wrote.
    #[serde(default)]
    patience: Vec<(String, Seconds)>,
    seen: Vec<Remembered>,
    history: Vec<PastGeneration>,
}

/// A secret, base64 in the file.
struct Sealed(SecretValue);

/// Seconds since 1970.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
struct Seconds(u64);

#[derive(Serialize, Deserialize)]
struct Session {
    provider: String,
    token: Sealed,
    ends: Option<Seconds>,
    renewable: bool,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    request: Request,
    tree: Tree,
    ends: Seconds,
    life_seconds: u64,
    lease: Option<(Sealed, bool)>,
    delivered: bool,
}

#[derive(Serialize, Deserialize)]
struct Drained {
    provider: String,
    lease: Sealed,
    ends: Seconds,
    revoke_at: Option<Seconds>,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    request: Request,
    fingerprint: Sealed,
    had_entries: bool,
}

#[derive(Serialize, Deserialize)]
enum Tree {
    Literal(Sealed),
    Text(Sealed),
    Binary(Sealed),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
    Withheld(String),
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

// === impl Document ===

impl Document {
    pub(super) fn new(hand_over: HandOver, told: Option<GenerationId>) -> Self {
        let HandOver { sessions, leased, draining, patience, seen, salt, counter, history, last } = hand_over;
        Self {
            version: VERSION,
            told,
            last,
            counter,
            salt: salt.map(Sealed),
            sessions: sessions.into_iter().map(Session::from).collect(),
            leased: leased.into_iter().map(Answer::from).collect(),
            draining: draining.into_iter().map(Drained::from).collect(),
            patience: patience.into_iter().map(|(name, at)| (name, at.into())).collect(),
            seen: seen.into_iter().map(Remembered::from).collect(),
            history,
        }
    }

    /// Errors are in our words alone: serde's would quote what they stumbled over.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let place = |error: serde_json::Error| format!("it is damaged at byte {}", error.column());
        let VersionOnly { version } = serde_json::from_slice(bytes).map_err(place)?;
        if version != VERSION {
            return Err(format!("it has format {version}, and this agent understands {VERSION}"));
        }
        serde_json::from_slice(bytes).map_err(place)
    }

    pub(super) fn into_estate(self) -> Estate {
        let Self { version: _, told, last, counter, salt, sessions, leased, draining, patience, seen, history } = self;
        let hand_over = HandOver {
            sessions: sessions.into_iter().map(HandedSession::from).collect(),
            leased: leased.into_iter().map(HandedAnswer::from).collect(),
            draining: draining.into_iter().map(Draining::from).collect(),
            patience: patience.into_iter().map(|(name, at)| (name, at.into())).collect(),
            seen: seen.into_iter().map(Seen::from).collect(),
            salt: salt.map(|Sealed(salt)| salt),
            counter,
            history,
            last,
        };
        Estate { hand_over, told }
    }
}

// === impl Sealed ===

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Written piece by piece: no other copy is made.
        serializer.collect_str(&Base64Display::new(self.0.expose(), &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = Sealed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sealed, E> {
                let bytes = STANDARD.decode(text).map_err(|_| E::custom("no base64"))?;
                Ok(Sealed(SecretValue::new(bytes)))
            }
        }
        deserializer.deserialize_str(Base64)
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
        Self { provider, token: Sealed(token), ends: ends.map(Seconds::from), renewable }
    }
}

impl From<Session> for HandedSession {
    fn from(session: Session) -> Self {
        let Session { provider, token: Sealed(token), ends, renewable } = session;
        Self { provider, token, ends: ends.map(SystemTime::from), renewable }
    }
}

// === impl Answer ===

impl From<HandedAnswer> for Answer {
    fn from(answer: HandedAnswer) -> Self {
        let HandedAnswer { request, tree, ends, life, lease, delivered } = answer;
        let lease = lease.map(|HandedLease { id, renewable }| (Sealed(id), renewable));
        Self { request, tree: tree.into(), ends: ends.into(), life_seconds: life.as_secs(), lease, delivered }
    }
}

impl From<Answer> for HandedAnswer {
    fn from(answer: Answer) -> Self {
        let Answer { request, tree, ends, life_seconds, lease, delivered } = answer;
        let lease = lease.map(|(Sealed(id), renewable)| HandedLease { id, renewable });
        let life = Duration::from_secs(life_seconds);
        Self { request, tree: tree.into(), ends: ends.into(), life, lease, delivered }
    }
}

// === impl Drained ===

impl From<Draining> for Drained {
    fn from(draining: Draining) -> Self {
        let Draining { provider, lease, ends, revoke_at } = draining;
        Self { provider, lease: Sealed(lease), ends: ends.into(), revoke_at: revoke_at.map(Seconds::from) }
    }
}

impl From<Drained> for Draining {
    fn from(drained: Drained) -> Self {
        let Drained { provider, lease: Sealed(lease), ends, revoke_at } = drained;
        Self { provider, lease, ends: ends.into(), revoke_at: revoke_at.map(SystemTime::from) }
    }
}

// === impl Remembered ===

impl From<Seen> for Remembered {
    fn from(seen: Seen) -> Self {
        let Seen { request, fingerprint, had_entries } = seen;
        Self { request, fingerprint: Sealed(fingerprint), had_entries }
    }
}

impl From<Remembered> for Seen {
    fn from(remembered: Remembered) -> Self {
        let Remembered { request, fingerprint: Sealed(fingerprint), had_entries } = remembered;
        Self { request, fingerprint, had_entries }
    }
}

// === impl Tree ===

impl From<SecretTree> for Tree {
    fn from(tree: SecretTree) -> Self {
        match tree {
            SecretTree::Literal(value) => Self::Literal(Sealed(value)),
            SecretTree::Text(value) => Self::Text(Sealed(value)),
            SecretTree::Binary(value) => Self::Binary(Sealed(value)),
            SecretTree::List(items) => Self::List(items.into_iter().map(Self::from).collect()),
            SecretTree::Map(entries) => {
                Self::Map(entries.into_iter().map(|(key, tree)| (key, Self::from(tree))).collect())
            }
            SecretTree::Withheld(why) => Self::Withheld(why.as_ref().to_owned()),
        }
    }
}

impl From<Tree> for SecretTree {
    fn from(tree: Tree) -> Self {
        match tree {
            Tree::Literal(Sealed(value)) => Self::Literal(value),
            Tree::Text(Sealed(value)) => Self::Text(value),
            Tree::Binary(Sealed(value)) => Self::Binary(value),
            Tree::List(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Tree::Map(entries) => Self::Map(entries.into_iter().map(|(key, tree)| (key, Self::from(tree))).collect()),
            Tree::Withheld(why) => Self::Withheld(why.into()),
        }
    }
}
