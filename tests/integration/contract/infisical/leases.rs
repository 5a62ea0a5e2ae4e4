//! Dynamic secrets.

use std::fmt::Write as _;

use tracing::Level;

use super::*;
use crate::log::Log;

async fn pod() -> Pod {
    pod_of(Year::Y2026, json!({"projectSlug": PROJECT_SLUG})).await
}

async fn pod_of(year: Year, more: Value) -> Pod {
    let pod = Pod::with(year, more).await;
    pod.fake.server().set_dynamic("prod", "/db", "postgres", Dynamic { ttl: 3600, max_ttl: 4 * 3600 });
    pod
}

fn lease(answer: &Answer) -> &Lease {
    answer.lease.as_ref().expect("a lease")
}

#[track_caller]
fn assert_lives(lease: &Lease, seconds: u64) {
    let ttl = lease.ttl.as_secs_f64();
    assert!((ttl - f64::from(u32::try_from(seconds).unwrap())).abs() < 2.0, "{ttl} is not {seconds}");
    assert!(lease.renewable);
}

#[tokio::test]
async fn a_credential_is_made_renewed_and_ended() {
    for year in [Year::Y2024, Year::Y2026] {
        let pod = pod_of(year, json!({"projectSlug": PROJECT_SLUG})).await;
        let mut infisical = pod.infisical();
        let answer = pod.fresh(&mut infisical, "/db?dynamic=Postgres").await;
        let expected = [("DB_PASSWORD", "canary-password-1"), ("DB_USERNAME", "canary-user-1")];
        assert_eq!(shown(&answer), pairs(&expected));
        assert_eq!((&answer.version, answer.expires_in), (&None, None));
        assert_lives(lease(&answer), 3600);
        // What is asked for is added to what is left.
        pod.fake.advance(Duration::from_mins(40));
        let renewed = infisical.renew(lease(&answer)).await.unwrap();
        assert_lives(&renewed, 4800);
        assert_eq!(infisical.revoke(&renewed).await, Ok(()));
        assert_eq!(pod.fake.server().live_leases(), 0);
        assert_eq!(infisical.revoke(&renewed).await, Ok(()), "gone is gone");
        let error = infisical.renew(&renewed).await.unwrap_err();
        assert_error(&error, ErrorKind::NotFound, &["/db", "has ended or was revoked"]);
        let base = "v1/dynamic-secrets/leases";
        let seen: Vec<_> = pod.seen().into_iter().filter(|path| !path.starts_with(base)).collect();
        assert_eq!(seen, ["v1/auth/kubernetes-auth/login"]);
    }
}

/// Its id is a part of the addresses that are asked for.
#[tokio::test]
async fn p5_a_leases_id_is_never_told() {
    let pod = pod().await;
    let (log, _listening) = Log::listen(Level::TRACE);
    let mut infisical = pod.infisical();
    let answer = pod.fresh(&mut infisical, "/db?dynamic=postgres").await;
    let held = lease(&answer).clone();
    let id = held.id.expose_str().unwrap().split('\n').next().unwrap().to_owned();
    let mut told = format!("{answer:?} {held:?} {infisical:?}");
    for fault in [
        None,
        Some(Fault::Status(500, vec![], id.clone())),
        Some(Fault::Status(404, vec![], id.clone())),
        Some(Fault::Body(id.clone())),
        Some(Fault::Truncated),
    ] {
        for verb in ["renew", "revoke", "renew"] {
            if let Some(fault) = fault.clone() {
                pod.fake.fail(|received: &Received| received.path.contains("leases/"), 1, fault);
            }
            let error =
                if verb == "renew" { infisical.renew(&held).await.err() } else { infisical.revoke(&held).await.err() };
            write!(told, "{error:?}").unwrap();
        }
    }
    assert!(told.contains("the lease from /db"), "{told}");
    assert!(!told.contains(&id), "{id}: {told}");
    assert!(!log.text().contains(&id), "{id}: {}", log.text());
}

#[tokio::test]
async fn a_wished_life_is_asked_for_and_asked_for_again() {
    let pod = pod().await;
    let mut infisical = pod.infisical();
    let answer = pod.fresh(&mut infisical, "/db?dynamic=postgres&ttl=10m").await;
    assert_lives(lease(&answer), 600);
    pod.fake.advance(Duration::from_mins(5));
    assert_lives(&infisical.renew(lease(&answer)).await.unwrap(), 900);
}

#[tokio::test]
async fn the_longest_life_ends_renewals_and_not_the_lease() {
    let pod = pod().await;
    let mut infisical = pod.infisical();
    let mut held = lease(&pod.fresh(&mut infisical, "/db?dynamic=postgres").await).clone();
    for _ in 0..3 {
        held = infisical.renew(&held).await.unwrap();
    }
    let error = infisical.renew(&held).await.unwrap_err();
    assert_error(&error, ErrorKind::Invalid, &["/db", "longest life"]);
    assert_eq!(pod.fake.server().live_leases(), 1);
}

#[tokio::test]
async fn p4_another_process_renews_what_this_one_made() {
    let pod = pod().await;
    let mut first = pod.infisical();
    let answer = pod.fresh(&mut first, "/db?dynamic=postgres").await;
    let mut second = pod.infisical();
    second.resume(first.session().unwrap());
    assert_lives(&second.renew(lease(&answer)).await.unwrap(), 7200);
    // Another login will do as well: leases do not hang on the one that made them.
    let mut third = pod.infisical();
    assert_lives(&third.renew(lease(&answer)).await.unwrap(), 10_800);
    assert!(third.leases_outlive_logins());
}

#[tokio::test]
async fn a_login_that_ended_meanwhile_is_replaced_once() {
    let pod = pod().await;
    let mut infisical = pod.infisical();
    let answer = pod.fresh(&mut infisical, "/db?dynamic=postgres").await;
    pod.fake.server().revoke_tokens();
    pod.seen();
    infisical.renew(lease(&answer)).await.unwrap();
    assert_eq!(pod.logins(), 1);
}

#[tokio::test]
async fn a_slug_is_looked_up_once_where_the_operator_gives_only_an_id() {
    for (year, paths) in [
        (Year::Y2024, vec![format!("v1/projects/{PROJECT}"), format!("v1/workspace/{PROJECT}")]),
        (Year::Y2026, vec![format!("v1/projects/{PROJECT}")]),
    ] {
        let pod = pod_of(year, json!({})).await;
        let mut infisical = pod.infisical();
        pod.fresh(&mut infisical, "/db?dynamic=postgres").await;
        pod.fresh(&mut infisical, "/db?dynamic=postgres").await;
        let seen = pod.seen();
        let looked_up: Vec<_> = seen.iter().filter(|path| path.contains(PROJECT)).cloned().collect();
        assert_eq!(looked_up, paths);
    }
}

#[tokio::test]
async fn what_cannot_be_made_says_why() {
    let pod = pod().await;
    let mut infisical = pod.infisical();
    let error = pod.refused(&mut infisical, "/db?dynamic=mysql").await;
    assert_error(&error, ErrorKind::NotFound, &["mysql", "/db"]);
    let error = pod.refused(&mut infisical, "/db?dynamic=postgres&ttl=9h").await;
    assert_error(&error, ErrorKind::Invalid, &["postgres", "ttl is longer"]);
    pod.fake.server().set_plan(false);
    let error = pod.refused(&mut infisical, "/db?dynamic=postgres").await;
    assert_error(&error, ErrorKind::Invalid, &["plan of this Infisical"]);
}

#[tokio::test]
async fn a_wrong_clock_does_not_shorten_a_lease() {
    let pod = pod().await;
    for ahead in [0, 86_400] {
        pod.fake.advance(Duration::from_secs(ahead));
        let file = pod.file("made", &pod.fake.server().make_token(IDENTITY));
        let settings = InfisicalSettings {
            auth: serde_json::from_value(json!({"method": "token", "tokenFile": file})).unwrap(),
            ..pod.settings.clone()
        };
        let mut infisical = pod.infisical_with(&settings);
        let answer = pod.fresh(&mut infisical, "/db?dynamic=postgres").await;
        assert_lives(lease(&answer), 3600);
        assert_lives(&infisical.renew(lease(&answer)).await.unwrap(), 7200);
    }
}
