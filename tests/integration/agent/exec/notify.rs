//! The parent as the one that notifies, where a pod has no agent.

use std::net::TcpListener;
use std::sync::mpsc::Receiver;

use super::super::serve;
use super::*;

/// A server in the same pod: the option that names it, and what it is sent.
fn listener() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let option = format!("--notify=http:http://localhost:{}/reload", listener.local_addr().unwrap().port());
    (option, serve(listener))
}

fn body(requests: &Receiver<String>) -> String {
    let request = requests.recv_timeout(crate::agent::pod::PATIENCE).unwrap();
    assert!(request.starts_with("POST /reload HTTP/1.1\r\n"), "{request}");
    request.rsplit_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn every_change_is_told_and_the_parent_is_as_it_was() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let (option, requests) = listener();
    let script = format!("trap 'echo hup' HUP; trap 'exit 9' TERM; {LOOP}");
    let mut running = Running::start(&volume, &[&option], &script);
    until("it runs", || volume.log().contains("started with 1"));
    // Variables change, another file does, and a pin goes back.
    volume.write("g2", &[("a.env", b"A=2\n")]);
    assert_eq!(body(&requests), "{\"generation\":\"g2\"}", "nothing was told before the first change");
    volume.write("g3", &[("a.env", b"A=2\n"), ("other", b"x")]);
    assert_eq!(body(&requests), "{\"generation\":\"g3\"}");
    volume.write("g1~1", &[("a.env", b"A=1\n")]);
    assert_eq!(body(&requests), "{\"generation\":\"g1\"}");
    until("it is said", || volume.log().contains("hushpod-agent exec: generation g1: \"http:http://localhost:"));
    running.signal(Signal::HUP);
    until("HUP was passed on", || volume.log().contains("hup"));
    running.signal(Signal::TERM);
    assert_eq!(running.code(), Some(9));
    assert_eq!(volume.termination(), "");
}

#[test]
fn who_does_not_answer_holds_nothing_back() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let option = format!("--notify=http:http://127.0.0.1:{}/", silent.local_addr().unwrap().port());
    let script = format!("trap 'echo hup' HUP; {LOOP}");
    let mut running = Running::start(&volume, &[&option, "--on-change=restart"], &script);
    until("it runs", || volume.log().contains("started"));
    volume.write("g2", &[("a.env", b"A=1\n"), ("other", b"x")]);
    let _asked = silent.accept().unwrap();
    running.signal(Signal::HUP);
    until("HUP was passed on", || volume.log().contains("hup"));
    volume.write("g3", &[("a.env", b"A=2\n")]);
    assert_eq!(running.code(), Some(75), "{}", volume.log());
    assert_eq!(volume.termination(), "restarted for generation g3 (ran with g1)");
    assert!(!volume.log().contains("was told") && !volume.log().contains("no answer within"), "{}", volume.log());
}

#[test]
fn a_change_that_restarts_is_not_told_and_one_that_takes_it_back_is() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let (option, requests) = listener();
    let mut running = Running::start(&volume, &[&option, "--on-change=restart", "--jitter=1d"], LOOP);
    until("it runs", || volume.log().contains("started"));
    volume.write("g2", &[("a.env", b"A=2\n")]);
    until("it has a moment", || volume.log().contains("generation g2 is there: restart in "));
    volume.write("g3", &[("a.env", b"A=1\n")]);
    assert_eq!(body(&requests), "{\"generation\":\"g3\"}", "the first that is told");
    running.signal(Signal::TERM);
    assert_eq!(running.code(), Some(143));
}

#[test]
fn signals_reach_processes_of_a_name_and_never_the_parent() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    // Names of their own: other tests have processes, too.
    let own = |kind: &str| format!("hp{kind}{}", std::process::id());
    let (application, parent) = (own("a"), own("p"));
    // The kernel takes a process's name from the path that is executed.
    symlink(env!("CARGO_BIN_EXE_hushpod-exec"), volume.path(&parent)).unwrap();
    symlink("/bin/sh", volume.path(&application)).unwrap();
    let script = format!("trap 'echo told' USR1; {LOOP}");
    let log = fs::File::create(volume.path("log")).unwrap();
    let mut command = Command::new(volume.path(&parent));
    command.args(["exec", "--env"]).arg(volume.path("a.env"));
    command.arg(format!("--notify=signal:USR1:{application}")).arg(format!("--notify=signal:TERM:{parent}"));
    command.arg("--").arg(volume.path(&application)).args(["-c", &script]);
    let mut running = Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    until("it runs", || volume.log().contains("started"));
    volume.write("g2", &[("a.env", b"A=1\n")]);
    until("the application was told", || volume.log().lines().any(|line| line == "told"));
    let absent = format!("generation g2: \"signal:TERM:{parent}\" was not told yet");
    until("its parent found no other", || volume.log().contains(&absent));
    assert!(volume.log().contains(&format!("no process named {parent:?} runs as uid")), "{}", volume.log());
    running.signal(Signal::TERM);
    assert_eq!(running.code(), Some(143), "{}", volume.log());
}

#[test]
fn on_change_and_notify_are_both_heard() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let (option, requests) = listener();
    let script = format!("trap 'echo usr1' USR1; {LOOP}");
    let _running = Running::start(&volume, &[&option, "--on-change=signal:USR1"], &script);
    until("it runs", || volume.log().contains("started"));
    volume.write("g2", &[("a.env", b"A=2\n")]);
    assert_eq!(body(&requests), "{\"generation\":\"g2\"}");
    until("the signal", || volume.log().contains("usr1"));
    // Outside of a volume nothing changes that a parent could see.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("plain.env"), "A=1\n").unwrap();
    let env = format!("--env={}", elsewhere.path().join("plain.env").display());
    let (code, _, errors) = output(volume.exec(&[&env, &option, "--", "true"]));
    assert!(code == 125 && errors.contains("--notify need files of hushpod's volume"), "{code} {errors}");
}
