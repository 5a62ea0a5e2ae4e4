//! A store over the network: who may be sent a login, whose login it is, and what is told if it does not answer.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Output;

use hushpod::provider::http::{Address, Call, Client, Limits, secret_header};
use hyper::Method;
use hyper_util::client::proxy::matcher::Matcher;
use serde_json::{Value, json};

use super::{CANARY, Machine, text};
use crate::fakes::server::Fault;
use crate::fakes::token;
use crate::fakes::vault::{FakeVault, ROOT};

/// Who a job is.
const JOB: &str = "repo:team/web:ref:refs/heads/main";

/// A project whose Vault is the fake.
fn machine(vault: &FakeVault) -> Machine {
    Machine::new(&format!(
        "providers:\n  vault: {}\nvariables: {{TOKEN: 'vault:secret/data/web#token'}}\n",
        json!({"type": "vault", "address": format!("https://{}", vault.address), "ca": vault.certificates.ca})
    ))
}

/// Writes to a Vault, as its root.
pub(super) async fn post(vault: &FakeVault, path: &str, body: &Value) {
    post_to((&vault.url(), Some(&vault.certificates.ca), ROOT), path, body).await;
}

/// The same to any: its address, its authority, and its root's token.
pub(super) async fn post_to(vault: (&str, Option<&str>, &str), path: &str, body: &Value) {
    assert!(ask(vault, Method::POST, path, body).await, "{path}");
}

/// Asks a Vault for something as its root, and says whether it did it.
pub(super) async fn ask(
    (address, ca, root): (&str, Option<&str>, &str),
    method: Method,
    path: &str,
    body: &Value,
) -> bool {
    let no_proxy = Matcher::builder().build();
    let client = Client::new(Address::parse(address).unwrap(), ca, Limits::default(), &no_proxy).unwrap();
    let token = secret_header(&root.into(), "root token").unwrap();
    let call = Call::new(method, path).header("x-vault-token".parse().unwrap(), token).json(body);
    client.send(call).await.unwrap().status.is_success()
}

/// The Vault that `.ci/run contract` starts.
pub(super) struct RealVault {
    pub(super) address: String,
    pub(super) ca: Option<String>,
    pub(super) root: String,
}

// === impl RealVault ===

impl RealVault {
    pub(super) fn of_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            address: variable("HUSHPOD_CONTRACT_VAULT").expect("HUSHPOD_CONTRACT_VAULT: a Vault's address"),
            ca: variable("HUSHPOD_CONTRACT_VAULT_CACERT").map(|file| fs::read_to_string(file).unwrap()),
            root: variable("HUSHPOD_CONTRACT_VAULT_TOKEN").expect("HUSHPOD_CONTRACT_VAULT_TOKEN: its root's token"),
        }
    }
}

/// A Vault with an engine for secrets.
pub(super) async fn empty_vault() -> FakeVault {
    let vault = FakeVault::start().await;
    post(&vault, "v1/sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).await;
    vault
}

/// A Vault with one secret; jobs of CI may log in to its role `ci`.
async fn vault() -> FakeVault {
    let vault = empty_vault().await;
    for (path, body) in [
        ("v1/secret/data/web", json!({"data": {"token": CANARY}})),
        (
            "v1/sys/policies/acl/ci",
            json!({"policy": json!({"path": {"secret/data/web": {"capabilities": ["read"]}}}).to_string()}),
        ),
        ("v1/sys/auth/jwt", json!({"type": "jwt"})),
        ("v1/auth/jwt/config", json!({"jwt_validation_pubkeys": [token::PUBLIC_KEY.as_str()]})),
        (
            "v1/auth/jwt/role/ci",
            json!({"role_type": "jwt", "bound_audiences": ["vault"], "bound_subject": JOB,
            "user_claim": "sub", "token_policies": ["ci"], "token_ttl": "1h"}),
        ),
    ] {
        post(&vault, path, &body).await;
    }
    vault
}

/// Not in the way of the fake, which answers in this thread.
async fn run(machine: &Machine, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = machine.command(arguments);
    command.envs(variables.iter().copied());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

const PRINT: [&str; 5] = ["run", "--", "sh", "-c", "printf %s \"$TOKEN\""];

#[tokio::test]
async fn p6_no_login_is_sent_where_nobody_said_that_it_may_go() {
    let vault = vault().await;
    let machine = machine(&vault);
    let token = [("VAULT_TOKEN", ROOT)];
    vault.take_seen();
    let refused = run(&machine, &PRINT, &token).await;
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(125), "{told}");
    assert!(
        told.contains("not trusted") && told.contains("hushpod trust .") && told.contains("https://127.0.0.1:"),
        "{told}"
    );
    assert!(vault.take_seen().is_empty(), "nothing was asked");

    let once = run(&machine, &PRINT, &[token[0], ("HUSHPOD_TRUST", "1")]).await;
    assert_eq!((text(&once.stdout).as_str(), text(&once.stderr).as_str()), (CANARY, ""));
    let again = run(&machine, &PRINT, &token).await;
    assert_eq!(again.status.code(), Some(125), "once is not for ever");

    let trusted = run(&machine, &["trust", "."], &[]).await;
    assert!(text(&trusted.stdout).starts_with("trusted: vault https://127.0.0.1:"), "{trusted:?}");
    assert_eq!(text(&run(&machine, &PRINT, &token).await.stdout), CANARY);
    let state = machine.directory.path().join(".local/state/hushpod/trusted");
    assert!(!fs::read_to_string(&state).unwrap().contains(ROOT));

    let project = fs::read_to_string(machine.project().join(".hushpod.yaml")).unwrap();
    let detour = project.replace("\"type\"", "\"proxy\":\"http://127.0.0.1:9\",\"type\"");
    machine.write(".hushpod.yaml", &detour);
    assert_eq!(run(&machine, &PRINT, &token).await.status.code(), Some(125), "another way is another question");
    fs::remove_file(&state).unwrap();
    let config = machine.directory.path().join(".config/hushpod");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.yaml"), project.lines().take(2).collect::<Vec<_>>().join("\n")).unwrap();
    machine.write(".hushpod.yaml", &project);
    assert_eq!(text(&run(&machine, &PRINT, &token).await.stdout), CANARY, "a file of one's own is not asked about");
}

#[tokio::test]
async fn logins_are_what_the_stores_own_tools_left() {
    let vault = vault().await;
    let machine = machine(&vault);
    let trust = ("HUSHPOD_TRUST", "1");
    let none = run(&machine, &PRINT, &[trust]).await;
    assert!(none.status.code() == Some(125) && text(&none.stderr).contains("`vault login`"), "{none:?}");
    let home = machine.directory.path().join(".vault-token");
    fs::write(&home, ROOT).unwrap();
    assert_eq!(text(&run(&machine, &PRINT, &[trust]).await.stdout), CANARY);
    let status = run(&machine, &["login", "status"], &[trust]).await;
    let line = text(&status.stdout);
    assert!(
        status.status.success() && line.contains("vault") && line.contains("token") && line.contains("no end"),
        "{line}"
    );
    assert!(!line.contains(ROOT), "{line}");
    fs::write(&home, "canary-wrong").unwrap();
    let refused = run(&machine, &["get", "vault:secret/data/web#token"], &[trust]).await;
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{told}");
    assert!(!told.contains("canary"), "{told}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_waited_for_and_named() {
    let vault = vault().await;
    let machine = machine(&vault);
    let variables = [("HUSHPOD_TRUST", "1"), ("VAULT_TOKEN", ROOT)];
    let missing = run(&machine, &["get", "vault:secret/data/none#token"], &variables).await;
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    vault.fail("auth/token/lookup-self", 100, Fault::Silence);
    let silent = run(&machine, &["get", "--timeout", "2s", "vault:secret/data/web#token"], &variables).await;
    let told = text(&silent.stderr);
    assert_eq!(silent.status.code(), Some(5), "{told}");
    assert!(told.contains("hushpod: waiting for vault\n") && told.contains("within 2 s from vault"), "{told}");
    let command = run(&machine, &["run", "--timeout", "1500ms", "--", "true"], &variables).await;
    assert_eq!(command.status.code(), Some(125), "{command:?}");
}

/// GitHub's side of so many questions for an id token; gives what was asked, each up to the empty line.
pub(super) fn github(jwt: String, questions: usize) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/idtoken?api-version=2.0", listener.local_addr().unwrap());
    let answer = move |_| {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let asked = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
        let body = json!({"value": jwt, "count": 1}).to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
        write!(stream, "{head} {}\r\n\r\n{body}", body.len()).unwrap();
        asked
    };
    let answering = std::thread::spawn(move || (0..questions).map(answer).collect());
    (url, answering)
}

#[tokio::test]
async fn what_is_no_failure_is_told_as_failures_are() {
    let vault = vault().await;
    let machine = machine(&vault);
    let login = [("VAULT_TOKEN", ROOT), ("HUSHPOD_TRUST", "1"), ("TOKEN", "mine")];
    let verbose = run(&machine, &["run", "-v", "--", "true"], &login).await;
    let told = text(&verbose.stderr);
    assert!(told.starts_with("hushpod: TOKEN: vault:secret/data/web#token (version 1@"), "{told}");
    for (format, code, is_json) in [("text", "", false), ("json", "note", true)] {
        vault.fail("secret/data/web", 9, Fault::Silence);
        let arguments = ["get", "vault:secret/data/web#token", "--timeout", "1500ms", "--error-format", format];
        let output = run(&machine, &arguments, &login).await;
        vault.heal();
        let told = text(&output.stderr);
        let lines: Vec<_> = told.lines().collect();
        assert!(output.status.code() == Some(5) && lines.len() >= 2, "{told}");
        if !is_json {
            assert_eq!(lines[0], "hushpod: waiting for vault");
            continue;
        }
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!((&lines[0]["code"], &lines[0]["message"]), (&json!(code), &json!("waiting for vault")), "{told}");
        assert_eq!(lines[1]["code"], "unreachable", "{told}");
        let arguments = ["run", "--error-format=json", "--", "true"];
        let replaced = run(&machine, &arguments, &login).await;
        let note: Value = serde_json::from_slice(&replaced.stderr).unwrap();
        assert!(note["message"].as_str().unwrap().contains("TOKEN (--keep"), "{note}");
    }
}

#[tokio::test]
async fn a_job_of_ci_needs_no_credential_that_lives_longer_than_it() {
    let vault = vault().await;
    let machine = machine(&vault);
    let project = fs::read_to_string(machine.project().join(".hushpod.yaml")).unwrap();
    machine.write(".hushpod.yaml", &project.replace("\"type\"", "\"role\":\"ci\",\"type\""));
    let jwt = token::sign(&json!({"aud": ["vault"], "sub": JOB}), 600);
    let trust = ("HUSHPOD_TRUST", "1");
    let gitlab = run(&machine, &PRINT, &[trust, ("HUSHPOD_ID_TOKEN_VAULT", &jwt)]).await;
    assert_eq!((text(&gitlab.stdout).as_str(), text(&gitlab.stderr).as_str()), (CANARY, ""));

    let (url, answering) = github(jwt, 1);
    let runner =
        [trust, ("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "canary-request")];
    let github = run(&machine, &PRINT, &runner).await;
    assert_eq!((text(&github.stdout).as_str(), text(&github.stderr).as_str()), (CANARY, ""));
    let asked = answering.join().unwrap()[0].to_ascii_lowercase();
    assert!(asked.starts_with("get /idtoken?api-version=2.0&audience=vault http/1.1"), "{asked}");
    assert!(asked.contains("authorization: bearer canary-request"), "{asked}");

    let stranger = token::sign(&json!({"aud": ["vault"], "sub": "repo:other/web"}), 600);
    let refused =
        run(&machine, &["get", "vault:secret/data/web#token"], &[trust, ("HUSHPOD_ID_TOKEN_VAULT", &stranger)]).await;
    assert!(refused.status.code() == Some(4) && !text(&refused.stderr).contains(&stranger), "{refused:?}");
    machine
        .write(".hushpod.yaml", &project.replace("\"type\"", "\"role\":\"ci\",\"auth\":{\"method\":\"jwt\"},\"type\""));
    let nobody = run(&machine, &PRINT, &[trust]).await;
    let told = text(&nobody.stderr);
    assert!(nobody.status.code() == Some(125) && told.contains("HUSHPOD_ID_TOKEN_VAULT"), "{told}");
}

#[tokio::test]
async fn p9_a_live_check_tells_a_fault_from_a_store_that_says_nothing() {
    let vault = vault().await;
    let machine = machine(&vault);
    let project = fs::read_to_string(machine.project().join(".hushpod.yaml")).unwrap();
    machine.write("missing.yaml", &project.replace("web#token", "none#token"));
    let trust = ("HUSHPOD_TRUST", "1");
    let (root, wrong) = (("VAULT_TOKEN", ROOT), ("VAULT_TOKEN", "canary-wrong"));
    let silence = || vault.fail("auth/token/lookup-self", 100, Fault::Silence);
    for (file, token, is_silent, code, word, parts) in [
        (".hushpod.yaml", root, false, 0, "", &["nothing is wrong"][..]),
        ("missing.yaml", root, false, 1, "", &["missing.yaml:3:", "TOKEN", "secret/data/none"]),
        // What a login may not see, the pod's may.
        (".hushpod.yaml", wrong, false, 4, "denied", &["vault"]),
        (".hushpod.yaml", root, true, 5, "unreachable", &["waiting for vault", "1.5 s"]),
    ] {
        if is_silent {
            silence();
        }
        let arguments = ["check", "--live", "--timeout", "1500ms", file];
        let output = run(&machine, &arguments, &[trust, token]).await;
        let told = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{file}: {told}");
        assert!(parts.iter().all(|part| told.contains(part)), "{file}: {told}");
        assert!(!told.contains(CANARY) && !told.contains("canary-wrong"), "{told}");
        if code > 1 {
            let output = run(&machine, &[&arguments[..], &["--error-format", "json"]].concat(), &[trust, token]).await;
            let last = text(&output.stderr).lines().last().unwrap_or_default().to_owned();
            let told: Value = serde_json::from_str(&last).unwrap_or_else(|_| panic!("{output:?}"));
            assert_eq!((output.status.code(), &told["code"]), (Some(code), &json!(word)), "{told}");
        }
    }
    // What is certain counts.
    machine.write(
        "web.yaml",
        "kind: Pod\nmetadata: {name: a, annotations: {hushpod.dev/flie.a: 'vault:secret/data/web#token'}}\n\
         spec: {containers: [{name: a}]}\n",
    );
    silence();
    let both =
        run(&machine, &["check", "--live", "--timeout", "1s", ".hushpod.yaml", "web.yaml"], &[trust, root]).await;
    assert!(both.status.code() == Some(1) && text(&both.stdout).contains("did you mean"), "{both:?}");
}

#[tokio::test]
async fn an_approle_logs_in_with_what_is_in_the_environment() {
    let vault = vault().await;
    let machine = machine(&vault);
    let wrong = [("HUSHPOD_TRUST", "1"), ("VAULT_ROLE_ID", "canary-role"), ("VAULT_SECRET_ID", "canary-secret")];
    vault.take_seen();
    let refused = run(&machine, &["get", "vault:secret/data/web#token"], &wrong).await;
    assert!(vault.take_seen().iter().any(|seen| seen.path == "auth/approle/login"), "{refused:?}");
    assert!(!text(&refused.stderr).contains("canary"), "{refused:?}");
}
