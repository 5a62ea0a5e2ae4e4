use std::fs;

use tracing::Level;

use super::*;
use crate::deliver::controls::PATIENCE;
use crate::generation::GenerationId;
use crate::process::testing::log::Log;

fn id(text: &str) -> GenerationId {
    GenerationId(text.to_owned())
}

fn wanted(hold: bool, pin: Option<&str>, refresh_now: Option<&str>) -> Wanted {
    Wanted { hold, pin: pin.map(id), refresh_now: refresh_now.map(str::to_owned), advance: None }
}

#[test]
fn go_quoting_is_undone() {
    for (quoted, plain) in [
        (r#""""#, Some("")),
        (r#""plain""#, Some("plain")),
        (r#""a \"b\" \\ c""#, Some(r#"a "b" \ c"#)),
        (r#""line\nline\ttab\r\a\b\f\v""#, Some("line\nline\ttab\r\x07\x08\x0c\x0b")),
        (r#""gr\u00fc\u00df \U0001f600 grün""#, Some("grüß 😀 grün")),
        (r#""\xc3\xbc""#, Some("ü")),
        (r#""\xff""#, None),
        (r#""\q""#, None),
        (r#""open"#, None),
        (r#""a"b""#, None),
        (r#""\u12""#, None),
        (r#""\ud800""#, None),
        (r#""cut\""#, None),
        ("bare", None),
    ] {
        assert_eq!(unquote(quoted).as_deref(), plain, "{quoted}");
    }
}

#[test]
fn annotations_are_read_and_meaningless_ones_change_nothing() {
    let held = || wanted(true, Some("a1"), Some("x"));
    for (before, text, after) in [
        (Wanted::default(), "", Wanted::default()),
        (Wanted::default(), "other.dev/hold=\"true\"\n", Wanted::default()),
        (Wanted::default(), "hushpod.dev/hold=\"true\"\nhushpod.dev/pin=\"0a-3\"\n", wanted(true, Some("0a-3"), None)),
        (Wanted::default(), "hushpod.dev/hold=\"maybe\"\n", Wanted::default()),
        (Wanted::default(), "hushpod.dev/pin=\"../../etc\"\n", Wanted::default()),
        (Wanted::default(), "hushpod.dev/refresh-now=\"\\\"1\\\"\"\n", wanted(false, None, Some("\"1\""))),
        (held(), "hushpod.dev/hold=\"maybe\"\n", wanted(true, None, None)),
        (held(), "hushpod.dev/pin=\"a b\"\n", wanted(false, Some("a1"), None)),
        (held(), "hushpod.dev/hold=\"false\"\nhushpod.dev/pin=\"\"\n", wanted(false, None, None)),
        (held(), "", Wanted::default()),
    ] {
        assert_eq!(before.clone().updated(annotations(text)), after, "{before:?} then {text:?}");
    }
}

#[test]
fn any_text_denies_and_is_told_in_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let long = "é".repeat(200_000);
    for (text, expected) in [
        ("", None),
        ("hushpod.dev/deny=\"\"\n", None),
        ("hushpod.dev/deny=\"  \"\n", None),
        ("hushpod.dev/hold=\"true\"\nother.dev/deny=\"x\"\n", None),
        ("hushpod.dev/deny=\"deny[0], deny[2]\"\n", Some("deny[0], deny[2]".to_owned())),
        ("hushpod.dev/deny=\" a\\nb\\u202e \"\n", Some("a?b?".to_owned())),
        (&format!("hushpod.dev/deny=\"{}\"\n", "x".repeat(MOST_RULES)), Some("x".repeat(MOST_RULES))),
        (&format!("hushpod.dev/deny=\"{}y\"\n", "x".repeat(MOST_RULES)), Some("x".repeat(MOST_RULES))),
        (&format!("hushpod.dev/deny=\"{long}\"\n"), Some("?".repeat(MOST_RULES))),
    ] {
        fs::write(dir.path().join(ANNOTATIONS_FILE), text).unwrap();
        assert_eq!(Controls::open(dir.path()).denied(), expected.as_deref(), "{}", &text[..text.len().min(60)]);
    }
}

/// A person who annotates pods may paste a password; the log is read by more people.
#[test]
fn p5_what_a_control_does_not_understand_is_told_without_its_bytes() {
    let (log, _listening) = Log::listen(Level::TRACE);
    let values = [
        "canary",
        "canary=",
        "-canary",
        "truecanary",
        "canary\\n",
        "\\u00fccanary",
        "../canary",
        "CANARY-1",
        "0a-canary",
    ];
    for name in ["hold", "pin"] {
        for value in values {
            let text = format!("hushpod.dev/{name}=\"{value}\"\n");
            assert_eq!(wanted(true, Some("a1"), None).updated(annotations(&text)).refresh_now, None);
        }
    }
    let told = log.text().to_lowercase();
    assert_eq!(told.lines().count(), 2 * values.len(), "{told}");
    assert!(
        told.contains("hushpod.dev/hold") && told.contains("hushpod.dev/pin") && !told.contains("canary"),
        "{told}"
    );
}

#[test]
fn p5_what_the_downward_api_wrote_is_not_told_either() {
    let (log, _listening) = Log::listen(Level::TRACE);
    let dir = tempfile::tempdir().unwrap();
    for bytes in [&b"hushpod.dev/refresh-now=\"canary\"\n"[..], b"hushpod.dev/hold=canary", b"canary", b"\xffcanary"] {
        fs::write(dir.path().join(ANNOTATIONS_FILE), bytes).unwrap();
        drop(Controls::open(dir.path()));
    }
    let told = log.text();
    assert!(told.contains("cannot be read") && !told.contains("canary"), "{told}");
}

#[tokio::test]
async fn what_stands_there_at_the_start_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(ANNOTATIONS_FILE), "hushpod.dev/hold=\"true\"\nhushpod.dev/refresh-now=\"1\"\n").unwrap();
    let mut controls = Controls::open(dir.path());
    assert_eq!(*controls.wanted(), wanted(true, None, Some("1")));
    assert_eq!(controls.live.due(Instant::now()), []);
    fs::write(dir.path().join(ANNOTATIONS_FILE), "hushpod.dev/refresh-now=\"2\"\n").unwrap();
    assert_eq!(controls.changed().await, [Control::Hold(false), Control::RefreshNow("2".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn what_was_withheld_is_told_when_its_time_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut controls = Controls::open(dir.path());
    controls.live.update([("refresh-now", "1".into())].into_iter());
    assert_eq!(controls.changed().await, [Control::RefreshNow("1".to_owned())]);
    let start = Instant::now();
    controls.live.update([("refresh-now", "2".into())].into_iter());
    assert_eq!(controls.changed().await, [Control::RefreshNow("2".to_owned())], "without another event");
    assert_eq!(start.elapsed(), PATIENCE);
}
