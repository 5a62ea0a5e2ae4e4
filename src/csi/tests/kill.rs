//! The process is killed at every step in turn; the next one and kubelet's next calls put everything right.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::node::{Ask, FILE, KV, LEASED, Life, Node, USER, moment, seconds};
use super::steps;

/// How far kubelet has come: what it was told to take away it does not ask for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Publish,
    Rotate,
    Unpublish,
}

/// A process, until its work is done or it is killed; at which step, then.
fn live(node: &Node, kill_at: Option<usize>, work: impl AsyncFnOnce(Life)) -> Option<&'static str> {
    steps::begin(kill_at);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { work(node.start()).await })));
    let is_dead = steps::is_dead();
    match ended {
        Err(panic) if !is_dead => std::panic::resume_unwind(panic),
        _ => {}
    }
    drop(runtime);
    let last = steps::last();
    steps::begin(None);
    is_dead.then_some(last)
}

fn asks() -> [Ask; 3] {
    [Ask::new(1, &[FILE, USER]), Ask::new(2, &[FILE, USER]), Ask::new(3, &[FILE])]
}

/// As kubelet does, a few times.
async fn publish(life: &Life, ask: &Ask) {
    for _ in 0..5 {
        let published = life.publish(ask).await;
        if published.is_ok() || steps::is_dead() {
            return;
        }
        seconds(1).await;
    }
    panic!("{} is not published", ask.volume);
}

async fn scenario(node: &Node, life: Life, phase: &Cell<Phase>) {
    let asks = asks();
    for ask in &asks {
        publish(&life, ask).await;
    }
    phase.set(Phase::Rotate);
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    seconds(60).await;
    for ask in &asks {
        publish(&life, ask).await;
    }
    phase.set(Phase::Unpublish);
    for ask in &asks {
        life.unpublish(ask).await.unwrap_or_default();
    }
    moment().await;
}

/// Nothing is torn, leaked or had twice.
fn check(node: &Node, newest: &str, killed: &str) {
    let asks = asks();
    let targets: BTreeSet<_> = asks.iter().map(|ask| node.target(ask)).collect();
    assert_eq!(node.mounts.table().ours, targets, "{killed}");
    assert_eq!(node.written(), (asks.iter().map(|ask| ask.volume.clone()).collect(), 3), "{killed}");
    for ask in &asks {
        let files = node.files(ask);
        assert_eq!((files.len(), files["db"].as_str()), (ask.attributes.len(), newest), "{killed}");
        let is_live = files.get("user").is_none_or(|user| node.store.state().is_live(user));
        assert!(is_live, "{killed}");
        let names = std::fs::read_dir(node.target(ask)).unwrap().map(|entry| entry.unwrap().file_name());
        let odd: Vec<_> = names.filter(|name| name.to_str().unwrap().ends_with("_tmp")).collect();
        assert_eq!(odd.len(), 0, "{killed}: {odd:?}");
    }
    assert_eq!(node.store.state().live(LEASED), 2, "{killed}");
    assert_eq!(node.store.state().login_count, 1, "{killed}");
}

#[test]
fn p2_p3_p4_a_process_that_is_killed_leaves_nothing_torn_leaked_or_had_twice() {
    let mut phases = Vec::new();
    for kill_at in 0.. {
        let (node, phase) = (Node::new(), Cell::new(Phase::Publish));
        let Some(step) = live(&node, Some(kill_at), async |life| scenario(&node, life, &phase).await) else { break };
        phases.push(phase.get());
        let killed = format!("killed at step {kill_at}, {step}, in {:?}", phase.get());
        live(&node, None, async |life| {
            if phase.get() < Phase::Unpublish {
                // Its other calls had no time to come.
                for ask in &asks() {
                    publish(&life, ask).await;
                }
                check_soon(&node, &phase, &killed).await;
            }
            for ask in &asks() {
                life.unpublish(ask).await.unwrap();
            }
            moment().await;
            assert_eq!(life.driver.counts(), (0, 0, 0), "{killed}");
        });
        assert_eq!(node.mounts.table().ours, BTreeSet::new(), "{killed}");
        assert_eq!(node.written().0, [""; 0], "{killed}");
        // What was kept for kubelet's call goes when that has not come for ten minutes.
        live(&node, None, async |_| seconds(601).await);
        node.assert_bare();
    }
    let count = |wanted: Phase| phases.iter().filter(|phase| **phase == wanted).count();
    let (publish, rotate, unpublish) = (count(Phase::Publish), count(Phase::Rotate), count(Phase::Unpublish));
    assert!(publish >= 20 && rotate >= 6 && unpublish >= 9, "{publish} {rotate} {unpublish}");
}

async fn check_soon(node: &Node, phase: &Cell<Phase>, killed: &str) {
    seconds(60).await;
    check(node, if phase.get() == Phase::Publish { "canary-v1" } else { "canary-v2" }, killed);
}

/// Killed again and again: at each step of the process that puts right what the one before left.
#[test]
fn p2_p3_p4_the_process_that_puts_it_right_may_be_killed_too() {
    let node = Node::new();
    let mut kills = 0;
    for kill_at in 0.. {
        let killed = live(&node, Some(kill_at), async |life| {
            for ask in &asks() {
                publish(&life, ask).await;
            }
        });
        if killed.is_none() {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 5, "{kills}");
    live(&node, None, async |life| {
        check_soon(&node, &Cell::new(Phase::Publish), "again and again").await;
        life.end().await;
    });
}

/// Or the tests above would show nothing.
#[test]
fn p2_p3_p4_harm_is_found() {
    /// Somebody who does it.
    type Harm = fn(&Node);
    let forget: Harm = |node| std::fs::remove_dir_all(node.state().join("feeds")).unwrap();
    let tear: Harm = |node| {
        let target = node.target(&asks()[0]);
        std::fs::remove_file(target.join("..data").join("user")).unwrap();
    };
    let lose: Harm = |node| node.mounts.lose(&node.target(&asks()[1]));
    let leak: Harm = |node| assert!(node.mounts.table().ours.insert(node.root().join("leaked")));
    let nothing: Harm = |_| {};
    for (name, harm, is_harm) in [
        ("nothing", nothing, false),
        ("leases and logins are forgotten", forget, true),
        ("a file is gone", tear, true),
        ("a volume is gone", lose, true),
        ("a mount is leaked", leak, true),
    ] {
        let node = Node::new();
        live(&node, None, async |life| {
            for ask in &asks() {
                publish(&life, ask).await;
            }
            life.end().await;
        });
        if name == "leases and logins are forgotten" {
            harm(&node);
            live(&node, None, async |_| seconds(60).await);
        } else {
            harm(&node);
        }
        let found = catch_unwind(AssertUnwindSafe(|| check(&node, "canary-v1", name))).is_err();
        assert_eq!(found, is_harm, "{name}");
    }
}
