//! A file that a person wrote: read within bounds, and where each of its fields stands.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::error::LocalError;
use crate::bounded_read::read_text;
use crate::bundle::{Places, TextPosition};
use crate::parse_error::ParseError;
use crate::sentence::one_line;

/// Most bytes of such a file; manifests of Kubernetes are at most 1.5 MiB each in etcd.
pub(super) const MAX_FILE_BYTES: usize = 4 << 20;
/// What standard input is called.
const STDIN: &str = "stdin";

/// A file, and the place of each field in it.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    /// As it is told: relative to the working directory where it lies below it.
    pub(super) shown: String,
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Of each document; looked for when something is wrong.
    places: OnceLock<Vec<Places>>,
}

/// Something that is wrong with a file, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileFault {
    /// `None` if nobody knows.
    pub(super) at: Option<TextPosition>,
    /// One sentence.
    pub(super) problem: String,
}

/// Reads at most [`MAX_FILE_BYTES`] of text.
///
/// # Errors
/// One sentence that names the file.
fn read_within(file: io::Result<impl Read>, shown: &str) -> Result<String, LocalError> {
    read_text(file, MAX_FILE_BYTES).map_err(|error| LocalError::usage(format!("{shown}: {error}")))
}

/// A path as it is told.
pub(super) fn display_path(path: &Path) -> String {
    let below = env::current_dir().ok().and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned()));
    let below = below.map(|below| if below.as_os_str().is_empty() { PathBuf::from(".") } else { below });
    one_line(&below.as_deref().unwrap_or(path).display().to_string())
}

// === impl SourceFile ===

impl SourceFile {
    /// Reads a file.
    ///
    /// # Errors
    /// One sentence that names the file.
    pub(super) fn read(path: &Path) -> Result<Self, LocalError> {
        let Self { shown, path, .. } = Self::unread(path);
        let text = read_within(File::open(&path), &shown)?;
        Ok(Self { shown, path, text, places: OnceLock::new() })
    }

    /// Reads standard input.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn read_stdin() -> Result<Self, LocalError> {
        let text = read_within(Ok(io::stdin().lock()), STDIN)?;
        // Relative paths in it begin at the working directory.
        let path = std::path::absolute(STDIN).unwrap_or_else(|_| PathBuf::from(STDIN));
        Ok(Self { shown: STDIN.to_owned(), path, text, places: OnceLock::new() })
    }

    /// One that cannot be read.
    pub(super) fn unread(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { shown: display_path(&path), path, text: String::new(), places: OnceLock::new() }
    }

    /// Where the fields of each document stand that is not empty.
    pub(super) fn places(&self) -> &[Places] {
        self.places.get_or_init(|| Places::of_documents(&self.text))
    }

    /// The directory that relative paths in it begin at.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// `file:line:column` of a field of a document, such as `.secrets[2]`, or of what it lies in.
    pub(super) fn at(&self, document: usize, path: &str) -> String {
        self.told_at(self.position(document, path))
    }

    /// The place of a field of a document, or of what it lies in.
    pub(super) fn position(&self, document: usize, path: &str) -> Option<TextPosition> {
        Some(self.places().get(document)?.follow(path).0)
    }

    fn told_at(&self, position: Option<TextPosition>) -> String {
        match position {
            Some((line, column)) => format!("{}:{line}:{column}", self.shown),
            None => self.shown.clone(),
        }
    }

    /// Whether a field stands in its first document.
    pub(super) fn has(&self, path: &str) -> bool {
        self.places().first().is_some_and(|places| places.follow(path).2.is_empty())
    }

    /// What is wrong with a field of its first document, for those who gather them.
    pub(super) fn fault(&self, path: &str, problem: impl std::fmt::Display) -> FileFault {
        FileFault { at: self.position(0, path), problem: problem.to_string() }
    }

    /// The same as an error.
    pub(super) fn error_of(&self, fault: &FileFault) -> LocalError {
        LocalError::usage(format!("{}: {}", self.told_at(fault.at), fault.problem))
    }

    /// Whether a sentence begins with a place in this file.
    pub(super) fn is_place_of(&self, sentence: &str) -> bool {
        sentence.strip_prefix(&self.shown).is_some_and(|rest| rest.starts_with(':'))
    }

    /// A sentence that may begin with a place in this file.
    pub(super) fn placed(&self, sentence: &str) -> FileFault {
        let place = sentence.strip_prefix(&format!("{}:", self.shown)).and_then(|rest| {
            let (line, rest) = rest.split_once(':')?;
            let (column, problem) = rest.split_once(": ")?;
            Some(FileFault { at: Some((line.parse().ok()?, column.parse().ok()?)), problem: problem.to_owned() })
        });
        let whole = || sentence.strip_prefix(&format!("{}: ", self.shown)).unwrap_or(sentence).to_owned();
        place.unwrap_or_else(|| FileFault { at: None, problem: whole() })
    }

    /// What is wrong with it as YAML: the place goes to the front.
    pub(super) fn malformed(&self, error: &ParseError) -> LocalError {
        self.error_of(&FileFault::malformed(error))
    }
}

// === impl FileFault ===

impl FileFault {
    /// What is wrong with a file as YAML.
    pub(super) fn malformed(error: &ParseError) -> Self {
        const LINE: &str = " at line ";
        let sentence = error.to_string();
        let placed = sentence.split_once(LINE).and_then(|(before, rest)| {
            let (line, rest) = rest.split_once(", column ")?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (column, after) = rest.split_at(digits);
            let at = (line.parse().ok()?, column.parse().ok()?);
            Some(Self { at: Some(at), problem: format!("{before}{after}") })
        });
        placed.unwrap_or(Self { at: None, problem: sentence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> SourceFile {
        SourceFile { shown: "f".to_owned(), path: "/f".into(), text: text.to_owned(), places: OnceLock::new() }
    }

    #[test]
    fn a_field_is_told_with_file_line_and_column() {
        let file_of_two = file("a:\n  b: 1\n---\nkind: Pod\n");
        for (document, path, place) in
            [(0, ".a.b", "f:2:3"), (0, ".a.none", "f:1:1"), (1, ".kind", "f:4:1"), (7, ".kind", "f")]
        {
            assert_eq!(file_of_two.at(document, path), place, "{path}");
        }
        assert!(file_of_two.has(".a.b") && !file_of_two.has(".kind") && !file("").has(".kind"));
        for (sentence, at, problem) in
            [("f:2:3: x: y", Some((2, 3)), "x: y"), ("f: x: y", None, "x: y"), ("g:2:3: x", None, "g:2:3: x")]
        {
            assert_eq!(file("").placed(sentence), FileFault { at, problem: problem.to_owned() }, "{sentence}");
        }
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
    }

    #[test]
    fn a_place_in_a_sentence_goes_to_the_front() {
        let error = crate::bundle::parse_annotation("a: [1").unwrap_err();
        let told = file("").malformed(&error).problem;
        assert!(told.starts_with("f:1:") && told.contains(": is not YAML: "), "{told}");
    }
}
