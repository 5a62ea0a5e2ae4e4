//! Who gets the files: which containers mount the volume, and that none mounts it in another way.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::containers::is_ours;
use super::mutate::{LISTS, Refusal, containers, name_of};
use super::patch::{Patched, Step, at, below};
use super::wrap::is_wrapped;
use crate::annotations::{CONTAINERS, MOUNT_PATH};
use crate::bundle::suggestion;
use crate::config::{Config, matches};
use crate::contract::{
    BIN_PATH, BIN_VOLUME, DEFAULT_MOUNT_PATH, LIVE, PREFIX, SECRETS_VOLUME, TOKENS_PATH, VOLUME_PREFIX,
};
use crate::options::{InitOrder, Options};
use crate::plan::Plan;
use crate::steps;

/// Names that a sentence tells, of as many as there may be.
const SHOWN: usize = 8;

/// The containers that get the files.
#[derive(Debug)]
pub struct Selection {
    /// Their names; those that the pod names may be yet to come.
    names: BTreeSet<String>,
    /// Whether the pod names them itself.
    is_asked: bool,
    /// Whether an earlier pass was here, so that mounts of ours are its own.
    is_again: bool,
}

// === impl Selection ===

impl Selection {
    /// Those that the pod names; else those that an earlier pass wrote down; else all that nobody is known to inject.
    /// What others add when we were asked already gets nothing: a mesh's proxy that waits for the files would keep the
    /// agent from its store.
    ///
    /// # Errors
    /// [`Refusal`] suggests the name that was meant, or says that nobody is left.
    pub fn of(
        spec: &Value,
        options: &Options,
        earlier: Option<&Plan>,
        config: &Config,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Refusal> {
        let is_again = earlier.is_some();
        let is_injected = |name: &str| {
            // Most of them differ in the first letter.
            let may = |glob: &&String| glob.starts_with('*') || glob.as_bytes().first() == name.as_bytes().first();
            config.injected_containers.iter().filter(may).any(|glob| matches(glob, name))
        };
        let others = || LISTS.iter().flat_map(|list| containers(spec, list)).filter(|container| !is_ours(container));
        let present = || -> BTreeSet<_> { others().map(name_of).collect() };
        steps::take(LISTS.iter().map(|list| containers(spec, list).len()).sum())?;
        if let Some(names) = &options.containers {
            let present = present();
            for absent in names.iter().filter(|name| !present.contains(name.as_str())) {
                if !is_injected(absent) {
                    let known: Vec<_> = present.iter().copied().collect();
                    return Err(Refusal::Pod(format!(
                        "annotation {PREFIX}{CONTAINERS}: the pod has no container {absent:?}{}",
                        suggestion(absent, &known)
                    )));
                }
                warnings.push(format!(
                    "{PREFIX}{CONTAINERS}: no container {absent:?} yet; it gets the files when another webhook adds it"
                ));
            }
            return Ok(Self { names: names.clone(), is_asked: true, is_again });
        }
        let kept = earlier.map_or_else(BTreeSet::new, |plan| {
            let present = present();
            plan.containers.iter().filter(|name| present.contains(name.as_str())).cloned().collect()
        });
        let (injected, own): (Vec<_>, Vec<_>) = candidates(spec, options).partition(|name| is_injected(name));
        // A copy of a pod may have other names: then nothing was chosen of it yet.
        if !kept.is_empty() {
            for late in own.iter().filter(|name| !kept.contains(**name)).take(SHOWN) {
                warnings.push(format!(
                    "container {late:?} came later and gets no files: name it in {PREFIX}{CONTAINERS} if it wants them"
                ));
            }
            return Ok(Self { names: kept, is_asked: false, is_again });
        }
        let some = injected.get(..SHOWN).filter(|some| some.len() < injected.len());
        let left_out = some.map_or_else(|| injected.join(", "), |some| some.join(", ") + ", …");
        if own.is_empty() && !injected.is_empty() {
            return Err(Refusal::Pod(format!(
                "the pod has no containers but {left_out}, whose names other webhooks give to what they inject: say \
                 in the annotation {PREFIX}{CONTAINERS} which of them get the files"
            )));
        }
        if !injected.is_empty() {
            warnings.push(format!(
                "{left_out}: no files, since other webhooks inject containers of such names: write \
                 {PREFIX}{CONTAINERS} to choose yourself"
            ));
        }
        let names = own.into_iter().map(str::to_owned).collect();
        Ok(Self { names, is_asked: false, is_again })
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The containers that will read the files. Init containers count if they are named, or if no application
    /// container is left to ask.
    #[must_use]
    pub fn containers<'a>(&self, spec: &'a Value) -> Vec<&'a Value> {
        let lists = if self.is_asked { &LISTS[..] } else { &["containers"] };
        let all = lists.iter().flat_map(|list| containers(spec, list));
        all.filter(|container| !is_ours(container) && self.takes(name_of(container))).collect()
    }

    /// Whether a container gets the files, if there are any when it starts.
    #[must_use]
    pub fn takes(&self, container: &str) -> bool {
        self.names.contains(container)
    }

    /// Whether the pod names them itself.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.is_asked
    }
}

/// Names of the containers that start behind the gate, ours apart.
fn candidates<'a>(spec: &'a Value, options: &Options) -> impl Iterator<Item = &'a str> {
    let inits = containers(spec, "initContainers");
    let position = |name: &str| inits.iter().position(|container| name_of(container) == name);
    let agent = inits.iter().rposition(is_ours);
    let early = match &options.init_order {
        Some(InitOrder::After(name)) => agent.max(position(name)).map_or(0, |place| place + 1),
        Some(InitOrder::Last) if agent.is_none() => inits.len(),
        _ => agent.map_or(0, |place| place + 1),
    };
    let others = inits.iter().skip(early).chain(containers(spec, "containers"));
    others.filter(|container| !is_ours(container)).map(name_of)
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
pub fn check_path(spec: &Value, options: &Options, warnings: &mut Vec<String>) {
    // Where /var/run is /run, as in most images, it is the same place.
    const TOKENS: [&str; 2] = [TOKENS_PATH, "/run/secrets/kubernetes.io/serviceaccount"];
    let path = options.mount_path.as_deref().unwrap_or(DEFAULT_MOUNT_PATH);
    let has_token = spec.get("automountServiceAccountToken") != Some(&json!(false));
    if has_token && TOKENS.iter().any(|tokens| is_within(tokens, path)) {
        warnings.push(format!(
            "{PREFIX}{MOUNT_PATH}: Kubernetes mounts the API's token below {path}, which is read-only then, so that no \
             container starts: write another path, or automountServiceAccountToken: false"
        ));
    }
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
            let present = container.get("volumeMounts").and_then(Value::as_array);
            steps::take(1 + present.map_or(0, Vec::len))?;
            let too_early = list == "initContainers" && agent.is_none_or(|agent| index < agent);
            if too_early {
                check_early(patched, list, index, &name, &ours, selection)?;
                continue;
            }
            let wanted = selection.takes(&name);
            if !wanted && selection.is_again {
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
    if selection.is_asked && selection.takes(name) {
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
                "container {name:?} mounts {volume:?} and is none of those that get the files: leave the mount out, or name \
                 the container in the annotation {PREFIX}{CONTAINERS}"
            )));
        }
        if volume.starts_with(VOLUME_PREFIX) {
            check_own_file(mount, volume, name, warnings)?;
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
fn check_own_file(mount: &Value, volume: &str, container: &str, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    let sub_path = mount.get("subPath").and_then(Value::as_str).unwrap_or_default();
    let file = sub_path.strip_prefix(LIVE).and_then(|file| file.strip_prefix('/'));
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
