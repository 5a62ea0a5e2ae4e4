//! What a reference asks for: its one canonical form, and what that form means when it is read.

use std::collections::BTreeMap;

use super::settings::{InfisicalSettings, PlaceParam, is_name};
use crate::parse_error::{ParseError, invalid, rule, unknown};
use crate::provider::Parameters;
use crate::reference::{Key, Reference, Request, VERSION_PARAM};

/// A dynamic secret's name: the answer is a credential made for this pod.
pub(super) const DYNAMIC: &str = "dynamic";
const TTL: &str = "ttl";
const RECURSIVE: &str = "recursive";
const SECRET: &str = "secret";
const TAGS: &str = "tags";
const UNRESOLVED: &str = "unresolved";

/// A `ttl` lets a credential live longer.
pub(super) const PARAMETERS: Parameters = Parameters {
    narrowing: &[VERSION_PARAM, SECRET, TAGS, UNRESOLVED],
    widening: Some(&["env", "project", RECURSIVE, DYNAMIC, TTL]),
};

/// All of them, for messages.
const KNOWN: [&str; 9] = ["env", "project", RECURSIVE, TAGS, SECRET, VERSION_PARAM, UNRESOLVED, DYNAMIC, TTL];

/// Bounds of a dynamic secret's life, which the server checks too.
const TTL_SECONDS: std::ops::RangeInclusive<u64> = 60..=10 * 365 * 24 * 3600;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// An id or a slug.
    pub(super) project: String,
    pub(super) environment: String,
    pub(super) path: String,
    pub(super) what: What,
    /// A `${…}` that names no secret is meant as it stands.
    pub(super) keeps_unresolved: bool,
    /// Whether the server is to put what is referred to in its place.
    pub(super) expands: bool,
}

/// What of a folder is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// All its secrets, or those with one of some tags.
    Folder { recursive: bool, tags: Option<String> },
    /// One secret, at a version or at the newest.
    Secret { name: String, version: Option<String> },
    /// A new credential.
    Lease { name: String, ttl: Option<String> },
}

/// The canonical request; see [`InfisicalSettings`]'s `resolve`.
pub(super) fn resolve(
    settings: &InfisicalSettings,
    provider: &str,
    reference: &Reference,
) -> Result<Request, ParseError> {
    let path = folder(&reference.path)?;
    let mut params = BTreeMap::new();
    for (name, value) in &reference.params {
        if let Some(canonical) = param(settings, name, value)? {
            params.insert(name.clone(), canonical);
        }
    }
    check_place(settings, &params)?;
    if params.contains_key(VERSION_PARAM) && !params.contains_key(SECRET) {
        let folder = || rule("folders have no versions, only secrets have: write ?version=<number>#<KEY>");
        let name = top_key(reference).ok_or_else(folder)?;
        params.insert(SECRET.to_owned(), secret_name(name)?);
    }
    if let (Some(secret), Some(key)) = (params.get(SECRET), top_key(reference))
        && secret != key
    {
        return Err(rule(format!(
            "asks for the secret {secret:?} and takes #{key} of it: write the same name twice, or one"
        )));
    }
    check_together(&params)?;
    Ok(Request { provider: provider.to_owned(), path, params })
}

fn folder(given: &str) -> Result<String, ParseError> {
    let components: Vec<_> = given.split('/').filter(|component| !component.is_empty()).collect();
    if components.iter().any(|name| matches!(*name, "." | "..") || name.contains(char::is_control)) {
        return Err(rule(format!(
            "{given:?} has a '.', '..' or control character: write a folder's path, such as /backend"
        )));
    }
    Ok(format!("/{}", components.join("/")))
}

/// A parameter's canonical value; `None` if it says what is so anyway.
fn param(settings: &InfisicalSettings, name: &str, value: &str) -> Result<Option<String>, ParseError> {
    match name {
        "env" => placed(settings, PlaceParam::Env, value, settings.environment.as_deref()),
        "project" => {
            // Its id and its slug are one project.
            let is_same = settings.project_slug.as_deref() == Some(value);
            placed(
                settings,
                PlaceParam::Project,
                value,
                if is_same { Some(value) } else { settings.project.as_deref() },
            )
        }
        RECURSIVE => match value {
            "true" => Ok(Some(value.to_owned())),
            "false" => Ok(None),
            _ => Err(invalid("recursive", value, "true or false")),
        },
        UNRESOLVED => match value {
            "keep" => Ok(Some(value.to_owned())),
            _ => Err(rule(format!("unresolved {value:?} is unknown: write unresolved=keep, or leave it out"))),
        },
        TAGS => tags(value).map(Some),
        SECRET => secret_name(value).map(Some),
        VERSION_PARAM => match value.parse::<u32>() {
            Ok(number) if number > 0 && !value.starts_with('+') => Ok(Some(number.to_string())),
            _ => Err(invalid("version", value, "a whole number above zero")),
        },
        DYNAMIC if is_name(value) => Ok(Some(value.to_lowercase())),
        DYNAMIC => Err(invalid("name of a dynamic secret", value, "a slug")),
        TTL => seconds(value)
            .filter(|seconds| TTL_SECONDS.contains(seconds))
            .map(|seconds| Some(format!("{seconds}s")))
            .ok_or_else(|| invalid("ttl", value, "a minute to ten years, such as 90s, 30m or 1h")),
        _ => Err(unknown("parameter", name, &KNOWN)),
    }
}

fn placed(
    settings: &InfisicalSettings,
    param: PlaceParam,
    value: &str,
    default: Option<&str>,
) -> Result<Option<String>, ParseError> {
    let name = param.as_str();
    if default == Some(value) {
        return Ok(None);
    }
    if !settings.allow_params.contains(&param) {
        return Err(rule(format!("the operator does not let references choose ?{name}=: leave it out")));
    }
    if is_name(value) { Ok(Some(value.to_owned())) } else { Err(invalid(name, value, "a slug")) }
}

/// Somebody has to say where secrets are.
fn check_place(settings: &InfisicalSettings, params: &BTreeMap<String, String>) -> Result<(), ParseError> {
    for (field, value, param) in
        [("project", &settings.project, PlaceParam::Project), ("environment", &settings.environment, PlaceParam::Env)]
    {
        let name = param.as_str();
        if value.is_some() || params.contains_key(name) {
            continue;
        }
        return Err(if settings.allow_params.contains(&param) {
            rule(format!("there is no {field} for this namespace: write ?{name}=<slug>"))
        } else {
            rule(format!(
                "there is no {field} for this namespace: the operator has to set {field}, or namespaces.<name>"
            ))
        });
    }
    Ok(())
}

fn check_together(params: &BTreeMap<String, String>) -> Result<(), ParseError> {
    let has = |name: &&str| params.contains_key(*name);
    for (name, others) in
        [(DYNAMIC, &[RECURSIVE, SECRET, TAGS, UNRESOLVED, VERSION_PARAM][..]), (SECRET, &[RECURSIVE, TAGS][..])]
    {
        if let Some(other) = others.iter().find(|other| has(&name) && has(other)) {
            return Err(rule(format!("{name} and {other} do not go together: leave one of them out")));
        }
    }
    if has(&TTL) && !has(&DYNAMIC) {
        return Err(rule("ttl is for dynamic secrets: write ?dynamic=<name>&ttl=…, or leave it out"));
    }
    Ok(())
}

/// The secret that the part behind `#` begins with.
fn top_key(reference: &Reference) -> Option<&str> {
    match reference.key.as_ref()? {
        Key::Literal(key) => Some(key),
        Key::Pointer(tokens) => tokens.first().map(String::as_str),
    }
}

fn secret_name(name: &str) -> Result<String, ParseError> {
    if name.is_empty() || name.contains(['/', ':']) || name.contains(char::is_whitespace) {
        return Err(invalid("secret name", name, "one without '/', ':' and blanks"));
    }
    Ok(name.to_owned())
}

fn tags(list: &str) -> Result<String, ParseError> {
    let mut tags: Vec<_> = list.split(',').map(str::trim).collect();
    if let Some(tag) = tags.iter().find(|tag| !is_name(tag)) {
        return Err(invalid("tag", tag, "slugs, as in tags=first,second"));
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags.join(","))
}

/// `90s`, `30m`, `1h`, `7d` in seconds.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(unit)
}

// === impl Asked ===

impl Asked {
    /// What a canonical request asks for.
    ///
    /// # Errors
    /// One sentence if these settings do not allow it.
    pub(super) fn of(settings: &InfisicalSettings, request: &Request) -> Result<Self, ParseError> {
        let param = |name: &str| request.params.get(name).cloned();
        let place = |name, default: &Option<String>| {
            param(name).or_else(|| default.clone()).ok_or_else(|| rule(format!("there is no {name} for {request}")))
        };
        let what = match (param(DYNAMIC), param(SECRET)) {
            (Some(name), _) => What::Lease { name, ttl: param(TTL) },
            (None, Some(name)) => What::Secret { name, version: param(VERSION_PARAM) },
            (None, None) => What::Folder { recursive: request.params.contains_key(RECURSIVE), tags: param(TAGS) },
        };
        Ok(Self {
            project: place(PlaceParam::Project.as_str(), &settings.project)?,
            environment: place(PlaceParam::Env.as_str(), &settings.environment)?,
            path: request.path.clone(),
            what,
            keeps_unresolved: request.params.contains_key(UNRESOLVED),
            expands: true,
        })
    }

    /// For messages: what, and where.
    pub(super) fn describe(&self) -> String {
        let Self { environment, path, .. } = self;
        match &self.what {
            What::Folder { .. } => format!("{path} in environment {environment}"),
            What::Secret { name, version: None } => format!("{name} of {path} in environment {environment}"),
            What::Secret { name, version: Some(version) } => {
                format!("version {version} of {name} of {path} in environment {environment}")
            }
            What::Lease { name, .. } => format!("dynamic secret {name} of {path} in environment {environment}"),
        }
    }
}
