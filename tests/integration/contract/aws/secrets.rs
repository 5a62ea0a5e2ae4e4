//! Secrets Manager's names, versions and batches.

use super::*;

on_aws!(
    names_and_arns_are_read,
    stages_follow_their_versions,
    a_version_that_has_an_id_is_never_asked_for_again,
    many_secrets_take_few_calls,
    only_what_changed_is_read,
);

on_aws!(
    of_rights: without_the_right_to_a_batch_secrets_are_read_one_by_one,
    without_the_right_to_versions_all_is_read,
    one_denied_secret_of_a_batch_says_so,
);

/// Puts so many secrets; their names.
async fn put_many(store: &Store, count: usize) -> (String, Vec<String>) {
    let prefix = store.name("many");
    let names: Vec<_> = (0..count).map(|number| format!("{prefix}/s{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        store.put_text(name, &format!("canary-{number}")).await;
    }
    (prefix, names)
}

fn texts(results: &[ReadResult]) -> Vec<Result<String, ErrorKind>> {
    let text = |result: &ReadResult| match result {
        Ok(Reading::NotModified) => Ok("unchanged".to_owned()),
        Ok(Reading::Fresh(answer)) => Ok(String::from_utf8(shown(answer, "x")).unwrap()),
        Err(error) => Err(error.kind),
    };
    results.iter().map(text).collect()
}

async fn names_and_arns_are_read(store: &Store) {
    let name = store.name("db");
    let arn = store.put_text(&name, r#"{"password": "canary"}"#).await;
    let mut pod = store.pod(&name).await;
    let mut secrets = pod.secrets();
    for reference in [name.clone(), format!("aws:{arn}")] {
        let answer = fresh(read(&mut secrets, &pod.secret(&reference)).await);
        assert_eq!(shown(&answer, "x"), br#"{"password": "canary"}"#, "as it stands in the store");
        assert_eq!(shown(&answer, "x#password"), b"canary");
    }
    pod.settings.account = Some(ACCOUNT.to_owned());
    assert_eq!(pod.secret(&format!("aws:{arn}")), pod.secret(&name), "in its own account, one request");
}

async fn stages_follow_their_versions(store: &Store) {
    let name = store.name("db");
    store.put_text(&name, "canary-1").await;
    let pod = store.pod(&name).await;
    let mut secrets = pod.secrets();
    let previous = pod.secret(&format!("{name}?version=AWSPREVIOUS"));
    let error = refused(&mut secrets, &previous).await;
    assert_error(&error, ErrorKind::NotFound, &["version AWSPREVIOUS", &name]);
    let mut held = None;
    for round in 2..4 {
        store.put_text(&name, &format!("canary-{round}")).await;
        let results = read_all(&mut secrets, std::slice::from_ref(&previous), &[held]).await;
        let answer = fresh(results.into_iter().next().unwrap());
        assert_eq!(shown(&answer, "x"), format!("canary-{}", round - 1).as_bytes());
        held = answer.version;
        let results = read_all(&mut secrets, std::slice::from_ref(&previous), std::slice::from_ref(&held)).await;
        assert_eq!(results, [Ok(Reading::NotModified)]);
    }
}

async fn a_version_that_has_an_id_is_never_asked_for_again(store: &Store) {
    let name = store.name("db");
    store.put_text(&name, "canary-1").await;
    let id = store.versions.borrow()[&name][0].clone();
    store.put_text(&name, "canary-2").await;
    let pod = store.pod(&name).await;
    let mut secrets = pod.secrets();
    let pinned = pod.secret(&format!("{name}?version={id}"));
    assert_eq!(text(&mut secrets, &pinned).await, "canary-1");
    store.seen();
    let results = read_all(&mut secrets, &[pinned], &[Some(Version(id))]).await;
    assert_eq!(results, [Ok(Reading::NotModified)]);
    assert!(store.operations().is_none_or(|operations| operations.is_empty()));
}

async fn many_secrets_take_few_calls(store: &Store) {
    let (prefix, names) = put_many(store, 25).await;
    let pod = store.pod(&prefix).await;
    let mut secrets = pod.secrets();
    let mut requests: Vec<_> = names.iter().map(|name| pod.secret(name)).collect();
    requests.insert(3, pod.secret(&format!("{prefix}/absent")));
    store.delete_secret(&names[7]).await;
    store.seen();
    let found = texts(&secrets.read(&requests, &Known::new()).await);
    for (request, found) in requests.iter().zip(&found) {
        let number = names.iter().position(|name| *name == request.path);
        let expected = match number {
            Some(number) if number != 7 => Ok(format!("canary-{number}")),
            _ => Err(ErrorKind::NotFound),
        };
        assert_eq!(*found, expected, "{request}");
    }
    let Some(operations) = store.operations() else { return };
    // 20 in three pages of at most eight, and the six that are left.
    let expected = ["AssumeRoleWithWebIdentity", "BatchGetSecretValue", "BatchGetSecretValue", "BatchGetSecretValue"];
    assert_eq!(operations, [expected.as_slice(), &["BatchGetSecretValue"]].concat());
}

async fn only_what_changed_is_read(store: &Store) {
    let (prefix, names) = put_many(store, 4).await;
    let pod = store.pod(&prefix).await;
    let mut secrets = pod.secrets();
    let requests: Vec<_> = names.iter().map(|name| pod.secret(name)).collect();
    let read = secrets.read(&requests, &Known::new()).await;
    let held: Vec<_> = read.into_iter().map(|result| fresh(result).version).collect();
    store.put_text(&names[2], "canary-new").await;
    store.seen();
    let found = texts(&read_all(&mut secrets, &requests, &held).await);
    let unchanged = || Ok("unchanged".to_owned());
    assert_eq!(found, [unchanged(), unchanged(), Ok("canary-new".to_owned()), unchanged()]);
    if let Some(operations) = store.operations() {
        assert_eq!(
            operations,
            ["DescribeSecret", "DescribeSecret", "DescribeSecret", "DescribeSecret", "GetSecretValue"]
        );
    }
}

async fn without_the_right_to_a_batch_secrets_are_read_one_by_one(store: &Store) {
    let (prefix, names) = put_many(store, 3).await;
    let pod = store.pod_with(&[("secretsmanager:GetSecretValue", &prefix)]).await;
    let mut secrets = pod.secrets();
    let requests: Vec<_> = names.iter().map(|name| pod.secret(name)).collect();
    let three = ["GetSecretValue"; 3].as_slice();
    for before in [["AssumeRoleWithWebIdentity", "BatchGetSecretValue"].as_slice(), &[]] {
        store.seen();
        let found = texts(&secrets.read(&requests, &Known::new()).await);
        assert_eq!(found, [0, 1, 2].map(|number| Ok(format!("canary-{number}"))));
        assert!(store.operations().is_none_or(|all| all == [before, three].concat()), "it is tried once");
    }
}

async fn without_the_right_to_versions_all_is_read(store: &Store) {
    let (prefix, names) = put_many(store, 1).await;
    let pod = store.pod_with(&[("secretsmanager:GetSecretValue", &prefix)]).await;
    let mut secrets = pod.secrets();
    let requests = [pod.secret(&names[0])];
    let held = [fresh(read(&mut secrets, &requests[0]).await).version];
    for expected in [["DescribeSecret", "GetSecretValue"].as_slice(), &["GetSecretValue"]] {
        store.seen();
        assert_eq!(read_all(&mut secrets, &requests, &held).await, [Ok(Reading::NotModified)]);
        assert!(store.operations().is_none_or(|all| all == expected), "it is tried once");
    }
    store.put_text(&names[0], "canary-new").await;
    assert_eq!(texts(&read_all(&mut secrets, &requests, &held).await), [Ok("canary-new".to_owned())]);
}

async fn one_denied_secret_of_a_batch_says_so(store: &Store) {
    let (prefix, names) = put_many(store, 3).await;
    let rights = [("secretsmanager:BatchGetSecretValue", ""), ("secretsmanager:GetSecretValue", names[1].as_str())];
    let pod = store.pod_with(&rights).await;
    let mut secrets = pod.secrets();
    let requests: Vec<_> = names.iter().map(|name| pod.secret(name)).collect();
    let results = secrets.read(&requests, &Known::new()).await;
    assert_eq!(texts(&results), [Err(ErrorKind::Denied), Ok("canary-1".to_owned()), Err(ErrorKind::Denied)]);
    let error = results.into_iter().next().unwrap().unwrap_err();
    assert_error(&error, ErrorKind::Denied, &[&prefix, ":role/", "lacks secretsmanager:GetSecretValue"]);
}

#[tokio::test]
async fn there_are_no_leases() {
    let store = Store::fake().await;
    let (prefix, names) = put_many(&store, 1).await;
    let pod = store.pod(&prefix).await;
    assert_no_leases(&mut pod.secrets(), &pod.secret(&names[0])).await;
}
