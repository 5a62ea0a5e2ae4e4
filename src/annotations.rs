//! Pod annotations become a [`Bundle`] and [`Options`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::bundle::{self, Bundle, Format, Item, Target, VolumePath};
use crate::contract::{ENV_DIR, PREFIX};
use crate::env_vars::check_name;
use crate::options::{EnvironmentSource, OnChange, Options};
use crate::parse_error::{ParseError, invalid, rule, unknown};
use crate::sentence::one_line;
use crate::steps::{self, OverBudget};

mod keys;
mod values;

pub use self::keys::*;
pub use self::values::{parse_bool, set};

/// Most bytes of all annotations under [`PREFIX`], keys and values. Kubernetes takes 256 KiB of everybody's together.
pub const MAX_BYTES: usize = 128 * 1024;

/// Keys that say nothing of a volume.
const OF_THE_POD: [&str; 18] = [
    INJECT,
    MODE,
    MOUNT_PATH,
    INIT_ORDER,
    NOTIFY,
    CPU_REQUEST,
    CPU_LIMIT,
    MEMORY_REQUEST,
    MEMORY_LIMIT,
    ENV,
    ON_CHANGE,
    ON_CHANGE_JITTER,
    METRICS_PORT,
    HOLD,
    PIN,
    ADVANCE,
    REFRESH_NOW,
    DENY,
];

/// An annotation that cannot be understood: which, and what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}{problem}")]
pub struct AnnotationError {
    /// Whole, without [`PREFIX`], and as it is written: for those who look for it.
    name: String,
    /// What of its value it is about, as `[2].format`; maybe nothing.
    place: String,
    key: String,
    problem: String,
}

impl AnnotationError {
    fn new(name: &str, problem: impl fmt::Display) -> Self {
        Self::inside(name, "", problem)
    }

    fn inside(name: &str, place: &str, problem: impl fmt::Display) -> Self {
        Self {
            name: name.to_owned(),
            place: place.to_owned(),
            key: one_line(&format!("annotation {PREFIX}{name}")),
            problem: one_line(&format!("{place}: {problem}")),
        }
    }

    /// The annotation's name, without [`PREFIX`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What of its value it is about, as `[2].format`; empty if it is all of it.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The same, as one who wrote `volumeAttributes` understands it.
    fn of_attributes(self) -> Self {
        Self { key: in_attributes(&self.key), problem: in_attributes(&self.problem), ..self }
    }
}

/// A sentence about annotations, as one who wrote a volume's attributes understands it: those have no prefix.
#[must_use]
pub fn in_attributes(sentence: &str) -> String {
    sentence.replace(&format!("annotation {PREFIX}"), "volumeAttributes: ").replace(PREFIX, "")
}

impl From<OverBudget> for AnnotationError {
    fn from(spent: OverBudget) -> Self {
        Self::new("*", spent)
    }
}

/// Whether the annotations ask for injection: any key under our prefix does, unless `inject` is `false`.
#[must_use]
pub fn opts_in(annotations: &BTreeMap<String, String>) -> bool {
    annotations.keys().any(|key| key.starts_with(PREFIX))
        && annotations.get(&format!("{PREFIX}{INJECT}")).is_none_or(|value| value != "false")
}

/// Whether this is the key of an annotation of ours, with our prefix.
#[must_use]
pub fn is_known(key: &str) -> bool {
    let is = |known: &str, name: &str| if known.ends_with('.') { name.starts_with(known) } else { name == known };
    key.strip_prefix(PREFIX).is_some_and(|name| KEYS.iter().any(|key| is(key.name, name)))
}

/// Whether annotations of these keys ask for environment variables.
pub fn asks_for_variables<'a>(keys: impl IntoIterator<Item = &'a String>) -> bool {
    let mut ours = keys.into_iter().filter_map(|key| key.strip_prefix(PREFIX));
    ours.any(|key| key == ENV || key.starts_with(ENV_VARIABLE))
}

/// Parses the annotations of a pod that opted in; keys of others are passed over.
///
/// # Errors
/// [`AnnotationError`] names the key and what it accepts.
pub fn parse(annotations: &BTreeMap<String, String>) -> Result<(Bundle, Options), AnnotationError> {
    parse_keys(annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str()))))
}

/// Parses a CSI volume's own `volumeAttributes`: the same keys, without the prefix, as far as they say something of a
/// volume.
///
/// # Errors
/// [`AnnotationError`] names the attribute and what it accepts.
pub fn parse_attributes<'a>(
    attributes: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<(Bundle, Options), AnnotationError> {
    match attributes.clone().find(|(name, _)| OF_THE_POD.contains(name)) {
        Some((name, _)) => Err(AnnotationError {
            name: name.to_owned(),
            place: String::new(),
            key: format!("volumeAttributes: {name}"),
            problem: format!(": it says something of the pod, not of a volume: expected the annotation {PREFIX}{name}"),
        }),
        None => parse_keys(attributes).map_err(AnnotationError::of_attributes),
    }
}

/// What can be made of the annotations of a pod that opted in, and all that cannot be understood of them.
#[must_use]
pub fn parse_all(annotations: &BTreeMap<String, String>) -> (Bundle, Options, Vec<AnnotationError>) {
    let ours = annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str())));
    let mut faults = Vec::new();
    let mut gather = |error| {
        faults.push(error);
        Ok(())
    };
    match read_keys(ours, &mut gather) {
        Ok((bundle, options)) => (bundle, options, faults),
        Err(error) => {
            faults.push(error);
            (Bundle::default(), Options::default(), faults)
        }
    }
}

fn parse_keys<'a>(
    ours: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<(Bundle, Options), AnnotationError> {
    read_keys(ours, &mut Err)
}

/// Reads them; what `tell` says of a fault decides whether it goes on.
fn read_keys<'a>(
    ours: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    tell: &mut impl FnMut(AnnotationError) -> Result<(), AnnotationError>,
) -> Result<(Bundle, Options), AnnotationError> {
    let mut bundle = Bundle::default();
    let mut options = Options::default();
    check_size(ours.clone())?;
    // Whether it is known what is delivered: what is said of the rest would be another fault of the same.
    let mut is_whole = true;
    for (name, value) in ours {
        steps::look(value)?;
        let mut tell = |error| {
            is_whole &= KEYS.iter().any(|key| key.name == name) && !matches!(name, SECRETS | ENV);
            tell(error)
        };
        if let Err(error) = read_key(&mut bundle, &mut options, name, value, &mut tell) {
            tell(error)?;
        }
    }
    if bundle.items.is_empty() && is_whole {
        tell(AnnotationError::new(
            SECRETS,
            format!(
                "nothing to deliver: add {PREFIX}{FILE}<name>, {PREFIX}{DIR}<name>, {PREFIX}{ENV_VARIABLE}<NAME> or \
                 {PREFIX}{SECRETS}"
            ),
        ))?;
    }
    if !is_whole {
        let known: BTreeSet<_> = bundle.items.iter().map(|item| item.target.path().as_str()).collect();
        options.environment.retain(|source| known.contains(source.path.as_str()));
    }
    match complete_environment(&bundle, &mut options) {
        Err(error) if is_whole => tell(error)?,
        _ => {}
    }
    Ok((bundle, options))
}

fn read_key(
    bundle: &mut Bundle,
    options: &mut Options,
    name: &str,
    value: &str,
    tell: &mut impl FnMut(AnnotationError) -> Result<(), AnnotationError>,
) -> Result<(), AnnotationError> {
    if name == SECRETS {
        return read_list(bundle, value, tell);
    }
    if !bundle_key(bundle, name, value)? && !control_key(name, value)? {
        set(options, name, value).map_err(|problem| AnnotationError::new(name, problem))?;
    }
    Ok(())
}

/// The full form.
fn read_list(
    bundle: &mut Bundle,
    value: &str,
    tell: &mut impl FnMut(AnnotationError) -> Result<(), AnnotationError>,
) -> Result<(), AnnotationError> {
    let listed =
        Bundle::entries(value).map_err(|error| AnnotationError::inside(SECRETS, &error.place, error.problem))?;
    for (index, entry) in listed.enumerate() {
        let added = entry.map_err(|error| AnnotationError::inside(SECRETS, &error.place, error.problem)).and_then(
            |mut item| {
                item.place.insert_str(0, &format!("{PREFIX}{SECRETS}"));
                let checked = check_own(&item.target).and_then(|()| bundle.push(item));
                checked.map_err(|problem| AnnotationError::inside(SECRETS, &format!("[{index}]"), problem))
            },
        );
        if let Err(error) = added {
            tell(error)?;
        }
    }
    Ok(())
}

/// Bounds everything that is parsed from them.
fn check_size<'a>(ours: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Result<(), AnnotationError> {
    let bytes: usize = ours.clone().map(|(name, value)| PREFIX.len() + name.len() + value.len()).sum();
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    let (largest, _) = ours.max_by_key(|(name, value)| name.len() + value.len()).unwrap_or_default();
    let problem = format!(
        "is the largest of the {PREFIX} annotations, which have {bytes} bytes together, over the limit of {MAX_BYTES}: \
         take directories instead of many files, or shorter templates"
    );
    Err(AnnotationError::new(largest, problem))
}

/// Checks what [`ENV`] names against the bundle, and adds the variables that are annotated one by one.
fn complete_environment(bundle: &Bundle, options: &mut Options) -> Result<(), AnnotationError> {
    let items: BTreeMap<_, _> = if options.environment.is_empty() {
        BTreeMap::new()
    } else {
        bundle.items.iter().map(|item| (item.target.path().as_str(), item)).collect()
    };
    for source in &mut options.environment {
        let item = items.get(source.path.as_str()).ok_or_else(|| {
            let known: Vec<_> = items.keys().copied().collect();
            AnnotationError::new(ENV, unknown("file", source.path.as_str(), &known))
        })?;
        if matches!(item.format, Format::Json | Format::Yaml | Format::Properties) {
            let problem = format!("{:?} has another format: write format: dotenv for it", source.path.as_str());
            return Err(AnnotationError::new(ENV, problem));
        }
        source.optional = item.optional;
    }
    let is_variable = |item: &&Item| variable(item).is_some();
    if bundle.items.iter().any(|item| is_variable(&item)) {
        let path = ENV_DIR.parse().map_err(|problem: ParseError| AnnotationError::new(ENV_VARIABLE, problem))?;
        // Last: what is said of one variable beats what a file brings.
        options.environment.push(EnvironmentSource { path, optional: false });
    }
    if options.environment.is_empty() {
        let key = (options.on_change != OnChange::None).then_some(ON_CHANGE);
        let key = key.or(options.on_change_jitter.map(|_| ON_CHANGE_JITTER));
        return key.map_or(Ok(()), |key| {
            Err(AnnotationError::new(
                key,
                format!("has no effect without {PREFIX}{ENV} or {PREFIX}{ENV_VARIABLE}<NAME>"),
            ))
        });
    }
    if options.on_change_jitter.is_some() && options.on_change == OnChange::None {
        let problem = format!("has no effect without {PREFIX}{ON_CHANGE}: restart, restart-all or signal:<SIGNAL>");
        return Err(AnnotationError::new(ON_CHANGE_JITTER, problem));
    }
    Ok(())
}

/// The environment variable that an item is, if it is one of [`ENV_VARIABLE`].
#[must_use]
pub fn variable(item: &Item) -> Option<&str> {
    variable_of(item.target.path().as_str())
}

/// The same, of an item's path.
#[must_use]
pub fn variable_of(path: &str) -> Option<&str> {
    path.strip_prefix(ENV_DIR)?.strip_prefix('/')
}

/// Keys that say what to deliver. `false` if `name` is not one of them.
fn bundle_key(bundle: &mut Bundle, name: &str, value: &str) -> Result<bool, AnnotationError> {
    let error = |problem: ParseError| AnnotationError::new(name, problem);
    let reference = || bundle::parse_reference(value.trim()).map_err(error);
    let target = if let Some(file) = name.strip_prefix(FILE) {
        Target::File(file.parse::<VolumePath>().map_err(error)?)
    } else if let Some(dir) = name.strip_prefix(DIR) {
        Target::Dir(VolumePath::try_from(dir.to_owned()).map_err(error)?)
    } else if let Some(variable) = name.strip_prefix(ENV_VARIABLE) {
        check_name(variable).map_err(|problem| error(rule(problem.of(&format!("{variable:?}")))))?;
        Target::File(format!("{ENV_DIR}/{variable}").parse::<VolumePath>().map_err(error)?)
    } else {
        return Ok(false);
    };
    if !name.starts_with(ENV_VARIABLE) {
        check_own(&target).map_err(error)?;
    }
    bundle.push(Item::short(format!("{PREFIX}{name}"), target, reference()?)).map_err(error)?;
    Ok(true)
}

/// What is in [`ENV_DIR`] was checked by its name: nothing else goes there.
fn check_own(target: &Target) -> Result<(), ParseError> {
    match target.path().as_str().strip_prefix(ENV_DIR) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            Err(rule(format!("{ENV_DIR} is hushpod's own: write {PREFIX}{ENV_VARIABLE}<NAME>")))
        }
        _ => Ok(()),
    }
}

/// Live controls, checked here only for what is certainly a mistake: the agent reads them. `false` if `name` is not
/// one.
fn control_key(name: &str, value: &str) -> Result<bool, AnnotationError> {
    match name {
        HOLD => parse_bool(value).map(drop).map_err(|problem| AnnotationError::new(name, problem)).map(|()| true),
        PIN | ADVANCE | REFRESH_NOW => Ok(true),
        DENY => Err(AnnotationError::new(
            name,
            "stops the agent of a pod that runs, so a new one would have no files: leave it out (kubectl hushpod deny \
             sets it, and takes it away)",
        )),
        INJECT if value == "true" => Ok(true),
        INJECT => Err(AnnotationError::new(name, invalid("value", value, "true or false"))),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests;
