//! `--live`: asks the stores for every reference with a person's login. What they answer is thrown away.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::findings::{Checked, FindingKind};
use crate::annotations::variable_of;
use crate::bundle::{Bundle, Item, Target, TextPosition};
use crate::deliver::render::Rendered;
use crate::local::error::{LocalError, LocalFailure};
use crate::local::manifest::ManifestPod;
use crate::local::project::ProjectFiles;
use crate::local::source_file::{FileFault, SourceFile};
use crate::local::wanted::{WantedSecrets, person, project_here};
use crate::options::Options;
use crate::webhook::review::split_place;

/// Most files that are asked for at once: so many no pod has.
const MOST: usize = 1000;
/// What a file is called while it is asked for, before its number.
const NAME: &str = "item-";

/// What is to be asked for, by those who ask.
#[derive(Debug)]
pub(super) struct LiveCheck {
    operator: Option<PathBuf>,
    profile: Option<String>,
    timeout: Duration,
    by_asker: BTreeMap<LiveAsker, Vec<LiveItem>>,
    /// The projects' files, by their paths: a pipe is read once.
    projects: BTreeMap<PathBuf, SourceFile>,
}

/// Whose stores are asked, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LiveAsker {
    /// A project's file; `None` is the one that commands find.
    project: Option<PathBuf>,
    namespace: String,
    account: String,
    provider: Option<String>,
}

/// One file or variable, and where it is asked for.
#[derive(Debug)]
struct LiveItem {
    file: SourceFile,
    at: Option<TextPosition>,
    item: Item,
}

/// What is asked for at once.
struct AskedItems {
    items: Vec<LiveItem>,
    /// Those that nothing is known of yet.
    left: BTreeSet<usize>,
    unanswered: Vec<LocalError>,
}

// === impl LiveCheck ===

impl LiveCheck {
    pub(super) fn new(operator: Option<&Path>, profile: Option<&str>, timeout: Duration) -> Self {
        let profile = profile.filter(|profile| !profile.is_empty()).map(str::to_owned);
        let operator = operator.map(Path::to_owned);
        Self { operator, profile, timeout, by_asker: BTreeMap::new(), projects: BTreeMap::new() }
    }

    /// Adds what a pod asks for, unless it is wrong, and that was told.
    pub(super) fn add_pod(
        &mut self,
        file: &SourceFile,
        pod: &ManifestPod,
        namespace: &str,
        at: impl Fn(&str, &str) -> Option<TextPosition>,
    ) {
        let Ok((bundle, options, _)) = pod.bundle(file, None) else { return };
        let asker = LiveAsker {
            project: None,
            namespace: namespace.to_owned(),
            account: pod.identity.service_account.clone(),
            provider: options.provider,
        };
        let items = bundle.items.into_iter().map(|item| {
            let (key, inside) = split_place(&item.place);
            LiveItem { file: file.clone(), at: at(key, inside), item }
        });
        self.by_asker.entry(asker).or_default().extend(items);
    }

    /// Adds what a project's file asks for.
    pub(super) fn add_project(&mut self, file: &SourceFile, files: &ProjectFiles) {
        let section = files.section(self.profile.as_deref());
        let Ok((bundle, options)) = section.and_then(|section| section.bundle()) else { return };
        self.projects.insert(file.path.clone(), file.clone());
        let person = person();
        let asker = LiveAsker {
            project: Some(file.path.clone()),
            namespace: person.namespace,
            account: person.service_account,
            provider: options.provider,
        };
        let items = bundle.items.into_iter().map(|item| {
            let file = files.file_where(|file| file.is_place_of(&item.place)).unwrap_or(file);
            let at = file.placed(&format!("{}: ", item.place)).at;
            LiveItem { file: file.clone(), at, item }
        });
        self.by_asker.entry(asker).or_default().extend(items);
    }

    /// Asks. What is not there is a fault; what nobody could say is given back.
    ///
    /// # Errors
    /// One sentence, if the files that name the stores are of no use.
    pub(super) async fn ask(mut self, checked: &mut Checked) -> Result<Option<LocalError>, LocalError> {
        let mut unanswered = Vec::new();
        for (asker, items) in mem::take(&mut self.by_asker) {
            let mut wanted = self.wanted(&asker)?;
            let mut items = items;
            while !items.is_empty() {
                let rest = items.split_off(items.len().min(MOST));
                let asked = AskedItems { left: (0..items.len()).collect(), items, unanswered: Vec::new() };
                unanswered.extend(asked.ask(&mut wanted, checked).await);
                items = rest;
            }
        }
        Ok((!unanswered.is_empty()).then(|| LocalError::all(unanswered)))
    }

    fn wanted(&self, asker: &LiveAsker) -> Result<WantedSecrets, LocalError> {
        let LiveAsker { project, namespace, account, provider } = asker;
        let files = match project {
            Some(path) => ProjectFiles::open(self.projects.get(path).cloned())?,
            None => project_here()?,
        };
        let section = files.section(self.profile.as_deref())?;
        let mut wanted = WantedSecrets::of_stores(&files, &section, self.operator.as_deref(), self.timeout)?;
        wanted.identity.namespace.clone_from(namespace);
        wanted.identity.service_account.clone_from(account);
        wanted.options = Options { provider: provider.clone(), ..Options::default() };
        Ok(wanted)
    }
}

// === impl LiveItem ===

impl LiveItem {
    fn fault(&self, problem: &str) -> FileFault {
        let path = self.item.target.path().as_str();
        FileFault { at: self.at, problem: format!("{}: {problem}", variable_of(path).unwrap_or(path)) }
    }
}

// === impl AskedItems ===

impl AskedItems {
    /// Asks until all is there that is left: what is missing is told and taken out.
    async fn ask(mut self, wanted: &mut WantedSecrets, checked: &mut Checked) -> Vec<LocalError> {
        wanted.bundle = self.bundle();
        for error in wanted.faults() {
            self.take_out(&LocalError::usage(error.problem).about(vec![error.place]), checked);
        }
        while !self.left.is_empty() {
            wanted.bundle = self.bundle();
            let outcome = match wanted.fetch().await {
                Ok(fetched) => fetched.files(&|_| false),
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok(rendered) => {
                    self.tell_left_out(&rendered, checked);
                    break;
                }
                Err(error) => error,
            };
            if !self.take_out(&error, checked) {
                self.unanswered.push(error);
                break;
            }
        }
        self.unanswered
    }

    /// What is left, under names by which it is known again.
    fn bundle(&self) -> Bundle {
        let mut bundle = Bundle::default();
        for index in &self.left {
            let name = format!("{NAME}{index}");
            let (Some(LiveItem { item, .. }), Ok(path)) = (self.items.get(*index), name.parse()) else { continue };
            let target = if matches!(item.target, Target::Dir(_)) { Target::Dir(path) } else { Target::File(path) };
            // No two have one name.
            let _ = bundle.push(Item { place: name, target, ..item.clone() });
        }
        bundle
    }

    /// A pod would go without these keys of directories.
    fn tell_left_out(&self, rendered: &Rendered, checked: &mut Checked) {
        for sentence in rendered.left_out.iter().map(ToString::to_string) {
            let Some((name, problem)) = sentence.strip_prefix("dir ").and_then(|rest| rest.split_once(": ")) else {
                continue;
            };
            if let Some(item) = number(name).and_then(|index| self.items.get(index)) {
                checked.fault(&item.file, FindingKind::Reference, item.fault(problem));
            }
        }
    }

    /// Takes out what an error is about; `false`, if it is about none of them alone.
    fn take_out(&mut self, error: &LocalError, checked: &mut Checked) -> bool {
        let before = self.left.len();
        for part in error.parts() {
            let problem = without_names(part);
            for index in part.names.iter().filter_map(|name| number(name)) {
                let Some(item) = self.items.get(index).filter(|_| self.left.remove(&index)) else { continue };
                let (file, fault) = (&item.file, item.fault(&problem));
                match part.kind {
                    LocalFailure::Missing => checked.fault(file, FindingKind::Missing, fault),
                    LocalFailure::Usage | LocalFailure::Failed => checked.fault(file, FindingKind::Reference, fault),
                    // Another login may have it, and another hour.
                    _ => self.unanswered.push(LocalError { problem: file.error_of(&fault).problem, ..part.clone() }),
                }
            }
        }
        self.left.len() < before
    }
}

fn number(name: &str) -> Option<usize> {
    name.strip_prefix(NAME)?.parse().ok()
}

/// What an error says, without the names under which was asked.
fn without_names(error: &LocalError) -> String {
    let names = error.names.join(", ");
    let prefixes = ["", "file ", "dir "].map(|kind| format!("{kind}{names}: "));
    let rest = prefixes.iter().find_map(|own| error.problem.strip_prefix(own.as_str()));
    rest.unwrap_or(&error.problem).to_owned()
}
