//! What the API server sends.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hushpod::webhook::review::{Injector, answer};
use serde_json::Value;

use crate::text::with_config;

thread_local! {
    /// Asked for everything that came before.
    static SEASONED: Injector = with_config(|config| Injector::new(config.clone()));
}

/// Whatever comes in, an `AdmissionReview` goes out, with the uid that came in. A patch can be applied, and the pod that
/// it makes needs none.
pub(crate) fn review(input: &[u8]) {
    reviewed(&decided(input), None);
    // What follows is promised for what API servers send: one value per key, nothing that is null.
    let Ok(mut review) = serde_json::from_slice::<Value>(input) else { return };
    strip_nulls(&mut review);
    let uid = review["request"]["uid"].as_str().map(str::to_owned);
    let Some(patch) = ask(&review, uid.as_deref()) else { return };
    let object = &mut review["request"]["object"];
    if let Err(error) = json_patch::patch(object, &patch) {
        panic!("the patch does not fit: {error}: {}", serde_json::to_string(&patch).unwrap_or_default());
    }
    if let Some(more) = ask(&review, uid.as_deref()) {
        panic!("the patched pod is patched again: {}", serde_json::to_string(&more).unwrap_or_default());
    }
}

/// The patch of the answer, if there is one.
fn ask(review: &Value, uid: Option<&str>) -> Option<json_patch::Patch> {
    let body = serde_json::to_vec(review).expect("a value is JSON");
    reviewed(&decided(&body), uid)
}

/// What was asked for before makes no difference.
fn decided(request: &[u8]) -> Vec<u8> {
    let fresh = answer(request, &with_config(|config| Injector::new(config.clone())));
    for _ in 0..2 {
        assert_eq!(SEASONED.with(|seasoned| answer(request, seasoned)), fresh, "it depends on what came before");
    }
    fresh.body
}

fn reviewed(body: &[u8], uid: Option<&str>) -> Option<json_patch::Patch> {
    let answered: Value = serde_json::from_slice(body).expect("the answer is JSON");
    assert_eq!(
        (&answered["apiVersion"], &answered["kind"]),
        (&"admission.k8s.io/v1".into(), &"AdmissionReview".into())
    );
    let response = &answered["response"];
    let allowed = response["allowed"].as_bool().expect("allowed or not");
    let answered_uid = response["uid"].as_str().expect("there is a uid");
    if !allowed {
        let message = response["status"]["message"].as_str().expect("a refusal says why");
        assert!(!message.is_empty() && response.get("patch").is_none());
    }
    if let (Some(uid), true) = (uid, allowed) {
        assert_eq!(answered_uid, uid);
    }
    let patch = STANDARD.decode(response.get("patch")?.as_str().expect("text")).expect("base64");
    assert_eq!(response["patchType"], "JSONPatch");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON patch");
    assert!(!patch.0.is_empty(), "an empty patch");
    Some(patch)
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(strip_nulls);
        }
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        _ => {}
    }
}
