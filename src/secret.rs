//! The only place where secret bytes live.
//!
//! Every value that a store hands us is held by [`SecretValue`]; a whole answer is a [`SecretTree`] of them. Neither
//! has `Display` or `Serialize`, both print as `<redacted>`, and reading one is an explicit, greppable `expose()`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::sentence::{Sentence, store_names};

/// Bytes of a secret, wiped when the last holder lets go.
///
/// Clones share one buffer, so that a value stands in memory once however many files it goes into.
///
/// ```
/// # fn at(place: usize) -> [u8; 512] {
/// #     use std::os::unix::fs::FileExt as _;
/// #     let mut bytes = [0; 512];
/// #     std::fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, place as u64).unwrap();
/// #     bytes
/// # }
/// # use hushpod::secret::SecretValue;
/// # // An allocator may write into what it got back, but not all over it.
/// # let is_there = |place| at(place).windows(16).any(|bytes| bytes == [b'c'; 16]);
/// let value = SecretValue::new(vec![b'c'; 512]);
/// # let place = value.expose().as_ptr() as usize;
/// let other = value.clone();
/// drop(value);
/// # assert!(is_there(place));
/// assert_eq!(other.expose(), [b'c'; 512]);
/// drop(other); // and now it is nowhere
/// # assert!(!is_there(place));
/// # let plain = vec![b'c'; 512];
/// # let place = plain.as_ptr() as usize;
/// # drop(plain);
/// # assert!(is_there(place), "or this would show nothing");
/// ```
///
/// What shows or writes things takes no secret, unless somebody exposes it:
///
/// ```
/// fn show(_: &impl std::fmt::Display) {}
/// fn write(_: &impl serde::Serialize) {}
/// let value = hushpod::secret::SecretValue::from("x");
/// show(&value.expose_str().unwrap());
/// write(&value.expose_str().unwrap());
/// ```
///
/// ```compile_fail,E0277
/// # fn show(_: &impl std::fmt::Display) {}
/// let value = hushpod::secret::SecretValue::from("x");
/// show(&value);
/// ```
///
/// ```compile_fail,E0277
/// # fn write(_: &impl serde::Serialize) {}
/// let value = hushpod::secret::SecretValue::from("x");
/// write(&value);
/// ```
#[derive(Clone)]
pub struct SecretValue(Arc<Zeroizing<Vec<u8>>>);

/// What a store answered for one request: a value, or a document of values.
///
/// Keys are names, not secrets: they may stand in errors. Leaves may not.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretTree {
    /// A JSON number, `true`, `false` or `null`, as its JSON text.
    Literal(SecretValue),
    /// UTF-8 text.
    Text(SecretValue),
    /// Bytes that are not UTF-8.
    Binary(SecretValue),
    /// An ordered list.
    List(Vec<SecretTree>),
    /// A document, keys in byte order.
    Map(BTreeMap<String, SecretTree>),
}

/// Why [`SecretTree::pointer`] found nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No such key; `known` are its neighbours, which only the store knows.
    #[error("no key {key:?}")]
    NoKey {
        /// The key that was asked for.
        key: String,
        /// The keys that exist beside it.
        known: Vec<String>,
    },
    /// The pointer goes on below a plain value.
    #[error("{key:?} is asked for inside a single value, not a document")]
    NotADocument {
        /// The key that was asked for.
        key: String,
    },
}

// === impl LookupError ===

impl LookupError {
    /// What to tell: logs have the neighbours, too.
    #[must_use]
    pub fn sentence(&self) -> Sentence {
        let public = self.to_string();
        match self {
            Self::NoKey { known, .. } if !known.is_empty() => {
                let known = store_names(known.iter().map(String::as_str));
                Sentence::hiding(format!("{public} (there are: {known})"), public)
            }
            _ => public.into(),
        }
    }
}

// === impl SecretValue ===

impl SecretValue {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes. Whoever calls this answers for where they go.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are UTF-8.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for SecretValue {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl From<String> for SecretValue {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl PartialEq for SecretValue {
    fn eq(&self, other: &Self) -> bool {
        // Time must not tell how long the common prefix is.
        self.len() == other.len() && self.expose().iter().zip(other.expose()).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }
}

impl Eq for SecretValue {}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

// === impl SecretTree ===

impl SecretTree {
    /// Text if the bytes are UTF-8, else binary.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        let value = SecretValue::new(bytes);
        if value.expose_str().is_some() { Self::Text(value) } else { Self::Binary(value) }
    }

    /// The single value, if this is one.
    #[must_use]
    pub fn as_value(&self) -> Option<&SecretValue> {
        match self {
            Self::Literal(value) | Self::Text(value) | Self::Binary(value) => Some(value),
            Self::List(_) | Self::Map(_) => None,
        }
    }

    /// Whether this is a document or list without anything in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// The value under one literal key.
    ///
    /// # Errors
    /// [`LookupError`] if there is no such key, or this is no document.
    pub fn key(&self, key: &str) -> Result<Self, LookupError> {
        self.pointer(&[key.to_owned()])
    }

    /// Follows unescaped JSON-pointer tokens (RFC 6901). Text that is itself a JSON document is parsed on the way,
    /// since stores keep documents in string fields.
    ///
    /// # Errors
    /// [`LookupError`] names the first token that leads nowhere.
    pub fn pointer(&self, tokens: &[String]) -> Result<Self, LookupError> {
        let Some((token, rest)) = tokens.split_first() else { return Ok(self.clone()) };
        match self {
            Self::Map(entries) => match entries.get(token) {
                Some(child) => child.pointer(rest),
                None => Err(LookupError::NoKey { key: token.clone(), known: entries.keys().cloned().collect() }),
            },
            Self::List(items) => match token.parse::<usize>().ok().and_then(|index| items.get(index)) {
                Some(child) => child.pointer(rest),
                None => Err(LookupError::NoKey { key: token.clone(), known: vec![format!("0 to {}", items.len())] }),
            },
            Self::Text(text) => match serde_json::from_slice::<Self>(text.expose()) {
                Ok(parsed @ (Self::Map(_) | Self::List(_))) => parsed.pointer(tokens),
                _ => Err(LookupError::NotADocument { key: token.clone() }),
            },
            Self::Literal(_) | Self::Binary(_) => Err(LookupError::NotADocument { key: token.clone() }),
        }
    }
}

impl fmt::Debug for SecretTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) | Self::Text(_) | Self::Binary(_) => f.write_str("<redacted>"),
            Self::List(items) => f.debug_list().entries(items).finish(),
            Self::Map(entries) => f.debug_map().entries(entries).finish(),
        }
    }
}

impl<'de> Deserialize<'de> for SecretTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = SecretTree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a document")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<SecretTree, E> {
        Ok(SecretTree::Literal(value.to_string().into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<SecretTree, E> {
        Ok(SecretTree::Literal(value.to_string().into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<SecretTree, E> {
        Ok(SecretTree::Literal(value.to_string().into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<SecretTree, E> {
        let text = serde_json::Number::from_f64(value).map_or_else(|| "null".to_owned(), |number| number.to_string());
        Ok(SecretTree::Literal(text.into()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<SecretTree, E> {
        Ok(SecretTree::Literal("null".into()))
    }

    fn visit_none<E: de::Error>(self) -> Result<SecretTree, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<SecretTree, D::Error> {
        SecretTree::deserialize(deserializer)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<SecretTree, E> {
        Ok(SecretTree::Text(value.into()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<SecretTree, E> {
        Ok(SecretTree::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<SecretTree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(SecretTree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretTree, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, SecretTree>()? {
            entries.insert(key, value);
        }
        Ok(SecretTree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> SecretTree {
        serde_json::from_str(json).unwrap()
    }

    fn tokens(pointer: &[&str]) -> Vec<String> {
        pointer.iter().map(|&token| token.to_owned()).collect()
    }

    #[test]
    fn p5_debug_never_shows_a_value() {
        let shown = format!("{:?}", tree(r#"{"user":"canary-a","deep":{"list":["canary-b",424242]}}"#));
        assert!(!shown.contains("canary") && !shown.contains("424242"), "{shown}");
        assert!(shown.contains("user"), "keys may be shown: {shown}");
        assert_eq!(format!("{:?}", SecretValue::from("canary")), "<redacted>");
    }

    #[test]
    fn pointer_walks_documents_lists_and_json_in_strings() {
        let doc = tree(r#"{"db":"{\"users\":[{\"password\":\"p\"}]}","a.b":"dotted"}"#);
        let found = doc.pointer(&tokens(&["db", "users", "0", "password"])).unwrap();
        assert_eq!(found, SecretTree::Text("p".into()));
        assert_eq!(doc.key("a.b").unwrap(), SecretTree::Text("dotted".into()));
    }

    #[test]
    fn pointer_errors_name_the_key_and_its_neighbours_but_no_value() {
        let doc = tree(r#"{"user":"canary","password":"canary"}"#);
        let missing = doc.key("passwd").unwrap_err();
        assert_eq!(&*missing.sentence(), r#"no key "passwd" (there are: password, user)"#);
        assert_eq!(
            (missing.sentence().public(), missing.to_string().as_str()),
            (r#"no key "passwd""#, r#"no key "passwd""#)
        );
        let below = doc.pointer(&tokens(&["user", "name"])).unwrap_err().to_string();
        assert_eq!(below, r#""name" is asked for inside a single value, not a document"#);
    }

    #[test]
    fn numbers_and_booleans_keep_their_json_text() {
        let doc = tree(r#"{"port":5432,"tls":true,"none":null,"ratio":0.5}"#);
        for (key, text) in [("port", "5432"), ("tls", "true"), ("none", "null"), ("ratio", "0.5")] {
            assert_eq!(doc.key(key).unwrap().as_value().unwrap().expose_str(), Some(text));
        }
    }
}
