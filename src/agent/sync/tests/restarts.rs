//! `on-change: restart-all`: when the agent ends for it, and what the next one makes of that.

use super::*;

const JITTER: Duration = Duration::from_mins(5);

/// A pod whose variables are the keys of the first request.
fn asking(requests: &[&'static str]) -> Pod {
    Pod { restart_all: Some(JITTER), ..Pod::new(requests) }
}

/// An agent with files in place, that has run for a while.
async fn started(pod: &Pod) -> Agent {
    let agent = pod.start(AgentMode::Sidecar);
    until("open", || pod.is_open()).await;
    a_while().await;
    agent
}

/// It ends for a restart, after this time.
async fn restarts(agent: Agent) -> Duration {
    let start = Instant::now();
    assert_eq!(agent.done().await.unwrap(), Ended::RestartAll);
    start.elapsed()
}

async fn runs_on(agent: &Agent, why: &str) {
    tokio::time::sleep(JITTER * 3).await;
    assert!(!agent.task.is_finished(), "{why}");
}

#[tokio::test(start_paused = true)]
async fn p4_a_change_ends_the_agent_once_and_the_next_goes_on_with_its_login_and_leases() {
    let mut pod = asking(&["a:x", "a:creds"]);
    pod.revoke_on_exit = true;
    pod.put("1");
    pod.store.state().logins = Some((1_000_000, true));
    pod.store.put_leased("creds", 100_000, 1_000_000, true);
    let agent = started(&pod).await;
    let first = pod.generation();
    pod.put("2");
    let took = restarts(agent).await;
    assert!(took <= JITTER, "{took:?}");
    let words = format!("all containers restart for generation {} (ran with {first})", pod.generation());
    assert_eq!(pod.last_words(), words);
    assert!(pod.file("f0").contains("x2"));

    let agent = pod.start(AgentMode::Sidecar);
    pod.put("3");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(pod.file("f0").contains("x2"), "containers start with these");
    let took = restarts(agent).await;
    assert!((40..=400).contains(&took.as_secs()), "kubelet has no back-off: {took:?}");
    assert!(pod.file("f0").contains("x3"));
    let agent = pod.start(AgentMode::Sidecar);
    runs_on(&agent, "it was restarted for this one").await;
    assert_eq!(pod.calls("login"), ["login token-1"]);
    assert_eq!(pod.store.state().leases.len(), 1, "none was issued besides");
    assert!(pod.store.state().is_live("lease-1") && pod.file("f1").contains("lease-1"));
    agent.kill().await;
    let agent = pod.start(AgentMode::Sidecar);
    runs_on(&agent, "nor for a start of its own").await;
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_ask_is_not_restarted() {
    let mut pod = asking(&["a:x"]);
    pod.restart_all = None;
    pod.put("1");
    let agent = started(&pod).await;
    pod.put("2");
    runs_on(&agent, "nobody asked").await;
    assert_eq!(agent.stop().await.unwrap(), Ended::Done);
}

#[tokio::test(start_paused = true)]
async fn only_variables_that_became_visible_and_differ_restart() {
    let pod = asking(&["a:x", "a:y"]);
    pod.put("1");
    pod.store.put("y", "1", "{}");
    let agent = started(&pod).await;
    let first = pod.generation();
    pod.store.put("y", "2", "{\"other\":1}");
    pod.store.push.notify_one();
    pod.until_file("f1", "other").await;
    runs_on(&agent, "no variable changed").await;

    pod.store.put("x", "1b", "{\"k\":\"x1\"}");
    pod.store.push.notify_one();
    runs_on(&agent, "the same value in another version").await;

    pod.annotate(&["hushpod.dev/hold=\"true\""]);
    a_while().await;
    pod.put("2");
    runs_on(&agent, "held").await;
    pod.annotate(&[&format!("hushpod.dev/pin=\"{first}\"")]);
    runs_on(&agent, "pinned to what containers run with").await;

    pod.annotate(&[]);
    restarts(agent).await;
    assert!(pod.file("f0").contains("x2"), "let go");

    let agent = started(&pod).await;
    pod.store.state().failing = Some(ErrorKind::Unavailable);
    pod.put("3");
    runs_on(&agent, "the store is down").await;
    pod.store.state().failing = None;
    restarts(agent).await;
    assert!(pod.file("f0").contains("x3"));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_taken_back_in_time_restarts_nothing() {
    let pod = Pod { restart_all: Some(Duration::from_hours(100_000)), ..Pod::new(&["a:x"]) };
    let (log, _listening) = Log::listen(Level::INFO);
    pod.put("1");
    let agent = started(&pod).await;
    pod.put("2");
    pod.until_file("f0", "x2").await;
    pod.store.put("x", "3", "{\"k\":\"x1\"}");
    pod.store.push.notify_one();
    pod.until_file("f0", "x1").await;
    a_while().await;
    let told = log.text();
    for event in ["restart_planned", "restart_called_off"] {
        assert!(told.contains(event), "{event} is not in: {told}");
    }
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_that_makes_no_variables_restarts_nothing() {
    let pod = asking(&["a:x"]);
    let (log, _listening) = Log::listen(Level::INFO);
    pod.put("1");
    let agent = started(&pod).await;
    pod.store.put("x", "2", "{\"PATH\":\"canary\"}");
    pod.store.push.notify_one();
    pod.until_file("f0", "PATH").await;
    runs_on(&agent, "containers could not start with it").await;
    let told = log.text();
    assert!(told.contains("no_variables") && !told.contains("canary"), "{told}");
    pod.put("3");
    restarts(agent).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_agent_leaves_the_restart_to_the_next() {
    let pod = asking(&["a:x"]);
    pod.put("1");
    let agent = started(&pod).await;
    pod.put("2");
    until("the swap", || pod.file("f0").contains("x2")).await;
    agent.kill().await;
    restarts(pod.start(AgentMode::Sidecar)).await;
    // What nobody remembers cannot be known to have changed.
    fs::remove_file(pod.path("state").join(FILE)).unwrap();
    let agent = pod.start(AgentMode::Sidecar);
    runs_on(&agent, "there is nothing to compare with").await;
    agent.stop().await.unwrap();
}

/// With a hand-over that has no room for it, a new lease would be another change, and that another restart.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_handed_over_puts_a_restart_off() {
    let (log, _listening) = Log::listen(Level::INFO);
    let pod = asking(&["a:x", "a:creds"]);
    let state = pod.path("state");
    fs::remove_dir(&state).unwrap();
    pod.put("1");
    pod.store.put_leased("creds", 100_000, 1_000_000, true);
    let agent = started(&pod).await;
    pod.put("2");
    runs_on(&agent, "there is no state volume").await;
    fs::create_dir(&state).unwrap();
    // Where the new file would be written.
    fs::create_dir_all(state.join(".hand-over.json.new/x")).unwrap();
    runs_on(&agent, "it cannot be written").await;
    fs::remove_dir_all(state.join(".hand-over.json.new")).unwrap();
    restarts(agent).await;
    let told = log.text();
    assert!(told.contains("restart_put_off") && told.contains("there is no state volume"), "{told}");
    let agent = pod.start(AgentMode::Sidecar);
    runs_on(&agent, "once").await;
    assert_eq!(pod.store.state().leases.len(), 1);
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p4_init_runs_again_at_once_and_what_it_writes_is_what_containers_start_with() {
    let pod = asking(&["a:x"]);
    pod.put("1");
    pod.store.state().logins = Some((1_000_000, true));
    pod.start(AgentMode::Init).done().await.unwrap();
    let agent = started(&pod).await;
    pod.put("2");
    restarts(agent).await;
    for (version, store) in [("3", None), ("4", Some(ErrorKind::Unavailable))] {
        pod.put(version);
        pod.store.state().failing = store;
        let start = Instant::now();
        assert_eq!(pod.start(AgentMode::Init).done().await.unwrap(), Ended::Done);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let agent = started(&pod).await;
        assert!(pod.file("f0").contains("x3"));
        runs_on(&agent, "nothing changed since they started").await;
        agent.stop().await.unwrap();
    }
    assert_eq!(pod.calls("login"), ["login token-1"]);
}
