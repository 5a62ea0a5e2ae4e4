//! What a command prints in CI: without the values, with its own exit code, and at once.

use std::io::Read as _;
use std::process::{Output, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::{CANARY, Machine, PROJECT, text};

fn shell(machine: &Machine, flags: &[&str], variables: &[(&str, &str)], script: &str) -> Output {
    let mut command = machine.command(&["run"]);
    command.args(flags).args(["--", "sh", "-c", script]).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn p5_in_ci_no_value_reaches_the_log_in_any_form() {
    let machine = Machine::new(PROJECT);
    let script = "echo \"$TOKEN\"; printf %s \"$TOKEN\" | base64; echo \"{$PASSWORD}\" >&2; printf 'user:%s' \"$TOKEN\" | base64 >&2";
    for (flags, variables, is_masked) in [
        (&[][..], &[("CI", "true")][..], true),
        (&["--mask", "always"], &[], true),
        (&[], &[], false),
        (&["--mask", "never"], &[("CI", "true")], false),
        (&[], &[("CI", "false")], false),
    ] {
        let output = shell(&machine, flags, variables, script);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{err}");
        assert_eq!(!(out + &err).contains("canary"), is_masked, "{flags:?} {output:?}");
        let begins = text(&output.stdout).starts_with("<TOKEN>\n<TOKEN>");
        assert_eq!(begins, is_masked, "{output:?}");
        assert_eq!(text(&output.stderr).contains("{<PASSWORD>}"), is_masked, "{output:?}");
    }
    assert!(CANARY.starts_with("canary"));
}

#[test]
fn a_masked_command_ends_as_it_would_alone() {
    let machine = Machine::new(PROJECT);
    for (script, code) in [("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exec true", 0)] {
        assert_eq!(shell(&machine, &["--mask", "always"], &[], script).status.code(), Some(code), "{script}");
    }
    for (script, code) in [("echo one", 1), ("echo one; exit 42", 42)] {
        let mut command = machine.command(&["run", "--mask", "always", "--", "sh", "-c", script]);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command.stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains("could be written: no storage space"), "{output:?}");
    }
    let nothing = machine.run(&["run", "--mask", "always", "--", "./nothing"]);
    assert_eq!(nothing.status.code(), Some(127), "{nothing:?}");
    let lots = shell(&machine, &["--mask", "always"], &[], "yes 0123456789abcde | head -c 100000000");
    assert_eq!(lots.stdout.len(), 100_000_000);
}

#[test]
fn signals_are_passed_on_and_output_does_not_wait_for_the_end() {
    let machine = Machine::new(PROJECT);
    let mut command = machine.command(&["run", "--mask", "always", "--", "sh", "-c"]);
    command.arg("trap 'echo ended; exit 7' TERM; printf ready; while :; do sleep 0.05; done");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut seen = [0; 5];
    let begun = Instant::now();
    out.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"ready", "after {:?}", begun.elapsed());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(7), "ended\n"));
}
