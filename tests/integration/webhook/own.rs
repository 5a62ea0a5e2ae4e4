//! Containers and volumes that carry our names before we are asked: replaced by ours, field by field.

use super::*;

/// An injected pod, whose sidecar has a hook, a port and a probe.
fn once() -> Value {
    injected(&annotated(pod(), &[("metrics-port", "9102")]))
}

/// Every field of a container that Kubernetes 1.37 knows, with what others may have put there: whether it stays.
fn fields() -> Vec<(&'static str, Value, bool)> {
    let mut all = of_a_container();
    all.extend(of_a_security_context());
    all
}

fn of_a_security_context() -> Vec<(&'static str, Value, bool)> {
    vec![
        ("/securityContext/allowPrivilegeEscalation", json!(true), false),
        ("/securityContext/appArmorProfile", json!({"type": "Unconfined"}), false),
        ("/securityContext/capabilities/add", json!(["SYS_PTRACE"]), false),
        ("/securityContext/capabilities/drop", json!(["NET_RAW"]), false),
        ("/securityContext/capabilities/drop", json!(["ALL", "KILL"]), true),
        ("/securityContext/privileged", json!(true), false),
        ("/securityContext/procMount", json!("Unmasked"), false),
        ("/securityContext/procMount", json!("Default"), true),
        ("/securityContext/readOnlyRootFilesystem", json!(false), false),
        ("/securityContext/runAsNonRoot", json!(false), false),
        ("/securityContext/runAsGroup", json!(4711), false),
        ("/securityContext/runAsUser", json!(1_000_650_000), true),
        ("/securityContext/runAsUser", json!(0), false),
        ("/securityContext/seLinuxOptions", json!({"level": "s0:c26,c5"}), true),
        ("/securityContext/seccompProfile", json!({"type": "Unconfined"}), false),
        ("/securityContext/windowsOptions", json!({"hostProcess": true}), false),
    ]
}

fn of_a_container() -> Vec<(&'static str, Value, bool)> {
    let probe = json!({"exec": {"command": ["/evil"]}});
    vec![
        ("/args", json!(["sidecar", "--tokens", "/tmp"]), false),
        ("/args", json!([]), false),
        ("/command", json!(["/evil", "/hushpod-agent"]), false),
        ("/command", json!(["/hushpod-agent", "--volume=/tmp"]), false),
        ("/env", json!([{"name": "HUSHPOD_TOKENS", "value": "/tmp"}]), false),
        ("/env/2", json!({"name": "LD_PRELOAD", "value": "/evil.so"}), false),
        ("/env/0", json!({"name": "HUSHPOD_PLAN", "value": "{}"}), false),
        ("/env/0", json!({"name": "HUSHPOD_PLAN", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}), false),
        ("/env/2", json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}), false),
        ("/env/2", json!({"name": "HUSHPOD_POD", "value": "another"}), false),
        ("/env/2/valueFrom/fieldRef/apiVersion", json!("v1"), true),
        ("/env/2/valueFrom/fieldRef/fieldPath", json!("metadata.labels['pod']"), false),
        ("/envFrom", json!([{"configMapRef": {"name": "evil"}}]), false),
        ("/image", json!("mirror.example/hushpod:0.1.0"), true),
        ("/imagePullPolicy", json!("Always"), true),
        ("/lifecycle/preStop", json!({"exec": {"command": ["/evil"]}}), false),
        ("/lifecycle/stopSignal", json!("SIGKILL"), false),
        ("/lifecycle/postStart/exec/command", json!(["/evil"]), false),
        ("/livenessProbe/failureThreshold", json!(1), false),
        ("/livenessProbe/terminationGracePeriodSeconds", json!(1), false),
        ("/livenessProbe/successThreshold", json!(1), true),
        ("/livenessProbe/httpGet/scheme", json!("HTTP"), true),
        ("/livenessProbe/httpGet/scheme", json!("HTTPS"), false),
        ("/livenessProbe/httpGet/host", json!("169.254.169.254"), false),
        ("/madeUp", json!({"deep": true}), false),
        ("/ports/0/protocol", json!("TCP"), true),
        ("/ports/0/protocol", json!("UDP"), false),
        ("/ports/0/hostPort", json!(9102), false),
        ("/ports/1", json!({"containerPort": 1}), false),
        ("/readinessProbe", probe.clone(), false),
        ("/resizePolicy", json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]), false),
        ("/resources/limits/memory", json!("64Mi"), true),
        ("/resources/requests/cpu", json!("1"), true),
        ("/resources/limits/ephemeral-storage", json!("1Gi"), true),
        ("/resources/claims", json!([{"name": "device"}]), false),
        ("/resources/limits/example.com~1device", json!("1"), false),
        ("/restartPolicy", json!("Never"), false),
        ("/restartPolicyRules", json!([{"action": "Restart"}]), false),
        ("/startupProbe", probe, false),
        ("/stdin", json!(true), false),
        ("/stdinOnce", json!(true), false),
        ("/terminationMessagePath", json!("/dev/termination-log"), true),
        ("/terminationMessagePath", json!("/run/hushpod/state/handover"), false),
        ("/terminationMessagePolicy", json!("File"), true),
        ("/terminationMessagePolicy", json!("FallbackToLogsOnError"), false),
        ("/tty", json!(true), false),
        ("/volumeDevices", json!([{"name": "cache", "devicePath": "/dev/x"}]), false),
        ("/volumeMounts/0/mountPropagation", json!("Bidirectional"), false),
        ("/volumeMounts/0/name", json!("cache"), false),
        ("/volumeMounts/0/subPath", json!("x"), false),
        ("/volumeMounts/3/subPathExpr", json!("$(X)"), false),
        ("/volumeMounts/4", json!({"name": "cache", "mountPath": "/hushpod-agent"}), false),
        ("/volumeMounts/4", json!({"name": "cache", "mountPath": "/etc/ssl"}), false),
        ("/volumeMounts", json!([]), false),
        ("/workingDir", json!("/tmp"), false),
    ]
}

/// A pod whose container or volume at `place` has a field of its own; objects on its way are made.
fn spoilt(pod: &Value, place: &str, field: &str, value: &Value) -> Value {
    let (parents, _) = field.rsplit_once('/').unwrap();
    let mut pod = pod.clone();
    let mut path = place.to_owned();
    for step in parents.split('/').skip(1) {
        let (parent, name) = (path.clone(), step);
        path = format!("{path}/{step}");
        if pod.pointer(&path).is_none() {
            pod.pointer_mut(&parent).unwrap()[name] = json!({});
        }
    }
    let list = pod.pointer_mut(&path).unwrap();
    let name = field.rsplit_once('/').unwrap().1.replace("~1", "/");
    match list {
        Value::Array(items) => {
            let index: usize = name.parse().unwrap();
            if index < items.len() {
                items[index] = value.clone();
            } else {
                items.push(value.clone());
            }
        }
        object => object[name] = value.clone(),
    }
    pod
}

#[test]
fn p6_of_a_container_with_our_name_only_what_others_decide_is_kept() {
    let once = once();
    for (field, value, is_kept) in fields() {
        let brought = spoilt(&once, "/spec/initContainers/0", field, &value);
        let decided = decide(&brought);
        assert_ne!(decided.outcome, Outcome::Denied, "{field} {value}: {}", decided.response);
        let expected = if is_kept { &brought } else { &once };
        assert_eq!(decided.pod, *expected, "{field} {value}");
        assert_eq!(decided.patch.is_empty(), is_kept, "{field} {value}: {:?}", decided.patch);
        assert!(decide(&decided.pod).patch.is_empty(), "{field} {value}: a third pass");
    }
}

#[test]
fn what_the_cluster_fills_in_is_kept_together() {
    let mut pod = once();
    let kept: Vec<_> =
        fields().into_iter().filter(|(field, _, is_kept)| *is_kept && !field.ends_with("/drop")).collect();
    for (field, value, _) in &kept {
        pod = spoilt(&pod, "/spec/initContainers/0", field, value);
    }
    let decided = decide(&pod);
    assert!(decided.patch.is_empty(), "{:?}", decided.patch);
    // The node's ports are the pod's own there.
    let hosts = with(once(), "/spec/hostNetwork", json!(true));
    let hosts = spoilt(&hosts, "/spec/initContainers/0", "/ports/0/hostPort", &json!(9102));
    assert!(decide(&hosts).patch.is_empty());
    assert!(!decide(&spoilt(&hosts, "/spec/initContainers/0", "/ports/0/hostPort", &json!(80))).patch.is_empty());
}

#[test]
fn a_uid_that_ours_has_is_not_the_clusters_to_assign() {
    let user = with(pod(), "/spec/securityContext", json!({"runAsUser": 1000}));
    for (pairs, uid) in [(&[][..], 1000), (&[("run-as-user", "2000")], 2000)] {
        let once = injected(&annotated(user.clone(), pairs));
        assert_eq!(once["spec"]["initContainers"][0]["securityContext"]["runAsUser"], uid);
        let brought = spoilt(&once, "/spec/initContainers/0", "/securityContext/runAsUser", &json!(4711));
        assert_eq!(injected(&brought), once, "{uid}");
    }
    // Assigned to all containers alike, it is the one that they agree on.
    let mut assigned = once();
    for list in ["containers", "initContainers"] {
        assigned["spec"][list][0]["securityContext"]["runAsUser"] = json!(1_000_650_000);
    }
    let again = injected(&assigned);
    assert_eq!(again["spec"]["initContainers"][0]["securityContext"]["runAsUser"], 1_000_650_000);
    let plan = Plan::from_json(again["spec"]["initContainers"][0]["env"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(plan.items[0].mode.to_string(), "0400", "and nobody else reads");
    assert!(decide(&again).patch.is_empty());
}

#[test]
fn p6_a_container_that_only_has_our_name_becomes_ours() {
    let expected = injected(&pod());
    for brought in [
        json!({"name": "hushpod", "image": "x"}),
        json!({"name": "hushpod", "image": "x", "command": ["/bin/sh"], "args": ["-c", "cat /run/hushpod/state/*"],
            "env": [{"name": "A", "value": "b"}], "volumeMounts": [{"name": "cache", "mountPath": "/hushpod-agent"}]}),
        json!({"name": "hushpod", "image": "x", "command": ["/hushpod-agent"]}),
    ] {
        let is_known = brought["command"][0] == "/hushpod-agent";
        let decided = decide(&with(pod(), "/spec/initContainers", json!([brought])));
        assert_eq!(decided.pod["spec"]["initContainers"][0]["image"], "x", "a mirror's");
        let mut pod = decided.pod.clone();
        pod["spec"]["initContainers"][0]["image"] = json!("registry/hushpod:0.1.0");
        assert_eq!(pod["spec"], expected["spec"], "{brought}");
        let warned = decided.response["warnings"][0].as_str().is_some_and(|text| text.contains("hushpod's own name"));
        assert_eq!(warned, !is_known, "{}", decided.response);
        assert!(decide(&decided.pod).patch.is_empty());
    }
    // One that belongs to another mode goes; an application that has taken our name is told.
    let sidecar = annotated(injected(&annotated(pod(), &[("mode", "init+sidecar")])), &[("mode", "sidecar")]);
    assert_eq!(names(&injected(&sidecar), "initContainers"), ["hushpod"]);
    for (list, name) in [("containers", "hushpod"), ("containers", "hushpod-init"), ("initContainers", "hushpod-init")]
    {
        let mut taken = pod();
        let container = json!({"name": name, "image": "x"});
        match taken["spec"][list].as_array_mut() {
            Some(list) => list.push(container),
            None => taken["spec"][list] = json!([container]),
        }
        let message = denial(&taken);
        assert!(message.contains(&format!("container name \"{name}\" is hushpod's own")), "{message}");
    }
}

#[test]
fn other_webhooks_in_between_end_as_said() {
    let once = injected(&pod());
    // One that gives a variable to every container: the application keeps it, ours does not.
    let mut meshed = once.clone();
    for list in ["containers", "initContainers"] {
        for container in meshed["spec"][list].as_array_mut().unwrap() {
            let variable = json!({"name": "DD_AGENT_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}});
            match container["env"].as_array_mut() {
                Some(env) => env.insert(0, variable),
                None => container["env"] = json!([variable]),
            }
        }
    }
    let again = injected(&meshed);
    assert_eq!(again["spec"]["initContainers"], once["spec"]["initContainers"]);
    assert_eq!(again["spec"]["containers"][0]["env"], meshed["spec"]["containers"][0]["env"]);
    // One that mirrors images, and one that fills resources in.
    let mirrored = spoilt(&once, "/spec/initContainers/0", "/image", &json!("mirror/hushpod@sha256:00"));
    assert!(decide(&mirrored).patch.is_empty());
    let mut limited = once.clone();
    limited["spec"]["initContainers"][0]["resources"]["limits"]["cpu"] = json!("1");
    assert!(decide(&limited).patch.is_empty());
    limited["spec"]["initContainers"][0]["resources"] = json!({});
    assert_eq!(injected(&limited), once, "without any it could take the node's memory");
}

#[test]
fn p6_our_volumes_are_as_we_make_them() {
    let asking = annotated(pod(), &[("env.TOKEN", "secret/data/db#token")]);
    let asking = with(asking, "/spec/containers/0/command", json!(["/app"]));
    let once = injected(&asking);
    let images = format!("{CONFIG}imageVolumes: true\n");
    let mounted = decide_with(&images, &review("CREATE", "", &asking)).pod;
    let secret = json!({"secret": {"name": "evil"}});
    let token = json!({"serviceAccountToken": {"path": "extra", "audience": "x", "expirationSeconds": 600}});
    for (config, pod, name, field, value, is_kept) in [
        (CONFIG, &once, "hushpod-secrets", "/emptyDir/sizeLimit", json!("1Ti"), false),
        (CONFIG, &once, "hushpod-secrets", "/emptyDir/medium", json!(""), false),
        (CONFIG, &once, "hushpod-state", "/emptyDir/medium", json!("HugePages"), false),
        (CONFIG, &once, "hushpod-tokens", "/projected/sources/1", secret, false),
        (CONFIG, &once, "hushpod-tokens", "/projected/sources/1", token, false),
        (CONFIG, &once, "hushpod-tokens", "/projected/sources/0/serviceAccountToken/audience", json!("x"), false),
        (CONFIG, &once, "hushpod-tokens", "/projected/defaultMode", json!(420), true),
        (CONFIG, &once, "hushpod-tokens", "/projected/defaultMode", json!(511), false),
        (CONFIG, &once, "hushpod-controls", "/downwardAPI/items/0/fieldRef/apiVersion", json!("v1"), true),
        (CONFIG, &once, "hushpod-controls", "/downwardAPI/items/0/fieldRef/fieldPath", json!("metadata.labels"), false),
        (CONFIG, &once, "hushpod-bin", "/emptyDir/medium", json!("Memory"), false),
        (&images, &mounted, "hushpod-bin", "/image/reference", json!("mirror.example/hushpod:0.1.0"), true),
        (&images, &mounted, "hushpod-bin", "/image/pullPolicy", json!("IfNotPresent"), true),
    ] {
        let place = names(pod, "volumes").iter().position(|volume| volume == name).unwrap();
        let brought = spoilt(pod, &format!("/spec/volumes/{place}"), field, &value);
        let decided = decide_with(config, &review("CREATE", "", &brought));
        assert_ne!(decided.outcome, Outcome::Denied, "{name}{field}: {}", decided.response);
        assert_eq!(decided.pod, if is_kept { brought } else { pod.clone() }, "{name}{field}");
    }
}

#[test]
fn p6_no_container_takes_a_variable_out_of_our_volumes() {
    let key = |volume: &str| {
        let file = json!({"volumeName": volume, "path": "live/db", "key": "A", "optional": true});
        json!([{"name": "PLAIN", "value": "x"}, {"name": "A", "valueFrom": {"fileKeyRef": file}}])
    };
    for asks_for_variables in [false, true] {
        let mut base = pod();
        if asks_for_variables {
            base = annotated(base, &[("env.TOKEN", "secret/data/db#token")]);
            base = with(base, "/spec/containers/0/command", json!(["/app"]));
        }
        let base = with(base, "/spec/initContainers", json!([{"name": "early", "image": "x"}]));
        for volume in ["hushpod-secrets", "hushpod-state", "hushpod-bin"] {
            for list in ["containers", "initContainers"] {
                let message = denial(&with(base.clone(), &format!("/spec/{list}/0/env"), key(volume)));
                for part in ["fileKeyRef", "hushpod.dev/env.<NAME>", &format!("{volume:?}")] {
                    assert!(message.contains(part), "{message:?} lacks {part:?}");
                }
            }
        }
        injected(&with(base, "/spec/containers/0/env", key("cache")));
    }
}

#[test]
fn p6_ephemeral_containers_reach_neither_our_volumes_nor_our_processes() {
    let pod = injected(&annotated(pod(), &[("mode", "init+sidecar")]));
    let debug = |mut container: Value| {
        container["name"] = json!("debug");
        let pod = with(pod.clone(), "/spec/ephemeralContainers", json!([{"name": "earlier"}, container]));
        decide_with(CONFIG, &review("UPDATE", "ephemeralcontainers", &pod))
    };
    let key =
        |volume: &str| json!([{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": volume, "path": "live/db"}}}]);
    for (container, part) in [
        (json!({"volumeMounts": [{"name": "hushpod-state", "mountPath": "/s"}]}), "the volume \"hushpod-state\""),
        (json!({"env": key("hushpod-secrets")}), "by fileKeyRef"),
        (json!({"targetContainerName": "hushpod"}), "targets \"hushpod\""),
        (json!({"targetContainerName": "hushpod-init"}), "targets \"hushpod-init\""),
    ] {
        let decided = debug(container);
        let message = decided.response["status"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("\"debug\"") && message.contains(part), "{part}: {}", decided.response);
    }
    for container in [
        json!({}),
        json!({"volumeMounts": [{"name": "cache", "mountPath": "/s"}]}),
        json!({"env": key("cache")}),
        json!({"targetContainerName": "app"}),
    ] {
        assert_eq!(debug(container.clone()).outcome, Outcome::Unchanged, "{container}");
    }
    // Where none of ours runs, the name is anybody's.
    let other = json!([{"name": "debug", "targetContainerName": "hushpod"}]);
    let theirs = with(self::pod(), "/spec/containers/1", json!({"name": "hushpod", "image": "x"}));
    let theirs = with(theirs, "/spec/ephemeralContainers", other);
    assert_eq!(decide_with(CONFIG, &review("UPDATE", "ephemeralcontainers", &theirs)).outcome, Outcome::Unchanged);
}

/// With one on a native sidecar, kubelet before 1.35.4 and 1.36.0 left containers dead after a restart of its own.
#[test]
fn none_of_ours_has_a_startup_probe() {
    for config in [CONFIG.to_owned(), format!("{CONFIG}nativeSidecars: false\n")] {
        for mode in ["sidecar", "init+sidecar", "init"] {
            let asks = annotated(pod(), &[("mode", mode), ("metrics-port", "9102")]);
            let made = decide_with(&config, &review("CREATE", "", &asks)).pod;
            let all = ["initContainers", "containers"].into_iter().filter_map(|list| made["spec"][list].as_array());
            let ours: Vec<_> = all.flatten().filter(|made| made["command"][0] == "/hushpod-agent").collect();
            assert!(!ours.is_empty());
            assert!(ours.iter().all(|made| made["startupProbe"].is_null()), "{mode}: {ours:?}");
        }
    }
}

/// The node's ids are others then, and the pod's are as ever.
#[test]
fn a_user_namespace_changes_nothing() {
    let user = with(pod(), "/spec/securityContext", json!({"runAsUser": 1000, "runAsNonRoot": true}));
    let mut expected = injected(&user);
    expected["spec"]["hostUsers"] = json!(false);
    let made = injected(&with(user, "/spec/hostUsers", json!(false)));
    assert_eq!(made, expected);
    assert!(decide(&made).patch.is_empty());
}
