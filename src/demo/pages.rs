//! The demo's store in a directory that stays: made-up secrets in the place of those that the pages' examples ask for.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde_json::json;

use super::error::DemoError;
use super::stage::made_up;

/// What `src/local.md` and `deploy/ci/README.md` ask of a Vault: a path, and its keys.
const OF_VAULT: [(&str, &[&str]); 5] = [
    ("secret/data/db", &["password"]),
    ("secret/data/mail", &["user"]),
    ("secret/data/hf", &["token"]),
    ("secret/data/prod/hf", &["token"]),
    ("secret/data/web", &["password", "key"]),
];
/// The document in the place of the file that SOPS encrypts there.
const OF_SOPS: (&str, &str, &str) = ("sops.yaml", "sentry", "dsn");

/// Writes the store into a directory that is empty, or not there; gives back the providers that name it, as
/// `.hushpod.local.yaml` has them.
///
/// # Errors
/// [`DemoError`] if something is there, or it cannot be written.
pub fn write_store(directory: &Path) -> Result<String, DemoError> {
    let shown = directory.display();
    let root = std::path::absolute(directory).map_err(DemoError::io(format!("{shown}")))?;
    let (name, document, key) = OF_SOPS;
    let file = root.join(name);
    let path = |path: &Path| path.to_str().map(str::to_owned);
    let (Some(of_vault), Some(of_sops)) = (path(&root), path(&file)) else {
        return Err(DemoError::Broken(format!("invalid --store {shown}: expected UTF-8")));
    };
    make_directory(&root).map_err(DemoError::io(format!("make {shown}")))?;
    let mut entries = fs::read_dir(&root).map_err(DemoError::io(format!("look into {shown}")))?;
    if entries.next().is_some() {
        return Err(DemoError::Broken(format!("invalid --store {shown}: expected a new directory, or an empty one")));
    }
    for (path, keys) in OF_VAULT {
        let below = root.join(path);
        make_directory(&below).map_err(DemoError::io(format!("make {}", below.display())))?;
        for key in keys {
            write_file(&below.join(key), &made_up(0)?)?;
        }
    }
    write_file(&file, &format!("{document}:\n  {key}: {}\n", made_up(0)?))?;
    // JSON is YAML.
    let providers = json!({"vault": {"type": "file", "path": of_vault}, "sops": {"type": "file", "path": of_sops}});
    Ok(format!("# In the place of the stores of .hushpod.yaml: hushpod demo --store\nproviders: {providers}\n"))
}

/// With those above it, its owner's alone.
fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn write_file(file: &Path, text: &str) -> Result<(), DemoError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(DemoError::io(format!("write {}", file.display())))
}
