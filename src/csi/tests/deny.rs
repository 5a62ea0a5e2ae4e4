use super::controls::{generation, tell};
use super::node::{Ask, FILE, KV, LEASED, Life, Node, USER, moment, seconds};
use crate::csi::failure::FailureKind;
use crate::provider::ErrorKind;

const RULE: &str = "csi: {}\ndeny: [{namespaces: [nobody]}, {references: ['vault:secret/*', 'vault:database/*']}]";

fn told(life: &mut Life) -> Vec<String> {
    std::iter::from_fn(|| life.trouble()).collect()
}

#[tokio::test(start_paused = true)]
async fn p3_what_is_denied_is_not_asked_for_any_more_and_its_files_stay() {
    let node = Node::new();
    let mut life = node.start();
    let asks = [Ask::new(1, &[FILE]), Ask::new(2, &[FILE, USER])];
    for ask in &asks {
        life.publish(ask).await.unwrap();
    }
    let before: Vec<_> = asks.iter().map(|ask| node.files(ask)).collect();
    seconds(40).await;
    assert!(node.asked().1 > 0, "they are kept fresh");
    node.configure("csi: {}", RULE);
    moment().await;
    let sentences = told(&mut life);
    assert_eq!(sentences.len(), 2, "{sentences:?}");
    for sentence in &sentences {
        assert!(sentence.contains("rule deny[1]") && sentence.contains("last good files stay"), "{sentence}");
    }
    node.asked();
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    tell(&life, &asks[0], &[("refresh-now", "1"), ("hold", "true")]);
    // Longer than a login, a lease and many turns of polling.
    for _ in 0..40 {
        seconds(1000).await;
        for ask in &asks {
            life.publish(ask).await.unwrap();
        }
    }
    assert_eq!(node.asked(), (0, 0), "nobody asks the store");
    assert_eq!(asks.iter().map(|ask| node.files(ask)).collect::<Vec<_>>(), before);
    let refused = life.publish(&Ask::new(3, &[FILE])).await.unwrap_err();
    assert!(refused.kind.is_final() && refused.to_string().contains("deny[1]"), "{refused}");

    // The driver's next process knows it from the beginning.
    life.end().await;
    let mut life = node.start();
    seconds(1000).await;
    assert_eq!(node.asked(), (0, 0));
    assert!(told(&mut life).iter().any(|sentence| sentence.contains("deny[1]")));
    assert_eq!(asks.iter().map(|ask| node.files(ask)).collect::<Vec<_>>(), before);

    for ask in &asks {
        tell(&life, ask, &[]);
        life.publish(ask).await.unwrap();
    }
    node.configure("csi: {}", "csi: {}");
    seconds(40).await;
    assert_eq!(node.file(&asks[0], "db"), "canary-v2", "what is allowed again is read");
    for ask in &asks {
        life.unpublish(ask).await.unwrap();
    }
    moment().await;
    node.assert_bare();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_first_files_ends_with_the_rule() {
    let node = Node::new();
    node.store.state().failing = Some(ErrorKind::Unavailable);
    let life = node.start();
    let ask = Ask::new(1, &[FILE]);
    let deny = async {
        seconds(5).await;
        node.configure("csi: {}", RULE);
    };
    let (refused, ()) = tokio::join!(life.publish(&ask), deny);
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied, "{refused}");
    assert!(refused.to_string().contains("deny[1]"), "{refused}");
    moment().await;
    node.assert_bare();
}

/// What stands in the annotations is of the agents: the driver has the configuration itself.
#[tokio::test(start_paused = true)]
async fn a_pin_outlives_a_denial_and_the_annotation_of_agents_is_passed_over() {
    let node = Node::new();
    let mut life = node.start();
    let ask = Ask::new(1, &[FILE]);
    life.publish(&ask).await.unwrap();
    let first = generation(&node, &ask);
    tell(&life, &ask, &[("deny", "deny[0]")]);
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    seconds(60).await;
    assert_eq!(node.file(&ask, "db"), "canary-v2");
    tell(&life, &ask, &[("pin", &first)]);
    seconds(10).await;
    assert_ne!(node.file(&ask, "db"), "canary-v2");
    node.configure("csi: {}", RULE);
    moment().await;
    life.end().await;
    life = node.start();
    seconds(10).await;
    life.publish(&ask).await.unwrap();
    node.configure("csi: {}", "csi: {}");
    seconds(60).await;
    assert_ne!(node.file(&ask, "db"), "canary-v2", "it is pinned");
}

#[tokio::test(start_paused = true)]
async fn a_rule_about_others_changes_nothing() {
    let node = Node::new();
    let mut life = node.start();
    let ask = Ask::new(1, &[FILE]);
    life.publish(&ask).await.unwrap();
    node.configure("csi: {}", &format!("csi: {{}}\ndeny: [{{references: ['vault:{LEASED}'], namespaces: [shop]}}]"));
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    seconds(60).await;
    assert_eq!(node.file(&ask, "db"), "canary-v2");
    assert_eq!(told(&mut life), Vec::<String>::new());
}
