use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tempfile::TempDir;

use super::*;
use crate::provider::Lease;
use crate::secret::SecretTree;

mod encrypted;

/// A store with these files.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        for (path, content) in files {
            fixture.write(path, content);
        }
        fixture
    }

    fn was_written_long_ago(&self, path: &str) {
        let file = fs::File::options().write(true).open(self.path(path)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(5)).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        assert!(!path.starts_with('/'), "{path} would leave the fixture");
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// What kubelet does to a volume: a directory per generation, and `..data` renamed to the next one.
    fn kubelet(&self, below: &str, generation: &str, files: &[(&str, &str)]) {
        let dir = |name: &str| self.path(&format!("{below}/{name}"));
        let before = fs::read_link(dir("..data")).ok();
        for (path, content) in files {
            self.write(&format!("{below}/..{generation}/{path}"), content);
            let top = path.split('/').next().unwrap();
            if before.is_none() {
                symlink(format!("..data/{top}"), dir(top)).unwrap();
            }
        }
        symlink(format!("..{generation}"), dir("..data_tmp")).unwrap();
        fs::rename(dir("..data_tmp"), dir("..data")).unwrap();
        if let Some(before) = before {
            fs::remove_dir_all(dir(before.to_str().unwrap())).unwrap();
        }
    }

    fn connect(&self, path: &str) -> Files {
        let path = self.path(path).to_str().unwrap().trim_end_matches('/').to_owned();
        Files::connect(&FileSettings::at(&path), login()).unwrap()
    }
}

fn login() -> Login {
    Login { provider: "files".to_owned(), role: None, token: PathBuf::new().into() }
}

fn keys() -> AgeKeys {
    AgeKeys::new(KeySource::Lent(None))
}

fn request(path: &str) -> Request {
    resolve(path).unwrap()
}

fn resolve(text: &str) -> Result<Request, ParseError> {
    FileSettings::at("/store").resolve("files", &text.parse().unwrap())
}

fn json(text: &str) -> SecretTree {
    SecretTree::from_json(text.as_bytes()).unwrap()
}

async fn read(files: &mut Files, path: &str) -> Result<SecretTree, ProviderError> {
    let requests = [request(path)];
    let mut results = files.read(&requests, &Known::new()).await;
    assert_eq!(results.len(), 1);
    results.remove(0).map(|reading| match reading {
        Reading::Fresh(answer) => {
            assert_eq!((answer.version, answer.lease, answer.expires_in), (None, None, None));
            answer.tree
        }
        Reading::NotModified => panic!("files have no versions"),
    })
}

#[test]
fn p9_paths_have_one_form_and_errors_say_which() {
    for path in [".", "a", "team/db.json", ".hidden", "a b%2Fc", "x..y"] {
        let text = path.replace(' ', "%20");
        assert_eq!(request(&text).params.len(), 0, "{path}");
    }
    assert_eq!(request("a%2Fb"), request("a/b"), "another spelling of the same");
    for (text, part) in [
        ("/a", "at its start"),
        ("a/", "start or end"),
        ("a//b", "two in a row"),
        ("./a", "component '.'"),
        ("a/../b", "begins with '..'"),
        ("..", "begins with '..'"),
        ("..data/a", "begins with '..'"),
        ("a%00b", "control character"),
        ("a?version=1", "no versions"),
        ("a?x=1", "remove \"?x=…\""),
    ] {
        let problem = resolve(text).unwrap_err().to_string();
        assert!(problem.contains(part), "{text}: {problem}");
    }
    assert!(resolve(&"x".repeat(256)).is_err());
}

#[test]
fn p9_the_stores_path_is_absolute_and_plain() {
    let validate = |path: &str| FileSettings::at(path).validate();
    assert_eq!(validate("/etc/secrets-source"), Ok(()));
    for path in ["", "relative", "/a/../b"] {
        assert!(validate(path).unwrap_err().to_string().starts_with("path: "), "{path}");
    }
    assert!(serde_json::from_str::<FileSettings>(r#"{"path":"/a","pth":""}"#).is_err());
}

#[tokio::test]
async fn a_directory_has_values_documents_and_directories() {
    let fixture = Fixture::new(&[
        ("token", "t0ken\n"),
        ("db.json", r#"{"user":"u","port":5432}"#),
        ("app.yaml", "list: [a, 1]\nnested: {k: v}\nanswer: no\n"),
        ("app.yml", "k: v"),
        ("app.env", "export K='v'\n"),
        ("team/a", "1"),
        ("team/b.json", r#"{"x":1}"#),
        ("team/.hidden", "no"),
        ("team/below/c", "no"),
    ]);
    fixture.write("binary", [0xff, 0x00]);
    let mut files = fixture.connect("");
    for (path, expected) in [
        ("token", json(r#""t0ken\n""#)),
        ("db.json", json(r#"{"user":"u","port":5432}"#)),
        ("app.yaml", json(r#"{"list":["a",1],"nested":{"k":"v"},"answer":"no"}"#)),
        ("app.yml", json(r#"{"k":"v"}"#)),
        ("app.env", json(r#"{"K":"v"}"#)),
        ("binary", SecretTree::Binary(crate::secret::SecretValue::new(vec![0xff, 0x00]))),
        ("team", json(r#"{"a":"1","b.json":"{\"x\":1}"}"#)),
        ("team/.hidden", json(r#""no""#)),
        ("team/below", json(r#"{"c":"no"}"#)),
    ] {
        assert!(read(&mut files, path).await.unwrap() == expected, "{path}");
    }
    let SecretTree::Map(all) = read(&mut files, ".").await.unwrap() else { panic!() };
    assert_eq!(all.into_keys().collect::<Vec<_>>(), ["app.env", "app.yaml", "app.yml", "binary", "db.json", "token"]);
}

#[tokio::test]
async fn a_single_document_is_walked_by_its_keys() {
    for (name, content) in [
        ("all.yaml", "db: {user: u, list: [x, y]}\ntop: t\n"),
        ("all.json", r#"{"db":{"user":"u","list":["x","y"]},"top":"t"}"#),
    ] {
        let fixture = Fixture::new(&[(name, content)]);
        let mut files = fixture.connect(name);
        for (path, expected) in [
            ("db", r#"{"user":"u","list":["x","y"]}"#),
            ("db/user", r#""u""#),
            ("db/list/1", r#""y""#),
            ("top", r#""t""#),
            (".", r#"{"db":{"user":"u","list":["x","y"]},"top":"t"}"#),
        ] {
            assert!(read(&mut files, path).await.unwrap() == json(expected), "{name} {path}");
        }
        for path in ["none", "db/none", "top/below"] {
            let error = read(&mut files, path).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotFound);
            assert!(!error.message.contains("user"), "neighbours are another tenant's: {error}");
        }
    }
}

#[tokio::test]
async fn p5_what_cannot_be_read_has_a_kind_and_a_sentence_without_content() {
    let fixture = Fixture::new(&[
        ("bad.json", "{\"k\": \"canary\",\n canary"),
        ("bad.yaml", "k: canary\n\t- canary: [canary"),
        ("bad.env", "A=1\ncanary canary\n"),
        ("empty.yaml", ""),
        ("word.yaml", "canary"),
        ("duplicate.yaml", "canary: 1\ncanary: 2\n"),
        ("duplicate.json", r#"{"canary":1, "canary":2}"#),
        ("several.yaml", "canary: 1\n---\ncanary: 2\n"),
        ("good", "canary"),
    ]);
    fixture.write("many.json", format!("[{}0]", "0,".repeat(500_000)));
    fixture.write("many.env", (0..60_000).map(|key| format!("K{key}=canary\n")).collect::<Vec<_>>().concat());
    fixture.write("latin1.json", b"{\"k\": \"canary\xff\"}");
    fixture.write("large", vec![b'x'; (1 << 20) + 1]);
    fixture.write("largest", vec![b'x'; 1 << 20]);
    rustix::fs::mkfifoat(rustix::fs::CWD, fixture.path("fifo"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    symlink("/etc/hostname", fixture.path("out")).unwrap();
    symlink("../..", fixture.path("up")).unwrap();
    symlink("circle", fixture.path("circle")).unwrap();
    symlink("good", fixture.path("within")).unwrap();
    symlink("/etc", fixture.path("etc")).unwrap();
    let mut files = fixture.connect("");
    for (path, kind, part) in [
        ("none", ErrorKind::NotFound, "no such file"),
        ("good/below", ErrorKind::NotFound, "no such file"),
        ("bad.json", ErrorKind::Unavailable, "line 2, column"),
        ("bad.yaml", ErrorKind::Unavailable, "not YAML at line 1, column 4"),
        ("bad.env", ErrorKind::Unavailable, "line 2: there is no KEY=value"),
        ("empty.yaml", ErrorKind::Unavailable, "not a document"),
        ("word.yaml", ErrorKind::Unavailable, "not a document"),
        ("duplicate.yaml", ErrorKind::Invalid, "has the same key twice at line 2, column 1"),
        ("duplicate.json", ErrorKind::Invalid, "has the same key twice at line 1, column 14"),
        ("many.json", ErrorKind::Invalid, "has more than 10000 values: split it"),
        ("many.env", ErrorKind::Invalid, "there are more than 10000 keys: split the file"),
        ("several.yaml", ErrorKind::Invalid, "has several YAML documents: put each into a file of its own"),
        ("latin1.json", ErrorKind::Unavailable, "not UTF-8"),
        ("large", ErrorKind::Invalid, "more than 1048576 bytes"),
        ("fifo", ErrorKind::Invalid, "neither a file nor a directory"),
        ("out", ErrorKind::Denied, "symbolic link"),
        ("up", ErrorKind::Denied, "symbolic link"),
        ("etc/hostname", ErrorKind::Denied, "symbolic link"),
        ("circle", ErrorKind::Denied, "symbolic link"),
    ] {
        let error = read(&mut files, path).await.unwrap_err();
        assert_eq!(error.kind, kind, "{path}: {error}");
        assert!(error.message.contains(part) && !error.message.contains("canary"), "{path}: {error}");
    }
    assert!(read(&mut files, "within").await.unwrap() == json(r#""canary""#));
    // Of a directory, one bad file is one bad value.
    let all = read(&mut files, ".").await.unwrap();
    for (name, part) in [("out", "symbolic link"), ("circle", "symbolic link"), ("large", "more than 1048576 bytes")] {
        let SecretTree::Withheld(why) = all.key(name).unwrap() else { panic!("{name}") };
        assert!(why.starts_with("cannot be had: ") && why.contains(part) && !why.contains("canary"), "{name}: {why}");
    }
    assert!(all.key("good").unwrap() == json(r#""canary""#));
    assert!(read(&mut files, "largest").await.is_ok());
}

#[tokio::test]
async fn p9_a_directory_has_so_many_files_and_not_one_more() {
    let fixture = Fixture::new(&[]);
    (0..1024).for_each(|number| fixture.write(&format!("all/{number}"), "x"));
    let mut files = fixture.connect("");
    let SecretTree::Map(entries) = read(&mut files, "all").await.unwrap() else { panic!() };
    assert_eq!(entries.len(), 1024);
    fixture.write("all/more", "x");
    let error = read(&mut files, "all").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("all: has more than 1024 files: make several directories"), "{error}");
}

/// Files that are never right, by their names.
const NEVER_RIGHT: [(&str, &[u8]); 10] = [
    ("twice.yaml", b"a: 1\na: 2\n"),
    ("bad.yaml", b"k: canary\n\t- canary: [canary"),
    ("bad.json", b"{\"k\": \"canary\",\n canary"),
    ("bad.env", b"A=1\ncanary canary\n"),
    ("word.yml", b"canary"),
    ("empty.json", b""),
    ("latin1.json", b"{\"k\": \"canary\xff\"}"),
    ("plain.age", b"canary"),
    ("plain.json.age", b"{\"k\": \"canary\"}"),
    ("below.age", b"# canary\n-----BEGIN AGE ENCRYPTED FILE-----\n"),
];

#[tokio::test]
async fn p7_malformed_bytes_that_did_not_change_since_the_last_look_are_no_half_of_a_write() {
    let fixture = Fixture::new(&[]);
    let mut files = fixture.connect("");
    for (name, bytes) in NEVER_RIGHT {
        fixture.write(name, bytes);
        let mut document = fixture.connect(name);
        let kind = async |files: &mut Files| read(files, name).await.unwrap_err().kind;
        let first = kind(&mut files).await;
        assert!([ErrorKind::Unavailable, ErrorKind::Invalid].contains(&first), "{name}: {first:?}");
        assert_eq!(kind(&mut files).await, ErrorKind::Invalid, "{name} is as it was");
        // The other half of it would be another state.
        fixture.write(name, [bytes, b" "].concat());
        assert_eq!(kind(&mut files).await, first, "{name} changed");
        assert_eq!(kind(&mut files).await, ErrorKind::Invalid, "{name} did not change again");
        // As the store itself.
        let error = read(&mut document, ".").await.unwrap_err();
        assert!(error.kind == first || !content::is_document(name), "{name}: {error}");
        assert_eq!(read(&mut document, ".").await.unwrap_err().kind, ErrorKind::Invalid, "{name} as the store");
    }
    fixture.write("sub/x.age", "canary");
    fixture.write("sub/y", "neighbour");
    for look in ["first", "second"] {
        let error = read(&mut files, "sub").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "the {look} look: one of a directory's may be half of a write");
    }
    fixture.was_written_long_ago("sub/x.age");
    let sub = read(&mut files, "sub").await.unwrap();
    assert_eq!(sub.key("x").unwrap().withheld(), Some("cannot be had: is not an age file"), "its writer has gone");
    assert!(sub.key("y").unwrap() == SecretTree::Text("neighbour".into()), "it is not its neighbour");
    fixture.write("bad.json", "{}");
    assert!(read(&mut files, "bad.json").await.is_ok(), "put right");
    fixture.write("bad.json", "{");
    assert_eq!(read(&mut files, "bad.json").await.unwrap_err().kind, ErrorKind::Unavailable, "written anew");
}

#[tokio::test]
async fn p7_what_kubelet_swaps_whole_is_never_half_of_a_write() {
    for (name, bytes) in NEVER_RIGHT {
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        let fixture = Fixture::new(&[]);
        fixture.kubelet("volume", "1", &[(name, text), ("good", "1")]);
        let error = read(&mut fixture.connect(""), &format!("volume/{name}")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{name}: {error}");
        assert!(!error.message.contains("canary"), "{error}");
        let error = read(&mut fixture.connect(&format!("volume/{name}")), ".").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{name} as the store: {error}");
        assert!(read(&mut fixture.connect("volume"), "good").await.is_ok());
    }
}

#[tokio::test]
async fn a_store_that_is_away_may_come_and_a_forbidden_file_is_denied() {
    let fixture = Fixture::new(&[("secret", "x")]);
    let mut files = fixture.connect("nowhere");
    for _ in 0..2 {
        assert_eq!(read(&mut files, "x").await.unwrap_err().kind, ErrorKind::Unavailable, "it may be mounted later");
    }
    let error = read(&mut fixture.connect("secret"), "x").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    fs::set_permissions(fixture.path("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    // Nothing is forbidden to root.
    if fs::read(fixture.path("secret")).is_err() {
        assert_eq!(read(&mut fixture.connect(""), "secret").await.unwrap_err().kind, ErrorKind::Denied);
    }
}

#[tokio::test]
async fn there_is_no_login_and_there_are_no_leases() {
    let fixture = Fixture::new(&[("token", "canary")]);
    let mut files = fixture.connect("");
    assert!(read(&mut files, "token").await.is_ok(), "without a role, and without the pod's token");
    assert_eq!(files.session(), None);
    let settings = FileSettings::at("/store");
    assert_eq!((settings.needs_role(), settings.default_audience()), (false, None));
    let lease = Lease { id: "canary".into(), ttl: Duration::from_secs(1), renewable: true };
    assert_eq!(files.renew(&lease).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(files.revoke(&lease).await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn kubelets_volumes_are_read_through_one_generation() {
    let fixture = Fixture::new(&[]);
    let generation = |n: &str| {
        fixture.kubelet(".", n, &[("a", n), ("sub/b", n)]);
        fixture.kubelet("deep/er", n, &[("c", n)]);
    };
    generation("1");
    let mut files = fixture.connect("");
    for n in ["1", "2", "3"] {
        if n != "1" {
            generation(n);
        }
        let value = json(&format!("{n:?}"));
        for path in ["a", "sub/b", "deep/er/c"] {
            assert!(read(&mut files, path).await.unwrap() == value, "{path} {n}");
        }
        for (path, key) in [(".", "a"), ("sub", "b"), ("deep/er", "c")] {
            let expected = json(&format!("{{{key:?}:{n:?}}}"));
            assert!(read(&mut files, path).await.unwrap() == expected, "{path} {n}");
        }
    }
}

#[tokio::test]
async fn p2_a_batch_is_of_one_of_kubelets_generations() {
    let fixture = Fixture::new(&[]);
    let names: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
    let write = |n: u32| {
        let content = n.to_string();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), content.as_str())).collect();
        fixture.kubelet(".", &format!("generation-{n}"), &all);
    };
    write(0);
    let root = fixture.path("");
    let done = AtomicBool::new(false);
    let mut whole = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (1..200).for_each(write);
            done.store(true, Ordering::Relaxed);
        });
        let values = |answers: Vec<SecretTree>| {
            let values: BTreeSet<_> = answers.iter().map(|tree| tree.as_value().unwrap().expose().to_vec()).collect();
            assert_eq!((answers.len(), values.len()), (20, 1), "files, generations");
        };
        while !done.load(Ordering::Relaxed) {
            let batch = read::batch(&root, &names, &keys()).answers;
            let directory = read::batch(&root, &[".".to_owned()], &keys()).answers.remove(0);
            // Swapped faster than it can be read: an error, never a mixture.
            let Ok(batch) = batch.into_iter().collect::<Result<Vec<_>, _>>() else { continue };
            values(batch);
            let Ok(SecretTree::Map(directory)) = directory else { continue };
            values(directory.into_values().collect());
            whole += 1;
        }
    });
    assert!(whole > 10, "{whole}");
}

#[tokio::test]
async fn what_may_be_half_of_a_write_is_read_again() {
    // (content, milliseconds since it was written) → is it read again?
    for (content, age, again) in [("half", 0, true), ("whole", 60, false), ("", 60, true), ("", 60_000, false)] {
        let fixture = Fixture::new(&[("f", content)]);
        let written = std::time::SystemTime::now() - Duration::from_millis(age);
        fs::File::options().write(true).open(fixture.path("f")).unwrap().set_modified(written).unwrap();
        let batch = read::batch(&fixture.path(""), &["f".to_owned()], &keys());
        assert_eq!(batch.unsettled, again, "{content:?} after {age} ms");
        assert!(batch.answers[0].is_ok());
    }
}

#[tokio::test]
async fn a_write_in_two_parts_is_seen_as_one() {
    let fixture = Fixture::new(&[("db.json", "")]);
    let mut files = fixture.connect("");
    let path = fixture.path("db.json");
    let writer = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        fs::write(path, r#"{"k":"whole"}"#).unwrap();
    };
    let (read, ()) = tokio::join!(read(&mut files, "db.json"), writer);
    assert!(read.unwrap() == json(r#"{"k":"whole"}"#), "truncated first, written 30 ms later");
}

/// Runs `change` while the provider waits, and reads when it says that something changed.
async fn after_change(files: &mut Files, path: &str, change: impl FnOnce()) -> SecretTree {
    let waited = {
        let mut changed = files.changed();
        assert!(futures_util::poll!(&mut changed).is_pending(), "nothing changed yet");
        change();
        tokio::time::timeout(Duration::from_secs(10), changed).await
    };
    waited.expect("no event");
    read(files, path).await.unwrap()
}

#[tokio::test]
async fn changes_are_told_wherever_they_happen() {
    let fixture = Fixture::new(&[("a", "1"), ("deep/er/b", "1"), ("doc.yaml", "k: 1")]);
    let mut files = fixture.connect("");
    assert!(futures_util::poll!(files.changed()).is_pending(), "nothing is asked for, nothing watched");
    for path in ["a", "deep/er/b"] {
        read(&mut files, path).await.unwrap();
    }
    assert!(after_change(&mut files, "a", || fixture.write("a", "2")).await == json(r#""2""#));
    assert!(after_change(&mut files, "deep/er/b", || fixture.write("deep/er/b", "2")).await == json(r#""2""#));
    // A directory is replaced, then written to.
    fixture.write("other/er/b", "3");
    settle(&mut files).await;
    let replace = || {
        fs::rename(fixture.path("deep"), fixture.path("old")).unwrap();
        fs::rename(fixture.path("other"), fixture.path("deep")).unwrap();
    };
    assert!(after_change(&mut files, "deep/er/b", replace).await == json(r#""3""#));
    settle(&mut files).await;
    assert!(after_change(&mut files, "deep/er/b", || fixture.write("deep/er/b", "4")).await == json(r#""4""#));

    let mut document = fixture.connect("doc.yaml");
    assert!(read(&mut document, "k").await.is_ok());
    let rename = || {
        fixture.write("new", "k: 2");
        fs::rename(fixture.path("new"), fixture.path("doc.yaml")).unwrap();
    };
    assert!(after_change(&mut document, "k", rename).await == json("2"));
}

#[tokio::test]
async fn what_changes_between_a_read_and_the_first_wait_is_told() {
    let fixture = Fixture::new(&[("a", "1"), ("doc.yaml", "k: 1")]);
    for (store, path) in [("", "a"), ("doc.yaml", "k")] {
        let mut files = fixture.connect(store);
        read(&mut files, path).await.unwrap();
        // As long as before, and in place.
        fixture.write("a", "2");
        fixture.write("doc.yaml", "k: 2");
        let changed = tokio::time::timeout(Duration::from_secs(10), files.changed()).await;
        changed.unwrap_or_else(|_| panic!("{store}: no event"));
        assert!(read(&mut files, path).await.unwrap().as_value() == Some(&"2".into()), "{store}");
        fixture.write("a", "1");
        fixture.write("doc.yaml", "k: 1");
    }
}

/// Takes in what is still to be told.
async fn settle(files: &mut Files) {
    while tokio::time::timeout(Duration::from_millis(50), files.changed()).await.is_ok() {
        read(files, "deep/er/b").await.ok();
    }
}

#[tokio::test]
async fn kubelets_swaps_are_told() {
    let fixture = Fixture::new(&[]);
    fixture.kubelet(".", "1", &[("a", "1"), ("sub/b", "1")]);
    let mut files = fixture.connect("");
    read(&mut files, "sub/b").await.unwrap();
    for n in ["2", "3", "4"] {
        let swap = || fixture.kubelet(".", n, &[("a", n), ("sub/b", n)]);
        assert!(after_change(&mut files, "sub/b", swap).await == json(&format!("{n:?}")));
        while tokio::time::timeout(Duration::from_millis(50), files.changed()).await.is_ok() {}
        read(&mut files, "sub/b").await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_yet_is_watched_once_it_is() {
    let fixture = Fixture::new(&[]);
    let mut files = fixture.connect("later");
    assert_eq!(read(&mut files, "a").await.unwrap_err().kind, ErrorKind::Unavailable);
    fixture.write("later/a", "1");
    settle(&mut files).await;
    assert!(read(&mut files, "a").await.unwrap() == json(r#""1""#));
    assert!(after_change(&mut files, "a", || fixture.write("later/a", "2")).await == json(r#""2""#));
}
