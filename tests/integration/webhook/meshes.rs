//! Pods as the webhooks of meshes and vendors make them, before our turn and after it: what they inject gets no files,
//! changes nothing for the application, and waits for nobody.

use super::*;

/// What a webhook adds to a pod. A container's name, `@` its uid if it has one of its own, and `!` if it is an init
/// container that stays.
struct Shape {
    name: &'static str,
    /// Init containers before the pod's own …
    first: &'static [&'static str],
    /// … and behind them.
    last: &'static [&'static str],
    containers: &'static [&'static str],
    /// Whether its containers come before the application's.
    is_in_front: bool,
}

const NONE: Shape = Shape { name: "", first: &[], last: &[], containers: &[], is_in_front: false };

const SHAPES: [Shape; 18] = [
    Shape { name: "Istio", last: &["istio-init"], containers: &["istio-proxy@1337"], ..NONE },
    Shape { name: "Istio, CNI", last: &["istio-validation@1337"], containers: &["istio-proxy@1337"], ..NONE },
    Shape { name: "Istio, native, CNI", first: &["istio-validation@1337", "istio-proxy@1337!"], ..NONE },
    Shape { name: "Istio, native", first: &["istio-init", "istio-proxy@1337!"], ..NONE },
    Shape { name: "Istio, held", first: &["istio-init"], containers: &["istio-proxy@1337"], is_in_front: true, ..NONE },
    Shape { name: "Linkerd", last: &["linkerd-init"], containers: &["linkerd-proxy@2102"], is_in_front: true, ..NONE },
    Shape { name: "Linkerd, CNI", first: &["linkerd-network-validator"], containers: &["linkerd-proxy@2102"], ..NONE },
    Shape { name: "Linkerd, native", last: &["linkerd-init", "linkerd-proxy@2102!"], ..NONE },
    Shape { name: "Linkerd, native, CNI", first: &["linkerd-network-validator", "linkerd-proxy@2102!"], ..NONE },
    Shape { name: "Consul", first: &["consul-connect-inject-init"], containers: &["consul-dataplane@5995"], ..NONE },
    Shape {
        name: "Consul, two ports",
        last: &["consul-connect-inject-init-web", "consul-connect-inject-init-admin"],
        containers: &["consul-dataplane-web@5995", "consul-dataplane-admin@5996"],
        ..NONE
    },
    Shape { name: "Kuma", first: &["kuma-init"], containers: &["kuma-sidecar@5678"], ..NONE },
    Shape { name: "Kuma, native, CNI", first: &["kuma-validation", "kuma-sidecar@5678!"], ..NONE },
    Shape { name: "Dapr", containers: &["daprd@65532"], ..NONE },
    Shape {
        name: "Datadog",
        first: &["datadog-init-apm-inject", "datadog-lib-java-init"],
        containers: &["datadog-agent-injected@100"],
        ..NONE
    },
    Shape {
        name: "OpenTelemetry",
        last: &["opentelemetry-auto-instrumentation-java"],
        containers: &["otc-container"],
        ..NONE
    },
    Shape { name: "Infisical's agent", first: &["infisical-agent-init"], containers: &["infisical-agent"], ..NONE },
    Shape { name: "Vault's agent", first: &["vault-agent-init"], containers: &["vault-agent"], ..NONE },
];

fn name_of(text: &str) -> &str {
    text.split('@').next().unwrap()
}

fn container(text: &str) -> Value {
    let mut made = json!({"name": name_of(text), "image": "x", "args": ["proxy"]});
    if let Some((_, uid)) = text.split_once('@') {
        let uid: i64 = uid.trim_end_matches('!').parse().unwrap();
        made["securityContext"] = json!({"runAsUser": uid, "runAsGroup": uid, "readOnlyRootFilesystem": true});
    }
    if text.ends_with('!') {
        made["restartPolicy"] = json!("Always");
    }
    made
}

impl Shape {
    fn injects(&self, pod: &Value) -> Value {
        let mut pod = pod.clone();
        let spec = pod["spec"].as_object_mut().unwrap();
        let mut of = |list: &str, front: &[Value], end: &[Value]| {
            let present = spec.remove(list).and_then(|list| list.as_array().cloned()).unwrap_or_default();
            let all: Vec<_> = front.iter().chain(&present).chain(end).cloned().collect();
            if !all.is_empty() {
                spec.insert(list.to_owned(), json!(all));
            }
        };
        let items = |list: &[&str]| list.iter().map(|text| container(text)).collect::<Vec<_>>();
        of("initContainers", &items(self.first), &items(self.last));
        let own = items(self.containers);
        let (front, end) = own.split_at(if self.is_in_front { own.len() } else { 0 });
        of("containers", front, end);
        pod
    }

    fn names(&self) -> Vec<String> {
        let all = [self.first, self.last, self.containers].concat();
        all.into_iter().map(|text| name_of(text).to_owned()).collect()
    }
}

/// An application with an init container, one uid, variables, and a signal to it.
fn application() -> Value {
    let pod = annotated(pod(), &[("env.TOKEN", "secret/data/app#token"), ("notify", "signal:HUP:app")]);
    let pod = with(pod, "/spec/containers/0/command", json!(["/app"]));
    let pod = with(pod, "/spec/containers/0/securityContext", json!({"runAsUser": 1000}));
    with(pod, "/spec/initContainers", json!([{"name": "migrate", "image": "x"}]))
}

fn every_container(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
}

fn plan_of(pod: &Value) -> Plan {
    let agent = every_container(pod).find(|container| container["command"] == json!(["/hushpod-agent"])).unwrap();
    Plan::from_json(agent["env"][0]["value"].as_str().unwrap()).unwrap()
}

/// Nothing of ours is in what was injected, and all of it in the application.
fn check(pod: &Value, injected: &[String], case: &str) {
    for container in every_container(pod) {
        let name = container["name"].as_str().unwrap();
        let is_theirs = injected.iter().any(|other| other == name);
        let text = container.to_string();
        assert!(!is_theirs || !text.contains("hushpod"), "{case}: {text}");
        let has_files = has_mount(container, &live_mount("/secrets"));
        assert_eq!(has_files, ["app", "migrate"].contains(&name), "{case}: {text}");
    }
    let app = named(pod, "containers", "app");
    assert_eq!(app["command"][0], "/hushpod-bin/hushpod-agent", "{case}");
    let agent = named(pod, "initContainers", "hushpod");
    assert_eq!(agent["securityContext"]["runAsUser"], 1000, "{case}: proxies have uids of their own");
    let plan = plan_of(pod);
    assert_eq!(plan.containers, ["app", "migrate"], "{case}");
    assert_eq!(plan.items[0].mode.to_string(), "0400", "{case}");
}

#[test]
fn p6_what_others_inject_before_our_turn_gets_no_files() {
    for shape in SHAPES {
        let decided = decide(&shape.injects(&application()));
        assert_eq!(decided.outcome, Outcome::Injected, "{}: {}", shape.name, decided.response);
        check(&decided.pod, &shape.names(), shape.name);
        let warnings = decided.response["warnings"].to_string();
        for name in shape.names() {
            assert!(
                warnings.contains(&name) && warnings.contains("hushpod.dev/containers"),
                "{}: {warnings}",
                shape.name
            );
        }
        let again = decide(&decided.pod);
        assert_eq!(again.outcome, Outcome::Unchanged, "{}: {:?}", shape.name, again.patch);
        assert!(again.response.get("warnings").is_none(), "{}: said once is enough: {}", shape.name, again.response);
    }
}

#[test]
fn p6_what_others_inject_after_our_turn_gets_no_files() {
    let once = injected(&application());
    for shape in SHAPES {
        let grown = shape.injects(&once);
        check(&grown, &shape.names(), shape.name);
        let again = decide(&grown);
        assert_eq!(again.outcome, Outcome::Unchanged, "{}: {:?}", shape.name, again.patch);
        assert!(again.response.get("warnings").is_none(), "{}: {}", shape.name, again.response);
    }
}

#[test]
fn p7_what_a_mesh_strips_comes_back_and_the_mesh_gets_none_of_it() {
    for shape in SHAPES {
        let once = injected(&application());
        let mut stripped = shape.injects(&once);
        for list in ["initContainers", "containers"] {
            for container in stripped["spec"][list].as_array_mut().unwrap() {
                if container["command"] != json!(["/hushpod-agent"]) {
                    container.as_object_mut().unwrap().remove("volumeMounts");
                }
            }
        }
        check(&injected(&stripped), &shape.names(), shape.name);
    }
}

#[test]
fn p6_a_pod_that_an_older_webhook_made_is_chosen_from_anew() {
    // The plan of a webhook that wrote no names, and the mounts that it gave to all.
    for shape in SHAPES {
        let mut pod = shape.injects(&injected(&application()));
        let mut plan = plan_of(&pod);
        plan.containers.clear();
        let written = plan.to_json().unwrap();
        assert!(!written.contains("containers"), "{written}");
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array_mut().unwrap() {
                if container["command"] == json!(["/hushpod-agent"]) {
                    container["env"][0]["value"] = json!(written);
                } else if container.get("volumeMounts").is_none() {
                    container["volumeMounts"] = json!([live_mount("/secrets")]);
                }
            }
        }
        let mut made = injected(&pod);
        // Init containers that stand before the agent have no mount anyway.
        for list in ["initContainers", "containers"] {
            for container in made["spec"][list].as_array_mut().unwrap() {
                if container["volumeMounts"] == json!([]) {
                    container.as_object_mut().unwrap().remove("volumeMounts");
                }
            }
        }
        check(&made, &shape.names(), shape.name);
    }
}

#[test]
fn a_container_is_chosen_by_its_name_not_by_who_injects_it() {
    let mesh = SHAPES.into_iter().find(|shape| shape.name == "Istio").unwrap();
    let asking = annotated(pod(), &[("containers", "app, istio-proxy")]);
    let gets = |pod: &Value, name: &str| has_mount(named(pod, "containers", name), &live_mount("/secrets"));

    let before = decide(&mesh.injects(&asking));
    assert!(before.response.get("warnings").is_none(), "{}", before.response);
    // It comes later: a name that another webhook gives is worth waiting for, and any other is a mistake.
    let first = decide(&asking);
    let warning = first.response["warnings"].to_string();
    assert!(warning.contains("no container \\\"istio-proxy\\\" yet"), "{warning}");
    assert_eq!(plan_of(&first.pod).containers, ["app", "istio-proxy"]);
    let after = injected(&mesh.injects(&first.pod));
    for pod in [&before.pod, &after] {
        assert!(gets(pod, "app") && gets(pod, "istio-proxy"), "{pod}");
        assert!(!has_mount(named(pod, "initContainers", "istio-init"), &live_mount("/secrets")));
        assert!(decide(pod).patch.is_empty());
    }
    let message = denial(&annotated(pod(), &[("containers", "app,istio-prox")]));
    assert!(message.contains("the pod has no container \"istio-prox\""), "{message}");
}

#[test]
fn p9_a_pod_of_nothing_but_injected_names_is_denied_until_it_chooses() {
    // A mesh's own gateway: its proxy is the application.
    let gateway = with(pod(), "/spec/containers/0/name", json!("istio-proxy"));
    let message = denial(&gateway);
    assert!(
        message.contains("no containers but istio-proxy") && message.contains("hushpod.dev/containers"),
        "{message}"
    );
    let chosen = injected(&annotated(gateway, &[("containers", "istio-proxy")]));
    assert!(has_mount(named(&chosen, "containers", "istio-proxy"), &live_mount("/secrets")));
    assert!(decide(&chosen).patch.is_empty());
}

#[test]
fn the_operator_says_which_names_are_injected() {
    let pod = with(pod(), "/spec/containers/1", json!({"name": "istio-proxy", "image": "x"}));
    let pod = with(pod, "/spec/containers/2", json!({"name": "acme-agent-v2", "image": "x"}));
    for (globs, expected) in [
        ("", &["acme-agent-v2", "app"][..]),
        ("injectedContainers: []", &["acme-agent-v2", "app", "istio-proxy"]),
        ("injectedContainers: ['acme-*-v?', 'istio-*']", &["acme-agent-v2", "app"]),
        ("injectedContainers: ['acme-*', 'app']", &["istio-proxy"]),
    ] {
        let decided = decide_with(&format!("{CONFIG}{globs}\n"), &review("CREATE", "", &pod));
        assert_eq!(plan_of(&decided.pod).containers, expected, "{globs}: {}", decided.response);
    }
}

#[test]
fn the_mesh_that_waited_for_the_agent_that_waited_for_the_mesh() {
    // What our first pass and then Istio's webhook made of a pod where its CNI plugin redirects from the start.
    let mut pod = injected(&with(
        pod(),
        "/metadata/annotations",
        json!({"hushpod.dev/file.db": "vault:secret/data/web/db#password"}),
    ));
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({
        "name": "istio-proxy", "image": "proxyv2", "args": ["proxy", "sidecar"], "securityContext": {"runAsUser": 1337},
    }));
    pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, json!({
        "name": "istio-validation", "image": "proxyv2", "args": ["istio-iptables", "--run-validation", "--skip-rule-apply"],
        "securityContext": {"runAsUser": 1337},
    }));
    assert_eq!(decide(&pod).outcome, Outcome::Unchanged);
}
