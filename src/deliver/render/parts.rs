//! What an item's references came to: looked up in a generation, merged, or by name.

use std::collections::BTreeMap;

use super::format::Entries;
use crate::generation::Generation;
use crate::plan::{PlannedFrom, PlannedItem, PlannedReference};
use crate::reference::Key;
use crate::secret::{LookupError, SecretTree};
use crate::sentence::Sentence;

/// One part of an answer, with the words that errors name it by.
pub(super) struct Part<'a> {
    pub(super) take: &'a PlannedReference,
    pub(super) tree: SecretTree,
}

/// What an item's references came to.
pub(super) enum Parts<'a> {
    One(Part<'a>),
    Merge(Vec<Part<'a>>),
    Named(BTreeMap<&'a str, Part<'a>>),
}

// === impl PlannedReference ===

impl PlannedReference {
    /// The last name in the key: what a single value is called where names are needed.
    fn name(&self) -> Option<&str> {
        match self.key.as_ref()? {
            Key::Literal(key) => Some(key),
            Key::Pointer(tokens) => tokens.last().map(String::as_str),
        }
    }
}

// === impl Part ===

impl<'a> Part<'a> {
    /// `None` if the secret is missing and the item can do without.
    fn look_up(take: &'a PlannedReference, generation: &Generation, optional: bool) -> Result<Option<Self>, Sentence> {
        let Some(answer) = generation.answers.get(&take.request) else {
            return if optional { Ok(None) } else { Err(format!("{take} has no answer").into()) };
        };
        let found = match &take.key {
            None => Ok((**answer).clone()),
            Some(Key::Literal(key)) => answer.key(key),
            Some(Key::Pointer(tokens)) => answer.pointer(tokens),
        };
        match found {
            Ok(tree) => Ok(Some(Self { take, tree })),
            Err(LookupError::NoKey { .. }) if optional => Ok(None),
            Err(problem) => Err(problem.sentence().behind(&format!("{take}: "))),
        }
    }

    /// The tree; a whole answer whose text is itself a document is that document, since stores keep them so. Text that
    /// is not a document is a value.
    fn whole(self) -> Result<SecretTree, Sentence> {
        match &self.tree {
            SecretTree::Text(text) if self.take.key.is_none() => match SecretTree::from_json(text.expose()) {
                Ok(parsed @ (SecretTree::Map(_) | SecretTree::List(_))) => Ok(parsed),
                Err(error) if !error.is_malformed() => Err(format!("{} {error}", self.take).into()),
                _ => Ok(self.tree),
            },
            _ => Ok(self.tree),
        }
    }

    /// A document's entries; a single value is one entry, named by its key.
    fn entries(self) -> Result<Entries, Sentence> {
        let take = self.take;
        match (self.whole()?, take.name()) {
            (SecretTree::Map(entries), _) => Ok(entries),
            (tree, Some(name)) => Ok(Entries::from([(name.to_owned(), tree)])),
            (SecretTree::List(_), None) => {
                Err(format!("{take} is a list where a document is needed: write #/0 or format: json").into())
            }
            (tree, None) => {
                let why = match &tree {
                    SecretTree::Text(text) => SecretTree::from_json(text.expose()).err(),
                    _ => None,
                };
                let why = why.map_or_else(String::new, |error| format!(" (its text {error})"));
                Err(format!(
                    "{take} is a single value where a document is needed{why}: write from: {{name: reference}} to name it"
                )
                .into())
            }
        }
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    /// `None` if something is missing that an optional item can do without.
    pub(super) fn look_up(item: &'a PlannedItem, generation: &Generation) -> Result<Option<Self>, Sentence> {
        let look_up = |take: &'a PlannedReference| Part::look_up(take, generation, item.optional);
        Ok(match &item.from {
            PlannedFrom::One(take) => look_up(take)?.map(Self::One),
            PlannedFrom::Merge(takes) => takes.iter().map(look_up).collect::<Result<Option<_>, _>>()?.map(Self::Merge),
            PlannedFrom::Named(takes) => takes
                .iter()
                .map(|(name, take)| Ok(look_up(take)?.map(|part| (name.as_str(), part))))
                .collect::<Result<Option<_>, Sentence>>()?
                .map(Self::Named),
        })
    }

    /// The top level of the merged or named document.
    pub(super) fn entries(self) -> Result<Entries, Sentence> {
        match self {
            Self::One(part) => part.entries(),
            Self::Merge(parts) => merge(parts),
            Self::Named(parts) => parts.into_iter().map(|(name, part)| Ok((name.to_owned(), part.whole()?))).collect(),
        }
    }

    /// The whole document; a single value stays one.
    pub(super) fn whole(self) -> Result<SecretTree, Sentence> {
        match self {
            Self::One(part) => part.whole(),
            several => several.entries().map(SecretTree::Map),
        }
    }

    /// What a template sees: names, or the keys of the one document, or `value`.
    pub(super) fn context(self) -> Result<Entries, Sentence> {
        match self {
            Self::One(part) => match part.whole()? {
                SecretTree::Map(entries) => Ok(entries),
                tree => Ok(Entries::from([("value".to_owned(), tree)])),
            },
            several => several.entries(),
        }
    }
}

fn merge(parts: Vec<Part<'_>>) -> Result<Entries, Sentence> {
    let mut merged = Entries::new();
    let mut origins: BTreeMap<String, &PlannedReference> = BTreeMap::new();
    for part in parts {
        let take = part.take;
        for (key, tree) in part.entries()? {
            let tree = match origins.insert(key.clone(), take) {
                // Only what takes it must know which.
                Some(first) => {
                    SecretTree::Withheld(format!("comes from both {first} and {take}: take it from one of them").into())
                }
                None => tree,
            };
            merged.insert(key, tree);
        }
    }
    Ok(merged)
}
