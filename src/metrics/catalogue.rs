//! Every series by name, type, labels and meaning: the one place where they are written, beside src/metrics.md.

/// A name, and what stands behind it.
#[derive(Debug)]
pub struct Metric {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// How it grows.
    pub kind: MetricKind,
    /// One sentence.
    pub help: &'static str,
    /// In the order in which values are given.
    pub labels: &'static [MetricLabel],
    /// Whether counters are left out that have counted nothing yet: there are many of them in every pod.
    pub is_sparse: bool,
}

/// Types of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts durations.
    Histogram,
}

/// What tells series of one metric from each other.
#[derive(Debug)]
pub struct MetricLabel {
    /// Its name.
    pub name: &'static str,
    /// All values that it can have; empty if they are names of others, such as of providers.
    pub words: &'static [&'static str],
}

const fn metric(kind: MetricKind, name: &'static str, labels: &'static [MetricLabel], help: &'static str) -> Metric {
    Metric { name, kind, help, labels, is_sparse: false }
}

const fn counter(name: &'static str, labels: &'static [MetricLabel], help: &'static str) -> Metric {
    metric(MetricKind::Counter, name, labels, help)
}

const fn gauge(name: &'static str, labels: &'static [MetricLabel], help: &'static str) -> Metric {
    metric(MetricKind::Gauge, name, labels, help)
}

const fn words(name: &'static str, words: &'static [&'static str]) -> MetricLabel {
    MetricLabel { name, words }
}

const PROVIDER: MetricLabel = words("provider", &[]);
const OK_OR_ERROR: MetricLabel = words("outcome", &["ok", "error"]);

/// Each constant, and a list of all for tests.
macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $metric:expr;)*) => {
        $($(#[$doc])* pub static $name: Metric = $metric;)*

        /// All of them.
        #[cfg(test)]
        pub(super) static ALL: &[&Metric] = &[$(&$name),*];
    };
}

catalogue! {
    // --- every process ---

    /// Which version runs.
    BUILD_INFO = gauge("hushpod_build_info", &[words("version", &[])], "The version that runs.");
    /// Of the log.
    LOG_DROPPED_LINES =
        gauge("hushpod_log_dropped_lines", &[], "Log lines dropped because nobody took them in time.");
    /// Of the operator's configuration.
    CONFIG_RELOADS =
        counter("hushpod_config_reload_total", &[OK_OR_ERROR], "Changes of the operator's configuration.");
    /// Which one.
    CONFIG_INFO = gauge(
        "hushpod_config_info",
        &[words("digest", &[])],
        "The configuration in force, by the first 16 digits of its file's SHA-256.",
    );
    /// When it was read.
    CONFIG_LOADED =
        gauge("hushpod_config_loaded_timestamp_seconds", &[], "When the configuration in force was read.");
    /// Whether the file cannot be used.
    CONFIG_REFUSED =
        gauge("hushpod_config_refused", &[], "Whether the file that is there is refused, and an earlier one in force.");

    // --- the webhook ---

    /// By outcome.
    ADMISSION_REQUESTS = counter(
        "hushpod_admission_requests_total",
        &[words("outcome", &["injected", "unchanged", "denied", "error"])],
        "Admission requests answered.",
    );
    /// By what stands in the way.
    ADMISSION_DENIALS = counter(
        "hushpod_admission_denials_total",
        &[words("reason", &["annotation", "plan", "policy", "pod"])],
        "Pods denied, by what stands in the way.",
    );
    /// Until the answer is there.
    ADMISSION_DURATION = metric(
        MetricKind::Histogram,
        "hushpod_admission_duration_seconds",
        &[],
        "Time from a request's last byte to its answer.",
    );
    /// What is being decided.
    ADMISSION_IN_FLIGHT =
        gauge("hushpod_admission_in_flight", &[], "Admission requests that wait for their turn or are decided.");
    /// Of what is served.
    CERTIFICATE_EXPIRY = gauge(
        "hushpod_webhook_certificate_expiry_seconds",
        &[],
        "End of the served certificate, in seconds since 1970.",
    );
    /// Whether API servers can know this replica.
    WEBHOOK_TRUSTED =
        gauge("hushpod_webhook_trusted", &[], "Whether the caBundle has this replica's certificate.");
    /// What became of each attempt.
    CABUNDLE_WRITES = counter(
        "hushpod_webhook_cabundle_writes_total",
        &[OK_OR_ERROR],
        "Attempts to write this replica's certificate into the caBundle.",
    );

    // --- what agent and driver have in common ---

    /// Of all files together.
    DELIVERED_FILES = gauge("hushpod_delivered_files", &[], "Files of the generations in place.");
    /// Of all files together.
    DELIVERED_BYTES = gauge("hushpod_delivered_bytes", &[], "Bytes of the files in place.");
    /// Files that did not follow.
    BEHIND_FILES = gauge("hushpod_behind_files", &[], "Files that are older than their generation, or missing.");
    /// By provider.
    PROVIDER_FAILING =
        gauge("hushpod_provider_failing", &[PROVIDER], "Whether a provider's last answer was an error.");
    /// What came of what was due.
    REFRESHES = Metric {
        is_sparse: true,
        ..counter(
            "hushpod_refreshes_total",
            &[
                words("kind", &["read", "renew", "login"]),
                words(
                    "outcome",
                    &["changed", "unchanged", "not_found", "denied", "throttled", "unavailable", "invalid"],
                ),
            ],
            "Requests read, leases renewed and logins extended.",
        )
    };
    /// Over HTTP.
    STORE_REQUESTS = Metric {
        is_sparse: true,
        ..counter(
            "hushpod_store_requests_total",
            &[
                PROVIDER,
                words("call", &["login", "read", "renew", "revoke", "watch"]),
                words("outcome", &["ok", "not_found", "denied", "throttled", "unavailable", "invalid"]),
            ],
            "HTTP requests to stores, and to what gives logins for them.",
        )
    };
    /// Of the first that ends.
    LEASE_EXPIRY = gauge(
        "hushpod_lease_expiry_timestamp_seconds",
        &[PROVIDER],
        "When the first lease ends, or the first answer that has an end.",
    );
    /// Of the first that ends.
    LOGIN_EXPIRY = gauge("hushpod_login_expiry_timestamp_seconds", &[PROVIDER], "When the login ends.");
    /// Files of `caBundle`.
    AUTHORITIES_UNREADABLE = gauge(
        "hushpod_authorities_unreadable",
        &[PROVIDER],
        "Whether the file with a caBundle's authorities cannot be used.",
    );

    // --- the agent ---

    /// By role.
    GENERATION_INFO = gauge(
        "hushpod_generation_info",
        &[words("role", &["delivered", "newest", "running"]), words("generation", &[])],
        "Generations: in the files, in the stores, in processes' variables.",
    );
    /// In processes' variables.
    OUTDATED_GENERATIONS = gauge(
        "hushpod_outdated_generations",
        &[],
        "Generations, other than the newest, that processes run with.",
    );
    /// The swap.
    DELIVERED_TIME = gauge("hushpod_delivered_timestamp_seconds", &[], "When the files changed last.");
    /// Whether there is something newer.
    GENERATION_PENDING = gauge(
        "hushpod_generation_pending",
        &[],
        "Whether the stores have a newer generation than the files.",
    );
    /// By hold or pin.
    HELD = gauge("hushpod_held", &[], "Whether hold or pin keeps the files as they are.");
    /// By pin.
    PINNED = gauge("hushpod_pinned", &[], "Whether pin keeps the files as they are.");
    /// The application.
    NOTIFICATIONS = Metric {
        is_sparse: true,
        ..counter(
            "hushpod_notify_total",
            &[words("outcome", &["ok", "error", "given_up"])],
            "Attempts to tell the application of new files.",
        )
    };
    /// Planned.
    RESTART_DUE = gauge(
        "hushpod_restart_due_timestamp_seconds",
        &[],
        "When all containers restart for changed variables.",
    );
    /// Done.
    RESTARTS = counter("hushpod_restarts_total", &[], "Restarts of all containers that the agent asked for.");
    /// Of the volumes.
    SWAPPABLE = gauge("hushpod_swappable", &[], "Whether the node may swap the files out.");

    // --- the CSI driver ---

    /// New ones.
    CSI_PUBLISHES = counter(
        "hushpod_csi_publish_total",
        &[words("outcome", &["ok", "waiting", "exhausted", "pod_gone", "denied", "not_found", "invalid"])],
        "Calls of kubelet for new volumes.",
    );
    /// Old ones.
    CSI_REPUBLISHES =
        counter("hushpod_csi_republish_total", &[], "Calls of kubelet for volumes that had their files.");
    /// Of running pods.
    CSI_TROUBLES = counter(
        "hushpod_csi_troubles_total",
        &[],
        "Failures of stores, counted for each volume whose last good files stayed.",
    );
    /// Of memory.
    CSI_RESERVED =
        gauge("hushpod_csi_reserved_bytes", &[], "Bytes of memory that the node's volumes may take.");
    /// Of the node.
    CSI_VOLUMES = gauge("hushpod_csi_volumes", &[], "Volumes that are looked after.");
    /// Of the node.
    CSI_FEEDS = gauge("hushpod_csi_feeds", &[], "Sources that feed volumes.");
    /// Without files.
    CSI_WAITING = gauge("hushpod_csi_waiting_volumes", &[], "Volumes without first files: their pods wait.");
    /// By hold or pin.
    CSI_HELD = gauge("hushpod_csi_held_volumes", &[], "Volumes that hold or pin keeps as they are.");
    /// By pin.
    CSI_PINNED = gauge("hushpod_csi_pinned_volumes", &[], "Volumes that pin keeps as they are.");
    /// Behind their stores.
    CSI_PENDING = gauge(
        "hushpod_csi_pending_volumes",
        &[],
        "Volumes whose files are older than the newest generation of their stores.",
    );
    /// Of the node.
    CSI_OLDEST = gauge(
        "hushpod_csi_oldest_delivered_timestamp_seconds",
        &[],
        "When the volume changed last whose files did not change for longest.",
    );
    /// By provider.
    CSI_FAILING = gauge(
        "hushpod_csi_failing_volumes",
        &[PROVIDER],
        "Volumes of which a provider's last answer was an error.",
    );
}

// === impl MetricKind ===

impl MetricKind {
    /// Its word in the text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}
