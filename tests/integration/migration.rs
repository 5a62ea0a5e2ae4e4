//! deploy/migrate.md: what it says to write instead is admitted, makes the files that it says, and leaves nothing out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hushpod::annotations::KEYS;
use hushpod::contract::PREFIX;
use serde_json::{Value, json};

use crate::pages::CONFIG;
use crate::readme::page;
use crate::webhook::{admitted, patched};

const PAGE: &str = "deploy/migrate.md";

/// What others' annotations begin with.
const THEIRS: [&str; 3] = ["vault.hashicorp.com/", "org.infisical.com/", "secrets.infisical.com/"];

/// Every key of vault-k8s 1.7.6, without its prefix; `-NAME` stands for what the tenant calls a thing.
const VAULT_K8S: [&str; 75] = [
    "agent-auto-auth-exit-on-err",
    "agent-cache-enable",
    "agent-cache-exit-on-err",
    "agent-cache-listener-port",
    "agent-cache-use-auto-auth-token",
    "agent-configmap",
    "agent-copy-volume-mounts",
    "agent-disable-idle-connections",
    "agent-disable-keep-alives",
    "agent-enable-quit",
    "agent-extra-secret",
    "agent-image",
    "agent-init-first",
    "agent-init-json-patch",
    "agent-inject",
    "agent-inject-command-NAME",
    "agent-inject-containers",
    "agent-inject-default-template",
    "agent-inject-file-NAME",
    "agent-inject-perms-NAME",
    "agent-inject-secret-NAME",
    "agent-inject-status",
    "agent-inject-template-NAME",
    "agent-inject-template-file-NAME",
    "agent-inject-token",
    "agent-json-patch",
    "agent-limits-cpu",
    "agent-limits-ephemeral",
    "agent-limits-mem",
    "agent-pre-populate",
    "agent-pre-populate-only",
    "agent-request-namespace",
    "agent-requests-cpu",
    "agent-requests-ephemeral",
    "agent-requests-mem",
    "agent-revoke-grace",
    "agent-revoke-on-shutdown",
    "agent-run-as-group",
    "agent-run-as-same-user",
    "agent-run-as-user",
    "agent-service-account-token-volume-name",
    "agent-set-security-context",
    "agent-share-process-namespace",
    "agent-telemetry-NAME",
    "agent-template-left-delim-NAME",
    "agent-template-right-delim-NAME",
    "auth-config-NAME",
    "auth-max-backoff",
    "auth-min-backoff",
    "auth-path",
    "auth-type",
    "ca-cert",
    "ca-key",
    "client-cert",
    "client-key",
    "client-max-retries",
    "client-timeout",
    "error-on-missing-key-NAME",
    "go-max-procs",
    "log-format",
    "log-level",
    "vault.hashicorp.com/namespace",
    "preserve-secret-case",
    "proxy-address",
    "vault.hashicorp.com/role",
    "secret-volume-path",
    "secret-volume-path-NAME",
    "vault.hashicorp.com/service",
    "template-config-exit-on-retry-failure",
    "template-lease-renewal-threshold",
    "template-max-connections-per-host",
    "template-static-secret-render-interval",
    "tls-secret",
    "tls-server-name",
    "tls-skip-verify",
];

/// Values that the stores of a person's machine have below the page's paths.
const STORE: [(&str, &str); 5] = [
    ("secret/data/shop/db/user", "web"),
    ("secret/data/shop/db/password", "a b"),
    ("secret/data/shop/db/port", "5432"),
    ("backend/TOKEN", "t-1"),
    ("backend/URL", "https://shop.example"),
];

/// Blocks of a language, each with the page's heading above it.
fn blocks(language: &str) -> Vec<(String, String)> {
    let (mut heading, mut open, mut found) = (String::new(), None::<String>, Vec::new());
    for line in page(PAGE).lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) if info == language => open = Some(String::new()),
            (None, Some(_)) => open = None,
            (Some(_), Some(_)) => found.extend(open.take().map(|text| (heading.clone(), text))),
            (Some(text), None) => text.extend([line, "\n"]),
            (None, None) => {
                if let Some(title) = line.strip_prefix("## ") {
                    title.clone_into(&mut heading);
                }
            }
        }
    }
    found
}

/// A diff's file before (`-`) or after (`+`).
fn side(diff: &str, sign: char) -> String {
    let lines = diff.lines().filter(|line| line.is_empty() || line.starts_with([' ', sign]));
    lines.flat_map(|line| [line.get(1..).unwrap_or_default(), "\n"]).collect()
}

fn hushpod(directory: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod"));
    command.args(words).current_dir(directory).env_clear().env("HOME", directory);
    command.output().unwrap()
}

/// A project whose stores are files, by the names that the page's references have.
fn machine() -> tempfile::TempDir {
    let machine = tempfile::tempdir().unwrap();
    for (path, value) in STORE {
        let path = machine.path().join("store").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }
    let project = "providers:\n  vault: {type: file, path: store}\n  infisical: {type: file, path: store}\n";
    fs::write(machine.path().join(".hushpod.yaml"), project).unwrap();
    fs::write(machine.path().join("config.yaml"), CONFIG).unwrap();
    machine
}

/// The pod of a manifest.
fn pod_of(manifest: &Value) -> Value {
    let template = manifest.pointer("/spec/template").unwrap_or(manifest);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]})
}

#[test]
fn what_the_page_of_moving_says_to_write_is_admitted_and_makes_its_files() {
    let files: [(&str, &[(&str, &str)]); 4] = [
        (
            "From the Vault Agent Injector",
            &[("db-password", "a b"), ("app.conf", "[database]\nuser = web\nport = 5432\n")],
        ),
        ("From the Infisical Agent Injector", &[("app.env", "TOKEN=t-1\nURL=https://shop.example\n")]),
        ("From the Infisical operator", &[("backend/TOKEN", "t-1"), ("backend/URL", "https://shop.example")]),
        ("From External Secrets", &[("app.yaml", "database: \"postgres://web@db:5432/shop\"\n")]),
    ];
    let diffs = blocks("diff");
    let told: Vec<_> = diffs.iter().map(|(heading, _)| heading.as_str()).collect();
    assert_eq!(told, files.iter().map(|(heading, _)| *heading).collect::<Vec<_>>());
    for ((heading, diff), (_, files)) in diffs.iter().zip(files) {
        let machine = machine();
        let (before, after) = (side(diff, '-'), side(diff, '+'));
        let read = |text: &str| -> Value {
            serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{heading}: {error}:\n{text}"))
        };
        assert!(!before.contains(PREFIX), "{heading}: {before}");
        assert!(THEIRS.iter().all(|theirs| !after.contains(theirs)) && !after.contains("secretKeyRef"), "{after}");
        assert_eq!(admitted(CONFIG, &pod_of(&read(&before))), (None, false), "{heading}: before it asks for nothing");
        assert_eq!(admitted(CONFIG, &pod_of(&read(&after))), (None, true), "{heading}");

        fs::write(machine.path().join("after.yaml"), &after).unwrap();
        let checked = hushpod(machine.path(), &["check", "--config", "config.yaml", "after.yaml"]);
        let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && said.contains("1 pod") && !said.contains("warning"), "{heading}: {said}");

        // Paths of files begin at their store.
        fs::write(machine.path().join("after.yaml"), after.replace("infisical:/", "infisical:")).unwrap();
        let rendered = hushpod(machine.path(), &["render", "-f", "after.yaml", "--dir", "out"]);
        assert!(rendered.status.success(), "{heading}: {rendered:?}");
        for (file, text) in files {
            let made = fs::read_to_string(machine.path().join("out").join(file));
            assert_eq!(made.ok().as_deref(), Some(*text), "{heading}: {file}");
        }
    }
}

#[test]
fn each_template_of_the_page_of_moving_makes_what_stands_beside_it() {
    let (_, rest) = page(PAGE)
        .split_once("<!-- templates: tested by tests/integration/migration.rs -->\n```text\n")
        .map(|(before, rest)| (before.to_owned(), rest.to_owned()))
        .unwrap();
    let table = rest.split("\n```").next().unwrap();
    let cases: Vec<_> = table.split("\n\n").collect();
    assert!(cases.len() >= 10, "{table}");
    let item = |template: &str| {
        let items = json!([{"file": "made", "from": {"db": "vault:secret/data/shop/db"}, "template": template}]);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "annotations": {"hushpod.dev/secrets": items.to_string()}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        })
        .to_string()
    };
    for case in cases {
        let words = ["there  ", "here   ", "makes  "];
        let lines: Vec<_> = case
            .lines()
            .zip(words)
            .map(|(line, word)| line.strip_prefix(word).unwrap_or_else(|| panic!("{case}")))
            .collect();
        let [there, here, makes] = lines[..] else { panic!("{case}") };
        let machine = machine();
        fs::write(machine.path().join("there.json"), item(there)).unwrap();
        let refused = hushpod(machine.path(), &["check", "there.json"]);
        let sentence = String::from_utf8_lossy(&refused.stdout);
        assert!(sentence.contains("is Go's template syntax"), "{there}: {refused:?}");
        fs::write(machine.path().join("here.json"), item(here)).unwrap();
        let rendered = hushpod(machine.path(), &["render", "-f", "here.json", "--dir", "out"]);
        assert!(rendered.status.success(), "{here}: {rendered:?}");
        assert_eq!(fs::read_to_string(machine.path().join("out/made")).unwrap(), makes, "{here}");
    }
}

#[test]
fn the_page_of_moving_leaves_no_annotation_of_vault_k8s_out() {
    let text = page(PAGE);
    let (_, rest) = text.split_once("\n| `vault.hashicorp.com/…` | here |\n").unwrap();
    let rows = rest.split("\n\n").next().unwrap();
    let firsts = rows.lines().skip(1).map(|row| row.split('|').nth(1).unwrap());
    let known: BTreeSet<_> = firsts.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let all = BTreeSet::from(VAULT_K8S);
    assert_eq!(all.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "left out");
    assert_eq!(known.difference(&all).collect::<Vec<_>>(), [&"auth-config-role"], "not vault-k8s's");
}

#[test]
fn the_page_of_moving_names_no_annotation_that_is_not_ours() {
    let text = page(PAGE);
    let names = text.split(PREFIX).skip(1).map(|rest| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        rest.split(|c| !is_part(c)).next().unwrap()
    });
    for name in names.filter(|name| !name.is_empty()) {
        let is_known = |key: &str| key == name || key.ends_with('.') && name.starts_with(key);
        assert!(KEYS.iter().any(|key| is_known(key.name)), "{PAGE}: {PREFIX}{name}");
    }
}

/// What vault-k8s and Infisical's injector make of a pod: an init container, a sidecar, and their volumes in all
/// containers of the pod's own and in all other init containers, ours among them.
fn grown(pod: &Value, (init, sidecar): (&str, &str), is_first: bool) -> Value {
    let mut pod = pod.clone();
    let spec = pod["spec"].as_object_mut().unwrap();
    let mount = json!({"name": "theirs", "mountPath": "/theirs"});
    let agent = |name: &str| {
        let context = json!({"runAsUser": 100, "runAsGroup": 1000});
        json!({"name": name, "image": "agent", "command": ["/bin/sh", "-ec"], "securityContext": context, "volumeMounts": [&mount]})
    };
    for list in ["initContainers", "containers"] {
        for container in spec.entry(list).or_insert(json!([])).as_array_mut().unwrap() {
            let mounts = container.as_object_mut().unwrap().entry("volumeMounts").or_insert(json!([]));
            mounts.as_array_mut().unwrap().push(mount.clone());
        }
    }
    let inits = spec["initContainers"].as_array_mut().unwrap();
    inits.insert(if is_first { 0 } else { inits.len() }, agent(init));
    spec["containers"].as_array_mut().unwrap().push(agent(sidecar));
    spec.entry("volumes").or_insert(json!([])).as_array_mut().unwrap().push(json!({"name": "theirs", "emptyDir": {}}));
    pod
}

fn named<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["initContainers", "containers"].into_iter().flat_map(|list| pod["spec"][list].as_array().unwrap());
    lists.into_iter().find(|container| container["name"] == name).unwrap()
}

#[test]
fn p6_two_injectors_serve_one_pod_and_neither_gets_the_others_files() {
    let asks = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "annotations": {
            "hushpod.dev/file.db-password": "vault:secret/data/shop/db#password",
        }},
        "spec": {
            "serviceAccountName": "web",
            "containers": [{"name": "app", "image": "app", "securityContext": {"runAsUser": 1000, "runAsNonRoot": true}}],
        },
    });
    for theirs in [("vault-agent-init", "vault-agent"), ("infisical-agent-init", "infisical-agent")] {
        for is_first in [false, true] {
            let ours = patched(CONFIG, &asks);
            let last = patched(CONFIG, &grown(&ours, theirs, is_first));
            let others_first = patched(CONFIG, &grown(&asks, theirs, is_first));
            for pod in [&last, &others_first] {
                assert_eq!(
                    named(pod, "hushpod")["volumeMounts"],
                    named(&ours, "hushpod")["volumeMounts"],
                    "{theirs:?}"
                );
                assert_eq!(named(pod, "hushpod")["securityContext"]["runAsUser"], 1000, "{theirs:?}");
                for name in [theirs.0, theirs.1] {
                    assert!(!named(pod, name).to_string().contains("hushpod"), "{theirs:?}: {pod}");
                }
                let paths: Vec<_> =
                    named(pod, "app")["volumeMounts"].as_array().unwrap().iter().map(|m| &m["mountPath"]).collect();
                assert!(
                    paths.contains(&&json!("/secrets")) && paths.contains(&&json!("/theirs")),
                    "{theirs:?}: {paths:?}"
                );
                assert_eq!(patched(CONFIG, pod), *pod, "{theirs:?}: asked again it changes nothing");
            }
        }
    }
}
