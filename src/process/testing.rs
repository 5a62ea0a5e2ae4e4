//! Tests that change their whole process run in a process of their own.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// What is logged while a test listens.
#[path = "../../tests/integration/log.rs"]
pub(crate) mod log;

/// The command that runs one ignored test of this test binary.
pub(crate) fn rerun(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Runs one ignored test by itself and expects it to pass.
pub(crate) fn passes_alone(test: &str) {
    passes(&mut rerun(test));
}

/// Runs a command that runs one test, and expects it to pass.
pub(crate) fn passes(command: &mut Command) {
    let output = command.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && shown.contains("1 passed"),
        "{shown}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A command prefix that runs what follows where it may mount; `None`, said aloud, where the kernel forbids it, which it may
/// not to root: CI is, and there nothing may keep such tests from being run.
pub(crate) fn mount_namespace() -> Option<Command> {
    let unshare = |options: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(options);
        command
    };
    let works = |options: &&&[&str]| {
        let status = unshare(options).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let found = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]].iter().find(works).map(|o| unshare(o));
    if found.is_none() {
        assert!(!rustix::process::geteuid().is_root(), "root may not mount a tmpfs here");
        writeln!(std::io::stderr(), "SKIPPED: this system lets no test mount a tmpfs").unwrap();
    }
    found
}
