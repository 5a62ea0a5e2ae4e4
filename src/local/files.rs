//! Answers become files and variables, as in a pod: the same rendering, the same names, and nothing is expanded.

use std::collections::{BTreeMap, BTreeSet};

use super::arguments::{LetterCase, VariableArgs};
use super::error::{LocalError, LocalFailure};
use super::fetch::name_of;
use super::output::note;
use super::wanted::{Fetched, WantedSecrets};
use crate::annotations::variable_of;
use crate::bundle::{Bundle, Target, VolumePath};
use crate::contract::ENV_DIR;
use crate::deliver::RenderedFile;
use crate::deliver::render::{Rendered, render_beside};
use crate::dotenv;
use crate::env_vars::{MAX_TOTAL_BYTES, check_name, check_value};
use crate::generation::GenerationId;
use crate::plan::{PlannedItem, PlannedReference};
use crate::reference::{Key, Reference, Request, Version};
use crate::secret::{LookupError, SecretValue};
use crate::sentence::store_name;

/// The directory that is all of the volume.
const WHOLE_VOLUME: &str = ".";

/// Variables by name.
pub(super) type NamedValues = BTreeMap<String, SecretValue>;

/// A generation, as a command has it. Shows names alone.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    pub(super) generation: GenerationId,
    pub(super) variables: NamedValues,
    /// By the name of a variable, the path of the file that it comes from.
    sources: BTreeMap<String, String>,
    /// All files but those that were made for one variable each.
    pub(super) files: Vec<RenderedFile>,
    /// Paths of all that was good: what was, has to stay so.
    pub(super) paths: BTreeSet<String>,
}

// === impl Fetched ===

impl Fetched {
    /// Every file, in the order of the items, and which keys of directories make none. `is_there` tells which were good
    /// before: as in a pod, nothing is replaced until those are good again.
    ///
    /// # Errors
    /// Every item that cannot be made, together.
    pub(super) fn files(&self, is_there: &dyn Fn(&VolumePath) -> bool) -> Result<Rendered, LocalError> {
        let made = |items: &[PlannedItem]| render_beside(items, &self.generation, self.size_limit, is_there);
        let one = |item: &PlannedItem| made(std::slice::from_ref(item)).err();
        let errors: Vec<_> = self
            .items
            .iter()
            .filter_map(|item| {
                let error = one(item)?;
                let name = name_of(item);
                let sentence = error.to_string();
                let problem = sentence.strip_prefix(&format!("file {ENV_DIR}/")).unwrap_or(&sentence);
                let kind = if self.lacks_key(item) { LocalFailure::Missing } else { LocalFailure::Failed };
                Some(LocalError::new(kind, problem).about(vec![name.to_owned()]))
            })
            .collect();
        if !errors.is_empty() {
            return Err(LocalError::all(errors));
        }
        made(&self.items).map_err(|error| LocalError::failed(error.to_string()))
    }

    /// Where each variable and file comes from, a line for each: names, references and versions.
    pub(super) fn origins(&self, contents: &Contents) -> Vec<String> {
        let lines = self.items.iter().filter_map(|item| {
            let target = item.target.path().as_str();
            let is_below = |path: &str| path.strip_prefix(target).is_some_and(|rest| rest.starts_with('/'));
            let is_inside = |path: &str| path == target || is_below(path) || target == WHOLE_VOLUME;
            let comes_from_it = |name: &&String| contents.sources.get(*name).is_some_and(|path| is_inside(path));
            let names = contents.variables.keys().filter(comes_from_it).map(String::as_str);
            let is_file = contents.files.iter().any(|file| is_inside(file.path.as_str()));
            let file = (is_file && variable_of(target).is_none()).then_some(target);
            let named: Vec<_> = file.into_iter().chain(names).collect();
            (!named.is_empty()).then(|| format!("{}: {}", named.join(", "), self.origin(item)))
        });
        lines.collect()
    }

    /// What an item is made of: references, and the versions that stores name.
    fn origin(&self, item: &PlannedItem) -> String {
        let each = item.from.references().map(|PlannedReference { request, key }| {
            let Request { provider, path, params } = request.clone();
            let reference = Reference { provider: Some(provider), path, params, key: key.clone() };
            let version = self.generation.versions.get(request);
            let is_plain = |version: &str| version.bytes().all(|byte| byte.is_ascii_graphic());
            let version = version.map(|Version(version)| match version.as_str() {
                plain if is_plain(plain) => format!(" (version {plain})"),
                other => format!(" (version {})", store_name(other)),
            });
            let missing = if self.generation.answers.contains_key(request) { "" } else { " (not there)" };
            format!("{reference}{}{missing}", version.unwrap_or_default())
        });
        each.collect::<Vec<_>>().join(", ")
    }

    /// Whether the store has no such key, or nothing at all.
    fn lacks_key(&self, item: &PlannedItem) -> bool {
        item.from.references().any(|take| match (self.generation.answers.get(&take.request), &take.key) {
            (None, _) => true,
            (Some(answer), Some(Key::Literal(key))) => matches!(answer.key(key), Err(LookupError::NoKey { .. })),
            (Some(answer), Some(Key::Pointer(key))) => matches!(answer.pointer(key), Err(LookupError::NoKey { .. })),
            (Some(_), None) => false,
        })
    }
}

// === impl Contents ===

impl Contents {
    /// All that a command might print: variables by their names, files by their paths.
    pub(super) fn all_values(&self) -> NamedValues {
        let files = self.files.iter().map(|file| (file.path.as_str().to_owned(), file.bytes.clone()));
        files.chain(self.variables.clone()).collect()
    }
}

// === impl WantedSecrets ===

impl WantedSecrets {
    /// Asks for what becomes variables, and for nothing else.
    ///
    /// # Errors
    /// Everything that is missing, together; or that there is nothing to ask for.
    pub(super) async fn variables(&mut self, args: &VariableArgs) -> Result<NamedValues, LocalError> {
        self.select(args, false)?;
        Ok(self.contents(&self.fetch().await?, args, &BTreeSet::new())?.variables)
    }

    /// Leaves out what becomes neither a variable nor, `with_files`, a file.
    ///
    /// # Errors
    /// That there is nothing left to ask for.
    pub(super) fn select(&mut self, args: &VariableArgs, with_files: bool) -> Result<(), LocalError> {
        let sources: Vec<_> = self.options.environment.iter().map(|source| source.path.as_str()).collect();
        let mut wanted = Bundle::default();
        for item in &self.bundle.items {
            let path = item.target.path().as_str();
            let is_wanted = match variable_of(path) {
                Some(name) => args.only.is_empty() || args.only.iter().any(|only| only == name),
                None => with_files || sources.contains(&path),
            };
            if is_wanted {
                wanted.push(item.clone()).map_err(|error| LocalError::usage(error.to_string()))?;
            }
        }
        if wanted.items.is_empty() {
            let problem = if args.only.is_empty() {
                "nothing here becomes a variable".to_owned()
            } else {
                format!("--only {}: no variable has such a name", args.only.join(","))
            };
            let hint = "write variables: {NAME: REFERENCE} in .hushpod.yaml, or --env NAME=REFERENCE";
            return Err(self.nothing(&problem, hint));
        }
        self.bundle = wanted;
        Ok(())
    }

    /// What was fetched, as a command has it; `before`: the paths of what it had. Says what is left out.
    ///
    /// # Errors
    /// Every item that cannot be made, together; or which name cannot be a variable's.
    pub(super) fn contents(
        &self,
        fetched: &Fetched,
        args: &VariableArgs,
        before: &BTreeSet<String>,
    ) -> Result<Contents, LocalError> {
        let rendered = fetched.files(&|path| before.contains(path.as_str()))?;
        tell_left_out(&rendered);
        let mut files = rendered.files;
        let paths = files.iter().map(|file| file.path.as_str().to_owned()).collect();
        let (mut sources, mut named) = (BTreeMap::new(), NamedValues::new());
        for (name, (path, value)) in self.named(&files)? {
            sources.insert(args.renamed(&name), path);
            named.insert(name, value);
        }
        let variables = renamed(only(named, &args.only)?, args)?;
        files.retain(|file| variable_of(file.path.as_str()).is_none());
        Ok(Contents { generation: fetched.generation.id.clone(), variables, sources, files, paths })
    }

    /// Of one name, the last source counts: what is said of one variable goes before what a file brings. Each with the path
    /// that it comes from.
    fn named(&self, files: &[RenderedFile]) -> Result<BTreeMap<String, (String, SecretValue)>, LocalError> {
        let mut found = BTreeMap::new();
        for source in &self.options.environment {
            let source = source.path.as_str();
            let is_file = |target: &Target| matches!(target, Target::File(path) if path.as_str() == source);
            if self.bundle.items.iter().any(|item| is_file(&item.target)) {
                for file in files.iter().filter(|file| file.path.as_str() == source) {
                    let read = dotenv::variables(file.bytes.expose());
                    let read = read.map_err(|error| LocalError::failed(format!("{source}: {error}")))?;
                    found.extend(read.into_iter().map(|(name, value)| (name, (source.to_owned(), value))));
                }
                continue;
            }
            let below = |file: &RenderedFile| {
                let path = file.path.as_str();
                let name =
                    if source == WHOLE_VOLUME { Some(path) } else { path.strip_prefix(source)?.strip_prefix('/') };
                name.map(str::to_owned)
            };
            for file in files {
                let Some(name) = below(file) else { continue };
                let told = store_name(&name);
                check_name(&name)
                    .and_then(|()| check_value(&name, file.bytes.expose()))
                    .map_err(|error| LocalError::failed(error.of(&told)).about(vec![name.clone()]))?;
                found.insert(name, (file.path.as_str().to_owned(), file.bytes.clone()));
            }
        }
        Ok(found)
    }
}

// === impl VariableArgs ===

impl VariableArgs {
    /// A name with the letters and the prefix that are asked for.
    fn renamed(&self, name: &str) -> String {
        let name = match self.case {
            Some(LetterCase::Lower) => name.to_ascii_lowercase(),
            Some(LetterCase::Upper) => name.to_ascii_uppercase(),
            None => name.to_owned(),
        };
        format!("{}{name}", self.prefix)
    }
}

/// Says which keys of directories make no file, as an agent's log does.
pub(super) fn tell_left_out(rendered: &Rendered) {
    for problem in &rendered.left_out {
        note(&format!("left out: {problem}"));
    }
}

fn only(found: NamedValues, names: &[String]) -> Result<NamedValues, LocalError> {
    if names.is_empty() {
        return Ok(found);
    }
    let missing: Vec<_> = names.iter().filter(|name| !found.contains_key(*name)).cloned().collect();
    if missing.is_empty() {
        return Ok(found.into_iter().filter(|(name, _)| names.contains(name)).collect());
    }
    let problem = format!("--only {}: no variable has such a name", missing.join(","));
    Err(LocalError::new(LocalFailure::Missing, problem).about(missing))
}

/// With the letters and the prefix that are asked for; checked again, since those make other names.
fn renamed(found: NamedValues, args: &VariableArgs) -> Result<NamedValues, LocalError> {
    let mut renamed = NamedValues::new();
    let mut twice = BTreeSet::new();
    for (name, value) in found {
        let name = args.renamed(&name);
        let told = store_name(&name);
        check_name(&name)
            .and_then(|()| check_value(&name, value.expose()))
            .map_err(|error| LocalError::usage(error.of(&told)).about(vec![name.clone()]))?;
        if renamed.insert(name.clone(), value).is_some() {
            twice.insert(name);
        }
    }
    if !twice.is_empty() {
        let names: Vec<_> = twice.into_iter().collect();
        let problem = format!("{}: two variables would have this name: leave --case out", names.join(", "));
        return Err(LocalError::usage(problem).about(names));
    }
    let total: usize = renamed.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if total > MAX_TOTAL_BYTES {
        return Err(LocalError::failed(format!(
            "all variables together take {total} bytes, over the limit of {MAX_TOTAL_BYTES}: deliver large ones as files"
        )));
    }
    Ok(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(only: &[&str], prefix: &str, case: Option<LetterCase>) -> VariableArgs {
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        VariableArgs { variables: Vec::new(), only, prefix: prefix.to_owned(), case }
    }

    fn values(names: &[&str]) -> NamedValues {
        names.iter().map(|name| ((*name).to_owned(), SecretValue::from("canary"))).collect()
    }

    #[test]
    fn p9_names_are_checked_again_once_they_are_others() {
        for (names, prefix, case, expected) in [
            (&["DB_PASSWORD"][..], "TF_VAR_", Some(LetterCase::Lower), Ok("TF_VAR_db_password")),
            (&["a"], "", Some(LetterCase::Upper), Ok("A")),
            (&["path"], "", Some(LetterCase::Upper), Err("reserved (PATH)")),
            (&["PRELOAD"], "LD_", None, Err("reserved (LD_*)")),
            (&["A"], "1", None, Err("not a variable's name")),
            (&["a", "A"], "", Some(LetterCase::Lower), Err("two variables would have this name")),
        ] {
            let found = renamed(values(names), &args(&[], prefix, case));
            match expected {
                Ok(name) => assert!(found.unwrap().contains_key(name), "{names:?}"),
                Err(part) => {
                    let error = found.unwrap_err().problem;
                    assert!(error.contains(part) && !error.contains("canary"), "{error}");
                }
            }
        }
    }

    #[test]
    fn p9_all_variables_together_are_bounded() {
        let large = |bytes: usize| {
            let value = SecretValue::new(vec![b'x'; bytes]);
            ('A'..='P').map(|letter| (format!("A{letter}"), value.clone())).collect::<NamedValues>()
        };
        let fits = MAX_TOTAL_BYTES / 16 - 4;
        assert!(renamed(large(fits), &args(&[], "", None)).is_ok());
        let error = renamed(large(fits + 1), &args(&[], "", None)).unwrap_err().problem;
        assert!(error.contains("all variables together"), "{error}");
    }

    #[test]
    fn names_that_are_asked_for_are_there_or_it_is_an_error() {
        assert_eq!(only(values(&["A", "B"]), &["B".to_owned()]).unwrap().len(), 1);
        let error = only(values(&["A"]), &["A".to_owned(), "X".to_owned(), "Y".to_owned()]).unwrap_err();
        assert_eq!((error.kind, error.names), (LocalFailure::Missing, vec!["X".to_owned(), "Y".to_owned()]));
    }
}
