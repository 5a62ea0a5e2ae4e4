//! A request to a store, and its body and headers, which are wiped after use.

use std::fmt;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use serde::Serialize;
use zeroize::Zeroizing;

use super::address;
use super::response::Response;
use crate::provider::{ErrorKind, ProviderError};
use crate::secret::SecretValue;

/// One request.
#[derive(Clone)]
pub struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    /// What is told of the path, if it is private.
    description: Option<&'static str>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    pub(super) is_throttling: Option<fn(&Response) -> bool>,
}

/// A header value that is wiped after use and marked sensitive.
///
/// # Errors
/// `Invalid` if the secret has bytes that no header can carry, such as a line's end; `what` names it.
pub fn secret_header(secret: &SecretValue, what: &str) -> Result<HeaderValue, ProviderError> {
    let bytes = Bytes::from_owner(Zeroizing::new(secret.expose().to_vec()));
    let mut value = HeaderValue::from_maybe_shared(bytes).map_err(|_| {
        ProviderError::new(ErrorKind::Invalid, format!("{what} has characters that no HTTP header can carry"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A bearer token's `Authorization` header (RFC 6750); `what` names it.
///
/// # Errors
/// As [`secret_header`].
pub fn bearer(token: &SecretValue, what: &str) -> Result<HeaderValue, ProviderError> {
    let mut value = Zeroizing::new(Vec::with_capacity(7 + token.len()));
    value.extend_from_slice(b"Bearer ");
    value.extend_from_slice(token.expose());
    secret_header(&SecretValue::new(std::mem::take(&mut *value)), what)
}

// === impl Call ===

impl Call {
    /// A request for `path` below the store's address; it is percent-encoded on its way.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            description: None,
            query: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            is_throttling: None,
        }
    }

    /// Tells this instead of the path, which has something in it that is nobody else's.
    #[must_use]
    pub fn described_as(self, description: &'static str) -> Self {
        Self { description: Some(description), ..self }
    }

    pub(super) fn described(&self) -> &str {
        self.description.unwrap_or(&self.path)
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Counts answers as throttling of which the store says so otherwise than by 429.
    #[must_use]
    pub fn throttled_if(self, is_throttling: fn(&Response) -> bool) -> Self {
        Self { is_throttling: Some(is_throttling), ..self }
    }

    /// Sets a JSON body, wiped after use.
    #[must_use]
    pub fn json(self, value: &impl Serialize) -> Self {
        self.body(to_json(value), "application/json")
    }

    /// Sets a body of form fields, wiped after use.
    #[must_use]
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        self.body(to_form(fields), "application/x-www-form-urlencoded")
    }

    /// Sets a body of that type, wiped after use.
    #[must_use]
    pub fn body(mut self, body: Zeroizing<Vec<u8>>, content_type: &'static str) -> Self {
        self.body = Bytes::from_owner(body);
        self.header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("method", &self.method).field("path", &self.described()).finish_non_exhaustive()
    }
}

pub(super) fn request(call: &Call, uri: Uri) -> hyper::Request<Full<Bytes>> {
    let mut request = hyper::Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("hushpod/", env!("CARGO_PKG_VERSION"))));
    headers.extend(call.headers.iter().cloned());
    request
}

/// JSON that is wiped after use.
pub(crate) fn to_json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // Room for a long token, so growing leaves no copy behind.
    let mut json = Zeroizing::new(Vec::with_capacity(8 * 1024));
    // Structs of text cannot fail to become JSON; if one did, the store would refuse the empty body.
    let _ = serde_json::to_writer(&mut *json, value);
    json
}

/// A form that is wiped after use.
fn to_form(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    // Room for the worst, so growing leaves no copy behind.
    let room = fields.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut form = Zeroizing::new(Vec::with_capacity(room));
    for (name, value) in fields {
        let separator = if form.is_empty() { "" } else { "&" };
        for part in [separator].into_iter().chain(address::encode(name)).chain(["="]).chain(address::encode(value)) {
            form.extend_from_slice(part.as_bytes());
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        for (fields, text) in [
            (
                [("scope", "https://vault.azure.net/.default"), ("x", "a b+c&d=ü")],
                "scope=https%3A%2F%2Fvault.azure.net%2F.default&x=a%20b%2Bc%26d%3D%C3%BC",
            ),
            (
                [("RoleArn", "arn:aws:iam::1:role/a+b c"), ("WebIdentityToken", "a.b-c_d")],
                "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa%2Bb%20c&WebIdentityToken=a.b-c_d",
            ),
        ] {
            assert_eq!(std::str::from_utf8(&to_form(&fields)).unwrap(), text);
        }
    }
}
