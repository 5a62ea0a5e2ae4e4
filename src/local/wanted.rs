//! What a command is asked for: the files that say it, the stores that have it, and who may be sent there.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::arguments::{CacheArgs, StoreArgs};
use super::copies::{Copies, copy_name};
use super::error::LocalError;
use super::fetch::{fetch, source_of};
use super::id_token;
use super::manifest;
use super::output::{note, patiently};
use super::project::{ProjectFiles, ProjectSection, find_project};
use super::source_file::SourceFile;
use super::trust;
use crate::bundle::Bundle;
use crate::config::{Config, ConfigError, ConfigFaults, Identity, NamespaceLabels};
use crate::generation::Generation;
use crate::options::Options;
use crate::plan::{Plan, PlanError, PlannedItem};
use crate::provider::{ProviderSettings, auth};
use crate::source::Source;

/// Most bytes of one person's files or variables, where a manifest does not say.
pub(super) const SIZE_LIMIT: u64 = 16 << 20;
/// Of an operator's provider: what is said of pods' logins, and of files of theirs.
const OF_PODS: [&str; 6] = ["auth", "role", "audience", "tokenSeconds", "revokeOnExit", "caBundle"];
const ALLOW: &str = "allow";

/// What is wanted, and by whom.
#[derive(Debug)]
pub(super) struct WantedSecrets {
    pub(super) bundle: Bundle,
    pub(super) options: Options,
    pub(super) identity: Identity,
    config: Config,
    /// Stores that a file of the person's own names.
    own: BTreeSet<String>,
    timeout: Duration,
    copies: CacheArgs,
    /// The copy's file, as the files and the profile have it.
    copy_name: String,
    /// Whether no file says what is wanted.
    is_without_file: bool,
}

/// What stores answered, and for what.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) items: Vec<PlannedItem>,
    pub(super) size_limit: u64,
    pub(super) generation: Generation,
}

/// Where the command was typed.
///
/// # Errors
/// One sentence, if somebody removed it.
pub(super) fn working_directory() -> Result<PathBuf, LocalError> {
    env::current_dir().map_err(|error| LocalError::failed(format!("the working directory: {error}")))
}

/// The project's files, where `-f` names none: a manifest's stores are in them, too.
pub(super) fn project_here() -> Result<ProjectFiles, LocalError> {
    let found = find_project(&working_directory()?);
    ProjectFiles::open(found.as_deref().map(SourceFile::read).transpose()?)
}

/// Who asks, where no manifest says it.
pub(super) fn person() -> Identity {
    Identity { namespace: "default".to_owned(), service_account: "default".to_owned() }
}

/// The file that `-f` names.
fn named_file(args: &StoreArgs) -> Result<Option<SourceFile>, LocalError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    args.file.as_deref().map(|path| SourceFile::read(&absolute(path))).transpose()
}

// === impl WantedSecrets ===

impl WantedSecrets {
    /// Reads what the command line names, and adds `variables` to it.
    ///
    /// # Errors
    /// One sentence with file, line and column.
    pub(super) fn read(args: &StoreArgs, variables: &[(String, String)]) -> Result<Self, LocalError> {
        let named = named_file(args)?;
        let is_manifest = named.as_ref().is_some_and(manifest::is_manifest);
        if args.container.is_some() && !is_manifest {
            return Err(LocalError::usage("--container belongs to a manifest of Kubernetes"));
        }
        let files = match &named {
            Some(file) if !is_manifest => ProjectFiles::open(Some(file.clone()))?,
            _ => project_here()?,
        };
        let is_without_file = named.is_none() && !files.has_project();
        let path = named.as_ref().map(|file| file.path.as_path()).or_else(|| files.path());
        let copy_name = copy_name(path, args.container.as_deref(), args.profile.as_deref());
        // A manifest's pod has no profile of this project's variables, but of its stores.
        let mut section = files.section(args.profile.as_deref().filter(|profile| !profile.is_empty()))?;
        let (bundle, options, identity) = if let Some(file) = named.filter(|_| is_manifest) {
            let pod = manifest::pod_of(&file, args.container.as_deref())?;
            let (mut bundle, mut options, ignored) = pod.bundle(&file, args.container.as_deref())?;
            if !ignored.is_empty() {
                note(&format!("ignored, since a person logs in otherwise: {}", ignored.join(", ")));
            }
            let (more, more_options) = ProjectSection::default().with_variables(variables)?.bundle()?;
            merge(&mut bundle, &mut options, &more, more_options)?;
            (bundle, options, pod.identity)
        } else {
            section = section.with_variables(variables)?;
            let (bundle, options) = section.bundle()?;
            (bundle, options, person())
        };
        let config = config_of(&files, &section, args.config.as_deref())?;
        // What is of no use alone is no reason to fail: another file completes it.
        let own = config_of_user(&files);
        let (timeout, copies) = (args.timeout, CacheArgs::default());
        Ok(Self { bundle, options, identity, config, own, timeout, copies, copy_name, is_without_file })
    }

    /// The same, from copies where the command line lets it be.
    pub(super) fn caching(self, copies: CacheArgs) -> Self {
        Self { copies, ..self }
    }

    /// Nothing yet, of the stores of these files.
    ///
    /// # Errors
    /// One sentence with file, line and column.
    pub(super) fn of_stores(
        files: &ProjectFiles,
        section: &ProjectSection,
        operator: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, LocalError> {
        Ok(Self {
            bundle: Bundle::default(),
            options: Options::default(),
            identity: person(),
            config: config_of(files, section, operator)?,
            own: config_of_user(files),
            timeout,
            copies: CacheArgs::default(),
            copy_name: String::new(),
            is_without_file: false,
        })
    }

    /// What no store could answer.
    pub(super) fn faults(&self) -> Vec<PlanError> {
        Plan::faults(&self.identity, &NamespaceLabels::NotAsked, &self.bundle, &self.options, &self.config)
    }

    /// Nothing is asked for where something has to be.
    pub(super) fn nothing(&self, problem: &str, hint: &str) -> LocalError {
        if self.is_without_file {
            let problem = "there is no .hushpod.yaml here, or above it up to the root of the repository";
            return LocalError::usage(problem).with_hint("write one, or name a file with -f: hushpod explain local");
        }
        LocalError::usage(problem).with_hint(hint)
    }

    /// The stores.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Refuses to go on if a store may not have the person's login.
    ///
    /// # Errors
    /// One sentence that says which may not, and how to let it.
    pub(super) fn check_trust<'a>(&self, providers: impl Iterator<Item = &'a str>) -> Result<(), LocalError> {
        let wanted = providers.filter_map(|name| trust::destination(self.config.providers.get(name)?)).collect();
        trust::check(&wanted, &self.own)
    }

    /// Plans what is wanted now.
    ///
    /// # Errors
    /// One sentence that names the place of a reference that cannot be.
    pub(super) fn plan(&self) -> Result<Plan, LocalError> {
        if self.config.providers.is_empty() {
            let hint = "write providers: {NAME: {type: …}} in .hushpod.yaml or in ~/.config/hushpod/config.yaml";
            return Err(LocalError::usage("no file names a store").with_hint(hint));
        }
        let mut plan = Plan::build(self.identity.clone(), &self.bundle, &self.options, &self.config)?;
        if self.options.size_limit.is_none() {
            plan.size_limit = SIZE_LIMIT;
        }
        Ok(plan)
    }

    /// Asks the stores, once; or takes a copy of what they answered before, where that will do.
    ///
    /// # Errors
    /// Everything that is missing, together; or why a store does not answer.
    pub(super) async fn fetch(&self) -> Result<Fetched, LocalError> {
        let plan = self.plan()?;
        let copies = Copies::open(&self.copies, &self.copy_name)?;
        let generation = match copies.as_ref().map_or(Ok(None), |copies| copies.take(&plan))? {
            Some(generation) => generation,
            None => self.ask(&plan, copies.as_ref(), false).await?.0,
        };
        Ok(Fetched { items: plan.items, size_limit: plan.size_limit, generation })
    }

    /// The same, and what asks the stores again, if they are to be followed: they are asked then, whatever was kept.
    ///
    /// # Errors
    /// As [`WantedSecrets::fetch`].
    pub(super) async fn fetch_for(&self, follow: bool) -> Result<(Fetched, Option<Source>), LocalError> {
        if !follow {
            return Ok((self.fetch().await?, None));
        }
        let plan = self.plan()?;
        let (generation, source) = self.ask(&plan, None, true).await?;
        Ok((Fetched { items: plan.items, size_limit: plan.size_limit, generation }, Some(source)))
    }

    async fn ask(
        &self,
        plan: &Plan,
        copies: Option<&Copies>,
        follow: bool,
    ) -> Result<(Generation, Source), LocalError> {
        self.check_trust(plan.providers.keys().map(String::as_str))?;
        let tokens = patiently(&["the job's id token"], id_token::gather(plan)).await?;
        let source = source_of(plan, &tokens)?;
        let mut source = if follow { source } else { source.asked_once() };
        let generation = fetch(&mut source, plan, self.timeout).await.map_err(|error| match copies {
            Some(copies) => copies.hint(plan, error),
            None => error,
        })?;
        if let Some(copies) = copies {
            let leased = source.hand_over().leased.into_iter().map(|answer| answer.request).collect();
            copies.keep(plan, &generation, &leased);
        }
        Ok((generation, source))
    }
}

/// Adds what the command line names to what a manifest does; it goes before.
fn merge(bundle: &mut Bundle, options: &mut Options, more: &Bundle, more_options: Options) -> Result<(), LocalError> {
    let replaced: BTreeSet<_> = more.items.iter().map(|item| item.target.path().as_str()).collect();
    let mut merged = Bundle::default();
    let kept = bundle.items.iter().filter(|item| !replaced.contains(item.target.path().as_str()));
    for item in kept.chain(&more.items) {
        merged.push(item.clone()).map_err(|error| LocalError::usage(format!("{}: {error}", item.place)))?;
    }
    *bundle = merged;
    for source in more_options.environment {
        if !options.environment.contains(&source) {
            options.environment.push(source);
        }
    }
    Ok(())
}

/// The stores of all files together, each with the login of the person who types.
pub(super) fn config_of(
    files: &ProjectFiles,
    section: &ProjectSection,
    operator: Option<&Path>,
) -> Result<Config, LocalError> {
    let stores = stores_of(section, operator)?;
    Config::of_stores(stores.providers, stores.default_provider.as_deref()).map_err(|error| placed(files, &error))
}

/// The same, not yet checked.
pub(super) fn stores_of(section: &ProjectSection, operator: Option<&Path>) -> Result<ProjectSection, LocalError> {
    let mut stores = ProjectSection::default();
    let mut rules = Map::new();
    if let Some(path) = operator {
        stores = of_operator(&SourceFile::read(path)?, &mut rules)?;
    }
    stores.lay_over(section.of_stores());
    for (name, fields) in &mut stores.providers {
        let Value::Object(fields) = fields else { continue };
        if let Some(allow) = rules.remove(name) {
            fields.insert(ALLOW.to_owned(), allow);
        }
        set_login(name, fields);
    }
    Ok(stores)
}

/// A login where none is said.
fn set_login(name: &str, fields: &mut Map<String, Value>) {
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    let has_token = fields.contains_key("role") && id_token::has_token(name);
    let is_set = |variable: &str| auth::environment(variable).is_some();
    let is_left = |file: &str| env::home_dir().is_some_and(|home| home.join(file).exists());
    let method = ProviderSettings::method_of_person(kind, has_token, &is_set, &is_left);
    if let (false, Some(method)) = (fields.contains_key("auth"), method) {
        fields.insert("auth".to_owned(), json!({"method": method}));
    }
}

fn placed(files: &ProjectFiles, error: &ConfigError) -> LocalError {
    match files.at(error.place()) {
        Some(at) => {
            let field = error.place().trim_start_matches('.');
            LocalError::usage(format!("{at}: {field}: {}", error.problem()))
        }
        None => LocalError::usage(format!("{}: {}", error.place().trim_start_matches('.'), error.problem())),
    }
}

/// An operator's stores, without what is said of pods; the rules go into `rules`.
fn of_operator(file: &SourceFile, rules: &mut Map<String, Value>) -> Result<ProjectSection, LocalError> {
    let wrong = |problem: String| LocalError::usage(format!("{}: {problem}", file.shown));
    let first = |faults: ConfigFaults| faults.0.into_iter().next().map(|fault| fault.error.to_string());
    Config::read_written(&file.text).map_err(|faults| wrong(first(faults).unwrap_or_default()))?;
    let value = crate::bundle::parse_yaml(&file.text).map_err(|error| file.malformed(&error))?;
    let mut value = Config::in_values(&value).map_or_else(|| value.clone(), |config| Value::Object(config.clone()));
    let default_provider = value.get("defaultProvider").and_then(Value::as_str).map(str::to_owned);
    let Some(Value::Object(mut providers)) = value.get_mut("providers").map(Value::take) else {
        return Ok(ProjectSection::stores(default_provider, Map::new()));
    };
    for (name, fields) in &mut providers {
        let Value::Object(fields) = fields else { continue };
        for field in OF_PODS {
            fields.remove(field);
        }
        rules.extend(fields.get(ALLOW).map(|allow| (name.clone(), allow.clone())));
    }
    Ok(ProjectSection::stores(default_provider, providers))
}

/// Where the stores of the person's own file are.
fn config_of_user(files: &ProjectFiles) -> BTreeSet<String> {
    let section = files.of_user().unwrap_or_default();
    let each = section.providers.into_iter().filter_map(|(name, fields)| {
        let Value::Object(mut fields) = fields else { return None };
        set_login(&name, &mut fields);
        let config = Config::of_stores(Map::from_iter([(name, Value::Object(fields))]), None).ok()?;
        Some(trust::destinations(&config))
    });
    each.flatten().collect()
}

/// For `hushpod trust`: where the stores of a file's every profile are.
///
/// # Errors
/// As [`WantedSecrets::read`]; also if there is no such file.
pub(super) fn destinations_of(path: &Path) -> Result<BTreeSet<String>, LocalError> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let file = if absolute.is_dir() { find_project(&absolute) } else { Some(absolute) };
    let Some(file) = file else {
        return Err(LocalError::usage(format!("{}: there is no .hushpod.yaml", path.display())));
    };
    let files = ProjectFiles::open(Some(SourceFile::read(&file)?))?;
    let mut all = BTreeSet::new();
    for section in files.all_sections()? {
        all.extend(trust::destinations(&config_of(&files, &section, None)?));
    }
    Ok(all.difference(&config_of_user(&files)).cloned().collect())
}
