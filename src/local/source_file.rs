//! A file that a person wrote: read within bounds, and where each of its fields stands.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use granit_parser::{Event, Options, Parser};

use super::error::LocalError;
use crate::parse_error::ParseError;
use crate::sentence::one_line;

/// Most bytes of such a file; manifests of Kubernetes are at most 1.5 MiB each in etcd.
pub(super) const MAX_FILE_BYTES: usize = 4 << 20;
/// Deeper fields are said to be where the last one above them is.
const MAX_DEPTH: usize = 16;
/// What is nested deeper has no place at all.
const MOST_OPEN: usize = 64;
/// Most fields whose places are kept.
const MAX_PLACES: usize = 100_000;

/// Line and column, both counted from 1.
type TextPosition = (usize, usize);

/// A file, and the place of each field in it.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    /// As it is told: relative to the working directory where it lies below it.
    pub(super) shown: String,
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Of each document, by path: `.providers.vault.address`, `.secrets[2]`.
    places: Vec<BTreeMap<String, TextPosition>>,
}

/// Reads at most `most` bytes of a file of text.
///
/// # Errors
/// One sentence that names the file.
fn read_bounded(path: &Path, shown: &str, most: usize) -> Result<String, LocalError> {
    let failed = |problem: String| LocalError::usage(format!("{shown}: {problem}"));
    let file = File::open(path).map_err(|error| failed(format!("cannot be read: {}", error.kind())))?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(format!("cannot be read: {}", error.kind())))?;
    if bytes.len() > most {
        return Err(failed(format!("has more than {most} bytes, the most of a file like this")));
    }
    String::from_utf8(bytes).map_err(|_| failed("is not UTF-8".to_owned()))
}

/// A path as it is told.
pub(super) fn shown(path: &Path) -> String {
    let below = env::current_dir().ok().and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned()));
    one_line(&below.as_deref().unwrap_or(path).display().to_string())
}

// === impl SourceFile ===

impl SourceFile {
    /// Reads a file.
    ///
    /// # Errors
    /// One sentence that names the file.
    pub(super) fn read(path: &Path) -> Result<Self, LocalError> {
        let shown = shown(path);
        let text = read_bounded(path, &shown, MAX_FILE_BYTES)?;
        Ok(Self { places: places(&text), shown, path: path.to_owned(), text })
    }

    /// The directory that relative paths in it begin at.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// `file:line:column` of a field of a document, or of what it lies in.
    pub(super) fn at(&self, document: usize, path: &str) -> String {
        let places = self.places.get(document);
        let mut path = path;
        loop {
            if let Some((line, column)) = places.and_then(|places| places.get(path)) {
                return format!("{}:{line}:{column}", self.shown);
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return self.shown.clone(),
            }
        }
    }

    /// Whether a field stands in its first document.
    pub(super) fn has(&self, path: &str) -> bool {
        self.places.first().is_some_and(|places| places.contains_key(path))
    }

    /// What is wrong with a field of its first document.
    pub(super) fn wrong(&self, path: &str, problem: impl std::fmt::Display) -> LocalError {
        LocalError::usage(format!("{}: {problem}", self.at(0, path)))
    }

    /// What is wrong with it as YAML: the place goes to the front.
    pub(super) fn malformed(&self, error: &ParseError) -> LocalError {
        const LINE: &str = " at line ";
        let sentence = error.to_string();
        let placed = sentence.split_once(LINE).and_then(|(before, rest)| {
            let (line, rest) = rest.split_once(", column ")?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (column, after) = rest.split_at(digits);
            Some(format!("{}:{line}:{column}: {before}{after}", self.shown))
        });
        LocalError::usage(placed.unwrap_or_else(|| format!("{}: {sentence}", self.shown)))
    }
}

/// An open list or map, and the field in it that is read.
struct Open {
    path: String,
    /// Of a list, the next entry; of a map, nothing.
    next: Option<usize>,
    /// Of a map, the key whose value is next.
    key: Option<String>,
}

/// Where each field of each document stands. What is not YAML has places up to there.
fn places(text: &str) -> Vec<BTreeMap<String, TextPosition>> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents: Vec<BTreeMap<String, TextPosition>> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut count = 0;
    while let Some(Ok((event, span))) = parser.next_event() {
        let place = (span.start.line(), span.start.col() + 1);
        let is_map = matches!(event, Event::MappingStart(..));
        match event {
            Event::DocumentStart(..) => {
                documents.push(BTreeMap::new());
                open.clear();
            }
            Event::SequenceEnd | Event::MappingEnd => drop(open.pop()),
            Event::Scalar(..) | Event::Alias(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                let is_nested = !matches!(event, Event::Scalar(..) | Event::Alias(..));
                let depth = open.len();
                let path = match open.last_mut() {
                    None => String::new(),
                    Some(Open { path, next: Some(next), .. }) => {
                        *next += 1;
                        format!("{path}[{}]", *next - 1)
                    }
                    Some(Open { path, key, .. }) => match (key.take(), &event) {
                        (Some(key), _) => format!("{path}.{key}"),
                        (None, Event::Scalar(text, ..)) => {
                            // A field is where its key is.
                            note(&mut documents, &mut count, depth, format!("{path}.{text}"), place);
                            *key = Some(text.chars().take(256).collect());
                            continue;
                        }
                        // Keys that are lists or maps: nothing of ours has those.
                        (None, _) => return documents,
                    },
                };
                note(&mut documents, &mut count, depth, path.clone(), place);
                if is_nested && depth >= MOST_OPEN {
                    return documents;
                }
                if is_nested {
                    open.push(Open { path, next: (!is_map).then_some(0), key: None });
                }
            }
            _ => {}
        }
    }
    documents
}

/// Keeps a place; of two for one path, the first.
fn note(
    documents: &mut [BTreeMap<String, TextPosition>],
    count: &mut usize,
    depth: usize,
    path: String,
    place: TextPosition,
) {
    if let Some(document) = documents.last_mut()
        && depth <= MAX_DEPTH
        && *count < MAX_PLACES
    {
        *count += 1;
        document.entry(path).or_insert(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> SourceFile {
        SourceFile { shown: "f".to_owned(), path: "/f".into(), text: text.to_owned(), places: places(text) }
    }

    #[test]
    fn fields_are_where_their_keys_are() {
        let text = "providers:\n  vault: {type: vault, address: \"x\"}\nsecrets:\n  - {file: a}\n  - file: b\n    from: c\n---\nkind: Pod\n";
        for (document, path, place) in [
            (0, ".providers", "f:1:1"),
            (0, ".providers.vault", "f:2:3"),
            (0, ".providers.vault.address", "f:2:24"),
            (0, ".secrets[1]", "f:5:5"),
            (0, ".secrets[1].from", "f:6:5"),
            (0, ".secrets[1].none.deeper", "f:5:5"),
            (0, ".none", "f:1:1"),
            (1, ".kind", "f:8:1"),
            (7, ".kind", "f"),
        ] {
            assert_eq!(file(text).at(document, path), place, "{path}");
        }
        assert!(file(text).has(".secrets") && !file(text).has(".kind"));
    }

    #[test]
    fn files_are_bounded_and_none_of_their_bytes_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, vec![b' '; MAX_FILE_BYTES]).unwrap();
        assert!(SourceFile::read(&path).is_ok());
        std::fs::write(&path, vec![b' '; MAX_FILE_BYTES + 1]).unwrap();
        assert!(SourceFile::read(&path).unwrap_err().problem.contains("has more than"));
        std::fs::write(&path, b"canary\xff").unwrap();
        let problem = SourceFile::read(&path).unwrap_err().problem;
        assert!(problem.contains("not UTF-8") && !problem.contains("canary"), "{problem}");
        let deep = "a: ".to_owned() + &"[".repeat(5000);
        assert!(places(&deep).len() <= 1);
    }

    #[test]
    fn a_place_in_a_sentence_goes_to_the_front() {
        let error = crate::bundle::parse_annotation("a: [1").unwrap_err();
        let told = file("").malformed(&error).problem;
        assert!(told.starts_with("f:1:") && told.contains(": is not YAML: "), "{told}");
    }
}
