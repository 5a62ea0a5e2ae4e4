//! Pod annotations become a [`Bundle`] and [`Options`]. Every key stands here, and only here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bundle::{self, Bundle, FileMode, Format, Item, Target, VolumePath, one_line, suggestion};
use crate::contract::{ENV_DIR, PREFIX};
use crate::environment::check_name;
use crate::quantity::Amount;
use crate::reference::is_provider_name;
use crate::steps::{self, OverBudget};

/// One annotation key (without [`PREFIX`]), for documentation and for parsing.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key; a family of keys ends in `.`, and a name follows.
    pub name: &'static str,
    /// What it means, in one line.
    pub meaning: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// Whether the operator may set a default for it.
    pub has_operator_default: bool,
}

macro_rules! keys {
    ($($constant:ident = $name:literal, $default:literal, $operator:literal, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $constant: &str = $name;
        )*
        /// Every key, in the order of the README's table.
        pub const KEYS: &[Key] = &[$(Key { name: $name, meaning: $meaning, default: $default, has_operator_default: $operator }),*];
    };
}

keys! {
    INJECT = "inject", "`true`", false, "`false` opts the pod out, whatever else is annotated";
    FILE = "file.", "–", false, "`file.<name>: <reference>` delivers one value as the file `<name>`";
    DIR = "dir.", "–", false, "`dir.<name>: <reference>` delivers one file per key into the directory `<name>` (`.` is the volume itself)";
    SECRETS = "secrets", "–", false, "a YAML list of files and directories: the full form";
    PROVIDER = "provider", "the operator's", false, "provider of references that name none";
    ROLE = "role.", "the operator's template", false, "`role.<provider>: <role>` is the role, identity or ARN to log in as";
    MODE = "mode", "`sidecar`", true, "`sidecar`, `init+sidecar` or `init`: see Modes";
    MOUNT_PATH = "mount-path", "`/secrets`", true, "where the containers find the files";
    CONTAINERS = "containers", "all but injected ones", false, "comma-separated names of the containers that get the mount";
    INIT_ORDER = "init-order", "`first`", true, "the agent's place among init containers: `first`, `last` or `after:<container>`";
    REFRESH = "refresh", "the provider's", true, "poll interval, such as `30s` or `5m`, where the store cannot push";
    NOTIFY = "notify", "none", false, "after a change, space-separated: `signal:<SIGNAL>:<process>`, `http:<url on localhost>`";
    FILE_MODE = "file-mode", "`0400`, `0440` or `0444`: see Who can read the files", true, "permission bits of every file";
    RUN_AS_USER = "run-as-user", "the containers' common uid", true, "uid of the agent";
    RUN_AS_GROUP = "run-as-group", "the containers' common gid", true, "gid of the agent";
    SIZE_LIMIT = "size-limit", "`1Mi`", true, "most bytes of all files together; the tmpfs is sized for three generations of it, in whole pages of 4 KiB (32 more for a directory)";
    CPU_REQUEST = "resources.cpu-request", "`5m`", true, "CPU request of each injected container, or `none`: see Resources";
    CPU_LIMIT = "resources.cpu-limit", "none", true, "CPU limit of each injected container";
    MEMORY_REQUEST = "resources.memory-request", "`8Mi` and the files", true, "memory request of each injected container, or `none`";
    MEMORY_LIMIT = "resources.memory-limit", "`32Mi` and the files", true, "memory limit of each injected container, or `none`";
    ENV = "env", "none", false, "comma-separated dotenv files, or directories of `dir.<name>`, whose keys become environment variables of the `containers`: see Environment variables";
    ENV_VARIABLE = "env.", "–", false, "`env.<NAME>: <reference>` is one environment variable of the `containers`";
    ON_CHANGE = "on-change", "`none`", false, "of variables: `none` waits for the next restart, `restart` ends the container so that it starts anew, `signal:<SIGNAL>` tells the application";
    ON_CHANGE_JITTER = "on-change-jitter", "`5m` for `restart`", true, "`restart` comes at a random moment within this time after the change";
    METRICS_PORT = "metrics-port", "none", true, "port on which the sidecar serves `/metrics`, and tells the kubelet what `kubectl describe` is to show: see Metrics";
    HOLD = "hold", "`false`", false, "live: `true` freezes the present generation";
    PIN = "pin", "none", false, "live: a generation id to return to and stay at";
    REFRESH_NOW = "refresh-now", "–", false, "live: any new text fetches at once";
}

/// Most bytes of all annotations under [`PREFIX`], keys and values. Kubernetes takes 256 KiB of everybody's together.
pub const MAX_BYTES: usize = 128 * 1024;

/// `restart` without a jitter of its own. Twenty replicas that take five seconds each to be back have more than four
/// down at once in one rotation out of two hundred then; see the README for others.
pub const DEFAULT_JITTER: Duration = Duration::from_mins(5);

/// How a bundle is delivered; what is `None` is left to the operator's defaults, then to ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Default provider for references.
    pub provider: Option<String>,
    /// Roles by provider.
    pub roles: BTreeMap<String, String>,
    /// Which containers are injected.
    pub mode: Option<Mode>,
    /// Absolute mount path.
    pub mount_path: Option<String>,
    /// Names of the containers that get the mount; `None` is all but injected ones.
    pub containers: Option<BTreeSet<String>>,
    /// Place among init containers.
    pub init_order: Option<InitOrder>,
    /// Poll interval.
    pub refresh: Option<Duration>,
    /// Whom to tell after a change.
    pub notify: Vec<Notify>,
    /// Permission bits of every file without its own.
    pub file_mode: Option<FileMode>,
    /// Uid of the agent.
    pub run_as_user: Option<i64>,
    /// Gid of the agent.
    pub run_as_group: Option<i64>,
    /// Most bytes of one generation.
    pub size_limit: Option<u64>,
    /// Resources of each injected container.
    pub resources: Resources,
    /// What becomes environment variables of the selected containers; of one name, the last one counts.
    pub environment: Vec<EnvironmentSource>,
    /// What happens to those containers after a change.
    pub on_change: OnChange,
    /// Within which time.
    pub on_change_jitter: Option<Duration>,
    /// Where the sidecar serves metrics.
    pub metrics_port: Option<u16>,
}

/// A file or directory of the bundle whose entries become environment variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSource {
    /// Where it is, relative to the volume.
    pub path: VolumePath,
    /// Whether it may be left out.
    pub optional: bool,
}

/// What happens to a process whose variables were changed in the store: its own cannot change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnChange {
    /// Nothing, until it is started anew.
    #[default]
    None,
    /// It is ended, and its container with it; kubelet starts it again.
    Restart,
    /// It is told.
    Signal(Signal),
}

/// What each injected container is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU request.
    pub cpu_request: Option<Amount>,
    /// CPU limit.
    pub cpu_limit: Option<Amount>,
    /// Memory request.
    pub memory_request: Option<Amount>,
    /// Memory limit.
    pub memory_limit: Option<Amount>,
}

/// Which containers are injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One native sidecar that is init container and sidecar in one.
    Sidecar,
    /// An init container, then a sidecar.
    InitAndSidecar,
    /// An init container alone.
    Init,
}

/// The agent's place among init containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitOrder {
    /// Before all others.
    First,
    /// After all others.
    Last,
    /// Right after the named one.
    After(String),
}

/// Whom to tell after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Notify {
    /// Send a signal to every process of this name (as in `/proc/<pid>/comm`).
    Signal {
        /// Which.
        signal: Signal,
        /// At most 15 bytes, as the kernel keeps names.
        process: String,
    },
    /// POST to a server in the same pod.
    Http {
        /// An `http://` URL whose host is localhost, 127.0.0.1 or [::1].
        url: String,
    },
}

/// Signals that make a program read its files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Hup,
    /// SIGUSR1
    Usr1,
    /// SIGUSR2
    Usr2,
    /// SIGWINCH
    Winch,
    /// SIGINT
    Int,
    /// SIGTERM
    Term,
    /// SIGQUIT
    Quit,
}

/// An annotation that cannot be understood: which, and what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key}{problem}")]
pub struct AnnotationError {
    key: String,
    problem: String,
}

impl AnnotationError {
    fn new(name: &str, problem: impl fmt::Display) -> Self {
        Self { key: one_line(&format!("{PREFIX}{name}")), problem: one_line(&format!(": {problem}")) }
    }
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
    let mut bundle = Bundle::default();
    let mut options = Options::default();
    let ours = annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str())));
    check_size(ours.clone())?;
    for (name, value) in ours {
        steps::look(value)?;
        if !bundle_key(&mut bundle, name, value)? && !control_key(name, value)? {
            options.set(name, value).map_err(|problem| AnnotationError::new(name, problem))?;
        }
    }
    if bundle.items.is_empty() {
        return Err(AnnotationError::new(
            SECRETS,
            format!(
                "nothing to deliver: add {PREFIX}{FILE}<name>, {PREFIX}{DIR}<name>, {PREFIX}{ENV_VARIABLE}<NAME> or \
                 {PREFIX}{SECRETS}"
            ),
        ));
    }
    complete_environment(&bundle, &mut options)?;
    Ok((bundle, options))
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
            let problem = format!(
                "{:?} is no file of this pod{}",
                source.path.as_str(),
                suggestion(source.path.as_str(), &known)
            );
            AnnotationError::new(ENV, problem)
        })?;
        if matches!(item.format, Format::Json | Format::Yaml | Format::Properties) {
            let problem = format!("{:?} has another format: write format: dotenv for it", source.path.as_str());
            return Err(AnnotationError::new(ENV, problem));
        }
        source.optional = item.optional;
    }
    let is_variable = |item: &&Item| variable(item).is_some();
    if bundle.items.iter().any(|item| is_variable(&item)) {
        let path = ENV_DIR.parse().map_err(|problem: String| AnnotationError::new(ENV_VARIABLE, problem))?;
        // Last: what is said of one variable beats what a file brings.
        options.environment.push(EnvironmentSource { path, optional: false });
    }
    if options.environment.is_empty() {
        let key = (options.on_change != OnChange::None).then_some(ON_CHANGE);
        let key = key.or(options.on_change_jitter.map(|_| ON_CHANGE_JITTER));
        return key.map_or(Ok(()), |key| {
            Err(AnnotationError::new(
                key,
                format!("means nothing without {PREFIX}{ENV} or {PREFIX}{ENV_VARIABLE}<NAME>"),
            ))
        });
    }
    if options.on_change_jitter.is_some() && options.on_change == OnChange::None {
        let problem = format!("means nothing without {PREFIX}{ON_CHANGE}: restart or signal:<SIGNAL>");
        return Err(AnnotationError::new(ON_CHANGE_JITTER, problem));
    }
    Ok(())
}

/// The environment variable that an item is, if it is one of [`ENV_VARIABLE`].
#[must_use]
pub fn variable(item: &Item) -> Option<&str> {
    item.target.path().as_str().strip_prefix(ENV_DIR)?.strip_prefix('/')
}

/// Keys that say what to deliver. `false` if `name` is none of them.
fn bundle_key(bundle: &mut Bundle, name: &str, value: &str) -> Result<bool, AnnotationError> {
    let error = |problem: String| AnnotationError::new(name, problem);
    let reference = || bundle::parse_reference(value.trim()).map_err(error);
    let target = if let Some(file) = name.strip_prefix(FILE) {
        Target::File(file.parse::<VolumePath>().map_err(error)?)
    } else if let Some(dir) = name.strip_prefix(DIR) {
        Target::Dir(VolumePath::try_from(dir.to_owned()).map_err(error)?)
    } else if let Some(variable) = name.strip_prefix(ENV_VARIABLE) {
        check_name(variable).map_err(|problem| error(problem.of(&format!("{variable:?}"))))?;
        Target::File(format!("{ENV_DIR}/{variable}").parse::<VolumePath>().map_err(error)?)
    } else if name == SECRETS {
        let listed = Bundle::from_yaml(value)
            .map_err(|problem| AnnotationError { key: format!("{PREFIX}{name}"), problem: problem.to_string() })?;
        for mut item in listed.items {
            item.place.insert_str(0, &format!("{PREFIX}{SECRETS}"));
            check_own(&item.target).map_err(error)?;
            bundle.push(item).map_err(error)?;
        }
        return Ok(true);
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
fn check_own(target: &Target) -> Result<(), String> {
    match target.path().as_str().strip_prefix(ENV_DIR) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            Err(format!("{ENV_DIR} is hushpod's own: write {PREFIX}{ENV_VARIABLE}<NAME>"))
        }
        _ => Ok(()),
    }
}

/// Live controls, checked here only for what is certainly a mistake: the agent reads them. `false` if `name` is none.
fn control_key(name: &str, value: &str) -> Result<bool, AnnotationError> {
    match name {
        HOLD => parse_bool(value).map(drop).map_err(|problem| AnnotationError::new(name, problem)).map(|()| true),
        PIN | REFRESH_NOW => Ok(true),
        INJECT if value == "true" => Ok(true),
        INJECT => Err(AnnotationError::new(name, format!("{value:?} is neither \"true\" nor \"false\""))),
        _ => Ok(false),
    }
}

/// `true` or `false`, as YAML writes them.
///
/// # Errors
/// A sentence for anything else.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither \"true\" nor \"false\""))
}

/// A positive whole number with a unit: `500ms`, `30s`, `5m`, `1h`, `1d`.
///
/// # Errors
/// A sentence for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)) {
        Some(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => {
            Err(format!("{text:?} is no duration: write a number above zero and a unit, such as 500ms, 30s, 5m or 1h"))
        }
    }
}

/// Bytes from a Kubernetes quantity without fraction: `65536`, `512Ki`, `1Mi`, `1M`.
///
/// # Errors
/// A sentence for anything else.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1000 * 1000,
        "G" => 1000 * 1000 * 1000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(format!("{text:?} is no size: write bytes with or without Ki, Mi or Gi, such as 512Ki or 1Mi")),
    }
}

// === impl Options ===

impl Options {
    /// Sets one option from its annotation; the operator's defaults come this way too.
    ///
    /// # Errors
    /// One sentence that says what the key accepts, or which key was meant.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let text = || Some(value.to_owned());
        if let Some(provider) = name.strip_prefix(ROLE) {
            if !is_provider_name(provider) || value.is_empty() {
                return Err(format!("write {PREFIX}{ROLE}<provider>: <role>, with neither of them empty"));
            }
            self.roles.insert(provider.to_owned(), value.to_owned());
            return Ok(());
        }
        match name {
            PROVIDER if is_provider_name(value) => self.provider = text(),
            PROVIDER => return Err(format!("{value:?} is no provider name (lower-case letters, digits and '-')")),
            MODE => self.mode = Some(value.parse()?),
            MOUNT_PATH => self.mount_path = Some(parse_mount_path(value)?),
            CONTAINERS => self.containers = Some(parse_containers(value)?),
            INIT_ORDER => self.init_order = Some(value.parse()?),
            REFRESH => self.refresh = Some(parse_refresh(value)?),
            NOTIFY => self.notify = distinct(value.split_whitespace()).map(str::parse).collect::<Result<_, _>>()?,
            FILE_MODE => self.file_mode = Some(value.parse()?),
            RUN_AS_USER => self.run_as_user = Some(parse_id(value)?),
            RUN_AS_GROUP => self.run_as_group = Some(parse_id(value)?),
            SIZE_LIMIT => self.size_limit = Some(parse_size_limit(value)?),
            CPU_REQUEST => self.resources.cpu_request = Some(value.parse()?),
            CPU_LIMIT => self.resources.cpu_limit = Some(value.parse()?),
            MEMORY_REQUEST => self.resources.memory_request = Some(value.parse()?),
            MEMORY_LIMIT => self.resources.memory_limit = Some(value.parse()?),
            ENV => self.environment = parse_environment(value)?,
            ON_CHANGE => self.on_change = value.parse()?,
            ON_CHANGE_JITTER => self.on_change_jitter = Some(parse_duration(value)?),
            METRICS_PORT => self.metrics_port = Some(parse_port(value)?),
            unknown => return Err(format!("unknown key{}", key_suggestion(unknown))),
        }
        Ok(())
    }

    /// These options, and `defaults` where they say nothing.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        let Self { provider, roles, mode, mount_path, containers, init_order, refresh, notify, file_mode, .. } = self;
        Self {
            provider: provider.or_else(|| defaults.provider.clone()),
            roles,
            mode: mode.or(defaults.mode),
            mount_path: mount_path.or_else(|| defaults.mount_path.clone()),
            containers,
            init_order: init_order.or_else(|| defaults.init_order.clone()),
            refresh: refresh.or(defaults.refresh),
            notify,
            file_mode: file_mode.or(defaults.file_mode),
            run_as_user: self.run_as_user.or(defaults.run_as_user),
            run_as_group: self.run_as_group.or(defaults.run_as_group),
            size_limit: self.size_limit.or(defaults.size_limit),
            resources: self.resources.or(&defaults.resources),
            environment: self.environment,
            on_change: self.on_change,
            on_change_jitter: self.on_change_jitter.or(defaults.on_change_jitter),
            metrics_port: self.metrics_port.or(defaults.metrics_port),
        }
    }
}

impl Resources {
    fn or(self, defaults: &Self) -> Self {
        let or = |mine: Option<Amount>, theirs: &Option<Amount>| mine.or_else(|| theirs.clone());
        Self {
            cpu_request: or(self.cpu_request, &defaults.cpu_request),
            cpu_limit: or(self.cpu_limit, &defaults.cpu_limit),
            memory_request: or(self.memory_request, &defaults.memory_request),
            memory_limit: or(self.memory_limit, &defaults.memory_limit),
        }
    }
}

/// The nearest known key; a family of keys is compared with the name that was written.
fn key_suggestion(unknown: &str) -> String {
    let tail = unknown.split_once('.').map_or("<name>", |(_, tail)| tail);
    let family = |name: &str| if name.ends_with('.') { format!("{name}{tail}") } else { name.to_owned() };
    let known: Vec<_> = KEYS.iter().map(|key| family(key.name)).collect();
    suggestion(unknown, &known.iter().map(String::as_str).collect::<Vec<_>>())
}

fn parse_mount_path(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let plain =
        |name: &str| !matches!(name, "" | "." | "..") && !name.contains([':', ',']) && !name.contains(char::is_control);
    match trimmed.strip_prefix('/') {
        Some(rest) if !rest.is_empty() && rest.split('/').all(plain) => Ok(trimmed.to_owned()),
        _ => Err(format!("{text:?} is no mount path: write an absolute path below / without '.', '..' or ':'")),
    }
}

/// Each word once, in the order of their first places.
fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let mut seen = BTreeSet::new();
    words.filter(move |word| seen.insert(*word))
}

fn parse_containers(text: &str) -> Result<BTreeSet<String>, String> {
    let names: BTreeSet<_> = distinct(text.split(',').map(str::trim)).map(str::to_owned).collect();
    steps::take(names.len())?;
    if names.contains("") {
        return Err(format!("{text:?} has an empty name: write container names with commas between them"));
    }
    Ok(names)
}

fn parse_environment(text: &str) -> Result<Vec<EnvironmentSource>, String> {
    let source = |name: &str| {
        let path = name.trim().trim_end_matches('/').parse()?;
        Ok(EnvironmentSource { path, optional: false })
    };
    let sources = text.split(',').map(source).collect::<Result<Vec<_>, String>>().map_err(|problem| {
        format!("{problem}: write names of {PREFIX}{FILE}<name>, {PREFIX}{DIR}<name> or {PREFIX}{SECRETS}, with commas")
    })?;
    let mut seen = BTreeSet::new();
    match sources.iter().find(|source| !seen.insert(source.path.as_str())) {
        Some(twice) => Err(format!("{:?} stands there twice: write it once", twice.path.as_str())),
        None => Ok(sources),
    }
}

fn parse_size_limit(text: &str) -> Result<u64, String> {
    const MOST: u64 = 1 << 30;
    match parse_bytes(text)? {
        bytes if bytes > MOST => {
            Err(format!("{text:?} is more than 1Gi, and three times as much memory would be taken"))
        }
        bytes => Ok(bytes),
    }
}

fn parse_refresh(text: &str) -> Result<Duration, String> {
    let refresh = parse_duration(text)?;
    if refresh < Duration::from_secs(1) {
        return Err(format!("{text:?} is too often: a second is the least (stores that push need no polling)"));
    }
    Ok(refresh)
}

fn parse_id(text: &str) -> Result<i64, String> {
    match text.parse::<u32>() {
        Ok(id) if id > 0 && i32::try_from(id).is_ok() => Ok(i64::from(id)),
        Ok(0) => Err("0 is root, and the agent never runs as root: leave it out, or write another id".to_owned()),
        _ => Err(format!("{text:?} is no user or group id: write a number from 1 to 2147483647")),
    }
}

/// The agent has no right to a port below 1024.
fn parse_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port >= 1024);
    port.ok_or_else(|| format!("{text:?} is no port that the agent may open: write a number from 1024 to 65535"))
}

// === impl Mode ===

impl Mode {
    /// As the annotation writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::InitAndSidecar => "init+sidecar",
            Self::Init => "init",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sidecar" => Ok(Self::Sidecar),
            "init+sidecar" => Ok(Self::InitAndSidecar),
            "init" => Ok(Self::Init),
            "csi" => Err("csi is not available in this version: write sidecar, init+sidecar or init".to_owned()),
            _ => Err(format!("{text:?} is no mode: write sidecar, init+sidecar or init")),
        }
    }
}

// === impl InitOrder ===

impl FromStr for InitOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("after:")) {
            ("first", _) => Ok(Self::First),
            ("last", _) => Ok(Self::Last),
            (_, Some(name)) if !name.is_empty() => Ok(Self::After(name.to_owned())),
            _ => Err(format!("{text:?} is no order: write first, last or after:<init container>")),
        }
    }
}

// === impl OnChange ===

impl FromStr for OnChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.split_once(':')) {
            ("none", _) => Ok(Self::None),
            ("restart", _) => Ok(Self::Restart),
            (_, Some(("signal", signal))) => signal.parse().map(Self::Signal),
            _ => Err(format!("{text:?} is no reaction: write none, restart or signal:<SIGNAL>")),
        }
    }
}

impl fmt::Display for OnChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Restart => f.write_str("restart"),
            Self::Signal(signal) => write!(f, "signal:{signal}"),
        }
    }
}

// === impl Signal ===

impl Signal {
    const NAMES: [(&'static str, Self); 7] = [
        ("HUP", Self::Hup),
        ("USR1", Self::Usr1),
        ("USR2", Self::Usr2),
        ("WINCH", Self::Winch),
        ("INT", Self::Int),
        ("TERM", Self::Term),
        ("QUIT", Self::Quit),
    ];
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, signal)| signal == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix("SIG").unwrap_or(text);
        if let Some((_, signal)) = Self::NAMES.iter().find(|(name, _)| *name == bare) {
            Ok(*signal)
        } else {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            Err(format!("{text:?} is no signal: write one of {}", names.join(", ")))
        }
    }
}

// === impl Notify ===

impl FromStr for Notify {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write signal:<SIGNAL>:<process> or http:<url on localhost>";
        match text.split_once(':') {
            Some(("signal", rest)) => {
                let (signal, process) =
                    rest.split_once(':').ok_or_else(|| format!("{text:?} names no process: {form}"))?;
                if process.is_empty() || process.len() > 15 || process.contains('/') {
                    return Err(format!(
                        "{process:?} is no process name: write 1 to 15 bytes, as `ps -o comm` shows it"
                    ));
                }
                Ok(Self::Signal { signal: signal.parse()?, process: process.to_owned() })
            }
            Some(("http", rest)) => parse_notify_url(if rest.starts_with("//") { text } else { rest }),
            Some(("exec", _)) => Err(format!("there is no shell to exec in: {form}")),
            _ => Err(format!("{text:?} is no notification: {form}")),
        }
    }
}

fn parse_notify_url(url: &str) -> Result<Notify, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url:?} does not begin with http://"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_good = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    if !matches!(host, "localhost" | "127.0.0.1" | "::1") || !port_is_good {
        return Err(format!("{url:?} is not on localhost: write http://localhost:<port>/<path>"));
    }
    Ok(Notify::Http { url: url.to_owned() })
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { signal, process } => write!(f, "signal:{signal}:{process}"),
            Self::Http { url } => write!(f, "http:{url}"),
        }
    }
}

impl TryFrom<String> for Notify {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Notify> for String {
    fn from(notify: Notify) -> Self {
        notify.to_string()
    }
}

#[cfg(test)]
mod tests;
