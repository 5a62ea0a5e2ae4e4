//! What Infisical's refusals mean, in our own words.
//!
//! Its text may hold a value, so that it is only searched for words that tell cases apart, and never passed on.

use std::time::Duration;

use serde::Deserialize;

use super::limits::reset;
use crate::provider::ErrorKind;
use crate::provider::http::{Failure, Response, Scope, says};

/// The frame of every error. What else is in it is not looked at.
#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    error: String,
}

/// The name of the error in the answer's frame.
fn is_error(response: &Response, name: &str) -> bool {
    serde_json::from_slice::<Complaint>(&response.body).is_ok_and(|complaint| complaint.error == name)
}

/// Whether the server does not know the path itself, rather than what it names: it is older or newer than we thought.
pub(super) fn is_unknown_route(response: &Response) -> bool {
    response.status.as_u16() == 404 && is_error(response, "Not Found") && says(&response.body, "Route ")
}

/// Whether another login would help: 401, and 403 for a token that has expired or is malformed. Other 403 are about
/// rights, which no login changes.
pub(super) fn is_about_token(response: &Response) -> bool {
    match response.status.as_u16() {
        // Older servers say this of requests that they do not understand.
        401 => !is_error(response, "ValidationFailure"),
        403 => is_error(response, "TokenError"),
        _ => false,
    }
}

/// What an answer means that is no success; `who` is the identity, `what` names the call.
pub(super) fn refused(response: &Response, address: &dyn std::fmt::Display, who: &str, what: &str) -> Failure {
    if let Some(throttled) = throttled(response, address) {
        return throttled;
    }
    if is_about_token(response) {
        let message = format!("{address} does not accept the login of {who} at {what}: it has ended or was revoked");
        return Failure::new(ErrorKind::Denied, message).with(Scope::Session);
    }
    let status = response.status.as_u16();
    let (kind, message) = match status {
        400 if says(&response.body, "plan") => {
            (ErrorKind::Invalid, format!("{what}: the plan of this Infisical does not have that feature"))
        }
        400 | 401 | 422 => (
            ErrorKind::Invalid,
            format!("{what} is refused as a bad request ({status}): check project, environment and parameters"),
        ),
        403 => (
            ErrorKind::Denied,
            format!(
                "{what} is denied to {who}: a role of that identity in the project must allow to read the values of \
                 the secrets there, and of those that they refer to"
            ),
        ),
        404 => (ErrorKind::NotFound, format!("{what} does not exist, or {who} is no member of the project")),
        _ => (ErrorKind::Unavailable, format!("{address} fails at {what} with status {status}: see its log")),
    };
    Failure::new(kind, message)
}

/// A wish for patience: 429, and whatever else comes with `Retry-After` (some servers say 500 when a limit is reached).
pub(super) fn throttled(response: &Response, address: &dyn std::fmt::Display) -> Option<Failure> {
    let status = response.status.as_u16();
    if status < 400 || (status != 429 && response.retry_after.is_none()) {
        return None;
    }
    let retry_after = response.retry_after.or_else(|| reset(response));
    let message = format!("{address} asks for patience ({status}): the rate limit of this network address is used up");
    Some(Failure::new(ErrorKind::Throttled { retry_after }, message).with(Scope::Store))
}

/// How long a lock-out takes after wrong secrets, where an administrator did not choose otherwise.
const LOCK_OUT: Duration = Duration::from_mins(5);

/// A login that was refused, and how long trying again is of no use: a third wrong secret within half a minute locks
/// the identity out.
pub(super) fn login_refused(
    response: &Response,
    address: &dyn std::fmt::Display,
    who: &str,
    method: &str,
) -> (Failure, Duration) {
    let says = |words| says(&response.body, words);
    let hold = Duration::from_secs(25);
    let told = |hint: &str| {
        Failure::new(ErrorKind::Denied, format!("{address} refuses the {method} login of {who}: {hint}"))
            .with(Scope::Store)
    };
    if is_unknown_route(response) {
        return (told("it has no such login: check the address, and the method"), hold);
    }
    if says("lock") {
        return (told("it is locked for a while after wrong secrets: check the client id and secret"), LOCK_OUT);
    }
    let hint = if says("expired") {
        "the token or secret has expired: check the clocks"
    } else if says("audience") {
        "the token has another audience than the identity allows: make its allowed audience and the provider's the same"
    } else if says("namespace") {
        "its auth does not allow this pod's namespace"
    } else if says("name not") || says("subject") {
        "its auth does not allow this pod's service account"
    } else if method == "universal" {
        "the client id or the client secret is wrong, has expired or is used up"
    } else {
        "check that the identity exists (the role is its id), has that auth method, and allows this pod's namespace, \
         service account and audience"
    };
    (told(hint), hold)
}
