//! The demo's surroundings: a directory in memory, a store that rotates, and the webhook.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::claim::pointer;
use super::error::DemoError;
use super::exchange::exchange;
use crate::cluster::namespaces::Namespaces;
use crate::config::Config;
use crate::contract::MUTATE_PATH;
use crate::metrics::Registry;
use crate::serve::{Server, tls};
use crate::webhook::review::Injector;
use crate::webhook::server::{Metrics, Names};
use crate::webhook::{review, server};

/// A directory that goes when the demo ends.
#[derive(Debug)]
pub(super) struct Stage {
    root: PathBuf,
}

/// A document that is replaced as a whole, and everything that it ever held.
#[derive(Debug)]
pub(super) struct DemoStore {
    file: PathBuf,
    values: Vec<String>,
}

/// The webhook, on a port of its own.
#[derive(Debug)]
pub(super) struct Webhook {
    address: std::net::SocketAddr,
    host: String,
    authority: CertificateDer<'static>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

/// A value of so many before it that nobody has seen.
pub(super) fn made_up(number: usize) -> Result<String, DemoError> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| DemoError::Broken("no random numbers".to_owned()))?;
    Ok(format!("demo-{number}-{:032x}", u128::from_ne_bytes(random)))
}

// === impl Stage ===

impl Stage {
    /// Makes the directory in /dev/shm, which is memory as in a pod, or where temporary files go.
    pub(super) fn set() -> Result<Self, DemoError> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| DemoError::Broken("no random numbers".to_owned()))?;
        let name = format!("hushpod-demo-{:016x}", u64::from_ne_bytes(random));
        let memory = PathBuf::from("/dev/shm").join(&name);
        let root = if fs::create_dir(&memory).is_ok() {
            memory
        } else {
            let root = std::env::temp_dir().join(&name);
            fs::create_dir(&root).map_err(DemoError::io(format!("make {}", root.display())))?;
            root
        };
        Ok(Self { root })
    }

    pub(super) fn kind(&self) -> &'static str {
        if self.root.starts_with("/dev/shm") { "memory (/dev/shm)" } else { "a temporary directory (no /dev/shm here)" }
    }

    /// A new directory below.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, DemoError> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(DemoError::io(format!("make {}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Left behind at worst: it holds nothing but made-up values.
        let _ = fs::remove_dir_all(&self.root);
    }
}

// === impl DemoStore ===

impl DemoStore {
    pub(super) fn create(stage: &Stage) -> Result<Self, DemoError> {
        let mut store = Self { file: stage.directory("store")?.join("secrets.yaml"), values: Vec::new() };
        store.rotate()?;
        Ok(store)
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Every value so far.
    pub(super) fn values(&self) -> &[String] {
        &self.values
    }

    /// Takes the document away, as if it had not been written yet.
    pub(super) fn withhold(&self) -> Result<(), DemoError> {
        fs::rename(&self.file, self.withheld()).map_err(DemoError::io("withhold the secret"))
    }

    /// Puts it back.
    pub(super) fn release(&self) -> Result<(), DemoError> {
        fs::rename(self.withheld(), &self.file).map_err(DemoError::io("release the secret"))
    }

    fn withheld(&self) -> PathBuf {
        self.file.with_extension("withheld")
    }

    /// Replaces the document and gives the new value back. All its fields carry the same value, so a mixture
    /// shows.
    pub(super) fn rotate(&mut self) -> Result<String, DemoError> {
        let value = made_up(self.values.len())?;
        let fields = ["token", "user", "password"].map(|name| format!("  {name}: {value}\n")).concat();
        let next = self.file.with_extension("next");
        fs::write(&next, format!("app:\n{fields}"))
            .and_then(|()| fs::rename(&next, &self.file))
            .map_err(DemoError::io(format!("rotate {}", self.file.display())))?;
        self.values.push(value.clone());
        Ok(value)
    }
}

// === impl Webhook ===

impl Webhook {
    /// Starts the server with a certificate of its own, as in a cluster.
    pub(super) fn start(store: &DemoStore) -> Result<Self, DemoError> {
        let broken = |error: &dyn std::fmt::Display| DemoError::Broken(format!("webhook: {error}"));
        let config = json!({
            "image": "localhost/hushpod-agent:demo",
            // They would stand between the lines that people read.
            "audit": false,
            "defaultProvider": "store",
            "providers": {"store": {"type": "file", "path": store.file()}},
        });
        let injector = Injector::new(Config::from_yaml(&config.to_string()).map_err(|error| broken(&error))?);
        let names = Names { pod: "demo".into(), container: None, service: "hushpod".into(), namespace: "demo".into() };
        let issued = server::issue(&names, SystemTime::now()).map_err(|error| broken(&error))?;
        let served = tls::Served::default();
        served.publish(issued.credentials);
        let decide = Arc::new(move |body: &[u8]| review::answer(body, &injector));
        let router = server::router(decide, Metrics::new(Registry::default()), Namespaces::default());
        let stop = CancellationToken::new();
        let server = Server::bind(([127, 0, 0, 1], 0).into())
            .map_err(|error| broken(&error))?
            .with_tls(tls::server_config(&served).map_err(|error| broken(&error))?);
        let address = server.address();
        let server = tokio::spawn(server.run(router, stop.clone()));
        Ok(Self { address, host: names.host(), authority: issued.authority, stop, server })
    }

    pub(super) fn describe(&self) -> String {
        format!("https://{} with a certificate of its own; the key is in memory only", self.address)
    }

    /// Sends the pod as the API server would, and gives back the patched pod and the patch.
    pub(super) async fn review(&self, pod: &Value) -> Result<(Value, json_patch::Patch), DemoError> {
        let broken = |error: &dyn std::fmt::Display| DemoError::Broken(format!("the webhook's answer: {error}"));
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "demo", "operation": "CREATE", "namespace": "demo",
                "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": pod,
            },
        });
        let answer = self.exchange(review.to_string().into_bytes()).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| broken(&error))?;
        let Some(patch) = answer.pointer("/response/patch").and_then(Value::as_str) else {
            return Err(broken(&pointer(&answer, "/response/status/message")));
        };
        let patch = STANDARD.decode(patch).map_err(|error| broken(&error))?;
        let patch: json_patch::Patch = serde_json::from_slice(&patch).map_err(|error| broken(&error))?;
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).map_err(|error| broken(&error))?;
        Ok((patched, patch))
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<bytes::Bytes, DemoError> {
        let broken = |error: &dyn std::fmt::Display| DemoError::Broken(format!("TLS to the webhook: {error}"));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone()).map_err(|error| broken(&error))?;
        let config = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| broken(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone()).map_err(|error| broken(&error))?;
        let stream = TcpStream::connect(self.address).await.map_err(DemoError::io("connect to the webhook"))?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.map_err(DemoError::io("TLS to the webhook"))?;
        exchange(stream, &self.host, MUTATE_PATH, Some(body)).await
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        let _ = self.server.await;
    }
}
