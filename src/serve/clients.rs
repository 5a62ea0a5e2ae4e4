//! Which clients may connect at all: those with a certificate of an authority that the operator names.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::tls::{TlsError, certificates, provider};
use crate::bounded_read::{BoundedReadError, read_bytes};

/// Bytes of a file of authorities.
const MOST: usize = 1 << 20;

/// Verifies clients by the authorities of a file, which may become others. Clones share them.
#[derive(Clone)]
pub struct ClientAuthorities {
    path: PathBuf,
    present: Arc<RwLock<PresentAuthorities>>,
}

struct PresentAuthorities {
    pem: Vec<u8>,
    verifier: Arc<dyn ClientCertVerifier>,
}

// === impl ClientAuthorities ===

impl ClientAuthorities {
    /// Reads a PEM file; the first time it has to be good.
    ///
    /// # Errors
    /// [`TlsError`] says what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, TlsError> {
        let present = PresentAuthorities::read(path)?;
        Ok(Self { path: path.to_owned(), present: Arc::new(RwLock::new(present)) })
    }

    /// Reads it again, for clients that connect from now on; says whether it was another. Connections that stand keep
    /// what they have.
    ///
    /// # Errors
    /// [`TlsError`]; then the last good ones stay.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let new = PresentAuthorities::read(&self.path)?;
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = present.pem != new.pem;
        *present = new;
        Ok(is_other)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner).verifier)
    }
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthorities").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientAuthorities {
    /// None: they are hints, of which clients with one certificate have no need.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verifier().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier().verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier().verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier().supported_verify_schemes()
    }
}

// === impl PresentAuthorities ===

impl PresentAuthorities {
    fn read(path: &Path) -> Result<Self, TlsError> {
        let failed = |cause| TlsError::Read { path: path.to_owned(), cause };
        let unusable = |reason: String| TlsError::Authorities { path: path.to_owned(), reason };
        let pem = read_bytes(File::open(path), MOST).map_err(|error| match error {
            BoundedReadError::Io(cause) => failed(cause),
            problem => unusable(format!("the file {problem}")),
        })?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path.to_owned(), &pem)? {
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Self { pem, verifier: verifier.map_err(|error| unusable(error.to_string()))? })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::ClientConfig;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::sign::CertifiedKey;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::serve::tls::{Served, TlsCredentials, server_config_for};

    const HOST: &str = "hushpod.test.svc";

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
        der: CertificateDer<'static>,
    }

    type Leaf = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).unwrap();
            Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
        }

        fn leaf(&self, usage: ExtendedKeyUsagePurpose) -> Leaf {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        }
    }

    /// Whether a client with this certificate is heard by a server that asks for one.
    async fn is_heard(clients: &ClientAuthorities, server: &Authority, leaf: Option<Leaf>, tls12: bool) -> bool {
        let (chain, key) = server.leaf(ExtendedKeyUsagePurpose::ServerAuth);
        let served = Served::default();
        let certified = CertifiedKey::from_der(chain, key, &provider()).unwrap();
        served.publish(TlsCredentials::new(certified).unwrap());
        let acceptor = TlsAcceptor::from(server_config_for(&served, Arc::new(clients.clone())).unwrap());
        let mut roots = RootCertStore::empty();
        roots.add(server.der.clone()).unwrap();
        let version = if tls12 { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match leaf {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
            None => config.with_no_client_auth(),
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let serve = async move {
            let mut stream = acceptor.accept(far).await.ok()?;
            let mut word = [0; 2];
            stream.read_exact(&mut word).await.ok()?;
            stream.write_all(b"ok").await.ok()
        };
        let ask = async move {
            let connector = TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect(ServerName::try_from(HOST).unwrap(), near).await.ok()?;
            stream.write_all(b"hi").await.ok()?;
            let mut word = [0; 2];
            stream.read_exact(&mut word).await.ok()
        };
        let (served, answered) = tokio::join!(serve, ask);
        assert_eq!(served.is_some(), answered.is_some());
        answered.is_some()
    }

    #[tokio::test]
    async fn p6_only_clients_of_the_named_authorities_are_heard() {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let (server, ours, others) = (Authority::new(), Authority::new(), Authority::new());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.crt");
        fs::write(&file, &ours.pem).unwrap();
        let clients = ClientAuthorities::open(&file).unwrap();
        for tls12 in [false, true] {
            for (leaf, expected) in [
                (Some(ours.leaf(ClientAuth)), true),
                (None, false),
                (Some(others.leaf(ClientAuth)), false),
                (Some(ours.leaf(ServerAuth)), false),
            ] {
                assert_eq!(is_heard(&clients, &server, leaf, tls12).await, expected, "TLS 1.2: {tls12}");
            }
        }
        // Others are in the file by now.
        assert!(!clients.reload().unwrap());
        fs::write(&file, format!("{}{}", others.pem, server.pem)).unwrap();
        assert!(clients.reload().unwrap());
        assert!(is_heard(&clients, &server, Some(others.leaf(ClientAuth)), false).await);
        assert!(!is_heard(&clients, &server, Some(ours.leaf(ClientAuth)), false).await);
        // What is of no use changes nothing.
        for (text, part) in [("", "holds no PEM certificate"), ("-----BEGIN CERTIFICATE-----\n", "is not valid PEM")] {
            fs::write(&file, text).unwrap();
            let problem = clients.reload().unwrap_err().to_string();
            assert!(problem.contains(part), "{problem}");
        }
        fs::write(&file, " ".repeat(MOST + 1)).unwrap();
        assert!(clients.reload().unwrap_err().to_string().contains("more than 1048576 bytes"));
        fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(clients.reload().unwrap_err().to_string().contains("nobody can be verified by"));
        assert!(is_heard(&clients, &server, Some(others.leaf(ClientAuth)), false).await);
    }
}
