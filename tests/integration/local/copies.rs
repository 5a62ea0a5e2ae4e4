//! `--cache` and `--offline`, with a Vault that is there and then is not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use serde_json::json;

use super::stores::{empty_vault, post};
use super::{CANARY, Machine, text};
use crate::fakes::vault::{FakeVault, ROOT};

/// A laptop with a project, an age identity, and a Vault.
struct Laptop {
    machine: Machine,
    vault: FakeVault,
    identity: String,
}

impl Laptop {
    async fn new() -> Self {
        let vault = empty_vault().await;
        post(&vault, "v1/secret/data/web", &json!({"data": {"token": CANARY}})).await;
        let provider =
            json!({"type": "vault", "address": format!("https://{}", vault.address), "ca": vault.certificates.ca});
        let machine = Machine::new(&format!(
            "providers:\n  vault: {provider}\nvariables: {{TOKEN: 'vault:secret/data/web#token'}}\n\
             secrets: [{{file: app.env, from: 'vault:secret/data/web', format: json}}]\n\
             profiles: {{prod: {{variables: {{MORE: 'vault:secret/data/web#token'}}}}}}\n"
        ));
        let identity = Identity::generate().to_string().expose_secret().to_owned();
        vault.take_seen();
        Self { machine, vault, identity }
    }

    /// Not in the way of the fake, which answers in this thread.
    async fn run(&self, arguments: &[&str]) -> Output {
        self.run_as(Some(ROOT), arguments).await
    }

    /// With this token; else as `vault login` left it.
    async fn run_as(&self, token: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = self.machine.command(arguments);
        command.envs([("HUSHPOD_TRUST", "1"), ("SOPS_AGE_KEY", &self.identity)]);
        command.envs(token.map(|token| ("VAULT_TOKEN", token)));
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Whether a store was asked since the last time.
    fn was_asked(&self) -> bool {
        !self.vault.take_seen().is_empty()
    }

    fn copies(&self) -> Vec<PathBuf> {
        let directory = self.machine.directory.path().join(".cache/hushpod/copies");
        let entries = fs::read_dir(directory).map(|entries| entries.map(|entry| entry.unwrap().path()).collect());
        entries.unwrap_or_default()
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

const PRINT: [&str; 4] = ["sh", "-c", "printf %s \"$TOKEN\"", "x"];

fn run_with<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&["run"], flags, &["--"], &PRINT].concat()
}

#[tokio::test]
async fn p5_a_copy_serves_the_next_command_and_no_value_lies_on_the_disk() {
    let laptop = Laptop::new().await;
    let first = laptop.run(&run_with(&["--cache", "12h"])).await;
    assert_eq!((text(&first.stdout).as_str(), text(&first.stderr).as_str()), (CANARY, ""));
    assert!(laptop.was_asked());
    let copies = laptop.copies();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&copies[0]), mode(copies[0].parent().unwrap())), (0o600, 0o700));
    assert!(!copies[0].to_str().unwrap().contains("web"), "{copies:?}");
    // All that there is but the project's own files.
    for file in files(laptop.machine.directory.path()).iter().filter(|file| !file.starts_with(laptop.machine.project()))
    {
        let bytes = fs::read(file).unwrap();
        for found in [CANARY.as_bytes(), b"Y2FuYXJ5", b"secret/data", b"token", b"vault"] {
            assert!(!bytes.windows(found.len()).any(|part| part == found), "{}: {}", file.display(), text(found));
        }
    }
    for arguments in [
        run_with(&["--cache", "12h"]),
        run_with(&["--offline", "--timeout", "1s"]),
        vec!["get", "vault:secret/data/web#token", "--cache", "1d"],
        vec!["export", "--format", "shell", "--only", "TOKEN", "--cache", "1m"],
        vec!["render", "--dir", "out", "--offline"],
    ] {
        let output = laptop.run(&arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let (out, told) = (text(&output.stdout), text(&output.stderr));
        let is_offline = arguments.contains(&"--offline");
        assert_eq!(told.starts_with("hushpod: offline: the stores' answers of "), is_offline, "{arguments:?}: {told}");
        assert!(is_offline || told.is_empty(), "{told}");
        assert!(out.contains(CANARY) || arguments[0] == "render", "{arguments:?}: {out}");
        assert!(!laptop.was_asked(), "{arguments:?}");
    }
    assert!(fs::read_to_string(laptop.machine.project().join("out/app.env")).unwrap().contains(CANARY));
    for arguments in [run_with(&["--cache", "1ms"]), run_with(&[]), run_with(&["--cache", "12h", "-p", "prod"])] {
        assert!(laptop.run(&arguments).await.status.success() && laptop.was_asked(), "{arguments:?}");
    }
    assert_eq!(laptop.copies().len(), 2, "one for each profile");
}

#[tokio::test]
async fn p3_a_failing_store_takes_no_copy_away() {
    let laptop = Laptop::new().await;
    let none = laptop.run(&run_with(&["--offline"])).await;
    let told = text(&none.stderr);
    assert!(
        none.status.code() == Some(125) && told.contains("there is no copy") && told.contains("--cache AGE"),
        "{told}"
    );
    assert!(laptop.run(&run_with(&["--cache", "12h"])).await.status.success());
    let before = fs::read(&laptop.copies()[0]).unwrap();
    laptop.vault.set_sealed(true);
    let old = laptop.run(&["get", "vault:secret/data/web#token", "--cache", "1ms", "--timeout", "1500ms"]).await;
    let told = text(&old.stderr);
    assert_eq!(old.status.code(), Some(5), "{told}");
    assert!(told.contains("--offline takes the copy of ") && told.contains("waiting for vault"), "{told}");
    assert_eq!(fs::read(&laptop.copies()[0]).unwrap(), before);
    assert_eq!(text(&laptop.run(&run_with(&["--offline"])).await.stdout), CANARY);

    laptop.vault.set_sealed(false);
    fs::write(&laptop.copies()[0], &before[..before.len() - 5]).unwrap();
    let damaged = laptop.run(&run_with(&["--offline"])).await;
    assert!(damaged.status.code() == Some(125) && text(&damaged.stderr).contains("is damaged"), "{damaged:?}");
    let again = laptop.run(&run_with(&["--cache", "12h"])).await;
    assert!(text(&again.stdout) == CANARY && text(&again.stderr).contains("it is replaced"), "{again:?}");
    assert_eq!(text(&laptop.run(&run_with(&["--offline"])).await.stdout), CANARY);
}

#[tokio::test]
async fn p6_a_copy_serves_nobody_but_the_login_that_it_was_made_with() {
    let laptop = Laptop::new().await;
    assert!(laptop.run(&run_with(&["--cache", "12h"])).await.status.success());
    laptop.was_asked();
    for token in [Some("canary-another"), None] {
        let other = laptop.run_as(token, &run_with(&["--cache", "12h"])).await;
        assert!(other.status.code() == Some(125) && other.stdout.is_empty(), "{token:?}: {other:?}");
        assert_eq!(laptop.was_asked(), token.is_some(), "{token:?}");
        let offline = laptop.run_as(token, &run_with(&["--offline"])).await;
        let told = text(&offline.stderr);
        assert!(offline.status.code() == Some(125) && told.contains("of another login"), "{token:?}: {told}");
        assert!(!told.contains("canary"), "{told}");
    }
    // The same token, where `vault login` leaves it.
    fs::write(laptop.machine.directory.path().join(".vault-token"), ROOT).unwrap();
    assert_eq!(text(&laptop.run_as(None, &run_with(&["--cache", "12h"])).await.stdout), CANARY);
    assert!(!laptop.was_asked());
}

#[tokio::test]
async fn p9_without_an_identity_it_is_told_how_to_make_one() {
    let mut laptop = Laptop::new().await;
    laptop.identity = String::new();
    for flags in [&["--offline"][..], &["--cache", "1h"]] {
        let output = laptop.run(&run_with(flags)).await;
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(125) && told.contains("age-keygen -o"), "{told}");
        assert!(!laptop.was_asked(), "{told}");
    }
    laptop.identity = "canary-no-key".to_owned();
    let told = text(&laptop.run(&run_with(&["--cache", "1h"])).await.stderr);
    assert!(told.contains("line 1 of the age identity is not a key") && !told.contains("canary"), "{told}");
    let both = laptop.run(&["get", "x", "--cache", "1h", "--offline"]).await;
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    assert!(laptop.copies().is_empty());
}

#[tokio::test]
async fn p5_leases_are_not_kept_and_their_store_is_asked_each_time() {
    let laptop = Laptop::new().await;
    for (path, body) in [
        ("v1/sys/mounts/database", json!({"type": "database"})),
        (
            "v1/database/roles/web",
            json!({"db_name": "db", "creation_statements": "x", "default_ttl": 3600, "max_ttl": 7200}),
        ),
    ] {
        post(&laptop.vault, path, &body).await;
    }
    let arguments = ["run", "--cache", "12h", "--env", "LEASED=vault:database/creds/web#password", "--", "true"];
    for _ in 0..2 {
        laptop.was_asked();
        let output = laptop.run(&arguments).await;
        assert!(output.status.success() && laptop.was_asked(), "{output:?}");
        let told = text(&output.stderr);
        assert!(told.contains("not kept, since it was made for this command and ends: LEASED"), "{told}");
    }
    let offline =
        laptop.run(&["run", "--offline", "--env", "LEASED=vault:database/creds/web#password", "--", "true"]).await;
    assert_eq!(offline.status.code(), Some(125), "{offline:?}");
    assert_eq!(text(&laptop.run(&run_with(&["--offline"])).await.stdout), CANARY, "the others are kept");
}
