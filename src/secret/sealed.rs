//! The one place where secrets are serialized: base64, written without another copy, for what only our own processes
//! read, out of memory.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{SecretTree, SecretValue};

/// A secret, base64 where it is written.
pub(crate) struct SealedValue(pub(crate) SecretValue);

/// A document of secrets.
#[derive(Serialize, Deserialize)]
pub(crate) enum SealedTree {
    Literal(SealedValue),
    Text(SealedValue),
    Binary(SealedValue),
    List(Vec<SealedTree>),
    Map(BTreeMap<String, SealedTree>),
    Withheld(String),
}

// === impl SealedValue ===

impl Serialize for SealedValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Written piece by piece: no other copy is made.
        serializer.collect_str(&Base64Display::new(self.0.expose(), &STANDARD))
    }
}

impl<'de> Deserialize<'de> for SealedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = SealedValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SealedValue, E> {
                let bytes = STANDARD.decode(text).map_err(|_| E::custom("no base64"))?;
                Ok(SealedValue(SecretValue::new(bytes)))
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

// === impl SealedTree ===

impl From<SecretTree> for SealedTree {
    fn from(tree: SecretTree) -> Self {
        match tree {
            SecretTree::Literal(value) => Self::Literal(SealedValue(value)),
            SecretTree::Text(value) => Self::Text(SealedValue(value)),
            SecretTree::Binary(value) => Self::Binary(SealedValue(value)),
            SecretTree::List(items) => Self::List(items.into_iter().map(Self::from).collect()),
            SecretTree::Map(entries) => {
                Self::Map(entries.into_iter().map(|(key, tree)| (key, Self::from(tree))).collect())
            }
            SecretTree::Withheld(why) => Self::Withheld(why.as_ref().to_owned()),
        }
    }
}

impl From<SealedTree> for SecretTree {
    fn from(tree: SealedTree) -> Self {
        match tree {
            SealedTree::Literal(SealedValue(value)) => Self::Literal(value),
            SealedTree::Text(SealedValue(value)) => Self::Text(value),
            SealedTree::Binary(SealedValue(value)) => Self::Binary(value),
            SealedTree::List(items) => Self::List(items.into_iter().map(Self::from).collect()),
            SealedTree::Map(entries) => {
                Self::Map(entries.into_iter().map(|(key, tree)| (key, Self::from(tree))).collect())
            }
            SealedTree::Withheld(why) => Self::Withheld(why.into()),
        }
    }
}
