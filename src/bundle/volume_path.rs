//! Paths inside a volume.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::parse_error::{ParseError, rule};

/// A relative path of plain components: never empty, never leaving the volume, at most 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumePath(String);

// === impl VolumePath ===

impl VolumePath {
    /// The path as text, components separated by `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// `.`: the volume's own directory.
    #[must_use]
    pub fn root() -> Self {
        Self(".".to_owned())
    }

    /// This directory's file `name`.
    ///
    /// # Errors
    /// A sentence that says why `name` is not a file name, or that the path is too long.
    pub fn join(&self, name: &str) -> Result<Self, ParseError> {
        if name.contains('/') {
            return Err(rule(format!("{name:?} has a '/', which no file name has")));
        }
        if self.0 == "." { name.parse() } else { format!("{}/{name}", self.0).parse() }
    }
}

impl FromStr for VolumePath {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() || text.starts_with('/') {
            return Err(rule(format!("{text:?} is not a relative path inside the volume")));
        }
        if text.len() > 4096 {
            return Err(rule("a path has at most 4096 bytes"));
        }
        for name in text.split('/') {
            let problem = match name {
                "" => "has an empty component",
                "." => "has a component '.'",
                // The volume's own names (`..data` and generations) begin with two dots.
                name if name.starts_with("..") => "leaves the volume or begins with '..', which the volume needs",
                name if name.len() > 255 => "has a component of more than 255 bytes",
                name if name.chars().any(char::is_control) => "has a control character",
                _ => continue,
            };
            return Err(rule(format!("{text:?} {problem}")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for VolumePath {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        if text == "." { Ok(Self::root()) } else { text.parse() }
    }
}

impl From<VolumePath> for String {
    fn from(path: VolumePath) -> Self {
        path.0
    }
}

impl fmt::Display for VolumePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
