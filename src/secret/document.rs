//! Text that is a document: read in the order in which it stands, each scalar as it is written there.
//!
//! Whatever brings a document, a file or a store's answer, one budget holds: bytes, values and depth are counted while
//! reading, so none can fill the memory of a small process. Errors tell a place and never what stands there.

use std::collections::BTreeMap;

use super::{SecretTree, SecretValue};

mod json;
mod node;
mod yaml;

pub use node::DocumentError;
pub(crate) use node::{Fields, MAX_VALUES, Node};
use node::{is_json_number, text_of};
pub(crate) use yaml::Dialect;

// === impl Node ===

impl Node {
    /// Reads one JSON document (RFC 8259) of any type. A byte-order mark in front is passed over, as that RFC allows.
    ///
    /// # Errors
    /// [`DocumentError`] if it is not one, has a key twice, or is over a bound.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        json::read(text_of(bytes)?)
    }

    /// Reads one YAML document; an empty text is null.
    ///
    /// # Errors
    /// [`DocumentError`] if it is not one, has a key twice, a tag that is not known, or is over a bound.
    pub(crate) fn from_yaml(bytes: &[u8], dialect: Dialect) -> Result<Self, DocumentError> {
        yaml::read(text_of(bytes)?, dialect)
    }
}

// === impl SecretTree ===

impl SecretTree {
    /// Reads one JSON document (RFC 8259) of any type. A byte-order mark in front is passed over.
    ///
    /// # Errors
    /// [`DocumentError`] if it is not one, has a key twice, or is over a bound.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        Node::from_json(bytes).map(Self::from)
    }

    /// Reads one YAML document; an empty text is null.
    ///
    /// # Errors
    /// [`DocumentError`] if it is not one, has a key twice, a tag that is not known, or is over a bound.
    pub fn from_yaml(bytes: &[u8]) -> Result<Self, DocumentError> {
        Node::from_yaml(bytes, Dialect::Any).map(Self::from)
    }

    /// What a scalar of YAML without quotes is, so every reader of YAML and of JSON agrees: `true`, `false` and a
    /// number that JSON has, too, are themselves; null is, in each way to write it; anything else is text. So is a number
    /// with an exponent: the hash `61e9540` was not meant to be one.
    pub(crate) fn plain(text: SecretValue) -> Self {
        match text.expose_str() {
            Some("null" | "Null" | "NULL" | "~" | "") => Self::null(),
            Some("true" | "false") => Self::Literal(text),
            Some(number) if is_json_number(number) && !number.contains(['e', 'E']) => Self::Literal(text),
            Some(_) => Self::Text(text),
            None => Self::Binary(text),
        }
    }
}

impl From<Node> for SecretTree {
    fn from(node: Node) -> Self {
        match node {
            Node::Literal(text) => Self::Literal(text),
            Node::Plain(text) => Self::plain(text),
            Node::Text(text) => Self::Text(text),
            Node::Bytes(bytes) => bytes.into(),
            Node::List(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Node::Map(fields) => {
                Self::Map(fields.into_iter().map(|(key, node)| (key, Self::from(node))).collect::<BTreeMap<_, _>>())
            }
        }
    }
}

#[cfg(test)]
mod tests;
