//! Ways to a token, and what is said when there is none.

use super::*;
use crate::fakes::azure::CLIENT_SECRET;

const READ: &str = "GET /secrets/db?api-version=7.4";

#[tokio::test]
async fn p6_the_pods_token_is_shown_to_the_authority_alone() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", "canary");
    fresh(shared.read(&mut shared.azure(), "db", None).await);
    let seen = shared.fake.take_seen();
    let form = seen[0].form();
    let jwt = std::fs::read_to_string(&shared.token_file).unwrap();
    assert_eq!(shown_request(&seen[0]), format!("POST /{TENANT}/oauth2/v2.0/token"));
    assert_eq!(
        form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(),
        [
            ("client_assertion", jwt.as_str()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_id", CLIENT_ID),
            ("grant_type", "client_credentials"),
            ("scope", "https://vault.azure.net/.default"),
        ]
    );
    assert_eq!(shown_request(&seen[1]), READ);
    assert!(!seen[1].headers.values().any(|value| value.to_str().unwrap().contains(&jwt)));
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn p9_a_refused_login_says_what_to_check() {
    let with = |name: &str, value: &str| {
        let mut all = claims();
        all[name] = json!(value);
        all
    };
    let other = "00000000-0000-0000-0000-000000000000";
    for (what, claims, fields, role, kind, part) in [
        ("audience", with("aud", "vault"), json!({}), CLIENT_ID, ErrorKind::Denied, "federated credential"),
        ("subject", with("sub", "x"), json!({}), CLIENT_ID, ErrorKind::Denied, "system:serviceaccount:"),
        ("issuer", with("iss", "x"), json!({}), CLIENT_ID, ErrorKind::Denied, "issuer must be the cluster's"),
        ("time", with("exp", "0"), json!({}), CLIENT_ID, ErrorKind::Denied, "clocks"),
        ("client", claims(), json!({}), other, ErrorKind::Denied, "no application of this client id"),
        ("role", claims(), json!({}), "web", ErrorKind::Invalid, "client id of an app registration"),
        ("tenant", claims(), json!({"tenant": other}), CLIENT_ID, ErrorKind::Denied, "check tenant"),
        ("scope", claims(), json!({"scope": "https://x/.default"}), CLIENT_ID, ErrorKind::Denied, "tenant and scope"),
    ] {
        let shared = Shared::new().await;
        shared.show(&claims, 600);
        let mut azure = shared.azure_with(&shared.settings_with(fields), Some(role));
        let error = shared.refused(&mut azure, "db").await;
        assert_error(&error, kind, &[part]);
        assert!(shared.asked().len() <= 1, "{what}: a wrong credential is not tried twice");
    }
    let shared = Shared::new().await;
    std::fs::write(&shared.token_file, "canary.canary.canary").unwrap();
    assert_error(&shared.refused(&mut shared.azure(), "db").await, ErrorKind::Denied, &["signature", "AADSTS700027"]);
    std::fs::remove_file(&shared.token_file).unwrap();
    assert_error(&shared.refused(&mut shared.azure(), "db").await, ErrorKind::Invalid, &["token volume"]);
}

#[tokio::test]
async fn an_authority_that_fails_is_told_from_one_that_refuses() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", "canary");
    let mut azure = shared.azure();
    let is_login = |received: &Received| received.path.ends_with("/token");
    let busy = vec![("retry-after", "9".to_owned())];
    for (fault, kind, part) in [
        (Fault::Status(503, Vec::new(), "canary".into()), ErrorKind::Unavailable, "status 503"),
        (Fault::Status(404, Vec::new(), "<html>canary".into()), ErrorKind::Unavailable, "check authority"),
        (
            Fault::Status(429, busy, "canary".into()),
            ErrorKind::Throttled { retry_after: Some(Duration::from_secs(9)) },
            "patience",
        ),
        (Fault::Body("{\"access_token\": \"\"}".into()), ErrorKind::Unavailable, "no token in it"),
        (Fault::Body("canary".into()), ErrorKind::Unavailable, "no token in it"),
        (
            Fault::Status(400, Vec::new(), r#"{"error":"temporarily_unavailable","error_codes":[90033]}"#.into()),
            ErrorKind::Unavailable,
            "overloaded",
        ),
    ] {
        shared.fake.fail(is_login, 1, fault);
        assert_error(&shared.refused(&mut azure, "db").await, kind, &[part]);
    }
    fresh(shared.read(&mut azure, "db", None).await);
}

#[tokio::test]
async fn a_managed_identity_asks_its_machine() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", "canary");
    let machine = shared.fake.start_metadata().await;
    let metadata = format!("http://{}", machine.address);
    let settings = shared.settings_with(
        json!({"tenant": null, "authority": null, "auth": {"method": "managed-identity", "metadata": metadata}}),
    );
    for (role, more) in [(Some(CLIENT_ID), format!("&client_id={CLIENT_ID}")), (None, String::new())] {
        let mut azure = shared.azure_with(&settings, role);
        fresh(shared.read(&mut azure, "db", None).await);
        let asked: Vec<_> = machine.take_seen().iter().map(shown_request).collect();
        let path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
        assert_eq!(asked, [format!("GET {path}{more}")]);
        assert_eq!(azure.session().unwrap().ttl.map(|ttl| ttl.as_secs() / 100), Some(863));
        // The machine gives the same token again as long as it lives: that is no news, and no reason to read again.
        assert_eq!(azure.extend_session().await, Ok(Extended::Renewed));
        machine.take_seen();
        shared.fake.take_seen();
        let error = shared.refused(&mut azure, "closed").await;
        assert_error(&error, ErrorKind::Denied, &["Key Vault Secrets User"]);
        assert_eq!((machine.take_seen().len(), shared.asked().len()), (1, 1));
    }
    let unknown = "00000000-0000-0000-0000-000000000000";
    let error = shared.refused(&mut shared.azure_with(&settings, Some(unknown)), "db").await;
    assert_error(&error, ErrorKind::Denied, &["managed identity", unknown, "assigned"]);
    for (status, kind, part) in [
        (404, ErrorKind::Unavailable, "being updated"),
        (410, ErrorKind::Unavailable, "being updated"),
        (429, ErrorKind::Throttled { retry_after: None }, "patience"),
        (500, ErrorKind::Unavailable, "status 500"),
    ] {
        machine.fail(|_| true, 1, Fault::Status(status, Vec::new(), "canary".into()));
        assert_error(&shared.refused(&mut shared.azure_with(&settings, None), "db").await, kind, &[part]);
    }
}

#[tokio::test]
async fn a_person_or_job_logs_in_by_the_environment() {
    let test = "contract::azure::logins::a_person_or_job_logs_in_by_the_environment";
    let Ok(case) = std::env::var(CASE) else {
        let rest = [("AZURE_TENANT_ID", Some(TENANT)), ("AZURE_CLIENT_ID", Some(CLIENT_ID))];
        for (case, secret) in [("right", Some(CLIENT_SECRET)), ("wrong", Some("canary")), ("unset", None)] {
            run_again(test, case, &[rest[0], rest[1], ("AZURE_CLIENT_SECRET", secret)]).await;
        }
        return;
    };
    let shared = Shared::new().await;
    shared.fake.world().put("db", "canary");
    let settings = shared.settings_with(json!({"tenant": null, "auth": {"method": "environment"}}));
    let result = shared.read(&mut shared.azure_with(&settings, None), "db", None).await;
    match case.as_str() {
        "right" => drop(fresh(result)),
        "wrong" => assert_error(&result.unwrap_err(), ErrorKind::Denied, &["client secret is wrong", "AADSTS7000215"]),
        _ => assert_error(&result.unwrap_err(), ErrorKind::Invalid, &["AZURE_CLIENT_SECRET", "not set"]),
    }
}

#[tokio::test]
async fn p4_a_login_is_handed_on_and_used_until_its_end() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", "canary");
    let mut first = shared.azure();
    fresh(shared.read(&mut first, "db", None).await);
    let session = first.session().unwrap();
    assert_eq!((session.renewable, session.ttl.map(|ttl| ttl.as_secs() / 10)), (false, Some(359)));
    let mut second = shared.azure();
    second.resume(session);
    shared.asked();
    fresh(shared.read(&mut second, "db", None).await);
    assert_eq!(shared.asked(), [READ], "no login of its own");
    assert_eq!(second.extend_session().await, Ok(Extended::Replaced));
    assert_eq!(shared.asked().len(), 1);
    second.end_session().await.unwrap();
    assert_eq!((second.session(), shared.asked().len()), (None, 0), "nothing there is ended but by time");
}

#[tokio::test]
async fn a_token_that_ended_is_not_used() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", "canary");
    shared.fake.world().token_seconds = Some(0);
    let mut azure = shared.azure();
    assert_error(&shared.refused(&mut azure, "db").await, ErrorKind::Denied, &["clocks"]);
    shared.fake.world().token_seconds = None;
    shared.asked();
    fresh(shared.read(&mut azure, "db", None).await);
    assert_eq!(shared.asked(), [format!("POST /{TENANT}/oauth2/v2.0/token"), READ.to_owned()]);
}

#[tokio::test]
async fn p9_a_challenge_is_compared_and_never_followed() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", "canary");
    let other = "11111111-1111-1111-1111-111111111111";
    for (tenant, resource, parts) in [
        (other, "https://vault.azure.net", [format!("belongs to tenant {other}"), format!("set to {TENANT}")]),
        (TENANT, "https://canary.example", ["set scope".to_owned(), "https://vault.azure.net/.default".to_owned()]),
        ("canary", "https://vault.azure.net", ["check tenant".to_owned(), "clocks".to_owned()]),
    ] {
        shared.fake.world().challenge = Some((tenant.to_owned(), resource.to_owned()));
        let mut azure = shared.azure();
        let error = shared.refused(&mut azure, "db").await;
        assert_error(&error, ErrorKind::Denied, &[&parts[0], &parts[1]]);
        shared.fake.world().challenge = None;
        fresh(shared.read(&mut azure, "db", None).await);
    }
}

#[test]
fn an_operators_configuration_says_what_tokens_are_projected() {
    let yaml = |auth: &str| {
        format!(
            "image: r:t\nproviders:\n  kv: {{type: azure, address: 'https://shop.vault.azure.net', \
             tenant: {TENANT}, auth: {auth}}}"
        )
    };
    for (auth, audience) in [("{}", Some(AUDIENCE)), ("{method: managed-identity}", None)] {
        let config = hushpod::config::Config::from_yaml(&yaml(auth)).unwrap();
        let provider = &config.providers["kv"];
        assert_eq!(provider.audience.as_deref(), audience);
        // The plan carries the settings to the agent as JSON.
        let json = serde_json::to_string(&provider.settings).unwrap();
        assert_eq!(serde_json::from_str::<ProviderSettings>(&json).unwrap(), provider.settings);
    }
}
