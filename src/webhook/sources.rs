//! The pod's own volumes that the agent reads: which they are, and that they may be read.

use serde_json::Value;

use super::mutate::{Refusal, name_of};
use crate::bundle::{Bundle, suggestion};
use crate::plan::Plan;

/// Checks that the pod has every volume that its plan reads, and that each is a ConfigMap's: a Secret would be in etcd,
/// and others may hold what the pod's containers write.
///
/// # Errors
/// [`Refusal`] names the annotation and the volumes that would do.
pub fn check(spec: &Value, bundle: &Bundle, plan: &Plan) -> Result<(), Refusal> {
    let volumes = spec.get("volumes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let known: Vec<_> = volumes.iter().filter(|volume| volume.get("configMap").is_some()).map(name_of).collect();
    // An item is planned from the same place of the bundle.
    for (item, planned) in bundle.items.iter().zip(&plan.items) {
        for request in planned.from.takes().map(|take| &take.request) {
            let Some(name) = plan.volume(request).filter(|name| !known.contains(name)) else { continue };
            let problem = match volumes.iter().find(|volume| name_of(volume) == name) {
                Some(volume) if volume.get("secret").is_some() => format!(
                    "volume {name:?} is a Secret's, whose values lie in etcd: put encrypted files into a ConfigMap"
                ),
                Some(_) => format!("volume {name:?} is not a ConfigMap's, and no other is read{}", listed(&known)),
                None if known.is_empty() => {
                    format!("the pod has no volume {name:?}: add a ConfigMap volume of this name")
                }
                None => format!("the pod has no ConfigMap volume {name:?}{}", suggestion(name, &known)),
            };
            return Err(Refusal::Pod(format!("annotation {}: \"{request}\": {problem}", item.place)));
        }
    }
    Ok(())
}

fn listed(known: &[&str]) -> String {
    if known.is_empty() { String::new() } else { format!("; those are: {}", known.join(", ")) }
}
