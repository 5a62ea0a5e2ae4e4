//! Leases, logins and the hand-over of both.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::super::{Event, Source};
use super::fake::{FakeClock, Secret, Store, events, failures, generation, generations, source, text, with_clock};
use crate::provider::ErrorKind;

fn count(calls: &[String], word: &str) -> usize {
    calls.iter().filter(|call| call.starts_with(word)).count()
}

/// Delivers whatever comes within `seconds`, as an agent does; the credentials in use at the end of it.
async fn run(source: &mut Source, seconds: u64) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut users = Vec::new();
    while let Ok(event) = tokio::time::timeout_at(until, source.next()).await {
        if let Event::Changed(generation) = event {
            users.push(text(&generation, "a:db", "user"));
            source.delivered(&generation.id);
        }
    }
    users
}

#[tokio::test(start_paused = true)]
async fn p4_a_lease_is_renewed_and_never_polled() {
    let a = Store::default();
    a.put_leased("db", 600, 1_000_000, true);
    let mut source = source(&["a:db"], &[("a", &a)]);
    assert_eq!(run(&mut source, 6000).await, ["lease-1"]);
    source.refresh_now();
    a.push.notify_one();
    assert!(run(&mut source, 10).await.is_empty(), "a healthy lease is not refreshed");
    let calls = a.state().take_calls();
    assert_eq!(count(&calls, "read"), 1);
    assert!((14..=17).contains(&count(&calls, "renew")), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn p4_what_cannot_be_renewed_is_replaced_before_its_end() {
    // (TTL, maximum, renewable) → the second credential comes between
    for (ttl, max, renewable, earliest, latest) in
        [(600, 600, true, 360, 401), (600, 6000, false, 360, 401), (600, 700, true, 400, 640)]
    {
        let a = Store::default();
        a.put_leased("db", ttl, max, renewable);
        let mut source = source(&["a:db"], &[("a", &a)]);
        let first = generation(&mut source, 1).await;
        source.delivered(&first.id);
        let start = Instant::now();
        let second = generation(&mut source, 700).await;
        assert_eq!(text(&second, "a:db", "user"), "lease-2");
        let at = start.elapsed().as_secs();
        assert!((earliest..=latest).contains(&at), "{ttl} {max} {renewable}: {at}");
        assert!(a.state().is_live("lease-1"), "make before break");

        events(&mut source, 60).await;
        assert!(a.state().is_live("lease-1"), "not delivered yet, so the first is still in use");
        source.delivered(&second.id);
        events(&mut source, 9).await;
        assert!(a.state().is_live("lease-1"), "drain time");
        events(&mut source, 2).await;
        assert!(!a.state().is_live("lease-1") && a.state().is_live("lease-2"), "revoked after it");
    }
}

#[tokio::test(start_paused = true)]
async fn p4_what_was_never_delivered_is_not_kept() {
    let a = Store::default();
    a.put_leased("db", 600, 600, false);
    let mut source = source(&["a:db"], &[("a", &a)]);
    let first = generation(&mut source, 1).await;
    source.delivered(&first.id);
    for _ in 0..3 {
        generation(&mut source, 600).await;
        events(&mut source, 1).await;
        let state = a.state();
        assert!(state.live("db") <= 2, "a held pod has its own and the latest");
    }
}

#[tokio::test(start_paused = true)]
async fn p4_a_lease_that_the_operator_revoked_is_replaced_at_its_next_renewal() {
    for kind in [None, Some(ErrorKind::Denied), Some(ErrorKind::NotFound)] {
        let a = Store::default();
        a.put_leased("db", 600, 6000, true);
        let mut source = source(&["a:db"], &[("a", &a)]);
        generation(&mut source, 1).await;
        match kind {
            None => a.state().leases.get_mut("lease-1").unwrap().ends = Instant::now(),
            kind => a.state().failing_renewals = kind,
        }
        let came = events(&mut source, 405).await;
        assert!(came.iter().all(|event| !matches!(event, Event::Failed(_))), "replaced, not failed: {came:?}");
        assert_eq!(text(&generations(came)[0], "a:db", "user"), "lease-2", "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn p3_a_lease_outlives_an_outage_shorter_than_its_last_third() {
    let a = Store::default();
    a.put_leased("db", 600, 60_000, true);
    let mut source = source(&["a:db"], &[("a", &a)]);
    assert_eq!(run(&mut source, 350).await, ["lease-1"]);
    a.state().failing = Some(ErrorKind::Unavailable);
    let failed = failures(events(&mut source, 200).await);
    assert!(failed.len() >= 4, "{}", failed.len());
    a.state().failing = None;
    assert_eq!(run(&mut source, 49).await, ["lease-2"], "late as it is, not later than the end of the first");
    assert!(a.state().is_live("lease-2"));
    // Renewals alone fail: another read gets through before the end.
    a.state().failing_renewals = Some(ErrorKind::Unavailable);
    let replaced = generation(&mut source, 600).await;
    assert_eq!(text(&replaced, "a:db", "user"), format!("lease-{}", a.state().leases.len()));
    assert_eq!(a.state().live("db"), 2, "make before break");
}

#[tokio::test(start_paused = true)]
async fn refresh_now_helps_a_lease_whose_replacement_fails() {
    let a = Store::default();
    a.put_leased("db", 600, 600, false);
    let mut source = source(&["a:db"], &[("a", &a)]);
    generation(&mut source, 1).await;
    a.state().failing_path.insert("db".to_owned(), ErrorKind::Denied);
    assert!(!failures(events(&mut source, 500).await).is_empty());
    a.state().failing_path.clear();
    source.refresh_now();
    assert_eq!(text(&generation(&mut source, 1).await, "a:db", "user"), "lease-2");
}

#[tokio::test(start_paused = true)]
async fn certificates_without_a_lease_are_not_polled_either() {
    let a = Store::default();
    let json = r#"{"user":"certificate"}"#.to_owned();
    a.set("db", Secret { json, expires_in: Some(86_400), ..Secret::default() });
    let mut source = source(&["a:db"], &[("a", &a)]);
    run(&mut source, 50_000).await;
    source.refresh_now();
    run(&mut source, 1000).await;
    assert_eq!(a.state().take_calls(), ["read db"]);
    run(&mut source, 7000).await;
    assert_eq!(a.state().take_calls(), ["read db"], "two thirds of its day are over");
}

#[tokio::test(start_paused = true)]
async fn p4_waking_up_late_replaces_what_ended_meanwhile() {
    let a = Store::default();
    a.put_leased("db", 3600, 36_000, true);
    let clock = FakeClock::new();
    let mut source = with_clock(&["a:db"], &[("a", &a)], &clock);
    assert_eq!(run(&mut source, 60).await, ["lease-1"]);
    clock.suspend(20_000);
    // To the store it is over; the timers know nothing.
    a.state().leases.get_mut("lease-1").unwrap().ends = Instant::now();
    assert_eq!(run(&mut source, 61).await, ["lease-2"], "noticed within a minute");
    let calls = a.state().take_calls();
    assert_eq!(count(&calls, "renew"), 0, "what is over is not renewed: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn p4_one_login_is_extended_and_leases_follow_another() {
    let a = Store::default();
    a.put_leased("db", 36_000, 360_000, true);
    a.state().logins = Some((600, true));
    let mut renewing = source(&["a:db"], &[("a", &a)]);
    assert_eq!(run(&mut renewing, 6000).await, ["lease-1"]);
    let calls = a.state().take_calls();
    assert_eq!((count(&calls, "login"), count(&calls, "read")), (1, 1));
    assert!((14..=17).contains(&count(&calls, "extend")), "{calls:?}");

    let a = Store::default();
    a.put_leased("db", 36_000, 360_000, true);
    a.state().logins = Some((600, false));
    let mut replacing = source(&["a:db"], &[("a", &a)]);
    let start = Instant::now();
    generation(&mut replacing, 1).await;
    assert_eq!(text(&generation(&mut replacing, 600).await, "a:db", "user"), "lease-2");
    assert!(start.elapsed() < Duration::from_secs(401), "before the end of the login that it hung on");
}

#[tokio::test(start_paused = true)]
async fn p4_leases_that_outlive_logins_stay_when_another_is_made() {
    let a = Store::default();
    a.state().logins = Some((3000, false));
    a.state().outliving = true;
    a.put_leased("db", 600, 1_000_000, true);
    let mut first = source(&["a:db"], &[("a", &a)]);
    assert_eq!(run(&mut first, 6000).await, ["lease-1"]);
    assert!(a.state().login_count > 1);
    // Nor does a login that ended during a restart end them.
    let mut hand_over = first.hand_over();
    drop(first);
    hand_over.sessions[0].ends = Some(std::time::UNIX_EPOCH);
    let mut second = source(&["a:db"], &[("a", &a)]);
    second.resume(hand_over);
    assert_eq!(run(&mut second, 300).await, ["lease-1"]);
}

#[tokio::test(start_paused = true)]
async fn p4_a_login_that_cannot_be_extended_is_tried_until_its_end() {
    let a = Store::default();
    a.put("db", "1", r#"{"user":"static"}"#);
    a.state().logins = Some((600, true));
    let mut source = source(&["a:db"], &[("a", &a)]);
    run(&mut source, 350).await;
    a.state().failing = Some(ErrorKind::Unavailable);
    let failed = failures(events(&mut source, 300).await);
    assert!(failed.iter().filter(|failure| failure.request.is_none()).count() >= 4, "{failed:?}");
    a.state().failing = None;
    events(&mut source, 70).await;
    assert_eq!(count(&a.state().take_calls(), "login"), 2, "and then made anew");
}

#[tokio::test(start_paused = true)]
async fn p4_the_next_process_goes_on_with_the_same_login_and_leases() {
    let a = Store::default();
    a.put_leased("db", 600, 60_000, true);
    a.put_plain("plain", r#"{"k":"1"}"#);
    a.put("kv", "1", r#"{"k":"1"}"#);
    a.state().logins = Some((3600, true));
    let clock = FakeClock::new();
    let requests = ["a:db", "a:plain", "a:kv"];
    let mut init = with_clock(&requests, &[("a", &a)], &clock);
    let first = generation(&mut init, 1).await;
    let hand_over = init.hand_over();
    drop(init);
    a.state().take_calls();

    tokio::time::advance(Duration::from_mins(5)).await;
    let mut sidecar = with_clock(&requests, &[("a", &a)], &clock);
    sidecar.resume(hand_over);
    let resumed = generation(&mut sidecar, 1).await;
    assert_eq!(resumed.id, first.id, "nothing changed, not even what has no version");
    assert_eq!(resumed.answers, first.answers);
    assert_eq!(a.state().take_calls(), ["read kv plain"], "no login, no lease");

    assert!(generations(events(&mut sidecar, 6000).await).is_empty());
    let calls = a.state().take_calls();
    assert_eq!((count(&calls, "login"), a.state().leases.len()), (0, 1), "{calls:?}");
    assert!(count(&calls, "renew lease-1") >= 14);
}

#[tokio::test(start_paused = true)]
async fn p4_a_changed_secret_without_version_is_counted_across_the_hand_over() {
    let a = Store::default();
    a.put_plain("plain", r#"{"k":"1"}"#);
    let clock = FakeClock::new();
    let mut before = with_clock(&["a:plain"], &[("a", &a)], &clock);
    let first = generation(&mut before, 1).await;
    a.put_plain("plain", r#"{"k":"2"}"#);
    let mut after = with_clock(&["a:plain"], &[("a", &a)], &clock);
    after.resume(before.hand_over());
    let second = generation(&mut after, 1).await;
    assert_eq!(second.id.0, first.id.0.replace("-1", "-2"));
}

#[tokio::test(start_paused = true)]
async fn p4_what_ended_before_the_hand_over_is_made_anew() {
    // (seconds between the processes, login TTL) → live leases then, after delivery and drain
    for (pause, login) in [(700, 36_000), (300, 200)] {
        let a = Store::default();
        a.put_leased("db", 600, 60_000, true);
        a.state().logins = Some((login, true));
        let clock = FakeClock::new();
        let mut before = with_clock(&["a:db"], &[("a", &a)], &clock);
        generation(&mut before, 1).await;
        let hand_over = before.hand_over();
        tokio::time::advance(Duration::from_secs(pause)).await;
        let mut after = with_clock(&["a:db"], &[("a", &a)], &clock);
        after.resume(hand_over);
        assert_eq!(run(&mut after, 20).await, ["lease-2"], "{pause}");
        assert_eq!(a.state().live("db"), 1, "{pause}: what is left of the first is revoked");
    }
}

#[tokio::test(start_paused = true)]
async fn p4_a_drain_survives_the_hand_over() {
    let a = Store::default();
    a.put_leased("db", 600, 600, false);
    let clock = FakeClock::new();
    let mut before = with_clock(&["a:db"], &[("a", &a)], &clock);
    let first = generation(&mut before, 1).await;
    before.delivered(&first.id);
    generation(&mut before, 600).await;
    let hand_over = before.hand_over();
    assert_eq!((hand_over.leased.len(), hand_over.retired.len()), (1, 1));
    drop(before);
    let mut after = with_clock(&["a:db"], &[("a", &a)], &clock);
    after.resume(hand_over);
    assert_eq!(run(&mut after, 15).await, ["lease-2"], "the same one");
    assert!(!a.state().is_live("lease-1") && a.state().is_live("lease-2"));
}

#[tokio::test(start_paused = true)]
async fn revoke_all_leaves_nothing_behind() {
    let a = Store::default();
    a.state().logins = Some((3600, true));
    a.put_leased("db", 600, 600, false);
    let mut source = source(&["a:db"], &[("a", &a)]);
    let first = generation(&mut source, 1).await;
    source.delivered(&first.id);
    generation(&mut source, 600).await;
    assert_eq!(a.state().live("db"), 2);
    source.revoke_all().await;
    assert_eq!(a.state().live("db"), 0);
    let last = a.state().calls.last().cloned().unwrap_or_default();
    assert!(last.starts_with("end "), "the login ends after the leases, since it revokes them: {last}");
    let hand_over = source.hand_over();
    assert!(hand_over.leased.is_empty() && hand_over.retired.is_empty() && hand_over.sessions.is_empty());
}

/// A day with a credential of 20 s that can be renewed up to 60 s, as an agent lives it: delivered 200 ms later.
#[tokio::test(start_paused = true)]
async fn p4_through_a_day_the_delivered_credential_lives_and_two_live_only_in_a_drain() {
    let a = Store::default();
    a.put_leased("db", 20, 60, true);
    a.state().slow = Duration::from_millis(30);
    let mut source = source(&["a:db"], &[("a", &a)]);
    let start = Instant::now();
    let mut delivered: Option<String> = None;
    let mut replaced_at = start;
    let mut seen = BTreeSet::new();
    while start.elapsed() < Duration::from_hours(24) {
        match tokio::time::timeout(Duration::from_millis(500), source.next()).await {
            Ok(Event::Changed(generation)) => {
                tokio::time::advance(Duration::from_millis(200)).await;
                delivered = Some(text(&generation, "a:db", "user"));
                seen.extend(delivered.clone());
                replaced_at = Instant::now();
                source.delivered(&generation.id);
            }
            Ok(Event::Unchanged) | Err(_) => {}
            Ok(failed) => panic!("{failed:?}"),
        }
        let mut state = a.state();
        state.leases.retain(|_, lease| lease.ends > Instant::now());
        let Some(delivered) = &delivered else { continue };
        assert!(state.is_live(delivered), "{delivered} is over at {:?}", start.elapsed());
        let (live, since) = (state.live("db"), replaced_at.elapsed().as_secs());
        let replacing = state.calls.last().is_some_and(|call| call.starts_with("read"));
        assert!(live == 1 || (live == 2 && (since <= 11 || replacing)), "{live} live {since} s after {delivered}");
    }
    let expected = 86_400 / 50;
    assert!((expected * 9 / 10..=expected * 12 / 10).contains(&seen.len()), "{} credentials", seen.len());
}

#[tokio::test(start_paused = true)]
async fn p3_a_store_that_answers_one_request_again_is_asked_for_the_others() {
    let a = Store::default();
    a.put_leased("db", 20, 1_000_000, true);
    a.put("x", "0", r#"{"k":"x0"}"#);
    let mut source = source(&["a:db", "a:x"], &[("a", &a)]);
    let mut user = text(&generation(&mut source, 1).await, "a:db", "user");
    for round in 1..=10 {
        a.state().failing = Some(ErrorKind::Unavailable);
        // Long enough for the lease to end, and for both to wait a minute by chances of their own.
        events(&mut source, 600).await;
        a.state().failing = None;
        let new = format!("x{round}");
        a.put("x", &round.to_string(), &format!(r#"{{"k":"{new}"}}"#));
        let first = generation(&mut source, 70).await;
        let start = Instant::now();
        let mut last = first;
        while text(&last, "a:x", "k") != new || text(&last, "a:db", "user") == user {
            last = generation(&mut source, 3).await;
        }
        assert!(start.elapsed() <= Duration::from_secs(3), "round {round}: {:?}", start.elapsed());
        user = text(&last, "a:db", "user");
        source.delivered(&last.id);
    }
}
