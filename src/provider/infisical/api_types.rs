//! Infisical's JSON, read straight into the types that keep secrets.

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac};
use serde::Deserialize;

use crate::provider::ErrorKind;
use crate::secret::{SecretTree, SecretValue};

/// A folder.
#[derive(Deserialize)]
pub(super) struct Listing {
    secrets: Vec<Secret>,
    #[serde(default)]
    imports: Vec<Import>,
}

/// One secret by its name.
#[derive(Deserialize)]
pub(super) struct Single {
    pub(super) secret: Secret,
}

/// Another folder's secrets.
#[derive(Deserialize)]
struct Import {
    #[serde(default, rename = "secretPath")]
    path: String,
    #[serde(default)]
    environment: String,
    secrets: Vec<Secret>,
}

/// One secret.
#[derive(Deserialize)]
pub(super) struct Secret {
    #[serde(default)]
    id: String,
    #[serde(default)]
    pub(super) version: u64,
    #[serde(default)]
    r#type: String,
    #[serde(rename = "secretKey")]
    key: String,
    #[serde(default, rename = "secretValue")]
    value: Option<SecretValue>,
    /// The caller may know of it, and not read it: the value is a placeholder.
    #[serde(default, rename = "secretValueHidden")]
    is_hidden: bool,
    #[serde(default, rename = "secretPath")]
    pub(super) path: String,
    /// Another folder has the same key.
    #[serde(skip)]
    is_twice: bool,
    /// What it refers to is out of this identity's reach.
    #[serde(skip)]
    pub(super) is_out_of_reach: bool,
}

/// Why one secret of several cannot be had.
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    /// Behind its name.
    pub(super) why: &'static str,
    /// In a version.
    mark: &'static str,
}

/// What an answer comes to.
pub(super) struct Document {
    pub(super) tree: SecretTree,
    /// Names the versions of all secrets in it, and none of their values.
    pub(super) versions: String,
    /// Keyed digest of the values, to notice a change that no version tells.
    pub(super) content: Vec<u8>,
}

/// Bytes of a digest of versions that are shown.
const VERSION_BYTES: usize = 8;

// === impl Listing ===

impl Listing {
    /// The folder as one document. Its own secrets count before imported ones, and of those the last import's.
    ///
    /// Where sub-folders repeat a key, neither counts.
    pub(super) fn into_secrets(self) -> BTreeMap<String, Secret> {
        let mut found: BTreeMap<String, Secret> = BTreeMap::new();
        // What is a person's own is nothing for a pod.
        for secret in self.secrets.into_iter().filter(|secret| secret.r#type != "personal") {
            if let Some(other) = found.get_mut(&secret.key) {
                other.is_twice = true;
                continue;
            }
            found.insert(secret.key.clone(), secret);
        }
        for import in self.imports.into_iter().rev() {
            for mut secret in import.secrets {
                secret.path = format!("{}:{}", import.environment, import.path);
                found.entry(secret.key.clone()).or_insert(secret);
            }
        }
        found
    }
}

// === impl Secret ===

impl Secret {
    /// Why its value is not to be had, if that is so.
    pub(super) fn fault(&self, keeps_unresolved: bool) -> Option<Fault> {
        let fault = |kind, mark, why: &'static str| Some(Fault { kind, why, mark });
        if self.is_twice {
            return fault(ErrorKind::Invalid, "twice", "is in two of its folders: take them one by one, or rename one");
        }
        if self.is_hidden {
            let why = "is hidden from this identity: allow it to read that value";
            return fault(ErrorKind::Denied, "hidden", why);
        }
        if self.is_out_of_reach {
            let why = "refers to a secret that this identity may not read: allow it to read that value, too";
            return fault(ErrorKind::Denied, "out of reach", why);
        }
        if !keeps_unresolved && self.refers() {
            let why = "has a ${…} in it that refers to nothing Infisical knows, or to something empty: correct it \
                       there, or write ?unresolved=keep if it is meant as it stands";
            return fault(ErrorKind::Invalid, "unresolved", why);
        }
        None
    }

    /// Whether its value refers to another's.
    pub(super) fn refers(&self) -> bool {
        self.value.as_ref().is_some_and(|value| has_reference(value.expose()))
    }

    /// Takes the value that another answer has for it.
    pub(super) fn take_value(&mut self, other: Self) {
        (self.value, self.is_hidden) = (other.value, other.is_hidden);
    }
}

// === impl Document ===

impl Document {
    /// Of what can be had, and of what cannot, with the reason in the place of the value. Both are in the version, so
    /// replicas agree on what they leave out.
    pub(super) fn new(secrets: BTreeMap<String, Secret>, keeps_unresolved: bool, key: &hmac::Key) -> Self {
        let mut versions = digest::Context::new(&digest::SHA256);
        let mut content = hmac::Context::with_key(key);
        let mut entries = BTreeMap::new();
        for (name, secret) in secrets {
            let fault = secret.fault(keeps_unresolved);
            let Secret { id, version, value, path, .. } = secret;
            // Lengths, so no two lists run together into the same bytes.
            let mut note = |text: &[u8]| {
                versions.update(&(text.len() as u64).to_be_bytes());
                versions.update(text);
            };
            for text in [name.as_bytes(), path.as_bytes(), id.as_bytes(), &version.to_be_bytes()] {
                note(text);
            }
            if let Some(Fault { mark, .. }) = &fault {
                note(mark.as_bytes());
            }
            let tree = match fault {
                Some(Fault { why, .. }) => SecretTree::Withheld(why.into()),
                None => SecretTree::Text(value.unwrap_or_else(|| "".into())),
            };
            for text in [name.as_bytes(), tree.as_value().map(SecretValue::expose).unwrap_or_default()] {
                content.update(&(text.len() as u64).to_be_bytes());
                content.update(text);
            }
            entries.insert(name, tree);
        }
        let mut versions = hex::encode(versions.finish());
        versions.truncate(2 * VERSION_BYTES);
        Self { tree: SecretTree::Map(entries), versions, content: content.sign().as_ref().to_vec() }
    }
}

/// Whether text has a `${name}` or `${environment.folder.name}` in it. What a shell or a template puts between the
/// braces besides names (`${HOME:-/}`, `${ x }`) is not one.
fn has_reference(text: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    text.windows(2).enumerate().filter(|(_, pair)| pair == b"${").any(|(at, _)| {
        let rest = text.get(at + 2..).unwrap_or_default();
        let name = rest.iter().take_while(|byte| is_name(byte)).count();
        name > 0 && rest.get(name) == Some(&b'}')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(json: &str, keeps_unresolved: bool) -> Document {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let secrets = serde_json::from_str::<Listing>(json).unwrap().into_secrets();
        Document::new(secrets, keeps_unresolved, &key)
    }

    fn secret(key: &str, value: &str) -> String {
        format!(r#"{{"id":"id-{key}","version":1,"type":"shared","secretKey":"{key}","secretValue":"{value}"}}"#)
    }

    fn shown(document: &Document) -> Vec<(String, String)> {
        let SecretTree::Map(entries) = &document.tree else { panic!() };
        let text = |tree: &SecretTree| tree.as_value().unwrap().expose_str().unwrap().to_owned();
        entries.iter().map(|(key, tree)| (key.clone(), text(tree))).collect()
    }

    #[test]
    fn direct_secrets_count_first_and_then_the_last_import() {
        let import = |path: &str, secrets: &str| {
            format!(r#"{{"secretPath":"{path}","environment":"prod","folderId":"f","secrets":[{secrets}]}}"#)
        };
        let json = format!(
            r#"{{"secrets":[{}],"imports":[{},{}]}}"#,
            secret("B", "direct"),
            import("/one", &[secret("A", "one"), secret("B", "one"), secret("C", "one")].join(",")),
            import("/two", &[secret("A", "two"), secret("A", "two again"), secret("B", "two")].join(",")),
        );
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(shown(&document(&json, false)), [pair("A", "two"), pair("B", "direct"), pair("C", "one")]);
    }

    #[test]
    fn the_order_of_an_answer_means_nothing_to_its_version() {
        let (a, b) = (secret("A", "x"), secret("B", "y"));
        let one = document(&format!(r#"{{"secrets":[{a},{b}]}}"#), false);
        let two = document(&format!(r#"{{"secrets":[{b},{a}]}}"#), false);
        assert_eq!((&one.versions, &one.content), (&two.versions, &two.content));
        assert_eq!(one.versions.len(), 16);
        let other = document(&format!(r#"{{"secrets":[{a},{}]}}"#, b.replace("\"version\":1", "\"version\":2")), false);
        assert_ne!(other.versions, one.versions);
        assert_eq!(other.content, one.content);
    }

    #[test]
    fn p5_a_version_says_nothing_of_a_value() {
        let of = |value| document(&format!(r#"{{"secrets":[{}]}}"#, secret("A", value)), false);
        assert_eq!(of("canary").versions, of("other").versions);
        assert_ne!(of("canary").content, of("other").content);
    }

    #[test]
    fn a_persons_own_secret_is_nothing_for_a_pod() {
        let personal = secret("A", "canary").replace("shared", "personal");
        let json = format!(r#"{{"secrets":[{personal},{}]}}"#, secret("A", "shared"));
        assert_eq!(shown(&document(&json, false)), [("A".to_owned(), "shared".to_owned())]);
    }

    #[test]
    fn p5_what_cannot_be_had_withholds_itself_alone_and_is_in_the_version() {
        let hidden = secret("A", "canary").replace("\"type\"", "\"secretValueHidden\":true,\"type\"");
        let repeated = format!(
            "{},{}",
            secret("A", "canary").replace("\"type\"", "\"secretPath\":\"/app\",\"type\""),
            secret("A", "canary").replace("\"type\"", "\"secretPath\":\"/app/sub\",\"type\"")
        );
        let mut versions = vec![document(&format!(r#"{{"secrets":[{}]}}"#, secret("A", "x")), false).versions];
        for (secrets, part) in [
            (hidden, "is hidden from this identity"),
            (secret("A", "canary ${prod.db.PASSWORD}"), "?unresolved=keep"),
            (repeated, "is in two of its folders"),
        ] {
            let alone = document(&format!(r#"{{"secrets":[{secrets}]}}"#), false);
            let document = document(&format!(r#"{{"secrets":[{secrets},{}]}}"#, secret("B", "good")), false);
            assert_eq!(document.tree.key("B").unwrap(), SecretTree::Text("good".into()));
            let SecretTree::Withheld(why) = document.tree.key("A").unwrap() else { panic!("{part}") };
            assert!(why.contains(part) && !why.contains("canary"), "{why}");
            versions.push(alone.versions);
        }
        versions.sort();
        versions.dedup();
        assert_eq!(versions.len(), 4, "each omission is a state of its own");
    }

    #[test]
    fn references_are_told_from_what_shells_write() {
        for (text, is_reference) in [
            ("${KEY}", true),
            ("a${prod.db-1.KEY_2}b", true),
            ("$${KEY}", true),
            ("${a ${KEY}", true),
            ("${HOME:-/root}", false),
            ("${}", false),
            ("${KEY", false),
            ("$KEY {KEY} ${ KEY }", false),
            ("${#list}", false),
            ("${", false),
            ("", false),
        ] {
            assert_eq!(has_reference(text.as_bytes()), is_reference, "{text}");
            let json = format!(r#"{{"secrets":[{}]}}"#, secret("A", text));
            assert_eq!(document(&json, false).tree.withheld().is_some(), is_reference, "{text}");
            assert_eq!(shown(&document(&json, true))[0].1, text, "kept if that is wished");
        }
    }
}
