use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use tokio::time::Instant;

use super::controls::{generation, tell};
use super::node::{Ask, FILE, KV, LEASED, Node, USER, moment, seconds};
use crate::csi::failure::FailureKind;
use crate::provider::ErrorKind;

#[tokio::test(start_paused = true)]
async fn the_files_are_there_when_the_call_returns() {
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    for (fs_group, attributes, mode) in [
        ("", vec![FILE], 0o444),
        (&*group.to_string(), vec![FILE], 0o440),
        (&*group.to_string(), vec![FILE, ("file-mode", "0400")], 0o400),
    ] {
        let node = Node::new();
        let life = node.start();
        let ask = Ask { group: fs_group.to_owned(), ..Ask::new(1, &attributes) };
        life.publish(&ask).await.unwrap();
        assert_eq!(node.file(&ask, "db"), "canary-v1");
        let file = fs::metadata(node.target(&ask).join("db")).unwrap();
        assert_eq!((file.permissions().mode() & 0o7777, file.uid(), file.gid()), (mode, user, group), "{fs_group}");
        assert!(node.is_mounted(&ask));
        assert_eq!(node.written(), (vec!["csi-1".to_owned()], 1));
        let (volumes, feeds, bytes) = life.driver.counts();
        assert!((volumes, feeds) == (1, 1) && bytes > 0, "{bytes}");
        life.unpublish(&ask).await.unwrap();
        moment().await;
        node.assert_bare();
        assert_eq!(life.driver.counts(), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_there_takes_new_tokens_and_nothing_else() {
    let node = Node::new();
    let mut life = node.start();
    let ask = Ask::new(1, &[FILE]);
    life.publish(&ask).await.unwrap();
    assert_eq!(life.token(0), Some(ask.whole_token()));
    let newer = Ask { token: "canary-newer".to_owned(), ..ask.clone() };
    life.publish(&newer).await.unwrap();
    moment().await;
    assert_eq!(life.token(0), Some(newer.whole_token()));
    // Whatever kubelet says by now.
    let odd = Ask { attributes: vec![("fil.db", "x")], ..newer.clone() };
    life.publish(&odd).await.unwrap();
    let mut bad = newer.request(node.root());
    bad.volume_capability = None;
    life.driver.publish(bad).await.unwrap();
    node.store.state().failing = Some(ErrorKind::Unavailable);
    life.publish(&newer).await.unwrap();
    seconds(60).await;
    assert!(life.trouble().is_some_and(|told| told.starts_with("the last good files stay: vault:")));
    life.publish(&newer).await.unwrap();
    assert_eq!(node.file(&ask, "db"), "canary-v1");
    let table = node.mounts.table();
    assert_eq!(table.calls.iter().filter(|call| **call == "mount").count(), 1);
    assert_eq!(life.sources(), 1);
}

/// What the driver remembers does not count.
#[tokio::test(start_paused = true)]
async fn the_mount_table_says_whether_a_volume_is_there() {
    let node = Node::new();
    let life = node.start();
    let ask = Ask::new(1, &[FILE]);
    life.publish(&ask).await.unwrap();
    node.mounts.lose(&node.target(&ask));
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    life.publish(&ask).await.unwrap();
    assert!(node.is_mounted(&ask), "mounted anew");
    assert_eq!(node.file(&ask, "db").get(..8), Some("canary-v"));
    seconds(60).await;
    assert_eq!(node.file(&ask, "db"), "canary-v2", "and kept fresh");
    life.unpublish(&ask).await.unwrap();
    moment().await;
    node.assert_bare();
    assert_eq!(life.driver.counts(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn p9_two_volumes_on_one_path_are_refused() {
    for is_delivered in [true, false] {
        let node = Node::new();
        let life = node.start();
        let (first, neighbour) = (Ask::new(1, &[FILE]), Ask::new(3, &[FILE]));
        let mut second = Ask::new(2, &[FILE]).request(node.root());
        second.target_path = first.target(node.root()).to_str().unwrap().to_owned();
        if is_delivered {
            life.publish(&first).await.unwrap();
        } else {
            node.store.state().failing = Some(ErrorKind::Unavailable);
        }
        let (published, failure) = tokio::join!(life.publish(&first), async {
            seconds(5).await;
            let failure = life.driver.publish(second).await.unwrap_err();
            node.store.state().failing = None;
            failure
        });
        published.unwrap();
        assert_eq!(failure.kind, FailureKind::Precondition);
        let sentence = "the target path is volume csi-1's: expected one where no other volume is";
        assert_eq!(failure.to_string(), sentence, "{is_delivered}");
        life.publish(&neighbour).await.unwrap();
        for ask in [&first, &neighbour] {
            assert_eq!(node.file(ask, "db"), "canary-v1", "{is_delivered}");
            life.unpublish(ask).await.unwrap();
        }
        moment().await;
        node.assert_bare();
        assert_eq!(life.driver.counts(), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_down_may_be_lost() {
    let node = Node::new();
    let life = node.start();
    let ask = Ask::new(1, &[FILE]);
    life.publish(&ask).await.unwrap();
    life.end().await;
    fs::remove_dir_all(node.state()).unwrap();
    fs::create_dir(node.state()).unwrap();
    let life = node.start();
    assert_eq!(life.driver.counts(), (0, 0, 0));
    node.store.state().failing = Some(ErrorKind::Unavailable);
    life.publish(&ask).await.unwrap();
    assert_eq!(life.driver.counts().0, 1, "adopted");
    node.store.state().failing = None;
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    seconds(60).await;
    assert_eq!(node.file(&ask, "db"), "canary-v1", "nobody knows whether it is held");
    tell(&life, &ask, &[]);
    moment().await;
    assert_eq!(node.file(&ask, "db"), "canary-v2", "kept fresh by the process that adopted it");
}

#[tokio::test(start_paused = true)]
async fn taking_away_what_is_not_there_is_fine() {
    let node = Node::new();
    let life = node.start();
    let ask = Ask::new(1, &[FILE]);
    life.unpublish(&ask).await.unwrap();
    life.publish(&ask).await.unwrap();
    life.unpublish(&ask).await.unwrap();
    life.unpublish(&ask).await.unwrap();
    moment().await;
    node.assert_bare();
    node.mounts.table().failing.insert("unmount");
    let other = Ask::new(2, &[FILE]);
    let failure = life.publish(&other).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Waiting, "{failure}");
    node.mounts.table().failing.clear();
    life.publish(&other).await.unwrap();
    node.mounts.table().failing.insert("unmount");
    assert_eq!(life.unpublish(&other).await.unwrap_err().kind, FailureKind::Waiting);
    assert_eq!(node.written().0, ["csi-2"], "it is not forgotten as long as it is mounted");
    node.mounts.table().failing.clear();
    life.unpublish(&other).await.unwrap();
    moment().await;
    node.assert_bare();
}

/// A pin reads an old version, and the store is silent: nobody of the feed waits for that.
#[tokio::test(start_paused = true)]
async fn a_pin_holds_nobody_else_up() {
    let node = Node::new();
    let life = node.start();
    let (pinned, other, late) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]), Ask::new(3, &[FILE]));
    life.publish(&pinned).await.unwrap();
    life.publish(&other).await.unwrap();
    let first = generation(&node, &pinned);
    for version in ["2", "3"] {
        node.store.put(KV, version, &format!(r#"{{"password":"canary-v{version}"}}"#));
        seconds(60).await;
    }
    node.store.state().slow = Duration::from_secs(50);
    tell(&life, &pinned, &[("pin", &first)]);
    moment().await;
    let start = Instant::now();
    life.publish(&late).await.unwrap();
    assert_eq!(node.file(&late, "db"), "canary-v3");
    let newer = Ask { token: "canary-newer".to_owned(), ..late.clone() };
    life.publish(&newer).await.unwrap();
    life.unpublish(&other).await.unwrap();
    assert!(start.elapsed().as_secs() < 5 && !node.is_mounted(&other), "{:?}", start.elapsed());
    seconds(120).await;
    assert_eq!((node.file(&pinned, "db").as_str(), node.file(&late, "db").as_str()), ("canary-v1", "canary-v3"));
    // Also the pinned one goes at once.
    tell(&life, &late, &[("pin", &first)]);
    moment().await;
    let start = Instant::now();
    for ask in [&pinned, &late] {
        life.unpublish(ask).await.unwrap();
    }
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    moment().await;
    node.assert_bare();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_told_and_the_last_files_stay() {
    let node = Node::new();
    let mut life = node.start();
    let ask = Ask::new(1, &[("dir.all", KV)]);
    life.publish(&ask).await.unwrap();
    let before = node.files(&ask);
    assert_eq!(before.len(), 1);
    // Something of others lies where a link goes.
    let link = node.target(&ask).join("all");
    fs::remove_file(&link).unwrap();
    fs::write(&link, "in the way").unwrap();
    node.store.put(KV, "2", r#"{"password":"canary-v2","other":"canary-o"}"#);
    seconds(60).await;
    assert_eq!(node.files(&ask), before);
    let told: Vec<_> = std::iter::from_fn(|| life.trouble()).collect();
    assert!(told.len() == 1 && told[0].contains("cannot be written"), "{told:?}");
    fs::remove_file(&link).unwrap();
    seconds(120).await;
    assert_eq!(node.files(&ask).len(), 2, "{:?}", node.files(&ask));
    life.unpublish(&ask).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_whole_node_of_one_namespace_fits_unless_it_is_told_otherwise() {
    let node = Node::new();
    let life = node.start();
    // As many as kubelet runs, unless it is told otherwise.
    for number in 0..110 {
        life.publish(&Ask::new(number, &[FILE])).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_more_than_the_limits() {
    let node = Node::new();
    node.configure("csi: {}", "csi: {bytesPerNamespace: 8Mi, bytesPerNode: 12Mi}");
    let life = node.start();
    let big = |n: usize| Ask::new(n, &[FILE, ("size-limit", "1Mi")]);
    let other = |n: usize| Ask { namespace: "other".to_owned(), ..big(n) };
    for ask in [big(1), big(2)] {
        life.publish(&ask).await.unwrap();
    }
    for (ask, whose) in [(big(3), "bytesPerNamespace"), (big(3), "bytesPerNamespace")] {
        let failure = life.publish(&ask).await.unwrap_err();
        assert!(failure.kind == FailureKind::Exhausted && failure.to_string().contains(whose), "{failure}");
    }
    life.publish(&other(4)).await.unwrap();
    let taken = life.driver.counts().2;
    let failure = life.publish(&other(5)).await.unwrap_err();
    assert!(failure.kind == FailureKind::Exhausted && failure.to_string().contains("bytesPerNode"), "{failure}");
    assert_eq!(node.written().0, ["csi-1", "csi-2", "csi-4"], "of what has no room nothing is left");
    life.unpublish(&big(1)).await.unwrap();
    moment().await;
    assert!(life.driver.counts().2 < taken, "given back");
    life.publish(&big(3)).await.unwrap();
    assert_eq!(life.driver.counts().2, taken);
    // A restart counts what is there.
    let taken = life.driver.counts().2;
    life.end().await;
    let life = node.start();
    assert_eq!(life.driver.counts().2, taken);
    for ask in [big(2), big(3), other(4)] {
        life.unpublish(&ask).await.unwrap();
    }
    moment().await;
    assert_eq!(life.driver.counts(), (0, 0, 0));
    node.assert_bare();
}

/// What stores answer is memory of the driver, too: of a document with many values one pod wants one, and another all.
#[tokio::test(start_paused = true)]
async fn what_a_store_answers_takes_no_more_than_the_limits() {
    let node = Node::new();
    node.configure("csi: {}", "csi: {bytesPerNamespace: 16Mi}");
    let many = |n: usize| {
        let entries: Vec<_> = (0..n).map(|n| format!(r#""k{n}":"canary-{n}""#)).collect();
        format!(r#"{{"password":"canary-v1",{}}}"#, entries.join(","))
    };
    node.store.put(KV, "1", &many(9_000));
    let life = node.start();
    let (one, all) = (Ask::new(1, &[FILE]), Ask::new(2, &[("dir.all", KV), ("size-limit", "1Mi")]));
    life.publish(&one).await.unwrap();
    assert_eq!(node.file(&one, "db"), "canary-v1");
    let failure = life.publish(&all).await.unwrap_err();
    assert!(
        failure.kind == FailureKind::Invalid && failure.to_string().contains("it, or raise size-limit"),
        "{failure}"
    );
    // With fewer it fits, and what comes later leaves the last good files.
    node.store.put(KV, "2", &many(200));
    seconds(60).await;
    life.publish(&all).await.unwrap();
    node.store.put(KV, "3", &many(9_000));
    seconds(60).await;
    assert_eq!(node.files(&all).len(), 201);
    // Each feed counts, also that of one small file.
    let apart = |n: usize| Ask::new(n, &[FILE]).of_account(Some(["u-3", "u-4", "u-5"][n - 3]));
    life.publish(&apart(3)).await.unwrap();
    life.publish(&apart(4)).await.unwrap_err();
    for ask in [&one, &all, &apart(3)] {
        life.unpublish(ask).await.unwrap();
    }
    moment().await;
    assert_eq!(life.driver.counts(), (0, 0, 0));
}

/// What does not fit on its way all at once comes one part after the other, and a rotation of it too.
#[tokio::test(start_paused = true)]
async fn many_large_answers_come_one_part_after_the_other() {
    let node = Node::new();
    let life = node.start();
    let entries: Vec<_> = (0..9_000).map(|n| format!(r#""k{n}":"canary""#)).collect();
    let rotated = |version: &str| {
        for number in 0..50 {
            let (path, more) = (format!("secret/data/n{number}"), entries.join(","));
            node.store.put(&path, version, &format!(r#"{{"password":"canary-{version}-{number}",{more}}}"#));
        }
    };
    rotated("1");
    let items: Vec<_> = (0..50).map(|n| format!("{{file: f{n}, from: \"secret/data/n{n}#password\"}}")).collect();
    let secrets: &'static str = format!("[{}]", items.join(", ")).leak();
    let (many, neighbour) = (Ask::new(1, &[("secrets", secrets)]), Ask::new(2, &[FILE]));
    let (first, second) = tokio::join!(life.publish(&many), life.publish(&neighbour));
    first.unwrap();
    second.unwrap();
    assert_eq!(node.file(&many, "f49"), "canary-1-49");
    let (_, reads) = node.asked();
    assert!(reads > 2, "{reads}: all came at once");
    rotated("2");
    seconds(90).await;
    assert_eq!(node.file(&many, "f49"), "canary-2-49");
    life.unpublish(&many).await.unwrap();
    life.unpublish(&neighbour).await.unwrap();
    moment().await;
    assert_eq!(life.driver.counts(), (0, 0, 0));
}

/// The operator's configuration changes while a volume waits: its next call has another plan.
#[tokio::test(start_paused = true)]
async fn a_waiting_volume_follows_the_configuration() {
    let node = Node::new();
    let life = node.start();
    node.store.state().failing = Some(ErrorKind::Unavailable);
    let ask = Ask::new(1, &[FILE, USER]);
    assert_eq!(life.publish(&ask).await.unwrap_err().kind, FailureKind::Waiting);
    node.configure("https://vault.example", "https://other.example");
    let taken = life.driver.counts().2;
    assert_eq!(life.publish(&ask).await.unwrap_err().kind, FailureKind::Waiting);
    assert_eq!(life.driver.counts(), (1, 1, taken), "in the place of the one before");
    assert_eq!(life.sources(), 2);
    node.store.state().failing = None;
    life.publish(&ask).await.unwrap();
    assert_eq!(node.files(&ask).len(), 2);
    life.unpublish(&ask).await.unwrap();
    moment().await;
    node.assert_bare();
}

#[tokio::test(start_paused = true)]
async fn the_program_is_shown_as_often_as_it_is_asked_for() {
    let node = Node::new();
    let life = node.start();
    let asks = [1, 2].map(|n| Ask::new(n, &[("program", "exec")]));
    for ask in asks.iter().chain(&asks) {
        life.publish(ask).await.unwrap();
        assert_eq!(node.mounts.table().shown[&node.target(ask)], node.root().join("programs/0f"));
    }
    assert_eq!(node.mounts.table().calls.iter().filter(|call| **call == "bind").count(), 2);
    assert_eq!((life.driver.counts(), node.asked()), ((0, 0, 0), (0, 0)), "it has no secrets");
    let both = Ask::new(3, &[("program", "exec"), FILE]);
    assert_eq!(life.publish(&both).await.unwrap_err().kind, FailureKind::Invalid);
    life.end().await;
    let life = node.start();
    for ask in &asks {
        assert!(node.is_mounted(ask), "a restart takes nothing away");
        life.unpublish(ask).await.unwrap();
    }
    node.assert_bare();
}

#[tokio::test(start_paused = true)]
async fn every_privileged_call_may_fail_once() {
    let mut tried = 0;
    for calls in 0.. {
        let node = Node::new();
        node.mounts.table().fails_after = Some(calls);
        let life = node.start();
        let asks = [Ask::new(1, &[FILE, USER]), Ask::new(2, &[FILE])];
        for ask in &asks {
            while let Err(failure) = life.publish(ask).await {
                assert!(!failure.kind.is_final(), "{failure}");
            }
            assert_eq!(node.files(ask).len(), ask.attributes.len());
        }
        assert_eq!(node.store.state().live(LEASED), 1);
        for ask in &asks {
            while let Err(failure) = life.unpublish(ask).await {
                assert!(!failure.kind.is_final(), "{failure}");
            }
        }
        moment().await;
        node.assert_bare();
        assert_eq!(life.driver.counts(), (0, 0, 0));
        if node.mounts.table().fails_after.is_some() {
            break;
        }
        tried += 1;
    }
    assert!(tried >= 5, "{tried}");
}
