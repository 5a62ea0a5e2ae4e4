//! The load: a closed loop on each connection, every answer looked at.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// The uid in the file with the request: each request sent has another in its places, as long as this.
const UID: &str = "00000000-0000-0000-0000-000000000000";

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Where the webhook listens
    #[arg(long)]
    address: SocketAddr,
    /// The webhook's path
    #[arg(long, default_value = "/mutate")]
    path: String,
    /// Certificate of the authority to trust
    #[arg(long)]
    ca: PathBuf,
    /// File with the AdmissionReview to send
    #[arg(long)]
    request: PathBuf,
    /// So many connections at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// For so long
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Never sleep: a server on the same machine then has nobody to wake up, as if the load came from another one
    #[arg(long)]
    busy: bool,
    /// Send the same uid always: for a server that knows one answer only
    #[arg(long)]
    same_uid: bool,
    /// Send one request, and write its answer to this file
    #[arg(long)]
    save: Option<PathBuf>,
}

/// A request whose uid changes.
struct Template {
    body: Vec<u8>,
    uids: Vec<usize>,
}

/// An answer that was looked at whole: others are right if they differ in nothing but their uid.
#[derive(Default)]
struct Seen {
    body: Vec<u8>,
    uid: usize,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    args: Arc<Args>,
    template: Arc<Template>,
    seen: Seen,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn run(args: &Args) -> super::Outcome {
    // Looks for answers after every few tasks, which matters only if it never sleeps.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(4).build()?;
    if args.busy {
        runtime.spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
    }
    let report = runtime.block_on(measure(args)).map_err(|error| format!("{}: {error}", args.address))?;
    println!("{report}");
    Ok(())
}

async fn measure(args: &Args) -> Result<Value, Failure> {
    let args = Arc::new(args.clone());
    let template = Arc::new(Template::read(&args.request)?);
    let tls = TlsConnector::from(Arc::new(client_config(&args.ca)?));
    let mut connections = Vec::new();
    for _ in 0..args.connections {
        connections.push(Connection::open(&tls, &args, &template).await?);
    }
    if let (Some(file), Some(connection)) = (&args.save, connections.first_mut()) {
        let (_, body) = connection.ask(UID).await?;
        connection.check(UID, &body)?;
        fs::write(file, &body)?;
        return Ok(json!({"bytes": body.len()}));
    }
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(args.seconds);
    let mut tasks = JoinSet::new();
    for (number, connection) in connections.into_iter().enumerate() {
        tasks.spawn(connection.load(number, end));
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let seconds = start.elapsed().as_secs_f64();
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    let count = times.len() as f64;
    Ok(json!({
        "requests": times.len(),
        "requests_per_second": count / seconds,
        "p50_us": percentile(&times, 50).as_secs_f64() * 1e6,
        "p99_us": percentile(&times, 99).as_secs_f64() * 1e6,
    }))
}

/// The least time that so many per cent do not exceed, of sorted ones.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

fn client_config(ca: &Path) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    // kube-apiserver speaks HTTP/1.1 with webhooks: `cfg.NextProtos` in apiserver's pkg/util/webhook/client.go.
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

// === impl Template ===

impl Template {
    fn read(file: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(file)?;
        let uids: Vec<_> = text.match_indices(UID).map(|(place, _)| place).collect();
        if uids.is_empty() {
            return Err(format!("{} has no uid {UID}", file.display()).into());
        }
        Ok(Self { body: text.into_bytes(), uids })
    }

    fn with(&self, uid: &str) -> Bytes {
        let mut body = self.body.clone();
        for uid_at in &self.uids {
            if let Some(place) = body.get_mut(*uid_at..uid_at + UID.len()) {
                place.copy_from_slice(uid.as_bytes());
            }
        }
        body.into()
    }
}

// === impl Connection ===

impl Connection {
    async fn open(tls: &TlsConnector, args: &Arc<Args>, template: &Arc<Template>) -> Result<Self, Failure> {
        let stream = TcpStream::connect(args.address).await?;
        stream.set_nodelay(true)?;
        let stream = tls.connect(ServerName::from(args.address.ip()), stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, args: Arc::clone(args), template: Arc::clone(template), seen: Seen::default() })
    }

    async fn load(mut self, number: usize, end: Instant) -> Result<Vec<Duration>, Failure> {
        let mut times = Vec::new();
        while Instant::now() < end {
            let uid = if self.args.same_uid {
                UID.to_owned()
            } else {
                // No other run's, either.
                format!("{:08x}-0000-0000-{number:04x}-{:012x}", std::process::id(), times.len())
            };
            let (took, body) = self.ask(&uid).await?;
            self.check(&uid, &body)?;
            times.push(took);
        }
        Ok(times)
    }

    /// From the request to the answer's last byte.
    async fn ask(&mut self, uid: &str) -> Result<(Duration, Bytes), Failure> {
        let request = Request::post(&self.args.path)
            .header(header::HOST, "webhook")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(self.template.with(uid)))?;
        let start = Instant::now();
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let took = start.elapsed();
        match status {
            StatusCode::OK => Ok((took, body)),
            _ => Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into()),
        }
    }

    fn check(&mut self, uid: &str, body: &Bytes) -> Result<(), Failure> {
        if self.seen.is_same(uid, body) {
            return Ok(());
        }
        let review: Value = serde_json::from_slice(body)?;
        let problem = |problem: &str| Err(format!("{problem}: {}", String::from_utf8_lossy(body)).into());
        let field = |name: &str| review.get("response").and_then(|response| response.get(name));
        if field("uid").and_then(Value::as_str) != Some(uid) {
            return problem("the answer is for another request");
        }
        if field("allowed") != Some(&Value::Bool(true)) || field("patchType") != Some(&json!("JSONPatch")) {
            return problem("no patch");
        }
        let patch = STANDARD.decode(field("patch").and_then(Value::as_str).unwrap_or_default())?;
        match serde_json::from_slice::<Value>(&patch)?.as_array() {
            Some(operations) if !operations.is_empty() => {}
            _ => return problem("an empty patch"),
        }
        let place = body.windows(uid.len()).position(|window| window == uid.as_bytes()).unwrap_or_default();
        self.seen = Seen { body: body.to_vec(), uid: place };
        Ok(())
    }
}

// === impl Seen ===

impl Seen {
    fn is_same(&self, uid: &str, body: &[u8]) -> bool {
        let end = self.uid + uid.len();
        body.len() == self.body.len()
            && body.get(..self.uid) == self.body.get(..self.uid)
            && body.get(self.uid..end) == Some(uid.as_bytes())
            && body.get(end..) == self.body.get(end..)
    }
}
