//! Environment variables of containers that say no command: kubelet reads them from our volume when it creates the
//! container (`fileKeyRef`, KEP-3721, kubelet 1.35 or later).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::pod::{env_of, name_of};
use super::refusal::Refusal;
use crate::annotations::{self, ENV_VARIABLE};
use crate::bundle::{Bundle, FileMode, Format, Item, Target};
use crate::contract::{KUBELET_ENV_DIR, LIVE, PREFIX, SECRETS_VOLUME, VOLUME_PREFIX};
use crate::parse_error::ParseError;

/// The bundle, and each variable once more as kubelet reads it. kubelet is root: nobody else needs these files.
pub(super) fn with_variables(bundle: &Bundle) -> Result<Bundle, Refusal> {
    let mut bundle = bundle.clone();
    let variable = |item: &Item| {
        let path = format!("{KUBELET_ENV_DIR}/{}", annotations::variable(item)?);
        Some(path.parse().map(|path| Item {
            target: Target::File(path),
            format: Format::Kubelet,
            file_mode: Some(FileMode::OWNER),
            ..item.clone()
        }))
    };
    let variables: Result<Vec<Item>, ParseError> = bundle.items.iter().filter_map(variable).collect();
    bundle.items.extend(variables?);
    Ok(bundle)
}

/// A variable as a container has it, with what the API server would default: it is compared with what comes back.
pub(super) fn variable(name: &str) -> Value {
    let path = format!("{LIVE}/{KUBELET_ENV_DIR}/{name}");
    let file = json!({"volumeName": SECRETS_VOLUME, "path": path, "key": name, "optional": false});
    json!({"name": name, "valueFrom": {"fileKeyRef": file}})
}

/// Refuses a variable out of one of our volumes that is not one of `known`, which we set ourselves: kubelet reads the
/// file without a mount that anybody could look at.
///
/// # Errors
/// [`Refusal`] names container and volume.
pub(super) fn check_variables(container: &Value, known: Option<&BTreeSet<&str>>) -> Result<(), Refusal> {
    for taken in env_of(container) {
        let volume = taken.get("valueFrom").and_then(|source| source.get("fileKeyRef")?.get("volumeName")?.as_str());
        let Some(volume) = volume.filter(|volume| volume.starts_with(VOLUME_PREFIX)) else { continue };
        let name = name_of(taken);
        if known.is_some_and(|known| known.contains(name)) && *taken == variable(name) {
            continue;
        }
        return Err(Refusal::Pod(format!(
            "container {:?} takes a variable from the volume {volume:?} by fileKeyRef, which is hushpod's own: write the \
             annotation {PREFIX}{ENV_VARIABLE}<NAME> instead",
            name_of(container)
        )));
    }
    Ok(())
}
