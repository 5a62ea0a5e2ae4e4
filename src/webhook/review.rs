//! AdmissionReview in, AdmissionReview out: whatever comes in.
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>)

use base64_simd::STANDARD;
use serde::{Deserialize, Serialize};

use super::mutate::{Mutation, check_ephemeral};
use super::patch::Patch;
use super::pod_view::PodView;
use super::refusal::Refusal;
use crate::audit::{Admission, AuditOutcome, write_admission};
use crate::config::NamespaceLabels;
use crate::sentence::counted;
use crate::steps;

pub use super::answer::{Answer, Outcome, Reviewer};
pub use super::lint::{ANNOTATIONS_PLACE, LintedPod, Linter, PodFault, split_place};
pub use super::mutate::Injector;
pub(crate) use super::pod::account_of;
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

/// A response, what became of the pod, and why it was denied if it was.
type Decision = (AdmissionResponse, Outcome, Option<&'static str>);
/// What is known of a namespace's labels at this moment, by its name.
type LabelsOf<'a> = dyn Fn(&str) -> Option<NamespaceLabels> + 'a;

/// Answers one request body. Never fails: what cannot be understood is denied with the reason.
#[must_use]
pub fn answer(body: &[u8], injector: &Injector) -> Answer {
    answer_by(body, injector, &|_| Some(NamespaceLabels::NotAsked))
}

/// The same by rules that ask for the labels of namespaces, too. What is denied since they are not known yet names the
/// namespace.
#[must_use]
pub(super) fn answer_by(body: &[u8], injector: &Injector, labels_of: &LabelsOf<'_>) -> Answer {
    steps::within(steps::REVIEW, || answer_within(body, injector, labels_of)).0
}

fn answer_within(body: &[u8], injector: &Injector, labels_of: &LabelsOf<'_>) -> Answer {
    let mut unknown_namespace = None;
    // Looking once for what is not UTF-8 is less work than doing it string by string.
    let parsed = str::from_utf8(body).map_err(serde::de::Error::custom).and_then(serde_json::from_str::<Review>);
    let (response, outcome, reason) = match parsed {
        Ok(Review { api_version, .. }) if api_version != API_VERSION => {
            malformed(format!("apiVersion {api_version:?} is not spoken: send {API_VERSION}"))
        }
        Ok(Review { request: Some(request), .. }) => {
            let labels_of = |namespace: &str| {
                if injector.asks_for_labels() { labels_of(namespace) } else { Some(NamespaceLabels::NotAsked) }
            };
            decide(request, injector, labels_of, &mut unknown_namespace)
        }
        Ok(Review { request: None, .. }) => malformed("the AdmissionReview has no request".to_owned()),
        Err(error) => malformed(format!("no AdmissionReview: {error}")),
    };
    Answer { body: encode(response), outcome, reason, unknown_namespace }
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

fn malformed(message: String) -> Decision {
    let status = ReviewStatus { code: 400, reason: "BadRequest", message };
    (AdmissionResponse { status: Some(status), ..AdmissionResponse::default() }, Outcome::Error, None)
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
        warnings.push(format!("and {}", counted(more, "more warning")));
    }
    warnings.into_iter().map(shortened).collect()
}

/// What is denied only because the labels of the namespace are not known yet is told to nobody: `unknown_namespace` says
/// so, and there will be another review.
fn decide(
    request: AdmissionRequest,
    injector: &Injector,
    labels_of: impl FnOnce(&str) -> Option<NamespaceLabels>,
    unknown_namespace: &mut Option<String>,
) -> Decision {
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
            let labels = labels_of(&namespace).unwrap_or_else(|| {
                *unknown_namespace = Some(namespace.clone());
                NamespaceLabels::Unknown("they were not asked for yet".into())
            });
            pod.ok_or_else(too_large).and_then(|pod| injector.mutate(pod, &namespace, labels))
        }
        (Some(PodView(pod)), "ephemeralcontainers") if is_pod => {
            pod.ok_or_else(too_large).and_then(|pod| check_ephemeral(&pod)).map(|()| Mutation::default())
        }
        // Nothing that injection sets can be changed later.
        _ => Ok(Mutation::default()),
    };
    // What other rules let pass is decided, known labels or not.
    if decision.is_ok() {
        *unknown_namespace = None;
    }
    if is_told && unknown_namespace.is_none() {
        let (account, user) = (&account, &user_info.username);
        tell(&decision, &Admission { namespace: &namespace, account, pod: &name, user, ..Admission::default() });
    }
    match &decision {
        // Its audit line says as much: two for each pod would cost as much again.
        Ok(Mutation { patch, .. }) if !patch.is_empty() && !is_told => {
            tracing::info!(namespace, pod = name, operations = patch.len(), "injected");
        }
        Err(refusal) if unknown_namespace.is_none() => {
            tracing::info!(namespace, pod = name, refusal = %shortened(refusal.to_string()), "denied");
        }
        _ => {}
    }
    respond(uid, decision)
}

fn respond(uid: String, decision: Result<Mutation, Refusal>) -> Decision {
    match decision {
        Ok(Mutation { patch, warnings, .. }) => {
            let (patch, outcome) =
                if patch.is_empty() { (None, Outcome::Unchanged) } else { (Some(patch), Outcome::Injected) };
            let warnings = few(warnings);
            (AdmissionResponse { uid, allowed: true, patch, status: None, warnings }, outcome, None)
        }
        Err(refusal) => {
            let status = ReviewStatus { code: 422, reason: "Invalid", message: shortened(refusal.to_string()) };
            let response = AdmissionResponse { uid, status: Some(status), ..AdmissionResponse::default() };
            (response, Outcome::Denied, Some(refusal.reason()))
        }
    }
}

/// The audit line of a pod that asks for secrets; one that does not has none.
fn tell(decision: &Result<Mutation, Refusal>, admission: &Admission<'_>) {
    match decision {
        Ok(Mutation { requests: Some(requests), .. }) => {
            write_admission(&Admission { requests: Some(requests), ..*admission }, AuditOutcome::Allowed);
        }
        Ok(_) => {}
        Err(refusal) => {
            let outcome = if refusal.is_denied() { AuditOutcome::Denied } else { AuditOutcome::Invalid };
            let problem = refusal.to_string();
            write_admission(&Admission { problem: Some(&problem), ..*admission }, outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    #[test]
    fn each_denial_has_the_reason_that_stands_in_the_way() {
        let config = r#"
image: registry/hushpod-agent:1
defaultProvider: vault
providers:
  vault:
    type: vault
    address: "https://vault.example"
    role: web
    allow: [{namespaces: [shop], roles: [web], requests: ["secret/data/web/*"]}]
"#;
        let injector = Injector::new(Config::from_yaml(config).unwrap());
        let web = "secret/data/web/db#password";
        // (namespace, annotations, the pod's operating system) → why
        for (namespace, annotations, os, reason) in [
            ("shop", vec![("file.db", web)], "linux", None),
            ("shop", vec![("fil.db", web)], "linux", Some("annotation")),
            ("shop", vec![("file.db", web), ("mode", "sideways")], "linux", Some("annotation")),
            ("shop", vec![("file.db", "nobody:secret/data/web/db")], "linux", Some("plan")),
            ("shop", vec![("file.db", "secret/data/web/db?made-up=1")], "linux", Some("plan")),
            ("shop", vec![("file.db", "secret/data/other/db#password")], "linux", Some("policy")),
            ("shop", vec![("file.db", web), ("role.vault", "admin")], "linux", Some("policy")),
            ("other", vec![("file.db", web)], "linux", Some("policy")),
            ("shop", vec![("file.db", web)], "windows", Some("pod")),
        ] {
            let keys = annotations.iter().map(|(key, value)| (format!("hushpod.dev/{key}"), json!(value)));
            let request = json!({
                "apiVersion": API_VERSION, "kind": "AdmissionReview",
                "request": {
                    "uid": "1", "operation": "CREATE", "namespace": namespace, "resource": {"group": "", "resource": "pods"},
                    "object": {
                        "metadata": {"annotations": keys.collect::<serde_json::Map<_, _>>()},
                        "spec": {"os": {"name": os}, "containers": [{"name": "web"}]},
                    },
                },
            });
            let answer = answer(request.to_string().as_bytes(), &injector);
            let said = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.reason, reason, "{namespace} {annotations:?} {os}: {said}");
            assert_eq!(answer.outcome == Outcome::Denied, reason.is_some(), "{said}");
            let words = crate::metrics::catalogue::ADMISSION_DENIALS.labels[0].words;
            assert!(reason.is_none_or(|reason| words.contains(&reason)));
        }
        assert_eq!(answer(b"rubbish", &injector).reason, None);
    }
}
