//! The real `hushpod-agent` binary on the `file` provider, as kubelet would run it, without kubelet.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc;

use hushpod::config::Config;
use hushpod::plan::{Identity, Plan};
use rustix::process::{Pid, Signal, kill_process};

mod exec;
mod pod;

use pod::{Pod, until};

const CANARY: &str = "canary-7f3a";

#[test]
fn p7_a_sidecar_opens_the_gate_and_keeps_the_file_fresh_until_sigterm() {
    let pod = Pod::new();
    pod.store("token", CANARY);
    let mut agent = pod.start("sidecar");
    pod.until_file(CANARY);
    pod.store("token", "second");
    pod.until_file("second");
    assert_eq!(agent.terminate(), Some(0));
    assert_eq!(pod.file(), "second", "the files outlive the agent");
    assert!(!pod.termination_log().exists());
}

#[test]
fn p9_where_there_is_no_pod_the_programs_say_what_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    let nowhere = empty.path().join("no/volume");
    let nowhere = nowhere.to_str().unwrap();
    let log = format!("--termination-log={}", empty.path().join("log").display());
    let of_agent = |word: &'static str| [word, "--volume", nowhere, log.as_str()].map(str::to_owned).to_vec();
    let (agent, exec) = (env!("CARGO_BIN_EXE_hushpod-agent"), env!("CARGO_BIN_EXE_hushpod-exec"));
    for (program, words, code, part) in [
        (agent, of_agent("sidecar"), 2, "there is no plan"),
        (agent, of_agent("init"), 2, "there is no plan"),
        (agent, vec!["help".to_owned()], 0, "Usage: hushpod-agent"),
        (exec, vec![], 125, "a command is missing"),
        (exec, vec!["help".to_owned()], 125, "unknown command help"),
    ] {
        let told = Command::new(program).args(&words).env_clear().output().unwrap();
        let text = String::from_utf8([told.stdout, told.stderr].concat()).unwrap();
        assert!(told.status.code() == Some(code) && text.contains(part), "{program} {words:?}: {text}");
    }
}

#[test]
fn p5_no_log_line_shows_a_value_at_any_level() {
    for format in ["text", "json"] {
        let pod = Pod::new();
        pod.store("token", CANARY);
        let mut agent = pod.command("sidecar").arg("--log-level=trace").arg("--log-format").arg(format).run();
        pod.until_file(CANARY);
        pod.store("token", "canary-second");
        pod.until_file("canary-second");
        agent.terminate();
        let log = agent.log();
        assert!(log.contains("delivered"), "{log}");
        assert!(!log.contains("canary"), "{log}");
    }
}

#[test]
fn p3_a_killed_agent_adopts_its_files_and_goes_on() {
    let pod = Pod::new();
    pod.store("token", "first");
    let mut agent = pod.start("sidecar");
    pod.until_file("first");
    let generation = pod.generation();
    agent.kill();
    assert_eq!(pod.file(), "first");
    let mut agent = pod.start("sidecar");
    agent.until_log("the same as before");
    assert_eq!(pod.generation(), generation, "no new generation without a change");
    pod.store("token", "second");
    pod.until_file("second");
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn p4_init_fetches_once_and_a_sidecar_takes_over() {
    let pod = Pod::new();
    pod.store("token", "first");
    assert_eq!(pod.start("init").wait(), Some(0));
    assert_eq!(pod.file(), "first");
    let generation = pod.generation();
    let mut agent = pod.start("sidecar");
    agent.until_log("the same as before");
    assert_eq!(pod.generation(), generation);
    pod.store("token", "second");
    pod.until_file("second");
    assert_eq!(agent.terminate(), Some(0));
}

/// A file that the real age or sops wrote.
fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sops").join(name)).unwrap()
}

/// One file `token` with the value of the store's `token.age`, which other settings of the store open.
fn encrypted(pod: &Pod, settings: &str) -> String {
    planned(pod, settings, "file.token", "files:token.age")
}

/// One item of the store, which may have other settings.
fn planned(pod: &Pod, settings: &str, item: &str, reference: &str) -> String {
    let (store, keys) = (pod.path("store"), pod.path("keys"));
    let config = format!(
        "image: x\nproviders:\n  keys: {{type: file, path: {}}}\n  files: {{type: file, path: {}{settings}}}\n",
        keys.display(),
        store.display()
    );
    let annotations = [(format!("hushpod.dev/{item}"), reference.to_owned())].into();
    let (bundle, options) = hushpod::annotations::parse(&annotations).unwrap();
    let identity = Identity { namespace: "team".to_owned(), service_account: "web".to_owned() };
    let plan = Plan::build(identity, &bundle, &options, &Config::from_yaml(&config).unwrap()).unwrap();
    plan.to_json().unwrap()
}

#[test]
fn p3_p5_an_identity_of_another_provider_opens_files_and_is_replaced_in_place() {
    for mode in ["sidecar", "init"] {
        let pod = Pod::new();
        fs::create_dir(pod.path("keys")).unwrap();
        let put = |name: &str, content: &[u8]| {
            fs::write(pod.path("new"), content).unwrap();
            fs::rename(pod.path("new"), pod.path(name)).unwrap();
        };
        put("keys/age.txt", &fixture("other.txt"));
        put("store/token.age", &fixture("theirs.age"));
        let plan = encrypted(&pod, ", identity: 'keys:age.txt'");
        let mut agent = pod.command(mode).env("HUSHPOD_PLAN", &plan).arg("--log-level=trace").run();
        pod.until_file("canary\n");
        if mode == "init" {
            assert_eq!(agent.wait(), Some(0));
            continue;
        }
        put("store/token.age", &fixture("db.yaml.age"));
        agent.until_log("not encrypted to the provider's age identity");
        assert_eq!(pod.file(), "canary\n", "the last good file stays");
        put("keys/age.txt", &fixture("identity.txt"));
        pod.until_file("password: canary\n");
        agent.terminate();
        let log = agent.log();
        assert!(!log.contains("canary") && !log.to_uppercase().contains("AGE-SECRET-KEY-1"), "{log}");
    }
}

#[test]
fn p3_a_bad_file_of_a_directory_is_left_out_unless_it_was_good() {
    let pod = Pod::new();
    fs::create_dir(pod.path("store/app")).unwrap();
    let lead_out = || {
        symlink("/etc/hostname", pod.path("new")).unwrap();
        fs::rename(pod.path("new"), pod.path("store/app/other")).unwrap();
    };
    let file = |name: &str| fs::read_to_string(pod.live().join("d").join(name)).ok();
    let until_files = |good: &str, other: Option<&str>| {
        until(&format!("{good} and {other:?}"), || {
            file("good").as_deref() == Some(good) && file("other").as_deref() == other
        });
    };
    pod.store("app/good", "1");
    lead_out();
    let plan = planned(&pod, "", "dir.d", "files:app");
    let mut agent = pod.command("sidecar").env("HUSHPOD_PLAN", &plan).run();
    until_files("1", None);
    agent.until_log("cannot be had: a symbolic link on its way leads out of the store");
    pod.store("app/good", "2");
    until_files("2", None);
    pod.store("app/other", "3");
    until_files("2", Some("3"));
    lead_out();
    agent.until_log("the last good ones stay");
    pod.store("app/good", "4");
    agent.kill();
    let mut agent = pod.command("sidecar").env("HUSHPOD_PLAN", &plan).run();
    agent.until_log("the last good ones stay");
    assert_eq!((file("good").as_deref(), file("other").as_deref()), (Some("2"), Some("3")));
    pod.store("app/other", "5");
    until_files("4", Some("5"));
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn p9_on_a_machine_the_identity_is_where_sops_looks_for_it() {
    let key = String::from_utf8(fixture("identity.txt")).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sops/identity.txt");
    let file = file.to_str().unwrap();
    for (settings, variable) in [
        ("", Some(("SOPS_AGE_KEY", key.as_str()))),
        ("", Some(("SOPS_AGE_KEY_FILE", file))),
        (&format!(", identityFile: {file}"), None),
        ("", Some(("XDG_CONFIG_HOME", "config"))),
        ("", None),
    ] {
        let pod = Pod::new();
        fs::write(pod.path("store/token.age"), fixture("token.age")).unwrap();
        let mut invocation =
            pod.command("init").env("HUSHPOD_PLAN", &encrypted(&pod, settings)).env("HOME", "/nowhere");
        match variable {
            Some(("XDG_CONFIG_HOME", below)) => {
                fs::create_dir_all(pod.path(below).join("sops/age")).unwrap();
                fs::write(pod.path(below).join("sops/age/keys.txt"), &key).unwrap();
                invocation = invocation.env("XDG_CONFIG_HOME", pod.path(below).to_str().unwrap());
            }
            Some((name, value)) => invocation = invocation.env(name, value),
            None => {}
        }
        let mut agent = invocation.run();
        if variable.is_some() || !settings.is_empty() {
            assert_eq!(agent.wait(), Some(0), "{settings} {variable:?}: {}", agent.log());
            assert_eq!(pod.file(), "canary\n");
        } else {
            assert_eq!(agent.wait(), Some(1));
            let message = fs::read_to_string(pod.termination_log()).unwrap();
            assert!(message.contains("token.age: it is encrypted") && message.contains("identityFile"), "{message}");
        }
    }
}

#[test]
fn ready_waits_for_the_gate_and_always_succeeds() {
    let pod = Pod::new();
    assert_eq!(pod.command("ready").run().wait(), Some(0));
    assert_eq!(pod.command("ready").arg("--wait=50ms").run().wait(), Some(0));
    let mut waiting = pod.command("ready").arg("--wait=600s").run();
    assert!(waiting.is_running());
    pod.store("token", "first");
    assert_eq!(pod.start("init").wait(), Some(0));
    assert_eq!(waiting.wait(), Some(0), "as soon as the gate is open");
}

#[test]
fn p7_a_refused_secret_ends_the_agent_with_a_termination_message_and_the_gate_closed() {
    for mode in ["sidecar", "init"] {
        let pod = Pod::new();
        assert_eq!(pod.start(mode).wait(), Some(1));
        let message = fs::read_to_string(pod.termination_log()).unwrap();
        assert!(message.contains("files:token"), "{message}");
        assert!(fs::metadata(pod.live()).is_err(), "a dangling link");
    }
}

#[test]
fn p9_what_cannot_work_is_refused_with_an_exit_code_and_a_sentence() {
    let pod = Pod::new();
    assert_eq!(pod.command("sidecar").env("HUSHPOD_PLAN", "{}").run().wait(), Some(2));
    let message = fs::read_to_string(pod.termination_log()).unwrap();
    assert!(message.contains("HUSHPOD_PLAN is damaged"), "{message}");
    assert!(fs::metadata(pod.live()).is_err(), "the gate is closed before anything can fail");
    assert!(fs::symlink_metadata(pod.live()).is_ok());

    // What kubelet makes for a container that runs before the agent and mounts the files.
    fs::remove_file(pod.live()).unwrap();
    fs::create_dir(pod.live()).unwrap();
    assert_eq!(pod.start("sidecar").wait(), Some(3));
    let message = fs::read_to_string(pod.termination_log()).unwrap();
    assert!(message.contains("a container that runs before the agent"), "{message}");
}

#[test]
fn controls_hold_release_and_refresh() {
    let pod = Pod::new();
    pod.store("token", "first");
    let mut agent = pod.start("sidecar");
    pod.until_file("first");
    pod.annotate(&["hushpod.dev/hold=\"true\"", "other.dev/a=\"b\""]);
    // Every line has `held=…`: only the event itself says that the hold is in force.
    agent.until_log("event=\"held\"");
    pod.store("token", "second");
    pod.annotate(&["hushpod.dev/hold=\"true\"", "hushpod.dev/refresh-now=\"1\""]);
    agent.until_log("refresh_now");
    // A read came back after the change: the hold is what keeps the file.
    pod.annotate(&["hushpod.dev/hold=\"true\"", "hushpod.dev/refresh-now=\"2\"", "hushpod.dev/pin=\"a b\""]);
    agent.until_log("an invalid live control");
    assert_eq!(pod.file(), "first");
    pod.annotate(&[]);
    pod.until_file("second");
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn pin_rolls_back_to_the_generation_that_is_still_there() {
    let pod = Pod::new();
    pod.store("token", "first");
    let mut agent = pod.command("sidecar").arg("--grace=3s").run();
    pod.until_file("first");
    let first = pod.generation();
    pod.store("token", "second");
    pod.until_file("second");
    pod.annotate(&[&format!("hushpod.dev/pin=\"{first}\"")]);
    pod.until_file("first");
    assert_eq!(pod.generation(), first);
    pod.annotate(&["hushpod.dev/pin=\"\""]);
    pod.until_file("second");
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn a_signal_follows_the_swap() {
    let pod = Pod::notifying("signal:USR1:hp-app-signal");
    pod.store("token", "first");
    let mut agent = pod.start("sidecar");
    pod.until_file("first");
    let mut app = named_process(&pod, "hp-app-signal");
    pod.store("token", "second");
    assert_eq!(app.wait().unwrap().signal(), Some(10), "SIGUSR1");
    assert_eq!(pod.file(), "second", "the file first, then the signal");
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn an_application_that_was_not_told_is_told_by_the_next_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let pod = Pod::notifying(&format!("http://{address}/reload"));
    pod.store("token", "first");
    let mut agent = pod.start("sidecar");
    pod.until_file("first");
    pod.store("token", "second");
    agent.until_log("notify_failed");
    agent.kill();

    let requests = serve(TcpListener::bind(address).unwrap());
    let mut agent = pod.start("sidecar");
    let request = requests.recv_timeout(pod::PATIENCE).unwrap();
    assert!(request.contains(&format!("{{\"generation\":\"{}\"}}", pod.generation())), "{request}");
    agent.until_log("the application was told");
    assert_eq!(agent.terminate(), Some(0));
    // Told once: a further restart has nothing to say.
    let mut agent = pod.start("sidecar");
    agent.until_log("the same as before");
    assert_eq!(agent.terminate(), Some(0));
    assert!(requests.try_recv().is_err());
}

#[test]
fn core_dumps_are_off() {
    let pod = Pod::new();
    pod.store("token", "first");
    let agent = pod.start("sidecar");
    pod.until_file("first");
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

/// A process that runs for a minute unless a signal ends it.
fn named_process(pod: &Pod, name: &str) -> Child {
    let program = pod.path(name);
    symlink("/bin/sleep", &program).unwrap();
    let child = Command::new(program).arg0("sleep").arg("60").spawn().unwrap();
    until("the process has its name", || {
        fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|comm| comm.trim() == name)
    });
    child
}

/// Answers every request with 204 and hands it out.
fn serve(listener: TcpListener) -> mpsc::Receiver<String> {
    let (requests, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut request, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                request.push_str(&line);
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            request.push_str(std::str::from_utf8(&body).unwrap());
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            if requests.send(request).is_err() {
                return;
            }
        }
    });
    seen
}

/// One request, as kubelet and Prometheus send it: the status line's code, and the body.
fn ask(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn the_port_tells_which_generation_an_application_runs_with_while_it_does() {
    for on_change in ["none", "signal:WINCH"] {
        let (pod, port) = Pod::with_metrics();
        pod.store("token", "A=1\n");
        // The init container offers the lock: an application may start before the sidecar is ready.
        assert_eq!(pod.start("init").wait(), Some(0));
        let first = pod.generation();
        let mut application = Command::new(env!("CARGO_BIN_EXE_hushpod-exec"))
            .args(["exec", "--on-change", on_change, "--env"])
            .arg(pod.live().join("token"))
            .args(["--", "sleep", "1000"])
            .spawn()
            .unwrap();
        let mut agent = pod.start("sidecar");
        let answers = |expected: (u16, String)| {
            until(&format!("{expected:?}"), || ask(port, "/generations").as_ref() == Some(&expected));
        };
        answers((200, format!("running with generation {first}, newest {first}")));
        pod.store("token", "A=2\n");
        pod.until_file("A=2\n");
        let second = pod.generation();
        answers((300, format!("running with generation {first}, newest {second}")));
        // What it says is in the volume: another agent says the same.
        agent.kill();
        agent = pod.start("sidecar");
        answers((300, format!("running with generation {first}, newest {second}")));
        let (status, metrics) = ask(port, "/metrics").unwrap();
        assert_eq!(status, 200);
        assert!(metrics.contains("\nhushpod_outdated_generations 1\n"), "{metrics}");
        let page = crate::readme::page("src/metrics.md");
        for name in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
            assert!(page.contains(&format!("\n| `{name}` |")), "{name} is not on the page");
        }
        // A parent passes it on.
        kill_process(Pid::from_child(&application), Signal::TERM).unwrap();
        application.wait().unwrap();
        answers((200, format!("running with generation none, newest {second}")));
        assert_eq!(agent.terminate(), Some(0));
    }
}
