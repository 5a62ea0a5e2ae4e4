//! `hushpod webhook`.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::cluster;
use crate::cluster::namespaces::Namespaces;
use crate::config::reload::Reloading;
use crate::contract::WEBHOOK_PORT;
use crate::metrics::Registry;
use crate::process::shutdown::Shutdown;
use crate::quantity::parse_duration;
use crate::serve::admin;
use crate::serve::readiness::Readiness;
use crate::webhook::server;
use crate::webhook::server::{Injector, Metrics, Names, WebhookSettings, reviewer};

const LONG: &str = "\
Answer the API server: patch pods that ask for secrets by annotation.

Examples:
  hushpod webhook --config config.yaml
  hushpod webhook --config config.yaml --tls-dir /tls --client-ca ca.crt
  hushpod webhook --config config.yaml --kubeconfig ~/.kube/config";
const AFTER: &str = "\
Without --tls-dir the webhook makes its own certificate, keeps the key in
memory, and puts its authority into the MutatingWebhookConfiguration.
A changed configuration file is in force at once; a bad one is refused with a
log line, and the last good one stays.

Exit codes: 0 ended by a signal; 1 it failed, and said why; 2 wrong usage";

#[derive(Debug, Args)]
#[command(
    about = "Answer the API server: patch pods that ask for secrets by annotation",
    long_about = LONG,
    after_help = AFTER
)]
pub(super) struct WebhookArgs {
    /// The operator's configuration (YAML): providers, who may use them, defaults.
    #[arg(long, env = "HUSHPOD_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Directory with tls.crt and tls.key, as cert-manager mounts it; followed when they change.
    #[arg(long, env = "HUSHPOD_TLS_DIR", value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// PEM file of the authorities that sign the API server's client certificate: without one of theirs nobody is heard.
    /// Followed when it changes; without this option everyone who can connect is heard.
    #[arg(long, env = "HUSHPOD_CLIENT_CA", value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// Where the API server calls; [::] is IPv6 and IPv4.
    #[arg(long, env = "HUSHPOD_LISTEN", value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, WEBHOOK_PORT)))]
    listen: SocketAddr,
    /// Where probes and Prometheus call: /healthz, /readyz, /metrics (plain HTTP).
    #[arg(long, env = "HUSHPOD_ADMIN_LISTEN", value_name = "ADDRESS", default_value_t = admin::ADDRESS)]
    admin_listen: SocketAddr,
    /// The Service in front of the webhook: its own certificate is for this name.
    #[arg(long, env = "HUSHPOD_SERVICE", value_name = "NAME", default_value = "hushpod-webhook")]
    service: String,
    /// The MutatingWebhookConfiguration that has to trust it.
    #[arg(long, env = "HUSHPOD_WEBHOOK_CONFIGURATION", value_name = "NAME", default_value = "hushpod")]
    webhook_configuration: String,
    /// The cluster to talk to, if the webhook does not run in it; ~/.kube/config is never looked for.
    #[arg(long, value_name = "FILE", conflicts_with = "tls_dir")]
    kubeconfig: Option<PathBuf>,
    /// How long to go on serving after SIGTERM; 5s is the least.
    #[arg(long, env = "HUSHPOD_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    drain: Duration,
    /// This pod's name (downward API).
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "hushpod")]
    pod_name: String,
    /// This container's name, where the pod has several of this program at the port of --listen: each has a certificate of
    /// its own, and listens when it is ready. When one dies, the others have all that comes after.
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// This pod's namespace (downward API).
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "hushpod")]
    pod_namespace: String,
    /// This pod's UID (downward API), by which `kubectl describe pod` finds its events.
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
}

pub(super) async fn run(args: WebhookArgs, registry: Registry) -> Result<(), String> {
    let WebhookArgs {
        config,
        tls_dir,
        client_ca,
        listen,
        admin_listen,
        service,
        webhook_configuration,
        kubeconfig,
        drain,
        pod_name,
        container,
        pod_namespace,
        pod_uid,
    } = args;
    let shutdown = Shutdown::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let reloading = Reloading::open(&config, Injector::new).map_err(|error| error.to_string())?;
    let metrics = Metrics::new(registry.clone());
    let namespaces = Namespaces::default();
    let review = reviewer(&reloading, namespaces.clone());
    let current = reloading.subscribe();
    let connect = {
        let kubeconfig = kubeconfig.clone();
        move || {
            let kubeconfig = kubeconfig.clone();
            async move { cluster::client(kubeconfig.as_deref()).await }
        }
    };
    let settings = WebhookSettings {
        listen,
        admin: admin_listen,
        tls_dir,
        names: Names { pod: pod_name, container, service, namespace: pod_namespace },
        pod_uid,
        configuration: webhook_configuration,
        client_ca,
        namespaces: namespaces.clone(),
        kubeconfig,
        drain_delay: drain,
    };
    let token: CancellationToken = shutdown.token();
    tokio::select! {
        outcome = server::run(settings, review, metrics, Readiness::default(), token) => {
            outcome.map_err(|error| error.to_string())
        }
        () = reloading.follow(&registry) => Ok(()),
        () = namespaces.follow(connect, current, Injector::asks_for_labels) => Ok(()),
    }
}
