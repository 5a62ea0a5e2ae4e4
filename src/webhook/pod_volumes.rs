//! The pod's own volumes that the agent reads: which they are, and that they may be read.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod::name_of;
use super::refusal::Refusal;
use crate::bundle::Bundle;
use crate::plan::Plan;
use crate::sentence::{list, suggestion};
use crate::steps;

/// A volume of the pod's own, and what wants to read it.
#[derive(Debug)]
pub(super) struct VolumeRead {
    volume: String,
    /// Where in the annotations, and which reference.
    place: String,
}

/// Every reading of the pod's own volumes that a plan has.
#[must_use]
pub(super) fn reads(bundle: &Bundle, plan: &Plan) -> Vec<VolumeRead> {
    // An item is planned from the same place of the bundle.
    let takes = bundle
        .items
        .iter()
        .zip(&plan.items)
        .flat_map(|(item, planned)| planned.from.references().map(|take| (&item.place, &take.request)));
    let read = |(place, request)| {
        let volume = plan.volume(request)?.to_owned();
        Some(VolumeRead { volume, place: format!("annotation {place}: \"{request}\"") })
    };
    takes.filter_map(read).collect()
}

/// Checks that the pod has every volume that is read, and that each is a ConfigMap's: a Secret would be in etcd, and
/// others may hold what the pod's containers write.
///
/// # Errors
/// [`Refusal`] names the annotation and the volumes that would do.
pub(super) fn check(spec: &Value, reads: &[VolumeRead]) -> Result<(), Refusal> {
    let volumes = spec.get("volumes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    steps::take(reads.len())?;
    let config_maps = volumes.iter().filter(|volume| volume.get("configMap").is_some());
    let known: BTreeSet<_> = if reads.is_empty() { BTreeSet::new() } else { config_maps.map(name_of).collect() };
    let Some(VolumeRead { volume: name, place }) = reads.iter().find(|read| !known.contains(read.volume.as_str()))
    else {
        return Ok(());
    };
    let known: Vec<_> = known.into_iter().collect();
    let problem = match volumes.iter().find(|volume| name_of(volume) == name) {
        Some(volume) if volume.get("secret").is_some() => {
            format!("volume {name:?} is a Secret's, whose values lie in etcd: put encrypted files into a ConfigMap")
        }
        Some(_) => format!("volume {name:?} is not a ConfigMap's, and no other is read{}", listed(&known)),
        None if known.is_empty() => format!("the pod has no volume {name:?}: add a ConfigMap volume of this name"),
        None => format!("the pod has no ConfigMap volume {name:?}{}", suggestion(name, &known)),
    };
    Err(Refusal::Pod(format!("{place}: {problem}")))
}

fn listed(known: &[&str]) -> String {
    if known.is_empty() { String::new() } else { format!("; those are: {}", list(known)) }
}
