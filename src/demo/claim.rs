//! The claims that the demo checks.

use serde::Serialize;
use serde_json::Value;

/// One thing that the demo set out to show.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// What is claimed.
    pub claim: String,
    /// Whether it was seen to hold.
    pub holds: bool,
    /// What was seen.
    pub seen: String,
}

/// The text at a JSON pointer; empty if there is none.
pub(super) fn pointer<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}
