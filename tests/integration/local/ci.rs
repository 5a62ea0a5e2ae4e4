//! deploy/ci, line by line, on stand-ins for GitHub's runner and GitLab's.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::formats::{AWKWARD, machine as awkward_machine};
use super::page::demo_value;
use super::runner::{GithubJob, Variables, gitlab};
use super::stores::{RealVault, ask, empty_vault, github, post_to};
use super::{CANARY, Machine};
use crate::fakes::server::{FakeServer, Reply};
use crate::fakes::token;
use crate::fakes::vault::{FakeVault, ROOT};
use crate::readme::page;

const PAGE: &str = "deploy/ci/README.md";
/// Whom the page binds the role to, and nobody else.
const SUBJECT: &str = "repo:team/web:ref:refs/heads/main";

fn action() -> Value {
    serde_saphyr::from_str(&page("deploy/ci/github/action.yml")).unwrap()
}

/// The page's block that begins so, behind its fence: the words there, and the first of its first line, if that is needed.
fn block(start: &str) -> String {
    let text = page(PAGE);
    let (_, rest) = text.split_once(&format!("\n```{start}")).unwrap_or_else(|| panic!("no block {start}"));
    let (block, _) = rest.split_once("\n```\n").unwrap();
    let first = start.split_once('\n').map_or("", |(_, first)| first);
    format!("{first}{block}").trim_start().to_owned()
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

/// Sets a Vault up by the page's commands. `issuer` is where its tokens' key is found, and by which authority; without,
/// it is told the key itself.
async fn set_up(vault: (&str, Option<&str>, &str), issuer: Option<(&str, &str)>) {
    for line in block("sh not-run\nvault").replace("\\\n  ", "").lines() {
        let (piped, command) = line.split_once(" | ").map_or((None, line), |(piped, command)| (Some(piped), command));
        let words: Vec<_> = command.split(' ').collect();
        let (path, body) = match words[..] {
            ["vault", "auth", "enable", method] => (format!("sys/auth/{method}"), json!({"type": method})),
            ["vault", "policy", "write", name, "-"] => {
                let policy = piped.unwrap().strip_prefix("echo '").and_then(|rest| rest.strip_suffix('\''));
                (format!("sys/policies/acl/{name}"), json!({"policy": policy.unwrap()}))
            }
            ["vault", "write", path, ref fields @ ..] => (path.to_owned(), body(fields, issuer)),
            _ => panic!("{line}"),
        };
        post_to(vault, &format!("v1/{path}"), &body).await;
    }
    let [password, key] = secrets();
    post_to(vault, "v1/secret/data/web", &json!({"data": {"password": password, "key": key}})).await;
}

/// What the jobs are to have from a Vault.
fn secrets() -> [String; 2] {
    [format!("{CANARY}\nsecond 100% {CANARY}\n"), format!("{CANARY}-key")]
}

fn body(fields: &[&str], issuer: Option<(&str, &str)>) -> Value {
    let mut body = Map::new();
    for (name, value) in fields.iter().map(|field| field.split_once('=').unwrap()) {
        match (name, issuer) {
            ("oidc_discovery_url", Some((url, authority))) => body.extend([
                (name.to_owned(), json!(url)),
                ("oidc_discovery_ca_pem".to_owned(), json!(authority)),
                // Both systems sign with RSA, as Vault expects of those whom it asks.
                ("jwt_supported_algs".to_owned(), json!(["ES256"])),
            ]),
            ("oidc_discovery_url", None) => {
                body.extend([("jwt_validation_pubkeys".to_owned(), json!([token::PUBLIC_KEY.as_str()]))]);
            }
            // Lists, which Vault takes as text as well.
            ("bound_audiences" | "token_policies", _) => body.extend([(name.to_owned(), json!([value]))]),
            _ => body.extend([(name.to_owned(), json!(value))]),
        }
    }
    Value::Object(body)
}

/// An imitation of Vault that the page's commands have set up.
async fn vault() -> FakeVault {
    let vault = empty_vault().await;
    set_up((&vault.url(), Some(&vault.certificates.ca), ROOT), None).await;
    vault
}

/// The page's project, at a Vault's address.
fn project(address: &str, ca: Option<&str>) -> String {
    let written = r#"address: "https://vault.example:8200""#;
    let text = block("text project");
    assert!(text.contains(written), "{text}");
    text.replace(written, &format!("address: {}, ca: {}", json!(address), json!(ca)))
}

fn project_of(vault: &FakeVault) -> String {
    project(&vault.url(), Some(&vault.certificates.ca))
}

/// A machine with the project and its programs.
fn machine(project: &str) -> Machine {
    let machine = Machine::new(project);
    for name in ["migrate", "deploy"] {
        program(&machine, name);
    }
    machine
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

/// Runs the page's job on GitHub; the runner is asked for so many tokens.
async fn run_on_github(machine: &Machine, questions: usize, [password, key]: &[String; 2]) {
    let workflow: Value = serde_saphyr::from_str(&block("yaml workflow")).unwrap();
    assert_eq!(workflow["permissions"]["id-token"], "write");
    let (url, answering) = github(token::sign(&json!({"aud": ["vault"], "sub": SUBJECT}), 300), questions);
    let mut of_machine = variables(machine);
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
    assert_eq!(answering.join().unwrap().len(), questions);
    let shows = |value: &String| value.lines().any(|line| job.log.contains(line));
    assert!(!job.log.contains("canary") && !shows(password) && !shows(key), "{}", job.log);
    let stars = "***\n".repeat(password.lines().count());
    assert!(job.log.contains(&stars) && job.log.contains("[***]"), "{}", job.log);
    let (migrate, deploy) = (given(machine, "migrate"), given(machine, "deploy"));
    assert_eq!(&migrate["DB_PASSWORD"], password, "byte by byte");
    assert!(!migrate.contains_key("DEPLOY_KEY"), "one command's alone");
    assert_eq!(&deploy["DEPLOY_KEY"], key);
}

/// Runs the page's job on GitLab; gives its exit code and its log.
async fn gitlab_job(machine: &Machine, subject: &'static str) -> (Option<i32>, String) {
    let pipeline: Value = serde_saphyr::from_str(&block("yaml pipeline")).unwrap();
    let (template, workspace, of_machine) = (page("deploy/ci/gitlab.yml"), machine.project(), variables(machine));
    let sign = move |audience: &str| token::sign(&json!({"aud": [audience], "sub": subject}), 300);
    let job = move || gitlab(&workspace, &pipeline, ("deploy", &template), &of_machine, sign);
    tokio::task::spawn_blocking(job).await.unwrap()
}

async fn run_on_gitlab(machine: &Machine, [password, key]: &[String; 2]) {
    let (code, log) = gitlab_job(machine, SUBJECT).await;
    assert_eq!(code, Some(0), "{log}");
    let shows = |value: &String| value.lines().any(|line| log.contains(line));
    assert!(!log.contains("canary") && !shows(password) && !shows(key), "{log}");
    assert!(log.contains("<DB_PASSWORD>") && log.contains("[<DEPLOY_KEY>]"), "{log}");
    let (migrate, deploy) = (given(machine, "migrate"), given(machine, "deploy"));
    assert_eq!((&migrate["DB_PASSWORD"], &deploy["DEPLOY_KEY"]), (password, key), "byte by byte");
    assert!(!deploy.contains_key("DB_PASSWORD") && !deploy.keys().any(|name| name.starts_with("HUSHPOD_ID_TOKEN_")));
}

/// A job whose subject the page's role is not bound to has nothing.
async fn refuse_a_stranger(machine: &Machine) {
    let _ = fs::remove_file(machine.project().join("migrate.env"));
    let (code, log) = gitlab_job(machine, "repo:stranger/web:ref:refs/heads/main").await;
    assert_eq!(code, Some(125), "{log}");
    assert!(!machine.project().join("migrate.env").exists(), "nothing is begun: {log}");
}

#[tokio::test]
async fn p5_the_page_of_ci_works_on_github_as_it_is_written() {
    let vault = vault().await;
    run_on_github(&machine(&project_of(&vault)), 2, &secrets()).await;
}

#[tokio::test]
async fn p5_the_page_of_ci_works_on_gitlab_as_it_is_written() {
    let vault = vault().await;
    let machine = machine(&project_of(&vault));
    run_on_gitlab(&machine, &secrets()).await;
    refuse_a_stranger(&machine).await;
}

#[tokio::test]
async fn p5_the_page_of_ci_works_with_the_demos_store() {
    let machine = machine(&block("text project"));
    fs::remove_dir_all(machine.project().join("store")).unwrap();
    let line = block("sh not-run\nhushpod demo");
    let mut command = Command::new("sh");
    command.args(["-euc", &line]).current_dir(machine.project()).env_clear().envs(variables(&machine));
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let secrets = ["password", "key"].map(|key| demo_value(&machine, "web", key));
    // Files want no token.
    run_on_github(&machine, 0, &secrets).await;
    run_on_gitlab(&machine, &secrets).await;
}

/// Who says by which key tokens are signed, as GitHub and GitLab do (OpenID Connect Discovery 1.0).
async fn issuer() -> FakeServer {
    FakeServer::start(|received| {
        let url = format!("https://{}", received.header("host").unwrap());
        match received.path.as_str() {
            "/.well-known/openid-configuration" => Reply::json(
                200,
                &json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "authorization_endpoint": url,
                "token_endpoint": url, "subject_types_supported": ["public"], "response_types_supported": ["id_token"],
                "id_token_signing_alg_values_supported": ["ES256"]}),
            ),
            "/keys" => Reply::json(200, &token::key_set()),
            _ => Reply::json(404, &Value::Null),
        }
    })
    .await
}

#[tokio::test]
#[ignore = "wants a server: .ci/run contract starts it"]
async fn the_page_of_ci_keeps_its_contract_with_a_real_vault() {
    let RealVault { address, ca, root } = RealVault::of_environment();
    let vault = (address.as_str(), ca.as_deref(), root.as_str());
    let made = ["sys/auth/jwt", "sys/policies/acl/deploy", "secret/metadata/web"];
    // What a run that failed left.
    for path in made {
        ask(vault, Method::DELETE, &format!("v1/{path}"), &Value::Null).await;
    }
    let issuer = issuer().await;
    set_up(vault, Some((&issuer.url(), &issuer.certificates.ca))).await;
    assert!(!issuer.take_seen().is_empty(), "Vault asks whom the page names");
    let machine = machine(&project(&address, ca.as_deref()));
    run_on_github(&machine, 2, &secrets()).await;
    run_on_gitlab(&machine, &secrets()).await;
    refuse_a_stranger(&machine).await;
    for path in made {
        assert!(ask(vault, Method::DELETE, &format!("v1/{path}"), &Value::Null).await, "{path}");
    }
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
