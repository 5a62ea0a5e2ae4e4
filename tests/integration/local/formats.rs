//! Awkward values through every format and back: what the reader has is what the store has, or it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{CANARY, Machine, text};

/// Values that some reader or other takes for something else.
pub(super) const AWKWARD: [&[u8]; 60] = [
    b"",
    b" ",
    b"a",
    b" lead",
    b"trail ",
    b"two words",
    b"a=b",
    b"=",
    b"#",
    b"a #b",
    b"a#b",
    b"'",
    b"\"",
    b"it's",
    b"\"quoted\"",
    b"'quoted'",
    b"`cmd`",
    b"$HOME",
    b"${HOME}",
    b"$(id)",
    b"\\",
    b"\\n",
    b"a\\",
    b"\\\\",
    b"a\\'b",
    b"%s",
    b"100%",
    b"!",
    b"!!",
    b"~",
    b"*",
    b"a;b",
    b"a&b",
    b"a|b",
    b"a\tb",
    b"a\nb",
    b"\n",
    b"a\n",
    b"\na",
    b"a\r\nb",
    b"a\rb",
    b"\xc3\xa4\xf0\x9f\x98\x80",
    b"\xe2\x80\xa8x",
    b"\xc2\x85y",
    b"null",
    b"no",
    b"$",
    b"$$",
    b"${",
    b"a\\\nb",
    b"\\u0041\\x41\\101",
    b"it's \"both\" $x `y` \\",
    b"'a' # b",
    b"a\nV2=injected\n",
    b"-----BEGIN KEY-----\nMIIB+/=\n\n-----END KEY-----\n",
    b"\xef\xbb\xbfmark",
    b"\x1b[31m\x07\x08\x7f",
    b"\xc2\xa0 \xe3\x80\x80",
    b"a\xffb",
    b"\xc3",
];

/// What all of them look like in one format, without those that it refuses.
struct Exported {
    bytes: Vec<u8>,
    /// Those that are in it.
    held: Vec<usize>,
}

fn name_of(index: usize) -> String {
    format!("V{index}")
}

/// A project with a variable for each value.
pub(super) fn machine() -> Machine {
    let mut project = "defaultProvider: files\nproviders:\n  files: {type: file, path: store}\nvariables:\n".to_owned();
    for index in 0..AWKWARD.len() {
        let _ = writeln!(project, "  V{index}: v{index}");
    }
    let machine = Machine::new(&project);
    for (index, value) in AWKWARD.iter().enumerate() {
        fs::write(machine.project().join(format!("store/v{index}")), value).unwrap();
    }
    machine
}

/// Exports all values that a format can hold; what it refuses, it names, and none of it is shown.
fn exported(machine: &Machine, format: &str) -> Exported {
    let all = machine.run(&["export", "--format", format, "--error-format", "json"]);
    let mut refused = BTreeSet::new();
    if !all.status.success() {
        let told: Value = serde_json::from_slice(&all.stderr).unwrap_or_else(|_| panic!("{all:?}"));
        refused.extend(told["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
        assert!(all.status.code() == Some(1) && all.stdout.is_empty(), "nothing is printed: {format}: {all:?}");
        assert!(!text(&all.stderr).contains("injected"), "{format}: {all:?}");
    }
    let held: Vec<_> = (0..AWKWARD.len()).filter(|&index| !refused.contains(&name_of(index))).collect();
    assert_eq!(held.len() + refused.len(), AWKWARD.len(), "{format}: {refused:?}");
    // No more variables than GitLab takes at once.
    let mut written = Vec::new();
    for some in held.chunks(if format == "gitlab" { 20 } else { AWKWARD.len() }) {
        let names = some.iter().map(|index| name_of(*index)).collect::<Vec<_>>().join(",");
        let output = machine.run(&["export", "--format", format, "--only", &names]);
        assert!(output.status.success() && output.stderr.is_empty(), "{format}: {output:?}");
        written.extend(output.stdout);
    }
    keep(machine, format, &written, &held);
    Exported { bytes: written, held }
}

/// For tests/readers: what was written, and what is in it.
fn keep(machine: &Machine, format: &str, written: &[u8], held: &[usize]) {
    let Some(directory) = std::env::var_os("HUSHPOD_READERS").map(PathBuf::from) else { return };
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("export.{format}")), written).unwrap();
    let of = |index: &usize| hex::encode(fs::read(machine.project().join(format!("store/v{index}"))).unwrap());
    let values: BTreeMap<_, _> = held.iter().map(|index| (name_of(*index), of(index))).collect();
    fs::write(directory.join(format!("export.{format}.held")), json!(values).to_string()).unwrap();
}

/// The environment of a program that a shell starts; `None` if there is no such shell here.
fn read_by(shell: &str, file: &str, machine: &Machine) -> Option<BTreeMap<String, Vec<u8>>> {
    let script = format!("set -a; . ./{file}; exec env -0");
    let output = Command::new(shell).args(["-c", &script]).current_dir(machine.project()).output().ok()?;
    assert!(output.status.success(), "{shell}: {output:?}");
    let pairs = output.stdout.split(|byte| *byte == 0).filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((String::from_utf8(pair[..at].to_vec()).ok()?, pair[at + 1..].to_vec()))
    });
    Some(pairs.collect())
}

#[test]
fn what_shells_read_back_is_what_the_store_has() {
    let machine = machine();
    for (format, refused) in [("shell", 0), ("direnv", 2), ("dotenv", 11)] {
        let Exported { bytes, held } = exported(&machine, format);
        assert_eq!(AWKWARD.len() - held.len(), refused, "{format}");
        let file = format!("all.{format}");
        fs::write(machine.project().join(&file), bytes).unwrap();
        for shell in ["sh", "bash", "dash"] {
            let Some(found) = read_by(shell, &file, &machine) else { continue };
            for &index in &held {
                let read = found.get(&name_of(index)).map(Vec::as_slice);
                assert_eq!(read, Some(AWKWARD[index]), "{format}, {shell}, V{index}");
            }
        }
    }
}

#[test]
fn what_programs_read_back_is_what_the_store_has() {
    let machine = machine();
    let (json, yaml) = (exported(&machine, "json"), exported(&machine, "yaml"));
    assert_eq!((json.held.len(), yaml.held.len()), (AWKWARD.len() - 2, AWKWARD.len() - 2));
    let of_json: Value = serde_json::from_slice(&json.bytes).unwrap();
    let of_yaml: Value = serde_saphyr::from_str(&text(&yaml.bytes)).unwrap();
    for index in json.held {
        let (name, expected) = (name_of(index), std::str::from_utf8(AWKWARD[index]).ok());
        assert_eq!((of_json[&name].as_str(), of_yaml[&name].as_str()), (expected, expected), "{name}");
    }
}

/// The documented rules of a reader of lines: what docker has of its file.
fn lines(written: &str) -> Vec<(&str, &str)> {
    written.split_terminator('\n').filter_map(|line| line.split_once('=')).collect()
}

/// systemd.exec(5): between double quotes, a backslash stands before one of `"`, a backslash, a backtick and `$`.
fn as_systemd(written: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = written;
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut letters = quoted.chars();
        loop {
            match letters.next().unwrap() {
                '"' => break,
                '\\' => value.push(letters.next().filter(|letter| "\"\\`$".contains(*letter)).unwrap()),
                letter => value.push(letter),
            }
        }
        found.push((name.to_owned(), value));
        rest = letters.as_str().strip_prefix('\n').unwrap();
    }
    assert_eq!(rest, "");
    found
}

/// `java.util.Properties.load`.
fn as_properties(written: &str) -> Vec<(String, String)> {
    let lines = written.split_terminator('\n').map(|line| line.split_once('=').unwrap());
    lines.map(|(name, value)| (name.to_owned(), unescaped(value))).collect()
}

fn unescaped(line: &str) -> String {
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
    type Reader<'a> = &'a dyn Fn(&str) -> Vec<(String, String)>;
    let machine = machine();
    let of_lines = |text: &str| lines(text).into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
    let readers: [(&str, usize, Reader<'_>); 4] = [
        ("docker", 11, &of_lines),
        ("gitlab", 36, &of_lines),
        ("systemd", 2, &as_systemd),
        ("properties", 2, &as_properties),
    ];
    for (format, refused, read) in readers {
        let Exported { bytes, held } = exported(&machine, format);
        assert_eq!(AWKWARD.len() - held.len(), refused, "{format}");
        let expected = |index: &usize| (name_of(*index), String::from_utf8(AWKWARD[*index].to_vec()).unwrap());
        let mut found = read(&text(&bytes));
        let mut expected: Vec<_> = held.iter().map(expected).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{format}");
    }
    // Read by what they are for, in tests/readers.
    for (format, refused) in [("compose", 3), ("fish", 0)] {
        assert_eq!(AWKWARD.len() - exported(&machine, format).held.len(), refused, "{format}");
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
