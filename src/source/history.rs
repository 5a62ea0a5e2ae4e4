//! Names of generations, and the way back to them.

use std::collections::VecDeque;

use aws_lc_rs::{digest, hmac, rand};
use serde::{Deserialize, Serialize};

use crate::generation::GenerationId;
use crate::provider::{ProviderError, Version};
use crate::reference::Request;
use crate::secret::{SecretTree, SecretValue};

/// A generation that was, without its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastGeneration {
    /// Its name.
    pub id: GenerationId,
    /// What it was made of.
    pub origins: Vec<(Request, Origin)>,
}

/// What names the state of one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The store's version.
    Version(Version),
    /// A credential that was made for this pod.
    Lease,
    /// Nothing: the store has no versions.
    Unversioned,
    /// There was no such secret, and only optional items wanted it.
    Absent,
}

/// Why a generation cannot be read again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// It is not one of the last ones.
    #[error("generation {0} is not one of the last {limit} that this pod had", limit = super::history::LIMIT)]
    Unknown(GenerationId),
    /// A credential that was made for it is gone.
    #[error(
        "{0} is a lease, which a store does not hand out twice: a generation with it can be held, not pinned later"
    )]
    Leased(Request),
    /// The store keeps no earlier versions.
    #[error("{0} has no versions at its store, so what it was cannot be read again")]
    Unversioned(Request),
    /// The store failed.
    #[error("{request}: {error}")]
    Read {
        /// What was asked.
        request: Request,
        /// Why it failed.
        error: ProviderError,
    },
}

/// How many generations are remembered.
pub(super) const LIMIT: usize = 16;

/// Bytes of the digest that an id shows: enough to tell any two generations apart that a pod will ever see.
const ID_BYTES: usize = 8;

/// The generations that were, and the counter that names those which versions do not.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) counter: u64,
    pub(super) last: Option<GenerationId>,
    past: VecDeque<PastGeneration>,
}

/// Keyed digests of answers, so the next process can tell whether one changed without being given its values.
pub(super) struct Fingerprints {
    salt: SecretValue,
    key: hmac::Key,
}

// === impl Ledger ===

impl Ledger {
    pub(super) fn new(counter: u64, last: Option<GenerationId>, past: Vec<PastGeneration>) -> Self {
        Self { counter, last, past: past.into() }
    }

    /// Names a generation and remembers it. `uncounted`: something changed that no version tells.
    pub(super) fn enter(&mut self, origins: Vec<(Request, Origin)>, uncounted: bool) -> GenerationId {
        let by_count = origins.iter().any(|(_, origin)| matches!(origin, Origin::Lease | Origin::Unversioned));
        let mut id = digest_of(&origins);
        if by_count {
            if uncounted || self.counter == 0 {
                self.counter += 1;
            }
            id = format!("{id}-{}", self.counter);
        }
        let id = GenerationId(id);
        self.past.retain(|past| past.id != id);
        self.past.push_back(PastGeneration { id: id.clone(), origins });
        while self.past.len() > LIMIT {
            self.past.pop_front();
        }
        self.last = Some(id.clone());
        id
    }

    pub(super) fn past(&self) -> Vec<PastGeneration> {
        self.past.iter().cloned().collect()
    }

    pub(super) fn origins(&self, id: &GenerationId) -> Option<&[(Request, Origin)]> {
        self.past.iter().find(|past| past.id == *id).map(|past| past.origins.as_slice())
    }

    /// The versions of an earlier generation; `None` for what was absent.
    pub(super) fn versions(&self, id: &GenerationId) -> Result<Vec<(Request, Option<Version>)>, PinError> {
        let past = self.past.iter().find(|past| past.id == *id).ok_or_else(|| PinError::Unknown(id.clone()))?;
        let version = |(request, origin): &(Request, Origin)| match origin {
            Origin::Version(version) => Ok((request.clone(), Some(version.clone()))),
            Origin::Absent => Ok((request.clone(), None)),
            Origin::Lease => Err(PinError::Leased(request.clone())),
            Origin::Unversioned => Err(PinError::Unversioned(request.clone())),
        };
        past.origins.iter().map(version).collect()
    }
}

fn digest_of(origins: &[(Request, Origin)]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut field = |text: &str| {
        // Lengths, so no two lists of pairs run together into the same bytes.
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    };
    for (request, origin) in origins {
        field(&request.to_string());
        match origin {
            Origin::Version(Version(version)) => {
                field("version");
                field(version);
            }
            Origin::Lease => field("lease"),
            Origin::Unversioned => field("unversioned"),
            Origin::Absent => field("absent"),
        }
    }
    context.finish().as_ref().get(..ID_BYTES).map(hex::encode).unwrap_or_default()
}

// === impl Fingerprints ===

impl Fingerprints {
    pub(super) fn random() -> Self {
        let mut salt = vec![0; 32];
        // Only the hand-over, which holds credentials anyway, ever has a fingerprint in it.
        let _ = rand::fill(&mut salt);
        Self::with(SecretValue::new(salt))
    }

    pub(super) fn with(salt: SecretValue) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, salt.expose()), salt }
    }

    pub(super) fn salt(&self) -> &SecretValue {
        &self.salt
    }

    pub(super) fn of(&self, request: &Request, tree: &SecretTree) -> SecretValue {
        let mut context = hmac::Context::with_key(&self.key);
        feed(&mut context, b'r', request.to_string().as_bytes());
        feed_tree(&mut context, tree);
        SecretValue::new(context.sign().as_ref().to_vec())
    }
}

fn feed(context: &mut hmac::Context, kind: u8, bytes: &[u8]) {
    context.update(&[kind]);
    context.update(&(bytes.len() as u64).to_be_bytes());
    context.update(bytes);
}

fn feed_tree(context: &mut hmac::Context, tree: &SecretTree) {
    match tree {
        SecretTree::Literal(value) => feed(context, b'l', value.expose()),
        SecretTree::Text(value) => feed(context, b't', value.expose()),
        SecretTree::Binary(value) => feed(context, b'b', value.expose()),
        SecretTree::Withheld(why) => feed(context, b'!', why.as_bytes()),
        SecretTree::List(items) => {
            feed(context, b'[', &(items.len() as u64).to_be_bytes());
            for item in items {
                feed_tree(context, item);
            }
        }
        SecretTree::Map(entries) => {
            feed(context, b'{', &(entries.len() as u64).to_be_bytes());
            for (key, value) in entries {
                feed(context, b'k', key.as_bytes());
                feed_tree(context, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn request(path: &str) -> Request {
        Request { provider: "vault".into(), path: path.into(), params: BTreeMap::new() }
    }

    fn version(name: &str) -> Origin {
        Origin::Version(Version(name.to_owned()))
    }

    fn id(origins: &[(&str, Origin)], uncounted: bool) -> String {
        let origins = origins.iter().map(|(path, origin)| (request(path), origin.clone())).collect();
        Ledger::default().enter(origins, uncounted).0
    }

    #[test]
    fn ids_name_requests_and_versions_and_nothing_else() {
        let one = id(&[("a", version("1")), ("b", version("2"))], true);
        assert_eq!(one, "ad71abd5bd7f5507", "replicas of any build agree on this one");
        assert_eq!(one.len(), 16);
        for other in [
            id(&[("a", version("1")), ("b", version("3"))], true),
            id(&[("a", version("1b")), ("", version("2"))], true),
            id(&[("a", version("1"))], true),
            id(&[("a", version("1")), ("b", Origin::Absent)], true),
            id(&[("a", version("1")), ("b", Origin::Lease)], true),
            id(&[("a", version("1")), ("b", Origin::Unversioned)], true),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_counter_names_what_has_no_versions() {
        let mut ledger = Ledger::default();
        let mut enter = |origin: &Origin, uncounted| {
            let GenerationId(id) = ledger.enter(vec![(request("a"), origin.clone())], uncounted);
            id.split_once('-').map(|(_, counter)| counter.to_owned())
        };
        for (origin, uncounted, counter) in [
            (Origin::Unversioned, true, Some("1")),
            (Origin::Unversioned, true, Some("2")),
            (Origin::Lease, false, Some("2")),
            (Origin::Lease, true, Some("3")),
            (version("1"), false, None),
        ] {
            assert_eq!(enter(&origin, uncounted).as_deref(), counter, "{origin:?}");
        }
    }

    #[test]
    fn the_last_generations_are_remembered_each_once() {
        let mut ledger = Ledger::default();
        let mut enter = |n: usize| ledger.enter(vec![(request("a"), version(&n.to_string()))], false);
        let first = enter(0);
        let ids: Vec<_> = (1..=LIMIT).map(&mut enter).collect();
        enter(3);
        assert_eq!(ledger.past().len(), LIMIT);
        assert_eq!(ledger.versions(&first), Err(PinError::Unknown(first.clone())));
        assert_eq!(ledger.versions(&ids[2]).unwrap(), [(request("a"), Some(Version("3".into())))]);
        assert_eq!(ledger.past().last().unwrap().id, ids[2], "what came back is the latest");
        assert!(PinError::Unknown(first).to_string().contains("not one of the last 16"));
    }

    #[test]
    fn p5_fingerprints_are_keyed_and_tell_answers_apart() {
        let tree = |json: &str| SecretTree::from_json(json.as_bytes()).unwrap();
        let one = Fingerprints::random();
        let print = |fingerprints: &Fingerprints, json: &str| fingerprints.of(&request("a"), &tree(json));
        let same = Fingerprints::with(one.salt().clone());
        assert_eq!(print(&one, r#"{"a":"1"}"#), print(&same, r#"{"a":"1"}"#));
        assert_ne!(print(&one, r#"{"a":"1"}"#), print(&Fingerprints::random(), r#"{"a":"1"}"#), "another salt");
        let all =
            [r#"{"a":"1"}"#, r#"{"a":1}"#, r#"{"a":["1"]}"#, r#"{"a1":""}"#, r#"["a","1"]"#, r#""a1""#, "{}", "[]"];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(print(&one, a), print(&one, b), "{a} {b}");
            }
        }
    }
}
