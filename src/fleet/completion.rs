//! Completion: scripts for shells, and the words that kubectl asks plugins for.

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::arguments::PluginCli;

/// kubectl's answer after which it offers no files, and the one after which it does (cobra's ShellCompDirective).
const NO_FILES: &str = ":4";
const FILES: &str = ":0";

/// The script that a shell reads, for a program that is called `name`.
#[must_use]
pub fn completion_script(mut command: Command, name: &str, shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    script
}

/// The same for `kubectl-hushpod`.
pub(super) fn script_of_plugin(shell: Shell) -> Vec<u8> {
    completion_script(PluginCli::command(), "kubectl-hushpod", shell)
}

/// What kubectl shows behind `kubectl hushpod` and these words, of which the last one is not complete: one word a line,
/// and a directive. kubectl runs `kubectl_complete-hushpod` for it.
#[must_use]
pub fn complete(words: &[String]) -> String {
    let root = PluginCli::command();
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut command = &root;
    let mut has_values = false;
    for word in before {
        if let Some(sub) = command.find_subcommand(word) {
            command = sub;
        }
        has_values = is_flag_with_value(&root, command, word);
    }
    let mut found: Vec<String> = Vec::new();
    let mut directive = NO_FILES;
    let flag = before.last().filter(|_| has_values);
    if let Some(flag) = flag {
        found.extend(values_of(&root, command, flag));
        if found.is_empty() {
            directive = FILES;
        }
    } else if last.starts_with('-') {
        let flags = [command, &root].into_iter().flat_map(Command::get_arguments);
        found.extend(flags.filter_map(|flag| Some(format!("--{}", flag.get_long()?))));
    } else {
        found.extend(command.get_subcommands().map(|sub| sub.get_name().to_owned()));
        let positional = command.get_positionals().next();
        found
            .extend(positional.into_iter().flat_map(clap::Arg::get_possible_values).map(|it| it.get_name().to_owned()));
        if command.get_name() == "explain-denial" {
            directive = FILES;
        }
    }
    found.retain(|word| word.starts_with(last));
    found.sort();
    found.dedup();
    found.push(directive.to_owned());
    found.join("\n") + "\n"
}

fn is_flag_with_value(root: &Command, command: &Command, word: &str) -> bool {
    flag_of(root, command, word).is_some_and(|flag| flag.get_action().takes_values())
}

fn values_of(root: &Command, command: &Command, word: &str) -> Vec<String> {
    let values = flag_of(root, command, word).map(clap::Arg::get_possible_values).unwrap_or_default();
    values.into_iter().map(|value| value.get_name().to_owned()).collect()
}

fn flag_of<'a>(root: &'a Command, command: &'a Command, word: &str) -> Option<&'a clap::Arg> {
    let mut flags = [command, root].into_iter().flat_map(Command::get_arguments);
    let name = word.strip_prefix('-')?;
    flags.find(|flag| match name.strip_prefix('-') {
        Some(long) => flag.get_long() == Some(long),
        None => flag.get_short().is_some_and(|letter| name.chars().eq([letter])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_is_told_what_may_follow() {
        for (words, expected, directive) in [
            (&[""][..], &["advance", "status", "who"][..], NO_FILES),
            (&["st"], &["status"], NO_FILES),
            (&["status", "--l"], &["--live"], NO_FILES),
            (&["status", "-o", ""], &["json", "wide"], NO_FILES),
            (&["hold", "web", "--ma"], &["--max"], NO_FILES),
            (&["status", "--kubeconfig", ""], &[], FILES),
            (&["explain-denial", ""], &[], FILES),
            (&["completion", "z"], &["zsh"], NO_FILES),
            (&[], &["advance"], NO_FILES),
        ] {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let told = complete(&words);
            let lines: Vec<_> = told.lines().collect();
            assert_eq!(lines.last(), Some(&directive), "{words:?}: {told}");
            assert!(expected.iter().all(|word| lines.contains(word)), "{words:?}: {told}");
            assert!(lines.iter().all(|line| !line.contains(' ')), "{words:?}: {told}");
        }
    }

    #[test]
    fn each_shell_has_a_script_with_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let script = String::from_utf8(script_of_plugin(shell)).unwrap();
            for sub in PluginCli::command().get_subcommands() {
                assert!(script.contains(sub.get_name()), "{shell}: {}", sub.get_name());
            }
        }
    }
}
