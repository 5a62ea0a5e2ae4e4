//! Certificates and the TLS server.

use std::sync::Arc;

use axum::Router;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An authority and the certificate that it gave the server.
pub(crate) struct Certificates {
    /// The authority's certificate, PEM.
    pub(crate) ca: String,
    config: Arc<rustls::ServerConfig>,
}

// === impl Certificates ===

impl Certificates {
    /// Good for 127.0.0.1 and vault.test (not for localhost), now.
    pub(crate) fn new() -> Self {
        Self::valid_until(4096)
    }

    /// Good until the first of January of a year.
    pub(crate) fn valid_until(year: i32) -> Self {
        Self::of(&["127.0.0.1", "vault.test"], year)
    }

    /// Good for these names and addresses.
    pub(crate) fn of(names: &[&str], year: i32) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, format!("authority {}", rand_name()));
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let mut leaf = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        leaf.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        Self { ca: authority.pem(), config: Arc::new(config) }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

fn rand_name() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

pub(crate) async fn serve<F>(listener: TcpListener, acceptor: TlsAcceptor, router: Router, on_handshake: F)
where
    F: Fn(String) + Clone + Send + 'static,
{
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, router, on_handshake) = (acceptor.clone(), router.clone(), on_handshake.clone());
        tokio::spawn(async move {
            // As servers in Go do: else the last part of an answer waits 40 ms for the client to acknowledge the others.
            tcp.set_nodelay(true).unwrap();
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            if let Some(group) = tls.get_ref().1.negotiated_key_exchange_group() {
                on_handshake(format!("{:?}", group.name()));
            }
            let service = TowerToHyperService::new(router);
            // A client that goes away is no failure of the server.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}
