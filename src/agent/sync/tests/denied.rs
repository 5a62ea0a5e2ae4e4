use super::*;
use crate::report::line::ReportLine;
use crate::report::line::tests::lines_of;

const DENY: &str = "hushpod.dev/deny=\"deny[1]\"";

#[tokio::test(start_paused = true)]
async fn p3_a_denied_agent_asks_no_store_through_a_restart_and_its_files_stay() {
    let (log, _listening) = Log::listen(Level::INFO);
    let last = || lines_of(&log.text()).pop().unwrap();
    let pod = Pod::new(&["a:x", "a:creds"]);
    pod.put("1");
    pod.store.state().logins = Some((600, true));
    pod.store.put_leased("creds", 600, 36_000, true);
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "x1").await;
    let (lease, generation) = (pod.file("f1"), pod.generation());

    pod.annotate(&[DENY]);
    until("the report", || last().denied.is_some()).await;
    pod.store.state().take_calls();
    pod.put("2");
    let unheard = [DENY, "hushpod.dev/refresh-now=\"1\"", "hushpod.dev/advance=\"w1\"", "hushpod.dev/pin=\"0a\""];
    pod.annotate(&unheard);
    // Longer than the login, the lease and many turns of polling.
    tokio::time::sleep(Duration::from_secs(5000)).await;
    agent.kill().await;
    let agent = pod.start(AgentMode::Sidecar);
    tokio::time::sleep(Duration::from_secs(5000)).await;
    assert_eq!(pod.store.state().take_calls(), [""; 0], "neither a login, nor a read, nor a renewal");
    assert_eq!((pod.file("f1"), pod.generation()), (lease.clone(), generation));
    assert!(pod.file("f0").contains("x1"));
    let ReportLine { denied, failing, next_due, secrets, advance, refresh, .. } = last();
    assert_eq!((denied.as_deref(), failing[0].kind.as_deref()), (Some("deny[1]"), Some("denied")));
    assert_eq!((next_due, advance), (None, None), "{refresh:?}");
    assert!(!refresh.unwrap().done && secrets.iter().any(|secret| secret.reference == "a:x"), "{secrets:?}");
    let told = log.text();
    assert!(told.contains("last good files stay") && told.contains("deny[1] (annotation hushpod.dev/deny)"), "{told}");

    pod.annotate(&[]);
    pod.until_file("f0", "x2").await;
    assert_ne!(pod.file("f1"), lease, "the lease has ended meanwhile");
    until("nothing in the way", || last().denied.is_none() && last().failing.is_empty()).await;
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_meanwhile_is_obeyed_afterwards() {
    let (pod, agent) = Pod::at_work().await;
    let first = pod.generation();
    let pin = format!("hushpod.dev/pin=\"{first}\"");
    pod.put("2");
    pod.until_file("f0", "x2").await;
    a_while().await;
    pod.annotate(&[DENY]);
    a_while().await;
    pod.annotate(&[DENY, &pin]);
    a_while().await;
    assert!(pod.file("f0").contains("x2"), "nothing is written");
    pod.annotate(&[&pin]);
    pod.until_file("f0", "x1").await;

    // A pin that stands there when a denied agent starts.
    agent.kill().await;
    pod.put("3");
    pod.annotate(&[DENY, &pin]);
    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    pod.annotate(&[&pin]);
    a_while().await;
    assert!(pod.file("f0").contains("x1"), "it is pinned: {}", pod.file("f0"));
    pod.annotate(&[]);
    pod.until_file("f0", "x3").await;
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p7_a_denied_agent_without_files_ends_with_the_gate_closed() {
    for mode in [AgentMode::Sidecar, AgentMode::Init] {
        let pod = Pod::new(&["a:x"]);
        pod.put("1");
        pod.store.state().logins = Some((600, true));
        pod.annotate(&[DENY]);
        let error = pod.start(mode).done().await.unwrap_err();
        let sentence = "the operator denies what this pod asks for: deny[1] (annotation hushpod.dev/deny)";
        assert_eq!((error.exit_code(), error.public().as_str()), (1, sentence), "{mode:?}");
        assert!(!pod.is_open() && pod.store.state().calls.is_empty(), "{mode:?}");
        // While it waits for a store, too.
        pod.annotate(&[]);
        pod.store.state().failing = Some(ErrorKind::Unavailable);
        let agent = pod.start(mode);
        a_while().await;
        pod.annotate(&[DENY]);
        assert_eq!(agent.done().await.unwrap_err().public(), sentence, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_init_container_that_finds_files_is_done_without_asking() {
    let pod = Pod::new(&["a:x"]);
    pod.put("1");
    pod.start(AgentMode::Init).done().await.unwrap();
    pod.store.state().take_calls();
    pod.put("2");
    pod.annotate(&[DENY]);
    assert_eq!(pod.start(AgentMode::Init).done().await.unwrap(), Ended::Done);
    assert_eq!(pod.store.state().take_calls(), [""; 0]);
    assert!(pod.file("f0").contains("x1"));
}

/// It would have to log in for it; and the next process could take no others for the files that stay.
#[tokio::test(start_paused = true)]
async fn p3_a_denied_agent_revokes_nothing_when_it_ends() {
    let mut pod = Pod::new(&["a:creds"]);
    pod.revoke_on_exit = true;
    pod.store.state().logins = Some((600, true));
    pod.store.put_leased("creds", 600, 36_000, true);
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "lease-1").await;
    pod.annotate(&[DENY]);
    a_while().await;
    pod.store.state().take_calls();
    agent.stop().await.unwrap();
    assert_eq!(pod.store.state().take_calls(), [""; 0]);
    pod.annotate(&[]);
    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    assert_eq!(pod.calls("login"), [""; 0], "it goes on with what it had");
    agent.stop().await.unwrap();
    assert!(!pod.calls("revoke lease-1").is_empty(), "and is let go of");
}
