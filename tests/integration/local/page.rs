//! The page for laptops, line by line as it is written, with a Vault, and with the demo's store, and stand-ins for the
//! programs that it names.
//!
//! Against a real Vault: see `contract/vault.rs`. It is given the page's secrets below `secret`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use serde_json::json;

use super::stores::{RealVault, empty_vault, post_to};
use super::{Machine, text};
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
    let of_page = "{type: vault, address: \"https://vault.example:8200\"}";
    let project = project();
    assert!(project.contains(of_page), "{project}");
    let vault = json!({"type": "vault", "address": address, "ca": ca}).to_string();
    let machine = machine(&project.replace(of_page, &vault));
    // As it is before sops encrypts it, which the provider reads as well.
    machine.write("secrets.enc.yaml", "sentry: {dsn: 'https://sentry.example/1'}\n");
    let value = |path: &str, key: &str| {
        let found = SECRETS.iter().find(|(at, name, _)| (*at, *name) == (path, key));
        found.unwrap().2.to_owned()
    };
    follow(&machine, root, &["hushpod trust ."], &value).await;
}

#[tokio::test]
async fn p5_the_page_works_line_by_line() {
    let vault = empty_vault().await;
    follow_with_vault(&vault.url(), Some(&vault.certificates.ca), ROOT).await;
}

#[tokio::test]
#[ignore = "wants a server: .ci/run contract starts it"]
async fn the_page_keeps_its_contract_with_a_real_vault() {
    let RealVault { address, ca, root } = RealVault::of_environment();
    follow_with_vault(&address, ca.as_deref(), &root).await;
}

#[tokio::test]
async fn p5_the_page_works_with_the_demos_store() {
    let machine = machine(&project());
    let line = format!("hushpod demo{}", block(&laptop(), DEMO));
    let value = |path: &str, key: &str| demo_value(&machine, path, key);
    follow(&machine, ROOT, &[line.trim_end()], &value).await;
}

/// What the demo's store has.
pub(super) fn demo_value(machine: &Machine, path: &str, key: &str) -> String {
    let value = fs::read_to_string(machine.project().join("store/secret/data").join(path).join(key)).unwrap();
    assert!(value.len() > 32, "{value}");
    value
}

/// How the block begins that makes the demo's store.
const DEMO: &str = "```sh not-run\nhushpod demo";

fn laptop() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/local.md")).unwrap()
}

/// The page's `.hushpod.yaml`.
fn project() -> String {
    block(&laptop(), "```text\n")
}

/// A new machine with the page's programs, manifest and age identity.
fn machine(project: &str) -> Machine {
    let machine = Machine::new(project);
    let home = machine.directory.path().to_owned();
    for directory in ["bin", "run", ".config/sops/age", "project/k8s"] {
        fs::create_dir_all(home.join(directory)).unwrap();
    }
    // The page's own makes it.
    fs::remove_dir_all(machine.project().join("store")).unwrap();
    symlink(env!("CARGO_BIN_EXE_hushpod"), home.join("bin/hushpod")).unwrap();
    for (name, script) in PROGRAMS {
        executable(&home.join("bin").join(name), &format!("#!/bin/sh\n{script}\n"));
    }
    machine.write("k8s/web.yaml", WEB);
    fs::write(home.join(".config/sops/age/keys.txt"), Identity::generate().to_string().expose_secret()).unwrap();
    machine
}

async fn follow(machine: &Machine, root: &str, first: &[&str], value: &dyn Fn(&str, &str) -> String) {
    let home = machine.directory.path();
    let lines = block(&laptop(), "```sh not-run\nhushpod run -- npm start");
    let more = ["hushpod run -- npm start", "hushpod run -p prod -- npm start"];
    let lines: Vec<String> = first
        .iter()
        .copied()
        .chain(more)
        .chain(lines.lines().filter(|line| !line.is_empty()))
        .map(str::to_owned)
        .collect();
    assert!(lines.len() > 8, "{lines:?}");
    for line in lines {
        let _ = fs::remove_file(home.join("seen"));
        let output = shell(machine, root, &line).await;
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{line}: {told}");
        let values = SECRETS.map(|(path, key, _)| value(path, key));
        assert!(!values.iter().any(|value| told.contains(value)), "{line}: {told}");
        let [db, user, hf, prod] = values;
        let seen = fs::read_to_string(home.join("seen")).unwrap_or_default();
        let program = PROGRAMS.iter().find(|(name, _)| line.contains(name));
        let expected = match program {
            Some(("npm", _)) if line.contains("-p prod") => format!("{prod} {db}\n"),
            Some(("npm", _)) => format!("{hf} {db}\n"),
            Some(("python", _)) => format!("{db}\n"),
            Some(("nginx", _)) => format!("password='{db}'\nuser='{user}'\n"),
            Some(_) => db.clone(),
            None => String::new(),
        };
        assert_eq!(seen, expected, "{line}: {told}");
    }
    let db = value("db", "password");
    assert!(fs::read_to_string(machine.project().join(".env.run")).unwrap().contains(&db));
    assert!(fs::read_to_string(home.join("run/web/app.env")).unwrap().contains(&db));
}
