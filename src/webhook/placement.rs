//! Where our containers and volumes stand in a pod: added or converged, in an order that a second pass keeps.

use serde_json::{Value, json};

use super::containers::Injected;
use super::patch::{Patched, Step, at, below};
use super::pod::{LISTS, is_ours, name_of, runs_agent};
use super::refusal::Refusal;
use super::replace::{replace_container, replace_volume};
use super::resources::Standing;
use crate::contract::{INIT, PREFIX, SIDECAR, VOLUME_PREFIX};
use crate::options::{InitOrder, Options};

/// Our volumes, added or converged; one of our names on anything else is refused.
pub(super) fn converge_volumes(patched: &mut Patched, wanted: &[Injected]) -> Result<(), Refusal> {
    let list = at!["spec", "volumes"];
    let taken = |name: &str| Refusal::Pod(format!("volume name {name:?} is hushpod's own: rename the pod's volume"));
    let known = |name: &str| wanted.iter().any(|volume| volume.name == name);
    let mut present = patched.list(&list).iter().map(name_of);
    if let Some(stranger) = present.find(|name| name.starts_with(VOLUME_PREFIX) && !known(name)) {
        return Err(taken(stranger));
    }
    for volume in wanted {
        let name = &volume.name;
        let Some(index) = patched.list(&list).iter().position(|present| name_of(present) == name) else {
            patched.insert(&list, usize::MAX, &volume.json, volume.seen());
            continue;
        };
        let volume = volume.value();
        let kinds = |volume: &Value| -> Vec<String> {
            volume.as_object().map(|v| v.keys().filter(|key| *key != "name").cloned().collect()).unwrap_or_default()
        };
        if patched.list(&list).get(index).is_none_or(|present| kinds(present) != kinds(&volume)) {
            return Err(taken(name));
        }
        replace_volume(patched, &at!["spec", "volumes", index], volume);
    }
    Ok(())
}

/// Our containers, added or converged, at the place that `init-order` names.
pub(super) fn place(
    patched: &mut Patched,
    wanted: &[Injected],
    options: &Options,
    standing: Standing,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    remove_unwanted(patched, wanted)?;
    let order = options.init_order.clone().unwrap_or(InitOrder::First);
    let mut next = first_place(patched, &order, warnings)?;
    let has_host_network = patched.get(&at!["spec", "hostNetwork"]) == Some(&json!(true));
    for injected in wanted {
        let is_init = injected.list == "initContainers";
        let list = at!["spec", injected.list];
        let present = patched.list(&list).iter().position(|present| name_of(present) == injected.name);
        let index = match present {
            // Behind the container that it must follow is enough: others that were put between do no harm.
            Some(index) if is_init && index < next && matches!(order, InitOrder::After(_)) => {
                next = move_behind(patched, &list, index, next);
                next
            }
            Some(index) => index,
            None => {
                if is_init {
                    next
                } else {
                    patched.list(&list).len()
                }
            }
        };
        if present.is_some() {
            let path = below(&list, Step::Index(index));
            if patched.get(&path).is_some_and(|container| !runs_agent(container)) {
                warnings.push(format!(
                    "container {:?} has hushpod's own name: all but its image and resources is replaced",
                    injected.name
                ));
            }
            replace_container(patched, &path, injected.value(), has_host_network);
            standing.release(patched, &path);
        } else {
            patched.insert(&list, index, &injected.json, injected.seen());
        }
        if is_init {
            next = index + 1;
        }
    }
    Ok(())
}

/// Moves an item of a list behind the one before `next`; gives its new index.
fn move_behind(patched: &mut Patched, list: &[Step<'_>], index: usize, next: usize) -> usize {
    let moved = patched.list(list).get(index).cloned().unwrap_or_default();
    patched.remove(&below(list, Step::Index(index)));
    // What stood behind it has moved up by one.
    let next = next.saturating_sub(1);
    patched.insert(list, next, moved.clone(), moved);
    next
}

/// The index among init containers where our first one belongs.
fn first_place(patched: &Patched, order: &InitOrder, warnings: &mut Vec<String>) -> Result<usize, Refusal> {
    let present = patched.list(&at!["spec", "initContainers"]);
    match order {
        InitOrder::First => Ok(0),
        // Once placed we stay, whatever others add behind us later.
        InitOrder::Last => Ok(present.iter().position(is_ours).unwrap_or(present.len())),
        // Behind itself it would be moved at every pass.
        InitOrder::After(name) if name == SIDECAR || name == INIT => Err(Refusal::Pod(format!(
            "annotation {PREFIX}init-order: {name:?} is hushpod's own container: name one of the pod's, or write first"
        ))),
        InitOrder::After(name) => {
            if let Some(index) = present.iter().position(|container| name_of(container) == name) {
                return Ok(index + 1);
            }
            if patched.list(&at!["spec", "containers"]).iter().any(|container| name_of(container) == name) {
                return Err(Refusal::Pod(format!(
                    "annotation {PREFIX}init-order: {name:?} is an application container: name an init container"
                )));
            }
            warnings.push(format!(
                "{PREFIX}init-order: no init container {name:?} yet; placed first until another webhook adds it"
            ));
            Ok(0)
        }
    }
}

/// Takes away our containers of a mode that the pod no longer has. An application that has one of our names where none
/// of ours belongs is not ours to take away.
fn remove_unwanted(patched: &mut Patched, wanted: &[Injected]) -> Result<(), Refusal> {
    for list in LISTS {
        let mut index = 0;
        while let Some(container) = patched.list(&at!["spec", list]).get(index) {
            let name = name_of(container);
            if !is_ours(container) || wanted.iter().any(|injected| injected.name == name && injected.list == list) {
                index += 1;
            } else if runs_agent(container) {
                patched.remove(&at!["spec", list, index]);
            } else {
                return Err(Refusal::Pod(format!(
                    "container name {name:?} is hushpod's own: rename the pod's container"
                )));
            }
        }
    }
    Ok(())
}
