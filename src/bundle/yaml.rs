//! YAML as text becomes values, with errors in our own words.

use serde_json::Value;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Location};

use crate::parse_error::{ParseError, rule};

/// Most values and keys of the YAML in an annotation.
pub const MAX_YAML_NODES: usize = 10_000;

/// Reads one YAML document. `y` and `no` are text, as in YAML 1.2: a file may be called so.
///
/// # Errors
/// One sentence in our own words, with the place and nothing of what stands there.
pub fn parse_yaml(text: &str) -> Result<Value, ParseError> {
    parse_with(text, serde_saphyr::options! { strict_booleans: true, with_snippet: false })
}

/// Reads every document of a file of Kubernetes objects; empty ones are left out.
///
/// # Errors
/// As [`parse_yaml`].
pub fn parse_yaml_documents(text: &str) -> Result<Vec<Value>, ParseError> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| rule(sentence(&error)))
}

/// Reads the YAML of an annotation, which has no anchors: a few aliases of aliases would be gigabytes.
///
/// # Errors
/// As [`parse_yaml`]; also for an anchor, and for more than [`MAX_YAML_NODES`] values.
pub fn parse_annotation(text: &str) -> Result<Value, ParseError> {
    let budget = serde_saphyr::budget! { max_aliases: 0, max_anchors: 0, max_merge_keys: 0, max_nodes: MAX_YAML_NODES };
    parse_with(text, serde_saphyr::options! { strict_booleans: true, with_snippet: false, budget: budget })
}

fn parse_with(text: &str, options: serde_saphyr::Options) -> Result<Value, ParseError> {
    let problem = |error| match error {
        serde_saphyr::Error::Budget {
            breach: BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. },
            location,
        } => {
            format!(
                "line {}: has an anchor or alias, which begin with & and *: write out what they stand for, or put quotes \
                 around a text",
                location.line()
            )
        }
        serde_saphyr::Error::Budget { breach: BudgetBreach::Nodes { .. }, .. } => {
            format!("has more than {MAX_YAML_NODES} values: take directories instead of many files")
        }
        error => sentence(&error),
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| rule(problem(error)))
}

/// One sentence with the place, and nothing of what stands there: the library quotes it, and tells programmers which of
/// its options to set.
fn sentence(error: &Error) -> String {
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
