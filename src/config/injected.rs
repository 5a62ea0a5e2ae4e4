//! Containers that nobody wrote into the pod's template: meshes' and vendors' webhooks add them, under names of their own.

/// Globs of those that are known, for operators who name none. A mesh's proxy that waits for the files would wait for
/// ever, since the agent waits for the proxy; and what others inject has no business with a tenant's secrets.
pub const KNOWN: [&str; 37] = [
    // Application performance monitoring, and agents of its vendors.
    "appd-agent-*",
    "datadog-*",
    "dynatrace-*",
    "install-oneagent",
    "instana-*",
    "newrelic-*",
    "opentelemetry-auto-instrumentation*",
    "otc-container",
    "otel-agent-*",
    // Security agents.
    "aqua-*",
    "crowdstrike-falcon-*",
    "twistlock-*",
    // Logins and secrets, of clouds and of others.
    "azwi-*",
    "copy-vault-env",
    "csql-*",
    "infisical-agent",
    "infisical-agent-init",
    "vault-agent",
    "vault-agent-init",
    // Volumes and models.
    "gke-gcsfuse-*",
    "storage-initializer",
    // Runtimes and tools.
    "daprd",
    "queue-proxy",
    "tel-agent-init",
    "traffic-agent",
    // Meshes.
    "consul-*",
    "enable-core-dump",
    "envoy-sidecar",
    "istio-init",
    "istio-proxy",
    "istio-validation",
    "kuma-*",
    "linkerd-*",
    "nginx-mesh-*",
    "osm-init",
    "proxyinit",
    "xray-daemon",
];

/// The same, as a configuration has them.
pub fn known() -> Vec<String> {
    KNOWN.map(str::to_owned).to_vec()
}
