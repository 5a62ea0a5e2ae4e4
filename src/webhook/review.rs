//! AdmissionReview in, AdmissionReview out: whatever comes in.
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>)

use base64_simd::STANDARD;
use serde::{Deserialize, Serialize};

use super::mutate::{Mutation, check_ephemeral};
use super::patch::Patch;
use super::pod::account_of;
use super::pod_view::PodView;
use super::refusal::Refusal;
use crate::audit::{Admission, AuditOutcome, write_admission};
use crate::steps;

pub use super::answer::{Answer, Outcome, Reviewer};
pub use super::mutate::Injector;
pub use super::pod_view::MAX_NODES;

/// The one version that is spoken.
const API_VERSION: &str = "admission.k8s.io/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    request: Option<AdmissionRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionRequest {
    uid: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    user_info: UserInfo,
    #[serde(default)]
    dry_run: bool,
    object: Option<PodView>,
}

#[derive(Deserialize, Default)]
struct Resource {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resource: String,
}

/// Who asks the API server, as far as it is told on.
#[derive(Deserialize, Default)]
struct UserInfo {
    #[serde(default)]
    username: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    api_version: &'static str,
    kind: &'static str,
    response: AdmissionResponse,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct AdmissionResponse {
    uid: String,
    allowed: bool,
    #[serde(skip)]
    patch: Option<Patch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ReviewStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct ReviewStatus {
    code: u16,
    reason: &'static str,
    message: String,
}

/// Answers one request body. Never fails: what cannot be understood is denied with the reason.
#[must_use]
pub fn answer(body: &[u8], injector: &Injector) -> Answer {
    steps::within(steps::REVIEW, || answer_within(body, injector)).0
}

fn answer_within(body: &[u8], injector: &Injector) -> Answer {
    // Looking once for what is not UTF-8 is less work than doing it string by string.
    let parsed = str::from_utf8(body).map_err(serde::de::Error::custom).and_then(serde_json::from_str::<Review>);
    let (response, outcome) = match parsed {
        Ok(Review { api_version, .. }) if api_version != API_VERSION => {
            malformed(format!("apiVersion {api_version:?} is not spoken: send {API_VERSION}"))
        }
        Ok(Review { request: Some(request), .. }) => decide(request, injector),
        Ok(Review { request: None, .. }) => malformed("the AdmissionReview has no request".to_owned()),
        Err(error) => malformed(format!("no AdmissionReview: {error}")),
    };
    Answer { body: encode(response), outcome }
}

/// The patch, by far the largest part, goes in as it is: base64 has nothing that JSON would escape.
fn encode(mut response: AdmissionResponse) -> Vec<u8> {
    let patch = response.patch.take().map(Patch::into_json);
    let answered = Answered { api_version: API_VERSION, kind: "AdmissionReview", response };
    let mut body = serde_json::to_string(&answered).unwrap_or_default();
    if let Some(patch) = patch
        && let Some(open) = body.strip_suffix("}}").map(str::len)
    {
        body.truncate(open);
        body.reserve(patch.len() / 3 * 4 + 64);
        body.push_str(r#","patchType":"JSONPatch","patch":""#);
        STANDARD.encode_append(patch, &mut body);
        body.push_str(r#""}}"#);
    }
    body.into_bytes()
}

fn malformed(message: String) -> (AdmissionResponse, Outcome) {
    let status = ReviewStatus { code: 400, reason: "BadRequest", message };
    (AdmissionResponse { status: Some(status), ..AdmissionResponse::default() }, Outcome::Error)
}

/// A refusal quotes what was written, of whatever length: its beginning says what is wrong, its end what to do.
fn shortened(message: String) -> String {
    const BEGINNING: usize = 1200;
    const END: usize = 600;
    if message.len() <= BEGINNING + END {
        return message;
    }
    let (beginning, _) = message.split_at(message.floor_char_boundary(BEGINNING));
    let (_, end) = message.split_at(message.ceil_char_boundary(message.len() - END));
    format!("{beginning} … {end}")
}

/// The API server hands on 4 KiB of warnings at most, each cut to 256 characters.
/// (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#response>)
fn few(mut warnings: Vec<String>) -> Vec<String> {
    const MOST: usize = 16;
    if warnings.len() > MOST {
        let more = warnings.len() - MOST;
        warnings.truncate(MOST);
        warnings.push(format!("and {more} more warnings"));
    }
    warnings.into_iter().map(shortened).collect()
}

fn decide(request: AdmissionRequest, injector: &Injector) -> (AdmissionResponse, Outcome) {
    let AdmissionRequest { uid, operation, namespace, mut name, sub_resource, resource, user_info, dry_run, object } =
        request;
    let is_pod = resource.group.is_empty() && resource.resource == "pods";
    // Controllers leave the rest of the name to the API server, which has not chosen it yet.
    let prefix = object.as_ref().and_then(|PodView(pod)| pod.as_ref()?.pointer("/metadata/generateName")?.as_str());
    if let (true, Some(prefix)) = (name.is_empty(), prefix) {
        name = format!("{prefix}*");
    }
    // The pod is taken apart by what decides on it.
    let is_told = injector.config().audit && !dry_run;
    let account = object.as_ref().and_then(|PodView(pod)| pod.as_ref()?.get("spec")).filter(|_| is_told);
    let account = account.map(account_of).unwrap_or_default().to_owned();
    let too_large =
        || Refusal::Pod(format!("the pod has more than {MAX_NODES} values that hushpod looks at: take some away"));
    let decision = match (object, sub_resource.as_str()) {
        (Some(PodView(pod)), "") if is_pod && operation == "CREATE" => {
            pod.ok_or_else(too_large).and_then(|pod| injector.mutate(pod, &namespace))
        }
        (Some(PodView(pod)), "ephemeralcontainers") if is_pod => {
            pod.ok_or_else(too_large).and_then(|pod| check_ephemeral(&pod)).map(|()| Mutation::default())
        }
        // Nothing that injection sets can be changed later.
        _ => Ok(Mutation::default()),
    };
    if is_told {
        tell(
            &decision,
            Admission {
                namespace: &namespace,
                account: &account,
                pod: &name,
                user: &user_info.username,
                ..Admission::default()
            },
        );
    }
    match decision {
        Ok(Mutation { patch, warnings, .. }) if patch.is_empty() => (
            AdmissionResponse { uid, allowed: true, warnings: few(warnings), ..AdmissionResponse::default() },
            Outcome::Unchanged,
        ),
        Ok(Mutation { patch, warnings, .. }) => {
            tracing::info!(namespace, pod = name, operations = patch.len(), "injected");
            let warnings = few(warnings);
            (AdmissionResponse { uid, allowed: true, patch: Some(patch), status: None, warnings }, Outcome::Injected)
        }
        Err(refusal) => {
            let message = shortened(refusal.to_string());
            tracing::info!(namespace, pod = name, refusal = %message, "denied");
            let status = ReviewStatus { code: 422, reason: "Invalid", message };
            (AdmissionResponse { uid, status: Some(status), ..AdmissionResponse::default() }, Outcome::Denied)
        }
    }
}

/// The audit line of a pod that asks for secrets; one that does not has none.
fn tell(decision: &Result<Mutation, Refusal>, admission: Admission<'_>) {
    match decision {
        Ok(Mutation { requests: Some(requests), .. }) => {
            write_admission(&Admission { requests: Some(requests), ..admission }, AuditOutcome::Allowed);
        }
        Ok(_) => {}
        Err(refusal) => {
            let outcome = if refusal.is_denied() { AuditOutcome::Denied } else { AuditOutcome::Invalid };
            let problem = refusal.to_string();
            write_admission(&Admission { problem: Some(&problem), ..admission }, outcome);
        }
    }
}
