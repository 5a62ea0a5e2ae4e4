//! YAML 1.2, read from its parser's events: a scalar is what stands there, whatever a schema would make of it.
//!
//! Aliases and merge keys (`<<`) are written out, within the budget. Tags say at most whether a scalar is text.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, StrInput, Tag};
use zeroize::Zeroizing;

use super::node::{Budget, DocumentError, Fields, MAX_DEPTH, Node, TextPlace};
use crate::secret::SecretValue;

/// Whose YAML it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// What people write.
    Any,
    /// What SOPS writes: it has no aliases and merges nothing.
    Sops,
}

/// A key with this name brings those of other maps (<https://yaml.org/type/merge.html>).
const MERGE: &str = "<<";
const CORE: &str = "tag:yaml.org,2002:";

/// What breaks lines in YAML 1.1 and not in 1.2. SOPS, whose YAML is of the former, writes them as such: in single quotes and
/// in literal blocks with an indentation behind, which is none of the value's.
const OLD_BREAKS: [char; 2] = ['\u{2028}', '\u{2029}'];

/// Reads one document and nothing behind it; none is null.
pub(super) fn read(text: &str, dialect: Dialect) -> Result<Node, DocumentError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    let place = TextPlace { line: 1, column: 1 };
    let mut reader =
        YamlReader { parser, text, dialect, place, depth: 0, budget: Budget::new(text), anchors: BTreeMap::new() };
    let mut document = None;
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(document.unwrap_or_else(|| Node::Plain("".into()))),
            Event::DocumentStart(..) if document.is_some() => {
                return Err(DocumentError::refused("has several YAML documents: put each into a file of its own"));
            }
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            first => document = Some(reader.node(first)?),
        }
    }
}

struct YamlReader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    text: &'a str,
    dialect: Dialect,
    /// Of the last event.
    place: TextPlace,
    depth: usize,
    budget: Budget,
    /// What aliases stand for.
    anchors: BTreeMap<usize, Node>,
}

/// How many values a node has, and how many bytes in them.
fn weight(node: &Node) -> (usize, usize) {
    let sum = |(values, bytes): (usize, usize), (more, longer): (usize, usize)| (values + more, bytes + longer);
    match node {
        Node::Literal(text) | Node::Plain(text) | Node::Text(text) | Node::Bytes(text) => (1, text.len()),
        Node::List(items) => items.iter().map(weight).fold((1, 0), sum),
        Node::Map(fields) => fields.iter().map(|(name, node)| sum((0, name.len()), weight(node))).fold((1, 0), sum),
    }
}

/// The name of one of YAML's own types.
fn core_type(tag: &Tag) -> Option<Cow<'_, str>> {
    tag.suffix_in_namespace(CORE)
}

/// `!`: not to be taken for anything but text, a list or a map.
fn is_non_specific(tag: &Tag) -> bool {
    matches!((tag.handle(), tag.suffix()), ("!", "") | ("", "!"))
}

fn is_merge(event: &Event<'_>) -> bool {
    match event {
        Event::Scalar(text, style, _, tag) if text == MERGE => match tag {
            Some(tag) => core_type(tag).as_deref() == Some("merge"),
            None => *style == ScalarStyle::Plain,
        },
        _ => false,
    }
}

fn decoded(text: &str) -> Option<SecretValue> {
    let mut dense = Zeroizing::new(Vec::with_capacity(text.len()));
    dense.extend(text.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    STANDARD.decode(&*dense).ok().map(SecretValue::new)
}

// === impl TextPlace ===

impl From<&Marker> for TextPlace {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

// === impl YamlReader ===

impl<'a> YamlReader<'a> {
    fn next(&mut self) -> Result<Event<'a>, DocumentError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.place = TextPlace::from(&span.start);
                Ok(event)
            }
            Some(Err(error)) => {
                self.place = TextPlace::from(error.marker());
                Err(match error.kind() {
                    ErrorKind::RecursionLimitExceeded => self.too_deep(),
                    ErrorKind::UnknownAnchor => self.refused("has an alias (*) of nothing that stands before it"),
                    _ => DocumentError::malformed(format_args!("is not YAML at {}", self.place)),
                })
            }
            None => Ok(Event::StreamEnd),
        }
    }

    fn refused(&self, problem: &str) -> DocumentError {
        DocumentError::refused(format_args!("{problem} at {}", self.place))
    }

    fn too_deep(&self) -> DocumentError {
        self.refused(&format!("is nested more than {MAX_DEPTH} deep"))
    }

    fn node(&mut self, first: Event<'a>) -> Result<Node, DocumentError> {
        self.budget.take(1, 0)?;
        let (node, anchor) = match first {
            Event::Scalar(text, style, anchor, tag) => {
                let text = self.without_old_indentation(text, style);
                (self.scalar(text, style == ScalarStyle::Plain, tag.as_deref())?, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => (self.nested(tag.as_deref(), "seq", anchor, Self::list)?, anchor),
            Event::MappingStart(_, anchor, tag) => (self.nested(tag.as_deref(), "map", anchor, Self::map)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor),
            _ => return Err(DocumentError::malformed(format_args!("is not YAML at {}", self.place))),
        };
        if anchor > 0 {
            self.check_anchor(anchor)?;
            // It is kept twice.
            self.budget.take(weight(&node).0, 0)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// A scalar of SOPS without the indentation that stands behind its line breaks of YAML 1.1.
    fn without_old_indentation(&self, text: Cow<'a, str>, style: ScalarStyle) -> Cow<'a, str> {
        if self.dialect != Dialect::Sops || !text.contains(OLD_BREAKS) {
            return text;
        }
        let width = match style {
            // A value that has blanks there is in double quotes.
            ScalarStyle::SingleQuoted => usize::MAX,
            ScalarStyle::Literal => self.indentation_below(&text),
            _ => return text,
        };
        let old = Zeroizing::new(text.into_owned());
        let mut new = String::with_capacity(old.len());
        for (index, part) in old.split_inclusive(OLD_BREAKS).enumerate() {
            let blanks = part.len() - part.trim_start_matches(' ').len();
            new.push_str(part.get(if index > 0 { blanks.min(width) } else { 0 }..).unwrap_or_default());
        }
        Cow::Owned(new)
    }

    /// How far the literal block is indented that is the last event: what its first line has beyond its value.
    fn indentation_below(&self, value: &str) -> usize {
        let blanks = |line: &str| line.len() - line.trim_start_matches(' ').len();
        let is_filled = |line: &&str| !line.trim_matches(' ').is_empty();
        let first = |text: &str, skipped: usize| text.split('\n').skip(skipped).find(is_filled).map_or(0, blanks);
        // Lines are counted from one; the block's own begin at the event's.
        first(self.text, self.place.line.saturating_sub(1)).saturating_sub(first(value, 0))
    }

    fn check_anchor(&self, anchor: usize) -> Result<(), DocumentError> {
        if anchor > 0 && self.dialect == Dialect::Sops {
            return Err(self.refused("has an anchor or alias that SOPS does not write"));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize) -> Result<Node, DocumentError> {
        self.check_anchor(anchor)?;
        let node =
            self.anchors.get(&anchor).ok_or_else(|| self.refused("has an alias (*) inside of what it stands for"))?;
        let (values, bytes) = weight(node);
        self.budget.take(values - 1, bytes)?;
        Ok(node.clone())
    }

    fn scalar(&self, text: Cow<'a, str>, is_plain: bool, tag: Option<&Tag>) -> Result<Node, DocumentError> {
        let value = SecretValue::from(text.into_owned());
        let Some(tag) = tag else { return Ok(if is_plain { Node::Plain(value) } else { Node::Text(value) }) };
        match core_type(tag).as_deref() {
            Some("int" | "float" | "bool" | "null" | "timestamp") => Ok(Node::Plain(value)),
            // SOPS writes the second for the text "<<".
            Some("str" | "merge") => Ok(Node::Text(value)),
            None if is_non_specific(tag) => Ok(Node::Text(value)),
            Some("binary") => decoded(value.expose_str().unwrap_or_default())
                .map(Node::Bytes)
                .ok_or_else(|| self.refused("has a value with the tag !!binary that is not base64")),
            _ => Err(self.refused("has a tag that is not known here: leave it out,")),
        }
    }

    fn nested(
        &mut self,
        tag: Option<&Tag>,
        own: &str,
        anchor: usize,
        inside: fn(&mut Self) -> Result<Node, DocumentError>,
    ) -> Result<Node, DocumentError> {
        self.check_anchor(anchor)?;
        if tag.is_some_and(|tag| core_type(tag).as_deref() != Some(own) && !is_non_specific(tag)) {
            return Err(self.refused("has a tag that is not known here: leave it out,"));
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        let node = inside(self)?;
        self.depth -= 1;
        Ok(node)
    }

    fn list(&mut self) -> Result<Node, DocumentError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Node::List(items)),
                first => items.push(self.node(first)?),
            }
        }
    }

    fn map(&mut self) -> Result<Node, DocumentError> {
        let mut fields = Fields::new();
        let mut names = BTreeSet::new();
        let mut merged = Fields::new();
        loop {
            let first = self.next()?;
            if matches!(first, Event::MappingEnd) {
                break;
            }
            let place = self.place;
            let is_merge = self.dialect == Dialect::Any && is_merge(&first);
            let name = self.key(first)?;
            if !names.insert(name.clone()) {
                self.place = place;
                return Err(self.refused("has the same key twice"));
            }
            let first = self.next()?;
            let value = self.node(first)?;
            if is_merge {
                self.merge(value, &mut merged)?;
            } else {
                fields.push((name, value));
            }
        }
        // A key of the map itself counts, and of others the first.
        fields.extend(merged.into_iter().filter(|(name, _)| names.insert(name.clone())));
        Ok(Node::Map(fields))
    }

    /// A key as it is written: `0123`, `true` and `~` are names like others.
    fn key(&mut self, first: Event<'a>) -> Result<String, DocumentError> {
        let place = self.place;
        let node = self.node(first)?;
        self.place = place;
        let (Node::Plain(text) | Node::Text(text)) = &node else {
            return Err(self.refused("has a key that is not text"));
        };
        Ok(text.expose_str().unwrap_or_default().to_owned())
    }

    fn merge(&self, value: Node, merged: &mut Fields) -> Result<(), DocumentError> {
        let bases = if let Node::List(items) = value { items } else { vec![value] };
        for base in bases {
            let Node::Map(fields) = base else { return Err(self.refused("has a merge key (<<) without a map")) };
            merged.extend(fields);
        }
        Ok(())
    }
}
