//! Vault's refusals, in our own words.
//!
//! Vault's text may hold a value, so it is only searched for words that tell cases apart, and never passed on.

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::provider::http::{Address, Failure, Response, Scope, frame};
use crate::secret::SecretValue;

/// What Vault puts around a refusal: a list of texts; around a version that is gone, what it was.
#[derive(Deserialize)]
struct Frame {
    errors: Option<Vec<SecretValue>>,
    request_id: Option<IgnoredAny>,
    renewable: Option<bool>,
}

/// A refusal that is not Vault's own: something in front of it answers in its place, so it tells nothing about what
/// was asked for, and least of all that it does not exist.
pub(super) fn foreign(response: &Response, address: &Address, what: &str) -> Option<Failure> {
    let status = response.status;
    if !matches!(status.as_u16(), 400..=411) {
        return None;
    }
    let is_own = frame::<Frame>(&response.body)
        .is_some_and(|frame| frame.errors.is_some() || (frame.request_id.is_some() && frame.renewable.is_some()));
    (!is_own).then(|| {
        Failure::unavailable(format!(
            "{address} answers {what} with a {} that is not Vault's: check address, and what stands in front of Vault",
            status.as_u16()
        ))
    })
}

/// What a status means that has nothing to do with what was asked for; `address` and `what` name the call.
///
/// <https://developer.hashicorp.com/vault/api-docs#http-status-codes>
pub(super) fn store_failure(response: &Response, address: &Address, what: &str) -> Failure {
    let sealed = response.contains("sealed");
    let inactive = response.contains("not active") || response.contains("no active");
    let (scope, problem) = match response.status.as_u16() {
        429 => {
            let message = format!("{address} asks for patience (429) at {what}: a quota is used up");
            return Failure::throttled(response, message);
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
    Failure::unavailable(message).with(scope)
}

/// `OpenBao`'s words for a namespace that it does not have.
pub(super) const NO_NAMESPACE: &str = "namespace not found";

/// Why a login was refused, told as what an administrator can check.
pub(super) fn login_refused(response: &Response, mount: &str, role: Option<&str>) -> Failure {
    let role = role.map_or_else(|| "the default role".to_owned(), |role| format!("role {role:?}"));
    let has = |words| response.contains(words);
    if has("fetching keys") {
        let message =
            format!("login at auth/{mount} is not possible now: Vault cannot fetch the keys that sign tokens");
        return Failure::unavailable(message);
    }
    let hint = if has(NO_NAMESPACE) {
        "there is no such namespace: check the provider's namespace".to_owned()
    } else if has("invalid role name") || has("could not be found") {
        "there is no such role there".to_owned()
    } else if has("service account name not authorized") {
        "the role is not bound to this pod's service account".to_owned()
    } else if has("namespace not authorized") {
        "the role is not bound to this pod's namespace".to_owned()
    } else if has("audience") {
        "the token has another audience than the role wants: make the role's audience and the provider's the same"
            .to_owned()
    } else if has("token is expired") || has("(exp)") {
        "the token has expired: check the clocks".to_owned()
    } else if has("(sub)") || has("error validating claims") {
        "the role is not bound to this pod's service account (subject or claims)".to_owned()
    } else if has("could not load") {
        format!("auth/{mount} is not configured")
    } else if has("invalid role or secret id") {
        "the role id or the secret id is wrong, or used up".to_owned()
    } else {
        format!(
            "check that auth/{mount} exists and can review tokens, that the role is bound to this pod's service \
             account and namespace, and that it wants this provider's audience"
        )
    };
    Failure::denied(format!("login at auth/{mount} as {role} is refused: {hint}"))
}

/// Whether a login with this status was refused, rather than not dealt with.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403 | 404)
}
