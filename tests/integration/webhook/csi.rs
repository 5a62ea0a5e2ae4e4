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

#[test]
fn p9_what_the_driver_cannot_do_is_denied() {
    for (pod, parts) in [
        (csi_pod(&[("notify", "http:http://localhost:1/")]), &["hushpod.dev/notify", "watch the directory"][..]),
        (csi_pod(&[("metrics-port", "9102")]), &["hushpod.dev/metrics-port"]),
        (with(csi_pod(&[]), "/spec/hostUsers", json!(false)), &["hostUsers", "mode sidecar"]),
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
