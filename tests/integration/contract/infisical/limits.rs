//! Rate limits, which all pods behind one address share.

use super::*;

async fn limited(year: Year, a_minute: u64) -> Pod {
    let pod = Pod::of(year).await;
    pod.put("/a", "K", "canary");
    pod.fake.server().set_limit(Limited::Secrets, a_minute);
    pod
}

fn wish(error: &ProviderError) -> Duration {
    match error.kind {
        ErrorKind::Throttled { retry_after: Some(wish) } => wish,
        _ => panic!("{error}"),
    }
}

#[tokio::test]
async fn patience_is_kept_whatever_the_status_says() {
    // The server of 2024 says 500.
    for year in [Year::Y2024, Year::Y2025, Year::Y2026] {
        let pod = limited(year, 3).await;
        let (mut one, mut two) = (pod.infisical(), pod.infisical());
        pod.fresh(&mut two, "/a").await;
        pod.fresh(&mut one, "/a").await;
        while pod.read(&mut one, "/a").await.is_ok() {}
        let error = pod.refused(&mut two, "/a").await;
        assert!((50..=60).contains(&wish(&error).as_secs()), "{year:?} {error}");
        assert_error(&error, error.kind, &["asks for patience"]);
        pod.fake.advance(Duration::from_secs(61));
        pod.fresh(&mut pod.infisical(), "/a").await;
    }
}

#[tokio::test]
async fn what_the_headers_say_is_used_up_is_not_asked_for() {
    let pod = limited(Year::Y2026, 2).await;
    let mut infisical = pod.infisical();
    pod.fresh(&mut infisical, "/a").await;
    pod.fresh(&mut infisical, "/a").await;
    pod.seen();
    let error = pod.refused(&mut infisical, "/a").await;
    assert!((50..=60).contains(&wish(&error).as_secs()), "{error}");
    assert!(pod.seen().is_empty(), "the headers told");
    assert!(pod.fake.take_answered().iter().all(|(.., status)| *status == 200));
}

#[tokio::test]
async fn unchanged_answers_count_too() {
    let pod = limited(Year::Y2026, 2).await;
    let mut infisical = pod.infisical();
    let held = pod.fresh(&mut infisical, "/a").await.version;
    assert_eq!(pod.read_again(&mut infisical, "/a", held.as_ref()).await, Ok(Reading::NotModified));
    wish(&pod.read_again(&mut infisical, "/a", held.as_ref()).await.unwrap_err());
}

#[tokio::test]
async fn a_login_may_be_limited_while_reads_are_not() {
    let pod = limited(Year::Y2026, 100).await;
    pod.fake.server().set_limit(Limited::Write, 1);
    let mut infisical = pod.infisical();
    pod.fresh(&mut infisical, "/a").await;
    pod.fresh(&mut infisical, "/a").await;
    wish(&infisical.extend_session().await.unwrap_err());
    wish(&pod.refused(&mut pod.infisical(), "/a").await);
    pod.fresh(&mut infisical, "/a").await;
}

#[tokio::test]
async fn a_server_without_limits_sets_no_pace() {
    let pod = Pod::new().await;
    pod.put("/a", "K", "canary");
    let mut infisical = pod.infisical();
    for _ in 0..3 {
        pod.fresh(&mut infisical, "/a").await;
    }
    assert_eq!(infisical.pace(), None);
}
