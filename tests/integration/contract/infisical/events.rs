//! The subscription to changes.

use tokio::time::timeout;

use super::*;

/// A pod that wants events, and has read a folder.
async fn listening(year: Year) -> (Pod, Infisical) {
    let pod = Pod::with(year, json!({"events": true})).await;
    pod.put("/a", "K", "canary-1");
    let mut infisical = pod.infisical();
    pod.fresh(&mut infisical, "/a").await;
    (pod, infisical)
}

/// Whether a change is told soon.
async fn is_told(infisical: &mut Infisical) -> bool {
    timeout(Duration::from_secs(5), infisical.changed()).await.is_ok()
}

/// Whether nothing is told for a while.
async fn is_quiet(infisical: &mut Infisical) -> bool {
    timeout(Duration::from_millis(100), infisical.changed()).await.is_err()
}

/// Waits for what comes by itself.
async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(5), wait).await.expect("it came to nothing");
}

#[tokio::test]
async fn a_change_is_pushed_and_read() {
    for year in [Year::Y2025, Year::Y2026] {
        let (pod, mut infisical) = listening(year).await;
        assert!(is_told(&mut infisical).await, "what happened before anybody listened");
        assert!(is_quiet(&mut infisical).await);
        for round in 2..5 {
            pod.fake.server().ping();
            pod.put("/a", "K", &format!("canary-{round}"));
            assert!(is_told(&mut infisical).await);
            assert_eq!(shown(&pod.fresh(&mut infisical, "/a").await)[0].1, format!("canary-{round}"));
        }
        pod.put("/elsewhere", "K", "canary");
        pod.fake.server().ping();
        assert!(is_quiet(&mut infisical).await);
        pod.fake.server().import("prod", "/a", ("prod", "/elsewhere"));
        assert!(is_told(&mut infisical).await);
        assert_eq!(pod.fake.server().streams(), 1);
        let subscriptions = pod.seen().into_iter().filter(|path| path.starts_with("v1/events")).count();
        assert_eq!(subscriptions, 1);
    }
}

#[tokio::test]
async fn a_wait_may_stop_at_any_moment() {
    let (pod, mut infisical) = listening(Year::Y2026).await;
    for _ in 0..50 {
        let _ = timeout(Duration::from_millis(1), infisical.changed()).await;
    }
    assert_eq!(pod.fake.server().streams(), 1, "one connection");
    while !is_quiet(&mut infisical).await {}
    pod.put("/a", "K", "canary-2");
    assert!(is_told(&mut infisical).await);
    drop(infisical);
    // The connection goes with the provider.
    until(|| pod.fake.server().streams() == 0).await;
}

#[tokio::test]
async fn the_hourly_cut_is_followed_by_another_subscription_and_a_look() {
    let (pod, mut infisical) = listening(Year::Y2026).await;
    assert!(is_told(&mut infisical).await);
    pod.fake.server().cut_streams();
    pod.put("/a", "K", "canary-2");
    assert!(is_told(&mut infisical).await, "nobody told what happened meanwhile");
    pod.put("/a", "K", "canary-3");
    assert!(is_told(&mut infisical).await);
}

#[tokio::test]
async fn a_renewed_token_is_used_for_the_next_subscription() {
    let (pod, mut infisical) = listening(Year::Y2026).await;
    assert!(is_told(&mut infisical).await);
    pod.fake.server().revoke_tokens();
    pod.fake.server().cut_streams();
    assert!(is_quiet(&mut infisical).await, "401");
    pod.fresh(&mut infisical, "/a").await;
    assert!(is_told(&mut infisical).await, "the read has logged in");
}

#[tokio::test]
async fn where_events_are_not_to_be_had_reads_go_on() {
    for (what, year, prepare) in [
        ("no plan", Year::Y2026, (|pod: &Pod| pod.fake.server().set_plan(false)) as fn(&Pod)),
        ("no right", Year::Y2026, |pod: &Pod| pod.fake.server().identity(IDENTITY).may_subscribe = false),
        ("no such path", Year::Y2024, |_: &Pod| {}),
    ] {
        let (pod, mut infisical) = listening(year).await;
        prepare(&pod);
        pod.seen();
        assert!(is_quiet(&mut infisical).await, "{what}");
        pod.put("/a", "K", "canary-2");
        assert!(is_quiet(&mut infisical).await, "{what}");
        pod.fresh(&mut infisical, "/a").await;
        let asked = pod.seen().into_iter().filter(|path| path.starts_with("v1/events")).count();
        assert_eq!(asked, 1, "{what}: it is asked for rarely");
    }
}

#[tokio::test]
async fn what_only_looks_like_a_stream_is_not_opened_again_and_again() {
    let (pod, mut infisical) = listening(Year::Y2026).await;
    pod.fake.fail(|received| received.path.contains("/events/"), 1000, Fault::Body("<html>canary</html>".to_owned()));
    pod.seen();
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(400) {
        let _ = timeout(Duration::from_millis(10), infisical.changed()).await;
    }
    assert!(pod.seen().len() <= 3);
}

#[tokio::test]
async fn events_are_the_operators_choice() {
    let pod = Pod::new().await;
    pod.put("/a", "K", "canary");
    let mut infisical = pod.infisical();
    pod.fresh(&mut infisical, "/a").await;
    pod.seen();
    assert!(is_quiet(&mut infisical).await);
    assert!(pod.seen().is_empty());
}

#[tokio::test]
async fn an_error_ends_a_subscription_and_polling_goes_on() {
    let (pod, mut infisical) = listening(Year::Y2026).await;
    assert!(is_told(&mut infisical).await);
    pod.fake.server().end_streams_in_error();
    until(|| pod.fake.server().streams() == 0).await;
    pod.put("/a", "K", "canary-2");
    pod.fresh(&mut infisical, "/a").await;
}

/// An agent that is denied waits for no store: neither may what was begun before.
#[tokio::test]
async fn while_nobody_waits_nothing_is_asked() {
    let (pod, mut infisical) = listening(Year::Y2026).await;
    assert!(is_told(&mut infisical).await);
    pod.seen();
    pod.fake.server().cut_streams();
    // As long as it would take to subscribe again, and more.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(pod.seen(), [""; 0]);
    pod.put("/a", "K", "canary-2");
    assert!(is_told(&mut infisical).await, "and then it goes on");
}
