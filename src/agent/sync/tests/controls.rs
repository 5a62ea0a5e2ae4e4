use super::*;

#[tokio::test(start_paused = true)]
async fn hold_freezes_the_files_and_release_catches_up() {
    let (pod, agent) = Pod::at_work().await;
    pod.annotate(&["hushpod.dev/hold=\"true\""]);
    a_while().await;
    pod.put("2");
    a_while().await;
    assert!(pod.file("f0").contains("x1"), "held");
    pod.annotate(&["hushpod.dev/hold=\"perhaps\""]);
    a_while().await;
    assert!(pod.file("f0").contains("x1"), "an unknown word releases nothing");
    let before = pod.calls("read").len();
    a_while().await;
    assert!(pod.calls("read").len() > before, "the store is still read");
    pod.annotate(&["hushpod.dev/hold=\"false\""]);
    pod.until_file("f0", "x2").await;
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hold_at_creation_freezes_the_first_generation_also_across_a_restart() {
    let pod = Pod::new(&["a:x"]);
    pod.put("1");
    pod.annotate(&["hushpod.dev/hold=\"true\""]);
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "x1").await;
    pod.put("2");
    a_while().await;
    agent.kill().await;
    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    assert!(pod.file("f0").contains("x1"));
    pod.annotate(&[]);
    pod.until_file("f0", "x2").await;
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_held_lease_is_renewed() {
    let pod = Pod::new(&["a:creds"]);
    pod.store.put_leased("creds", 60, 36_000, true);
    pod.annotate(&["hushpod.dev/hold=\"true\""]);
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "lease-1").await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert!(pod.store.state().is_live("lease-1"));
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p4_a_replaced_lease_is_revoked_after_a_drain_but_not_while_its_files_are_held() {
    for held in [false, true] {
        let pod = Pod::new(&["a:creds"]);
        pod.store.put_leased("creds", 6000, 6000, false);
        if held {
            pod.annotate(&["hushpod.dev/hold=\"true\""]);
        }
        let agent = pod.start(AgentMode::Sidecar);
        pod.until_file("f0", "lease-1").await;
        until("a second lease", || pod.store.state().is_live("lease-2")).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(pod.file("f0").contains("lease-1"), held);
        assert_eq!(pod.store.state().is_live("lease-1"), held);
        agent.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn pin_returns_to_an_earlier_generation_and_stays_until_it_is_taken_away() {
    let (pod, agent) = Pod::at_work().await;
    let first = pod.generation();
    pod.put("2");
    pod.until_file("f0", "x2").await;
    a_while().await;
    let second = pod.generation();
    pod.annotate(&[&format!("hushpod.dev/pin=\"{first}\"")]);
    pod.until_file("f0", "x1").await;
    assert_eq!(pod.generation(), first, "under its own name");
    pod.put("3");
    a_while().await;
    assert!(pod.file("f0").contains("x1"), "pinned");

    agent.kill().await;
    let agent = pod.start(AgentMode::Sidecar);
    a_while().await;
    assert!(pod.file("f0").contains("x1"), "pinned across a restart");

    pod.annotate(&[&format!("hushpod.dev/pin=\"{second}\"")]);
    pod.until_file("f0", "x2").await;
    pod.annotate(&["hushpod.dev/pin=\"0123456789abcdef\""]);
    a_while().await;
    assert!(pod.file("f0").contains("x2"), "a generation that never was leaves things as they are");
    pod.annotate(&[]);
    pod.until_file("f0", "x3").await;
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pin_waits_for_a_store_that_is_down() {
    let (pod, agent) = Pod::at_work().await;
    let first = pod.generation();
    pod.put("2");
    pod.until_file("f0", "x2").await;
    a_while().await;
    pod.store.state().failing = Some(ErrorKind::Unavailable);
    pod.annotate(&[&format!("hushpod.dev/pin=\"{first}\"")]);
    a_while().await;
    assert!(pod.file("f0").contains("x2"));
    pod.put("3");
    pod.store.state().failing = None;
    pod.annotate(&[&format!("hushpod.dev/pin=\"{first}\""), "hushpod.dev/refresh-now=\"1\""]);
    for _ in 0..20_000 {
        assert!(!pod.file("f0").contains("x3"), "the newest comes before what was asked for");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(pod.file("f0").contains("x1"));
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pins_to_replaced_leases_are_refused_even_while_their_files_are_there() {
    let mut pod = Pod::new(&["a:creds", "a:x"]);
    pod.grace = Duration::from_secs(20);
    pod.put("1");
    pod.store.put_leased("creds", 60, 60, false);
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "lease-1").await;
    let first = pod.generation();
    pod.until_file("f0", "lease-2").await;
    // What stands there at the start is looked at before anything else happens.
    agent.kill().await;
    pod.annotate(&[&format!("hushpod.dev/pin=\"{first}\"")]);
    let kept = pod.path("volume").join(LIVE).join(format!("..{first}"));
    assert!(kept.is_dir());
    let agent = pod.start(AgentMode::Sidecar);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(kept.is_dir() && !pod.file("f0").contains("lease-1"), "its credential ends before its files do");
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refresh_now_reads_at_each_new_text() {
    let mut pod = Pod::new(&["a:x"]);
    pod.refresh_seconds = 10_000_000;
    pod.store.put("x", "1", "{\"k\":\"x1\"}");
    pod.annotate(&["hushpod.dev/refresh-now=\"at creation\""]);
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "x1").await;
    a_while().await;
    assert_eq!(pod.calls("read").len(), 1, "what stands there at the start counts as seen");
    // The store does not tell: without the annotation it would take months.
    for version in ["2", "3"] {
        pod.store.put("x", version, &format!("{{\"k\":\"x{version}\"}}"));
        pod.annotate(&[&format!("hushpod.dev/refresh-now=\"{version}\"")]);
        pod.until_file("f0", &format!("x{version}")).await;
    }
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_annotations_asks_the_store_seldom_and_never_before_its_retry_after() {
    let mut pod = Pod::new(&["a:x"]);
    pod.refresh_seconds = 10_000_000;
    pod.put("1");
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "x1").await;
    let first = pod.generation();
    pod.put("2");
    pod.until_file("f0", "x2").await;
    let second = pod.generation();
    a_while().await;
    let flood = async |changes: u32| {
        let (start, before) = (Instant::now(), pod.calls("read").len());
        for change in 0..changes {
            let pin = if change % 2 == 0 { &first } else { &second };
            pod.annotate(&[&format!("hushpod.dev/refresh-now=\"{change}\""), &format!("hushpod.dev/pin=\"{pin}\"")]);
            tokio::time::sleep(Duration::from_millis(200)).await;
            // The events come by the real clock.
            let real = RealInstant::now();
            while real.elapsed() < Duration::from_millis(2) {
                tokio::task::yield_now().await;
            }
        }
        let periods = usize::try_from(start.elapsed().as_secs() / 5).unwrap();
        (periods, pod.calls("read").len() - before)
    };
    let (periods, asked) = flood(150).await;
    assert!((2..=2 * (periods + 1)).contains(&asked), "{asked} in {periods} times five seconds");
    pod.annotate(&[&format!("hushpod.dev/pin=\"{first}\"")]);
    pod.until_file("f0", "x1").await;
    a_while().await;

    let wish = ErrorKind::Throttled { retry_after: Some(Duration::from_mins(10)) };
    pod.store.state().failing = Some(wish);
    pod.store.state().take_calls();
    pod.annotate(&["hushpod.dev/refresh-now=\"busy\""]);
    until("throttled", || !pod.calls("read").is_empty()).await;
    let (_, asked) = flood(50).await;
    assert_eq!(asked, 0, "in spite of Retry-After");
    agent.kill().await;
    pod.store.state().take_calls();
    let agent = pod.start(AgentMode::Sidecar);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(pod.calls("read").len(), 0, "a restart is not a way round it");
    pod.store.state().failing = None;
    until("read again", || !pod.calls("read").is_empty()).await;
    agent.stop().await.unwrap();
}
