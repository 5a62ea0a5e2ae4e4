use tracing::Level;

use super::node::{Ask, FILE, KV, LEASED, Node, USER, seconds};
use crate::audit::{AuditEvent, AuditLine, AuditOutcome, Program};
use crate::process::testing::log::Log;

fn lines(log: &Log, event: AuditEvent) -> Vec<AuditLine> {
    log.text().lines().filter_map(AuditLine::read).filter(|line| line.event == event).collect()
}

#[tokio::test(start_paused = true)]
async fn one_read_serves_the_deliveries_of_all_pods_of_an_account() {
    let (log, _listening) = Log::listen(Level::INFO);
    let node = Node::new();
    let life = node.start();
    let asks = [Ask::new(1, &[FILE]), Ask::new(2, &[FILE])];
    for ask in &asks {
        life.publish(ask).await.unwrap();
    }
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    seconds(40).await;
    let (logins, reads) = (lines(&log, AuditEvent::Login), lines(&log, AuditEvent::Read));
    assert_eq!((logins.len(), reads.len()), (1, 2));
    for line in logins.iter().chain(&reads) {
        assert_eq!((line.by, line.outcome), (Program::Csi, AuditOutcome::Ok));
        assert_eq!((line.who.namespace.as_str(), line.who.account.as_str()), ("shop", "web"));
        assert_eq!((&line.who.pod, &line.who.uid, line.who.node.as_deref()), (&None, &None, Some("node-1")));
    }
    assert_eq!(logins[0].role.as_deref(), Some("web"));
    let deliveries = lines(&log, AuditEvent::Delivery);
    for (read, version) in reads.iter().zip(["1", "2"]) {
        assert_eq!(read.version.as_ref().map(|version| version.0.as_str()), Some(version));
        let of_read: Vec<_> = deliveries.iter().filter(|line| line.access == read.access).collect();
        assert_eq!(of_read.iter().filter_map(|line| line.who.uid.as_deref()).collect::<Vec<_>>(), ["p-1", "p-2"]);
        assert_eq!(of_read[0].who.pod.as_deref(), Some("web-p-1"));
        assert!(of_read.iter().all(|line| line.version == read.version && line.generation.is_some()));
    }
    assert_eq!(deliveries.len(), 4);
    // The next process of the driver reads anew, and delivers nothing new.
    life.end().await;
    let life = node.start();
    life.publish(&asks[0]).await.unwrap();
    seconds(60).await;
    assert_eq!((lines(&log, AuditEvent::Read).len(), lines(&log, AuditEvent::Delivery).len()), (3, 4));
    assert_eq!(lines(&log, AuditEvent::Login).len(), 1, "it goes on with the login");
    assert!(!log.text().contains("canary"));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_denied_is_told_and_nothing_where_the_operator_wants_no_lines() {
    let (log, _listening) = Log::listen(Level::INFO);
    let node = Node::new();
    node.configure("namespaces: ['*']", "namespaces: ['other']");
    let life = node.start();
    let ask = Ask::new(1, &[FILE]);
    for _ in 0..5 {
        life.publish(&ask).await.unwrap_err();
    }
    life.publish(&Ask::new(2, &[("fil.x", "secret/data/db#none")])).await.unwrap_err();
    let told = lines(&log, AuditEvent::Admission);
    let [denied, invalid] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (denied.by, denied.outcome, denied.who.uid.as_deref()),
        (Program::Csi, AuditOutcome::Denied, Some("p-1"))
    );
    assert!(denied.problem.as_deref().is_some_and(|problem| problem.contains("may not use provider")), "{denied:?}");
    assert_eq!((invalid.outcome, invalid.who.uid.as_deref()), (AuditOutcome::Invalid, Some("p-2")));
    node.configure("image: i", "image: i\naudit: false");
    let told = log.text().matches("{\"audit\":").count();
    life.publish(&Ask::new(3, &[FILE, USER])).await.unwrap();
    life.publish(&Ask::new(4, &[("fil.x", "secret/data/db#none")])).await.unwrap_err();
    assert!(node.store.state().live(LEASED) > 0);
    assert_eq!(log.text().matches("{\"audit\":").count(), told);
}
