//! Files that age and SOPS encrypted, wherever a store may have them.

use std::io::Write;

use age::secrecy::SecretString;

use super::*;
use crate::secret::SecretValue;

fn data(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sops").join(name)).unwrap()
}

fn identity(name: &str) -> SecretValue {
    SecretValue::new(data(name))
}

/// A store with fixtures, each under a name of its own.
fn store(files: &[(&str, &str)]) -> Fixture {
    let fixture = Fixture::new(&[]);
    for (path, name) in files {
        fixture.write(path, data(name));
    }
    fixture
}

impl Fixture {
    /// A store that waits for its identity.
    fn locked(&self, path: &str) -> Files {
        let path = self.path(path).to_str().unwrap().trim_end_matches('/').to_owned();
        let settings =
            FileSettings { path: Some(path), identity: Some("keys:age".to_owned()), ..FileSettings::default() };
        Files::connect(&settings, login()).unwrap()
    }

    fn unlocked(&self, path: &str) -> Files {
        let mut files = self.locked(path);
        files.set_decryption_key(identity("identity.txt"));
        files
    }
}

fn binary(bytes: &[u8]) -> SecretTree {
    SecretTree::Binary(SecretValue::new(bytes.to_vec()))
}

#[tokio::test]
async fn encrypted_files_are_decrypted_by_name_and_by_content_and_plain_ones_stay() {
    let fixture = store(&[
        ("token.age", "token.age"),
        ("key.p12.age", "armored.age"),
        ("unnamed", "armored.age"),
        ("db.yaml.age", "db.yaml.age"),
        ("value", "value.bin"),
        ("value.p12", "value.bin"),
        ("prod.enc.json", "all.json"),
        ("app.env", "all.env"),
        ("dir/token.age", "token.age"),
        ("dir/db.yaml.age", "db.yaml.age"),
        ("dir/value.p12", "value.bin"),
    ]);
    fixture.write("plain.yaml", "sops: {version: '1'}\nk: v\n");
    fixture.write("dir/plain.json", r#"{"k":"v"}"#);
    fixture.write("dir/plain", "p");
    let mut files = fixture.unlocked("");
    for (path, expected) in [
        ("token.age", json(r#""canary\n""#)),
        ("key.p12.age", binary(b"canary\0\xff")),
        ("unnamed", binary(b"canary\0\xff")),
        ("db.yaml.age", json(r#"{"password":"canary"}"#)),
        ("value", binary(b"canary\0\xff\n")),
        ("value.p12", binary(b"canary\0\xff\n")),
        ("plain.yaml", json(r#"{"k":"v","sops":{"version":"1"}}"#)),
    ] {
        assert!(read(&mut files, path).await.unwrap() == expected, "{path}");
    }
    for (path, key, expected) in [
        ("prod.enc.json", "zeta", json(r#""canary-first""#)),
        ("app.env", "LINES", json(r#""canary\nline two""#)),
        ("dir", "token", json(r#""canary\n""#)),
        ("dir", "db.yaml", json(r#""password: canary\n""#)),
        ("dir", "value.p12", binary(b"canary\0\xff\n")),
        ("dir", "plain.json", json(r#""{\"k\":\"v\"}""#)),
        ("dir", "plain", json(r#""p""#)),
    ] {
        assert!(read(&mut files, path).await.unwrap().key(key).unwrap() == expected, "{path} {key}");
    }
    fixture.write("dir/app.yaml", data("all.yaml"));
    let all = read(&mut files, "dir").await.unwrap();
    assert!(all.key("app.yaml").unwrap().key("zeta").unwrap() == json(r#""canary-first""#), "a document, then");
}

#[tokio::test]
async fn a_single_document_may_be_encrypted() {
    for (name, path, expected) in [
        ("all.yaml", "alpha/hosts/1/name", r#""canary-b""#),
        ("all.json", "alpha/list/0", r#""canary-a""#),
        ("all.env", "ZETA", r#""canary-first""#),
        ("db.yaml.age", "password", r#""canary""#),
    ] {
        let fixture = store(&[(name, name)]);
        assert!(read(&mut fixture.unlocked(name), path).await.unwrap() == json(expected), "{name}");
    }
}

fn with_a_passphrase() -> Vec<u8> {
    let mut recipient = age::scrypt::Recipient::new(SecretString::from("canary".to_owned()));
    recipient.set_work_factor(2);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).unwrap();
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).unwrap();
    writer.write_all(b"canary").unwrap();
    writer.finish().unwrap();
    sealed
}

#[tokio::test]
async fn p5_what_cannot_be_opened_has_a_kind_and_a_sentence() {
    let fixture = store(&[
        ("theirs.age", "theirs.age"),
        ("theirs.yaml", "theirs.yaml"),
        ("all.ini", "all.ini"),
        ("both/token.age", "token.age"),
    ]);
    fixture.write("both/token", "canary");
    fixture.write("plain.age", "canary");
    fixture.write("passphrase.age", with_a_passphrase());
    let token = data("token.age");
    fixture.write("cut.age", &token[..token.len() - 3]);
    fixture.write("header.age", &token[..100]);
    let mut changed = token.clone();
    *changed.last_mut().unwrap() ^= 1;
    fixture.write("changed.age", &changed);
    fixture.write("newer.age", "age-encryption.org/v2\n-> canary\n");
    let stripped = String::from_utf8(data("all.yaml")).unwrap().split_once("sops:\n").unwrap().0.to_owned();
    fixture.write("stripped.yaml", &stripped);
    fixture.write("stripped", &stripped);
    fixture.write("stripped.env", "A=ENC[AES256_GCM,data:canary,iv:x,tag:x,type:str]\n");
    fixture.write("broken.yaml", String::from_utf8(data("all.yaml")).unwrap().replace("in the open", "canary"));
    let mut files = fixture.unlocked("");
    for (path, kind, part) in [
        ("theirs.age", ErrorKind::Invalid, "not encrypted to the provider's age identity"),
        ("theirs.yaml", ErrorKind::Invalid, "not encrypted to the provider's age identity but to age1"),
        ("passphrase.age", ErrorKind::Invalid, "with a passphrase: encrypt it to an age recipient"),
        ("cut.age", ErrorKind::Invalid, "its end is missing"),
        ("changed.age", ErrorKind::Invalid, "its end is missing or was changed"),
        ("header.age", ErrorKind::Invalid, "is not a whole age file"),
        ("newer.age", ErrorKind::Invalid, "is not a whole age file"),
        ("plain.age", ErrorKind::Unavailable, "is not an age file"),
        ("all.ini", ErrorKind::Invalid, "in a format that cannot be read here"),
        ("stripped.yaml", ErrorKind::Invalid, "no sops metadata"),
        ("stripped.env", ErrorKind::Invalid, "no sops metadata"),
        ("stripped", ErrorKind::Invalid, "in a format that cannot be read here"),
        ("broken.yaml", ErrorKind::Invalid, "does not match its MAC"),
    ] {
        let error = read(&mut files, path).await.unwrap_err();
        assert_eq!(error.kind, kind, "{path}: {error}");
        assert!(error.message.starts_with(&format!("{path}: ")) && error.message.contains(part), "{path}: {error}");
        assert!(!error.message.contains("canary") && !error.message.contains('\n'), "{path}: {error}");
    }
    // Among others of a directory, each is one bad value.
    fixture.write("good", "good");
    fixture.was_written_long_ago("plain.age");
    let all = read(&mut files, ".").await.unwrap();
    for (name, part) in [
        ("theirs", "not encrypted to the provider's age identity"),
        ("theirs.yaml", "not encrypted to the provider's age identity but to age1"),
        ("cut", "its end is missing"),
        ("plain", "is not an age file"),
        ("stripped", "in a format that cannot be read here"),
        ("broken.yaml", "does not match its MAC"),
    ] {
        let tree = all.key(name).unwrap();
        let why = tree.withheld().unwrap();
        assert!(why.starts_with("cannot be had: ") && why.contains(part) && !why.contains("canary"), "{name}: {why}");
    }
    assert!(all.key("good").unwrap() == SecretTree::Text("good".into()));
    let both = read(&mut files, "both").await.unwrap().key("token").unwrap();
    assert_eq!(both.withheld(), Some("is there both encrypted and not: remove one of them"));
}

#[tokio::test]
async fn an_identity_that_was_lent_is_waited_for_and_may_change() {
    let fixture = store(&[("token.age", "token.age"), ("theirs.age", "theirs.age"), ("all.yaml", "all.yaml")]);
    fixture.write("plain", "p");
    let mut files = fixture.locked("");
    for path in ["token.age", "all.yaml"] {
        let error = read(&mut files, path).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert!(error.message.contains("identity was not read yet"), "{error}");
    }
    assert!(read(&mut files, "plain").await.is_ok(), "needs none");
    files.set_decryption_key(identity("identity.txt"));
    assert!(read(&mut files, "token.age").await.is_ok() && read(&mut files, "theirs.age").await.is_err());
    files.set_decryption_key(identity("other.txt"));
    assert!(read(&mut files, "token.age").await.is_err() && read(&mut files, "theirs.age").await.is_ok());
    // Several, as while a key is being replaced.
    let both = [data("identity.txt"), b"\n\n  # comment\n".to_vec(), data("other.txt")].concat();
    files.set_decryption_key(SecretValue::new(both));
    for path in ["token.age", "theirs.age", "all.yaml"] {
        assert!(read(&mut files, path).await.is_ok(), "{path}");
    }
    assert!(!format!("{files:?}").contains("AGE-SECRET-KEY"));
}

#[tokio::test]
async fn p5_a_bad_identity_is_told_by_its_line_and_not_by_its_text() {
    let fixture = store(&[("token.age", "token.age")]);
    let mut files = fixture.locked("");
    let good = String::from_utf8(data("identity.txt")).unwrap();
    for (text, part) in [
        ("", "has no key in it"),
        ("# canary\n\n", "has no key in it"),
        (&format!("{good}canary"), "line 4 of the age identity is not a key"),
        ("age1rkg9tnjt3axx2txhaammv80n00jlhe3qwdevzk6an78f5x30x5ls844c62", "line 1 of the age identity is not a key"),
        ("AGE-PLUGIN-YUBIKEY-1CANARY", "no plugin runs here"),
        ("AGE-SECRET-KEY-PQ-1CANARY", "post-quantum"),
        ("AGE-SECRET-KEY-1CANARY", "is not a key: expected keys such as"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\ncanary", "a key of SSH"),
        (&good.repeat(40), "one too many"),
    ] {
        files.set_decryption_key(text.into());
        let error = read(&mut files, "token.age").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.starts_with("token.age: ") && error.message.contains(part), "{part}: {error}");
        assert!(!error.message.to_lowercase().contains("canary"), "{error}");
    }
    files.set_decryption_key(SecretValue::new(vec![0xff, 0xfe]));
    assert!(read(&mut files, "token.age").await.unwrap_err().message.contains("not UTF-8"));
}

#[tokio::test]
async fn an_identity_file_is_read_when_it_is_needed() {
    let fixture = store(&[("store/token.age", "token.age")]);
    fixture.write("store/plain", "p");
    let path = |name: &str| Some(fixture.path(name).to_str().unwrap().to_owned());
    let settings = FileSettings { path: path("store"), identity_file: path("keys.txt"), ..FileSettings::default() };
    assert_eq!(settings.validate(), Ok(()));
    let mut files = Files::connect(&settings, login()).unwrap();
    assert!(read(&mut files, "plain").await.is_ok());
    let error = read(&mut files, "token.age").await.unwrap_err();
    assert!(error.message.contains("keys.txt does not exist"), "{error}");
    fixture.write("keys.txt", data("identity.txt"));
    assert!(read(&mut files, "token.age").await.is_ok());
}

#[tokio::test]
async fn the_pods_volumes_are_read_by_their_names() {
    let fixture = Fixture::new(&[]);
    let document = String::from_utf8(data("all.yaml")).unwrap();
    fixture.kubelet("app-sops", "1", &[("prod.enc.yaml", &document)]);
    fixture.kubelet("more", "1", &[("b", "1")]);
    let mut files = fixture.unlocked("");
    let secret = read(&mut files, "app-sops/prod.enc.yaml").await.unwrap();
    assert!(secret.key("zeta").unwrap() == json(r#""canary-first""#));
    assert!(read(&mut files, "more/b").await.unwrap() == json(r#""1""#));
    assert!(after_change(&mut files, "more/b", || fixture.kubelet("more", "2", &[("b", "2")])).await == json(r#""2""#));
    let settings = FileSettings { volumes: true, ..FileSettings::default() };
    assert_eq!(Files::connect(&settings, login()).unwrap().path, Path::new(SOURCES_PATH));
}

#[test]
fn p9_settings_say_what_goes_together() {
    let parse = |json: &str| -> Result<FileSettings, String> {
        let settings: FileSettings = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok(settings.validate().map(|()| settings)?)
    };
    for json in [
        r#"{"path":"/a"}"#,
        r#"{"volumes":true,"identity":"vault:secret/data/age#key"}"#,
        r#"{"path":"/a","identityFile":"/home/me/keys.txt"}"#,
    ] {
        let settings = parse(json).unwrap();
        assert_eq!(serde_json::to_string(&settings).unwrap(), json, "as the plan carries it");
    }
    for (json, part) in [
        ("{}", "write path: <a directory>, or volumes: true"),
        (r#"{"volumes":false}"#, "write path"),
        (r#"{"path":"/a","volumes":true}"#, "path and volumes: write one of them"),
        (r#"{"path":"/a","identity":"x:y","identityFile":"/k"}"#, "identity and identityFile: write one of them"),
        (
            r#"{"path":"/a","identityFile":"keys.txt"}"#,
            "identityFile: invalid path \"keys.txt\": expected an absolute path",
        ),
        (r#"{"path":"/a","identityfile":"/k"}"#, "identityFile"),
    ] {
        let problem = parse(json).unwrap_err();
        assert!(problem.contains(part), "{json}: {problem}");
    }
}

#[test]
fn requests_of_volumes_name_the_volume() {
    let volumes = FileSettings { volumes: true, ..FileSettings::default() };
    let resolve = |text: &str| volumes.resolve("sops", &text.parse().unwrap());
    for (text, volume) in [("sops:app/prod.yaml#k", "app"), ("sops:app", "app"), ("sops:a/b/c", "a")] {
        let request = resolve(text).unwrap();
        assert_eq!(volumes.volume(&request), Some(volume), "{text}");
        assert_eq!(FileSettings::at("/a").volume(&request), None);
    }
    for (text, part) in
        [("sops:.", "every volume"), ("sops:app/../x", "begins with '..'"), ("sops:app/", "at its start")]
    {
        assert!(resolve(text).unwrap_err().to_string().contains(part), "{text}");
    }
}
