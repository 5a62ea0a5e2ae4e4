//! What Infisical's JSON says, read straight into the types that keep secrets.

use std::collections::BTreeMap;
use std::fmt::Write;

use aws_lc_rs::{digest, hmac};
use serde::Deserialize;

use crate::provider::ErrorKind;
use crate::provider::http::Failure;
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::{Sentence, store_names};

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
    path: String,
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
    /// # Errors
    /// `Invalid` if sub-folders repeat a key, `Denied` if a value is hidden; `place` names the folder.
    pub(super) fn into_secrets(self, place: &str) -> Result<BTreeMap<String, Secret>, Failure> {
        let mut found: BTreeMap<String, Secret> = BTreeMap::new();
        // What is a person's own is nothing for a pod.
        for secret in self.secrets.into_iter().filter(|secret| secret.r#type != "personal") {
            if let Some(other) = found.get(&secret.key) {
                let (key, one, two) = (&secret.key, &other.path, &secret.path);
                let advice = "take the folders one by one, or rename one of them";
                let message = Sentence::hiding(
                    format!(
                        "{place}: {} is in {} and in {}: {advice}",
                        store_names([key.as_str()]),
                        store_names([one.as_str()]),
                        store_names([two.as_str()])
                    ),
                    format!("{place}: two of its folders have one and the same key: {advice}"),
                );
                return Err(Failure::new(ErrorKind::Invalid, message));
            }
            found.insert(secret.key.clone(), secret);
        }
        for import in self.imports.into_iter().rev() {
            for mut secret in import.secrets {
                secret.path = format!("{}:{}", import.environment, import.path);
                found.entry(secret.key.clone()).or_insert(secret);
            }
        }
        Ok(found)
    }
}

// === impl Document ===

impl Document {
    /// # Errors
    /// `Denied` if a value is hidden, `Invalid` if a reference in one leads nowhere; `place` says where.
    pub(super) fn new(
        secrets: BTreeMap<String, Secret>,
        place: &str,
        keeps_unresolved: bool,
        key: &hmac::Key,
    ) -> Result<Self, Failure> {
        let mut versions = digest::Context::new(&digest::SHA256);
        let mut content = hmac::Context::with_key(key);
        let mut entries = BTreeMap::new();
        for (name, secret) in secrets {
            let Secret { id, version, value, is_hidden, path, .. } = secret;
            let value = value.unwrap_or_else(|| "".into());
            if is_hidden {
                let said = "is hidden from this identity: allow it to read that value, or take the other secrets one by \
                            one (?secret=<KEY>)";
                let message = Sentence::hiding(
                    format!("{place}: the value of {} {said}", store_names([name.as_str()])),
                    format!("{place}: a value {said}"),
                );
                return Err(Failure::new(ErrorKind::Denied, message));
            }
            if !keeps_unresolved && has_reference(value.expose()) {
                let said = "has a ${…} in it that refers to nothing Infisical knows: correct it there, or write \
                            ?unresolved=keep if it is meant as it stands";
                let message = Sentence::hiding(
                    format!("{place}: {} {said}", store_names([name.as_str()])),
                    format!("{place}: a value {said}"),
                );
                return Err(Failure::new(ErrorKind::Invalid, message));
            }
            for text in [name.as_bytes(), path.as_bytes(), id.as_bytes(), &version.to_be_bytes()] {
                // Lengths, so that no two lists run together into the same bytes.
                versions.update(&(text.len() as u64).to_be_bytes());
                versions.update(text);
            }
            for text in [name.as_bytes(), value.expose()] {
                content.update(&(text.len() as u64).to_be_bytes());
                content.update(text);
            }
            entries.insert(name, SecretTree::Text(value));
        }
        let versions = versions.finish().as_ref().iter().take(VERSION_BYTES).fold(String::new(), |mut hex, byte| {
            // Writing into a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Ok(Self { tree: SecretTree::Map(entries), versions, content: content.sign().as_ref().to_vec() })
    }
}

/// Whether text has a `${name}` or `${environment.folder.name}` in it. What a shell or a template puts between the
/// braces besides names (`${HOME:-/}`, `${ x }`) is none.
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

    fn document(json: &str, keeps_unresolved: bool) -> Result<Document, Failure> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let secrets = serde_json::from_str::<Listing>(json).unwrap().into_secrets("/app in environment prod")?;
        Document::new(secrets, "/app in environment prod", keeps_unresolved, &key)
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
        assert_eq!(shown(&document(&json, false).unwrap()), [pair("A", "two"), pair("B", "direct"), pair("C", "one")]);
    }

    #[test]
    fn the_order_of_an_answer_means_nothing_to_its_version() {
        let (a, b) = (secret("A", "x"), secret("B", "y"));
        let one = document(&format!(r#"{{"secrets":[{a},{b}]}}"#), false).unwrap();
        let two = document(&format!(r#"{{"secrets":[{b},{a}]}}"#), false).unwrap();
        assert_eq!((&one.versions, &one.content), (&two.versions, &two.content));
        assert_eq!(one.versions.len(), 16);
        let other = document(&format!(r#"{{"secrets":[{a},{}]}}"#, b.replace("\"version\":1", "\"version\":2")), false);
        let other = other.unwrap();
        assert_ne!(other.versions, one.versions);
        assert_eq!(other.content, one.content);
    }

    #[test]
    fn p5_a_version_says_nothing_of_a_value() {
        let of = |value| document(&format!(r#"{{"secrets":[{}]}}"#, secret("A", value)), false).unwrap();
        assert_eq!(of("canary").versions, of("other").versions);
        assert_ne!(of("canary").content, of("other").content);
    }

    #[test]
    fn a_persons_own_secret_is_nothing_for_a_pod() {
        let personal = secret("A", "canary").replace("shared", "personal");
        let json = format!(r#"{{"secrets":[{personal},{}]}}"#, secret("A", "shared"));
        assert_eq!(shown(&document(&json, false).unwrap()), [("A".to_owned(), "shared".to_owned())]);
    }

    #[test]
    fn p5_what_cannot_be_delivered_is_named_without_its_value() {
        let hidden = secret("A", "canary").replace("\"type\"", "\"secretValueHidden\":true,\"type\"");
        let repeated = format!(
            "{},{}",
            secret("A", "canary").replace("\"type\"", "\"secretPath\":\"/app\",\"type\""),
            secret("A", "canary").replace("\"type\"", "\"secretPath\":\"/app/sub\",\"type\"")
        );
        for (secrets, kind, parts) in [
            (hidden, ErrorKind::Denied, &["/app", "value of A is hidden", "?secret="][..]),
            (secret("A", "canary ${prod.db.PASSWORD}"), ErrorKind::Invalid, &["A has a ${…}", "?unresolved=keep"]),
            (repeated, ErrorKind::Invalid, &["A is in /app and in /app/sub"]),
        ] {
            let failure = document(&format!(r#"{{"secrets":[{secrets}]}}"#), false).err().unwrap();
            assert_eq!(failure.error.kind, kind);
            for part in parts {
                assert!(failure.error.message.contains(part), "{}", failure.error);
            }
            assert!(!failure.error.message.contains("canary"));
            let public = failure.error.message.public();
            assert!(public.starts_with("/app in") && !public.contains("A ") && !public.contains("/sub"), "{public}");
        }
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
            assert_eq!(document(&json, false).is_err(), is_reference, "{text}");
            assert_eq!(shown(&document(&json, true).unwrap())[0].1, text, "kept if that is wished");
        }
    }
}
