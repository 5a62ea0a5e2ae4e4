//! One function per format. Written by hand, since a serializer would need values in types that nobody wipes.

use std::collections::BTreeMap;

use super::buffer::Buffer;
use crate::env_vars::check_value;
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::{Sentence, store_name};

/// A document's top level.
pub(super) type Entries = BTreeMap<String, SecretTree>;

const BINARY: &str = "is binary, which only raw and dir deliver: use one of them, or leave this key out";

/// What is wrong, and below which keys. Never a value.
#[derive(Debug)]
pub(super) struct FormatProblem {
    /// Innermost key first.
    keys: Vec<String>,
    what: String,
}

impl FormatProblem {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { keys: Vec::new(), what: what.into() }
    }

    fn binary() -> Self {
        Self::new(BINARY)
    }

    pub(super) fn inside(mut self, key: &str) -> Self {
        self.keys.push(key.to_owned());
        self
    }
}

impl From<FormatProblem> for Sentence {
    fn from(FormatProblem { keys, what }: FormatProblem) -> Self {
        if keys.is_empty() {
            return what.into();
        }
        let path: Vec<_> = keys.iter().rev().map(String::as_str).collect();
        Self::hiding(format!("key {} {what}", store_name(&path.join("/"))), format!("a key {what}"))
    }
}

/// One value as a file or a shell has it: text and bytes as they are, `null` as nothing, documents as compact JSON.
pub(super) fn plain(tree: &SecretTree) -> Result<SecretValue, FormatProblem> {
    match tree {
        tree if tree.is_null() => Ok(SecretValue::new(Vec::new())),
        SecretTree::Literal(value) | SecretTree::Text(value) | SecretTree::Binary(value) => Ok(value.clone()),
        SecretTree::List(_) | SecretTree::Map(_) => {
            let mut out = Buffer::default();
            json(&mut out, tree)?;
            Ok(out.into_value())
        }
        SecretTree::Withheld(why) => Err(FormatProblem::new(&**why)),
    }
}

/// [`plain`], for formats that are text.
fn plain_text(tree: &SecretTree) -> Result<SecretValue, FormatProblem> {
    if matches!(tree, SecretTree::Binary(_)) { Err(FormatProblem::binary()) } else { plain(tree) }
}

/// The same without binary values: they are withheld from what is text, which may do without them.
pub(super) fn text_alone(tree: SecretTree) -> SecretTree {
    match tree {
        SecretTree::Binary(_) => SecretTree::Withheld(BINARY.into()),
        SecretTree::List(items) => SecretTree::List(items.into_iter().map(text_alone).collect()),
        SecretTree::Map(entries) => {
            SecretTree::Map(entries.into_iter().map(|(key, value)| (key, text_alone(value))).collect())
        }
        tree => tree,
    }
}

fn utf8(value: &SecretValue) -> Result<&str, FormatProblem> {
    value.expose_str().ok_or_else(FormatProblem::binary)
}

/// Compact JSON (RFC 8259), keys in byte order, no newline. Numbers, booleans and null are copied to the letter.
pub(super) fn json(out: &mut Buffer, tree: &SecretTree) -> Result<(), FormatProblem> {
    match tree {
        SecretTree::Literal(value) => out.push(value.expose()),
        SecretTree::Text(value) => quote(out, utf8(value)?),
        SecretTree::Binary(_) => return Err(FormatProblem::binary()),
        SecretTree::Withheld(why) => return Err(FormatProblem::new(&**why)),
        SecretTree::List(items) => {
            for (index, item) in items.iter().enumerate() {
                out.push(if index == 0 { b"[" } else { b"," });
                json(out, item).map_err(|problem| problem.inside(&index.to_string()))?;
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        SecretTree::Map(entries) => {
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push(if index == 0 { b"{" } else { b"," });
                quote(out, key);
                out.push(b":");
                json(out, value).map_err(|problem| problem.inside(key))?;
            }
            out.push_str(if entries.is_empty() { "{}" } else { "}" });
        }
    }
    Ok(())
}

/// A JSON string that is a YAML 1.2 double-quoted scalar too: YAML wants more characters escaped (§5.1), and JSON
/// allows that.
pub(crate) fn quote(out: &mut Buffer, text: &str) {
    out.push(b"\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                push_unicode(out, u32::from(char));
            }
            char => out.push_char(char),
        }
    }
    out.push(b"\"");
}

/// `\uXXXX`; only for numbers of at most 16 bits.
fn push_unicode(out: &mut Buffer, number: u32) {
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        out.push_char(char::from_digit(number >> shift & 0xf, 16).unwrap_or('0').to_ascii_uppercase());
    }
}

/// Block-style YAML 1.2. Every string and key is double-quoted, so none is taken for a number, a boolean (`no`)
/// or a date by any reader; so is a number with an exponent, which some take for text and others for another number.
pub(super) fn yaml(out: &mut Buffer, tree: &SecretTree) -> Result<(), FormatProblem> {
    if is_inline(tree) {
        yaml_inline(out, tree)?;
        out.push(b"\n");
        return Ok(());
    }
    yaml_block(out, tree, 0)
}

fn yaml_block(out: &mut Buffer, tree: &SecretTree, depth: usize) -> Result<(), FormatProblem> {
    let indent = |out: &mut Buffer| (0..depth).for_each(|_| out.push(b"  "));
    match tree {
        SecretTree::Map(entries) => entries.iter().try_for_each(|(key, value)| {
            indent(out);
            yaml_key(out, key, indent);
            yaml_node(out, value, depth + 1).map_err(|problem| problem.inside(key))
        }),
        SecretTree::List(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            indent(out);
            out.push(b"-");
            yaml_node(out, item, depth + 1).map_err(|problem| problem.inside(&index.to_string()))
        }),
        _ => yaml_inline(out, tree),
    }
}

/// Readers need not look further than 1024 characters for the `:` behind a key (YAML 1.2, 7.4.2), and go-yaml writes
/// those of more than 128 as we do.
fn yaml_key(out: &mut Buffer, key: &str, indent: impl Fn(&mut Buffer)) {
    let is_long = key.len() > 128;
    if is_long {
        out.push(b"? ");
    }
    quote(out, key);
    if is_long {
        out.push(b"\n");
        indent(out);
    }
    out.push(b":");
}

fn yaml_node(out: &mut Buffer, tree: &SecretTree, depth: usize) -> Result<(), FormatProblem> {
    if is_inline(tree) {
        out.push(b" ");
        yaml_inline(out, tree)?;
        out.push(b"\n");
        return Ok(());
    }
    out.push(b"\n");
    yaml_block(out, tree, depth)
}

fn is_inline(tree: &SecretTree) -> bool {
    tree.as_value().is_some() || tree.is_empty()
}

fn yaml_inline(out: &mut Buffer, tree: &SecretTree) -> Result<(), FormatProblem> {
    let is_number = |text: &&str| !matches!(*text, "true" | "false" | "null");
    match tree {
        SecretTree::Literal(value) => match utf8(value).ok().filter(is_number).filter(|text| text.contains(['e', 'E']))
        {
            Some(text) => quote(out, text),
            None => out.push(value.expose()),
        },
        tree => json(out, tree)?,
    }
    Ok(())
}

/// `KEY='value'` lines that a POSIX shell can source. `null` is empty, documents are compact JSON.
pub(super) fn dotenv(out: &mut Buffer, entries: &Entries) -> Result<(), FormatProblem> {
    entries.iter().try_for_each(|(key, tree)| dotenv_line(out, key, tree).map_err(|problem| problem.inside(key)))
}

fn dotenv_line(out: &mut Buffer, key: &str, tree: &SecretTree) -> Result<(), FormatProblem> {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let bytes = key.as_bytes();
    if !bytes.first().copied().is_some_and(letter) || !bytes.iter().all(|&byte| letter(byte) || byte.is_ascii_digit()) {
        return Err(FormatProblem::new(
            "is not a shell variable's name (letters, digits and '_', no digit first): rename it, or use json",
        ));
    }
    let value = plain_text(tree)?;
    if value.expose().contains(&0) {
        return Err(FormatProblem::new("has a NUL byte, which no environment variable can hold: use raw or json"));
    }
    out.push_str(key);
    out.push(b"=");
    single_quoted(out, value.expose());
    out.push(b"\n");
    Ok(())
}

/// One word of a POSIX shell (XCU 2.2.2): nothing is special between single quotes but the quote itself.
pub(crate) fn single_quoted(out: &mut Buffer, bytes: &[u8]) {
    out.push(b"'");
    for (index, piece) in bytes.split(|&byte| byte == b'\'').enumerate() {
        if index > 0 {
            out.push(br"'\''");
        }
        out.push(piece);
    }
    out.push(b"'");
}

/// One `NAME='value'` as kubelet reads it from 1.35 on (`ParseEnv` in `pkg/kubelet/util/env`): what stands between the
/// quotes is the value, and nothing can be escaped. Until 1.37 an empty value is taken for a missing one.
pub(super) fn kubelet(out: &mut Buffer, name: &str, value: &SecretValue) -> Result<(), Sentence> {
    /// `bufio.Scanner` reads no longer lines; the name stands in the first.
    const MAX_LINE: usize = 64 * 1024 - 1024;
    const INSTEAD: &str = "give the container a command, or deliver it as a file";
    let refuse = |why: &str| Err(format!("{why}: {INSTEAD}").into());
    let bytes = value.expose();
    if let Err(problem) = check_value(name, bytes) {
        return Err(problem.of("as a variable").into());
    }
    if bytes.is_empty() {
        return refuse("is empty, which kubelet takes for missing");
    }
    if std::str::from_utf8(bytes).is_err() {
        return refuse("is binary, which kubelet passes on to no container");
    }
    if bytes.contains(&b'\'') {
        return refuse("has a single quote, which kubelet's files of variables cannot hold");
    }
    if bytes.windows(2).any(|two| two == b"\r\n") {
        return refuse("has a carriage return before a newline, which kubelet leaves out");
    }
    if bytes.split(|&byte| byte == b'\n').any(|line| line.len() > MAX_LINE) {
        return refuse("has a line of more than 63 KiB, which kubelet does not read");
    }
    out.push_str(name);
    out.push(b"='");
    out.push(bytes);
    out.push(b"'\n");
    Ok(())
}

/// Java properties, in the form that `java.util.Properties.store` writes: ASCII only, so it does not matter
/// whether a reader takes the file for ISO 8859-1 or UTF-8. `null` is empty, documents are compact JSON.
pub(super) fn properties(out: &mut Buffer, entries: &Entries) -> Result<(), FormatProblem> {
    for (key, tree) in entries {
        let value = plain_text(tree).map_err(|problem| problem.inside(key))?;
        java_escape(out, key, true);
        out.push(b"=");
        java_escape(out, utf8(&value).map_err(|problem| problem.inside(key))?, false);
        out.push(b"\n");
    }
    Ok(())
}

fn java_escape(out: &mut Buffer, text: &str, is_key: bool) {
    let mut leading = true;
    for char in text.chars() {
        leading &= char == ' ';
        match char {
            ' ' if is_key || leading => out.push_str("\\ "),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0c' => out.push_str("\\f"),
            '\\' | '=' | ':' | '#' | '!' => {
                out.push(b"\\");
                out.push_char(char);
            }
            ' '..='~' => out.push_char(char),
            char => char.encode_utf16(&mut [0; 2]).iter().for_each(|&unit| push_unicode(out, u32::from(unit))),
        }
    }
}
