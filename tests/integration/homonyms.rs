//! One word per thing: few names stand for several types.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write as _, stderr};

use crate::sources::{Source, Token, sources, tokens};

/// Fewer names than this may stand for several types.
const BOUND: usize = 25;

/// What each store has of its own, by the same name on purpose.
const PARALLEL: [&str; 5] = ["Settings", "Api", "Session", "Error", "Answer"];

/// Names of several types, with the files that define them. Types of functions and associated ones do not count.
fn homonyms(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        let mut depth = 0;
        for two in source.tokens.windows(2) {
            match &two[0] {
                Token::Sign(sign) => match sign.as_str() {
                    "{" | "(" | "[" => depth += 1,
                    "}" | ")" | "]" => depth -= 1,
                    _ => {}
                },
                Token::Word(word) if depth == 0 => {
                    let is_type = ["struct", "enum", "trait", "type", "union"].contains(&word.as_str());
                    if let Some(name) = two[1].word().filter(|name| is_type && !PARALLEL.contains(name)) {
                        found.entry(name).or_default().insert(&source.file);
                    }
                }
                _ => {}
            }
        }
    }
    found.retain(|_, files| files.len() > 1);
    found
}

#[test]
fn few_names_stand_for_several_types() {
    let sources = sources();
    let found = homonyms(&sources);
    // Past what tests keep to themselves: the log of CI shows it.
    let names: Vec<_> = found.keys().collect();
    writeln!(stderr(), "{} names stand for several types, of less than {BOUND}: {names:?}", found.len()).unwrap();
    assert!(found.len() < BOUND, "{}: rename one of each:\n{found:#?}", found.len());
}

#[test]
fn a_homonym_is_found() {
    let source = |file: &str, text: &str| Source { file: file.to_owned(), tokens: tokens(text) };
    let sources = [
        source("a.rs", "pub struct X; pub struct Settings; impl X { type Y = u8; }"),
        source("b.rs", "enum X { A } fn f() { struct Z; } struct Settings;"),
        source("c.rs", "trait Y {} type Z = u8;"),
    ];
    assert_eq!(homonyms(&sources).into_iter().collect::<Vec<_>>(), [("X", BTreeSet::from(["a.rs", "b.rs"]))]);
}
