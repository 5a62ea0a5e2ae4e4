use super::*;
use crate::report::line::ReportLine;
use crate::report::line::tests::lines_of;

const HOLD: &str = "hushpod.dev/hold=\"true\"";

fn wave(name: &str) -> String {
    format!("hushpod.dev/advance=\"{name}\"")
}

/// Held at its first version, with a second one in the store.
async fn held(pod: &Pod) -> Agent {
    pod.put("1");
    pod.annotate(&[HOLD]);
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "x1").await;
    pod.put("2");
    a_while().await;
    assert!(pod.file("f0").contains("x1"));
    agent
}

#[tokio::test(start_paused = true)]
async fn a_held_pod_takes_the_newest_once_for_each_wave() {
    let pod = Pod::new(&["a:x"]);
    let agent = held(&pod).await;
    pod.annotate(&[HOLD, &wave("w1")]);
    pod.until_file("f0", "x2").await;
    pod.put("3");
    a_while().await;
    pod.annotate(&[HOLD]);
    a_while().await;
    pod.annotate(&[HOLD, &wave("w1")]);
    a_while().await;
    assert!(pod.file("f0").contains("x2"), "it is held, and the same wave again asks for nothing");
    pod.annotate(&[HOLD, &wave("w2")]);
    pod.until_file("f0", "x3").await;
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wave_takes_what_the_store_has_then_not_what_was_known() {
    let pod = Pod::new(&["a:x"]);
    let agent = held(&pod).await;
    // Nobody was told of this one, and its turn would come within a minute.
    pod.store.put("x", "3", r#"{"k":"x3"}"#);
    pod.annotate(&[HOLD, &wave("w1")]);
    let start = Instant::now();
    until("other files", || !pod.file("f0").contains("x1")).await;
    assert!(pod.file("f0").contains("x3"), "{}", pod.file("f0"));
    // The paused clock runs on while the kernel tells of the annotation.
    assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wave_waits_for_a_store_that_is_down() {
    let pod = Pod::new(&["a:x"]);
    let agent = held(&pod).await;
    pod.store.state().failing = Some(ErrorKind::Unavailable);
    pod.annotate(&[HOLD, &wave("w1")]);
    a_while().await;
    assert!(pod.file("f0").contains("x1"), "what is known may be old");
    pod.store.put("x", "3", r#"{"k":"x3"}"#);
    pod.store.state().failing = None;
    pod.until_file("f0", "x3").await;
    pod.put("4");
    a_while().await;
    assert!(pod.file("f0").contains("x3"));
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wave_counts_once_whatever_becomes_of_the_agent() {
    // (before the agent dies the wave was asked for, and done) → done after it came back
    for (asked, done) in [(true, true), (true, false), (false, false)] {
        let pod = Pod::new(&["a:x"]);
        let agent = held(&pod).await;
        pod.store.state().failing = (!done).then_some(ErrorKind::Unavailable);
        if asked {
            pod.annotate(&[HOLD, &wave("w1")]);
            a_while().await;
        }
        agent.kill().await;
        pod.annotate(&[HOLD, &wave("w1")]);
        pod.store.state().failing = None;
        pod.put("3");
        let agent = pod.start(AgentMode::Sidecar);
        a_while().await;
        let expected = if done { "x2" } else { "x3" };
        assert!(pod.file("f0").contains(expected), "{asked} {done}: {}", pod.file("f0"));
        pod.put("4");
        a_while().await;
        assert!(pod.file("f0").contains(expected), "held: {asked} {done}: {}", pod.file("f0"));
        agent.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_hand_over_a_held_pod_stays_as_it_is() {
    let pod = Pod::new(&["a:x"]);
    let agent = held(&pod).await;
    agent.kill().await;
    fs::remove_file(pod.path("state").join(FILE)).unwrap();
    pod.annotate(&[HOLD, &wave("w1")]);
    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    assert!(pod.file("f0").contains("x1"), "nobody knows whether it went along with that one");
    pod.annotate(&[HOLD, &wave("w2")]);
    pod.until_file("f0", "x2").await;
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_goes_along_with_its_first_files() {
    let (log, _listening) = Log::listen(Level::INFO);
    let pod = Pod::new(&["a:x"]);
    pod.put("1");
    pod.annotate(&[HOLD, &wave("w1")]);
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "x1").await;
    pod.put("2");
    a_while().await;
    assert!(pod.file("f0").contains("x1"), "{}", pod.file("f0"));
    let last = lines_of(&log.text()).pop().unwrap();
    assert!(last.advance.is_some_and(|asked| asked.done));
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_log_has_a_line_for_programs_after_each_change_and_every_ten_minutes() {
    let (log, _listening) = Log::listen(Level::INFO);
    let lines = || lines_of(&log.text());
    let last = || lines().pop().unwrap();
    let pod = Pod::new(&["a:x"]);
    let agent = held(&pod).await;
    let ReportLine { generation, newest, secrets, pod: who, .. } = last();
    assert!(generation.is_some() && newest.is_some() && generation != newest);
    assert_eq!(generation.unwrap().0, pod.generation());
    assert_eq!((secrets[0].reference.as_str(), secrets[0].version.as_deref()), ("a:x", Some("1")));
    assert!(!who.namespace.is_empty() && !who.account.is_empty(), "{who:?}");

    let before = lines().len();
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(lines().len() - before, 6, "nothing changed in an hour");

    pod.store.state().failing = Some(ErrorKind::Denied);
    pod.annotate(&[HOLD, "hushpod.dev/refresh-now=\"now\""]);
    until("a failure", || !last().failing.is_empty()).await;
    assert_eq!(last().failing[0].kind.as_deref(), Some("denied"));
    assert!(last().refresh.is_some_and(|asked| asked.id == "now" && !asked.done));
    pod.store.state().failing = None;
    until("an answer", || last().refresh.is_some_and(|asked| asked.done)).await;
    assert!(last().failing.is_empty() && last().held);
    pod.annotate(&[]);
    until("the release", || !last().held && last().generation == last().newest).await;
    assert_eq!(last().secrets[0].version.as_deref(), Some("2"));
    agent.stop().await.unwrap();
    assert!(!log.text().contains("\"k\""), "no value is in it");
}
