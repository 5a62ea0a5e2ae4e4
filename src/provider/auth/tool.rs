//! What a store's own program is logged in as: it is run, and prints a token or keys.
//!
//! On a person's machine alone: an agent has no such program beside it, and cannot run one.

use crate::provider::{ErrorKind, ProviderError};
use crate::secret::SecretValue;

/// A program of a store's own.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Its name, which is looked for in `PATH`, and there in absolute directories alone.
    pub program: &'static str,
    /// What makes it print the login. No shell reads them.
    pub arguments: Vec<String>,
    /// What it is to find in its environment, beside what ours is.
    pub environment: &'static [(&'static str, &'static str)],
    /// What a person runs to log in.
    pub login: String,
}

// === impl Tool ===

impl Tool {
    /// That there is no login, and what to run.
    #[must_use]
    pub fn no_login(&self, problem: &str) -> ProviderError {
        ProviderError::new(ErrorKind::Denied, format!("{problem}: run `{}`", self.login))
    }

    /// What it prints, without white space around it. Nothing of what it says on standard error is told: run by hand, it
    /// says that to who runs it.
    ///
    /// # Errors
    /// `Invalid` if there is no such program, or it prints more than 64 KiB, or nothing; `Denied` if it fails, which says
    /// that there is no login; `Unavailable` if it takes more than 9 s.
    #[cfg(feature = "cluster")]
    pub async fn print(&self) -> Result<SecretValue, ProviderError> {
        run::print(self).await
    }

    /// Nothing: only `hushpod` itself runs programs.
    ///
    /// # Errors
    /// `Invalid`, always.
    #[cfg(not(feature = "cluster"))]
    pub fn print(&self) -> impl Future<Output = Result<SecretValue, ProviderError>> + use<> {
        let problem = format!("this login is that of `{}`, which is for people: no pod has it", self.program);
        std::future::ready(Err(ProviderError::new(ErrorKind::Invalid, problem)))
    }
}

#[cfg(feature = "cluster")]
mod interrupts;
#[cfg(feature = "cluster")]
pub use interrupts::leave_signals;

#[cfg(feature = "cluster")]
mod run {
    use std::env;
    use std::ffi::OsStr;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use rustix::process::{Signal, kill_process_group};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::unix::pipe::Receiver;
    use tokio::time::{sleep, timeout};
    use zeroize::Zeroizing;

    use super::{Tool, interrupts};
    use crate::provider::{ErrorKind, ProviderError};
    use crate::secret::SecretValue;

    /// Nearly as long as the stores' own libraries wait, and less than `--timeout` is: who hangs is named.
    const LONGEST: Duration = Duration::from_secs(9);
    /// How often is looked whether it has ended.
    const PAUSE: Duration = Duration::from_millis(2);
    /// No token and no keys are longer.
    const MAX_BYTES: usize = 64 << 10;
    /// A program that finds no login may open a browser for one, and nobody asked for that.
    const DISPLAYS: [&str; 2] = ["DISPLAY", "WAYLAND_DISPLAY"];

    /// A program and all that it starts, which ends with this.
    struct ToolRun {
        child: Child,
        has_ended: bool,
    }

    pub(super) async fn print(tool: &Tool) -> Result<SecretValue, ProviderError> {
        let name = tool.program;
        let invalid = |problem: String| ProviderError::new(ErrorKind::Invalid, problem);
        let path = env::var_os("PATH").unwrap_or_default();
        let Some(file) = find(name, &path) else {
            let problem =
                format!("there is no {name} in PATH to ask for its login: install it and run `{}`", tool.login);
            return Err(invalid(problem));
        };
        let cannot = |error: io::Error| invalid(format!("{} cannot be run: {}", file.display(), error.kind()));
        let mut command = Command::new(&file);
        command.args(&tool.arguments).envs(tool.environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        for name in DISPLAYS {
            command.env_remove(name);
        }
        // Many are scripts: what those start has to end with them.
        let child = interrupts::spawn(command.process_group(0)).map_err(cannot)?;
        match timeout(LONGEST, ToolRun { child, has_ended: false }.answer()).await {
            Ok(Ok(Some(printed))) if !printed.is_empty() => Ok(printed),
            Ok(Ok(Some(_))) => Err(invalid(format!("{name} prints nothing: run `{}`", tool.login))),
            Ok(Ok(None)) => Err(tool.no_login(&format!("{name} has no login, or it has ended"))),
            Ok(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(invalid(format!("{name} prints more than {} KiB: expected a token or keys", MAX_BYTES >> 10)))
            }
            Ok(Err(error)) => Err(cannot(error)),
            Err(_) => {
                let problem = format!("{name} did not answer within {} s: run `{}`", LONGEST.as_secs(), tool.login);
                Err(ProviderError::new(ErrorKind::Unavailable, problem))
            }
        }
    }

    /// Never in the working directory, which may be somebody else's repository.
    fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
        let is_executable = |file: &Path| {
            file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        };
        let directories = env::split_paths(path).filter(|directory| directory.is_absolute());
        directories.map(|directory| directory.join(program)).find(|file| is_executable(file))
    }

    // === impl ToolRun ===

    impl ToolRun {
        /// What it printed; `None` if it failed.
        async fn answer(mut self) -> io::Result<Option<SecretValue>> {
            let stdout = self.child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
            // Room for all of it, so growing leaves no copy behind.
            let mut printed = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1024));
            let mut stdout = Receiver::from_owned_fd(OwnedFd::from(stdout))?.take(MAX_BYTES as u64 + 1);
            stdout.read_to_end(&mut printed).await?;
            if printed.len() > MAX_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            // Who has closed its output is about to end.
            let status = loop {
                match self.child.try_wait()? {
                    Some(status) => break status,
                    None => sleep(PAUSE).await,
                }
            };
            self.has_ended = true;
            Ok(status.success().then(|| SecretValue::new(printed.trim_ascii().to_vec())))
        }
    }

    impl Drop for ToolRun {
        fn drop(&mut self) {
            if !self.has_ended {
                // It may have ended by itself; the command that takes this process over is to have no child of ours.
                let _ = interrupts::leader(&self.child).map(|leader| kill_process_group(leader, Signal::KILL));
                let _ = self.child.wait();
            }
            interrupts::forget(&self.child);
        }
    }

    #[cfg(test)]
    mod tests {
        use std::fs;

        use super::*;

        /// A program that does this, in a directory of its own.
        fn program(directory: &Path, name: &str, script: &str) {
            let file = directory.join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }

        /// What comes of a program that does this.
        async fn printed(script: &str) -> Result<SecretValue, ProviderError> {
            let directory = tempfile::tempdir().unwrap();
            program(directory.path(), "tool", script);
            let file = find("tool", directory.path().as_os_str()).unwrap();
            print_of(&file).await
        }

        async fn print_of(file: &Path) -> Result<SecretValue, ProviderError> {
            let tool = Tool {
                program: "sh",
                arguments: vec![file.to_str().unwrap().to_owned(), "a b".to_owned(), "$HOME".to_owned()],
                environment: &[("HUSHPOD_TOOL_TEST", "1")],
                login: "tool login".to_owned(),
            };
            print(&tool).await
        }

        #[tokio::test]
        async fn what_a_program_prints_is_its_login() {
            let words = printed("printf ' %s|%s|%s\\n' \"$1\" \"$2\" \"$HUSHPOD_TOOL_TEST\"").await.unwrap();
            assert_eq!(words, "a b|$HOME|1".into(), "no shell reads the words");
            let largest = printed(&format!("head -c {MAX_BYTES} /dev/zero | tr '\\0' x")).await.unwrap();
            assert_eq!(largest.len(), MAX_BYTES);
            assert_eq!(
                printed("cat; echo \"${DISPLAY-none}\"").await.unwrap(),
                "none".into(),
                "nobody is asked anything"
            );
        }

        #[tokio::test]
        async fn p9_what_is_no_login_says_what_to_run_and_nothing_that_was_printed() {
            let one_more = format!("head -c {} /dev/zero", MAX_BYTES + 1);
            for (script, kind, part) in [
                ("echo canary; echo canary >&2; exit 1", ErrorKind::Denied, "has no login, or it has ended: run `tool"),
                ("kill -9 $$", ErrorKind::Denied, "run `tool login`"),
                ("echo canary >&2", ErrorKind::Invalid, "prints nothing: run `tool login`"),
                ("exec cat /dev/zero", ErrorKind::Invalid, "more than 64 KiB"),
                (one_more.as_str(), ErrorKind::Invalid, "more than 64 KiB"),
            ] {
                let error = printed(script).await.unwrap_err();
                assert!(error.kind == kind && error.message.contains(part), "{script}: {error}");
                assert!(!error.message.contains("canary"), "{script}: {error}");
            }
        }

        #[tokio::test(start_paused = true)]
        async fn p7_who_hangs_is_ended_with_all_that_it_started() {
            for script in ["exec sleep 1000", "sleep 1000 & wait", "sleep 1000 &"] {
                let error = printed(script).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Unavailable, "{script}: {error}");
                assert!(error.message.contains("within 9 s: run `tool login`"), "{script}: {error}");
            }
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped()).process_group(0);
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            io::BufRead::read_line(&mut io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
            drop(ToolRun { child, has_ended: false });
            // Nobody is its parent but the machine's, which may take a moment.
            let stat = PathBuf::from(format!("/proc/{}/stat", line.trim()));
            let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
            let until = std::time::Instant::now() + Duration::from_secs(10);
            while !is_gone() {
                assert!(std::time::Instant::now() < until, "it outlived who started it: {line}");
                std::thread::yield_now();
            }
        }

        #[test]
        fn p6_a_program_is_never_one_of_the_working_directory() {
            let directory = tempfile::tempdir().unwrap();
            let (first, second) = (directory.path().join("first"), directory.path().join("second"));
            for directory in [&first, &second] {
                fs::create_dir(directory).unwrap();
            }
            let here = env::current_dir().unwrap();
            let relative = here.components().skip(1).map(|_| "..").collect::<PathBuf>();
            let relative = relative.join(second.strip_prefix("/").unwrap());
            program(&second, "tool", "");
            assert!(relative.join("tool").exists());
            fs::write(first.join("tool"), "not executable").unwrap();
            fs::create_dir(first.join("directory")).unwrap();
            let find_in = |directories: &[&Path], name: &str| find(name, &env::join_paths(directories).unwrap());
            assert_eq!(
                find_in(&[&first, &second], "tool"),
                Some(second.join("tool")),
                "what cannot be run is passed over"
            );
            assert_eq!(find_in(&[&relative, Path::new(""), Path::new(".")], "tool"), None);
            assert_eq!(find_in(&[&first], "directory"), None);
            assert_eq!(find("tool", OsStr::new("")), None);
        }
    }
}
