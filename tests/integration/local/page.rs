//! The page for laptops, line by line as it is written, with a Vault, and with files in its place, and stand-ins for the
//! programs that it names.
//!
//! Against a real Vault: see `contract/vault.rs`. It is given the page's secrets below `secret`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use serde_json::{Value, json};

use super::stores::{empty_vault, post_to};
use super::{CANARY, Machine, text};
use crate::fakes::vault::ROOT;

/// What the page's manifest is.
const WEB: &str = "\
kind: Deployment
metadata: {name: web}
spec:
  template:
    metadata:
      annotations:
        hushpod.dev/provider: vault
        hushpod.dev/role.vault: web
        hushpod.dev/env.DB_PASSWORD: secret/data/db#password
    spec:
      containers: [{name: app, image: app, command: [app]}]
";
/// Programs that the page gives its secrets to, and what each is to see.
const PROGRAMS: [(&str, &str); 4] = [
    ("npm", "test \"$1\" = start && echo \"$HF_TOKEN $password\" >\"$SEEN\""),
    ("python", "test \"$1\" = app.py && echo \"$DB_PASSWORD\" >\"$SEEN\""),
    ("nginx", "test \"$2\" = 'daemon off;' && cat \"$HUSHPOD_FILES/app.env\" >\"$SEEN\""),
    ("psql-login", "cat >\"$SEEN\""),
];

/// A block of the page that begins so.
fn block(page: &str, start: &str) -> String {
    let (_, rest) = page.split_once(start).unwrap_or_else(|| panic!("the page has no block {start:?}"));
    rest.split("```").next().unwrap().trim_start_matches('\n').to_owned()
}

/// Not in the way of the fake, which answers in this thread.
async fn shell(machine: &Machine, root: &str, line: &str) -> Output {
    let home = machine.directory.path();
    let mut command = Command::new("sh");
    command.args(["-euc", line]).current_dir(machine.project()).stdin(Stdio::null()).env_clear();
    command.env("PATH", format!("{}:/usr/bin:/bin", home.join("bin").display())).env("HOME", home);
    command.env("XDG_RUNTIME_DIR", home.join("run")).env("VAULT_TOKEN", root).env("SEEN", home.join("seen"));
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The page's secrets: path below `secret/data`, key, value.
const SECRETS: [(&str, &str, &str); 4] = [
    ("db", "password", "canary-5d1e-db"),
    ("mail", "user", "mailer"),
    ("hf", "token", "canary-5d1e-hf"),
    ("prod/hf", "token", "canary-5d1e-prod"),
];

/// Writes them to a Vault, and follows the page with it.
async fn follow_with_vault(address: &str, ca: Option<&str>, root: &str) {
    for (path, key, value) in SECRETS {
        let body = json!({"data": {key: value}});
        post_to((address, ca, root), &format!("v1/secret/data/{path}"), &body).await;
    }
    follow(&json!({"type": "vault", "address": address, "ca": ca}), root).await;
}

#[tokio::test]
async fn p5_the_page_works_line_by_line() {
    let vault = empty_vault().await;
    follow_with_vault(&vault.url(), Some(&vault.certificates.ca), ROOT).await;
}

#[tokio::test]
#[ignore = "wants a server: .ci/run contract starts it"]
async fn the_page_keeps_its_contract_with_a_real_vault() {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let address = variable("HUSHPOD_CONTRACT_VAULT").expect("HUSHPOD_CONTRACT_VAULT: a Vault's address");
    let root = variable("HUSHPOD_CONTRACT_VAULT_TOKEN").expect("HUSHPOD_CONTRACT_VAULT_TOKEN: its root's token");
    let ca = variable("HUSHPOD_CONTRACT_VAULT_CACERT").map(|file| fs::read_to_string(file).unwrap());
    follow_with_vault(&address, ca.as_deref(), &root).await;
}

#[tokio::test]
async fn the_page_works_with_files_in_the_vaults_place() {
    follow(&json!({"type": "file", "path": "store"}), ROOT).await;
}

async fn follow(store: &Value, root: &str) {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/local.md")).unwrap();
    let project = block(&page, "```text\n");
    let of_page = "{type: vault, address: \"https://vault.example:8200\"}";
    assert!(project.contains(of_page), "{project}");
    let machine = Machine::new(&project.replace(of_page, &store.to_string()));
    let home = machine.directory.path().to_owned();
    for directory in ["bin", "run", ".config/sops/age", "project/k8s"] {
        fs::create_dir_all(home.join(directory)).unwrap();
    }
    for (path, key, value) in SECRETS {
        let directory = machine.project().join("store/secret/data").join(path);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(key), value).unwrap();
    }
    symlink(env!("CARGO_BIN_EXE_hushpod"), home.join("bin/hushpod")).unwrap();
    for (name, script) in PROGRAMS {
        executable(&home.join("bin").join(name), &format!("#!/bin/sh\n{script}\n"));
    }
    machine.write("k8s/web.yaml", WEB);
    // As it is before sops encrypts it, which the provider reads as well.
    machine.write("secrets.enc.yaml", "sentry: {dsn: 'https://sentry.example/1'}\n");
    fs::write(home.join(".config/sops/age/keys.txt"), Identity::generate().to_string().expose_secret()).unwrap();

    let lines = block(&page, "```sh not-run\nhushpod run -- npm start");
    let lines: Vec<String> = ["hushpod trust .", "hushpod run -- npm start", "hushpod run -p prod -- npm start"]
        .into_iter()
        .chain(lines.lines().filter(|line| !line.is_empty()))
        .map(str::to_owned)
        .collect();
    assert!(lines.len() > 8, "{lines:?}");
    for line in lines {
        let _ = fs::remove_file(home.join("seen"));
        let output = shell(&machine, root, &line).await;
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{line}: {told}");
        assert!(!told.contains(CANARY), "{line}: {told}");
        let seen = fs::read_to_string(home.join("seen")).unwrap_or_default();
        let program = PROGRAMS.iter().find(|(name, _)| line.contains(name));
        let expected = match program {
            Some(("npm", _)) if line.contains("-p prod") => format!("{CANARY}-prod {CANARY}-db\n"),
            Some(("npm", _)) => format!("{CANARY}-hf {CANARY}-db\n"),
            Some(("python", _)) => format!("{CANARY}-db\n"),
            Some(("nginx", _)) => format!("password='{CANARY}-db'\nuser='mailer'\n"),
            Some(_) => format!("{CANARY}-db"),
            None => String::new(),
        };
        assert_eq!(seen, expected, "{line}: {told}");
    }
    assert!(fs::read_to_string(machine.project().join(".env.run")).unwrap().contains(CANARY));
    assert!(fs::read_to_string(home.join("run/web/app.env")).unwrap().contains(CANARY));
}
