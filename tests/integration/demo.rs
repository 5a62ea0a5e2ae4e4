//! The demo as people and scripts run it, and with an agent that does not keep its promises.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const MODES: [&str; 3] = ["sidecar", "init+sidecar", "init"];

/// Opens the gate at once, and lets the real agent write beside it.
const HASTY: &str = r#"#!/bin/sh
for argument; do
  shift
  if [ "$last" = --volume ]; then
    volume=$argument
    argument=$volume/real
  fi
  last=$argument
  set -- "$@" "$argument"
done
mkdir -p "$volume/live" "$volume/real"
{
  # Nobody waits for this: it ends with the volume.
  until [ -e "$volume/real/live/token" ] || [ ! -d "$volume" ]; do sleep 0.05; done
  rmdir "$volume/live" && ln -s real/live "$volume/live"
} 2>/dev/null &
exec AGENT "$@"
"#;

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hushpod")).arg("demo").args(arguments).output().unwrap()
}

/// The claims of a report in JSON, and whether each holds.
fn claims(report: &[u8]) -> Vec<(String, bool)> {
    let report: Value = serde_json::from_slice(report).unwrap();
    let claims = report["claims"].as_array().unwrap().iter();
    let claims: Vec<_> =
        claims.map(|claim| (claim["claim"].as_str().unwrap().to_owned(), claim["holds"].as_bool().unwrap())).collect();
    assert_eq!(report["holds"], claims.iter().all(|(_, holds)| *holds));
    let modes: Vec<_> = report["modes"].as_array().unwrap().iter().map(|mode| mode["mode"].clone()).collect();
    assert_eq!(modes, MODES);
    claims
}

#[test]
fn every_claim_holds_in_every_mode() {
    let shown = demo(&["--json", "--rotations", "1"]);
    assert!(shown.status.success(), "{shown:?}");
    let claims = claims(&shown.stdout);
    for mode in MODES {
        let of_mode = claims.iter().filter(|(claim, _)| claim.starts_with(&format!("mode {mode}: "))).count();
        assert!(of_mode >= 5, "{mode} in {claims:?}");
    }
    assert!(claims.iter().all(|(_, holds)| *holds), "{claims:?}");
}

#[test]
fn a_gate_that_opens_too_early_is_told_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let hasty = directory.path().join("hasty");
    fs::write(&hasty, HASTY.replace("AGENT", env!("CARGO_BIN_EXE_hushpod-agent"))).unwrap();
    fs::set_permissions(&hasty, fs::Permissions::from_mode(0o755)).unwrap();
    let shown = demo(&["--json", "--rotations", "1", "--agent", hasty.to_str().unwrap()]);
    assert_eq!((shown.status.code(), shown.stderr.is_empty()), (Some(1), true), "{shown:?}");
    for (claim, holds) in claims(&shown.stdout) {
        assert_eq!(holds, !claim.ends_with("files before the application's first instruction"), "{claim}");
    }
}

#[test]
fn without_an_agent_it_says_how_to_get_one() {
    let shown = demo(&["--agent", "/nonexistent/agent"]);
    assert_eq!(shown.status.code(), Some(1));
    let error = String::from_utf8(shown.stderr).unwrap();
    assert!(error.contains("/nonexistent/agent") && error.contains("cargo build --bins"), "{error}");
}

/// Nothing in these tests takes this long, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(15);

/// The directory that a demo works in, as a line of its text names it.
fn stage(line: &str) -> Option<PathBuf> {
    let path = line.split(' ').find(|word| word.contains("/hushpod-demo-"))?;
    Path::new(path).ancestors().find(|part| part.file_name().is_some_and(is_stage)).map(Path::to_owned)
}

fn is_stage(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"hushpod-demo-")
}

#[test]
fn a_signal_ends_it_and_leaves_nothing_behind() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hushpod")).arg("demo").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        // The application's line: all is up.
        let stage = lines.find_map(|line| stage(&line)).unwrap();
        assert!(stage.is_dir(), "{}", stage.display());
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status), "{signal:?}");
        assert!(!stage.exists(), "{signal:?} left {}", stage.display());
    }
}

#[test]
fn it_is_no_error_that_nobody_reads_on() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hushpod"))
        .arg("demo")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(out);
    let shown = child.wait_with_output().unwrap();
    assert_eq!((shown.status.code(), shown.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn an_agent_that_is_none_is_told_of_at_once() {
    for (agent, parts) in [
        ("/bin/true", ["ended with exit status: 0", "is --agent a hushpod-agent?"]),
        ("/bin/false", ["ended with exit status: 1", "is --agent a hushpod-agent?"]),
        // It has something to say.
        ("/bin/sh", ["ended with exit status: ", "last words"]),
        ("/etc/passwd", ["start /etc/passwd", "denied"]),
    ] {
        let begun = Instant::now();
        let shown = demo(&["--agent", agent]);
        assert!(begun.elapsed() < PATIENCE, "{agent}: at once");
        let error = String::from_utf8(shown.stderr).unwrap();
        assert_eq!(shown.status.code(), Some(1), "{agent}: {error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{agent}: {error}");
    }
}

#[test]
fn it_ends_with_what_was_seen_and_the_next_step() {
    let shown = demo(&["--rotations", "1"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("every claim holds: 2 rotations") && last.contains("next: "), "{last}");
}
