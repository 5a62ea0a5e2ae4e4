//! The floor: TLS, HTTP and routing as the webhook has them, and nothing decided.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hushpod::cluster::namespaces::Namespaces;
use hushpod::metrics::Registry;
use hushpod::process::shutdown::Shutdown;
use hushpod::serve::readiness::Readiness;
use hushpod::webhook::review::{Answer, Outcome, Reviewer};
use hushpod::webhook::server;
use hushpod::webhook::server::{Metrics, Names, WebhookSettings};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// Where its admin port listens
    #[arg(long)]
    admin_listen: SocketAddr,
    /// Certificate and key
    #[arg(long)]
    tls_dir: PathBuf,
    /// File with the answer
    #[arg(long)]
    answer: PathBuf,
}

pub(crate) fn run(args: Args) -> super::Outcome {
    let Args { listen, admin_listen, tls_dir, answer } = args;
    let answer = fs::read(answer)?;
    let review: Reviewer = Arc::new(move |_| Answer {
        body: answer.clone(),
        outcome: Outcome::Injected,
        reason: None,
        unknown_namespace: None,
    });
    let settings = WebhookSettings {
        pod_uid: None,
        listen,
        admin: admin_listen,
        tls_dir: Some(tls_dir),
        names: Names { pod: String::new(), container: None, service: String::new(), namespace: String::new() },
        configuration: String::new(),
        client_ca: None,
        namespaces: Namespaces::default(),
        kubeconfig: None,
        drain_delay: Duration::ZERO,
    };
    // As the webhook's own main has it.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::listen()?;
        let metrics = Metrics::new(Registry::default());
        Ok(server::run(settings, review, metrics, Readiness::default(), shutdown.token()).await?)
    })
}
