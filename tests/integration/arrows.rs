//! Imports go one way. What is not in these tables is refused: an arrow more is a decision, made here.

use std::fs;
use std::path::{Path, PathBuf};

/// Std and serde alone: everyone may use them.
const LEAVES: [&str; 8] = ["secret", "sentence", "reference", "bundle", "dotenv", "environment", "quantity", "steps"];

/// Which other modules each one may use, beside [`LEAVES`].
const ARROWS: &[(&str, &[&str])] = &[
    ("secret", &[]),
    ("sentence", &[]),
    ("reference", &[]),
    ("bundle", &[]),
    ("steps", &[]),
    ("dotenv", &[]),
    ("environment", &[]),
    ("quantity", &[]),
    ("process", &[]),
    ("serve", &[]),
    ("annotations", &[]),
    ("provider", &["process"]),
    ("config", &["annotations", "provider"]),
    ("plan", &["annotations", "config", "provider"]),
    ("source", &["plan", "provider"]),
    ("deliver", &["annotations", "plan", "source"]),
    ("webhook", &["annotations", "config", "plan", "process", "serve"]),
    ("exec", &["annotations", "process"]),
    ("agent", &["annotations", "deliver", "exec", "plan", "process", "provider", "source"]),
    // The chain from end to end on one machine: the one front end that runs another.
    ("demo", &["annotations", "config", "deliver", "plan", "process", "serve", "webhook"]),
    // Puts together what runs.
    ("cli", &["annotations", "config", "demo", "process", "serve", "webhook"]),
    ("lib", &[]),
    ("main", &[]),
    ("bin", &[]),
];

/// Crates that only these modules may use.
const CRATES: &[(&str, &[&str])] = &[
    ("kube", &["webhook"]),
    ("k8s_openapi", &["webhook"]),
    ("tonic", &[]),
    ("axum", &["demo", "serve", "webhook"]),
    ("json_patch", &["demo", "webhook"]),
    ("hyper_rustls", &["provider"]),
];

/// A source file's path below `src/`, and its lines without tests and comments.
fn sources() -> Vec<(String, Vec<String>)> {
    fn gather(directory: &Path, root: &Path, found: &mut Vec<(String, Vec<String>)>) {
        let mut entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let below = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if below.contains("tests") {
                continue;
            }
            if path.is_dir() {
                gather(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
                let code = lines.map(|line| line.split("//").next().unwrap_or_default().to_owned());
                found.push((below, code.collect()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    gather(&root, &root, &mut found);
    assert!(found.len() > 20, "{found:?}");
    found
}

/// The part of the tree that a file belongs to.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Names that stand right behind `prefix` in a line, and are no part of a longer path.
fn names_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = line.match_indices(prefix).filter(|(at, _)| !line[..*at].ends_with(|c| is_name(c) || c == ':'));
    starts.map(|(at, _)| line[at + prefix.len()..].split(|c| !is_name(c)).next().unwrap_or_default()).collect()
}

#[test]
fn modules_import_in_one_direction() {
    for (file, lines) in sources() {
        let from = module(&file);
        let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == from).unwrap_or_else(|| panic!("{file}: no arrows"));
        for to in lines.iter().flat_map(|line| names_after(line, "crate::")) {
            assert!(!to.is_empty(), "{file}: write one `use crate::…` per module, so that this test can read them");
            let is_fine = to == from || LEAVES.contains(&to) || allowed.contains(&to);
            assert!(is_fine, "{file}: {from} must not use {to}");
        }
    }
}

#[test]
fn providers_do_not_know_each_other() {
    let providers = ["vault", "file", "aws", "azure", "gcp", "infisical"];
    for (file, lines) in sources() {
        let Some(own) = providers.into_iter().find(|name| file.starts_with(&format!("provider/{name}"))) else {
            continue;
        };
        for other in providers.into_iter().filter(|other| *other != own) {
            for way in [format!("super::{other}"), format!("crate::provider::{other}")] {
                assert!(!lines.iter().any(|line| line.contains(&way)), "{file}: {way}");
            }
        }
    }
}

#[test]
fn crates_stay_where_they_belong() {
    for (file, lines) in sources() {
        for (name, modules) in CRATES {
            let uses = lines.iter().any(|line| {
                line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|w| w == *name)
                    && line.contains(&format!("{name}::"))
            });
            assert!(!uses || modules.contains(&module(&file)), "{file}: {name} belongs in {modules:?}");
        }
    }
}

#[test]
fn a_store_of_files_asks_nobody() {
    let files: Vec<_> = sources().into_iter().filter(|(file, _)| file.starts_with("provider/file")).collect();
    assert!(files.len() > 3, "{files:?}");
    for (file, lines) in files {
        let mut words = lines.iter().flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_')));
        let network = ["http", "hyper", "rustls", "net", "TcpStream", "oauth", "bearer"];
        assert_eq!(words.find(|word| network.contains(word)), None, "{file}: the README says 0 requests an hour");
    }
}
