//! The YAML library's errors, in our own words.

use serde_saphyr::{Error, Location};

/// One sentence with the place, and nothing of what stands there: the library quotes it, and tells programmers which of
/// its options to set.
pub(super) fn sentence(error: &Error) -> String {
    let place = match error.location() {
        Some(at) if at != Location::UNKNOWN => format!(" at line {}, column {}", at.line(), at.column()),
        _ => String::new(),
    };
    let said = match error {
        Error::MultipleDocuments { .. } => return format!("has several YAML documents{place}: write one, without ---"),
        Error::DuplicateMappingKey { .. } => return format!("has the same key twice{place}: leave one of them out"),
        Error::UnknownAnchor { .. } | Error::AliasError { .. } => {
            return format!("has an alias{place} that stands for nothing: put quotes around a text that begins with *");
        }
        Error::Eof { .. } => "it ends where something is expected",
        _ => "look there for a quote or bracket that is missing, for a tab, and at the indentation",
    };
    format!("is not YAML{place}: {said}")
}
