//! Reading values: KV of both versions, absence, denial, versions.

use super::*;
use crate::fakes::server::Fault;

on_vault!(
    values_of_every_kind_are_read,
    a_batch_is_answered_in_order_and_one_failure_spoils_no_other,
    what_is_missing_is_not_found,
    its_own_documents_are_exact_and_bounded,
    what_is_forbidden_is_denied,
    a_version_can_be_pinned,
    what_was_deleted_and_made_anew_counts_from_one_and_is_read_again,
    a_rotation_is_seen_and_what_is_unchanged_is_not_read_again,
    without_a_right_to_metadata_whole_reads_tell_what_is_unchanged,
    mounts_of_several_components_have_metadata_too,
    deleted_and_destroyed_versions_are_told_as_such,
    an_old_kv_engine_has_no_versions,
    an_old_kv_secret_that_looks_like_a_new_one_is_left_alone,
    parameters_never_overwrite_a_kv_secret,
    what_will_be_deleted_is_still_there,
    a_quota_is_honoured,
);

async fn values_of_every_kind_are_read(store: &Store) {
    let kv = store.kv2().await;
    let values = json!({"text": "p\"ä", "control": "\u{0}\u{1}\n", "port": 5432, "tls": true, "none": null,
        "empty": "", "deep": {"list": ["a", {"b": "c"}]}});
    store.write(&format!("{kv}/data/db"), json!({"data": values})).await;
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let answer = pod.fresh(&mut pod.vault(), &format!("{kv}/data/db")).await;
    let expected = SecretTree::from_json(values.to_string().as_bytes()).unwrap();
    assert!(answer.tree == expected, "the values differ");
    assert_eq!((number(&answer), &answer.lease, answer.expires_in), (Some("1"), &None, None));
}

async fn a_batch_is_answered_in_order_and_one_failure_spoils_no_other(store: &Store) {
    let kv = store.kv2().await;
    for name in ["a", "b"] {
        store.write(&format!("{kv}/data/{name}"), json!({"data": {"name": name}})).await;
    }
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let requests: Vec<_> = ["a", "missing", "b"].map(|name| pod.request(&format!("{kv}/data/{name}"))).into();
    let mut results = pod.vault().read(&requests, &Known::new()).await;
    assert_eq!(shown(&fresh(results.remove(2)).tree, "name"), "b");
    assert_eq!(results.remove(1).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(shown(&fresh(results.remove(0)).tree, "name"), "a");
}

async fn what_is_missing_is_not_found(store: &Store) {
    let (kv, kv1) = (store.kv2().await, store.kv1().await);
    store.write(&format!("{kv}/data/db"), json!({"data": {}})).await;
    let pod =
        store.pod(&[(&format!("{kv}/*"), &["read"]), (&format!("{kv1}/*"), &["read"]), ("nothing/*", &["read"])]).await;
    let mut vault = pod.vault();
    for (reference, part) in [
        (format!("{kv}/data/nope"), "does not exist"),
        (format!("{kv}/data/db?version=9"), "has no version 9"),
        (format!("{kv1}/nope"), "does not exist"),
        (format!("{kv}/db"), "write <mount>/data/<path>"),
        ("nothing/x".to_owned(), "no engine is mounted"),
    ] {
        assert_error(&pod.refused(&mut vault, &reference).await, ErrorKind::NotFound, &[part]);
    }
}

/// Vault's JSON itself, which a fake of ours could not keep to the letter.
async fn its_own_documents_are_exact_and_bounded(store: &Store) {
    let Some(fake) = store.faker() else { return };
    let kv = store.kv1().await;
    let path = format!("{kv}/values");
    store.write(&path, json!({"k": "canary"})).await;
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    let body = |data: &str| Fault::Body(format!(r#"{{"lease_id":"","lease_duration":60,"huge":1e400,"data":{data}}}"#));
    fake.fail(&path, 1, body(&crate::values::document()));
    crate::values::assert_delivered(&pod.fresh(&mut vault, &path).await.tree, None);
    let keys = (0..60_000).map(|key| format!("\"k{key}\":0")).collect::<Vec<_>>().join(",");
    for (data, told) in [
        (format!("{{\"canary\":[{}0]}}", "0,".repeat(50_000)), "more than 10000 values"),
        (format!("{{{keys}}}"), "more than 10000 values"),
        (format!("{{\"canary\":{}{}}}", "[".repeat(100), "]".repeat(100)), "nested more than 60 deep"),
        (r#"{"canary":1,"canary":2}"#.to_owned(), "the same key twice at line 1, column 13"),
    ] {
        fake.fail(&path, 1, body(&data));
        let error = pod.refused(&mut vault, &path).await;
        assert_error(&error, ErrorKind::Invalid, &["answers", &path, "with a document that", told]);
    }
    fake.fail(&path, 1, body(&format!("[{}0]", "0,".repeat(500_000))));
    let error = pod.refused(&mut vault, &path).await;
    assert_error(&error, ErrorKind::Invalid, &["answers more than 100000 values to one request"]);
    let commas = ",[{\\\"".repeat(40_000);
    fake.fail(&path, 1, body(&format!("{{\"canary\":\"{commas}\"}}")));
    assert_eq!(shown(&pod.fresh(&mut vault, &path).await.tree, "canary").len(), 160_000);
}

async fn what_is_forbidden_is_denied(store: &Store) {
    let kv = store.kv2().await;
    store.write(&format!("{kv}/data/db"), json!({"data": {}})).await;
    let pod = store.pod(&[(&format!("{kv}/data/mine/*"), &["read"])]).await;
    let mut vault = pod.vault();
    let path = format!("{kv}/data/db");
    for _ in 0..2 {
        let error = pod.refused(&mut vault, &path).await;
        assert_error(&error, ErrorKind::Denied, &[&path, "role \"web\"", &pod.auth, "policy"]);
    }
}

async fn a_version_can_be_pinned(store: &Store) {
    let kv = store.kv2().await;
    for password in ["first", "second"] {
        store.write(&format!("{kv}/data/db"), json!({"data": {"password": password}})).await;
    }
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let mut vault = pod.vault();
    let pinned = format!("{kv}/data/db?version=1");
    let answer = pod.fresh(&mut vault, &pinned).await;
    assert_eq!((shown(&answer.tree, "password").as_str(), number(&answer)), ("first", Some("1")));
    store.seen();
    assert_eq!(pod.read_again(&mut vault, &pinned, answer.version.as_ref()).await, Ok(Reading::NotModified));
    assert!(store.seen().is_none_or(|seen| seen.is_empty()), "a version never changes, so nobody needs to be asked");
}

async fn a_rotation_is_seen_and_what_is_unchanged_is_not_read_again(store: &Store) {
    let kv = store.kv2().await;
    let path = format!("{kv}/data/db");
    store.write(&path, json!({"data": {"password": "first"}})).await;
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let mut vault = pod.vault();
    let first = pod.fresh(&mut vault, &path).await.version.unwrap();
    assert_eq!(pod.read_again(&mut vault, &path, Some(&first)).await, Ok(Reading::NotModified));
    store.seen();
    for _ in 0..3 {
        assert_eq!(pod.read_again(&mut vault, &path, Some(&first)).await, Ok(Reading::NotModified));
    }
    if let Some(seen) = store.seen() {
        let asked: Vec<_> = seen.iter().map(|request| request.path.as_str()).collect();
        assert_eq!(asked, [format!("{kv}/metadata/db").as_str(); 3], "one small request for each look, and no values");
    }
    store.write(&path, json!({"data": {"password": "second"}})).await;
    let second = fresh(pod.read_again(&mut vault, &path, Some(&first)).await);
    assert_eq!((shown(&second.tree, "password").as_str(), number(&second)), ("second", Some("2")));
}

async fn what_was_deleted_and_made_anew_counts_from_one_and_is_read_again(store: &Store) {
    for rights in ["*", "data/*"] {
        let kv = store.kv2().await;
        let path = format!("{kv}/data/db");
        store.write(&path, json!({"data": {"password": "first"}})).await;
        let pod = store.pod(&[(&format!("{kv}/{rights}"), &["read"])]).await;
        let mut vault = pod.vault();
        let held = pod.fresh(&mut vault, &path).await.version.unwrap();
        assert_eq!(pod.read_again(&mut vault, &path, Some(&held)).await, Ok(Reading::NotModified), "{rights}");
        store.admin(Method::DELETE, &format!("{kv}/metadata/db"), Value::Null).await;
        store.write(&path, json!({"data": {"password": "second"}})).await;
        let anew = fresh(pod.read_again(&mut vault, &path, Some(&held)).await);
        assert_eq!((shown(&anew.tree, "password").as_str(), number(&anew)), ("second", Some("1")), "{rights}");
        assert_ne!(anew.version, Some(held.clone()), "so the generation has another name");
        // As the way back to a generation asks: what has the number now is not what had it then.
        let mut pinned = pod.request(&path);
        pinned.params.insert("version".to_owned(), held.0.clone());
        let mut read = vault.read(&[pinned], &Known::new()).await;
        assert_eq!(fresh(read.remove(0)).version, anew.version, "{rights}");
    }
}

/// A version's number, without when it was made.
fn number(answer: &Answer) -> Option<&str> {
    answer.version.as_ref()?.0.split('@').next()
}

async fn without_a_right_to_metadata_whole_reads_tell_what_is_unchanged(store: &Store) {
    let kv = store.kv2().await;
    let path = format!("{kv}/data/db");
    store.write(&path, json!({"data": {"password": "first"}})).await;
    let pod = store.pod(&[(&format!("{kv}/data/*"), &["read"])]).await;
    let mut vault = pod.vault();
    let first = pod.fresh(&mut vault, &path).await.version.unwrap();
    assert_eq!(pod.read_again(&mut vault, &path, Some(&first)).await, Ok(Reading::NotModified));
    store.seen();
    assert_eq!(pod.read_again(&mut vault, &path, Some(&first)).await, Ok(Reading::NotModified));
    if let Some(seen) = store.seen() {
        let asked: Vec<_> = seen.iter().map(|request| request.path.as_str()).collect();
        assert_eq!(asked, [path.as_str()], "what was denied once is not asked for again");
    }
    store.write(&path, json!({"data": {"password": "second"}})).await;
    assert_eq!(shown(&fresh(pod.read_again(&mut vault, &path, Some(&first)).await).tree, "password"), "second");
}

async fn mounts_of_several_components_have_metadata_too(store: &Store) {
    let mount = format!("{}/data/deep", store.name("kv"));
    store.write(&format!("sys/mounts/{mount}"), json!({"type": "kv", "options": {"version": "2"}})).await;
    store.made.borrow_mut().push(format!("sys/mounts/{mount}"));
    let path = format!("{mount}/data/db");
    for _ in 0..100 {
        let (status, _) = store.admin(Method::POST, &path, json!({"data": {"password": "first"}})).await;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pod = store.pod(&[(&format!("{mount}/*"), &["read"])]).await;
    let mut vault = pod.vault();
    let first = pod.fresh(&mut vault, &path).await.version.unwrap();
    store.seen();
    assert_eq!(pod.read_again(&mut vault, &path, Some(&first)).await, Ok(Reading::NotModified));
    if let Some(seen) = store.seen() {
        assert_eq!(seen.last().unwrap().path, format!("{mount}/metadata/db"), "{seen:?}");
    }
}

async fn deleted_and_destroyed_versions_are_told_as_such(store: &Store) {
    let kv = store.kv2().await;
    let path = format!("{kv}/data/db");
    for _ in 0..2 {
        store.write(&path, json!({"data": {"password": "x"}})).await;
    }
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let mut vault = pod.vault();
    let held = pod.fresh(&mut vault, &path).await.version.unwrap();
    store.admin(Method::DELETE, &path, Value::Null).await;
    store.write(&format!("{kv}/destroy/db"), json!({"versions": [1]})).await;
    let error = pod.read_again(&mut vault, &path, Some(&held)).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &[&path, "version 2 was deleted at 20"]);
    let error = pod.refused(&mut vault, &format!("{path}?version=1")).await;
    assert_error(&error, ErrorKind::NotFound, &["version 1 was destroyed"]);
}

async fn an_old_kv_engine_has_no_versions(store: &Store) {
    let kv = store.kv1().await;
    store.write(&format!("{kv}/db"), json!({"password": "p", "ttl": "30m"})).await;
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let answer = pod.fresh(&mut pod.vault(), &format!("{kv}/db")).await;
    assert_eq!(shown(&answer.tree, "password"), "p");
    assert_eq!((answer.version, answer.lease, answer.expires_in), (None, None, None), "its lease_duration is a hint");
}

async fn an_old_kv_secret_that_looks_like_a_new_one_is_left_alone(store: &Store) {
    let kv = store.kv1().await;
    let values = json!({"data": {"a": "b"}, "metadata": {"version": 3}});
    store.write(&format!("{kv}/data/db"), values.clone()).await;
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let answer = pod.fresh(&mut pod.vault(), &format!("{kv}/data/db")).await;
    assert!(answer.tree == SecretTree::from_json(values.to_string().as_bytes()).unwrap(), "the values differ");
    assert_eq!(answer.version, None);
}

async fn parameters_never_overwrite_a_kv_secret(store: &Store) {
    let kv = store.kv1().await;
    store.write(&format!("{kv}/db"), json!({"password": "p"})).await;
    let pod = store.pod(&[(&format!("{kv}/*"), &["read", "create", "update"])]).await;
    let error = pod.refused(&mut pod.vault(), &format!("{kv}/db?pasword=x")).await;
    assert_error(&error, ErrorKind::Invalid, &["no parameter but version"]);
    let answer = pod.fresh(&mut pod.vault(), &format!("{kv}/db")).await;
    assert_eq!(shown(&answer.tree, "password"), "p");
}

async fn what_will_be_deleted_is_still_there(store: &Store) {
    let kv = store.kv2().await;
    store.write(&format!("{kv}/config"), json!({"delete_version_after": "1h"})).await;
    let path = format!("{kv}/data/db");
    store.write(&path, json!({"data": {"password": "first"}})).await;
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let mut vault = pod.vault();
    let held = pod.fresh(&mut vault, &path).await.version.unwrap();
    store.seen();
    for _ in 0..2 {
        assert_eq!(pod.read_again(&mut vault, &path, Some(&held)).await, Ok(Reading::NotModified));
    }
    if let Some(seen) = store.seen() {
        assert!(seen.iter().all(|request| request.path != path), "metadata alone can tell: {seen:?}");
    }
}

async fn a_quota_is_honoured(store: &Store) {
    let kv = store.kv1().await;
    store.write(&format!("{kv}/db"), json!({"password": "p"})).await;
    let pod = store.pod(&[(&format!("{kv}/*"), &["read"])]).await;
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &format!("{kv}/db")).await;
    store.write("sys/quotas/config", json!({"enable_rate_limit_response_headers": true})).await;
    let quota = format!("sys/quotas/rate-limit/{kv}");
    store.write(&quota, json!({"path": format!("{kv}/"), "rate": 1, "interval": "1h"})).await;
    store.made.borrow_mut().push(quota);
    pod.fresh(&mut vault, &format!("{kv}/db")).await;
    let error = pod.refused(&mut vault, &format!("{kv}/db")).await;
    let ErrorKind::Throttled { retry_after: Some(wait) } = error.kind else { panic!("{error:?}") };
    assert!((3500..=3600).contains(&wait.as_secs()), "{wait:?}");
    assert!(error.message.contains("quota"), "{error}");
}
