//! The cases that every store has to pass.

use super::*;

/// One test per case, against the fake and against the real server.
macro_rules! cases {
    (fake $subject:ty: $($case:ident,)*) => {
        mod fake {
            $(#[tokio::test] async fn $case() {
                use $crate::contract::Subject;
                $crate::contract::suite::$case(&<$subject>::fake().await).await;
            })*
        }
    };
    (real $subject:ty: $($case:ident,)*) => {
        mod real {
            $(#[tokio::test] #[ignore = "wants a server: .ci/run contract starts it"] async fn $case() {
                $crate::contract::suite::$case(&<$subject>::real().await).await;
            })*
        }
    };
    (real $subject:ty) => {
        $crate::contract::suite::cases!($subject);
        $crate::contract::suite::cases!(list $subject, real);
    };
    (list $subject:ty, $server:ident) => {
        $crate::contract::suite::cases!($server $subject:
            values_are_exact,
            documents_are_exact,
            what_is_missing_says_so,
            what_is_denied_says_so,
            a_rotation_is_seen,
            p3_what_went_away_is_missing_and_not_empty,
            what_is_unchanged_is_not_read_again,
            a_pinned_version_stays_and_a_missing_one_says_so,
            a_batch_is_answered_in_order,
            an_ended_login_is_replaced_in_mid_flight,
            a_wrong_authority_is_refused,
            p3_every_failure_has_a_kind_and_passes,
            p3_what_answers_in_a_stores_place_says_nothing_of_what_it_has,
            throttling_is_told_with_the_stores_wish,
            a_wrong_clock_is_survived_or_told,
            keys_are_exchanged_post_quantum,
            nothing_is_pushed_unless_the_operator_wants_it,
        );
    };
    ($subject:ty) => {
        $crate::contract::suite::cases!(list $subject, fake);
    };
}
pub(super) use cases;

/// A client that loses patience soon.
fn client<S: Subject>(store: &S) -> (S::Settings, Box<dyn Provider>) {
    let settings = store.settings(store.ca().as_deref());
    let limits = Limits { exchange: Duration::from_secs(3), body_bytes: 256 * 1024, ..Limits::default() };
    // A real server on a busy machine is given its time.
    let limits = if store.server().is_some() { limits } else { Limits::default() };
    let provider = store.connect(&settings, limits);
    (settings, provider)
}

pub(super) async fn values_are_exact<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    for (name, value) in [
        ("plain", "canary-value"),
        ("lines", "-----BEGIN canary-----\nline two\r\n\ttabbed\n"),
        ("quotes", r#"canary "double" 'single' \ $ ` {{x}} ${y}"#),
        ("unicode", "canary-\u{fc}\u{4e2d}\u{1f511}"),
        ("json", r#"{"canary": ["a", {"b": 1.50}]}"#),
    ] {
        let reference = store.put(name, value).await;
        let answer = fresh(read(&mut *provider, &request(&settings, &reference), None).await);
        if name == "json" && answer.tree.as_value().is_none() {
            continue;
        }
        assert_eq!(shown(&answer, &reference), value.as_bytes(), "{name}");
    }
    if let Some(reference) = store.put_bytes("binary", b"canary\0\xff\xfe").await {
        let answer = fresh(read(&mut *provider, &request(&settings, &reference), None).await);
        assert_eq!(shown(&answer, &reference), b"canary\0\xff\xfe");
    }
}

/// A document in text, as every store keeps one: no digit is lost on its way into any file.
pub(super) async fn documents_are_exact<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    let reference = store.put("values", &crate::values::document()).await;
    let answer = fresh(read(&mut *provider, &request(&settings, &reference), None).await);
    crate::values::assert_delivered(&answer.tree, reference.parse::<Reference>().unwrap().key.as_ref());
}

pub(super) async fn what_is_missing_says_so<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    let reference = store.put("present", "canary").await.replace("present", "absent");
    let error = read(&mut *provider, &request(&settings, &reference), None).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["absent"]);
}

pub(super) async fn what_is_denied_says_so<S: Subject>(store: &S) {
    if !store.has_policies() {
        return;
    }
    let (settings, mut provider) = client(store);
    let reference = store.denied().await;
    let error = read(&mut *provider, &request(&settings, &reference), None).await.unwrap_err();
    assert_error(&error, ErrorKind::Denied, &[]);
    let open = store.put("open", "canary-open").await;
    let answer = fresh(read(&mut *provider, &request(&settings, &open), None).await);
    assert_eq!(shown(&answer, &open), b"canary-open", "one denial is not the end of the login");
}

pub(super) async fn a_rotation_is_seen<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    let reference = store.put("turning", "canary-1").await;
    let wanted = request(&settings, &reference);
    let mut held = fresh(read(&mut *provider, &wanted, None).await);
    for round in 2..5 {
        let value = format!("canary-{round}");
        assert_eq!(store.put("turning", &value).await, reference);
        let next = fresh(read(&mut *provider, &wanted, held.version.as_ref()).await);
        assert_eq!(shown(&next, &reference), value.as_bytes());
        assert!(next.version.is_none() || next.version != held.version);
        held = next;
    }
}

pub(super) async fn p3_what_went_away_is_missing_and_not_empty<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    let reference = store.put("passing", "canary").await;
    let wanted = request(&settings, &reference);
    let held = fresh(read(&mut *provider, &wanted, None).await);
    store.remove("passing").await;
    let error = read(&mut *provider, &wanted, held.version.as_ref()).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["passing"]);
}

pub(super) async fn what_is_unchanged_is_not_read_again<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    let reference = store.put("steady", "canary").await;
    let wanted = request(&settings, &reference);
    let held = fresh(read(&mut *provider, &wanted, None).await).version.expect("a version");
    // What kind of secret it is, a provider may have to learn once.
    assert_eq!(read(&mut *provider, &wanted, Some(&held)).await, Ok(Reading::NotModified));
    store.server().map(FakeServer::take_seen);
    for _ in 0..3 {
        assert_eq!(read(&mut *provider, &wanted, Some(&held)).await, Ok(Reading::NotModified));
        let Some(seen) = store.server().map(FakeServer::take_seen) else { continue };
        assert_eq!(seen.len(), 1, "one conditional request: {seen:?}");
        assert!(S::carries_no_value(&seen), "{seen:?}");
    }
}

pub(super) async fn a_pinned_version_stays_and_a_missing_one_says_so<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    let reference = store.put("pinned", "canary-1").await;
    let Some(pin) = store.pin("pinned", 1).await else { return };
    store.put("pinned", "canary-2").await;
    let with = |pin: &str| match reference.split_once('#') {
        Some((path, key)) if path.contains('?') => format!("{path}&{pin}#{key}"),
        Some((path, key)) => format!("{path}?{pin}#{key}"),
        None if reference.contains('?') => format!("{reference}&{pin}"),
        None => format!("{reference}?{pin}"),
    };
    let wanted = request(&settings, &with(&pin));
    assert_eq!(shown(&fresh(read(&mut *provider, &wanted, None).await), &reference), b"canary-1");
    let newest = request(&settings, &reference);
    assert_eq!(shown(&fresh(read(&mut *provider, &newest, None).await), &reference), b"canary-2");
    let absent = match pin.split_once('=') {
        Some((name, number)) if number.len() < 4 => format!("{name}=77"),
        Some((name, id)) => format!("{name}={}", id.replace(|c: char| c.is_ascii_digit(), "7")),
        None => panic!("{pin} is not a parameter"),
    };
    let error = read(&mut *provider, &request(&settings, &with(&absent)), None).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["pinned", "version"]);
}

pub(super) async fn a_batch_is_answered_in_order<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    let mut references = Vec::new();
    for number in 0..5 {
        references.push(store.put(&format!("batch-{number}"), &format!("canary-{number}")).await);
    }
    let absent = references[2].replace("batch-2", "absent-2");
    references.insert(2, absent);
    let requests: Vec<_> = references.iter().map(|reference| request(&settings, reference)).collect();
    let results = provider.read(&requests, &Known::new()).await;
    assert_eq!(results.len(), requests.len());
    for (reference, result) in references.iter().zip(results) {
        if reference.contains("absent") {
            assert_eq!(result.unwrap_err().kind, ErrorKind::NotFound, "one failure is not the others'");
            continue;
        }
        let number = reference.split("batch-").nth(1).unwrap().chars().next().unwrap();
        assert_eq!(shown(&fresh(result), reference), format!("canary-{number}").as_bytes());
    }
}

pub(super) async fn an_ended_login_is_replaced_in_mid_flight<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    let reference = store.put("kept", "canary-kept").await;
    let wanted = request(&settings, &reference);
    fresh(read(&mut *provider, &wanted, None).await);
    if store.end_logins().await {
        assert_eq!(shown(&fresh(read(&mut *provider, &wanted, None).await), &reference), b"canary-kept");
    }
}

pub(super) async fn a_wrong_authority_is_refused<S: Subject>(store: &S) {
    if store.ca().is_none() {
        return;
    }
    let reference = store.put("guarded", "canary").await;
    let settings = store.settings(Some(&Certificates::new().ca));
    let mut provider = store.connect(&settings, Limits::default());
    let error = read(&mut *provider, &request(&settings, &reference), None).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, &["unknown authority", "set ca"]);
}

/// What any server may do instead of answering, and what it means.
fn faults() -> Vec<(Fault, ErrorKind)> {
    let status = |status| Fault::Status(status, Vec::new(), "canary".to_owned());
    let redirect = |to: &str| Fault::Status(307, vec![("location", to.to_owned())], String::new());
    let unavailable = ErrorKind::Unavailable;
    vec![
        (status(500), unavailable),
        (status(502), unavailable),
        (status(503), unavailable),
        (status(504), unavailable),
        (Fault::Body("<html>canary</html>".to_owned()), unavailable),
        (Fault::Body("[\"canary\"]".to_owned()), unavailable),
        (Fault::Body("{}".to_owned()), unavailable),
        (Fault::Body(String::new()), unavailable),
        // A good answer that is too large will be so again.
        (Fault::Body(format!("{{\"value\": \"{}\"}}", "canary".repeat(90_000))), ErrorKind::Invalid),
        (Fault::Truncated, unavailable),
        (Fault::Silence, unavailable),
        (redirect("https://canary.example/x"), unavailable),
        (redirect("http://127.0.0.1/x"), unavailable),
    ]
}

pub(super) async fn p3_every_failure_has_a_kind_and_passes<S: Subject>(store: &S) {
    let Some(server) = store.server() else { return };
    let (settings, mut provider) = client(store);
    let reference = store.put("shaky", "canary-shaky").await;
    let wanted = request(&settings, &reference);
    fresh(read(&mut *provider, &wanted, None).await);
    for (fault, kind) in faults() {
        let told = format!("{fault:.60?}");
        server.fail(S::is_read, 1, fault);
        let error = read(&mut *provider, &wanted, None).await.expect_err(&told);
        assert_eq!(error.kind, kind, "{told}: {error}");
        assert!(!error.message.contains("canary"), "{told}: {error}");
        assert_eq!(shown(&fresh(read(&mut *provider, &wanted, None).await), &reference), b"canary-shaky", "{told}");
    }
}

/// What gateways, load balancers and other servers answer in a store's place, by shape.
const FOREIGN: [&str; 8] = [
    "",
    "<!DOCTYPE html><html><title>canary</title></html>",
    "404 page not found canary",
    r#"{"message": "no Route matched with those values canary"}"#,
    r#"{"statusCode": 404, "message": "Resource not found canary"}"#,
    r#"{"timestamp": 1795258786, "status": 404, "error": "Not Found", "message": "", "path": "/canary"}"#,
    r#"{"errors": [{"status": "404", "title": "canary"}]}"#,
    r#"["canary"]"#,
];

/// An outage of a front end must not start applications without what is optional, nor end what waits.
pub(super) async fn p3_what_answers_in_a_stores_place_says_nothing_of_what_it_has<S: Subject>(store: &S) {
    let Some(server) = store.server() else { return };
    let (settings, mut provider) = client(store);
    let reference = store.put("behind", "canary-behind").await;
    let wanted = request(&settings, &reference);
    let held = fresh(read(&mut *provider, &wanted, None).await).version;
    for body in FOREIGN {
        for status in [400, 401, 403, 404, 405, 410] {
            for (what, held) in [("a read", None), ("a look", held.as_ref()), ("a login", None)] {
                if what == "a login" {
                    provider = client(store).1;
                }
                server.fail(|_| true, usize::MAX, Fault::Status(status, Vec::new(), body.to_owned()));
                let error = read(&mut *provider, &wanted, held).await.expect_err(body);
                server.heal();
                assert_error(&error, ErrorKind::Unavailable, &[]);
                let again = fresh(read(&mut *provider, &wanted, None).await);
                assert_eq!(shown(&again, &reference), b"canary-behind", "{what}: {status} {body}");
            }
        }
    }
}

pub(super) async fn throttling_is_told_with_the_stores_wish<S: Subject>(store: &S) {
    let Some(server) = store.server() else { return };
    let (settings, mut provider) = client(store);
    let reference = store.put("busy", "canary").await;
    let wanted = request(&settings, &reference);
    fresh(read(&mut *provider, &wanted, None).await);
    for (header, seconds) in [(Some("7"), Some(7)), (None, None)] {
        let headers = header.map(|text| ("retry-after", text.to_owned())).into_iter().collect();
        server.fail(S::is_read, 1, Fault::Status(429, headers, "{\"message\": \"canary\"}".to_owned()));
        let error = read(&mut *provider, &wanted, None).await.unwrap_err();
        assert_error(&error, ErrorKind::Throttled { retry_after: seconds.map(Duration::from_secs) }, &[]);
    }
    fresh(read(&mut *provider, &wanted, None).await);
}

pub(super) async fn a_wrong_clock_is_survived_or_told<S: Subject>(store: &S) {
    let reference = store.put("timely", "canary-timely").await;
    if !store.skew_clock(3600).await {
        return;
    }
    let (settings, mut provider) = client(store);
    match read(&mut *provider, &request(&settings, &reference), None).await {
        Ok(reading) => assert_eq!(shown(&fresh(Ok(reading)), &reference), b"canary-timely"),
        Err(error) => assert_error(&error, ErrorKind::Denied, &["clock"]),
    }
}

pub(super) async fn keys_are_exchanged_post_quantum<S: Subject>(store: &S) {
    let Some(server) = store.server() else { return };
    let (settings, mut provider) = client(store);
    let reference = store.put("recorded", "canary").await;
    fresh(read(&mut *provider, &request(&settings, &reference), None).await);
    assert_eq!(server.key_exchanges().iter().map(String::as_str).collect::<Vec<_>>(), ["X25519MLKEM768"]);
}

pub(super) async fn nothing_is_pushed_unless_the_operator_wants_it<S: Subject>(store: &S) {
    let (settings, mut provider) = client(store);
    let reference = store.put("silent", "canary-1").await;
    fresh(read(&mut *provider, &request(&settings, &reference), None).await);
    store.put("silent", "canary-2").await;
    store.server().map(FakeServer::take_seen);
    tokio::time::pause();
    let told = tokio::time::timeout(Duration::from_hours(1), provider.changed()).await;
    tokio::time::resume();
    assert!(told.is_err(), "src/config.md says that only a poll tells");
    assert!(store.server().is_none_or(|server| server.take_seen().is_empty()), "nobody was asked meanwhile");
}
