//! Where in the file a field stands, and which stand there twice: looked at only when something is wrong.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::error::{ConfigError, ConfigFault};

/// A file's values, each with its place.
#[derive(Debug)]
pub(super) struct Places {
    root: Tree,
}

/// Lines and columns, counted from 1.
type At = (u64, u64);

#[derive(Debug)]
enum Tree {
    /// Keys in their order, with where each stands.
    Fields(Vec<(String, At, Self)>),
    Items(Vec<(At, Self)>),
    Scalar,
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true, with_snippet: false, duplicate_keys: DuplicateKeyPolicy::LastWins }
}

fn at(location: Location) -> At {
    (location.line(), location.column())
}

// === impl Places ===

impl Places {
    /// Reads a file's text, whose keys may stand there twice.
    ///
    /// # Errors
    /// Where it is not YAML.
    pub(super) fn read(text: &str) -> Result<(Self, Value), (u64, u64)> {
        let place = |error: serde_saphyr::Error| error.location().map_or((1, 1), at);
        let root = serde_saphyr::from_str_with_options(text, options()).map_err(place)?;
        let value = serde_saphyr::from_str_with_options(text, options()).map_err(place)?;
        Ok((Self { root }, value))
    }

    /// Keys that stand twice in one place: the later ones.
    pub(super) fn twice(&self) -> Vec<ConfigFault> {
        let mut found = Vec::new();
        self.root.twice("", &mut found);
        found
    }

    /// The place of an error. Of what is not there, the place where it should be.
    pub(super) fn locate(&self, error: ConfigError) -> ConfigFault {
        let (mut place, mut tree) = ((1, 1), &self.root);
        let mut rest = error.place.as_str();
        while let Some((at, next, behind)) = tree.step(rest) {
            (place, tree, rest) = (at, next, behind);
        }
        if let Some(at) = error.field.as_deref().and_then(|field| tree.find(field)) {
            place = at;
        }
        ConfigFault { line: place.0, column: place.1, error }
    }
}

// === impl Tree ===

impl Tree {
    /// One step down a place such as `.providers.vault.allow[0]`: keys may have dots in them, so the longest counts.
    fn step<'a, 'b>(&'a self, place: &'b str) -> Option<(At, &'a Self, &'b str)> {
        match self {
            Self::Fields(fields) => {
                let rest = place.strip_prefix('.')?;
                let behind = |key: &str| {
                    let behind = rest.strip_prefix(key)?;
                    (behind.is_empty() || behind.starts_with(['.', '['])).then_some(behind)
                };
                let found = fields.iter().filter_map(|(key, at, tree)| Some((key.len(), *at, tree, behind(key)?)));
                // Of two by one name the last is what counts.
                let (_, at, tree, behind) = found.max_by_key(|(length, ..)| *length)?;
                Some((at, tree, behind))
            }
            Self::Items(items) => {
                let (index, behind) = place.strip_prefix('[')?.split_once(']')?;
                let (at, tree) = items.get(index.parse::<usize>().ok()?)?;
                Some((*at, tree, behind))
            }
            Self::Scalar => None,
        }
    }

    /// The first key of this name, here or deeper.
    fn find(&self, name: &str) -> Option<At> {
        match self {
            Self::Fields(fields) => {
                let here = fields.iter().find(|(key, ..)| key == name).map(|(_, at, _)| *at);
                here.or_else(|| fields.iter().find_map(|(.., tree)| tree.find(name)))
            }
            Self::Items(items) => items.iter().find_map(|(_, tree)| tree.find(name)),
            Self::Scalar => None,
        }
    }

    fn twice(&self, place: &str, found: &mut Vec<ConfigFault>) {
        match self {
            Self::Fields(fields) => {
                for (index, (key, (line, column), tree)) in fields.iter().enumerate() {
                    let shown = super::shape::shown(key).map_or_else(String::new, |key| format!(".{key}"));
                    let place = format!("{place}{shown}");
                    if let Some((_, (first, _), _)) = fields.iter().take(index).find(|(earlier, ..)| earlier == key) {
                        let problem = format!("has the same key twice, first at line {first}: leave one of them out");
                        let error = ConfigError::new(&*place, problem);
                        found.push(ConfigFault { line: *line, column: *column, error });
                    }
                    tree.twice(&place, found);
                }
            }
            Self::Items(items) => {
                for (index, (_, tree)) in items.iter().enumerate() {
                    tree.twice(&format!("{place}[{index}]"), found);
                }
            }
            Self::Scalar => {}
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TreeVisitor;

        impl<'de> Visitor<'de> for TreeVisitor {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let place = at(key.referenced);
                    fields.push((key.value, place, map.next_value()?));
                }
                Ok(Tree::Fields(fields))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut found = Vec::new();
                while let Some(item) = items.next_element::<Spanned<Tree>>()? {
                    found.push((at(item.referenced), item.value));
                }
                Ok(Tree::Items(found))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_none<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
                Tree::deserialize(deserializer)
            }
        }

        deserializer.deserialize_any(TreeVisitor)
    }
}
