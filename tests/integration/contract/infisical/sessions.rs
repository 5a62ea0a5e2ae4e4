//! Logging in, staying so, and being refused.

use super::*;

fn universal(pod: &Pod) -> Value {
    json!({"method": "universal", "clientIdFile": pod.file("id", "client-canary-id"),
        "clientSecretFile": pod.file("secret", "client-canary-secret")})
}

async fn pod_with(year: Year, auth: impl FnOnce(&Pod) -> Value) -> Pod {
    let mut pod = Pod::of(year).await;
    pod.settings.auth = serde_json::from_value(auth(&pod)).unwrap();
    pod.put("/a", "K", "canary");
    pod
}

#[tokio::test]
async fn each_method_logs_in_at_its_own_path() {
    for (method, path) in [
        ("kubernetes", "v1/auth/kubernetes-auth/login"),
        ("oidc", "v1/auth/oidc-auth/login"),
        ("jwt", "v1/auth/jwt-auth/login"),
        ("universal", "v1/auth/universal-auth/login"),
    ] {
        let auth = |pod: &Pod| if method == "universal" { universal(pod) } else { json!({"method": method}) };
        let pod = pod_with(Year::Y2026, auth).await;
        let mut infisical = pod.infisical();
        assert!(infisical.session().is_none());
        pod.fresh(&mut infisical, "/a").await;
        pod.fresh(&mut infisical, "/a").await;
        assert_eq!(pod.seen(), [path, "v4/secrets", "v4/secrets"], "one login serves all reads");
        assert!(infisical.session().unwrap().renewable);
    }
}

#[tokio::test]
async fn a_ready_made_token_is_used_and_left_alone() {
    let pod = Pod::of(Year::Y2026).await;
    let token = pod.fake.server().make_token(IDENTITY);
    let pod = Pod {
        settings: InfisicalSettings {
            auth: serde_json::from_value(json!({"method": "token", "tokenFile": pod.file("made", &token)})).unwrap(),
            ..pod.settings.clone()
        },
        ..pod
    };
    pod.put("/a", "K", "canary");
    let mut infisical = pod.infisical();
    pod.fresh(&mut infisical, "/a").await;
    assert_eq!(infisical.extend_session().await, Ok(Extended::Renewed));
    assert_eq!(infisical.end_session().await, Ok(()));
    assert_eq!(pod.fake.server().live_tokens(), 1);
    assert_eq!(pod.seen(), ["v4/secrets"]);
    let mut infisical = pod.infisical();
    pod.fresh(&mut infisical, "/a").await;
    pod.fake.server().revoke_tokens();
    pod.seen();
    for _ in 0..2 {
        assert_eq!(pod.refused(&mut infisical, "/a").await.kind, ErrorKind::Denied);
    }
    assert_eq!(pod.seen().len(), 2, "the same token again would be no news");
}

#[tokio::test]
async fn an_organization_is_named_where_that_is_needed() {
    let mut pod = Pod::of(Year::Y2026).await;
    pod.put("/a", "K", "canary");
    pod.fake.server().identity(IDENTITY).organization = Some("acme".to_owned());
    assert_eq!(pod.refused(&mut pod.infisical(), "/a").await.kind, ErrorKind::Denied);
    pod.settings.organization = Some("acme".to_owned());
    pod.fresh(&mut pod.infisical(), "/a").await;
}

#[tokio::test]
async fn an_expired_token_is_403_and_replaced_and_a_missing_right_is_not() {
    let pod = pod_with(Year::Y2026, |_| json!({})).await;
    let mut infisical = pod.infisical();
    pod.fresh(&mut infisical, "/a").await;
    pod.fake.server().expire_tokens();
    pod.fake.take_answered();
    let requests = [pod.request("/a"), pod.request("/a?secret=K")];
    assert!(infisical.read(&requests, &Known::new()).await.iter().all(Result::is_ok));
    let statuses: Vec<_> = pod.fake.take_answered().into_iter().map(|(.., status)| status).collect();
    assert_eq!(statuses, [403, 200, 200, 200], "TokenError, login, and both reads");
    pod.seen();
    pod.fake.server().identity(IDENTITY).rights.clear();
    let error = pod.refused(&mut infisical, "/a?secret=K").await;
    assert_error(&error, ErrorKind::Denied, &["identity", "read the values"]);
    assert_eq!(pod.logins(), 0);
}

#[tokio::test]
async fn a_login_that_is_worth_nothing_at_once_is_not_made_again() {
    let pod = pod_with(Year::Y2026, |_| json!({})).await;
    let refuse = Fault::Status(
        401,
        Vec::new(),
        r#"{"statusCode":401,"error":"UnauthorizedError","message":"canary"}"#.to_owned(),
    );
    pod.fake.fail(|received| received.path.contains("/secrets"), 9, refuse);
    let mut infisical = pod.infisical();
    let requests = [pod.request("/a"), pod.request("/b")];
    for result in infisical.read(&requests, &Known::new()).await {
        assert_error(&result.unwrap_err(), ErrorKind::Denied, &["does not accept the login"]);
    }
    assert_eq!(pod.seen().len(), 2, "one login, one read");
}

#[tokio::test]
async fn a_wrong_secret_is_never_tried_fast() {
    let pod = pod_with(Year::Y2026, universal).await;
    pod.file("secret", "wrong-canary");
    let mut infisical = pod.infisical();
    for _ in 0..20 {
        let requests = [pod.request("/a"), pod.request("/b")];
        for result in infisical.read(&requests, &Known::new()).await {
            assert_error(&result.unwrap_err(), ErrorKind::Denied, &["client id or the client secret is wrong"]);
        }
        let error = infisical.extend_session().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
    }
    assert_eq!(pod.fake.server().refusals(), 1);
    assert_eq!(pod.logins(), 1);
}

#[tokio::test]
async fn a_locked_identity_is_told_and_left_alone() {
    let pod = pod_with(Year::Y2026, universal).await;
    pod.file("secret", "wrong-canary");
    for _ in 0..3 {
        pod.refused(&mut pod.infisical(), "/a").await;
    }
    pod.file("secret", "client-canary-secret");
    let mut infisical = pod.infisical();
    assert_error(&pod.refused(&mut infisical, "/a").await, ErrorKind::Denied, &["locked for a while"]);
    pod.seen();
    pod.refused(&mut infisical, "/a").await;
    assert_eq!(pod.logins(), 0);
    pod.fake.advance(Duration::from_secs(301));
    pod.fresh(&mut pod.infisical(), "/a").await;
}

#[tokio::test]
async fn a_login_refused_says_what_to_check() {
    for (method, claims, part) in [
        ("kubernetes", json!({"sub": "system:serviceaccount:other:web"}), "this pod's namespace"),
        ("kubernetes", json!({"sub": "system:serviceaccount:shop:other"}), "service account"),
        (
            "kubernetes",
            json!({"aud": ["vault"]}),
            "does not accept the token's audience: set the identity's allowedAudience",
        ),
        ("oidc", json!({"sub": "canary"}), "service account"),
        ("jwt", json!({"aud": ["vault"]}), "another audience than the identity's boundAudiences"),
        ("oidc", json!({"aud": ["vault"]}), "leave them empty and set boundSubject"),
    ] {
        for year in [Year::Y2024, Year::Y2026] {
            let pod = pod_with(year, |_| json!({"method": method})).await;
            pod.show(&claims);
            assert_error(&pod.refused(&mut pod.infisical(), "/a").await, ErrorKind::Denied, &[IDENTITY, method, part]);
        }
    }
    let mut pod = pod_with(Year::Y2024, |_| json!({})).await;
    pod.login.role = Some("no-such".to_owned());
    assert_error(&pod.refused(&mut pod.infisical(), "/a").await, ErrorKind::Denied, &["no-such", "role is its id"]);
}

/// By a real API server's rules: who reviews, for which audience the token is, and whom the server asks for.
#[tokio::test]
async fn a_cluster_reviews_tokens_by_its_own_rules() {
    let default = Identity::default;
    let allowed = |audience: &str| Identity { audience: audience.to_owned(), ..default() };
    let both = "or, at a server of 2024";
    for (year, token_is_for, identity, refused) in [
        (Year::Y2026, "infisical", default(), None),
        (Year::Y2026, "infisical", allowed(""), Some(both)),
        (Year::Y2026, API_SERVER, allowed(""), None),
        (Year::Y2026, API_SERVER, default(), Some(both)),
        (Year::Y2026, "infisical", Identity { has_reviewer: false, ..default() }, Some("tokenReviewerJwt")),
        (Year::Y2026, API_SERVER, Identity { has_reviewer: false, ..allowed("") }, Some("system:auth-delegator")),
        (Year::Y2026, "infisical", Identity { has_ca: false, ..default() }, Some("kubernetesHost and caCert")),
        (Year::Y2024, "infisical", default(), Some(both)),
        (Year::Y2024, "infisical", allowed(""), Some(both)),
        (Year::Y2024, API_SERVER, default(), Some("identity's allowedAudience")),
        (Year::Y2024, API_SERVER, allowed(""), None),
        (Year::Y2024, API_SERVER, allowed(API_SERVER), None),
    ] {
        let pod = pod_with(year, |_| json!({})).await;
        let kind = if identity.has_ca { ErrorKind::Denied } else { ErrorKind::Unavailable };
        pod.fake.server().set_identity(IDENTITY, identity);
        pod.show(&json!({"aud": [token_is_for]}));
        match (pod.read(&mut pod.infisical(), "/a").await, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => assert_error(&error, kind, &[part]),
            (result, refused) => panic!("{year:?} {token_is_for}: {result:?} is not {refused:?}"),
        }
    }
}

#[tokio::test]
async fn who_is_no_member_of_a_project_is_told_so_and_logs_in_once() {
    for (status, name) in
        [(401, "Identity is not a part of this project"), (403, "Identity is not a member of the project")]
    {
        let pod = pod_with(Year::Y2024, |_| json!({})).await;
        let body = json!({"statusCode": status, "error": name, "message": "canary"}).to_string();
        pod.fake.fail(|received| received.path.contains("/v3/"), 1, Fault::Status(status, Vec::new(), body));
        let error = pod.refused(&mut pod.infisical(), "/a").await;
        assert_error(&error, ErrorKind::Denied, &[IDENTITY, "not a member of the project: add it there"]);
        assert_eq!(pod.logins(), 1);
    }
}

#[tokio::test]
async fn without_a_credential_it_is_said_what_to_set() {
    for (auth, part) in [
        (json!({"method": "universal"}), "INFISICAL_UNIVERSAL_AUTH_CLIENT_ID"),
        (json!({"method": "token"}), "INFISICAL_TOKEN"),
        (json!({"method": "oidc", "tokenFile": "/nowhere/token"}), "does not exist"),
    ] {
        let pod = pod_with(Year::Y2026, |_| auth).await;
        assert_error(&pod.refused(&mut pod.infisical(), "/a").await, ErrorKind::Invalid, &[part]);
        assert!(pod.seen().is_empty());
    }
}

#[tokio::test]
async fn a_renewal_takes_the_token_that_it_is_given() {
    for year in [Year::Y2024, Year::Y2026] {
        let pod = pod_with(year, |_| json!({})).await;
        let mut infisical = pod.infisical();
        pod.fresh(&mut infisical, "/a").await;
        let old = infisical.session().unwrap();
        pod.fake.advance(Duration::from_mins(50));
        assert_eq!(infisical.extend_session().await, Ok(Extended::Renewed));
        let new = infisical.session().unwrap();
        assert_eq!(new.token == old.token, year == Year::Y2024);
        // The old one's hour is over; the new one's is not.
        pod.fake.advance(Duration::from_mins(50));
        pod.fresh(&mut infisical, "/a").await;
        assert_eq!(pod.logins(), 1);
        assert!(infisical.leases_outlive_logins());
    }
}

#[tokio::test]
async fn a_renewal_that_would_pass_the_maximum_is_a_login() {
    // With Infisical's own defaults, where both are 30 days, that is every time.
    for (ttl, max_ttl, renews) in [(3600, 3600, false), (3600, 86_400, true), (3600, 0, true)] {
        let pod = pod_with(Year::Y2024, |_| json!({})).await;
        let usual = pod.fake.server().identity(IDENTITY).clone();
        pod.fake.server().set_identity(IDENTITY, Identity { ttl, max_ttl, ..usual });
        let mut infisical = pod.infisical();
        pod.fresh(&mut infisical, "/a").await;
        assert_eq!(infisical.session().unwrap().renewable, renews);
        pod.seen();
        let extended = infisical.extend_session().await.unwrap();
        assert_eq!(extended, if renews { Extended::Renewed } else { Extended::Replaced });
        let path = if renews { "v1/auth/token/renew" } else { "v1/auth/kubernetes-auth/login" };
        assert_eq!(pod.seen(), [path], "{ttl} of {max_ttl}");
        pod.fresh(&mut infisical, "/a").await;
    }
}

#[tokio::test]
async fn a_failed_renewal_is_a_login() {
    for status in [400, 401, 403, 404, 500] {
        let pod = pod_with(Year::Y2026, |_| json!({})).await;
        let mut infisical = pod.infisical();
        pod.fresh(&mut infisical, "/a").await;
        let body = json!({"statusCode": status, "error": "canary", "message": "canary"}).to_string();
        pod.fake.fail(|received| received.path.ends_with("/renew"), 1, Fault::Status(status, Vec::new(), body));
        assert_eq!(infisical.extend_session().await, Ok(Extended::Replaced), "{status}");
        pod.fresh(&mut infisical, "/a").await;
    }
}

#[tokio::test]
async fn periodic_and_endless_logins_are_kept() {
    let usual = Identity { audience: API_SERVER.to_owned(), ..Identity::default() };
    for (identity, ttl) in [
        (Identity { period: 600, ..usual.clone() }, Some(Duration::from_mins(10))),
        (Identity { ttl: 0, max_ttl: 0, ..usual }, None),
    ] {
        let pod = pod_with(Year::Y2024, |_| json!({})).await;
        pod.fake.server().set_identity(IDENTITY, identity);
        let mut infisical = pod.infisical();
        pod.fresh(&mut infisical, "/a").await;
        let held = infisical.session().unwrap().ttl;
        assert_eq!(held.is_some(), ttl.is_some());
        assert!(held.is_none_or(|held| held <= ttl.unwrap() && held + Duration::from_secs(5) > ttl.unwrap()));
        assert_eq!(infisical.extend_session().await, Ok(Extended::Renewed));
        assert_eq!(pod.logins(), 1);
    }
}

#[tokio::test]
async fn p4_a_login_is_handed_over() {
    let pod = pod_with(Year::Y2026, |_| json!({})).await;
    let mut first = pod.infisical();
    pod.fresh(&mut first, "/a").await;
    let mut second = pod.infisical();
    second.resume(first.session().unwrap());
    pod.fresh(&mut second, "/a").await;
    assert_eq!(pod.logins(), 1);
    // How long it may be renewed, this process was not told.
    assert_eq!(second.extend_session().await, Ok(Extended::Replaced));
}

#[tokio::test]
async fn an_ended_login_is_replaced_without_asking_and_ended_on_wish() {
    let pod = pod_with(Year::Y2026, |_| json!({})).await;
    let mut infisical = pod.infisical();
    pod.fresh(&mut infisical, "/a").await;
    let mut held = infisical.session().unwrap();
    held.ttl = Some(Duration::ZERO);
    infisical.resume(held);
    pod.seen();
    pod.fresh(&mut infisical, "/a").await;
    assert_eq!(pod.seen(), ["v1/auth/kubernetes-auth/login", "v4/secrets"]);
    let before = pod.fake.server().live_tokens();
    assert_eq!(infisical.end_session().await, Ok(()));
    assert_eq!(pod.fake.server().live_tokens(), before - 1);
    assert_eq!(infisical.end_session().await, Ok(()));
}
