//! The demo as people and scripts run it, and with an agent that does not keep its promises.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

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
