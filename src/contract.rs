//! What webhook, agent, `exec` and chart must agree on: names, paths and the layout of the volume. Each word stands
//! here alone; a test looks for a second one.

// --- Annotations ---

/// Any annotation under this prefix opts a pod in.
pub const PREFIX: &str = "hushpod.dev/";

// --- The webhook ---

/// Where kube-apiserver posts.
pub const MUTATE_PATH: &str = "/mutate";
/// Where it listens: with 443 the only port of nodes that private control planes of GKE reach without a rule.
pub const WEBHOOK_PORT: u16 = 10250;
/// The webhook's name in its configuration, by which API servers speak of it.
pub const MUTATING_WEBHOOK: &str = "pods.hushpod.dev";
/// The policy about pods that ask, by which API servers speak of it.
pub const POLICY: &str = "hushpod-pods";

// --- The agent's containers ---

/// The native sidecar, and the ordinary one on clusters without.
pub const SIDECAR: &str = "hushpod";
/// The init container.
pub const INIT: &str = "hushpod-init";
/// The agent's program by name: its file in the images and in [`BIN_VOLUME`].
pub const AGENT_NAME: &str = "hushpod-agent";
/// The agent in its image.
pub const AGENT: &str = "/hushpod-agent";
/// In the same image, the part of it that applications are started through: it is copied into [`BIN_VOLUME`].
pub const EXEC: &str = "/hushpod-exec";
/// The variable that carries the plan.
pub const PLAN_VARIABLE: &str = "HUSHPOD_PLAN";
/// Beside it, by the downward API: the pod's name, for what is told of it …
pub const POD_VARIABLE: &str = "HUSHPOD_POD";
/// … its UID …
pub const POD_UID_VARIABLE: &str = "HUSHPOD_POD_UID";
/// … and its node's name. Whatever stands there, nothing else depends on it.
pub const NODE_VARIABLE: &str = "HUSHPOD_NODE";
/// What monitors call the port of the plan's `metricsPort`.
pub const METRICS_PORT_NAME: &str = "hushpod-metrics";
/// The agent's exit code for kubelet to restart all containers of the pod (`restartPolicyRules`, KEP-5532): the number
/// of Linux' ERESTART, and no other exit code of ours.
pub const RESTART_ALL_CODE: u8 = 85;
/// What kubelet asks the agent for at that port: its answer becomes an event of the pod.
pub const GENERATIONS_PATH: &str = "/generations";

/// Where kubelet looks for a reason why a container ended, unless the container says otherwise.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

// --- Volumes, and where the agent mounts them ---

/// Volumes of this prefix are ours.
pub const VOLUME_PREFIX: &str = "hushpod-";
/// The files, in memory.
pub const SECRETS_VOLUME: &str = "hushpod-secrets";
/// Where the agent has them; applications mount [`LIVE`] of it.
pub const SECRETS_PATH: &str = "/run/hushpod/volume";
/// What the agents hand over, in memory; never mounted by others.
pub const STATE_VOLUME: &str = "hushpod-state";
/// Where the agent has it.
pub const STATE_PATH: &str = "/run/hushpod/state";
/// The pod's annotations, for the live controls.
pub const CONTROLS_VOLUME: &str = "hushpod-controls";
/// Where the agent has them, in the file [`ANNOTATIONS_FILE`].
pub const CONTROLS_PATH: &str = "/run/hushpod/controls";
/// The file of [`CONTROLS_VOLUME`].
pub const ANNOTATIONS_FILE: &str = "annotations";
/// One projected token per provider; never mounted by others.
pub const TOKENS_VOLUME: &str = "hushpod-tokens";
/// Where the ServiceAccount admission plugin, which runs after us, would else mount the pod's API token.
pub const TOKENS_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The authorities of stores with `caBundle`, as kubelet keeps them, one file per provider; never mounted by others.
pub const CA_VOLUME: &str = "hushpod-ca";
/// Where the agent has them.
pub const CA_PATH: &str = "/run/hushpod/ca";
/// Where the agent finds the pod's own volumes, each under its name: providers of type `file` read there.
pub const SOURCES_PATH: &str = "/run/hushpod/sources";
/// The program that applications with environment variables are started through; on disk, since it is not a secret.
pub const BIN_VOLUME: &str = "hushpod-bin";
/// Where the agent has it, to put the program there …
pub const BIN_SOURCE_PATH: &str = "/run/hushpod/bin";
/// … where applications mount it …
pub const BIN_PATH: &str = "/hushpod-bin";
/// … and what the program is called there.
pub const PROGRAM: &str = "/hushpod-bin/hushpod-agent";

// --- The CSI driver ---

/// The driver's name, as CSIDriver objects and inline volumes have it.
pub const CSI_DRIVER: &str = "csi.hushpod.dev";
/// Annotation of pods of mode csi, and of the CSIDriver object: whose pods the driver is, for whom a pod waits in vain.
pub const CSI_DAEMON_SET_ANNOTATION: &str = "csi.hushpod.dev/daemon-set";
/// Where the operator says nothing else.
pub const CSI_DAEMON_SET: &str = "hushpod-csi";
/// What stands before the keys that kubelet itself adds to a volume's attributes.
pub const CSI_KUBELET_PREFIX: &str = "csi.storage.k8s.io/";
/// The attribute of volumes without secrets: with the program that applications are started through, [`EXEC_COMMAND`].
pub const CSI_PROGRAM_ATTRIBUTE: &str = "program";
/// What the mount table calls the driver's file system with that program.
pub const CSI_PROGRAMS_SOURCE: &str = "hushpod-csi-programs";
/// What the mount table calls a file system of ours.
pub const CSI_MOUNT_SOURCE: &str = CSI_PROGRAM;
/// The driver's program.
pub const CSI_PROGRAM: &str = "hushpod-csi";

// --- The volume of the files ---

/// What applications mount of [`SECRETS_VOLUME`]: kubelet cannot prepare it before the gate is open.
pub const LIVE: &str = "live";
/// Where they mount it, if the pod does not say.
pub const DEFAULT_MOUNT_PATH: &str = "/secrets";
/// The link to the present generation, of ours as of kubelet's own volumes (`AtomicWriter`,
/// k8s.io/kubernetes/pkg/volume/util).
pub const DATA: &str = "..data";
/// What stands before a generation's id in its directory's name. All names of the volume's own begin with it; no
/// file's name does.
pub const OWN_PREFIX: &str = "..";
/// Stands between id and counter where two directories have one id.
pub const COUNTER: char = '~';
/// Directory with one file for each generation that was delivered, where the pod has a metrics port: processes that run
/// with variables of a generation hold a lock on its file, which the agent sees.
pub const RUNNING: &str = "..running";
/// Directory with one file for each variable that is annotated by itself: bytes stay as they are.
pub const ENV_DIR: &str = ".hushpod-env";
/// The same variables as kubelet reads them, for containers that are not started through our program.
pub const KUBELET_ENV_DIR: &str = ".hushpod-kubelet-env";

// --- The command line of `hushpod-agent exec`, which the webhook writes ---

/// The subcommand.
pub const EXEC_COMMAND: &str = "exec";
/// A file or directory of variables.
pub const ENV_OPTION: &str = "--env";
/// The same, if there is one.
pub const OPTIONAL_ENV_OPTION: &str = "--optional-env";
/// A variable that stays as the container has it.
pub const KEEP_OPTION: &str = "--keep";
/// What happens when a file changes.
pub const ON_CHANGE_OPTION: &str = "--on-change";
/// Within which time.
pub const JITTER_OPTION: &str = "--jitter";
/// How long the application may take to end.
pub const GRACE_OPTION: &str = "--grace";
/// Whom to tell of every change, as the annotation `notify` writes it.
pub const NOTIFY_OPTION: &str = "--notify";
/// How many there may be.
pub const MAX_NOTIFIED: usize = 32;
/// What stands between the options and the application's command.
pub const END_OF_OPTIONS: &str = "--";
