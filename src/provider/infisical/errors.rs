//! Infisical's refusals, in our own words.
//!
//! Its text may hold a value, so it is only searched for words that tell cases apart, and never passed on.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::limits::reset;
use super::settings::Method;
use crate::provider::ErrorKind;
use crate::provider::http::{Address, Failure, Response, Scope, frame};

/// The frame of every error, as servers of all years write it. What else is in it is not looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody {
    error: String,
    status_code: Option<IgnoredAny>,
    req_id: Option<IgnoredAny>,
}

// === impl ErrorBody ===

impl ErrorBody {
    /// `None` if this is not Infisical's, but something's in front of it, or its own web pages'.
    fn of(response: &Response) -> Option<Self> {
        frame::<Self>(&response.body).filter(|body| body.status_code.is_some() || body.req_id.is_some())
    }
}

/// Whether the error's name is this one.
fn is_error(response: &Response, name: &str) -> bool {
    ErrorBody::of(response).is_some_and(|body| body.error == name)
}

/// Whether the server does not know the path itself, rather than what it names: it is older or newer than we thought.
/// A server that has its web pages in the same image (2024) shows one of those instead.
pub(super) fn is_unknown_route(response: &Response) -> bool {
    let is_said = || is_error(response, "Not Found") && response.contains("Route ");
    response.status.as_u16() == 404 && (ErrorBody::of(response).is_none() || is_said())
}

/// Whether an answer is of Infisical's API at all.
pub(super) fn is_infisicals(response: &Response) -> bool {
    ErrorBody::of(response).is_some()
}

/// Whether the answer itself says that there is no such thing.
pub(super) fn is_absence(response: &Response) -> bool {
    response.status.as_u16() == 404 && !is_unknown_route(response)
}

/// Whether another login would help: 401, and 403 for a token that has expired or is malformed. Other 403 are about
/// rights, which no login changes.
pub(super) fn is_about_token(response: &Response) -> bool {
    match response.status.as_u16() {
        // Older servers say this of requests that they do not understand, and of projects that are not the identity's.
        401 => {
            ErrorBody::of(response).is_some_and(|it| it.error != "ValidationFailure") && !is_about_membership(response)
        }
        403 => is_error(response, "TokenError"),
        _ => false,
    }
}

/// Whether a folder is refused for what one of its secrets refers to.
pub(super) fn is_about_reference(response: &Response) -> bool {
    response.status.as_u16() == 403 && is_infisicals(response) && response.contains("referenced by")
}

/// Several years put it in several words, and into the error's name or its text.
fn is_about_membership(response: &Response) -> bool {
    matches!(response.status.as_u16(), 400..=404)
        && response.contains("project")
        && ["not a member of", "not a part of", "not part of", "not apart of"]
            .iter()
            .any(|words| response.contains(words))
}

/// A refusal that is not Infisical's own: it tells nothing about what was asked for.
pub(super) fn foreign(response: &Response, address: &Address, what: &str) -> Option<Failure> {
    let status = response.status.as_u16();
    let is_foreign = matches!(status, 400..=422) && (ErrorBody::of(response).is_none() || is_unknown_route(response));
    is_foreign.then(|| {
        let message = format!(
            "{address} answers {what} with a {status} that is not of Infisical's API: check address, and what stands in \
             front of Infisical"
        );
        Failure::unavailable(message)
    })
}

/// What an answer means that is not a success; `who` is the identity, `what` names the call.
pub(super) fn refused(response: &Response, address: &Address, who: &str, what: &str) -> Failure {
    if let Some(failure) = throttled(response, address).or_else(|| foreign(response, address, what)) {
        return failure;
    }
    if is_about_token(response) {
        let message = format!("{address} does not accept the login of {who} at {what}: it has ended or was revoked");
        return Failure::denied(message).with(Scope::Login);
    }
    let status = response.status.as_u16();
    let (kind, message) = match status {
        _ if is_about_membership(response) => (
            ErrorKind::Denied,
            format!("{what} is denied to {who}, which is not a member of the project: add it there, with a role"),
        ),
        400 if response.contains("ttl") => (
            ErrorKind::Invalid,
            format!("{what}: ttl is longer than the dynamic secret's longest: write a shorter one"),
        ),
        400 if response.contains("plan") => {
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
        404 => (ErrorKind::NotFound, format!("{what} does not exist, or {who} is not a member of the project")),
        _ => (ErrorKind::Unavailable, format!("{address} fails at {what} with status {status}: see its log")),
    };
    Failure::new(kind, message)
}

/// A wish for patience: 429, and whatever else comes with `Retry-After` (some servers say 500 when a limit is reached).
pub(super) fn throttled(response: &Response, address: &Address) -> Option<Failure> {
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
pub(super) fn login_refused(response: &Response, address: &Address, who: &str, method: Method) -> (Failure, Duration) {
    let has = |words| response.contains(words);
    let hold = Duration::from_secs(25);
    if let Some(failure) = foreign(response, address, &format!("the {method} login")) {
        return (failure.with(Scope::Store), Duration::ZERO);
    }
    let told = |hint: &str| {
        Failure::denied(format!("{address} refuses the {method} login of {who}: {hint}")).with(Scope::Store)
    };
    if has("lock") {
        return (told("it is locked for a while after wrong secrets: check the client id and secret"), LOCK_OUT);
    }
    let hint = match method {
        // What the cluster says of a token that is for somebody else, and not what Infisical does.
        Method::Kubernetes if has("target audiences") => {
            "the cluster does not accept the token's audience: set the identity's allowedAudience to the provider's \
             audience; or, at a server of 2024, which asks the cluster for its own audience alone, the provider's \
             audience to the API server's, and allowedAudience to the same or to nothing"
        }
        Method::Kubernetes if is_error(response, "KubernetesTokenReviewRequestError") => {
            "the cluster does not let Infisical review tokens: the identity's tokenReviewerJwt is missing, wrong or has \
             ended (without one the pod's token reviews itself, which one of another audience cannot), or lacks \
             system:auth-delegator"
        }
        _ if has("expired") => "the token or secret has expired: check the clocks",
        Method::Kubernetes if has("audience") => {
            "the token has another audience than the identity's allowedAudience: make that and the provider's the same"
        }
        _ if has("audience") => {
            "the token has another audience than the identity's boundAudiences: add the provider's; or, at a server of \
             2024, which compares them wrongly, leave them empty and set boundSubject"
        }
        _ if has("namespace") => "its auth does not allow this pod's namespace",
        _ if has("name not") || has("subject") => "its auth does not allow this pod's service account",
        Method::Universal => "the client id or the client secret is wrong, has expired or is used up",
        _ => {
            "check that the identity exists (the role is its id), has that auth method, and allows this pod's namespace, \
             service account and audience"
        }
    };
    (told(hint), hold)
}

/// What to check where a login makes the server itself fail.
pub(super) fn login_failed(failure: &Failure, method: Method) -> Failure {
    let hint = if method == Method::Kubernetes && failure.error.kind == ErrorKind::Unavailable {
        " (does it reach the cluster? check the identity's kubernetesHost and caCert)"
    } else {
        ""
    };
    let message = failure.error.message.clone().before(hint);
    Failure::new(failure.error.kind, message).with(Scope::Store)
}
