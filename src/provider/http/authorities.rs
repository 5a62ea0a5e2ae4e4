//! Which authorities may vouch for a store: the public ones, certificates of the configuration, or those of a file that
//! changes while we run.

use std::fmt;
use std::fs::{self, File};
use std::io;
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

use crate::bounded_read::{BoundedReadError, read_bytes};
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
    problem: Option<CaProblem>,
}

/// What is wrong with authorities, to stand behind the name of what holds them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CaProblem {
    #[error("does not exist: before 1.37, Kubernetes leaves it out, and ca is to be set")]
    Missing,
    #[error("cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    #[error("is not a file")]
    NotAFile,
    #[error("has more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("has more than {MAX_CERTIFICATES} certificates: leave out those of other stores")]
    TooMany,
    #[error("has no certificate: write PEM, -----BEGIN CERTIFICATE----- and so on")]
    Empty,
    #[error("has a damaged certificate, number {}", .0 + 1)]
    Damaged(usize),
    #[error("has not been read")]
    Unread,
    #[error("cannot be used: this build has no TLS versions")]
    NoTls,
}

/// Why nobody can vouch for a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TrustError {
    #[error("ca {0}")]
    Given(CaProblem),
    #[error("caBundle: {} {problem}", .path.display())]
    Followed { path: PathBuf, problem: CaProblem },
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
    given(pem).map(drop).map_err(|error| rule(error.to_string()))
}

fn given(pem: &str) -> Result<RootCertStore, TrustError> {
    certificates(pem.as_bytes()).and_then(roots).map_err(TrustError::Given)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaProblem> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.push(certificate.map_err(|_| CaProblem::Damaged(found.len()))?);
        if found.len() > MAX_CERTIFICATES {
            return Err(CaProblem::TooMany);
        }
    }
    if found.is_empty() { Err(CaProblem::Empty) } else { Ok(found) }
}

fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, CaProblem> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        store.add(certificate).map_err(|_| CaProblem::Damaged(index))?;
    }
    Ok(store)
}

/// `None` for the public ones.
fn config(roots: Option<RootCertStore>) -> Result<Arc<ClientConfig>, CaProblem> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| CaProblem::NoTls)?;
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
    /// [`TrustError`], if the certificates cannot be used.
    pub(super) fn trust(&self) -> Result<Trust, TrustError> {
        Ok(match self {
            Self::Public => Trust::Fixed(config(None).map_err(TrustError::Given)?),
            Self::Given(pem) => Trust::Fixed(config(Some(given(pem)?)).map_err(TrustError::Given)?),
            Self::Followed(file) => Trust::Followed(Arc::clone(file)),
        })
    }
}

// === impl Trust ===

impl Trust {
    /// What a connection is made with now.
    ///
    /// # Errors
    /// [`TrustError`], if there has been no good file yet.
    pub(super) fn now(&self) -> Result<Arc<ClientConfig>, TrustError> {
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

    fn now(&self) -> Result<Arc<ClientConfig>, TrustError> {
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
                let problem = problem.clone().unwrap_or(CaProblem::Unread);
                Err(TrustError::Followed { path: self.path.clone(), problem })
            }
        }
    }
}

impl fmt::Debug for CaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaProblem> {
    let file = File::open(path).map_err(|error| CaProblem::from(&error))?;
    if !file.metadata().map_err(|error| CaProblem::from(&error))?.is_file() {
        return Err(CaProblem::NotAFile);
    }
    let pem = read_bytes(Ok(file), MAX_BYTES).map_err(|error| match error {
        BoundedReadError::Io(error) => CaProblem::from(&error),
        BoundedReadError::TooLong(_) | BoundedReadError::NotText => CaProblem::TooLong,
    })?;
    certificates(&pem)
}

// === impl CaProblem ===

impl From<&io::Error> for CaProblem {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Unreadable(kind),
        }
    }
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
    fn take(&mut self, found: Vec<CertificateDer<'static>>, path: &Path) -> Result<(), CaProblem> {
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

    fn tell(&mut self, problem: CaProblem, path: &Path) {
        if self.problem.as_ref() == Some(&problem) {
            return;
        }
        let file = path.display();
        let now =
            if self.good.is_some() { "the last good ones stay in force" } else { "nobody vouches for the store yet" };
        warn!(%file, problem = problem.to_string(), "authorities cannot be read: {now}");
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
