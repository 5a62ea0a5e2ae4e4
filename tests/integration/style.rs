//! The words of messages, as far as a test can tell good ones from bad ones; and how long a file may be.

use crate::pages::files;
use crate::readme::page;
use crate::sources::{Source, Token, sources};

/// Most lines of a file, its tests not counted. One that has more is about several things: split it by them.
const MOST_LINES: usize = 440;

/// Words that make a reader read twice, the word before them that makes them plain, and what to write instead.
const READ_TWICE: [(&str, Option<&str>, &str); 4] = [
    ("whoever", None, "the name of the actor"),
    ("means nothing", None, "has no effect, or unknown X"),
    ("is none", Some("there"), "invalid X: expected Y"),
    ("is no", Some("there"), "is not a X, or invalid X: expected Y"),
];

/// A literal without its line breaks, in lower case and with a blank between and around all words.
fn plain(text: &str) -> String {
    let text = text.replace("\\\n", " ").to_lowercase();
    let words = text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '\'' | '_'))).filter(|word| !word.is_empty());
    format!(" {} ", words.collect::<Vec<_>>().join(" "))
}

/// What to write instead of a text's words, if it has some that are read twice.
fn complaint(text: &str) -> Option<&'static str> {
    let text = plain(text);
    let is_bad = |words: &str, before: Option<&str>| {
        let words = format!(" {words} ");
        text.match_indices(&words)
            .any(|(at, _)| before.is_none_or(|before| !text[..at].ends_with(&format!(" {before}"))))
    };
    READ_TWICE.iter().find(|(words, before, _)| is_bad(words, *before)).map(|(.., instead)| *instead)
}

fn complaints(sources: &[Source]) -> Vec<String> {
    let texts = sources.iter().flat_map(|source| source.texts().map(|text| (source.file.as_str(), text)));
    texts.filter_map(|(file, text)| Some(format!("{file}: {text:?}: write {}", complaint(text)?))).collect()
}

#[test]
fn p9_no_message_has_words_that_are_read_twice() {
    let found = complaints(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Texts that word by hand what `parse_error.rs` words.
fn worded_by_hand(sources: &[Source]) -> Vec<(&str, &str)> {
    let others = sources.iter().filter(|source| source.file != "parse_error.rs");
    let texts = others.flat_map(|source| source.texts().map(|text| (source.file.as_str(), text)));
    texts.filter(|(_, text)| text.contains("invalid ") && text.contains(":?}: expected ")).collect()
}

#[test]
fn p9_what_reads_a_text_says_in_one_wording_what_it_expects() {
    assert_eq!(worded_by_hand(&sources()), Vec::<(&str, &str)>::new(), "use ParseError");
    let planted = |text: &str| Source { file: "planted.rs".to_owned(), tokens: vec![Token::Text(text.to_owned())] };
    assert_eq!(worded_by_hand(&[planted("invalid size {text:?}: expected 1Ki")]).len(), 1);
}

#[test]
fn words_that_are_read_twice_are_found() {
    for text in [
        "{text:?} is no duration: write 5m",
        "is no\\\n         list",
        "region {region:?} is none: write eu-west-1",
        "this is none",
        "Whoever may see the pod",
        "(means nothing here)",
    ] {
        let planted = Source { file: "planted.rs".to_owned(), tokens: vec![Token::Text(text.to_owned())] };
        assert_eq!(complaints(&[planted]).len(), 1, "{text}");
    }
    for text in
        ["there is no such file", "There is none", "is not a list", "{name} is nobody's", "his nose", "Option::is_none"]
    {
        assert_eq!(complaint(text), None, "{text}");
    }
}

/// Words that no file of ours has, in code, pages, tests, scripts and charts alike; what a test or rule says of them apart.
const UNWRITTEN: [&str; 3] = ["whoever", "so that", "means nothing"];
/// They quote the words.
const QUOTES: [&str; 2] = [".github/CONTRIBUTING.md", "tests/integration/style.rs"];

/// The words of [`UNWRITTEN`] that a text has.
fn unwritten(text: &str) -> Vec<&'static str> {
    let text = plain(text);
    UNWRITTEN.into_iter().filter(|words| text.contains(&format!(" {words} "))).collect()
}

#[test]
fn no_file_has_words_that_are_read_twice() {
    let ends =
        [".rs", ".md", ".py", ".bash", ".sh", ".yaml", ".yml", ".tpl", "/run", "/build", "/up", "/install", "/image"];
    let all =
        [".ci", ".github", "charts", "deploy", "src", "tests"].into_iter().flat_map(|directory| files(directory, ""));
    let ours: Vec<_> = all
        .filter(|file| ends.iter().any(|end| file.ends_with(end)) && !file.contains("/corpus/"))
        .filter(|file| !QUOTES.contains(&file.as_str()))
        .collect();
    assert!(ours.len() > 500, "{} files", ours.len());
    let found = ours.into_iter().chain(["README.md".to_owned()]).map(|file| (unwritten(&page(&file)), file));
    assert_eq!(
        found.filter(|(words, _)| !words.is_empty()).collect::<Vec<_>>(),
        [],
        "name the actor; write so, or unknown"
    );
    assert_eq!(unwritten("// It waits, so\n// that it ends.\n# Whoever"), ["whoever", "so that"]);
}

/// Lines of a source without the tests at its end.
fn lines(text: &str) -> usize {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count()
}

#[test]
fn a_file_has_one_subject_and_seldom_many_lines() {
    let sources = files("src", ".rs").into_iter().filter(|file| !file.contains("/tests") && !file.contains("/proto/"));
    let long: Vec<_> =
        sources.map(|file| (lines(&page(&file)), file)).filter(|(lines, _)| *lines > MOST_LINES).collect();
    assert_eq!(long, [], "split them by their subjects");
    assert_eq!(lines("a\nb\n#[cfg(test)]\nmod tests {\n    c\n}\n"), 2);
}
