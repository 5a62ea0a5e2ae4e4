//! Reads this crate's own sources, for tests about them: tokens of every file without comments and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// What a text is made of, as far as tests about sources care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A name, a keyword, or a number.
    Word(String),
    /// A string literal's text, as it is written.
    Text(String),
    /// Anything else; `::` is one.
    Sign(String),
}

/// A source file without its tests.
#[derive(Debug)]
pub(crate) struct Source {
    /// Below `src/`.
    pub(crate) file: String,
    pub(crate) tokens: Vec<Token>,
}

/// Every file below `src/`, apart from those of tests.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    gather(&root, &mut files);
    let below = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    let files = files.into_iter().filter(|path| {
        !below(path).contains("tests") && !below(path).ends_with("testing.rs") && !below(path).starts_with("csi/proto/")
    });
    let sources: Vec<_> = files
        .map(|path| Source { file: below(&path), tokens: without_tests(&tokens(&fs::read_to_string(&path).unwrap())) })
        .collect();
    assert!(sources.len() > 100, "{}", sources.len());
    sources
}

fn gather(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Splits a text of Rust into tokens; comments are left out.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first.is_whitespace() {
            (None, first.len_utf8())
        } else if rest.starts_with("//") {
            (None, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (None, rest.find("*/").map_or(rest.len(), |end| end + 2))
        } else if let Some((text, length)) = string(rest) {
            (Some(Token::Text(text)), length)
        } else if let Some(length) = character(rest) {
            (None, length)
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (Some(Token::Word(rest[..length].to_owned())), length)
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            (Some(Token::Sign(rest[..length].to_owned())), length)
        };
        found.extend(token);
        rest = &rest[length..];
    }
    found
}

/// A string literal at the beginning of a text, and how long it is in the source.
fn string(rest: &str) -> Option<(String, usize)> {
    let behind = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    if let Some(raw) = behind.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inner = raw[hashes..].strip_prefix('"')?;
        let end = inner.find(&format!("\"{}", "#".repeat(hashes)))?;
        let start = rest.len() - inner.len();
        return Some((inner[..end].to_owned(), start + end + 1 + hashes));
    }
    let inner = behind.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = inner.char_indices().find(|(_, c)| {
        let ends = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        ends
    });
    let end = end.unwrap().0;
    Some((inner[..end].to_owned(), rest.len() - inner.len() + end + 1))
}

/// A character literal at the beginning of a text, or the tick of a lifetime: how long it is.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('\'')?;
    let start = rest.len() - inner.len();
    if inner.starts_with('\\') {
        return Some(start + 2 + inner[2..].find('\'')? + 1);
    }
    let first = inner.chars().next()?;
    let is_closed = inner[first.len_utf8()..].starts_with('\'');
    Some(if is_closed { start + first.len_utf8() + 1 } else { start })
}

/// Everything but what stands behind `#[cfg(test)]`: modules, imports, functions and fields of tests.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let marker = self::tokens("#[cfg(test)]");
    let mut kept = Vec::new();
    let mut rest = tokens;
    while let Some(first) = rest.first() {
        if rest.starts_with(&marker) {
            rest = behind_item(&rest[marker.len()..]);
        } else {
            kept.push(first.clone());
            rest = &rest[1..];
        }
    }
    kept
}

/// What follows an item: its end is a `;` outside of brackets, or the first closing brace.
fn behind_item(tokens: &[Token]) -> &[Token] {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        let Token::Sign(sign) = token else { continue };
        match sign.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 && (sign == "}" || sign == ";") {
            return &tokens[at + 1..];
        }
    }
    &[]
}

// === impl Token ===

impl Token {
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn is_sign(&self, sign: &str) -> bool {
        *self == Self::Sign(sign.to_owned())
    }
}

// === impl Source ===

impl Source {
    /// The modules that the file lies in, and its own: `["webhook", "mounts"]`.
    pub(crate) fn module(&self) -> Vec<&str> {
        self.file.trim_end_matches(".rs").split('/').collect()
    }

    /// The part of the tree that it belongs to.
    pub(crate) fn room(&self) -> &str {
        self.file.split('/').next().unwrap().trim_end_matches(".rs")
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(Token::word)
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|token| match token {
            Token::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }
}

#[test]
fn tests_and_comments_are_not_read() {
    let text = r##"
        use a::b; // "not"
        #[cfg(test)]
        pub(crate) mod tests;
        mod c; /* d */
        const E: (&str, &str, char, u8) = ("e \" \\", r#"f"f"#, '"', b'\'');
        fn g<'h>(i: &'h str) -> [u8; 2] { *b"jk" }
        #[cfg(test)]
        mod tests { fn not() { if true {} } }
        fn last() {}
    "##;
    let source = Source { file: "x/y.rs".to_owned(), tokens: without_tests(&tokens(text)) };
    assert_eq!(source.texts().collect::<Vec<_>>(), [r#"e \" \\"#, "f\"f", "jk"]);
    let words: Vec<_> = source.words().collect();
    assert!(words.contains(&"last") && words.contains(&"c") && words.contains(&"g"), "{words:?}");
    assert!(["not", "d", "tests", "f", "j"].iter().all(|word| !words.contains(word)), "{words:?}");
    assert_eq!(source.module(), ["x", "y"]);
}
