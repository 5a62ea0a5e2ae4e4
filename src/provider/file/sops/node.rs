//! A document as SOPS sees it: keys in the order in which they stand, scalars with their types. Both are in its MAC.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{Event, Options, Parser, ScalarStyle, StrInput};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{METADATA, METADATA_PREFIX, Problem};
use crate::secret::SecretValue;

/// One value.
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(SecretValue),
    List(Vec<Node>),
    Map(Fields),
}

/// A document's keys and values.
pub(super) type Fields = Vec<(String, Node)>;

/// Deeper documents are refused. JSON's own limit is 128.
const MAX_DEPTH: usize = 64;
/// Between the name of a list in a dotenv file's metadata and what is in it.
const LIST: &str = "__list_";
const MAP: &str = "__map_";

// === impl Node ===

impl Node {
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { text.expose_str() } else { None }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// Of two fields with the same name it could not be told which one the MAC meant.
fn distinct(fields: Fields) -> Result<Fields, &'static str> {
    let mut names: Vec<_> = fields.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err("has the same key twice in one place");
    }
    Ok(fields)
}

fn fields(node: Node) -> Result<Fields, Problem> {
    match node {
        Node::Map(fields) => Ok(fields),
        _ => Err(Problem::new("is no document with keys")),
    }
}

// --- JSON ---

/// Reads JSON.
pub(super) fn json(text: &str) -> Result<Fields, Problem> {
    let node = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        if error.is_data() {
            Problem::new(format!("has the same key twice in one place, at line {line}"))
        } else {
            Problem::unreadable(format!("is no JSON at line {line}, column {column}"))
        }
    })?;
    fields(node)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    /// As in SOPS, what does not fit into 63 bits is a float.
    #[expect(clippy::cast_precision_loss, reason = "SOPS loses it too, and its MAC is of what is left")]
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Float(value as f64), Node::Int))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.into()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Fields::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        distinct(fields).map(Node::Map).map_err(de::Error::custom)
    }
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
        document.push((METADATA.to_owned(), Node::Map(distinct(metadata).map_err(Problem::new)?)));
    }
    distinct(document).map_err(Problem::new)
}

/// `age__list_0__map_enc` is `enc` of the first item of the list `age`. Of lists in lists the outermost is kept.
fn unflatten(metadata: &mut Fields, name: &str, value: Node) -> Result<(), &'static str> {
    let Some((list, rest)) = name.split_once(LIST) else {
        metadata.push((name.to_owned(), value));
        return Ok(());
    };
    let (index, field) = rest.split_once(MAP).ok_or("has a list in its SOPS metadata that is none of SOPS' own")?;
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

// --- YAML ---

/// Reads one YAML document of those that SOPS writes: it expands aliases when it encrypts.
pub(super) fn yaml(text: &str) -> Result<Fields, Problem> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut reader = YamlReader { parser: Parser::new_from_str_with_options(text, options), depth: 0, line: 1 };
    let mut document = None;
    loop {
        match reader.next()? {
            Event::StreamEnd => break,
            Event::DocumentStart(..) if document.is_some() => {
                return Err(Problem::new("has several YAML documents: put each into a file of its own"));
            }
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            first => document = Some(reader.node(first)?),
        }
    }
    fields(document.unwrap_or(Node::Null))
}

struct YamlReader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    depth: usize,
    line: usize,
}

impl<'a> YamlReader<'a> {
    fn next(&mut self) -> Result<Event<'a>, Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(event)
            }
            Some(Err(error)) => {
                let at = error.marker();
                Err(Problem::unreadable(format!("is no YAML at line {}, column {}", at.line(), at.col())))
            }
            None => Ok(Event::StreamEnd),
        }
    }

    fn problem(&self, problem: &str) -> Problem {
        Problem::new(format!("{problem}, at line {}", self.line))
    }

    fn node(&mut self, first: Event<'a>) -> Result<Node, Problem> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.problem("is nested too deeply"));
        }
        let node = match first {
            Event::Scalar(text, style, 0, tag) => {
                let tag = tag.as_ref().map(|tag| (tag.handle(), tag.suffix()));
                let plain = style == ScalarStyle::Plain;
                scalar(&text, plain, tag).ok_or_else(|| self.problem("has a tag that SOPS does not write"))
            }
            Event::SequenceStart(_, 0, None) => self.list(),
            Event::MappingStart(_, 0, None) => self.map(),
            _ => Err(self.problem("has an anchor, alias or tag that SOPS does not write")),
        };
        self.depth -= 1;
        node
    }

    fn list(&mut self) -> Result<Node, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Node::List(items)),
                first => items.push(self.node(first)?),
            }
        }
    }

    fn map(&mut self) -> Result<Node, Problem> {
        let mut fields = Fields::new();
        loop {
            let first = self.next()?;
            if matches!(first, Event::MappingEnd) {
                return distinct(fields).map(Node::Map).map_err(|problem| self.problem(problem));
            }
            let Node::Text(key) = self.node(first)? else {
                return Err(self.problem("has a key that is no text: put it in quotes and encrypt it again"));
            };
            let key = key.expose_str().unwrap_or_default().to_owned();
            let first = self.next()?;
            let value = self.node(first)?;
            fields.push((key, value));
        }
    }
}

/// A scalar as the YAML library of SOPS reads what it wrote itself (go.yaml.in/yaml/v3, `resolve.go`); `None` if it never
/// writes that. Points in time are text: they are written as the MAC has them.
fn scalar(text: &str, plain: bool, tag: Option<(&str, &str)>) -> Option<Node> {
    let as_text = || Node::Text(text.into());
    let as_float = || float(text).map(Node::Float);
    match tag {
        None if !plain => return Some(as_text()),
        None | Some(("tag:yaml.org,2002:", "int" | "bool" | "null" | "timestamp")) => {}
        // It is what SOPS writes for the text "<<".
        Some(("tag:yaml.org,2002:", "str" | "merge")) => return Some(as_text()),
        // SOPS writes a float without a point only with its tag.
        Some(("tag:yaml.org,2002:", "float")) => return as_float().or_else(|| text.parse().ok().map(Node::Int)),
        Some(("tag:yaml.org,2002:", "binary")) => {
            let text: String = text.split_ascii_whitespace().collect();
            return STANDARD.decode(text).ok().map(|bytes| Node::Text(SecretValue::new(bytes)));
        }
        Some(_) => return None,
    }
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Node::Null,
        "true" | "True" | "TRUE" => Node::Bool(true),
        "false" | "False" | "FALSE" => Node::Bool(false),
        _ => match integer(text) {
            Some(value) => Node::Int(value),
            None => as_float().unwrap_or_else(as_text),
        },
    })
}

fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if is_decimal { text.parse().ok() } else { None }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, or a name for what is no number.
fn float(text: &str) -> Option<f64> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    // Rust's own reader takes names too, such as "nan" and "infinity"; digits alone are octal if they begin with a 0.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if is_number && text.contains(['.', 'e', 'E']) { text.parse().ok() } else { None }
}
