//! Vault's JSON, read straight into the types that keep secrets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::provider::http::date;
use crate::provider::{Answer, Lease, Version};
use crate::secret::{DocumentError, SecretTree, SecretValue};

/// Every answer's frame.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(default)]
    pub(super) lease_id: Option<SecretValue>,
    #[serde(default)]
    pub(super) renewable: bool,
    /// Seconds. Without a lease id it is KV version 1's hint about how often to look.
    #[serde(default)]
    pub(super) lease_duration: u64,
    /// Read by itself: no number in it may be computed.
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) auth: Option<Auth>,
    /// The engine's type; older servers do not say.
    #[serde(default)]
    mount_type: Option<String>,
}

/// What a login answers.
#[derive(Deserialize)]
pub(super) struct Auth {
    pub(super) client_token: SecretValue,
    /// Seconds; 0 for ever.
    #[serde(default)]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// A 404's frame: KV version 2 tells of deleted versions there.
#[derive(Deserialize)]
struct Absence {
    data: Option<AbsentData>,
}

#[derive(Deserialize)]
struct AbsentData {
    metadata: VersionState,
}

/// What KV version 2 knows of one version.
#[derive(Deserialize)]
pub(super) struct VersionState {
    #[serde(default)]
    version: u64,
    #[serde(default)]
    created_time: String,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

/// Stands between a version's number and when it was made.
const VERSION_MADE: char = '@';

/// How an engine without leases says until when its answer is good.
enum Expiry {
    /// A point in seconds since 1970.
    At(&'static str),
    /// Seconds from now.
    In(&'static str),
}

/// By the field that tells the engine: certificates (PKI), tokens (GCP, identity) and rotated passwords (static roles).
const EXPIRIES: [(&str, Expiry); 4] = [
    ("serial_number", Expiry::At("expiration")),
    ("last_vault_rotation", Expiry::In("ttl")),
    ("token", Expiry::At("expires_at_seconds")),
    ("client_id", Expiry::In("ttl")),
];

// === impl Envelope ===

impl Envelope<'_> {
    /// All that is in this answer, if there is anything.
    ///
    /// # Errors
    /// [`DocumentError`] if it is over a bound, or has a key twice.
    pub(super) fn data(&self) -> Result<Option<SecretTree>, DocumentError> {
        self.data.map(|data| SecretTree::from_json(data.get().as_bytes())).transpose()
    }

    /// The values in this answer, if there are any. `path` is what was read.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub(super) fn into_answer(self, path: &str) -> Result<Option<Answer>, DocumentError> {
        Ok(self.data()?.map(|tree| self.with(tree, path)))
    }

    fn with(self, tree: SecretTree, path: &str) -> Answer {
        if let Some(id) = self.lease_id.filter(|id| !id.is_empty()) {
            let lease = Lease { id, ttl: Duration::from_secs(self.lease_duration), renewable: self.renewable };
            return Answer { tree, version: None, expires_in: None, lease: Some(lease) };
        }
        let (tree, version) = match versioned(tree, path) {
            Ok((tree, version)) => (tree, Some(version)),
            Err(tree) => (tree, None),
        };
        let is_kv = version.is_some() || self.mount_type.as_deref() == Some("kv");
        let expires_in = if is_kv { None } else { expiry(&tree) };
        Answer { tree, version, expires_in, lease: None }
    }
}

/// KV version 2's values and version, or the tree again if it is of another engine.
fn versioned(tree: SecretTree, path: &str) -> Result<(SecretTree, Version), SecretTree> {
    let is_kv2 = path.contains("/data/")
        && ["created_time", "deletion_time", "destroyed"]
            .iter()
            .all(|field| tree.pointer(&["metadata".to_owned(), (*field).to_owned()]).is_ok());
    let field = |name: &str| tree.pointer(&["metadata".to_owned(), name.to_owned()]).ok();
    let version = field("version").as_ref().and_then(number);
    match (tree.key("data"), version) {
        (Ok(values @ SecretTree::Map(_)), Some(version)) if is_kv2 => {
            let created = field("created_time");
            let created = created.as_ref().and_then(SecretTree::as_value).and_then(SecretValue::expose_str);
            Ok((values, named(version, created.unwrap_or_default())))
        }
        _ => Err(tree),
    }
}

/// A version's number and when it was made: a secret that was deleted and made anew, or a store that was, counts from
/// one again.
fn named(number: u64, created_time: &str) -> Version {
    Version(format!("{number}{VERSION_MADE}{created_time}"))
}

/// The number alone, as Vault takes it.
pub(super) fn number_of(version: &str) -> &str {
    version.split_once(VERSION_MADE).map_or(version, |(number, _)| number)
}

fn expiry(tree: &SecretTree) -> Option<Duration> {
    EXPIRIES.iter().find_map(|(marker, expiry)| {
        tree.key(marker).ok()?;
        match expiry {
            Expiry::In(field) => Some(Duration::from_secs(number(&tree.key(field).ok()?)?.max(1))),
            Expiry::At(field) => {
                // Beyond what a clock can tell there is no end.
                let at = UNIX_EPOCH.checked_add(Duration::from_secs(number(&tree.key(field).ok()?)?))?;
                Some(at.duration_since(SystemTime::now()).unwrap_or_default())
            }
        }
    })
}

/// A whole number, as itself or as text.
pub(super) fn number(tree: &SecretTree) -> Option<u64> {
    tree.as_value()?.expose_str()?.parse().ok()
}

/// What a 404 of KV version 2 tells about a version that once was: its number and what became of it.
pub(super) fn former_version(body: &[u8]) -> Option<String> {
    let state = serde_json::from_slice::<Absence>(body).ok()?.data?.metadata;
    let VersionState { version, deletion_time, destroyed, .. } = state;
    if destroyed {
        return Some(format!("version {version} was destroyed"));
    }
    // To the second; and nothing but a point in time, since this is Vault's text.
    let when: String = deletion_time.chars().take(19).collect();
    let is_time = when.len() == 19 && when.bytes().all(|b| b.is_ascii_digit() || b"-:T".contains(&b));
    is_time.then(|| format!("version {version} was deleted at {when}Z"))
}

// === impl VersionState ===

impl VersionState {
    /// The name of this version, whose number is not always in it.
    pub(super) fn name(&self, number: u64) -> Version {
        named(number, &self.created_time)
    }

    /// Neither destroyed nor deleted. A version that is to be deleted some time (`delete_version_after`) is still there.
    pub(super) fn is_there(&self) -> bool {
        let is_to_come = || date::parse_rfc3339(&self.deletion_time).is_some_and(|at| date::now() < at);
        !self.destroyed && (self.deletion_time.is_empty() || is_to_come())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(path: &str, json: &str) -> Answer {
        serde_json::from_str::<Envelope<'_>>(json).unwrap().into_answer(path).unwrap().unwrap()
    }

    #[test]
    fn engines_without_leases_say_until_when_an_answer_is_good() {
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
        for (what, data, seconds) in [
            (
                "a static role",
                r#"{"last_vault_rotation":"2026-11-21T10:59:46Z","password":"p","ttl":60}"#.to_owned(),
                Some(60),
            ),
            ("one about to rotate", r#"{"last_vault_rotation":"2026-11-21T10:59:46Z","ttl":0}"#.to_owned(), Some(1)),
            ("an identity token", r#"{"client_id":"c","token":"t","ttl":300}"#.to_owned(), Some(300)),
            (
                "a token of GCP",
                format!(r#"{{"expires_at_seconds":{},"token":"t","token_ttl":9}}"#, now + 600),
                Some(600),
            ),
            ("a certificate", format!(r#"{{"expiration":{},"serial_number":"5f"}}"#, now + 900), Some(900)),
            ("one that has expired", r#"{"expiration":1,"serial_number":"5f"}"#.to_owned(), Some(0)),
            ("one beyond the clock", format!(r#"{{"expiration":{},"serial_number":"5f"}}"#, u64::MAX), None),
            ("an SSH certificate", r#"{"serial_number":"5f","signed_key":"k"}"#.to_owned(), None),
            ("a secret with a ttl of its own", r#"{"ttl":60}"#.to_owned(), None),
        ] {
            let found = answer("x/y", &format!(r#"{{"lease_id":"","data":{data}}}"#)).expires_in;
            // A second may pass while this runs.
            let is_near = match (found, seconds) {
                (Some(found), Some(seconds)) => found <= Duration::from_secs(seconds) && found.as_secs() + 2 >= seconds,
                (found, seconds) => found.is_none() && seconds.is_none(),
            };
            assert!(is_near, "{what}: {found:?} is not {seconds:?}");
        }
        let kv = r#"{"lease_id":"","data":{"expiration":1,"serial_number":"5f"},"mount_type":"kv"}"#;
        assert_eq!(answer("kv/x", kv).expires_in, None, "what people keep in a KV engine has no meaning for Vault");
    }

    #[test]
    fn p5_of_a_404_only_numbers_and_times_are_told() {
        let body = |deletion_time: &str, destroyed: bool| {
            format!(
                r#"{{"data":{{"data":null,"metadata":{{"version":2,"deletion_time":"{deletion_time}","destroyed":{destroyed}}}}}}}"#
            )
        };
        for (body, told) in [
            (body("2026-11-21T10:26:13.109256157Z", false), Some("version 2 was deleted at 2026-11-21T10:26:13Z")),
            (body("", true), Some("version 2 was destroyed")),
            (body("canary canary canary", false), None),
            (r#"{"errors":[]}"#.to_owned(), None),
            ("canary".to_owned(), None),
        ] {
            assert_eq!(former_version(body.as_bytes()).as_deref(), told, "{body}");
        }
    }
}
