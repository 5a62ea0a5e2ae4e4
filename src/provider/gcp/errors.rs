//! Google's refusals, in our own words.
//!
//! Of an API's answer (`google.rpc.Status`) only the status and the reasons in its details are read, of a token
//! service's (RFC 6749, 5.2) only the code; texts are searched for words that tell cases apart, and never passed on.

use serde::Deserialize;

use super::settings::Method;
use crate::provider::auth::oauth::error_code;
use crate::provider::http::{Address, Failure, Response, Scope, frame};

/// Who asked whom, for messages.
#[derive(Clone, Copy)]
pub(super) struct CallContext<'a> {
    pub(super) method: Method,
    pub(super) role: Option<&'a str>,
    pub(super) address: &'a Address,
}

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

/// What an answer that is not a success means; `path` and `version` are what was asked for.
pub(super) fn failure(response: &Response, asked: CallContext<'_>, path: &str, version: Option<&str>) -> Failure {
    let status = Status::of(response);
    let address = asked.address;
    let what = version.map_or_else(|| path.to_owned(), |version| format!("{path} in version {version}"));
    match (response.status.as_u16(), status.status.as_str()) {
        // What is not Secret Manager answers so, too.
        (code @ (400..=428 | 430..=499), "") => {
            Failure::unavailable(format!("{address} answers {path} with a {code} that is not Google's: check address"))
        }
        (401, _) => {
            let message = format!("{address} does not accept the login: it has ended or was revoked: check the clocks");
            Failure::denied(message).with(Scope::Login)
        }
        (403, _) => denied(&status, asked.role, path),
        (404, "NOT_FOUND") => Failure::not_found(match version {
            Some(version) => format!("{path} has no version {version}, or does not exist"),
            None => format!("{path} does not exist, or has no version"),
        }),
        (400, "FAILED_PRECONDITION") => {
            let hint = if response.contains("DESTROYED") {
                "was destroyed: add a version"
            } else if response.contains("DISABLED") {
                "is disabled: enable that version, or add one"
            } else {
                "cannot be read in its present state: see its versions, and the key that encrypts it"
            };
            Failure::not_found(format!("{what} {hint}"))
        }
        (400, _) => Failure::invalid(format!("{what} is refused as a bad request")),
        (429, _) => {
            let message = format!("{address} asks for patience (429): a quota of the project is used up");
            Failure::throttled(response, message).with(Scope::Store)
        }
        (status @ 501..=599, _) => {
            Failure::unavailable(format!("{address} is failing at {path} with status {status}")).with(Scope::Store)
        }
        (status, _) => Failure::unavailable(format!("{address} fails at {path} with status {status}")),
    }
}

/// Google says the same of what does not exist to who may not know.
fn denied(status: &Status, role: Option<&str>, path: &str) -> Failure {
    let project = path.split('/').nth(1).unwrap_or_default();
    if status.has_reason("SERVICE_DISABLED") {
        let message = format!("{path}: Secret Manager's API is not enabled in project {project:?}");
        return Failure::denied(message);
    }
    if status.has_reason("ACCESS_TOKEN_SCOPE_INSUFFICIENT") {
        let message = format!("{path} is denied: the machine's service account needs the scope cloud-platform");
        return Failure::denied(message).with(Scope::Store);
    }
    let who = role.map_or_else(|| "this login".to_owned(), |role| format!("{role:?}"));
    let message = format!(
        "{path} is denied to {who}: give it the role roles/secretmanager.secretAccessor at the secret (or there is no \
         such project)"
    );
    Failure::denied(message).with(Scope::Right)
}

/// Why a token service gives no token.
pub(super) fn token_failure(response: &Response, CallContext { method, address, .. }: CallContext<'_>) -> Failure {
    let code = error_code(&response.body);
    match (response.status.as_u16(), code.as_str()) {
        (429, _) => Failure::throttled(response, format!("{address} asks for patience (429) at the login")),
        (400 | 401 | 403, "temporarily_unavailable") => {
            Failure::unavailable(format!("{address} is overloaded and gives no login now"))
        }
        (400 | 401 | 403, code) if !code.is_empty() => {
            Failure::denied(format!("login by {method} is refused: {}", hint(response, method, code)))
        }
        (status, _) => Failure::unavailable(format!("{address} fails at the login with status {status}")),
    }
}

fn hint(response: &Response, method: Method, code: &str) -> &'static str {
    let is_federation = method == Method::WorkloadIdentityFederation;
    match code {
        "invalid_target" => {
            "there is no such workload identity pool or provider, or it is disabled: check auth.audience"
        }
        "unauthorized_client" if response.contains("attribute condition") => {
            "the provider's attribute condition does not let this service account in"
        }
        "unauthorized_client" => "the provider does not let this service account in: check its conditions",
        "invalid_client" => "the client of the credentials is unknown: log in anew",
        "invalid_rapt" => "the person must log in anew: gcloud auth application-default login",
        "invalid_grant" if is_federation && response.contains("audience") => {
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
pub(super) fn impersonation_failure(
    response: &Response,
    CallContext { role, address, .. }: CallContext<'_>,
) -> Failure {
    let role = role.unwrap_or("the service account of the credentials");
    let refused = |hint: &str| Failure::denied(format!("login as {role:?} is refused: {hint}"));
    let status = Status::of(response);
    match (response.status.as_u16(), status.status.as_str()) {
        (code @ 400..=428, "") => Failure::unavailable(format!(
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
        (429, _) => Failure::throttled(response, format!("{address} asks for patience (429) at the login")),
        (status, _) => Failure::unavailable(format!("{address} fails at the login with status {status}")),
    }
}

/// Why a machine's metadata service gives no token.
pub(super) fn metadata_failure(response: &Response, is_google: bool, address: &Address) -> Failure {
    match response.status.as_u16() {
        _ if !is_google => Failure::unavailable(format!("{address} is not Google's metadata service")),
        403 | 404 => Failure::denied(
            "login by metadata is refused: this machine or pod has no service account there: check its Workload Identity",
        ),
        429 => Failure::throttled(response, format!("{address} asks for patience (429) at the login")),
        status => Failure::unavailable(format!("{address} fails at the login with status {status}")),
    }
}
