//! A store that fails: what only a fake does on demand.

use super::*;
use crate::fakes::server::Fault;
use crate::log::Log;

/// A secret, and a pod that may read it and loses patience soon.
async fn secret_and_pod(store: &Store) -> (String, Pod) {
    let kv = store.kv2().await;
    let path = format!("{kv}/data/db");
    store.write(&path, json!({"data": {"password": "canary-value"}})).await;
    let mut pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    pod.reach.limits.exchange = Duration::from_secs(2);
    pod.reach.limits.body_bytes = 64 * 1024;
    (path, pod)
}

/// Faults, what becomes of them, and what the error says.
fn faults() -> Vec<(Fault, ErrorKind, &'static str)> {
    let status = |status, text: &str| Fault::Status(status, Vec::new(), json!({"errors": [text]}).to_string());
    let redirect = |to: &str| Fault::Status(307, vec![("location", to.to_owned())], String::new());
    let after = |header: &str| Fault::Status(429, vec![("retry-after", header.to_owned())], "canary".to_owned());
    let throttled = |seconds: Option<u64>| ErrorKind::Throttled { retry_after: seconds.map(Duration::from_secs) };
    let (unavailable, invalid) = (ErrorKind::Unavailable, ErrorKind::Invalid);
    vec![
        (status(400, "canary"), invalid, "bad request"),
        (Fault::Status(204, Vec::new(), String::new()), invalid, "nothing that could be delivered"),
        (status(404, "namespace not found"), invalid, "there is no such namespace"),
        (status(412, "required index state not present canary"), unavailable, "not yet replicated"),
        (status(429, "canary"), throttled(None), "patience"),
        (after("7"), throttled(Some(7)), "patience"),
        (after("Wed, 21 Oct 2026 07:28:00 GMT"), throttled(None), "patience"),
        (status(472, "canary"), unavailable, "standby"),
        (status(473, "canary"), unavailable, "standby"),
        (status(500, "canary"), unavailable, "status 500"),
        (status(502, "canary"), unavailable, "status 502"),
        (status(501, "canary"), unavailable, "not initialized"),
        (status(503, "Vault is sealed"), unavailable, "is sealed"),
        (status(503, "node is not active"), unavailable, "no active node"),
        (status(503, "canary"), unavailable, "overloaded"),
        (Fault::Body("<html>canary</html>".to_owned()), unavailable, "not Vault's JSON"),
        (Fault::Body("{\"data\": {\"password\": \"canary".to_owned()), unavailable, "not Vault's JSON"),
        (Fault::Body("[\"canary\"]".to_owned()), unavailable, "not Vault's JSON"),
        (Fault::Body("{}".to_owned()), unavailable, "not Vault's JSON"),
        (Fault::Body(String::new()), unavailable, "not Vault's JSON"),
        (Fault::Body(format!("{{\"data\": \"{}\"}}", "canary".repeat(20_000))), invalid, "more than 65536 bytes"),
        (Fault::Truncated, unavailable, "broke off in the middle"),
        (Fault::Silence, unavailable, "did not answer within 2s"),
        (redirect("https://canary.example/v1/x"), unavailable, "redirects to another host"),
        (redirect("http://127.0.0.1/v1/x"), unavailable, "redirects to another host"),
    ]
}

#[tokio::test]
async fn p3_every_failure_has_a_kind_and_a_sentence_and_passes() {
    let store = Store::fake().await;
    let (path, pod) = secret_and_pod(&store).await;
    let fake = store.faker().unwrap();
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    for (fault, kind, part) in faults() {
        fake.fail(&path, 1, fault);
        assert_error(&pod.refused(&mut vault, &path).await, kind, &[part]);
        assert_eq!(shown(&pod.fresh(&mut vault, &path).await.tree, "password"), "canary-value", "after {part:?}");
    }
}

#[tokio::test]
async fn a_login_that_meets_a_failing_store_is_no_denial() {
    let store = Store::fake().await;
    let (path, pod) = secret_and_pod(&store).await;
    let fake = store.faker().unwrap();
    let login = format!("auth/{}/login", pod.auth);
    for (fault, kind, part) in faults().into_iter().filter(|(_, kind, _)| *kind != ErrorKind::Invalid) {
        fake.fail(&login, 1, fault);
        assert_error(&pod.refused(&mut pod.vault(), &path).await, kind, &[part]);
    }
}

#[tokio::test]
async fn a_failing_look_at_the_version_is_no_answer() {
    let store = Store::fake().await;
    let (path, pod) = secret_and_pod(&store).await;
    let mut vault = pod.vault();
    let held = pod.fresh(&mut vault, &path).await.version.unwrap();
    let metadata = path.replace("/data/", "/metadata/");
    let sealed = Fault::Status(503, Vec::new(), json!({"errors": ["Vault is sealed"]}).to_string());
    store.faker().unwrap().fail(&metadata, 1, sealed);
    let error = pod.read_again(&mut vault, &path, Some(&held)).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, &["is sealed"]);
    store.faker().unwrap().fail(&metadata, 1, Fault::Body("canary".to_owned()));
    assert_eq!(pod.read_again(&mut vault, &path, Some(&held)).await, Ok(Reading::NotModified), "a whole read tells");
}

#[tokio::test]
async fn a_sealed_store_is_asked_once_for_a_whole_batch() {
    let store = Store::fake().await;
    let (path, pod) = secret_and_pod(&store).await;
    let fake = store.faker().unwrap();
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    fake.set_sealed(true);
    store.seen();
    let requests: Vec<_> = (0..5).map(|number| pod.request(&format!("{path}{number}"))).collect();
    for result in vault.read(&requests, &Known::new()).await {
        assert_error(&result.unwrap_err(), ErrorKind::Unavailable, &["is sealed"]);
    }
    assert_eq!(store.seen().unwrap().len(), 1);
    fake.set_sealed(false);
    pod.fresh(&mut vault, &path).await;
}

#[tokio::test]
async fn redirects_within_the_address_are_followed_twice() {
    let store = Store::fake().await;
    let (path, pod) = secret_and_pod(&store).await;
    let fake = store.faker().unwrap();
    let mut vault = pod.vault();
    let redirect = |to: String| Fault::Status(307, vec![("location", to)], String::new());
    let (first, second) = (format!("{path}-a"), format!("{path}-b"));
    fake.fail(&first, 1, redirect(format!("https://{}/v1/{second}", fake.address)));
    fake.fail(&second, 1, redirect(format!("/v1/{path}")));
    assert_eq!(shown(&pod.fresh(&mut vault, &first).await.tree, "password"), "canary-value");
    fake.fail(&first, 9, redirect(format!("/v1/{first}")));
    assert_error(&pod.refused(&mut vault, &first).await, ErrorKind::Unavailable, &["more than 2 times"]);
}

#[tokio::test]
async fn p5_no_error_log_or_debug_text_shows_a_value_or_a_token() {
    let (log, _listening) = Log::listen(tracing::Level::TRACE);
    let store = Store::fake().await;
    let (path, pod) = secret_and_pod(&store).await;
    let fake = store.faker().unwrap();
    let jwt = std::fs::read_to_string(&pod.token_file).unwrap();
    let mut told = Vec::new();
    let login = format!("auth/{}/login", pod.auth);
    for (fault, ..) in faults() {
        for failing in [&path, &login] {
            fake.fail(failing, 1, fault.clone());
            let mut vault = pod.vault();
            told.push(format!("{:?}", pod.read(&mut vault, &path).await));
            told.push(format!("{vault:?} {:?}", vault.session()));
        }
    }
    let mut vault = pod.vault();
    let answer = pod.fresh(&mut vault, &path).await;
    told.push(format!("{answer:?}"));
    let of_old = path.replace("/data/", "/");
    told.push(format!("{:?}", pod.refused(&mut vault, &format!("{of_old}?param=canary-parameter")).await));
    vault.end_session().await.unwrap();
    let log = log.text();
    assert!(log.contains("request to store") && log.contains("logged in"), "the log is on: {log}");
    told.push(log);
    for text in told {
        assert!(!text.contains("canary"), "{text}");
        assert!(!text.contains(&jwt), "{text}");
    }
}
