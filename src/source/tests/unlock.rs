//! Providers that another provider's secret unlocks.

use super::fake::{FakeClock, Store, events, failures, generation, generations, plan, request, text, with_plan};
use super::*;
use crate::plan::{Plan, PlannedReference};

/// `files` is unlocked by the key `k` of `keys:age`.
fn locked(requests: &[&str]) -> Plan {
    let mut locked = plan(requests);
    let mut other = plan(&["keys:age"]);
    for (name, planned) in std::mem::take(&mut other.providers) {
        locked.providers.entry(name).or_insert(planned);
    }
    let take = PlannedReference { request: request("keys:age"), key: Some(Key::Literal("k".to_owned())) };
    locked.providers.get_mut("files").unwrap().unlock = Some(take);
    locked
}

struct Stores {
    keys: Store,
    files: Store,
}

impl Stores {
    fn new() -> Self {
        let stores = Self { keys: Store::default(), files: Store::default() };
        stores.keys.put("age", "1", r#"{"k":"first"}"#);
        stores.files.put_plain("x", r#"{"k":"x1"}"#);
        stores
    }

    fn source(&self, plan: &Plan) -> Source {
        with_plan(plan, &[("keys", &self.keys), ("files", &self.files)], &FakeClock::new())
    }

    fn calls(&self) -> (Vec<String>, Vec<String>) {
        (self.keys.state().take_calls(), self.files.state().take_calls())
    }
}

#[tokio::test(start_paused = true)]
async fn a_locked_provider_is_asked_when_it_was_unlocked_and_its_key_is_in_no_generation() {
    let stores = Stores::new();
    stores.keys.state().slow = Duration::from_secs(5);
    let mut source = stores.source(&locked(&["files:x"]));
    let start = Instant::now();
    let first = generation(&mut source, 10).await;
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(first.answers.keys().collect::<Vec<_>>(), [&request("files:x")]);
    assert!(first.versions.is_empty(), "{:?}", first.versions);
    assert_eq!(stores.calls(), (vec!["read age".to_owned()], vec!["unlock first".to_owned(), "read x".to_owned()]));
    let mut alone = with_plan(&plan(&["files:x"]), &[("files", &stores.files)], &FakeClock::new());
    assert_eq!(first.id, generation(&mut alone, 1).await.id, "the key has no part in the name");
}

#[tokio::test(start_paused = true)]
async fn another_key_makes_the_locked_provider_be_asked_again_at_once() {
    let stores = Stores::new();
    let mut source = stores.source(&locked(&["files:x"]));
    generation(&mut source, 1).await;
    assert!(generations(events(&mut source, 300).await).is_empty());
    let (keys, files) = stores.calls();
    assert!((5..=7).contains(&keys.len()), "polled as any other: {keys:?}");
    assert_eq!(files.iter().filter(|call| call.starts_with("unlock")).count(), 1, "unchanged: {files:?}");
    stores.keys.put("age", "2", r#"{"k":"second","other":"x"}"#);
    stores.files.state().failing = Some(ErrorKind::Invalid);
    source.refresh_now();
    let came = failures(events(&mut source, 1).await);
    assert!(came.iter().all(|failure| failure.provider == "files"), "{came:?}");
    let (_, files) = stores.calls();
    assert!(files.contains(&"unlock second".to_owned()), "{files:?}");
    // A failure that another key puts right does not wait for its turn, which by now comes every few minutes.
    events(&mut source, 3000).await;
    stores.files.state().failing = None;
    stores.files.put_plain("x", r#"{"k":"x2"}"#);
    stores.keys.put("age", "3", r#"{"k":"third"}"#);
    let start = Instant::now();
    let next = generation(&mut source, 70).await;
    assert_eq!(text(&next, "files:x", "k"), "x2");
    assert!(start.elapsed().as_secs() <= 66, "{:?}", start.elapsed());
    assert_eq!(stores.calls().1.last().unwrap(), "read x");
    stores.keys.put("age", "4", r#"{"k":"third","other":"y"}"#);
    stores.calls();
    events(&mut source, 100).await;
    let (_, files) = stores.calls();
    assert!(!files.iter().any(|call| call.starts_with("unlock")), "another version with the same key: {files:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_comes_while_the_provider_works_is_handed_over_afterwards() {
    let stores = Stores::new();
    let mut source = stores.source(&locked(&["files:x"]));
    stores.files.state().slow = Duration::from_secs(30);
    tokio::time::timeout(Duration::from_secs(10), generation(&mut source, 60)).await.unwrap_err();
    stores.keys.put("age", "2", r#"{"k":"second"}"#);
    source.refresh_now();
    generation(&mut source, 60).await;
    events(&mut source, 1).await;
    assert_eq!(stores.calls().1, ["unlock first", "read x", "unlock second", "read x"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_had_is_its_own_providers_failure_and_the_locked_one_waits() {
    for (kind, part) in [(ErrorKind::Denied, "denied failed"), (ErrorKind::Unavailable, "unavailable failed")] {
        let stores = Stores::new();
        stores.keys.state().failing = Some(kind);
        let mut source = stores.source(&locked(&["files:x?"]));
        let came = failures(events(&mut source, 20).await);
        assert!(!came.is_empty());
        for failure in came {
            assert_eq!((failure.provider.as_str(), failure.request), ("keys", Some(request("keys:age"))));
            assert_eq!(failure.error.kind, kind);
            assert!(failure.error.message.contains(part), "{}", failure.error);
        }
        assert_eq!(source.failing().collect::<Vec<_>>(), ["keys"]);
        assert!(stores.calls().1.is_empty(), "nothing is asked of the locked one");
        stores.keys.state().failing = None;
        generation(&mut source, 600).await;
    }
}

#[tokio::test(start_paused = true)]
async fn p5_an_answer_without_the_key_is_a_failure_and_the_last_key_stays() {
    for (json, part) in [
        (r#"{"K":"canary"}"#, "as an identity: no key \"k\" (there are: K)"),
        (r#"{"k":{"x":"canary"}}"#, "is a document"),
        (r#""canary""#, "inside text that is not JSON at line 1, column 1"),
        ("42", "inside a single value"),
    ] {
        let stores = Stores::new();
        stores.keys.put("age", "1", json);
        let mut source = stores.source(&locked(&["files:x"]));
        let came = failures(events(&mut source, 1).await);
        assert_eq!((came.len(), came[0].error.kind), (1, ErrorKind::Invalid), "{json}");
        assert!(came[0].error.message.contains(part), "{json}: {}", came[0].error);
        assert!(!came[0].error.message.contains("canary"), "{}", came[0].error);
        stores.keys.put("age", "2", r#"{"k":"first"}"#);
        generation(&mut source, 600).await;
        stores.keys.put("age", "3", json);
        stores.files.put_plain("x", r#"{"k":"x2"}"#);
        let next = generation(&mut source, 200).await;
        assert_eq!(text(&next, "files:x", "k"), "x2", "read with the key that is known");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_delivered_too_is_read_once() {
    let stores = Stores::new();
    let mut source = stores.source(&locked(&["files:x", "keys:age?"]));
    let first = generation(&mut source, 1).await;
    assert_eq!(first.answers.len(), 2);
    assert_eq!(stores.calls().0, ["read age"]);
    stores.keys.put("age", "2", r#"{"k":"second"}"#);
    let next = generation(&mut source, 100).await;
    assert_eq!(text(&next, "keys:age", "k"), "second");
    events(&mut source, 1).await;
    assert!(stores.calls().1.ends_with(&["unlock second".to_owned(), "read x".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn p4_a_restarted_agent_asks_for_the_key_again() {
    let stores = Stores::new();
    let mut before = stores.source(&locked(&["files:x"]));
    let first = generation(&mut before, 1).await;
    let hand_over = before.hand_over();
    assert!(hand_over.leased.is_empty(), "no value is handed over");
    let mut after = stores.source(&locked(&["files:x"]));
    after.resume(hand_over);
    assert_eq!(generation(&mut after, 1).await.id, first.id, "nothing changed");
}
