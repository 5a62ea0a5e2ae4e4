//! Who gets the files: which containers mount the volume, and that none mounts it in another way.

use serde_json::{Value, json};

use super::containers::{BIN_PATH, BIN_VOLUME, LIVE, SECRETS_VOLUME, VOLUME_PREFIX, is_ours};
use super::mutate::{LISTS, Refusal, containers, name_of};
use super::patch::{Patched, Step, at, below};
use super::wrap::is_wrapped;
use crate::annotations::{CONTAINERS, MOUNT_PATH, Options, PREFIX};
use crate::bundle::suggestion;

/// Where the files are, if nobody says.
pub const DEFAULT_MOUNT_PATH: &str = "/secrets";

/// The containers that a pod selects.
#[derive(Debug)]
pub struct Selection {
    /// Names; `None` is all but ours.
    names: Option<Vec<String>>,
}

// === impl Selection ===

impl Selection {
    /// Reads the selection and checks that its names exist.
    ///
    /// # Errors
    /// [`Refusal`] suggests the name that was meant.
    pub fn of(spec: &Value, options: &Options) -> Result<Self, Refusal> {
        let Some(names) = &options.containers else { return Ok(Self { names: None }) };
        let others = LISTS.iter().flat_map(|list| containers(spec, list)).filter(|container| !is_ours(container));
        let known: Vec<_> = others.map(name_of).collect();
        match names.iter().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(Refusal::Pod(format!(
                "annotation {PREFIX}{CONTAINERS}: the pod has no container {unknown:?}{}",
                suggestion(unknown, &known)
            ))),
            None => Ok(Self { names: Some(names.clone()) }),
        }
    }

    /// The containers that will read the files. Init containers count if they are named, or if no application
    /// container is left to ask.
    #[must_use]
    pub fn containers<'a>(&self, spec: &'a Value) -> Vec<&'a Value> {
        let named = |list| containers(spec, list).iter().filter(|container| !is_ours(container));
        match &self.names {
            None => named("containers").collect(),
            Some(names) => LISTS
                .iter()
                .flat_map(|list| named(list))
                .filter(|container| names.iter().any(|name| name == name_of(container)))
                .collect(),
        }
    }

    /// Whether a container is named.
    #[must_use]
    pub fn names(&self, container: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.iter().any(|name| name == container))
    }

    /// Whether no container is named, so that all are meant.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.names.is_none()
    }
}

/// What applications mount.
fn live_mount(path: &str) -> Value {
    json!({"name": SECRETS_VOLUME, "mountPath": path, "subPath": LIVE, "readOnly": true})
}

/// What they mount to be started through `hushpod-agent exec`.
fn bin_mount() -> Value {
    json!({"name": BIN_VOLUME, "mountPath": BIN_PATH, "readOnly": true})
}

/// Whether a mount is the one that we give to applications, whatever others wrote into it besides.
fn is_same(mount: &Value, wanted: &Value) -> bool {
    wanted.as_object().is_some_and(|fields| fields.iter().all(|(name, value)| mount.get(name) == Some(value)))
}

fn mount_path(mount: &Value) -> &str {
    mount.get("mountPath").and_then(Value::as_str).unwrap_or_default().trim_end_matches('/')
}

/// Gives the selected containers the mount, and takes it from those that now run before the agent.
///
/// # Errors
/// [`Refusal`] names the container and the mount that stands in the way.
pub fn converge(
    patched: &mut Patched,
    selection: &Selection,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let path = options.mount_path.as_deref().unwrap_or(DEFAULT_MOUNT_PATH);
    let mut ours = vec![live_mount(path)];
    if !options.environment.is_empty() {
        ours.push(bin_mount());
    }
    for list in LISTS {
        // An ordinary sidecar comes without an agent among the init containers only if an init container precedes it.
        let agent =
            if list == "initContainers" { patched.list(&at!["spec", list]).iter().rposition(is_ours) } else { None };
        for index in 0..patched.list(&at!["spec", list]).len() {
            let Some(container) = patched.get(&at!["spec", list, index]) else { continue };
            if is_ours(container) {
                continue;
            }
            let name = name_of(container).to_owned();
            let too_early = list == "initContainers" && agent.is_none_or(|agent| index < agent);
            if too_early {
                check_early(patched, list, index, &name, &ours, selection)?;
                continue;
            }
            let wanted = selection.takes_all() || selection.names(&name);
            check_mounts(container, &name, &ours, wanted, warnings)?;
            let given = |mount: &&Value| wanted && (name_of(mount) != BIN_VOLUME || is_wrapped(container));
            for mount in ours.iter().filter(given).collect::<Vec<_>>() {
                let mounts = at!["spec", list, index, "volumeMounts"];
                if !patched.list(&mounts).iter().any(|present| is_same(present, mount)) {
                    patched.insert(&mounts, usize::MAX, mount, mount.clone());
                }
            }
        }
    }
    Ok(())
}

/// A container that runs before the agent: a mount would make kubelet create the directory, and the gate be open.
fn check_early(
    patched: &mut Patched,
    list: &str,
    index: usize,
    name: &str,
    ours: &[Value],
    selection: &Selection,
) -> Result<(), Refusal> {
    if selection.names(name) {
        return Err(Refusal::Pod(format!(
            "annotation {PREFIX}{CONTAINERS}: init container {name:?} runs before the agent, when there are no files yet: \
             change {PREFIX}init-order, or leave it out"
        )));
    }
    let mounts = at!["spec", list, index, "volumeMounts"];
    while let Some(at) = patched.list(&mounts).iter().position(|mount| ours.iter().any(|own| is_same(mount, own))) {
        patched.remove(&below(&mounts, Step::Index(at)));
    }
    match patched.list(&mounts).iter().find(|mount| name_of(mount).starts_with(VOLUME_PREFIX)) {
        Some(mount) => Err(Refusal::Pod(format!(
            "init container {name:?} mounts {:?} but runs before the agent, when there are no files yet",
            name_of(mount)
        ))),
        None => Ok(()),
    }
}

/// Mounts of our volumes that a tenant may not make, and mounts of others that collide with ours.
fn check_mounts(
    container: &Value,
    name: &str,
    ours: &[Value],
    wanted: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let mounts = container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten();
    for mount in mounts {
        let volume = name_of(mount);
        let mount_path = mount_path(mount);
        if ours.iter().any(|own| is_same(mount, own)) {
            if wanted {
                continue;
            }
            return Err(Refusal::Pod(format!(
                "container {name:?} mounts {volume:?} but is not in the annotation {PREFIX}{CONTAINERS}"
            )));
        }
        if volume.starts_with(VOLUME_PREFIX) {
            check_own_file(mount, volume, name, warnings)?;
        }
        let below = |own: &&Value| {
            mount_path.strip_prefix(self::mount_path(own)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match ours.iter().find(below) {
            Some(own) if wanted && name_of(own) == BIN_VOLUME => {
                return Err(Refusal::Pod(format!(
                    "container {name:?} mounts {volume:?} at {mount_path:?}, where hushpod's program goes: mount it elsewhere"
                )));
            }
            Some(_) if wanted => {
                return Err(Refusal::Pod(format!(
                    "container {name:?} mounts {volume:?} at {mount_path:?}, where the secrets go: set the annotation \
                     {PREFIX}{MOUNT_PATH} to another path"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The one mount of our volumes that a tenant may write: a single file, read-only.
fn check_own_file(mount: &Value, volume: &str, container: &str, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    let sub_path = mount.get("subPath").and_then(Value::as_str).unwrap_or_default();
    let file = sub_path.strip_prefix("live/").filter(|file| !file.is_empty() && !file.split('/').any(|p| p == ".."));
    let read_only = mount.get("readOnly") == Some(&json!(true));
    if volume != SECRETS_VOLUME || file.is_none() || !read_only {
        return Err(Refusal::Pod(format!(
            "container {container:?} mounts {volume:?}, which is hushpod's own: leave the mount out (the webhook adds it), \
             or mount one file read-only with subPath: live/<file>"
        )));
    }
    warnings
        .push(format!("container {container:?}: Kubernetes never updates a subPath mount ({sub_path}) after start"));
    Ok(())
}
