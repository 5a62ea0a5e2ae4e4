//! `run --files`: files that end with the command, however that ends, and that nobody else sees.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret as _;
use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::{CANARY, Machine, PROJECT, quiet, text};

/// The machine is shared: what is waited for comes, but not soon.
const DEADLINE: Duration = Duration::from_mins(1);

pub(super) fn soon(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "in vain: {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// Files below `directory` with a canary in them.
fn with_canary(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(with_canary(&path));
        } else if kind.is_file() && fs::read(&path).is_ok_and(|bytes| text(&bytes).contains(CANARY)) {
            found.push(path);
        }
    }
    found
}

/// The program, started by another one with these words.
fn through(machine: &Machine, way: &Way, arguments: &[&str]) -> Command {
    let Some((first, rest)) = way.words.split_first() else { return machine.command(arguments) };
    let mut command = Command::new(first);
    command.args(rest).arg(&way.program).args(arguments).current_dir(machine.project());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", machine.directory.path());
    command
}

fn works(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null());
    let works = command.status().is_ok_and(|status| status.success());
    if !works {
        // Not eprintln: what a test that passes prints with it is not shown.
        std::io::stderr().write_all(format!("SKIPPED: this system does not run {words:?}\n").as_bytes()).unwrap();
    }
    works
}

/// A way to start the program.
struct Way {
    words: Vec<&'static str>,
    /// As whom, if it is not who runs the tests.
    user: Option<u32>,
    /// Where this user can get at it: what cargo builds may be in another's home.
    program: PathBuf,
    _place: Option<tempfile::TempDir>,
}

/// Nobody's number, and words that become it.
const USER: u32 = 42_420;
const AS_USER: &[&str] = &["setpriv", "--reuid", "42420", "--regid", "42420", "--clear-groups"];

impl Way {
    /// If the system lets it be.
    fn new(words: &[&'static str], user: Option<u32>) -> Option<Self> {
        if !words.is_empty() && !works(&[words, &["true"]].concat()) {
            return None;
        }
        let words = words.to_vec();
        let built = PathBuf::from(env!("CARGO_BIN_EXE_hushpod"));
        if user.is_none() {
            return Some(Self { words, user, program: built, _place: None });
        }
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = place.path().join("hushpod");
        if fs::hard_link(&built, &program).is_err() {
            fs::copy(&built, &program).unwrap();
        }
        Some(Self { words, user, program, _place: Some(place) })
    }

    /// Gives this user what is below a directory.
    fn own(&self, directory: &Path) {
        let Some(user) = self.user else { return };
        let owned = Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(directory).status();
        assert!(owned.unwrap().success());
    }

    fn uid(&self) -> u32 {
        self.user.unwrap_or_else(|| geteuid().as_raw())
    }
}

/// Where the program may mount: as the user of the tests, as one who needs a user namespace for it, and as a plain user.
fn ways() -> Vec<Way> {
    const LESS: &[&str] = &["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    if !works(&["unshare", "--user", "--map-current-user", "--mount", "true"]) {
        return Vec::new();
    }
    let is_root = geteuid().is_root();
    let others: &[(&[&str], Option<u32>)] = if is_root { &[(LESS, None), (AS_USER, Some(USER))] } else { &[] };
    Way::new(&[], None).into_iter().chain(others.iter().filter_map(|(words, user)| Way::new(words, *user))).collect()
}

/// Where it may not, since the system has no more namespaces: in a user namespace of our own, whose limits are its own.
fn ways_without_namespaces() -> Vec<Way> {
    const FORBID: &str =
        "echo 0 >/proc/sys/user/max_mnt_namespaces && echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    const AS_ROOT: &[&str] = &["unshare", "--user", "--map-root-user", "sh", "-c", FORBID, "sh"];
    const NAMESPACE: &[&str] = &["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", FORBID, "sh"];
    const PLAIN: &[&str] = &["setpriv", "--ambient-caps", "-all", "--inh-caps", "-all"];
    let as_user = geteuid().is_root().then(|| [AS_USER, NAMESPACE, PLAIN].concat());
    let as_user = as_user.and_then(|words| Way::new(&words, Some(USER)));
    Way::new(AS_ROOT, None).into_iter().chain(as_user).collect()
}

/// A command that said it is there, and ends when it may read.
fn waiting(mut command: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, out)
}

/// Ends it: by a kill, or as it ends by itself, and then with the rest of what it said.
fn end(child: &mut Child, out: &mut impl Read, is_killed: bool) -> Option<String> {
    if is_killed {
        child.kill().unwrap();
        return None;
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    Some(rest)
}

const WAIT: &str = "echo ready; read line; cat \"$HUSHPOD_FILES/tls/key.pem\"";

#[test]
fn p5_files_are_seen_by_the_command_alone_and_end_with_it() {
    for way in ways() {
        let machine = Machine::new(PROJECT);
        let key = fs::read_to_string(machine.project().join("store/key.pem")).unwrap();
        fs::create_dir(machine.directory.path().join("run")).unwrap();
        let before = with_canary(machine.directory.path());
        let of_system = machine.directory.path().join("run");
        way.own(machine.directory.path());
        let with = |arguments: &[&str]| {
            let mut command = through(&machine, &way, arguments);
            command.env("XDG_RUNTIME_DIR", &of_system);
            command
        };
        // Where a person says, and where it usually is.
        let script =
            "cat \"$HUSHPOD_FILES/tls/key.pem\"; stat -c %u:%a \"$HUSHPOD_FILES\"; id -u; printf %s \"$TOKEN\" | wc -c";
        let uid = way.uid();
        let expected = format!("{key}{uid}:700\n{uid}\n18\n");
        for files in [&["--files", "here"][..], &["--files"]] {
            let arguments = [&["run"], files, &["--", "sh", "-c", script]].concat();
            assert_eq!(
                quiet(&with(&arguments).stdin(Stdio::null()).output().unwrap()),
                expected,
                "{:?} {files:?}",
                way.words
            );
        }
        let here = machine.project().join("here");
        let is_empty = || fs::read_dir(&here).unwrap().next().is_none();
        for is_killed in [false, true] {
            let (mut child, mut out) = waiting(with(&["run", "--files", "here", "--", "sh", "-c", WAIT]));
            assert!(is_empty(), "nobody else sees them");
            assert_eq!(with_canary(machine.directory.path()), before);
            if let Some(rest) = end(&mut child, &mut out, is_killed) {
                assert_eq!(rest, key);
            }
            assert_eq!(child.wait().unwrap().success(), !is_killed);
            assert!(is_empty());
            assert_eq!(with_canary(machine.directory.path()), before, "nothing stays on a disk");
        }
        let later = "(sleep 1; cat \"$HUSHPOD_FILES/tls/key.pem\") & exit 0";
        let last = with(&["run", "--files", "here", "--", "sh", "-c", later]).output().unwrap();
        assert_eq!(text(&last.stdout), key, "they are there for what the command leaves behind");
        let inside = |files: &str| {
            let show = "cat \"$HUSHPOD_FILES/tls/key.pem\"";
            let inner = [way.program.to_str().unwrap(), "run", "--files", files, "--", "sh", "-c", show];
            with(&[&["run", "--files", "here", "--"][..], &inner].concat()).output().unwrap()
        };
        assert_eq!(text(&inside("there").stdout), key, "one inside of another has a directory of its own");
        let told = text(&inside("here").stderr);
        assert!(told.contains("the hushpod run --files that this one runs in: name another directory"), "{told}");
    }
}

#[test]
fn p9_a_directory_that_is_in_use_is_not_hidden() {
    let machine = Machine::new(PROJECT);
    for (arguments, part) in [
        (&["run", "--files", "store", "--", "true"][..], "is not an empty directory"),
        (&["run", "--files", "--", "true"], "XDG_RUNTIME_DIR is not set"),
        (&["run", "--files", "no/such", "--", "true"], "no/such"),
        (&["run", "--watch=signal:HUP", "--", "true"], "needs --files"),
        (&["run", "--watch=stop", "--", "true"], "restart, or signal:HUP"),
        (&["run", "--grace", "1s", "--", "true"], "--watch"),
    ] {
        let output = machine.run(arguments);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(125) && told.contains(part), "{arguments:?}: {told}");
    }
}

/// A guardian of this directory.
fn guardian(directory: &Path) -> Option<Pid> {
    let is_it = |process: &fs::DirEntry| {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        text(&words).contains(&format!("guard\0{}", directory.display()))
    };
    let process = fs::read_dir("/proc").unwrap().flatten().find(is_it)?;
    Pid::from_raw(process.file_name().to_str()?.parse().ok()?)
}

#[test]
fn p5_where_nobody_may_mount_a_guardian_removes_the_files() {
    for way in ways_without_namespaces() {
        guarded(&way);
    }
}

fn guarded(way: &Way) {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::set_permissions(memory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let machine = Machine::new(PROJECT);
    way.own(memory.path());
    way.own(machine.directory.path());
    let before = with_canary(machine.directory.path());
    let start = || {
        let mut command = through(&machine, way, &["run", "--files", "here", "--", "sh", "-c", WAIT]);
        command.env("XDG_RUNTIME_DIR", memory.path());
        waiting(command)
    };
    let here = machine.project().join("here");
    for is_killed in [false, true] {
        let (mut child, mut out) = start();
        let directory = fs::read_link(&here).unwrap();
        assert!(directory.starts_with(memory.path()), "{}", directory.display());
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(with_canary(memory.path()).len(), 2, "the test sees them");
        if let Some(rest) = end(&mut child, &mut out, is_killed) {
            assert!(rest.contains(CANARY), "{rest}");
        }
        child.wait().unwrap();
        soon("the guardian removes them", || !directory.exists() && fs::symlink_metadata(&here).is_err());
        assert_eq!(with_canary(machine.directory.path()), before);
    }
    // Nobody is left that could.
    let (mut child, _out) = start();
    let directory = fs::read_link(&here).unwrap();
    let guardian = guardian(&directory).unwrap();
    let environment = fs::read(format!("/proc/{}/environ", guardian.as_raw_nonzero())).unwrap();
    assert!(!text(&environment).contains(CANARY), "it has no value that it could leave");
    kill_process(guardian, Signal::KILL).unwrap();
    soon("it ends", || !fs::exists(format!("/proc/{}", guardian.as_raw_nonzero())).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(directory.exists(), "or the test shows nothing");
    let (mut child, _out) = start();
    assert!(!directory.exists(), "the next one sweeps");
    child.kill().unwrap();
    child.wait().unwrap();
    soon("the last one goes", || with_canary(memory.path()).is_empty());
}

/// On a file system of 64 KiB that a shell makes in a mount namespace of its own; it says the exit code, what is there
/// then, and which of it has a value in it.
const ON_FULL_DISK: &str = "mount -t tmpfs -o size=64k none disk && head -c 24k /dev/zero >disk/other || exit 99
\"$@\"; echo \"code $?\"; ls -A disk; echo in: $(grep -rl canary disk)";

#[test]
fn p5_a_full_disk_keeps_nothing_of_a_value() {
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_FULL_DISK, "sh"];
    if !works(&[&words[..4], &["true"]].concat()) {
        return;
    }
    let way = Way { words: words.to_vec(), user: None, program: env!("CARGO_BIN_EXE_hushpod").into(), _place: None };
    let project = format!("{PROJECT}  BIG: big\n").replace("tls/key.pem, from: key.pem", "big, from: big");
    let project = project.replace("profiles:\n  prod: {variables: {TOKEN: prod-token}}\n", "");
    let machine = Machine::new(&project);
    fs::write(machine.project().join("store/big"), CANARY.repeat(9000)).unwrap();
    fs::create_dir(machine.project().join("disk")).unwrap();
    let identity = age::x25519::Identity::generate().to_string();
    for (arguments, code) in [
        (&["get", "big", "-o", "disk/out"][..], 1),
        (&["export", "--format", "json", "--only", "BIG", "-o", "disk/out"], 1),
        (&["render", "--dir", "disk/out"], 1),
        // The values are in hand, and only the copy is not kept.
        (&["run", "--cache", "1h", "--only", "BIG", "--", "true"], 0),
    ] {
        let mut command = through(&machine, &way, arguments);
        command.env("XDG_CACHE_HOME", machine.project().join("disk")).env("SOPS_AGE_KEY", identity.expose_secret());
        let output = command.output().unwrap();
        let (out, told) = (text(&output.stdout), text(&output.stderr));
        assert!(out.starts_with(&format!("code {code}\n")) && out.contains("\nother\n"), "{arguments:?}: {out}{told}");
        assert!(out.ends_with("in:\n") && !told.contains(CANARY), "{arguments:?}: {out}{told}");
        assert!(!told.is_empty(), "{arguments:?}: it is told");
    }
}
