//! A document as SOPS sees it: keys in the order in which they stand, scalars with their types. Both are in its MAC.

use super::form::{METADATA, METADATA_PREFIX, Problem};
use crate::secret::document::{Dialect, Fields, MAX_VALUES, Node};

/// What a scalar in the open is for SOPS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Typed {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

/// Between the name of a list in a dotenv file's metadata and what is in it.
const LIST: &str = "__list_";
const MAP: &str = "__map_";

/// A document's fields.
fn fields(node: Node) -> Result<Fields, Problem> {
    match node {
        Node::Map(fields) => Ok(fields),
        _ => Err(Problem::new("is not a document with keys")),
    }
}

/// Reads JSON.
pub(super) fn json(text: &str) -> Result<Fields, Problem> {
    fields(Node::from_json(text.as_bytes())?)
}

/// Reads one YAML document of those that SOPS writes: it expands aliases when it encrypts.
pub(super) fn yaml(text: &str) -> Result<Fields, Problem> {
    fields(Node::from_yaml(text.as_bytes(), Dialect::Sops)?)
}

/// The text of a node that is one.
pub(super) fn text(node: &Node) -> Option<&str> {
    if let Node::Text(text) | Node::Plain(text) = node { text.expose_str() } else { None }
}

// --- dotenv ---

/// Reads `KEY=value` lines as SOPS does: the value is all behind the `=`, with `\n` for a line's end. Metadata stand in
/// keys that begin with `sops_`; they are gathered below `sops`, as far as they are looked at.
pub(super) fn dotenv(text: &str) -> Result<Fields, Problem> {
    let mut document = Fields::new();
    let mut metadata = Fields::new();
    for (index, line) in text.split('\n').enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if document.len() + metadata.len() == MAX_VALUES {
            return Err(Problem::new(format!("has more than {MAX_VALUES} values: split it")));
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| Problem::unreadable(format!("line {}: there is no KEY=value", index + 1)))?;
        let value = Node::Text(value.replace("\\n", "\n").into());
        match key.strip_prefix(METADATA_PREFIX) {
            Some(name) => unflatten(&mut metadata, name, value).map_err(Problem::new)?,
            None => document.push((key.to_owned(), value)),
        }
    }
    if !metadata.is_empty() {
        document.push((METADATA.to_owned(), Node::Map(metadata)));
    }
    // Of a key that stands there twice the last one counts, as for `sops exec-env`; the MAC is of both.
    Ok(document)
}

/// `age__list_0__map_enc` is `enc` of the first item of the list `age`. Of lists in lists the outermost is kept.
fn unflatten(metadata: &mut Fields, name: &str, value: Node) -> Result<(), &'static str> {
    let Some((list, rest)) = name.split_once(LIST) else {
        metadata.push((name.to_owned(), value));
        return Ok(());
    };
    let (index, field) = rest.split_once(MAP).ok_or("has a list in its SOPS metadata that SOPS does not write")?;
    // SOPS writes them in order, and each list in one piece.
    if metadata.last().is_none_or(|(known, _)| known != list) {
        metadata.push((list.to_owned(), Node::List(Vec::new())));
    }
    let index = index.parse::<usize>().unwrap_or(usize::MAX);
    let Some((_, Node::List(items))) = metadata.last_mut() else { return Err("has SOPS metadata twice") };
    if index == items.len() {
        items.push(Node::Map(Vec::new()));
    }
    let Some(Node::Map(fields)) = items.get_mut(index) else {
        return Err("has a list in its SOPS metadata whose items are out of order");
    };
    fields.push((field.to_owned(), value));
    Ok(())
}

// --- scalars ---

/// The type of a scalar without quotes, as the libraries of SOPS find it: Go's `encoding/json`, and go.yaml.in/yaml/v3
/// (`resolve.go`) for what that library itself writes. Points in time are text: they are written as the MAC has them.
pub(super) fn typed(text: &str) -> Typed {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Typed::Null,
        "true" | "True" | "TRUE" => Typed::Bool(true),
        "false" | "False" | "FALSE" => Typed::Bool(false),
        _ => match (integer(text), float(text)) {
            (Some(value), _) => Typed::Int(value),
            (None, Some(value)) => Typed::Float(value),
            (None, None) => Typed::Text,
        },
    }
}

/// Digits without a zero in front.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts_well = digits == "0" || !digits.starts_with('0');
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && starts_well
}

/// What fits into 64 bits. Only JSON has "-0", for which SOPS up to 3.12 has a float.
fn integer(text: &str) -> Option<i64> {
    if is_decimal(text) && text != "-0" { text.parse().ok() } else { None }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, or a name for what is not a number.
fn float(text: &str) -> Option<f64> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    // Rust's own reader takes names too, such as "nan" and "infinity"; digits with a zero in front are octal or text.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let value = text.parse().ok().filter(|_| is_number && (text.contains(['.', 'e', 'E']) || is_decimal(text)));
    // What is too large for a float is text: Go's reader refuses it, where Rust's says infinity.
    value.filter(|value: &f64| value.is_finite())
}
