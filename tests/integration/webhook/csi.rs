//! Mode csi: a volume of the driver's instead of containers of ours.

use super::*;

const CSI: &str = r#"
image: registry/hushpod:0.1.0
defaultProvider: vault
csi:
  unavailable:
    - namespaces: ["team-f*"]
    - {labels: {compute: serverless}, nodeSelector: {type: virtual-*}}
    - tolerations: [virtual-kubelet.io/*]
providers:
  vault: {type: vault, address: "https://vault.example:8200", role: "{{service_account}}", allow: [{namespaces: ["team-*"]}]}
  sops: {type: file, volumes: true, identity: "vault:secret/data/age#key"}
"#;

fn csi_pod(pairs: &[(&str, &str)]) -> Value {
    annotated(annotated(pod(), &[("mode", "csi")]), pairs)
}

fn decide_csi(pod: &Value) -> Decided {
    decide_with(CSI, &review("CREATE", "", pod))
}

fn injected_csi(pod: &Value) -> Value {
    let decided = decide_csi(pod);
    assert_eq!(decided.outcome, Outcome::Injected, "{}", decided.response);
    decided.pod
}

fn files_mount(path: &str) -> Value {
    json!({"name": "hushpod-secrets", "mountPath": path, "readOnly": true})
}

#[test]
fn the_shape_of_a_pod_of_mode_csi() {
    let pod = injected_csi(&csi_pod(&[("role.vault", "reader"), ("mount-path", "/creds"), ("refresh", "30s")]));
    assert_eq!(names(&pod, "initContainers"), <[&str; 0]>::default());
    assert_eq!(names(&pod, "volumes"), ["cache", "hushpod-secrets"]);
    let volume = &named(&pod, "volumes", "hushpod-secrets")["csi"];
    assert_eq!(
        *volume,
        json!({"driver": "csi.hushpod.dev", "readOnly": true, "volumeAttributes": {
            "file.db": "secret/data/db#password", "role.vault": "reader", "refresh": "30s", "file-mode": "0444",
            "containers": "app",
        }})
    );
    assert!(has_mount(named(&pod, "containers", "app"), &files_mount("/creds")));
    assert_eq!(decide_csi(&pod).patch, Vec::<Value>::new(), "a second pass changes nothing");
}

/// kubelet's event of a node without the driver names the driver alone.
#[test]
fn p9_a_pod_says_whose_pods_the_driver_is() {
    const KEY: &str = "csi.hushpod.dev/daemon-set";
    let elsewhere = CSI.replace("csi:\n", "csi:\n  daemonSet: kube-system/driver\n");
    for (config, expected) in [(CSI, "hushpod-csi"), (elsewhere.as_str(), "kube-system/driver")] {
        for present in [None, Some("another"), Some(expected)] {
            let mut pod = csi_pod(&[]);
            pod["metadata"]["annotations"]["example.com/own"] = json!("x");
            if let Some(present) = present {
                pod["metadata"]["annotations"][KEY] = json!(present);
            }
            let mut annotations = pod["metadata"]["annotations"].clone();
            annotations[KEY] = json!(expected);
            let decided = decide_with(config, &review("CREATE", "", &pod));
            assert_eq!(decided.pod["metadata"]["annotations"], annotations, "{present:?}: the pod's own stay");
            let again = decide_with(config, &review("CREATE", "", &decided.pod));
            assert_eq!(again.patch, Vec::<Value>::new(), "{present:?}: a second pass changes nothing");
        }
    }
    // No pod of another mode has it, and by itself it asks for nothing.
    assert_eq!(injected(&pod())["metadata"]["annotations"][KEY], Value::Null);
    let alone = json!({"metadata": {"annotations": {KEY: "hushpod-csi"}}, "spec": pod()["spec"]});
    assert_eq!(decide_csi(&alone).patch, Vec::<Value>::new());
}

#[test]
fn p9_what_comes_to_nothing_in_a_mode_is_warned_of() {
    let all = [
        ("init-order", "last"),
        ("resources.cpu-request", "5m"),
        ("resources.cpu-limit", "1"),
        ("resources.memory-request", "8Mi"),
        ("resources.memory-limit", "64Mi"),
        ("refresh", "30s"),
        ("share-leases", "true"),
    ];
    let of_agents = [
        "init-order",
        "resources.cpu-request",
        "resources.cpu-limit",
        "resources.memory-request",
        "resources.memory-limit",
    ];
    for (mode, pairs, expected) in [
        ("csi", &all[..], &of_agents[..]),
        ("sidecar", &all, &["share-leases"]),
        ("init+sidecar", &all, &["share-leases"]),
        ("init", &all, &["refresh", "share-leases"]),
        ("init", &[("notify", "http://localhost:1/"), ("metrics-port", "9102")], &["metrics-port", "notify"]),
        ("sidecar", &[("notify", "http://localhost:1/"), ("metrics-port", "9102"), ("share-leases", "false")], &[]),
        ("csi", &[], &[]),
    ] {
        let decided = decide_csi(&annotated(annotated(pod(), &[("mode", mode)]), pairs));
        assert_eq!(decided.outcome, Outcome::Injected, "{mode}: {}", decided.response);
        let warnings: Vec<String> = serde_json::from_value(decided.response["warnings"].clone()).unwrap_or_default();
        let part = format!(": comes to nothing in mode {mode}, ");
        let mut found: Vec<_> =
            warnings.iter().filter_map(|warning| warning.split_once(&part)?.0.strip_prefix("hushpod.dev/")).collect();
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{mode} {pairs:?}: {warnings:?}");
    }
}

#[test]
fn p9_two_volumes_on_one_path_are_denied() {
    for path in ["/secrets", "/secrets/", "/srv/../secrets"] {
        let pod = with(csi_pod(&[]), "/spec/containers/0/volumeMounts", json!([{"name": "cache", "mountPath": path}]));
        let decided = decide_csi(&pod);
        assert_eq!(decided.outcome, Outcome::Denied, "{path}");
        let sentence = decided.response.to_string();
        assert!(["cache", "/secrets", "mount-path"].iter().all(|part| sentence.contains(part)), "{path}: {sentence}");
    }
}

/// kubelet has every mount mapped, so the driver's files are the pod's as ever.
#[test]
fn a_user_namespace_changes_nothing_of_the_volume() {
    let mut expected = injected_csi(&csi_pod(&[]));
    expected["spec"]["hostUsers"] = json!(false);
    assert_eq!(injected_csi(&with(csi_pod(&[]), "/spec/hostUsers", json!(false))), expected);
}

#[test]
fn what_a_later_webhook_adds_gets_no_files() {
    let first = injected_csi(&csi_pod(&[]));
    let later = with(first, "/spec/containers/0", json!({"name": "proxy", "image": "proxy"}));
    let second = decide_csi(&later).pod;
    assert!(!has_mount(named(&second, "containers", "proxy"), &files_mount("/secrets")));
    assert!(has_mount(named(&second, "containers", "app"), &files_mount("/secrets")));
    let stripped = with(later, "/spec/containers/1/volumeMounts", json!([]));
    assert!(has_mount(named(&decide_csi(&stripped).pod, "containers", "app"), &files_mount("/secrets")));
}

#[test]
fn whose_the_files_are_is_written_down() {
    let of = |pod: Value| named(&injected_csi(&pod), "volumes", "hushpod-secrets")["csi"]["volumeAttributes"].clone();
    for (context, pairs, expected) in [
        (json!({"runAsUser": 1000}), &[][..], json!({"run-as-user": "1000", "file-mode": "0400"})),
        (json!({"fsGroup": 7}), &[], json!({"file-mode": "0440"})),
        (
            json!({}),
            &[("run-as-user", "9"), ("run-as-group", "8"), ("file-mode", "0440")],
            json!({"run-as-user": "9", "run-as-group": "8", "file-mode": "0440"}),
        ),
    ] {
        let attributes = of(with(csi_pod(pairs), "/spec/securityContext", context.clone()));
        for name in ["run-as-user", "run-as-group", "file-mode"] {
            assert_eq!(attributes.get(name), expected.get(name), "{context} {pairs:?}: {name}");
        }
    }
}

#[test]
fn init_containers_have_the_files_too() {
    let with_init = with(csi_pod(&[]), "/spec/initContainers", json!([{"name": "migrate", "image": "app"}]));
    let pod = injected_csi(&with_init);
    assert!(has_mount(named(&pod, "initContainers", "migrate"), &files_mount("/secrets")), "{pod}");
}

#[test]
fn variables_come_by_a_volume_with_the_program() {
    let mut pod = csi_pod(&[("env.TOKEN", "secret/data/app#token")]);
    pod["spec"]["containers"][0]["command"] = json!(["/app"]);
    let pod = injected_csi(&pod);
    let program = &named(&pod, "volumes", "hushpod-bin")["csi"];
    assert_eq!(
        *program,
        json!({"driver": "csi.hushpod.dev", "readOnly": true, "volumeAttributes": {"program": "exec"}})
    );
    let app = named(&pod, "containers", "app");
    assert_eq!(app["command"][0], "/hushpod-bin/hushpod-agent");
    assert_eq!(
        named(&pod, "volumes", "hushpod-secrets")["csi"]["volumeAttributes"]["env.TOKEN"],
        "secret/data/app#token"
    );
}

/// With variables, and notifications unless `pairs` say others.
fn notifying(pod: Value, pairs: &[(&str, &str)]) -> Value {
    let both = [("env.TOKEN", "secret/data/app#token"), ("notify", "signal:HUP:app http://localhost:8080/a$(B)")];
    annotated(annotated(with(pod, "/spec/containers/0/command", json!(["/app"])), &both), pairs)
}

/// With an init container that has this restart policy.
fn with_init(policy: Value) -> Value {
    let mut init = json!({"name": "migrate", "image": "x", "command": ["/migrate"]});
    if !policy.is_null() {
        init["restartPolicy"] = policy;
    }
    with(csi_pod(&[]), "/spec/initContainers", json!([init]))
}

fn many(count: usize) -> String {
    let targets: Vec<_> = (0..count).map(|index| format!("signal:HUP:p{index}")).collect();
    targets.join(" ")
}

fn told(pod: &Value, list: &str, name: &str) -> Vec<String> {
    let command = named(pod, list, name)["command"].as_array().cloned().unwrap_or_default();
    let words: Vec<_> = command.iter().map(|word| word.as_str().unwrap()).take_while(|word| *word != "--").collect();
    words.windows(2).filter(|two| two[0] == "--notify").map(|two| two[1].to_owned()).collect()
}

#[test]
fn parents_of_applications_notify() {
    // What kubelet leaves as it is written: $$ is a dollar.
    let (signal, http) = ("signal:HUP:app", "http:http://localhost:8080/a$$(B)");
    let both = [signal, http];
    let worker =
        |pod: Value| with(pod, "/spec/containers/1", json!({"name": "worker", "image": "x", "command": ["/worker"]}));
    let all = &[("containers", "migrate,app,worker")][..];
    // The pod → whom the parents in migrate, app and worker tell.
    for (pod, migrate, app, second) in [
        (notifying(worker(csi_pod(&[])), &[]), &[][..], &both[..], &[signal][..]),
        (notifying(worker(csi_pod(&[])), &[("containers", "worker")]), &[], &[], &both),
        (notifying(worker(with_init(Value::Null)), all), &[], &both, &[signal]),
        (notifying(worker(with_init(json!("Always"))), all), &both, &[signal], &[signal]),
    ] {
        let root = with(pod, "/spec/containers/0/securityContext", json!({"runAsUser": 0}));
        let pod = injected_csi(&root);
        let has_init = !names(&pod, "initContainers").is_empty();
        let found = if has_init { told(&pod, "initContainers", "migrate") } else { Vec::new() };
        assert_eq!(found, migrate, "{pod}");
        assert_eq!(told(&pod, "containers", "app"), app, "{pod}");
        assert_eq!(told(&pod, "containers", "worker"), second, "{pod}");
        assert_eq!(pod["spec"]["shareProcessNamespace"], Value::Null, "each parent is where its processes are");
        let attributes = &named(&pod, "volumes", "hushpod-secrets")["csi"]["volumeAttributes"];
        assert_eq!(attributes["notify"], Value::Null, "the driver has nobody to tell");
        assert_eq!(decide_csi(&pod).patch, Vec::<Value>::new(), "a second pass changes nothing");
    }
    let most = injected_csi(&notifying(csi_pod(&[]), &[("notify", &many(32)), ("on-change", "restart")]));
    assert_eq!(told(&most, "containers", "app").len(), 32);
    // Where the agent notifies, the parent does not.
    let pod =
        injected(&annotated(notifying(pod(), &[]), &[("notify", "http://localhost:1/"), ("on-change", "restart")]));
    assert_eq!(told(&pod, "containers", "app"), [""; 0]);
}

#[test]
fn processes_that_several_parents_see_are_warned_of() {
    let worker = json!({"name": "worker", "image": "x", "command": ["/worker"]});
    let shared = with(notifying(csi_pod(&[]), &[]), "/spec/shareProcessNamespace", json!(true));
    for (pod, is_warned) in [(with(shared.clone(), "/spec/containers/1", worker), true), (shared, false)] {
        let decided = decide_csi(&pod);
        let warned = decided.response["warnings"].to_string().contains("hear of a change 2 times");
        assert_eq!((decided.outcome, warned), (Outcome::Injected, is_warned), "{}", decided.response);
    }
}

#[test]
fn p9_what_the_driver_cannot_do_is_denied() {
    for (pod, parts) in [
        (
            csi_pod(&[("notify", "http:http://localhost:1/")]),
            &["hushpod.dev/notify", "variables (env)", "watch the directory", "mode sidecar"][..],
        ),
        // An init container has ended when a change comes.
        (
            notifying(with_init(Value::Null), &[("containers", "migrate"), ("notify", "signal:HUP:app")]),
            &["hushpod.dev/notify", "watch the directory", "mode sidecar"],
        ),
        (notifying(with(csi_pod(&[]), "/spec/hostPID", json!(true)), &[]), &["hushpod.dev/notify", "other pods"]),
        (notifying(csi_pod(&[]), &[("notify", &many(33))]), &["hushpod.dev/notify", "at most 32"]),
        (csi_pod(&[("metrics-port", "9102")]), &["hushpod.dev/metrics-port"]),
        (csi_pod(&[("file.x", "sops:vol/a#b")]), &["own volume \"vol\"", "mode sidecar"]),
        (csi_pod(&[("env.TOKEN", "secret/data/app#token")]), &["command"]),
        (
            csi_pod(&[("env.TOKEN", "secret/data/app#token"), ("on-change", "restart-all")]),
            &["on-change: restart-all needs a sidecar", "mode: sidecar"],
        ),
        (csi_pod(&[("file.x", "valt:a#b")]), &["did you mean \"vault\"?"]),
    ] {
        let decided = decide_csi(&pod);
        assert_eq!(decided.outcome, Outcome::Denied, "{parts:?}: {}", decided.response);
        let message = decided.response["status"]["message"].as_str().unwrap();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    // The API server lets kubelet read variables out of an emptyDir alone.
    let asks = review("CREATE", "", &csi_pod(&[("env.TOKEN", "secret/data/app#token")]));
    let response = decide_with(&format!("{CSI}kubeletEnv: true\n"), &asks).response.to_string();
    assert!(
        ["add command", "use mode sidecar", "no variables"].iter().all(|part| response.contains(part)),
        "{response}"
    );
    let message = denial(&csi_pod(&[]));
    assert!(message.contains("no CSI driver") && message.contains("csi.enabled"), "{message}");
}

#[test]
fn pods_of_nodes_without_the_driver_get_a_sidecar() {
    let labels = |pod: Value| with(pod, "/metadata/labels", json!({"compute": "serverless"}));
    let virtual_node = |pod: Value| with(pod, "/spec/nodeSelector", json!({"type": "virtual-kubelet"}));
    let tolerant = |key: &str| with(csi_pod(&[]), "/spec/tolerations", json!([{"key": key, "operator": "Exists"}]));
    for (pod, namespace, is_csi) in [
        (csi_pod(&[]), "team-a", true),
        (csi_pod(&[]), "team-fargate", false),
        (labels(csi_pod(&[])), "team-a", true),
        (virtual_node(labels(csi_pod(&[]))), "team-a", false),
        (tolerant("virtual-kubelet.io/provider"), "team-a", false),
        (tolerant("other"), "team-a", true),
    ] {
        let mut review = review("CREATE", "", &pod);
        review["request"]["namespace"] = json!(namespace);
        let decided = decide_with(CSI, &review);
        assert_eq!(names(&decided.pod, "initContainers").is_empty(), is_csi, "{namespace} {pod}");
        let warned = decided.response["warnings"].to_string().contains("config.csi.unavailable");
        assert_eq!(warned, !is_csi, "{}", decided.response);
    }
}
