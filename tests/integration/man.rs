//! Manual pages and completions have every command.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory as _;
use hushpod::cli::Cli;

fn hushpod(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hushpod")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The names of all commands that are shown, with those above them.
fn commands(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    let below = below.flat_map(|below| commands(below, &format!("{name}-{}", below.get_name())));
    [(name.to_owned(), command.clone())].into_iter().chain(below).collect()
}

#[test]
fn every_command_has_a_manual_page_with_all_of_its_options() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("deep/man1");
    let written = hushpod(&["man", pages.to_str().unwrap()]);
    assert!(written.status.success() && written.stdout.is_empty() && written.stderr.is_empty(), "{written:?}");
    let commands = commands(&Cli::command(), "hushpod");
    let names: BTreeSet<_> = commands.iter().map(|(name, _)| format!("{name}.1")).collect();
    let found: BTreeSet<_> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, names);
    assert!(
        ["hushpod-run.1", "hushpod-kubectl-status.1", "hushpod-login-status.1"].iter().all(|it| found.contains(*it))
    );
    for (name, command) in commands {
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        let plain = page.replace("\\-", "-");
        for option in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let long = option.get_long().map(|long| format!("--{long}")).unwrap_or_default();
            assert!(plain.contains(&long), "{name}: {long}: {page}");
        }
        assert!(!page.contains("canary") && page.starts_with(".ie"), "{name}: {page}");
    }
    fs::write(directory.path().join("file"), "").unwrap();
    let refused = hushpod(&["man", directory.path().join("file").to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}

#[test]
fn every_shell_completes_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = hushpod(&["completion", shell]);
        assert!(script.status.success() && script.stderr.is_empty(), "{script:?}");
        let text = String::from_utf8(script.stdout.clone()).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(text.contains(command.get_name()), "{shell}: {}", command.get_name());
        }
        assert!(text.contains("offline"), "{shell}: options");
        // Those that are here take it.
        let Ok(mut check) = Command::new(shell).arg("-n").stdin(Stdio::piped()).spawn() else { continue };
        let _ = check.stdin.take().unwrap().write_all(&script.stdout);
        assert!(check.wait().unwrap().success(), "{shell}");
    }
}
