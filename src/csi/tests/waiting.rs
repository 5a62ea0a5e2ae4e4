use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::controls::{seen, tell};
use super::node::{Ask, FILE, KV, LEASED, Node, USER, moment, seconds};
use crate::csi::failure::FailureKind;
use crate::csi::pods::SeenPod;
use crate::provider::ErrorKind;

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_store_and_the_next_one_goes_on() {
    let node = Node::new();
    let life = node.start();
    node.store.state().failing = Some(ErrorKind::Unavailable);
    let ask = Ask::new(1, &[FILE]);
    life.pods.set(&ask.pod, Some(SeenPod::default()));
    let start = Instant::now();
    let failure = life.publish(&ask).await.unwrap_err();
    assert_eq!((start.elapsed().as_secs(), life.sources()), (110, 1));
    let (_, reads) = node.asked();
    assert!(reads <= 125, "{reads}: a second apart, for all volumes of a feed");
    let said = failure.to_string();
    assert!(failure.kind == FailureKind::Waiting && said.contains("waiting for the first files: vault:"), "{said}");
    assert!(said.contains(KV) && !said.contains("canary"), "{said}");
    assert!(!node.is_mounted(&ask));
    for milliseconds in [1_300, 21_000, 37_500, 90_900] {
        node.store.state().failing = Some(ErrorKind::Unavailable);
        let back = async {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            node.store.state().failing = None;
            Instant::now()
        };
        let (published, back) = tokio::join!(life.publish(&ask), back);
        published.unwrap();
        assert!(back.elapsed() <= Duration::from_secs(1), "{:?} after {milliseconds} ms", back.elapsed());
        assert_eq!(node.file(&ask, "db"), "canary-v1");
        if milliseconds == 1_300 {
            assert_eq!(life.sources(), 1, "the next call goes on with what the one before began");
        }
        life.unpublish(&ask).await.unwrap();
    }
}

/// They come once a minute for each volume, with the same tokens until these are about to end.
#[tokio::test(start_paused = true)]
async fn kubelets_calls_ask_a_failing_store_for_nothing_unless_they_bring_a_new_token() {
    let node = Node::new();
    let life = node.start();
    let asks: Vec<_> = (0..60).map(|n| Ask::new(n, &[FILE])).collect();
    for published in join_all(asks.iter().map(|ask| life.publish(ask))).await {
        published.unwrap();
    }
    node.store.state().failing = Some(ErrorKind::Unavailable);
    seconds(120).await;
    node.asked();
    seconds(120).await;
    let (_, by_itself) = node.asked();
    for ask in asks.iter().chain(&asks) {
        life.publish(ask).await.unwrap();
        seconds(1).await;
    }
    let (_, reads) = node.asked();
    assert!((1..=by_itself + 2).contains(&reads), "{reads} in two minutes with calls, and {by_itself} without");
    let last = asks.last().unwrap();
    for token in ["canary-newer", "canary-newest"] {
        life.publish(&Ask { token: token.to_owned(), ..last.clone() }).await.unwrap();
        moment().await;
        assert_eq!(node.asked(), (0, 1), "it may be what the store was waiting for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_waits_no_longer() {
    let node = Node::new();
    let life = Arc::new(node.start());
    node.store.state().failing = Some(ErrorKind::Unavailable);
    let ask = Ask::new(1, &[FILE]);
    life.pods.set(&ask.pod, Some(SeenPod::default()));
    for gone in [Some(SeenPod { is_deleted: true, ..seen(&[]) }), None] {
        life.pods.set(&ask.pod, Some(SeenPod::default()));
        let goes = async {
            seconds(20).await;
            life.pods.set(&ask.pod, gone);
            Instant::now()
        };
        let (published, went) = tokio::join!(life.publish(&ask), goes);
        assert_eq!(published.unwrap_err().kind, FailureKind::PodGone);
        assert_eq!(went.elapsed().as_millis(), 0);
    }
    // kubelet's next call, if it makes one.
    life.pods.set(&ask.pod, Some(SeenPod { is_deleted: true, ..seen(&[]) }));
    assert_eq!(life.publish(&ask).await.unwrap_err().kind, FailureKind::PodGone);
    life.unpublish(&ask).await.unwrap();
    moment().await;
    node.assert_bare();
    assert_eq!(life.driver.counts(), (0, 0, 0));
}

/// kubelet forgets a volume after a final code, whatever was there to be understood.
#[tokio::test(start_paused = true)]
async fn a_call_that_makes_no_sense_leaves_nothing_of_a_volume_that_waits() {
    let node = Node::new();
    let life = node.start();
    node.store.state().failing = Some(ErrorKind::Unavailable);
    let ask = Ask::new(1, &[FILE]);
    assert_eq!(life.publish(&ask).await.unwrap_err().kind, FailureKind::Waiting);
    let mut bad = ask.request(node.root());
    bad.volume_capability = None;
    assert!(life.driver.publish(bad).await.unwrap_err().kind.is_final());
    node.store.state().failing = None;
    seconds(120).await;
    assert_eq!(life.driver.counts(), (0, 0, 0));
    node.assert_bare();
}

#[tokio::test(start_paused = true)]
async fn a_volume_can_be_taken_away_while_it_waits() {
    let node = Node::new();
    let life = node.start();
    node.store.state().failing = Some(ErrorKind::Unavailable);
    let ask = Ask::new(1, &[FILE]);
    let goes = async {
        seconds(20).await;
        life.unpublish(&ask).await
    };
    let (published, unpublished) = tokio::join!(life.publish(&ask), goes);
    unpublished.unwrap();
    assert!(!published.unwrap_err().kind.is_final());
    node.store.state().failing = None;
    seconds(300).await;
    node.assert_bare();
    assert_eq!(life.driver.counts(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn of_a_volume_that_is_refused_nothing_is_left() {
    for (kind, expected) in [
        (ErrorKind::NotFound, FailureKind::NotFound),
        (ErrorKind::Denied, FailureKind::Denied),
        (ErrorKind::Invalid, FailureKind::Invalid),
    ] {
        let node = Node::new();
        let life = node.start();
        node.store.state().failing_path.insert(KV.to_owned(), kind);
        let asks: Vec<_> = (0..60).map(|n| Ask::new(n, &[FILE])).collect();
        let failures = join_all(asks.iter().map(|ask| life.publish(ask))).await;
        for failure in failures {
            assert_eq!(failure.unwrap_err().kind, expected);
        }
        assert_eq!(node.asked(), (1, 1), "sixty ask at once");
        assert_eq!(node.written().0, [""; 0]);
        assert_eq!(node.mounts.table().calls.iter().filter(|call| **call == "mount").count(), 0);
        let (volumes, _, bytes) = life.driver.counts();
        assert!(volumes == 0 && bytes < 2 << 20, "what the feed's answers may take, until it is closed: {bytes}");
        assert_eq!(life.publish(&asks[0]).await.unwrap_err().kind, expected, "kubelet's next try");
        seconds(20).await;
        node.assert_bare();
        assert_eq!(life.driver.counts(), (0, 0, 0), "the feed is closed");
        node.store.state().failing_path.clear();
        life.publish(&asks[0]).await.unwrap();
    }
}

/// A feed with running volumes refuses a new one, and keeps the others.
#[tokio::test(start_paused = true)]
async fn a_refusal_takes_no_files_from_others() {
    let node = Node::new();
    let life = node.start();
    let (old, new) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]));
    life.publish(&old).await.unwrap();
    life.end().await;
    let mut life = node.start();
    node.store.state().failing_path.insert(KV.to_owned(), ErrorKind::NotFound);
    let failure = life.publish(&new).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound, "{failure}");
    assert_eq!(node.file(&old, "db"), "canary-v1");
    assert_eq!(node.written(), (vec!["csi-1".to_owned()], 1));
    assert!(life.trouble().is_some_and(|told| told.contains("the last good files stay")));
    node.store.state().failing_path.clear();
    seconds(600).await;
    life.publish(&new).await.unwrap();
    assert_eq!(life.driver.counts().0, 2);
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_made_are_refused() {
    let node = Node::new();
    let life = node.start();
    let ask = Ask::new(1, &[("file.db", "secret/data/db#missing")]);
    let failure = life.publish(&ask).await.unwrap_err();
    assert!(failure.kind.is_final() && failure.to_string().contains("missing"), "{failure}");
    seconds(20).await;
    node.assert_bare();
    assert_eq!(life.driver.counts(), (0, 0, 0));
}

/// A mount that fails is tried again; nothing of it is left meanwhile.
#[tokio::test(start_paused = true)]
async fn a_mount_that_fails_is_tried_again() {
    let node = Node::new();
    let life = node.start();
    node.mounts.table().failing.insert("mount");
    let ask = Ask::new(1, &[FILE]);
    let failure = life.publish(&ask).await.unwrap_err();
    assert!(failure.kind == FailureKind::Waiting && failure.to_string().contains("cannot be written"), "{failure}");
    node.mounts.table().failing.clear();
    life.publish(&ask).await.unwrap();
    assert_eq!(node.file(&ask, "db"), "canary-v1");
}

/// What is told to a feed at the moment in which its last volume goes does not keep it.
#[tokio::test(start_paused = true)]
async fn a_feed_ends_whatever_it_hears_meanwhile() {
    let node = Node::new();
    let life = node.start();
    let ask = Ask::new(1, &[FILE]);
    life.publish(&ask).await.unwrap();
    let (unpublished, ()) = tokio::join!(life.unpublish(&ask), async { tell(&life, &ask, &[("hold", "true")]) });
    unpublished.unwrap();
    moment().await;
    node.assert_bare();
    assert_eq!(life.driver.counts(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn volumes_with_leases_of_their_own_do_not_wait_for_each_others_store() {
    let node = Node::new();
    let life = node.start();
    node.store.state().failing = Some(ErrorKind::Unavailable);
    let asks: Vec<_> = (0..20).map(|n| Ask::new(n, &[FILE, USER])).collect();
    let back = async {
        seconds(60).await;
        node.store.state().failing = None;
        Instant::now()
    };
    let (published, back) = tokio::join!(join_all(asks.iter().map(|ask| life.publish(ask))), back);
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    assert!(back.elapsed() <= Duration::from_secs(2), "{:?}", back.elapsed());
    assert_eq!(node.store.state().live(LEASED), 20);
}
