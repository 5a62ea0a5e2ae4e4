//! JSON (RFC 8259), read without turning a number into anything but its own text.

use std::borrow::Cow;
use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::node::{Budget, DocumentError, Fields, MAX_DEPTH, Node, TextPlace, is_json_number};

/// Reads one value and nothing behind it.
pub(super) fn read(text: &str) -> Result<Node, DocumentError> {
    let mut reader = JsonReader { text, at: 0, depth: 0, budget: Budget::new(text) };
    let node = reader.value()?;
    reader.skip_blanks();
    if reader.at < text.len() { Err(reader.malformed()) } else { Ok(node) }
}

struct JsonReader<'a> {
    text: &'a str,
    /// How many bytes are behind us; always between two characters.
    at: usize,
    depth: usize,
    budget: Budget,
}

/// The character that one behind a `\` stands for, if it stands for one.
fn unescaped(byte: u8) -> Option<char> {
    Some(match byte {
        b'"' | b'\\' | b'/' => char::from(byte),
        b'b' => '\x08',
        b'f' => '\x0c',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    })
}

// === impl JsonReader ===

impl<'a> JsonReader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Whether `byte` is next; if so, it is behind us now.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn place(&self) -> TextPlace {
        TextPlace::behind(self.text.get(..self.at).unwrap_or_default())
    }

    fn malformed(&self) -> DocumentError {
        DocumentError::malformed(format_args!("is not JSON at {}", self.place()))
    }

    fn refused(&self, problem: &str) -> DocumentError {
        DocumentError::refused(format_args!("{problem} at {}", self.place()))
    }

    fn value(&mut self) -> Result<Node, DocumentError> {
        self.skip_blanks();
        self.budget.take(1, 0)?;
        match self.peek() {
            Some(b'{') => self.nested(Self::map),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => self.string().map(|text| Node::Text(text.into_owned().into())),
            _ => self.bare(),
        }
    }

    fn nested(&mut self, inside: fn(&mut Self) -> Result<Node, DocumentError>) -> Result<Node, DocumentError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.refused(&format!("is nested more than {MAX_DEPTH} deep")));
        }
        self.at += 1;
        self.skip_blanks();
        let node = inside(self);
        self.depth -= 1;
        node
    }

    fn list(&mut self) -> Result<Node, DocumentError> {
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Node::List(items));
        }
        loop {
            items.push(self.value()?);
            self.skip_blanks();
            if self.take(b']') {
                return Ok(Node::List(items));
            }
            if !self.take(b',') {
                return Err(self.malformed());
            }
        }
    }

    fn map(&mut self) -> Result<Node, DocumentError> {
        let mut fields = Fields::new();
        let mut names = BTreeSet::new();
        if self.take(b'}') {
            return Ok(Node::Map(fields));
        }
        loop {
            self.skip_blanks();
            let start = self.at;
            let name = self.string()?;
            if !names.insert(name.clone()) {
                self.at = start;
                return Err(self.refused("has the same key twice"));
            }
            self.skip_blanks();
            if !self.take(b':') {
                return Err(self.malformed());
            }
            fields.push((name.into_owned(), self.value()?));
            self.skip_blanks();
            if self.take(b'}') {
                return Ok(Node::Map(fields));
            }
            if !self.take(b',') {
                return Err(self.malformed());
            }
        }
    }

    /// A number or a word.
    fn bare(&mut self) -> Result<Node, DocumentError> {
        let rest = self.rest();
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let end = rest.bytes().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let (token, _) = rest.split_at_checked(end).unwrap_or_default();
        if matches!(token, "null" | "true" | "false") || is_json_number(token) {
            self.at += token.len();
            return Ok(Node::Literal(token.into()));
        }
        Err(self.malformed())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, DocumentError> {
        if !self.take(b'"') {
            return Err(self.malformed());
        }
        let text = self.run();
        self.at += text.len();
        if self.take(b'"') { Ok(Cow::Borrowed(text)) } else { self.escaped(text).map(Cow::Owned) }
    }

    /// The characters up to one that stands for something else.
    fn run(&self) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    }

    /// The rest of a string with escapes in it.
    fn escaped(&mut self, beginning: &str) -> Result<String, DocumentError> {
        // No string is longer than it is written, so this never grows and leaves no copy behind.
        let mut out = Zeroizing::new(String::with_capacity(beginning.len() + self.length()));
        out.push_str(beginning);
        while !self.take(b'"') {
            if !self.take(b'\\') {
                return Err(self.malformed());
            }
            let char = match self.peek() {
                Some(b'u') => self.unicode()?,
                Some(byte) => unescaped(byte).ok_or_else(|| self.malformed())?,
                None => return Err(self.malformed()),
            };
            self.at += 1;
            out.push(char);
            let run = self.run();
            out.push_str(run);
            self.at += run.len();
        }
        Ok(std::mem::take(&mut *out))
    }

    /// How many bytes stand before the string's end.
    fn length(&self) -> usize {
        let mut is_escaped = false;
        let end = self.rest().bytes().position(|byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        end.unwrap_or_default()
    }

    /// The character of `uXXXX`, or of `uXXXX\uXXXX` where it takes two; its last digit is next afterwards.
    fn unicode(&mut self) -> Result<char, DocumentError> {
        const HALF: &str = "has half of a character (an unpaired surrogate)";
        let start = self.at;
        let high = self.unit()?;
        if let Some(char) = char::from_u32(high) {
            return Ok(char);
        }
        let is_pair = self.rest().get(1..).is_some_and(|next| next.starts_with("\\u"));
        if is_pair && (0xd800..0xdc00).contains(&high) {
            self.at += 2;
            let low = self.unit()?;
            if (0xdc00..0xe000).contains(&low) {
                let char = char::from_u32(0x1_0000 + ((high - 0xd800) << 10 | (low - 0xdc00)));
                return char.ok_or_else(|| self.malformed());
            }
        }
        self.at = start;
        Err(self.refused(HALF))
    }

    /// Four hexadecimal digits behind a `u`; the last of them is next afterwards.
    fn unit(&mut self) -> Result<u32, DocumentError> {
        let digits = self.rest().get(1..5).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(|| self.malformed())?;
        self.at += 4;
        Ok(unit)
    }
}
