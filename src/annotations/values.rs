//! Annotations that say how to deliver; the operator's defaults are written the same way.

use std::collections::BTreeSet;
use std::time::Duration;

use super::keys::{
    CONTAINERS, CPU_LIMIT, CPU_REQUEST, DIR, ENV, FILE, FILE_MODE, INIT_ORDER, KEYS, MEMORY_LIMIT, MEMORY_REQUEST,
    METRICS_PORT, MODE, MOUNT_PATH, NOTIFY, ON_CHANGE, ON_CHANGE_JITTER, PROVIDER, REFRESH, ROLE, RUN_AS_GROUP,
    RUN_AS_USER, SECRETS, SHARE_LEASES, SIZE_LIMIT,
};
use crate::contract::{BIN_PATH, PREFIX};
use crate::options::{EnvironmentSource, Options};
use crate::parse_error::{ParseError, invalid, rule};
use crate::quantity::{parse_bytes, parse_duration};
use crate::reference::is_provider_name;
use crate::sentence::suggestion;
use crate::steps;

/// Sets one option from its annotation; the operator's defaults come this way too.
///
/// # Errors
/// One sentence that says what the key accepts, or which key was meant.
pub fn set(options: &mut Options, name: &str, value: &str) -> Result<(), ParseError> {
    let text = || Some(value.to_owned());
    if let Some(provider) = name.strip_prefix(ROLE) {
        if !is_provider_name(provider) || value.is_empty() {
            return Err(rule(format!("write {PREFIX}{ROLE}<provider>: <role>, with neither of them empty")));
        }
        options.roles.insert(provider.to_owned(), value.to_owned());
        return Ok(());
    }
    match name {
        PROVIDER if is_provider_name(value) => options.provider = text(),
        PROVIDER => {
            return Err(invalid("provider name", value, "lower-case letters, digits and '-'"));
        }
        MODE => options.mode = Some(value.parse()?),
        MOUNT_PATH => options.mount_path = Some(parse_mount_path(value)?),
        CONTAINERS => options.containers = Some(parse_containers(value)?),
        INIT_ORDER => options.init_order = Some(value.parse()?),
        REFRESH => options.refresh = Some(parse_refresh(value)?),
        NOTIFY => options.notify = distinct(value.split_whitespace()).map(str::parse).collect::<Result<_, _>>()?,
        FILE_MODE => options.file_mode = Some(value.parse()?),
        RUN_AS_USER => options.run_as_user = Some(parse_id(value)?),
        RUN_AS_GROUP => options.run_as_group = Some(parse_id(value)?),
        SIZE_LIMIT => options.size_limit = Some(parse_size_limit(value)?),
        CPU_REQUEST => options.resources.cpu_request = Some(value.parse()?),
        CPU_LIMIT => options.resources.cpu_limit = Some(value.parse()?),
        MEMORY_REQUEST => options.resources.memory_request = Some(value.parse()?),
        MEMORY_LIMIT => options.resources.memory_limit = Some(value.parse()?),
        ENV => options.environment = parse_environment(value)?,
        ON_CHANGE => options.on_change = value.parse()?,
        ON_CHANGE_JITTER => options.on_change_jitter = Some(parse_duration(value)?),
        METRICS_PORT => options.metrics_port = Some(parse_port(value)?),
        SHARE_LEASES => options.share_leases = parse_bool(value)?,
        unknown => return Err(rule(format!("unknown key{}", key_suggestion(unknown)))),
    }
    Ok(())
}

/// `true` or `false`, as YAML writes them.
///
/// # Errors
/// A sentence for anything else.
pub fn parse_bool(text: &str) -> Result<bool, ParseError> {
    text.parse().map_err(|_| invalid("value", text, "true or false"))
}

/// The nearest known key; a family of keys is compared with the name that was written.
fn key_suggestion(unknown: &str) -> String {
    let tail = unknown.split_once('.').map_or("<name>", |(_, tail)| tail);
    let family = |name: &str| if name.ends_with('.') { format!("{name}{tail}") } else { name.to_owned() };
    let known: Vec<_> = KEYS.iter().map(|key| family(key.name)).collect();
    suggestion(unknown, &known.iter().map(String::as_str).collect::<Vec<_>>())
}

fn parse_mount_path(text: &str) -> Result<String, ParseError> {
    /// Linux' `PATH_MAX`, less what a runtime puts before it and we behind it.
    const MAX_BYTES: usize = 3 * 1024;
    let trimmed = text.trim_end_matches('/');
    let within = |place| trimmed.strip_prefix(place).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'));
    let plain =
        |name: &str| !matches!(name, "" | "." | "..") && !name.contains([':', ',']) && !name.contains(char::is_control);
    match trimmed.strip_prefix('/') {
        Some(_) if within(BIN_PATH) => {
            Err(rule(format!("{text:?} is where hushpod's program goes: write another path")))
        }
        // No runtime mounts anything there, or no program finds its devices any more.
        Some(_) if within("/proc") || within("/sys") || trimmed == "/dev" => {
            Err(invalid("mount path", text, "one outside of /proc, /sys and /dev"))
        }
        Some(_) if trimmed.len() > MAX_BYTES => {
            Err(rule(format!("invalid mount path of {} bytes: expected at most {MAX_BYTES}", trimmed.len())))
        }
        Some(rest) if !rest.is_empty() && rest.split('/').all(plain) => Ok(trimmed.to_owned()),
        _ => Err(invalid("mount path", text, "an absolute path below / without '.', '..' or ':'")),
    }
}

/// Each word once, in the order of their first places.
fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let mut seen = BTreeSet::new();
    words.filter(move |word| seen.insert(*word))
}

fn parse_containers(text: &str) -> Result<BTreeSet<String>, ParseError> {
    let names: BTreeSet<_> = distinct(text.split(',').map(str::trim)).map(str::to_owned).collect();
    steps::take(names.len())?;
    if names.contains("") {
        return Err(rule(format!("{text:?} has an empty name: write container names with commas between them")));
    }
    Ok(names)
}

fn parse_environment(text: &str) -> Result<Vec<EnvironmentSource>, ParseError> {
    let source = |name: &str| {
        let path = name.trim().trim_end_matches('/').parse()?;
        Ok(EnvironmentSource { path, optional: false })
    };
    let sources = text.split(',').map(source).collect::<Result<Vec<_>, ParseError>>().map_err(|problem| {
        rule(format!(
            "{problem}: write names of {PREFIX}{FILE}<name>, {PREFIX}{DIR}<name> or {PREFIX}{SECRETS}, with commas"
        ))
    })?;
    let mut seen = BTreeSet::new();
    match sources.iter().find(|source| !seen.insert(source.path.as_str())) {
        Some(twice) => Err(rule(format!("{:?} stands there twice: write it once", twice.path.as_str()))),
        None => Ok(sources),
    }
}

fn parse_size_limit(text: &str) -> Result<u64, ParseError> {
    const MOST: u64 = 1 << 30;
    match parse_bytes(text)? {
        bytes if bytes > MOST => {
            Err(rule(format!("{text:?} is more than 1Gi, and three times as much memory would be taken")))
        }
        bytes => Ok(bytes),
    }
}

fn parse_refresh(text: &str) -> Result<Duration, ParseError> {
    let refresh = parse_duration(text)?;
    if refresh < Duration::from_secs(1) {
        return Err(rule(format!("{text:?} is too often: a second is the least (stores that push need no polling)")));
    }
    Ok(refresh)
}

fn parse_id(text: &str) -> Result<i64, ParseError> {
    match text.parse::<u32>() {
        Ok(id) if id > 0 && i32::try_from(id).is_ok() => Ok(i64::from(id)),
        Ok(0) => Err(rule("0 is root, and the agent never runs as root: leave it out, or write another id")),
        _ => Err(invalid("user or group id", text, "a number from 1 to 2147483647")),
    }
}

/// The agent has no right to a port below 1024.
fn parse_port(text: &str) -> Result<u16, ParseError> {
    let port = text.parse().ok().filter(|port| *port >= 1024);
    port.ok_or_else(|| invalid("port", text, "a number from 1024 to 65535"))
}
