//! Files as a store, and files that are made of what a store holds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hushpod::bundle::{FileMode, Format, Target};
use hushpod::deliver::render::render;
use hushpod::plan::{PlannedFrom, PlannedItem, Take};
use hushpod::provider::http::Proxy;
use hushpod::provider::{Known, Login, ProviderError, ProviderSettings, Reading};
use hushpod::reference::{Key, Reference, Request};
use hushpod::secret::{SecretTree, SecretValue};
use hushpod::source::{Generation, GenerationId};
use serde::Deserialize as _;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{MARKER, assert_message, scratch};

/// Of `tests/data/sops`, and of no use elsewhere.
const IDENTITY: &str = include_str!("../../data/sops/identity.txt");

/// Where the file provider finds what a target wrote: one file of each kind.
struct Desk {
    runtime: Runtime,
    dir: PathBuf,
}

thread_local! {
    static DESK: Desk = Desk::new();
}

impl Desk {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let dir = scratch();
        fs::write(dir.join("identity.txt"), IDENTITY).expect("written");
        Self { runtime, dir }
    }

    /// What the file provider makes of these bytes in a file of this name.
    fn read(&self, name: &str, bytes: &[u8]) -> Result<SecretTree, ProviderError> {
        self.read_as(&json!({"type": "file", "path": self.dir.join(name)}), ".", name, bytes)
    }

    /// The same with the identity that SOPS' fixtures are for, out of a directory: age files are no document of a store.
    fn decrypt(&self, name: &str, bytes: &[u8]) -> Result<SecretTree, ProviderError> {
        let identity = self.dir.join("identity.txt");
        self.read_as(&json!({"type": "file", "path": self.dir, "identityFile": identity}), name, name, bytes)
    }

    fn read_as(
        &self,
        settings: &serde_json::Value,
        reference: &str,
        name: &str,
        bytes: &[u8],
    ) -> Result<SecretTree, ProviderError> {
        let path = self.dir.join(name);
        fs::write(&path, bytes).expect("written");
        // Old enough not to be waited for.
        let old = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(&path).and_then(|file| file.set_modified(old)).expect("made older");
        let settings = ProviderSettings::deserialize(settings).expect("settings");
        let login = Login { provider: "files".into(), role: None, token_file: PathBuf::new() };
        let mut files = settings.as_settings().connect(login, Proxy::default().matcher())?;
        let reference: Reference = reference.parse().expect("a reference");
        let requests = [settings.as_settings().resolve("files", &reference).expect("a request")];
        let mut results = self.runtime.block_on(files.read(&requests, &Known::new()));
        assert_eq!(results.len(), 1);
        match results.remove(0)? {
            Reading::Fresh(answer) => Ok(answer.tree),
            Reading::NotModified => panic!("files have no versions"),
        }
    }
}

/// One item with this format, of the whole tree or of one key.
fn rendered(tree: &SecretTree, key: Option<&str>, format: Format) -> Option<SecretValue> {
    let request = Request { provider: "files".into(), path: "x".into(), params: BTreeMap::new() };
    let take = Take { request: request.clone(), key: key.map(|key| Key::Literal(key.to_owned())) };
    let item = PlannedItem {
        target: Target::File("f".parse().expect("a path")),
        from: PlannedFrom::One(take),
        format,
        mode: FileMode::OWNER,
        decode: None,
        template: None,
        optional: false,
    };
    let generation = Generation {
        id: GenerationId("1".to_owned()),
        answers: BTreeMap::from([(request, Arc::new(tree.clone()))]),
        versions: BTreeMap::new(),
    };
    match render(&[item], &generation, 1 << 20) {
        Ok(mut files) => Some(files.remove(0).bytes),
        Err(error) => {
            assert!(!error.to_string().contains(MARKER) || keys(tree).contains(MARKER), "{error}");
            None
        }
    }
}

/// Whether nothing in this file is taken for SOPS' own.
fn is_plain(file: &SecretValue) -> bool {
    file.expose_str().is_some_and(|text| !text.contains("ENC[AES256_GCM,") && !text.contains("sops"))
}

/// Every key in the tree, which messages may name.
fn keys(tree: &SecretTree) -> String {
    match tree {
        SecretTree::List(items) => items.iter().map(keys).collect(),
        SecretTree::Map(entries) => entries.iter().map(|(key, value)| format!("{key}\n{}", keys(value))).collect(),
        _ => String::new(),
    }
}

/// A JSON document delivered as dotenv and read as such has the same values.
pub(crate) fn dotenv(input: &[u8]) {
    let Ok(tree @ SecretTree::Map(_)) = serde_json::from_slice::<SecretTree>(input) else { return };
    let SecretTree::Map(entries) = &tree else { return };
    let Some(text) = rendered(&tree, None, Format::Dotenv).filter(is_plain) else { return };
    let read = DESK.with(|desk| desk.read("x.env", text.expose())).unwrap_or_else(|error| panic!("{error}"));
    let SecretTree::Map(found) = read else { panic!("dotenv is a document") };
    assert!(found.keys().eq(entries.keys()), "other keys");
    for (key, value) in entries {
        let expected = match value {
            SecretTree::Literal(text) if text.expose() == b"null" => SecretValue::new(Vec::new()),
            SecretTree::Literal(text) | SecretTree::Text(text) => text.clone(),
            _ => {
                let json = rendered(&tree, Some(key), Format::Json).expect("what dotenv can hold, JSON can");
                SecretValue::new(json.expose().trim_ascii_end().to_vec())
            }
        };
        let is_same = found.get(key).and_then(SecretTree::as_value) == Some(&expected);
        assert!(is_same, "{key}: {:?} became {:?}", expected.expose_str(), found.get(key));
    }
}

/// A document that is read can be delivered as YAML and as JSON, and both are the same document when read. JSON is what
/// serde_json takes it for. No value is in an error or in `Debug`.
///
/// The first line is the file's ending.
pub(crate) fn documents(input: &[u8]) {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return };
    let (ending, bytes) = (&input[..end], &input[end + 1..]);
    let name = match ending {
        b"yaml" => "x.yaml",
        b"env" => "x.env",
        b"json" => "x.json",
        _ => return,
    };
    let tree = match DESK.with(|desk| desk.read(name, bytes)) {
        Ok(tree) => tree,
        Err(error) => return assert_message(&error.message),
    };
    if name == "x.json" {
        assert!(serde_json::from_slice::<SecretTree>(bytes).ok().as_ref() == Some(&tree), "JSON reads otherwise");
    }
    assert!(!format!("{tree:?}").contains(MARKER) || keys(&tree).contains(MARKER), "{tree:?}");
    if tree.as_value().is_some() {
        // Delivered whole, a text that is a document counts as one.
        return;
    }
    for (format, name) in [(Format::Json, "again.json"), (Format::Yaml, "again.yaml")] {
        let Some(text) = rendered(&tree, None, format).filter(is_plain) else { continue };
        let again = DESK.with(|desk| desk.read(name, text.expose()));
        let again = again.unwrap_or_else(|error| panic!("{name}: {error}: {:?}", text.expose_str()));
        assert!(again == tree, "{name} is another document: {:?}", text.expose_str());
    }
}

/// Whatever is done to an encrypted file, no value is in an error or in `Debug`; and what can be read can be delivered or
/// is refused.
///
/// The first line is the file's ending.
pub(crate) fn encrypted(input: &[u8]) {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return };
    let name = match &input[..end] {
        b"yaml" => "s.yaml",
        b"json" => "s.json",
        b"env" => "s.env",
        b"age" => "s.age",
        b"yaml.age" => "s.yaml.age",
        _ => return,
    };
    match DESK.with(|desk| desk.decrypt(name, &input[end + 1..])) {
        Ok(tree) => {
            assert!(!format!("{tree:?}").contains(MARKER) || keys(&tree).contains(MARKER), "{tree:?}");
            for format in [Format::Json, Format::Yaml, Format::Dotenv, Format::Properties] {
                rendered(&tree, None, format);
            }
        }
        Err(error) => assert_message(&error.message),
    }
}
