//! `KEY=value` lines, as shells and dotenv libraries write them.
//!
//! A value that begins with a quote is read as a POSIX shell reads a word: `'…'` literally, `"…"` with escapes, `\c`,
//! one after another (`'it'\''s'`). Any other value is the rest of its line up to ` #`, without the blanks around it.
//! Nothing is expanded. Of a key that stands there twice the last one counts, as in a shell.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::secret::{SecretTree, SecretValue};

/// What is wrong, and where. Never what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct DotenvError {
    line: usize,
    problem: &'static str,
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<SecretTree, DotenvError> {
    let mut parser = Parser {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
        // Large enough for any value, so that it is never moved and nothing stays behind.
        value: Zeroizing::new(String::with_capacity(text.len())),
    };
    let mut entries = BTreeMap::new();
    while let Some(key) = parser.key()? {
        parser.value()?;
        entries.insert(key, SecretTree::Text(SecretValue::from(parser.value.as_str())));
    }
    Ok(SecretTree::Map(entries))
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    value: Zeroizing<String>,
}

// === impl Parser ===

impl Parser<'_> {
    /// The next key, past its `=`; `None` at the end.
    fn key(&mut self) -> Result<Option<String>, DotenvError> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
            if self.rest.is_empty() {
                return Ok(None);
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            let (line, after) = self.rest.split_at(end);
            if !(line.is_empty() || line.starts_with('#')) {
                break;
            }
            self.rest = after.strip_prefix('\n').unwrap_or_default();
            self.line += 1;
        }
        let end = self.rest.find(['=', '\n']).unwrap_or(self.rest.len());
        let (key, after) = self.rest.split_at(end);
        let Some(after) = after.strip_prefix('=') else { return self.error("there is no KEY=value") };
        let key = key.trim();
        let key = key.strip_prefix("export").filter(|key| key.starts_with([' ', '\t'])).map_or(key, str::trim);
        if !is_key(key) {
            return self.error("a key has letters, digits, '_', '.' and '-' only, and does not begin with a digit");
        }
        self.rest = after.trim_start_matches([' ', '\t']);
        Ok(Some(key.to_owned()))
    }

    /// Reads the value behind a `=` up to the end of its line.
    fn value(&mut self) -> Result<(), DotenvError> {
        self.value.clear();
        if !self.rest.starts_with(['\'', '"']) {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            let (line, after) = self.rest.split_at(end);
            let blank_before = |at: usize| at == 0 || line.get(..at).is_some_and(|head| head.ends_with([' ', '\t']));
            let comment = line.match_indices('#').map(|(at, _)| at).find(|at| blank_before(*at));
            self.value.push_str(comment.and_then(|at| line.get(..at)).unwrap_or(line).trim());
            self.rest = after;
            return Ok(());
        }
        while let Some(c) = self.take() {
            match c {
                '\'' => self.single()?,
                '"' => self.double()?,
                '\\' => match self.take() {
                    Some(escaped) => self.value.push(escaped),
                    None => return self.error("there is nothing behind the last '\\'"),
                },
                '\n' => return Ok(()),
                ' ' | '\t' | '\r' => return self.comment(),
                c => self.value.push(c),
            }
        }
        Ok(())
    }

    fn single(&mut self) -> Result<(), DotenvError> {
        let line = self.line;
        while let Some(c) = self.take() {
            if c == '\'' {
                return Ok(());
            }
            self.value.push(c);
        }
        Err(DotenvError { line, problem: "a ' is not closed" })
    }

    fn double(&mut self) -> Result<(), DotenvError> {
        let line = self.line;
        while let Some(c) = self.take() {
            match c {
                '"' => return Ok(()),
                '\\' => match self.take() {
                    Some('n') => self.value.push('\n'),
                    Some('r') => self.value.push('\r'),
                    Some('t') => self.value.push('\t'),
                    Some('\n') => {}
                    Some(c @ ('"' | '\\' | '$' | '`')) => self.value.push(c),
                    // As in a shell, any other '\' is one.
                    Some(c) => self.value.extend(['\\', c]),
                    None => break,
                },
                c => self.value.push(c),
            }
        }
        Err(DotenvError { line, problem: "a \" is not closed" })
    }

    /// Only a comment may follow a quoted value.
    fn comment(&mut self) -> Result<(), DotenvError> {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let (line, after) = self.rest.split_at(end);
        let line = line.trim();
        if !(line.is_empty() || line.starts_with('#')) {
            return self.error("something follows the quoted value");
        }
        self.rest = after;
        Ok(())
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn error<T>(&self, problem: &'static str) -> Result<T, DotenvError> {
        Err(DotenvError { line: self.line, problem })
    }
}

fn is_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_shells_and_libraries_write_them() {
        for (text, expected) in [
            ("", "{}"),
            ("# only a comment\n\n", "{}"),
            ("A=1\nB=two words \n", r#"{"A":"1","B":"two words"}"#),
            ("\u{feff}export A=1\r\nexporter=2\r\n", r#"{"A":"1","exporter":"2"}"#),
            ("A = 1 # comment\nB=x#y\nC=#z\nD=\n", r#"{"A":"1","B":"x#y","C":"","D":""}"#),
            (r"A='l$it\n' # comment", r#"{"A":"l$it\\n"}"#),
            (r"A='it'\''s'", r#"{"A":"it's"}"#),
            ("A=\"a\\n\\\"b\\\" \\$c \\x \\\nd\"", r#"{"A":"a\n\"b\" $c \\x d"}"#),
            ("A='two\nlines'\nB=2", r#"{"A":"two\nlines","B":"2"}"#),
            ("A='x'y\"z\"", r#"{"A":"xyz"}"#),
            (r"A=C:\dir\new", r#"{"A":"C:\\dir\\new"}"#),
            ("A=1\nA=2", r#"{"A":"2"}"#),
            ("A=ü=ß", r#"{"A":"ü=ß"}"#),
            ("  a.b-c_1 =x", r#"{"a.b-c_1":"x"}"#),
        ] {
            let expected: SecretTree = serde_json::from_str(expected).unwrap();
            assert!(parse(text).unwrap() == expected, "{text:?}");
        }
    }

    #[test]
    fn p5_errors_name_the_line_and_nothing_of_it() {
        for (text, line, part) in [
            ("A=1\ncanary", 2, "KEY=value"),
            ("A=1\n\n# c\n0canary=1", 4, "does not begin with a digit"),
            ("can ary=1", 1, "letters"),
            ("=canary", 1, "letters"),
            ("A='x'\nB='canary\nC=1\n", 2, "' is not closed"),
            ("A=\"canary\\\"\nB=1", 1, "\" is not closed"),
            ("A='x\ny'\nB='x' canary", 3, "follows the quoted value"),
            ("A='x'\\", 1, "nothing behind"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: ")) && error.contains(part), "{text:?}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
