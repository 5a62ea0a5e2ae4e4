//! A store that answers what the input says: the real client of a provider on a server of bytes.
//!
//! An input is text. `%%` on a line of its own stands between answers; an answer is a line with its status, then headers,
//! an empty line and the body. The last answer is given again and again. A first line `@1` takes the second settings
//! instead of the first.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hushpod::provider::http::Reach;
use hushpod::provider::{Answer, Known, Login, Provider, ProviderError, ProviderSettings, ReadResult, Reading};
use hushpod::reference::{Reference, Request};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::span;

use crate::{MARKER, assert_message, scratch};

/// More requests than any of this needs: someone asks for ever.
const MOST_REQUESTS: usize = 400;

/// How long to wait for a store that could push.
const PATIENCE: Duration = Duration::from_millis(1);

/// A type of store: how it may be set up, and what is asked of it.
pub(crate) struct Kind {
    /// Settings in JSON; `URL` is the server's address, `DIR` a directory with the file `token`.
    settings: &'static [&'static str],
    role: &'static str,
    references: &'static [&'static str],
    /// Fields of answers that are names, which messages may show, as they may show keys.
    names: &'static [&'static str],
    can_push: bool,
}

pub(crate) const VAULT: Kind = Kind {
    settings: &[
        r#"{"type":"vault","address":"URL"}"#,
        r#"{"type":"vault","address":"URL","auth":{"method":"token","tokenFile":"DIR/token"}}"#,
    ],
    role: "web",
    references: &[
        "secret/data/db",
        "secret/data/db?version=2",
        "database/creds/web",
        "pki/issue/web?common_name=web.svc",
    ],
    names: &["path", "version"],
    can_push: false,
};

pub(crate) const INFISICAL: Kind = Kind {
    settings: &[
        r#"{"type":"infisical","address":"URL","project":"shop","environment":"prod"}"#,
        r#"{"type":"infisical","address":"URL","project":"00000000-0000-4000-8000-000000000001","environment":"prod",
            "events":true,"auth":{"method":"token","tokenFile":"DIR/token"}}"#,
    ],
    role: "00000000-0000-4000-8000-000000000002",
    references: &["/backend", "/backend?recursive=true", "/backend?version=2#KEY", "/db?dynamic=postgres&ttl=1h"],
    names: &["secretKey", "secretPath", "environment", "version", "id", "slug"],
    can_push: true,
};

const AWS_ROLE: &str = "arn:aws:iam::123456789012:role/web";

pub(crate) const AWS: Kind = Kind {
    settings: &[
        r#"{"type":"aws","region":"eu-west-1","endpoint":"URL","stsEndpoint":"URL"}"#,
        r#"{"type":"aws","region":"eu-west-1","endpoint":"URL","auth":{"method":"pod-identity","agent":"URL/v1/credentials"}}"#,
    ],
    role: AWS_ROLE,
    references: &["prod/db", "prod/key", "prod/db?version=AWSPREVIOUS"],
    names: &["Name", "ARN", "VersionId", "VersionIdsToStages"],
    can_push: false,
};

pub(crate) const SSM: Kind = Kind {
    settings: &[
        r#"{"type":"ssm","region":"eu-west-1","endpoint":"URL","stsEndpoint":"URL"}"#,
        r#"{"type":"ssm","region":"eu-west-1","endpoint":"URL","auth":{"method":"pod-identity","agent":"URL/v1/credentials"}}"#,
    ],
    role: AWS_ROLE,
    references: &["/prod/web/password", "/prod/web/user?version=3", "/prod/web/"],
    names: &["Name", "ARN"],
    can_push: false,
};

pub(crate) const AZURE: Kind = Kind {
    settings: &[
        r#"{"type":"azure","address":"URL","authority":"URL","tenant":"example.org","scope":"https://vault.azure.net/.default"}"#,
        r#"{"type":"azure","address":"URL","scope":"https://vault.azure.net/.default",
            "auth":{"method":"managed-identity","metadata":"URL"}}"#,
    ],
    role: "00000000-0000-4000-8000-000000000003",
    references: &["db", "db?version=0123456789abcdef0123456789abcdef"],
    names: &["id"],
    can_push: false,
};

pub(crate) const GCP: Kind = Kind {
    settings: &[
        r#"{"type":"gcp","address":"URL","project":"shop","auth":{"tokenUrl":"URL/v1/token","impersonationUrl":"URL",
            "audience":"//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"}}"#,
        r#"{"type":"gcp","address":"URL","project":"shop","auth":{"method":"metadata","metadata":"URL"}}"#,
    ],
    role: "web@shop.iam.gserviceaccount.com",
    references: &["db", "db?version=3", "db?version=stable"],
    names: &["name"],
    can_push: false,
};

struct World {
    runtime: Runtime,
    listener: Arc<TcpListener>,
    url: String,
    dir: PathBuf,
}

/// What is left to answer, and how often it was asked.
#[derive(Default)]
struct Script {
    answers: VecDeque<Vec<u8>>,
    asked: usize,
}

/// Hears every log line of ours.
struct Ear;

thread_local! {
    static WORLD: World = World::new();
    /// Whether the marker may be in no message now.
    static MARKED: Cell<bool> = const { Cell::new(true) };
}

/// Nothing hangs, and whatever the store says, no value is in a message, a log line or in `Debug`.
pub(crate) fn answers(kind: &Kind, input: &[u8]) {
    let (chosen, rest) = match input.strip_prefix(b"@") {
        Some([digit, b'\n', rest @ ..]) => (usize::from(digit.wrapping_sub(b'0')), rest),
        _ => (0, input),
    };
    let Some(settings) = kind.settings.get(chosen) else { return };
    let answers: Vec<Vec<&[u8]>> = split(rest);
    // Where a name has the marker in it, it is no sign of a value.
    MARKED.set(!answers.iter().any(|lines| names_marker(kind, lines)));
    let answers = answers.iter().map(|lines| answer(lines)).collect();
    let script = Arc::new(Mutex::new(Script { answers, asked: 0 }));
    WORLD.with(|world| world.runtime.block_on(world.run(kind, settings, script)));
}

// === impl World ===

impl World {
    fn new() -> Self {
        tracing::subscriber::set_global_default(Ear).expect("nobody else listens");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let dir = scratch();
        std::fs::write(dir.join("token"), "canary.projected.token").expect("written");
        Self { runtime, listener: Arc::new(listener), url, dir }
    }

    async fn run(&self, kind: &Kind, settings: &str, script: Arc<Mutex<Script>>) {
        let server = tokio::spawn(serve(Arc::clone(&self.listener), script));
        let dir = self.dir.to_str().expect("text");
        let settings = settings.replace("URL", &self.url).replace("DIR", dir);
        let settings: ProviderSettings = serde_json::from_str(&settings).expect("settings");
        let login =
            Login { provider: "store".into(), role: Some(kind.role.into()), token: self.dir.join("token").into() };
        let mut provider = settings.connect(login, Reach::default()).expect("a client");
        let settings = settings.as_settings();
        let requests: Vec<Request> = kind
            .references
            .iter()
            .map(|text| settings.resolve("store", &text.parse::<Reference>().expect(text)).expect(text))
            .collect();
        use_all(&mut *provider, &requests, kind.can_push).await;
        drop(provider);
        // The connections end with the task that has them; by a reset, so no port stays behind.
        server.abort();
        let _ = server.await;
    }
}

/// Everything that a source does to a provider.
async fn use_all(provider: &mut dyn Provider, requests: &[Request], can_push: bool) {
    let first = provider.read(requests, &Known::new()).await;
    check(requests, &first);
    if can_push {
        let _ = timeout(PATIENCE, provider.changed()).await;
    }
    let fresh: Vec<(&Request, &Answer)> = requests
        .iter()
        .zip(&first)
        .filter_map(|(request, result)| match result {
            Ok(Reading::Fresh(answer)) => Some((request, answer)),
            _ => None,
        })
        .collect();
    let versions = fresh.iter().filter_map(|(request, answer)| Some(((*request).clone(), answer.version.clone()?)));
    check(requests, &provider.read(requests, &versions.collect()).await);
    for lease in fresh.iter().filter_map(|(_, answer)| answer.lease.as_ref()) {
        let renewed = provider.renew(lease).await;
        assert_redacted(&renewed);
        accept(renewed.as_ref().err());
        accept(provider.revoke(renewed.as_ref().unwrap_or(lease)).await.err().as_ref());
    }
    accept(provider.extend_session().await.err().as_ref());
    let session = provider.session();
    assert_redacted(&session);
    if let Some(session) = session {
        provider.resume(session);
        check(requests, &provider.read(requests, &Known::new()).await);
    }
    accept(provider.end_session().await.err().as_ref());
}

fn check(requests: &[Request], results: &[ReadResult]) {
    assert_eq!(results.len(), requests.len());
    for result in results {
        match result {
            Err(error) => accept(Some(error)),
            Ok(Reading::NotModified) => {}
            Ok(Reading::Fresh(answer)) => assert_redacted(answer),
        }
    }
}

fn accept(error: Option<&ProviderError>) {
    if let Some(error) = error {
        assert_told(&error.message);
    }
}

fn assert_told(message: &str) {
    if MARKED.get() {
        assert_message(message);
    }
}

fn assert_redacted(what: &impl fmt::Debug) {
    assert!(!MARKED.get() || !format!("{what:?}").contains(MARKER), "{what:?}");
}

// === the server ===

/// The lines of each answer.
fn split(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut answers: Vec<Vec<&[u8]>> = vec![Vec::new()];
    for line in input.split(|&byte| byte == b'\n') {
        match (line, answers.last_mut()) {
            (b"%%", _) => answers.push(Vec::new()),
            (line, Some(answer)) => answer.push(line),
            (_, None) => {}
        }
    }
    answers
}

/// Whether a header, a key, or a field that is a name has the marker in it.
fn names_marker(kind: &Kind, lines: &[&[u8]]) -> bool {
    let end = lines.iter().position(|line| line.is_empty()).unwrap_or(lines.len());
    let (head, body) = lines.split_at(end);
    let has_marker = |bytes: &[u8]| bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
    let body = serde_json::from_slice::<Value>(&body.join(&b'\n'));
    head.iter().any(|line| has_marker(line)) || body.is_ok_and(|body| has_marked_name(kind, &body, false))
}

fn has_marked_name(kind: &Kind, value: &Value, is_name: bool) -> bool {
    match value {
        Value::String(text) => is_name && text.contains(MARKER),
        Value::Array(items) => items.iter().any(|item| has_marked_name(kind, item, is_name)),
        Value::Object(fields) => fields.iter().any(|(key, field)| {
            key.contains(MARKER) || has_marked_name(kind, field, is_name || kind.names.contains(&key.as_str()))
        }),
        _ => false,
    }
}

fn answer(lines: &[&[u8]]) -> Vec<u8> {
    let mut lines = lines.iter();
    let status = lines.next().and_then(|line| str::from_utf8(line).ok()?.trim().parse::<u16>().ok());
    let status = status.filter(|status| (200..600).contains(status)).unwrap_or(200);
    let mut answer = format!("HTTP/1.1 {status} X\r\n").into_bytes();
    for header in lines.by_ref().take_while(|line| !line.is_empty()) {
        let name = header.split(|&byte| byte == b':').next().unwrap_or_default();
        let is_name =
            !name.is_empty() && name.iter().all(|byte| byte.is_ascii_lowercase() || b"-0123456789".contains(byte));
        let is_framing = matches!(name, b"content-length" | b"transfer-encoding" | b"connection" | b"upgrade");
        let is_text = header.iter().all(|byte| matches!(byte, b' '..=b'~'));
        if is_name && is_text && !is_framing && name.len() < header.len() {
            answer.extend_from_slice(header);
            answer.extend_from_slice(b"\r\n");
        }
    }
    let body = if matches!(status, 204 | 304) { Vec::new() } else { lines.as_slice().join(&b'\n') };
    answer.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    answer.extend_from_slice(&body);
    answer
}

async fn serve(listener: Arc<TcpListener>, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(converse(stream, Arc::clone(&script)));
    }
}

async fn converse(mut stream: TcpStream, script: Arc<Mutex<Script>>) -> std::io::Result<()> {
    stream.set_zero_linger()?;
    stream.set_nodelay(true)?;
    let mut received = Vec::new();
    loop {
        while let Some(length) = request_length(&received) {
            received.drain(..length);
            let answer = script.lock().unwrap_or_else(PoisonError::into_inner).next();
            stream.write_all(&answer).await?;
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

/// How long the first request is, if all of it is there.
fn request_length(received: &[u8]) -> Option<usize> {
    let head = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(received.get(..head)?).to_ascii_lowercase();
    let body = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some(head + body.unwrap_or(0)).filter(|length| *length <= received.len())
}

// === impl Script ===

impl Script {
    fn next(&mut self) -> Vec<u8> {
        self.asked += 1;
        assert!(self.asked < MOST_REQUESTS, "the store is asked for ever");
        let answer = self.answers.pop_front().unwrap_or_default();
        if self.answers.is_empty() {
            self.answers.push_back(answer.clone());
        }
        answer
    }
}

// === impl Ear ===

impl tracing::Subscriber for Ear {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("hushpod")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        assert_told(&line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{field}={value:?} ");
    }
}
