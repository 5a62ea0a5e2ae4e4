//! YAML as text becomes values, with errors in our own words and with where each field stands.

use granit_parser::{Event, Options, Parser, ScalarStyle};
use serde_json::Value;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Location};

use crate::parse_error::{ParseError, rule};

/// Most values and keys of the YAML in an annotation.
pub const MAX_YAML_NODES: usize = 10_000;
/// Most documents of a file of Kubernetes objects.
pub const MAX_DOCUMENTS: usize = 10_000;

/// How the names of YAML's own types begin (`!!str`).
const CORE_TAGS: &str = "tag:yaml.org,2002:";
/// What is nested deeper has no places; the library reads no deeper documents.
const MAX_DEPTH: usize = 64;
/// Most places of a file: the library reads no more values, either.
const MAX_PLACES: usize = 250_000;

/// Line and column, both counted from 1; columns in characters.
pub type TextPosition = (u64, u64);

/// Where a value stands, and where what is in it does. Fields are where their keys are.
#[derive(Debug, Clone, Default)]
pub struct Places {
    at: TextPosition,
    inside: Inside,
}

#[derive(Debug, Clone, Default)]
enum Inside {
    /// A text or the like, or an alias.
    #[default]
    Nothing,
    /// A block whose lines are the text's (`|`).
    Lines,
    /// In their order; a key may be there twice.
    Fields(Vec<(String, TextPosition, Places)>),
    Items(Vec<Places>),
}

/// A list or map that is read.
struct Open {
    places: Places,
    /// Of a map, the key whose value is next.
    key: Option<(String, TextPosition)>,
}

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
    let budget = serde_saphyr::budget! { max_documents: MAX_DOCUMENTS };
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false, budget: budget };
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
                "has an anchor or alias at line {}, column {}: write out what it stands for, or put quotes around a text \
                 that begins with & or *",
                location.line(),
                location.column()
            )
        }
        serde_saphyr::Error::Budget { breach: BudgetBreach::Nodes { .. }, .. } => {
            format!("has more than {MAX_YAML_NODES} values: take directories instead of many files")
        }
        error => sentence(&error),
    };
    let value = serde_saphyr::from_str_with_options(text, options).map_err(|error| rule(problem(error)))?;
    match tag_of(text) {
        None => Ok(value),
        Some((line, column)) => Err(rule(format!(
            "has a tag at line {line}, column {column}: leave it out, or put quotes around a text that begins with !"
        ))),
    }
}

/// Where the first tag stands that is none of YAML's own: what it was to do (`!include`, `!vault`) is not done here.
fn tag_of(text: &str) -> Option<TextPosition> {
    if !text.contains('!') {
        return None;
    }
    let mut parser = Parser::new_from_str_with_options(text, without_comments());
    while let Some(Ok((event, span))) = parser.next_event() {
        let (Event::Scalar(_, _, _, tag) | Event::SequenceStart(_, _, tag) | Event::MappingStart(_, _, tag)) = event
        else {
            continue;
        };
        if tag.is_some_and(|tag| tag.suffix_in_namespace(CORE_TAGS).is_none()) {
            return Some((span.start.line() as u64, span.start.col() as u64 + 1));
        }
    }
    None
}

fn without_comments() -> Options {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options
}

/// One sentence with the place, and nothing of what stands there: the library quotes it, and tells programmers which of
/// its options to set.
fn sentence(error: &Error) -> String {
    let place = match error.location() {
        Some(at) if at != Location::UNKNOWN => format!(" at line {}, column {}", at.line(), at.column()),
        _ => String::new(),
    };
    // Where what an alias stands for is wrong, the place is the alias'.
    let error: &Error = if let Error::AliasError { error, .. } = error { error } else { error };
    let said = match error {
        Error::MultipleDocuments { .. } => return format!("has several YAML documents{place}: write one, without ---"),
        Error::DuplicateMappingKey { .. } => return format!("has the same key twice{place}: leave one of them out"),
        Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            return format!("has aliases{place} that stand for too much: write out what they stand for");
        }
        Error::UnknownAnchor { .. } => {
            return format!("has an alias{place} that stands for nothing: put quotes around a text that begins with *");
        }
        Error::Budget { .. } => return format!("has more{place} than is read of one file: make several of it"),
        Error::Eof { .. } => "it ends where something is expected",
        _ => "look there for a quote or bracket that is missing, for a tab, and at the indentation",
    };
    format!("is not YAML{place}: {said}")
}

// === impl Places ===

impl Places {
    /// Those of each document that is not empty. What is not YAML has places up to there.
    #[must_use]
    pub fn of_documents(text: &str) -> Vec<Self> {
        let mut parser = Parser::new_from_str_with_options(text, without_comments());
        let (mut documents, mut open) = (Vec::new(), Vec::new());
        let mut count = 0;
        while let Some(Ok((event, span))) = parser.next_event() {
            let at = (span.start.line() as u64, span.start.col() as u64 + 1);
            let inside = match event {
                Event::MappingStart(..) => Inside::Fields(Vec::new()),
                Event::SequenceStart(..) => Inside::Items(Vec::new()),
                Event::Scalar(text, ScalarStyle::Plain, ..) if open.is_empty() && is_null(&text) => continue,
                Event::Scalar(text, style, ..) => {
                    count += 1;
                    if !take_key(&mut open, &text, at) {
                        let inside = if style == ScalarStyle::Literal { Inside::Lines } else { Inside::Nothing };
                        close(&mut documents, &mut open, Self { at, inside });
                    }
                    continue;
                }
                Event::Alias(..) => {
                    close(&mut documents, &mut open, Self { at, inside: Inside::Nothing });
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    if let Some(Open { places, .. }) = open.pop() {
                        close(&mut documents, &mut open, places);
                    }
                    continue;
                }
                _ => continue,
            };
            count += 1;
            if open.len() >= MAX_DEPTH || count >= MAX_PLACES {
                break;
            }
            open.push(Open { places: Self { at, inside }, key: None });
        }
        while let Some(Open { places, .. }) = open.pop() {
            close(&mut documents, &mut open, places);
        }
        documents
    }

    /// Its own place.
    #[must_use]
    pub fn at(&self) -> TextPosition {
        self.at
    }

    /// The fields of a map, each with the place of its key.
    pub fn fields(&self) -> impl Iterator<Item = (&str, TextPosition, &Self)> {
        let fields = if let Inside::Fields(fields) = &self.inside { fields.as_slice() } else { &[] };
        fields.iter().map(|(key, at, places)| (key.as_str(), *at, places))
    }

    /// The entries of a list.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        if let Inside::Items(items) = &self.inside { items } else { &[] }
    }

    /// Whether it is a text whose lines stand below it as they are.
    #[must_use]
    pub fn is_lines(&self) -> bool {
        matches!(self.inside, Inside::Lines)
    }

    /// Follows a path such as `.providers.vault.allow[0]` as far as it leads: the place, what is there, and the rest of
    /// the path. Keys may have dots in them, so the longest counts.
    #[must_use]
    pub fn follow<'a>(&self, path: &'a str) -> (TextPosition, &Self, &'a str) {
        let (mut at, mut places, mut rest) = (self.at, self, path);
        while let Some((next_at, next, behind)) = places.step(rest) {
            (at, places, rest) = (next_at, next, behind);
        }
        (at, places, rest)
    }

    fn step<'a>(&self, path: &'a str) -> Option<(TextPosition, &Self, &'a str)> {
        match &self.inside {
            Inside::Fields(_) => {
                let rest = path.strip_prefix('.')?;
                let behind = |key: &str| {
                    let behind = rest.strip_prefix(key)?;
                    (behind.is_empty() || behind.starts_with(['.', '['])).then_some(behind)
                };
                let found = self.fields().filter_map(|(key, at, places)| Some((key.len(), at, places, behind(key)?)));
                // Of two by one name the last is what counts.
                let (_, at, places, behind) = found.max_by_key(|(length, ..)| *length)?;
                Some((at, places, behind))
            }
            Inside::Items(items) => {
                let (index, behind) = path.strip_prefix('[')?.split_once(']')?;
                let places = items.get(index.parse::<usize>().ok()?)?;
                Some((places.at, places, behind))
            }
            Inside::Nothing | Inside::Lines => None,
        }
    }
}

fn is_null(text: &str) -> bool {
    text.is_empty() || text == "~" || text.eq_ignore_ascii_case("null")
}

/// Whether a text is a key.
fn take_key(open: &mut [Open], text: &str, at: TextPosition) -> bool {
    match open.last_mut() {
        Some(Open { places: Places { inside: Inside::Fields(_), .. }, key }) if key.is_none() => {
            *key = Some((text.to_owned(), at));
            true
        }
        _ => false,
    }
}

/// Puts what was read where it belongs.
fn close(documents: &mut Vec<Places>, open: &mut [Open], places: Places) {
    let Some(Open { places: around, key }) = open.last_mut() else { return documents.push(places) };
    match (&mut around.inside, key.take()) {
        (Inside::Items(items), _) => items.push(places),
        (Inside::Fields(fields), Some((name, at))) => fields.push((name, at, places)),
        // A key that is a list or a map: nothing of ours has one.
        (_, _) => *key = Some((String::new(), places.at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_their_keys_are() {
        let text = "providers:\n  vault: {type: vault, address: \"x\"}\nsecrets:\n  - {file: a}\n  - file: b\n    from: c\n\
                    ---\n# empty\n---\nkind: Pod\nhushpod.dev/env: a\nhushpod.dev/env.A: |\n  x\n? [a, b]\n: {é: 1, b: 2}\n";
        let documents = Places::of_documents(text);
        assert_eq!(documents.len(), 2, "empty ones are left out, as the parser leaves them out");
        for (document, path, at, rest) in [
            (0, "", (1, 1), ""),
            (0, ".providers", (1, 1), ""),
            (0, ".providers.vault", (2, 3), ""),
            (0, ".providers.vault.address", (2, 24), ""),
            (0, ".secrets[1]", (5, 5), ""),
            (0, ".secrets[1].from", (6, 5), ""),
            (0, ".secrets[1].none.deeper", (5, 5), ".none.deeper"),
            (0, ".secrets[2]", (3, 1), "[2]"),
            (0, ".none", (1, 1), ".none"),
            (1, ".kind", (10, 1), ""),
            (1, ".hushpod.dev/env", (11, 1), ""),
            (1, ".hushpod.dev/env.A", (12, 1), ""),
            (1, "..b", (15, 10), ""),
        ] {
            let (found, places, left) = documents[document].follow(path);
            assert_eq!((found, left), (at, rest), "{path}");
            assert_eq!(places.is_lines(), path.contains("env.A"), "{path}");
        }
    }

    #[test]
    fn places_are_bounded_and_end_where_it_is_not_yaml() {
        let deep = "a: ".to_owned() + &"[".repeat(5000);
        assert!(Places::of_documents(&deep).len() <= 1);
        let broken = Places::of_documents("a: 1\nb: [1\nc: }");
        assert_eq!(
            broken.first().map(|places| places.follow(".a")).map(|(at, _, rest)| (at, rest)),
            Some(((1, 1), ""))
        );
        let lines = |count: usize| Places::of_documents(&"- [x]\n".repeat(count)).first().map(|all| all.items().len());
        assert_eq!(lines(1000), Some(1000));
        assert!(lines(MAX_PLACES).is_some_and(|count| count < MAX_PLACES));
    }

    #[test]
    fn p9_too_much_is_told_in_our_own_words() {
        let options = serde_saphyr::options! { with_snippet: false };
        let laughs = ('b'..='j').map(|at| {
            let of = char::from(u8::try_from(u32::from(at) - 1).unwrap());
            format!("{at}: &{at} [{}]", [format!("*{of}").as_str(); 9].join(", "))
        });
        let text = ["a: &a [x]".to_owned()].into_iter().chain(laughs).collect::<Vec<_>>().join("\n");
        let error = parse_yaml_documents(&text).unwrap_err().to_string();
        assert!(error.starts_with("has ") && error.contains("line ") && !error.contains("nothing"), "{error}");
        let text = "--- a\n".repeat(2000);
        let error = serde_saphyr::from_multiple_with_options::<serde_json::Value>(&text, options).unwrap_err();
        assert!(sentence(&error).starts_with("has more at line "), "{}", sentence(&error));
    }
}
