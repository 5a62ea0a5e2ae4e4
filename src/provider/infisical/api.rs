//! Calls, and what every answer to one has in common.

use std::sync::Arc;

use hyper::Method;
use hyper::header::AUTHORIZATION;
use serde::Deserialize;

use super::errors::{refused, throttled};
use super::limits::{Kind, Limits};
use crate::provider::http::{Call, Client, Failure, Response, bearer};
use crate::secret::SecretValue;

/// One Infisical, and the token held there.
#[derive(Debug)]
pub(super) struct Api {
    /// Shared with the subscription to events.
    pub(super) client: Arc<Client>,
    pub(super) limits: Limits,
    pub(super) token: Option<SecretValue>,
    /// Whom we act as, for messages.
    pub(super) who: String,
}

/// A call with this token.
pub(super) fn call_as(method: Method, path: impl Into<String>, token: &SecretValue) -> Result<Call, Failure> {
    Ok(Call::new(method, path).header(AUTHORIZATION, bearer(token, "access token")?))
}

// === impl Api ===

impl Api {
    /// Sends a call, unless the server would refuse it for its number.
    pub(super) async fn send(&mut self, kind: Kind, call: Call) -> Result<Response, Failure> {
        self.limits.check(kind, self.client.address())?;
        let response = self.client.send(call).await?;
        self.limits.note(kind, &response);
        Ok(response)
    }

    /// A call with the login's token.
    pub(super) fn call(&self, method: Method, path: impl Into<String>) -> Result<Call, Failure> {
        match &self.token {
            Some(token) => call_as(method, path, token),
            None => Ok(Call::new(method, path)),
        }
    }

    pub(super) fn refused(&self, response: &Response, what: &str) -> Failure {
        refused(response, self.client.address(), &self.who, what)
    }

    pub(super) fn garbage(&self, what: &str) -> Failure {
        Failure::garbage(self.client.address(), what, "Infisical's")
    }

    /// What a 200 says; any other status is an error.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&self, response: &'a Response, what: &str) -> Result<T, Failure> {
        if response.status.as_u16() != 200 || throttled(response, self.client.address()).is_some() {
            return Err(self.refused(response, what));
        }
        response.parse().ok_or_else(|| self.garbage(what))
    }
}
