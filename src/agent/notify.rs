//! Tells the application that its files changed: by a signal, or by an HTTP request on localhost. Always after the
//! swap, never in the loop's way: what fails is tried again for about a minute, or until a newer generation replaces
//! it, and the files stay whatever happens.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::generation::GenerationId;
use crate::metrics::Counters;
use crate::options::Notify;
use crate::process::tell::{HTTP_TIMEOUT, PAUSES, SignalError, signal_all};

/// Whom to tell, and who is being told.
#[derive(Debug)]
pub struct Notifier {
    targets: Vec<Notify>,
    running: JoinSet<()>,
    /// Attempts, by what came of them.
    outcomes: Counters,
}

/// Why a notification did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// No process got the signal.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// No connection.
    #[error("cannot connect to port {port} on localhost: {source}")]
    Connect {
        /// The port that was tried.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke before the answer.
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
    /// The URL or the request made of it is malformed.
    #[error("the request cannot be made: {0}")]
    Url(#[from] hyper::http::Error),
    /// Anything but 2xx. Redirects are not followed.
    #[error("the application answered {0}")]
    Status(StatusCode),
    /// No answer.
    #[error("no answer within {} s", HTTP_TIMEOUT.as_secs())]
    TimedOut,
}

// === impl Notifier ===

impl Notifier {
    /// Nobody is told before [`Self::announce`].
    #[must_use]
    pub fn new(targets: Vec<Notify>) -> Self {
        Self { targets, running: JoinSet::new(), outcomes: Counters::default() }
    }

    /// The same, counted.
    #[must_use]
    pub fn counted_by(self, outcomes: Counters) -> Self {
        Self { outcomes, ..self }
    }

    /// Tells everyone that the files are those of `id`, each on its own; what was still being tried for an earlier
    /// generation is given up.
    pub fn announce(&mut self, id: &GenerationId) {
        self.running = JoinSet::new();
        for target in &self.targets {
            self.running.spawn(tell(target.clone(), id.clone(), self.outcomes.clone()));
        }
    }

    /// Whether everyone was told, or given up.
    pub fn is_idle(&mut self) -> bool {
        while self.running.try_join_next().is_some() {}
        self.running.is_empty()
    }
}

async fn tell(target: Notify, id: GenerationId, outcomes: Counters) {
    let mut pauses = PAUSES.iter();
    let mut attempts = 1_u32;
    loop {
        let Err(error) = tell_once(&target, &id).await else {
            outcomes.increment(&["ok"]);
            info!(event = "notified", generation = id.0, %target, attempts, "the application was told");
            return;
        };
        let Some(pause) = pauses.next() else {
            outcomes.increment(&["given_up"]);
            warn!(event = "notify_failed", generation = id.0, %target, attempts, %error,
                "the application could not be told, and will hear of the next change: its files are in place");
            return;
        };
        outcomes.increment(&["error"]);
        warn!(event = "notify_failed", generation = id.0, %target, attempts, %error, retry_in = ?pause,
            "the application was not told yet: its files are in place");
        tokio::time::sleep(*pause).await;
        attempts += 1;
    }
}

async fn tell_once(target: &Notify, id: &GenerationId) -> Result<(), NotifyError> {
    match target {
        Notify::Signal { signal, process } => Ok(signal_all(Path::new("/proc"), *signal, process)?),
        Notify::Http { url } => {
            tokio::time::timeout(HTTP_TIMEOUT, post(url, id)).await.unwrap_or(Err(NotifyError::TimedOut))
        }
    }
}

async fn post(url: &str, id: &GenerationId) -> Result<(), NotifyError> {
    let uri: Uri = url.parse().map_err(hyper::http::Error::from)?;
    let stream = connect(&uri).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, uri.authority().map_or("localhost", |authority| authority.as_str()))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("hushpod-agent/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(serde_json::json!({"generation": id.0}).to_string())))?;
    let status = sender.send_request(request).await?.status();
    if status.is_success() { Ok(()) } else { Err(NotifyError::Status(status)) }
}

/// `localhost` is both loopback addresses, whatever a resolver (which a static program lacks) would say. The error of
/// the second is the one told: few hosts listen on `::1`.
async fn connect(uri: &Uri) -> Result<TcpStream, NotifyError> {
    let port = uri.port_u16().unwrap_or(80);
    let (v4, v6) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let both = [v6, v4];
    let addresses = match uri.host() {
        Some("127.0.0.1") => std::slice::from_ref(&v4),
        Some("[::1]") => std::slice::from_ref(&v6),
        _ => &both,
    };
    TcpStream::connect(addresses).await.map_err(|source| NotifyError::Connect { port, source })
}

#[cfg(test)]
mod tests;
