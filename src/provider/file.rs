//! Files as a store: a directory of them, one YAML, JSON or dotenv document, or the pod's own volumes. They may be
//! encrypted: age files are opened, and what SOPS wrote is decrypted and verified.
//!
//! In a directory, a path names a file (`.json`, `.yaml`, `.yml` and `.env` are read as documents, others as one
//! value) or a directory (a document with a value per file). In a document, it names a key, or keys below each other.
//! `.` is all of it. Of the pod's volumes, a path begins with a volume's name. Files have no versions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use futures_util::future::{pending, select_all};
use serde::{Deserialize, Serialize};

use self::keys::{AgeKeys, KeySource};
use self::read::Problem;
use super::faults::SettingsFaults;
use super::interface::{
    Answer, ErrorKind, Known, Login, Pending, Provider, ProviderError, ReadResult, Reading, Settings,
};
use crate::contract::SOURCES_PATH;
use crate::parse_error::{ParseError, invalid, rule};
use crate::process::watch::Watch;
use crate::reference::{Reference, Request};
use crate::secret::{SecretTree, SecretValue};

mod content;
mod keys;
mod read;
mod sops;

#[cfg(feature = "cluster")]
pub(crate) use keys::OwnKeys;

/// Where the files are, and what opens those that are encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FileSettings {
    /// Absolute path of a directory, or of one `.yaml`, `.yml`, `.json` or `.env` file. Either this or `volumes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The pod's own ConfigMap volumes: paths are `<volume>/<path in it>`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub volumes: bool,
    /// Reference to the age identity in another provider: `<provider>:<path>#<key>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Absolute path of an age identity, on a person's machine or in a CI job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_file: Option<String>,
}

/// A store of files, read by the agent's own user.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    keys: KeySource,
    /// Every path that was asked for …
    asked: BTreeSet<String>,
    /// … and every directory on the way to them.
    watches: BTreeMap<PathBuf, Watch>,
    /// What was wrong at the last look, by path, and in which state of the file system.
    seen: BTreeMap<String, u64>,
}

/// What was just written may be half of what it will be: it is read again after this long …
const SETTLE: Duration = Duration::from_millis(10);
/// … and so often, before it is taken as it is.
const ROUNDS: u32 = 30;

// === impl FileSettings ===

impl FileSettings {
    /// The files at a path, none of them encrypted.
    #[must_use]
    pub fn at(path: &str) -> Self {
        Self { path: Some(path.to_owned()), ..Self::default() }
    }

    fn root(&self) -> PathBuf {
        PathBuf::from(self.path.as_deref().unwrap_or(SOURCES_PATH))
    }
}

impl Settings for FileSettings {
    /// The canonical request: plain components between single slashes, or `.`.
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
        if let Some(name) = reference.params.keys().next() {
            return Err(rule(format!("files have no versions and no parameters: remove \"?{name}=…\"")));
        }
        let path = &reference.path;
        if path == "." && self.volumes {
            return Err(rule("\".\" would be every volume: write <volume>/<path in it>"));
        }
        if path != "." {
            path.split('/').try_for_each(|component| check_component(path, component))?;
        }
        Ok(Request { provider: provider.to_owned(), path: path.clone(), params: BTreeMap::new() })
    }

    fn reads(&self) -> Option<Vec<PathBuf>> {
        let files = [Some(self.root()), self.identity_file.as_ref().map(PathBuf::from)];
        let usual = match (&self.identity, &self.identity_file) {
            (None, None) => keys::usual_files(),
            _ => Vec::new(),
        };
        Some(files.into_iter().flatten().chain(usual).collect())
    }

    /// Checks the paths without looking whether they are there.
    fn check(&self, faults: &mut SettingsFaults) {
        match (&self.path, self.volumes) {
            (Some(path), false) => faults.of("path", check_path(path, "/etc/secrets-source")),
            (None, true) => {}
            (Some(_), true) => faults.together("path", &["volumes"], rule("path and volumes: write one of them")),
            (None, false) => {
                let sentence = "write path: <a directory>, or volumes: true for the pod's own ConfigMap volumes";
                faults.missing("path", &["volumes"], sentence);
            }
        }
        match (&self.identity, &self.identity_file) {
            (Some(_), Some(_)) => {
                let problem = rule("identity and identityFile: write one of them");
                faults.together("identityFile", &["identity"], problem);
            }
            (None, Some(file)) => faults.of("identityFile", check_path(file, "/home/me/.config/sops/age/keys.txt")),
            _ => {}
        }
    }

    fn volume<'a>(&self, request: &'a Request) -> Option<&'a str> {
        self.volumes.then(|| request.path.split('/').next()).flatten()
    }

    fn unlocked_by(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    fn is_remote(&self) -> bool {
        false
    }
}

fn check_component(path: &str, component: &str) -> Result<(), ParseError> {
    let problem = match component {
        "" => "has a '/' at its start or end, or two in a row",
        "." => "has a component '.' (a single '.' is the whole store)",
        // Kubelet's own links are another name for the same file, which would get around a policy.
        name if name.starts_with("..") => "has a component that begins with '..'",
        name if name.len() > 255 => "has a component of more than 255 bytes",
        name if name.chars().any(char::is_control) => "has a control character",
        _ => return Ok(()),
    };
    Err(rule(format!("{path:?} {problem}: write a path inside the store, such as team/db.json")))
}

fn check_path(text: &str, example: &str) -> Result<(), ParseError> {
    let path = Path::new(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain {
        Ok(())
    } else {
        Err(invalid("path", text, format!("an absolute path without '..', such as {example}")))
    }
}

// === impl Files ===

impl Files {
    /// A store at the settings' path, which need not exist yet.
    ///
    /// # Errors
    /// `Invalid` if the settings make no sense.
    pub fn connect(settings: &FileSettings, _: Login) -> Result<Self, ProviderError> {
        settings.validate().map_err(|problem| ProviderError::new(ErrorKind::Invalid, problem))?;
        let path = settings.root();
        let keys = match (&settings.identity, &settings.identity_file) {
            (Some(_), _) => KeySource::Lent(None),
            (None, Some(file)) => KeySource::File(PathBuf::from(file)),
            (None, None) => KeySource::Environment,
        };
        Ok(Self { path, keys, asked: BTreeSet::new(), watches: BTreeMap::new(), seen: BTreeMap::new() })
    }

    /// Watches what is not watched yet. What cannot be, because it is not there, is tried with the next read.
    fn watch(&mut self, requests: &[Request]) {
        self.asked.extend(requests.iter().map(|request| request.path.clone()));
        let mut directories = BTreeSet::new();
        if self.path.is_dir() {
            for path in &self.asked {
                let ancestors = Path::new(path).ancestors().map(|path| self.path.join(path));
                directories.extend(ancestors.filter(|path| path.is_dir()));
            }
        } else {
            directories.extend(self.path.parent().map(Path::to_owned));
        }
        for directory in directories {
            if self.watches.contains_key(&directory) {
                continue;
            }
            match Watch::from_first_wait(&directory) {
                Ok(watch) => drop(self.watches.insert(directory, watch)),
                Err(error) => tracing::debug!(%error, "not watched yet"),
            }
        }
    }

    async fn read_settled(&mut self, requests: &[Request]) -> Vec<ReadResult> {
        let mut round = 0;
        loop {
            let (root, paths) = (self.path.clone(), requests.iter().map(|request| request.path.clone()).collect());
            let keys = self.keys.clone();
            let task = move |paths: Vec<String>| read::batch(&root, &paths, &AgeKeys::new(keys));
            let Ok(batch) = tokio::task::spawn_blocking(move || task(paths)).await else {
                let error = ProviderError::new(ErrorKind::Unavailable, "reading was interrupted");
                return requests.iter().map(|_| Err(error.clone())).collect();
            };
            round += 1;
            if !batch.unsettled || round == ROUNDS {
                let fresh = |tree| Reading::Fresh(Answer { tree, version: None, expires_in: None, lease: None });
                let answers = requests.iter().zip(batch.answers);
                return answers.map(|(request, answer)| self.judge(&request.path, answer).map(fresh)).collect();
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// What is malformed may be half of a write, which the next one puts right. What has not changed since the last look
    /// is not: nobody is writing it, and waiting would not help.
    fn judge(&mut self, path: &str, answer: Result<SecretTree, Problem>) -> Result<SecretTree, ProviderError> {
        let state = answer.as_ref().err().and_then(|problem| problem.state);
        let before = match state {
            Some(state) => self.seen.insert(path.to_owned(), state),
            None => self.seen.remove(path),
        };
        answer.map_err(|Problem { mut error, state }| {
            if state.is_some() && state == before {
                error.kind = ErrorKind::Invalid;
            }
            error
        })
    }
}

impl Provider for Files {
    fn read<'a>(&'a mut self, requests: &'a [Request], _: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        // Before reading, so no change falls between.
        self.watch(requests);
        Box::pin(self.read_settled(requests))
    }

    fn set_decryption_key(&mut self, identity: SecretValue) {
        self.keys = KeySource::Lent(Some(identity));
    }

    fn changed(&mut self) -> Pending<'_, ()> {
        Box::pin(async {
            let watched = self.watches.iter_mut().map(|(directory, watch)| {
                Box::pin(async move {
                    watch.changed().await;
                    directory.clone()
                })
            });
            let watched: Vec<_> = watched.collect();
            if watched.is_empty() {
                return pending().await;
            }
            let (changed, ..) = select_all(watched).await;
            // The directories below may be others now, under the same names: the next read watches those.
            self.watches.retain(|directory, _| *directory == changed || !directory.starts_with(&changed));
        })
    }
}

#[cfg(test)]
mod tests;
