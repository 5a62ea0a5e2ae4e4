//! Where the files of a provider's fields are.

use std::env;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

/// Paths in a provider's fields begin at its file, or at `~/`.
pub(super) fn absolute_paths(fields: &mut Map<String, Value>, directory: &Path) {
    let is_file = fields.get("type").and_then(Value::as_str) == Some("file");
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
