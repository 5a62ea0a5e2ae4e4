//! Permission bits of files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::parse_error::{ParseError, invalid};

/// Permission bits of a file, at most `0777`; written as an octal string such as `"0440"`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

// === impl FileMode ===

impl FileMode {
    /// Readable by its owner only.
    pub const OWNER: Self = Self(0o400);
    /// Readable by owner and group.
    pub const GROUP: Self = Self(0o440);
    /// Readable by everyone who has the volume mounted.
    pub const ALL: Self = Self(0o444);

    /// The bits for chmod(2).
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for FileMode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let octal = text.strip_prefix("0o").unwrap_or(text);
        let digits = (3..=4).contains(&octal.len()) && octal.bytes().all(|b| b.is_ascii_digit());
        match u32::from_str_radix(octal, 8) {
            Ok(bits) if digits && bits <= 0o777 && bits & 0o400 != 0 => Ok(Self(bits)),
            _ => Err(invalid("file mode", text, "octal digits that let the owner read, such as \"0440\"")),
        }
    }
}

impl TryFrom<String> for FileMode {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        mode.to_string()
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
