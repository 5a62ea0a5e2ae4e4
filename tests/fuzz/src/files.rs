//! Files as a store, and files that are made of what a store holds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hushpod::bundle::{FileMode, Format, Target};
use hushpod::deliver::render::render;
use hushpod::generation::{Generation, GenerationId};
use hushpod::plan::{PlannedFrom, PlannedItem, PlannedReference};
use hushpod::provider::http::Reach;
use hushpod::provider::{Known, Login, ProviderError, ProviderSettings, Reading};
use hushpod::reference::{Key, Reference, Request};
use hushpod::secret::{SecretTree, SecretValue};
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
        let login = Login { provider: "files".into(), role: None, token: PathBuf::new().into() };
        let mut files = settings.connect(login, Reach::default())?;
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
    let take = PlannedReference { request: request.clone(), key: key.map(|key| Key::Literal(key.to_owned())) };
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
        accesses: BTreeMap::new(),
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

/// Whatever a template is: it is refused in one sentence where it is written, or it renders or is refused in one that
/// shows no value; within libFuzzer's limits of time and memory.
pub(crate) fn template(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Err(problem) = hushpod::bundle::template::check(text, None) {
        return assert!(!problem.to_string().is_empty(), "an empty message");
    }
    let document =
        json!({"a": "canary", "s": {"a": "canary", "l": ["canary", "b"], "n": 1.5, "t": true, "none": null}});
    let tree = SecretTree::from_json(document.to_string().as_bytes()).expect("a document");
    let request = Request { provider: "x".to_owned(), path: "x".to_owned(), params: BTreeMap::new() };
    let item = PlannedItem {
        target: Target::File("f".parse().expect("a path")),
        from: PlannedFrom::One(PlannedReference { request: request.clone(), key: None }),
        format: Format::Raw,
        mode: FileMode::OWNER,
        decode: None,
        template: Some(text.to_owned()),
        optional: false,
    };
    let generation = Generation {
        id: GenerationId("1".to_owned()),
        answers: BTreeMap::from([(request, Arc::new(tree))]),
        versions: BTreeMap::new(),
        accesses: BTreeMap::new(),
    };
    if let Err(error) = render(&[item], &generation, 1 << 20) {
        assert!(text.contains(MARKER) || !error.to_string().contains(MARKER), "{error}");
    }
}

/// What a leaf is in a file of its own, and in formats that have only text.
fn text_of(tree: &SecretTree) -> SecretValue {
    match tree {
        null if null.is_null() => SecretValue::new(Vec::new()),
        SecretTree::Literal(text) | SecretTree::Text(text) | SecretTree::Binary(text) => text.clone(),
        document => {
            let json = rendered(document, None, Format::Json).expect("what text can hold, JSON can");
            SecretValue::new(json.expose().trim_ascii_end().to_vec())
        }
    }
}

/// Whether both have the same keys, and at each leaf the same text: whether that is a number is another matter.
fn is_same_text(one: &SecretTree, other: &SecretTree) -> bool {
    match (one, other) {
        (SecretTree::List(one), SecretTree::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same_text(one, other))
        }
        (SecretTree::Map(one), SecretTree::Map(other)) => {
            one.keys().eq(other.keys()) && one.values().zip(other.values()).all(|(one, other)| is_same_text(one, other))
        }
        (one, other) => one.is_null() == other.is_null() && one.as_value() == other.as_value(),
    }
}

/// Whether serde_json finds the same in it; the digits of numbers it does not keep.
fn is_same_json(tree: &SecretTree, value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (tree, value) {
        (SecretTree::List(items), Value::Array(values)) => {
            items.len() == values.len() && items.iter().zip(values).all(|(item, value)| is_same_json(item, value))
        }
        (SecretTree::Map(entries), Value::Object(values)) => {
            entries.len() == values.len()
                && entries.iter().all(|(key, entry)| values.get(key).is_some_and(|value| is_same_json(entry, value)))
        }
        (SecretTree::Text(text), Value::String(value)) => text.expose() == value.as_bytes(),
        (SecretTree::Literal(text), value) => {
            serde_json::from_slice::<Value>(text.expose()).is_ok_and(|literal| literal == *value)
        }
        _ => false,
    }
}

/// As `java.util.Properties.load` reads what we write.
fn properties(text: &str) -> BTreeMap<String, String> {
    let unescaped = |text: &str| {
        let mut units = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let escaped = if char == '\\' { chars.next() } else { None };
            units.push(match escaped {
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    u16::from_str_radix(&digits, 16).expect("four digits")
                }
                Some('n') => u16::from(b'\n'),
                Some('r') => u16::from(b'\r'),
                Some('t') => u16::from(b'\t'),
                Some('f') => 0x0c,
                other => u16::try_from(u32::from(other.unwrap_or(char))).expect("ASCII"),
            });
        }
        String::from_utf16(&units).expect("whole characters")
    };
    let separator = |line: &str| {
        let mut is_escaped = false;
        line.bytes().position(|byte| {
            let is_end = byte == b'=' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        })
    };
    let lines = text.lines().map(|line| line.split_at(separator(line).expect("a separator")));
    lines.map(|(key, value)| (unescaped(key), unescaped(&value[1..]))).collect()
}

/// A JSON document delivered as dotenv, as properties, and key by key, and read as such, has the same text at every key.
pub(crate) fn dotenv(input: &[u8]) {
    let Ok(tree @ SecretTree::Map(_)) = SecretTree::from_json(input) else { return };
    let SecretTree::Map(entries) = &tree else { return };
    let text: BTreeMap<_, _> = entries.iter().map(|(key, value)| (key, text_of(value))).collect();
    for (key, text) in &text {
        if entries[*key].as_value().is_some() && !entries[*key].is_null() {
            let raw = rendered(&tree, Some(key), Format::Raw).expect("a value is one");
            assert!(raw == *text, "{key}: {:?} became {:?}", text.expose_str(), raw.expose_str());
        }
    }
    if let Some(written) = rendered(&tree, None, Format::Properties) {
        let found = properties(written.expose_str().expect("ASCII"));
        for (key, text) in &text {
            let found = found.get(*key).map(String::as_bytes);
            assert!(found == Some(text.expose()), "properties, {key}: {:?} became {found:?}", text.expose_str());
        }
    }
    let Some(written) = rendered(&tree, None, Format::Dotenv).filter(is_plain) else { return };
    let read = DESK.with(|desk| desk.read("x.env", written.expose())).unwrap_or_else(|error| panic!("{error}"));
    let SecretTree::Map(found) = read else { panic!("dotenv is a document") };
    assert!(found.keys().eq(entries.keys()), "other keys");
    for (key, text) in text {
        let is_same = found.get(key).and_then(SecretTree::as_value) == Some(&text);
        assert!(is_same, "{key}: {:?} became {:?}", text.expose_str(), found.get(key));
    }
}

/// A document that is read can be delivered as YAML and as JSON, and both have the same text at every leaf when read. JSON
/// is what serde_json takes it for. No value is in an error or in `Debug`.
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
    if name == "x.json" {
        let theirs = serde_json::from_slice::<serde_json::Value>(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
        match (SecretTree::from_json(bytes), theirs) {
            (Ok(tree), Ok(value)) => assert!(is_same_json(&tree, &value), "JSON reads otherwise"),
            // Numbers that no float can hold.
            (Ok(_), Err(error)) => assert!(error.to_string().contains("out of range"), "not JSON: {error}"),
            (Err(error), Ok(_)) => assert!(!error.is_malformed(), "it is JSON: {error}"),
            (Err(_), Err(_)) => {}
        }
    }
    let tree = match DESK.with(|desk| desk.read(name, bytes)) {
        Ok(tree) => tree,
        Err(error) => return assert_message(&error.message),
    };
    assert!(!format!("{tree:?}").contains(MARKER) || keys(&tree).contains(MARKER), "{tree:?}");
    if tree.as_value().is_some() {
        // Delivered whole, a text that is a document counts as one.
        return;
    }
    for (format, name) in [(Format::Json, "again.json"), (Format::Yaml, "again.yaml")] {
        let Some(text) = rendered(&tree, None, format).filter(is_plain) else { continue };
        let again = DESK.with(|desk| desk.read(name, text.expose()));
        let again = match again {
            // Written out it may be larger than it was.
            Err(_) if text.len() > 1 << 20 => continue,
            again => again.unwrap_or_else(|error| panic!("{name}: {error}: {:?}", text.expose_str())),
        };
        assert!(is_same_text(&again, &tree), "{name} is another document: {:?}", text.expose_str());
        assert!(format != Format::Json || again == tree, "JSON is another document");
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
