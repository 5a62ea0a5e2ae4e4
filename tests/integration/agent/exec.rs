//! The real `hushpod-agent exec`, as a container's command, on volumes that the real writer's protocol made.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::pod::{Pod, until};

mod notify;

/// A volume that a test fills generation by generation.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a generation in place, as `AtomicVolume` does.
    fn write(&self, id: &str, files: &[(&str, &[u8])]) {
        let directory = self.path(&format!("..{id}"));
        for (name, bytes) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
            let top = name.split('/').next().unwrap();
            drop(symlink(format!("..data/{top}"), self.path(top)));
        }
        symlink(format!("..{id}"), self.path("..link")).unwrap();
        fs::rename(self.path("..link"), self.path("..data")).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// `exec` with these words behind it; both programs are the same.
    fn exec(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod-exec"));
        fs::write(self.path("termination-log"), "").unwrap();
        command.arg("exec").arg("--termination-log").arg(self.path("termination-log"));
        command.args(words.iter().map(|word| word.replace("{}", self.root().to_str().unwrap())));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command
    }

    fn termination(&self) -> String {
        fs::read_to_string(self.path("termination-log")).unwrap()
    }
}

fn output(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn values_are_exact_and_what_was_ours_is_dropped() {
    let volume = Volume::new();
    let awkward = b"l1\nl2 \"q\" 'a' $HOME \\ \xff\xfe\t ";
    let env = "A='it'\\''s'\nB=\"x\\ny\"\nHOME=from-file\nLATER=file\n";
    volume
        .write("g1", &[("app.env", env.as_bytes()), (".hushpod-env/AWKWARD", awkward), (".hushpod-env/LATER", b"one")]);
    let words = ["--env", "{}/app.env", "--env={}/.hushpod-env", "--keep", "HOME", "--", "env", "-0"];
    let mut command = volume.exec(&words);
    command.env("HUSHPOD_PLAN", "{}").env("HOME", "/own").env("B", "image's");
    let found = command.output().unwrap().stdout;
    let entries: Vec<_> = found.split(|byte| *byte == 0).collect();
    let mut expected = vec![b"AWKWARD=".to_vec()];
    expected[0].extend(awkward);
    for text in ["A=it's", "B=x\ny", "HOME=/own", "LATER=one", "HUSHPOD_GENERATION=g1"] {
        expected.push(text.as_bytes().to_vec());
    }
    for entry in expected {
        assert!(entries.contains(&&entry[..]), "{}", String::from_utf8_lossy(&entry));
    }
    assert!(!entries.iter().any(|entry| entry.starts_with(b"HUSHPOD_PLAN")));
}

#[test]
fn no_process_stays_and_the_exit_code_is_the_applications() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let mut child = volume.exec(&["--env", "{}/a.env", "--", "sleep", "60"]).current_dir("/").spawn().unwrap();
    let comm = format!("/proc/{}/comm", child.id());
    until("the command runs", || fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() == "sleep"));
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", child.id())).unwrap(), Path::new("/"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15), "by the signal itself: there is nobody in between");
    for (command, code) in [(&["sh", "-c", "exit 7"][..], 7), (&["no-such-program"], 127), (&["/etc/passwd"], 126)] {
        let words = [&["--env", "{}/a.env", "--"], command].concat();
        let (found, _, errors) = output(volume.exec(&words));
        assert_eq!(found, code, "{errors}");
        assert_eq!(volume.termination().contains(command[0]), code > 7);
    }
}

#[test]
fn p5_p9_what_makes_no_variables_is_refused_without_a_value() {
    let volume = Volume::new();
    let large = b"canary".repeat(30_000);
    for (name, bytes, part) in [
        ("a.env", &b"PATH=canary\n"[..], "line 1: the key is reserved: it decides"),
        ("a.env", b"HUSHPOD_X=canary\n", "the key is reserved"),
        ("a.env", b"a.b=canary\n", "not a variable's name"),
        ("a.env", b"A='canary", "line 1: a ' is not closed"),
        ("a.env", b"A=canary\0\n", "NUL byte"),
        ("dir/A", &large, "over the kernel's limit of 131072"),
        ("dir/tls.crt", b"canary", "not a variable's name"),
        ("other", b"", "no such file"),
    ] {
        let volume = Volume::new();
        volume.write("g1", &[(name, bytes)]);
        let source = if name.starts_with("dir") { "{}/dir" } else { "{}/a.env" };
        let (code, _, errors) = output(volume.exec(&["--env", source, "--", "echo", "started"]));
        assert_eq!(code, 125, "{errors}");
        assert!(errors.contains(part) && !errors.contains("canary"), "{part}: {errors}");
        // What is a key of the store is told in the log alone.
        let told = errors
            .trim_end()
            .replace("\"A\" takes", "one of its files takes")
            .replace("\"tls.crt\"", "one of its files");
        assert_eq!(volume.termination(), told, "kubectl describe pod shows it");
    }
    for (files, expected) in [(8, 0), (9, 125)] {
        let volume = Volume::new();
        let names: Vec<_> = (0..files).map(|number| format!("dir/A{number}")).collect();
        volume.write("g1", &names.iter().map(|name| (name.as_str(), &large[..120_000])).collect::<Vec<_>>());
        let (code, _, errors) = output(volume.exec(&["--env", "{}/dir", "--", "echo", "started"]));
        assert_eq!(
            (code, errors.contains("all variables together take")),
            (expected, expected > 0),
            "{files}: {errors:.200}"
        );
        assert!(!errors.contains("canary"), "{files}");
    }
    let (code, out, errors) = output(volume.exec(&["--optional-env={}/none.env", "--", "echo", "started"]));
    assert_eq!((code, out.as_str()), (0, "started\n"), "{errors}");
    let (code, help, _) = output(volume.exec(&["--help"]));
    assert!(code == 125 || help.contains("Usage"), "{help}");
}

#[test]
fn p2_all_variables_are_of_one_generation() {
    let volume = Volume::new();
    volume.write("g0", &[("a.env", b"A=0\n"), ("b.env", b"B=0\n")]);
    let mut writer = Command::new("sh");
    // Generations come and go as fast as a shell can make them.
    let script = "i=0; while :; do i=$((i+1)); mkdir ..g$i; echo A=$i >..g$i/a.env; echo B=$i >..g$i/b.env; \
                  ln -s ..g$i ..l; mv -T ..l ..data; [ $i -lt 4 ] || rm -r ..g$((i-3)); done";
    let mut writer = writer.args(["-c", script]).current_dir(volume.root()).stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..100 {
        let words = ["--env", "{}/a.env", "--env", "{}/b.env", "--", "sh", "-c", "echo $A $B $HUSHPOD_GENERATION"];
        let (code, found, errors) = output(volume.exec(&words));
        assert_eq!(code, 0, "{errors}");
        let parts: Vec<_> = found.split_whitespace().collect();
        assert!(parts[0] == parts[1] && parts[2] == format!("g{}", parts[0]), "{found}");
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
}

/// A child that is killed when the test is over, with what it started.
struct Running(Child);

impl Running {
    fn start(volume: &Volume, options: &[&str], script: &str) -> Self {
        let words = [&["--env", "{}/a.env"], options, &["--", "sh", "-c", script]].concat();
        let log = fs::File::create(volume.path("log")).unwrap();
        let child = volume.exec(&words).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        until("it ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The application does not end with its parent.
        let id = self.0.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
            // It may have ended by itself.
            let _ = kill_process(child, Signal::KILL);
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

const LOOP: &str = "echo started with $A; while :; do sleep 0.05; done";

#[test]
fn restart_ends_the_application_when_its_variables_change_and_only_then() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let script = format!("trap 'echo bye; exit 0' TERM; {LOOP}");
    let mut running = Running::start(&volume, &["--on-change", "restart"], &script);
    until("it runs", || volume.log().contains("started with 1"));
    volume.write("g2", &[("a.env", b"A=1\n"), ("other", b"x")]);
    // A broken generation comes after it in the log: by then the equal one was looked at.
    volume.write("g3", &[("a.env", b"PATH=x\n")]);
    until("it says so", || volume.log().contains("g3 makes no variables, so the application runs on: "));
    assert!(!volume.log().contains("bye"), "{}", volume.log());
    volume.write("g4", &[("a.env", b"A=2\n")]);
    assert_eq!(running.code(), Some(75), "{}", volume.log());
    assert!(volume.log().contains("bye"), "SIGTERM first");
    assert_eq!(volume.termination(), "restarted for generation g4 (ran with g1)");
}

#[test]
fn restart_waits_for_its_moment_and_forgets_it_if_the_change_is_taken_back() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let mut running = Running::start(&volume, &["--on-change=restart", "--jitter=1d"], LOOP);
    until("it runs", || volume.log().contains("started"));
    volume.write("g2", &[("a.env", b"A=2\n")]);
    until("it has a moment", || volume.log().contains("generation g2 is there: restart in "));
    volume.write("g3", &[("a.env", b"A=1\n")]);
    until("it has none", || volume.log().contains("generation g3 has the variables that the application runs with"));
    volume.write("g4", &[("a.env", b"A=3\n")]);
    until("it has another", || volume.log().contains("generation g4 is there: restart in "));
    running.signal(Signal::TERM);
    assert_eq!(running.code(), Some(143), "the end is somebody else's now");
    assert_eq!(volume.termination(), "");
}

#[test]
fn an_application_that_does_not_end_is_killed_after_its_grace() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let script = format!("trap '' TERM; {LOOP}");
    let mut running = Running::start(&volume, &["--on-change=restart", "--grace=200ms"], &script);
    until("it runs", || volume.log().contains("started"));
    volume.write("g2", &[("a.env", b"A=2\n")]);
    assert_eq!(running.code(), Some(75), "{}", volume.log());
}

#[test]
fn p5_neither_values_nor_names_of_a_store_reach_a_termination_message() {
    let long = "9".repeat(200_000);
    for (file, bytes, log, public) in [
        // Raw values that look like the beginning of a dotenv file.
        ("raw", "canary", "line 1: there is no KEY=value", "line 1: there is no KEY=value"),
        ("raw", "Y2FuYXJ5LQ==", "", ""),
        ("raw", "canary-Q==", "line 1: the key is not a variable's name", "line 1: the key is not"),
        ("raw", "canary.x=1", "line 1: the key is not a variable's name", "line 1: the key is not"),
        ("raw", "A=1\nLD_canary=1", "line 2: the key is reserved", "line 2: the key is reserved"),
        ("raw", "canary=1\0", "line 1: the value has a NUL", "line 1: the value has a NUL"),
        ("raw", "a canary=1", "line 1: a key has letters", "line 1: a key has letters"),
        // Files whose names are the store's keys …
        (
            "dir/STORE-canary",
            "1",
            "\"STORE-canary\" is not a variable's name",
            "one of its files is not a variable's name",
        ),
        ("dir/LD_canary", "1", "\"LD_canary\" is reserved (LD_*)", "one of its files is reserved: it decides"),
        ("dir/canary", "\0", "\"canary\" has a NUL byte", "one of its files has a NUL byte"),
        ("dir/canary", &long, "\"canary\" takes 200008 bytes", "one of its files takes 200008 bytes"),
        ("dir/STORE\n\u{202e}canary", "1", "\"STORE\\n\\u{202e}canary\"", "one of its files is not a variable's name"),
        // … or the tenant's own words.
        (".hushpod-env/TENANT", "\0", "\"TENANT\" has a NUL byte", "\"TENANT\" has a NUL byte"),
    ] {
        let volume = Volume::new();
        volume.write("g1", &[(file, bytes.as_bytes())]);
        let top = file.split('/').next().unwrap();
        let (code, _, errors) = output(volume.exec(&[&format!("--env={{}}/{top}"), "--", "true"]));
        let (told, is_named) = (volume.termination(), file.contains("canary"));
        assert_eq!(code, if log.is_empty() { 0 } else { 125 }, "{file}: {errors}");
        assert!(errors.contains(log) && told.contains(public), "{file}: {errors}{told}");
        assert!(!told.contains("canary") && (is_named || !errors.contains("canary")), "{file}: {errors}{told}");
        // Where there is no termination message, kubelet may take the log for one.
        fs::remove_file(volume.path("termination-log")).unwrap();
        let mut command = volume.exec(&[&format!("--env={{}}/{top}"), "--", "true"]);
        fs::remove_file(volume.path("termination-log")).unwrap();
        command.current_dir(volume.root());
        let (_, _, errors) = output(command);
        assert!(errors.contains(public) && !errors.contains("canary"), "{file}: {errors}");
    }
}

#[test]
fn signals_go_on_and_exit_codes_come_back() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let script = format!("trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'exit 9' TERM; {LOOP}");
    let mut running = Running::start(&volume, &["--on-change=signal:USR1"], &script);
    until("it runs", || volume.log().contains("started"));
    running.signal(Signal::HUP);
    until("HUP was passed on", || volume.log().contains("hup"));
    volume.write("g2", &[("a.env", b"A=1\n")]);
    until("it is told of every generation", || volume.log().contains("usr1"));
    running.signal(Signal::TERM);
    assert_eq!(running.code(), Some(9));

    let mut failing = Running::start(&volume, &["--on-change=restart"], "kill -SEGV $$");
    assert_eq!(failing.code(), Some(139), "as a shell says it");
    let (code, _, _) = output(volume.exec(&["--env={}/a.env", "--on-change=restart", "--", "no-such-program"]));
    assert_eq!(code, 127);
}

#[test]
fn status_says_what_runs_and_what_is_newest() {
    let volume = Volume::new();
    volume.write("g1", &[("a.env", b"A=1\n")]);
    let running = Running::start(&volume, &[], LOOP);
    until("it runs", || volume.log().contains("started"));
    volume.write("g2~1", &[("a.env", b"A=2\n")]);
    let (code, found, _) = output({
        let mut command = Command::new(env!("CARGO_BIN_EXE_hushpod-agent"));
        command.arg("status");
        command
    });
    assert_eq!(code, 0);
    let line = format!("{} sh: running with generation g1, newest g2\n", running.0.id());
    assert!(found.contains(&line), "{found}");
}

#[test]
fn the_agent_copies_the_program_before_the_gate_opens() {
    let pod = Pod::new();
    fs::create_dir(pod.path("bin")).unwrap();
    pod.store("token", "canary-first");
    let program = env!("CARGO_BIN_EXE_hushpod-exec");
    let bin = pod.path("bin").to_str().unwrap().to_owned();
    let mut agent = pod.command("init").arg("--bin").arg(&bin).arg("--program").arg(program).run();
    assert_eq!(agent.wait(), Some(0));
    let copied = pod.path("bin").join("hushpod-agent");
    assert_eq!(fs::metadata(&copied).unwrap().permissions().mode() & 0o777, 0o555);
    let mut command = Command::new(copied);
    command.args(["exec", "--env"]).arg(pod.live().join("token")).args(["--", "true"]);
    let (code, _, errors) = output(command);
    assert_eq!(code, 125);
    assert!(errors.contains("line 1: there is no KEY=value") && !errors.contains("canary"), "{errors}");

    let pod = Pod::new();
    pod.store("token", "x");
    fs::create_dir(pod.path("bin")).unwrap();
    let bin = pod.path("bin").to_str().unwrap().to_owned();
    let mut agent = pod.command("init").arg("--bin").arg(&bin).arg("--program=/no/such/program").run();
    assert_eq!(agent.wait(), Some(3));
    assert!(fs::metadata(pod.live()).is_err(), "the gate stays closed");
    assert_eq!(fs::read(pod.termination_log()).unwrap().first(), Some(&b'c'));
}
