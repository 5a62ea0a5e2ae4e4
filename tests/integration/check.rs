//! `hushpod check` as a person or a CI job runs it: what it prints, and its exit codes.

use std::fs;
use std::process::Command;

use serde_json::Value;

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

/// Exit code, and what was printed.
fn check(config: &str, words: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    fs::write(&file, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hushpod"))
        .args(["check", "--config"])
        .arg(&file)
        .args(words)
        .env_clear()
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), told.replace(&format!("{}/", directory.path().display()), ""))
}

#[test]
fn exit_codes_and_lines_say_who_may_have_what() {
    let prod = ["--as", "shop/web", "--namespace-labels", "tier=prod,team=shop", "secret/data/prod/db#password"];
    for (words, code, part) in [
        (&[][..], 0, "config.yaml: warning: providers.vault.allow: parameters"),
        (&["--as", "ops/web", "secret/data/x"], 0, "allowed: vault:secret/data/x: providers.vault.allow[0]: may be"),
        (&["--as", "ops/web", "secret/data/x", "secret/data/old/y"], 1, "refused: vault:secret/data/old/y: deny[0]: "),
        (&prod, 0, "allowed: vault:secret/data/prod/db: providers.vault.allow[1]: "),
        (&["--as", "shop/web", "secret/data/prod/db"], 1, "say them with --namespace-labels"),
        (&["--as", "shop", "secret/data/prod/db"], 2, "expected NAMESPACE/ACCOUNT"),
        (&["--as", "shop/web"], 2, "REFERENCE"),
        (&["secret/data/x"], 2, "--as"),
        (&["--as", "ops/web", "arn:aws:x"], 2, "is read as a provider's name"),
        (&["--config", "/nonexistent/c.yaml"], 2, "cannot be used multiple times"),
    ] {
        let (found, told) = check(CONFIG, words);
        assert_eq!(found, Some(code), "{words:?}: {told}");
        assert!(told.contains(part), "{words:?}: {told}");
    }
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
    let (code, told) = check(CONFIG, &["-o", "json", "--as", "ops/web", "secret/data/x"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let answer = &told["answers"][0];
    assert_eq!(
        (code, &answer["allowed"], &answer["rule"]),
        (Some(0), &true.into(), &"providers.vault.allow[0]".into())
    );
}
