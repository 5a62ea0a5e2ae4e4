//! SOPS documents (<https://getsops.io/docs/>): names in the open, each value encrypted by itself with AES-256-GCM, the
//! key to all of them encrypted to age recipients, and a MAC over the values in the order in which they stand.
//!
//! What the documentation leaves open is as in SOPS' own source, 3.13 (`sops.go`, `aes/cipher.go`, `stores/`). A value's
//! path is bound to it, so values cannot be swapped; list indices are no part of a path. Comments and nulls are not
//! in the MAC.

use aws_lc_rs::digest;

use self::form::{ENCRYPTED, METADATA, METADATA_PREFIX, Problem};
use self::node::Typed;
use self::value::DataKey;
use super::keys::{AgeKeys, Sealed};
use crate::provider::{ErrorKind, ProviderError};
use crate::secret::document::{Fields, Node};
use crate::secret::{SecretTree, SecretValue};

mod form;
mod node;
mod value;

/// Formats that SOPS keeps documents in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SopsFormat {
    Json,
    Yaml,
    Dotenv,
    /// JSON around a single value.
    Binary,
}

/// Where [`SopsFormat::Binary`] keeps the value.
const DATA: &str = "data";
/// Metadata that SOPS always writes, and age's: a map without any of them is the document's own.
const TELLTALES: [&str; 3] = ["mac", "lastmodified", "age"];
/// Lists of keys that are of no use here.
const OTHER_KEYS: [&str; 6] = ["kms", "gcp_kms", "azure_kv", "hc_vault", "hckms", "pgp"];
/// Rules that only a regular expression's engine can follow.
const REGEX_RULES: [&str; 4] =
    ["encrypted_regex", "unencrypted_regex", "encrypted_comment_regex", "unencrypted_comment_regex"];
/// Each one costs a key agreement for each identity.
const MAX_RECIPIENTS: usize = 256;
/// What the MAC starts with where it is of encrypted values only: SHA-256 of "sops".
const ONLY_ENCRYPTED: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b, 0x0b, 0x97, 0x5b,
    0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];

/// Which values are encrypted.
enum Rule {
    /// All but those below a key with this ending.
    Except(String),
    /// Those below a key with this ending.
    Only(String),
    /// A regular expression says. Whatever it says, the MAC is of all values.
    Looks,
}

/// What a document says about itself.
struct SopsMetadata {
    /// The data key, encrypted to one age recipient each.
    data_keys: Vec<String>,
    recipients: Vec<String>,
    rule: Rule,
    last_modified: String,
    mac: String,
    mac_only_encrypted: bool,
}

/// Walks a document, decrypts and hashes.
struct Walk<'a> {
    key: &'a DataKey,
    rule: &'a Rule,
    only_encrypted: bool,
    /// Keys on the way, each with a `:` behind it: what a value is bound to.
    path: String,
    /// One of them has the rule's ending.
    is_matched: bool,
    mac: digest::Context,
}

/// Whether a document that was read as a plain one is SOPS'.
pub(super) fn is_sops(tree: &SecretTree) -> bool {
    let SecretTree::Map(entries) = tree else { return false };
    let Some(SecretTree::Map(metadata)) = entries.get(METADATA) else { return false };
    TELLTALES.iter().any(|name| metadata.contains_key(*name))
}

/// Whether a dotenv file is SOPS'.
pub(super) fn is_sops_dotenv(text: &str) -> bool {
    let names = text.lines().filter_map(|line| line.strip_prefix(METADATA_PREFIX)?.split_once('='));
    names.into_iter().any(|(name, _)| TELLTALES.contains(&name) || name.starts_with("age__"))
}

/// Whether something in here is encrypted, though nothing says how.
pub(super) fn has_encrypted_values(text: &str) -> bool {
    text.contains(ENCRYPTED)
}

/// Decrypts a document and verifies its MAC. `name` is for messages.
///
/// # Errors
/// `Invalid`, whatever is wrong with it; what [`AgeKeys`] cannot get at otherwise.
pub(super) fn decrypt(name: &str, format: SopsFormat, text: &str, keys: &AgeKeys) -> Result<SecretTree, ProviderError> {
    let error = |Problem { kind, text }| ProviderError::new(kind, text.behind(&format!("{name}: ")));
    let document = match format {
        SopsFormat::Json | SopsFormat::Binary => node::json(text),
        SopsFormat::Yaml => node::yaml(text),
        SopsFormat::Dotenv => node::dotenv(text),
    };
    let mut document = document.map_err(error)?;
    let Some(at) = document.iter().position(|(key, _)| key == METADATA) else {
        let problem = "has values that sops encrypted, and no sops metadata: it was cut or changed without sops";
        return Err(error(Problem::new(problem)));
    };
    let metadata = SopsMetadata::read(&document.remove(at).1).map_err(error)?;
    let key = data_key(name, &metadata, keys)?;
    let mut tree = walk(document, &metadata, &key).map_err(error)?;
    if format != SopsFormat::Binary {
        return Ok(tree);
    }
    match &mut tree {
        SecretTree::Map(entries) if entries.len() == 1 => entries.remove(DATA),
        _ => None,
    }
    .ok_or_else(|| {
        error(Problem::new(
            "is a SOPS document, and its name does not say of which format: let it end in .json, .yaml, .yml or .env",
        ))
    })
}

fn data_key(name: &str, metadata: &SopsMetadata, keys: &AgeKeys) -> Result<DataKey, ProviderError> {
    let invalid = |problem: &str| ProviderError::new(ErrorKind::Invalid, format!("{name}: {problem}"));
    let mut broken = None;
    for sealed in &metadata.data_keys {
        match keys.open(sealed.as_bytes()) {
            Ok(key) => {
                return DataKey::new(&key).ok_or_else(|| invalid("has a data key that is not of 256 bits"));
            }
            Err(Sealed::Keys(ProviderError { kind, message })) => {
                return Err(ProviderError::new(kind, message.behind(&format!("{name}: "))));
            }
            Err(Sealed::NotForUs) => {}
            Err(Sealed::Broken(problem)) => broken = Some(problem),
        }
    }
    Err(match broken {
        Some(problem) => invalid(&format!("a data key in its SOPS metadata {problem}")),
        None => invalid(&format!(
            "is not encrypted to the provider's age identity{}: encrypt it to that recipient, too (sops updatekeys)",
            metadata.recipients()
        )),
    })
}

fn walk(document: Fields, metadata: &SopsMetadata, key: &DataKey) -> Result<SecretTree, Problem> {
    let mut walk = Walk {
        key,
        rule: &metadata.rule,
        only_encrypted: metadata.mac_only_encrypted,
        path: String::new(),
        is_matched: false,
        mac: digest::Context::new(&digest::SHA512),
    };
    if metadata.mac_only_encrypted {
        walk.mac.update(&ONLY_ENCRYPTED);
    }
    let tree = walk.map(document)?;
    let found = hex::encode_upper(walk.mac.finish().as_ref());
    let (kind, written) = value::decrypt(&metadata.mac, key, &metadata.last_modified)
        .map_err(|_| Problem::new("has a MAC that cannot be decrypted: the file was changed without sops"))?;
    if kind == value::Kind::Text && written == SecretValue::from(found) {
        return Ok(tree);
    }
    Err(Problem::new(
        "does not match its MAC: values were changed, added, removed or moved without sops, which may be an attack",
    ))
}

// === impl SopsMetadata ===

impl SopsMetadata {
    fn read(node: &Node) -> Result<Self, Problem> {
        let text = |name: &str| node.get(name).and_then(node::text).unwrap_or_default().to_owned();
        let items = |name: &str| match node.get(name) {
            Some(Node::List(items)) => items.as_slice(),
            _ => &[],
        };
        let each = |name: &str| -> Vec<String> {
            let texts = items("age").iter().filter_map(|item| item.get(name).and_then(node::text));
            texts.map(str::to_owned).collect()
        };
        let (data_keys, recipients) = (each("enc"), each("recipient"));
        if data_keys.len() > MAX_RECIPIENTS {
            return Err(Problem::new(format!(
                "is encrypted to more than {MAX_RECIPIENTS} age recipients: take some out (sops updatekeys)"
            )));
        }
        if data_keys.is_empty() {
            return Err(Problem::new(if !items("key_groups").is_empty() {
                "needs several key groups (Shamir's secret sharing) to be opened: encrypt it to one group of age recipients"
            } else if OTHER_KEYS.iter().any(|name| !items(name).is_empty()) {
                "is encrypted to keys of other kinds only (KMS, PGP and the like): add an age recipient"
            } else {
                "has no age recipient in its SOPS metadata"
            }));
        }
        let mac = text("mac");
        if mac.is_empty() {
            return Err(Problem::new("has no MAC, so nothing tells whether it was changed: encrypt it again"));
        }
        let mac_only_encrypted = match node.get("mac_only_encrypted") {
            // Dotenv files have only text.
            Some(Node::Literal(only) | Node::Plain(only) | Node::Text(only)) => only.expose() == b"true",
            _ => false,
        };
        let rule = Rule::read(node)?;
        if mac_only_encrypted && matches!(rule, Rule::Looks) {
            return Err(Problem::new(
                "has mac_only_encrypted beside a regular expression, so it cannot be told which values the MAC \
                 protects: use encrypted_suffix or unencrypted_suffix, or a MAC over all values",
            ));
        }
        Ok(Self { data_keys, recipients, rule, last_modified: text("lastmodified"), mac, mac_only_encrypted })
    }

    /// The first few, for a message. Public keys, if that is what they are.
    fn recipients(&self) -> String {
        let is_key = |key: &&String| key.starts_with("age1") && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let shown: Vec<_> =
            self.recipients.iter().filter(is_key).take(3).map(|key| key.get(..62).unwrap_or(key)).collect();
        if shown.is_empty() { String::new() } else { format!(" but to {}", shown.join(", ")) }
    }
}

// === impl Rule ===

impl Rule {
    fn read(node: &Node) -> Result<Self, Problem> {
        let text = |name: &str| node.get(name).and_then(node::text).filter(|text| !text.is_empty());
        let regex = REGEX_RULES.iter().find_map(|name| text(name));
        match (text("unencrypted_suffix"), text("encrypted_suffix"), regex) {
            (None, None, None) => Ok(Self::Except("_unencrypted".to_owned())),
            (Some(suffix), None, None) => Ok(Self::Except(suffix.to_owned())),
            (None, Some(suffix), None) => Ok(Self::Only(suffix.to_owned())),
            (None, None, Some(_)) => Ok(Self::Looks),
            _ => Err(Problem::new("has more than one rule for what is encrypted: SOPS allows one")),
        }
    }

    fn is_matched(&self, key: &str) -> bool {
        match self {
            Self::Except(suffix) | Self::Only(suffix) => key.ends_with(suffix),
            Self::Looks => false,
        }
    }
}

// === impl Walk ===

impl Walk<'_> {
    fn map(&mut self, fields: Fields) -> Result<SecretTree, Problem> {
        let entries = fields.into_iter().map(|(key, node)| {
            let (here, was_matched) = (self.path.len(), self.is_matched);
            self.path.extend([&key, ":"]);
            self.is_matched |= self.rule.is_matched(&key);
            let tree = self
                .node(node)?
                .ok_or_else(|| Problem::new("is an encrypted comment, where none can be").at(&self.path))?;
            self.path.truncate(here);
            self.is_matched = was_matched;
            Ok((key, tree))
        });
        entries.collect::<Result<_, _>>().map(SecretTree::Map)
    }

    /// `None` is an encrypted comment: SOPS keeps those of a list among its items.
    fn node(&mut self, node: Node) -> Result<Option<SecretTree>, Problem> {
        let text = match node {
            Node::Map(fields) => return self.map(fields).map(Some),
            Node::List(items) => {
                let items = items.into_iter().filter_map(|item| self.node(item).transpose());
                return items.collect::<Result<_, _>>().map(|items| Some(SecretTree::List(items)));
            }
            Node::Text(text) | Node::Bytes(text) => text,
            Node::Literal(ref text) | Node::Plain(ref text) => match node::typed(text.expose_str().unwrap_or_default())
            {
                Typed::Text => text.clone(),
                Typed::Null => return Ok(Some(SecretTree::null())),
                _ if self.is_encrypted(None) => return Err(self.plain_where_encrypted()),
                typed => {
                    if let Some(in_mac) = value::in_mac(typed, text) {
                        self.hash_plain(&in_mac);
                    }
                    return Ok(Some(node.into()));
                }
            },
        };
        // SOPS leaves empty text as it is.
        if !self.is_encrypted(Some(&text)) || text.is_empty() {
            self.hash_plain(&text);
            return Ok(Some(text.into()));
        }
        let Some(sealed) = text.expose_str().filter(|text| text.starts_with(ENCRYPTED)) else {
            return Err(self.plain_where_encrypted());
        };
        let opened = value::decrypt(sealed, self.key, &self.path).and_then(|(kind, text)| value::leaf(kind, text));
        let value::Leaf { tree, in_mac } = opened.map_err(|problem| Problem::new(problem).at(&self.path))?;
        self.mac.update(in_mac.expose());
        Ok(tree)
    }

    fn is_encrypted(&self, text: Option<&SecretValue>) -> bool {
        match self.rule {
            Rule::Except(_) => !self.is_matched,
            Rule::Only(_) => self.is_matched,
            Rule::Looks => text.and_then(SecretValue::expose_str).is_some_and(|text| text.starts_with(ENCRYPTED)),
        }
    }

    fn plain_where_encrypted(&self) -> Problem {
        Problem::new("is not encrypted, and by the file's rule it should be: it was changed without sops")
            .at(&self.path)
    }

    fn hash_plain(&mut self, in_mac: &SecretValue) {
        if !self.only_encrypted {
            self.mac.update(in_mac.expose());
        }
    }
}

#[cfg(test)]
mod tests;
