//! kubelet's request becomes a plan. Nothing of it is trusted but what kubelet itself says of the pod: namespace, service
//! account and tokens. What the pod's author wrote is the annotations' grammar, planned and checked here by the operator's
//! configuration as the webhook does.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::failure::{CallFailure, FailureKind};
use super::proto::csi::volume_capability::{AccessType, MountVolume};
use super::proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use super::record::{FeedKey, PodRef, Record};
use super::tokens::{Tokens, account_of, tokens_in};
use crate::annotations::{in_attributes, parse_attributes};
use crate::audit::Who;
use crate::bundle::FileMode;
use crate::config::{Config, CsiLimits, Identity, NamespaceLabels};
use crate::contract::{CSI_KUBELET_PREFIX, CSI_PROGRAM_ATTRIBUTE, EXEC_COMMAND};
use crate::deliver::Owner;
use crate::deliver::controls::Wanted;
use crate::options::{Mode, Options};
use crate::plan::{BuiltPlan, Plan};
use crate::reference::Request;
use crate::steps;

/// What kubelet asks for, before anything of the pod's own is looked at.
#[derive(Debug)]
pub(super) struct PublishCall {
    /// kubelet's name of the volume.
    pub(super) volume: String,
    /// Where it is to be.
    pub(super) target: PathBuf,
    /// Whose it is.
    pub(super) pod: PodRef,
    /// kubelet's tokens, by audience.
    pub(super) tokens: Tokens,
    service_account: String,
    mount: MountVolume,
    attributes: HashMap<String, String>,
}

/// A volume that can be made.
#[derive(Debug)]
pub(super) struct Publication {
    /// What is remembered of it.
    pub(super) record: Record,
    /// kubelet's tokens, by audience.
    pub(super) tokens: Tokens,
    /// What its namespace and its node may take.
    pub(super) limits: CsiLimits,
}

/// Bytes of a volume's name: kubelet's have 68. It becomes a file's name.
const MAX_ID: usize = 128;
/// Bytes of a path: what Linux takes.
const MAX_PATH: usize = 4096;

const POD_NAME: &str = "pod.name";
const POD_NAMESPACE: &str = "pod.namespace";
const POD_UID: &str = "pod.uid";
const ACCOUNT: &str = "serviceAccount.name";
const TOKENS: &str = "serviceAccount.tokens";
const EPHEMERAL: &str = "ephemeral";

/// The volume and the path of a request to take one away.
pub(super) fn unpublication(
    request: NodeUnpublishVolumeRequest,
    kubelet_root: &Path,
) -> Result<(String, PathBuf), CallFailure> {
    let NodeUnpublishVolumeRequest { volume_id, target_path } = request;
    Ok((checked_id(volume_id)?, checked_target(target_path, kubelet_root)?))
}

/// The plan of a volume with this context (kubelet's own keys and the pod's attributes), in JSON, or the sentence that
/// kubelet is told: what `tests/fuzz` tries.
///
/// # Errors
/// The sentence.
#[doc(hidden)]
pub fn plan_of_context(context: BTreeMap<String, String>, fs_group: &str, config: &Config) -> Result<String, String> {
    const ROOT: &str = "/var/lib/kubelet";
    let mount = MountVolume { volume_mount_group: fs_group.to_owned(), ..MountVolume::default() };
    let request = NodePublishVolumeRequest {
        volume_id: "csi-0".to_owned(),
        target_path: format!("{ROOT}/pods/0/volumes/kubernetes.io~csi/secrets/mount"),
        volume_capability: Some(VolumeCapability { access_type: Some(AccessType::Mount(mount)) }),
        readonly: true,
        secrets: HashMap::new(),
        volume_context: context.into_iter().collect(),
    };
    let planned = PublishCall::of(request, Path::new(ROOT)).and_then(|call| {
        if call.is_program()? {
            return Ok(String::new());
        }
        call.planned(config, &NamespaceLabels::NotAsked)?
            .record
            .plan
            .to_json()
            .map_err(|error| CallFailure::invalid(error.to_string()))
    });
    planned.map_err(|failure| failure.to_string())
}

// === impl PublishCall ===

impl PublishCall {
    /// Understands a request as far as it is kubelet's own.
    ///
    /// # Errors
    /// [`CallFailure`] names what is missing or cannot be.
    pub(super) fn of(request: NodePublishVolumeRequest, kubelet_root: &Path) -> Result<Self, CallFailure> {
        let NodePublishVolumeRequest { volume_id, target_path, volume_capability, readonly, secrets, volume_context } =
            request;
        let volume = checked_id(volume_id)?;
        let target = checked_target(target_path, kubelet_root)?;
        let mount = match volume_capability.and_then(|capability| capability.access_type) {
            Some(AccessType::Mount(mount)) => mount,
            Some(AccessType::Block(_)) => {
                return Err(CallFailure::invalid("a volume of secrets is a directory: expected volumeMode Filesystem"));
            }
            None => return Err(CallFailure::invalid("the request has no volume capability")),
        };
        let (kubelets, attributes) =
            volume_context.into_iter().partition(|(key, _)| key.starts_with(CSI_KUBELET_PREFIX));
        let kubelets = Kubelets { secrets, context: kubelets };
        if kubelets.of(EPHEMERAL) != Some("true") {
            return Err(CallFailure::invalid(
                "a volume of secrets is written into the pod (volumes[].csi): there are no PersistentVolumes of it",
            ));
        }
        if !readonly {
            return Err(CallFailure::invalid(
                "invalid volumes[].csi.readOnly false: expected true, since only the driver writes",
            ));
        }
        let pod = PodRef {
            namespace: kubelets.required(POD_NAMESPACE)?,
            name: kubelets.required(POD_NAME)?,
            uid: kubelets.required(POD_UID)?,
        };
        let service_account = kubelets.required(ACCOUNT)?;
        Ok(Self { volume, target, pod, service_account, mount, attributes, tokens: kubelets.tokens()? })
    }

    /// Whom it is for.
    pub(super) fn who(&self, node: Option<String>) -> Who {
        let PodRef { namespace, name, uid } = self.pod.clone();
        Who { namespace, account: self.service_account.clone(), pod: Some(name), uid: Some(uid), node }
    }

    /// Whether it asks for the program that applications with variables are started through, and for no secrets.
    ///
    /// # Errors
    /// [`CallFailure`] if it asks for both, or for another program.
    pub(super) fn is_program(&self) -> Result<bool, CallFailure> {
        match self.attributes.get(CSI_PROGRAM_ATTRIBUTE).map(String::as_str) {
            None => Ok(false),
            Some(EXEC_COMMAND) if self.attributes.len() == 1 => Ok(true),
            Some(_) => Err(CallFailure::invalid(format!(
                "volumeAttributes: invalid {CSI_PROGRAM_ATTRIBUTE}: expected \"{EXEC_COMMAND}\", and nothing beside it"
            ))),
        }
    }

    /// Plans what it asks for, in a namespace of these labels.
    ///
    /// # Errors
    /// [`CallFailure`] names the attribute, and what it accepts.
    pub(super) fn planned(self, config: &Config, labels: &NamespaceLabels) -> Result<Publication, CallFailure> {
        let Self { volume, target, pod, service_account, mount, attributes, tokens } = self;
        let identity = Identity { namespace: pod.namespace.clone(), service_account };
        let limits = config.csi.as_ref().map(|csi| csi.limits.clone()).unwrap_or_default();
        let (planned, _) = steps::within(steps::REVIEW, || planned(&attributes, identity, labels, &mount, config));
        let Planned { plan, owner, shares } = planned?;
        check_audiences(&plan, &tokens)?;
        let account = tokens.values().find_map(|token| account_of(&token.value));
        let is_generated = |request: &Request| {
            let provider = plan.providers.get(&request.provider);
            provider.is_some_and(|provider| provider.settings.as_settings().is_generated(request))
        };
        let is_own = !shares && plan.requests().into_iter().any(is_generated);
        let unnamed = FeedKey(String::new());
        let mut record = Record {
            volume,
            target,
            pod,
            account,
            owner,
            is_own,
            feed: unnamed,
            wanted: Wanted::default(),
            advanced: None,
            plan: Arc::new(plan),
        };
        record.feed = FeedKey::of(&record);
        Ok(Publication { record, tokens, limits })
    }
}

struct Planned {
    plan: Plan,
    owner: Owner,
    shares: bool,
}

/// Plans what the attributes ask for, in the annotations' words.
fn planned(
    attributes: &HashMap<String, String>,
    identity: Identity,
    labels: &NamespaceLabels,
    mount: &MountVolume,
    config: &Config,
) -> Result<Planned, CallFailure> {
    // In one order, whatever the map's is: a plan is compared with others.
    let sorted: BTreeMap<_, _> = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let (bundle, options) = parse_attributes(sorted.iter().map(|(name, value)| (*name, *value)))
        .map_err(|error| CallFailure::invalid(error.to_string()))?;
    let id = |given: Option<i64>| given.and_then(|id| u32::try_from(id).ok());
    let fs_group = match mount.volume_mount_group.as_str() {
        "" => None,
        group => Some(group.parse::<u32>().map_err(|_| CallFailure::invalid("invalid fsGroup: expected a number"))?),
    };
    let mut options = Options { mode: Some(Mode::Csi), ..options }.or(&config.defaults);
    let owner = Owner { user: id(options.run_as_user), group: id(options.run_as_group).or(fs_group) };
    options.file_mode = options.file_mode.or(Some(match owner {
        Owner { user: Some(_), .. } => FileMode::OWNER,
        Owner { group: Some(_), .. } => FileMode::GROUP,
        Owner { .. } => FileMode::ALL,
    }));
    let shares = options.share_leases;
    let BuiltPlan { plan, warnings, .. } = Plan::build_with_warnings(identity, labels, &bundle, &options, config)
        .map_err(|error| {
            let kind = if error.is_denied { FailureKind::Denied } else { FailureKind::Invalid };
            CallFailure::new(kind, in_attributes(&error.to_string()))
        })?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Some(volume) = plan.volumes().into_iter().next() {
        return Err(CallFailure::invalid(format!(
            "the provider reads the pod's own volume {volume:?}, which no other volume can see: expected mode sidecar"
        )));
    }
    plan.to_json().map_err(|error| CallFailure::invalid(error.to_string()))?;
    Ok(Planned { plan, owner, shares })
}

/// kubelet asks for tokens of the audiences that the CSIDriver object lists, and of no others.
fn check_audiences(plan: &Plan, tokens: &Tokens) -> Result<(), CallFailure> {
    for (name, provider) in &plan.providers {
        if let Some(audience) = provider.audience.as_ref().filter(|audience| !tokens.contains_key(*audience)) {
            return Err(CallFailure::new(
                FailureKind::Precondition,
                format!(
                    "provider {name}: kubelet sent no token for audience {audience:?}, which the CSIDriver object does \
                     not list: upgrade the chart with the present configuration, and create the pod again"
                ),
            ));
        }
    }
    Ok(())
}

/// A name that can be a file's.
fn checked_id(id: String) -> Result<String, CallFailure> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match id.as_str() {
        "" => Err(CallFailure::invalid("the request has no volume id")),
        id if id.len() > MAX_ID || id.starts_with('.') || !id.bytes().all(fits) => {
            Err(CallFailure::invalid("invalid volume id: expected at most 128 letters, digits, '-', '_' and '.'"))
        }
        _ => Ok(id),
    }
}

/// A path that is kubelet's, whatever it says.
fn checked_target(path: String, kubelet_root: &Path) -> Result<PathBuf, CallFailure> {
    if path.is_empty() {
        return Err(CallFailure::invalid("the request has no target path"));
    }
    let target = PathBuf::from(path);
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let below = target.strip_prefix(kubelet_root).is_ok_and(|rest| rest != Path::new(""));
    // `Path` takes `a//b` and `a/./b` for `a/b`; kubelet writes neither.
    let is_canonical = target.components().collect::<PathBuf>().as_os_str() == target.as_os_str();
    if !below || !is_canonical || !target.components().all(is_plain) || target.as_os_str().len() > MAX_PATH {
        return Err(CallFailure::invalid("invalid target path: expected one below kubelet's root, without '..'"));
    }
    Ok(target)
}

/// What kubelet says of itself.
struct Kubelets {
    secrets: HashMap<String, String>,
    context: HashMap<String, String>,
}

// === impl Kubelets ===

impl Kubelets {
    fn of(&self, key: &str) -> Option<&str> {
        self.context.get(&format!("{CSI_KUBELET_PREFIX}{key}")).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn required(&self, key: &str) -> Result<String, CallFailure> {
        self.of(key).map(str::to_owned).ok_or_else(|| {
            CallFailure::new(
                FailureKind::Precondition,
                format!("kubelet sent no {CSI_KUBELET_PREFIX}{key}: the CSIDriver object needs podInfoOnMount: true"),
            )
        })
    }

    /// Where they are: kubelet puts them among the secrets since Kubernetes 1.35, if the CSIDriver object says so (KEP-5538).
    fn tokens(mut self) -> Result<Tokens, CallFailure> {
        let key = format!("{CSI_KUBELET_PREFIX}{TOKENS}");
        let found =
            self.secrets.remove(&key).into_iter().chain(self.context.remove(&key)).find(|text| !text.is_empty());
        self.secrets.into_values().for_each(|secret| drop(Zeroizing::new(secret)));
        let Some(text) = found.map(Zeroizing::new) else { return Ok(Tokens::new()) };
        let bad = || CallFailure::invalid(format!("kubelet's {key} is not the document of tokens that it should be"));
        tokens_in(&text).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests;
