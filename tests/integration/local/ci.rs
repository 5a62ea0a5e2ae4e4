//! deploy/ci, line by line, on stand-ins for GitHub's runner and GitLab's.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::formats::{AWKWARD, machine as awkward_machine};
use super::runner::{GithubJob, Variables, gitlab};
use super::stores::{empty_vault, github, post};
use super::{CANARY, Machine};
use crate::fakes::token;
use crate::fakes::vault::FakeVault;
use crate::readme::page;

const PAGE: &str = "deploy/ci/README.md";
/// Whom the page binds the role to, and nobody else.
const SUBJECT: &str = "repo:team/web:ref:refs/heads/main";

fn action() -> Value {
    serde_saphyr::from_str(&page("deploy/ci/github/action.yml")).unwrap()
}

/// The page's block with these words behind its fence.
fn block(info: &str) -> String {
    let text = page(PAGE);
    let (_, rest) = text.split_once(&format!("\n```{info}\n")).unwrap_or_else(|| panic!("no block {info}"));
    rest.split_once("\n```\n").unwrap().0.to_owned()
}

/// What a machine has for every step: the program on PATH.
fn variables(machine: &Machine) -> Variables {
    let programs = machine.directory.path().join("programs");
    fs::create_dir_all(&programs).unwrap();
    let _ = symlink(env!("CARGO_BIN_EXE_hushpod"), programs.join("hushpod"));
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let home = machine.directory.path().to_str().unwrap();
    [("PATH", path.as_str()), ("HOME", home)].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// The page's Vault, set up by the page's commands. Issuers are on no network here: their key is told instead.
async fn vault() -> FakeVault {
    let vault = empty_vault().await;
    for line in block("sh not-run").replace("\\\n  ", "").lines() {
        let (piped, command) = line.split_once(" | ").map_or((None, line), |(piped, command)| (Some(piped), command));
        let words: Vec<_> = command.split(' ').collect();
        let (path, body) = match words[..] {
            ["vault", "auth", "enable", method] => (format!("sys/auth/{method}"), json!({"type": method})),
            ["vault", "policy", "write", name, "-"] => {
                let policy = piped.unwrap().strip_prefix("echo '").and_then(|rest| rest.strip_suffix('\''));
                (format!("sys/policies/acl/{name}"), json!({"policy": policy.unwrap()}))
            }
            ["vault", "write", path, ref fields @ ..] => (path.to_owned(), body(fields)),
            _ => panic!("{line}"),
        };
        post(&vault, &format!("v1/{path}"), &body).await;
    }
    let data =
        json!({"data": {"password": format!("{CANARY}\nsecond 100% {CANARY}\n"), "key": format!("{CANARY}-key")}});
    post(&vault, "v1/secret/data/web", &data).await;
    vault
}

fn body(fields: &[&str]) -> Value {
    let mut body = Map::new();
    for (name, value) in fields.iter().map(|field| field.split_once('=').unwrap()) {
        match name {
            "oidc_discovery_url" => {
                body.insert("jwt_validation_pubkeys".to_owned(), json!([token::PUBLIC_KEY.as_str()]))
            }
            // Lists, which Vault takes as text as well.
            "bound_audiences" | "token_policies" => body.insert(name.to_owned(), json!([value])),
            _ => body.insert(name.to_owned(), json!(value)),
        };
    }
    Value::Object(body)
}

/// The page's project, at the imitation's address.
fn project(vault: &FakeVault) -> String {
    let written = r#"address: "https://vault.example:8200""#;
    let text = block("text project");
    assert!(text.contains(written), "{text}");
    text.replace(written, &format!("address: \"https://{}\", ca: {}", vault.address, json!(vault.certificates.ca)))
}

/// A program of the repository that keeps what it was given, and shows it to all.
fn program(machine: &Machine, name: &str) {
    let script =
        "#!/bin/bash\nenv -0 > \"$(basename \"$0\").env\"\necho \"$DB_PASSWORD\"; echo \"[$DEPLOY_KEY]\" >&2\n";
    machine.write(name, script);
    fs::set_permissions(machine.project().join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

fn given(machine: &Machine, name: &str) -> Variables {
    let text = fs::read_to_string(machine.project().join(format!("{name}.env"))).unwrap();
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn p5_the_page_of_ci_works_on_github_as_it_is_written() {
    let vault = vault().await;
    let machine = Machine::new(&project(&vault));
    program(&machine, "migrate");
    program(&machine, "deploy");
    let workflow: Value = serde_saphyr::from_str(&block("yaml workflow")).unwrap();
    assert_eq!(workflow["permissions"]["id-token"], "write");
    let (url, answering) = github(token::sign(&json!({"aud": ["vault"], "sub": SUBJECT}), 300), 2);
    let mut of_machine = variables(&machine);
    of_machine.insert("ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(), url);
    of_machine.insert("ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(), "canary-request".to_owned());
    let mut job = GithubJob::new(&machine.project(), of_machine);
    job.actions.insert("./.github/actions/hushpod".to_owned(), action());
    let job = tokio::task::spawn_blocking(move || {
        let code = job.steps(&workflow["jobs"]["deploy"]["steps"]);
        assert_eq!(code, Some(0), "{}", job.log);
        job
    });
    let job = job.await.unwrap();
    assert_eq!(answering.join().unwrap().len(), 2);
    assert!(!job.log.contains("canary"), "{}", job.log);
    assert!(job.log.contains("***\n***\n") && job.log.contains("[***]"), "{}", job.log);
    let (migrate, deploy) = (given(&machine, "migrate"), given(&machine, "deploy"));
    assert_eq!(migrate["DB_PASSWORD"], format!("{CANARY}\nsecond 100% {CANARY}\n"), "byte by byte");
    assert!(!migrate.contains_key("DEPLOY_KEY"), "one command's alone");
    assert_eq!(deploy["DEPLOY_KEY"], format!("{CANARY}-key"));
}

#[tokio::test]
async fn p5_the_page_of_ci_works_on_gitlab_as_it_is_written() {
    let vault = vault().await;
    let machine = Machine::new(&project(&vault));
    program(&machine, "migrate");
    program(&machine, "deploy");
    let pipeline: Value = serde_saphyr::from_str(&block("yaml pipeline")).unwrap();
    let (template, workspace, of_machine) = (page("deploy/ci/gitlab.yml"), machine.project(), variables(&machine));
    let run = move |subject: &'static str| {
        let (pipeline, template) = (pipeline.clone(), template.clone());
        let (workspace, of_machine) = (workspace.clone(), of_machine.clone());
        let sign = move |audience: &str| token::sign(&json!({"aud": [audience], "sub": subject}), 300);
        tokio::task::spawn_blocking(move || gitlab(&workspace, &pipeline, ("deploy", &template), &of_machine, sign))
    };
    let (code, log) = run(SUBJECT).await.unwrap();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("canary") && log.contains("<DB_PASSWORD>") && log.contains("[<DEPLOY_KEY>]"), "{log}");
    let (migrate, deploy) = (given(&machine, "migrate"), given(&machine, "deploy"));
    assert_eq!(migrate["DB_PASSWORD"], format!("{CANARY}\nsecond 100% {CANARY}\n"), "byte by byte");
    assert_eq!(deploy["DEPLOY_KEY"], format!("{CANARY}-key"));
    assert!(!deploy.contains_key("DB_PASSWORD") && !deploy.keys().any(|name| name.starts_with("HUSHPOD_ID_TOKEN_")));

    fs::remove_file(machine.project().join("migrate.env")).unwrap();
    let (code, log) = run("repo:stranger/web:ref:refs/heads/main").await.unwrap();
    assert_eq!(code, Some(125), "{log}");
    assert!(!machine.project().join("migrate.env").exists(), "nothing is begun: {log}");
}

#[test]
fn p9_awkward_values_arrive_at_later_steps_and_none_is_in_the_log() {
    let machine = awkward_machine();
    let is_held = |value: &[u8]| std::str::from_utf8(value).is_ok() && !value.contains(&b'\r');
    let (held, refused): (Vec<_>, Vec<_>) = (0..AWKWARD.len()).partition(|&index| is_held(AWKWARD[index]));
    assert!(refused.len() >= 3 && held.len() > 50);
    machine.write("store/v0", &format!("{CANARY} ::add-mask::x %0A %25\n::set-env name=A::b\nEOF<<A\n'"));
    let value = |index: usize| fs::read(machine.project().join(format!("store/v{index}"))).unwrap();
    let names: Vec<_> = held.iter().map(|index| format!("V{index}")).collect();
    let mut job = GithubJob::new(&machine.project(), variables(&machine));
    let with = json!({"only": format!(" {},\n{}", names[0], names[1..].join(" ,"))});
    assert_eq!(job.action(&action(), with.as_object().unwrap()), Some(0), "{}", job.log);
    let shown = job.log.clone();
    assert!(!shown.contains("canary") && shown.contains("too short to be masked"), "{shown}");
    program(&machine, "later");
    let script = "./later; for name in ${!V@}; do printf '%s\\n' \"${!name}\"; done";
    assert_eq!(job.steps(&json!([{"run": script}])), Some(0), "{}", job.log);
    assert!(!job.log.contains("canary"), "{}", job.log);
    let later = given(&machine, "later");
    for index in held {
        assert_eq!(later[&format!("V{index}")].as_bytes(), value(index), "{index}");
    }
    for index in refused {
        let with = json!({"only": format!("V{index}")});
        let mut job = GithubJob::new(&machine.project(), variables(&machine));
        let code = job.action(&action(), with.as_object().unwrap());
        assert!(code == Some(1) && job.log.contains(&format!("V{index} ")), "{}", job.log);
        assert!(job.masks.is_empty() && !job.variables.contains_key(&format!("V{index}")), "nothing of it is written");
    }
}

#[test]
fn p5_masks_are_told_before_anything_is_written() {
    let machine = awkward_machine();
    machine.write("store/v0", CANARY);
    let mut of_machine = variables(&machine);
    // What cannot be written to: the step fails, and what was told before is seen.
    of_machine.insert("GITHUB_ENV".to_owned(), machine.project().to_str().unwrap().to_owned());
    let mut job = GithubJob::new(&machine.project(), of_machine);
    assert_eq!(job.action(&action(), json!({"only": "V0"}).as_object().unwrap()), Some(1), "{}", job.log);
    assert_eq!(job.masks, [CANARY], "{}", job.log);
}

#[test]
fn p9_inputs_are_never_run_and_wrong_ones_are_told() {
    let machine = awkward_machine();
    let elsewhere = machine.directory.path().join("programs/hushpod").to_str().unwrap().to_owned();
    for (with, code, part) in [
        (json!({"only": "V2"}), 0, ""),
        (json!({"only": "V2", "program": elsewhere}), 0, ""),
        (json!({"only": "V2", "prefix": "TF_VAR_"}), 0, ""),
        (json!({"only": "V2 MORE", "env": "\n  MORE=v3\n"}), 0, ""),
        (json!({"only": "V2", "profile": "none"}), 2, "profile"),
        (json!({"only": "V2", "file": "none.yaml"}), 2, "none.yaml"),
        (json!({"only": "V2", "timeout": "soon"}), 2, "--timeout"),
        (json!({"only": "V2", "trust": true}), 0, ""),
        (json!({"only": "V2", "trust": "yes"}), 2, "::error title=hushpod::invalid trust"),
        (json!({"only": "V2", "program": "/nothing"}), 2, "there is no such program"),
        (json!({"only": "$(touch run)", "program": elsewhere}), 2, "no variable has such a name"),
        (json!({"only": "V2", "prefix": "\"; touch run; \""}), 2, "name"),
        (json!({"only": "V2", "file": "`touch run`"}), 2, "touch run"),
        (json!({"only": "V2", "env": "A=$(touch run)"}), 2, "white space"),
    ] {
        let mut job = GithubJob::new(&machine.project(), variables(&machine));
        let ended = job.action(&action(), with.as_object().unwrap());
        assert!(ended == Some(code) && job.log.contains(part), "{with}: {ended:?}: {}", job.log);
        assert!(!machine.project().join("run").exists(), "{with}");
        let has = |name: &str| job.variables.contains_key(name);
        let prefix = with["prefix"].as_str().unwrap_or_default();
        assert_eq!(has(&format!("{prefix}V2")), code == 0, "{with}");
        assert_eq!(has("MORE"), code == 0 && with["env"].is_string(), "{with}");
    }
    let mut nowhere = variables(&machine);
    nowhere.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    let mut job = GithubJob::new(&machine.project(), nowhere);
    assert_eq!(job.action(&action(), &Map::new()), Some(2));
    assert!(job.log.contains("there is no hushpod on PATH"), "{}", job.log);
    for step in action()["runs"]["steps"].as_array().unwrap() {
        assert!(!step["run"].as_str().unwrap().contains("${{"), "inputs must not be a part of a script");
    }
}

#[test]
fn the_page_has_every_input() {
    let text = page(PAGE);
    let (_, rest) = text.split_once("<!-- inputs: tested by tests/integration/local/ci.rs -->\n").unwrap();
    let mut told: Vec<_> = rest.split_once("<!-- end -->").unwrap().0.lines().skip(2).collect();
    let action = action();
    let row = |(name, input): (&String, &Value)| format!("| `{name}` | {} |", input["description"].as_str().unwrap());
    let mut rows: Vec<_> = action["inputs"].as_object().unwrap().iter().map(row).collect();
    rows.sort();
    told.sort_unstable();
    assert_eq!(told, rows);
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/ci/gitlab.yml").is_file());
}
