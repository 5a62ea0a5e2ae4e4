//! Every annotation key stands here, and only here.

/// One annotation key (without [`crate::contract::PREFIX`]), for documentation and for parsing.
#[derive(Debug, Clone, Copy)]
pub struct AnnotationKey {
    /// The key; a family of keys ends in `.`, and a name follows.
    pub name: &'static str,
    /// What it means, in one line.
    pub meaning: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// Whether the operator may set a default for it.
    pub has_operator_default: bool,
}

macro_rules! keys {
    ($($constant:ident = $name:literal, $default:literal, $operator:literal, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $constant: &str = $name;
        )*
        /// Every key, in the order of src/annotations.md.
        pub const KEYS: &[AnnotationKey] = &[$(AnnotationKey { name: $name, meaning: $meaning, default: $default, has_operator_default: $operator }),*];
    };
}

keys! {
    INJECT = "inject", "`true`", false, "`false` opts the pod out, whatever else is annotated";
    FILE = "file.", "–", false, "`file.<name>: <reference>` delivers one value as the file `<name>`";
    DIR = "dir.", "–", false, "`dir.<name>: <reference>` delivers one file per key into the directory `<name>` (`.` is the volume itself)";
    SECRETS = "secrets", "–", false, "a YAML list of files and directories: the full form";
    PROVIDER = "provider", "the operator's", false, "provider of references that name none";
    ROLE = "role.", "the operator's template", false, "`role.<provider>: <role>` is the role, identity or ARN to log in as";
    MODE = "mode", "`sidecar`", true, "`sidecar`, `init+sidecar`, `init` or `csi`: see Modes";
    MOUNT_PATH = "mount-path", "`/secrets`", true, "where the containers find the files";
    CONTAINERS = "containers", "all but injected ones", false, "comma-separated names of the containers that get the mount";
    INIT_ORDER = "init-order", "`first`", true, "the agent's place among init containers: `first`, `last` or `after:<container>`";
    REFRESH = "refresh", "the provider's", true, "poll interval, such as `30s` or `5m`, where the store cannot push";
    NOTIFY = "notify", "none", false, "after a change, space-separated: `signal:<SIGNAL>:<process>`, `http:<url on localhost>`; with `csi` from containers with variables";
    FILE_MODE = "file-mode", "`0400`, `0440` or `0444`: see Who can read the files", true, "permission bits of every file";
    RUN_AS_USER = "run-as-user", "the containers' common uid", true, "uid of the agent";
    RUN_AS_GROUP = "run-as-group", "the containers' common gid", true, "gid of the agent";
    SIZE_LIMIT = "size-limit", "`1Mi`", true, "most bytes of all files together; the tmpfs is sized for three generations of it, in whole pages of 4 KiB (32 more for a directory)";
    CPU_REQUEST = "resources.cpu-request", "`5m`", true, "CPU request of each injected container, or `none`: see Resources";
    CPU_LIMIT = "resources.cpu-limit", "none", true, "CPU limit of each injected container";
    MEMORY_REQUEST = "resources.memory-request", "`8Mi` and the files", true, "memory request of each injected container, or `none`";
    MEMORY_LIMIT = "resources.memory-limit", "`32Mi` and the files", true, "memory limit of each injected container, or `none`";
    ENV = "env", "none", false, "comma-separated dotenv files, or directories of `dir.<name>`, whose keys become environment variables of the `containers`: see Environment variables";
    ENV_VARIABLE = "env.", "–", false, "`env.<NAME>: <reference>` is one environment variable of the `containers`";
    ON_CHANGE = "on-change", "`none`", false, "of variables: `none` waits for the next restart, `restart` ends the container so it starts anew, `restart-all` restarts all containers of the pod in place (Kubernetes 1.36), `signal:<SIGNAL>` tells the application";
    ON_CHANGE_JITTER = "on-change-jitter", "`5m` for both", true, "`restart` and `restart-all` come at a random moment within this time after the change";
    METRICS_PORT = "metrics-port", "none", true, "port on which the sidecar serves `/metrics`, and tells the kubelet what `kubectl describe` is to show: see Metrics";
    SHARE_LEASES = "share-leases", "`false`", false, "with `csi`: `true` lets a node's pods of one service account and the same annotations have one lease together";
    HOLD = "hold", "`false`", false, "live: `true` freezes the present generation";
    PIN = "pin", "none", false, "live: a generation id to return to and stay at";
    ADVANCE = "advance", "–", false, "live: a new text takes the newest generation once, and holds again: see Waves";
    REFRESH_NOW = "refresh-now", "–", false, "live: any new text fetches at once";
    DENY = "deny", "–", false, "live, of running pods alone: any text stops the agent, and the files stay: see Denied pods";
}
