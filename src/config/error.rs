//! What is wrong with the operator's configuration, and where.

use std::fmt;
use std::path::Path;

use crate::parse_error::ParseError;
use crate::sentence::one_line;

/// A configuration that cannot be used: where, and what would be. Says no scalar of the file, which may be another than
/// was meant: a token, say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration{place}: {problem}")]
pub struct ConfigError {
    pub(super) place: String,
    pub(super) problem: String,
    /// The field that should not be at the place.
    pub(super) field: Option<String>,
}

/// One thing that is wrong with a file, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Counted from 1; 0 if nobody knows.
    pub line: u64,
    /// In characters, counted from 1; 0 if nobody knows.
    pub column: u64,
    /// What is wrong.
    pub error: ConfigError,
}

/// All that is wrong with a file, in its order: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults(pub Vec<ConfigFault>);

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<ConfigError>);

/// Faults of one file that are told: of a file that was given by mistake, no more is read.
pub(super) const MOST: usize = 100;

// === impl ConfigError ===

impl ConfigError {
    /// The field, as `.providers.vault.address`; empty for the file itself.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong with it, in one sentence.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    pub(super) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: one_line(&place.into()), problem: one_line(&problem.into()), field: None }
    }

    /// What is wrong with a field, told by what reads its value.
    pub(super) fn at(place: &str) -> impl FnOnce(ParseError) -> Self {
        move |problem| Self::new(place, problem)
    }

    /// Whether it is about this field, a field of it, or one that it is a field of.
    pub(super) fn is_about(&self, place: &str) -> bool {
        let is_in = |deep: &str, high: &str| {
            deep.strip_prefix(high).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        // An unknown field is about itself alone.
        let is_place = self.field.is_none() && !self.place.is_empty();
        is_place && (is_in(&self.place, place) || is_in(place, &self.place))
    }

    /// The same in fields that stand below `place`.
    pub(super) fn below(mut self, place: &str) -> Self {
        self.place.insert_str(0, &one_line(place));
        self
    }

    /// The same of a field that should not be at the place, or deeper.
    pub(super) fn of(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }
}

// === impl ConfigFault ===

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, error } = self;
        write!(f, "{line}:{column}: {error}")
    }
}

// === impl ConfigFaults ===

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl ConfigFaults {
    /// A line for each, with the file before it, as compilers write it.
    #[must_use]
    pub fn of_file(&self, path: &Path) -> String {
        let lines: Vec<_> = self.0.iter().map(|fault| format!("{}:{fault}", path.display())).collect();
        lines.join("\n")
    }
}

impl std::error::Error for ConfigFaults {}

// === impl Faults ===

impl Faults {
    pub(super) fn push(&mut self, error: ConfigError) {
        if !self.are_many() {
            self.0.push(error);
        }
    }

    /// What is good of it.
    pub(super) fn take<T>(&mut self, outcome: Result<T, ConfigError>) -> Option<T> {
        outcome.map_err(|error| self.push(error)).ok()
    }

    /// What is good of each item of a list, whose faults are all told; `None` if one is bad.
    pub(super) fn take_each<T, U>(
        &mut self,
        field: &str,
        items: Vec<T>,
        read: impl Fn(T) -> Result<U, ParseError>,
    ) -> Option<Vec<U>> {
        let read = items
            .into_iter()
            .enumerate()
            .map(|(index, item)| self.take(read(item).map_err(ConfigError::at(&format!("{field}[{index}]")))));
        let read: Vec<_> = read.collect();
        read.into_iter().collect()
    }

    /// Those that `find` finds, below a place.
    pub(super) fn below<T>(&mut self, place: &str, find: impl FnOnce(&mut Self) -> T) -> T {
        let mut inner = Self::default();
        let found = find(&mut inner);
        for error in inner.0 {
            self.push(error.below(place));
        }
        found
    }

    /// What is good of each item of a list, which `read` reads below its place.
    pub(super) fn below_each<T, U>(
        &mut self,
        field: &str,
        items: impl IntoIterator<Item = T>,
        read: impl Fn(T, &mut Self) -> Option<U>,
    ) -> Vec<U> {
        let items = items.into_iter().enumerate();
        items
            .filter_map(|(index, item)| self.below(&format!("{field}[{index}]"), |faults| read(item, faults)))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no more are taken.
    pub(super) fn are_many(&self) -> bool {
        self.0.len() >= MOST
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.0
    }
}
