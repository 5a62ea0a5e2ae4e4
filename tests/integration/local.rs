//! The commands of a person's machine, as that person runs them: the program itself, with files and a Vault.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

mod ci;
mod copies;
mod crashes;
mod formats;
mod logins;
mod masks;
mod page;
mod private_files;
mod runner;
mod stores;
mod terminals;
mod watching;

/// A home directory, and a project in it.
struct Machine {
    directory: tempfile::TempDir,
}

/// Values that must be seen nowhere but where they were asked for.
const CANARY: &str = "canary-5d1e";

const PROJECT: &str = "\
defaultProvider: files
providers:
  files: {type: file, path: store}
secrets:
  - {file: app.env, from: db.yaml, format: dotenv}
  - {file: tls/key.pem, from: key.pem}
env: [app.env]
variables:
  TOKEN: token
  USER_NAME: {from: 'db.yaml#user', optional: true}
profiles:
  prod: {variables: {TOKEN: prod-token}}
";

impl Machine {
    fn new(project: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let machine = Self { directory };
        fs::create_dir_all(machine.project().join("store")).unwrap();
        fs::create_dir(machine.project().join(".git")).unwrap();
        machine.write(".hushpod.yaml", project);
        machine.write("store/db.yaml", &format!("user: web\nPASSWORD: \"{CANARY} $HOME 'x'\"\n"));
        machine.write("store/token", &format!("{CANARY}-token\n"));
        machine.write("store/prod-token", &format!("{CANARY}-prod"));
        machine.write("store/key.pem", &format!("{CANARY}\nline 2\n"));
        machine
    }

    fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.project().join(file), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod"));
        command.args(arguments).current_dir(self.project()).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.directory.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it printed, if it was quiet about it.
fn quiet(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    text(&output.stdout)
}

#[test]
fn p5_get_prints_the_bytes_and_a_file_is_its_owners() {
    let machine = Machine::new(PROJECT);
    assert_eq!(machine.run(&["get", "token"]).stdout, format!("{CANARY}-token\n").as_bytes());
    assert_eq!(quiet(&machine.run(&["get", "files:db.yaml#user"])), "web");
    assert_eq!(quiet(&machine.run(&["get", "key.pem", "-o", "key"])), "");
    let file = machine.project().join("key");
    assert_eq!(fs::read(&file).unwrap(), fs::read(machine.project().join("store/key.pem")).unwrap());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn p9_exit_codes_tell_what_to_do() {
    let machine = Machine::new(PROJECT);
    for (arguments, code, parts) in [
        (&["get", "nothing"][..], 3, &["files:nothing"][..]),
        (&["get", "db.yaml#nothing"], 3, &["no key", "user"]),
        (&["get", "valut:x"], 2, &["unknown provider \"valut\""]),
        (&["get", "a b"], 2, &["white space"]),
        (&["get", "db.yaml"], 1, &["is a document"]),
        (&["get"], 2, &["<REF>"]),
        (&["get", "token", "-p", "prd"], 2, &["did you mean \"prod\"?"]),
        (&["get", "token", "-f", "none.yaml"], 2, &["none.yaml: cannot be read"]),
        (&["get", "token", "-f", "."], 2, &["hushpod: .: cannot be read"]),
        (&["get", "token", "--container", "app"], 2, &["--file"]),
        (&["run"], 125, &["COMMAND"]),
        (&["run", "--nothing", "--", "true"], 125, &["--nothing"]),
        (&["run", "--env", "1A=x", "--", "true"], 125, &["not a variable's name"]),
        (&["run", "--env", "A=x", "--env", "B=y", "--", "touch", "begun"], 125, &["A: ", "B: "]),
        (&["run", "--only", "NOTHING", "--", "true"], 125, &["NOTHING"]),
        (&["run", "--env", "A=token", "--env", "A=key.pem", "--", "true"], 125, &["--env A", "twice"]),
        (&["run", "--", "./nothing"], 127, &["no such program"]),
        (&["run", "--", "./store"], 126, &["cannot run"]),
        (&["run", "--", "sh", "-c", "exit 42"], 42, &[]),
        (&["export", "--format", "nothing"], 2, &["github"]),
        (&["export", "--format", "github"], 2, &["GITHUB_ENV is not set"]),
        (&["render", "--dir", "none/deep"], 1, &["none/deep"]),
    ] {
        let output = machine.run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(parts.iter().all(|part| told.contains(part)), "{arguments:?}: {told}");
        assert!(!told.contains(CANARY), "{arguments:?}: {told}");
    }
    assert!(!machine.project().join("begun").exists(), "what is missing is told before the command is begun");
    let ended = machine.run(&["run", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(ended.status.signal(), Some(15), "nothing is between the command and who started it");
}

#[test]
fn p9_a_file_that_is_not_there_is_not_waited_for() {
    let machine = Machine::new("defaultProvider: files\nproviders:\n  files: {type: file, path: none.enc.yaml}\n");
    // coreutils': 124 if it was ended.
    let mut command = Command::new("timeout");
    command.args(["120", env!("CARGO_BIN_EXE_hushpod"), "get", "a", "--timeout", "1h"]).current_dir(machine.project());
    let output = command.env("HOME", machine.directory.path()).stdin(Stdio::null()).output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(5) && told.contains("is it there, and mounted?"), "{output:?}");
}

#[test]
fn errors_are_json_for_programs() {
    let machine = Machine::new(PROJECT);
    let output = machine.run(&["run", "--error-format", "json", "--env", "A=nothing", "--env", "B=none", "--", "true"]);
    let told: Value = serde_json::from_slice(&output.stderr).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert_eq!((told["code"].as_str(), told["provider"].as_str()), (Some("missing"), Some("files")), "{told}");
    assert_eq!(told["names"], serde_json::json!(["A", "B"]), "{told}");
    for (words, code, kind, part) in [
        ("get --error-format json", 2, "usage", "<REF>"),
        ("get --error-format json --nothing x", 2, "usage", "--nothing"),
        ("get --error-format json nothing", 3, "missing", "files:nothing"),
        ("run --error-format=json", 125, "usage", "<COMMAND>"),
        ("run --error-format=json -- ./nothing", 127, "no-command", "./nothing"),
        ("run --error-format=json -- ./store", 126, "not-executable", "./store"),
        ("export --error-format json --format nothing", 2, "usage", "github"),
        ("render --error-format json --dir none/deep", 1, "failed", "none/deep"),
        ("trust --error-format json none", 2, "usage", "there is no such file"),
        ("login status --error-format json -p prd", 2, "usage", "did you mean"),
        ("check --error-format json none", 2, "usage", "there is no such file"),
        ("completion --error-format json", 2, "usage", "<SHELL>"),
        ("completion --error-format=json nothing", 2, "usage", "bash"),
        ("man --error-format json", 2, "usage", "<DIR>"),
        ("man --error-format json .hushpod.yaml", 1, "failed", ".hushpod.yaml: "),
        ("explain --error-format json valut", 2, "usage", "vault"),
    ] {
        let output = machine.run(&words.split(' ').collect::<Vec<_>>());
        let told: Value = serde_json::from_slice(&output.stderr).unwrap_or_else(|_| panic!("{words}: {output:?}"));
        assert_eq!((output.status.code(), told["code"].as_str()), (Some(code), Some(kind)), "{words}: {told}");
        assert!(told["message"].as_str().unwrap().contains(part), "{words}: {told}");
    }
    let of_command = machine.run(&["run", "--", "--error-format=json"]);
    assert!(text(&of_command.stderr).starts_with("hushpod: "), "{of_command:?}");
}

#[test]
fn the_command_takes_the_process_over_with_the_variables_of_the_store() {
    let machine = Machine::new(PROJECT);
    let show = ["run", "--", "sh", "-c", "printf '%s|%s|%s' \"$TOKEN\" \"$PASSWORD\" \"$USER_NAME\""];
    let values = quiet(&machine.run(&show));
    assert_eq!(values, format!("{CANARY}-token\n|{CANARY} $HOME 'x'|web"), "nothing is expanded or trimmed");
    let child = machine.command(&["run", "--", "sh", "-c", "echo $$"]).stdout(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout).trim(), id.to_string(), "the same process");

    let token = |arguments: &[&str], shells: Option<&str>| {
        let mut command = machine.command(arguments);
        if let Some(value) = shells {
            command.env("TOKEN", value);
        }
        let output = command.output().unwrap();
        (text(&output.stdout), text(&output.stderr))
    };
    let print = |flags: &[&str]| {
        let mut all = vec!["run"];
        all.extend(flags);
        all.extend(["--", "/bin/sh", "-c", "printf %s \"$TOKEN\""]);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let with = |flags: &[&str], shells| {
        let all = print(flags);
        token(&all.iter().map(String::as_str).collect::<Vec<_>>(), shells)
    };
    let stores = format!("{CANARY}-token\n");
    let (out, told) = with(&[], Some("shell"));
    assert!(out == stores && told.contains("TOKEN") && !told.contains(CANARY) && !told.contains("shell\n"), "{told}");
    assert_eq!(with(&["--keep", "TOKEN"], Some("shell")), ("shell".to_owned(), String::new()));
    assert_eq!(with(&["--keep", "TOKEN"], None).0, stores, "there is nothing to keep");
    assert_eq!(with(&["-p", "prod"], None).0, format!("{CANARY}-prod"));
}

#[test]
fn p5_where_each_variable_comes_from_is_told_if_that_is_asked_for() {
    let machine = Machine::new(PROJECT);
    let told = |arguments: &[&str]| {
        let output = machine.run(arguments);
        assert!(output.status.success(), "{output:?}");
        let told = text(&output.stderr);
        assert!(!told.contains(CANARY) && !told.contains("web"), "{told}");
        told.lines().map(|line| line.strip_prefix("hushpod: ").unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (flags, expected) in [
        (&["-v"][..], &["PASSWORD, user: files:db.yaml", "TOKEN: files:token", "USER_NAME: files:db.yaml#user"][..]),
        (&["--verbose", "--only", "TOKEN"], &["TOKEN: files:token"]),
        (&["-v", "--only", "user", "--prefix", "A_", "--case", "upper"], &["A_USER: files:db.yaml"]),
        (&["-v", "--env", "TOKEN=prod-token", "--only", "TOKEN"], &["TOKEN: files:prod-token"]),
        (&["-v", "--only", "TOKEN", "--env", "USER_NAME=none#x", "-p", "prod"], &["TOKEN: files:prod-token"]),
        (&["--only", "TOKEN"], &[]),
    ] {
        let arguments = [&["run"], flags, &["--", "true"]].concat();
        assert_eq!(told(&arguments), expected, "{flags:?}");
    }
    // `run -- echo "$TOKEN"`: the caller's shell has no such variable, and fills nothing in.
    let empty = told(&["run", "-v", "--only", "TOKEN", "--", "echo", "a", ""]);
    assert!(empty.len() == 2 && empty[1].starts_with("argument 2 of the command is empty"), "{empty:?}");
    assert!(empty[1].contains("sh -c"), "{empty:?}");
}

#[test]
fn names_and_the_rest_of_the_environment_are_as_asked_for() {
    let machine = Machine::new(PROJECT);
    let names = |flags: &[&str]| {
        let mut command = machine.command(&["run"]);
        command.env("MINE", "1").env("HUSHPOD_ID_TOKEN_FILES", CANARY).args(flags).args(["--", "env", "-0"]);
        let out = quiet(&command.output().unwrap());
        let each = out.split('\0').filter_map(|line| line.split_once('='));
        each.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let all = names(&[]);
    assert!(["TOKEN", "PASSWORD", "USER_NAME", "user", "MINE", "PATH"].iter().all(|name| all.contains_key(*name)));
    assert!(!all.contains_key("HUSHPOD_ID_TOKEN_FILES"), "who the job is, is not the command's to know");
    let clean = names(&["--clean", "--pass", "MINE", "--only", "TOKEN"]);
    assert_eq!(clean.keys().collect::<Vec<_>>(), ["MINE", "TOKEN"]);
    let renamed = names(&["--only", "TOKEN,PASSWORD", "--prefix", "TF_VAR_", "--case", "lower", "--clean"]);
    assert_eq!(renamed.keys().collect::<Vec<_>>(), ["TF_VAR_password", "TF_VAR_token"]);
}

#[test]
fn a_laptop_has_what_the_manifest_gives_the_pod() {
    let machine = Machine::new(PROJECT);
    machine.write(
        "web.yaml",
        "kind: Service\n---\nkind: Deployment\nmetadata: {name: web, namespace: team}\nspec:\n  template:\n    metadata:\n      \
         annotations:\n        hushpod.dev/env.POD_TOKEN: token\n        hushpod.dev/dir.db: db.yaml\n        \
         hushpod.dev/role.files: pods-only\n    spec: {containers: [{name: app}]}\n",
    );
    let output = machine.run(&[
        "run",
        "-f",
        "web.yaml",
        "--container",
        "app",
        "--",
        "sh",
        "-c",
        "printf %s \"$POD_TOKEN$TOKEN\"",
    ]);
    assert!(output.status.success() && text(&output.stdout) == format!("{CANARY}-token\n"), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("hushpod.dev/role.files") && told.lines().count() == 1, "{told}");
    let output = machine.run(&["render", "-f", "web.yaml", "--dir", "out"]);
    assert!(output.status.success(), "{output:?}");
    let out = machine.project().join("out");
    assert_eq!(fs::read_to_string(out.join("db/user")).unwrap(), "web");
    assert!(!out.join(".hushpod-env").exists(), "variables are not files");

    machine.write(
        "operator.yaml",
        "image: i\nproviders:\n  files: {type: file, path: /nonexistent, allow: [{namespaces: [other]}]}\n",
    );
    let refused = machine.run(&["run", "-f", "web.yaml", "--config", "operator.yaml", "--", "true"]);
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    assert!(text(&refused.stderr).contains("namespace"), "the operator's rules hold: {refused:?}");
}

#[test]
fn a_project_from_a_pipe_is_read_once() {
    let machine = Machine::new("");
    let store = machine.project().join("store");
    let project =
        format!("providers:\n  files: {{type: file, path: {}}}\nvariables: {{A: files:token}}\n", store.display());
    let mut command = machine.command(&["run", "-f", "/dev/stdin", "--", "printenv", "A"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(project.as_bytes()).unwrap();
    assert_eq!(quiet(&child.wait_with_output().unwrap()).trim(), format!("{CANARY}-token"));
}

#[test]
fn p2_a_rendered_directory_changes_as_a_whole_and_leaves_nothing_behind() {
    let machine = Machine::new(PROJECT);
    let out = machine.project().join("out");
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(quiet(&machine.run(&["render", "--dir", "out"])), "");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o700);
    let before = names();
    assert!(fs::read_to_string(out.join("app.env")).unwrap().contains(CANARY), "{before:?}");
    assert_eq!(fs::read(out.join("tls/key.pem")).unwrap(), fs::read(machine.project().join("store/key.pem")).unwrap());
    machine.write("store/key.pem", "another");
    assert_eq!(quiet(&machine.run(&["render", "--dir", "out"])), "");
    assert_eq!(fs::read(out.join("tls/key.pem")).unwrap(), b"another");
    assert_eq!(names().len(), before.len(), "the generation before is gone: {:?}", names());
}

#[test]
fn p9_a_fault_of_the_project_has_its_place() {
    let machine = Machine::new(PROJECT);
    for (text_of_file, part) in [
        ("variabels: {}\n", ".hushpod.yaml:1:1: unknown field \"variabels\"; did you mean \"variables\"?"),
        ("providers:\n  vault:\n    type: valut\n", ".hushpod.yaml:3:5: providers.vault.type: unknown provider type"),
        ("providers:\n  vault: {type: vault, adress: x}\n", ".hushpod.yaml:2:"),
        ("variables:\n  A: nowhere:x\n", "no file names a store"),
        ("providers:\n  a: &it {type: file, path: x}\n", ".hushpod.yaml:2:"),
        ("providers:\n  a: &it {type: file, path: x}\n", ": has an anchor or alias: write out what it stands for"),
        ("variables:\n  A: !vault secret/data/x\n", ".hushpod.yaml:2:"),
        ("variables:\n  A: !vault secret/data/x\n", ": has a tag: leave it out, or put quotes"),
        ("variables: !include more.yaml\n", ": has a tag: leave it out"),
        ("providers: !!map {a: !!map {type: !!str valut}}\n", "unknown provider type"),
        (
            "providers:\n  a: {type: file, path: x}\nvariables:\n  A: nowhere:x\n",
            ".hushpod.yaml:4:3: \"nowhere:x\": unknown provider",
        ),
    ] {
        machine.write(".hushpod.yaml", text_of_file);
        let output = machine.run(&["run", "--", "true"]);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(125) && told.contains(part), "{text_of_file}: {told}");
    }
    fs::remove_file(machine.project().join(".hushpod.yaml")).unwrap();
    let told = text(&machine.run(&["run", "--", "true"]).stderr);
    assert!(told.contains("there is no .hushpod.yaml here"), "{told}");
}

#[test]
fn every_help_fits_a_terminal_and_begins_with_examples() {
    let machine = Machine::new(PROJECT);
    let of_a_person =
        ["run", "get", "export", "render", "login", "login status", "trust", "check", "completion", "explain", "man"];
    let of_operators = ["demo", "test", "webhook", "csi", "kubectl"];
    let of_the_plugin =
        ["status", "history", "who", "hold", "release", "pin", "refresh", "advance", "explain-denial", "completion"]
            .map(|name| format!("kubectl {name}"));
    let commands = of_a_person.into_iter().chain(of_operators).chain(of_the_plugin.iter().map(String::as_str));
    for command in commands {
        let arguments: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = quiet(&machine.command(&arguments).env("COLUMNS", "80").output().unwrap());
        let at = |part: &str| help.find(part).unwrap_or_else(|| panic!("{command}: no {part}: {help}"));
        assert!(at("Examples:\n  ") < at("Usage:") && at("Usage:") < at("Exit codes:"), "{command}: {help}");
        let widest = help.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(widest.chars().count() <= 80, "{command}: {widest}");
        if command == "run" {
            // Who writes `run -- echo $X` has the shell fill it in before.
            assert!(help.contains("Examples:\n  hushpod run -- sh -c '"), "{help}");
        }
    }
}

#[test]
fn words_of_a_command_arrive_as_they_are() {
    let machine = Machine::new(PROJECT);
    let words = ["a b", "", "$TOKEN", "*", "'", "--", "-x", "a\nb"];
    let print = [&["run", "--", "printf", "<%s>"], &words[..]].concat();
    let expected = format!("<{}>", words.join("><"));
    assert_eq!(quiet(&machine.run(&print)), expected, "there is no shell between");
    let without = machine.run(&["run", "true"]);
    assert!(without.status.code() == Some(125) && text(&without.stderr).contains("-- <COMMAND>"), "{without:?}");
}

#[test]
fn a_working_directory_that_was_removed_is_told() {
    let machine = Machine::new(PROJECT);
    for words in ["check", "get token", "run -- true"] {
        fs::create_dir(machine.project().join("gone")).unwrap();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("cd gone && rmdir ../gone && exec \"$0\" {words}"),
            env!("CARGO_BIN_EXE_hushpod"),
        ]);
        let output = command.current_dir(machine.project()).stdin(Stdio::null()).output().unwrap();
        assert!(
            !output.status.success() && text(&output.stderr).contains("the working directory"),
            "{words}: {output:?}"
        );
    }
}

#[test]
fn what_cannot_be_written_is_told() {
    let machine = Machine::new(PROJECT);
    for arguments in [
        &["get", "token"][..],
        &["export", "--format", "json"],
        &["check"],
        &["check", "-o", "sarif"],
        &["login", "status"],
        &["explain", "mode"],
        &["completion", "bash"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = machine.command(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains("standard output: no storage space"), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_pipe_that_is_full_and_does_not_wait_is_waited_for() {
    let machine = Machine::new(PROJECT);
    let value: Vec<u8> = (0..1_000_003_u32).map(|at| at.to_le_bytes()[1]).collect();
    fs::write(machine.project().join("store/large"), &value).unwrap();
    for arguments in
        [&["get", "large"][..], &["run", "--mask", "always", "--only", "TOKEN", "--", "cat", "store/large"]]
    {
        let (mut from, to) = std::io::pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&to).unwrap();
        rustix::fs::fcntl_setfl(&to, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        let mut command = machine.command(arguments);
        let mut child = command.stdout(to).stderr(Stdio::piped()).spawn().unwrap();
        // It has our end of the pipe as well.
        drop(command);
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut from, &mut read).unwrap();
        assert!(child.wait().unwrap().success() && read == value, "{arguments:?}: {} bytes", read.len());
    }
}

#[test]
fn nobody_but_the_stores_is_asked() {
    let machine = Machine::new(PROJECT);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    for arguments in [
        &["run", "--", "true"][..],
        &["get", "token"],
        &["export", "--format", "shell", "--only", "TOKEN"],
        &["check"],
        &["login", "status"],
        &["--version"],
    ] {
        let mut command = machine.command(arguments);
        for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"] {
            command.env(name, &proxy);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(listener.accept().is_err(), "no telemetry, and no look for updates: {arguments:?}");
    }
}

#[test]
fn p5_no_value_is_shown_on_a_terminal_that_was_not_asked_for() {
    let machine = Machine::new(PROJECT);
    let program = env!("CARGO_BIN_EXE_hushpod");
    for (arguments, is_shown) in [
        ("get token", false),
        ("get token --show", true),
        ("export --format shell --only TOKEN", false),
        ("export --format shell --only TOKEN --show", true),
    ] {
        // util-linux's, which gives the command a pseudo-terminal.
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{program} {arguments}"), "/dev/null"]).current_dir(machine.project());
        let Ok(output) = script.stdin(Stdio::null()).env("HOME", machine.directory.path()).output() else {
            eprintln!("skipped: there is no script(1) here");
            return;
        };
        let told = text(&output.stdout);
        assert_eq!(told.contains(CANARY), is_shown, "{arguments}: {told}");
        assert!(is_shown || told.contains("is a terminal"), "{arguments}: {told}");
    }
}
