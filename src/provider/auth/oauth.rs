//! What authorization servers answer (RFC 6749), read straight into the types that keep secrets.

use std::fmt::Write;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::bearer::Bearer;
use crate::provider::http::frame;
use crate::secret::SecretValue;

/// `application/x-www-form-urlencoded`.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// RFC 6749, 5.1.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretValue,
    #[serde(default)]
    expires_in: Option<Whole>,
}

/// RFC 6749, 5.2. Its description is free text, so that it is not even read.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

/// A whole number, which some servers write as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Whole(pub u64);

/// The access token in a successful answer; `None` if there is none in it.
#[must_use]
pub fn parse_token(body: &[u8]) -> Option<Bearer> {
    let TokenAnswer { access_token, expires_in } = serde_json::from_slice(body).ok()?;
    let life = expires_in.map(|Whole(seconds)| Duration::from_secs(seconds));
    (!access_token.is_empty()).then(|| Bearer::new(access_token, life))
}

/// The error code in a refusal, to be compared with the ones that are known; empty if there is none.
#[must_use]
pub fn error_code(body: &[u8]) -> String {
    let code = frame::<ErrorAnswer>(body).map(|answer| answer.error).unwrap_or_default();
    if is_error_code(&code) { code } else { String::new() }
}

/// Whether this is a code such as `invalid_grant`, and not what something in front of the server calls an error.
#[must_use]
pub fn is_error_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// A form, wiped after use.
#[must_use]
pub fn form(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    // Room for the worst, so that growing leaves no copy behind.
    let room = fields.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut text = Zeroizing::new(String::with_capacity(room));
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        encode(&mut text, name);
        text.push('=');
        encode(&mut text, value);
    }
    Zeroizing::new(std::mem::take(&mut *text).into_bytes())
}

fn encode(into: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

// === impl Whole ===

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;

        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Whole, E> {
                value.parse().map(Whole).map_err(|_| E::custom("not a whole number"))
            }
        }

        deserializer.deserialize_any(WholeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_whatever_way_their_life_is_written() {
        for (body, life) in [
            (r#"{"access_token":"canary","expires_in":3599,"token_type":"Bearer"}"#, Some(3599)),
            (r#"{"access_token":"canary","expires_in":"86399","expires_on":"1506484173"}"#, Some(86_399)),
            (r#"{"access_token":"canary"}"#, None),
        ] {
            let bearer = parse_token(body.as_bytes()).unwrap();
            assert_eq!(bearer.token(), &"canary".into());
            let found = bearer.life().map(|life| life.as_secs_f64());
            assert!(found.zip(life).is_none_or(|(found, life)| (found - f64::from(life)).abs() < 5.0), "{body}");
            assert_eq!(found.is_some(), life.is_some(), "{body}");
        }
        for body in ["", "{}", r#"{"access_token":""}"#, r#"{"access_token":"canary","expires_in":-1}"#, "canary"] {
            assert!(parse_token(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn forms_are_encoded() {
        let body = form(&[("scope", "https://vault.azure.net/.default"), ("x", "a b+c&d=ü")]);
        let text = "scope=https%3A%2F%2Fvault.azure.net%2F.default&x=a%20b%2Bc%26d%3D%C3%BC";
        assert_eq!(std::str::from_utf8(&body).unwrap(), text);
    }

    #[test]
    fn refusals_have_a_code() {
        assert_eq!(error_code(br#"{"error":"invalid_grant","error_description":"canary"}"#), "invalid_grant");
        assert_eq!(error_code(b"<html>"), "");
    }
}
