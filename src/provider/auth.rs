//! What providers share about logging in: where the proof of identity comes from, and what is done with a token.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use zeroize::Zeroizing;

use super::faults::SettingsFaults;
use super::interface::{ErrorKind, Login, ProviderError, TokenSource};
use crate::parse_error::rule;
use crate::secret::SecretValue;

pub mod oauth;
pub mod tool;

/// The field that says how to log in.
pub const METHOD: &str = "auth.method";

/// No token or key is longer; a file that is was meant for something else.
const MAX_BYTES: u64 = 64 * 1024;

/// The pod's projected service-account token. Ask for it at each login: kubelet replaces it long before it expires.
///
/// # Errors
/// `Invalid` if there is no file, `Unavailable` if it cannot be read now, or if kubelet has yet to send one. The message
/// names the file.
pub fn projected_token(source: &TokenSource) -> Result<SecretValue, ProviderError> {
    match source {
        TokenSource::File(file) => read(file, "service-account token", "is the token volume mounted?"),
        TokenSource::Channel(latest) => latest.borrow().clone().ok_or_else(|| {
            ProviderError::new(
                ErrorKind::Unavailable,
                "service-account token: waiting for kubelet, which sends one with each call, about once a minute",
            )
        }),
    }
}

/// What shows who we are: the operator's file, else the pod's projected token.
///
/// # Errors
/// As [`projected_token`].
pub fn proof(login: &Login, file: Option<&Path>) -> Result<SecretValue, ProviderError> {
    match file {
        Some(file) => secret_file(file, "JWT"),
        None => projected_token(&login.token),
    }
}

/// A secret that lies in a file on a person's machine or in a CI job; `what` says which.
///
/// # Errors
/// As [`projected_token`].
pub fn secret_file(file: &Path, what: &str) -> Result<SecretValue, ProviderError> {
    read(file, what, "check the path in the provider's settings")
}

/// A file below the home directory that command-line tools leave their token in, if it exists and is not empty.
///
/// # Errors
/// `Unavailable` if it exists and cannot be read.
pub fn home_file(name: &str, what: &str) -> Result<Option<SecretValue>, ProviderError> {
    let Some(file) = std::env::home_dir().map(|home| home.join(name)) else { return Ok(None) };
    match read(&file, what, "") {
        Ok(secret) => Ok(Some(secret)),
        Err(error) if error.kind == ErrorKind::Invalid => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a command-line tool keeps its settings: what the variable says, else this directory below the home directory.
#[must_use]
pub fn settings_directory(variable: &str, usual: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|named| !named.is_empty()).map(PathBuf::from);
    named.or_else(|| std::env::home_dir().map(|home| home.join(usual)))
}

/// A secret in an environment variable, if it is set and not empty.
#[must_use]
pub fn environment(name: &str) -> Option<SecretValue> {
    let value = Zeroizing::new(std::env::var(name).ok()?);
    let trimmed = value.trim();
    (!trimmed.is_empty()).then(|| trimmed.into())
}

/// A secret as text.
///
/// # Errors
/// `Invalid` if it is not one; `what` names it.
pub fn text<'a>(secret: &'a SecretValue, what: &str) -> Result<&'a str, ProviderError> {
    secret.expose_str().ok_or_else(|| ProviderError::new(ErrorKind::Invalid, format!("{what} is not text")))
}

/// Finds fields of `auth` that are set and of no use to the method: `(field, is set, is of use)`.
pub fn check_fields(method: impl fmt::Display, fields: &[(&str, bool, bool)], faults: &mut SettingsFaults) {
    for (field, ..) in fields.iter().filter(|(_, is_set, is_of_use)| *is_set && !is_of_use) {
        let problem = rule(format!("is of no use to method {method}"));
        faults.together(&format!("auth.{field}"), &[METHOD], problem);
    }
}

fn read(file: &Path, what: &str, hint: &str) -> Result<SecretValue, ProviderError> {
    let invalid =
        |problem: &str| ProviderError::new(ErrorKind::Invalid, format!("{what}: {} {problem}: {hint}", file.display()));
    let unavailable = |error: &io::Error| {
        let problem = error.kind();
        ProviderError::new(ErrorKind::Unavailable, format!("{what}: {} cannot be read: {problem}", file.display()))
    };
    let size = match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(invalid("is not a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(invalid("does not exist")),
        Err(error) => return Err(unavailable(&error)),
    };
    if size > MAX_BYTES {
        return Err(invalid("is too large to be one"));
    }
    let bytes = Zeroizing::new(std::fs::read(file).map_err(|error| unavailable(&error))?);
    match bytes.trim_ascii() {
        [] => Err(invalid("is empty")),
        trimmed => Ok(SecretValue::new(trimmed.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_trimmed_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "  canary\n").unwrap();
        assert_eq!(projected_token(&file.as_path().into()).unwrap(), "canary".into());
        for (content, part) in [(Some(" \n"), "is empty"), (None, "does not exist")] {
            match content {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            let error = projected_token(&file.as_path().into()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.message.contains(part) && error.message.contains("token volume"), "{error}");
        }
        let error = secret_file(dir.path(), "role id").unwrap_err();
        assert!(error.message.starts_with("role id: ") && error.message.contains("is not a file"), "{error}");
    }

    #[test]
    fn a_channel_has_the_latest_token_or_is_waited_for() {
        let (sender, latest) = tokio::sync::watch::channel(None);
        let source = TokenSource::Channel(latest);
        let error = projected_token(&source).unwrap_err();
        assert!(error.kind == ErrorKind::Unavailable && error.message.contains("kubelet"), "{error}");
        for token in ["first", "second"] {
            sender.send_replace(Some(token.into()));
            assert_eq!(projected_token(&source).unwrap(), token.into());
        }
    }

    #[test]
    fn a_huge_file_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, vec![b'x'; 70_000]).unwrap();
        assert!(projected_token(&file.as_path().into()).unwrap_err().message.contains("too large"));
    }
}
