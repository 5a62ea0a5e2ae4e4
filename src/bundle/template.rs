//! Checks of templates where their author sees the answer, before anything of them runs: every name that the text alone
//! decides, and that what a template builds stays as small as its text and its secrets.
//!
//! minijinja's fuel counts what is computed, but not what is copied when a list of lists of lists is written out, and
//! that doubles with each level. So lists that a template makes hold values and parts of secrets, and other lists only
//! where they are written as one literal.

use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;

use self::checker::Checker;
use self::names::{CONSTANTS, FILTERS};
use self::problem::syntax;
use self::tokens::check_tokens;
use crate::parse_error::{ParseError, rule};

mod checker;
mod go;
mod names;
mod problem;
mod tokens;

pub use self::checker::{DYNAMIC, Mention};

/// Most bytes of one template: half of what minijinja's lexer counts columns with, beyond which it panics.
pub const MAX_TEMPLATE_BYTES: usize = 32 * 1024;

/// Checks `text`. `names` are what its `from` calls its secrets, if it has names; `None` if a store decides.
///
/// # Errors
/// One sentence: the line, what is unknown or refused, and what to write.
pub fn check(text: &str, names: Option<&[&str]>) -> Result<(), ParseError> {
    let length = text.len();
    if length > MAX_TEMPLATE_BYTES {
        return Err(rule(format!("a template has at most {MAX_TEMPLATE_BYTES} bytes, and this one has {length}")));
    }
    if let Some(name) = names.unwrap_or_default().iter().find(|name| CONSTANTS.contains(name)) {
        return Err(rule(format!(
            "{name:?} is a constant of templates, not what its from calls so: take another name"
        )));
    }
    check_tokens(text, names.and_then(|names| names.first().copied()))?;
    let template = parse(text, "template", SyntaxConfig::default()).map_err(|error| syntax(&error))?;
    let mut checker = Checker::default();
    checker.template(&template)?;
    if let Some(names) = names {
        checker.check_names(names)?;
    }
    // What the compiler alone knows.
    minijinja::Environment::new().template_from_str(text).map(drop).map_err(|error| syntax(&error))
}

/// The names of all filters.
pub fn filters() -> impl Iterator<Item = &'static str> {
    FILTERS.iter().map(|(name, _)| *name)
}

/// What a template that [`check`] accepts asks for, in the order in which it stands there.
#[must_use]
pub fn mentions(text: &str) -> Vec<Mention> {
    let mut checker = Checker::default();
    if let Ok(template) = parse(text, "template", SyntaxConfig::default()) {
        // What was found before a problem is still of use.
        drop(checker.template(&template));
    }
    for mention in &mut checker.mentions {
        mention.is_local = mention.path.first().is_some_and(|name| checker.kinds.contains_key(name.as_str()));
    }
    checker.mentions
}

#[cfg(test)]
pub(crate) mod tests;
