//! Containers and volumes that carry our names already, from an earlier pass or from the pod's author: they are
//! replaced by ours. What is left of them is what others decide by right, and what the API server writes beside it.

use serde_json::{Map, Value, json};

use super::patch::{Patched, Step, below};
use crate::contract::TERMINATION_LOG;

/// Resources that a webhook or a `LimitRange` may have changed. Others are devices, and claims are, too.
const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Makes the container at `path` the one that we want, operation by operation; none if it is so already.
///
/// Kept are its image and pull policy (registries are mirrored), its resources, and a uid and SELinux options, as
/// OpenShift's security context constraints assign them where ours leave them open.
pub(super) fn replace_container(patched: &mut Patched, path: &[Step<'_>], ours: Value, has_host_network: bool) {
    let (Value::Object(mut wanted), Some(Value::Object(present))) = (ours, patched.get(path).cloned()) else { return };
    for field in ["image", "imagePullPolicy"] {
        keep(&mut wanted, &present, field, |value| value.as_str().is_some_and(|text| !text.is_empty()));
    }
    if let Some(resources) = present.get("resources").and_then(kept_resources) {
        wanted.insert("resources".to_owned(), resources);
    }
    if let (Some(Value::Object(wanted)), Some(Value::Object(present))) =
        (wanted.get_mut("securityContext"), present.get("securityContext"))
    {
        keep_assigned(wanted, present);
    }
    replace_fields(patched, path, &present, wanted, has_host_network);
}

/// The same for a volume of our name and kind. An image's reference is a mirror's to rewrite.
pub(super) fn replace_volume(patched: &mut Patched, path: &[Step<'_>], ours: Value) {
    let (Value::Object(mut wanted), Some(Value::Object(present))) = (ours, patched.get(path).cloned()) else { return };
    if let (Some(Value::Object(wanted)), Some(Value::Object(present))) = (wanted.get_mut("image"), present.get("image"))
    {
        for field in ["reference", "pullPolicy"] {
            keep(wanted, present, field, |value| value.as_str().is_some_and(|text| !text.is_empty()));
        }
    }
    replace_fields(patched, path, &present, wanted, false);
}

/// Takes a field over, if there is one that may be.
fn keep(wanted: &mut Map<String, Value>, present: &Map<String, Value>, field: &str, may: impl Fn(&Value) -> bool) {
    if let Some(value) = present.get(field).filter(|value| may(value)) {
        wanted.insert(field.to_owned(), value.clone());
    }
}

/// Requests and limits as they stand there; `None` if there are none.
fn kept_resources(present: &Value) -> Option<Value> {
    let kept = ["limits", "requests"].into_iter().filter_map(|kind| {
        let quantities = present.get(kind)?.as_object()?.iter();
        let quantities: Map<_, _> = quantities
            .filter(|(name, _)| RESOURCES.contains(&name.as_str()))
            .map(|(name, quantity)| (name.clone(), quantity.clone()))
            .collect();
        (!quantities.is_empty()).then(|| (kind.to_owned(), Value::Object(quantities)))
    });
    let kept: Map<_, _> = kept.collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// What a cluster assigns in a container's security context, and may check later: never less than ours.
fn keep_assigned(wanted: &mut Map<String, Value>, present: &Map<String, Value>) {
    if !wanted.contains_key("runAsUser") {
        // Root is nobody's to assign: kubelet would refuse to start it.
        keep(wanted, present, "runAsUser", |uid| uid.as_i64().is_some_and(|uid| uid > 0));
    }
    keep(wanted, present, "seLinuxOptions", Value::is_object);
    let dropped = present.get("capabilities").and_then(|capabilities| capabilities.get("drop"));
    if let Some(dropped) = dropped.filter(|list| list.as_array().is_some_and(|list| list.contains(&json!("ALL")))) {
        wanted.insert("capabilities".to_owned(), json!({"drop": dropped}));
    }
}

fn replace_fields(
    patched: &mut Patched,
    path: &[Step<'_>],
    present: &Map<String, Value>,
    wanted: Map<String, Value>,
    has_host_network: bool,
) {
    for (field, value) in present {
        if !wanted.contains_key(field) && !is_default(field, value) {
            patched.remove(&below(path, Step::Field(field)));
        }
    }
    for (field, value) in wanted {
        if !present.get(&field).is_some_and(|present| holds(present, &value, has_host_network)) {
            patched.set(&below(path, Step::Field(&field)), value);
        }
    }
}

/// Whether `present` is `wanted`, whatever the API server has written beside it.
fn holds(present: &Value, wanted: &Value, has_host_network: bool) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            // In the node's network it is the container's own (SetDefaults_Pod).
            let is_hosts = |field: &str, value: &Value| {
                has_host_network && field == "hostPort" && present.get("containerPort") == Some(value)
            };
            wanted
                .iter()
                .all(|(field, value)| present.get(field).is_some_and(|present| holds(present, value, has_host_network)))
                && present.iter().all(|(field, value)| {
                    wanted.contains_key(field) || is_default(field, value) || is_hosts(field, value)
                })
        }
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len()
                && present.iter().zip(wanted).all(|(present, wanted)| holds(present, wanted, has_host_network))
        }
        (present, wanted) => present == wanted,
    }
}

/// What the API server gives a field of ours that we leave out; and what says nothing.
/// (`pkg/apis/core/v1/defaults.go` of Kubernetes)
fn is_default(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => matches!(
            (field, text.as_str()),
            (_, "")
                | ("terminationMessagePath", TERMINATION_LOG)
                | ("terminationMessagePolicy", "File")
                | ("protocol", "TCP")
                | ("scheme", "HTTP")
                | ("procMount", "Default")
                | ("apiVersion", "v1")
        ),
        Value::Number(number) => {
            matches!((field, number.as_i64()), ("successThreshold", Some(1)) | ("defaultMode", Some(420)))
        }
    }
}
