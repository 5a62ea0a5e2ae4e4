use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::bundle::FileMode;
use crate::generation::GenerationId;
use crate::plan::{PlannedFrom, PlannedReference};
use crate::reference::{Reference, Request};

mod templates;

const LIMIT: u64 = 1 << 20;

fn request(reference: &str) -> PlannedReference {
    let parsed: Reference = reference.parse().unwrap();
    let provider = parsed.provider.unwrap_or_else(|| "vault".to_owned());
    PlannedReference { request: Request { provider, path: parsed.path, params: parsed.params }, key: parsed.key }
}

fn tree(document: &serde_json::Value) -> SecretTree {
    SecretTree::from_json(document.to_string().as_bytes()).unwrap()
}

fn generation(answers: &[(&str, SecretTree)]) -> Generation {
    Generation {
        id: GenerationId("id".to_owned()),
        answers: answers.iter().map(|(path, tree)| (request(path).request, Arc::new(tree.clone()))).collect(),
        versions: BTreeMap::new(),
        accesses: BTreeMap::new(),
    }
}

/// A planned item, written as in the plan's JSON, with references in short.
fn item(fields: &serde_json::Value) -> PlannedItem {
    let take = |reference: &serde_json::Value| request(reference.as_str().unwrap());
    let from = match &fields["from"] {
        serde_json::Value::Array(list) => PlannedFrom::Merge(list.iter().map(take).collect()),
        serde_json::Value::Object(map) => {
            PlannedFrom::Named(map.iter().map(|(name, reference)| (name.clone(), take(reference))).collect())
        }
        one => PlannedFrom::One(take(one)),
    };
    let path = |field: &str| fields[field].as_str().map(|path| VolumePath::try_from(path.to_owned()).unwrap());
    PlannedItem {
        target: path("file").map(Target::File).or_else(|| path("dir").map(Target::Dir)).unwrap(),
        from,
        format: serde_json::from_value(fields["format"].clone()).unwrap_or_default(),
        mode: FileMode::OWNER,
        decode: fields["decode"].as_str().map(|_| Decode::Base64),
        template: fields["template"].as_str().map(str::to_owned),
        optional: fields["optional"].as_bool().unwrap_or_default(),
    }
}

fn render_one(fields: &serde_json::Value, answers: &[(&str, SecretTree)]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let files = render(&[item(fields)], &generation(answers), LIMIT).map_err(|error| error.to_string())?;
    Ok(files.iter().map(|file| (file.path.to_string(), file.bytes.expose().to_vec())).collect())
}

/// The one file's text.
fn text(fields: &serde_json::Value, answers: &[(&str, SecretTree)]) -> String {
    let files = render_one(fields, answers).unwrap();
    assert_eq!(files.len(), 1, "{fields}");
    String::from_utf8(files[0].1.clone()).unwrap()
}

fn binary() -> SecretTree {
    SecretTree::from_bytes(b"\xff\x00canary\xfe".to_vec())
}

#[test]
fn raw_is_the_bytes_of_one_value() {
    let db = tree(&json!({"user": "u", "port": 5432, "deep": {"key": "d"}, "text": "{\"a\": 1}"}));
    for (from, want) in [
        ("db#user", "u"),
        ("db#port", "5432"),
        ("db#/deep/key", "d"),
        ("db#/text/a", "1"),
        ("db#text", "{\"a\": 1}"),
        ("plain", "line\n"),
    ] {
        let answers = [("db", db.clone()), ("plain", SecretTree::Text("line\n".into()))];
        assert_eq!(text(&json!({"file": "f", "from": from}), &answers), want, "{from}");
    }
    let files = render_one(&json!({"file": "f", "from": "b"}), &[("b", binary())]).unwrap();
    assert_eq!(files, [("f".to_owned(), b"\xff\x00canary\xfe".to_vec())]);
}

#[test]
fn each_format_keeps_types_and_quotes_text() {
    let db = tree(&json!({
        "no": "no", "one": "1", "port": 5432, "tls": true, "none": null, "list": ["a", {"b": 2}], "empty": {},
        "lines": "a\nb", "unicode": "ä\u{85}😀",
    }));
    for (format, want) in [
        (
            "json",
            concat!(
                r#"{"empty":{},"lines":"a\nb","list":["a",{"b":2}],"no":"no","none":null,"one":"1","port":5432,"#,
                r#""tls":true,"unicode":"ä\u0085😀"}"#,
                "\n"
            ),
        ),
        (
            "yaml",
            concat!(
                "\"empty\": {}\n\"lines\": \"a\\nb\"\n\"list\":\n  - \"a\"\n  -\n    \"b\": 2\n\"no\": \"no\"\n",
                "\"none\": null\n\"one\": \"1\"\n\"port\": 5432\n\"tls\": true\n\"unicode\": \"ä\\u0085😀\"\n"
            ),
        ),
        (
            "dotenv",
            concat!(
                "empty='{}'\nlines='a\nb'\nlist='[\"a\",{\"b\":2}]'\nno='no'\nnone=''\none='1'\nport='5432'\n",
                "tls='true'\nunicode='ä\u{85}😀'\n"
            ),
        ),
        (
            "properties",
            concat!(
                "empty={}\nlines=a\\nb\nlist=[\"a\",{\"b\"\\:2}]\nno=no\nnone=\none=1\nport=5432\ntls=true\n",
                "unicode=\\u00E4\\u0085\\uD83D\\uDE00\n"
            ),
        ),
    ] {
        let answers = [("db", db.clone())];
        assert_eq!(text(&json!({"file": "f", "from": "db", "format": format}), &answers), want, "{format}");
    }
}

#[test]
fn json_and_yaml_are_read_back_as_they_were() {
    let nasty = json!({
        "": "empty key", "yes": "off", "date": "2024-01-01", "null": "~", "colon: #": "- a: b # c", "tab\t": "\t",
        "control": "\u{0}\u{1b}\u{7f}\u{9f}\u{feff}\u{2028}", "quotes": "\"'\\", "crlf": "a\r\nb\n", "lead": "  x  ",
        "nested": {"list": [[], [1, [2, "3"]], {"a": {"b": []}}], "f": 0.5, "big": 18_446_744_073_709_551_615_u64},
    });
    for format in ["json", "yaml"] {
        let written = text(&json!({"file": "f", "from": "x", "format": format}), &[("x", tree(&nasty))]);
        let read = if format == "json" { SecretTree::from_json } else { SecretTree::from_yaml };
        assert!(read(written.as_bytes()).unwrap() == tree(&nasty), "{format}:\n{written}");
    }
}

#[test]
fn dotenv_survives_a_posix_shell() {
    let nasty = [
        "plain",
        "",
        " lead and trail ",
        "it's",
        "''",
        "a\nb\n",
        "$(exit 9)`exit 9`$HOME",
        "\\n\\\\'\\",
        "\"x\"",
        "ä😀",
        "#no comment",
        "a=b;c&d|e>f",
        "\t\r",
        "-e -n",
        "%s%d",
    ];
    let entries: serde_json::Map<_, _> =
        nasty.iter().enumerate().map(|(index, value)| (format!("K_{index}"), json!(value))).collect();
    let written = text(
        &json!({"file": "f", "from": "x", "format": "dotenv"}),
        &[("x", tree(&serde_json::Value::Object(entries)))],
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(written.as_bytes()).unwrap();
    for (index, value) in nasty.iter().enumerate() {
        let script = format!(". \"$1\" && printf %s \"$K_{index}\"");
        let shell = Command::new("sh").args(["-c", &script, "sh"]).arg(file.path()).output().unwrap();
        assert!(shell.status.success(), "{value:?}: {shell:?}");
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), *value);
    }
}

#[test]
fn properties_escape_what_java_would_read_otherwise() {
    for (key, value, want) in [
        ("a b", "c", r"a\ b=c"),
        ("a=b:c", "#d!e=f:g", r"a\=b\:c=\#d\!e\=f\:g"),
        ("#k", "  two spaces", r"\#k=\ \ two spaces"),
        ("k", r"C:\dir", r"k=C\:\\dir"),
        ("k", "\t\r\n\x0c\x01", r"k=\t\r\n\f\u0001"),
        ("ключ", "é", r"\u043A\u043B\u044E\u0447=\u00E9"),
    ] {
        let fields = json!({"file": "f", "from": "x", "format": "properties"});
        assert_eq!(text(&fields, &[("x", tree(&json!({key: value})))]), format!("{want}\n"), "{key} {value}");
    }
}

#[test]
fn references_are_merged_or_named() {
    let answers = [
        ("a", tree(&json!({"user": "u", "nested": {"x": 1}}))),
        ("b", tree(&json!({"token": "t"}))),
        ("text", SecretTree::Text(r#"{"inner":"i"}"#.into())),
        ("plain", SecretTree::Text("p".into())),
    ];
    for (from, want) in [
        (json!(["a#user", "b"]), r#"{"token":"t","user":"u"}"#),
        (json!(["a#/nested", "b"]), r#"{"token":"t","x":1}"#),
        (json!(["text", "b"]), r#"{"inner":"i","token":"t"}"#),
        (json!({"one": "a#user", "two": "b", "three": "text", "four": "plain"}), {
            r#"{"four":"p","one":"u","three":{"inner":"i"},"two":{"token":"t"}}"#
        }),
        (json!("plain"), r#""p""#),
        (json!("text"), r#"{"inner":"i"}"#),
        (json!("a#user"), r#""u""#),
    ] {
        let fields = json!({"file": "f", "from": from, "format": "json"});
        assert_eq!(text(&fields, &answers), format!("{want}\n"), "{from}");
    }
}

#[test]
fn a_directory_has_a_file_per_key() {
    let answers = [(
        "a",
        SecretTree::Map(BTreeMap::from([
            ("bin".to_owned(), binary()),
            ("doc".to_owned(), tree(&json!({"x": [1]}))),
            ("none".to_owned(), tree(&json!(null))),
            ("text.txt".to_owned(), SecretTree::Text("t".into())),
        ])),
    )];
    for (dir, prefix) in [("cfg", "cfg/"), (".", ""), ("a/b", "a/b/")] {
        let files = render_one(&json!({"dir": dir, "from": "a"}), &answers).unwrap();
        let want = [
            (format!("{prefix}bin"), b"\xff\x00canary\xfe".to_vec()),
            (format!("{prefix}doc"), br#"{"x":[1]}"#.to_vec()),
            (format!("{prefix}none"), Vec::new()),
            (format!("{prefix}text.txt"), b"t".to_vec()),
        ];
        assert_eq!(files, want);
    }
    let decoded =
        render_one(&json!({"dir": ".", "from": "d", "decode": "base64"}), &[("d", tree(&json!({"k": "aGk="})))]);
    assert_eq!(decoded.unwrap(), [("k".to_owned(), b"hi".to_vec())]);
}

#[test]
fn base64_is_taken_as_people_paste_it() {
    for (encoded, want) in [("aGVsbG8=", "hello"), ("aGVsbG8", "hello"), (" aGVs\r\n\tbG8=\n", "hello"), ("", "")] {
        let fields = json!({"file": "f", "from": "x", "decode": "base64"});
        assert_eq!(text(&fields, &[("x", SecretTree::Text(encoded.into()))]), want, "{encoded:?}");
    }
}

#[test]
fn optional_items_are_left_out_when_something_is_missing() {
    let answers = [("a", tree(&json!({"k": "v"}))), ("empty", tree(&json!({})))];
    for from in [json!("gone"), json!("a#gone"), json!(["a", "gone"]), json!({"x": "gone"}), json!("a#/gone/deep")] {
        let fields = json!({"file": "f", "from": from, "format": "json", "optional": true});
        assert_eq!(render_one(&fields, &answers), Ok(Vec::new()), "{from}");
        let needed = json!({"file": "f", "from": from, "format": "json"});
        assert!(render_one(&needed, &answers).unwrap_err().contains("gone"), "{from}");
    }
    assert_eq!(render_one(&json!({"dir": "d", "from": "empty", "optional": true}), &answers), Ok(Vec::new()));
}

#[test]
fn p3_an_answer_without_keys_is_no_empty_directory() {
    let error = render_one(&json!({"dir": "d", "from": "x"}), &[("x", tree(&json!({})))]).unwrap_err();
    assert_eq!(error, "dir d: the answer has no keys, so there is no file to write (optional: true allows that)");
}

/// What errors are about: every leaf is a canary.
fn canaries() -> [(&'static str, SecretTree); 7] {
    let db = tree(&json!({
        "user": "canary-user", "port": 424_242, "bad key": "canary", "none": null, "nul": "canary\0", "no64": "canary!",
        "last64": "canaryx",
    }));
    [
        ("db", db),
        ("other", tree(&json!({"user": "canary-other"}))),
        ("bin", SecretTree::Map(BTreeMap::from([("blob".to_owned(), SecretTree::List(vec![binary()]))]))),
        ("list", tree(&json!(["canary"]))),
        ("plain", SecretTree::Text("canary".into())),
        ("slash", tree(&json!({"a/b": "canary"}))),
        ("dots", tree(&json!({"..data": "canary"}))),
    ]
}

#[test]
fn p5_p9_errors_name_item_reference_and_key_but_no_value() {
    let answers = canaries();
    for (fields, part) in [
        (json!({"file": "f", "from": "db"}), "vault:db is a document with the keys \"bad key\", last64, no64, none"),
        (json!({"file": "f", "from": "db"}), "write #key or format: json"),
        (json!({"file": "f", "from": "list"}), "vault:list is a list where one value is needed"),
        (json!({"file": "f", "from": "db#none"}), "vault:db#none is null"),
        (json!({"file": "f", "from": "db#passwd"}), "vault:db#passwd: no key \"passwd\""),
        (json!({"file": "f", "from": "gone"}), "file f: vault:gone has no answer"),
        (json!({"file": "f", "from": ["db", "other"], "format": "json"}), {
            "key \"user\" comes from both vault:db and vault:other"
        }),
        (json!({"file": "f", "from": ["plain", "db"], "format": "json"}), "vault:plain is a single value"),
        (json!({"file": "f", "from": ["list", "db"], "format": "json"}), "vault:list is a list where a document"),
        (json!({"file": "f", "from": "bin", "format": "json"}), "key \"blob/0\" is binary"),
        (json!({"file": "f", "from": "bin", "format": "yaml"}), "key \"blob/0\" is binary"),
        (json!({"file": "f", "from": "bin#/blob/0", "format": "dotenv"}), "key \"0\" is not a shell variable's name"),
        (json!({"file": "f", "from": {"b": "bin#/blob/0"}, "format": "dotenv"}), "key \"b\" is binary"),
        (json!({"file": "f", "from": {"b": "bin#/blob/0"}, "format": "properties"}), "key \"b\" is binary"),
        (json!({"file": "f", "from": "db", "format": "dotenv"}), "key \"bad key\" is not a shell variable's name"),
        (json!({"file": "f", "from": "db#nul", "format": "dotenv"}), "key \"nul\" has a NUL byte"),
        (json!({"dir": "d", "from": "slash"}), "dir d: none of its keys makes a file: key \"a/b\" is not a file name"),
        (json!({"dir": ".", "from": "dots"}), "key \"..data\" is not a file name"),
        (json!({"file": "f", "from": "db#no64", "decode": "base64"}), "is not base64 at character 7"),
        (json!({"file": "f", "from": "db#last64", "decode": "base64"}), "is not base64"),
        (json!({"file": "f", "from": "bin#/blob/0", "decode": "base64"}), "the store holds bytes"),
        (json!({"dir": "d", "from": "other", "decode": "base64"}), "key \"user\" is not base64 at character 7"),
    ] {
        let error = render_one(&fields, &answers).expect_err(&fields.to_string());
        assert!(error.contains(part), "{fields}: {error}");
        assert!(!error.contains("canary") && !error.contains("424242"), "{fields}: {error}");
    }
}

#[test]
fn p5_names_that_only_the_store_knows_are_for_logs_alone() {
    let db = tree(&json!({"STORE KEY": {"STORE_DEEP": "1\0"}, "asked": {"STORE_DEEP": "1"}, "text": "x"}));
    let bin = SecretTree::Map(BTreeMap::from([("STORE_BIN".to_owned(), binary())]));
    let slash = tree(&json!({"STORE/a": "x"}));
    let answers =
        generation(&[("db", db), ("bin", bin), ("slash", slash), ("again", tree(&json!({"STORE_BIN": "x"})))]);
    for (fields, part) in [
        (json!({"file": "f", "from": "db"}), "vault:db is a document where one value is needed: write #key"),
        (json!({"file": "f", "from": "db#asked"}), "vault:db#asked is a document where one"),
        (json!({"file": "f", "from": "db#other"}), "vault:db#other: no key \"other\""),
        (json!({"file": "f", "from": "db#/asked/other"}), "no key \"other\""),
        (json!({"file": "f", "from": "db", "format": "dotenv"}), "a key is not a shell variable's name"),
        (json!({"file": "f", "from": "bin", "format": "json"}), "a key is binary"),
        (json!({"file": "f", "from": "bin", "format": "yaml"}), "a key is binary"),
        (json!({"file": "f", "from": "bin", "format": "properties"}), "a key is binary"),
        (json!({"file": "f", "from": ["bin", "again"], "format": "json"}), "a key comes from both vault:bin and vault"),
        (json!({"dir": "d", "from": "slash"}), "makes a file: a key is not a file name"),
        (json!({"dir": "d", "from": "again", "decode": "base64"}), "makes a file: a key is not base64"),
        (json!({"file": "f", "from": "bin", "template": "{{ STORE_BIN }}"}), "a value that it takes is binary"),
        (
            json!({"file": "f", "from": "db", "template": "{{ asked.other }}"}),
            "file f: template, line 1: asked.other is not defined",
        ),
        (
            json!({"file": "f", "from": "db", "template": "{{ other }}"}),
            "file f: template, line 1: other is not defined",
        ),
    ] {
        let error = render(&[item(&fields)], &answers, LIMIT).expect_err(&fields.to_string());
        let public = error.public();
        assert!(public.contains(part), "{fields}: {public}");
        assert!(!public.contains("STORE"), "{fields}: {public}");
    }
    let items = [item(&json!({"dir": ".", "from": "again"})), item(&json!({"dir": "STORE_BIN", "from": "db#asked"}))];
    for items in [&items, &[items[1].clone(), items[0].clone()]] {
        let error = render(items, &answers, LIMIT).unwrap_err();
        assert!(error.public().contains("another item's file"), "{}", error.public());
        assert!(!error.public().replace("dir STORE_BIN", "").contains("STORE"), "{}", error.public());
    }
}

#[test]
fn p3_a_key_whose_file_is_another_items_is_left_out_and_fails_nothing() {
    let value = |text: &str| SecretTree::Text(text.into());
    let dir = |path: &str, from: &str| json!({"dir": path, "from": from});
    let optional = |path: &str| json!({"file": path, "from": "other#k", "optional": true});
    let file = |path: &str| json!({"file": path, "from": "other#k"});
    let long = "d/".repeat(80) + "a";
    // (items, key of "x" that has become one too many, why, whether it keeps what is there if its file is)
    let cases = [
        (vec![dir("d", "x"), file("d/a")], "a", "would overwrite another item's file", false),
        (vec![dir(".", "x"), file("a")], "a", "would overwrite another item's file", false),
        (vec![dir("d", "x"), optional("d/a")], "a", "would overwrite another item's file", false),
        (vec![dir(".", "x"), file("a/c")], "a", "would lie above another item's file", true),
        (vec![dir(".", "x"), file(&long)], "d", "would lie above another item's file", true),
        (vec![dir(".", "x"), dir("a", "y")], "a", "would lie above another item's file", true),
        (vec![dir("d", "x"), dir("d/e/f", "y")], "e", "would lie above another item's file", true),
    ];
    for (items, key, part, keeps) in cases {
        let entries = [("good".to_owned(), value("g")), (key.to_owned(), value("canary"))];
        let answers = generation(&[
            ("x", SecretTree::Map(entries.into())),
            ("y", tree(&json!({"k": "y"}))),
            ("other", tree(&json!({"k": "o"}))),
        ]);
        for turned in [false, true] {
            let mut items: Vec<_> = items.iter().map(item).collect();
            if turned {
                items.reverse();
            }
            let rendered = render_beside(&items, &answers, LIMIT, &|_| false).unwrap();
            let texts: BTreeSet<_> = rendered.files.iter().map(|file| file.bytes.expose_str().unwrap()).collect();
            assert_eq!(
                (rendered.files.len(), texts.contains("g"), texts.contains("canary")),
                (2, true, false),
                "{part}"
            );
            let [left_out] = &rendered.left_out[..] else { panic!("{key:?}: {:?}", rendered.left_out) };
            let told = left_out.to_string();
            assert!(told.starts_with("dir ") && told.contains(&format!(": key {key:?} {part}")), "{told}");
            assert!(left_out.public().ends_with(&format!(": a key {part}")), "{}", left_out.public());
            let path = rendered.files.iter().find(|file| file.bytes.expose_str() == Some("g")).unwrap().path.as_str();
            let path = path.replace("good", key);
            let later = render_beside(&items, &answers, LIMIT, &|there| there.as_str() == path);
            assert_eq!(later.is_err(), keeps, "{path}: the file that is there is the key's own");
        }
    }
    // A file that is not delivered is in nobody's way.
    let items = [item(&dir("d", "x")), item(&optional("d/a"))];
    let answers = generation(&[("x", tree(&json!({"a": "1"})))]);
    assert_eq!(render_beside(&items, &answers, LIMIT, &|_| true).unwrap().files.len(), 1);
    // A directory of nothing else is not made.
    let items = [item(&dir("d", "x")), item(&file("d/a"))];
    let answers = generation(&[("x", tree(&json!({"a": "1"}))), ("other", tree(&json!({"k": "o"})))]);
    let error = render(&items, &answers, LIMIT).unwrap_err().to_string();
    assert_eq!(error, "dir d: none of its keys makes a file: key \"a\" would overwrite another item's file");
    let beside = [item(&json!({"file": "a-b/c", "from": "x#a"})), item(&dir(".", "x"))];
    let files = render(&beside, &answers, LIMIT).unwrap();
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["a-b/c", "a"], "in the order of the items");
}

#[test]
fn p3_a_key_that_two_documents_have_fails_only_what_takes_it() {
    let two = [("x", tree(&json!({"a": "1", "both": "canary"}))), ("y", tree(&json!({"both": "2"})))];
    let answers = generation(&two);
    let why = "comes from both vault:x and vault:y: take it from one of them";
    let from = json!(["x", "y"]);
    for format in ["json", "yaml", "dotenv", "properties"] {
        let problem =
            render(&[item(&json!({"file": "f", "from": from, "format": format}))], &answers, LIMIT).unwrap_err();
        assert_eq!(problem.to_string(), format!("file f: key \"both\" {why}"));
        assert_eq!(problem.public(), format!("file f: a key {why}"));
    }
    assert_eq!(text(&json!({"file": "f", "from": from, "template": "{{ a }}"}), &two), "1");
    let problem = render(&[item(&json!({"file": "f", "from": from, "template": "{{ both }}"}))], &answers, LIMIT);
    assert!(problem.unwrap_err().to_string().contains(why));
    let dir = [item(&json!({"dir": "d", "from": from}))];
    let rendered = render_beside(&dir, &answers, LIMIT, &|path| path.as_str() == "d/a").unwrap();
    assert_eq!((rendered.files.len(), rendered.left_out.len()), (1, 1));
    assert_eq!(rendered.left_out[0].to_string(), format!("dir d: key \"both\" {why}"));
    assert!(render_beside(&dir, &answers, LIMIT, &|path| path.as_str() == "d/both").is_err(), "it was good once");
}

#[test]
fn p9_the_size_limit_counts_all_files() {
    let answers = generation(&[("x", SecretTree::Text("12345678".into()))]);
    let items = [item(&json!({"file": "a", "from": "x"})), item(&json!({"file": "b", "from": "x"}))];
    assert_eq!(render(&items, &answers, 16).unwrap().len(), 2);
    let error = render(&items, &answers, 15).unwrap_err().to_string();
    assert_eq!(error, "all files together: 16 bytes, over the limit of 15: raise hushpod.dev/size-limit");
}

#[test]
fn p9_small_files_fill_whole_pages_and_the_sentence_says_which_limit_takes_them() {
    let entries = |count: usize, value: &str, name_bytes: usize| {
        let entry = |number| (format!("{number:0name_bytes$}"), SecretTree::Text(value.into()));
        generation(&[("x", SecretTree::Map((0..count).map(entry).collect()))])
    };
    let items =
        [item(&json!({"dir": "many", "from": "x"})), item(&json!({"file": "all", "from": "x", "format": "json"}))];
    let only = &items[..1];
    let page = usize::try_from(PAGE).unwrap();
    let large = "x".repeat(page + 1);
    // (size limit, files, value, bytes of a name) → do they fit? A directory has room for 32 pages besides.
    for (limit, files, value, name, fits) in [
        (1 << 20, 256 + 32, "1", 4, true),
        (1 << 20, 256 + 33, "1", 4, false),
        (1 << 20, 1024, "1", 4, false),
        (3968 << 10, 1024, "1", 4, true), // as the sentence says
        ((3968 << 10) - 1, 1024, "1", 4, false),
        (1 << 20, 256 + 33, "", 4, false),
        (1 << 20, 144, large.as_str(), 4, true),
        (1 << 20, 145, large.as_str(), 4, false),
        (1 << 20, 288, "1", 200, true), // below a directory there is no link to each
        (100, 32, "1", 4, true),
        (100, 33, "1", 4, false),
    ] {
        let shown = format!("{files} files of {} bytes below {limit}", value.len());
        let rendered = render(only, &entries(files, value, name), limit);
        assert_eq!(rendered.is_ok(), fits, "{shown}: {:?}", rendered.err());
    }
    let error = render(only, &entries(1024, "1", 4), LIMIT).unwrap_err().to_string();
    assert_eq!(
        error,
        "all files together: 1024 files fill 4194304 bytes in whole pages of 4096, over the 1179648 that the volume has \
         for them: raise hushpod.dev/size-limit to 3968Ki"
    );
    assert!(render(&items, &entries(256, "1", 4), LIMIT).is_ok(), "a file more, and a page more");
    let root = [item(&json!({"dir": ".", "from": "x"}))];
    assert!(render(&root, &entries(288, "1", 120), LIMIT).is_ok());
    assert!(render(&root, &entries(144, "1", 121), LIMIT).is_ok(), "links to long names take a page, too");
    assert!(render(&root, &entries(145, "1", 121), LIMIT).is_err());
}

#[test]
fn raw_values_are_shared_not_copied() {
    let value = SecretValue::from("shared");
    let answers = generation(&[("x", SecretTree::Text(value.clone()))]);
    let files = render(&[item(&json!({"file": "a", "from": "x"}))], &answers, LIMIT).unwrap();
    assert_eq!(files[0].bytes.expose().as_ptr(), value.expose().as_ptr());
}

/// A value that cannot be had fails what takes it, and nothing else.
#[test]
fn what_is_withheld_fails_only_what_takes_it() {
    let SecretTree::Map(mut entries) = tree(&json!({"USER": "u", "PASSWORD": "p"})) else { panic!() };
    entries.insert("URL".to_owned(), SecretTree::Withheld("is hidden from this identity".into()));
    let answers = [("app", SecretTree::Map(entries))];
    for (fields, outcome) in [
        (json!({"file": "a", "from": "app#USER"}), Ok("u")),
        (json!({"file": "a", "from": "app#URL"}), Err("file a: vault:app#URL is hidden from this identity")),
        (json!({"file": "a", "from": "app#/URL/host"}), Err("file a: vault:app#/URL/host is hidden")),
        (json!({"file": "a", "from": "app#URL", "optional": true}), Err("is hidden from this identity")),
        (json!({"file": "a", "from": "app#URL", "decode": "base64"}), Err("is hidden from this identity")),
        (json!({"file": "a", "from": "app", "format": "json"}), Err("key \"URL\" is hidden from this identity")),
        (json!({"file": "a", "from": "app", "format": "yaml"}), Err("key \"URL\" is hidden from this identity")),
        (json!({"file": "a", "from": "app", "format": "dotenv"}), Err("key \"URL\" is hidden from this identity")),
        (json!({"file": "a", "from": "app", "format": "properties"}), Err("key \"URL\" is hidden from this identity")),
        (json!({"file": "a", "from": {"u": "app#USER"}, "format": "json"}), Ok("{\"u\":\"u\"}\n")),
        (json!({"file": "a", "from": "app", "template": "{{ USER }}:{{ PASSWORD }}"}), Ok("u:p")),
        (json!({"file": "a", "from": "app", "template": "{{ URL }}"}), Err("a value that it takes is hidden")),
        (json!({"file": "a", "from": {"db": "app"}, "template": "{{ db.USER }}"}), Ok("u")),
        (json!({"file": "a", "from": {"db": "app"}, "template": "{{ db.URL }}"}), Err("that it takes is hidden")),
        (json!({"file": "a", "from": {"db": "app"}, "template": "{{ db }}"}), Err("that it takes is hidden")),
        (json!({"file": "a", "from": {"db": "app"}, "template": "{{ db ~ 1 }}"}), Err("that it takes is hidden")),
        (
            json!({"file": "a", "from": {"db": "app"}, "template": "{{ db|items|last }}"}),
            Err("that it takes is hidden"),
        ),
        (json!({"file": "a", "from": {"db": "app"}, "template": "{% for k in db %}{{ k[0] }}{% endfor %}"}), Ok("PUU")),
    ] {
        let found = render_one(&fields, &answers).map(|files| String::from_utf8(files[0].1.clone()).unwrap());
        match (found, outcome) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{fields}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{fields}: {error}"),
            (found, expected) => panic!("{fields}: {found:?} is not {expected:?}"),
        }
    }
}

/// A directory comes without it, and says so; but nothing that was good is taken away.
#[test]
fn p3_a_directory_leaves_out_what_never_was_good_and_keeps_what_was() {
    let SecretTree::Map(mut entries) = tree(&json!({"USER": "u"})) else { panic!() };
    entries.insert("URL".to_owned(), SecretTree::Withheld("is hidden from this identity".into()));
    let answers = generation(&[("app", SecretTree::Map(entries))]);
    let items = [item(&json!({"dir": "d", "from": "app"})), item(&json!({"file": "other", "from": "app#USER"}))];
    for present in [&[][..], &["d/USER", "other"], &["URL"]] {
        let rendered = render_beside(&items, &answers, LIMIT, &|path| present.contains(&path.as_str())).unwrap();
        let paths: Vec<_> = rendered.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["d/USER", "other"]);
        let left_out: Vec<_> = rendered.left_out.iter().map(ToString::to_string).collect();
        assert_eq!(left_out, ["dir d: key \"URL\" is hidden from this identity"]);
        assert_eq!(rendered.left_out[0].public(), "dir d: a key is hidden from this identity");
    }
    let problem = render_beside(&items, &answers, LIMIT, &|path| path.as_str() == "d/URL").unwrap_err();
    assert_eq!(problem.to_string(), "dir d: key \"URL\" is hidden from this identity");
    let alone = generation(&[(
        "app",
        SecretTree::Map(BTreeMap::from([("URL".to_owned(), SecretTree::Withheld("is hidden".into()))])),
    )]);
    let problem = render(&items[..1], &alone, LIMIT).unwrap_err();
    assert_eq!(problem.to_string(), "dir d: none of its keys makes a file: key \"URL\" is hidden");
}

/// Whatever is wrong with a key, the others of its directory come; once its file is there, it stays.
#[test]
fn p3_a_bad_key_of_a_directory_is_left_out_at_first_and_keeps_all_later() {
    let long = "x".repeat(256);
    let good = |json: serde_json::Value| tree(&json);
    let bad = [
        ("a/b", good(json!("MQ==")), "is not a file name"),
        ("..data", good(json!("MQ==")), "is not a file name"),
        ("", good(json!("MQ==")), "is not a file name"),
        ("line\nbreak", good(json!("MQ==")), "is not a file name"),
        (&long, good(json!("MQ==")), "is not a file name"),
        ("TEXT", good(json!("canary!")), "is not base64 at character 7"),
        ("SHORT", good(json!("canar")), "is not base64"),
        ("DEEP", good(json!({"canary": "MQ=="})), "is a document or list"),
        ("BYTES", SecretTree::from_bytes(vec![0xff, 0]), "the store holds bytes"),
        ("URL", SecretTree::Withheld("is hidden".into()), "is hidden"),
    ];
    let items =
        [item(&json!({"dir": "d", "from": "app", "decode": "base64"})), item(&json!({"file": "f", "from": "db#k"}))];
    for (key, tree, part) in bad {
        let entries = [("GOOD".to_owned(), good(json!("MQ=="))), (key.to_owned(), tree)];
        let alone = SecretTree::Map(entries[1..].iter().cloned().collect());
        let db = ("db", good(json!({"k": "v"})));
        let answers = generation(&[("app", SecretTree::Map(entries.into())), db.clone()]);
        let rendered = render_beside(&items, &answers, LIMIT, &|path| path.as_str() == "d/GOOD").unwrap();
        let files: Vec<_> = rendered.files.iter().map(|file| (file.path.as_str(), file.bytes.expose())).collect();
        assert_eq!(files, [("d/GOOD", &b"1"[..]), ("f", b"v")], "{key:?}");
        let [left_out] = &rendered.left_out[..] else { panic!("{key:?}: {:?}", rendered.left_out) };
        let told = left_out.to_string();
        assert!(told.starts_with("dir d: key ") && told.contains(part) && !told.contains("canary"), "{told}");
        assert!(left_out.public().starts_with("dir d: a key "), "{}", left_out.public());
        let later = render_beside(&items, &answers, LIMIT, &|_| true);
        assert_eq!(later.is_err(), part != "is not a file name", "{key:?}: no such file was ever there");
        let none = render(&items, &generation(&[("app", alone), db]), LIMIT).unwrap_err().to_string();
        assert!(none.starts_with("dir d: none of its keys makes a file: key ") && none.contains(part), "{none}");
    }
}

#[test]
fn a_variable_for_kubelet_is_what_its_reader_reads_or_refused() {
    let rendered = |value: &str| {
        let fields = json!({"file": "v/NAME", "from": "x#k", "format": "kubelet"});
        render_one(&fields, &[("x", tree(&json!({"k": value})))]).map(|files| files[0].1.clone())
    };
    let long = "x".repeat(63 * 1024);
    for value in ["a", "a b", "a\nb", "\"$HOME\\", " # not a comment", "\n", "a\r", "ä", &long] {
        assert_eq!(rendered(value).unwrap(), format!("NAME='{value}'\n").as_bytes(), "{value:?}");
    }
    for (value, part) in [
        ("", "is empty"),
        ("canary's", "a single quote"),
        ("canary\r\n", "a carriage return"),
        ("canary\0", "NUL"),
        (&*"canary".repeat(11_000), "a line of more than 63 KiB"),
        (&*"canary\n".repeat(20_000), "over the kernel's limit"),
    ] {
        let problem = rendered(value).unwrap_err();
        assert!(problem.starts_with("file v/NAME: NAME ") && problem.contains(part), "{problem}");
        assert!(problem.contains("deliver it as a file") && !problem.contains("canary"), "{problem}");
    }
}
