use futures_util::future::join_all;

use super::controls::{seen, tell};
use super::node::{Ask, FILE, KV, LEASED, Node, USER, moment, seconds};
use crate::csi::pods::SeenPod;
use crate::provider::ErrorKind;

#[tokio::test(start_paused = true)]
async fn pods_of_one_account_that_want_the_same_have_one_login_and_one_read() {
    let node = Node::new();
    let life = node.start();
    let asks: Vec<_> = (0..60).map(|n| Ask::new(n, &[FILE])).collect();
    for published in join_all(asks.iter().map(|ask| life.publish(ask))).await {
        published.unwrap();
    }
    assert_eq!((life.sources(), node.asked()), (1, (1, 1)));
    seconds(300).await;
    let (logins, reads) = node.asked();
    assert!(logins == 0 && (8..=12).contains(&reads), "{reads} polls of 30 s, however many pods there are");
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    seconds(40).await;
    assert!(asks.iter().all(|ask| node.file(ask, "db") == "canary-v2"));
    for ask in &asks {
        life.unpublish(ask).await.unwrap();
    }
    moment().await;
    node.assert_bare();
    assert_eq!(life.driver.counts(), (0, 0, 0));
    node.asked();
    seconds(600).await;
    assert_eq!(node.asked(), (0, 0), "nobody asks for nobody");
}

/// A feed is shared by those of one namespace, account and plan; a lease stands for the bytes that must not be another's.
#[tokio::test(start_paused = true)]
async fn p6_nobody_gets_the_bytes_of_another_account() {
    let shared = [USER, ("share-leases", "true")];
    let with = |n: usize, account: Option<&str>| Ask::new(n, &shared).of_account(account);
    let elsewhere = |ask: Ask| Ask { namespace: "other".to_owned(), ..ask };
    for (name, one, other, is_shared) in [
        ("one account", with(1, Some("u-1")), with(2, Some("u-1")), true),
        ("two accounts, or one that was made anew", with(1, Some("u-1")), with(2, Some("u-2")), false),
        ("no claims", with(1, None), with(2, None), false),
        ("two namespaces", with(1, Some("u-1")), elsewhere(with(2, Some("u-1"))), false),
        ("one pod, no claims", with(1, None), Ask { volume: "csi-2".to_owned(), ..with(1, None) }, true),
        (
            "another plan",
            with(1, Some("u-1")),
            Ask { attributes: vec![FILE, shared[0], shared[1]], ..with(2, Some("u-1")) },
            false,
        ),
        ("leases of their own", Ask::new(1, &[USER]), Ask::new(2, &[USER]), false),
    ] {
        let node = Node::new();
        let life = node.start();
        life.publish(&one).await.unwrap();
        life.publish(&other).await.unwrap();
        let same = node.file(&one, "user") == node.file(&other, "user");
        assert_eq!((same, life.sources()), (is_shared, if is_shared { 1 } else { 2 }), "{name}");
        assert_eq!(node.store.state().live(LEASED), if is_shared { 1 } else { 2 }, "{name}");
        for ask in [&one, &other] {
            let files = node.files(ask);
            assert!(node.store.state().is_live(&files["user"]), "{name}");
            life.unpublish(ask).await.unwrap();
        }
        moment().await;
        node.assert_bare();
    }
}

#[tokio::test(start_paused = true)]
async fn volumes_with_leases_of_their_own_share_a_login() {
    for (name, is_at_once) in [("one after the other", false), ("at once", true)] {
        let node = Node::new();
        let life = node.start();
        let asks: Vec<_> = (0..20).map(|n| Ask::new(n, &[FILE, USER])).collect();
        if is_at_once {
            for published in join_all(asks.iter().map(|ask| life.publish(ask))).await {
                published.unwrap();
            }
        } else {
            for ask in &asks {
                life.publish(ask).await.unwrap();
            }
        }
        assert_eq!((life.sources(), node.store.state().live(LEASED)), (20, 20), "{name}");
        assert_eq!(node.asked().0, 1, "{name}");
    }
}

/// To the store goes the token of a pod that lives.
#[tokio::test(start_paused = true)]
async fn the_token_of_a_pod_that_is_gone_is_used_no_more() {
    let node = Node::new();
    let life = node.start();
    let (one, two) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]));
    life.publish(&one).await.unwrap();
    life.publish(&two).await.unwrap();
    let used = life.token(0).unwrap();
    let (gone, stays) = if used == one.whole_token() { (&one, &two) } else { (&two, &one) };
    life.unpublish(gone).await.unwrap();
    assert_eq!(life.token(0), Some(stays.whole_token()));
    assert_eq!(node.file(stays, "db"), "canary-v1");
}

/// A pod that was deleted by force is still mounted here, and every store refuses its token.
#[tokio::test(start_paused = true)]
async fn the_token_of_a_pod_that_was_deleted_by_force_is_used_no_more() {
    for (name, last_seen) in [("gone", None), ("going", Some(SeenPod { is_deleted: true, ..SeenPod::default() }))] {
        let node = Node::new();
        let life = node.start();
        let (one, two) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]));
        for ask in [&one, &two] {
            life.pods.set(&ask.pod, Some(SeenPod::default()));
            life.publish(ask).await.unwrap();
        }
        moment().await;
        let used = life.token(0).unwrap();
        let (gone, stays) = if used == one.whole_token() { (&one, &two) } else { (&two, &one) };
        life.pods.set(&gone.pod, last_seen);
        node.store.state().failing = Some(ErrorKind::Denied);
        seconds(35).await;
        assert_eq!(life.token(0), Some(stays.whole_token()), "{name}");
        // A third comes: who is there decides, not who lives longest.
        node.store.state().failing = None;
        let third = Ask::new(3, &[FILE]);
        life.pods.set(&third.pod, Some(SeenPod::default()));
        life.publish(&third).await.unwrap();
        assert_ne!(life.token(0), Some(gone.whole_token()), "{name}");
        // With nobody else there it is better than none.
        life.unpublish(stays).await.unwrap();
        life.unpublish(&third).await.unwrap();
        assert_eq!(life.token(0), Some(gone.whole_token()), "{name}");
    }
}

/// A credential that a held pod still shows is not revoked, though the others have its successor.
#[tokio::test(start_paused = true)]
async fn a_lease_lives_as_long_as_somebody_shows_it() {
    let node = Node::new();
    node.store.put_leased(LEASED, 60, 60, false);
    let life = node.start();
    let shared = [USER, ("share-leases", "true")];
    let (held, free) = (Ask::new(1, &shared), Ask::new(2, &shared));
    life.pods.set(&held.pod, Some(seen(&[("hold", "true")])));
    life.publish(&held).await.unwrap();
    life.publish(&free).await.unwrap();
    let first = node.file(&held, "user");
    while node.file(&free, "user") == first {
        seconds(1).await;
    }
    seconds(15).await;
    assert!(!node.store.state().calls.contains(&format!("revoke {first}")));
    assert_eq!(node.file(&held, "user"), first);
    tell(&life, &held, &[]);
    moment().await;
    let second = node.file(&held, "user");
    assert_ne!(second, first);
    assert!(node.store.state().is_live(&second));
}

#[tokio::test(start_paused = true)]
async fn the_last_volume_ends_what_the_operator_wants_ended() {
    let node = Node::new();
    node.configure("    refresh: 30s", "    refresh: 30s\n    revokeOnExit: true");
    let life = node.start();
    let shared = [USER, ("share-leases", "true")];
    let (one, two) = (Ask::new(1, &shared), Ask::new(2, &shared));
    life.publish(&one).await.unwrap();
    life.publish(&two).await.unwrap();
    life.unpublish(&one).await.unwrap();
    seconds(30).await;
    assert_eq!(node.store.state().live(LEASED), 1);
    life.unpublish(&two).await.unwrap();
    seconds(30).await;
    assert_eq!(node.store.state().live(LEASED), 0);
    assert!(node.store.state().calls.iter().any(|call| call.starts_with("end ")));
    node.assert_bare();
}
