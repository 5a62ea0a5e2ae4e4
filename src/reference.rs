//! References: how a tenant names a secret, `[provider:]path[?param=value&…][#key]`.
//!
//! Split at the first `#`, then at the first `?`, then at the first `:`; percent-decoded after. Everything before `#`,
//! made canonical by the provider's `resolve`, is the [`Request`]: equal requests are sent once and share one lease.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::parse_error::{ParseError, invalid, rule};

/// The parameter that pins a request to one version; every provider with versions understands it.
pub const VERSION_PARAM: &str = "version";

/// A parsed reference. `provider: None` means the default provider.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Name of a provider in the operator's configuration.
    pub provider: Option<String>,
    /// What that store calls a path; decoded, never empty.
    pub path: String,
    /// Decoded parameters; `version` pins, others belong to the provider.
    pub params: BTreeMap<String, String>,
    /// What to take out of the answer; `None` takes all of it.
    pub key: Option<Key>,
}

/// The part behind `#`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `#tls.crt`: one literal key.
    Literal(String),
    /// `#/db/password`: the unescaped tokens of a JSON pointer (RFC 6901).
    Pointer(Vec<String>),
}

/// What is sent to a store: a provider's name, its canonical path and parameters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Name of the provider in the operator's configuration.
    pub provider: String,
    /// Canonical path, as that provider's `resolve` made it.
    pub path: String,
    /// Canonical parameters, `version` among them if the request is pinned.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

/// A store's own name for a state of one secret. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub String);

/// Why a text is not a reference. Every message says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing stands where the path should be.
    #[error("the path is empty: expected [provider:]path[?param=value][#key]")]
    EmptyPath,
    /// A cloud resource name without a provider's name before it.
    #[error("{0:?} is read as a provider's name: write <provider>:{0}:…, for example aws:{0}:…")]
    BareResourceName(String),
    /// The text before the first `:` cannot be a provider's name.
    #[error("{}; percent-encode a ':' in a path as %3A", invalid("provider name", .0, "lower-case letters, digits and '-'"))]
    BadProvider(String),
    /// A parameter without `=`, or twice.
    #[error("parameter {0:?} is not name=value, or stands there twice")]
    BadParameter(String),
    /// `%` not followed by two hex digits, or bytes that are not UTF-8.
    #[error("{0:?} has a '%' that is not followed by two hex digits of UTF-8 (write %25 for a '%')")]
    BadEncoding(String),
    /// `#` with nothing behind it, or a pointer with a bad `~`.
    #[error("the key {0:?} behind '#' is empty or has a '~' that is neither ~0 nor ~1")]
    BadKey(String),
    /// White space or a control character.
    #[error("a reference has no white space or control characters (percent-encode them); character {0} is one")]
    Blank(usize),
}

/// Whether `name` can be a provider's name: a DNS label, since tokens and annotations are named after it.
#[must_use]
pub fn is_provider_name(name: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= 40
        && edge(bytes.first().copied())
        && edge(bytes.last().copied())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

impl From<ReferenceError> for ParseError {
    fn from(error: ReferenceError) -> Self {
        rule(error.to_string())
    }
}

// === impl Reference ===

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_blank = |c: char| c.is_whitespace() || c.is_control();
        if !text.bytes().all(|byte| byte.is_ascii_graphic())
            && let Some(at) = text.chars().position(is_blank)
        {
            return Err(ReferenceError::Blank(at + 1));
        }
        let (request, key) = match text.split_once('#') {
            Some((request, key)) => (request, Some(parse_key(key)?)),
            None => (text, None),
        };
        let (location, params) = match request.split_once('?') {
            Some((location, params)) => (location, parse_params(params)?),
            None => (request, BTreeMap::new()),
        };
        let (provider, path) = match location.split_once(':') {
            Some((name, path)) => (Some(parse_provider(name)?), path),
            None => (None, location),
        };
        let path = decode(path)?;
        if path.is_empty() {
            return Err(ReferenceError::EmptyPath);
        }
        Ok(Self { provider, path, params, key })
    }
}

fn parse_provider(name: &str) -> Result<String, ReferenceError> {
    match name {
        "arn" | "projects" | "https" | "http" => Err(ReferenceError::BareResourceName(name.to_owned())),
        name if is_provider_name(name) => Ok(name.to_owned()),
        name => Err(ReferenceError::BadProvider(name.to_owned())),
    }
}

fn parse_params(text: &str) -> Result<BTreeMap<String, String>, ReferenceError> {
    let mut params = BTreeMap::new();
    for pair in split_params(text) {
        let (name, value) = pair?;
        if params.contains_key(&name) {
            return Err(ReferenceError::BadParameter(name));
        }
        params.insert(name, decode(value)?);
    }
    Ok(params)
}

/// What stands behind `?`: each parameter's name, and its value as it is written.
pub(crate) fn split_params(text: &str) -> impl Iterator<Item = Result<(String, &str), ReferenceError>> {
    text.split('&').map(|pair| {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| ReferenceError::BadParameter(pair.to_owned()))?;
        Ok((decode(name)?, value))
    })
}

fn parse_key(text: &str) -> Result<Key, ReferenceError> {
    let bad = || ReferenceError::BadKey(text.to_owned());
    let text = &decode(text)?;
    match text.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(unescape).collect::<Option<_>>().map(Key::Pointer).ok_or_else(bad),
        None if text.is_empty() => Err(bad()),
        None => Ok(Key::Literal(text.clone())),
    }
}

/// RFC 6901: `~1` is `/`, `~0` is `~`, in this order.
fn unescape(token: &str) -> Option<String> {
    let stray = token.split('~').skip(1).any(|tail| !tail.starts_with(['0', '1']));
    (!stray).then(|| token.replace("~1", "/").replace("~0", "~"))
}

/// RFC 6901, the other way round.
pub(crate) fn escape(token: &str) -> Cow<'_, str> {
    if !token.contains(['~', '/']) {
        return Cow::Borrowed(token);
    }
    Cow::Owned(token.replace('~', "~0").replace('/', "~1"))
}

pub(crate) fn decode(text: &str) -> Result<String, ReferenceError> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let bad = || ReferenceError::BadEncoding(text.to_owned());
    // The crate leaves alone what is not encoded well.
    let is_encoded = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_encoded) {
        return Err(bad());
    }
    percent_decode_str(text).decode_utf8().map(Cow::into_owned).map_err(|_| bad())
}

/// Percent-encodes what would be split or refused if read again.
fn encode(f: &mut fmt::Formatter<'_>, text: &str, reserved: &[char]) -> fmt::Result {
    // Nearly every text is of these alone: the webhook writes references by the thousand.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%' && !reserved.contains(&char::from(byte));
    if text.bytes().all(is_plain) {
        return f.write_str(text);
    }
    let is_special = |c: char| c == '%' || c.is_whitespace() || c.is_control() || reserved.contains(&c);
    let mut rest = text;
    while let Some(at) = rest.find(is_special) {
        let (plain, special) = rest.split_at(at);
        f.write_str(plain)?;
        let length = special.chars().next().map_or(0, char::len_utf8);
        let (special, behind) = special.split_at(length);
        special.bytes().try_for_each(|b| write!(f, "%{b:02X}"))?;
        rest = behind;
    }
    f.write_str(rest)
}

pub(crate) fn write_key(f: &mut fmt::Formatter<'_>, key: Option<&Key>) -> fmt::Result {
    match key {
        None => Ok(()),
        Some(Key::Literal(key)) => {
            f.write_str("#")?;
            encode(f, key, &[])
        }
        Some(Key::Pointer(tokens)) => {
            f.write_str("#")?;
            tokens.iter().try_for_each(|token| {
                f.write_str("/")?;
                encode(f, &escape(token), &[])
            })
        }
    }
}

fn write_request(f: &mut fmt::Formatter<'_>, path: &str, params: &BTreeMap<String, String>, bare: bool) -> fmt::Result {
    // Without a provider before it, a ':' in the path would be taken for one.
    encode(f, path, if bare { &[':', '?', '#'] } else { &['?', '#'] })?;
    for (index, (name, value)) in params.iter().enumerate() {
        f.write_str(if index == 0 { "?" } else { "&" })?;
        encode(f, name, &['#', '&', '='])?;
        f.write_str("=")?;
        encode(f, value, &['#', '&'])?;
    }
    Ok(())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(provider) = &self.provider {
            write!(f, "{provider}:")?;
        }
        write_request(f, &self.path, &self.params, self.provider.is_none())?;
        write_key(f, self.key.as_ref())
    }
}

// === impl Request ===

impl Request {
    /// The pinned version, if there is one.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.params.get(VERSION_PARAM).map(String::as_str)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.provider)?;
        f.write_str(":")?;
        write_request(f, &self.path, &self.params, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn references_split_and_survive_a_round_trip() {
        let literal = |key: &str| Some(Key::Literal(key.to_owned()));
        let pointer = |tokens: &[&str]| Some(Key::Pointer(tokens.iter().map(|&t| t.to_owned()).collect()));
        for (text, provider, path, query, key) in [
            ("secret/data/db", None, "secret/data/db", params(&[]), None),
            ("vault:secret/data/db#password", Some("vault"), "secret/data/db", params(&[]), literal("password")),
            ("infisical:/inference#HF_TOKEN", Some("infisical"), "/inference", params(&[]), literal("HF_TOKEN")),
            (
                "aws:arn:aws:secretsmanager:eu-west-1:1:secret:prod/db-AbCdEf?version=AWSPREVIOUS#/db/password",
                Some("aws"),
                "arn:aws:secretsmanager:eu-west-1:1:secret:prod/db-AbCdEf",
                params(&[("version", "AWSPREVIOUS")]),
                pointer(&["db", "password"]),
            ),
            ("a?x=1%262&y=%3D#tls.crt", None, "a", params(&[("x", "1&2"), ("y", "=")]), literal("tls.crt")),
            ("vault:a%20b%3Fc#k#x?y", Some("vault"), "a b?c", params(&[]), literal("k#x?y")),
            ("vault:a#/x~1y/~0z/", Some("vault"), "a", params(&[]), pointer(&["x/y", "~z", ""])),
            ("a%3Ab", None, "a:b", params(&[]), None),
        ] {
            let parsed: Reference = text.parse().unwrap();
            assert_eq!(parsed.provider.as_deref(), provider, "{text}");
            assert_eq!(parsed.path, path, "{text}");
            assert_eq!(parsed.params, query, "{text}");
            assert_eq!(parsed.key, key, "{text}");
            assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed, "{text} shown as {parsed}");
        }
    }

    #[test]
    fn p9_bad_references_say_what_to_write() {
        for (text, part) in [
            ("", "path is empty"),
            ("vault:#x", "path is empty"),
            ("arn:aws:secretsmanager:eu-west-1:1:secret:db", "aws:arn:"),
            ("Vault:secret/x", "invalid provider name"),
            ("https://vault/v1/x", "provider's name"),
            ("a?version", "name=value"),
            ("a?v=1&v=2", "twice"),
            ("a%2", "%25"),
            ("a%2g", "%25"),
            ("a%%41", "%25"),
            ("a%ff", "UTF-8"),
            ("a#", "behind '#'"),
            ("a#/x~2", "~0"),
            ("a b", "white space"),
        ] {
            let message = text.parse::<Reference>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
