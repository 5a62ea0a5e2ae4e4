//! Which files are looked into, and what each of them is.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::findings::{Checked, FindingKind};
use crate::bundle::parse_yaml_documents;
use crate::config::Config;
use crate::contract::PREFIX;
use crate::local::error::LocalError;
use crate::local::project::{LOCAL_FILE, PROJECT_FILE};
use crate::local::source_file::{FileFault, SourceFile};

/// Standard input, where a path is expected.
const STDIN: &str = "-";
/// Deeper directories are not looked into.
const MAX_DEPTH: usize = 32;
/// Most files of all directories.
const MAX_FILES: usize = 20_000;
/// What a file's name ends in.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// Fields that only an operator's configuration has.
const OF_OPERATORS: [&str; 13] = [
    "image",
    "imagePullPolicy",
    "imagePullSecrets",
    "nativeSidecars",
    "imageVolumes",
    "kubeletEnv",
    "deny",
    "defaults",
    "runtimeClasses",
    "injectedContainers",
    "csi",
    "audit",
    "proxy",
];
/// The field that it has in common with a project's.
const PROVIDERS: &str = "providers";
/// How templates of Helm and the like begin what is no YAML yet.
const TEMPLATE: &str = "{{";

/// A file to look into.
#[derive(Debug)]
pub(super) enum FoundFile {
    /// Read already: that can be done once.
    Stdin(SourceFile),
    /// One that the command line names.
    Named(PathBuf),
    /// One of a directory.
    Found(PathBuf),
}

/// What a file is.
#[derive(Debug)]
pub(super) enum FileKind {
    /// Kubernetes' objects.
    Manifest(Vec<Value>),
    Operator,
    /// `.hushpod.yaml`, or one like it.
    Project,
    /// Not YAML.
    Malformed(FileFault),
    /// Nothing of ours; why, if its reader should know.
    Other(Option<&'static str>),
}

/// All files that are named, and those in directories.
///
/// # Errors
/// One sentence, if there is no such file, or there are too many.
pub(super) fn list(targets: &[PathBuf]) -> Result<Vec<FoundFile>, LocalError> {
    let mut listed = Vec::new();
    for target in targets {
        if target.as_os_str() == STDIN {
            listed.push(FoundFile::Stdin(SourceFile::read_stdin()?));
        } else if target.is_dir() {
            gather(target, 0, &mut listed)?;
        } else {
            listed.push(FoundFile::Named(target.clone()));
        }
    }
    Ok(listed)
}

fn gather(directory: &Path, depth: usize, listed: &mut Vec<FoundFile>) -> Result<(), LocalError> {
    let failed = |error: std::io::Error| LocalError::usage(format!("{}: {}", directory.display(), error.kind()));
    let entries = fs::read_dir(directory).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    for path in paths {
        // A link to a directory may lead in a circle.
        let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_directory && !is_hidden && depth < MAX_DEPTH {
            gather(&path, depth + 1, listed)?;
        }
        let has_ending = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        if has_ending && path.is_file() {
            listed.push(FoundFile::Found(path));
        }
        if listed.len() > MAX_FILES {
            let problem = format!("{}: has more than {MAX_FILES} YAML files: name fewer", directory.display());
            return Err(LocalError::usage(problem));
        }
    }
    Ok(())
}

// === impl FoundFile ===

impl FoundFile {
    pub(super) fn is_named(&self) -> bool {
        !matches!(self, Self::Found(_))
    }

    /// Reads it. One that was found in a directory and cannot be is told of, and is no error.
    ///
    /// # Errors
    /// One sentence, if it was named and cannot be read.
    pub(super) fn read(&self, checked: &mut Checked) -> Result<Option<SourceFile>, LocalError> {
        match self {
            Self::Stdin(file) => Ok(Some(file.clone())),
            Self::Named(path) => SourceFile::read(path).map(Some),
            Self::Found(path) => match SourceFile::read(path) {
                Ok(file) => Ok(Some(file)),
                Err(error) => {
                    let file = SourceFile::unread(path);
                    checked.warn(&file, FindingKind::Skipped, file.placed(&error.problem));
                    Ok(None)
                }
            },
        }
    }
}

// === impl FileKind ===

impl FileKind {
    /// Of a directory's files, those that say nothing of ours are not even parsed.
    pub(super) fn of(file: &SourceFile, is_named: bool) -> Self {
        if is_named_as_project(&file.path) {
            return Self::Project;
        }
        if !is_named && ![PREFIX, PROVIDERS].iter().any(|word| file.text.contains(word)) {
            return Self::Other(None);
        }
        match parse_yaml_documents(&file.text) {
            Ok(documents) => Self::of_documents(documents, is_named),
            Err(_) if file.text.contains(TEMPLATE) => Self::Other(Some(
                "not looked into: it is a template, and no YAML yet: pipe what is rendered, as in \
                 `helm template . | hushpod check -`",
            )),
            Err(error) if is_named || file.text.contains(PREFIX) => Self::Malformed(FileFault::malformed(&error)),
            Err(_) => Self::Other(None),
        }
    }

    fn of_documents(documents: Vec<Value>, is_named: bool) -> Self {
        let has = |value: &Value, field: &str| value.get(field).is_some();
        if documents.iter().any(|value| value.get("kind").is_some_and(Value::is_string)) {
            return Self::Manifest(documents);
        }
        let any = |fields: &[&str]| {
            let Some(first) = documents.first() else { return false };
            fields.iter().any(|field| has(first, field))
        };
        let has_stores = any(&[PROVIDERS]);
        // Others' files have an `image`, or an `env`: a directory's are looked at more closely.
        let has_image = documents.first().and_then(|first| first.get("image")).is_some_and(Value::is_string);
        let says_what = any(&["secrets", "variables", "profiles"]);
        let is_project = (has_stores && (is_named || says_what))
            || (is_named && any(&["defaultProvider", "profiles"]) && !any(&OF_OPERATORS));
        let in_values = documents.first().and_then(Config::in_values);
        let are_values = is_named && in_values.is_some_and(|config| config.contains_key(PROVIDERS));
        if are_values || (has_stores && any(&OF_OPERATORS) && (is_named || has_image)) {
            Self::Operator
        } else if is_project {
            Self::Project
        } else if is_named && !documents.is_empty() {
            Self::Other(Some(
                "not looked into: expected Kubernetes' objects, an operator's configuration (providers, image), the \
                 chart's values (config) or a .hushpod.yaml",
            ))
        } else {
            Self::Other(None)
        }
    }
}

fn is_named_as_project(path: &Path) -> bool {
    is_named(path, PROJECT_FILE) || is_named(path, LOCAL_FILE)
}

/// Whether a file has this name, wherever it is.
pub(super) fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file| file == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(directory: &Path) -> Result<usize, String> {
        list(&[directory.to_owned()]).map(|files| files.len()).map_err(|error| error.problem)
    }

    #[test]
    fn a_directory_has_so_many_files_and_not_one_more() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        fs::create_dir(&below).unwrap();
        for number in 0..MAX_FILES {
            let parent = if number % 2 == 0 { directory.path() } else { &below };
            fs::File::create(parent.join(format!("{number}.yaml"))).unwrap();
        }
        fs::write(below.join("notes.txt"), "not looked at").unwrap();
        assert_eq!(found(directory.path()), Ok(MAX_FILES));
        fs::write(below.join("more.json"), "").unwrap();
        let problem = found(directory.path()).unwrap_err();
        assert!(problem.contains("has more than 20000 YAML files"), "{problem}");
    }

    #[test]
    fn directories_are_so_deep_and_not_deeper() {
        let directory = tempfile::tempdir().unwrap();
        let mut deep = directory.path().to_owned();
        for depth in 0..=MAX_DEPTH + 1 {
            fs::write(deep.join("a.yaml"), "").unwrap();
            // The directory itself is at depth 0.
            assert_eq!(found(directory.path()), Ok((depth + 1).min(MAX_DEPTH + 1)), "at depth {depth}");
            deep.push("d");
            fs::create_dir(&deep).unwrap();
        }
    }

    #[test]
    fn hidden_ones_and_links_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(".hidden")).unwrap();
        fs::write(directory.path().join(".hidden/a.yaml"), "").unwrap();
        std::os::unix::fs::symlink(directory.path(), directory.path().join("circle")).unwrap();
        fs::write(directory.path().join(PROJECT_FILE), "").unwrap();
        assert_eq!(found(directory.path()), Ok(1), "a project's file is called so");
    }
}
