use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use self::fake::{
    FakeClock, Secret, Store, events, failures, generation, generations, plan, read_again, request, source, text,
    with_clock,
};
use super::*;
use crate::provider::file::{FileSettings, Files};
use crate::provider::{Login, Version};

pub(crate) mod fake;
mod leases;
mod unlock;

#[tokio::test(start_paused = true)]
async fn the_first_generation_waits_for_all_and_asks_each_once() {
    let (a, b) = (Store::default(), Store::default());
    a.put("x", "1", r#"{"k":"x1"}"#);
    a.put("y", "1", r#"{"k":"y1"}"#);
    b.put("z", "7", r#"{"k":"z7"}"#);
    b.state().slow = Duration::from_secs(5);
    let mut source = source(&["a:x", "a:y", "a:x", "b:z", "b:none?"], &[("a", &a), ("b", &b)]);
    let start = Instant::now();
    assert!(matches!(source.next().await, Event::Unchanged), "a's answers alone are no generation");
    let first = generation(&mut source, 10).await;
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(first.answers.len(), 3);
    assert_eq!(text(&first, "b:z", "k"), "z7");
    assert_eq!(first.versions[&request("b:z")], Version("7".to_owned()));
    assert_eq!(a.state().take_calls(), ["read x y"]);
    assert_eq!(b.state().take_calls(), ["read none z"]);
}

#[tokio::test(start_paused = true)]
async fn one_change_makes_one_generation_and_no_change_none() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"x1"}"#);
    a.put("y", "1", r#"{"k":"y1"}"#);
    let mut source = source(&["a:x", "a:y"], &[("a", &a)]);
    let first = generation(&mut source, 1).await;
    let quiet = events(&mut source, 600).await;
    assert!(quiet.iter().all(|event| matches!(event, Event::Unchanged)), "{quiet:?}");
    assert!((9..=11).contains(&quiet.len()), "polled every 60 s ± 10 %: {}", quiet.len());
    a.put("x", "2", r#"{"k":"x2"}"#);
    a.put("y", "2", r#"{"k":"y2"}"#);
    let changed = generations(events(&mut source, 200).await);
    assert_eq!(changed.len(), 1, "both in one");
    assert_eq!((text(&changed[0], "a:x", "k"), text(&changed[0], "a:y", "k")), ("x2".into(), "y2".into()));
    assert_ne!(first.id, changed[0].id);
}

#[tokio::test(start_paused = true)]
async fn replicas_agree_on_the_id_of_the_same_versions() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"x1"}"#);
    let (mut one, mut two) = (source(&["a:x", "a:n?"], &[("a", &a)]), source(&["a:x", "a:n?"], &[("a", &a)]));
    let (one, two) = (generation(&mut one, 1).await, generation(&mut two, 1).await);
    assert_eq!(one.id, two.id);
    assert!(!one.id.0.contains('-'), "no counter: {}", one.id);
}

#[tokio::test(start_paused = true)]
async fn stores_without_versions_are_counted() {
    let a = Store::default();
    a.put_plain("x", r#"{"k":"1"}"#);
    let mut source = source(&["a:x"], &[("a", &a)]);
    let first = generation(&mut source, 1).await;
    assert!(first.id.0.ends_with("-1"), "{}", first.id);
    assert!(generations(events(&mut source, 200).await).is_empty());
    a.put_plain("x", r#"{"k":"2"}"#);
    let second = generation(&mut source, 100).await;
    assert_eq!(second.id.0, first.id.0.replace("-1", "-2"));
}

#[tokio::test(start_paused = true)]
async fn other_content_under_the_same_version_is_a_change_with_a_name_of_its_own() {
    let a = Store::default();
    a.state().unconditional = true;
    a.put("x", "1", r#"{"k":"1"}"#);
    let mut source = source(&["a:x"], &[("a", &a)]);
    let first = generation(&mut source, 1).await;
    a.put("x", "1", r#"{"k":"2"}"#);
    let second = generation(&mut source, 100).await;
    assert_ne!(first.id, second.id);
    assert!(second.id.0.ends_with("-1"), "a counter now: {}", second.id);
    assert!(generations(events(&mut source, 100).await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn p3_a_slow_or_failing_store_does_not_hold_back_another() {
    let (a, b) = (Store::default(), Store::default());
    a.put("x", "1", r#"{"k":"x1"}"#);
    b.put("z", "1", r#"{"k":"z1"}"#);
    let mut source = source(&["a:x", "b:z"], &[("a", &a), ("b", &b)]);
    generation(&mut source, 1).await;
    b.state().slow = Duration::from_secs(100_000);
    a.put("x", "2", r#"{"k":"x2"}"#);
    let second = generation(&mut source, 70).await;
    assert_eq!((text(&second, "a:x", "k"), text(&second, "b:z", "k")), ("x2".into(), "z1".into()));
    a.put("x", "3", r#"{"k":"x3"}"#);
    assert_eq!(text(&generation(&mut source, 70).await, "a:x", "k"), "x3");
    assert_eq!(b.state().take_calls().len(), 2, "one read is still in flight, and no other");
}

#[tokio::test(start_paused = true)]
async fn p3_the_last_good_answers_stay_whatever_fails() {
    for (kind, at_least, at_most) in [
        (ErrorKind::Unavailable, 5, 200),
        (ErrorKind::Throttled { retry_after: Some(Duration::from_mins(2)) }, 4, 5),
        (ErrorKind::Denied, 2, 12),
        (ErrorKind::NotFound, 2, 12),
        (ErrorKind::Invalid, 2, 12),
    ] {
        let (a, b) = (Store::default(), Store::default());
        a.put("x", "1", r#"{"k":"x1"}"#);
        b.put("z", "1", r#"{"k":"z1"}"#);
        let mut source = source(&["a:x?", "b:z"], &[("a", &a), ("b", &b)]);
        generation(&mut source, 1).await;
        a.state().failing = Some(kind);
        let failed = failures(events(&mut source, 600).await);
        assert!((at_least..=at_most).contains(&failed.len()), "{kind:?}: {} attempts", failed.len());
        assert!(failed.iter().all(|failure| failure.error.kind == kind && failure.request == Some(request("a:x"))));
        b.put("z", "2", r#"{"k":"z2"}"#);
        let other = generation(&mut source, 70).await;
        assert_eq!(text(&other, "a:x", "k"), "x1", "{kind:?}");
        a.state().failing = None;
        a.put("x", "2", r#"{"k":"x2"}"#);
        assert_eq!(text(&generation(&mut source, 310).await, "a:x", "k"), "x2", "{kind:?}: recovers by itself");
    }
}

#[tokio::test(start_paused = true)]
async fn p3_suddenly_empty_or_gone_is_a_failure_and_no_change() {
    let a = Store::default();
    a.put("doc", "1", r#"{"k":"1"}"#);
    a.put("text", "1", r#""full""#);
    a.put("gone", "1", r#"{"k":"1"}"#);
    let mut source = source(&["a:doc", "a:text", "a:gone?"], &[("a", &a)]);
    generation(&mut source, 1).await;
    a.put("doc", "2", "{}");
    a.put("text", "2", r#""""#);
    a.state().secrets.remove("gone");
    let mut came = events(&mut source, 70).await;
    let Some(Event::Changed(second)) = came.pop_front() else { panic!("{came:?}") };
    assert_eq!(text(&second, "a:doc", "k"), "1");
    assert_eq!(text(&second, "a:gone", "k"), "1");
    assert_eq!(second.answers[&request("a:text")].as_value().unwrap().len(), 0, "a single value may be empty");
    let failed = failures(came);
    assert!(failed[0].error.to_string().contains("suddenly empty"), "{failed:?}");
    assert_eq!(failed[0].error.kind, ErrorKind::Unavailable);
    assert_eq!(failed[1].error.kind, ErrorKind::NotFound);
    a.put("doc", "3", r#"{"k":"3"}"#);
    assert_eq!(text(&generation(&mut source, 130).await, "a:doc", "k"), "3");
}

#[tokio::test(start_paused = true)]
async fn an_absent_optional_secret_may_appear() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"x1"}"#);
    let mut source = source(&["a:x", "a:n?"], &[("a", &a)]);
    let first = generation(&mut source, 1).await;
    assert!(!first.answers.contains_key(&request("a:n")));
    a.put("n", "1", r#"{"k":"n1"}"#);
    let second = generation(&mut source, 70).await;
    assert_eq!(text(&second, "a:n", "k"), "n1");
    assert_ne!(first.id, second.id);
}

#[tokio::test(start_paused = true)]
async fn until_the_first_generation_failures_say_whether_waiting_helps() {
    for (kind, permanent, attempts) in [
        (ErrorKind::NotFound, true, 1),
        (ErrorKind::Denied, true, 1),
        (ErrorKind::Unavailable, false, 4),
        (ErrorKind::Throttled { retry_after: Some(Duration::from_secs(20)) }, false, 1),
    ] {
        let a = Store::default();
        a.put("x", "1", r#"{"k":"x1"}"#);
        a.state().failing_path.insert("x".to_owned(), kind);
        let mut source = source(&["a:x"], &[("a", &a)]);
        let failed = failures(events(&mut source, 20).await);
        assert_eq!(failed[0].error.kind.is_permanent(), permanent, "{kind:?}");
        assert!(failed.len() >= attempts, "{kind:?}: {} attempts", failed.len());
        assert!(failed.iter().all(|failure| failure.retry_in.is_some()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_pod_starts_soon_after_its_store_is_back() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"x1"}"#);
    a.state().failing = Some(ErrorKind::Unavailable);
    let mut source = source(&["a:x"], &[("a", &a)]);
    assert!(generations(events(&mut source, 3600).await).is_empty());
    a.state().failing = None;
    generation(&mut source, 12).await;
}

#[tokio::test(start_paused = true)]
async fn p3_a_store_that_is_down_is_asked_for_one_thing_at_a_time_and_for_all_when_it_is_back() {
    // (are there files already) → most reads of something in a minute, later
    for (has_files, most) in [(false, 24), (true, 4)] {
        let a = Store::default();
        let names: Vec<_> = (0..20).map(|number| format!("a:x{number:02}")).collect();
        let requests: Vec<_> = names.iter().map(String::as_str).collect();
        for name in &names {
            a.put(&name[2..], "1", r#"{"k":"1"}"#);
        }
        a.state().logins = Some((7200, true));
        let mut source = source(&requests, &[("a", &a)]);
        if has_files {
            generation(&mut source, 1).await;
        }
        a.state().failing = Some(ErrorKind::Unavailable);
        events(&mut source, 300).await;
        let mut asked: BTreeSet<String> = BTreeSet::new();
        for minute in 0..20 {
            a.state().take_calls();
            events(&mut source, 60).await;
            let calls = a.state().take_calls();
            let reads: Vec<_> = calls.iter().filter_map(|call| call.strip_prefix("read ")).collect();
            assert!((1..=most).contains(&reads.len()), "minute {minute}: {calls:?}");
            assert!(reads.iter().all(|read| !read.contains(' ')), "one thing at a time: {reads:?}");
            asked.extend(reads.into_iter().map(str::to_owned));
        }
        assert!(asked.len() > 10, "each time another one: {asked:?}");
        a.state().failing = None;
        for name in &names {
            a.put(&name[2..], "2", r#"{"k":"2"}"#);
        }
        a.state().take_calls();
        let back = generation(&mut source, if has_files { 65 } else { 13 }).await;
        let last = if has_files { generation(&mut source, 5).await } else { back };
        assert!(names.iter().all(|name| text(&last, name, "k") == "2"));
        let calls = a.state().take_calls();
        assert!(calls.len() <= 4, "one by one no more: {calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn p3_what_always_fails_holds_nothing_else_back() {
    let a = Store::default();
    for name in ["bad1", "bad2", "good"] {
        a.put(name, "1", r#"{"k":"1"}"#);
    }
    let mut source = source(&["a:bad1?", "a:bad2?", "a:good"], &[("a", &a)]);
    generation(&mut source, 1).await;
    for name in ["bad1", "bad2"] {
        a.state().failing_path.insert(name.to_owned(), ErrorKind::Unavailable);
    }
    events(&mut source, 1000).await;
    for version in ["2", "3", "4"] {
        a.put("good", version, &format!("{{\"k\":\"{version}\"}}"));
        assert_eq!(text(&generation(&mut source, 70).await, "a:good", "k"), version);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_told_of_while_it_is_waited_for() {
    let (a, b) = (Store::default(), Store::default());
    a.put("x", "1", "{}");
    b.put("z", "1", "{}");
    b.state().slow = Duration::from_mins(5);
    let mut source = source(&["a:x", "b:z"], &[("a", &a), ("b", &b)]);
    let start = Instant::now();
    assert!(matches!(source.next().await, Event::Unchanged), "a answers");
    assert_eq!(source.silent().count(), 0);
    assert!(matches!(source.next().await, Event::Silent));
    assert_eq!(start.elapsed().as_secs(), 5, "soon enough for people");
    assert_eq!(source.silent().collect::<Vec<_>>(), [("b", Duration::from_secs(5))]);
    assert!(events(&mut source, 50).await.iter().all(|event| !matches!(event, Event::Silent)), "and once");
    generation(&mut source, 300).await;
    assert_eq!(source.silent().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_would_fill_the_memory_is_none() {
    let a = Store::default();
    a.put("x", &"v".repeat(1024), r#"{"k":"1"}"#);
    let mut source = source(&["a:x"], &[("a", &a)]);
    generation(&mut source, 1).await;
    a.put("x", &"v".repeat(1025), r#"{"k":"2"}"#);
    let failed = failures(events(&mut source, 70).await);
    assert!(failed[0].error.message.contains("more than 1 KiB"), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pin_too_waits_for_what_the_store_asked_for_and_so_does_the_next_process() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"1"}"#);
    let clock = FakeClock::new();
    let mut source = with_clock(&["a:x"], &[("a", &a)], &clock);
    let first = generation(&mut source, 1).await;
    a.put("x", "2", r#"{"k":"2"}"#);
    generation(&mut source, 70).await;
    // The pin itself may meet the limit first.
    a.state().failing = Some(ErrorKind::Throttled { retry_after: Some(Duration::from_mins(2)) });
    a.state().take_calls();
    let mut refused = async || match read_again(&mut source, &first.id).await {
        Err(PinError::Read { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    for attempt in 0..5 {
        let error = refused().await;
        assert!(!error.kind.is_permanent(), "{error}");
        assert_eq!(error.message.contains("asked for patience"), attempt > 0, "{error}");
    }
    assert_eq!(a.state().take_calls().len(), 1, "asked once");
    let hand_over = source.hand_over();
    let mut next = with_clock(&["a:x"], &[("a", &a)], &clock);
    next.resume(hand_over);
    assert!(events(&mut next, 115).await.is_empty());
    assert!(a.state().take_calls().is_empty(), "a restart is not a way round it");
    a.state().failing = None;
    generation(&mut next, 30).await;
}

#[tokio::test(start_paused = true)]
async fn p3_no_hand_over_asks_for_more_patience_than_a_store_may() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"1"}"#);
    let clock = FakeClock::new();
    let mut source = with_clock(&["a:x"], &[("a", &a)], &clock);
    // So it stands there if the machine's clock was put back meanwhile.
    let until = clock.system() + Duration::from_hours(24);
    source.resume(HandOver { patience: vec![("a".to_owned(), until)], ..HandOver::default() });
    assert!(events(&mut source, 14 * 60).await.is_empty());
    generation(&mut source, 2 * 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_stores_wish_for_patience_holds_for_all_its_requests() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"x1"}"#);
    a.put("y", "1", r#"{"k":"y1"}"#);
    let mut source = source(&["a:x", "a:y"], &[("a", &a)]);
    generation(&mut source, 1).await;
    let wish = ErrorKind::Throttled { retry_after: Some(Duration::from_mins(5)) };
    a.state().failing_path.insert("x".to_owned(), wish);
    assert_eq!(failures(events(&mut source, 70).await).len(), 1);
    a.state().take_calls();
    source.refresh_now();
    a.push.notify_one();
    assert!(events(&mut source, 220).await.is_empty());
    assert!(a.state().take_calls().is_empty(), "not even y, not even pushed");
}

#[tokio::test(start_paused = true)]
async fn a_push_and_refresh_now_read_at_once() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"x1"}"#);
    let mut source = source(&["a:x"], &[("a", &a)]);
    generation(&mut source, 1).await;
    a.put("x", "2", r#"{"k":"x2"}"#);
    a.push.notify_one();
    assert_eq!(text(&source.next().now_or_never().map(changed).unwrap(), "a:x", "k"), "x2");
    a.put("x", "3", r#"{"k":"x3"}"#);
    source.refresh_now();
    assert_eq!(text(&source.next().now_or_never().map(changed).unwrap(), "a:x", "k"), "x3");
}

#[tokio::test(start_paused = true)]
async fn who_asks_once_begins_no_watch() {
    for (listens, calls) in [(false, 1), (true, 2)] {
        let (a, b) = (Store::default(), Store::default());
        a.put("x", "1", "{}");
        b.put("z", "1", "{}");
        b.state().slow = Duration::from_secs(5);
        let source = source(&["a:x", "b:z"], &[("a", &a), ("b", &b)]);
        let mut source = if listens { source } else { source.asked_once() };
        a.push.notify_one();
        generation(&mut source, 10).await;
        assert_eq!(a.state().take_calls().len(), calls, "the one that waits for the other hears a push: {listens}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_store_is_polled_at_its_own_pace() {
    for (pace, least, most) in [(None, 54, 67), (Some(20), 54, 67), (Some(300), 270, 331)] {
        let a = Store::default();
        a.put("db", "1", "{}");
        a.state().pace = pace.map(Duration::from_secs);
        let mut source = source(&["a:db"], &[("a", &a)]);
        generation(&mut source, 1).await;
        let start = Instant::now();
        source.next().await;
        let waited = start.elapsed().as_secs();
        assert!((least..=most).contains(&waited), "{pace:?}: {waited}");
    }
}

fn changed(event: Event) -> Generation {
    let Event::Changed(generation) = event else { panic!("{event:?}") };
    generation
}

#[tokio::test(start_paused = true)]
async fn a_refresh_while_a_read_is_in_flight_reads_again() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"x1"}"#);
    let mut source = source(&["a:x"], &[("a", &a)]);
    generation(&mut source, 1).await;
    a.state().slow = Duration::from_secs(1);
    source.refresh_now();
    assert!(tokio::time::timeout(Duration::from_millis(500), source.next()).await.is_err());
    source.refresh_now();
    a.state().take_calls();
    events(&mut source, 3).await;
    assert_eq!(a.state().take_calls(), ["read x"], "the second wish is not lost");
}

#[tokio::test(start_paused = true)]
async fn next_can_be_dropped_at_any_moment() {
    let a = Store::default();
    a.put_leased("x", 3600, 7200, true);
    a.state().slow = Duration::from_secs(1);
    let mut source = source(&["a:x"], &[("a", &a)]);
    let mut dropped = 0;
    let first = loop {
        match tokio::time::timeout(Duration::from_millis(7), source.next()).await {
            Ok(Event::Changed(generation)) => break generation,
            Ok(_) => {}
            Err(_) => dropped += 1,
        }
    };
    assert!(dropped > 100);
    assert_eq!(text(&first, "a:x", "user"), "lease-1");
    assert_eq!(a.state().take_calls(), ["read x"]);
}

#[tokio::test(start_paused = true)]
async fn what_expires_is_read_before() {
    let a = Store::default();
    let secret = |json: &str, version: Option<&str>| Secret {
        json: json.to_owned(),
        version: version.map(str::to_owned),
        expires_in: Some(30),
        ..Secret::default()
    };
    a.set("versioned", secret(r#"{"k":"1"}"#, Some("1")));
    let mut source = source(&["a:versioned"], &[("a", &a)]);
    let start = Instant::now();
    generation(&mut source, 1).await;
    a.set("versioned", secret(r#"{"k":"2"}"#, Some("2")));
    generation(&mut source, 60).await;
    assert!((18..=20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    a.state().take_calls();
    events(&mut source, 600).await;
    let reads = a.state().take_calls().len();
    assert!((10..=14).contains(&reads), "unchanged beyond its end, it is polled as ever: {reads}");
}

#[tokio::test(start_paused = true)]
async fn an_earlier_generation_is_read_again_by_its_versions() {
    let (a, b) = (Store::default(), Store::default());
    a.put("x", "1", r#"{"k":"x1"}"#);
    b.put("z", "1", r#"{"k":"z1"}"#);
    let mut source = source(&["a:x", "a:n?", "b:z"], &[("a", &a), ("b", &b)]);
    let first = generation(&mut source, 1).await;
    a.put("x", "2", r#"{"k":"x2"}"#);
    let second = generation(&mut source, 70).await;
    a.state().take_calls();
    b.state().take_calls();

    let again = read_again(&mut source, &first.id).await.unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(again.answers, first.answers);
    assert_eq!(again.versions, first.versions);
    assert_eq!(a.state().take_calls(), ["read x"]);
    assert!(b.state().take_calls().is_empty(), "what is still the same is not read");

    assert_eq!(read_again(&mut source, &second.id).await.unwrap().answers, second.answers);
    assert!(matches!(source.read_again(&GenerationId("none".into())), Err(PinError::Unknown(_))));
    a.state().past.clear();
    let error = read_again(&mut source, &first.id).await.unwrap_err().to_string();
    assert_eq!(error, "a:x: no such version");
    assert!(generations(events(&mut source, 200).await).is_empty(), "the source goes on where it was");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_versions_cannot_be_pinned() {
    let a = Store::default();
    a.put_plain("plain", r#"{"k":"1"}"#);
    a.put_leased("leased", 3600, 7200, true);
    for (path, sentence) in [
        ("a:plain", "a:plain has no versions at its store"),
        ("a:leased", "a:leased is a lease, which a store does not hand out twice"),
    ] {
        let mut source = source(&[path], &[("a", &a)]);
        let first = generation(&mut source, 1).await;
        let error = source.read_again(&first.id).unwrap_err().to_string();
        assert!(error.starts_with(sentence), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn p5_nothing_of_a_source_shows_a_value() {
    let a = Store::default();
    a.put_plain("plain", r#"{"k":"canary"}"#);
    a.put_leased("leased", 3600, 7200, true);
    a.state().logins = Some((3600, true));
    let mut source = source(&["a:plain", "a:leased"], &[("a", &a)]);
    let event = source.next().await;
    let shown = format!("{source:?} {event:?} {:?}", source.hand_over());
    for secret in ["canary", "lease-1", "token-1"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_without_the_provider_says_so() {
    let mut source = Source::new(&plan(&["a:x"]), BTreeMap::new());
    let failed = failures(events(&mut source, 10).await);
    assert_eq!(failed[0].error.kind, ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn p3_what_was_full_before_a_restart_is_suddenly_empty_after_it() {
    let a = Store::default();
    a.put("x", "1", r#"{"k":"1"}"#);
    let clock = FakeClock::new();
    let mut before = with_clock(&["a:x"], &[("a", &a)], &clock);
    generation(&mut before, 1).await;
    a.put("x", "2", "{}");
    let mut after = with_clock(&["a:x"], &[("a", &a)], &clock);
    after.resume(before.hand_over());
    let came = events(&mut after, 10).await;
    assert!(failures(came)[0].error.to_string().contains("suddenly empty"));
}

#[tokio::test]
async fn each_write_of_a_file_makes_one_generation() {
    let dir = tempfile::tempdir().unwrap();
    let write = |content: &str| std::fs::write(dir.path().join("db.json"), content).unwrap();
    write(r#"{"k":"0"}"#);
    let settings = FileSettings::at(dir.path().to_str().unwrap());
    let login = Login { provider: "a".to_owned(), role: None, token: "/nowhere".into() };
    let files: Box<dyn Provider> = Box::new(Files::connect(&settings, login).unwrap());
    let mut source = Source::new(&plan(&["a:db.json"]), BTreeMap::from([("a".to_owned(), files)]));
    let first = generation(&mut source, 10).await;
    for n in 1..20 {
        write(&format!(r#"{{"k":"{n}"}}"#));
        let next = generation(&mut source, 10).await;
        assert_eq!(text(&next, "a:db.json", "k"), n.to_string());
        assert_eq!(next.id.0, first.id.0.replace("-1", &format!("-{}", n + 1)), "one each");
    }
}
