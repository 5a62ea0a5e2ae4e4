//! A command that can be begun again, each time with other variables.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::files::NamedValues;
use super::id_token::TOKEN_PREFIX;
use super::private_dir::{HELPER, MYSELF};
use crate::contract::END_OF_OPTIONS;
use crate::env_vars::FILES;

/// What is begun, but for the values.
#[derive(Debug)]
pub(super) struct CommandTemplate {
    /// The program as it is looked for.
    pub(super) program: OsString,
    /// As it is found: somewhere in the path, where the command has another one.
    file: OsString,
    arguments: Vec<OsString>,
    /// Names that are left of the shell's variables; `None` is all.
    passed: Option<Vec<String>>,
    /// Where the files are.
    files: Option<PathBuf>,
}

// === impl CommandTemplate ===

impl CommandTemplate {
    pub(super) fn new(
        program: OsString,
        arguments: Vec<OsString>,
        passed: Option<Vec<String>>,
        files: Option<PathBuf>,
    ) -> Self {
        // It is looked for where the shell would, whatever path it has itself.
        let found = passed.as_ref().and_then(|_| in_path(&program)).map(OsString::from);
        Self { file: found.unwrap_or_else(|| program.clone()), program, arguments, passed, files }
    }

    /// What the shell has of this name, and the command has too.
    pub(super) fn inherited(&self, name: &str) -> Option<OsString> {
        let is_passed = self.passed.as_ref().is_none_or(|passed| passed.iter().any(|passed| passed == name));
        env::var_os(name).filter(|_| is_passed)
    }

    /// The command itself.
    pub(super) fn command(&self, variables: &NamedValues) -> Command {
        let mut command = Command::new(&self.file);
        command.arg0(&self.program).args(&self.arguments);
        self.set_variables(&mut command, variables);
        command
    }

    /// The part of this program that leads the command's session, with the command's variables.
    pub(super) fn leader(&self, variables: &NamedValues) -> Command {
        let mut command = Command::new(MYSELF);
        command
            .args([HELPER, "foreground"])
            .arg(&self.file)
            .arg(END_OF_OPTIONS)
            .arg(&self.program)
            .args(&self.arguments);
        self.set_variables(&mut command, variables);
        command
    }

    fn set_variables(&self, command: &mut Command, variables: &NamedValues) {
        if let Some(passed) = &self.passed {
            command.env_clear().envs(passed.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        }
        // Whom the job may log in as is not the command's to know.
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(TOKEN_PREFIX.as_bytes())) {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, OsStr::from_bytes(value.expose()))));
        if let Some(files) = &self.files {
            command.env(FILES, files);
        }
    }
}

fn in_path(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return None;
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}
