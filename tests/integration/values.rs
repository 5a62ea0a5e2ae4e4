//! Values that readers and writers of documents like to change, from every store's bytes to every format: each arrives as
//! the text that it is.
//!
//! With `HUSHPOD_READERS` set to a directory, the files are left there for the readers of other programs
//! (`tests/readers/run`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hushpod::bundle::{FileMode, Format, Target};
use hushpod::deliver::render::render;
use hushpod::generation::{Generation, GenerationId};
use hushpod::plan::{PlannedFrom, PlannedItem, PlannedReference};
use hushpod::reference::{Key, Request};
use hushpod::secret::SecretTree;
use serde_json::value::RawValue;

/// As JSON has them, and their text where that is another one.
const VALUES: &[(&str, &str)] = &[
    ("5432", ""),
    ("0", ""),
    ("-0", ""),
    ("-1", ""),
    ("0.5", ""),
    ("1.10", ""),
    ("1.0", ""),
    ("-0.0", ""),
    ("1e3", ""),
    ("1E+3", ""),
    ("1e400", ""),
    ("-1e-400", ""),
    ("18446744073709551615", ""),
    ("18446744073709551616", ""),
    ("9007199254740993", ""),
    ("98765432109876543210", ""),
    ("1234567890123456789012345", ""),
    ("3.14159265358979323846", ""),
    ("0.1000000000000000055511151231257827", ""),
    ("true", ""),
    ("false", ""),
    (r#""""#, ""),
    (r#""0""#, "0"),
    (r#""00123""#, "00123"),
    (r#""0720""#, "0720"),
    (r#""0o17""#, "0o17"),
    (r#""0x1F""#, "0x1F"),
    (r#""0b11""#, "0b11"),
    (r#""01443e5""#, "01443e5"),
    (r#""61e9540""#, "61e9540"),
    (r#""1_000""#, "1_000"),
    (r#""+1""#, "+1"),
    (r#"".5""#, ".5"),
    (r#"".inf""#, ".inf"),
    (r#"".nan""#, ".nan"),
    (r#""NaN""#, "NaN"),
    (r#""190:20:30""#, "190:20:30"),
    (r#""2024-01-02""#, "2024-01-02"),
    (r#""true""#, "true"),
    (r#""TRUE""#, "TRUE"),
    (r#""no""#, "no"),
    (r#""y""#, "y"),
    (r#""null""#, "null"),
    (r#""~""#, "~"),
    (r#""<<""#, "<<"),
    (r#""=""#, "="),
    (r#""-""#, "-"),
    (r##""#canary""##, "#canary"),
    (r#"" canary ""#, " canary "),
    (r#""a: b # c""#, "a: b # c"),
    (r#""*canary &a !b %c @d `e`""#, "*canary &a !b %c @d `e`"),
    (r#""{a: [1]}""#, "{a: [1]}"),
    (r#""it's \"canary\"""#, "it's \"canary\""),
    (r#""\\n \\ \\\\""#, r"\n \ \\"),
    (r#""$HOME ${X} $(id) `id`""#, "$HOME ${X} $(id) `id`"),
    (r#""one\ntwo\n\n""#, "one\ntwo\n\n"),
    (r#""one\r\ntwo\r""#, "one\r\ntwo\r"),
    (r#""\t""#, "\t"),
    (r#""\u00fc\u20ac\ud83d\ude00""#, "ü€😀"),
    (r#""\u0085\u2028\ufeff\u007f""#, "\u{85}\u{2028}\u{feff}\u{7f}"),
    (r#""\u001b[0m""#, "\u{1b}[0m"),
    (r#""1.10 ""#, "1.10 "),
];

/// Each value's name, JSON and text.
fn values() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    VALUES.iter().copied().enumerate().map(|(index, (json, text))| {
        let text = if json.starts_with('"') { text } else { json };
        (format!("v{index:02}"), json, text)
    })
}

/// All values as one JSON document.
pub(crate) fn document() -> String {
    let entries: Vec<_> = values().map(|(name, json, _)| format!("{name:?}: {json}")).collect();
    format!("{{{}}}", entries.join(",\n "))
}

/// Whether this answer, or the document in its text below `key`, comes out in every format as it went in.
pub(crate) fn assert_delivered(answer: &SecretTree, key: Option<&Key>) {
    let request = Request { provider: "store".into(), path: "values".into(), params: BTreeMap::new() };
    let above = match key {
        None => Vec::new(),
        Some(Key::Literal(key)) => vec![key.clone()],
        Some(Key::Pointer(tokens)) => tokens.clone(),
    };
    let take = |name: &str| {
        let tokens = above.iter().cloned().chain([name.to_owned()]).collect();
        PlannedReference { request: request.clone(), key: Some(Key::Pointer(tokens)) }
    };
    let item = |path: &str, from, format| PlannedItem {
        target: Target::File(path.parse().unwrap()),
        from,
        format,
        mode: FileMode::OWNER,
        decode: None,
        template: None,
        optional: false,
    };
    let all = || PlannedFrom::Named(values().map(|(name, ..)| (name.clone(), take(&name))).collect());
    let mut items = vec![
        item("values.json", all(), Format::Json),
        item("values.yaml", all(), Format::Yaml),
        item("values.env", all(), Format::Dotenv),
        item("values.properties", all(), Format::Properties),
    ];
    items.push(PlannedItem { target: Target::Dir("dir".parse().unwrap()), ..item("x", all(), Format::Raw) });
    items.extend(values().map(|(name, ..)| item(&name, PlannedFrom::One(take(&name)), Format::Raw)));
    let generation = Generation {
        id: GenerationId("1".to_owned()),
        answers: BTreeMap::from([(request.clone(), Arc::new(answer.clone()))]),
        versions: BTreeMap::new(),
        accesses: BTreeMap::new(),
    };
    let files = render(&items, &generation, 1 << 20).unwrap();
    let files: BTreeMap<_, _> = files.iter().map(|file| (file.path.as_str(), file.bytes.expose())).collect();
    for (name, _, text) in values() {
        assert_eq!(files[name.as_str()], text.as_bytes(), "raw {name}");
        assert_eq!(files[format!("dir/{name}").as_str()], text.as_bytes(), "dir {name}");
    }
    assert_json(files["values.json"]);
    assert_yaml(std::str::from_utf8(files["values.yaml"]).unwrap());
    let dotenv = hushpod::dotenv::parse(files["values.env"]).unwrap();
    let properties = properties(std::str::from_utf8(files["values.properties"]).unwrap());
    for (name, _, text) in values() {
        assert_eq!(dotenv[&name].expose(), text.as_bytes(), "dotenv {name}");
        assert_eq!(properties[&name], text, "properties {name}");
    }
    if let Some(dir) = std::env::var_os("HUSHPOD_READERS") {
        let expected: Vec<_> = values().map(|(name, json, text)| (name, (!json.starts_with('"'), text))).collect();
        let expected = serde_json::to_vec(&expected.into_iter().collect::<BTreeMap<_, _>>()).unwrap();
        for (name, bytes) in files.into_iter().filter(|(name, _)| name.starts_with("values.")) {
            std::fs::write(Path::new(&dir).join(name), bytes).unwrap();
        }
        std::fs::write(Path::new(&dir).join("expected.json"), expected).unwrap();
    }
}

fn assert_json(bytes: &[u8]) {
    let found: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(bytes).unwrap();
    for (name, json, text) in values() {
        let written = found[&name].get();
        if json.starts_with('"') {
            assert_eq!(serde_json::from_str::<String>(written).unwrap(), text, "json {name}");
        } else {
            assert_eq!(written, json, "json {name}");
        }
    }
}

/// By the line, since no reader of YAML leaves a number as it is.
fn assert_yaml(yaml: &str) {
    let lines: BTreeMap<_, _> = yaml.lines().map(|line| line.split_once(": ").unwrap()).collect();
    for (name, json, text) in values() {
        let written = lines[format!("{name:?}").as_str()];
        let is_number = !matches!(json, "true" | "false") && !json.starts_with('"');
        if json.starts_with('"') || (is_number && json.contains(['e', 'E'])) {
            assert_eq!(serde_json::from_str::<String>(written).unwrap(), text, "yaml {name}");
        } else {
            assert_eq!(written, json, "yaml {name}");
        }
    }
    let again = SecretTree::from_yaml(yaml.as_bytes()).unwrap();
    for (name, _, text) in values() {
        assert_eq!(again.key(&name).unwrap().as_value().unwrap().expose_str(), Some(text), "yaml {name}");
    }
}

/// As `java.util.Properties.load` reads what we write.
fn properties(text: &str) -> BTreeMap<String, String> {
    let unescape = |text: &str| {
        let mut units = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let unit = match (char, if char == '\\' { chars.next() } else { None }) {
                (_, Some('u')) => {
                    let digits: String = chars.by_ref().take(4).collect();
                    u16::from_str_radix(&digits, 16).unwrap()
                }
                (_, Some('n')) => u16::from(b'\n'),
                (_, Some('r')) => u16::from(b'\r'),
                (_, Some('t')) => u16::from(b'\t'),
                (_, Some('f')) => 0x0c,
                (_, Some(other)) => u16::try_from(u32::from(other)).unwrap(),
                (char, None) => u16::try_from(u32::from(char)).unwrap(),
            };
            units.push(unit);
        }
        String::from_utf16(&units).unwrap()
    };
    text.lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(key, value)| (unescape(key), unescape(value)))
        .collect()
}

#[test]
fn a_document_comes_out_as_it_went_in() {
    assert_delivered(&SecretTree::from_json(document().as_bytes()).unwrap(), None);
    assert_delivered(&SecretTree::Text(document().as_str().into()), None);
    assert_delivered(&SecretTree::Text(format!("\u{feff}{}", document()).as_str().into()), None);
}
