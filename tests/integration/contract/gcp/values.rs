//! Versions, aliases and checksums, and how few requests tell of a change.

use super::*;

const LOOK: &str = "GET /v1/projects/shop/secrets/db/versions/latest";
const READ: &str = "GET /v1/projects/shop/secrets/db/versions/latest:access";

/// Reads and says whether there were values, and what was asked.
async fn look(shared: &Shared, gcp: &mut Gcp, reference: &str, held: &str) -> (Option<Version>, Vec<String>) {
    shared.asked();
    let found = match shared.read(gcp, reference, Some(&version(held))).await.unwrap() {
        Reading::NotModified => None,
        Reading::Fresh(answer) => answer.version,
    };
    (found, shared.asked())
}

fn asked(requests: &[&str]) -> Vec<String> {
    requests.iter().map(|&request| request.to_owned()).collect()
}

#[tokio::test]
async fn a_change_is_looked_for_without_the_value() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary-1");
    let mut gcp = shared.gcp();
    assert_eq!(fresh(shared.read(&mut gcp, "db", None).await).version, Some(version("1")));
    assert_eq!(look(&shared, &mut gcp, "db", "1").await, (None, asked(&[LOOK])));
    shared.fake.world().put("db", b"canary-2");
    assert_eq!(look(&shared, &mut gcp, "db", "1").await, (Some(version("2")), asked(&[LOOK, READ])));
    assert_eq!(look(&shared, &mut gcp, "db?version=2", "2").await, (None, Vec::new()), "a number never changes");
}

#[tokio::test]
async fn who_may_not_look_reads_and_asks_no_more() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    shared.fake.world().unlooked.insert("db".to_owned());
    let mut gcp = shared.gcp();
    fresh(shared.read(&mut gcp, "db", None).await);
    assert_eq!(look(&shared, &mut gcp, "db", "1").await, (None, asked(&[LOOK, READ])));
    assert_eq!(look(&shared, &mut gcp, "db", "1").await, (None, asked(&[READ])));
    // Another login may have been given the right.
    shared.fake.world().unlooked.clear();
    gcp.extend_session().await.unwrap();
    assert_eq!(look(&shared, &mut gcp, "db", "1").await, (None, asked(&[LOOK])));
}

#[tokio::test]
async fn a_used_up_quota_of_looks_does_not_hide_a_change() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary-1");
    let mut gcp = shared.gcp();
    fresh(shared.read(&mut gcp, "db", None).await);
    shared.fake.world().looks_left = Some(1);
    assert_eq!(look(&shared, &mut gcp, "db", "1").await, (None, asked(&[LOOK])));
    assert_eq!(look(&shared, &mut gcp, "db", "1").await, (None, asked(&[LOOK, READ])));
    shared.fake.world().put("db", b"canary-2");
    assert_eq!(look(&shared, &mut gcp, "db", "1").await, (Some(version("2")), asked(&[READ])), "no look for a while");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(601)).await;
    tokio::time::resume();
    shared.fake.world().looks_left = None;
    assert_eq!(look(&shared, &mut gcp, "db", "2").await, (None, asked(&[LOOK])));
}

#[tokio::test]
async fn an_alias_is_followed_when_it_moves() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary-1");
    shared.fake.world().put("db", b"canary-2").aliases.insert("live".to_owned(), 1);
    let mut gcp = shared.gcp();
    assert_eq!(fresh(shared.read(&mut gcp, "db?version=live", None).await).version, Some(version("1")));
    let path = LOOK.replace("latest", "live");
    assert_eq!(look(&shared, &mut gcp, "db?version=live", "1").await, (None, asked(&[&path])));
    shared.fake.world().secret("db").aliases.insert("live".to_owned(), 2);
    let read = format!("{path}:access");
    assert_eq!(look(&shared, &mut gcp, "db?version=live", "1").await, (Some(version("2")), asked(&[&path, &read])));
    let error = shared.refused(&mut gcp, "db?version=gone").await;
    assert_error(&error, ErrorKind::NotFound, &["projects/shop/secrets/db", "no version gone"]);
}

#[tokio::test]
async fn a_damaged_value_is_not_delivered() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    let mut gcp = shared.gcp();
    shared.fake.world().damage = 1;
    assert_error(&shared.refused(&mut gcp, "db").await, ErrorKind::Unavailable, &["damaged", "CRC32C"]);
    fresh(shared.read(&mut gcp, "db", None).await);
}

#[tokio::test]
async fn p9_a_version_that_cannot_be_read_says_why() {
    let shared = Shared::new().await;
    let mut gcp = shared.gcp();
    for (state, part) in [("DISABLED", "enable that version"), ("DESTROYED", "was destroyed"), ("x", "present state")] {
        shared.fake.world().remove("db");
        shared.fake.world().put("db", b"canary-1");
        shared.fake.world().put("db", b"canary-2").versions[1].state = state;
        let error = shared.read(&mut gcp, "db", Some(&version("1"))).await.unwrap_err();
        assert_error(&error, ErrorKind::NotFound, &["projects/shop/secrets/db", part]);
        let error = shared.refused(&mut gcp, "db?version=2").await;
        assert_error(&error, ErrorKind::NotFound, &["in version 2", part]);
        fresh(shared.read(&mut gcp, "db?version=1", None).await);
    }
}

#[tokio::test]
async fn a_regional_secret_has_its_location_in_its_name() {
    let shared = Shared::new().await;
    shared.fake.world().put("locations/europe-west3/db", b"canary");
    let settings = GcpSettings { location: Some("europe-west3".to_owned()), ..shared.usual() };
    let mut gcp = shared.gcp_with(&settings, Some(ACCOUNT));
    let request = settings.resolve("gcp", &"db".parse().unwrap()).unwrap();
    fresh(super::super::read(&mut gcp, &request, None).await);
    let path = "GET /v1/projects/shop/locations/europe-west3/secrets/db/versions/latest:access";
    assert_eq!(shared.asked().last().unwrap(), path);
}

#[tokio::test]
async fn p9_a_denial_says_what_to_give_whom() {
    let shared = Shared::new().await;
    shared.fake.world().put("db", b"canary");
    let mut gcp = shared.gcp();
    assert_error(
        &shared.refused(&mut gcp, "gcp:projects/other/secrets/db").await,
        ErrorKind::Denied,
        &["projects/other/secrets/db", ACCOUNT, "roles/secretmanager.secretAccessor"],
    );
    for (reason, part) in
        [("SERVICE_DISABLED", "API is not enabled"), ("ACCESS_TOKEN_SCOPE_INSUFFICIENT", "scope cloud-platform")]
    {
        shared.fake.world().denial = Some(reason);
        assert_error(&shared.refused(&mut gcp, "db").await, ErrorKind::Denied, &[part]);
    }
}

#[tokio::test]
async fn a_project_without_quota_is_asked_once_a_batch() {
    let shared = Shared::new().await;
    let mut gcp = shared.gcp();
    gcp.extend_session().await.unwrap();
    let requests = ["a", "b", "c"].map(|name| shared.request(name));
    let throttled = ErrorKind::Throttled { retry_after: Some(Duration::from_secs(4)) };
    for (status, kind) in [(429, throttled), (503, ErrorKind::Unavailable)] {
        let headers = vec![("retry-after", "4".to_owned())];
        shared.fake.fail(Shared::is_read, 1, Fault::Status(status, headers, "canary".into()));
        shared.asked();
        for result in gcp.read(&requests, &Known::new()).await {
            assert_error(&result.unwrap_err(), kind, &[]);
        }
        assert_eq!(shared.asked().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_is_not_google_is_not_taken_for_a_missing_secret() {
    let shared = Shared::new().await;
    let mut gcp = shared.gcp();
    shared.fake.fail(Shared::is_read, 1, Fault::Status(404, Vec::new(), "<html>canary".into()));
    assert_error(&shared.refused(&mut gcp, "db").await, ErrorKind::Unavailable, &["not Google's"]);
    let other = json!({"name": "projects/1/secrets/other/versions/1", "payload": {"data": "Y2FuYXJ5"}});
    shared.fake.fail(Shared::is_read, 1, Fault::Body(other.to_string()));
    assert_error(&shared.refused(&mut gcp, "db").await, ErrorKind::Unavailable, &["Secret Manager's JSON"]);
}

#[tokio::test]
async fn there_are_no_leases() {
    let shared = Shared::new().await;
    let mut gcp = shared.gcp();
    let lease = Lease { id: "canary".into(), ttl: Duration::from_secs(1), renewable: true };
    assert_error(&gcp.renew(&lease).await.unwrap_err(), ErrorKind::Invalid, &["no leases"]);
    assert_error(&gcp.revoke(&lease).await.unwrap_err(), ErrorKind::Invalid, &["no leases"]);
    assert!(!format!("{gcp:?}").contains("canary"));
}
