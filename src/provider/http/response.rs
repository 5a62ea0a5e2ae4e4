//! A store's whole answer, and what may be looked for in it.

use std::fmt;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// What the store answered, whatever its status. The body is wiped when dropped.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// `Retry-After` in seconds (RFC 9110, 10.2.3); its form with a date is passed over.
    pub retry_after: Option<Duration>,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// The frame of a refusal. JSON objects alone are frames: what is read into fields by their names, a list would fill by
/// their order.
#[must_use]
pub fn frame<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(body).ok()).flatten()
}

/// Whether a store's text has these words: it may hold a value, so it is only searched, and never passed on.
#[must_use]
pub fn contains_ignore_case(text: &[u8], words: &str) -> bool {
    text.windows(words.len()).any(|part| part.eq_ignore_ascii_case(words.as_bytes()))
}

// === impl Response ===

impl Response {
    /// The whole body, if it is JSON of that kind.
    #[must_use]
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the body has these words; see [`contains_ignore_case`].
    #[must_use]
    pub fn contains(&self, words: &str) -> bool {
        contains_ignore_case(&self.body, words)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}
