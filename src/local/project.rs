//! `.hushpod.yaml` and what is laid over it: stores, files and variables in the words of annotations and of the
//! operator's configuration.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

pub(super) use self::paths::{PROJECT_FILE, find_project};
use self::paths::{absolute_paths, user_file};
use super::error::LocalError;
use super::source_file::{FileFault, SourceFile};
use crate::bundle::{Bundle, Format, Item, Target, VolumePath, parse_annotation, parse_reference};
use crate::contract::ENV_DIR;
use crate::env_vars::check_name;
use crate::options::{EnvironmentSource, Options};
use crate::parse_error::unknown;
use crate::reference::is_provider_name;
use crate::sentence::suggestion;

mod paths;

/// What one person lays over it, beside it.
pub(super) const LOCAL_FILE: &str = ".hushpod.local.yaml";
/// The profile that is taken where nobody says.
const DEFAULT_PROFILE: &str = "default";

const SECTION_FIELDS: [&str; 5] = ["defaultProvider", "providers", "secrets", "variables", "env"];
const FILE_FIELDS: [&str; 6] = ["defaultProvider", "providers", "secrets", "variables", "env", "profiles"];
const USER_FIELDS: [&str; 2] = ["defaultProvider", "providers"];
/// Of a variable that is more than a reference.
const VARIABLE_FIELDS: [&str; 3] = ["from", "decode", "optional"];

/// What stands in a file, or in one of its profiles; what is laid over it wins.
#[derive(Debug, Clone, Default)]
pub(super) struct ProjectSection {
    pub(super) default_provider: Option<String>,
    /// Not yet checked: another file may complete them.
    pub(super) providers: Map<String, Value>,
    /// Files and directories, in their order.
    items: Vec<Item>,
    /// By name.
    variables: BTreeMap<String, Item>,
    /// Which files and directories become variables, and where that stands.
    environment: Option<(String, Vec<VolumePath>)>,
}

/// The files that say what a person's commands are about.
#[derive(Debug, Default)]
pub(super) struct ProjectFiles {
    /// The project's and what is laid over it; the last one wins.
    project: Vec<SourceFile>,
    /// The person's own.
    pub(super) user: Option<SourceFile>,
}

/// A file, read and taken apart.
struct ParsedFile {
    section: ProjectSection,
    profiles: BTreeMap<String, ProjectSection>,
}

/// Reads what stands in a file, and goes on behind what is wrong.
struct SectionReader<'a> {
    file: &'a SourceFile,
    faults: Vec<FileFault>,
}

// === impl ProjectFiles ===

impl ProjectFiles {
    /// Those of a project, which was read once (a pipe gives no more), or none; and the person's own.
    ///
    /// # Errors
    /// One sentence that names the file which cannot be read.
    pub(super) fn open(project: Option<SourceFile>) -> Result<Self, LocalError> {
        let mut files = Vec::from_iter(project);
        let whole = files.first().filter(|file| file.path.ends_with(PROJECT_FILE));
        if let Some(local) = whole.map(|file| file.path.with_file_name(LOCAL_FILE)).filter(|local| local.is_file()) {
            files.push(SourceFile::read(&local)?);
        }
        let user = user_file().map(|path| SourceFile::read(&path)).transpose()?;
        Ok(Self { project: files, user })
    }

    /// Whether there is a project.
    pub(super) fn has_project(&self) -> bool {
        !self.project.is_empty()
    }

    /// Where the project's own file is.
    pub(super) fn path(&self) -> Option<&Path> {
        self.project.first().map(|file| file.path.as_path())
    }

    /// The project's file that this is true of; the one that wins first.
    pub(super) fn file_where(&self, is_it: impl Fn(&SourceFile) -> bool) -> Option<&SourceFile> {
        self.project.iter().rev().find(|file| is_it(file))
    }

    /// What the person's own file says, alone.
    ///
    /// # Errors
    /// One sentence with file, line and column.
    pub(super) fn of_user(&self) -> Result<ProjectSection, LocalError> {
        let parse = |file| ParsedFile::parse(file, &USER_FIELDS).map(|parsed| parsed.section);
        self.user.as_ref().map_or_else(|| Ok(ProjectSection::default()), parse)
    }

    /// All of it: the person's stores, the project, what is laid over it, and the profile.
    ///
    /// # Errors
    /// One sentence with file, line and column; or that there is no such profile.
    pub(super) fn section(&self, profile: Option<&str>) -> Result<ProjectSection, LocalError> {
        self.section_by(profile, ParsedFile::parse)
    }

    /// The same, of what is right in the project's files, for who tells what is wrong; errors are of the person's own.
    pub(super) fn right_section(&self, profile: Option<&str>) -> Result<ProjectSection, LocalError> {
        self.section_by(profile, |file, known| Ok(ParsedFile::read(file, known).0))
    }

    fn section_by(
        &self,
        profile: Option<&str>,
        parse: fn(&SourceFile, &[&str]) -> Result<ParsedFile, LocalError>,
    ) -> Result<ProjectSection, LocalError> {
        let mut whole = self.of_user()?;
        let mut profiles: BTreeMap<String, ProjectSection> = BTreeMap::new();
        for file in &self.project {
            let parsed = parse(file, &FILE_FIELDS)?;
            whole.lay_over(parsed.section);
            for (name, section) in parsed.profiles {
                profiles.entry(name).or_default().lay_over(section);
            }
        }
        profiles.entry(DEFAULT_PROFILE.to_owned()).or_default();
        let name = profile.unwrap_or(DEFAULT_PROFILE);
        let Some(section) = profiles.remove(name) else {
            let known: Vec<_> = profiles.keys().map(String::as_str).collect();
            return Err(LocalError::usage(unknown("profile", name, &known).to_string()));
        };
        whole.lay_over(section);
        Ok(whole)
    }

    /// The sections of every profile, for those who want to know each store that there may be.
    ///
    /// # Errors
    /// As [`ProjectFiles::section`].
    pub(super) fn all_sections(&self) -> Result<Vec<ProjectSection>, LocalError> {
        let mut names = vec![None];
        for file in &self.project {
            names.extend(ParsedFile::parse(file, &FILE_FIELDS)?.profiles.into_keys().map(Some));
        }
        names.iter().map(|name| self.section(name.as_deref())).collect()
    }

    /// All that is wrong with one file, whatever others say; and the names of its profiles.
    pub(super) fn read_alone(file: &SourceFile) -> (Vec<FileFault>, Vec<String>) {
        let (parsed, faults) = ParsedFile::read(file, &FILE_FIELDS);
        (faults, parsed.profiles.into_keys().collect())
    }

    /// Where a field of the providers stands, in the file that wins.
    pub(super) fn at(&self, path: &str) -> Option<String> {
        let files = self.project.iter().rev().chain(&self.user);
        // A profile's field has another path: what is said there is still near.
        let mut path = path;
        loop {
            if let Some(file) = files.clone().find(|file| file.has(path)) {
                return Some(file.at(0, path));
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }
}

// === impl ParsedFile ===

impl ParsedFile {
    fn parse(file: &SourceFile, known: &[&str]) -> Result<Self, LocalError> {
        let (parsed, faults) = Self::read(file, known);
        faults.first().map_or(Ok(parsed), |first| Err(file.error_of(first)))
    }

    /// What can be made of a file, and all that is wrong with it.
    fn read(file: &SourceFile, known: &[&str]) -> (Self, Vec<FileFault>) {
        let mut reader = SectionReader { file, faults: Vec::new() };
        let mut fields = match parse_annotation(&file.text) {
            Ok(Value::Object(fields)) => fields,
            Ok(Value::Null) => Map::new(),
            Ok(_) => {
                reader.wrong("", "has no fields: write providers:, variables: and the like");
                Map::new()
            }
            Err(error) => {
                reader.faults.push(FileFault::malformed(&error));
                Map::new()
            }
        };
        let written = match fields.remove("profiles").filter(|_| known.contains(&"profiles")) {
            None => Map::new(),
            Some(Value::Object(profiles)) => profiles,
            Some(_) => {
                reader.wrong(".profiles", "has no fields: write {name: {variables: …}}");
                Map::new()
            }
        };
        let section = reader.section("", fields, known);
        let mut profiles = BTreeMap::new();
        for (name, value) in written {
            let place = format!(".profiles.{name}");
            if let Value::Object(fields) = value {
                profiles.insert(name, reader.section(&place, fields, &SECTION_FIELDS));
            } else {
                reader.wrong(&place, "has no fields: write {variables: …}");
            }
        }
        (Self { section, profiles }, reader.faults)
    }
}

// === impl SectionReader ===

impl SectionReader<'_> {
    fn wrong(&mut self, path: &str, problem: impl std::fmt::Display) {
        self.faults.push(self.file.fault(path, problem));
    }

    fn section(&mut self, place: &str, fields: Map<String, Value>, known: &[&str]) -> ProjectSection {
        let mut section = ProjectSection::default();
        for (name, value) in fields {
            let at = format!("{place}.{name}");
            match (name.as_str(), value) {
                (name, _) if !known.contains(&name) => self.wrong(&at, unknown("field", name, known)),
                ("defaultProvider", Value::String(name)) => section.default_provider = Some(name),
                ("providers", Value::Object(providers)) => self.add_providers(&mut section, &at, providers),
                ("secrets", Value::Array(entries)) => self.add_items(&mut section, &at, entries),
                ("variables", Value::Object(variables)) => self.add_variables(&mut section, &at, variables),
                ("env", Value::Array(paths)) => self.add_environment(&mut section, &at, &paths),
                ("defaultProvider", _) => self.wrong(&at, "is not text: write a provider's name"),
                ("providers", _) => self.wrong(&at, "has no fields: write {name: {type: …}}"),
                ("variables", _) => self.wrong(&at, "has no fields: write {NAME: REFERENCE}"),
                (_, _) => self.wrong(&at, "is not a list: expected [a, b]"),
            }
        }
        section
    }

    fn add_providers(&mut self, section: &mut ProjectSection, at: &str, providers: Map<String, Value>) {
        for (name, value) in providers {
            let at = format!("{at}.{name}");
            if !is_provider_name(&name) {
                self.wrong(&at, "a provider's name has at most 40 lower-case letters, digits and '-'");
            } else if let Value::Object(mut fields) = value {
                absolute_paths(&mut fields, self.file.directory());
                section.providers.insert(name, Value::Object(fields));
            } else {
                self.wrong(&at, "has no fields: write {type: …, address: …}");
            }
        }
    }

    fn add_items(&mut self, section: &mut ProjectSection, at: &str, entries: Vec<Value>) {
        for (index, entry) in entries.into_iter().enumerate() {
            let field = format!("{at}[{index}]");
            let mut item = match Item::parse(&field, entry) {
                Ok(item) => item,
                Err(error) => {
                    self.wrong(&error.place, &error.problem);
                    continue;
                }
            };
            if item.target.path().as_str().split('/').next() == Some(ENV_DIR) {
                self.wrong(&field, format!("{ENV_DIR} is hushpod's own: write variables:"));
            } else if section.items.iter().any(|known| known.target == item.target) {
                self.wrong(&field, format!("{:?} is delivered twice", item.target.path().as_str()));
            } else {
                item.place = self.file.at(0, &field);
                section.items.push(item);
            }
        }
    }

    fn add_variables(&mut self, section: &mut ProjectSection, at: &str, variables: Map<String, Value>) {
        for (name, value) in variables {
            match self.variable(&format!("{at}.{name}"), &name, value) {
                Ok(item) => drop(section.variables.insert(name, item)),
                Err(fault) => self.faults.push(fault),
            }
        }
    }

    fn variable(&self, field: &str, name: &str, value: Value) -> Result<Item, FileFault> {
        let file = self.file;
        check_name(name).map_err(|error| file.fault(field, error.of(&format!("{name:?}"))))?;
        let mut fields = match value {
            Value::String(_) => Map::from_iter([("from".to_owned(), value)]),
            Value::Object(fields) => fields,
            _ => return Err(file.fault(field, "is not a reference: expected \"[provider:]path[#key]\"")),
        };
        if let Some(other) = fields.keys().find(|field| !VARIABLE_FIELDS.contains(&field.as_str())) {
            let problem = format!("unknown field{}", suggestion(other, &VARIABLE_FIELDS));
            return Err(file.fault(&format!("{field}.{other}"), problem));
        }
        fields.insert("file".to_owned(), format!("{ENV_DIR}/{name}").into());
        let mut item =
            Item::parse(field, Value::Object(fields)).map_err(|error| file.fault(&error.place, &error.problem))?;
        item.place = file.at(0, field);
        Ok(item)
    }

    fn add_environment(&mut self, section: &mut ProjectSection, at: &str, paths: &[Value]) {
        let path = |(index, value): (usize, &Value)| {
            let place = format!("{at}[{index}]");
            let text = value.as_str().ok_or_else(|| self.file.fault(&place, "is not a name: expected [app.env]"))?;
            VolumePath::try_from(text.to_owned()).map_err(|error| self.file.fault(&place, error))
        };
        match paths.iter().enumerate().map(path).collect::<Result<_, _>>() {
            Ok(paths) => section.environment = Some((self.file.at(0, at), paths)),
            Err(fault) => self.faults.push(fault),
        }
    }
}

// === impl ProjectSection ===

impl ProjectSection {
    /// What `over` says counts; maps are merged.
    pub(super) fn lay_over(&mut self, over: Self) {
        let Self { default_provider, providers, items, variables, environment } = over;
        self.default_provider = default_provider.or_else(|| self.default_provider.take());
        self.lay_providers_over(providers);
        for item in items {
            match self.items.iter_mut().find(|known| known.target == item.target) {
                Some(known) => *known = item,
                None => self.items.push(item),
            }
        }
        self.variables.extend(variables);
        self.environment = environment.or_else(|| self.environment.take());
    }

    fn lay_providers_over(&mut self, over: Map<String, Value>) {
        for (name, fields) in over {
            match (self.providers.get_mut(&name), fields) {
                // Of another type no field fits.
                (Some(Value::Object(known)), Value::Object(fields))
                    if fields.get("type").is_none_or(|kind| Some(kind) == known.get("type")) =>
                {
                    // Field by field, and `auth` as a whole: one method's fields are of no use to another.
                    known.extend(fields);
                }
                (_, fields) => drop(self.providers.insert(name, fields)),
            }
        }
    }

    /// Stores, and nothing that is asked of them.
    pub(super) fn stores(default_provider: Option<String>, providers: Map<String, Value>) -> Self {
        Self { default_provider, providers, ..Self::default() }
    }

    /// The stores alone.
    pub(super) fn of_stores(&self) -> Self {
        Self::stores(self.default_provider.clone(), self.providers.clone())
    }

    /// With variables of the command line, which go before what the files say.
    ///
    /// # Errors
    /// One sentence, if one has not a variable's name or not a reference.
    pub(super) fn with_variables(mut self, variables: &[(String, String)]) -> Result<Self, LocalError> {
        for (index, (name, reference)) in variables.iter().enumerate() {
            let place = format!("--env {name}");
            if variables.iter().take(index).any(|(other, _)| other == name) {
                return Err(LocalError::usage(format!("{place} stands there twice: take one of them")));
            }
            check_name(name).map_err(|error| LocalError::usage(error.of(&format!("--env {name:?}"))))?;
            let target = format!("{ENV_DIR}/{name}").parse().map(Target::File);
            let parsed = parse_reference(reference).and_then(|reference| Ok((reference, target?)));
            let (reference, target) = parsed.map_err(|error| LocalError::usage(format!("{place}: {error}")))?;
            self.variables.insert(name.clone(), Item::short(place, target, reference));
        }
        Ok(self)
    }

    /// What it asks for, as a pod would.
    ///
    /// # Errors
    /// One sentence that names the place, if two items clash or `env` names what is not there.
    pub(super) fn bundle(&self) -> Result<(Bundle, Options), LocalError> {
        let (bundle, options, faults) = self.right_bundle();
        faults.into_iter().next().map_or(Ok((bundle, options)), Err)
    }

    /// The same of what is right, and all that is wrong.
    pub(super) fn right_bundle(&self) -> (Bundle, Options, Vec<LocalError>) {
        let (mut bundle, mut faults) = (Bundle::default(), Vec::new());
        for item in self.items.iter().chain(self.variables.values()) {
            let pushed = bundle.push(item.clone());
            faults.extend(pushed.err().map(|error| LocalError::usage(format!("{}: {error}", item.place))));
        }
        let named = self.environment.iter().flat_map(|(place, paths)| paths.iter().map(move |path| (place, path)));
        let named = named.map(|(place, path)| self.environment_source(place, path));
        let mut options = Options { provider: self.default_provider.clone(), ..Options::default() };
        for source in named.chain((!self.variables.is_empty()).then(variables_source)) {
            match source {
                Ok(source) => options.environment.push(source),
                Err(fault) => faults.push(fault),
            }
        }
        (bundle, options, faults)
    }

    fn environment_source(&self, place: &str, path: &VolumePath) -> Result<EnvironmentSource, LocalError> {
        let wrong = |problem: String| LocalError::usage(format!("{place}: {problem}"));
        let item = self.items.iter().find(|item| item.target.path() == path).ok_or_else(|| {
            let known: Vec<_> = self.items.iter().map(|item| item.target.path().as_str()).collect();
            wrong(unknown("file", path.as_str(), &known).to_string())
        })?;
        if matches!(item.format, Format::Json | Format::Yaml | Format::Properties) {
            return Err(wrong(format!("{:?} has another format: write format: dotenv for it", path.as_str())));
        }
        Ok(EnvironmentSource { path: path.clone(), optional: item.optional })
    }
}

/// The directory of the variables that are named one by one.
fn variables_source() -> Result<EnvironmentSource, LocalError> {
    let path = ENV_DIR.parse().map_err(|error| LocalError::failed(format!("{error}")))?;
    Ok(EnvironmentSource { path, optional: false })
}

#[cfg(test)]
mod tests;
