//! Sentences about what went wrong, for two kinds of readers.
//!
//! A termination message ends up in etcd, where all who may see the pod read it: names that only a store knows (its
//! keys) stay out of it. Logs tell them, escaped and cut. What the tenant wrote may be told everywhere; a value
//! nowhere.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Deref;

use crate::steps;

/// Most characters of one name that only a store knows.
const SHOWN_CHARACTERS: usize = 64;
/// Most names before the rest is an ellipsis.
pub(crate) const SHOWN_NAMES: usize = 8;

/// Most pairs of letters that are compared for one suggestion.
const MAX_COMPARED: usize = 1 << 17;
/// Most bytes of the known words that a sentence lists.
const MAX_LIST_BYTES: usize = 1000;
/// What is longer is not a misspelt name: as Kubernetes has it for its own.
const MAX_COMPARED_WORD: usize = 253;

/// One sentence in our own words. It dereferences to what logs say; [`Sentence::public`] is what a termination message
/// may say. It is not a `Display`, so `format!` does not make the one into the other unseen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence(Box<Words>);

/// Errors are passed up by value: they are to be small.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Words {
    log: String,
    /// `None` where both are the same.
    public: Option<String>,
}

impl Sentence {
    /// A sentence that names what only a store knows (with [`store_name`] and [`store_names`]), and the same without.
    #[must_use]
    pub fn hiding(log: impl Into<String>, public: impl Into<String>) -> Self {
        Self(Box::new(Words { log: log.into(), public: Some(public.into()) }))
    }

    /// The same behind `words`, which may be told everywhere.
    #[must_use]
    pub fn behind(self, words: &str) -> Self {
        let Words { log, public } = *self.0;
        let public = public.map(|public| format!("{words}{public}"));
        Self(Box::new(Words { log: format!("{words}{log}"), public }))
    }

    /// The same before `words`, which may be told everywhere.
    #[must_use]
    pub fn before(self, words: &str) -> Self {
        let Words { log, public } = *self.0;
        let public = public.map(|public| format!("{public}{words}"));
        Self(Box::new(Words { log: format!("{log}{words}"), public }))
    }

    /// For readers of the pod's status: without a name that only a store knows.
    #[must_use]
    pub fn public(&self) -> &str {
        self.0.public.as_deref().unwrap_or(&self.0.log)
    }
}

impl Deref for Sentence {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.log
    }
}

impl From<String> for Sentence {
    fn from(text: String) -> Self {
        Self(Box::new(Words { log: text, public: None }))
    }
}

impl From<&str> for Sentence {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

/// A name that only a store knows, as logs show it: quoted, escaped and cut.
#[must_use]
pub fn store_name(name: &str) -> String {
    let mut shown: String = name.chars().take(SHOWN_CHARACTERS).collect();
    let is_cut = shown.len() < name.len();
    shown = format!("{shown:?}");
    if is_cut {
        shown.push('…');
    }
    shown
}

/// Names that only a store knows, as logs show them: a few.
#[must_use]
pub fn store_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut shown = String::new();
    for (index, name) in names.into_iter().enumerate() {
        if index == SHOWN_NAMES {
            shown.push_str(", …");
            break;
        }
        let comma = if index == 0 { "" } else { ", " };
        // A name that could be taken for something else is quoted.
        let is_plain = name.len() <= SHOWN_CHARACTERS
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/'));
        let name = if is_plain { name.to_owned() } else { store_name(name) };
        // A `String` takes everything.
        let _ = write!(shown, "{comma}{name}");
    }
    shown
}

/// A text of at most so many bytes: of a longer one the beginning, which ends in `…`.
#[must_use]
pub fn fitting(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(most - '…'.len_utf8());
    let mut cut = text.get(..end).unwrap_or_default().to_owned();
    cut.push('…');
    Cow::Owned(cut)
}

/// A message on one line, as logs and events want it: it may quote what has line ends.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// The known word that `word` may be a misspelling of.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Comparing takes as many steps as both have letters, multiplied.
    let mut room = MAX_COMPARED;
    let most = |candidate: &str| 1.max(candidate.len() / 3);
    let is_like = |candidate: &&&str| word.len().abs_diff(candidate.len()) <= most(candidate);
    let found = known
        .iter()
        .filter(|candidate| word.len().max(candidate.len()) <= MAX_COMPARED_WORD)
        .filter(is_like)
        .map_while(|candidate| {
            room = room.checked_sub(word.len() * candidate.len())?;
            Some((strsim::damerau_levenshtein(word, candidate), candidate))
        })
        .min()
        .filter(|(distance, candidate)| *distance <= most(candidate));
    steps::spend(known.len() + (MAX_COMPARED - room) / 64);
    found.map(|(_, candidate)| *candidate)
}

/// `; did you mean X?` for the known word nearest to `word`, else `: expected one of` all.
#[must_use]
pub fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(candidate) => format!("; did you mean {candidate:?}?"),
        None if known.is_empty() => ": there is none".to_owned(),
        None if known.len() == 1 => format!(": expected {}", list(known)),
        None => format!(": expected one of {}", list(known)),
    }
}

/// So many of something that has its plural with an s: `1 pod`, `2 pods`.
#[must_use]
pub fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// The same with what they do: `1 pod has`, `2 pods have`.
#[must_use]
pub fn counted_with(count: usize, one: &str, does: &str, they_do: &str) -> String {
    format!("{} {}", counted(count, one), if count == 1 { does } else { they_do })
}

/// Words with commas between them; of many, the first.
#[must_use]
pub fn list(words: &[&str]) -> String {
    let mut room = MAX_LIST_BYTES;
    let fits = |word: &&&str| {
        room = room.saturating_sub(word.len() + 2);
        room > 0
    };
    let mut shown: Vec<_> = words.iter().take_while(fits).copied().collect();
    if shown.len() < words.len() {
        shown.push("…");
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_names_of_a_store_are_for_logs_escaped_and_cut() {
        let long = "é".repeat(100);
        for (name, shown) in [
            ("KEY", "\"KEY\"".to_owned()),
            ("a\nb\u{202e}c\"", "\"a\\nb\\u{202e}c\\\"\"".to_owned()),
            (long.as_str(), format!("\"{}\"…", "é".repeat(64))),
        ] {
            assert_eq!(store_name(name), shown);
        }
        assert_eq!(store_names(["a", "b c", ""]), "a, \"b c\", \"\"");
        assert_eq!(store_names((0..20).map(|_| "x")), "x, x, x, x, x, x, x, x, …");
        let sentence = Sentence::hiding("key KEY is bad", "a key is bad").behind("file a: ");
        assert_eq!(&*sentence, "file a: key KEY is bad");
        assert_eq!(sentence.public(), "file a: a key is bad");
        assert_eq!(Sentence::from("x").behind("a ").public(), "a x");
        let sentence = sentence.before(" (ask)");
        assert_eq!((&*sentence, sentence.public()), ("file a: key KEY is bad (ask)", "file a: a key is bad (ask)"));
    }
}
