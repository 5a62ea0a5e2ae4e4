//! What Vault's refusals mean, in our own words.
//!
//! Vault's text may hold a value, so that it is only searched for words that tell cases apart, and never passed on.

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::provider::http::{Failure, Response, Scope, frame, says};
use crate::provider::{ErrorKind, ProviderError};
use crate::secret::SecretValue;

/// What Vault puts around a refusal: a list of texts; around a version that is gone, what it was.
#[derive(Deserialize)]
struct Frame {
    errors: Option<Vec<SecretValue>>,
    request_id: Option<IgnoredAny>,
    renewable: Option<bool>,
}

/// A refusal that is not Vault's own: something in front of it answers in its place, so that it tells nothing about what
/// was asked for, and least of all that it does not exist.
pub(super) fn foreign(response: &Response, address: &dyn std::fmt::Display, what: &str) -> Option<Failure> {
    let status = response.status;
    if !matches!(status.as_u16(), 400..=411) {
        return None;
    }
    let is_own = frame::<Frame>(&response.body)
        .is_some_and(|frame| frame.errors.is_some() || (frame.request_id.is_some() && frame.renewable.is_some()));
    (!is_own).then(|| {
        let message = format!(
            "{address} answers {what} with a {} that is not Vault's: check address, and what stands in front of Vault",
            status.as_u16()
        );
        Failure::new(ErrorKind::Unavailable, message)
    })
}

/// What a status means that has nothing to do with what was asked for; `address` and `what` name the call.
///
/// <https://developer.hashicorp.com/vault/api-docs#http-status-codes>
pub(super) fn store_failure(response: &Response, address: &dyn std::fmt::Display, what: &str) -> Failure {
    let sealed = says(&response.body, "sealed");
    let inactive = says(&response.body, "not active") || says(&response.body, "no active");
    let (scope, problem) = match response.status.as_u16() {
        429 => {
            let kind = ErrorKind::Throttled { retry_after: response.retry_after };
            return Failure::new(kind, format!("{address} asks for patience (429) at {what}: a quota is used up"));
        }
        412 => (Scope::Call, "has not yet replicated what this login needs (412)"),
        472 | 473 => (Scope::Store, "is a standby that does not answer reads: set an address of the active node"),
        501 => (Scope::Store, "is not initialized"),
        503 if sealed => (Scope::Store, "is sealed: unseal it"),
        503 if inactive => (Scope::Store, "has no active node"),
        503 => (Scope::Call, "is overloaded or in maintenance (503)"),
        _ => (Scope::Call, ""),
    };
    let message = if problem.is_empty() {
        format!("{address} fails at {what} with status {}: see Vault's log", response.status.as_u16())
    } else {
        format!("{address} {problem}")
    };
    Failure { scope, error: ProviderError::new(ErrorKind::Unavailable, message) }
}

/// `OpenBao`'s words for a namespace that it does not have.
pub(super) const NO_NAMESPACE: &str = "namespace not found";

/// Why a login was refused, told as what an administrator can check.
pub(super) fn login_refused(response: &Response, mount: &str, role: Option<&str>) -> Failure {
    let role = role.map_or_else(|| "the default role".to_owned(), |role| format!("role {role:?}"));
    let says = |words| says(&response.body, words);
    if says("fetching keys") {
        let message =
            format!("login at auth/{mount} is not possible now: Vault cannot fetch the keys that sign tokens");
        return Failure::new(ErrorKind::Unavailable, message);
    }
    let hint = if says(NO_NAMESPACE) {
        "there is no such namespace: check the provider's namespace".to_owned()
    } else if says("invalid role name") || says("could not be found") {
        "there is no such role there".to_owned()
    } else if says("service account name not authorized") {
        "the role is not bound to this pod's service account".to_owned()
    } else if says("namespace not authorized") {
        "the role is not bound to this pod's namespace".to_owned()
    } else if says("audience") {
        "the token has another audience than the role wants: make the role's audience and the provider's the same"
            .to_owned()
    } else if says("token is expired") || says("(exp)") {
        "the token has expired: check the clocks".to_owned()
    } else if says("(sub)") || says("error validating claims") {
        "the role is not bound to this pod's service account (subject or claims)".to_owned()
    } else if says("could not load") {
        format!("auth/{mount} is not configured")
    } else if says("invalid role or secret id") {
        "the role id or the secret id is wrong, or used up".to_owned()
    } else {
        format!(
            "check that auth/{mount} exists and can review tokens, that the role is bound to this pod's service \
             account and namespace, and that it wants this provider's audience"
        )
    };
    Failure::new(ErrorKind::Denied, format!("login at auth/{mount} as {role} is refused: {hint}"))
}

/// Whether a login with this status was refused, rather than not dealt with.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403 | 404)
}
