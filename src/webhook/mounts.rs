//! Chooses the containers that get the files: which mount the volume, and that none mounts it in another way.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::env_wrapper::is_wrapped;
use super::patch::{Patched, Step, at, below};
use super::pod::{LISTS, containers, is_ours, name_of};
use super::refusal::Refusal;
use super::selection::Selection;
use crate::annotations::{CONTAINERS, MOUNT_PATH};
use crate::contract::{
    BIN_PATH, BIN_VOLUME, DEFAULT_MOUNT_PATH, LIVE, PREFIX, SECRETS_VOLUME, TOKENS_PATH, VOLUME_PREFIX,
};
use crate::options::{Mode, Options};
use crate::steps;

/// What applications mount: of the agent's volume what is behind the gate, of the driver's all of it.
fn files_mount(path: &str, mode: Mode) -> Value {
    match mode {
        Mode::Csi => json!({"name": SECRETS_VOLUME, "mountPath": path, "readOnly": true}),
        _ => json!({"name": SECRETS_VOLUME, "mountPath": path, "subPath": LIVE, "readOnly": true}),
    }
}

/// What they mount to be started through `hushpod-agent exec`.
fn bin_mount() -> Value {
    json!({"name": BIN_VOLUME, "mountPath": BIN_PATH, "readOnly": true})
}

/// Whether a mount is the one that we give to applications, whatever others wrote into it besides.
fn is_same(mount: &Value, wanted: &Value) -> bool {
    let has_all = |fields: &Map<String, Value>| fields.iter().all(|(name, value)| mount.get(name) == Some(value));
    wanted.as_object().is_some_and(has_all) && mount.get("subPath") == wanted.get("subPath")
}

fn path_of(mount: &Value) -> &str {
    mount.get("mountPath").and_then(Value::as_str).unwrap_or_default()
}

/// Where the kubelet, and after it the runtime, puts a path: absolute, without empty parts and dots.
fn normal(path: &str) -> Cow<'_, str> {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    if path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain)) {
        return Cow::Borrowed(path);
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Cow::Owned(format!("/{}", parts.join("/")))
}

/// Whether a path is another one, or lies below it. Both are normal.
fn is_within(path: &str, other: &str) -> bool {
    let rest = path.strip_prefix(other.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Warns of a place for the files that has something else below it in every container.
pub(super) fn check_path(spec: &Value, options: &Options, warnings: &mut Vec<String>) {
    // Where /var/run is /run, as in most images, it is the same place.
    const TOKENS: [&str; 2] = [TOKENS_PATH, "/run/secrets/kubernetes.io/serviceaccount"];
    let path = options.mount_path.as_deref().unwrap_or(DEFAULT_MOUNT_PATH);
    let has_token = spec.get("automountServiceAccountToken") != Some(&json!(false));
    if has_token && TOKENS.iter().any(|tokens| is_within(tokens, path)) {
        warnings.push(format!(
            "{PREFIX}{MOUNT_PATH}: Kubernetes mounts the API's token below {path}, which is then read-only, so no \
             container starts: write another path, or automountServiceAccountToken: false"
        ));
    }
}

/// Gives the selected containers the mount, and takes it from those that now run before the agent.
///
/// # Errors
/// [`Refusal`] names the container and the mount that stands in the way.
pub(super) fn converge(
    patched: &mut Patched,
    selection: &Selection,
    options: &Options,
    mode: Mode,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let path = options.mount_path.as_deref().unwrap_or(DEFAULT_MOUNT_PATH);
    let mut ours = vec![files_mount(path, mode)];
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
            let present = container.get("volumeMounts").and_then(Value::as_array);
            steps::take(1 + present.map_or(0, Vec::len))?;
            let too_early = mode != Mode::Csi && list == "initContainers" && agent.is_none_or(|agent| index < agent);
            if too_early {
                check_early(patched, list, index, &name, &ours, selection)?;
                continue;
            }
            let wanted = selection.takes(&name);
            if !wanted && selection.is_again() {
                take_away(patched, &at!["spec", list, index, "volumeMounts"], &ours);
            }
            let Some(container) = patched.get(&at!["spec", list, index]) else { continue };
            let spec = patched.object().get("spec").unwrap_or(&Value::Null);
            check_mounts(container, spec, &ours, wanted, warnings)?;
            if wanted {
                check_devices(container, &name, &ours)?;
            }
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
    if selection.is_asked() && selection.takes(name) {
        return Err(Refusal::Pod(format!(
            "annotation {PREFIX}{CONTAINERS}: init container {name:?} runs before the agent, when there are no files yet: \
             change {PREFIX}init-order, or leave it out"
        )));
    }
    let mounts = at!["spec", list, index, "volumeMounts"];
    take_away(patched, &mounts, ours);
    match patched.list(&mounts).iter().find(|mount| name_of(mount).starts_with(VOLUME_PREFIX)) {
        Some(mount) => Err(Refusal::Pod(format!(
            "init container {name:?} mounts {:?} but runs before the agent, when there are no files yet",
            name_of(mount)
        ))),
        None => Ok(()),
    }
}

/// Removes the mounts that we give to applications.
fn take_away(patched: &mut Patched, mounts: &[Step<'_>], ours: &[Value]) {
    // One each: Kubernetes lets no two of a container's mounts have one path.
    for own in ours {
        if let Some(at) = patched.list(mounts).iter().position(|mount| is_same(mount, own)) {
            patched.remove(&below(mounts, Step::Index(at)));
        }
    }
}

/// Mounts of our volumes that a tenant may not make, and mounts of others that collide with ours.
fn check_mounts(
    container: &Value,
    spec: &Value,
    ours: &[Value],
    wanted: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let name = name_of(container);
    let mounts = container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten();
    for mount in mounts {
        let volume = name_of(mount);
        let mount_path = path_of(mount);
        let place = normal(mount_path);
        if ours.iter().any(|own| is_same(mount, own)) {
            if wanted {
                continue;
            }
            return Err(Refusal::Pod(format!(
                "container {name:?} mounts {volume:?} but does not get the files: leave the mount out, or name \
                 the container in the annotation {PREFIX}{CONTAINERS}"
            )));
        }
        if volume.starts_with(VOLUME_PREFIX) {
            check_own_file(mount, volume, name, ours, warnings)?;
        }
        let files = ours.first().map_or("", path_of);
        if wanted && is_within(files, &place) && place != files && is_read_only(mount, spec) {
            warnings.push(format!(
                "container {name:?} mounts {volume:?} read-only at {mount_path:?}, and cannot start unless that has the \
                 directory {files} for the secrets: set {PREFIX}{MOUNT_PATH} to another path"
            ));
        }
        match ours.iter().find(|own| is_within(&place, path_of(own))) {
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

/// Whether nothing can be made in a mount: in those volumes the kubelet lets nobody write.
fn is_read_only(mount: &Value, spec: &Value) -> bool {
    const KINDS: [&str; 4] = ["configMap", "downwardAPI", "projected", "secret"];
    let volumes = containers(spec, "volumes");
    steps::spend(volumes.len());
    let volume = volumes.iter().find(|volume| name_of(volume) == name_of(mount));
    mount.get("readOnly") == Some(&json!(true))
        || volume.is_some_and(|volume| KINDS.iter().any(|kind| volume.get(kind).is_some()))
}

/// The API server knows mounts and block devices by their paths, of which none may be there twice.
fn check_devices(container: &Value, name: &str, ours: &[Value]) -> Result<(), Refusal> {
    let devices = container.get("volumeDevices").and_then(Value::as_array).into_iter().flatten();
    let mut paths = devices.filter_map(|device| device.get("devicePath")?.as_str());
    let is_ours = |path: &&str| ours.iter().any(|own| normal(path) == path_of(own));
    paths.find(is_ours).map_or(Ok(()), |path| {
        Err(Refusal::Pod(format!(
            "container {name:?} has a block device at {path:?}, where hushpod mounts: set the annotation \
             {PREFIX}{MOUNT_PATH} to another path, or the device's"
        )))
    })
}

/// The one mount of our volumes that a tenant may write: a single file, read-only.
fn check_own_file(
    mount: &Value,
    volume: &str,
    container: &str,
    ours: &[Value],
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let sub_path = mount.get("subPath").and_then(Value::as_str).unwrap_or_default();
    let has_no_gate = ours.first().is_some_and(|files| files.get("subPath").is_none());
    let behind_gate = || sub_path.strip_prefix(LIVE).and_then(|file| file.strip_prefix('/'));
    let file = if has_no_gate { Some(sub_path) } else { behind_gate() };
    let file = file.filter(|file| !file.is_empty() && !file.split('/').any(|p| p == ".."));
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
