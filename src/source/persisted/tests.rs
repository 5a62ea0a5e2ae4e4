use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tracing::Level;

use super::*;
use crate::generation::GenerationId;
use crate::process::testing::log::Log;
use crate::provider::Version;
use crate::reference::Request;
use crate::secret::{SecretTree, SecretValue};
use crate::source::{AnswerDigest, HandedAnswer, HandedLease, HandedSession, Origin, PastGeneration};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn request() -> Request {
    Request { provider: "vault".to_owned(), path: "database/creds/app".to_owned(), params: [].into() }
}

fn id(text: &str) -> GenerationId {
    GenerationId(text.to_owned())
}

/// Every kind of content; `padding` makes the leased value large.
fn state(padding: usize) -> PersistedState {
    let leaf = |bytes: &[u8]| SecretTree::from_bytes(bytes.to_vec());
    let tree = SecretTree::Map(
        [
            ("password".to_owned(), leaf(b"canary-password")),
            ("binary".to_owned(), leaf(&[0xff, 0, 0xfe])),
            ("port".to_owned(), SecretTree::Literal("5432".into())),
            ("list".to_owned(), SecretTree::List(vec![leaf(b"canary-item"), leaf(&vec![b'x'; padding])])),
        ]
        .into(),
    );
    let hand_over = HandOver {
        sessions: vec![HandedSession {
            provider: "vault".to_owned(),
            token: "canary-token".into(),
            ends: Some(at(2_000_000_000)),
            renewable: true,
        }],
        leased: vec![HandedAnswer {
            request: request(),
            tree,
            ends: at(2_000_000_100),
            granted: Duration::from_hours(1),
            lease: Some(HandedLease { id: "canary-lease".into(), renewable: true }),
            delivered: true,
        }],
        retired: vec![HandedRetiredLease {
            provider: "vault".to_owned(),
            lease: "canary-old".into(),
            ends: at(2_000_000_050),
            revoke_at: Some(at(2_000_000_010)),
        }],
        patience: vec![("vault".to_owned(), at(2_000_000_020))],
        digests: vec![(request(), AnswerDigest { fingerprint: "canary-digest".into(), had_entries: true })],
        salt: Some("canary-salt".into()),
        counter: 7,
        history: vec![PastGeneration {
            id: id("0a1b"),
            origins: vec![(request(), Origin::Version(Version("3".to_owned())))],
        }],
        last: Some(id("0a1b-7")),
    };
    let started = StartedWith { generation: id("0a1b-5"), key: "canary-key".into(), digest: "canary-hmac".into() };
    PersistedState {
        hand_over,
        notified: Some(id("0a1b-6")),
        started: Some(started),
        restarts: 3,
        advanced: Some("w1".to_owned()),
    }
}

/// A text for comparison, secrets included: for this test alone.
fn exposed(state: &PersistedState) -> String {
    fn leaves(tree: &SecretTree) -> String {
        match tree {
            SecretTree::List(items) => items.iter().map(leaves).collect(),
            SecretTree::Map(entries) => entries.iter().flat_map(|(key, tree)| [key.clone(), leaves(tree)]).collect(),
            tree => format!("{:?};", tree.as_value().map(SecretValue::expose)),
        }
    }
    let over = &state.hand_over;
    let secrets: Vec<_> = over
        .sessions
        .iter()
        .map(|session| session.token.expose())
        .chain(over.leased.iter().filter_map(|answer| Some(answer.lease.as_ref()?.id.expose())))
        .chain(over.retired.iter().map(|draining| draining.lease.expose()))
        .chain(over.digests.iter().map(|(_, digest)| digest.fingerprint.expose()))
        .chain(over.salt.iter().map(SecretValue::expose))
        .chain(state.started.iter().flat_map(|started| [started.key.expose(), started.digest.expose()]))
        .collect();
    let trees: String = over.leased.iter().map(|answer| leaves(&answer.tree)).collect();
    // Debug shows everything else, redacted.
    format!("{state:?} {secrets:?} {trees}")
}

#[test]
fn p4_what_is_saved_is_what_the_next_process_loads() {
    let dir = tempfile::tempdir().unwrap();
    HandOverFile::new(dir.path()).save(state(10)).unwrap();
    let loaded = HandOverFile::new(dir.path()).load().unwrap();
    assert_eq!(exposed(&loaded), exposed(&state(10)));
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no other file is left");
}

#[test]
fn p4_the_deepest_document_is_handed_over_too() {
    let json = format!("{{\"k\":{}\"canary\"{}}}", "[".repeat(59), "]".repeat(59));
    let deep = || {
        let mut state = state(10);
        state.hand_over.leased[0].tree = SecretTree::from_json(json.as_bytes()).unwrap();
        state
    };
    assert!(SecretTree::from_json(json.replace("\"canary\"", "[]").as_bytes()).is_err(), "it is the deepest");
    let dir = tempfile::tempdir().unwrap();
    HandOverFile::new(dir.path()).save(deep()).unwrap();
    assert_eq!(exposed(&HandOverFile::new(dir.path()).load().unwrap()), exposed(&deep()));
}

#[test]
fn p5_debug_shows_no_secret() {
    assert!(!format!("{:?}", state(0)).contains("canary"));
}

#[test]
fn the_same_state_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut file = HandOverFile::new(dir.path());
    file.save(state(10)).unwrap();
    // Taking it away shows whether the next call writes.
    fs::remove_file(&path).unwrap();
    let mut same = state(10);
    same.hand_over.sessions[0].ends = Some(at(2_000_000_000) + Duration::from_millis(3));
    file.save(same).unwrap();
    assert!(!path.exists(), "milliseconds are not a change");

    let mut renewed = state(10);
    renewed.hand_over.leased[0].ends = at(2_000_000_200);
    file.save(renewed).unwrap();
    assert!(path.exists(), "a renewed lease is");

    let mut next = HandOverFile::new(dir.path());
    let loaded = next.load().unwrap();
    fs::remove_file(&path).unwrap();
    next.save(loaded).unwrap();
    assert!(!path.exists(), "what was loaded need not be written again");
}

#[test]
fn p4_values_that_do_not_fit_leave_the_logins_and_the_leases_to_revoke() {
    let dir = tempfile::tempdir().unwrap();
    HandOverFile::new(dir.path()).save(state(600 * 1024)).unwrap();
    let PersistedState { hand_over, .. } = HandOverFile::new(dir.path()).load().unwrap();
    assert_eq!(hand_over.sessions[0].token, "canary-token".into());
    assert!(hand_over.leased.is_empty());
    let left: Vec<_> = hand_over.retired.iter().map(|draining| (&draining.lease, draining.revoke_at)).collect();
    assert_eq!(left, [(&"canary-old".into(), Some(at(2_000_000_010))), (&"canary-lease".into(), None)]);
}

#[test]
fn what_cannot_be_used_is_passed_over() {
    let whole = {
        let dir = tempfile::tempdir().unwrap();
        HandOverFile::new(dir.path()).save(state(10)).unwrap();
        fs::read_to_string(dir.path().join(FILE)).unwrap()
    };
    let cut = &whole[..whole.len() / 2];
    let other_version = whole.replacen("\"version\":1", "\"version\":99", 1);
    let bad_base64 = whole.replacen("\"token\":\"", "\"token\":\"canary!", 1);
    for (text, problem) in [
        ("", "damaged"),
        ("[]", "damaged"),
        (cut, "damaged"),
        (&*other_version, "format 99"),
        (&*bad_base64, "damaged"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), text).unwrap();
        assert!(HandOverFile::new(dir.path()).load().is_none(), "{text:?}");
        let said = HandOverDocument::parse(text.as_bytes()).err().unwrap().to_string();
        assert!(said.contains(problem) && !said.contains("canary"), "{said}");
    }
    let nothing = tempfile::tempdir().unwrap();
    assert!(HandOverFile::new(nothing.path()).load().is_none());
}

/// Every value in the document, another at each call of the visitor.
fn each_value(value: &mut serde_json::Value, visit: &mut dyn FnMut(&mut serde_json::Value)) {
    visit(value);
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| each_value(item, visit)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|field| each_value(field, visit)),
        _ => {}
    }
}

#[test]
fn p5_whatever_is_damaged_in_it_is_told_without_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    HandOverFile::new(dir.path()).save(state(10)).unwrap();
    let whole = fs::read(&file).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    let (mut count, mut refused) = (0, 0);
    each_value(&mut document.clone(), &mut |_| count += 1);
    let (log, _listening) = Log::listen(Level::TRACE);
    let mut load = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        refused += usize::from(HandOverFile::new(dir.path()).load().is_none());
    };
    for garbage in [json!("canary"), json!({"canary": "canary"}), json!(["canary"]), json!(-1), json!(null)] {
        for nth in 0..count {
            let (mut damaged, mut at) = (document.clone(), 0);
            each_value(&mut damaged, &mut |value| {
                if at == nth {
                    *value = garbage.clone();
                }
                at += 1;
            });
            load(damaged.to_string().as_bytes());
        }
    }
    for end in (0..whole.len()).step_by(7) {
        load(&whole[..end]);
        load(&[&whole[..end], b"canary\xff"].concat());
    }
    let told = log.text();
    assert!(refused > 2 * count && told.lines().count() >= refused, "{refused} of {count}");
    assert!(told.contains("damaged at byte") && !told.contains("canary"), "{told}");
}

#[test]
fn a_crashed_writers_leftover_is_replaced_and_a_missing_directory_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(NEW), "half").unwrap();
    let mut file = HandOverFile::new(dir.path());
    file.save(state(10)).unwrap();
    assert!(file.load().is_some());
    file.discard();
    assert!(!dir.path().join(FILE).exists());
    HandOverFile::new(&dir.path().join("absent")).save(state(10)).unwrap();
}
