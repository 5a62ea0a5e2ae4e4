//! `KEY=value` lines, as shells and dotenv libraries write them.
//!
//! A value that begins with a quote is read as a POSIX shell reads a word: `'…'` literally, `"…"` with escapes, `\c`,
//! one after another (`'it'\''s'`). Any other value is the rest of its line up to ` #`, without the blanks around it.
//! Nothing is expanded, and a value need not be UTF-8. Of a key that stands there twice the last one counts, as in a shell.

use std::borrow::Cow;
use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::env_vars::{VariableError, check_name, check_value};
use crate::secret::SecretValue;

/// What is wrong, and where. Never what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct DotenvError {
    line: usize,
    problem: Cow<'static, str>,
}

/// Most keys of a file.
const MAX_KEYS: usize = 10_000;
const TOO_MANY: &str = "there are more than 10000 keys: split the file";

/// Reads a whole file.
///
/// # Errors
/// [`DotenvError`] names the line.
pub fn parse(text: &[u8]) -> Result<BTreeMap<String, SecretValue>, DotenvError> {
    parse_checked(text, |_, _| Ok(()))
}

/// Reads a whole file whose keys are to be variables.
///
/// # Errors
/// [`DotenvError`] names the line, and not the name either: in a file that is not dotenv it is a piece of the value.
pub fn variables(text: &[u8]) -> Result<BTreeMap<String, SecretValue>, DotenvError> {
    parse_checked(text, |key, value| check_name(key).and_then(|()| check_value(key, value)))
}

fn parse_checked(
    text: &[u8],
    check: impl Fn(&str, &[u8]) -> Result<(), VariableError>,
) -> Result<BTreeMap<String, SecretValue>, DotenvError> {
    let mut parser = Parser {
        rest: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text),
        line: 1,
        // Large enough for any value, so it is never moved and nothing stays behind.
        value: Zeroizing::new(Vec::with_capacity(text.len())),
    };
    let mut entries = BTreeMap::new();
    while let Some(key) = parser.key()? {
        if entries.len() == MAX_KEYS {
            return parser.error(TOO_MANY);
        }
        let line = parser.line;
        parser.value()?;
        check(&key, &parser.value).map_err(|error| DotenvError {
            line,
            problem: match error {
                VariableError::Nul | VariableError::Large(_) => error.of("the value"),
                VariableError::Name | VariableError::LongName | VariableError::Reserved(_) => {
                    error.of_unnamed("the key")
                }
            }
            .into(),
        })?;
        entries.insert(key, SecretValue::new(parser.value.to_vec()));
    }
    Ok(entries)
}

struct Parser<'a> {
    rest: &'a [u8],
    line: usize,
    value: Zeroizing<Vec<u8>>,
}

/// What separates words on a line.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `bytes` up to the first that `ends`, and the rest from there on.
fn split_before(bytes: &[u8], ends: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|&byte| ends(byte)).unwrap_or(bytes.len()))
}

// === impl DotenvError ===

impl DotenvError {
    /// Whether it may be half of a write. What is only too much will not be put right by waiting.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        *self.problem != *TOO_MANY
    }
}

// === impl Parser ===

impl Parser<'_> {
    /// The next key, past its `=`; `None` at the end.
    fn key(&mut self) -> Result<Option<String>, DotenvError> {
        loop {
            (_, self.rest) = split_before(self.rest, |byte| !is_blank(byte) && byte != b'\r');
            if self.rest.is_empty() {
                return Ok(None);
            }
            let (line, after) = split_before(self.rest, |byte| byte == b'\n');
            if !(line.is_empty() || line.starts_with(b"#")) {
                break;
            }
            self.rest = after.strip_prefix(b"\n").unwrap_or_default();
            self.line += 1;
        }
        let (key, after) = split_before(self.rest, |byte| matches!(byte, b'=' | b'\n'));
        let Some(after) = after.strip_prefix(b"=") else { return self.error("there is no KEY=value") };
        let key = key.trim_ascii();
        let exported = key.strip_prefix(b"export").filter(|key| key.first().copied().is_some_and(is_blank));
        let key = exported.map_or(key, <[u8]>::trim_ascii);
        let Some(key) = std::str::from_utf8(key).ok().filter(|key| is_key(key)) else {
            return self.error("a key has letters, digits, '_', '.' and '-' only, and does not begin with a digit");
        };
        (_, self.rest) = split_before(after, |byte| !is_blank(byte));
        Ok(Some(key.to_owned()))
    }

    /// Reads the value behind a `=` up to the end of its line.
    fn value(&mut self) -> Result<(), DotenvError> {
        self.value.clear();
        if !self.rest.starts_with(b"'") && !self.rest.starts_with(b"\"") {
            let (line, after) = split_before(self.rest, |byte| byte == b'\n');
            let blank_before =
                |at: usize| at.checked_sub(1).is_none_or(|at| line.get(at).copied().is_some_and(is_blank));
            let comment = (0..line.len()).find(|&at| line.get(at) == Some(&b'#') && blank_before(at));
            let value = comment.and_then(|at| line.get(..at)).unwrap_or(line);
            self.value.extend_from_slice(value.trim_ascii());
            self.rest = after;
            return Ok(());
        }
        while let Some(byte) = self.take() {
            match byte {
                b'\'' => self.single()?,
                b'"' => self.double()?,
                b'\\' => match self.take() {
                    Some(escaped) => self.value.push(escaped),
                    None => return self.error("there is nothing behind the last '\\'"),
                },
                b'\n' => return Ok(()),
                b' ' | b'\t' | b'\r' => return self.comment(),
                byte => self.value.push(byte),
            }
        }
        Ok(())
    }

    fn single(&mut self) -> Result<(), DotenvError> {
        let line = self.line;
        while let Some(byte) = self.take() {
            if byte == b'\'' {
                return Ok(());
            }
            self.value.push(byte);
        }
        Err(DotenvError { line, problem: "a ' is not closed".into() })
    }

    fn double(&mut self) -> Result<(), DotenvError> {
        let line = self.line;
        while let Some(byte) = self.take() {
            match byte {
                b'"' => return Ok(()),
                b'\\' => match self.take() {
                    Some(b'n') => self.value.push(b'\n'),
                    Some(b'r') => self.value.push(b'\r'),
                    Some(b't') => self.value.push(b'\t'),
                    Some(b'\n') => {}
                    Some(byte @ (b'"' | b'\\' | b'$' | b'`')) => self.value.push(byte),
                    // As in a shell, any other '\' is one.
                    Some(byte) => self.value.extend([b'\\', byte]),
                    None => break,
                },
                byte => self.value.push(byte),
            }
        }
        Err(DotenvError { line, problem: "a \" is not closed".into() })
    }

    /// Only a comment may follow a quoted value.
    fn comment(&mut self) -> Result<(), DotenvError> {
        let (line, after) = split_before(self.rest, |byte| byte == b'\n');
        let line = line.trim_ascii();
        if !(line.is_empty() || line.starts_with(b"#")) {
            return self.error("something follows the quoted value");
        }
        self.rest = after;
        Ok(())
    }

    fn take(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += usize::from(byte == b'\n');
        Some(byte)
    }

    fn error<T>(&self, problem: &'static str) -> Result<T, DotenvError> {
        Err(DotenvError { line: self.line, problem: problem.into() })
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
            let expected: BTreeMap<String, SecretValue> = serde_json::from_str(expected).unwrap();
            assert!(parse(text.as_bytes()).unwrap() == expected, "{text:?}");
        }
        let many = |keys: usize| (0..keys).map(|key| format!("K{key}=\n")).collect::<Vec<_>>().concat();
        assert_eq!(parse(many(10_000).as_bytes()).unwrap().len(), 10_000);
        let error = parse(many(10_001).as_bytes()).unwrap_err();
        assert!(!error.is_malformed());
        assert_eq!(error.to_string(), "line 10001: there are more than 10000 keys: split the file");
        assert_eq!(parse(b"A=\xff\nB='\xfe\n'").unwrap()["B"].expose(), b"\xfe\n", "any bytes");
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
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: ")) && error.contains(part), "{text:?}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
        // Raw values that begin as a key does: what stands before '=' is a piece of the value.
        for (text, part) in [
            ("canary-1=", "letters, digits"),
            ("X=1\nLD_canary=1", "reserved: it decides"),
            ("canary.x=y", "letters, digits"),
            (&format!("canary{}=1", "a".repeat(300)), "too long"),
            ("canary=1\0", "NUL byte"),
            (&format!("canary={}", "a".repeat(200_000)), "the kernel's limit"),
        ] {
            let error = variables(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("line ") && error.contains(part), "{text:.20}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
