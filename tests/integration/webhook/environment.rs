//! Environment variables: what the webhook makes of commands, and what it denies.

use super::*;

const PROGRAM: &str = "/hushpod-bin/hushpod-agent";

/// One container with a command of its own, and variables from a file and one by one.
fn asking() -> Value {
    let pod = annotated(
        pod(),
        &[
            ("secrets", "- {file: app.env, from: secret/data/app, format: dotenv}"),
            ("env", "app.env"),
            ("env.HF_TOKEN", "secret/data/hf#token"),
        ],
    );
    let pod = with(pod, "/spec/containers/0/command", json!(["/app/server", "--port=$(PORT)"]));
    let pod = with(pod, "/spec/containers/0/args", json!(["-v"]));
    with(pod, "/spec/containers/0/env", json!([{"name": "PORT", "value": "80"}, {"name": "tls.crt", "value": "x"}]))
}

fn command(pod: &Value, name: &str) -> Vec<String> {
    let list = if pod["spec"]["containers"].as_array().unwrap().iter().any(|c| c["name"] == name) {
        "containers"
    } else {
        "initContainers"
    };
    let words = named(pod, list, name)["command"].as_array().cloned().unwrap_or_default();
    words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn line(pod: &Value, name: &str) -> String {
    command(pod, name).join(" ")
}

fn bin_mount() -> Value {
    json!({"name": "hushpod-bin", "mountPath": "/hushpod-bin", "readOnly": true})
}

#[test]
fn the_command_is_wrapped_and_the_arguments_are_left_alone() {
    let pod = injected(&asking());
    let expected = "/hushpod-bin/hushpod-agent exec --env /secrets/app.env --env /secrets/.hushpod-env --keep PORT -- \
                    /app/server --port=$(PORT)";
    assert_eq!(line(&pod, "app"), expected);
    let app = named(&pod, "containers", "app");
    assert_eq!(app["args"], json!(["-v"]));
    assert_eq!(app["env"][0], json!({"name": "PORT", "value": "80"}), "nothing is added to the container's own");
    assert_eq!(app["env"].as_array().unwrap().len(), 2);
    assert!(has_mount(app, &bin_mount()) && has_mount(app, &live_mount("/secrets")));
    assert_eq!(named(&pod, "volumes", "hushpod-bin")["emptyDir"], json!({"sizeLimit": "8Mi"}), "on disk");
    let agent = named(&pod, "initContainers", "hushpod");
    assert!(has_mount(agent, &json!({"name": "hushpod-bin", "mountPath": "/run/hushpod/bin"})));
    let plan = Plan::from_json(agent["env"][0]["value"].as_str().unwrap()).unwrap();
    let targets: Vec<_> = plan.items.iter().map(|item| format!("{:?}", item.target)).collect();
    assert!(targets.iter().any(|target| target.contains(".hushpod-env/HF_TOKEN")), "{targets:?}");
    assert!(named(&injected(&self::pod()), "initContainers", "hushpod")["volumeMounts"].as_array().unwrap().len() == 4);
}

#[test]
fn kubelet_sets_variables_where_there_is_no_command() {
    let config = format!("{CONFIG}kubeletEnv: true\n");
    let variable = |name: &str| {
        let path = format!("live/.hushpod-kubelet-env/{name}");
        let file = json!({"volumeName": "hushpod-secrets", "path": path, "key": name, "optional": false});
        json!({"name": name, "valueFrom": {"fileKeyRef": file}})
    };
    let asking = annotated(pod(), &[("env.HF_TOKEN", "secret/data/hf#token"), ("env.DB", "secret/data/db#url")]);
    let asking = with(asking, "/spec/containers/0/env", json!([{"name": "PORT", "value": "80"}]));
    let decided = decide_with(&config, &review("CREATE", "", &asking));
    let app = named(&decided.pod, "containers", "app");
    assert_eq!(app["env"], json!([{"name": "PORT", "value": "80"}, variable("DB"), variable("HF_TOKEN")]));
    assert_eq!(app["command"], Value::Null);
    assert!(!has_mount(app, &bin_mount()));
    assert!(decided.response["warnings"].to_string().contains("on the node's disk"), "{}", decided.response);
    let plan = named(&decided.pod, "initContainers", "hushpod")["env"][0]["value"].as_str().unwrap();
    for item in [r#"{"target":{"file":".hushpod-kubelet-env/DB"}"#, r#""format":"kubelet","mode":"0400""#] {
        assert!(plan.contains(item), "{plan}");
    }

    // A second pass finds all of it there.
    let again = decide_with(&config, &review("CREATE", "", &decided.pod));
    assert_eq!(again.pod, decided.pod);

    // A container with a command is wrapped beside it.
    let both =
        with(asking.clone(), "/spec/containers/1", json!({"name": "worker", "image": "x", "command": ["/worker"]}));
    let both = decide_with(&config, &review("CREATE", "", &both)).pod;
    assert!(line(&both, "worker").starts_with(PROGRAM), "{}", line(&both, "worker"));
    assert_eq!(named(&both, "containers", "worker")["env"], Value::Null);
    assert_eq!(named(&both, "containers", "app")["env"].as_array().unwrap().len(), 3);

    let env = |value: Value| with(asking.clone(), "/spec/containers/0/env", value);
    let other = |path: &str| json!([{"name": "DB", "valueFrom": {"fileKeyRef": {"volumeName": "hushpod-secrets", "path": path, "key": "DB"}}}]);
    for (pod, parts) in [
        (
            annotated(asking.clone(), &[("dir.d", "secret/data/d"), ("env", "d")]),
            &["hushpod.dev/env:", "env.<NAME>"][..],
        ),
        (
            annotated(asking.clone(), &[("on-change", "restart")]),
            &["hushpod.dev/on-change", "has no command", "restart-all"],
        ),
        (env(json!([{"name": "DB", "value": "x"}])), &["has DB in env", "hushpod.dev/env.DB"]),
        (env(other("live/.hushpod-kubelet-env/HF_TOKEN")), &["fileKeyRef"]),
        (env(other("live/db.json")), &["fileKeyRef"]),
    ] {
        let message = decide_with(&config, &review("CREATE", "", &pod)).response["status"]["message"].to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}: {parts:?}");
    }
    // Nobody but the selected may have them.
    let early = json!([{"name": "early", "image": "x", "env": [variable("DB")]}]);
    let message = decide_with(&config, &review("CREATE", "", &with(asking, "/spec/initContainers", early))).response;
    assert!(message["status"]["message"].to_string().contains("fileKeyRef"), "{message}");
}

/// Ours says which exit code restarts all containers; its init container, and those of other pods, say nothing.
#[test]
fn restart_all_is_the_sidecars_rule_and_needs_no_parent() {
    let rule = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [85]}}]);
    let bare = annotated(pod(), &[("env.DB", "secret/data/db#url"), ("on-change", "restart-all")]);
    let kubelet = format!("{CONFIG}kubeletEnv: true\n");
    let never = with(asking(), "/spec/restartPolicy", json!("Never"));
    // (config, pod, its annotations) → (init containers, jitter in ms)
    for (config, pod, more, order, jitter) in [
        (CONFIG, asking(), &[][..], &["hushpod"][..], 300_000),
        (
            CONFIG,
            asking(),
            &[("mode", "init+sidecar"), ("on-change-jitter", "90s")],
            &["hushpod-init", "hushpod"],
            90_000,
        ),
        (CONFIG, never, &[], &["hushpod-init", "hushpod"], 300_000),
        (&kubelet, bare, &[("metrics-port", "9102")], &["hushpod"], 300_000),
    ] {
        let pod = annotated(annotated(pod, &[("on-change", "restart-all")]), more);
        let decided = decide_with(config, &review("CREATE", "", &pod));
        assert_eq!(decided.outcome, Outcome::Injected, "{}", decided.response);
        assert_eq!(names(&decided.pod, "initContainers"), order);
        for name in order {
            let ours = named(&decided.pod, "initContainers", name);
            let expected = if *name == "hushpod" { &rule } else { &Value::Null };
            assert_eq!(ours["restartPolicyRules"], *expected, "{name}");
            let plan = Plan::from_json(ours["env"][0]["value"].as_str().unwrap()).unwrap();
            let planned = plan.restart_all.unwrap();
            assert_eq!(planned.jitter_ms, jitter);
            assert_eq!(planned.variables.last().unwrap().as_str(), ".hushpod-env");
        }
        assert_eq!(named(&decided.pod, "initContainers", "hushpod")["restartPolicy"], "Always", "rules want one");
        assert!(!line(&decided.pod, "app").contains("--on-change"), "{}", line(&decided.pod, "app"));
        let second = |pod: &Value| decide_with(config, &review("CREATE", "", pod));
        assert!(second(&decided.pod).patch.is_empty(), "a second pass");
        let index = order.len() - 1;
        for strange in [json!([]), json!([{"action": "Restart"}]), json!([rule[0], rule[0]])] {
            let path = format!("/spec/initContainers/{index}/restartPolicyRules");
            assert_eq!(second(&with(decided.pod.clone(), &path, strange)).pod, decided.pod);
        }
    }
    let others = injected(&annotated(asking(), &[("on-change", "restart")]));
    let own = named(&others, "initContainers", "hushpod");
    assert_eq!(own["restartPolicyRules"], Value::Null);
    assert!(!own["env"][0]["value"].as_str().unwrap().contains("restartAll"));

    let old = format!("{CONFIG}nativeSidecars: false\n");
    let asks = annotated(asking(), &[("on-change", "restart-all")]);
    let decided = decide_with(&old, &review("CREATE", "", &asks));
    let message = decided.response["status"]["message"].to_string();
    assert!(message.contains("hushpod.dev/on-change: restart-all needs native sidecars"), "{message}");
}

#[test]
fn image_volumes_need_no_copy() {
    let config = format!("{CONFIG}imageVolumes: true\nimagePullPolicy: Always\n");
    let decided = decide_with(&config, &review("CREATE", "", &asking()));
    let volume = named(&decided.pod, "volumes", "hushpod-bin");
    assert_eq!(volume["image"], json!({"reference": "registry/hushpod:0.1.0", "pullPolicy": "Always"}));
    assert!(has_mount(named(&decided.pod, "containers", "app"), &bin_mount()));
    let agent = named(&decided.pod, "initContainers", "hushpod");
    assert!(agent["volumeMounts"].as_array().unwrap().iter().all(|mount| mount["name"] != "hushpod-bin"));
    assert!(decide_with(&config, &review("CREATE", "", &decided.pod)).patch.is_empty());
}

#[test]
fn a_command_is_wrapped_once_whatever_other_webhooks_do() {
    let pod = injected(&asking());
    assert_eq!(decide(&pod).outcome, Outcome::Unchanged, "a second pass");
    let command = json!(command(&pod, "app"));

    let set = |field: &str, value: Value| with(pod.clone(), &format!("/spec/containers/0/{field}"), value);
    let replaced = injected(&set("command", json!(["/other"])));
    assert!(line(&replaced, "app").ends_with(" --keep PORT -- /other"), "{}", line(&replaced, "app"));

    let mut prefixed = vec![json!("/their/wrapper")];
    prefixed.extend(command.as_array().unwrap().clone());
    assert_eq!(decide(&set("command", json!(prefixed))).outcome, Outcome::Unchanged, "in front of ours");
    let moved = with(set("command", json!(["/their/wrapper"])), "/spec/containers/0/args", command.clone());
    assert_eq!(decide(&moved).outcome, Outcome::Unchanged, "ours is among the arguments");

    let more = set("env", json!([{"name": "PORT", "value": "80"}, {"name": "LATE", "value": "x"}]));
    let again = injected(&more);
    assert!(line(&again, "app").contains("--keep PORT --keep LATE -- /app/server"), "{}", line(&again, "app"));
    assert_eq!(line(&again, "app").matches(PROGRAM).count(), 1);
}

#[test]
fn which_containers_are_wrapped() {
    let plain = |name: &str| json!({"name": name, "image": "x", "command": ["/run"]});
    let base = with(asking(), "/spec/containers/1", plain("second"));
    let base = with(base, "/spec/initContainers", json!([plain("migrate")]));
    for (containers, wrapped) in [
        (None, &["app", "second"][..]),
        (Some("app"), &["app"]),
        (Some("app,migrate"), &["app", "migrate"]),
        (Some("migrate"), &["migrate"]),
    ] {
        let asked = containers.map(|names| annotated(base.clone(), &[("containers", names)])).unwrap_or(base.clone());
        let pod = injected(&asked);
        for name in ["app", "second", "migrate"] {
            assert_eq!(line(&pod, name).starts_with(PROGRAM), wrapped.contains(&name), "{containers:?} {name}");
        }
        assert!(decide(&pod).patch.is_empty(), "{containers:?}");
    }
    // Another webhook's sidecar knows nothing of our variables, and has no command.
    let grown =
        with(injected(&asking()), "/spec/containers/1", json!({"name": "mesh", "image": "x", "args": ["proxy"]}));
    let decided = decide(&grown);
    assert!(command(&decided.pod, "mesh").is_empty(), "{}", decided.pod);
    assert!(decided.patch.is_empty(), "{:?}", decided.patch);
    assert!(decided.response["warnings"][0].as_str().unwrap().contains("\"mesh\" came later"));
}

#[test]
fn on_change_becomes_options_of_the_wrapper() {
    let uid = with(asking(), "/spec/terminationGracePeriodSeconds", json!(45));
    for (pairs, expected) in [
        (&[("on-change", "none")][..], None),
        (&[("on-change", "restart")], Some("--on-change restart --jitter 300000ms --grace 45s")),
        (
            &[("on-change", "restart"), ("on-change-jitter", "90s")],
            Some("--on-change restart --jitter 90000ms --grace 45s"),
        ),
        (&[("on-change", "signal:SIGUSR1")], Some("--on-change signal:USR1 --grace 45s")),
    ] {
        let pod = injected(&annotated(uid.clone(), pairs));
        let line = line(&pod, "app");
        assert_eq!(line.contains("--on-change"), expected.is_some(), "{line}");
        assert!(expected.is_none_or(|expected| line.contains(expected)), "{line}");
        assert!(decide(&pod).patch.is_empty());
        assert!(pod["spec"].get("shareProcessNamespace").is_none());
    }
}

#[test]
fn optional_files_directories_and_mount_paths() {
    let pod = annotated(
        with(asking(), "/metadata/annotations", json!({})),
        &[
            ("secrets", "- {file: a.env, from: secret/data/a, format: dotenv, optional: true}"),
            ("dir.app", "secret/data/app"),
            ("env", "a.env, app/"),
            ("mount-path", "/run/$(X)"),
        ],
    );
    let line = line(&injected(&pod), "app");
    assert!(line.contains("exec --optional-env /run/$$(X)/a.env --env /run/$$(X)/app --keep PORT"), "{line}");
}

#[test]
fn p9_what_cannot_become_variables_is_denied_with_a_sentence() {
    let change = |pairs: &[(&str, &str)]| annotated(asking(), pairs);
    let field = |name: &str, value: Value| with(asking(), &format!("/spec/containers/0/{name}"), value);
    let never = with(change(&[("on-change", "restart")]), "/spec/restartPolicy", json!("Never"));
    let json_file = "- {file: app.env, from: secret/data/app, format: json}";
    for (pod, parts) in [
        (
            field("command", Value::Null),
            &["\"app\" has no command", "ENTRYPOINT", "name only others in hushpod.dev/containers"][..],
        ),
        (
            annotated(field("command", Value::Null), &[("containers", "app")]),
            &["\"app\" has no command", "leave it out of hushpod.dev/containers"],
        ),
        (field("command", json!([])), &["\"app\" has no command"]),
        (field("env", json!([{"name": "HF_TOKEN", "value": "x"}])), &["\"app\" has HF_TOKEN in env", "env.HF_TOKEN"]),
        (field("volumeMounts", json!([{"name": "cache", "mountPath": "/hushpod-bin"}])), &["hushpod's program"]),
        (field("volumeMounts", json!([{"name": "hushpod-bin", "mountPath": "/x"}])), &["leave the mount out"]),
        (with(asking(), "/spec/volumes/1", json!({"name": "hushpod-bin", "hostPath": {}})), &["\"hushpod-bin\""]),
        (with(pod(), "/spec/volumes/1", json!({"name": "hushpod-bin", "emptyDir": {}})), &["\"hushpod-bin\""]),
        (change(&[("env", "ap.env")]), &["hushpod.dev/env", "did you mean \"app.env\"?"]),
        (change(&[("env", "/secrets/app.env")]), &["hushpod.dev/env", "relative path"]),
        (change(&[("secrets", json_file)]), &["hushpod.dev/env", "format: dotenv"]),
        (change(&[("env.PATH", "a#b")]), &["hushpod.dev/env.PATH", "reserved (PATH)"]),
        (change(&[("env.LD_PRELOAD", "a#b")]), &["reserved (LD_*)"]),
        (change(&[("env.A-B", "a#b")]), &["not a variable's name"]),
        (change(&[("file..hushpod-env/PATH", "a#b")]), &["hushpod's own", "hushpod.dev/env.<NAME>"]),
        (change(&[("dir..hushpod-env", "a")]), &["hushpod's own"]),
        (
            change(&[("on-change", "reload")]),
            &["hushpod.dev/on-change", "none, restart, restart-all or signal:<SIGNAL>"],
        ),
        (change(&[("on-change-jitter", "1m")]), &["hushpod.dev/on-change-jitter", "on-change"]),
        (annotated(pod(), &[("on-change", "restart")]), &["has no effect without hushpod.dev/env"]),
        (change(&[("on-change", "restart"), ("mode", "init")]), &["hushpod.dev/on-change", "sidecar"]),
        (change(&[("on-change", "restart-all"), ("mode", "init")]), &["on-change: restart-all needs files", "sidecar"]),
        (annotated(pod(), &[("on-change", "restart-all")]), &["has no effect without hushpod.dev/env"]),
        (never, &["hushpod.dev/on-change", "restartPolicy Never"]),
    ] {
        let message = denial(&pod);
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
}

#[test]
fn p1_no_value_and_no_secret_key_ref_stands_in_the_pod() {
    let text = injected(&asking()).to_string();
    assert!(!text.contains("secretKeyRef") && !text.contains("envFrom"), "{text}");
}

#[test]
fn a_container_that_came_later_stays_without_variables() {
    let once = injected(&asking());
    for late in
        [json!({"name": "mesh", "image": "mesh"}), json!({"name": "mesh", "image": "mesh", "command": ["/mesh"]})]
    {
        assert!(decide(&with(once.clone(), "/spec/containers/1", late.clone())).patch.is_empty(), "{late}");
    }
}

#[test]
fn variables_that_an_injected_pod_asks_for_later_are_given() {
    let plain = injected(&with(pod(), "/spec/containers/0/command", json!(["/app/server"])));
    let asks = injected(&annotated(plain, &[("env.HF_TOKEN", "secret/data/hf#token")]));
    assert!(line(&asks, "app").ends_with(" -- /app/server"), "{}", line(&asks, "app"));
    assert!(has_mount(named(&asks, "containers", "app"), &bin_mount()));
}

#[test]
fn paths_are_no_variables_of_kubelets() {
    for (file, expected) in [("a$(B)", "/secrets/a$$(B) "), ("a$$b", "/secrets/a$$$$b "), ("a$b", "/secrets/a$$b ")] {
        let pod = with(pod(), "/spec/containers/0/command", json!(["/app"]));
        let secrets = json!([{"file": file, "from": "secret/data/x", "format": "dotenv"}]).to_string();
        let shown = line(&injected(&annotated(pod, &[("secrets", &secrets), ("env", file)])), "app");
        assert!(shown.contains(expected), "{shown}");
    }
}
