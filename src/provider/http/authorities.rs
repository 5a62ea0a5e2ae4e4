//! Which authorities may vouch for a store: the public ones, certificates of the configuration, or those of a file that
//! changes while we run.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, Digest, SHA256};
use hyper_rustls::ConfigBuilderExt;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tracing::{info, warn};

use crate::parse_error::{ParseError, rule};

/// TLS sessions kept for resumption: one store, one connection at a time.
const TLS_SESSIONS: usize = 2;

/// A `ClusterTrustBundle` has no more (`MaxTrustBundleSize`, k8s.io/kubernetes/pkg/apis/certificates).
const MAX_BYTES: usize = 1024 * 1024;
/// All public authorities are fewer than 200.
const MAX_CERTIFICATES: usize = 1000;

/// Who vouches for a store.
#[derive(Debug, Clone, Default)]
pub enum Authorities {
    /// Those that browsers know.
    #[default]
    Public,
    /// These certificates, in PEM.
    Given(String),
    /// Whichever are in the file now.
    Followed(Arc<CaFile>),
}

/// What connections are made with.
pub(super) enum Trust {
    /// Always the same.
    Fixed(Arc<ClientConfig>),
    /// What the file says now.
    Followed(Arc<CaFile>),
}

/// A file of authorities that others replace, as kubelet does with a projected `ClusterTrustBundle` (KEP-3257): it is
/// looked at before each request, and the last good ones stay in force while it cannot be read.
pub struct CaFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the file was when it was read; `None` before the first time.
    seen: Option<Result<Stamp, io::ErrorKind>>,
    good: Option<Good>,
    /// What is wrong with what is there now, told once.
    problem: Option<String>,
}

struct Good {
    /// Of the certificates, in whatever order kubelet wrote them.
    digest: Digest,
    config: Arc<ClientConfig>,
}

/// Another file, or other contents, have another one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Checks a CA bundle.
///
/// # Errors
/// One sentence that says what is wrong with it.
pub fn check_ca(pem: &str) -> Result<(), ParseError> {
    given(pem).map(drop).map_err(rule)
}

fn given(pem: &str) -> Result<RootCertStore, String> {
    let certificates = certificates(pem.as_bytes()).map_err(|problem| format!("ca {problem}"))?;
    roots(certificates).map_err(|problem| format!("ca {problem}"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.push(certificate.map_err(|_| damaged(found.len()))?);
        if found.len() > MAX_CERTIFICATES {
            return Err(format!("has more than {MAX_CERTIFICATES} certificates"));
        }
    }
    if found.is_empty() {
        return Err("has no certificate: write PEM, -----BEGIN CERTIFICATE----- and so on".to_owned());
    }
    Ok(found)
}

fn damaged(index: usize) -> String {
    format!("has a damaged certificate, number {}", index + 1)
}

fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        store.add(certificate).map_err(|_| damaged(index))?;
    }
    Ok(store)
}

/// `None` for the public ones.
fn config(roots: Option<RootCertStore>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| "this build has no TLS versions".to_owned())?;
    let mut config = match roots {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder.with_webpki_roots(),
    }
    .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(TLS_SESSIONS);
    Ok(Arc::new(config))
}

// === impl Authorities ===

impl Authorities {
    /// These certificates, or the public authorities.
    #[must_use]
    pub fn of(ca: Option<&str>) -> Self {
        ca.map_or(Self::Public, |pem| Self::Given(pem.to_owned()))
    }

    /// # Errors
    /// One sentence, if the certificates cannot be used.
    pub(super) fn trust(&self) -> Result<Trust, String> {
        Ok(match self {
            Self::Public => Trust::Fixed(config(None)?),
            Self::Given(pem) => Trust::Fixed(config(Some(given(pem)?))?),
            Self::Followed(file) => Trust::Followed(Arc::clone(file)),
        })
    }
}

// === impl Trust ===

impl Trust {
    /// What a connection is made with now.
    ///
    /// # Errors
    /// One sentence, if there has been no good file yet.
    pub(super) fn now(&self) -> Result<Arc<ClientConfig>, String> {
        match self {
            Self::Fixed(config) => Ok(Arc::clone(config)),
            Self::Followed(file) => file.now(),
        }
    }

    /// What to do about an authority that is not known.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Fixed(_) => "set ca to the authority's certificate",
            Self::Followed(_) => "add the authority's certificate to caBundle's ClusterTrustBundle",
        }
    }
}

// === impl CaFile ===

impl CaFile {
    /// Follows a file, which need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    /// Whether what was there last could not be used.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).problem.is_some()
    }

    fn now(&self) -> Result<Arc<ClientConfig>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata)).map_err(|error| error.kind());
        // A file that is replaced between this and reading has another stamp the next time, and is read again.
        if state.seen.as_ref() != Some(&stamp) {
            state.seen = Some(stamp);
            let read = read(&self.path).and_then(|found| state.take(found, &self.path));
            if let Err(problem) = read {
                state.tell(problem, &self.path);
            }
        }
        match (&state.good, &state.problem) {
            (Some(good), _) => Ok(Arc::clone(&good.config)),
            (None, problem) => {
                let problem = problem.as_deref().unwrap_or("has not been read");
                Err(format!("caBundle: {} {problem}", self.path.display()))
            }
        }
    }
}

impl fmt::Debug for CaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            "does not exist: before 1.37, Kubernetes leaves it out, and ca is to be set".to_owned()
        }
        kind => format!("cannot be read: {kind}"),
    };
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut pem = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(MAX_BYTES).min(MAX_BYTES) + 1);
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut pem).map_err(|error| unreadable(&error))?;
    if pem.len() > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    certificates(&pem)
}

fn digest(certificates: &[CertificateDer<'_>]) -> Digest {
    let mut sorted: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut context = Context::new(&SHA256);
    for der in sorted {
        context.update(&der.len().to_be_bytes());
        context.update(der);
    }
    context.finish()
}

// === impl State ===

impl State {
    fn take(&mut self, found: Vec<CertificateDer<'static>>, path: &Path) -> Result<(), String> {
        let (digest, count, file) = (digest(&found), found.len(), path.display());
        let is_new = self.good.as_ref().is_none_or(|good| good.digest.as_ref() != digest.as_ref());
        if is_new {
            let config = config(Some(roots(found)?))?;
            if self.good.replace(Good { digest, config }).is_some() {
                info!(%file, certificates = count, "other authorities are in force from now on");
            }
        }
        if self.problem.take().is_some() {
            info!(%file, certificates = count, "the file of authorities can be read again");
        }
        Ok(())
    }

    fn tell(&mut self, problem: String, path: &Path) {
        if self.problem.as_ref() == Some(&problem) {
            return;
        }
        let file = path.display();
        let now =
            if self.good.is_some() { "the last good ones stay in force" } else { "nobody vouches for the store yet" };
        warn!(%file, problem, "authorities cannot be read: {now}");
        self.problem = Some(problem);
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
