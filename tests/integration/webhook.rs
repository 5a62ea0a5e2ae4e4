//! The webhook's decisions: AdmissionReview in, AdmissionReview out.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, LazyLock, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hushpod::config::Config;
use hushpod::plan::Plan;
use hushpod::webhook::review::{Answer, Injector, Outcome, answer};
use serde_json::{Value, json};
use tracing::Level;
use tracing::subscriber::NoSubscriber;

use crate::log::Log;

mod audit;
mod ca_bundle;
mod command;
mod cost;
mod csi;
mod environment;
mod hostile;
mod meshes;
mod oracle;
mod own;
mod resources;

const CONFIG: &str = r#"
image: registry/hushpod:0.1.0
defaultProvider: vault
providers:
  vault: {type: vault, address: "https://vault.example:8200", role: "{{service_account}}", tokenSeconds: 900}
  second: {type: vault, address: "https://second.example:8200", role: x, audience: second}
  files: {type: file, path: /srv/secrets}
  sops: {type: file, volumes: true, identity: "second:secret/data/age#key"}
runtimeClasses: [runc]
"#;

/// A pod with fields that no type of ours knows, in every object that injection touches.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-", "annotations": {"hushpod.dev/file.db": "secret/data/db#password", "other": "x"}, "madeUp": 1},
        "spec": {
            "madeUp": {"deep": [1, 2]},
            "serviceAccountName": "web",
            "containers": [{"name": "app", "image": "app", "madeUp": true, "volumeMounts": [{"name": "cache", "mountPath": "/cache", "madeUp": "m"}]}],
            "volumes": [{"name": "cache", "emptyDir": {"madeUp": 3}}],
        },
    })
}

fn annotated(mut pod: Value, pairs: &[(&str, &str)]) -> Value {
    for (key, value) in pairs {
        pod["metadata"]["annotations"][format!("hushpod.dev/{key}")] = json!(value);
    }
    pod
}

fn with(mut pod: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match pod.pointer_mut(parent).unwrap() {
        Value::Array(items) => items.insert(field.parse().unwrap(), value),
        object => object[field.replace("~1", "/")] = value,
    }
    pod
}

fn review(operation: &str, sub_resource: &str, pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "madeUp": 1,
        "request": {
            "uid": "uid-1", "operation": operation, "namespace": "team-a", "subResource": sub_resource, "dryRun": true,
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": pod, "madeUp": 2,
        },
    })
}

struct Decided {
    outcome: Outcome,
    response: Value,
    patch: Vec<Value>,
    pod: Value,
}

fn injector(config: &str) -> Injector {
    Injector::new(Config::from_yaml(config).unwrap())
}

/// One for all tests, which remembers what all of them asked for.
fn seasoned(config: &str) -> Arc<Injector> {
    static INJECTORS: LazyLock<Mutex<HashMap<String, Arc<Injector>>>> = LazyLock::new(Mutex::default);
    let mut injectors = INJECTORS.lock().unwrap();
    Arc::clone(injectors.entry(config.to_owned()).or_insert_with(|| Arc::new(injector(config))))
}

/// What was asked, for `tests/oracle/run`, if that wants to know.
fn note(config: &str, review: &Value) {
    static NOTES: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
        let path = std::env::var_os("HUSHPOD_ASKED").filter(|_| std::env::var_os("HUSHPOD_ORACLE").is_none())?;
        Some(Mutex::new(File::create(path).expect("HUSHPOD_ASKED can be written")))
    });
    let request = &review["request"];
    if let (Some(notes), "CREATE") = (&*NOTES, request["operation"].as_str().unwrap_or_default()) {
        writeln!(notes.lock().unwrap(), "{}", json!({"config": config, "pod": request["object"]})).unwrap();
    }
}

fn decide_with(config: &str, review: &Value) -> Decided {
    note(config, review);
    let request = serde_json::to_vec(review).unwrap();
    let decided = answer(&request, &injector(config));
    tracing::subscriber::with_default(NoSubscriber::new(), || {
        for time in ["first", "second"] {
            let again = answer(&request, &seasoned(config));
            assert_eq!(again, decided, "the {time} time: what was asked for before makes a difference");
        }
    });
    applied(&decided, review)
}

/// The answer, and what it makes of the pod.
fn applied(decided: &Answer, review: &Value) -> Decided {
    let body: Value = serde_json::from_slice(&decided.body).unwrap();
    assert_eq!(body["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(body["kind"], "AdmissionReview");
    let response = body["response"].clone();
    let mut pod = review.pointer("/request/object").cloned().unwrap();
    let mut operations = Vec::new();
    if let Some(patch) = response["patch"].as_str() {
        assert_eq!(response["patchType"], "JSONPatch");
        let patch: json_patch::Patch = serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        operations = serde_json::from_value(serde_json::to_value(&patch).unwrap()).unwrap();
    }
    Decided { outcome: decided.outcome, response, patch: operations, pod }
}

fn decide(pod: &Value) -> Decided {
    decide_with(CONFIG, &review("CREATE", "", pod))
}

/// The mutated pod; fails if it was denied.
fn injected(pod: &Value) -> Value {
    let decided = decide(pod);
    assert_eq!(decided.outcome, Outcome::Injected, "{}", decided.response);
    assert_eq!(decided.response["uid"], "uid-1");
    decided.pod
}

fn denial(pod: &Value) -> String {
    let decided = decide(pod);
    assert_eq!(decided.outcome, Outcome::Denied, "{}", decided.response);
    assert!(decided.patch.is_empty(), "nothing is half-applied");
    let message = decided.response["status"]["message"].as_str().unwrap().to_owned();
    assert!(!message.contains('\n'), "one sentence: {message}");
    message
}

/// The sentence by which a pod is denied, if it is, and whether anything was injected.
pub(crate) fn admitted(config: &str, pod: &Value) -> (Option<String>, bool) {
    let Decided { response, patch, .. } = decide_with(config, &review("CREATE", "", pod));
    (response["status"]["message"].as_str().map(str::to_owned), !patch.is_empty())
}

/// The pod as the webhook makes it.
pub(crate) fn patched(config: &str, pod: &Value) -> Value {
    decide_with(config, &review("CREATE", "", pod)).pod
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let items = pod["spec"][list].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn named<'a>(pod: &'a Value, list: &str, name: &str) -> &'a Value {
    pod["spec"][list].as_array().unwrap().iter().find(|item| item["name"] == name).unwrap()
}

fn live_mount(path: &str) -> Value {
    json!({"name": "hushpod-secrets", "mountPath": path, "subPath": "live", "readOnly": true})
}

fn has_mount(container: &Value, mount: &Value) -> bool {
    container["volumeMounts"].as_array().is_some_and(|mounts| mounts.contains(mount))
}

#[test]
fn the_shape_of_an_injected_pod() {
    let pod = injected(&pod());
    assert_eq!(names(&pod, "initContainers"), ["hushpod"]);
    let agent = named(&pod, "initContainers", "hushpod");
    assert_eq!(agent["restartPolicy"], "Always");
    assert_eq!(agent["command"], json!(["/hushpod-agent"]));
    assert_eq!(agent["args"], json!(["sidecar"]));
    let hook = json!({"postStart": {"exec": {"command": ["/hushpod-agent", "ready", "--wait", "2s"]}}});
    assert_eq!(agent["lifecycle"], hook);
    assert_eq!(
        names(&pod, "volumes"),
        ["cache", "hushpod-secrets", "hushpod-state", "hushpod-tokens", "hushpod-controls"]
    );
    assert!(has_mount(named(&pod, "containers", "app"), &live_mount("/secrets")));
    let plan = Plan::from_json(agent["env"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(plan.identity.namespace, "team-a");
    assert_eq!(plan.identity.service_account, "web");
    assert_eq!(plan.providers["vault"].role.as_deref(), Some("web"));
}

#[test]
fn made_up_fields_survive_everywhere() {
    let pod = injected(&pod());
    for pointer in [
        "/metadata/madeUp",
        "/spec/madeUp/deep/1",
        "/spec/containers/0/madeUp",
        "/spec/containers/0/volumeMounts/0/madeUp",
        "/spec/volumes/0/emptyDir/madeUp",
    ] {
        assert!(pod.pointer(pointer).is_some(), "{pointer}");
    }
    let operations = decide(&self::pod()).patch;
    assert!(operations.iter().all(|operation| operation["op"] == "add"), "{operations:?}");
}

#[test]
fn p6_tokens_are_per_provider_and_for_the_agent_alone() {
    let pod = injected(&annotated(pod(), &[("file.b", "second:a/b#c")]));
    let tokens = &named(&pod, "volumes", "hushpod-tokens")["projected"]["sources"];
    let token = |provider: &str, audience: &str, seconds: i64| json!({"serviceAccountToken": {"path": provider, "audience": audience, "expirationSeconds": seconds}});
    assert_eq!(*tokens, json!([token("second", "second", 600), token("vault", "vault", 900)]));
    let agent = named(&pod, "initContainers", "hushpod");
    // The ServiceAccount admission plugin adds no API token where something is mounted at its path.
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert!(has_mount(agent, &json!({"name": "hushpod-tokens", "mountPath": path, "readOnly": true})));
    for mount in named(&pod, "containers", "app")["volumeMounts"].as_array().unwrap() {
        assert!(mount["name"] == "cache" || *mount == live_mount("/secrets"), "{mount}");
    }
}

#[test]
fn p6_without_tokens_the_api_tokens_place_is_still_taken() {
    let pod = with(pod(), "/metadata/annotations", json!({"hushpod.dev/file.a": "files:a"}));
    let pod = with(pod, "/spec/automountServiceAccountToken", json!(false));
    let tokens = named(&injected(&pod), "volumes", "hushpod-tokens")["projected"]["sources"].clone();
    assert_eq!(tokens[0]["downwardAPI"]["items"][0]["path"], "namespace");
    assert_eq!(tokens.as_array().unwrap().len(), 1);
}

#[test]
fn p6_who_wants_no_api_token_gets_the_stores_in_the_agent_all_the_same() {
    let pod = with(pod(), "/spec/automountServiceAccountToken", json!(false));
    let pod = with(pod, "/spec/containers/1", json!({"name": "helper", "image": "x"}));
    let pod = with(pod, "/spec/initContainers", json!([{"name": "early", "image": "x"}]));
    for mode in ["sidecar", "init+sidecar", "init"] {
        let pod = injected(&annotated(pod.clone(), &[("mode", mode)]));
        assert_eq!(pod["spec"]["automountServiceAccountToken"], false, "{mode}");
        let token = json!({"serviceAccountToken": {"path": "vault", "audience": "vault", "expirationSeconds": 900}});
        assert_eq!(named(&pod, "volumes", "hushpod-tokens")["projected"]["sources"], json!([token]), "{mode}");
        let path = "/var/run/secrets/kubernetes.io/serviceaccount";
        let mount = json!({"name": "hushpod-tokens", "mountPath": path, "readOnly": true});
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array().unwrap() {
                let mounts = container["volumeMounts"].as_array().map_or(&[][..], Vec::as_slice);
                let of_tokens: Vec<_> = mounts.iter().filter(|mount| mount["name"] == "hushpod-tokens").collect();
                let is_agent = container["command"] == json!(["/hushpod-agent"]);
                assert_eq!(of_tokens, if is_agent { vec![&mount] } else { Vec::new() }, "{mode} {container}");
            }
        }
    }
}

/// A pod whose bundle is in its own volumes.
fn with_sources() -> Value {
    let pod = with(pod(), "/metadata/annotations", json!({}));
    let pod = annotated(
        pod,
        &[(
            "secrets",
            "- {file: a.env, from: 'sops:app-sops/prod.enc.yaml', format: dotenv}\n- {file: b, from: 'sops:more/b'}",
        )],
    );
    let pod = with(pod, "/spec/volumes/1", json!({"name": "app-sops", "configMap": {"name": "app", "madeUp": 4}}));
    with(pod, "/spec/volumes/2", json!({"name": "more", "configMap": {"name": "more"}}))
}

#[test]
fn the_pods_own_volumes_are_mounted_into_the_agents_alone() {
    for mode in ["sidecar", "init+sidecar", "init"] {
        let pod = injected(&annotated(with_sources(), &[("mode", mode)]));
        for agent in pod["spec"]["initContainers"].as_array().unwrap() {
            for name in ["app-sops", "more"] {
                let path = format!("/run/hushpod/sources/{name}");
                assert!(
                    has_mount(agent, &json!({"name": name, "mountPath": path, "readOnly": true})),
                    "{mode} {agent}"
                );
            }
            let plan = Plan::from_json(agent["env"][0]["value"].as_str().unwrap()).unwrap();
            assert!(plan.providers["sops"].unlock.is_some() && plan.providers.contains_key("second"), "{mode}");
        }
        let app = named(&pod, "containers", "app")["volumeMounts"].as_array().unwrap();
        assert_eq!(app.len(), 2, "its own, and the secrets': {app:?}");
        // The identity's store is asked as the pod's own service account.
        assert_eq!(named(&pod, "volumes", "hushpod-tokens")["projected"]["sources"].as_array().unwrap().len(), 1);
        assert_eq!(named(&pod, "volumes", "app-sops"), named(&with_sources(), "volumes", "app-sops"));
        assert_eq!(decide(&pod).patch, [] as [Value; 0], "a second pass finds nothing to do ({mode})");
    }
    // A mount that someone took away comes back.
    let mut pod = injected(&with_sources());
    let agent = &mut pod["spec"]["initContainers"][0];
    let mounts = agent["volumeMounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["name"] != "more");
    assert!(has_mount(
        named(&injected(&pod), "initContainers", "hushpod"),
        &json!({"name": "more", "mountPath": "/run/hushpod/sources/more", "readOnly": true})
    ));
}

#[test]
fn p1_p9_only_config_map_volumes_are_sources_and_denials_name_them() {
    let of = |volumes: Value| with(with_sources(), "/spec/volumes", volumes);
    let app = json!({"name": "app-sops", "configMap": {"name": "app"}});
    for (volumes, part) in [
        (json!([]), r#""sops:app-sops/prod.enc.yaml": the pod has no volume "app-sops""#),
        (json!([{"name": "app-sop", "configMap": {}}]), r#"no ConfigMap volume "app-sops"; did you mean "app-sop"?"#),
        (
            json!([app, {"name": "other", "configMap": {}}]),
            r#"no ConfigMap volume "more": expected one of app-sops, other"#,
        ),
        (
            json!([app, {"name": "more", "secret": {"secretName": "x"}}]),
            r#"volume "more" is a Secret's, whose values lie in etcd"#,
        ),
        (
            json!([app, {"name": "more", "emptyDir": {}}]),
            r#"volume "more" is not a ConfigMap's, and no other is read; those are: app-sops"#,
        ),
        (json!([app, {"name": "more", "projected": {"sources": [{"secret": {"name": "x"}}]}}]), "is not a ConfigMap's"),
    ] {
        let message = denial(&of(volumes));
        assert!(message.contains("annotation hushpod.dev/secrets[") && message.contains(part), "{message}");
    }
    for own in ["hushpod-secrets", "hushpod-tokens"] {
        let pod = with(pod(), "/metadata/annotations", json!({"hushpod.dev/file.a": format!("sops:{own}/x")}));
        assert!(denial(&pod).contains("the pod has no volume"));
        let pod = with(pod, "/spec/volumes/1", json!({"name": own, "configMap": {"name": "x"}}));
        assert!(denial(&pod).contains("is hushpod's own"));
    }
}

#[test]
fn p8_injected_containers_satisfy_restricted() {
    for mode in ["sidecar", "init+sidecar", "init"] {
        let pod = injected(&annotated(pod(), &[("mode", mode)]));
        for agent in pod["spec"]["initContainers"].as_array().unwrap() {
            let context = &agent["securityContext"];
            for (field, value) in [
                ("allowPrivilegeEscalation", json!(false)),
                ("runAsNonRoot", json!(true)),
                ("readOnlyRootFilesystem", json!(true)),
                ("capabilities", json!({"drop": ["ALL"]})),
                ("seccompProfile", json!({"type": "RuntimeDefault"})),
            ] {
                assert_eq!(context[field], value, "{mode} {field}");
            }
        }
    }
}

#[test]
fn p1_p5_the_mutated_pod_holds_references_and_no_values() {
    // The webhook has nothing to read a value with: what it adds is made of the annotations and the configuration.
    let text = injected(&pod()).to_string();
    assert!(text.contains("secret/data/db"), "the reference is there");
    for word in ["VAULT_TOKEN", "client_token", "PRIVATE KEY", "\"secretKeyRef\"", "\"secret\":{"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn modes_decide_the_containers() {
    let job = with(pod(), "/spec/restartPolicy", json!("Never"));
    for (name, pod, expected) in [
        ("default", pod(), &["hushpod"][..]),
        ("init+sidecar", annotated(pod(), &[("mode", "init+sidecar")]), &["hushpod-init", "hushpod"]),
        ("init", annotated(pod(), &[("mode", "init")]), &["hushpod-init"]),
        ("a Job must be able to fail", job.clone(), &["hushpod-init", "hushpod"]),
        ("a Job that insists", annotated(job, &[("mode", "sidecar")]), &["hushpod"]),
    ] {
        assert_eq!(names(&injected(&pod), "initContainers"), expected, "{name}");
    }
}

#[test]
fn clusters_without_native_sidecars_get_the_classical_pair() {
    let config = format!("{CONFIG}nativeSidecars: false\n");
    let decided = decide_with(&config, &review("CREATE", "", &pod()));
    assert_eq!(names(&decided.pod, "initContainers"), ["hushpod-init"]);
    assert_eq!(names(&decided.pod, "containers"), ["app", "hushpod"]);
    assert!(named(&decided.pod, "containers", "hushpod").get("restartPolicy").is_none());
    let second = decide_with(&config, &review("CREATE", "", &decided.pod));
    assert!(second.patch.is_empty(), "{:?}", second.patch);
    let job = with(pod(), "/spec/restartPolicy", json!("OnFailure"));
    let denied = decide_with(&config, &review("CREATE", "", &job));
    assert!(denied.response["status"]["message"].as_str().unwrap().contains("mode: init"));
}

#[test]
fn our_images_pull_secrets_join_the_pods_own() {
    let config = format!("{CONFIG}imagePullSecrets: [ours, mirror]\n");
    let (ours, mirror, theirs) = (json!({"name": "ours"}), json!({"name": "mirror"}), json!({"name": "theirs"}));
    for (present, expected) in [
        (None, json!([ours, mirror])),
        (Some(Value::Null), json!([ours, mirror])),
        (Some(json!([])), json!([ours, mirror])),
        (Some(json!([theirs])), json!([theirs, ours, mirror])),
        (Some(json!([mirror])), json!([mirror, ours])),
        (Some(json!([mirror, theirs, ours])), json!([mirror, theirs, ours])),
    ] {
        let pod = present.iter().fold(pod(), |pod, list| with(pod, "/spec/imagePullSecrets", list.clone()));
        let decided = decide_with(&config, &review("CREATE", "", &pod));
        assert_eq!(decided.pod["spec"]["imagePullSecrets"], expected, "{present:?}");
        let second = decide_with(&config, &review("CREATE", "", &decided.pod));
        assert!(second.patch.is_empty(), "{present:?}: {:?}", second.patch);
    }
    assert!(injected(&pod())["spec"].get("imagePullSecrets").is_none(), "none are configured");
}

#[test]
fn init_order_and_who_gets_the_mount() {
    let inits = json!([{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]);
    let base = with(pod(), "/spec/initContainers", inits);
    for (order, expected, mounted) in [
        ("first", &["hushpod", "a", "b"][..], &["a", "b"][..]),
        ("last", &["a", "b", "hushpod"], &[]),
        ("after:a", &["a", "hushpod", "b"], &["b"]),
    ] {
        let pod = injected(&annotated(base.clone(), &[("init-order", order)]));
        assert_eq!(names(&pod, "initContainers"), expected, "{order}");
        for name in ["a", "b"] {
            let container = named(&pod, "initContainers", name);
            assert_eq!(has_mount(container, &live_mount("/secrets")), mounted.contains(&name), "{order} {name}");
        }
        assert!(decide(&pod).patch.is_empty(), "{order}: a second pass is empty");
    }
}

#[test]
fn p7_a_second_pass_puts_back_what_was_taken_and_gives_nothing_to_others() {
    for mode in ["sidecar", "init+sidecar", "init"] {
        let mut pod = injected(&annotated(pod(), &[("mode", mode)]));
        // The API server fills these in between two webhooks.
        for agent in pod["spec"]["initContainers"].as_array_mut().unwrap() {
            agent["terminationMessagePath"] = json!("/dev/termination-log");
            agent["imagePullPolicy"] = json!("IfNotPresent");
        }
        pod["spec"]["volumes"][3]["projected"]["defaultMode"] = json!(420);
        let second = decide(&pod);
        assert_eq!(second.outcome, Outcome::Unchanged, "{mode}: {:?}", second.patch);
        let mut grown = with(pod, "/spec/containers/1", json!({"name": "late", "image": "x"}));
        let third = decide(&grown);
        assert_eq!(third.outcome, Outcome::Unchanged, "{mode}: {:?}", third.patch);
        let warning =
            "container \"late\" came later and gets no files: name it in hushpod.dev/containers if it wants them";
        assert_eq!(third.response["warnings"], json!([warning]), "{mode}");
        // One webhook strips the mounts, another gives them to its own container as well.
        let mounts = grown["spec"]["containers"][0]["volumeMounts"].take();
        grown["spec"]["containers"][0]["volumeMounts"] = json!([mounts[0]]);
        grown["spec"]["containers"][1]["volumeMounts"] = json!([mounts[1]]);
        let expected = [
            json!({"op": "add", "path": "/spec/containers/0/volumeMounts/1", "value": live_mount("/secrets")}),
            json!({"op": "remove", "path": "/spec/containers/1/volumeMounts/0"}),
        ];
        assert_eq!(decide(&grown).patch, expected, "{mode}");
    }
}

#[test]
fn a_copy_whose_containers_are_called_otherwise_is_chosen_from_anew() {
    let mut copy = injected(&with(pod(), "/spec/containers/1", json!({"name": "helper", "image": "x"})));
    let plan = |pod: &Value| {
        let agent = named(pod, "initContainers", "hushpod");
        Plan::from_json(agent["env"][0]["value"].as_str().unwrap()).unwrap().containers
    };
    assert_eq!(plan(&copy), ["app", "helper"]);
    // As `kubectl debug --copy-to` makes one: a container more, and here one less.
    copy["spec"]["containers"][1] = json!({"name": "debugger-x7k2p", "image": "x"});
    let again = injected(&copy);
    assert_eq!(plan(&again), ["app"], "what is gone is forgotten");
    assert!(!has_mount(named(&again, "containers", "debugger-x7k2p"), &live_mount("/secrets")));
    assert!(decide(&again).patch.is_empty());
    copy["spec"]["containers"] = json!([{"name": "other", "image": "x"}]);
    let other = injected(&copy);
    assert_eq!(plan(&other), ["other"]);
    assert!(has_mount(named(&other, "containers", "other"), &live_mount("/secrets")));
    assert!(decide(&other).patch.is_empty());
}

#[test]
fn containers_that_come_later_change_nothing() {
    let uid = with(pod(), "/spec/securityContext", json!({"runAsUser": 1000}));
    let equal = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    let pod = injected(&annotated(with(uid, "/spec/containers/0/resources", equal), &[("notify", "signal:HUP:x")]));
    let proxy = json!({"name": "proxy", "image": "x", "securityContext": {"runAsUser": 1337}});
    let grown = with(pod, "/spec/containers/1", proxy);
    assert_eq!(decide(&grown).patch, [] as [Value; 0], "neither uid, nor modes, nor resources, nor mounts");
}

#[test]
fn after_a_container_that_comes_later_we_move_behind_it() {
    let base = annotated(
        with(pod(), "/spec/initContainers", json!([{"name": "a", "image": "x"}])),
        &[("init-order", "after:mesh")],
    );
    let decided = decide(&base);
    assert!(decided.response["warnings"][0].as_str().unwrap().contains("no init container \"mesh\" yet"));
    assert_eq!(names(&decided.pod, "initContainers"), ["hushpod", "a"]);
    let grown = with(decided.pod, "/spec/initContainers/2", json!({"name": "mesh", "image": "x"}));
    let moved = injected(&grown);
    assert_eq!(names(&moved, "initContainers"), ["a", "mesh", "hushpod"]);
    assert!(!has_mount(named(&moved, "initContainers", "a"), &live_mount("/secrets")), "it would open the gate");
    assert!(decide(&moved).patch.is_empty());

    let pair = injected(&annotated(base, &[("mode", "init+sidecar")]));
    let grown = with(pair, "/spec/initContainers/3", json!({"name": "mesh", "image": "x"}));
    assert_eq!(names(&injected(&grown), "initContainers"), ["a", "mesh", "hushpod-init", "hushpod"]);
}

#[test]
fn p7_pods_that_do_not_ask_are_untouched() {
    let plain = with(pod(), "/metadata/annotations", json!({"other": "x"}));
    let opted_out = annotated(pod(), &[("inject", "false")]);
    for pod in [plain, opted_out] {
        assert_eq!(decide(&pod).outcome, Outcome::Unchanged);
    }
    for operation in ["UPDATE", "DELETE", "CONNECT"] {
        assert_eq!(decide_with(CONFIG, &review(operation, "", &pod())).outcome, Outcome::Unchanged, "{operation}");
    }
}

#[test]
fn who_can_read_decides_the_agents_uid() {
    let uid = |uid: i64| json!({"runAsUser": uid});
    for (context, user, mode) in
        [(Some(uid(1000)), json!(1000), "0400"), (Some(uid(0)), Value::Null, "0444"), (None, Value::Null, "0444")]
    {
        let mut pod = pod();
        if let Some(context) = context {
            pod["spec"]["containers"][0]["securityContext"] = context;
        }
        let pod = injected(&pod);
        let agent = named(&pod, "initContainers", "hushpod");
        assert_eq!(agent["securityContext"].get("runAsUser").cloned().unwrap_or_default(), user);
        let plan = Plan::from_json(agent["env"][0]["value"].as_str().unwrap()).unwrap();
        assert_eq!(plan.items[0].mode.to_string(), mode);
    }
}

#[test]
fn memory_reckons_three_generations() {
    let pod = injected(&annotated(pod(), &[("size-limit", "2Mi")]));
    // 3 × (2 MiB + one page for the one file).
    assert_eq!(
        named(&pod, "volumes", "hushpod-secrets")["emptyDir"],
        json!({"medium": "Memory", "sizeLimit": "6156Ki"})
    );
    let resources = &named(&pod, "initContainers", "hushpod")["resources"];
    assert_eq!(resources["limits"]["memory"], format!("{}Ki", 32 * 1024 + 8208));
}

#[test]
fn signals_share_the_process_namespace_and_nothing_else_does() {
    let uid = with(pod(), "/spec/securityContext", json!({"runAsUser": 1000}));
    let pod = injected(&annotated(uid, &[("notify", "signal:HUP:nginx")]));
    assert_eq!(pod["spec"]["shareProcessNamespace"], true);
    assert!(injected(&self::pod())["spec"].get("shareProcessNamespace").is_none());
}

#[test]
fn host_network_with_http_notification_is_warned_of() {
    let pod = annotated(with(pod(), "/spec/hostNetwork", json!(true)), &[("notify", "http:http://localhost/x")]);
    assert!(decide(&pod).response["warnings"][0].as_str().unwrap().contains("node's localhost"));
}

#[test]
fn a_metrics_port_is_the_sidecars_and_its_probe_never_ends_it() {
    for mode in ["sidecar", "init+sidecar"] {
        let decided = decide(&annotated(pod(), &[("metrics-port", "9102"), ("mode", mode)]));
        let sidecar = named(&decided.pod, "initContainers", "hushpod");
        assert_eq!(sidecar["ports"], json!([{"name": "hushpod-metrics", "containerPort": 9102}]));
        let probe = &sidecar["livenessProbe"];
        assert_eq!(probe["httpGet"], json!({"path": "/generations", "port": 9102}));
        assert_eq!(probe["failureThreshold"], i32::MAX);
        let inits = decided.pod["spec"]["initContainers"].as_array().unwrap();
        assert!(inits.iter().all(|container| container.get("ports").is_none() || container["name"] == "hushpod"));
        for container in inits {
            let plan = Plan::from_json(container["env"][0]["value"].as_str().unwrap()).unwrap();
            assert_eq!(plan.metrics_port, Some(9102), "an init container offers what a sidecar looks at");
        }
        // As it comes back from the API server.
        let place = inits.iter().position(|container| container["name"] == "hushpod").unwrap();
        let port = json!({"name": "hushpod-metrics", "containerPort": 9102, "protocol": "TCP"});
        let again = with(decided.pod.clone(), &format!("/spec/initContainers/{place}"), {
            let mut sidecar = inits[place].clone();
            sidecar["ports"] = json!([port]);
            sidecar
        });
        assert!(decide(&again).patch.is_empty(), "{mode}");
    }
    let decided = decide(&annotated(pod(), &[("metrics-port", "9102"), ("mode", "init")]));
    assert!(decided.response["warnings"][0].as_str().unwrap().contains("mode init, which leaves no agent"));
    assert!(named(&decided.pod, "initContainers", "hushpod-init").get("ports").is_none());
}

#[test]
fn one_file_by_sub_path_is_allowed_with_a_warning() {
    let mount = json!({"name": "hushpod-secrets", "mountPath": "/etc/app/db", "subPath": "live/db", "readOnly": true});
    let decided = decide(&with(pod(), "/spec/containers/0/volumeMounts/1", mount));
    assert!(decided.response["warnings"][0].as_str().unwrap().contains("never updates"));
}

#[test]
fn p9_pods_that_stand_in_the_way_are_denied_by_name() {
    let mount = |fields: Value| with(pod(), "/spec/containers/0/volumeMounts/1", fields);
    let early = with(pod(), "/spec/initContainers", json!([{"name": "early", "image": "x"}]));
    let two_uids = with(pod(), "/spec/containers/0/securityContext", json!({"runAsUser": 0}));
    for (pod, parts) in [
        (with(pod(), "/spec/os", json!({"name": "windows"})), &["Windows"][..]),
        (with(pod(), "/spec/nodeSelector", json!({"kubernetes.io/os": "windows"})), &["Windows"]),
        (with(pod(), "/spec/runtimeClassName", json!("kata")), &["runtimeClassName \"kata\"", "runtimeClasses"]),
        (with(pod(), "/metadata/annotations/kubernetes.io~1config.mirror", json!("x")), &["static pods"]),
        (
            with(pod(), "/spec/volumes/1", json!({"name": "hushpod-secrets", "hostPath": {"path": "/"}})),
            &["volume name \"hushpod-secrets\""],
        ),
        (
            with(pod(), "/spec/volumes/1", json!({"name": "hushpod-mine", "emptyDir": {}})),
            &["volume name \"hushpod-mine\""],
        ),
        (with(pod(), "/spec/containers/1", json!({"name": "hushpod", "image": "x"})), &["container name \"hushpod\""]),
        (mount(json!({"name": "cache", "mountPath": "/secrets"})), &["container \"app\"", "\"cache\"", "mount-path"]),
        (mount(json!({"name": "cache", "mountPath": "/secrets/db/"})), &["container \"app\"", "mount-path"]),
        (mount(json!({"name": "hushpod-tokens", "mountPath": "/t"})), &["\"hushpod-tokens\"", "leave the mount out"]),
        (
            mount(json!({"name": "hushpod-state", "mountPath": "/t", "subPath": "live/x", "readOnly": true})),
            &["\"hushpod-state\""],
        ),
        (
            mount(json!({"name": "hushpod-secrets", "mountPath": "/t"})),
            &["\"hushpod-secrets\"", "subPath: live/<file>"],
        ),
        (mount(json!({"name": "hushpod-secrets", "mountPath": "/t", "subPath": "live/x"})), &["read-only"]),
        (
            mount(json!({"name": "hushpod-secrets", "mountPath": "/t", "subPath": "live/../../x", "readOnly": true})),
            &["hushpod's own"],
        ),
        (annotated(pod(), &[("containers", "ap")]), &["hushpod.dev/containers", "\"ap\"", "\"app\""]),
        (
            annotated(early.clone(), &[("containers", "early"), ("init-order", "last")]),
            &["\"early\"", "before the agent"],
        ),
        (annotated(pod(), &[("init-order", "after:app")]), &["hushpod.dev/init-order", "application container"]),
        (annotated(pod(), &[("init-order", "after:hushpod")]), &["hushpod.dev/init-order", "hushpod's own container"]),
        (annotated(pod(), &[("notify", "signal:HUP:x")]), &["hushpod.dev/notify", "runAsUser"]),
        (annotated(two_uids, &[("notify", "signal:HUP:x")]), &["hushpod.dev/notify", "root"]),
        (
            annotated(pod(), &[("resources.memory-request", "1Gi"), ("resources.memory-limit", "1Mi")]),
            &["resources", "above"],
        ),
        (annotated(pod(), &[("fiel.x", "y")]), &["hushpod.dev/fiel.x", "\"file.x\""]),
        (annotated(pod(), &[("file.x", "nope:y")]), &["hushpod.dev/file.x", "unknown provider \"nope\""]),
        (annotated(pod(), &[("mode", "csi")]), &["hushpod.dev/mode", "no CSI driver"]),
    ] {
        let message = denial(&pod);
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
}

#[test]
fn p9_paths_and_ports_that_are_taken_are_denied() {
    let mount = |fields: Value| with(pod(), "/spec/containers/0/volumeMounts/1", fields);
    for (pod, parts) in [
        (mount(json!({"name": "cache", "mountPath": "//secrets"})), &["\"cache\" at \"//secrets\"", "mount-path"][..]),
        (mount(json!({"name": "cache", "mountPath": "secrets/./db"})), &["\"secrets/./db\"", "mount-path"]),
        (mount(json!({"name": "cache", "mountPath": "/etc/../secrets/"})), &["\"/etc/../secrets/\"", "mount-path"]),
        (annotated(pod(), &[("mount-path", "/hushpod-bin")]), &["hushpod.dev/mount-path", "hushpod's program"]),
        (annotated(pod(), &[("mount-path", "/hushpod-bin/x/")]), &["hushpod.dev/mount-path", "hushpod's program"]),
        (annotated(pod(), &[("mount-path", "//secrets")]), &["hushpod.dev/mount-path", "absolute path"]),
        (annotated(pod(), &[("mount-path", "/secrets/../x")]), &["hushpod.dev/mount-path", "absolute path"]),
        (annotated(pod(), &[("mount-path", "/")]), &["hushpod.dev/mount-path", "absolute path"]),
        (
            with(pod(), "/spec/containers/0/volumeDevices", json!([{"name": "disk", "devicePath": "/secrets"}])),
            &["block device at \"/secrets\"", "mount-path"],
        ),
        (
            with(
                with(annotated(pod(), &[("metrics-port", "9102")]), "/spec/hostNetwork", json!(true)),
                "/spec/containers/0/ports",
                json!([{"containerPort": 9102}]),
            ),
            &["hushpod.dev/metrics-port", "\"app\" has port 9102"],
        ),
    ] {
        let message = denial(&pod);
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
}

#[test]
fn paths_that_only_look_like_ours_are_others() {
    for path in ["/secrets/../x", "/secretsmore", "/sec", "/..secrets", "/a/secrets", "/secrets/.."] {
        let mount = json!({"name": "cache", "mountPath": path});
        let decided = decide(&with(pod(), "/spec/containers/0/volumeMounts/1", mount));
        assert_eq!(decided.outcome, Outcome::Injected, "{path}: {}", decided.response);
        assert!(decided.response.get("warnings").is_none(), "{path}: {}", decided.response);
    }
    let ports = json!([{"containerPort": 9102, "protocol": "UDP"}]);
    let host = with(annotated(pod(), &[("metrics-port", "9102")]), "/spec/hostNetwork", json!(true));
    injected(&with(host, "/spec/containers/0/ports", ports));
    let own = with(
        annotated(pod(), &[("metrics-port", "9102")]),
        "/spec/containers/0/ports",
        json!([{"containerPort": 9102}]),
    );
    injected(&own);
}

#[test]
fn places_where_nothing_can_be_mounted_are_warned_of() {
    let warnings = |pod: &Value| {
        let decided = decide(pod);
        assert_eq!(decided.outcome, Outcome::Injected, "{}", decided.response);
        decided.response["warnings"].to_string()
    };
    let below = annotated(pod(), &[("mount-path", "/etc/app/secrets")]);
    let config = with(below.clone(), "/spec/volumes/1", json!({"name": "settings", "configMap": {"name": "settings"}}));
    let mounted = |pod: &Value, mount: Value| with(pod.clone(), "/spec/containers/0/volumeMounts/1", mount);
    for (pod, is_warned) in [
        (mounted(&config, json!({"name": "settings", "mountPath": "/etc/app/"})), true),
        (mounted(&below, json!({"name": "cache", "mountPath": "/etc", "readOnly": true})), true),
        (mounted(&below, json!({"name": "cache", "mountPath": "/etc"})), false),
        (mounted(&config, json!({"name": "settings", "mountPath": "/etc/other"})), false),
    ] {
        let said = warnings(&pod);
        assert_eq!(said.contains("read-only at") && said.contains("hushpod.dev/mount-path"), is_warned, "{said}");
    }
    let tokens = "/var/run/secrets/kubernetes.io/serviceaccount";
    for (path, is_warned) in [
        ("/var/run/secrets", true),
        ("/run/secrets", true),
        ("/run", true),
        (tokens, true),
        ("/run/secrets/mine", false),
        ("/var/run/creds", false),
    ] {
        let asking = annotated(pod(), &[("mount-path", path)]);
        assert_eq!(warnings(&asking).contains("automountServiceAccountToken"), is_warned, "{path}");
        let without = with(asking, "/spec/automountServiceAccountToken", json!(false));
        assert_eq!(warnings(&without), "null", "{path}");
    }
}

#[test]
fn whatever_comes_in_a_review_goes_out() {
    let injector = injector(CONFIG);
    for (body, part) in [
        (&b"not json"[..], "no AdmissionReview"),
        (b"{}", "admission.k8s.io/v1"),
        (br#"{"apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"1"}}"#, "admission.k8s.io/v1"),
        (br#"{"apiVersion":"admission.k8s.io/v1"}"#, "no request"),
        (br#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"1","object":"#, "no AdmissionReview"),
    ] {
        let answer = answer(body, &injector);
        assert_eq!(answer.outcome, Outcome::Error);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["response"]["allowed"], false);
        assert!(body["response"]["status"]["message"].as_str().unwrap().contains(part), "{body}");
    }
    // A pod whose parts have the wrong types was refused by the API server; we must not panic all the same.
    let odd = json!({"metadata": {"annotations": {"hushpod.dev/file.db": "secret/data/db#k"}}, "spec": {"containers": [1, null, {"volumeMounts": 3}]}});
    assert_ne!(decide(&odd).outcome, Outcome::Error);
}

#[test]
fn what_is_remembered_of_one_pod_is_given_to_its_like_alone() {
    let plain = review("CREATE", "", &pod());
    let object = |path: &str| format!("/request/object{path}");
    let resources = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
    let reviews = [
        plain.clone(),
        with(plain.clone(), "/request/namespace", json!("team-b")),
        with(plain.clone(), &object("/spec/serviceAccountName"), json!("another")),
        with(plain.clone(), &object("/spec/restartPolicy"), json!("Never")),
        with(plain.clone(), &object("/metadata/annotations/hushpod.dev~1file.db"), json!("secret/data/another#k")),
        with(plain.clone(), &object("/metadata/annotations/hushpod.dev~1size-limit"), json!("2Mi")),
        with(plain.clone(), &object("/spec/containers/0/resources"), resources.clone()),
        with(plain.clone(), &object("/spec/resources"), resources),
        with(plain.clone(), &object("/spec/containers/0/securityContext"), json!({"runAsUser": 4711})),
        with(plain, &object("/spec/containers/0/name"), json!("another")),
    ];
    let one = injector(CONFIG);
    let mut patches = Vec::new();
    for round in ["first", "second"] {
        for (index, review) in reviews.iter().enumerate() {
            let request = serde_json::to_vec(review).unwrap();
            let decided = answer(&request, &one);
            assert_eq!(decided, answer(&request, &injector(CONFIG)), "{round} round, {index}");
            patches.push(decided.body);
        }
    }
    patches.sort();
    patches.dedup();
    assert_eq!(patches.len(), reviews.len(), "each of them gets something else");
}

#[test]
fn the_log_names_the_pod_as_far_as_it_has_a_name() {
    let logged = |pod: &Value, name: &str| {
        let mut review = review("CREATE", "", pod);
        review["request"]["name"] = json!(name);
        let (log, _listening) = Log::listen(Level::INFO);
        decide_with(CONFIG, &review);
        log.text()
    };
    let denied = with(pod(), "/metadata/annotations/hushpod.dev~1mode", json!("x"));
    for (pod, name, expected) in [
        (&pod(), "web-1", r#"injected namespace="team-a" pod="web-1""#),
        (&pod(), "", r#"injected namespace="team-a" pod="web-*""#),
        (&denied, "", r#"denied namespace="team-a" pod="web-*""#),
    ] {
        let line = logged(pod, name);
        assert!(line.contains(expected), "{expected} in {line}");
    }
}
