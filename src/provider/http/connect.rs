//! Opens connections to stores, and explains why one failed.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{ConfigBuilderExt, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::address::Address;

/// TLS sessions kept for resumption: one store, one connection at a time.
const TLS_SESSIONS: usize = 2;

type Tcp = TokioIo<TcpStream>;

/// Connects to one store: directly or through a proxy's tunnel, with TLS where the address says so.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    tunnel: Option<(Tunnel<HttpConnector>, Uri)>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    limit: Duration,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    Name,
    Tcp(io::ErrorKind),
    Proxy(Uri, &'static str),
    Tls(io::Error),
    TimedOut,
}

/// Checks a CA bundle.
///
/// # Errors
/// One sentence that says what is wrong with it.
pub fn check_ca(pem: &str) -> Result<(), String> {
    roots(pem).map(drop)
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(address: &Address, ca: Option<&str>, limit: Duration, proxy: &Matcher) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limit));
        if !address.is_https() {
            return Ok(Self { tcp, tunnel: None, tls: None, limit });
        }
        let tunnel = if address.is_loopback() { None } else { tunnel(address, &tcp, proxy)? };
        let name = ServerName::try_from(address.host().to_owned())
            .map_err(|_| format!("{:?} is neither a DNS name nor an IP address", address.host()))?;
        Ok(Self { tcp, tunnel, tls: Some((Arc::new(tls_config(ca)?), name)), limit })
    }

    async fn connect(mut self, to: Uri) -> Result<MaybeHttpsStream<Tcp>, ConnectError> {
        let tcp = match &mut self.tunnel {
            Some((tunnel, proxy)) => {
                tunnel.call(to).await.map_err(|error| ConnectError::Proxy(proxy.clone(), proxy_problem(&error)))?
            }
            None => self.tcp.call(to).await.map_err(|error| tcp_error(&error))?,
        };
        let Some((config, name)) = self.tls else { return Ok(MaybeHttpsStream::Http(tcp)) };
        // hyper-rustls' stream wants the tokio traits inside and hyper's outside.
        let stream = TlsConnector::from(config).connect(name, TokioIo::new(tcp)).await.map_err(ConnectError::Tls)?;
        Ok(MaybeHttpsStream::Https(TokioIo::new(stream)))
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Tcp>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // HttpConnector and Tunnel over it are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let limit = this.limit;
            timeout(limit, this.connect(to)).await.unwrap_or(Err(ConnectError::TimedOut))
        })
    }
}

/// A tunnel, and the proxy that makes it, without a password.
fn tunnel(
    address: &Address,
    tcp: &HttpConnector,
    proxy: &Matcher,
) -> Result<Option<(Tunnel<HttpConnector>, Uri)>, String> {
    let to = address.uri("", &[])?;
    let Some(intercept) = proxy.intercept(&to) else { return Ok(None) };
    if intercept.uri().scheme_str() != Some("http") {
        return Err(
            "the proxy is not an http:// one: set HTTPS_PROXY to http://<host>:<port>, or add the store to NO_PROXY"
                .into(),
        );
    }
    let mut tunnel = Tunnel::new(intercept.uri().clone(), tcp.clone());
    if let Some(auth) = intercept.basic_auth() {
        tunnel = tunnel.with_auth(auth.clone());
    }
    Ok(Some((tunnel, intercept.uri().clone())))
}

fn tls_config(ca: Option<&str>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| "this build has no TLS versions".to_owned())?;
    let mut config = match ca {
        Some(pem) => builder.with_root_certificates(roots(pem)?),
        None => builder.with_webpki_roots(),
    }
    .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(TLS_SESSIONS);
    Ok(config)
}

fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let added = certificate.ok().and_then(|der| store.add(der).ok());
        added.ok_or_else(|| format!("ca: certificate {} is damaged", index + 1))?;
    }
    if store.is_empty() {
        return Err("ca has no certificate: write PEM, -----BEGIN CERTIFICATE----- and so on".to_owned());
    }
    Ok(store)
}

// === impl ConnectError ===

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("cannot be reached: its host name does not resolve"),
            Self::Tcp(io::ErrorKind::ConnectionRefused) => f.write_str("cannot be reached: connection refused"),
            Self::Tcp(io::ErrorKind::TimedOut) => f.write_str("cannot be reached: no answer to the connection"),
            Self::Tcp(kind) => write!(f, "cannot be reached: {kind}"),
            Self::Proxy(proxy, problem) => {
                let proxy = proxy.authority().map_or("", |authority| authority.as_str());
                write!(f, "cannot be reached: the proxy {proxy} {problem}")
            }
            Self::Tls(error) => f.write_str(tls_problem(error)),
            Self::TimedOut => f.write_str("cannot be reached in time"),
        }
    }
}

impl StdError for ConnectError {}

fn tcp_error(error: &(dyn StdError + 'static)) -> ConnectError {
    // hyper-util keeps its error's type to itself; these three words are its text for a failed look-up.
    if error.to_string() == "dns error" {
        return ConnectError::Name;
    }
    let kind = chain(error).find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    ConnectError::Tcp(kind.unwrap_or(io::ErrorKind::Other))
}

fn proxy_problem(error: &(dyn StdError + 'static)) -> &'static str {
    let text = error.to_string();
    if text.contains("underlying connection") {
        "itself cannot be reached"
    } else if text.contains("authorization required") {
        "wants a user and password"
    } else {
        "makes no tunnel to it"
    }
}

fn tls_problem(error: &io::Error) -> &'static str {
    use CertificateError as Bad;
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return "closed the connection during the TLS handshake";
    };
    match tls {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "shows a certificate of an unknown authority: set ca to the authority's certificate"
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "shows a certificate for another name: set an address that the certificate names"
        }
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "shows a certificate that has expired"
        }
        rustls::Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "shows a certificate that is not valid yet: check the clocks"
        }
        // rustls has no name of its own for what many self-signed certificates are.
        rustls::Error::InvalidCertificate(Bad::Other(other)) if other.to_string().contains("CaUsedAsEndEntity") => {
            "shows an authority's certificate as its own: it needs one that is not marked CA:TRUE"
        }
        rustls::Error::InvalidCertificate(_) => "shows a certificate that cannot be trusted",
        rustls::Error::InvalidMessage(_) => "does not speak TLS: check the port",
        rustls::Error::AlertReceived(_) => "refuses the TLS handshake",
        _ => "fails in the TLS handshake",
    }
}

/// What to say about a request that got no answer.
pub(super) fn explain(error: &legacy::Error, limit: Duration) -> String {
    if let Some(connect) = chain(error).find_map(|cause| cause.downcast_ref::<ConnectError>()) {
        return match connect {
            ConnectError::TimedOut => format!("{connect}: no connection within {limit:?}"),
            _ => connect.to_string(),
        };
    }
    let http = chain(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    match http {
        Some(http) if http.is_parse() => "answers something that is not HTTP",
        Some(http) if http.is_incomplete_message() => "closed the connection before it answered",
        _ => "broke the connection off",
    }
    .to_owned()
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
