//! Engines that lease or issue.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hushpod::metrics::Registry;
use hushpod::provider::http::StoreMeter;
use hushpod::secret::SecretValue;
use tracing::Level;

use super::*;
use crate::fakes::server::Fault;
use crate::log::Log;

on_vault!(
    what_is_asked_with_parameters_can_carry_a_lease,
    a_certificate_says_when_it_expires,
    a_path_that_takes_only_writes_says_so,
    bad_parameters_are_invalid,
    a_certificate_that_would_outlive_its_authority_says_so,
    parameters_are_written_only_where_it_is_known_to_be_no_kv,
    a_mount_that_is_hidden_is_written_to_only_if_it_is_listed,
    a_revoked_lease_is_gone,
    the_end_of_a_login_is_allowed_by_default,
);

async fn one_time_passwords(store: &Store) -> String {
    let ssh = store.mount(json!({"type": "ssh"})).await;
    let role = json!({"key_type": "otp", "default_user": "u", "cidr_list": "0.0.0.0/0"});
    store.write(&format!("{ssh}/roles/otp"), role).await;
    ssh
}

async fn certificates(store: &Store) -> String {
    certificates_of(store, "1000h").await
}

/// Certificates for up to 72 hours, by an authority that ends after this time.
async fn certificates_of(store: &Store, life: &str) -> String {
    let pki = store.mount(json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}})).await;
    let root = json!({"common_name": "root", "ttl": life, "key_type": "ec", "key_bits": 256});
    store.write(&format!("{pki}/root/generate/internal"), root).await;
    let role = json!({"allow_any_name": true, "key_type": "ec", "key_bits": 256, "max_ttl": "72h"});
    store.write(&format!("{pki}/roles/web"), role).await;
    pki
}

async fn what_is_asked_with_parameters_can_carry_a_lease(store: &Store) {
    let ssh = one_time_passwords(store).await;
    let pod = store.pod(&[(&format!("{ssh}/*"), &["update"])]).await;
    let answer = pod.fresh(&mut pod.vault(), &format!("{ssh}/creds/otp?ip=127.0.0.1")).await;
    assert_eq!(shown(&answer.tree, "ip"), "127.0.0.1");
    assert!(!lease(&answer).renewable && lease(&answer).ttl > Duration::from_hours(1), "{answer:?}");
    assert_eq!((answer.version, answer.expires_in), (None, None));
}

async fn a_certificate_says_when_it_expires(store: &Store) {
    let pki = certificates(store).await;
    let pod = store.pod(&[(&format!("{pki}/issue/*"), &["update"])]).await;
    let answer = pod.fresh(&mut pod.vault(), &format!("{pki}/issue/web?common_name=web.svc")).await;
    assert!(shown(&answer.tree, "private_key").contains("PRIVATE KEY"));
    let hours = answer.expires_in.unwrap().as_secs_f64() / 3600.0;
    assert!((71.9..=72.1).contains(&hours), "{hours}");
    assert!(answer.lease.is_none() && answer.version.is_none());
}

/// Every login that has a right below a mount is told what it is. A KV engine would take parameters for a new value.
async fn parameters_are_written_only_where_it_is_known_to_be_no_kv(store: &Store) {
    let (pki, kv) = (certificates(store).await, store.kv1().await);
    store.write(&format!("{kv}/db"), json!({"password": "p"})).await;
    let mut pod = store.pod(&[(&format!("{pki}/*"), &["update"]), (&format!("{kv}/*"), &["read", "update"])]).await;
    pod.fresh(&mut pod.vault(), &format!("{pki}/issue/web?common_name=web.svc")).await;
    // What is listed by mistake is looked at all the same.
    for listed in [vec![], vec![kv.clone()]] {
        pod.settings.writable_mounts = listed;
        let error = pod.refused(&mut pod.vault(), &format!("{kv}/db?common_name=x")).await;
        assert_error(&error, ErrorKind::Invalid, &["no parameter but version"]);
    }
    let answer = pod.fresh(&mut pod.vault(), &format!("{kv}/db")).await;
    assert_eq!(shown(&answer.tree, "password"), "p", "nothing of all that was written");
}

/// Vault hides it from nobody who may write there; what stands in front of it may.
async fn a_mount_that_is_hidden_is_written_to_only_if_it_is_listed(store: &Store) {
    if store.faker().is_none() {
        return;
    }
    let (pki, kv) = (certificates(store).await, store.kv1().await);
    store.write(&format!("{kv}/db"), json!({"password": "p"})).await;
    let issue = format!("{pki}/issue/web?common_name=web.svc");
    let rules: [(&str, &[&str]); 2] = [(&format!("{pki}/*"), &["update"]), (&format!("{kv}/*"), &["read", "update"])];
    let hides = json!({"token_ttl": "1h", "token_no_default_policy": true});
    let mut pod = store.pod_with_role(&rules, hides.clone()).await;
    for reference in [&issue, &format!("{kv}/db?common_name=x")] {
        let error = pod.refused(&mut pod.vault(), reference).await;
        assert_error(&error, ErrorKind::Denied, &["parameters", "sys/internal/ui/mounts/", "writableMounts"]);
    }
    pod.settings.writable_mounts = vec![pki.clone()];
    pod.fresh(&mut pod.vault(), &issue).await;
    assert_eq!(pod.refused(&mut pod.vault(), &format!("{kv}/db?common_name=x")).await.kind, ErrorKind::Denied);
    let look = format!("sys/internal/ui/mounts/{pki}/*");
    let may_look: Vec<_> = rules.into_iter().chain([(look.as_str(), &["read"][..])]).collect();
    let pod = store.pod_with_role(&may_look, hides).await;
    pod.fresh(&mut pod.vault(), &issue).await;
    let answer = pod.fresh(&mut pod.vault(), &format!("{kv}/db")).await;
    assert_eq!(shown(&answer.tree, "password"), "p", "nothing of all that was written");
}

async fn a_path_that_takes_only_writes_says_so(store: &Store) {
    let pki = certificates(store).await;
    let pod = store.pod(&[(&format!("{pki}/issue/*"), &["update", "read"])]).await;
    let error = pod.refused(&mut pod.vault(), &format!("{pki}/issue/web")).await;
    assert_error(&error, ErrorKind::Invalid, &["asked with parameters"]);
}

async fn bad_parameters_are_invalid(store: &Store) {
    let pki = certificates(store).await;
    let pod = store.pod(&[(&format!("{pki}/issue/*"), &["update"])]).await;
    let error = pod.refused(&mut pod.vault(), &format!("{pki}/issue/web?ttl=1h")).await;
    assert_error(&error, ErrorKind::Invalid, &["refuses these parameters"]);
}

async fn a_certificate_that_would_outlive_its_authority_says_so(store: &Store) {
    let pki = certificates_of(store, "24h").await;
    let pod = store.pod(&[(&format!("{pki}/issue/*"), &["update"])]).await;
    let error = pod.refused(&mut pod.vault(), &format!("{pki}/issue/web?common_name=web.svc&ttl=48h")).await;
    assert_error(&error, ErrorKind::Invalid, &["outlives the one that signs it", "shorter ttl, or renew the CA"]);
    pod.fresh(&mut pod.vault(), &format!("{pki}/issue/web?common_name=web.svc&ttl=12h")).await;
}

async fn a_revoked_lease_is_gone(store: &Store) {
    let ssh = one_time_passwords(store).await;
    let rules: &[(&str, &[&str])] = &[(&format!("{ssh}/*"), &["update"]), ("sys/leases/revoke", &["update"])];
    let pod = store.pod(rules).await;
    let mut vault = pod.vault();
    let answer = pod.fresh(&mut vault, &format!("{ssh}/creds/otp?ip=127.0.0.1")).await;
    let renewable = Lease { renewable: true, ..lease(&answer).clone() };
    let error = vault.renew(&renewable).await.unwrap_err();
    assert_error(&error, ErrorKind::Invalid, &["cannot be renewed"]);
    for _ in 0..2 {
        vault.revoke(&renewable).await.unwrap();
    }
    let error = vault.renew(&renewable).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["has ended or was revoked"]);

    let humble = store.pod(&[(&format!("{ssh}/*"), &["update"])]).await;
    let mut vault = humble.vault();
    let answer = humble.fresh(&mut vault, &format!("{ssh}/creds/otp?ip=127.0.0.1")).await;
    let error = vault.revoke(lease(&answer)).await.unwrap_err();
    assert_error(&error, ErrorKind::Denied, &["sys/leases/revoke", "policy"]);
}

/// Whatever becomes of it, at the level that tells most: granted, renewed, revoked, and refused at each.
#[tokio::test]
async fn p5_a_leases_id_is_never_told() {
    let store = Store::fake().await;
    let ssh = one_time_passwords(&store).await;
    let rules: &[(&str, &[&str])] =
        &[(&format!("{ssh}/*"), &["update"]), ("sys/leases/revoke", &["update"]), ("sys/leases/renew", &["update"])];
    let (all, reader) = (store.pod(rules).await, store.pod(&rules[..1]).await);
    let (log, _listening) = Log::listen(Level::TRACE);
    let mut told = String::new();
    for pod in [all, reader] {
        let mut vault = pod.vault();
        let answer = pod.fresh(&mut vault, &format!("{ssh}/creds/otp?ip=127.0.0.1")).await;
        let granted = lease(&answer).clone();
        write!(told, "{answer:?} {granted:?} {vault:?}").unwrap();
        let strange = |id: &[u8]| Lease { id: SecretValue::new(id.to_vec()), renewable: true, ..granted.clone() };
        let ids = [granted.id.expose(), b"canary", b"canary/canary", b"\xffcanary", b"canary\n/x"];
        for held in ids.map(strange).iter().chain([&granted]) {
            for verb in ["renew", "revoke"] {
                for fault in
                    [Some(Fault::Status(500, vec![], "canary".into())), Some(Fault::Body("canary".into())), None]
                {
                    if let Some(fault) = fault {
                        store.faker().unwrap().fail(&format!("sys/leases/{verb}"), 1, fault);
                    }
                    let error =
                        if verb == "renew" { vault.renew(held).await.err() } else { vault.revoke(held).await.err() };
                    write!(told, "{error:?}").unwrap();
                }
            }
        }
        let id = granted.id.expose_str().unwrap().to_owned();
        let secret = id.rsplit('/').next().unwrap();
        assert!(!told.contains(secret) && !told.contains("canary"), "{told}");
        assert!(!log.text().contains(secret) && !log.text().contains("canary"), "{}", log.text());
    }
    assert!(told.contains("sys/leases/renew"), "{told}");
}

async fn the_end_of_a_login_is_allowed_by_default(store: &Store) {
    let ssh = one_time_passwords(store).await;
    let pod = store.pod(&[(&format!("{ssh}/*"), &["update"])]).await;
    let mut vault = pod.vault();
    let answer = pod.fresh(&mut vault, &format!("{ssh}/creds/otp?ip=127.0.0.1")).await;
    let id = json!({"lease_id": lease(&answer).id.expose_str()});
    vault.end_session().await.unwrap();
    assert!(vault.session().is_none());
    let (status, _) = store.admin(Method::PUT, "sys/leases/renew", id).await;
    assert_eq!(status, 400, "the lease ends with the login");
    vault.end_session().await.unwrap();
}

#[tokio::test]
async fn requests_are_counted_by_what_they_are_for_and_what_came_of_them() {
    let store = Store::fake().await;
    let ssh = one_time_passwords(&store).await;
    let rules: &[(&str, &[&str])] = &[(&format!("{ssh}/*"), &["update"]), ("sys/leases/revoke", &["update"])];
    let mut pod = store.pod(rules).await;
    let registry = Registry::default();
    pod.reach = pod.reach.counted_by(StoreMeter::new(&registry, "vault"));
    let mut vault = pod.vault();
    // What has been counted since the last time, by call and outcome.
    let mut before = BTreeMap::new();
    let mut moved = || {
        let text = registry.to_string();
        let lines =
            text.lines().filter_map(|line| line.strip_prefix("hushpod_store_requests_total{provider=\"vault\","));
        let now: BTreeMap<_, u64> = lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(labels, number)| (labels.replace(['"', '}'], ""), number.parse().unwrap()))
            .collect();
        let is_new = |(labels, number): &(&String, &u64)| before.get(*labels) != Some(*number);
        let moved: Vec<_> = now.iter().filter(is_new).map(|(labels, _)| labels.clone()).collect();
        before = now;
        moved
    };
    let creds = format!("{ssh}/creds/otp?ip=127.0.0.1");
    let answer = pod.fresh(&mut vault, &creds).await;
    assert_eq!(moved(), ["call=login,outcome=ok", "call=read,outcome=ok"]);
    let held = Lease { renewable: true, ..lease(&answer).clone() };
    assert!(vault.renew(&held).await.is_err());
    assert_eq!(moved(), ["call=renew,outcome=invalid"]);
    vault.revoke(&held).await.unwrap();
    assert_eq!(moved(), ["call=revoke,outcome=ok"]);
    for (status, outcome) in [(429, "throttled"), (503, "unavailable"), (400, "invalid")] {
        store.faker().unwrap().fail(&format!("{ssh}/creds/otp"), 1, Fault::Status(status, vec![], "{}".into()));
        pod.refused(&mut vault, &creds).await;
        let expected = format!("call=read,outcome={outcome}");
        let moved = moved();
        assert!(moved.contains(&expected), "{status}: {moved:?}");
    }
    vault.end_session().await.unwrap();
    assert_eq!(moved(), ["call=revoke,outcome=ok"]);
}

/// Real credentials need a database: `HUSHPOD_CONTRACT_VAULT_LEASES` names a path of renewable ones, such as
/// `database/creds/web`.
async fn renewable_leases_are_renewed_up_to_their_maximum(store: &Store, path: &str) {
    let pod = store.pod(&[(path, &["read"])]).await;
    let mut vault = pod.vault();
    let answer = pod.fresh(&mut vault, path).await;
    let first = lease(&answer).clone();
    assert!(first.renewable && !shown(&answer.tree, "password").is_empty());
    let renewed = vault.renew(&first).await.unwrap();
    assert_eq!((&renewed.id, renewed.renewable), (&first.id, true));
    assert!(renewed.ttl <= first.ttl + Duration::from_secs(1), "{renewed:?}");
    let other = pod.fresh(&mut vault, path).await;
    assert!(lease(&other).id != first.id, "each read is a lease of its own");
    if let Some(fake) = store.faker() {
        fake.advance(Duration::from_secs(15));
        vault.renew(&first).await.unwrap();
        fake.advance(Duration::from_secs(15));
        let capped = vault.renew(&first).await.unwrap();
        assert_eq!(capped.ttl, Duration::from_secs(10), "40 s at most, 30 of them gone");
        fake.advance(Duration::from_secs(11));
        assert_eq!(vault.renew(&first).await.unwrap_err().kind, ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn fake_renewable_leases_are_renewed_up_to_their_maximum() {
    let store = Store::fake().await;
    let database = store.mount(json!({"type": "database"})).await;
    store.write(&format!("{database}/roles/web"), json!({"default_ttl": 20, "max_ttl": 40})).await;
    renewable_leases_are_renewed_up_to_their_maximum(&store, &format!("{database}/creds/web")).await;
}

#[tokio::test]
#[ignore = "wants a server: .ci/run contract starts it"]
async fn real_renewable_leases_are_renewed_up_to_their_maximum() {
    let path = std::env::var("HUSHPOD_CONTRACT_VAULT_LEASES").expect("HUSHPOD_CONTRACT_VAULT_LEASES: a path of leases");
    Store::real().run(async |store| renewable_leases_are_renewed_up_to_their_maximum(store, &path).await).await;
}
