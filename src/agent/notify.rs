//! Tells the application that its files changed: by a signal, or by an HTTP request on localhost. Always after the
//! swap, never in the loop's way: what fails is tried again for about a minute, or until a newer generation replaces
//! it, and the files stay whatever happens.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, geteuid, getpid, kill_process};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::generation::GenerationId;
use crate::metrics::Counters;
use crate::options::{Notify, Signal};

/// One request takes at most this long.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses before each further attempt.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

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
    /// Nobody to signal.
    #[error("no process named {process:?} runs as uid {uid}{}", of_others(*.others))]
    NoProcess {
        /// The name that was looked for.
        process: String,
        /// The agent's own uid: it can signal no other.
        uid: u32,
        /// Processes of that name which belong to other users.
        others: usize,
    },
    /// `/proc` or the signal failed.
    #[error("cannot signal {process:?}: {source}")]
    Signal {
        /// The name that was looked for.
        process: String,
        /// Why not.
        source: io::Error,
    },
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

fn of_others(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" ({count} of that name run as another user, whom the agent cannot signal)"),
    }
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
        Notify::Signal { signal, process } => signal_all(Path::new("/proc"), *signal, process),
        Notify::Http { url } => {
            tokio::time::timeout(HTTP_TIMEOUT, post(url, id)).await.unwrap_or(Err(NotifyError::TimedOut))
        }
    }
}

/// Signals every process of this name and our own uid. `/proc` lists processes only: threads stay out of it.
fn signal_all(proc: &Path, signal: Signal, process: &str) -> Result<(), NotifyError> {
    let failed = |source| NotifyError::Signal { process: process.to_owned(), source };
    let (mut told, mut others, mut last_error) = (0_usize, 0_usize, None);
    for entry in fs::read_dir(proc).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        match owner(&entry.path(), process) {
            Some(uid) if uid == geteuid().as_raw() && pid != getpid() => match kill_process(pid, kernel(signal)) {
                Ok(()) => told += 1,
                Err(rustix::io::Errno::SRCH) => {}
                Err(error) => last_error = Some(error.into()),
            },
            Some(uid) if uid != geteuid().as_raw() => others += 1,
            _ => {}
        }
    }
    match last_error {
        _ if told > 0 => Ok(()),
        Some(error) => Err(failed(error)),
        None => Err(NotifyError::NoProcess { process: process.to_owned(), uid: geteuid().as_raw(), others }),
    }
}

/// The real uid of the process in this directory if it has that name and lives. From `status`, since the directory of
/// a process that is not dumpable belongs to root.
fn owner(dir: &Path, process: &str) -> Option<u32> {
    let name = fs::read(dir.join("comm")).ok()?;
    if name.strip_suffix(b"\n").unwrap_or(&name) != process.as_bytes() {
        return None;
    }
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let field = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line?.split_ascii_whitespace().next()
    };
    // A zombie takes signals, and does nothing about them.
    if field("State") == Some("Z") { None } else { field("Uid")?.parse().ok() }
}

fn kernel(signal: Signal) -> rustix::process::Signal {
    use rustix::process::Signal as Kernel;
    match signal {
        Signal::Hup => Kernel::HUP,
        Signal::Usr1 => Kernel::USR1,
        Signal::Usr2 => Kernel::USR2,
        Signal::Winch => Kernel::WINCH,
        Signal::Int => Kernel::INT,
        Signal::Term => Kernel::TERM,
        Signal::Quit => Kernel::QUIT,
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
