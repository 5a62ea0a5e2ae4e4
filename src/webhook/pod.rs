//! A pod as JSON: where its containers stand, and which of them are ours.

use std::collections::BTreeMap;
use std::mem;

use serde_json::{Value, json};

use crate::contract::{AGENT, INIT, PLAN_VARIABLE, SIDECAR};
use crate::plan::Plan;

/// Where containers stand in a pod's `spec`.
pub(super) const LISTS: [&str; 2] = ["initContainers", "containers"];

/// The annotation of static pods. (<https://kubernetes.io/docs/reference/labels-annotations-taints/>)
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// The containers of one list of a pod's `spec`.
pub(super) fn containers<'a>(spec: &'a Value, list: &str) -> &'a [Value] {
    spec.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A container's variables.
pub(super) fn env_of(container: &Value) -> &[Value] {
    container.get("env").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// An object's `name`; empty if it has none.
pub(super) fn name_of(object: &Value) -> &str {
    object.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The service account that a pod runs as. Manifests may have its older name, from which the API server fills the other in
/// (kubernetes/pkg/apis/core/v1/conversion.go).
pub(crate) fn account_of(spec: &Value) -> &str {
    let mut named = ["serviceAccountName", "serviceAccount"].iter().filter_map(|field| spec.get(field)?.as_str());
    named.find(|name| !name.is_empty()).unwrap_or("default")
}

/// They are looked at once, and never patched.
pub(super) fn take_annotations(pod: &mut Value) -> BTreeMap<String, String> {
    // An object stays: what is added to it later must not replace the pod's own.
    let taken = pod.pointer_mut("/metadata/annotations").map(|present| mem::replace(present, json!({})));
    let Some(Value::Object(annotations)) = taken else { return BTreeMap::new() };
    let text = |(key, value)| if let Value::String(value) = value { Some((key, value)) } else { None };
    annotations.into_iter().filter_map(text).collect()
}

/// Whether a container carries one of our names: such a one is ours, or becomes it.
#[must_use]
pub(super) fn is_ours(container: &Value) -> bool {
    matches!(container.get("name").and_then(Value::as_str), Some(SIDECAR | INIT))
}

/// Whether a container runs our program: by its name alone it could be an application.
#[must_use]
pub(super) fn runs_agent(container: &Value) -> bool {
    container.get("command").and_then(|command| command.get(0)).and_then(Value::as_str) == Some(AGENT)
}

/// What an earlier pass made the agent of a container of ours do; `None` if nobody can read it.
#[must_use]
pub(super) fn plan_of(container: &Value) -> Option<Plan> {
    let plan = env_of(container).iter().find(|variable| variable.get("name") == Some(&json!(PLAN_VARIABLE)))?;
    Plan::from_json(plan.get("value")?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_account_may_have_its_older_name() {
        for (spec, account) in [
            (json!({}), "default"),
            (json!({"serviceAccountName": ""}), "default"),
            (json!({"serviceAccount": "web"}), "web"),
            (json!({"serviceAccountName": "", "serviceAccount": "web"}), "web"),
            (json!({"serviceAccountName": "web", "serviceAccount": "other"}), "web"),
        ] {
            assert_eq!(account_of(&spec), account, "{spec}");
        }
    }
}
