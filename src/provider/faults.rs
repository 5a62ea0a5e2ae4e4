//! What is wrong with a store's settings: all of it at once, each with the field that it is about.

use crate::parse_error::{ParseError, rule};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsFault {
    /// The field, as `auth.mount`.
    pub field: String,
    /// What is wrong with it, in one sentence.
    pub problem: ParseError,
    /// Other fields without which nobody can tell.
    pub others: &'static [&'static str],
    /// Whether the field is not there: it may be there by a name that is misspelt.
    pub is_missing: bool,
}

/// All that was found so far.
#[derive(Debug, Default)]
pub struct SettingsFaults(Vec<SettingsFault>);

// === impl SettingsFaults ===

impl SettingsFaults {
    /// What is wrong with one field by itself, if anything is.
    pub fn of(&mut self, field: &str, outcome: Result<(), ParseError>) {
        if let Err(problem) = outcome {
            self.together(field, &[], problem);
        }
    }

    /// A field that does not go with others.
    pub fn together(&mut self, field: &str, others: &'static [&'static str], problem: ParseError) {
        self.0.push(SettingsFault { field: field.to_owned(), problem, others, is_missing: false });
    }

    /// A field that must be there, given what the others are; `sentence` begins behind `is missing: `.
    pub fn missing(&mut self, field: &str, others: &'static [&'static str], sentence: &str) {
        let problem = rule(format!("is missing: {sentence}"));
        self.0.push(SettingsFault { field: field.to_owned(), problem, others, is_missing: true });
    }

    /// Those that `find` finds, below a field.
    pub fn below(&mut self, field: &str, find: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        find(&mut inner);
        self.0.extend(
            inner.0.into_iter().map(|fault| SettingsFault { field: format!("{field}.{}", fault.field), ..fault }),
        );
    }

    /// The first sentence, with its field.
    ///
    /// # Errors
    /// That sentence.
    pub fn first(self) -> Result<(), ParseError> {
        self.0.into_iter().next().map_or(Ok(()), |fault| Err(fault.problem.at(&fault.field)))
    }
}

impl IntoIterator for SettingsFaults {
    type Item = SettingsFault;
    type IntoIter = std::vec::IntoIter<SettingsFault>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
