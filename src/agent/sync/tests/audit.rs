use super::*;
use crate::audit::{AuditEvent, AuditLine, AuditOutcome, Program};
use crate::generation::Access;
use crate::report::line::tests::lines_of;

fn lines(log: &Log, event: AuditEvent) -> Vec<AuditLine> {
    log.text().lines().filter_map(AuditLine::read).filter(|line| line.event == event).collect()
}

fn versions(lines: &[AuditLine]) -> Vec<&str> {
    lines.iter().map(|line| line.version.as_ref().map_or("-", |version| version.0.as_str())).collect()
}

fn accesses(lines: &[AuditLine]) -> Vec<Option<&Access>> {
    lines.iter().map(|line| line.access.as_ref()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_process_delivered_is_read_again_and_not_delivered_again() {
    let (log, _listening) = Log::listen(Level::INFO);
    let mut pod = Pod::new(&["a:x"]);
    pod.who = Some(Who { pod: Some("web-1".into()), uid: Some("6f0c".into()), ..Who::default() });
    pod.put("1");
    for (mode, version) in [(AgentMode::Init, "x1"), (AgentMode::Sidecar, "x2")] {
        let agent = pod.start(mode);
        if mode == AgentMode::Init {
            agent.done().await.unwrap();
            continue;
        }
        a_while().await;
        assert_eq!(versions(&lines(&log, AuditEvent::Read)), ["1", "1"], "each process reads");
        assert_eq!(versions(&lines(&log, AuditEvent::Delivery)), ["1"], "and the files are there");
        pod.put("2");
        pod.until_file("f0", version).await;
        // Back to what was, which was read by the first process and again for the pin.
        let present = pod.generation();
        let first = lines(&log, AuditEvent::Delivery)[0].generation.clone().unwrap();
        pod.annotate(&[&format!("hushpod.dev/pin=\"{first}\"")]);
        pod.until_file("f0", "x1").await;
        pod.annotate(&[&format!("hushpod.dev/pin=\"{present}\"")]);
        pod.until_file("f0", "x2").await;
        agent.stop().await.unwrap();
    }
    let (reads, deliveries) = (lines(&log, AuditEvent::Read), lines(&log, AuditEvent::Delivery));
    assert_eq!(versions(&deliveries), ["1", "2", "1", "2"], "{deliveries:?}");
    for line in reads.iter().chain(&deliveries) {
        assert_eq!((line.by, line.outcome, line.count), (Program::Agent, AuditOutcome::Ok, 1));
        assert_eq!((line.who.pod.as_deref(), line.who.uid.as_deref()), (Some("web-1"), Some("6f0c")));
    }
    let known = accesses(&reads);
    assert!(accesses(&deliveries).into_iter().flatten().all(|access| known.contains(&Some(access))), "{deliveries:?}");
    assert_eq!(accesses(&deliveries)[3], accesses(&deliveries)[1], "what was read once has one id");
    let reports = lines_of(&log.text());
    assert!(!reports.is_empty());
    for report in reports {
        assert_eq!((report.pod.name.as_deref(), report.pod.uid.as_deref()), (Some("web-1"), Some("6f0c")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_then_what_comes_after_it() {
    let (log, _listening) = Log::listen(Level::INFO);
    let mut pod = Pod::new(&["a:x"]);
    pod.who = Some(Who::default());
    pod.store.state().failing = Some(ErrorKind::Denied);
    pod.start(AgentMode::Sidecar).done().await.unwrap_err();
    let reads = lines(&log, AuditEvent::Read);
    assert!(reads.iter().all(|line| line.outcome == AuditOutcome::Denied) && reads.len() == 1, "{reads:?}");
    pod.store.state().failing = None;
    pod.put("1");
    let agent = pod.start(AgentMode::Sidecar);
    pod.until_file("f0", "x1").await;
    agent.stop().await.unwrap();
    let deliveries = lines(&log, AuditEvent::Delivery);
    assert_eq!((versions(&deliveries), deliveries[0].outcome), (vec!["1"], AuditOutcome::Ok), "{deliveries:?}");
}
