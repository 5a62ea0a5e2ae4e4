//! Logging in, staying so, and being refused.

use hushpod::provider::Extended;

use super::*;

on_vault!(
    one_login_serves_all_reads_and_is_renewed,
    a_revoked_login_is_replaced_once,
    rights_given_after_the_login_are_found,
    a_denial_costs_no_login_that_is_alive,
    p4_a_login_is_handed_over,
    an_ended_login_is_replaced_without_asking,
    logins_that_cannot_be_renewed_are_replaced,
    a_login_refused_says_what_to_check,
    the_token_file_is_read_at_each_login,
    an_approle_logs_in,
    a_ready_made_token_is_used_and_left_alone,
    a_wrong_ready_made_token_is_denied,
);

/// A secret, and a pod that may read it.
async fn secret_and_pod(store: &Store) -> (String, Pod) {
    let kv = store.kv1().await;
    let path = format!("{kv}/db");
    store.write(&path, json!({"password": "p"})).await;
    let pod = store.pod(&[(&path, &["read"])]).await;
    (path, pod)
}

fn logins(seen: &[Seen]) -> usize {
    seen.iter().filter(|request| request.path.ends_with("/login")).count()
}

async fn one_login_serves_all_reads_and_is_renewed(store: &Store) {
    let (path, pod) = secret_and_pod(store).await;
    let mut vault = pod.vault();
    assert!(vault.session().is_none());
    store.seen();
    for _ in 0..3 {
        pod.fresh(&mut vault, &path).await;
    }
    let held = vault.session().unwrap();
    assert!(held.renewable && held.ttl.is_some_and(|ttl| ttl > Duration::from_mins(59)), "{held:?}");
    assert_eq!(vault.extend_session().await, Ok(Extended::Renewed));
    assert!(vault.session().unwrap().token == held.token);
    if let Some(seen) = store.seen() {
        assert_eq!(logins(&seen), 1);
        assert!(seen.iter().all(|request| request.has_request_header), "{seen:?}");
    }
}

async fn a_revoked_login_is_replaced_once(store: &Store) {
    let (path, pod) = secret_and_pod(store).await;
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    let old = vault.session().unwrap().token;
    store.write("auth/token/revoke", json!({"token": old.expose_str()})).await;
    store.seen();
    let requests = [pod.request(&path), pod.request(&format!("{path}-not-allowed"))];
    let results = vault.read(&requests, &Known::new()).await;
    assert!(matches!(results.as_slice(), [Ok(Reading::Fresh(_)), Err(error)] if error.kind == ErrorKind::Denied));
    assert!(store.seen().is_none_or(|seen| logins(&seen) == 1));
    assert!(vault.session().unwrap().token != old);
    assert_eq!(vault.extend_session().await, Ok(Extended::Replaced), "leases of the old login are gone");
    assert_eq!(vault.extend_session().await, Ok(Extended::Renewed));
}

async fn rights_given_after_the_login_are_found(store: &Store) {
    let (path, pod) = secret_and_pod(store).await;
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    let other = path.replace("/db", "/other");
    store.write(&other, json!({"password": "q"})).await;
    assert_eq!(pod.refused(&mut vault, &other).await.kind, ErrorKind::Denied);
    let policy = store.policy(&[(&other, &["read"]), (&path, &["read"])]).await;
    let role =
        json!({"role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub", "token_policies": [policy]});
    store.write(&format!("auth/{}/role/web", pod.auth), role).await;
    assert_eq!(shown(&pod.fresh(&mut vault, &other).await.tree, "password"), "q");
}

async fn a_denial_costs_no_login_that_is_alive(store: &Store) {
    let (path, pod) = secret_and_pod(store).await;
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    let held = vault.session().unwrap().token;
    let live = store.faker().map(FakeVault::live_tokens);
    for _ in 0..2 {
        assert_eq!(pod.refused(&mut vault, &format!("{path}-not-allowed")).await.kind, ErrorKind::Denied);
    }
    assert!(vault.session().unwrap().token == held, "its leases would end with it");
    assert_eq!(store.faker().map(FakeVault::live_tokens), live, "the login made to try again is ended");
    assert_eq!(vault.extend_session().await, Ok(Extended::Renewed));
}

async fn p4_a_login_is_handed_over(store: &Store) {
    let (path, pod) = secret_and_pod(store).await;
    let mut first = pod.vault();
    pod.fresh(&mut first, &path).await;
    store.seen();
    let mut second = pod.vault();
    second.resume(first.session().unwrap());
    pod.fresh(&mut second, &path).await;
    assert_eq!(second.extend_session().await, Ok(Extended::Renewed));
    assert!(store.seen().is_none_or(|seen| logins(&seen) == 0));
}

async fn an_ended_login_is_replaced_without_asking(store: &Store) {
    let (path, pod) = secret_and_pod(store).await;
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    let mut held = vault.session().unwrap();
    held.ttl = Some(Duration::ZERO);
    vault.resume(held);
    store.seen();
    pod.fresh(&mut vault, &path).await;
    if let Some(seen) = store.seen() {
        assert_eq!((seen.len(), logins(&seen)), (2, 1), "{seen:?}");
    }
    assert_eq!(vault.extend_session().await, Ok(Extended::Replaced));
}

async fn logins_that_cannot_be_renewed_are_replaced(store: &Store) {
    let kv = store.kv1().await;
    let path = format!("{kv}/db");
    store.write(&path, json!({"password": "p"})).await;
    let pod = store.pod_with_role(&[(&path, &["read"])], json!({"token_type": "batch", "token_ttl": "1h"})).await;
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    let held = vault.session().unwrap();
    assert!(!held.renewable);
    assert_eq!(vault.extend_session().await, Ok(Extended::Replaced));
    assert!(vault.session().unwrap().token != held.token);
}

async fn a_login_refused_says_what_to_check(store: &Store) {
    let (path, mut pod) = secret_and_pod(store).await;
    let unconfigured = store.name("jwt");
    store.write(&format!("sys/auth/{unconfigured}"), json!({"type": "jwt"})).await;
    store.made.borrow_mut().push(format!("sys/auth/{unconfigured}"));
    let mount = pod.auth.clone();
    let named = |audience: &str, subject: &str| json!({"aud": [audience], "sub": subject});
    let good = token::sign(&named("vault", SUBJECT), 600);
    for (role, mount, jwt, part) in [
        ("nope", mount.as_str(), good.clone(), "no such role"),
        ("web", &mount, token::sign(&named("other", SUBJECT), 600), "another audience"),
        ("web", &mount, token::sign(&named("vault", "system:serviceaccount:shop:db"), 600), "not bound to this pod's"),
        ("web", &mount, token::sign(&named("vault", SUBJECT), -3600), "has expired"),
        ("web", &mount, "not.a-jwt".to_owned(), "check that"),
        ("web", "no-such-mount", good.clone(), "check that auth/no-such-mount exists"),
        ("web", &unconfigured, good.clone(), "is not configured"),
    ] {
        pod.show(&jwt);
        pod.login.role = Some(role.to_owned());
        pod.settings.auth.mount = Some(mount.to_owned());
        let error = pod.refused(&mut pod.vault(), &path).await;
        assert_error(&error, ErrorKind::Denied, &[part, &format!("auth/{mount}"), &format!("{role:?}")]);
        assert!(!error.message.contains(&jwt), "p5: no token in an error");
    }
}

async fn the_token_file_is_read_at_each_login(store: &Store) {
    let (path, pod) = secret_and_pod(store).await;
    let mut vault = pod.vault();
    std::fs::remove_file(&pod.token_file).unwrap();
    let error = pod.refused(&mut vault, &path).await;
    assert_error(&error, ErrorKind::Invalid, &["token volume", pod.token_file.to_str().unwrap()]);
    // kubelet writes another one into the file before this one ends.
    for id in ["first", "second"] {
        let jwt = token::sign(&json!({"aud": ["vault"], "sub": SUBJECT, "jti": id}), 600);
        pod.show(&jwt);
        store.seen();
        pod.fresh(&mut vault, &path).await;
        if let Some(server) = store.fake.as_deref() {
            let logins = server.take_seen().into_iter().filter(|received| received.path.ends_with("/login"));
            assert_eq!(logins.map(|login| login.json()["jwt"].clone()).collect::<Vec<_>>(), [jwt], "{id}");
        }
        let held = vault.session().unwrap().token;
        store.write("auth/token/revoke", json!({"token": held.expose_str()})).await;
    }
}

async fn an_approle_logs_in(store: &Store) {
    let (path, _) = secret_and_pod(store).await;
    let policy = store.policy(&[(&path, &["read"])]).await;
    let auth = store.name("approle");
    store.write(&format!("sys/auth/{auth}"), json!({"type": "approle"})).await;
    store.made.borrow_mut().push(format!("sys/auth/{auth}"));
    store.write(&format!("auth/{auth}/role/ci"), json!({"token_policies": [policy], "token_ttl": "1h"})).await;
    let (_, role) = store.admin(Method::GET, &format!("auth/{auth}/role/ci/role-id"), Value::Null).await;
    let secret = store.write(&format!("auth/{auth}/role/ci/secret-id"), json!({})).await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &Value| {
        let path = dir.path().join(name);
        std::fs::write(&path, content.as_str().unwrap()).unwrap();
        path
    };
    let role_id = file("role", &role["data"]["role_id"]);
    let secret_id = file("secret", &secret["data"]["secret_id"]);
    let settings = json!({"method": "approle", "mount": auth, "roleIdFile": role_id, "secretIdFile": secret_id});
    let pod = store.pod_that(settings, None);
    pod.fresh(&mut pod.vault(), &path).await;
    file("secret", &json!("wrong"));
    let error = pod.refused(&mut pod.vault(), &path).await;
    assert_error(&error, ErrorKind::Denied, &["role id or the secret id", &auth]);
}

async fn a_ready_made_token_is_used_and_left_alone(store: &Store) {
    let (path, _) = secret_and_pod(store).await;
    let policy = store.policy(&[(&path, &["read"])]).await;
    let made = store.write("auth/token/create", json!({"policies": [policy], "ttl": "1h"})).await;
    for (text, lives_for_ever) in [(made["auth"]["client_token"].as_str().unwrap(), false), (&store.root, true)] {
        let mut pod = store.pod_that(json!({"method": "token"}), None);
        pod.settings.auth.token_file = Some(pod.token_file.clone());
        pod.show(text);
        let mut vault = pod.vault();
        pod.fresh(&mut vault, &path).await;
        let held = vault.session().unwrap();
        assert_eq!((held.ttl.is_none(), held.renewable), (lives_for_ever, !lives_for_ever));
        assert_eq!(vault.extend_session().await, Ok(Extended::Renewed));
        vault.end_session().await.unwrap();
        pod.fresh(&mut pod.vault(), &path).await;
    }
}

async fn a_wrong_ready_made_token_is_denied(store: &Store) {
    let (path, _) = secret_and_pod(store).await;
    let mut pod = store.pod_that(json!({"method": "token"}), None);
    pod.settings.auth.token_file = Some(pod.token_file.clone());
    for (text, kind, part) in [
        ("canary-wrong", ErrorKind::Denied, "this login"),
        ("two\nlines", ErrorKind::Invalid, "no HTTP header can carry"),
    ] {
        pod.show(text);
        let error = pod.refused(&mut pod.vault(), &path).await;
        assert_error(&error, kind, &[part]);
        assert!(!error.message.contains(text));
    }
}

#[tokio::test]
async fn near_its_maximum_a_login_is_replaced() {
    let store = Store::fake().await;
    let kv = store.kv1().await;
    let path = format!("{kv}/db");
    store.write(&path, json!({"password": "p"})).await;
    let role = json!({"token_ttl": "60s", "token_max_ttl": "100s"});
    let pod = store.pod_with_role(&[(&path, &["read"])], role).await;
    let fake = store.faker().unwrap();
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    for (seconds, extended, life) in [
        (40, Extended::Renewed, 60),
        (39, Extended::Renewed, 21),
        (2, Extended::Replaced, 60),
        (30, Extended::Renewed, 60),
    ] {
        fake.advance(Duration::from_secs(seconds));
        assert_eq!(vault.extend_session().await, Ok(extended), "after {seconds} s");
        let ttl = vault.session().unwrap().ttl.unwrap();
        assert!((life - 2..=life).contains(&ttl.as_secs()), "{ttl:?} is not {life} s");
    }
}

#[tokio::test]
async fn a_namespace_is_sent_with_everything() {
    let store = Store::fake().await;
    let (path, mut pod) = secret_and_pod(&store).await;
    pod.settings.namespace = Some("admin/team".to_owned());
    store.seen();
    pod.fresh(&mut pod.vault(), &path).await;
    let seen = store.seen().unwrap();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|request| request.namespace.as_deref() == Some("admin/team")), "{seen:?}");
}

/// The real server reviews tokens of Kubernetes auth with a cluster, which only e2e has.
#[tokio::test]
async fn each_method_logs_in_at_its_own_path() {
    let store = Store::fake().await;
    let (path, _) = secret_and_pod(&store).await;
    let policy = store.policy(&[(&path, &["read"])]).await;
    let account = json!({"namespace": "shop", "serviceaccount": {"name": "web"}});
    let jwt = token::sign(&json!({"aud": ["vault"], "sub": SUBJECT, "kubernetes.io": account}), 600);
    for (method, role) in [
        (
            "kubernetes",
            json!({"bound_service_account_names": ["web"], "bound_service_account_namespaces": ["shop"],
                "audience": "vault", "token_policies": [policy]}),
        ),
        (
            "jwt",
            json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "bound_subject": SUBJECT,
                "token_policies": [policy]}),
        ),
    ] {
        store.write(&format!("sys/auth/{method}"), json!({"type": method})).await;
        store.write(&format!("auth/{method}/config"), json!({})).await;
        store.write(&format!("auth/{method}/role/web"), role).await;
        let pod = store.pod_that(json!({"method": method}), Some("web"));
        pod.show(&jwt);
        let server = store.fake.as_deref().unwrap();
        server.take_seen();
        let mut vault = pod.vault();
        pod.fresh(&mut vault, &path).await;
        let seen = server.take_seen();
        let paths: Vec<_> = seen.iter().map(|received| received.path.clone()).collect();
        assert_eq!(paths, [format!("/v1/auth/{method}/login"), format!("/v1/{path}")]);
        assert_eq!(seen[0].json(), json!({"role": "web", "jwt": jwt}));
        let held = vault.session().unwrap().token;
        let tokens: Vec<_> = seen.iter().map(|received| received.header("x-vault-token")).collect();
        assert_eq!(tokens, [None, held.expose_str()], "{method}: what the login gave, and not the pod's token");
    }
}

/// The real server reviews tokens with a cluster, which only e2e has; these statuses are those of
/// vault-plugin-auth-kubernetes 0.21.
#[tokio::test]
async fn a_kubernetes_login_refused_says_what_to_check() {
    let store = Store::fake().await;
    let (path, _) = secret_and_pod(&store).await;
    let policy = store.policy(&[(&path, &["read"])]).await;
    store.write("sys/auth/kubernetes", json!({"type": "kubernetes"})).await;
    let role = json!({"bound_service_account_names": ["web"], "bound_service_account_namespaces": ["shop"],
        "audience": "vault", "token_policies": [policy]});
    store.write("auth/kubernetes/role/web", role).await;
    let claims = |audience: &str, namespace: &str, name: &str| json!({"aud": [audience], "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name}}});
    let good = token::sign(&claims("vault", "shop", "web"), 600);
    let pod = store.pod_that(json!({"method": "kubernetes"}), Some("web"));
    pod.show(&good);
    let error = pod.refused(&mut pod.vault(), &path).await;
    assert_error(&error, ErrorKind::Unavailable, &["auth/kubernetes", "500"]);
    store.write("auth/kubernetes/config", json!({})).await;
    pod.fresh(&mut pod.vault(), &path).await;
    for (role, jwt, part) in [
        ("nope", good, "no such role"),
        ("web", token::sign(&claims("other", "shop", "web"), 600), "another audience"),
        ("web", token::sign(&claims("vault", "shop", "db"), 600), "this pod's service account"),
        ("web", token::sign(&claims("vault", "cart", "web"), 600), "this pod's namespace"),
        ("web", token::sign(&claims("vault", "shop", "web"), -600), "has expired"),
    ] {
        let pod = store.pod_that(json!({"method": "kubernetes"}), Some(role));
        pod.show(&jwt);
        let error = pod.refused(&mut pod.vault(), &path).await;
        assert_error(&error, ErrorKind::Denied, &[part, "auth/kubernetes"]);
    }
    let pod = store.pod_that(json!({"method": "kubernetes"}), None);
    let error = pod.refused(&mut pod.vault(), &path).await;
    assert_error(&error, ErrorKind::Denied, &["auth/kubernetes"]);
}
