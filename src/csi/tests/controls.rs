use super::node::{Ask, FILE, KV, Life, Node, moment, seconds};
use crate::contract::PREFIX;
use crate::csi::pods::{Annotations, SeenPod};

pub(super) fn seen(annotations: &[(&str, &str)]) -> SeenPod {
    let all: Vec<_> =
        annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())).collect();
    SeenPod { annotations: Annotations::of(all.iter().map(|(name, value)| (name, value))), is_deleted: false }
}

/// The generation that a volume shows.
pub(super) fn generation(node: &Node, ask: &Ask) -> String {
    let data = std::fs::read_link(node.target(ask).join("..data")).unwrap();
    data.to_str().unwrap().trim_start_matches('.').to_owned()
}

/// The API server tells of the pod.
pub(super) fn tell(life: &Life, ask: &Ask, annotations: &[(&str, &str)]) {
    life.pods.set(&ask.pod, Some(seen(annotations)));
    life.driver.pod_changed(&ask.pod, &seen(annotations));
}

fn put(node: &Node, version: &str) {
    node.store.put(KV, version, &format!(r#"{{"password":"canary-v{version}"}}"#));
}

#[tokio::test(start_paused = true)]
async fn a_hold_counts_from_the_beginning_and_over_restarts() {
    let node = Node::new();
    let life = node.start();
    let (held, free) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]));
    life.pods.set(&held.pod, Some(seen(&[("hold", "true")])));
    life.pods.set(&free.pod, Some(seen(&[])));
    life.publish(&held).await.unwrap();
    life.publish(&free).await.unwrap();
    put(&node, "2");
    seconds(60).await;
    assert_eq!((node.file(&held, "db").as_str(), node.file(&free, "db").as_str()), ("canary-v1", "canary-v2"));
    assert_eq!(life.sources(), 1);
    life.end().await;
    // The API server is not to be reached.
    let life = node.start();
    seconds(60).await;
    assert_eq!(node.file(&held, "db"), "canary-v1", "held by what is written down");
    tell(&life, &held, &[]);
    moment().await;
    assert_eq!(node.file(&held, "db"), "canary-v2");
    tell(&life, &held, &[("hold", "true")]);
    moment().await;
    life.end().await;
    let life = node.start();
    put(&node, "3");
    seconds(60).await;
    assert_eq!((node.file(&held, "db").as_str(), node.file(&free, "db").as_str()), ("canary-v2", "canary-v3"));
    tell(&life, &held, &[]);
    moment().await;
    life.end().await;
    let _life = node.start();
    seconds(60).await;
    assert_eq!(node.file(&held, "db"), "canary-v3", "let go of, also by what is written down");
}

#[tokio::test(start_paused = true)]
async fn without_the_api_server_files_are_delivered() {
    let node = Node::new();
    let life = node.start();
    let ask = Ask::new(1, &[FILE]);
    let start = tokio::time::Instant::now();
    life.publish(&ask).await.unwrap();
    assert!(start.elapsed().as_secs() <= 2);
    assert_eq!(node.file(&ask, "db"), "canary-v1");
}

#[tokio::test(start_paused = true)]
async fn a_pin_returns_to_an_earlier_generation_and_refresh_now_reads_at_once() {
    let node = Node::new();
    let life = node.start();
    let (pinned, free) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]));
    life.publish(&pinned).await.unwrap();
    life.publish(&free).await.unwrap();
    let first = generation(&node, &free);
    put(&node, "2");
    tell(&life, &free, &[("refresh-now", "1")]);
    seconds(2).await;
    assert_eq!(node.file(&free, "db"), "canary-v2", "before it is due");
    tell(&life, &pinned, &[("pin", &first)]);
    seconds(2).await;
    assert_eq!((node.file(&pinned, "db").as_str(), node.file(&free, "db").as_str()), ("canary-v1", "canary-v2"));
    tell(&life, &pinned, &[]);
    seconds(10).await;
    assert_eq!(node.file(&pinned, "db"), "canary-v2");
}

#[tokio::test(start_paused = true)]
async fn volumes_of_pods_that_are_gone_are_collected() {
    let node = Node::new();
    let life = node.start();
    let (gone, here) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]));
    life.publish(&gone).await.unwrap();
    life.publish(&here).await.unwrap();
    life.end().await;
    let life = node.start();
    life.pods.set(&here.pod, Some(seen(&[])));
    tokio::select! {
        () = life.driver.collect() => unreachable!("it looks again and again"),
        () = seconds(200) => {}
    }
    assert!(node.is_mounted(&gone), "kubelet may be about to take it away");
    tokio::select! {
        () = life.driver.collect() => unreachable!("it looks again and again"),
        () = seconds(400) => {}
    }
    assert_eq!(node.written().0, ["csi-2"]);
    assert!(!node.is_mounted(&gone) && node.is_mounted(&here));
    // Of what nobody knows any more the mount table tells.
    let (lost, kept) = (Ask::new(3, &[("program", "exec")]), Ask::new(4, &[("program", "exec")]));
    for ask in [&lost, &kept] {
        life.publish(ask).await.unwrap();
    }
    life.pods.set(&kept.pod, Some(seen(&[])));
    let elsewhere = node.root().join("plugins");
    node.mounts.table().ours.insert(elsewhere.clone());
    tokio::select! {
        () = life.driver.collect() => unreachable!("it looks again and again"),
        () = seconds(400) => {}
    }
    assert!(!node.is_mounted(&lost) && node.is_mounted(&kept) && node.is_mounted(&here));
    assert!(node.mounts.table().ours.contains(&elsewhere), "no pod's");
}

#[tokio::test(start_paused = true)]
async fn a_pin_counts_from_the_beginning() {
    let node = Node::new();
    let life = node.start();
    let (first, late) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]));
    life.publish(&first).await.unwrap();
    let generation = generation(&node, &first);
    put(&node, "2");
    seconds(60).await;
    assert_eq!(node.file(&first, "db"), "canary-v2");
    life.pods.set(&late.pod, Some(seen(&[("pin", &generation)])));
    life.publish(&late).await.unwrap();
    seconds(5).await;
    assert_eq!((node.file(&late, "db").as_str(), node.file(&first, "db").as_str()), ("canary-v1", "canary-v2"));
}

#[tokio::test(start_paused = true)]
async fn a_wave_takes_the_newest_once_for_its_volume_and_over_restarts() {
    let node = Node::new();
    let life = node.start();
    let (held, other) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]));
    let hold = [("hold", "true")];
    let wave = |name| [("hold", "true"), ("advance", name)];
    for ask in [&held, &other] {
        life.pods.set(&ask.pod, Some(seen(&hold)));
        life.publish(ask).await.unwrap();
    }
    seconds(1).await;
    put(&node, "2");
    tell(&life, &held, &wave("w1"));
    seconds(2).await;
    let both = || [node.file(&held, "db"), node.file(&other, "db")];
    assert_eq!(both(), ["canary-v2", "canary-v1"], "asked for before it is due");
    put(&node, "3");
    seconds(120).await;
    tell(&life, &held, &wave("w1"));
    seconds(120).await;
    assert_eq!(both(), ["canary-v2", "canary-v1"], "the same wave again");
    life.end().await;
    // Its pod, and what it asks for, is seen a while later.
    let life = node.start();
    seconds(120).await;
    tell(&life, &held, &wave("w1"));
    seconds(120).await;
    assert_eq!(both(), ["canary-v2", "canary-v1"], "also by the next process");
    tell(&life, &held, &wave("w2"));
    life.end().await;
    // It heard of the second and had no time for it.
    let life = node.start();
    tell(&life, &held, &wave("w2"));
    seconds(30).await;
    assert_eq!(both(), ["canary-v3", "canary-v1"]);
}

#[tokio::test(start_paused = true)]
async fn each_volume_has_lines_in_the_drivers_log() {
    let (log, _listening) = crate::process::testing::log::Log::listen(tracing::Level::INFO);
    let node = Node::new();
    let life = node.start();
    let (one, two) = (Ask::new(1, &[FILE]), Ask::new(2, &[FILE]));
    for ask in [&one, &two] {
        life.publish(ask).await.unwrap();
    }
    tell(&life, &one, &[("hold", "true")]);
    put(&node, "2");
    seconds(65).await;
    let lines = crate::report::line::tests::lines_of(&log.text());
    let last = |ask: &Ask| lines.iter().rfind(|line| line.pod.uid.as_deref() == Some(&ask.pod)).unwrap();
    let [held, free] = [last(&one), last(&two)];
    assert!(held.held && !free.held && held.volume != free.volume, "{held:?} {free:?}");
    assert_eq!(held.newest, free.generation, "{held:?} {free:?}");
    assert_ne!(held.generation, free.generation);
    assert!(free.secrets[0].reference.contains(KV) && !log.text().contains("canary"), "{free:?}");
    seconds(600).await;
    let again = crate::report::line::tests::lines_of(&log.text()).len() - lines.len();
    assert_eq!(again, 2, "one for each, every ten minutes");
}
