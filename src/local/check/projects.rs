//! `.hushpod.yaml`: what no command could use of it, in every profile.

use std::collections::BTreeSet;

use super::files::is_named;
use super::findings::{Checked, FindingKind};
use super::live::LiveCheck;
use crate::bundle::TextPosition;
use crate::config::{Config, ConfigError, NamespaceLabels};
use crate::local::error::LocalError;
use crate::local::project::{LOCAL_FILE, ProjectFiles, ProjectSection};
use crate::local::source_file::{FileFault, SourceFile};
use crate::local::wanted::{person, stores_of};
use crate::plan::{Plan, PlanError};
use crate::reference::Reference;

/// Says what is wrong with a project's file.
pub(super) fn check(file: &SourceFile, live: Option<&mut LiveCheck>, checked: &mut Checked) {
    let (known, profiles) = ProjectFiles::read_alone(file);
    for fault in &known {
        checked.fault(file, FindingKind::Project, fault.clone());
    }
    let mut known: Vec<_> = known.into_iter().map(|fault| (file.clone(), fault)).collect();
    // What a person lays over a project completes it, and is not whole itself.
    if is_named(&file.path, LOCAL_FILE) {
        return;
    }
    let files = match ProjectFiles::open(Some(file.clone())) {
        Ok(files) => files,
        Err(error) => return checked.fault(file, FindingKind::Project, file.placed(&error.problem)),
    };
    let mut names = vec![None];
    names.extend(profiles.iter().map(|name| Some(name.as_str())));
    for name in names {
        let faults = whole(file, &files, name, checked);
        // What is wrong without a profile is so with each.
        for (place, fault) in faults {
            if !known.iter().any(|(at, it)| at.path == place.path && *it == fault) {
                checked.fault(&place, FindingKind::Project, fault.clone());
                known.push((place, fault));
            }
        }
    }
    if let Some(live) = live.filter(|_| known.is_empty()) {
        live.add_project(file, &files);
    }
}

/// What is wrong with a profile, as it is laid over the rest: of what could be read, all of it, whatever else is wrong.
fn whole(
    file: &SourceFile,
    files: &ProjectFiles,
    profile: Option<&str>,
    checked: &mut Checked,
) -> Vec<(SourceFile, FileFault)> {
    // What is laid over the project may be what is wrong.
    let placed = |sentence: &str| {
        let place = files.file_where(|file| file.is_place_of(sentence)).unwrap_or(file);
        (place.clone(), place.placed(sentence))
    };
    let told = |error: &LocalError| placed(&error.problem);
    let parts = files.right_section(profile).and_then(|section| Ok((stores_of(&section, None)?, section)));
    let (stores, section) = match parts {
        Ok(parts) => parts,
        Err(error) => return vec![told(&error)],
    };
    let (mut bundle, options, faults) = section.right_bundle();
    let mut faults: Vec<_> = faults.iter().map(told).collect();
    let mut providers = stores.providers;
    let default = stores.default_provider.as_deref();
    let default = default.or_else(|| providers.keys().next().filter(|_| providers.len() == 1).map(String::as_str));
    let default = default.map(str::to_owned);
    let mut config = Config::all_of_stores(providers.clone(), stores.default_provider.as_deref());
    if let Err(errors) = &config {
        faults.extend(errors.iter().map(|error| of_store(file, files, profile, error)));
        // What is asked of the others can still be wrong.
        let broken: BTreeSet<_> = errors.iter().filter_map(provider_of).map(str::to_owned).collect();
        providers.retain(|name, _| !broken.contains(name));
        let is_broken =
            |one: &&Reference| one.provider.as_ref().or(default.as_ref()).is_some_and(|it| broken.contains(it));
        bundle.items.retain(|item| !item.from.references().iter().any(is_broken));
        let default = default.as_deref().filter(|name| providers.contains_key(*name));
        config = Config::all_of_stores(providers.clone(), default);
    }
    let Ok(config) = config else { return faults };
    let plan = Plan::faults(&person(), &NamespaceLabels::NotAsked, &bundle, &options, &config);
    let (elsewhere, wrong): (Vec<_>, Vec<_>) = plan.into_iter().partition(|error| is_elsewhere(error, &section));
    for error in elsewhere {
        let (place, FileFault { at, problem }) = placed(&error.to_string());
        let problem = format!("{problem}; if it is of a person's own file, all is well");
        checked.warn(&place, FindingKind::Reference, FileFault { at, problem });
    }
    faults.extend(wrong.iter().map(|error| placed(&error.to_string())));
    faults
}

/// The store that an error is about.
fn provider_of(error: &ConfigError) -> Option<&str> {
    let rest = error.place().strip_prefix(".providers.")?;
    rest.split(['.', '[']).next()
}

/// Whether a reference names a store that another file may have.
fn is_elsewhere(error: &PlanError, section: &ProjectSection) -> bool {
    let named = error.problem.strip_prefix('"').and_then(|problem| problem.split_once(':'));
    let is_unknown = error.problem.contains(": unknown provider ");
    is_unknown && named.is_some_and(|(name, _)| !section.providers.contains_key(name))
}

/// What is wrong with a store: the profile's own field, if it has one, else that of the rest.
fn of_store(
    file: &SourceFile,
    files: &ProjectFiles,
    profile: Option<&str>,
    error: &ConfigError,
) -> (SourceFile, FileFault) {
    let field = error.place().trim_start_matches('.');
    let problem = if field.is_empty() { error.problem().to_owned() } else { format!("{field}: {}", error.problem()) };
    let place = error.place();
    let of_profile = profile.map(|name| format!(".profiles.{name}{place}"));
    let paths = of_profile.into_iter().chain([place.to_owned()]);
    let found = paths.into_iter().find_map(|path| Some((files.file_where(|file| file.has(&path))?, path)));
    let (file, path) = found.unwrap_or((file, place.to_owned()));
    let at = file.position(0, &path).filter(|at: &TextPosition| *at != (0, 0));
    (file.clone(), FileFault { at, problem })
}
