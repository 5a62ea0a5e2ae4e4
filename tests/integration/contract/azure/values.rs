//! Versions, their attributes, and how few requests tell of a change.

use super::*;

const LIST: &str = "GET /secrets/db/versions?api-version=7.4&maxresults=25";
const READ: &str = "GET /secrets/db?api-version=7.4";

/// Reads `db` and says what came of it and what was asked.
async fn look(shared: &Shared, azure: &mut Azure, held: &Version) -> (Option<Answer>, Vec<String>) {
    shared.asked();
    let answer = match shared.read(azure, "db", Some(held)).await.unwrap() {
        Reading::NotModified => None,
        Reading::Fresh(answer) => Some(answer),
    };
    (answer, shared.asked())
}

#[tokio::test]
async fn a_change_is_looked_for_without_the_value() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", "canary-1");
    let mut azure = shared.azure();
    let first = fresh(shared.read(&mut azure, "db", None).await).version.unwrap();
    assert_eq!(look(&shared, &mut azure, &first).await, (None, vec![LIST.to_owned()]));

    shared.fake.world().later += 5;
    shared.fake.world().put("db", "canary-2");
    let (answer, asked) = look(&shared, &mut azure, &first).await;
    let second = answer.unwrap().version.unwrap();
    assert_eq!((second != first, asked), (true, vec![LIST.to_owned(), READ.to_owned()]));

    // Two of one second: only a read tells which is the present one.
    shared.fake.world().put("db", "canary-3");
    let (answer, asked) = look(&shared, &mut azure, &second).await;
    let third = answer.unwrap().version.unwrap();
    assert_eq!((third != second, asked), (true, vec![LIST.to_owned(), READ.to_owned()]));
    assert_eq!(look(&shared, &mut azure, &third).await, (None, vec![LIST.to_owned(), READ.to_owned()]));
}

#[tokio::test]
async fn who_may_not_list_reads_and_asks_no_more() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", "canary");
    shared.fake.world().unlisted.insert("db".to_owned());
    let mut azure = shared.azure();
    let held = fresh(shared.read(&mut azure, "db", None).await).version.unwrap();
    assert_eq!(look(&shared, &mut azure, &held).await, (None, vec![LIST.to_owned(), READ.to_owned()]));
    assert_eq!(look(&shared, &mut azure, &held).await, (None, vec![READ.to_owned()]));
    // Another login may have been given the right.
    shared.fake.world().unlisted.clear();
    azure.extend_session().await.unwrap();
    assert_eq!(look(&shared, &mut azure, &held).await, (None, vec![LIST.to_owned()]));
}

#[tokio::test]
async fn a_secret_of_many_versions_is_read_rather_than_listed() {
    let shared = Shared::new().await;
    for number in 0..26 {
        shared.fake.world().later += 1;
        shared.fake.world().put("db", &format!("canary-{number}"));
    }
    let mut azure = shared.azure();
    let held = fresh(shared.read(&mut azure, "db", None).await).version.unwrap();
    assert_eq!(look(&shared, &mut azure, &held).await, (None, vec![LIST.to_owned(), READ.to_owned()]));
    assert_eq!(look(&shared, &mut azure, &held).await, (None, vec![READ.to_owned()]));
}

#[tokio::test]
async fn an_end_is_told_and_a_new_end_is_seen() {
    let shared = Shared::new().await;
    let end = shared.fake.world().now() + 600;
    shared.fake.world().put("db", "canary").exp = Some(end);
    let mut azure = shared.azure();
    let answer = fresh(shared.read(&mut azure, "db", None).await);
    assert!(answer.expires_in.is_some_and(|life| (590..=600).contains(&life.as_secs())), "{:?}", answer.expires_in);
    let held = answer.version.unwrap();
    assert_eq!(look(&shared, &mut azure, &held).await, (None, vec![LIST.to_owned()]));
    {
        let mut world = shared.fake.world();
        let stored = &mut world.versions("db")[0];
        (stored.exp, stored.updated) = (Some(end + 6000), stored.updated + 5);
    }
    let (answer, asked) = look(&shared, &mut azure, &held).await;
    let answer = answer.expect("other attributes, so another life");
    assert_eq!((answer.version.as_ref(), asked), (Some(&held), vec![LIST.to_owned(), READ.to_owned()]));
    assert!(answer.expires_in.is_some_and(|life| life.as_secs() > 6000), "{:?}", answer.expires_in);
    assert_eq!(look(&shared, &mut azure, &held).await, (None, vec![LIST.to_owned()]));
}

#[tokio::test]
async fn what_has_ended_or_not_begun_is_delivered_as_the_vault_does() {
    let shared = Shared::new().await;
    let now = shared.fake.world().now();
    for (name, nbf, exp) in [("old", None, Some(now - 60)), ("early", Some(now + 600), None)] {
        let mut world = shared.fake.world();
        let stored = world.put(name, "canary");
        (stored.nbf, stored.exp) = (nbf, exp);
    }
    let mut azure = shared.azure();
    for name in ["old", "early"] {
        assert_eq!(fresh(shared.read(&mut azure, name, None).await).expires_in, None, "{name}");
    }
}

#[tokio::test]
async fn p9_a_disabled_version_says_so_and_a_pinned_one_stays_readable() {
    let shared = Shared::new().await;
    let first = shared.fake.world().put("db", "canary-1").version.clone();
    let mut azure = shared.azure();
    let held = fresh(shared.read(&mut azure, "db", None).await).version.unwrap();
    shared.fake.world().later += 5;
    let second = {
        let mut world = shared.fake.world();
        let stored = world.put("db", "canary-2");
        stored.enabled = false;
        stored.version.clone()
    };
    let error = shared.read(&mut azure, "db", Some(&held)).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["db", "disabled"]);
    let error = shared.refused(&mut azure, &format!("db?version={second}")).await;
    assert_error(&error, ErrorKind::NotFound, &["db", &second, "disabled"]);
    fresh(shared.read(&mut azure, &format!("secrets/DB/{first}"), None).await);
    // A version's value never changes: nothing to ask.
    shared.asked();
    let pinned = format!("db?version={first}");
    assert_eq!(shared.read(&mut azure, &pinned, Some(&Version(first.clone()))).await, Ok(Reading::NotModified));
    assert_eq!(shared.asked().len(), 0);
}

#[tokio::test]
async fn a_certificate_is_the_secret_of_its_name() {
    let shared = Shared::new().await;
    for (name, content_type, value) in
        [("web", "application/x-pem-file", "-----BEGIN canary-----\n"), ("store", "application/x-pkcs12", "Y2FuYXJ5")]
    {
        shared.fake.world().put(name, value).content_type = Some(content_type);
    }
    let mut azure = shared.azure();
    let pem = fresh(shared.read(&mut azure, "certificates/web", None).await);
    assert_eq!(pem.tree.as_value().unwrap().expose(), b"-----BEGIN canary-----\n");
    let pkcs12 = fresh(shared.read(&mut azure, "certificates/Store", None).await);
    assert_eq!(pkcs12.tree.as_value().unwrap().expose(), b"Y2FuYXJ5", "base64, as `decode: base64` wants it");
}

/// A batch of three; what each was answered, and how often the vault was asked.
async fn batch(shared: &Shared, azure: &mut Azure) -> (Vec<ProviderError>, usize) {
    let requests = ["a", "b", "c"].map(|name| shared.request(name));
    shared.asked();
    let results = azure.read(&requests, &Known::new()).await;
    (results.into_iter().map(Result::unwrap_err).collect(), shared.asked().len())
}

#[tokio::test]
async fn a_vault_that_says_no_to_all_is_asked_once_a_batch() {
    let shared = Shared::new().await;
    let mut azure = shared.azure();
    azure.extend_session().await.unwrap();
    shared.fake.world().has_firewall = true;
    let (errors, asked) = batch(&shared, &mut azure).await;
    for error in errors {
        assert_error(&error, ErrorKind::Denied, &["firewall"]);
    }
    assert_eq!(asked, 1);
    shared.fake.world().has_firewall = false;
    for (status, kind) in
        [(429, ErrorKind::Throttled { retry_after: Some(Duration::from_secs(4)) }), (503, ErrorKind::Unavailable)]
    {
        let headers = vec![("retry-after", "4".to_owned())];
        shared.fake.fail(Shared::is_read, 1, Fault::Status(status, headers, "canary".into()));
        let (errors, asked) = batch(&shared, &mut azure).await;
        for error in errors {
            assert_error(&error, kind, &[]);
        }
        assert_eq!(asked, 1, "{status}");
    }
}

#[tokio::test]
async fn what_is_no_vault_is_not_taken_for_a_missing_secret() {
    let shared = Shared::new().await;
    let mut azure = shared.azure();
    shared.fake.fail(Shared::is_read, 1, Fault::Status(404, Vec::new(), "<html>canary".into()));
    assert_error(&shared.refused(&mut azure, "db").await, ErrorKind::Unavailable, &["not a vault's"]);
    shared.fake.world().put("other", "canary");
    let other = json!({"value": "canary", "id": format!("https://v/secrets/other/{}", "0".repeat(32))});
    shared.fake.fail(Shared::is_read, 1, Fault::Body(other.to_string()));
    assert_error(&shared.refused(&mut azure, "db").await, ErrorKind::Unavailable, &["db", "vault's JSON"]);
}

#[tokio::test]
async fn there_are_no_leases() {
    let shared = Shared::new().await;
    let mut azure = shared.azure();
    let lease = Lease { id: "canary".into(), ttl: Duration::from_secs(1), renewable: true };
    assert_error(&azure.renew(&lease).await.unwrap_err(), ErrorKind::Invalid, &["no leases"]);
    assert_error(&azure.revoke(&lease).await.unwrap_err(), ErrorKind::Invalid, &["no leases"]);
    assert!(!format!("{azure:?}").contains("canary"));
}
