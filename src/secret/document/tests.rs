use super::node::{MAX_BYTES, MAX_DEPTH};
use super::*;

type Read = fn(&[u8]) -> Result<SecretTree, DocumentError>;

/// A tree for failing tests: these are no secrets. Literals stand without quotes.
fn shown(tree: &SecretTree) -> String {
    match tree {
        SecretTree::Literal(text) => text.expose_str().unwrap().to_owned(),
        SecretTree::Text(text) => format!("{:?}", text.expose_str().unwrap()),
        SecretTree::Binary(bytes) => format!("{:02x?}", bytes.expose()),
        SecretTree::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
        SecretTree::Map(entries) => {
            let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key:?}:{}", shown(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
        SecretTree::Withheld(why) => why.as_ref().to_owned(),
    }
}

fn read(how: Read, text: &[u8]) -> String {
    how(text).map_or_else(|error| error.to_string(), |tree| shown(&tree))
}

fn json(text: &str) -> String {
    read(SecretTree::from_json, text.as_bytes())
}

fn yaml(text: &str) -> String {
    read(SecretTree::from_yaml, text.as_bytes())
}

#[test]
fn json_scalars_are_what_stands_there() {
    for text in [
        "0",
        "-0",
        "0.0",
        "-0.0e-0",
        "5432",
        "1.10",
        "1e3",
        "1E+3",
        "1e400",
        "-1e-400",
        "18446744073709551616",
        "98765432109876543210",
        "1234567890123456789012345",
        "3.14159265358979323846",
        "9007199254740993",
        "true",
        "false",
        "null",
    ] {
        assert_eq!(json(text), text);
        assert_eq!(
            json(&format!("\u{feff} [{text} ,\t{{\"k\": {text}\r\n}}]\n")),
            format!("[{text},{{\"k\":{text}}}]")
        );
    }
}

#[test]
fn json_strings_are_what_they_mean() {
    for (text, expected) in [
        (r#""""#, ""),
        (r#""plain ü 😀 / ' ""#, "plain ü 😀 / ' "),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\x08\x0c\n\r\t"),
        (r#""\u0000\u00e9\u20AC\ud83d\ude00x""#, "\0é€😀x"),
        (r#""a\u0041\\u0041""#, "aA\\u0041"),
        ("\"\u{7f}\u{2028}\u{feff}\"", "\u{7f}\u{2028}\u{feff}"),
        (r#""1e400""#, "1e400"),
    ] {
        let found = SecretTree::from_json(text.as_bytes()).unwrap();
        assert!(found == SecretTree::Text(expected.into()), "{text}: {}", shown(&found));
    }
    assert_eq!(json(r#"{"\u0061":1,"b\n":2}"#), r#"{"a":1,"b\n":2}"#);
}

/// As go.yaml.in/yaml 3.0.4 writes each text, whose lines end at U+2028 and U+2029 as well.
#[test]
fn texts_of_sops_have_the_line_ends_of_yaml_1_1() {
    for (written, expected) in [
        ("top:\n    k: 'a\u{2028}        b'\n", Some("a\u{2028}b")),
        ("top:\n    k: '\u{2029}        a'\n", Some("\u{2029}a")),
        ("top:\n    k: 'a\u{2028}'\n", Some("a\u{2028}")),
        ("top:\n    k: 'a\u{2028}\u{2029}        b'\n", Some("a\u{2028}\u{2029}b")),
        ("top:\n    k: 'it''s\u{2028}        b'\n", Some("it's\u{2028}b")),
        ("top:\n    k: \"a\\L b\\P\"\n", Some("a\u{2028} b\u{2029}")),
        ("top:\n    k: |\n        x\n        y\u{2028}        z\n", Some("x\ny\u{2028}z\n")),
        ("top:\n    k: |-\n        x\u{2028}\n        y\n", Some("x\u{2028}\ny")),
        ("top:\n    k: |-\n        x\n        y\u{2028}          z\n", Some("x\ny\u{2028}  z")),
        ("top:\n    k: |4-\n         x\n        y\u{2028}        z\n", Some(" x\ny\u{2028}z")),
        ("top:\n    k: |-\n\n        x\n        y\u{2028}        z\n", Some("\nx\ny\u{2028}z")),
        ("top:\n    k: \"\\N\\uFEFF\\e\\x7F\\U0001F600\\_\"\n", Some("\u{85}\u{feff}\u{1b}\u{7f}😀\u{a0}")),
        // A line that begins with it has no indentation before it, which YAML 1.2 takes for the block's end.
        ("top:\n    k: |-\n        x\n\u{2028}        y\n", None),
    ] {
        let found = Node::from_yaml(written.as_bytes(), Dialect::Sops).map(SecretTree::from);
        let found = found.ok().and_then(|tree| Some(tree.key("top").ok()?.key("k").ok()?.clone()));
        assert!(
            found == expected.map(|text| SecretTree::Text(text.into())),
            "{written:?}: {:?}",
            found.as_ref().map(shown)
        );
        // What people write is YAML 1.2, where these are characters like others.
        if written.contains("'a\u{2028}        b'") {
            let plain = SecretTree::from_yaml(written.as_bytes()).unwrap();
            let value = plain.key("top").unwrap().key("k").unwrap().clone();
            assert!(value == SecretTree::Text("a\u{2028}        b".into()));
        }
    }
}

#[test]
fn p5_what_is_no_json_is_told_by_its_place_alone() {
    for (text, told) in [
        ("", "is not JSON at line 1, column 1"),
        ("canary", "is not JSON at line 1, column 1"),
        ("{'canary':1}", "is not JSON at line 1, column 2"),
        ("[1,\n  canary]", "is not JSON at line 2, column 3"),
        ("{\"ü\": 1} canary", "is not JSON at line 1, column 10"),
        ("[1,]", "is not JSON at line 1, column 4"),
        ("{\"a\":1,}", "is not JSON at line 1, column 8"),
        ("{\"a\" 1}", "is not JSON at line 1, column 6"),
        ("{\"a\":1", "is not JSON at line 1, column 7"),
        ("[", "is not JSON at line 1, column 2"),
        ("00", "is not JSON at line 1, column 1"),
        ("[01]", "is not JSON at line 1, column 2"),
        ("[-]", "is not JSON at line 1, column 2"),
        ("[1.]", "is not JSON at line 1, column 2"),
        ("[.5]", "is not JSON at line 1, column 2"),
        ("[1e]", "is not JSON at line 1, column 2"),
        ("[+1]", "is not JSON at line 1, column 2"),
        ("[1_000]", "is not JSON at line 1, column 3"),
        ("[0x1F]", "is not JSON at line 1, column 2"),
        ("[NaN]", "is not JSON at line 1, column 2"),
        ("[True]", "is not JSON at line 1, column 2"),
        ("[nullcanary]", "is not JSON at line 1, column 2"),
        ("\"canary", "is not JSON at line 1, column 8"),
        ("\"canary\\", "is not JSON at line 1, column 9"),
        ("\"a\nb\"", "is not JSON at line 1, column 3"),
        ("\"\\x41\"", "is not JSON at line 1, column 3"),
        ("\"\\u00\"", "is not JSON at line 1, column 3"),
        ("\"\\u00ü0\"", "is not JSON at line 1, column 3"),
        ("\u{feff}\u{feff}1", "is not JSON at line 1, column 1"),
        ("\u{a0}1", "is not JSON at line 1, column 1"),
    ] {
        let error = SecretTree::from_json(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), told, "{text:?}");
        assert!(error.is_malformed(), "{text:?}");
        assert!(
            serde_json::from_str::<serde_json::Value>(text.trim_start_matches('\u{feff}')).is_err() || text.len() > 6
        );
    }
    for (text, told) in [
        (r#"{"canary":1,"b":{"c":1,"c":2}}"#, "has the same key twice at line 1, column 24"),
        ("{\"a\":1,\n\"\\u0061\":1}", "has the same key twice at line 2, column 1"),
        (r#""canary\ud83d""#, "has half of a character (an unpaired surrogate) at line 1, column 9"),
        (r#""\ud83dx""#, "has half of a character (an unpaired surrogate) at line 1, column 3"),
        (r#""\ude00\ud83d""#, "has half of a character (an unpaired surrogate) at line 1, column 3"),
        (r#""\ud83d\u0041""#, "has half of a character (an unpaired surrogate) at line 1, column 3"),
    ] {
        let error = SecretTree::from_json(text.as_bytes()).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.is_malformed()), (told, false), "{text:?}");
    }
    for (bytes, told) in [
        (&b"{\"k\": \"canary\xff\"}"[..], "is not UTF-8 at line 1, column 14"),
        (b"\n\xc3", "is not UTF-8 at line 2, column 1"),
        (b"\"\xed\xa0\x80\"", "is not UTF-8 at line 1, column 2"),
    ] {
        assert_eq!(read(SecretTree::from_json, bytes), told);
        assert_eq!(read(SecretTree::from_yaml, bytes), told);
    }
}

/// What every document may have, exactly; one more is refused, with a sentence and without filling the memory.
#[test]
fn p9_documents_are_bounded_in_bytes_values_and_depth() {
    let list = |items: usize| format!("[{}]", vec!["0"; items].join(","));
    let keys =
        |keys: usize| format!("{{{}}}", (0..keys).map(|key| format!("\"k{key}\": 0")).collect::<Vec<_>>().join(", "));
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let lines = |items: usize| "- 0\n".repeat(items);
    let readers: [(&str, Read); 2] = [("JSON", SecretTree::from_json), ("YAML", SecretTree::from_yaml)];
    for (format, how) in readers {
        for (fits, is_over, told) in [
            (list(MAX_VALUES - 1), list(MAX_VALUES), "has more than 10000 values: split it"),
            (keys(4_999), keys(60_000), "has more than 10000 values: split it"),
            (deep(MAX_DEPTH), deep(MAX_DEPTH + 1), "is nested more than 60 deep at line 1, column"),
            (deep(MAX_DEPTH), deep(500_000), "is nested more than 60 deep at line 1, column"),
            (long(MAX_BYTES), long(MAX_BYTES + 1), "has more than 1048576 bytes"),
            (list(1), list(524_287), "has more than 10000 values: split it"),
        ] {
            assert!(how(fits.as_bytes()).is_ok(), "{format}: {:?}", how(fits.as_bytes()).err());
            let error = how(is_over.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(told) && !error.is_malformed(), "{format}: {error}");
        }
    }
    assert!(SecretTree::from_yaml(lines(MAX_VALUES - 1).as_bytes()).is_ok());
    assert_eq!(yaml(&lines(262_144)), "has more than 10000 values: split it");
}

#[test]
fn yaml_scalars_without_quotes_are_what_stands_there() {
    for text in [
        "00123",
        "03190301",
        "0720",
        "01443e5",
        "00",
        "0e1234",
        "72225e2",
        "0x1F",
        "0o17",
        "0b11",
        "61e9540",
        "1e3",
        "1E400",
        "1_000",
        "+1",
        ".5",
        "1.",
        ".inf",
        "-.INF",
        ".nan",
        "TRUE",
        "True",
        "FALSE",
        "yes",
        "no",
        "on",
        "Off",
        "y",
        "190:20:30",
        "2024-01-02",
        "12:30:45",
        "NaN",
        "nan",
        "infinity",
        "nil",
        "none",
        "1.2.3",
        "--",
        "=",
        "p@ss",
        "a b",
        "a:b",
        "a#b",
        "-1-",
        "0123e",
        "١٢",
    ] {
        assert_eq!(yaml(&format!("k: {text}\n")), format!("{{\"k\":{text:?}}}"));
    }
    for text in ["0", "-0", "5432", "1.10", "0.5", "-3.0", "98765432109876543210", "true", "false"] {
        assert_eq!(yaml(&format!("k: {text} # comment\n")), format!("{{\"k\":{text}}}"));
    }
    for text in ["", "~", "null", "Null", "NULL", "!!null ''", "!!null x"] {
        let expected = if text == "!!null x" { "\"x\"" } else { "null" };
        assert_eq!(yaml(&format!("k: {text}\n")), format!("{{\"k\":{expected}}}"), "{text:?}");
    }
}

#[test]
fn yaml_is_read_in_every_style() {
    for (text, expected) in [
        ("", "null"),
        ("\u{feff}a: 1\r\nb: x\r\n", r#"{"a":1,"b":"x"}"#),
        ("--- # first\na: 1\n...\n", r#"{"a":1}"#),
        ("%YAML 1.2\n---\na: '1'\n", r#"{"a":"1"}"#),
        (
            r#"{"json": [1.10, "x\n\ud83d\ude00", null, {}], a: [], 'b': ""}"#,
            r#"{"a":[],"b":"","json":[1.10,"x\n😀",null,{}]}"#,
        ),
        ("k: 'it''s'\nl: \"\\x41\\u00e9\\U0001F600\\t\\0\"\n", r#"{"k":"it's","l":"Aé😀\t\0"}"#),
        ("k: |\n  one\n   two\n\n", r#"{"k":"one\n two\n"}"#),
        ("k: |-\n  one\n  two\n", r#"{"k":"one\ntwo"}"#),
        ("k: |+\n  one\n\n", r#"{"k":"one\n\n"}"#),
        ("k: >\n  one\n  two\n\n  three\n", r#"{"k":"one two\nthree\n"}"#),
        ("k: |\n  0123\n", r#"{"k":"0123\n"}"#),
        ("k: one\n  two\n", r#"{"k":"one two"}"#),
        (
            "0123: a\ntrue: b\n~: c\n1.0: d\n'': e\n? x\n: f\n",
            r#"{"":"e","0123":"a","1.0":"d","true":"b","x":"f","~":"c"}"#,
        ),
        ("- 1\n-\n- - a\n", r#"[1,null,["a"]]"#),
        (
            "k: !!str 0123\nl: !!str\nm: ! 12\nn: !!int 5\no: !!float '1.0'\np: !!bool yes\nq: !!timestamp 2024-01-02\n",
            r#"{"k":"0123","l":"","m":"12","n":5,"o":1.0,"p":"yes","q":"2024-01-02"}"#,
        ),
        ("k: !!binary aG\n kK\nl: !!binary /wD+\n", r#"{"k":"hi\n","l":[ff, 00, fe]}"#),
        ("k: !!seq [1]\nl: !!map {a: 1}\n", r#"{"k":[1],"l":{"a":1}}"#),
        ("a: &x 0123\nb: *x\n&k c: [*x, &l {d: *x}]\n*k : *l\n", "has the same key twice at line 4, column 1"),
        (
            "a: &x 0123\nb: *x\nc: [*x, &l {d: *x}]\ne: *l\n",
            r#"{"a":"0123","b":"0123","c":["0123",{"d":"0123"}],"e":{"d":"0123"}}"#,
        ),
        (
            "base: &b {host: h, port: 1}\nweb:\n  port: 2\n  <<: *b\n",
            r#"{"base":{"host":"h","port":1},"web":{"host":"h","port":2}}"#,
        ),
        ("<<: [{a: 1, b: 1}, {b: 2, c: 2}]\nc: 3\n", r#"{"a":1,"b":1,"c":3}"#),
        ("'<<': x\n", r#"{"<<":"x"}"#),
        ("k: <<\n", r#"{"k":"<<"}"#),
    ] {
        assert_eq!(yaml(text), expected, "{text}");
    }
}

#[test]
fn p5_what_is_no_yaml_is_told_by_its_place_alone() {
    for (text, told, is_malformed) in [
        ("k: canary\n\t- canary: [canary", "is not YAML at line 1, column 4", true),
        ("k: 'canary\n", "is not YAML at line", true),
        ("k: [canary\n", "is not YAML at line", true),
        ("a: 1\nb\n", "is not YAML at line", true),
        ("a: 1\na: 2\n", "has the same key twice at line 2, column 1", false),
        ("a:\n  canary: 1\n  'canary': 2\n", "has the same key twice at line 3, column 3", false),
        ("{a: 1, a: 2}", "has the same key twice at line 1, column 8", false),
        ("a: 1\n---\nb: 2\n", "has several YAML documents: put each into a file of its own", false),
        ("a: !canary x\n", "has a tag that is not known here: leave it out, at line 1, column", false),
        ("a: !!set {x}\n", "has a tag that is not known here: leave it out, at line 1, column", false),
        ("a: !!binary ü\n", "has a value with the tag !!binary that is not base64 at line 1, column", false),
        ("[canary]: 1\n", "has a key that is not text at line 1, column 1", false),
        ("a: *canary\n", "has an alias (*) of nothing that stands before it at line 1, column", false),
        ("a: &a [*a]\n", "has an alias (*) inside of what it stands for at line 1, column", false),
        ("<<: canary\n", "has a merge key (<<) without a map at line 1, column", false),
    ] {
        let error = SecretTree::from_yaml(text.as_bytes()).unwrap_err();
        let shown = error.to_string();
        assert!(shown.starts_with(told) && error.is_malformed() == is_malformed, "{text:?}: {shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[test]
fn p9_aliases_cost_what_they_stand_for() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.extend([format!("a{level}: &a{level} [{items}]\n")]);
    }
    assert_eq!(yaml(&laughs), "has more than 10000 values: split it");
    let nested = (0..60).map(|level| format!("&a{level} [")).collect::<Vec<_>>().concat();
    assert_eq!(
        yaml(&format!("{nested}{}{}", "0,".repeat(5_000), "]".repeat(60))),
        "has more than 10000 values: split it"
    );
    let long = format!("a: &a {}\nb: [*a, *a, *a]\n", "x".repeat(400_000));
    assert_eq!(yaml(&long), "has more than 1048576 bytes with its aliases written out");
    let fits = format!("a: &a {}\nb: [*a, *a]\n", "x".repeat(300_000));
    assert!(SecretTree::from_yaml(fits.as_bytes()).is_ok());
}
