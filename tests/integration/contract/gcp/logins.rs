//! Ways to a token, and what is said when there is none.

use super::*;
use crate::fakes::gcp::{REFRESH_TOKEN, private_key};

const READ: &str = "GET /v1/projects/shop/secrets/db/versions/latest:access";
const EXCHANGE: &str = "POST /v1/token";
const IMPERSONATE: &str = "POST /v1/projects/-/serviceAccounts/web@shop.iam.gserviceaccount.com:generateAccessToken";

#[tokio::test]
async fn p6_the_pods_token_is_shown_to_the_token_service_alone() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    fresh(shared.read(&mut shared.gcp(), "db", None).await);
    let seen = shared.fake.take_seen();
    let form = seen[0].form();
    let jwt = std::fs::read_to_string(shared.token_file()).unwrap();
    assert_eq!(
        form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(),
        [
            ("audience", format!("//{POOL_PROVIDER}").as_str()),
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("scope", "https://www.googleapis.com/auth/cloud-platform"),
            ("subject_token", jwt.as_str()),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ]
    );
    let paths: Vec<_> = seen.iter().map(|received| format!("{} {}", received.method, received.path)).collect();
    assert_eq!(paths, [EXCHANGE, IMPERSONATE, READ]);
    for later in &seen[1..] {
        assert!(!later.headers.values().any(|value| value.to_str().unwrap().contains(&jwt)));
        assert!(!String::from_utf8_lossy(&later.body).contains(&jwt));
    }
}

#[tokio::test]
async fn a_federation_needs_no_service_account() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    shared.fake.world().is_direct = true;
    shared.show(&json!({"iss": ISSUER, "sub": SUBJECT, "aud": format!("//{POOL_PROVIDER}")}), 600);
    fresh(shared.read(&mut shared.gcp_with(&shared.usual(), None), "db", None).await);
    assert_eq!(shared.asked(), [EXCHANGE, READ]);
}

#[tokio::test]
async fn p9_a_refused_login_says_what_to_check() {
    let with = |name: &str, value: &str| {
        let mut all = claims();
        all[name] = json!(value);
        all
    };
    let other = POOL_PROVIDER.replace("main", "other");
    let other_provider = json!({"audience": format!("//{other}")});
    for (what, claims, auth, role, kind, part) in [
        ("audience", with("aud", "vault"), json!({}), ACCOUNT, ErrorKind::Denied, "allowed audience"),
        ("subject", with("sub", "x"), json!({}), ACCOUNT, ErrorKind::Denied, "attribute condition"),
        ("issuer", with("iss", "x"), json!({}), ACCOUNT, ErrorKind::Denied, "issuer and keys"),
        ("time", with("exp", "0"), json!({}), ACCOUNT, ErrorKind::Denied, "clocks"),
        ("provider", claims(), other_provider, ACCOUNT, ErrorKind::Denied, "auth.audience"),
        (
            "account",
            claims(),
            json!({}),
            "other@shop.iam.gserviceaccount.com",
            ErrorKind::Denied,
            "workloadIdentityUser",
        ),
        ("role", claims(), json!({}), "web", ErrorKind::Invalid, "gserviceaccount.com"),
        ("path", claims(), json!({}), "a/../b@c", ErrorKind::Invalid, "gserviceaccount.com"),
    ] {
        let shared = Shared::new().await;
        shared.show(&claims, 600);
        let mut settings = serde_json::to_value(shared.usual()).unwrap();
        settings["auth"].as_object_mut().unwrap().extend(auth.as_object().unwrap().clone());
        let mut gcp = shared.gcp_with(&serde_json::from_value(settings).unwrap(), Some(role));
        let error = shared.refused(&mut gcp, "db").await;
        assert_error(&error, kind, &[part]);
        assert!(shared.asked().len() <= 2, "{what}: a wrong credential is not tried twice");
    }
    let shared = Shared::new().await;
    std::fs::write(shared.token_file(), "canary.canary.canary").unwrap();
    assert_error(&shared.refused(&mut shared.gcp(), "db").await, ErrorKind::Denied, &["issuer and keys"]);
    std::fs::remove_file(shared.token_file()).unwrap();
    assert_error(&shared.refused(&mut shared.gcp(), "db").await, ErrorKind::Invalid, &["token volume"]);
}

#[tokio::test]
async fn a_token_service_that_fails_is_told_from_one_that_refuses() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    let mut gcp = shared.gcp();
    let throttled = ErrorKind::Throttled { retry_after: Some(Duration::from_secs(9)) };
    let disabled = r#"{"error":{"code":403,"status":"PERMISSION_DENIED","details":[{"reason":"SERVICE_DISABLED"}]}}"#;
    for path in ["/v1/token", ":generateAccessToken"] {
        for (status, body, kind, part) in [
            (503, "canary", ErrorKind::Unavailable, "status 503"),
            (404, "<html>canary", ErrorKind::Unavailable, "status 404"),
            (429, "canary", throttled, "patience"),
            (200, "canary", ErrorKind::Unavailable, "no token in it"),
            (200, r#"{"access_token":"","accessToken":"","expireTime":"canary"}"#, ErrorKind::Unavailable, "no token"),
            (403, disabled, if path == "/v1/token" { ErrorKind::Unavailable } else { ErrorKind::Denied }, ""),
        ] {
            let headers = vec![("retry-after", "9".to_owned())];
            let fault = Fault::Status(status, headers, body.to_owned());
            shared.fake.fail(move |received| received.path.ends_with(path), 1, fault);
            assert_error(&shared.refused(&mut gcp, "db").await, kind, &[part]);
        }
    }
    fresh(shared.read(&mut gcp, "db", None).await);
}

#[tokio::test]
async fn a_machine_says_who_it_is() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    let machine = shared.fake.start_metadata().await;
    let metadata = format!("http://{}", machine.address);
    let auth = json!({"method": "metadata", "metadata": metadata, "impersonationUrl": shared.fake.url()});
    let settings = shared.settings_with(json!({}), auth);
    for (role, asked) in [(None, vec![READ]), (Some(ACCOUNT), vec![IMPERSONATE, READ])] {
        fresh(shared.read(&mut shared.gcp_with(&settings, role), "db", None).await);
        assert_eq!(shared.asked(), asked);
        let seen = machine.take_seen();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].path, "/computeMetadata/v1/instance/service-accounts/default/token");
    }
    let google = vec![("metadata-flavor", "Google".to_owned())];
    for (status, headers, kind, part) in [
        (404, google.clone(), ErrorKind::Denied, "Workload Identity"),
        (429, google.clone(), ErrorKind::Throttled { retry_after: None }, "patience"),
        (503, google, ErrorKind::Unavailable, "status 503"),
        (200, Vec::new(), ErrorKind::Unavailable, "not Google's metadata"),
    ] {
        let body = r#"{"access_token":"canary","expires_in":3599}"#.to_owned();
        machine.fail(|_| true, 1, Fault::Status(status, headers, body));
        assert_error(&shared.refused(&mut shared.gcp_with(&settings, None), "db").await, kind, &[part]);
    }
}

#[tokio::test]
async fn p6_the_metadata_service_is_asked_where_nothing_leaves_the_machine() {
    let test = "contract::gcp::logins::p6_the_metadata_service_is_asked_where_nothing_leaves_the_machine";
    let shared = Shared::new().await;
    let Ok(case) = std::env::var(CASE) else {
        let machine = shared.fake.start_metadata().await;
        run_again(test, "near", &[("GCE_METADATA_HOST", Some(&machine.address.to_string()))]).await;
        assert_eq!(machine.take_seen().len(), 1);
        run_again(test, "far", &[("GCE_METADATA_HOST", Some("metadata.example"))]).await;
        return;
    };
    let settings = shared.settings_with(json!({}), json!({"method": "metadata"}));
    let mut gcp = shared.gcp_with(&settings, None);
    match case.as_str() {
        "near" => assert_eq!(gcp.extend_session().await, Ok(Extended::Replaced)),
        _ => assert_error(
            &gcp.extend_session().await.unwrap_err(),
            ErrorKind::Invalid,
            &["GCE_METADATA_HOST", "not encrypted"],
        ),
    }
}

/// Writes application default credentials, and says how to use them.
fn with_file(shared: &Shared, credentials: &Value, token_url: Option<&str>) -> GcpSettings {
    let file = shared.dir.path().join("credentials.json");
    std::fs::write(&file, credentials.to_string()).unwrap();
    let mut auth = json!({"method": "application-default-credentials", "file": file,
        "impersonationUrl": shared.fake.url()});
    if let Some(url) = token_url {
        auth["tokenUrl"] = json!(url);
    }
    shared.settings_with(json!({}), auth)
}

fn key_file(shared: &Shared) -> Value {
    json!({"type": "service_account", "project_id": PROJECT, "private_key_id": "key-1", "private_key": private_key(),
        "client_email": ACCOUNT, "client_id": "1", "token_uri": format!("{}/token", shared.fake.url())})
}

#[tokio::test]
async fn a_service_accounts_key_signs_for_a_token() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    let file = key_file(&shared);
    fresh(shared.read(&mut shared.gcp_with(&with_file(&shared, &file, None), None), "db", None).await);
    assert_eq!(shared.asked(), ["POST /token", READ]);
    for (field, value, kind, part) in [
        ("private_key_id", "key-2", ErrorKind::Denied, "was deleted"),
        ("client_email", "other@shop.iam.gserviceaccount.com", ErrorKind::Denied, "was deleted"),
        ("private_key", "canary", ErrorKind::Invalid, "PKCS#8"),
        ("token_uri", "http://far.example/token", ErrorKind::Invalid, "not encrypted"),
        ("type", "canary", ErrorKind::Invalid, "expected service_account"),
    ] {
        let mut file = file.clone();
        file[field] = json!(value);
        let settings = with_file(&shared, &file, None);
        assert_error(&shared.refused(&mut shared.gcp_with(&settings, None), "db").await, kind, &[part]);
    }
    for later in [7200, -1800] {
        shared.fake.world().later = later;
        let settings = with_file(&shared, &file, None);
        let error = shared.refused(&mut shared.gcp_with(&settings, None), "db").await;
        assert_error(&error, ErrorKind::Denied, &["clocks"]);
    }
}

#[tokio::test]
async fn a_persons_login_is_refreshed_and_says_who_pays() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    let url = format!("{}/token", shared.fake.url());
    let file = json!({"type": "authorized_user", "client_id": "client", "client_secret": "canary-client",
        "refresh_token": REFRESH_TOKEN, "quota_project_id": PROJECT});
    fresh(shared.read(&mut shared.gcp_with(&with_file(&shared, &file, Some(&url)), None), "db", None).await);
    assert_eq!(shared.asked(), ["POST /token", READ]);
    for (field, value, part) in
        [("refresh_token", "canary", "login was deleted or has ended"), ("client_id", "x", "log in anew")]
    {
        let mut file = file.clone();
        file[field] = json!(value);
        let settings = with_file(&shared, &file, Some(&url));
        let error = shared.refused(&mut shared.gcp_with(&settings, None), "db").await;
        assert_error(&error, ErrorKind::Denied, &[part]);
    }
}

#[tokio::test]
async fn a_federations_file_is_used_like_the_settings() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    let url = shared.fake.url();
    let impersonation = format!("{url}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken");
    let file = json!({"type": "external_account", "audience": format!("//{POOL_PROVIDER}"),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": format!("{url}/v1/token"),
        "credential_source": {"file": shared.token_file()}, "service_account_impersonation_url": impersonation});
    fresh(shared.read(&mut shared.gcp_with(&with_file(&shared, &file, None), None), "db", None).await);
    assert_eq!(shared.asked(), [EXCHANGE, IMPERSONATE, READ]);
}

#[tokio::test]
async fn credentials_are_where_googles_tools_look_for_them() {
    let test = "contract::gcp::logins::credentials_are_where_googles_tools_look_for_them";
    let shared = Shared::new().await;
    let Ok(case) = std::env::var(CASE) else {
        let file = shared.dir.path().join("key.json");
        let mut key = key_file(&shared);
        key["type"] = json!("canary");
        std::fs::write(&file, key.to_string()).unwrap();
        let home = shared.dir.path().join(".config/gcloud");
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("application_default_credentials.json"), "canary").unwrap();
        let (file, home) = (file.to_str().unwrap(), shared.dir.path().to_str().unwrap());
        let variable = "GOOGLE_APPLICATION_CREDENTIALS";
        run_again(test, "expected service_account", &[(variable, Some(file)), ("HOME", Some(home))]).await;
        run_again(test, "not Google's JSON", &[(variable, None), ("HOME", Some(home))]).await;
        run_again(test, "gcloud auth", &[(variable, None), ("HOME", Some("/nonexistent"))]).await;
        return;
    };
    let settings = shared.settings_with(json!({}), json!({"method": "application-default-credentials"}));
    let error = shared.refused(&mut shared.gcp_with(&settings, None), "db").await;
    assert_error(&error, ErrorKind::Invalid, &[&case]);
}

#[tokio::test]
async fn p4_a_login_is_handed_on_and_used_until_its_end() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    let mut first = shared.gcp();
    fresh(shared.read(&mut first, "db", None).await);
    let session = first.session().unwrap();
    assert_eq!((session.renewable, session.ttl.map(|ttl| ttl.as_secs() / 10)), (false, Some(359)));
    let mut second = shared.gcp();
    second.resume(session);
    shared.asked();
    fresh(shared.read(&mut second, "db", None).await);
    assert_eq!(shared.asked(), [READ], "no login of its own");
    assert_eq!(second.extend_session().await, Ok(Extended::Replaced));
    assert_eq!(shared.asked(), [EXCHANGE, IMPERSONATE]);
    second.end_session().await.unwrap();
    assert_eq!((second.session(), shared.asked().len()), (None, 0), "nothing there is ended but by time");
}

#[tokio::test]
async fn a_service_accounts_token_lives_as_long_as_google_says_whatever_our_clock() {
    for later in [0, 7200] {
        let shared = Shared::new().await;
        shared.fake.world().later = later;
        shared.fake.world().token_seconds = Some(900);
        shared.show(&claims(), 9000);
        let mut gcp = shared.gcp();
        gcp.extend_session().await.unwrap();
        let life = gcp.session().unwrap().ttl.unwrap();
        assert!((898..=900).contains(&life.as_secs()), "{later}: {life:?}");
    }
}

#[test]
fn an_operators_configuration_says_what_tokens_are_projected() {
    let federation = format!("{{audience: //{POOL_PROVIDER}}}");
    let audience = format!("https://{POOL_PROVIDER}");
    for (auth, audience) in [(federation.as_str(), Some(audience.as_str())), ("{method: metadata}", None)] {
        let yaml = format!(
            "image: r:t\nproviders:\n  sm: {{type: gcp, project: shop, auth: {auth}, role: \
             '{{{{service_account}}}}@shop.iam.gserviceaccount.com'}}"
        );
        let config = hushpod::config::Config::from_yaml(&yaml).unwrap();
        let provider = &config.providers["sm"];
        assert_eq!(provider.audience.as_deref(), audience);
        // The plan carries the settings to the agent as JSON.
        let json = serde_json::to_string(&provider.settings).unwrap();
        assert_eq!(serde_json::from_str::<ProviderSettings>(&json).unwrap(), provider.settings);
    }
}
