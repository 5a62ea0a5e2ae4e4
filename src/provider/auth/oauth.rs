//! Answers of authorization servers (RFC 6749), read straight into the types that keep secrets.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::provider::http::{Address, Call, Client, Failure, Response, frame};
use crate::provider::session::{Renewal, Token};
use crate::secret::SecretValue;

/// RFC 6749, 5.1.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretValue,
    #[serde(default)]
    expires_in: Option<Whole>,
}

/// RFC 6749, 5.2. Its description is free text, so it is not even read.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

/// A whole number, which some servers write as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Whole(pub u64);

/// Asks an authorization server for a token. What is not a 200 is a refusal, and `refused` says what it means.
///
/// # Errors
/// That, or `Unavailable` if there is no answer, or no token in it.
pub async fn ask_for_token(
    client: &Client,
    call: Call,
    refused: impl FnOnce(&Response) -> Failure,
) -> Result<Token, Failure> {
    let response = client.send(call).await?;
    match response.status.as_u16() {
        200 => parse_token(&response, client.address()),
        _ => Err(refused(&response)),
    }
}

/// Tells people of a login at this service.
pub fn tell_login(service: &str, provider: &str, method: impl fmt::Display, token: &Token) {
    let life_seconds = token.life().map(|life| life.as_secs());
    tracing::info!(provider, method = method.to_string(), life_seconds, "logged in to {service}");
}

/// The access token in a successful answer of the server at `address`.
///
/// # Errors
/// `Unavailable` if there is none in it.
pub fn parse_token(response: &Response, address: &Address) -> Result<Token, Failure> {
    let token = parse(&response.body);
    token.ok_or_else(|| no_token(address))
}

/// A success without what it should bring.
#[must_use]
pub fn no_token(address: &Address) -> Failure {
    Failure::unavailable(format!("{address} answers the login with something that has no token in it"))
}

fn parse(body: &[u8]) -> Option<Token> {
    let TokenAnswer { access_token, expires_in } = serde_json::from_slice(body).ok()?;
    let life = expires_in.map(|Whole(seconds)| Duration::from_secs(seconds));
    (!access_token.is_empty()).then(|| Token::new(access_token, life, Renewal::Never))
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
            let token = parse(body.as_bytes()).unwrap();
            assert_eq!(token.value, "canary".into());
            let found = token.life().map(|life| life.as_secs_f64());
            assert!(found.zip(life).is_none_or(|(found, life)| (found - f64::from(life)).abs() < 5.0), "{body}");
            assert_eq!(found.is_some(), life.is_some(), "{body}");
        }
        for body in ["", "{}", r#"{"access_token":""}"#, r#"{"access_token":"canary","expires_in":-1}"#, "canary"] {
            assert!(parse(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn refusals_have_a_code() {
        assert_eq!(error_code(br#"{"error":"invalid_grant","error_description":"canary"}"#), "invalid_grant");
        assert_eq!(error_code(b"<html>"), "");
    }
}
