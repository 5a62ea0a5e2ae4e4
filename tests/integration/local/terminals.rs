//! Commands at a terminal: what keys do there, they do to the command, with `--watch` and `--mask` as without.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::{CANARY, Machine, PROJECT, text};

/// The machine is shared: what is waited for comes, but not soon.
const DEADLINE: Duration = Duration::from_secs(90);
/// A terminal's command as it is, watched, and in a terminal of its own.
const WAYS: [&[&str]; 3] = [&[], &["--watch"], &["--mask", "always"]];

/// A terminal, what was shown on it, and what runs in it.
struct Screen {
    keys: File,
    /// Kept open, so what was shown can be read when nobody is left.
    terminal: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Screen {
    /// Runs a shell's script as a terminal's session; `"$@"` in it is the program with `flags`, and a command.
    fn run(machine: &Machine, shell: &str, flags: &[&str], script: &str) -> Self {
        let options = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(options).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let terminal = ioctl_tiocgptpeer(&ours, options).unwrap();
        resize(&ours, 24, 80);
        let end = || Stdio::from(terminal.try_clone().unwrap());
        // util-linux's, which makes its standard input the terminal of a new session.
        let mut command = Command::new("setsid");
        let shell = format!("{shell}; echo \"code $?.\"; echo 'the' end; read end");
        command.args(["--ctty", "bash", "-c", &shell, "sh", env!("CARGO_BIN_EXE_hushpod"), "run"]).args(flags);
        command.args(["--", "sh", "-c", script]).current_dir(machine.project());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", machine.directory.path());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keys = File::from(ours);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, into) = (keys.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut piece = vec![0; 1 << 16];
            while let Ok(length @ 1..) = reader.read(&mut piece) {
                into.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Self { keys, terminal, shown, child }
    }

    fn text(&self) -> String {
        text(&self.shown.lock().unwrap())
    }

    fn shows(&self, part: &str) {
        let start = Instant::now();
        let mut looked_at = 0;
        loop {
            // Much may be shown: what was looked at is not looked at again.
            let shown = self.shown.lock().unwrap();
            if text(&shown[looked_at..]).contains(part) {
                return;
            }
            looked_at = shown.len().saturating_sub(part.len());
            drop(shown);
            assert!(start.elapsed() < DEADLINE, "never shown {part:?}: {}", self.text());
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn press(&self, keys: &[u8]) {
        (&self.keys).write_all(keys).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// The process that the program is.
    fn pid(&self) -> Pid {
        self.shows("pid ");
        Pid::from_raw(number_behind(&self.text(), "pid ")).unwrap()
    }

    /// Waits for the end; gives the exit code as the shell has it, and all that was shown.
    fn end(mut self) -> (i32, String) {
        self.shows("code ");
        self.shows(END);
        assert!(!self.is_raw(), "the terminal is as it was before");
        let shown = self.text();
        self.press(b"\n");
        self.child.wait().unwrap();
        (number_behind(&shown, "code "), shown)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // With the session's first process, all of it hears that the terminal is gone.
        let _ = self.child.kill();
    }
}

fn number_behind(text: &str, word: &str) -> i32 {
    let (_, rest) = text.rsplit_once(word).unwrap();
    rest.split('.').next().unwrap().parse().unwrap()
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

/// The program as a shell's command, or as its job.
const IN_PLACE: &str = "(echo \"pid $BASHPID.\"; exec \"$@\")";
const AS_JOB: &str = "set -m; \"$@\"; echo \"stopped with $?\"; fg";
/// The shell has to stay: with a session's end, what nobody has read from its terminal is lost.
const END: &str = "the end";

fn has_tools() -> bool {
    let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    let has = has("setsid") && has("bash");
    if !has {
        // Not eprintln: what a test that passes prints with it is not shown.
        std::io::stderr().write_all(b"SKIPPED: there are no setsid(1) and bash(1) here\n").unwrap();
    }
    has
}

/// The ways to try; none, and that is shown, where there are no tools for it.
fn ways() -> impl Iterator<Item = &'static [&'static str]> {
    let has_tools = has_tools();
    WAYS.into_iter().filter(move |_| has_tools)
}

#[test]
fn one_ctrl_c_is_one_signal_to_the_command() {
    // No new process when the key comes: dash forgets a signal between vfork(2) and the program.
    let script = "trap 'n=$((n+1)); kill $!' INT; sleep 60 & echo ready; wait; sleep 1; echo \"got $n\"; exit 7";
    for flags in ways() {
        let machine = Machine::new(PROJECT);
        let screen = Screen::run(&machine, IN_PLACE, flags, script);
        screen.shows("ready");
        screen.press(b"\x03");
        let (code, shown) = screen.end();
        assert!(code == 7 && shown.contains("got 1"), "{flags:?}: {code}: {shown}");
    }
}

#[test]
fn ctrl_z_stops_the_job_and_it_comes_back() {
    let script = "echo ready; read line; echo \"read $line\"; exit 3";
    for flags in ways() {
        let machine = Machine::new(PROJECT);
        let screen = Screen::run(&machine, AS_JOB, flags, script);
        screen.shows("ready");
        screen.press(b"\x1a");
        screen.shows("stopped with 14");
        screen.press(b"hello\n");
        let (code, shown) = screen.end();
        assert!(code == 3 && shown.contains("read hello"), "{flags:?}: {code}: {shown}");
    }
}

#[test]
fn the_command_sees_the_terminals_size_and_its_changes() {
    let script = "stty size; trap 'n=1' WINCH; echo ready; while [ -z \"$n\" ]; do sleep 0.1; done; stty size; exit 4";
    for flags in ways() {
        let machine = Machine::new(PROJECT);
        let screen = Screen::run(&machine, IN_PLACE, flags, script);
        screen.shows("ready");
        resize(&screen.keys.try_clone().unwrap().into(), 33, 99);
        let (code, shown) = screen.end();
        assert!(code == 4 && shown.contains("24 80") && shown.contains("33 99"), "{flags:?}: {code}: {shown}");
    }
}

#[test]
fn the_command_has_a_terminal_to_ask_at() {
    let script = "test -t 0 && test -t 1 && test -t 2 && echo terminals; printf 'name: ' >/dev/tty; read line </dev/tty; echo \"hello $line\"";
    for flags in ways() {
        let machine = Machine::new(PROJECT);
        let screen = Screen::run(&machine, IN_PLACE, flags, script);
        screen.shows("name: ");
        assert_eq!(screen.is_raw(), flags.contains(&"--mask"), "{flags:?}");
        screen.press(b"you\n");
        let (code, shown) = screen.end();
        assert!(code == 0 && shown.contains("terminals") && shown.contains("hello you"), "{flags:?}: {code}: {shown}");
    }
}

#[test]
fn p6_a_question_comes_to_the_terminal_though_the_output_goes_elsewhere() {
    const CAPTURED: &str = "out=$(\"$@\"); code=$?; echo \"captured ${#out}.\"; (exit $code)";
    if !has_tools() {
        return;
    }
    let project = "providers:\n  v: {type: vault, address: 'https://127.0.0.1:1'}\nvariables: {A: 'v:x/y#z'}\n";
    let machine = Machine::new(project);
    let trusted = machine.directory.path().join(".local/state/hushpod/trusted");
    for (answer, is_trusted) in [(b"n\n", false), (b"y\n", true)] {
        let screen = Screen::run(&machine, CAPTURED, &["--timeout", "1s"], "true");
        screen.shows("Trust? [y/N] ");
        assert!(screen.text().contains("vault https://127.0.0.1:1"), "{}", screen.text());
        screen.press(answer);
        let (code, shown) = screen.end();
        // It goes on to a store that is not there.
        assert!(code == 125 && shown.contains("captured 0."), "{shown}");
        assert_eq!(trusted.exists(), is_trusted, "{shown}");
    }
}

#[test]
fn the_exit_code_is_the_commands() {
    for flags in ways() {
        for (script, expected) in [("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("true", 0)] {
            let machine = Machine::new(PROJECT);
            let (code, shown) = Screen::run(&machine, IN_PLACE, flags, script).end();
            assert_eq!(code, expected, "{flags:?} {script}: {shown}");
        }
    }
}

#[test]
fn a_command_may_take_its_time_to_end() {
    let script = "trap 'sleep 3; echo cleaned; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    for flags in ways() {
        let machine = Machine::new(PROJECT);
        let screen = Screen::run(&machine, IN_PLACE, flags, script);
        screen.shows("ready");
        kill_process(screen.pid(), Signal::TERM).unwrap();
        let (code, shown) = screen.end();
        assert!(code == 5 && shown.contains("cleaned"), "{flags:?}: {code}: {shown}");
    }
}

#[test]
fn nothing_of_much_output_is_lost() {
    const MUCH: usize = 100_000_000;
    let script = format!("head -c {MUCH} /dev/zero | tr '\\0' '~'; echo; echo last");
    for flags in ways() {
        let machine = Machine::new(PROJECT);
        let (code, shown) = Screen::run(&machine, IN_PLACE, flags, &script).end();
        let count = shown.bytes().filter(|byte| *byte == b'~').count();
        assert!(code == 0 && count == MUCH && shown.contains("last"), "{flags:?}: {code}: {count}");
    }
}

#[test]
fn p5_values_are_masked_on_a_terminal_too() {
    if !has_tools() {
        return;
    }
    let script = "echo \"out $TOKEN\"; echo \"err $TOKEN\" >&2; echo \"tty $TOKEN\" >/dev/tty";
    // All of it; a part of a pipeline; and where standard error is a file.
    for (shell, parts) in [
        (IN_PLACE, &["out <TOKEN>", "err <TOKEN>", "tty <TOKEN>"][..]),
        ("\"$@\" | cat", &["out <TOKEN>", "err <TOKEN>"]),
        ("\"$@\" 2>err; cat err", &["out <TOKEN>", "err <TOKEN>", "tty <TOKEN>"]),
    ] {
        let machine = Machine::new(PROJECT);
        let (_, shown) = Screen::run(&machine, shell, &["--mask", "always"], script).end();
        assert!(parts.iter().all(|part| shown.contains(part)), "{shell}: {shown}");
        let is_shown_by_tty = !parts.iter().any(|part| part.starts_with("tty"));
        assert_eq!(shown.contains(CANARY), is_shown_by_tty, "{shell}: {shown}");
    }
    let machine = Machine::new(PROJECT);
    let screen = Screen::run(&machine, IN_PLACE, &["--mask", "always"], "./nothing; exit 9");
    assert_eq!(screen.end().0, 9);
}
