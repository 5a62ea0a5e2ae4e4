//! A store's answer as a tree, and the look-up of values in it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{DocumentError, SecretValue};
use crate::sentence::{SHOWN_NAMES, Sentence, store_names};

/// Bytes of a value's node, of a map's share of its nodes, and of what an allocator rounds up.
const NODE: u64 = 128;

/// What a store answered for one request: a value, or a document of values.
///
/// Keys are names, not secrets: they may stand in errors. Leaves may not.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretTree {
    /// A JSON number, `true`, `false` or `null`, to the letter as its source has it: no digit is ever computed.
    Literal(SecretValue),
    /// UTF-8 text.
    Text(SecretValue),
    /// Bytes that are not UTF-8.
    Binary(SecretValue),
    /// An ordered list.
    List(Vec<SecretTree>),
    /// A document, keys in byte order.
    Map(BTreeMap<String, SecretTree>),
    /// A value that is there and that cannot be had, and why, in our own words, to stand behind its name: "is hidden from
    /// this identity". What takes it fails; all else goes on.
    Withheld(Arc<str>),
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
    /// The pointer goes on below text that is not a document.
    #[error("{key:?} is asked for inside text that {error}")]
    NoJson {
        /// The key that was asked for.
        key: String,
        /// What is wrong with the text, and where.
        error: DocumentError,
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

// === impl SecretTree ===

impl SecretTree {
    /// Text if the bytes are UTF-8, else binary.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        SecretValue::new(bytes).into()
    }

    /// JSON's `null`: no value at all.
    #[must_use]
    pub fn null() -> Self {
        Self::Literal("null".into())
    }

    /// Whether this is JSON's `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Literal(text) if text.expose() == b"null")
    }

    /// The single value, if this is one.
    #[must_use]
    pub fn as_value(&self) -> Option<&SecretValue> {
        match self {
            Self::Literal(value) | Self::Text(value) | Self::Binary(value) => Some(value),
            Self::List(_) | Self::Map(_) | Self::Withheld(_) => None,
        }
    }

    /// Why this cannot be had, or a part of it, if that is so.
    #[must_use]
    pub fn withheld(&self) -> Option<&str> {
        match self {
            Self::Withheld(why) => Some(why),
            Self::List(items) => items.iter().find_map(Self::withheld),
            Self::Map(entries) => entries.values().find_map(Self::withheld),
            Self::Literal(_) | Self::Text(_) | Self::Binary(_) => None,
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

    /// Whether it is a document that has any.
    #[must_use]
    pub fn has_entries(&self) -> bool {
        matches!(self, Self::Map(_) | Self::List(_)) && !self.is_empty()
    }

    /// How many values, lists and maps this is.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::List(items) => items.iter().map(Self::count).sum::<usize>() + 1,
            Self::Map(entries) => entries.values().map(Self::count).sum::<usize>() + 1,
            _ => 1,
        }
    }

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let below = match self {
            Self::Literal(value) | Self::Text(value) | Self::Binary(value) => value.expose().len() as u64,
            Self::List(items) => items.iter().map(Self::memory).sum(),
            Self::Map(entries) => entries.iter().map(|(key, child)| key.len() as u64 + child.memory()).sum(),
            Self::Withheld(_) => 0,
        };
        NODE + below
    }

    /// The same for one of so many values, made of a text of so many bytes.
    #[must_use]
    pub fn memory_of(values: usize, text: usize) -> u64 {
        NODE * values as u64 + text as u64
    }

    /// The parts below these paths, each a list of tokens as [`SecretTree::pointer`] takes it, in their places; of the rest
    /// as many names as are told when one of the keys is not there. Text that is itself a document stays whole.
    #[must_use]
    pub fn only(self, paths: &[&[String]]) -> Self {
        if paths.iter().any(|path| path.is_empty()) {
            return self;
        }
        let below = |name: &str| -> Vec<&[String]> {
            let split = paths.iter().filter_map(|path| path.split_first());
            split.filter(|(first, _)| *first == name).map(|(_, rest)| rest).collect()
        };
        let unasked = || Self::Withheld(Arc::from(""));
        match self {
            Self::Map(entries) => {
                let is_missing = paths.iter().filter_map(|path| path.first()).any(|key| !entries.contains_key(key));
                let mut told = if is_missing { SHOWN_NAMES + 1 } else { 0 };
                let kept = entries.into_iter().filter_map(|(key, child)| match below(&key) {
                    paths if !paths.is_empty() => Some((key, child.only(&paths))),
                    _ if told == 0 => None,
                    _ => {
                        told -= 1;
                        Some((key, unasked()))
                    }
                });
                Self::Map(kept.collect())
            }
            Self::List(items) => {
                let kept = items.into_iter().enumerate().map(|(index, child)| match below(&index.to_string()) {
                    paths if paths.is_empty() => unasked(),
                    paths => child.only(&paths),
                });
                Self::List(kept.collect())
            }
            value => value,
        }
    }

    /// The value under one literal key.
    ///
    /// # Errors
    /// [`LookupError`] if there is no such key, or this is not a document.
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
            Self::Text(text) => match Self::from_json(text.expose()) {
                Ok(parsed @ (Self::Map(_) | Self::List(_))) => parsed.pointer(tokens),
                Ok(_) => Err(LookupError::NotADocument { key: token.clone() }),
                Err(error) => Err(LookupError::NoJson { key: token.clone(), error }),
            },
            Self::Literal(_) | Self::Binary(_) => Err(LookupError::NotADocument { key: token.clone() }),
            // Whatever would be found in it.
            Self::Withheld(_) => Ok(self.clone()),
        }
    }
}

/// Text if the bytes are UTF-8, else binary.
impl From<SecretValue> for SecretTree {
    fn from(value: SecretValue) -> Self {
        if value.expose_str().is_some() { Self::Text(value) } else { Self::Binary(value) }
    }
}

impl fmt::Debug for SecretTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) | Self::Text(_) | Self::Binary(_) => f.write_str("<redacted>"),
            Self::List(items) => f.debug_list().entries(items).finish(),
            Self::Map(entries) => f.debug_map().entries(entries).finish(),
            Self::Withheld(why) => write!(f, "<withheld: {why}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> SecretTree {
        SecretTree::from_json(json.as_bytes()).unwrap()
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
    fn only_what_is_asked_for_is_kept_and_every_look_up_says_the_same() {
        let names: Vec<_> = (0..100).map(|n| format!(r#""k{n:03}":"{n}""#)).collect();
        let many = format!("{{{},\"db\":{{\"user\":\"u\",\"more\":[1,{{\"a\":\"x\",\"b\":2}},3]}}}}", names.join(","));
        for (paths, most) in [
            (vec![vec!["k007"]], 2),
            (vec![vec!["k007"], vec!["k099"]], 3),
            (vec![vec!["db", "user"]], 3),
            (vec![vec!["db", "more", "1", "a"]], 7),
            (vec![vec!["db", "more", "7"]], 7),
            (vec![vec!["zz"]], 10),
            (vec![vec!["k050"], vec!["aa"]], 11),
            (vec![vec!["db", "user", "below"]], 3),
            (vec![vec!["db"]], 9),
            (vec![vec!["db"], vec!["db", "user"]], 9),
            (vec![vec![], vec!["k007"]], 200),
        ] {
            let paths: Vec<_> = paths.iter().map(|path| tokens(path)).collect();
            let kept = tree(&many).only(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>());
            assert!(kept.count() <= most, "{paths:?}: {}", kept.count());
            for path in &paths {
                let told =
                    |found: Result<SecretTree, LookupError>| found.map_err(|error| (*error.sentence()).to_owned());
                assert_eq!(told(kept.pointer(path)), told(tree(&many).pointer(path)), "{path:?}");
            }
        }
        let text = SecretTree::Text(r#"{"a":"b"}"#.into());
        assert_eq!(text.clone().only(&[&tokens(&["a"])]), text);
        assert!(tree("{}").only(&[&tokens(&["a"])]).is_empty());
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
        assert_eq!(below, r#""name" is asked for inside text that is not JSON at line 1, column 1"#);
    }

    #[test]
    fn asked_inside_text_that_is_no_document_it_is_told_where_it_stops_to_be_one() {
        for (text, told) in [
            ("{'canary':'u'}", r#""user" is asked for inside text that is not JSON at line 1, column 2"#),
            ("canary", r#""user" is asked for inside text that is not JSON at line 1, column 1"#),
            ("{\"user\":\n \"canary", r#""user" is asked for inside text that is not JSON at line 2, column 9"#),
            (
                r#"{"a":"canary","a":1}"#,
                r#""user" is asked for inside text that has the same key twice at line 1, column 15"#,
            ),
            (r#""canary""#, r#""user" is asked for inside a single value, not a document"#),
            ("42", r#""user" is asked for inside a single value, not a document"#),
        ] {
            assert_eq!(SecretTree::Text(text.into()).key("user").unwrap_err().to_string(), told, "{text}");
        }
        let marked = SecretTree::Text("\u{feff}{\"user\":\"u\"}".into());
        assert_eq!(marked.key("user").unwrap(), SecretTree::Text("u".into()), "a byte-order mark is passed over");
    }
}
