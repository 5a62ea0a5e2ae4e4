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
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::address::Address;
use crate::parse_error::{ParseError, invalid, rule};

type Tcp = TokioIo<TcpStream>;

/// Connects to one store: directly or through a proxy's tunnel, with TLS where the address says so.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    tunnel: Option<(Tunnel<HttpConnector>, Uri)>,
    tls: Option<Tls>,
    limit: Duration,
}

#[derive(Clone)]
struct Tls {
    name: ServerName<'static>,
    /// Without one, nobody is trusted yet.
    trusted: Option<Trusted>,
}

#[derive(Clone)]
struct Trusted {
    config: Arc<ClientConfig>,
    /// What to do about an authority that is not known.
    remedy: &'static str,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    Name,
    Tcp(io::ErrorKind),
    Proxy(Uri, &'static str),
    Tls(io::Error, &'static str),
    TimedOut,
}

// === impl Connector ===

impl Connector {
    /// Trusts nobody yet where there is TLS.
    pub(super) fn new(address: &Address, limit: Duration, proxy: &Matcher) -> Result<Self, ParseError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limit));
        if !address.is_https() {
            return Ok(Self { tcp, tunnel: None, tls: None, limit });
        }
        let tunnel = if address.is_loopback() { None } else { tunnel(address, &tcp, proxy)? };
        let name = ServerName::try_from(address.host().to_owned())
            .map_err(|_| invalid("host", address.host(), "a DNS name or an IP address"))?;
        Ok(Self { tcp, tunnel, tls: Some(Tls { name, trusted: None }), limit })
    }

    /// The same, which trusts the authorities of `config`; `remedy` says what to do about others.
    pub(super) fn trusting(&self, config: Arc<ClientConfig>, remedy: &'static str) -> Self {
        let tls = self.tls.as_ref();
        let tls = tls.map(|tls| Tls { name: tls.name.clone(), trusted: Some(Trusted { config, remedy }) });
        Self { tls, ..self.clone() }
    }

    async fn connect(mut self, to: Uri) -> Result<MaybeHttpsStream<Tcp>, ConnectError> {
        let tcp = match &mut self.tunnel {
            Some((tunnel, proxy)) => {
                tunnel.call(to).await.map_err(|error| ConnectError::Proxy(proxy.clone(), proxy_problem(&error)))?
            }
            None => self.tcp.call(to).await.map_err(|error| tcp_error(&error))?,
        };
        let Some(Tls { name, trusted }) = self.tls else { return Ok(MaybeHttpsStream::Http(tcp)) };
        let Some(Trusted { config, remedy }) = trusted else {
            return Err(ConnectError::Tls(io::ErrorKind::PermissionDenied.into(), ""));
        };
        // hyper-rustls' stream wants the tokio traits inside and hyper's outside.
        let stream = TlsConnector::from(config).connect(name, TokioIo::new(tcp)).await;
        stream
            .map(|stream| MaybeHttpsStream::Https(TokioIo::new(stream)))
            .map_err(|error| ConnectError::Tls(error, remedy))
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
) -> Result<Option<(Tunnel<HttpConnector>, Uri)>, ParseError> {
    let to = address.uri("", &[])?;
    let Some(intercept) = proxy.intercept(&to) else { return Ok(None) };
    if intercept.uri().scheme_str() != Some("http") {
        let problem =
            "the proxy is not an http:// one: set HTTPS_PROXY to http://<host>:<port>, or add the store to NO_PROXY";
        return Err(rule(problem));
    }
    let mut tunnel = Tunnel::new(intercept.uri().clone(), tcp.clone());
    if let Some(auth) = intercept.basic_auth() {
        tunnel = tunnel.with_auth(auth.clone());
    }
    Ok(Some((tunnel, intercept.uri().clone())))
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
            Self::Tls(error, remedy) if is_unknown_issuer(error) => {
                write!(f, "shows a certificate of an unknown authority: {remedy}")
            }
            Self::Tls(error, _) => f.write_str(tls_problem(error)),
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

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn is_unknown_issuer(error: &io::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)))
}

fn tls_problem(error: &io::Error) -> &'static str {
    use CertificateError as Bad;
    let Some(tls) = tls_error(error) else {
        return "closed the connection during the TLS handshake";
    };
    match tls {
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
