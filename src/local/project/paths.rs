//! Where a project's file and a person's own are, and the files of a provider's fields.

use std::env;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use crate::local::private_file::own_directory;

/// The file that is committed, and looked for upward.
pub(crate) const PROJECT_FILE: &str = ".hushpod.yaml";
/// A person's own stores, below the configuration directory.
const USER_FILE: &str = "hushpod/config.yaml";

/// The working directory and those above it up to the root of its git repository; it alone, if there is none.
pub(crate) fn find_project(from: &Path) -> Option<PathBuf> {
    let repository: Vec<_> = from.ancestors().collect();
    let last = repository.iter().position(|directory| directory.join(".git").exists()).unwrap_or(0);
    let mut inside = repository.into_iter().take(last + 1);
    inside.find_map(|directory| Some(directory.join(PROJECT_FILE)).filter(|file| file.is_file()))
}

pub(super) fn user_file() -> Option<PathBuf> {
    let directory = own_directory("XDG_CONFIG_HOME", ".config")?;
    Some(directory.join(USER_FILE)).filter(|file| file.is_file())
}

/// Paths in a provider's fields begin at its file, or at `~/`.
pub(super) fn absolute_paths(fields: &mut Map<String, Value>, directory: &Path) {
    // What is laid over a store need not say its type again; no other type has a path.
    let is_file = fields.get("type").is_none_or(|kind| kind == "file");
    for (name, value) in fields.iter_mut() {
        match value {
            Value::String(text) if name.ends_with("File") || (is_file && name == "path") => {
                *text = absolute(text, directory);
            }
            Value::Object(auth) if name == "auth" => {
                for (_, value) in auth.iter_mut().filter(|(name, _)| name.ends_with("File") || *name == "file") {
                    if let Value::String(text) = value {
                        *text = absolute(text, directory);
                    }
                }
            }
            _ => {}
        }
    }
}

fn absolute(text: &str, directory: &Path) -> String {
    let home = text.strip_prefix("~/").and_then(|rest| Some(env::home_dir()?.join(rest)));
    let joined = home.unwrap_or_else(|| directory.join(text));
    let mut plain = PathBuf::new();
    for component in joined.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            component => plain.push(component),
        }
    }
    plain.display().to_string()
}
