//! Where credentials come from, how they end, and how they are refused.

use hushpod::metrics::Registry;
use hushpod::provider::http::StoreMeter;
use tracing::Level;

use super::super::{CASE, run_again};
use super::*;
use crate::fakes::server::Fault;
use crate::log::Log;

on_aws!(a_role_is_taken_once_and_handed_over, credentials_are_replaced_before_they_end, a_profile_of_keys_is_used);

/// A secret, and its name.
async fn secret(store: &Store) -> String {
    let name = store.name("db");
    store.put_text(&name, "canary").await;
    name
}

fn logins(operations: &[String]) -> usize {
    operations.iter().filter(|name| *name == "AssumeRoleWithWebIdentity").count()
}

async fn a_role_is_taken_once_and_handed_over(store: &Store) {
    let name = secret(store).await;
    let pod = store.pod(&name).await;
    let (mut first, request) = (pod.secrets(), pod.secret(&name));
    assert!(first.session().is_none());
    store.seen();
    for _ in 0..3 {
        assert_eq!(text(&mut first, &request).await, "canary");
    }
    let session = first.session().unwrap();
    assert!(session.ttl.is_some_and(|ttl| ttl > Duration::from_mins(55)) && !session.renewable, "{session:?}");
    assert!(!format!("{session:?} {first:?}").contains("canary"));
    let mut second = pod.secrets();
    second.resume(session.clone());
    assert_eq!(text(&mut second, &request).await, "canary");
    assert_eq!(second.session().unwrap().token, session.token);
    assert!(store.operations().is_none_or(|operations| logins(&operations) == 1));
}

async fn credentials_are_replaced_before_they_end(store: &Store) {
    let name = secret(store).await;
    let pod = store.pod(&name).await;
    let mut secrets = pod.secrets();
    assert_eq!(text(&mut secrets, &pod.secret(&name)).await, "canary");
    let old = secrets.session().unwrap().token;
    assert_eq!(secrets.extend_session().await, Ok(Extended::Replaced));
    assert!(secrets.session().unwrap().token != old);
    assert_eq!(text(&mut secrets, &pod.secret(&name)).await, "canary");
}

/// The key that an administrator has, as a profile in a file.
fn profile(store: &Store, secret: &str) -> Pod {
    let pod = store.pod_that(json!({}), None, "");
    let file = pod.dir.path().join("credentials");
    let text = format!("[people]\naws_access_key_id = {}\naws_secret_access_key = {secret}\n", ADMIN.0);
    std::fs::write(&file, text).unwrap();
    let auth = json!({"method": "profile", "profile": "people", "credentialsFile": file, "configFile": "/nonexistent"});
    Pod { settings: AwsSettings { auth: serde_json::from_value(auth).unwrap(), ..pod.settings.clone() }, ..pod }
}

async fn a_profile_of_keys_is_used(store: &Store) {
    let name = secret(store).await;
    let pod = profile(store, ADMIN.1);
    let mut secrets = pod.secrets();
    assert_eq!(text(&mut secrets, &pod.secret(&name)).await, "canary");
    assert_eq!(secrets.session().unwrap().ttl, None);
    assert_eq!(secrets.extend_session().await, Ok(Extended::Renewed));
}

#[tokio::test]
async fn a_wrong_key_is_tried_once() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let pod = profile(&store, "canary-wrong");
    let mut secrets = pod.secrets();
    let requests = [pod.secret(&name), pod.secret("other?version=AWSPREVIOUS")];
    for _ in 0..2 {
        store.seen();
        for result in secrets.read(&requests, &Known::new()).await {
            assert_error(&result.unwrap_err(), ErrorKind::Denied, &["do not fit together"]);
        }
        assert_eq!(store.operations().unwrap().len(), 1, "what all would meet is met once");
    }
    // A corrected file is read.
    let file = pod.settings.auth.credentials_file.clone().unwrap();
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("canary-wrong", ADMIN.1)).unwrap();
    assert_eq!(text(&mut secrets, &requests[0]).await, "canary");
}

#[tokio::test]
async fn keys_that_aws_no_longer_knows_are_replaced_once() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let pod = store.pod(&name).await;
    let mut secrets = pod.secrets();
    let request = pod.secret(&name);
    for end in [FakeAws::forget_keys, FakeAws::expire_keys] {
        assert_eq!(text(&mut secrets, &request).await, "canary");
        secrets.extend_session().await.unwrap();
        end(store.fake.as_ref().unwrap());
        store.seen();
        assert_eq!(text(&mut secrets, &request).await, "canary");
        assert_eq!(store.operations().unwrap(), ["GetSecretValue", "AssumeRoleWithWebIdentity", "GetSecretValue"]);
        assert_eq!(secrets.extend_session().await, Ok(Extended::Replaced));
    }
}

#[tokio::test]
async fn a_wrong_clock_is_told_after_the_login_too() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let pod = store.pod(&name).await;
    let mut secrets = pod.secrets();
    assert_eq!(text(&mut secrets, &pod.secret(&name)).await, "canary");
    for seconds in [600, -600] {
        store.fake.as_ref().unwrap().skew(seconds);
        store.seen();
        let error = refused(&mut secrets, &pod.secret(&name)).await;
        assert_error(&error, ErrorKind::Denied, &["clock is wrong"]);
        assert_eq!(store.operations().unwrap(), ["GetSecretValue"], "another login would be no better");
    }
}

#[tokio::test]
async fn a_login_refused_says_what_to_check() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let claims = |audience: &str, subject: &str| json!({"aud": [audience], "sub": subject});
    for (claims, life, part) in [
        (claims("vault", SUBJECT), 600, "another audience"),
        (claims("sts.amazonaws.com", "system:serviceaccount:shop:other"), 600, "trust policy"),
        (claims("sts.amazonaws.com", SUBJECT), -600, "check the clocks"),
    ] {
        let pod = store.pod(&name).await;
        pod.show(&claims, life);
        store.seen();
        let mut secrets = pod.secrets();
        let results = secrets.read(&[pod.secret(&name), pod.secret("other")], &Known::new()).await;
        for result in results {
            assert_error(&result.unwrap_err(), ErrorKind::Denied, &["login as role \"arn:aws:iam::", part]);
        }
        assert_eq!(store.operations().unwrap().len(), 1);
        // kubelet brings another token.
        pod.show(&json!({"aud": ["sts.amazonaws.com"], "sub": SUBJECT}), 600);
        assert_eq!(text(&mut secrets, &pod.secret(&name)).await, "canary");
    }
    let mut pod = store.pod(&name).await;
    pod.login.role = Some("web".to_owned());
    let error = refused(&mut pod.secrets(), &pod.secret(&name)).await;
    assert_error(&error, ErrorKind::Denied, &["expected arn:aws:iam::<account>:role/<name>"]);
}

#[tokio::test]
async fn failures_of_a_login_have_a_kind() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let pod = store.pod(&name).await;
    let mut secrets = pod.secrets();
    let xml = |code: &str| format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>canary");
    let unavailable = ErrorKind::Unavailable;
    for (fault, kind) in [
        (Fault::Status(400, vec![], xml("Throttling")), ErrorKind::Throttled { retry_after: None }),
        (Fault::Status(400, vec![], xml("IDPCommunicationError")), unavailable),
        (Fault::Status(403, vec![], xml("RegionDisabledException")), ErrorKind::Denied),
        (Fault::Status(503, vec![], "canary".to_owned()), unavailable),
        (Fault::Body("canary".to_owned()), unavailable),
        (Fault::Truncated, unavailable),
    ] {
        let told = format!("{fault:?}");
        store.fake.as_ref().unwrap().fail(|received| received.header("x-amz-target").is_none(), 1, fault);
        let error = refused(&mut secrets, &pod.secret(&name)).await;
        assert_eq!(error.kind, kind, "{told}: {error}");
        assert!(!error.message.contains("canary"), "{told}: {error}");
    }
    assert_eq!(text(&mut secrets, &pod.secret(&name)).await, "canary");
}

#[tokio::test]
async fn the_agent_on_the_node_gives_credentials() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let auth = json!({"method": "pod-identity", "agent": format!("{}/v1/credentials", store.address)});
    let pod = store.pod_that(auth, None, "pods.eks.amazonaws.com");
    let mut secrets = pod.secrets();
    let error = refused(&mut secrets, &pod.secret(&name)).await;
    assert_error(&error, ErrorKind::Denied, &["associate a role"]);
    let rights = [("secretsmanager:GetSecretValue", name.as_str())];
    store.fake.as_ref().unwrap().put_role("arn:aws:iam::123456789012:role/associated", SUBJECT, &rights);
    assert_eq!(text(&mut secrets, &pod.secret(&name)).await, "canary");
    let ttl = secrets.session().unwrap().ttl.unwrap();
    assert!(ttl > Duration::from_mins(350), "{ttl:?}");
    // A token of another audience is refused there.
    pod.show(&json!({"aud": ["sts.amazonaws.com"], "sub": SUBJECT}), 600);
    let error = secrets.extend_session().await.unwrap_err();
    assert_error(&error, ErrorKind::Denied, &["pod identity agent"]);
}

/// What stands where credentials should be, and what a client cannot make a header of.
#[tokio::test]
async fn p5_no_credentials_are_told_without_their_bytes() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let auth = json!({"method": "pod-identity", "agent": format!("{}/v1/credentials", store.address)});
    let pod = store.pod_that(auth, None, "pods.eks.amazonaws.com");
    let whole = json!({"AccessKeyId": "canary", "SecretAccessKey": "canary", "Token": "canary",
        "Expiration": "2099-01-01T00:00:00Z"});
    let mut answers: Vec<_> =
        ["canary", "\"canary\"", "[\"canary\"]", "{\"canary\": 1", "<canary/>", ""].map(str::to_owned).into();
    for field in ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"] {
        for garbage in [json!(null), json!(1), json!({"canary": 1}), json!("canary\n\u{0}\u{fc}"), json!("")] {
            let mut damaged = whole.clone();
            damaged[field] = garbage;
            answers.push(damaged.to_string());
        }
    }
    for answer in answers {
        let (log, _listening) = Log::listen(Level::TRACE);
        let mut secrets = pod.secrets();
        store.fake.as_ref().unwrap().fail(
            |received| received.path == "/v1/credentials",
            1,
            Fault::Body(answer.clone()),
        );
        let error = refused(&mut secrets, &pod.secret(&name)).await;
        assert!(!format!("{error} {}", log.text()).contains("canary"), "{answer}: {error} {}", log.text());
    }
}

/// A profile that leads elsewhere: to a role and to a file that do not exist, or to bytes that are no text.
#[tokio::test]
async fn p5_where_a_profile_leads_is_not_told() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let pod = store.pod_that(json!({}), None, "");
    let file = pod.dir.path().join("shared");
    let auth = json!({"method": "profile", "profile": "x", "credentialsFile": file, "configFile": "/nonexistent"});
    let settings = AwsSettings { auth: serde_json::from_value(auth).unwrap(), ..pod.settings.clone() };
    let pod = Pod { settings, ..pod };
    let role = "[x]\nrole_arn = arn:aws:iam::123456789012:role/web\nweb_identity_token_file = ";
    for text in [
        format!("{role}/canary/file\n").into_bytes(),
        format!("{role}canary\n").into_bytes(),
        b"[x]\naws_access_key_id = canary\xff\n".to_vec(),
        b"[x]\naws_access_key_id = canary\naws_secret_access_key =\n".to_vec(),
        [&b"[x]\ncanary = "[..], &vec![b'x'; 70_000]].concat(),
    ] {
        std::fs::write(&file, &text).unwrap();
        let (log, _listening) = Log::listen(Level::TRACE);
        let error = refused(&mut pod.secrets(), &pod.secret(&name)).await;
        assert!(!format!("{error} {}", log.text()).contains("canary"), "{error} {}", log.text());
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    }
}

/// Each method's settings, the audience of the token that it shows, and the login that it takes.
fn methods(store: &Store, job: &Pod) -> [(Value, &'static str, Option<&'static str>); 5] {
    let file = |name: &str, text: String| {
        let file = job.dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let (id, secret) = ADMIN;
    let keys = file("keys", format!("[people]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"));
    let (role, token) = (job.login.role.as_deref().unwrap(), job.token_file.display());
    let federated = file("federated", format!("[profile job]\nrole_arn = {role}\nweb_identity_token_file = {token}\n"));
    let profile = |name: &str, credentials: &Path, config: &Path| {
        json!({"method": "profile", "profile": name,
            "credentialsFile": credentials, "configFile": config})
    };
    let (agent, nowhere) = (format!("{}/v1/credentials", store.address), Path::new("/nonexistent"));
    let sts = Some("AssumeRoleWithWebIdentity");
    [
        (json!({"method": "web-identity"}), "sts.amazonaws.com", sts),
        (json!({"method": "pod-identity", "agent": agent}), "pods.eks.amazonaws.com", Some("agent")),
        (json!({"method": "environment"}), "", None),
        (profile("people", &keys, nowhere), "", None),
        (profile("job", nowhere, &federated), "sts.amazonaws.com", sts),
    ]
}

#[tokio::test]
async fn each_method_serves_both_stores() {
    let test = "contract::aws::logins::each_method_serves_both_stores";
    if std::env::var(CASE).is_err() {
        let keys = [("AWS_ACCESS_KEY_ID", Some(ADMIN.0)), ("AWS_SECRET_ACCESS_KEY", Some(ADMIN.1))];
        return run_again(test, "each", &[keys[0], keys[1], ("AWS_SESSION_TOKEN", None)]).await;
    }
    let store = Store::fake().await;
    let name = secret(&store).await;
    store.put_parameter(&format!("/{name}"), "SecureString", "canary").await;
    // Its role may read both.
    let job = store.pod("").await;
    for (auth, audience, login) in methods(&store, &job) {
        let told = auth.to_string();
        let pod = store.pod_that(auth, job.login.role.as_deref(), audience);
        for (mut provider, request, call) in [
            (Box::new(pod.secrets()) as Box<dyn Provider>, pod.secret(&name), "GetSecretValue"),
            (Box::new(pod.parameters()), pod.parameter(&format!("/{name}")), "GetParameters"),
        ] {
            store.seen();
            assert_eq!(text(&mut *provider, &request).await, "canary", "{told}");
            let seen = store.seen().unwrap();
            let operations: Vec<_> = seen.iter().map(operation).collect();
            assert_eq!(operations, login.into_iter().chain([call]).collect::<Vec<_>>(), "{told}");
            let shown = format!("{:?}", seen.last().unwrap());
            let jwt = std::fs::read_to_string(&pod.token_file).unwrap();
            assert!(!shown.contains(&jwt), "{told}: p6: the pod's token is for the login alone");
        }
    }
}

/// AWS says it with 400.
#[tokio::test]
async fn what_is_throttled_is_counted_so_whatever_its_status() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let pod = store.pod(&name).await;
    let registry = Registry::default();
    let reach = pod.reach().counted_by(StoreMeter::new(&registry, "aws"));
    let mut secrets = SecretsManager::connect(&pod.settings, pod.login.clone(), reach).unwrap();
    let fail = |is_call: fn(&Received) -> bool, body: String| {
        store.fake.as_ref().unwrap().fail(is_call, 1, Fault::Status(400, vec![], body));
    };
    let is_read = |received: &Received| received.header("x-amz-target").is_some();
    let is_login = |received: &Received| received.header("x-amz-target").is_none();
    fail(is_login, "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>".to_owned());
    refused(&mut secrets, &pod.secret(&name)).await;
    fail(is_read, json!({"__type": "ThrottlingException"}).to_string());
    refused(&mut secrets, &pod.secret(&name)).await;
    let text = registry.to_string();
    for (call, outcome) in [("login", "throttled"), ("login", "ok"), ("read", "throttled")] {
        let line = format!("{{provider=\"aws\",call=\"{call}\",outcome=\"{outcome}\"}} 1\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[tokio::test]
async fn refusals_of_every_kind_are_told_apart() {
    let store = Store::fake().await;
    let name = secret(&store).await;
    let pod = store.pod(&name).await;
    let mut secrets = pod.secrets();
    let throttled = ErrorKind::Throttled { retry_after: None };
    for (status, code, kind, part) in [
        (400, "ThrottlingException", throttled, "longer refresh"),
        (400, "TooManyRequestsException", throttled, "longer refresh"),
        (400, "com.amazonaws.secretsmanager#DecryptionFailure", ErrorKind::Denied, "kms:Decrypt"),
        (400, "ResourceNotFoundException", ErrorKind::NotFound, "does not exist"),
        (400, "InvalidParameterException", ErrorKind::Invalid, "bad request"),
        (500, "InternalServiceError", ErrorKind::Unavailable, "status 500"),
        (503, "ServiceUnavailable", ErrorKind::Unavailable, "status 503"),
        (400, "canary", ErrorKind::Unavailable, "status 400"),
        (403, "canary", ErrorKind::Denied, "lacks secretsmanager:GetSecretValue"),
    ] {
        let body = json!({"__type": code, "Message": "canary"}).to_string();
        let is_call = |received: &Received| received.header("x-amz-target").is_some();
        store.fake.as_ref().unwrap().fail(is_call, 1, Fault::Status(status, vec![], body));
        let error = refused(&mut secrets, &pod.secret(&name)).await;
        assert_error(&error, kind, &[part]);
    }
}
