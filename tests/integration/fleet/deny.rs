use super::*;

const DENY: &str = "hushpod.dev/deny";

/// What the webhook writes for an agent that asks for this.
fn plan(namespace: &str, reference: &str) -> String {
    let vault = json!({"settings": {"type": "vault", "address": "https://v", "auth": {"method": "kubernetes", "mount": "k"}}, "refreshSeconds": 30});
    json!({
        "version": 1, "identity": {"namespace": namespace, "serviceAccount": "web"}, "providers": {"vault": vault},
        "items": [{"target": {"file": "x"}, "from": {"one": reference}, "mode": "0400", "optional": true}],
        "sizeLimit": 4096, "containers": ["app"],
    })
    .to_string()
}

fn planned(namespace: &str, name: &str, reference: &str) -> Pod {
    Pod { plan: Some(plan(namespace, reference)), ..Pod::new(namespace, name, "sidecar") }
}

impl Cluster {
    /// Runs `deny` with this part of a configuration, and these arguments.
    fn deny(&self, rules: &str, more: &str) -> Told {
        let file = tempfile::NamedTempFile::new().unwrap();
        let vault = "image: i\nproviders: {vault: {type: vault, address: 'https://v'}}\n";
        std::fs::write(file.path(), format!("{vault}{rules}")).unwrap();
        self.world().told.clear();
        self.run(format!("deny --config {} {more}", file.path().display()).trim_end())
    }

    /// The pods that have the annotation, with its text.
    fn denied(&self) -> Vec<(String, String)> {
        let of = |pod: &Pod| Some((format!("{}/{}", pod.namespace, pod.name), pod.annotations.get(DENY)?.clone()));
        self.world().pods.iter().filter_map(of).collect()
    }

    fn pod(&self, name: &str, change: impl FnOnce(&mut Pod)) {
        change(self.world().pods.iter_mut().find(|pod| pod.name == name).unwrap());
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(pod, rules)| ((*pod).to_owned(), (*rules).to_owned())).collect()
}

#[test]
fn agents_are_told_what_a_configuration_refuses_and_what_it_refuses_no_more() {
    let cluster = Cluster::of([
        planned("a", "web-1", "vault:secret/data/db"),
        planned("a", "web-2", "vault:secret/data/other"),
        // Its plan is of another version: its report names vault:secret/data/db.
        Pod { plan: Some("{\"version\":9}".to_owned()), ..Pod::new("a", "web-3", "init+sidecar") },
        planned("b", "web-4", "vault:secret/data/db"),
        Pod { mode: "init", ..planned("b", "once", "vault:secret/data/db") },
    ]);
    let rules = "deny: [{namespaces: [c]}, {references: ['vault:secret/data/db']}]";
    let told = cluster.deny(rules, "-A --dry-run");
    assert!(told.code == 0 && told.out.contains("deny: 3 pods\n") && told.out.contains("nothing was"), "{told:?}");
    assert!(told.out.contains("web-1 (deny[1])") && told.out.contains("b/web-4 (deny[1])"), "{told:?}");
    assert!(cluster.world().told.is_empty());

    let told = cluster.deny(rules, "");
    assert!(told.code == 0 && told.out.ends_with("done: 2 pods\n"), "{told:?}");
    assert!(told.out.contains("the next pods that ask for it are refused by the webhook"), "{told:?}");
    assert_eq!(cluster.denied(), pairs(&[("a/web-1", "deny[1]"), ("a/web-3", "deny[1]")]));
    let told = cluster.run("status web-1");
    assert!(told.out.contains("denied by deny[1]"), "{told:?}");

    // Typed again, with more pods: what is done is not done again.
    let told = cluster.deny(rules, "-A --max 1");
    assert!(told.code == 0 && told.out.contains("3 pods, 2 done before"), "{told:?}");
    assert_eq!(cluster.world().told, ["web-4"]);
    // A release is of hold and pin alone, and who took it away finds it there again.
    assert_eq!(cluster.run("release web-1").code, 0);
    assert_eq!(cluster.denied().len(), 3);
    cluster.pod("web-1", |pod| pod.annotations.clear());
    assert_eq!(cluster.deny(rules, "-l app=web").code, 0);
    assert_eq!(cluster.world().told, ["web-1"]);

    // Other rules at other places, within the targets alone.
    let one = "deny: [{references: ['vault:secret/*'], namespaces: [a]}]";
    let told = cluster.deny(one, "web-1 web-2");
    assert!(told.code == 0 && told.out.contains("deny: 2 pods\n"), "{told:?}");
    let expected = [("a/web-1", "deny[0]"), ("a/web-2", "deny[0]"), ("a/web-3", "deny[1]"), ("b/web-4", "deny[1]")];
    assert_eq!(cluster.denied(), pairs(&expected));
    let told = cluster.deny("", "-A --dry-run");
    assert!(
        told.out.contains("deny: 4 pods; 4 pods are denied no more") && told.out.contains("web-2 (denied no more)")
    );
    assert!(!told.out.contains("next pods"), "{told:?}");
    assert_eq!(cluster.deny("", "-A").code, 0);
    assert_eq!(cluster.denied(), []);
    let told = cluster.deny("", "-A");
    assert!(told.code == 0 && told.out.ends_with("no pod asks for what is denied, and none is stopped for it\n"));
}

/// The driver has the configuration itself, sooner or later.
#[test]
fn a_pod_of_the_driver_is_waited_for_and_not_told() {
    let mut driver = Pod::new("kube-system", "driver", "none");
    let labels = [("app.kubernetes.io/part-of", "hushpod"), ("app.kubernetes.io/component", "csi")];
    driver.labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let cluster = Cluster::of([driver, Pod::new("a", "web-1", "csi")]);
    let rules = "deny: [{references: ['vault:secret/data/db']}]";
    let told = cluster.deny(rules, "--timeout 1s");
    assert!(told.code == 3 && told.err.contains("web-1 (current)"), "{told:?}");
    cluster.pod("web-1", |pod| pod.denied = Some("deny[7]".to_owned()));
    assert_eq!(cluster.deny(rules, "").code, 0);
    let told = cluster.deny("", "--timeout 1s");
    assert!(told.code == 3 && told.err.contains("web-1 (denied by deny[7])"), "{told:?}");
    assert!(cluster.denied().is_empty() && cluster.world().told.is_empty());
}

#[test]
fn who_does_not_report_it_is_named_and_what_nobody_knows_is_left_alone() {
    let rules = "deny: [{references: ['vault:secret/data/db']}]";
    let cluster = Cluster::of([planned("a", "web-1", "vault:secret/data/db")]);
    cluster.pod("web-1", |pod| pod.is_deaf = true);
    let told = cluster.deny(rules, "--timeout 1s");
    assert!(told.code == 3 && told.err.contains("web-1 (current)") && told.err.contains("to go on"), "{told:?}");
    cluster.pod("web-1", |pod| {
        pod.is_deaf = false;
        pod.obey();
    });
    let told = cluster.deny(rules, "");
    assert!(told.code == 0 && told.out.contains("1 done before") && cluster.world().told.is_empty(), "{told:?}");

    let denied = BTreeMap::from([(DENY.to_owned(), "deny[0]".to_owned())]);
    let cluster = Cluster::of([
        Pod { log: Some(Err("no route to host")), annotations: denied, ..Pod::new("a", "web-1", "sidecar") },
        Pod { plan: Some("canary".to_owned()), log: Some(Ok(Vec::new())), ..Pod::new("a", "web-2", "sidecar") },
    ]);
    let told = cluster.deny("", "");
    assert!(told.code == 0 && told.err.contains("2 pods are left alone") && !told.err.contains("canary"), "{told:?}");
    assert_eq!(cluster.denied(), pairs(&[("a/web-1", "deny[0]")]));
    assert_eq!(cluster.run("deny -A").code, 2, "which configuration?");
    let told = cluster.deny("deny: [{}]\nmadeUp: 1", "-A");
    assert!(told.code == 2 && told.err.contains(":3:") && told.err.contains(":4:"), "{told:?}");
}
