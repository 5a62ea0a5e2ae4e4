//! What Google's refusals mean, in our own words.
//!
//! Of an API's answer (`google.rpc.Status`) only the status and the reasons in its details are read, of a token
//! service's (RFC 6749, 5.2) only the code; texts are searched for words that tell cases apart, and never passed on.

use std::fmt::Display;

use serde::Deserialize;

use super::client::Gcp;
use crate::provider::ErrorKind;
use crate::provider::auth::bearer::{Failure, Scope};
use crate::provider::auth::oauth::error_code;
use crate::provider::http::{Response, frame, says};

#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    error: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    status: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    /// Of an `ErrorInfo`.
    #[serde(default)]
    reason: String,
}

// === impl Status ===

impl Status {
    fn of(response: &Response) -> Self {
        frame::<Envelope>(&response.body).unwrap_or_default().error
    }

    fn has_reason(&self, reason: &str) -> bool {
        self.details.iter().any(|detail| detail.reason == reason)
    }
}

/// Whether a refusal is an API's own.
pub(super) fn is_googles(response: &Response) -> bool {
    !Status::of(response).status.is_empty()
}

/// What an answer that is no success means; `path` and `version` are what was asked for.
pub(super) fn failure(response: &Response, gcp: &Gcp, path: &str, version: Option<&str>) -> Failure {
    let status = Status::of(response);
    let address = gcp.address();
    let what = version.map_or_else(|| path.to_owned(), |version| format!("{path} in version {version}"));
    match (response.status.as_u16(), status.status.as_str()) {
        // What is not Secret Manager answers so, too.
        (code @ (400..=428 | 430..=499), "") => {
            unavailable(format!("{address} answers {path} with a {code} that is not Google's: check address"))
        }
        (401, _) => {
            let message = format!("{address} does not accept the login: it has ended or was revoked: check the clocks");
            Failure::new(ErrorKind::Denied, message).with(Scope::Login)
        }
        (403, _) => denied(&status, gcp, path),
        (404, "NOT_FOUND") => {
            let message = match version {
                Some(version) => format!("{path} has no version {version}, or does not exist"),
                None => format!("{path} does not exist, or has no version"),
            };
            Failure::new(ErrorKind::NotFound, message)
        }
        (400, "FAILED_PRECONDITION") => {
            let hint = if says(&response.body, "DESTROYED") {
                "was destroyed: add a version"
            } else if says(&response.body, "DISABLED") {
                "is disabled: enable that version, or add one"
            } else {
                "cannot be read in its present state: see its versions, and the key that encrypts it"
            };
            Failure::new(ErrorKind::NotFound, format!("{what} {hint}"))
        }
        (400, _) => Failure::new(ErrorKind::Invalid, format!("{what} is refused as a bad request")),
        (429, _) => {
            let message = format!("{address} asks for patience (429): a quota of the project is used up");
            throttled(response, message).with(Scope::Store)
        }
        (status @ 501..=599, _) => {
            unavailable(format!("{address} is failing at {path} with status {status}")).with(Scope::Store)
        }
        (status, _) => unavailable(format!("{address} fails at {path} with status {status}")),
    }
}

/// Google says the same of what does not exist to who may not know.
fn denied(status: &Status, gcp: &Gcp, path: &str) -> Failure {
    let project = path.split('/').nth(1).unwrap_or_default();
    if status.has_reason("SERVICE_DISABLED") {
        let message = format!("{path}: Secret Manager's API is not enabled in project {project:?}");
        return Failure::new(ErrorKind::Denied, message);
    }
    if status.has_reason("ACCESS_TOKEN_SCOPE_INSUFFICIENT") {
        let message = format!("{path} is denied: the machine's service account needs the scope cloud-platform");
        return Failure::new(ErrorKind::Denied, message).with(Scope::Store);
    }
    let who = match &gcp.login.role {
        Some(role) => format!("{role:?}"),
        None => "this login".to_owned(),
    };
    let message = format!(
        "{path} is denied to {who}: give it the role roles/secretmanager.secretAccessor at the secret (or there is no \
         such project)"
    );
    Failure::new(ErrorKind::Denied, message).with(Scope::Right)
}

/// Why a token service gives no token.
pub(super) fn token_failure(response: &Response, gcp: &Gcp, address: &dyn Display) -> Failure {
    let code = error_code(&response.body);
    match (response.status.as_u16(), code.as_str()) {
        (429, _) => throttled(response, format!("{address} asks for patience (429) at the login")),
        (400 | 401 | 403, "temporarily_unavailable") => {
            unavailable(format!("{address} is overloaded and gives no login now"))
        }
        (400 | 401 | 403, code) if !code.is_empty() => {
            let method = gcp.settings.auth.method.as_str();
            let message = format!("login by {method} is refused: {}", hint(response, gcp, code));
            Failure::new(ErrorKind::Denied, message)
        }
        (status, _) => unavailable(format!("{address} fails at the login with status {status}")),
    }
}

fn hint(response: &Response, gcp: &Gcp, code: &str) -> &'static str {
    let is_federation = gcp.settings.auth.method == super::Method::WorkloadIdentityFederation;
    match code {
        "invalid_target" => {
            "there is no such workload identity pool or provider, or it is disabled: check auth.audience"
        }
        "unauthorized_client" if says(&response.body, "attribute condition") => {
            "the provider's attribute condition does not let this service account in"
        }
        "unauthorized_client" => "the provider does not let this service account in: check its conditions",
        "invalid_client" => "the client of the credentials is unknown: log in anew",
        "invalid_rapt" => "the person must log in anew: gcloud auth application-default login",
        "invalid_grant" if is_federation && says(&response.body, "audience") => {
            "the token has another audience than the provider wants: make the provider's allowed audience and ours the \
             same"
        }
        "invalid_grant" if is_federation => {
            "the token is not accepted: its issuer and keys must be the provider's, and it must be valid now: check the \
             clocks"
        }
        "invalid_grant" => {
            "the key or login was deleted or has ended, or the assertion is outside its time of validity: check the \
             clocks"
        }
        _ => "check the provider's auth",
    }
}

/// Why a service account's token is not to be had.
pub(super) fn impersonation_failure(response: &Response, gcp: &Gcp, address: &dyn Display) -> Failure {
    let role = gcp.login.role.as_deref().unwrap_or("the service account of the credentials");
    let refused = |hint: &str| Failure::new(ErrorKind::Denied, format!("login as {role:?} is refused: {hint}"));
    let status = Status::of(response);
    match (response.status.as_u16(), status.status.as_str()) {
        (code @ 400..=428, "") => unavailable(format!(
            "{address} fails at the login with status {code}, which is not Google's: check impersonationUrl"
        )),
        (401, _) => refused("the first token is not accepted: check the clocks"),
        (403, "PERMISSION_DENIED") if status.has_reason("SERVICE_DISABLED") => {
            refused("the API iamcredentials.googleapis.com is not enabled in its project")
        }
        (403, "PERMISSION_DENIED") => refused(
            "there is no such service account, or it does not let this identity in: give the identity \
             roles/iam.workloadIdentityUser (or roles/iam.serviceAccountTokenCreator) at it",
        ),
        (404, "NOT_FOUND") => refused("there is no such service account"),
        (400, _) => refused("it cannot be acted as: check that it is a service account's address, and enabled"),
        (429, _) => throttled(response, format!("{address} asks for patience (429) at the login")),
        (status, _) => unavailable(format!("{address} fails at the login with status {status}")),
    }
}

/// Why a machine's metadata service gives no token.
pub(super) fn metadata_failure(response: &Response, is_google: bool, address: &dyn Display) -> Failure {
    match response.status.as_u16() {
        _ if !is_google => unavailable(format!("{address} is not Google's metadata service")),
        403 | 404 => Failure::new(
            ErrorKind::Denied,
            "login by metadata is refused: this machine or pod has no service account there: check its Workload Identity",
        ),
        429 => throttled(response, format!("{address} asks for patience (429) at the login")),
        status => unavailable(format!("{address} fails at the login with status {status}")),
    }
}

/// A success without what it should bring.
pub(super) fn no_token(address: &dyn Display) -> Failure {
    unavailable(format!("{address} answers the login with something that has no token in it"))
}

fn throttled(response: &Response, message: String) -> Failure {
    Failure::new(ErrorKind::Throttled { retry_after: response.retry_after }, message)
}

fn unavailable(message: String) -> Failure {
    Failure::new(ErrorKind::Unavailable, message)
}
