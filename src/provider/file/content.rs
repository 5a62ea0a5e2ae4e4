//! What is in a file: its format, by its name, and whether it is encrypted, by its name and by what it says.

use super::keys::{AgeKeys, Sealed, is_age};
use super::sops;
use crate::dotenv;
use crate::provider::{ErrorKind, ProviderError};
use crate::secret::{SecretTree, SecretValue};

/// Formats of documents.
#[derive(Clone, Copy)]
enum TextFormat {
    Json,
    Yaml,
    Dotenv,
}

/// What the name of an age file ends in.
const AGE: &str = ".age";

/// Whether a file is read as a document, by what its name ends in.
pub(super) fn is_document(path: &str) -> bool {
    format_of(plain_name(path)).is_some()
}

/// A file's name without what says that it is encrypted.
pub(super) fn plain_name(path: &str) -> &str {
    path.strip_suffix(AGE).filter(|name| !name.is_empty() && !name.ends_with('/')).unwrap_or(path)
}

/// A file that was asked for by itself: a document, or one value.
pub(super) fn file(path: &str, bytes: SecretValue, keys: &AgeKeys) -> Result<SecretTree, ProviderError> {
    let bytes = opened(path, bytes, keys)?;
    match format_of(plain_name(path)) {
        Some(format) => document(path, format, &bytes, keys),
        None => value(path, bytes, keys),
    }
}

/// A file among others of a directory: one value. Documents are documents only if they are encrypted.
pub(super) fn entry(path: &str, bytes: SecretValue, keys: &AgeKeys) -> Result<SecretTree, ProviderError> {
    let bytes = opened(path, bytes, keys)?;
    let Some(format) = format_of(plain_name(path)) else { return value(path, bytes, keys) };
    match bytes.expose_str().filter(|text| sops::has_encrypted_values(text)) {
        Some(_) => document(path, format, &bytes, keys),
        None => Ok(bytes.into()),
    }
}

/// What is in an age file, and any other file as it is.
fn opened(path: &str, bytes: SecretValue, keys: &AgeKeys) -> Result<SecretValue, ProviderError> {
    let error = |kind, problem: &str| ProviderError::new(kind, format!("{path}: {problem}"));
    if !is_age(bytes.expose()) {
        // It may be half of a write, and is put right by the next one.
        let is_named = path.ends_with(AGE);
        return if is_named { Err(error(ErrorKind::Unavailable, "is not an age file")) } else { Ok(bytes) };
    }
    keys.open(bytes.expose()).map_err(|sealed| match sealed {
        Sealed::Keys(ProviderError { kind, message }) => ProviderError::new(kind, message.behind(&format!("{path}: "))),
        Sealed::NotForUs => error(
            ErrorKind::Invalid,
            "is not encrypted to the provider's age identity: encrypt it to that recipient, too (age -r age1…)",
        ),
        Sealed::Broken(problem) => error(ErrorKind::Invalid, problem),
    })
}

/// By what a file's name ends in.
fn format_of(path: &str) -> Option<TextFormat> {
    match path.rsplit('/').next()?.rsplit_once('.')?.1 {
        "json" => Some(TextFormat::Json),
        "yaml" | "yml" => Some(TextFormat::Yaml),
        "env" => Some(TextFormat::Dotenv),
        _ => None,
    }
}

/// A file whose name is not a document's. SOPS wraps such a file into JSON.
fn value(path: &str, bytes: SecretValue, keys: &AgeKeys) -> Result<SecretTree, ProviderError> {
    let Some(text) = bytes.expose_str().filter(|text| sops::has_encrypted_values(text)) else {
        return Ok(bytes.into());
    };
    if SecretTree::from_json(text.as_bytes()).is_ok_and(|tree| sops::is_sops(&tree)) {
        return sops::decrypt(path, sops::SopsFormat::Binary, text, keys);
    }
    let problem = "has values that sops encrypted, in a format that cannot be read here: use YAML, JSON, dotenv or binary \
                   (and let the name end in .yaml, .json or .env)";
    Err(ProviderError::new(ErrorKind::Invalid, format!("{path}: {problem}")))
}

/// What cannot be parsed is unavailable and not invalid: it may be half of a write, and is put right by the next one.
fn document(path: &str, format: TextFormat, bytes: &SecretValue, keys: &AgeKeys) -> Result<SecretTree, ProviderError> {
    let bad = |kind, problem: &str| ProviderError::new(kind, format!("{path}: {problem}"));
    let encrypted = match format {
        TextFormat::Json => sops::SopsFormat::Json,
        TextFormat::Yaml => sops::SopsFormat::Yaml,
        TextFormat::Dotenv => sops::SopsFormat::Dotenv,
    };
    let text = bytes.expose_str().filter(|text| {
        sops::has_encrypted_values(text) || (matches!(format, TextFormat::Dotenv) && sops::is_sops_dotenv(text))
    });
    if let Some(text) = text {
        return sops::decrypt(path, encrypted, text, keys);
    }
    let tree = match format {
        TextFormat::Json => SecretTree::from_json(bytes.expose()),
        TextFormat::Yaml => SecretTree::from_yaml(bytes.expose()),
        TextFormat::Dotenv => return dotenv(bytes).map_err(|error| bad(error.kind, &error.message)),
    };
    let tree = tree.map_err(|error| {
        let kind = if error.is_malformed() { ErrorKind::Unavailable } else { ErrorKind::Invalid };
        bad(kind, &error.to_string())
    })?;
    match (tree, bytes.expose_str()) {
        (tree, Some(text)) if sops::is_sops(&tree) => sops::decrypt(path, encrypted, text, keys),
        (tree @ (SecretTree::Map(_) | SecretTree::List(_)), _) => Ok(tree),
        // Half of a YAML document often is one, of a single word or none.
        _ => Err(bad(ErrorKind::Unavailable, "is a single value, not a document with keys")),
    }
}

fn dotenv(bytes: &SecretValue) -> Result<SecretTree, ProviderError> {
    let entries = dotenv::parse(bytes.expose()).map_err(|error| {
        let kind = if error.is_malformed() { ErrorKind::Unavailable } else { ErrorKind::Invalid };
        ProviderError::new(kind, error.to_string())
    })?;
    Ok(SecretTree::Map(entries.into_iter().map(|(key, value)| (key, value.into())).collect()))
}
