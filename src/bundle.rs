//! The bundle: what a tenant wants delivered, and its YAML grammar (annotations, `hushpod.yaml`, CSI attributes).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_saphyr::budget::BudgetBreach;

use crate::parse_error::{ParseError, invalid, rule, unknown};
use crate::reference::Reference;
use crate::sentence::{one_line, suggestion};
use crate::steps;

pub mod template;
mod yaml;

pub use self::template::MAX_TEMPLATE_BYTES;
pub use self::yaml::{Places, TextPosition};

/// Most files and directories of a bundle: a plan of as many is near its limit.
const MAX_ITEMS: usize = 1000;
/// Most bytes of one reference, as it is written.
pub const MAX_REFERENCE_BYTES: usize = 4096;
/// Most values and keys of the YAML in an annotation.
pub const MAX_YAML_NODES: usize = 10_000;
/// Most documents of a file of Kubernetes objects.
pub const MAX_DOCUMENTS: usize = 10_000;

/// Everything a pod asks for, in the order it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Files and directories; no two of them share a path.
    pub items: Vec<Item>,
    /// Where they are.
    taken: BTreeSet<Spot>,
}

/// A target, by its path: what lies below a directory follows right behind it.
#[derive(Debug, Clone)]
struct Spot(Target);

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

/// A relative path of plain components: never empty, never leaving the volume, at most 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumePath(String);

/// Permission bits of a file, at most `0777`; written as an octal string such as `"0440"`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

/// A field that cannot be understood: where, and what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct BundleError {
    /// Path to the field, for example `[2].format`.
    pub place: String,
    /// One sentence that says what to write instead.
    pub problem: String,
}

impl BundleError {
    fn new(place: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { place: one_line(&place.into()), problem: one_line(&problem.to_string()) }
    }
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

// === impl VolumePath ===

impl VolumePath {
    /// The path as text, components separated by `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// `.`: the volume's own directory.
    #[must_use]
    pub fn root() -> Self {
        Self(".".to_owned())
    }

    /// This directory's file `name`.
    ///
    /// # Errors
    /// A sentence that says why `name` is not a file name, or that the path is too long.
    pub fn join(&self, name: &str) -> Result<Self, ParseError> {
        if name.contains('/') {
            return Err(rule(format!("{name:?} has a '/', which no file name has")));
        }
        if self.0 == "." { name.parse() } else { format!("{}/{name}", self.0).parse() }
    }
}

impl FromStr for VolumePath {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() || text.starts_with('/') {
            return Err(rule(format!("{text:?} is not a relative path inside the volume")));
        }
        if text.len() > 4096 {
            return Err(rule("a path has at most 4096 bytes"));
        }
        for name in text.split('/') {
            let problem = match name {
                "" => "has an empty component",
                "." => "has a component '.'",
                // The volume's own names (`..data` and generations) begin with two dots.
                name if name.starts_with("..") => "leaves the volume or begins with '..', which the volume needs",
                name if name.len() > 255 => "has a component of more than 255 bytes",
                name if name.chars().any(char::is_control) => "has a control character",
                _ => continue,
            };
            return Err(rule(format!("{text:?} {problem}")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for VolumePath {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        if text == "." { Ok(Self::root()) } else { text.parse() }
    }
}

impl std::convert::From<VolumePath> for String {
    fn from(path: VolumePath) -> Self {
        path.0
    }
}

impl fmt::Display for VolumePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl FileMode ===

impl FileMode {
    /// Readable by its owner only.
    pub const OWNER: Self = Self(0o400);
    /// Readable by owner and group.
    pub const GROUP: Self = Self(0o440);
    /// Readable by everyone who has the volume mounted.
    pub const ALL: Self = Self(0o444);

    /// The bits for chmod(2).
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for FileMode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let octal = text.strip_prefix("0o").unwrap_or(text);
        let digits = (3..=4).contains(&octal.len()) && octal.bytes().all(|b| b.is_ascii_digit());
        match u32::from_str_radix(octal, 8) {
            Ok(bits) if digits && bits <= 0o777 && bits & 0o400 != 0 => Ok(Self(bits)),
            _ => Err(invalid("file mode", text, "octal digits that let the owner read, such as \"0440\"")),
        }
    }
}

impl TryFrom<String> for FileMode {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl std::convert::From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        mode.to_string()
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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

// === impl Bundle ===

impl Bundle {
    /// Parses the YAML list of the `secrets` annotation.
    ///
    /// # Errors
    /// [`BundleError`] names the field and what would be accepted.
    pub fn from_yaml(text: &str) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        for item in Self::entries(text)? {
            let item = item?;
            let place = item.place.clone();
            bundle.push(item).map_err(|problem| BundleError::new(place, problem))?;
        }
        Ok(bundle)
    }

    /// Each entry of the YAML list of the `secrets` annotation, good or not.
    ///
    /// # Errors
    /// [`BundleError`], if it is not a list.
    pub fn entries(text: &str) -> Result<impl Iterator<Item = Result<Item, BundleError>>, BundleError> {
        let value = parse_annotation(text).map_err(|problem| BundleError::new("", problem))?;
        let Value::Array(entries) = value else {
            return Err(BundleError::new("", "is not a list: expected \"- {file: NAME, from: REFERENCE}\" lines"));
        };
        Ok(entries.into_iter().enumerate().map(|(index, entry)| Item::parse(&format!("[{index}]"), entry)))
    }

    /// Adds an item.
    ///
    /// # Errors
    /// One sentence, if its path is taken or lies below a file.
    pub fn push(&mut self, item: Item) -> Result<(), ParseError> {
        if self.items.len() == MAX_ITEMS {
            return Err(rule(format!(
                "is one more than {MAX_ITEMS}, the most of files and directories: take directories"
            )));
        }
        steps::look(item.target.path().as_str())?;
        let spot = Spot(item.target.clone());
        // Nothing lies below a file: if it would, the file is the last one before it, or it is the first one behind.
        let before = self.taken.range(..=&spot).next_back();
        let behind = self.taken.range(&spot..).next();
        if let Some(problem) = before.into_iter().chain(behind).find_map(|other| item.target.clash(&other.0)) {
            return Err(rule(problem));
        }
        self.taken.insert(spot);
        self.items.push(item);
        Ok(())
    }
}

/// Reads one YAML document. `y` and `no` are text, as in YAML 1.2: a file may be called so.
///
/// # Errors
/// One sentence in our own words, with the place and nothing of what stands there.
pub fn parse_yaml(text: &str) -> Result<Value, ParseError> {
    parse_with(text, serde_saphyr::options! { strict_booleans: true, with_snippet: false })
}

/// Reads every document of a file of Kubernetes objects; empty ones are left out.
///
/// # Errors
/// As [`parse_yaml`].
pub fn parse_yaml_documents(text: &str) -> Result<Vec<Value>, ParseError> {
    let budget = serde_saphyr::budget! { max_documents: MAX_DOCUMENTS };
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false, budget: budget };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| rule(yaml::sentence(&error)))
}

/// Reads the YAML of an annotation, which has no anchors: a few aliases of aliases would be gigabytes.
///
/// # Errors
/// As [`parse_yaml`]; also for an anchor, and for more than [`MAX_YAML_NODES`] values.
pub fn parse_annotation(text: &str) -> Result<Value, ParseError> {
    let budget = serde_saphyr::budget! { max_aliases: 0, max_anchors: 0, max_merge_keys: 0, max_nodes: MAX_YAML_NODES };
    parse_with(text, serde_saphyr::options! { strict_booleans: true, with_snippet: false, budget: budget })
}

fn parse_with(text: &str, options: serde_saphyr::Options) -> Result<Value, ParseError> {
    let problem = |error| match error {
        serde_saphyr::Error::Budget {
            breach: BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. },
            location,
        } => {
            format!(
                "line {}: has an anchor or alias, which begin with & and *: write out what they stand for, or put quotes \
                 around a text",
                location.line()
            )
        }
        serde_saphyr::Error::Budget { breach: BudgetBreach::Nodes { .. }, .. } => {
            format!("has more than {MAX_YAML_NODES} values: take directories instead of many files")
        }
        error => yaml::sentence(&error),
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| rule(problem(error)))
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

    fn clash(&self, other: &Self) -> Option<String> {
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

// === impl Spot ===

impl Ord for Spot {
    fn cmp(&self, other: &Self) -> Ordering {
        // As component by component: what ends a component is less than any byte of one.
        let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
        self.0.path().as_str().bytes().map(rank).cmp(other.0.path().as_str().bytes().map(rank))
    }
}

impl PartialOrd for Spot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Spot {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Spot {}

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

#[cfg(test)]
mod tests;
