use super::*;
use crate::sentence::suggestion;

fn error(yaml: &str) -> String {
    Bundle::from_yaml(yaml).unwrap_err().to_string()
}

#[test]
fn full_form_of_the_design_is_understood() {
    let bundle = Bundle::from_yaml(
        r#"
- {file: db.json, from: "secret/data/db", format: json, file-mode: "0440"}
- {file: tls.crt, from: "vault:pki/issue/web?common_name=web.svc#certificate"}
- {file: app.env, from: ["secret/data/db", "infisical:/backend"], format: dotenv}
- {dir: cfg, from: "ssm:/prod/web/"}
- {file: key.p12, from: "gcp:projects/ml/secrets/key?version=5", decode: base64}
- {file: pool.env, from: "sops:app-sops/prod.enc.yaml", format: dotenv, optional: true}
- file: nginx.conf
  from: {db: secret/data/db}
  template: |
    auth_basic_user {{ db.username }};
"#,
    )
    .unwrap();
    assert_eq!(bundle.items.len(), 7);
    assert_eq!(bundle.items[0].file_mode.unwrap().bits(), 0o440);
    assert!(matches!(&bundle.items[2].from, From::Merge(list) if list.len() == 2));
    assert_eq!(bundle.items[3].target, Target::Dir("cfg".parse().unwrap()));
    assert_eq!(bundle.items[4].decode, Some(Decode::Base64));
    assert!(bundle.items[5].optional);
    assert!(matches!(&bundle.items[6].from, From::Named(map) if map.contains_key("db")));
}

#[test]
fn p9_bad_entries_name_the_field_and_what_to_write() {
    for (yaml, parts) in [
        ("a: 1", &["not a list"][..]),
        ("- [", &["not YAML"]),
        ("- {file: a}", &["[0]", "no from"]),
        ("- {from: a}", &["[0]", "neither file nor dir"]),
        ("- {file: a, dir: b, from: c}", &["both file and dir"]),
        ("- {file: a, from: b, fromat: json}", &["[0].fromat", "\"format\""]),
        ("- {file: a, from: b, \"x\\ny\": c}", &["[0].x\\ny: unknown"]),
        ("- {file: a, from: b, format: xml}", &["[0].format", "raw, json, yaml"]),
        ("- {file: a, from: b, file-mode: 0440}", &["[0].file-mode", "quotes"]),
        ("- {file: a, from: b, file-mode: \"9\"}", &["[0].file-mode", "0440"]),
        ("- {file: a, from: b, file-mode: \"0044\"}", &["[0].file-mode", "owner"]),
        ("- {file: a, from: b, optional: \"yes\"}", &["[0].optional", "true nor false"]),
        ("- {file: ../x, from: b}", &["[0].file", "leaves the volume"]),
        ("- {file: /x, from: b}", &["[0].file", "relative"]),
        ("- {file: a//b, from: b}", &["[0].file", "empty component"]),
        ("- {file: ..data, from: b}", &["[0].file", "'..'"]),
        ("- {file: a, from: \"arn:aws:x\"}", &["[0].from", "aws:arn:"]),
        ("- {file: a, from: [b, \"c?d\"], format: json}", &["[0].from[1]", "name=value"]),
        ("- {file: a, from: []}", &["[0].from", "one reference"]),
        ("- {file: a, from: [b, c]}", &["[0].format", "raw needs one value"]),
        ("- {file: a, from: {x: b}}", &["[0].format", "raw needs one value"]),
        ("- {file: a, from: b, format: json, decode: base64}", &["[0].decode", "raw"]),
        ("- {dir: a, from: b, format: json}", &["[0].format", "dir"]),
        ("- {file: a, from: b, template: \"{{ x\"}", &["[0].template", "line 1"]),
        ("- {file: a, from: [b], template: \"x\"}", &["[0].from", "names"]),
        ("- {file: a, from: [b, c, b], format: json}", &["[0].from[2]", "\"b\" stands there twice"]),
        ("- {file: a, from: b}\n- {file: a, from: c}", &["[1]", "delivered twice"]),
        ("- {dir: a, from: b}\n- {file: a, from: c}", &["[1]", "delivered twice"]),
        ("- {file: a, from: b}\n- {file: a!, from: b}\n- {dir: a/b/c, from: c}", &["[2]", "below the file \"a\""]),
        (
            "- {file: a!, from: b}\n- {file: a/b/c, from: b}\n- {file: a, from: c}",
            &["[2]", "\"a/b/c\" lies below the file \"a\""],
        ),
        ("- {file: a, from: b}\n- {file: a/b, from: c}", &["[1]", "below the file \"a\""]),
        ("- {dir: a/b, from: b}\n- {file: a, from: c}", &["[1]", "below the file \"a\""]),
    ] {
        let message = error(yaml);
        for part in parts {
            assert!(message.contains(part), "{yaml}: {message:?} lacks {part:?}");
        }
        assert!(!message.contains('\n'), "one sentence: {message}");
    }
}

#[test]
fn suggestions_are_near_or_absent() {
    assert_eq!(suggestion("formt", &["format", "from"]), "; did you mean \"format\"?");
    assert_eq!(suggestion("zzzzzz", &["format", "from"]), ": expected one of format, from");
    let many: Vec<_> = (0..1000).map(|index| format!("{index:0250}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let (all, steps) = steps::within(u64::MAX, || suggestion(&"x".repeat(250), &many));
    assert!(all.len() < 1100 && all.ends_with(", …") && steps < 5000, "{steps}: {all}");
}

#[test]
fn what_may_stand_side_by_side_does() {
    let paths = ["a", "a!", "a-b", "a.b", "b/a", "b/a!", "b!/a", ".", "b0"];
    let target = |path: &&str| if *path == "." { format!("dir: {path}") } else { format!("file: {path}") };
    let items: Vec<_> = paths.iter().map(|path| format!("- {{{}, from: x}}", target(path))).collect();
    let yaml = items.join("\n");
    assert_eq!(Bundle::from_yaml(&yaml).unwrap().items.len(), paths.len());
}
