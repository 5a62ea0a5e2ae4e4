//! `--watch`: a command that is started anew for other variables, or told of other files, and for nothing else.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::private_files::soon;
use super::{CANARY, Machine, text};

const PROJECT: &str = "\
providers:
  files: {type: file, path: store, refresh: 1s}
secrets:
  - {file: key.pem, from: 'files:key.pem'}
variables:
  TOKEN: files:token
";

/// The machine is shared: what is waited for comes, but not soon.
const DEADLINE: Duration = Duration::from_secs(90);

/// A command that is watched, and the lines that it and hushpod say.
struct Watched {
    child: Child,
    lines: Receiver<String>,
}

fn watched(machine: &Machine, flags: &[&str], script: &str) -> Watched {
    spawned(machine, &[&["run"], flags, &["--", "sh", "-c", script]].concat())
}

fn spawned(machine: &Machine, arguments: &[&str]) -> Watched {
    // util-linux's: a terminal that the tests are run at is not the command's.
    let mut command = Command::new("setsid");
    command.arg(env!("CARGO_BIN_EXE_hushpod")).args(arguments);
    command
        .current_dir(machine.project())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", machine.directory.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (sender, lines) = channel();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let other = sender.clone();
    let read = |from: Box<dyn std::io::Read + Send>, to: std::sync::mpsc::Sender<String>| {
        thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).all(|line| to.send(line).is_ok()))
    };
    read(Box::new(out), sender);
    read(Box::new(err), other);
    Watched { child, lines }
}

impl Watched {
    /// Waits for a line, and gives those up to it.
    fn heard(&self, part: &str) -> Vec<String> {
        self.heard_all(&[part])
    }

    /// The same for several lines: those of the command and those of hushpod come in any order.
    fn heard_all(&self, parts: &[&str]) -> Vec<String> {
        let start = Instant::now();
        let mut heard: Vec<String> = Vec::new();
        while !parts.iter().all(|part| heard.iter().any(|line| line.contains(part))) {
            let left = DEADLINE.saturating_sub(start.elapsed());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("never said {parts:?}: {heard:?}"));
            heard.push(line);
        }
        heard
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::TERM);
        }
    }
}

const LOOP: &str = "while :; do sleep 0.1; done";

#[test]
fn p3_a_command_is_started_anew_for_other_variables_and_for_nothing_else() {
    let machine = Machine::new(PROJECT);
    machine.write("store/token", "one");
    let script = format!("trap 'echo ended; exit 3' TERM; echo token $TOKEN; {LOOP}");
    let watched = watched(&machine, &["--watch"], &script);
    watched.heard("token one");
    machine.write("store/token", "two");
    let heard = watched.heard_all(&["token two", "(TOKEN)"]);
    assert!(heard.iter().any(|line| line == "ended"), "it may end in order: {heard:?}");
    let told = heard.iter().find(|line| line.contains("restarted for generation")).unwrap();
    assert!(!told.contains("two"), "{told}");

    // A store that fails.
    fs::rename(machine.project().join("store/token"), machine.project().join("store/away")).unwrap();
    let heard = watched.heard("what was fetched before stays");
    assert!(!heard.iter().any(|line| line == "ended"), "{heard:?}");
    machine.write("store/token", "three");
    let heard = watched.heard("token three");
    assert_eq!(heard.iter().filter(|line| line.contains("stays")).count(), 0, "one line for one outage: {heard:?}");
    watched.signal(Signal::TERM);
    watched.heard("ended");
    assert_eq!(watched.code(), Some(3), "the command's end is ours");
}

/// As the kernel has it, since a slow machine says late what it has begun.
#[test]
fn no_restart_comes_within_two_seconds_of_the_last() {
    let machine = Machine::new(PROJECT);
    machine.write("store/token", "0");
    // proc(5): behind the name, the twentieth is when the process was begun, in hundredths of a second since the boot.
    let script = format!("read stat </proc/$$/stat; set -- ${{stat##*) }}; echo \"at ${{20}}. token $TOKEN\"; {LOOP}");
    let watched = watched(&machine, &["--watch"], &script);
    let mut starts: Vec<u64> = Vec::new();
    let mut tokens = Vec::new();
    for number in 0..4 {
        let line = watched.heard("token ").pop().unwrap();
        let at = line.trim_start_matches("at ").split(". ").next().unwrap().parse().unwrap();
        starts.push(at);
        tokens.push(line.rsplit(' ').next().unwrap().to_owned());
        // Much changes meanwhile, and all of it makes one restart.
        for change in 0..5 {
            machine.write("store/token", &format!("{}", number * 10 + change + 1));
            thread::park_timeout(Duration::from_millis(150));
        }
    }
    for (start, next) in starts.iter().zip(&starts[1..]) {
        assert!(next - start >= 200, "{starts:?}");
    }
    tokens.dedup();
    assert_eq!(tokens.len(), 4, "each start has other variables");
    watched.signal(Signal::TERM);
    assert_eq!(watched.code(), Some(143));
}

#[test]
fn one_that_does_not_end_is_killed_with_what_it_started() {
    let machine = Machine::new(PROJECT);
    machine.write("store/token", "one");
    let child = "(echo child $TOKEN; while kill -0 $$ 2>/dev/null; do sleep 0.1; done; echo child left) &";
    let script = format!("trap '' TERM; {child} {LOOP}");
    let watched = watched(&machine, &["--watch", "--grace", "1s"], &script);
    watched.heard("child one");
    machine.write("store/token", "two");
    let heard = watched.heard("child two");
    assert!(!heard.iter().any(|line| line == "child left"), "it had no time to: {heard:?}");
    watched.signal(Signal::INT);
    assert_eq!(watched.code(), Some(130), "128 and the signal");
}

#[test]
fn a_command_ends_with_its_own_code_and_starts_not_again() {
    let machine = Machine::new(PROJECT);
    for (flags, script, code) in [
        (&["--watch"][..], "exit 42", 42),
        (&["--watch=restart"], "kill -KILL $$", 137),
        (&["--watch", "--mask", "always"], "exit 42", 42),
    ] {
        assert_eq!(watched(&machine, flags, script).code(), Some(code), "{flags:?} {script}");
    }
    let nothing = machine.run(&["run", "--watch", "--", "./nothing"]);
    assert_eq!(nothing.status.code(), Some(127), "{nothing:?}");
}

#[test]
fn p5_masks_are_those_of_the_values_that_the_command_has() {
    let machine = Machine::new(PROJECT);
    machine.write("store/token", &format!("{CANARY}-one"));
    let watched = watched(&machine, &["--watch", "--mask", "always"], &format!("echo \"it is $TOKEN.\"; {LOOP}"));
    assert_eq!(watched.heard("it is"), ["it is <TOKEN>."]);
    machine.write("store/token", "another-value");
    let heard = watched.heard("it is");
    assert_eq!(heard.last().unwrap(), "it is <TOKEN>.", "{heard:?}");
    watched.signal(Signal::TERM);
    assert_eq!(watched.code(), Some(143));
}

#[test]
fn p5_what_files_bring_later_is_masked_too() {
    let machine = Machine::new(PROJECT);
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let here = memory.path().join("here");
    machine.write("store/key.pem", "first-one\n");
    let flags = ["--mask", "always", "--watch=signal:HUP", "--files", here.to_str().unwrap()];
    let show = "echo \"is $(cat \"$HUSHPOD_FILES/key.pem\") with $TOKEN.\"";
    let watched = watched(&machine, &flags, &format!("trap '{show}' HUP; {show}; {LOOP}"));
    assert_eq!(watched.heard(" with "), ["is <key.pem> with <TOKEN>."]);
    for value in ["second-one\n", "third-one\n"] {
        machine.write("store/key.pem", value);
        assert_eq!(watched.heard(" with "), ["is <key.pem> with <TOKEN>."], "{value}");
    }
    watched.signal(Signal::TERM);
    assert_eq!(watched.code(), Some(143));
}

#[test]
fn p2_files_change_as_a_whole_and_the_command_is_told() {
    let machine = Machine::new(PROJECT);
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    machine.write("store/key.pem", "one\n");
    let mut flags = vec!["--watch=signal:HUP", "--files"];
    let here = memory.path().join("here");
    flags.push(here.to_str().unwrap());
    let show = "cat \"$HUSHPOD_FILES/key.pem\"";
    let watched = watched(&machine, &flags, &format!("trap '{show}; echo told' HUP; {show}; echo ready; {LOOP}"));
    watched.heard("ready");
    machine.write("store/key.pem", "two\n");
    let heard = watched.heard("told");
    assert_eq!(heard, ["two", "told"]);
    machine.write("store/token", "another");
    let heard = watched.heard("only a new start takes");
    assert!(heard.iter().all(|line| line != "told"), "the files are the same: {heard:?}");
    watched.signal(Signal::TERM);
    assert_eq!(watched.code(), Some(143));
}

/// As a pod keeps what it has.
#[test]
fn p2_a_key_that_goes_bad_changes_nothing_until_it_is_good() {
    let machine = Machine::new(
        "providers:\n  files: {type: file, path: store, refresh: 1s}\n\
         secrets:\n  - {dir: d, from: 'files:keys.yaml', decode: base64}\nenv: [d]\n",
    );
    let keys = |bad: &str, good: &str| machine.write("store/keys.yaml", &format!("BAD: '{bad}'\nGOOD: {good}\n"));
    keys("aGk=", "b25l");
    let show = format!("trap 'echo ended; exit 3' TERM; echo \"has ${{BAD-none}} $GOOD.\"; {LOOP}");
    let run = watched(&machine, &["--watch"], &show);
    let render = spawned(&machine, &["render", "--dir", "out", "--watch"]);
    let file = |name: &str| fs::read_to_string(machine.project().join("out/d").join(name)).unwrap_or_default();
    run.heard("has hi one.");
    soon("it is written", || file("GOOD") == "one");
    keys("!!!", "dHdv");
    let heard = run.heard("all stays as it is");
    assert!(heard.iter().all(|line| !line.contains("ended")) && heard[0].contains("key \"BAD\""), "{heard:?}");
    render.heard("the files stay");
    assert_eq!([file("BAD"), file("GOOD")], ["hi", "one"]);
    keys("aGk=", "dGhyZWU=");
    let heard = run.heard("has hi three.");
    assert!(heard.iter().all(|line| !line.contains("two")), "{heard:?}");
    soon("it is written", || file("GOOD") == "three");
    run.signal(Signal::TERM);
    assert_eq!(run.code(), Some(3));
    render.signal(Signal::KILL);

    // One that was never good stands in nobody's way, and is told.
    keys("!!!", "b25l");
    for (arguments, printed) in [
        (&["run", "--", "sh", "-c", "echo ${BAD-none} $GOOD"][..], "none one\n"),
        (&["export", "--format", "dotenv", "--only", "GOOD"], "GOOD"),
        (&["render", "--dir", "new"], ""),
    ] {
        let output = machine.run(arguments);
        let told = text(&output.stderr);
        assert!(output.status.success() && text(&output.stdout).starts_with(printed), "{arguments:?}: {output:?}");
        assert!(told.contains("left out: dir d: key \"BAD\"") && !told.contains("!!!"), "{arguments:?}: {told}");
    }
}

#[test]
fn p2_render_goes_on_with_watch_and_leaves_what_is_complete() {
    let machine = Machine::new(PROJECT);
    machine.write("store/key.pem", "one");
    let mut child = machine.command(&["render", "--dir", "out", "--watch"]).stderr(Stdio::piped()).spawn().unwrap();
    let file = machine.project().join("out/key.pem");
    let is_soon = |expected: &str| {
        let start = Instant::now();
        while fs::read_to_string(&file).unwrap_or_default() != expected {
            assert!(start.elapsed() < DEADLINE, "in vain: {expected}");
            thread::park_timeout(Duration::from_millis(10));
        }
    };
    is_soon("one");
    machine.write("store/key.pem", "two");
    is_soon("two");
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(fs::read_to_string(&file).unwrap(), "two");
}
