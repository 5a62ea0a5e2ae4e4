//! A node: its mount table, what its kubelet asks for, and one store. Drivers come and go on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use std::{fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::Event;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::steps::{step, step_in};
use crate::audit::{AuditLog, Program, Who};
use crate::cluster::events::EventQueue;
use crate::cluster::namespaces::Namespaces;
use crate::config::Config;
use crate::contract::CSI_KUBELET_PREFIX;
use crate::csi::driver::{Driver, DriverParts};
use crate::csi::events::Troubles;
use crate::csi::failure::CallFailure;
use crate::csi::metrics::DriverMetrics;
use crate::csi::mounts::Mounts;
use crate::csi::pods::Pods;
use crate::csi::proto::csi::volume_capability::{AccessType, MountVolume};
use crate::csi::proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use crate::csi::state::StateDir;
use crate::csi::surroundings::SourceMaker;
use crate::deliver::volume::read_set;
use crate::metrics::Registry;
use crate::provider::TokenSource;
use crate::secret::SecretValue;
use crate::source::Source;
use crate::source::tests::fake::Store;

pub(super) const CONFIG: &str = "
image: i
defaultProvider: vault
csi: {}
providers:
  vault:
    type: vault
    address: https://vault.example
    role: '{{service_account}}'
    refresh: 30s
    allow: [{namespaces: ['*']}]
";
pub(super) const KV: &str = "secret/data/db";
pub(super) const LEASED: &str = "database/creds/web";
pub(super) const FILE: (&str, &str) = ("file.db", "secret/data/db#password");
pub(super) const USER: (&str, &str) = ("file.user", "database/creds/web#user");

/// What outlives a driver.
pub(super) struct Node {
    pub(super) dir: TempDir,
    pub(super) mounts: Arc<FakeMounts>,
    pub(super) store: Store,
    pub(super) config: watch::Sender<Arc<Config>>,
}

/// A driver's process.
pub(super) struct Life {
    pub(super) driver: Arc<Driver>,
    pub(super) pods: Pods,
    pub(super) troubles: mpsc::Receiver<(ObjectReference, Event)>,
    pub(super) shutdown: CancellationToken,
    sources: Arc<Mutex<Vec<watch::Receiver<Option<SecretValue>>>>>,
    root: PathBuf,
}

/// What kubelet asks for.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) volume: String,
    pub(super) pod: String,
    pub(super) namespace: String,
    /// The account's UID, as the token has it; `None`: a token without claims.
    pub(super) account: Option<String>,
    pub(super) token: String,
    pub(super) attributes: Vec<(&'static str, &'static str)>,
    pub(super) group: String,
}

/// A mount table in memory: what is mounted is a directory.
#[derive(Debug, Default)]
pub(super) struct FakeMounts(Mutex<MountTable>);

#[derive(Debug, Default)]
pub(super) struct MountTable {
    pub(super) ours: BTreeSet<PathBuf>,
    /// What is shown of the file system with programs, by where.
    pub(super) shown: BTreeMap<PathBuf, PathBuf>,
    /// Every call, in order.
    pub(super) calls: Vec<&'static str>,
    /// Calls that fail from now on.
    pub(super) failing: BTreeSet<&'static str>,
    /// How many succeed before one fails.
    pub(super) fails_after: Option<usize>,
}

// === impl FakeMounts ===

impl FakeMounts {
    pub(super) fn table(&self) -> MutexGuard<'_, MountTable> {
        self.0.lock().unwrap()
    }

    fn call(&self, name: &'static str) -> io::Result<()> {
        step(name);
        let mut table = self.table();
        table.calls.push(name);
        let fails = table.fails_after == Some(0);
        table.fails_after = table.fails_after.and_then(|left| left.checked_sub(1));
        if fails || table.failing.contains(name) { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
    }

    /// As a boot does, or an administrator.
    pub(super) fn lose(&self, target: &Path) {
        self.table().ours.remove(target);
        fs::remove_dir_all(target).unwrap();
    }
}

impl Mounts for FakeMounts {
    fn mount(&self, target: &Path, bytes: u64) -> io::Result<()> {
        assert!(bytes > 0);
        self.call("mount")?;
        match fs::DirBuilder::new().mode(0o755).create(target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        assert!(fs::read_dir(target).unwrap().next().is_none(), "an empty directory is mounted over");
        assert!(self.table().ours.insert(target.to_owned()), "{target:?} is mounted twice");
        step_in(target);
        Ok(())
    }

    fn mount_programs(&self, target: &Path) -> io::Result<()> {
        self.mount(target, 1)
    }

    fn bind(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.call("bind")?;
        fs::create_dir(target)?;
        let mut table = self.table();
        table.ours.insert(target.to_owned());
        table.shown.insert(target.to_owned(), source.to_owned());
        Ok(())
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        self.call("unmount")?;
        if self.table().ours.remove(target) {
            self.table().shown.remove(target);
            fs::remove_dir_all(target)?;
            fs::create_dir(target)?;
            step("unmounted");
        }
        match fs::remove_dir(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ours(&self) -> io::Result<BTreeSet<PathBuf>> {
        let table = self.table();
        if table.failing.contains("ours") {
            Err(io::ErrorKind::PermissionDenied.into())
        } else {
            Ok(table.ours.clone())
        }
    }

    fn bound_directories(&self) -> io::Result<BTreeSet<PathBuf>> {
        Ok(self.table().shown.values().cloned().collect())
    }
}

// === impl Ask ===

impl Ask {
    /// The volume of pod `n`, of account `u-1`, with these attributes.
    pub(super) fn new(n: usize, attributes: &[(&'static str, &'static str)]) -> Self {
        Self {
            volume: format!("csi-{n}"),
            pod: format!("p-{n}"),
            namespace: "shop".to_owned(),
            account: Some("u-1".to_owned()),
            token: format!("canary-token-{n}"),
            attributes: attributes.to_vec(),
            group: String::new(),
        }
    }

    pub(super) fn of_account(self, uid: Option<&str>) -> Self {
        Self { account: uid.map(str::to_owned), ..self }
    }

    pub(super) fn whole_token(&self) -> String {
        let claims = self.account.as_ref().map_or_else(
            || "{}".to_owned(),
            |uid| format!(r#"{{"kubernetes.io":{{"serviceaccount":{{"name":"web","uid":"{uid}"}}}}}}"#),
        );
        format!("e30.{}.{}", URL_SAFE_NO_PAD.encode(claims), self.token)
    }

    pub(super) fn target(&self, root: &Path) -> PathBuf {
        root.join("pods").join(&self.pod).join("volumes/kubernetes.io~csi").join(&self.volume).join("mount")
    }

    pub(super) fn request(&self, root: &Path) -> NodePublishVolumeRequest {
        let target = self.target(root);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let token = self.whole_token();
        let tokens = format!(r#"{{"vault":{{"token":"{token}","expirationTimestamp":"2099-01-01T00:00:00Z"}}}}"#);
        let kubelets = [
            ("pod.name", format!("web-{}", self.pod)),
            ("pod.namespace", self.namespace.clone()),
            ("pod.uid", self.pod.clone()),
            ("serviceAccount.name", "web".to_owned()),
            ("serviceAccount.tokens", tokens),
            ("ephemeral", "true".to_owned()),
        ];
        let kubelets = kubelets.map(|(key, value)| (format!("{CSI_KUBELET_PREFIX}{key}"), value));
        let own = self.attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mount = MountVolume { volume_mount_group: self.group.clone(), ..MountVolume::default() };
        NodePublishVolumeRequest {
            volume_id: self.volume.clone(),
            target_path: target.to_str().unwrap().to_owned(),
            volume_capability: Some(VolumeCapability { access_type: Some(AccessType::Mount(mount)) }),
            readonly: true,
            secrets: HashMap::new(),
            volume_context: kubelets.into_iter().chain(own).collect(),
        }
    }

    pub(super) fn unrequest(&self, root: &Path) -> NodeUnpublishVolumeRequest {
        let target_path = self.target(root).to_str().unwrap().to_owned();
        NodeUnpublishVolumeRequest { volume_id: self.volume.clone(), target_path }
    }
}

// === impl Node ===

impl Node {
    /// With a store that has one secret with versions, and an engine of credentials.
    pub(super) fn new() -> Self {
        // The driver keeps its state in memory alone, and every Linux has this.
        let dir = tempfile::Builder::new().prefix("hushpod-csi").tempdir_in("/dev/shm").unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        let store = Store::default();
        store.state().logins = Some((36_000, true));
        store.put(KV, "1", r#"{"password":"canary-v1"}"#);
        store.put_leased(LEASED, 3600, 36_000, true);
        let config = watch::Sender::new(Arc::new(Config::from_yaml(CONFIG).unwrap()));
        Self { dir, mounts: Arc::default(), store, config }
    }

    pub(super) fn configure(&self, from: &str, to: &str) {
        assert!(CONFIG.contains(from));
        self.config.send_replace(Arc::new(Config::from_yaml(&CONFIG.replace(from, to)).unwrap()));
    }

    pub(super) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn target(&self, ask: &Ask) -> PathBuf {
        ask.target(self.root())
    }

    /// A new process of the driver, which goes on where the last one stopped.
    pub(super) fn start(&self) -> Life {
        let sources: Arc<Mutex<Vec<_>>> = Arc::default();
        let (store, seen) = (self.store.clone(), Arc::clone(&sources));
        let maker: SourceMaker = Arc::new(move |plan, token_of| {
            let providers = plan.providers.keys().map(|name| {
                if let TokenSource::Channel(token) = token_of(name) {
                    seen.lock().unwrap().push(token);
                }
                (name.clone(), store.connect())
            });
            Ok(Source::simulated(plan, providers.collect(), 7))
        });
        let (events, heard) = EventQueue::heard();
        let (pods, shutdown) = (Pods::unknown(true), CancellationToken::new());
        let driver = Driver::new(DriverParts {
            kubelet_root: self.root().to_owned(),
            config: self.config.subscribe(),
            program: Some(self.root().join("programs/0f")),
            mounts: Arc::clone(&self.mounts) as _,
            state: StateDir::open(&self.state()).unwrap(),
            pods: pods.clone(),
            namespaces: Namespaces::default(),
            troubles: Troubles(events),
            metrics: DriverMetrics::new(Registry::default()),
            audit: AuditLog::new(Program::Csi, Who { node: Some("node-1".to_owned()), ..Who::default() }),
            sources: maker,
            shutdown: shutdown.clone(),
        });
        driver.resume();
        Life { driver, pods, troubles: heard, shutdown, sources, root: self.root().to_owned() }
    }

    pub(super) fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    /// Names of the volumes and the number of feeds that are written down.
    pub(super) fn written(&self) -> (Vec<String>, usize) {
        let names = |part: &str| {
            let entries = fs::read_dir(self.state().join(part)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        (names("volumes"), names("feeds").len())
    }

    /// The files of a volume, read as applications do.
    pub(super) fn files(&self, ask: &Ask) -> BTreeMap<String, String> {
        let set = read_set(&self.target(ask)).unwrap_or_default();
        set.into_iter().map(|(name, value)| (name, value.expose_str().unwrap().to_owned())).collect()
    }

    pub(super) fn file(&self, ask: &Ask, name: &str) -> String {
        self.files(ask).remove(name).unwrap_or_default()
    }

    pub(super) fn is_mounted(&self, ask: &Ask) -> bool {
        self.mounts.table().ours.contains(&self.target(ask))
    }

    /// Nothing is left of anything.
    pub(super) fn assert_bare(&self) {
        assert_eq!(self.mounts.table().ours, BTreeSet::new());
        assert_eq!(self.written(), (Vec::new(), 0));
    }

    /// How often the store was logged in to, and what it was asked, since this was asked last.
    pub(super) fn asked(&self) -> (usize, usize) {
        let calls = self.store.state().take_calls();
        let count = |word: &str| calls.iter().filter(|call| call.starts_with(word)).count();
        (count("login"), count("read"))
    }
}

// === impl Life ===

impl Life {
    pub(super) async fn publish(&self, ask: &Ask) -> Result<(), CallFailure> {
        self.driver.publish(ask.request(&self.root)).await
    }

    pub(super) async fn unpublish(&self, ask: &Ask) -> Result<(), CallFailure> {
        self.driver.unpublish(ask.unrequest(&self.root)).await
    }

    /// How many sources were made.
    pub(super) fn sources(&self) -> usize {
        self.sources.lock().unwrap().len()
    }

    /// The token that the source made as `at`-th has for its store now.
    pub(super) fn token(&self, at: usize) -> Option<String> {
        self.sources.lock().unwrap()[at].borrow().as_ref().map(|token| token.expose_str().unwrap().to_owned())
    }

    pub(super) async fn end(self) {
        self.shutdown.cancel();
        self.driver.ended().await;
    }

    pub(super) fn trouble(&mut self) -> Option<String> {
        self.troubles.try_recv().ok().and_then(|(_, event)| event.note)
    }
}

/// Whatever goes on at this moment comes to its end.
pub(super) async fn moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

pub(super) async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
