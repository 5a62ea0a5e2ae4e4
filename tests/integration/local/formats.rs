//! Awkward values through every format and back: what the reader has is what the store has, or it is refused.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::{CANARY, Machine, text};

/// Values that some reader or other takes for something else.
const AWKWARD: [&str; 46] = [
    "",
    " ",
    "a",
    " lead",
    "trail ",
    "two words",
    "a=b",
    "=",
    "#",
    "a #b",
    "a#b",
    "'",
    "\"",
    "it's",
    "\"quoted\"",
    "'quoted'",
    "`cmd`",
    "$HOME",
    "${HOME}",
    "$(id)",
    "\\",
    "\\n",
    "a\\",
    "\\\\",
    "a\\'b",
    "%s",
    "100%",
    "!",
    "!!",
    "~",
    "*",
    "a;b",
    "a&b",
    "a|b",
    "a\tb",
    "a\nb",
    "\n",
    "a\n",
    "\na",
    "a\r\nb",
    "a\rb",
    "\u{e4}\u{1f600}",
    "\u{2028}x",
    "\u{85}y",
    "null",
    "no",
];

/// A project with a variable for each value.
fn machine() -> Machine {
    let mut project = "defaultProvider: files\nproviders:\n  files: {type: file, path: store}\nvariables:\n".to_owned();
    for index in 0..AWKWARD.len() {
        let _ = writeln!(project, "  V{index}: v{index}");
    }
    let machine = Machine::new(&project);
    for (index, value) in AWKWARD.iter().enumerate() {
        machine.write(&format!("store/v{index}"), value);
    }
    machine
}

/// What is exported of one value; `None` if it is refused, with a sentence that does not show it.
fn exported(machine: &Machine, format: &str, index: usize) -> Option<String> {
    let output = machine.run(&["export", "--format", format, "--only", &format!("V{index}")]);
    if output.status.success() {
        assert!(output.stderr.is_empty(), "{output:?}");
        return Some(String::from_utf8(output.stdout).unwrap());
    }
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains(&format!("V{index} ")), "{format} {index}: {output:?}");
    assert!(output.stdout.is_empty(), "nothing of it is printed");
    None
}

/// What a program reads; `None` if there is no such program here.
fn read_by(program: &str, arguments: &[&str], machine: &Machine) -> Option<Vec<u8>> {
    let output =
        Command::new(program).args(arguments).current_dir(machine.project()).env_remove("HOME").output().ok()?;
    assert!(output.status.success(), "{program}: {output:?}");
    Some(output.stdout)
}

#[test]
fn what_shells_and_programs_read_back_is_what_the_store_has() {
    let machine = machine();
    let mut refused = Vec::new();
    let mut read = 0;
    let all = |format: &str| text(&machine.run(&["export", "--format", format]).stdout);
    machine.write("all.shell", &all("shell"));
    machine.write("all.direnv", &all("direnv"));
    let json: serde_json::Value = serde_json::from_str(&all("json")).unwrap();
    let yaml: serde_json::Value = serde_saphyr::from_str(&all("yaml")).unwrap();
    for (index, value) in AWKWARD.iter().enumerate() {
        let name = format!("V{index}");
        let print = format!("printf %s \"${name}\"");
        assert_eq!((json[&name].as_str(), yaml[&name].as_str()), (Some(*value), Some(*value)));
        if let Some(written) = exported(&machine, "dotenv", index) {
            machine.write("all.dotenv", &written);
        } else {
            refused.push(*value);
            fs::remove_file(machine.project().join("all.dotenv")).unwrap_or_default();
        }
        for file in ["all.shell", "all.direnv", "all.dotenv"] {
            if !machine.project().join(file).exists() {
                continue;
            }
            for shell in ["sh", "bash"] {
                let found = read_by(shell, &["-c", &format!(". ./{file}; {print}")], &machine);
                let Some(found) = found else { continue };
                assert_eq!(text(&found), *value, "{file} by {shell}");
                read += 1;
            }
        }
    }
    assert!(read > 100 || fs::metadata("/bin/sh").is_err(), "{read}");
    assert!(refused.len() < 10, "{refused:?}");
}

/// The documented rules of a reader of lines: what docker has of its file, and python of ours.
fn lines(written: &str) -> Vec<(String, String)> {
    let lines = written.lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// systemd.exec(5): between double quotes, a backslash stands before one of `"`, a backslash, a backtick and `$`.
fn as_systemd(written: &str) -> String {
    let (_, quoted) = written.split_once("=\"").unwrap();
    let inner = quoted.strip_suffix("\"\n").unwrap();
    let mut value = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        assert_ne!(letter, '"', "{written}");
        value.push(if letter == '\\' { letters.next().unwrap() } else { letter });
    }
    value
}

/// `java.util.Properties.load`, for one line.
fn as_properties(written: &str) -> String {
    let (_, line) = written.strip_suffix('\n').unwrap().split_once('=').unwrap();
    let mut units = Vec::new();
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let unescaped = match letter {
            '\\' => match letters.next().unwrap() {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'f' => '\x0c',
                'u' => {
                    let digits: String = letters.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).unwrap());
                    continue;
                }
                other => other,
            },
            other => other,
        };
        units.extend(unescaped.encode_utf16(&mut [0; 2]).iter());
    }
    String::from_utf16(&units).unwrap()
}

#[test]
fn what_other_readers_are_told_is_what_the_store_has() {
    let machine = machine();
    for (index, value) in AWKWARD.iter().enumerate() {
        let name = format!("V{index}");
        match exported(&machine, "docker", index) {
            Some(written) => assert_eq!(lines(&written), [(name.clone(), (*value).to_owned())]),
            None => assert!(value.contains(['\n', '\r']), "{value:?}"),
        }
        assert_eq!(as_systemd(&exported(&machine, "systemd", index).unwrap()), *value);
        assert_eq!(as_properties(&exported(&machine, "properties", index).unwrap()), *value);
    }
}

#[test]
fn p5_github_hides_every_line_before_a_later_step_can_show_it() {
    let machine = machine();
    machine.write("store/v1", &format!("{CANARY}\nsecond {CANARY}"));
    machine.write("github-env", "BEFORE=1\n");
    let mut command = machine.command(&["export", "--format", "github", "--only", "V1,V2"]);
    let output = command.env("GITHUB_ENV", machine.project().join("github-env")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), format!("::add-mask::{CANARY}\n::add-mask::second {CANARY}\n"));
    assert!(text(&output.stderr).contains("too short to be masked in logs: V2"), "{output:?}");
    let written = fs::read_to_string(machine.project().join("github-env")).unwrap();
    let blocks = written.strip_prefix("BEFORE=1\n").expect("other steps' variables stay");
    let (head, rest) = blocks.split_once('\n').unwrap();
    let delimiter = head.strip_prefix("V1<<").unwrap();
    assert_eq!(delimiter.len(), 32);
    let block = format!("{CANARY}\nsecond {CANARY}\n{delimiter}\nV2<<{delimiter}\na\n{delimiter}\n");
    assert_eq!(rest, block);
}

#[test]
fn p5_on_github_a_command_is_begun_after_the_masks() {
    let machine = machine();
    machine.write("store/v1", CANARY);
    let arguments = ["run", "--only", "V1", "--", "sh", "-c", "echo out; echo \"$V1\" >&2"];
    let output = machine.command(&arguments).env("GITHUB_ACTIONS", "true").output().unwrap();
    assert_eq!(text(&output.stdout), "out\n", "a script may take what the command prints");
    assert_eq!(text(&output.stderr), format!("::add-mask::{CANARY}\n{CANARY}\n"));
}
