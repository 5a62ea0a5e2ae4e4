//! Why a text is not what it should be: the one wording of everything that reads what a person wrote.

use std::borrow::Cow;

use crate::sentence::{Sentence, suggestion};
use crate::steps::OverBudget;

/// What was read, and what would be accepted. What was read is quoted and escaped here; who shows it bounds it, as the
/// text that it was read from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A text of another form.
    #[error("invalid {what} {got:?}: expected {expected}")]
    Invalid {
        /// What it was to be.
        what: &'static str,
        /// What stands there.
        got: String,
        /// What would be accepted.
        expected: Cow<'static, str>,
    },
    /// A word that is not one of those that are known.
    #[error("unknown {what} {got:?}{instead}")]
    Unknown {
        /// What it was to be.
        what: &'static str,
        /// What stands there.
        got: String,
        /// As [`suggestion`] has it.
        instead: String,
    },
    /// What has the form and breaks a rule: one sentence that says which.
    #[error("{0}")]
    Rule(Cow<'static, str>),
}

/// `invalid what "got": expected …`
pub fn invalid(what: &'static str, got: &str, expected: impl Into<Cow<'static, str>>) -> ParseError {
    ParseError::Invalid { what, got: got.to_owned(), expected: expected.into() }
}

/// `unknown what "got"`, with the nearest of the known words, or all.
#[must_use]
pub fn unknown(what: &'static str, got: &str, known: &[&str]) -> ParseError {
    ParseError::Unknown { what, got: got.to_owned(), instead: suggestion(got, known) }
}

/// One sentence that says which rule is broken, and what to do.
pub fn rule(sentence: impl Into<Cow<'static, str>>) -> ParseError {
    ParseError::Rule(sentence.into())
}

// === impl ParseError ===

impl ParseError {
    /// The same with the field's name before it.
    #[must_use]
    pub fn at(self, field: &str) -> Self {
        rule(format!("{field}: {self}"))
    }
}

impl From<OverBudget> for ParseError {
    fn from(spent: OverBudget) -> Self {
        rule(spent.to_string())
    }
}

impl From<ParseError> for String {
    fn from(error: ParseError) -> Self {
        error.to_string()
    }
}

impl From<ParseError> for Sentence {
    fn from(error: ParseError) -> Self {
        error.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p9_errors_quote_what_they_read_and_say_what_to_write() {
        for (error, sentence) in [
            (invalid("size", "1\n\"KB", "1Ki"), r#"invalid size "1\n\"KB": expected 1Ki"#),
            (unknown("mode", "inti", &["init", "csi"]), r#"unknown mode "inti"; did you mean "init"?"#),
            (invalid("size", "", "1Ki").at("limit"), r#"limit: invalid size "": expected 1Ki"#),
            (rule("0 is root: expected another id"), "0 is root: expected another id"),
        ] {
            assert_eq!(error.to_string(), sentence);
            assert_eq!(String::from(error), sentence);
        }
    }
}
