//! What the real sops wrote (tests/data/sops/make), and what was done to it afterwards.

use std::path::{Path, PathBuf};

use super::super::keys::KeySource;
use super::value::Kind;
use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sops").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).unwrap()
}

fn keys(name: &str) -> AgeKeys {
    AgeKeys::new(KeySource::Lent(Some(text(name).into())))
}

fn format(name: &str) -> SopsFormat {
    match name.rsplit_once('.').unwrap().1 {
        "yaml" => SopsFormat::Yaml,
        "json" => SopsFormat::Json,
        "env" => SopsFormat::Dotenv,
        _ => SopsFormat::Binary,
    }
}

fn open(name: &str, text: &str) -> Result<SecretTree, ProviderError> {
    decrypt(name, format(name), text, &keys("identity.txt"))
}

fn json(text: &str) -> SecretTree {
    SecretTree::from_json(text.as_bytes()).unwrap()
}

/// What is in the open for failing tests: these are no secrets.
fn shown(tree: &SecretTree) -> String {
    match tree {
        SecretTree::Literal(value) => format!("={:?}", value.expose_str()),
        SecretTree::Text(value) | SecretTree::Binary(value) => format!("{:?}", String::from_utf8_lossy(value.expose())),
        SecretTree::List(items) => format!("{:?}", items.iter().map(shown).collect::<Vec<_>>()),
        SecretTree::Map(entries) => format!("{:?}", entries.iter().map(|(k, v)| (k, shown(v))).collect::<Vec<_>>()),
        SecretTree::Withheld(why) => why.as_ref().to_owned(),
    }
}

/// Puts another leaf where there is one.
fn put(tree: &mut SecretTree, path: &str, leaf: &SecretTree) {
    let place = path.split('/').fold(tree, |tree, key| match tree {
        SecretTree::Map(entries) => entries.get_mut(key).expect(path),
        _ => panic!("{path}"),
    });
    *place = leaf.clone();
}

#[track_caller]
fn assert_same(name: &str, found: &SecretTree, expected: &SecretTree) {
    assert_eq!(shown(found), shown(expected), "{name}");
}

/// What `sops decrypt --output-type json` says, but for numbers that Go writes with an exponent (encrypted, they are
/// without), points in time, and bytes that JSON has no form for.
#[test]
fn what_sops_decrypts_is_what_we_decrypt() {
    let number = |text: &str| SecretTree::Literal(text.into());
    let word = |text: &str| SecretTree::Text(text.into());
    let binary = ("open_unencrypted/binary", SecretTree::Binary(SecretValue::new(vec![0xff, 0, 0xfe])));
    let in_open = |large: &'static str, huge: &'static str, small: &'static str, leaf: &dyn Fn(&str) -> SecretTree| {
        let leaves = [("large", large), ("huge", huge), ("small", small)];
        leaves.map(|(key, text)| (format!("open_unencrypted/{key}"), leaf(text)))
    };
    let in_the_open = || in_open("1e+06", "1e+21", "1e-09", &word);
    let sealed = [("alpha/large", number("1000000000000000000000")), ("alpha/small", number("0.000000001"))];
    let matched_by_none = [("alpha/large", word("1e+21")), ("alpha/small", word("1e-09"))];
    for (name, alpha, open_leaves) in [
        ("all.yaml", &sealed, in_the_open()),
        ("two.yaml", &sealed, in_the_open()),
        ("only-encrypted.yaml", &sealed, in_the_open()),
        // Its rule is of comments alone, so all values are encrypted.
        ("comments.yaml", &sealed, in_open("1000000", "1000000000000000000000", "0.000000001", &number)),
        ("suffix.yaml", &matched_by_none, in_the_open()),
        ("regex.yaml", &matched_by_none, in_the_open()),
    ] {
        let mut document = json(&text("all.yaml.decrypted"));
        for (path, leaf) in alpha.iter().chain([&binary]) {
            put(&mut document, path, leaf);
        }
        for (path, leaf) in &open_leaves {
            put(&mut document, path, leaf);
        }
        assert_same(name, &open(name, &text(name)).unwrap(), &document);
    }
}

#[test]
fn what_sops_decrypts_of_other_formats_is_what_we_decrypt() {
    let mut document = json(&text("all.json.decrypted"));
    put(&mut document, "alpha/huge", &SecretTree::Literal(format!("1{}", "0".repeat(300)).into()));
    assert_same("all.json", &open("all.json", &text("all.json")).unwrap(), &document);
    let env = r#"{"ZETA":"canary-first","ALPHA":" canary with blanks \"and quotes\" = ","LINES":"canary\nline two",
        "EMPTY":"","OPEN_unencrypted":"in the open"}"#;
    assert_same("all.env", &open("all.env", &text("all.env")).unwrap(), &json(env));
    let binary = open("value.bin", &text("value.bin")).unwrap();
    assert!(binary == SecretTree::Binary(SecretValue::new(b"canary\0\xff\n".to_vec())));
    let special = open("special.yaml", &text("special.yaml")).unwrap();
    let infinite = r#"{"a":"+Inf","b_unencrypted":["-.inf",".nan"]}"#;
    assert_same("special.yaml", &special, &json(infinite));
}

/// Up to 3.12 sops took every number of JSON for a float, and lost the digits that a float has not; what is in its files
/// it decrypts to the text that it encrypted.
#[test]
fn numbers_of_older_sops_are_the_text_that_it_encrypted() {
    for (name, alpha, open_leaves) in [
        (
            "numbers-3.8.json",
            r#"{"port":5432,"timeout_ms":30000,"id":9007199254740992,"large":98765432109876540000,"price":1.1,
                "huge":1000000000000000000000,"small":0.000000001,"zero":-0,"tls":true,"off":false,"nothing":null,"empty":"",
                "text":"0123","list":[1,2.5,"canary"]}"#,
            r#"{"port":5432,"id":9007199254740992,"large":98765432109876540000,"price":1.1,"huge":1e+21,"small":1e-9,
                "zero":-0,"tls":true,"off":false,"nothing":null,"list":[1,2.5,"x"]}"#,
        ),
        (
            "numbers-3.8.yaml",
            r#"{"port":5432,"octal":464,"price":1.1,"large":98765432109876540000,"huge":1000000000000000000000,"tls":true,
                "nothing":null,"text":"0123"}"#,
            r#"{"port":5432,"octal":464,"price":1.1,"huge":"1e+21","tls":true,"nothing":null,"text":"0123"}"#,
        ),
    ] {
        for name in [name.to_owned(), name.replace("3.8", "3.11")] {
            let expected = json(&format!(r#"{{"alpha":{alpha},"open_unencrypted":{open_leaves}}}"#));
            assert_same(&name, &open(&name, &text(&name)).unwrap(), &expected);
        }
    }
}

/// What `sops exec-env` of 3.11 and 3.13 gives an application: nothing is unquoted, a carriage return stays, `\n` is a
/// line's end, and of a key that stands there twice the last one counts. (3.8 left `\n` as it is.)
#[test]
fn dotenv_is_what_exec_env_gives() {
    let expected = json(
        r#"{"PLAIN":"canary","QUOTED":"\"canary with quotes\"","SINGLE":"'canary'","BLANKS":"  canary # no comment  ",
            "LINES":"canary\nline two","BACK":"a\\\nb\\tc","EMPTY":"","DOLLAR":"$HOME ${X}","EQUALS":"a=b=c",
            "TWICE":"two","NUMBER":"00123","export EXPORTED":"canary","CRLF":"canary\r"}"#,
    );
    for name in ["exec-3.8.env", "exec-3.11.env"] {
        assert_same(name, &open(name, &text(name)).unwrap(), &expected);
    }
}

/// A line of a fixture, from the first to the last character.
fn line<'a>(text: &'a str, beginning: &str) -> &'a str {
    text.lines().find(|line| line.trim_start().starts_with(beginning)).unwrap()
}

/// What stands behind the first `: ` or `=` of a line.
fn value<'a>(text: &'a str, beginning: &str) -> &'a str {
    let line = line(text, beginning);
    line.split_once(": ").or_else(|| line.split_once('=')).unwrap().1
}

/// `what` was done to a fixture: it is refused with one sentence that has `part` in it.
#[track_caller]
fn assert_refused(what: &str, name: &str, text: &str, part: &str) {
    let error = open(name, text).expect_err(what);
    assert_eq!(error.kind, ErrorKind::Invalid, "{what}: {error}");
    assert!(error.message.starts_with(&format!("{name}: ")) && error.message.contains(part), "{what}: {error}");
    assert!(!error.message.contains("canary") && !error.message.contains('\n'), "{what}: {error}");
}

/// Replaces what must be there.
#[track_caller]
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

fn swapped(text: &str, a: &str, b: &str) -> String {
    text.replace(a, "\0").replace(b, a).replace('\0', b)
}

#[test]
fn p5_changed_values_are_refused() {
    let yaml = text("all.yaml");
    let (zeta, password) = (value(&yaml, "zeta:"), value(&yaml, "password:"));
    let tampered = with(zeta, "data:", "data:AAAA");
    let typed = |kind: &str| with(&yaml, "type:str]\npassword", &format!("type:{kind}]\npassword"));
    for (what, text, part) in [
        ("a value of another place", swapped(&yaml, zeta, password), r#"at "zeta" cannot be decrypted"#),
        ("a changed value", with(&yaml, zeta, &tampered), r#"at "zeta" cannot be decrypted"#),
        ("a value in the open", with(&yaml, zeta, "canary"), r#"at "zeta" is not encrypted"#),
        ("a number in the open", with(&yaml, zeta, "7"), r#"at "zeta" is not encrypted"#),
        ("no value", with(&yaml, zeta, "''"), "does not match its MAC"),
        ("a null", with(&yaml, zeta, "null"), "does not match its MAC"),
        ("a value less", with(&yaml, line(&yaml, "zeta:"), ""), "does not match its MAC"),
        ("another order", swapped(&yaml, line(&yaml, "zeta:"), line(&yaml, "password:")), "does not match its MAC"),
        ("an open value", with(&yaml, "in the open", "canary"), "does not match its MAC"),
        ("an open number", with(&yaml, "port: 5432", "port: 5433"), "does not match its MAC"),
        ("an open type", with(&yaml, "    tls: true", "    tls: 'true'"), "does not match its MAC"),
        ("an open value more", with(&yaml, "\nsops:\n", "\nx_unencrypted: canary\nsops:\n"), "does not match its MAC"),
        ("a comment for a value", typed("comment"), r#"at "zeta" is an encrypted comment"#),
        ("another type", typed("int"), r#"at "zeta" is not a whole number"#),
        ("a made-up type", typed("canary"), "of a type that this agent does not know"),
        ("a longer nonce", with(&yaml, zeta, &with(zeta, ",iv:", ",iv:AAAA")), "no nonce of 32 bytes"),
    ] {
        assert_refused(what, "all.yaml", &text, part);
    }
    let (env, suffix, regex) = (text("all.env"), text("suffix.yaml"), text("regex.yaml"));
    let (in_suffix, in_regex) = (value(&suffix, "password:"), value(&regex, "password:"));
    for (what, name, text, part) in [
        ("an open line", "all.env", with(&env, "in the open", "canary"), "does not match its MAC"),
        ("an open one by suffix", "suffix.yaml", with(&suffix, in_suffix, "canary"), "is not encrypted"),
        ("an open one by regex", "regex.yaml", with(&regex, in_regex, "canary"), "does not match its MAC"),
    ] {
        assert_refused(what, name, &text, part);
    }
}

#[test]
fn p5_changed_metadata_are_refused() {
    let (yaml, only) = (text("all.yaml"), text("only-encrypted.yaml"));
    let mac = value(&yaml, "mac:");
    let more = |field: &str| with(&yaml, "    mac:", &format!("    {field}\n    mac:"));
    for (what, name, text, part) in [
        ("no MAC", "all.yaml", with(&yaml, line(&yaml, "mac:"), ""), "has no MAC"),
        ("an empty MAC", "all.yaml", with(&yaml, mac, "''"), "has no MAC"),
        ("another file's MAC", "all.yaml", with(&yaml, mac, value(&only, "mac:")), "MAC that cannot be decrypted"),
        ("another time", "all.yaml", with(&yaml, "lastmodified: \"2", "lastmodified: \"3"), "MAC that cannot be"),
        ("less in the MAC", "all.yaml", more("mac_only_encrypted: true"), "does not match its MAC"),
        (
            "more in it",
            "only-encrypted.yaml",
            with(&only, "mac_only_encrypted: true", "x: y"),
            "does not match its MAC",
        ),
        ("another rule", "all.yaml", with(&yaml, ": _unencrypted", ": _open"), "is not encrypted"),
        ("two rules", "all.yaml", more("encrypted_suffix: x"), "more than one rule"),
        ("no recipient", "all.yaml", with(&yaml, "    age:", "    agee:"), "no age recipient"),
        ("keys of other kinds", "all.yaml", with(&yaml, "    age:", "    pgp:"), "of other kinds only"),
        ("a data key", "all.yaml", with(&yaml, "YWdl", "YWdm"), "a data key in its SOPS metadata"),
        ("key groups", "groups.yaml", text("groups.yaml"), "several key groups"),
        ("a regex", "regex-only-encrypted.yaml", text("regex-only-encrypted.yaml"), "beside a regular expression"),
    ] {
        assert_refused(what, name, &text, part);
    }
}

#[test]
fn p9_a_document_has_so_many_recipients_and_not_one_more() {
    let with_more =
        |count| with(&text("all.yaml"), "    age:\n", &format!("    age:\n{}", "        - enc: x\n".repeat(count)));
    assert!(open("all.yaml", &with_more(255)).is_ok());
    assert_refused("too many recipients", "all.yaml", &with_more(256), "more than 256 age recipients: take some out");
}

#[test]
fn p5_documents_that_sops_does_not_write_are_refused() {
    let yaml = text("all.yaml");
    let (values, metadata) = yaml.split_once("\nsops:\n").unwrap();
    let aliased = format!("{values}\ny_unencrypted: &a [1]\nz_unencrypted: *a\nsops:\n{metadata}");
    for (what, name, text, part) in [
        ("no metadata", "all.yaml", values.to_owned(), "no sops metadata"),
        ("a key twice", "all.yaml", format!("{values}\nzeta: canary\nsops:\n{metadata}"), "same key twice"),
        ("two documents", "all.yaml", format!("{yaml}\n---\n{yaml}"), "several YAML documents"),
        ("an alias", "all.yaml", aliased, "an anchor or alias that SOPS does not write at line"),
        ("a JSON document", "all.bin", text("all.json"), "does not say of which format"),
    ] {
        assert_refused(what, name, &text, part);
    }
}

#[test]
fn another_identity_is_told_for_whom_it_is() {
    for name in ["theirs.yaml", "two.yaml"] {
        let opened = decrypt(name, SopsFormat::Yaml, &text(name), &keys("other.txt"));
        assert!(opened.is_ok(), "{name}");
    }
    let error = open("theirs.yaml", &text("theirs.yaml")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    let recipient = text("other.txt").lines().find_map(|line| line.strip_prefix("# public key: ").map(str::to_owned));
    assert!(error.message.contains(&recipient.unwrap()), "{error}");
    assert!(error.message.contains("sops updatekeys"), "{error}");
    let forged = text("theirs.yaml").replace("recipient: age1", "recipient: canary-age1");
    assert!(!open("theirs.yaml", &forged).unwrap_err().message.contains("canary"));
}

#[test]
fn scalars_are_typed_as_sops_does() {
    for (text, expected) in [
        ("", "Null"),
        ("~", "Null"),
        ("true", "Bool True"),
        ("FALSE", "Bool False"),
        ("yes", "Text yes"),
        ("-3", "Int -3"),
        ("+3", "Int 3"),
        ("0", "Int 0"),
        ("-0", "Float -0"),
        ("0644", "Text 0644"),
        ("0x1F", "Text 0x1F"),
        ("9223372036854775807", "Int 9223372036854775807"),
        ("9223372036854775808", "Float 9223372036854776000"),
        ("1e+06", "Float 1000000"),
        ("1e-09", "Float 0.000000001"),
        ("1.5e300", &format!("Float 15{}", "0".repeat(299))),
        (".5", "Float 0.5"),
        ("1e400", "Text 1e400"),
        ("-1.5e999", "Text -1.5e999"),
        ("1e-400", "Float 0"),
        ("-.inf", "Float -Inf"),
        (".inf", "Float +Inf"),
        (".nan", "Float NaN"),
        ("nan", "Text nan"),
        ("infinity", "Text infinity"),
        ("1_000", "Text 1_000"),
        ("2024-01-02T00:00:00Z", "Text 2024-01-02T00:00:00Z"),
        ("-", "Text -"),
        ("1-2", "Text 1-2"),
    ] {
        let typed = node::typed(text);
        let kind = format!("{typed:?}").split('(').next().unwrap_or_default().to_owned();
        let in_mac = value::in_mac(typed, &text.into());
        let shown = in_mac.map_or_else(String::new, |text| format!(" {}", text.expose_str().unwrap()));
        assert_eq!(format!("{kind}{shown}"), expected, "{text}");
    }
}

/// Of values that were encrypted, the text that was encrypted counts, and in the MAC what Go makes of it.
#[test]
fn decrypted_values_are_their_own_text() {
    for (kind, text, expected, in_mac) in [
        (Kind::Int, "5432", "=Some(\"5432\")", "5432"),
        (Kind::Int, "007", "\"007\"", "7"),
        (Kind::Float, "5432", "=Some(\"5432\")", "5432"),
        (Kind::Float, "1.10", "=Some(\"1.10\")", "1.1"),
        (Kind::Float, "0.5", "=Some(\"0.5\")", "0.5"),
        (Kind::Float, "98765432109876543210", "=Some(\"98765432109876543210\")", "98765432109876540000"),
        (Kind::Float, "+Inf", "\"+Inf\"", "+Inf"),
        (Kind::Float, "NaN", "\"NaN\"", "NaN"),
        (Kind::Bool, "True", "=Some(\"true\")", "True"),
        (Kind::Bool, "false", "=Some(\"false\")", "False"),
        (Kind::Text, "null", "\"null\"", "null"),
        (Kind::Text, "", "\"\"", ""),
    ] {
        let leaf = value::leaf(kind, text.into()).unwrap();
        assert_eq!((shown(&leaf.tree.unwrap()).as_str(), leaf.in_mac.expose_str()), (expected, Some(in_mac)), "{text}");
    }
}

/// Seals as SOPS does, for what its own program would not write.
fn seal(key: &[u8; 32], place: &str, kind: &str, plain: &[u8]) -> String {
    use aes_gcm::aead::consts::U32;
    use aes_gcm::{AeadInPlace, AesGcm, KeyInit, Nonce};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let cipher = AesGcm::<aes_gcm::aes::Aes256, U32>::new_from_slice(key).unwrap();
    let nonce: [u8; 32] = std::array::from_fn(|n| u8::try_from(n).unwrap() ^ u8::try_from(plain.len() % 256).unwrap());
    let mut data = plain.to_vec();
    let tag = cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), place.as_bytes(), &mut data).unwrap();
    let encode = |bytes: &[u8]| STANDARD.encode(bytes);
    format!("ENC[AES256_GCM,data:{},iv:{},tag:{},type:{kind}]", encode(&data), encode(&nonce), encode(&tag))
}

#[test]
fn values_of_every_length_and_type_go_there_and_back() {
    let key = [7; 32];
    let data_key = DataKey::new(&SecretValue::new(key.to_vec())).unwrap();
    for length in (0..70).chain([4096, 65_537]) {
        let plain: Vec<u8> = (0..length).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect();
        for (kind, expected) in [("str", Kind::Text), ("bytes", Kind::Text), ("comment", Kind::Comment)] {
            let sealed = seal(&key, "a:b:", kind, &plain);
            let (found, opened) = value::decrypt(&sealed, &data_key, "a:b:").unwrap();
            assert!(found == expected && opened.expose() == plain, "{length} {kind}");
            assert!(value::decrypt(&sealed, &data_key, "a:c:").is_err());
        }
    }
    for cut in ["", "ENC[", "ENC[AES256_GCM,data:,iv:,tag:,type:str]", "ENC[AES256_GCM,data:A,iv:B,tag:C,type:str]"] {
        assert!(value::decrypt(cut, &data_key, "").is_err(), "{cut}");
    }
    let sealed = seal(&key, "a:", "str", b"canary");
    for end in 0..sealed.len() {
        assert!(value::decrypt(&sealed[..end], &data_key, "a:").is_err(), "cut at {end}");
    }
    assert!(DataKey::new(&SecretValue::new(vec![0; 16])).is_none());
}

#[test]
fn a_fixture_cut_anywhere_is_an_error_and_never_a_panic() {
    for name in ["all.yaml", "all.json", "all.env", "value.bin"] {
        let whole = text(name);
        // Each cut opens an age file.
        for end in (0..whole.len()).step_by(97).filter(|end| whole.is_char_boundary(*end)) {
            let error = open(name, &whole[..end]).expect_err(name);
            assert!(!error.message.contains("canary"), "{name} cut at {end}: {error}");
        }
    }
}

#[test]
fn documents_are_told_from_others_that_have_a_key_of_the_same_name() {
    for (json_text, expected) in [
        (text("all.json").as_str(), true),
        (r#"{"sops":{"mac":""}}"#, true),
        (r#"{"sops":{"host":"x","version":"3"}}"#, false),
        (r#"{"sops":"x"}"#, false),
        (r#"{"a":{"sops":{"mac":""}}}"#, false),
        (r#"[{"sops":{"mac":""}}]"#, false),
    ] {
        assert_eq!(is_sops(&json(json_text)), expected);
    }
    for (env, expected) in
        [(text("all.env").as_str(), true), ("A=1\nsops_mac=x\n", true), ("sops_path=/bin/sops\n", false), ("", false)]
    {
        assert_eq!(is_sops_dotenv(env), expected);
    }
}
