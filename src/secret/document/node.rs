//! What readers of documents share: a document's parts, its bounds, and what is wrong with one.

use std::fmt;

use crate::secret::SecretValue;

/// Most bytes of a document: what etcd, and so a Kubernetes Secret, takes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Most values, lists and maps in a document together. Each costs about 200 bytes, and an agent has 32 MiB for all it holds.
pub(crate) const MAX_VALUES: usize = 10_000;
/// How deep a document may be nested. The agent hands trees over as JSON with two levels for each of these, and JSON's
/// own reader stops at 128.
pub(crate) const MAX_DEPTH: usize = 60;

/// A document, or a part of one. Not a [`crate::secret::SecretTree`] yet: keys are in their order, and nothing is said about types.
#[derive(Clone)]
pub(crate) enum Node {
    /// A number of JSON, `true`, `false` or `null`.
    Literal(SecretValue),
    /// A scalar of YAML without quotes.
    Plain(SecretValue),
    /// Text in quotes, or otherwise marked as text.
    Text(SecretValue),
    /// Bytes that were written as base64 (YAML's `!!binary`).
    Bytes(SecretValue),
    /// A list.
    List(Vec<Node>),
    /// Keys, each once, and their values.
    Map(Fields),
}

/// A document's keys and values.
pub(crate) type Fields = Vec<(String, Node)>;

/// Why text is not a document that can be read here, and where. Never what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct DocumentError {
    problem: String,
    is_malformed: bool,
}

/// A place in a text, both counted from one; columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextPlace {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// What a reader may still take.
pub(super) struct Budget {
    values: usize,
    bytes: usize,
}

/// Text of a document without the byte-order mark that editors of Windows put there, within the bounds.
///
/// # Errors
/// [`DocumentError`] if it is too large or no text.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, DocumentError> {
    if bytes.len() > MAX_BYTES {
        return Err(DocumentError::refused(format!("has more than {MAX_BYTES} bytes")));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).and_then(|good| std::str::from_utf8(good).ok());
        DocumentError::malformed(format_args!("is not UTF-8 at {}", TextPlace::behind(before.unwrap_or_default())))
    })
}

/// Whether text is a number of JSON (RFC 8259, 6).
pub(super) fn is_json_number(text: &str) -> bool {
    fn digits(text: &str) -> Option<&str> {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        (rest.len() < text.len()).then_some(rest)
    }
    let number = || {
        let text = text.strip_prefix('-').unwrap_or(text);
        let rest = text.strip_prefix('0').or_else(|| digits(text))?;
        let rest = if let Some(fraction) = rest.strip_prefix('.') { digits(fraction)? } else { rest };
        match rest.strip_prefix(['e', 'E']) {
            Some(exponent) => digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
            None => Some(rest),
        }
    };
    number() == Some("")
}

// === impl DocumentError ===

impl DocumentError {
    pub(super) fn malformed(problem: impl fmt::Display) -> Self {
        Self { problem: problem.to_string(), is_malformed: true }
    }

    pub(super) fn refused(problem: impl fmt::Display) -> Self {
        Self { problem: problem.to_string(), is_malformed: false }
    }

    /// Whether the text is of another format, or only the beginning of a document: it may be half of a write. What is
    /// refused otherwise, such as a key that stands there twice, will not be put right by waiting.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.is_malformed
    }
}

// === impl TextPlace ===

impl TextPlace {
    /// Where the character behind this beginning of a text stands.
    pub(super) fn behind(beginning: &str) -> Self {
        let line = beginning.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = beginning.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column }
    }
}

impl fmt::Display for TextPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(text: &str) -> Self {
        Self { values: MAX_VALUES, bytes: MAX_BYTES - text.len().min(MAX_BYTES) }
    }

    /// Takes values, and bytes that do not stand in the text.
    pub(super) fn take(&mut self, values: usize, bytes: usize) -> Result<(), DocumentError> {
        let left = (self.values.checked_sub(values), self.bytes.checked_sub(bytes));
        let (Some(values), Some(bytes)) = left else {
            return Err(DocumentError::refused(match left.0 {
                None => format!("has more than {MAX_VALUES} values: split it"),
                Some(_) => format!("has more than {MAX_BYTES} bytes with its aliases written out"),
            }));
        };
        *self = Self { values, bytes };
        Ok(())
    }
}

// === impl Node ===

impl Node {
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}
