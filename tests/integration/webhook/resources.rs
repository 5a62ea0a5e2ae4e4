//! Requests and limits: a pod keeps its QoS class as far as it can, and Kubernetes finds its sums right.

use super::*;

fn both(cpu: &str, memory: &str) -> Value {
    both_of(json!({"cpu": cpu, "memory": memory}))
}

fn both_of(list: Value) -> Value {
    json!({"requests": list, "limits": list})
}

fn with_sidecar(pod: &Value) -> Value {
    let sidecar = json!({"name": "logs", "image": "x", "restartPolicy": "Always", "resources": both("1", "1Gi")});
    with(pod.clone(), "/spec/initContainers", json!([sidecar]))
}

fn resources(pod: &Value) -> Value {
    let all: Vec<_> = names(pod, "initContainers")
        .iter()
        .filter(|name| name.starts_with("hushpod"))
        .map(|name| named(pod, "initContainers", name)["resources"].clone())
        .collect();
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    all[0].clone()
}

#[test]
fn a_guaranteed_pod_stays_guaranteed() {
    let list = |(cpu, memory): (&str, &str)| json!({"cpu": cpu, "memory": memory});
    for (requests, limits, is_guaranteed) in [
        (("1", "1Gi"), ("1", "1Gi"), true),
        (("1", "1073741824"), ("1", "1Gi"), true),
        (("1000m", "1024Mi"), ("1.0", "1Gi"), true),
        (("0.5", "1e9"), ("500m", "1G"), true),
        (("500m", "1Gi"), ("1", "1Gi"), false),
        (("1", "1G"), ("1", "1Gi"), false),
    ] {
        let own = json!({"requests": list(requests), "limits": list(limits)});
        let pod = with(pod(), "/spec/containers/0/resources", own);
        for mode in ["sidecar", "init+sidecar", "init"] {
            let ours = resources(&injected(&annotated(pod.clone(), &[("mode", mode)])));
            assert_eq!(ours["requests"] == ours["limits"], is_guaranteed, "{requests:?} {mode}: {ours}");
            assert_eq!(ours["limits"].get("cpu").is_some(), is_guaranteed, "{requests:?} {mode}: {ours}");
        }
    }
    let burstable = resources(&injected(&pod()));
    assert!(burstable["limits"].get("cpu").is_none(), "{burstable}");
}

#[test]
fn none_is_said_of_nothing_and_never_costs_a_guaranteed_pod_its_class() {
    let none = ["cpu-request", "cpu-limit", "memory-request", "memory-limit"].map(|key| format!("resources.{key}"));
    let pairs: Vec<_> = none.iter().map(|key| (key.as_str(), "none")).collect();
    let best_effort = decide(&annotated(pod(), &pairs));
    assert_eq!(resources(&best_effort.pod), json!({}), "it stays BestEffort");
    assert!(best_effort.response.get("warnings").is_none());
    let guaranteed = with(annotated(pod(), &pairs), "/spec/containers/0/resources", both("1", "1Gi"));
    let decided = decide(&guaranteed);
    let ours = resources(&decided.pod);
    assert_eq!(ours["requests"], ours["limits"]);
    assert!(decided.response["warnings"].to_string().contains("stays one"), "{}", decided.response);
    // The operator's default says the same, and nobody needs to hear of it.
    let config = format!("{CONFIG}defaults: {{resources.cpu-request: none, resources.memory-request: none}}\n");
    let decided = decide_with(&config, &review("CREATE", "", &pod()));
    assert_eq!(resources(&decided.pod), json!({}));
    let message =
        denial(&annotated(pod(), &[("resources.memory-request", "none"), ("resources.memory-limit", "64Mi")]));
    assert!(message.contains("resources.*") && message.contains("write none for the limit, too"), "{message}");
}

#[test]
fn what_the_pod_has_as_a_whole_includes_ours() {
    let app = with(pod(), "/spec/containers/0/resources", both("1", "1Gi"));
    let requests = |list: Value| json!({"requests": list});
    let unlimited = with(pod(), "/spec/containers/0/resources", requests(json!({"cpu": "1", "memory": "1Gi"})));
    let memory = json!({"requests": {"memory": "9220Ki"}, "limits": {"memory": "36880Ki"}});
    let equal_memory = json!({"requests": {"memory": "36880Ki"}, "limits": {"memory": "36880Ki"}});
    for (pod, whole, expected) in [
        (&app, both("1", "1Gi"), json!({})),
        (&app, json!({"limits": {"cpu": "2", "memory": "2Gi"}}), json!({})),
        // Guaranteed by a limit that Kubernetes gives it if all containers have one, however much it asks for.
        (&app, requests(json!({"cpu": "2"})), both("0", "36880Ki")),
        (&app, requests(json!({"cpu": "1"})), both("0", "36880Ki")),
        (&app, requests(json!({"memory": "2Gi"})), both("50m", "0")),
        (&app, requests(json!({"cpu": "1", "memory": "1Gi"})), both("0", "0")),
        (&app, both_of(json!({"cpu": "2"})), equal_memory),
        (&app, both_of(json!({"hugepages-2Mi": "4Mi"})), both("50m", "36880Ki")),
        // Burstable anyway.
        (&app, json!({"limits": {"cpu": "2"}}), memory.clone()),
        (&unlimited, requests(json!({"cpu": "2"})), memory),
        (&unlimited, requests(json!({"memory": "2Gi"})), requests(json!({"cpu": "5m"}))),
        (&unlimited, requests(json!({"cpu": "1", "memory": "1Gi"})), json!({})),
        // A native sidecar counts as long as the pod runs.
        (&with_sidecar(&app), requests(json!({"cpu": "2"})), both("0", "36880Ki")),
        (
            &with_sidecar(&app),
            requests(json!({"cpu": "1500m"})),
            json!({"requests": {"memory": "9220Ki"}, "limits": {"memory": "36880Ki"}}),
        ),
    ] {
        let pod = with(pod.clone(), "/spec/resources", whole.clone());
        for mode in ["sidecar", "init+sidecar", "init"] {
            let decided = decide(&annotated(pod.clone(), &[("mode", mode)]));
            assert_eq!(resources(&decided.pod), expected, "{whole} {mode}");
            assert_eq!(decided.pod["spec"]["resources"], whole, "it is the pod's own");
            assert!(decide(&decided.pod).patch.is_empty(), "{whole} {mode}");
        }
    }
    let asks = annotated(with(app, "/spec/resources", both("1", "1Gi")), &[("resources.memory-limit", "64Mi")]);
    let decided = decide(&asks);
    assert_eq!(resources(&decided.pod), json!({}));
    let warnings = decided.response["warnings"].to_string();
    assert!(warnings.contains("resources.memory-limit: comes to nothing, since spec.resources"), "{warnings}");
}

#[test]
fn what_another_webhook_gives_to_the_whole_pod_later_is_taken_from_ours() {
    let once = injected(&pod());
    assert_eq!(resources(&once)["requests"]["cpu"], "5m");
    let grown = with(once, "/spec/resources", json!({"requests": {"cpu": "1"}}));
    let again = injected(&grown);
    assert_eq!(resources(&again), json!({"requests": {"memory": "9220Ki"}, "limits": {"memory": "36880Ki"}}));
    assert!(decide(&again).patch.is_empty());
    // The same, if it is Guaranteed by what it is given.
    let once = injected(&with(pod(), "/spec/containers/0/resources", both("1", "1Gi")));
    assert_eq!(resources(&once), both("50m", "36880Ki"));
    let grown = with(once, "/spec/resources", json!({"requests": {"cpu": "1"}}));
    let again = injected(&grown);
    assert_eq!(resources(&again), both("0", "36880Ki"));
    assert!(decide(&again).patch.is_empty());
    let limited = with(again, "/spec/resources/limits", json!({"cpu": "1"}));
    let last = injected(&limited);
    assert_eq!(resources(&last), both_of(json!({"memory": "36880Ki"})));
    assert!(decide(&last).patch.is_empty());
}
