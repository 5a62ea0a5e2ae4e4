//! `hushpod check` as a person or a CI job runs it: what it prints, and its exit codes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const CONFIG: &str = r#"
image: i
defaultProvider: vault
providers:
  vault:
    type: vault
    address: "https://vault.example:8200"
    role: web
    allow:
      - {namespaces: [ops]}
      - {namespaceLabels: {tier: prod}, requests: ["secret/data/prod/*"]}
deny:
  - {references: ["vault:secret/data/old/*"]}
"#;

/// Literal values of files: none is ever told.
const CANARY: &str = "canary-7f3a";

/// A directory with files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn run_in(directory: &Path, words: &[&str], stdin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod"));
    command.arg("check").args(words).current_dir(directory).env_clear().env("HOME", directory);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Exit code, and what was printed.
fn check_in(directory: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = run_in(directory, words, "");
    let told = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(!told.contains(CANARY), "{words:?}: {told}");
    (output.status.code(), told)
}

fn check(config: &str, words: &[&str]) -> (Option<i32>, String) {
    let directory = directory(&[("config.yaml", config)]);
    check_in(directory.path(), &[&["--config", "config.yaml"], words].concat())
}

/// One file, and all that is told of it.
fn lines_of(text: &str) -> Vec<String> {
    let directory = directory(&[("m.yaml", text)]);
    check_in(directory.path(), &["m.yaml"]).1.lines().map(str::to_owned).collect()
}

#[test]
fn exit_codes_and_lines_say_who_may_have_what() {
    let prod = ["--as", "shop/web", "--namespace-labels", "tier=prod,team=shop", "secret/data/prod/db#password"];
    for (words, code, part) in [
        (&[][..], 0, "config.yaml:9:5: warning: providers.vault.allow: parameters"),
        (&["--as", "ops/web", "secret/data/x"], 0, "allowed: vault:secret/data/x: providers.vault.allow[0]: may be"),
        (&["--as", "ops/web", "secret/data/x", "secret/data/old/y"], 1, "refused: vault:secret/data/old/y: deny[0]: "),
        (&prod, 0, "allowed: vault:secret/data/prod/db: providers.vault.allow[1]: "),
        (&["--as", "shop/web", "secret/data/prod/db"], 1, "say them with --namespace-labels"),
        (&["--as", "shop", "secret/data/prod/db"], 2, "expected NAMESPACE/ACCOUNT"),
        (&["--as", "Shop/web", "secret/data/prod/db"], 2, "by names that Kubernetes takes"),
        (&["--as", "shop/web/x", "secret/data/prod/db"], 2, "expected NAMESPACE/ACCOUNT"),
        (&["--as", "shop/web"], 2, "REFERENCE"),
        (&["secret/data/x"], 2, "secret/data/x: cannot be read"),
        (&["--as", "ops/web", "arn:aws:x"], 2, "is read as a provider's name"),
        (&["--config", "/nonexistent/c.yaml"], 2, "cannot be used multiple times"),
        (&["-o", "xml"], 2, "sarif"),
    ] {
        let (found, told) = check(CONFIG, words);
        assert_eq!(found, Some(code), "{words:?}: {told}");
        assert!(told.contains(part), "{words:?}: {told}");
    }
}

/// The chart's values are the file that an operator has.
#[test]
fn p9_the_charts_values_are_checked_where_the_configuration_stands_in_them() {
    let config = CONFIG.replacen("\nimage: i", "", 1).replace('\n', "\n  ");
    let values = format!("replicaCount: 3\nimage: {{repository: r/h}}\nconfig:{config}\n");
    for (words, code, part) in [
        (&["--as", "ops/web", "secret/data/x"][..], 0, "allowed: vault:secret/data/x: providers.vault.allow[0]"),
        (&["--as", "ops/web", "secret/data/old/y"], 1, "refused: vault:secret/data/old/y: deny[0]: "),
        (&[], 0, ": warning: providers.vault.allow: parameters"),
    ] {
        let (found, told) = check(&values, words);
        assert!(found == Some(code) && told.contains(part), "{words:?}: {found:?}: {told}\n{values}");
    }
    let directory = directory(&[("v.yaml", &values.replacen("type: vault", "type: vualt", 1))]);
    let (code, told) = check_in(directory.path(), &["v.yaml"]);
    assert!(code == Some(1) && told.contains("configuration.config.providers.vault.type: unknown"), "{told}");
    assert!(told.lines().all(|line| !line.starts_with("v.yaml:1:1")), "{told}");
}

#[test]
fn p9_all_faults_are_told_in_text_and_json() {
    let bad = format!("{CONFIG}runtimClasses: []\ndefaults: {{mode: both}}\n");
    let (code, told) = check(&bad, &[]);
    assert_eq!(code, Some(1));
    let lines: Vec<_> = told.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("config.yaml:14:1: "), "{told}");
    assert!(lines[1].starts_with("config.yaml:15:12: ") && lines[1].contains("init+sidecar"), "{told}");
    let (code, told) = check(&bad, &["-o", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, told["faults"].as_array().map(Vec::len)), (Some(1), Some(2)), "{told}");
    let first = &told["faults"][0];
    assert_eq!((&first["file"], &first["line"], &first["column"]), (&json!("config.yaml"), &json!(14), &json!(1)));
    assert_eq!((&first["rule"], first["problem"].is_string()), (&json!("configuration"), true), "{told}");
    let (code, told) = check(CONFIG, &["-o", "json", "--as", "ops/web", "secret/data/x"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let answer = &told["answers"][0];
    assert_eq!(
        (code, &answer["allowed"], &answer["rule"]),
        (Some(0), &true.into(), &"providers.vault.allow[0]".into())
    );
}

const DEPLOYMENT: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: others}
data: {password: canary-7f3a}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
  annotations:
    hushpod.dev/file.db: secret/data/db#password
spec:
  template:
    metadata:
      annotations:
        hushpod.dev/fiel.db: secret/data/db#password
        hushpod.dev/env.TOKEN: "vault:secret/data/hf#token"
        hushpod.dev/env.1TOKEN: vault:secret/data/hf
        hushpod.dev/mode: sideways
        hushpod.dev/hold: true
        hushpod.dev/mount-path: relative
        hushpod.dev/secrets: |
          # two of them
          - {file: a, from: "db:x", format: yml}
          - {file: b, from: "db:y"}
          - {file: b, from: "db:z"}
        other.example/x: canary-7f3a
    spec:
      serviceAccountName: web
      containers:
        - name: app
          image: app
          env:
            - {name: PASSWORD, value: canary-7f3a}
            - {name: TOKEN, value: canary-7f3a}
          command: [app]
        - name: side
          image: side
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: data, mountPath: /secrets/deep}
      volumes:
        - {name: data, emptyDir: {}}
"#;

#[test]
fn p9_every_fault_of_a_manifest_is_told_where_it_stands() {
    let lines = lines_of(DEPLOYMENT);
    let expected = [
        (
            "12:5: warning: annotation hushpod.dev/file.db: stands on the Deployment",
            "spec.template.metadata.annotations",
        ),
        ("17:9: annotation hushpod.dev/fiel.db: unknown key", "did you mean \"file.db\"?"),
        ("19:9: annotation hushpod.dev/env.1TOKEN", "1TOKEN"),
        ("20:9: annotation hushpod.dev/mode: invalid mode", "init+sidecar"),
        ("21:9: annotation hushpod.dev/hold: is not text", "quotes"),
        ("22:9: annotation hushpod.dev/mount-path", "absolute path"),
        ("25:37: annotation hushpod.dev/secrets[0].format: unknown word", "did you mean \"yaml\"?"),
        ("27:13: annotation hushpod.dev/secrets[2]: ", "delivered twice"),
        ("36:15: container \"app\" has TOKEN in env", "take one of them away"),
        ("38:11: container \"side\" has no command", "add command"),
        ("42:15: container \"side\" mounts \"data\" at \"/secrets/deep\"", "mount-path"),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (start, part)) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("m.yaml:{start}")) && line.contains(part), "{start}: {lines:#?}");
    }
}

/// Whatever else is wrong: what depends on nothing that is wrong is told as well.
#[test]
fn p9_every_fault_of_a_project_is_told_at_once() {
    let text = "\
defaultProvider: vault
providers:
  vault: {type: valut, address: \"https://v\"}
  files: {type: file, path: store}
  sops: {type: file, path: a, adress: x}
variabels: {}
secrets:
  - {file: a, from: \"files:x?version=2\"}
  - {file: a/b, from: \"files:y\"}
  - {file: c, from: \"files:y\", format: jsn}
env: [none.env]
variables:
  1A: files:x
  B: secret/data/x
  C: fiels:x
  D: files:x?version=1
profiles:
  prod: {variables: {E: \"files:x?version=3\"}, env: [more.env]}
";
    let directory = directory(&[(".hushpod.yaml", text)]);
    let (code, told) = check_in(directory.path(), &[]);
    let lines: Vec<_> = told.lines().map(|line| line.strip_prefix(".hushpod.yaml:").unwrap_or(line)).collect();
    let expected = [
        ("3:", "unknown provider type"),
        ("5:", "adress"),
        ("6:1: ", "did you mean \"variables\"?"),
        ("8:", "version=2"),
        ("9:", "\"a\""),
        ("10:", "did you mean \"json\"?"),
        ("11:", "none.env"),
        ("13:3: ", "1A"),
        ("15:3: ", "unknown provider \"fiels\""),
        ("16:3: ", "version=1"),
        ("18:", "more.env"),
        ("18:", "version=3"),
    ];
    assert_eq!((code, lines.len()), (Some(1), expected.len()), "{lines:#?}");
    for (start, part) in expected {
        assert!(lines.iter().any(|line| line.starts_with(start) && line.contains(part)), "{start} {part}: {lines:#?}");
    }
}

/// In kinds that are not Kubernetes' own, and where people write annotations by mistake.
#[test]
fn p9_annotations_are_found_wherever_they_stand() {
    const POD: &str = "{metadata: {annotations: {hushpod.dev/fiel.a: x}}, spec: {containers: [{name: a}]}}";
    for (text, starts) in [
        (
            format!("kind: JobSet\nspec:\n  replicatedJobs:\n  - template: {{spec: {{template: {POD}}}}}\n"),
            &["4:59: annotation hushpod.dev/fiel.a: unknown key"][..],
        ),
        (
            format!("kind: Two\nspec:\n  leader: {POD}\n  worker:\n    template: {POD}\n"),
            &["3:37: annotation hushpod.dev/fiel.a: unknown", "5:41: annotation hushpod.dev/fiel.a: unknown"],
        ),
        (
            "kind: Workflow\nspec:\n  templates:\n  - metadata: {annotations: {hushpod.dev/mode: x, a: b}}\n".to_owned(),
            &["4:30: warning: annotation hushpod.dev/mode: stands in spec.templates[0].metadata.annotations of a Workflow, \
               and was not checked"],
        ),
        (
            "kind: Deployment\nspec:\n  template:\n    annotations:\n      hushpod.dev/mode: csi\n    spec: {}\n".to_owned(),
            &["5:7: warning: annotation hushpod.dev/mode: stands in spec.template.annotations of a Deployment, and was not \
               checked: pods have theirs in spec.template.metadata.annotations"],
        ),
        (
            "kind: Pod\nmetadata:\n  labels:\n    hushpod.dev/file.a: x\n    hushpod.dev/injection: on\n    hushpod.dev/env: a\n"
                .to_owned(),
            &["4:5: warning: label hushpod.dev/file.a: is an annotation", "6:5: warning: label hushpod.dev/env: is an"],
        ),
    ] {
        let mut lines = lines_of(&text);
        lines.retain(|line| !line.ends_with("nothing is wrong"));
        assert_eq!(lines.len(), starts.len(), "{text}{lines:#?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(&format!("m.yaml:{start}")), "{text}{lines:#?}");
        }
    }
}

/// A pod with these annotations and fields of its spec.
fn pod(annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n  annotations:\n{annotations}spec:\n  containers:\n  \
         - {{name: app, command: [app]}}\n{spec}"
    )
}

#[test]
fn p9_what_stands_in_a_pods_way_is_found_without_a_cluster() {
    const FILE: &str = "    hushpod.dev/file.db: secret/data/db#password\n";
    let with = |more: &str| format!("{FILE}    {more}\n");
    for (annotations, spec, starts) in [
        (FILE.to_owned(), "", &[][..]),
        (with("hushpod.dev/inject: 'false'"), "  hostUsers: x\n", &[]),
        (with("hushpod.dev/inject: 'no'"), "", &["7:5: annotation hushpod.dev/inject"]),
        (FILE.to_owned(), "  os: {name: windows}\n", &["10:3: Windows pods"]),
        (with("hushpod.dev/containers: ap"), "", &["7:5: annotation hushpod.dev/containers: the pod has no container"]),
        (with("hushpod.dev/init-order: after:app"), "", &["7:5: annotation hushpod.dev/init-order"]),
        (with("hushpod.dev/notify: signal:HUP:nginx"), "", &["7:5: annotation hushpod.dev/notify: to signal"]),
        (with("hushpod.dev/on-change: restart"), "", &["7:5: annotation hushpod.dev/on-change: has no effect"]),
        (
            with("hushpod.dev/env.A: x#a\n    hushpod.dev/on-change: restart"),
            "  restartPolicy: Never\n",
            &["8:5: annotation hushpod.dev/on-change: restart with restartPolicy Never"],
        ),
        (
            with("hushpod.dev/mode: csi\n    hushpod.dev/metrics-port: '9000'"),
            "  os: {name: windows}\n",
            &["8:5: annotation hushpod.dev/metrics-port", "12:3: Windows pods"],
        ),
        (
            with("hushpod.dev/mode: csi\n    hushpod.dev/init-order: last"),
            "  - name: second\n    volumeMounts: [{name: data, mountPath: /secrets/}]\n  volumes: [{name: data, emptyDir: {}}]\n",
            &[
                "8:5: warning: hushpod.dev/init-order: comes to nothing in mode csi",
                "13:20: container \"second\" mounts \"data\" at \"/secrets/\", where the secrets go",
            ],
        ),
        (FILE.to_owned(), "  - {name: app}\n", &["10:5: the pod has two containers"]),
        (FILE.to_owned(), "  volumes: [{name: hushpod-x}]\n", &["10:13: volume name \"hushpod-x\""]),
        (FILE.to_owned(), "  runtimeClassName: kata\n", &[]),
        ("    hushpod.dev/mode: init\n".to_owned(), "", &["5:3: annotation hushpod.dev/secrets: nothing to deliver"]),
        (
            "    hushpod.dev/file.a: 'no one:x'\n    hushpod.dev/file.b: '#'\n".to_owned(),
            "",
            &["6:5: annotation hushpod.dev/file.a", "7:5: annotation hushpod.dev/file.b"],
        ),
        (with("hushpod.dev/provider: nobody-knows\n    hushpod.dev/role.other: x"), "", &[]),
    ] {
        let lines = lines_of(&pod(&annotations, spec));
        let faults: Vec<_> = lines.iter().filter(|line| !line.contains("nothing is wrong")).collect();
        assert_eq!(faults.len(), starts.len(), "{annotations}{spec}: {lines:#?}");
        for (line, start) in faults.iter().zip(starts) {
            assert!(line.starts_with(&format!("m.yaml:{start}")), "{start}: {lines:#?}");
        }
    }
}

#[test]
fn every_kind_with_pods_is_looked_at_and_lists_too() {
    let template = "{metadata: {annotations: {hushpod.dev/fiel.a: x}}, spec: {containers: [{name: a}]}}";
    let kinds = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "Rollout"];
    let of_kind = |kind: &&str| format!("---\n{{apiVersion: x, kind: {kind}, spec: {{template: {template}}}}}\n");
    let mut documents: Vec<_> = kinds.iter().map(of_kind).collect();
    documents.extend([
        format!("---\n{{kind: CronJob, spec: {{jobTemplate: {{spec: {{template: {template}}}}}}}}}\n"),
        format!("---\n{{kind: PodTemplate, template: {template}}}\n---\n---\n"),
        format!("kind: List\nitems:\n- kind: Service\n- kind: Job\n  spec:\n    template: {template}\n"),
    ]);
    let text = documents.concat();
    let lines = lines_of(&text);
    assert_eq!(lines.len(), 10, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("did you mean \"file.a\"?")), "{lines:#?}");
    assert!(lines[9].starts_with("m.yaml:26:41: "), "{lines:#?}");
    let service = lines_of("kind: Service\nmetadata: {annotations: {hushpod.dev/file.a: x}}\n");
    assert!(service[0].starts_with("m.yaml:2:26: warning: ") && service[0].contains("makes no pods"), "{service:?}");
}

#[test]
fn p6_the_operators_stores_and_rules_count_where_they_are_given() {
    let prod = pod("    hushpod.dev/file.db: secret/data/prod/db#password\n", "")
        .replace("name: x", "name: x\n  namespace: shop");
    let files = [
        ("config.yaml", CONFIG),
        ("k8s/prod.yaml", &prod),
        ("k8s/typo.yaml", &pod("    hushpod.dev/file.db: valut:secret/data/x\n    hushpod.dev/file.b: secret\n", "")),
        (
            "k8s/old.yaml",
            &pod("    hushpod.dev/file.db: secret/data/old/x\n", "").replace("name: x", "name: x\n  namespace: ops"),
        ),
    ];
    let directory = directory(&files);
    let of = |words: &[&str]| {
        let (code, told) = check_in(directory.path(), &[&["k8s", "--config", "config.yaml"], words].concat());
        let lines: Vec<_> = told.lines().filter(|line| line.starts_with("k8s/")).map(str::to_owned).collect();
        (code, lines)
    };
    let (code, lines) = of(&[]);
    assert_eq!((code, lines.len()), (Some(1), 4), "{lines:#?}");
    assert!(lines[0].starts_with("k8s/old.yaml:7:5: ") && lines[0].contains("deny[0]"), "{lines:#?}");
    assert!(lines[1].starts_with("k8s/prod.yaml:7:5: warning: "), "labels that nobody said may be right: {lines:#?}");
    assert!(lines[2].starts_with("k8s/typo.yaml:6:5: ") && lines[2].contains("did you mean \"vault\"?"), "{lines:#?}");
    assert!(lines[3].starts_with("k8s/typo.yaml:7:5: "), "{lines:#?}");
    let (_, lines) = of(&["--namespace-labels", "tier=prod"]);
    assert!(!lines.iter().any(|line| line.contains("prod.yaml")), "{lines:#?}");
    let (_, lines) = of(&["--namespace-labels", "tier=dev"]);
    assert!(lines[1].starts_with("k8s/prod.yaml:7:5: hushpod.dev/file.db"), "{lines:#?}");
    fs::write(directory.path().join("k8s/ns.yaml"), "kind: Namespace\nmetadata: {name: shop, labels: {tier: prod}}\n")
        .unwrap();
    let (_, lines) = of(&[]);
    assert!(!lines.iter().any(|line| line.contains("prod.yaml")), "a manifest says the labels: {lines:#?}");
    let (_, told) = check_in(directory.path(), &["k8s"]);
    assert!(told.contains("3 files, 3 pods") && told.contains("nothing is wrong"), "stores are not judged: {told}");
}

#[test]
fn files_are_known_by_what_they_are() {
    let fault = pod("    hushpod.dev/fiel.db: x\n", "");
    let directory = directory(&[
        ("a/web.yaml", &fault),
        ("a/web.yml", &fault),
        ("a/web.json", &json!({"kind": "Pod", "metadata": {"annotations": {"hushpod.dev/x": "y"}}}).to_string()),
        ("a/web.txt", &fault),
        ("a/.hidden/web.yaml", &fault),
        ("a/compose.yaml", "services: {web: {image: canary-7f3a}}\n"),
        ("a/broken.yaml", "a: [canary-7f3a\n"),
        ("a/broken-ours.yaml", "a: [canary-7f3a # hushpod.dev/\n"),
        ("a/templates/web.yaml", "{{ if x }}\nkind: Pod # hushpod.dev/\n{{ end }}\n"),
        ("a/operator.yaml", "image: i\nproviders: {v: {type: vualt}}\n"),
        ("a/.hushpod.yaml", "variabels: {}\nvariables: {1A: x}\n"),
        ("a/values.yaml", "image: {tag: canary-7f3a}\nproviders: [canary-7f3a]\n"),
    ]);
    let (code, told) = check_in(directory.path(), &[]);
    let starts: Vec<_> = told.lines().map(|line| line.splitn(4, ':').take(3).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(
        starts,
        [
            "a/.hushpod.yaml:1:1",
            "a/.hushpod.yaml:2:13",
            "a/broken-ours.yaml:1:4",
            "a/operator.yaml:2:13",
            "a/operator.yaml:2:17",
            "a/templates/web.yaml:1:1",
            "a/web.json:1:42",
            "a/web.yaml:6:5",
            "a/web.yml:6:5",
        ],
        "{told}"
    );
    for (file, code, part) in [
        ("a/compose.yaml", 0, "warning: not looked into: expected"),
        ("a/broken.yaml", 1, "is not YAML"),
        ("a/templates/web.yaml", 0, "helm template"),
        ("a/none.yaml", 2, "a/none.yaml: cannot be read"),
    ] {
        let (found, told) = check_in(directory.path(), &[file]);
        assert!(found == Some(code) && told.contains(part), "{file}: {found:?}: {told}");
    }
    let output = run_in(directory.path(), &["-"], &fault);
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("stdin:6:5: annotation "), "{:?}", output.status);
    let output = run_in(directory.path(), &["--error-format", "json", "a/none.yaml"], "");
    let told: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&told["code"], output.status.code()), (&json!("usage"), Some(2)));
}

#[test]
fn machines_read_the_same_findings() {
    let directory = directory(&[("k8s/web.yaml", DEPLOYMENT)]);
    let stdout = |format: &str| {
        let output = run_in(directory.path(), &["k8s", "-o", format], "");
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(!told.contains(CANARY), "{told}");
        told
    };
    let text = stdout("text");
    let github = stdout("github");
    assert_eq!(github.lines().count(), text.lines().count());
    assert!(github.starts_with("::warning file=k8s/web.yaml,line=12,col=5,title=hushpod%3A misplaced::annotation "));
    let sarif = stdout("sarif");
    // For tests/readers, which hold it against the published schema.
    if let Some(directory) = std::env::var_os("HUSHPOD_READERS").map(PathBuf::from) {
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("check.sarif"), &sarif).unwrap();
    }
    let sarif: Value = serde_json::from_str(&sarif).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), text.lines().count());
    assert_eq!(results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "k8s/web.yaml");
    let json: Value = serde_json::from_str(&stdout("json")).unwrap();
    let count = |field: &str| json[field].as_array().map(Vec::len);
    assert_eq!((count("faults"), count("warnings"), &json["pods"]), (Some(10), Some(1), &json!(1)), "{json}");
}

const PROJECT: &str = "\
defaultProvider: files
providers:
  files: {type: file, path: store}
secrets:
  - {file: app.env, from: db.yaml, format: dotenv}
env: [app.env]
variables:
  TOKEN: token
  MAY: {from: none, optional: true}
";

#[test]
fn p9_all_that_is_wrong_with_a_project_is_told_in_every_profile() {
    for (text, starts) in [
        (PROJECT.to_owned(), &[][..]),
        (
            format!("{PROJECT}  1B: x\n  C: {{form: x}}\nenvs: []\nprofiles: {{prod: {{env: [5]}}, x: 1}}\n"),
            &[
                "10:3: \"1B\"",
                "11:7: unknown field",
                "12:1: unknown field",
                "13:25: is not a name",
                "13:30: has no fields",
            ][..],
        ),
        (
            format!("{PROJECT}profiles: {{prod: {{providers: {{files: {{path: 5}}}}}}}}\n"),
            &["10:39: providers.files.path: is not text"],
        ),
        (format!("{PROJECT}  B: nobody:x\n"), &["10:3: warning: \"nobody:x\": unknown provider"]),
        (PROJECT.replace("env: [app.env]", "env: [ap.env]"), &["6:1: unknown file \"ap.env\""]),
        (PROJECT.replace("type: file", "type: flie"), &["3:11: providers.files.type: unknown provider type"]),
    ] {
        let directory = directory(&[(".hushpod.yaml", &text)]);
        let (code, told) = check_in(directory.path(), &[".hushpod.yaml"]);
        let lines: Vec<_> = told.lines().filter(|line| !line.contains("nothing is wrong")).collect();
        assert_eq!(lines.len(), starts.len(), "{text}: {told}");
        assert_eq!(code == Some(0), lines.iter().all(|line| line.contains("warning: ")), "{told}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(&format!(".hushpod.yaml:{start}")), "{start}: {told}");
        }
    }
}

/// Relative to the file that it stands in, and not told again at the project's.
#[test]
fn p9_what_is_wrong_with_what_is_laid_over_a_project_is_told_where_it_stands() {
    for (local, starts) in [
        ("env: [nope]\nproviders:\n  f: {type: nope}\n", &["1:1: unknown file", "3:7: providers.f.type"][..]),
        ("variables:\n  A: token\n  B: files:token?version=1\n", &["3:3: "]),
        ("variables:\n  TOKEN: nobody:x\n", &["2:3: warning: \"nobody:x\": unknown provider"]),
        ("providers:\n  files:\n    path: 5\n", &["3:5: providers.files.path"]),
    ] {
        let directory = directory(&[(".hushpod.yaml", PROJECT), (".hushpod.local.yaml", local)]);
        for words in [&[][..], &[".hushpod.yaml"]] {
            let (_, told) = check_in(directory.path(), words);
            let lines: Vec<_> = told.lines().filter(|line| !line.contains("nothing is wrong")).collect();
            assert_eq!(lines.len(), starts.len(), "{local}{words:?}: {told}");
            for (line, start) in lines.iter().zip(starts) {
                assert!(line.starts_with(&format!(".hushpod.local.yaml:{start}")), "{start}: {told}");
            }
        }
    }
}

#[test]
fn live_tells_keys_that_are_left_out_and_a_missing_login_is_no_fault_of_the_file() {
    let project = "providers:\n  files: {type: file, path: store}\nsecrets:\n  - {dir: d, from: 'files:keys.yaml', decode: base64}\n";
    let keys = format!("GOOD: aGk=\nBAD: '!{CANARY}'\nWORSE: '!'\n");
    let of_files = directory(&[(".hushpod.yaml", project), ("store/keys.yaml", &keys)]);
    let (code, told) = check_in(of_files.path(), &["--live", ".hushpod.yaml"]);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!((code, lines.len()), (Some(1), 2), "{told}");
    for (line, key) in lines.iter().zip(["BAD", "WORSE"]) {
        assert!(line.starts_with(&format!(".hushpod.yaml:4:5: d: key \"{key}\" is not base64")), "{told}");
    }
    let output = run_in(of_files.path(), &["--live", "-"], project);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && told.starts_with("stdin:4:5: d: "), "a pipe is read once: {output:?}");

    let own = "providers: {v: {type: vault, address: 'https://127.0.0.1:1'}}\n";
    let project = "defaultProvider: v\nvariables: {A: x/data/y#z}\n";
    let of_vault = directory(&[(".hushpod.yaml", project), (".config/hushpod/config.yaml", own)]);
    let (code, told) = check_in(of_vault.path(), &["--live", ".hushpod.yaml"]);
    assert!(code == Some(4) && told.contains("there is no Vault token"), "{code:?} {told}");
}

#[test]
fn p5_live_says_what_is_missing_and_shows_no_value() {
    let web = pod(
        "    hushpod.dev/file.a: files:token\n    hushpod.dev/file.b: files:nothing\n    hushpod.dev/secrets: |\n      \
         - {file: c, from: 'files:db.yaml#PASSWORD'}\n      - {file: d, from: 'files:db.yaml#none'}\n",
        "",
    );
    let store = format!("PASSWORD: {CANARY}\n");
    let directory = directory(&[
        (".hushpod.yaml", &format!("{PROJECT}  B: gone\n")),
        ("store/db.yaml", &store),
        ("store/token", CANARY),
        ("web.yaml", &web),
    ]);
    let (code, told) = check_in(directory.path(), &["--live", ".hushpod.yaml", "web.yaml"]);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!((code, lines.len()), (Some(1), 3), "{told}");
    assert!(lines[0].starts_with(".hushpod.yaml:10:3: B: ") && lines[0].contains("files:gone"), "{told}");
    assert!(lines[1].starts_with("web.yaml:7:5: b: ") && lines[1].contains("files:nothing"), "{told}");
    assert!(lines[2].starts_with("web.yaml:10:9: d: ") && lines[2].contains("no key"), "{told}");
    let (code, told) = check_in(directory.path(), &["web.yaml"]);
    assert_eq!(code, Some(0), "nobody is asked without --live: {told}");
    fs::write(directory.path().join(".hushpod.yaml"), "defaultProvider: v\nproviders: {v: {type: vault, address: 'https://127.0.0.1:1'}}\nvariables: {A: x/data/y#z}\n").unwrap();
    let (code, told) = check_in(directory.path(), &["--live", ".hushpod.yaml"]);
    assert!(code == Some(1) && told.contains("not trusted"), "an address of a repository gets no login: {told}");
}
