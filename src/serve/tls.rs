//! TLS for servers: which credentials are served now, and how they come from a mounted directory.
//!
//! Credentials are checked before they are published; handshakes take a snapshot and never wait.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncReadExt as _;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};
use zeroize::Zeroizing;

/// ALPN's name of HTTP/2 (RFC 9113 §3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// File names as in a Secret of type `kubernetes.io/tls`
/// (<https://kubernetes.io/docs/concepts/configuration/secret/#tls-secrets>).
const CERTIFICATE_FILE: &str = "tls.crt";
const KEY_FILE: &str = "tls.key";
/// Bytes of one of them: as many as a Secret has.
const MAX_FILE: usize = 1 << 20;

/// A certificate chain, leaf first, and the key that belongs to it.
#[derive(Clone)]
pub struct TlsCredentials {
    certified: Arc<CertifiedKey>,
    not_after: ASN1Time,
}

/// The credentials that the next handshake gets. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<RwLock<Option<TlsCredentials>>>);

/// Why credentials cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the directory cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: std::io::Error,
    },
    /// A file holds no usable PEM of the kind that is wanted.
    #[error("{} {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong; never what it holds.
        reason: &'static str,
    },
    /// The leaf is not an X.509 certificate.
    #[error("the first certificate is not an X.509 certificate")]
    Leaf,
    /// Authorities that nobody can be verified by.
    #[error("{} holds authorities that nobody can be verified by: {reason}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong; never what it holds.
        reason: String,
    },
    /// The parts do not go together, or rustls cannot work with them.
    #[error("the certificate and the key cannot be used together: {0}")]
    Unusable(#[source] rustls::Error),
    /// The protocol settings do not go together.
    #[error("TLS settings: {0}")]
    Settings(#[source] rustls::Error),
}

/// The process's cryptography: aws-lc-rs, with X25519MLKEM768 before all other key exchanges (rustls feature
/// `prefer-post-quantum`), so what is recorded today stays unreadable.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Settings of a server: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, no client certificates.
pub fn server_config(served: &Served) -> Result<Arc<ServerConfig>, TlsError> {
    settings(served, rustls::server::WebPkiClientVerifier::no_client_auth()).map(Arc::new)
}

/// The same for clients whose certificate `verifier` takes, and for no others.
pub fn server_config_for(
    served: &Served,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = settings(served, verifier)?;
    // A session that is taken up again is not verified again: its authority may be trusted no more.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn settings(served: &Served, verifier: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Settings)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(served.clone()));
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    Ok(config)
}

/// Reads `tls.crt` (a chain, leaf first) and `tls.key` (PKCS#8, SEC1 or PKCS#1), both PEM, and checks that they belong
/// together.
pub async fn load(directory: &Path) -> Result<TlsCredentials, TlsError> {
    let path = directory.join(CERTIFICATE_FILE);
    let pem = read(&path).await?;
    let chain = certificates(path, &pem)?;
    let path = directory.join(KEY_FILE);
    let pem = read(&path).await?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| TlsError::Pem { path, reason: "holds no PEM private key (PKCS#8, SEC1 or PKCS#1)" })?;
    let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Unusable)?;
    TlsCredentials::new(certified)
}

/// The certificates of a PEM file: at least one.
pub(super) fn certificates(path: PathBuf, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if chain.is_empty() => Err(TlsError::Pem { path, reason: "holds no PEM certificate" }),
        Ok(chain) => Ok(chain),
        Err(_) => Err(TlsError::Pem { path, reason: "is not valid PEM" }),
    }
}

async fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    // All of it at once: what a growing buffer leaves behind is not overwritten.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).await
    };
    match read.await {
        Ok(length) if length > MAX_FILE => Err(TlsError::Pem { path: path.to_owned(), reason: "has more than 1 MiB" }),
        Ok(_) => Ok(bytes),
        Err(cause) => Err(TlsError::Read { path: path.to_owned(), cause }),
    }
}

// === impl TlsCredentials ===

impl TlsCredentials {
    /// Checks that the leaf can be read and that the key is its own.
    pub fn new(certified: CertifiedKey) -> Result<Self, TlsError> {
        certified.keys_match().map_err(TlsError::Unusable)?;
        let leaf = certified.end_entity_cert().map_err(TlsError::Unusable)?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| TlsError::Leaf)?;
        let not_after = leaf.validity().not_after;
        Ok(Self { certified: Arc::new(certified), not_after })
    }

    /// The certificates that are served, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// When the leaf ends.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        let seconds = u64::try_from(self.not_after.timestamp()).unwrap_or(0);
        UNIX_EPOCH + Duration::from_secs(seconds)
    }
}

impl PartialEq for TlsCredentials {
    fn eq(&self, other: &Self) -> bool {
        // The leaf names its key, so equal chains have equal keys.
        self.certified.cert == other.certified.cert
    }
}

impl Eq for TlsCredentials {}

impl fmt::Debug for TlsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("not_after", &format_args!("{}", self.not_after)).finish_non_exhaustive()
    }
}

// === impl Served ===

impl Served {
    /// What new handshakes get from now on. Connections that stand keep what they have.
    pub fn publish(&self, credentials: TlsCredentials) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(credentials);
    }

    /// Whether there are any, and when they end.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(TlsCredentials::expires)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let served = self.0.read().unwrap_or_else(PoisonError::into_inner);
        served.as_ref().map(|credentials| Arc::clone(&credentials.certified))
    }
}

#[cfg(test)]
mod tests;
