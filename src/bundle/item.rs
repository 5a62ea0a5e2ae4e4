//! One file or directory that a tenant asks for, and its fields in YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::file_mode::FileMode;
use super::template;
use super::volume_path::VolumePath;
use crate::parse_error::{ParseError, rule, unknown};
use crate::reference::Reference;
use crate::sentence::{one_line, suggestion};
use crate::steps;

/// Most bytes of one reference, as it is written.
pub const MAX_REFERENCE_BYTES: usize = 4096;

/// One file, or one directory with a file per key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it was written, for errors: an annotation's key, with `[2]` for the third entry of a list.
    pub place: String,
    /// Where it goes, relative to the volume.
    pub target: Target,
    /// What goes in.
    pub from: From,
    /// How values become bytes.
    pub format: Format,
    /// Permission bits of the file; `None` leaves it to the plan.
    pub file_mode: Option<FileMode>,
    /// Applied to the single value of a raw file, or to each file of a directory.
    pub decode: Option<Decode>,
    /// A minijinja template that makes the whole file.
    pub template: Option<String>,
    /// A missing secret leaves the file out instead of failing.
    pub optional: bool,
}

/// Where an item is written, relative to the volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// One file.
    File(VolumePath),
    /// One file per key, in this directory; `.` is the volume itself.
    Dir(VolumePath),
}

/// References an item is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// One reference.
    One(Reference),
    /// Merged; a key that two of them bring is an error.
    Merge(Vec<Reference>),
    /// Names for the template, or the top-level keys of a document.
    Named(BTreeMap<String, Reference>),
}

/// How values become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes of one value.
    #[default]
    Raw,
    /// A JSON document.
    Json,
    /// A YAML document.
    Yaml,
    /// `KEY='value'` lines that a POSIX shell can source.
    Dotenv,
    /// Java properties.
    Properties,
    /// One variable as kubelet reads it (`fileKeyRef`): the webhook writes it into plans, and nobody else may.
    Kubelet,
}

/// A transformation of one value's text into bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    /// Standard base64 (RFC 4648 §4), padding optional, line breaks ignored.
    Base64,
}

/// A field that cannot be understood: where, and what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct BundleError {
    /// Path to the field, for example `[2].format`.
    pub place: String,
    /// One sentence that says what to write instead.
    pub problem: String,
}

/// Reads a reference that a tenant wrote.
///
/// # Errors
/// One sentence that quotes it and says what to write.
pub fn parse_reference(text: &str) -> Result<Reference, ParseError> {
    steps::look(text)?;
    if text.len() > MAX_REFERENCE_BYTES {
        return Err(rule(format!(
            "a reference has at most {MAX_REFERENCE_BYTES} bytes, and this one has {}",
            text.len()
        )));
    }
    text.parse().map_err(|problem| rule(format!("{text:?}: {problem}")))
}

// === impl BundleError ===

impl BundleError {
    pub(super) fn new(place: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { place: one_line(&place.into()), problem: one_line(&problem.to_string()) }
    }
}

// === impl From ===

impl From {
    /// Every reference, in the order in which they are written.
    #[must_use]
    pub fn references(&self) -> Vec<&Reference> {
        match self {
            Self::One(one) => vec![one],
            Self::Merge(several) => several.iter().collect(),
            Self::Named(named) => named.values().collect(),
        }
    }
}

// === impl Format ===

impl Format {
    const NAMES: [(&'static str, Self); 5] = [
        ("raw", Self::Raw),
        ("json", Self::Json),
        ("yaml", Self::Yaml),
        ("dotenv", Self::Dotenv),
        ("properties", Self::Properties),
    ];
}

// === impl Target ===

impl Target {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &VolumePath {
        match self {
            Self::File(path) | Self::Dir(path) => path,
        }
    }

    pub(super) fn clash(&self, other: &Self) -> Option<String> {
        let (mine, theirs) = (self.path().as_str(), other.path().as_str());
        let below = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        match (self, other) {
            _ if mine == theirs => Some(format!("{mine:?} is delivered twice")),
            (_, Self::File(_)) if below(mine, theirs) => Some(format!("{mine:?} lies below the file {theirs:?}")),
            (Self::File(_), _) if below(theirs, mine) => Some(format!("{theirs:?} lies below the file {mine:?}")),
            _ => None,
        }
    }
}

// === impl Item ===

impl Item {
    const FIELDS: [&'static str; 8] = ["file", "dir", "from", "format", "file-mode", "decode", "template", "optional"];

    /// The short form: one reference into one target, defaults for the rest.
    #[must_use]
    pub fn short(place: impl Into<String>, target: Target, reference: Reference) -> Self {
        Self {
            place: place.into(),
            target,
            from: From::One(reference),
            format: Format::default(),
            file_mode: None,
            decode: None,
            template: None,
            optional: false,
        }
    }

    /// Reads one entry of a list of items, which stands at `place`.
    ///
    /// # Errors
    /// [`BundleError`] names the field, behind `place`, and what would be accepted.
    pub fn parse(place: &str, entry: Value) -> Result<Self, BundleError> {
        let Value::Object(fields) = entry else {
            return Err(BundleError::new(place, "is not an entry: expected {file: NAME, from: REFERENCE}"));
        };
        if let Some(unknown) = fields.keys().find(|key| !Self::FIELDS.contains(&key.as_str())) {
            return Err(BundleError::new(
                format!("{place}.{unknown}"),
                format!("unknown field{}", suggestion(unknown, &Self::FIELDS)),
            ));
        }
        let fields = ItemFields { place, fields };
        let item = Self {
            place: place.to_owned(),
            target: fields.target()?,
            from: fields.from()?,
            format: fields.word("format", &Format::NAMES)?.unwrap_or_default(),
            file_mode: fields.text("file-mode")?.map(|text| fields.parsed("file-mode", &text)).transpose()?,
            decode: fields.word("decode", &[("base64", Decode::Base64)])?,
            template: fields.text("template")?,
            optional: fields.flag("optional")?,
        };
        item.check().map_err(|BundleError { place: field, problem }| BundleError {
            place: format!("{place}{field}"),
            problem,
        })?;
        Ok(item)
    }

    /// Fields that contradict each other.
    fn check(&self) -> Result<(), BundleError> {
        let is_dir = matches!(self.target, Target::Dir(_));
        if let Some(template) = &self.template {
            if is_dir {
                return Err(BundleError::new(".template", "a template makes one file: write file instead of dir"));
            }
            if self.format != Format::Raw || self.decode.is_some() {
                return Err(BundleError::new(
                    ".template",
                    "a template makes the bytes itself: leave format and decode out",
                ));
            }
            if matches!(self.from, From::Merge(_)) {
                return Err(BundleError::new(".from", "a template needs names: write from: {name: REFERENCE}"));
            }
            let names: Option<Vec<_>> = match &self.from {
                From::Named(takes) => Some(takes.keys().map(String::as_str).collect()),
                From::One(_) | From::Merge(_) => None,
            };
            return template::check(template, names.as_deref())
                .map_err(|problem| BundleError::new(".template", problem));
        }
        if is_dir && self.format != Format::Raw {
            return Err(BundleError::new(
                ".format",
                "a dir writes each key raw: write file instead, or leave format out",
            ));
        }
        if is_dir && matches!(self.from, From::Named(_)) {
            return Err(BundleError::new(
                ".from",
                "a dir takes its names from the store's keys: write one reference or a list",
            ));
        }
        if !is_dir && self.format == Format::Raw && !matches!(self.from, From::One(_)) {
            return Err(BundleError::new(
                ".format",
                "raw needs one value, but from has several: write json, yaml, dotenv or properties",
            ));
        }
        if self.decode.is_some() && self.format != Format::Raw {
            return Err(BundleError::new(".decode", "decode applies to raw files: leave format out"));
        }
        Ok(())
    }
}

/// One entry's fields, with the place that errors name.
struct ItemFields<'a> {
    place: &'a str,
    fields: Map<String, Value>,
}

// === impl ItemFields ===

impl ItemFields<'_> {
    fn error(&self, field: &str, problem: impl fmt::Display) -> BundleError {
        BundleError::new(format!("{}.{field}", self.place), problem)
    }

    fn text(&self, field: &str) -> Result<Option<String>, BundleError> {
        match self.fields.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            // YAML reads 0440 as the number 440 or 288, depending on its version: only a string is safe.
            Some(_) => Err(self.error(field, "is not text: put it in quotes")),
        }
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&self, field: &str, text: &str) -> Result<T, BundleError> {
        text.parse().map_err(|problem| self.error(field, problem))
    }

    fn word<T: Copy>(&self, field: &str, known: &[(&'static str, T)]) -> Result<Option<T>, BundleError> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            Ok(Some(*value))
        } else {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            Err(self.error(field, unknown("word", &text, &names)))
        }
    }

    fn flag(&self, field: &str) -> Result<bool, BundleError> {
        match self.fields.get(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.error(field, "is neither true nor false")),
        }
    }

    fn target(&self) -> Result<Target, BundleError> {
        match (self.text("file")?, self.text("dir")?) {
            (Some(file), None) => Ok(Target::File(self.parsed("file", &file)?)),
            (None, Some(dir)) => VolumePath::try_from(dir).map(Target::Dir).map_err(|p| self.error("dir", p)),
            (None, None) => Err(BundleError::new(self.place, "has neither file nor dir")),
            (Some(_), Some(_)) => Err(BundleError::new(self.place, "has both file and dir: write two entries")),
        }
    }

    fn from(&self) -> Result<From, BundleError> {
        let reference = |place: &str, value: &Value| match value {
            Value::String(text) => parse_reference(text).map_err(|problem| self.error(place, problem)),
            _ => Err(self.error(place, "is not a reference: expected \"[provider:]path[#key]\"")),
        };
        match self.fields.get("from") {
            Some(value @ Value::String(_)) => reference("from", value).map(From::One),
            Some(Value::Array(list)) if !list.is_empty() => {
                let mut seen = BTreeSet::new();
                let each = list.iter().enumerate().map(|(index, value)| {
                    let place = format!("from[{index}]");
                    let reference = reference(&place, value)?;
                    if value.as_str().is_some_and(|text| seen.insert(text)) {
                        return Ok(reference);
                    }
                    Err(self.error(&place, format!("\"{reference}\" stands there twice: write it once")))
                });
                each.collect::<Result<_, _>>().map(From::Merge)
            }
            Some(Value::Object(map)) if !map.is_empty() => {
                let each =
                    map.iter().map(|(name, value)| Ok((name.clone(), reference(&format!("from.{name}"), value)?)));
                each.collect::<Result<_, _>>().map(From::Named)
            }
            Some(_) => Err(self.error("from", "write one reference, a list of them, or a map of names to them")),
            None => Err(BundleError::new(self.place, "has no from: write from: \"[provider:]path[#key]\"")),
        }
    }
}
