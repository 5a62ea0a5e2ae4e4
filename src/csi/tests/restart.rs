use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node::{Ask, FILE, KV, LEASED, Node, USER, moment, seconds};
use crate::csi::pods::SeenPod;
use crate::provider::ErrorKind;
use crate::source::tests::fake::Granted;

#[tokio::test(start_paused = true)]
async fn p4_the_next_process_goes_on_with_logins_leases_and_files() {
    let node = Node::new();
    let life = node.start();
    let asks = [Ask::new(1, &[FILE, USER]), Ask::new(2, &[FILE, USER]), Ask::new(3, &[FILE])];
    for ask in &asks {
        life.publish(ask).await.unwrap();
    }
    let before: Vec<_> = asks.iter().map(|ask| node.files(ask)).collect();
    let inodes = || asks.clone().map(|ask| fs::metadata(node.target(&ask).join("db")).unwrap().ino());
    let same = inodes();
    let counts = life.driver.counts();
    for _ in 0..3 {
        node.asked();
        // With what no process knows: a restart while the store is away takes nothing from anybody.
        life_without_a_store(&node).await;
        let life = node.start();
        assert_eq!(life.driver.counts(), counts);
        seconds(90).await;
        let calls = node.store.state().take_calls();
        assert!(!calls.iter().any(|call| call.starts_with("login") || call.contains(LEASED)), "{calls:?}");
        let after: Vec<_> = asks.iter().map(|ask| node.files(ask)).collect();
        assert_eq!((after, inodes(), node.store.state().live(LEASED)), (before.clone(), same, 2));
        life.end().await;
    }
    let life = node.start();
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    seconds(90).await;
    for ask in &asks {
        assert_eq!(node.file(ask, "db"), "canary-v2");
        life.publish(ask).await.unwrap();
        life.unpublish(ask).await.unwrap();
    }
    moment().await;
    node.assert_bare();
    assert_eq!(life.driver.counts(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn p4_a_driver_ends_when_its_feeds_have_and_not_before() {
    let node = Node::new();
    let life = node.start();
    for ask in [Ask::new(1, &[FILE, USER]), Ask::new(2, &[FILE])] {
        life.publish(&ask).await.unwrap();
    }
    let driver = Arc::clone(&life.driver);
    assert!(Arc::strong_count(&driver) > 2, "or this would show nothing");
    life.end().await;
    assert_eq!(Arc::strong_count(&driver), 1, "nobody is left who writes");
}

async fn life_without_a_store(node: &Node) {
    node.store.state().failing = Some(ErrorKind::Unavailable);
    let life = node.start();
    seconds(5).await;
    life.end().await;
    node.store.state().failing = None;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_mounted_any_more_is_forgotten() {
    let node = Node::new();
    let life = node.start();
    let (gone, here) = (Ask::new(1, &[FILE, USER]), Ask::new(2, &[FILE, USER]));
    life.publish(&gone).await.unwrap();
    life.publish(&here).await.unwrap();
    life.end().await;
    node.mounts.lose(&node.target(&gone));
    // Of a process that was killed while it made a feed.
    fs::create_dir(node.state().join("feeds").join("0f")).unwrap();
    fs::write(node.state().join("volumes").join(".new-csi-7"), "half").unwrap();
    let life = node.start();
    let written = (vec!["csi-1".to_owned(), "csi-2".to_owned()], 2);
    assert_eq!((node.written(), life.driver.counts().0), (written, 1), "a lease waits for its volume");
    // kubelet asks for it again: the lease is the one that it had.
    node.asked();
    life.publish(&gone).await.unwrap();
    assert_eq!((node.asked().0, node.store.state().live(LEASED)), (0, 2));
    life.end().await;
    node.mounts.lose(&node.target(&gone));
    let life = node.start();
    seconds(601).await;
    assert_eq!(node.written(), (vec!["csi-2".to_owned()], 1), "kubelet does not ask for it");
    assert_eq!(life.driver.counts().0, 1);
}

/// After a boot there are no mounts and no state, and kubelet asks for the same volumes.
#[tokio::test(start_paused = true)]
async fn a_boot_of_the_node_makes_everything_anew() {
    let node = Node::new();
    let life = node.start();
    let ask = Ask::new(1, &[FILE, USER]);
    life.publish(&ask).await.unwrap();
    life.end().await;
    fs::remove_dir_all(node.state()).unwrap();
    fs::create_dir(node.state()).unwrap();
    node.mounts.table().ours.clear();
    fs::remove_dir_all(node.target(&ask)).unwrap();
    fs::create_dir(node.target(&ask)).unwrap();
    let life = node.start();
    node.store.state().failing = Some(ErrorKind::Unavailable);
    assert!(!life.publish(&ask).await.unwrap_err().kind.is_final(), "it waits, as at first");
    node.store.state().failing = None;
    life.publish(&ask).await.unwrap();
    assert_eq!(node.files(&ask).len(), 2);
}

/// A change of what was written down.
type Damage = fn(&str) -> String;

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_read_are_brought_back_by_kubelet() {
    let cases: [(&str, Damage, bool); 10] = [
        ("as it was", str::to_owned, true),
        ("of a process that wrote no controls", |text| text.replace(r#""hold":false,"pin":null,"#, ""), true),
        ("with a field of a later one", |text| text.replacen('{', r#"{"later":1,"#, 1), true),
        ("of a process that named no feeds", |text| without_feed(text), true),
        (
            "with a plan of a later one",
            |text| text.replace(r#"{\"version\":1"#, r#"{\"later\":1,\"version\":1"#),
            false,
        ),
        ("torn", |text| text[..text.len() / 2].to_owned(), false),
        ("empty", |_| String::new(), false),
        ("another format", |text| text.replace(r#""schema":1"#, r#""schema":7"#), false),
        ("another plan's format", |text| text.replace(r#"\"version\":1"#, r#"\"version\":7"#), false),
        ("too large", |text| text.to_owned() + &" ".repeat(1 << 20), false),
    ];
    for (name, damage, is_read) in cases {
        let node = Node::new();
        let life = node.start();
        let (ask, other) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE, USER]));
        life.publish(&ask).await.unwrap();
        life.publish(&other).await.unwrap();
        life.end().await;
        let record = node.state().join("volumes/csi-1");
        let text = fs::read_to_string(&record).unwrap();
        let damaged = damage(&text);
        assert!(damaged != text || name == "as it was", "{name}");
        fs::write(&record, damaged).unwrap();
        let life = node.start();
        assert_eq!(life.driver.counts().0, if is_read { 2 } else { 1 }, "{name}");
        assert_eq!((node.file(&ask, "db").as_str(), node.files(&other).len()), ("canary-v1", 2), "{name}");
        life.pods.set(&ask.pod, Some(SeenPod::default()));
        life.publish(&ask).await.unwrap();
        assert_eq!(life.driver.counts().0, 2, "{name}");
        node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
        seconds(60).await;
        assert_eq!(node.file(&ask, "db"), "canary-v2", "{name}");
        assert_eq!(node.written(), (vec!["csi-1".to_owned(), "csi-2".to_owned()], 2), "{name}");
        assert_eq!(node.store.state().login_count, 1, "{name}");
    }
}

fn without_feed(text: &str) -> String {
    let start = text.find(r#""feed":""#).unwrap();
    let end = text[start..].find(',').unwrap();
    format!("{}{}", &text[..start], &text[start + end + 1..])
}

/// Another version of this program calls the same feed otherwise, and may write plans that this one cannot read.
#[tokio::test(start_paused = true)]
async fn p4_logins_and_leases_outlive_an_upgrade_and_a_rollback() {
    let theirs = "0f".repeat(32);
    for (name, is_mounted, is_readable) in [
        ("another name", true, true),
        ("another name, and nothing is mounted", false, true),
        ("another name and another plan", true, false),
        ("another name and another plan, and nothing is mounted", false, false),
    ] {
        let node = Node::new();
        let life = node.start();
        let shared = [FILE, USER, ("share-leases", "true")];
        let asks = [1, 2].map(|n| Ask::new(n, &shared));
        for ask in &asks {
            life.publish(ask).await.unwrap();
        }
        let user = node.file(&asks[0], "user");
        life.end().await;
        let feeds = node.state().join("feeds");
        let ours = fs::read_dir(&feeds).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
        fs::rename(feeds.join(&ours), feeds.join(&theirs)).unwrap();
        for ask in &asks {
            let record = node.state().join("volumes").join(&ask.volume);
            let text = fs::read_to_string(&record).unwrap().replace(&ours, &theirs);
            let format = if is_readable { r#"\"version\":1"# } else { r#"\"version\":2"# };
            fs::write(&record, text.replace(r#"\"version\":1"#, format)).unwrap();
            if !is_mounted {
                node.mounts.lose(&node.target(ask));
            }
        }
        let life = node.start();
        seconds(30).await;
        let late = Ask::new(3, &shared);
        for ask in asks.iter().chain([&late]) {
            life.publish(ask).await.unwrap();
            assert_eq!(node.file(ask, "user"), user, "{name}");
        }
        assert_eq!((life.sources(), life.driver.counts().0, node.written().1), (1, 3, 1), "{name}");
        let counts = {
            let state = node.store.state();
            (state.login_count, state.live(LEASED))
        };
        assert_eq!(counts, (1, 1), "{name}");
        for ask in asks.iter().chain([&late]) {
            life.unpublish(ask).await.unwrap();
        }
        moment().await;
        node.assert_bare();
    }
}

/// The whole directory, as each release so far has left it.
#[tokio::test(start_paused = true)]
async fn p4_what_earlier_releases_left_is_gone_on_with() {
    let releases = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/csi")).unwrap();
    let mut count = 0;
    for release in releases.map(|entry| entry.unwrap().path()) {
        let node = Node::new();
        copy(&release, &node.state(), node.root());
        let granted = |path: &str| Granted {
            path: path.to_owned(),
            ends: Instant::now() + Duration::from_hours(1),
            latest: Instant::now() + Duration::from_hours(1),
        };
        node.store.state().leases.insert("lease-1".to_owned(), granted(LEASED));
        let life = node.start();
        let asks = [Ask::new(1, &[FILE, USER]), Ask::new(3, &[FILE])];
        for ask in &asks {
            life.publish(ask).await.unwrap();
            assert_eq!(node.file(ask, "db"), "canary-v1", "{release:?}");
        }
        assert_eq!(node.file(&asks[0], "user"), "lease-1", "{release:?}");
        assert_eq!((node.asked().0, node.store.state().live(LEASED), node.written().1), (0, 1, 2), "{release:?}");
        count += 1;
    }
    assert!(count > 0);
}

/// Copies a directory; volumes are where `root` is.
fn copy(from: &Path, to: &Path, root: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to, root);
        } else {
            fs::write(to, fs::read_to_string(entry.path()).unwrap().replace("@ROOT@", root.to_str().unwrap())).unwrap();
        }
    }
}

/// What nobody asks for again is not left to run until it ends by itself, where the operator wants it ended.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_process_left_is_revoked_before_it_is_forgotten() {
    let node = Node::new();
    node.configure("    refresh: 30s", "    refresh: 30s\n    revokeOnExit: true");
    let life = node.start();
    let (gone, back) = (Ask::new(1, &[USER]), Ask::new(2, &[USER]));
    for ask in [&gone, &back] {
        life.publish(ask).await.unwrap();
    }
    life.end().await;
    for _ in 0..2 {
        // Killed before the time is over.
        for ask in [&gone, &back].into_iter().filter(|ask| node.is_mounted(ask)) {
            node.mounts.lose(&node.target(ask));
        }
        let life = node.start();
        seconds(300).await;
        assert_eq!(node.store.state().live(LEASED), 2);
        life.end().await;
    }
    let life = node.start();
    life.publish(&back).await.unwrap();
    seconds(610).await;
    let user = node.file(&back, "user");
    assert_eq!(node.store.state().live(LEASED), 1);
    assert!(node.store.state().is_live(&user));
    assert_eq!(node.written(), (vec!["csi-2".to_owned()], 1));
}

/// The files of a running pod are worth more than what the driver thinks of their plan by now.
#[tokio::test(start_paused = true)]
async fn p3_a_running_volume_is_not_taken_away_by_a_restart() {
    let node = Node::new();
    let life = node.start();
    let ask = Ask::new(1, &[FILE]);
    life.publish(&ask).await.unwrap();
    life.end().await;
    node.mounts.table().failing.insert("ours");
    let life = node.start();
    node.mounts.table().failing.clear();
    assert_eq!(node.file(&ask, "db"), "canary-v1");
    life.publish(&ask).await.unwrap();
    assert_eq!(life.driver.counts().0, 1);
    life.unpublish(&ask).await.unwrap();
    moment().await;
    node.assert_bare();
}
