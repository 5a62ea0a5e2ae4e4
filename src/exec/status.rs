//! `hushpod-agent status`: which generation runs, and which is the newest.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::failure::{FAILED, json_text, say};
use super::read;
use crate::contract::DEFAULT_MOUNT_PATH;
use crate::env_vars::{FILES, GENERATION};

/// A process that `exec` became or started.
struct WrappedProcess {
    pid: u32,
    parent: Option<u32>,
    name: String,
    generation: String,
    files: PathBuf,
}

pub(super) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    let (mut files, mut is_json) = (None, false);
    while let Some(option) = arguments.next() {
        match (option.to_str(), arguments.next_if(|_| option == "--files")) {
            (Some("--json"), _) => is_json = true,
            (Some("--files"), Some(directory)) => files = Some(PathBuf::from(directory)),
            _ => {
                say(&mut io::stderr(), "hushpod-agent status: write status [--json] [--files DIR]\n");
                return ExitCode::from(FAILED);
            }
        }
    }
    let report = if is_json { json } else { report };
    say(&mut io::stdout(), &report(&running(), files.as_deref()));
    ExitCode::SUCCESS
}

/// The same for programs. Names of processes are what their containers' authors like.
fn json(running: &[WrappedProcess], files: Option<&Path>) -> String {
    let files = files.unwrap_or(Path::new(DEFAULT_MOUNT_PATH));
    let newest = read::present(files).map_or_else(|| "null".to_owned(), |origin| json_text(&origin.generation));
    let processes = running.iter().take(64).map(|WrappedProcess { pid, name, generation, .. }| {
        format!("{{\"pid\":{pid},\"name\":{},\"generation\":{}}}", json_text(name), json_text(generation))
    });
    format!("{{\"schema\":1,\"newest\":{newest},\"processes\":[{}]}}\n", processes.collect::<Vec<_>>().join(","))
}

fn report(running: &[WrappedProcess], files: Option<&Path>) -> String {
    let newest = |files: &Path| read::present(files).map_or_else(|| "none".to_owned(), |origin| origin.generation);
    if running.is_empty() {
        let files = files.unwrap_or(Path::new(DEFAULT_MOUNT_PATH));
        return format!(
            "no process with variables of hushpod is visible here; newest {} in {}\n",
            newest(files),
            files.display()
        );
    }
    let line = |process: &WrappedProcess| {
        let WrappedProcess { pid, name, generation, files: own, .. } = process;
        format!("{pid} {name}: running with generation {generation}, newest {}\n", newest(files.unwrap_or(own)))
    };
    running.iter().map(line).collect()
}

/// The oldest of every family: children inherit what their parents have.
fn running() -> Vec<WrappedProcess> {
    let pids =
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut pids: Vec<u32> = pids.filter(|pid| *pid != std::process::id()).collect();
    pids.sort_unstable();
    let found: Vec<_> = pids.into_iter().filter_map(WrappedProcess::of).collect();
    let is_child = |process: &WrappedProcess| {
        found.iter().any(|other| Some(other.pid) == process.parent && other.generation == process.generation)
    };
    let children: Vec<_> = found.iter().map(is_child).collect();
    found.into_iter().zip(children).filter(|(_, is_child)| !is_child).map(|(process, _)| process).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

// === impl WrappedProcess ===

impl WrappedProcess {
    /// Of other uids, and of programs that nobody may read, nothing is to be seen.
    fn of(pid: u32) -> Option<Self> {
        let environment = zeroize::Zeroizing::new(fs::read(format!("/proc/{pid}/environ")).ok()?);
        let value = |name: &str| {
            let mut entries = environment.split(|&byte| byte == 0);
            entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        };
        let generation = String::from_utf8_lossy(value(GENERATION)?).into_owned();
        let files = PathBuf::from(OsStr::from_bytes(value(FILES).unwrap_or(DEFAULT_MOUNT_PATH.as_bytes())));
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        Some(Self { pid, parent: parent_of(pid), name, generation, files })
    }
}
