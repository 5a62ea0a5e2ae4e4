//! Calls, and what every answer to one has in common.

use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use super::api_types::{Auth, Envelope};
use super::errors::{foreign, store_failure};
use crate::provider::http::{Call, Client, Failure, Response, secret_header};
use crate::secret::{DocumentError, SecretTree, SecretValue};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Vault refuses requests without it where an agent is told to, against request forgery.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// One Vault, and the token held there.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) namespace: Option<String>,
    pub(super) token: Option<SecretValue>,
}

// === impl Api ===

impl Api {
    /// A call with the login's token.
    pub(super) fn call(&self, method: Method, path: &str) -> Result<Call, Failure> {
        match &self.token {
            Some(token) => self.call_as(method, path, token),
            None => self.anonymous_call(method, path),
        }
    }

    pub(super) fn call_as(&self, method: Method, path: &str, token: &SecretValue) -> Result<Call, Failure> {
        Ok(self.anonymous_call(method, path)?.header(TOKEN, secret_header(token, "Vault token")?))
    }

    pub(super) fn anonymous_call(&self, method: Method, path: &str) -> Result<Call, Failure> {
        let call = Call::new(method, format!("v1/{path}")).header(REQUEST, HeaderValue::from_static("true"));
        let Some(namespace) = &self.namespace else { return Ok(call) };
        let value =
            HeaderValue::from_str(namespace).map_err(|_| Failure::invalid("namespace cannot be sent in a header"))?;
        Ok(call.header(NAMESPACE, value))
    }

    /// Sends a call. A refusal that is not Vault's own is a failure of whatever stands in front of it.
    pub(super) async fn send(&self, call: Call, what: &str) -> Result<Response, Failure> {
        let response = self.client.send(call).await?;
        match foreign(&response, self.client.address(), what) {
            Some(failure) => Err(failure),
            None => Ok(response),
        }
    }

    pub(super) fn store_failure(&self, response: &Response, what: &str) -> Failure {
        store_failure(response, self.client.address(), what)
    }

    pub(super) fn garbage(&self, what: &str) -> Failure {
        Failure::garbage(self.client.address(), what, "Vault's")
    }

    /// It is JSON, and cannot be taken.
    pub(super) fn unusable(&self, what: &str, error: &DocumentError) -> Failure {
        Failure::invalid(format!("{} answers {what} with a document that {error}", self.client.address()))
    }

    /// The frame of a successful answer.
    pub(super) fn parse<'a>(&self, response: &'a Response, what: &str) -> Result<Envelope<'a>, Failure> {
        if response.status.as_u16() != 200 {
            return Err(self.store_failure(response, what));
        }
        response.parse().ok_or_else(|| self.garbage(what))
    }

    /// What a login, or its renewal, brought.
    pub(super) fn parse_auth(&self, response: &Response, what: &str) -> Result<Auth, Failure> {
        self.parse(response, what)?.auth.ok_or_else(|| self.garbage(what))
    }

    /// What an answer to a question about the token says.
    pub(super) fn parse_data(&self, response: &Response, what: &str) -> Result<Option<SecretTree>, Failure> {
        self.parse(response, what)?.data().map_err(|error| self.unusable(what, &error))
    }
}
