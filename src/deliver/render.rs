//! Planned items and a generation become files: values are looked up, merged, decoded and formatted.
//!
//! Pure. Errors name the item, the reference and the key, never a value; buffers on the way are wiped.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use zeroize::Zeroizing;

use crate::annotations::SIZE_LIMIT;
use crate::bundle::{Decode, Format, Target, VolumePath};
use crate::contract::PREFIX;
use crate::deliver::RenderedFile;
use crate::generation::Generation;
use crate::parse_error::{ParseError, rule};
use crate::plan::{self, PAGE, PlannedItem};
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::{Sentence, store_name, store_names};

pub(crate) mod buffer;
pub(crate) mod format;
mod parts;
mod template;

use buffer::Buffer;
use format::FormatProblem;
use parts::Parts;

/// A generation that cannot become files: the item, the place in it, and what to do. Never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{item}: {}", &**problem)]
pub struct RenderError {
    item: String,
    problem: Sentence,
}

/// What a generation became.
#[derive(Debug)]
pub struct Rendered {
    /// In the order of the items.
    pub files: Vec<RenderedFile>,
    /// Keys of directories that make no file, and why.
    pub left_out: Vec<RenderError>,
}

/// Why a path cannot be written beside those of other items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Clash {
    #[error("would overwrite another item's file")]
    Same,
    #[error("would lie below another item's file")]
    Below,
    #[error("would lie above another item's file")]
    Above,
}

/// Leaves a key out, whose file would be this, and notes why; the error is that it may not be.
type Omit<'a> = dyn FnMut(Option<&VolumePath>, Sentence) -> Result<(), Sentence> + 'a;

/// Makes every file of the generation, in the order of the items.
///
/// Optional items are left out if one of their requests has no answer, or the answer lacks the key.
///
/// # Errors
/// [`RenderError`] if a needed answer or key is missing, a value does not fit its format, all files together have more than `size_limit` bytes, or they fill more pages than the volume was made for.
pub fn render(
    items: &[PlannedItem],
    generation: &Generation,
    size_limit: u64,
) -> Result<Vec<RenderedFile>, RenderError> {
    render_beside(items, generation, size_limit, &|_| false).map(|rendered| rendered.files)
}

/// As [`render`], where files may be in place already: `is_there` tells by a path. A key of a `dir` that is
/// bad (its value cannot be had or not be decoded, its name is not a file's, another item has its file) is left out,
/// unless its file is there: then it was good before, and nothing is replaced until it is again.
///
/// # Errors
/// As [`render`].
pub fn render_beside(
    items: &[PlannedItem],
    generation: &Generation,
    size_limit: u64,
    is_there: &dyn Fn(&VolumePath) -> bool,
) -> Result<Rendered, RenderError> {
    let mut made = Vec::with_capacity(items.len());
    let mut left_out = Vec::new();
    let mut paths = BTreeSet::new();
    for (index, item) in by_precedence(items) {
        let mut omit = |path: Option<&VolumePath>, problem: Sentence| {
            if path.is_some_and(is_there) {
                return Err(problem);
            }
            left_out.push(RenderError::new(&item.target, problem));
            Ok(())
        };
        let files = render_item(item, generation, size_limit, &mut paths, &mut omit)
            .map_err(|problem| RenderError::new(&item.target, problem))?;
        made.push((index, files.into_iter().map(|(path, bytes)| RenderedFile { path, bytes, mode: item.mode })));
    }
    made.sort_unstable_by_key(|(index, _)| *index);
    let files: Vec<_> = made.into_iter().flat_map(|(_, files)| files).collect();
    let total = files.iter().map(|file| file.bytes.len() as u64).sum::<u64>();
    if total > size_limit {
        let problem = format!("{total} bytes, over the limit of {size_limit}: raise {PREFIX}{SIZE_LIMIT}");
        return Err(RenderError { item: "all files together".to_owned(), problem: problem.into() });
    }
    let (needed, room) = (files.iter().map(occupied).sum::<u64>(), plan::room(items, size_limit));
    if needed > room {
        let kibibytes = (size_limit + (needed - room)).div_ceil(1024);
        let problem = format!(
            "{} files fill {needed} bytes in whole pages of {PAGE}, over the {room} that the volume has for them: raise \
             {PREFIX}{SIZE_LIMIT} to {kibibytes}Ki",
            files.len()
        );
        return Err(RenderError { item: "all files together".to_owned(), problem: problem.into() });
    }
    Ok(Rendered { files, left_out })
}

/// Bytes that a file takes of the volume: whole pages, at least one, since an empty file has a name all the same; and
/// another for the link to a name that is too long to be kept beside its inode (Linux, `shmem_symlink`).
fn occupied(file: &RenderedFile) -> u64 {
    const INLINE_LINK: usize = 128 - "..data/".len() - 1;
    let name = file.path.as_str().split('/').next().unwrap_or_default();
    let link = u64::from(name.len() > INLINE_LINK);
    ((file.bytes.len() as u64).div_ceil(PAGE).max(1) + link) * PAGE
}

/// What the tenant named comes before what a store calls its keys: files before directories, and a directory before the
/// one that it lies in.
fn by_precedence(items: &[PlannedItem]) -> Vec<(usize, &PlannedItem)> {
    let depth = |path: &VolumePath| path.as_str().split('/').filter(|name| *name != ".").count();
    let mut items: Vec<_> = items.iter().enumerate().collect();
    items.sort_by_key(|(_, item)| match &item.target {
        Target::File(_) => None,
        Target::Dir(path) => Some(Reverse(depth(path))),
    });
    items
}

/// Takes a path; `paths` are those of other items. Keys of a store can collide with them only now: the plan did not know
/// them.
fn claim(paths: &mut BTreeSet<String>, path: &VolumePath) -> Result<(), Clash> {
    let path = path.as_str();
    let below = format!("{path}/");
    if paths.contains(path) {
        return Err(Clash::Same);
    }
    if path.match_indices('/').any(|(at, _)| path.get(..at).is_some_and(|above| paths.contains(above))) {
        return Err(Clash::Below);
    }
    if paths.range(below.clone()..).next().is_some_and(|other| other.starts_with(&below)) {
        return Err(Clash::Above);
    }
    paths.insert(path.to_owned());
    Ok(())
}

fn render_item(
    item: &PlannedItem,
    generation: &Generation,
    size_limit: u64,
    paths: &mut BTreeSet<String>,
    omit: &mut Omit<'_>,
) -> Result<Vec<(VolumePath, SecretValue)>, Sentence> {
    let Some(parts) = Parts::look_up(item, generation)? else { return Ok(Vec::new()) };
    match &item.target {
        Target::Dir(dir) => render_dir(item, dir, parts, paths, omit),
        Target::File(path) => {
            let bytes = match &item.template {
                Some(text) => template::render(text, parts.context()?, size_limit)?,
                None => render_file(item, parts)?,
            };
            claim(paths, path).map_err(|clash| format!("{path} {clash}"))?;
            Ok(vec![(path.clone(), bytes)])
        }
    }
}

fn render_dir(
    item: &PlannedItem,
    dir: &VolumePath,
    parts: Parts<'_>,
    paths: &mut BTreeSet<String>,
    omit: &mut Omit<'_>,
) -> Result<Vec<(VolumePath, SecretValue)>, Sentence> {
    let entries = parts.entries()?;
    if entries.is_empty() && !item.optional {
        // An empty directory would let the application start, or go on, without its secrets.
        return Err("the answer has no keys, so there is no file to write (optional: true allows that)".into());
    }
    let mut files = Vec::with_capacity(entries.len());
    let mut last = None;
    for (key, tree) in &entries {
        let (path, problem) = match file_in(dir, key) {
            Err(problem) => (None, problem),
            Ok(path) => match value_of(item, key, tree).map(|value| (value, claim(paths, &path))) {
                Ok((value, Ok(()))) => {
                    files.push((path, value));
                    continue;
                }
                // A file that is there is the other item's.
                Ok((_, Err(clash @ Clash::Same))) => (None, clash.of(key)),
                Ok((_, Err(clash))) => (Some(path), clash.of(key)),
                Err(problem) => (Some(path), problem),
            },
        };
        omit(path.as_ref(), problem.clone())?;
        last = Some(problem);
    }
    match last.filter(|_| files.is_empty() && !item.optional) {
        Some(problem) => Err(problem.behind("none of its keys makes a file: ")),
        None => Ok(files),
    }
}

/// What the file of a key holds.
fn value_of(item: &PlannedItem, key: &str, tree: &SecretTree) -> Result<SecretValue, Sentence> {
    let inside = |problem: FormatProblem| Sentence::from(problem.inside(key));
    match (tree.withheld(), item.decode) {
        (Some(why), _) => Err(inside(FormatProblem::new(why))),
        (None, Some(decode)) => decoded(decode, tree).map_err(|what| inside(FormatProblem::new(what))),
        (None, None) => format::plain(tree).map_err(inside),
    }
}

fn file_in(dir: &VolumePath, key: &str) -> Result<VolumePath, Sentence> {
    dir.join(key).map_err(|problem| {
        Sentence::hiding(format!("key {} is not a file name: {problem}", store_name(key)), "a key is not a file name")
    })
}

fn render_file(item: &PlannedItem, parts: Parts<'_>) -> Result<SecretValue, Sentence> {
    let mut out = Buffer::default();
    match item.format {
        Format::Raw => return render_raw(item, parts),
        Format::Kubelet => {
            let name = item.target.path().name();
            format::kubelet(&mut out, name, &render_raw(item, parts)?)
                .map_err(|problem| problem.behind(&format!("{name} ")))?;
        }
        Format::Json => {
            format::json(&mut out, &parts.whole()?).map_err(Sentence::from)?;
            out.push(b"\n");
        }
        Format::Yaml => format::yaml(&mut out, &parts.whole()?).map_err(Sentence::from)?,
        Format::Dotenv => format::dotenv(&mut out, &parts.entries()?).map_err(Sentence::from)?,
        Format::Properties => format::properties(&mut out, &parts.entries()?).map_err(Sentence::from)?,
    }
    Ok(out.into_value())
}

fn render_raw(item: &PlannedItem, parts: Parts<'_>) -> Result<SecretValue, Sentence> {
    let Parts::One(part) = parts else {
        return Err("raw needs one value, but from has several: write format: json".into());
    };
    let shown = || part.take.to_string();
    match (&part.tree, item.decode) {
        (SecretTree::Withheld(why), _) => Err(format!("{} {why}", shown()).into()),
        (SecretTree::Map(entries), _) => {
            let advice = "where one value is needed: write #key or format: json";
            Err(Sentence::hiding(
                format!(
                    "{} is a document with the keys {} {advice}",
                    shown(),
                    store_names(entries.keys().map(String::as_str))
                ),
                format!("{} is a document {advice}", shown()),
            ))
        }
        (SecretTree::List(_), _) => {
            Err(format!("{} is a list where one value is needed: write #/0 or format: json", shown()).into())
        }
        (tree, Some(decode)) => decoded(decode, tree).map_err(|problem| format!("{} {problem}", shown()).into()),
        (tree, None) if tree.is_null() => Err(format!("{} is null where a value is needed", shown()).into()),
        (tree, None) => format::plain(tree).map_err(|problem| Sentence::from(problem).behind(&format!("{} ", shown()))),
    }
}

/// Base64 as people paste it: RFC 4648 §4, white space anywhere, padding or none.
fn decoded(Decode::Base64: Decode, tree: &SecretTree) -> Result<SecretValue, ParseError> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text = match tree {
        SecretTree::Literal(text) | SecretTree::Text(text) => text.expose(),
        SecretTree::Binary(_) => return Err(rule("is not base64: the store holds bytes, so leave decode out")),
        SecretTree::Withheld(why) => return Err(rule(why.as_ref().to_owned())),
        SecretTree::List(_) | SecretTree::Map(_) => {
            return Err(rule("is a document or list where base64 text is needed: write #key"));
        }
    };
    let mut dense = Zeroizing::new(Vec::with_capacity(text.len()));
    dense.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
    // The library's own message shows the byte that it stumbled over, which is part of the secret.
    ENGINE.decode(&*dense).map(SecretValue::new).map_err(|error| match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            rule(format!("is not base64 at character {} (white space not counted)", at + 1))
        }
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
            rule("is not base64: its length or padding is wrong")
        }
    })
}

// === impl Clash ===

impl Clash {
    fn of(self, key: &str) -> Sentence {
        Sentence::hiding(format!("key {} {self}", store_name(key)), format!("a key {self}"))
    }
}

// === impl RenderError ===

impl RenderError {
    pub(crate) fn new(target: &Target, problem: Sentence) -> Self {
        let item = match target {
            Target::File(path) => format!("file {path}"),
            Target::Dir(path) => format!("dir {path}"),
        };
        Self { item, problem }
    }

    /// The same for a termination message: see [`Sentence::public`].
    #[must_use]
    pub fn public(&self) -> String {
        format!("{}: {}", self.item, self.problem.public())
    }
}

#[cfg(test)]
mod tests;
