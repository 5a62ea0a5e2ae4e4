//! What is wrong with a template, in one sentence, and what to write instead.

use minijinja::machinery::Span;
use minijinja::{Error, ErrorKind};

use super::names::{FILTERS, FUNCTIONS, TESTS, effect, elsewhere};
use crate::parse_error::{ParseError, rule};
use crate::sentence::suggestion;

pub(super) fn syntax(error: &Error) -> ParseError {
    let line = error.line().map_or_else(String::new, |line| format!("line {line}: "));
    let detail = match error.kind() {
        ErrorKind::SyntaxError => error.detail().unwrap_or("is not a template"),
        _ => "is not a template",
    };
    rule(format!("{line}{detail}"))
}

pub(super) fn at(span: Span, problem: &str) -> ParseError {
    rule(format!("line {}: {problem}", span.start_line))
}

pub(super) fn unknown_filter(name: &str) -> String {
    let names: Vec<_> = FILTERS.iter().map(|(name, _)| *name).collect();
    let instead = elsewhere(name).map(|ours| format!("; write {ours}"));
    format!("unknown filter {name:?}{}", instead.unwrap_or_else(|| suggestion(name, &names)))
}

pub(super) fn unknown_test(name: &str) -> String {
    format!("unknown test {name:?}{}", suggestion(name, &TESTS))
}

pub(super) fn unknown_function(name: &str) -> String {
    let filter = effect(name).map(|_| format!("; write value | {name}"));
    let instead = filter.or_else(|| elsewhere(name).map(|ours| format!("; write value {ours}")));
    format!("unknown function {name:?}{}", instead.unwrap_or_else(|| suggestion(name, &FUNCTIONS)))
}

pub(super) fn unknown_method(name: &str) -> String {
    let names: Vec<_> = FILTERS.iter().map(|(name, _)| *name).collect();
    let instead = match (effect(name), elsewhere(name)) {
        (Some(_), _) => format!("; write | {name}"),
        (None, Some(ours)) => format!("; write {ours}"),
        (None, None) => suggestion(name, &names),
    };
    format!("unknown method {name:?}: values have none, but filters{instead}")
}
