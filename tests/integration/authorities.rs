//! A store's authorities in a file that kubelet replaces: a store may change them while its clients go on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hushpod::provider::ErrorKind;
use hushpod::provider::http::{CaFile, Call, Client, Reach, SendError};
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::Level;

use crate::fakes::tls::Certificates;
use crate::log::Log;

/// A server whose certificate can be exchanged.
struct Store {
    url: String,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    handshakes: Arc<AtomicUsize>,
}

/// A projected volume with the file `vault`.
struct Bundle {
    dir: tempfile::TempDir,
}

// === impl Store ===

impl Store {
    /// One that closes each connection after the first answer, or none.
    async fn start(certificates: &Certificates, keeps: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let acceptor = Arc::new(Mutex::new(certificates.acceptor()));
        let handshakes = Arc::new(AtomicUsize::new(0));
        let (shown, counter) = (Arc::clone(&acceptor), Arc::clone(&handshakes));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = shown.lock().unwrap().clone();
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    counter.fetch_add(1, Ordering::SeqCst);
                    answer(tls, keeps).await;
                });
            }
        });
        Self { url, acceptor, handshakes }
    }

    /// New connections see another certificate from now on.
    fn show(&self, certificates: &Certificates) {
        *self.acceptor.lock().unwrap() = certificates.acceptor();
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    fn client(&self, bundle: &Bundle) -> Client {
        Reach::default().with_ca_file(Some(Arc::new(CaFile::new(bundle.file())))).client(&self.url).unwrap()
    }
}

async fn answer(mut tls: TlsStream<TcpStream>, keeps: bool) {
    let close = if keeps { "" } else { "Connection: close\r\n" };
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{close}\r\n{{}}");
    let mut head = Vec::new();
    while let Ok(byte) = tls.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if tls.write_all(answer.as_bytes()).await.is_err() || tls.flush().await.is_err() || !keeps {
                break;
            }
        }
    }
    let _ = tls.shutdown().await;
}

// === impl Bundle ===

impl Bundle {
    fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn with(pem: &str) -> Self {
        let bundle = Self::empty();
        bundle.project(|file| fs::write(file, pem).unwrap());
        bundle
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("vault")
    }

    /// As kubelet does: what `write` makes stands in a new directory, to which `..data` is renamed. (`AtomicWriter`)
    fn project(&self, write: impl FnOnce(&Path)) {
        let dir = self.dir.path();
        let number = fs::read_dir(dir).unwrap().count();
        let next = format!("..{number}_{:?}", std::time::Instant::now()).replace([' ', '{', '}', ':'], "");
        fs::create_dir(dir.join(&next)).unwrap();
        write(&dir.join(&next).join("vault"));
        let before = fs::read_link(dir.join("..data")).ok();
        symlink(&next, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        match before {
            Some(before) => fs::remove_dir_all(dir.join(before)).unwrap(),
            None => symlink("..data/vault", self.file()).unwrap(),
        }
    }

    fn write(&self, pem: &str) {
        self.project(|file| fs::write(file, pem).unwrap());
    }
}

async fn ask(client: &Client) -> Result<(), SendError> {
    let response = client.send(Call::new(Method::GET, "x")).await?;
    assert_eq!(response.status, 200);
    Ok(())
}

fn refusal(result: Result<(), SendError>) -> String {
    let error = result.unwrap_err().error;
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_store_changes_its_authority_under_traffic() {
    let (old, new) = (Certificates::new(), Certificates::new());
    for keeps in [false, true] {
        let store = Store::start(&old, keeps).await;
        let bundle = Bundle::with(&old.ca);
        let client = Arc::new(store.client(&bundle));
        let asked = Arc::new(AtomicUsize::new(0));
        let (asking, counter) = (Arc::clone(&client), Arc::clone(&asked));
        let traffic = tokio::spawn(async move {
            loop {
                ask(&asking).await.unwrap_or_else(|error| panic!("{error}"));
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
        let more = async || {
            let enough = asked.load(Ordering::SeqCst) + 10;
            while asked.load(Ordering::SeqCst) < enough {
                assert!(!traffic.is_finished(), "a request failed");
                tokio::task::yield_now().await;
            }
        };
        more().await;
        bundle.write(&format!("{}{}", old.ca, new.ca));
        more().await;
        store.show(&new);
        more().await;
        let before = store.handshakes();
        bundle.write(&new.ca);
        more().await;
        assert!(store.handshakes() > before, "a connection that the old authority vouched for is let go");
        traffic.abort();
        // And the old one is no longer good for anything.
        store.show(&old);
        bundle.write(&format!("{}{}", new.ca, Certificates::new().ca));
        let told = refusal(ask(&client).await);
        assert!(told.contains("unknown authority: add the authority's certificate to caBundle's"), "{told}");
    }
}

#[tokio::test]
async fn connections_are_kept_while_the_same_authorities_are_in_force() {
    let (certificates, other) = (Certificates::new(), Certificates::new());
    let store = Store::start(&certificates, true).await;
    let (one, another) = (&certificates.ca, &other.ca);
    let bundle = Bundle::with(&format!("{one}{another}"));
    let client = store.client(&bundle);
    // What is written, how many connections there have been then.
    for (pem, handshakes) in [
        (None, 1),
        (None, 1),
        (Some(format!("{one}{another}")), 1),
        // Kubelet shuffles them when it is started.
        (Some(format!("{another}{one}")), 1),
        (Some(format!("{another}{one}{another}")), 1),
        (Some("no certificates at all".to_owned()), 1),
        (Some(one.clone()), 2),
        (None, 2),
        (Some(format!("{one}{another}")), 3),
    ] {
        if let Some(pem) = &pem {
            bundle.write(pem);
        }
        ask(&client).await.unwrap();
        assert_eq!(store.handshakes(), handshakes, "{pem:?}");
    }
}

type Write = Box<dyn Fn(&Path)>;

/// Files that are none, and what is said of them.
fn bad_files() -> Vec<(&'static str, Write, &'static str)> {
    let text = |text: String| Box::new(move |file: &Path| fs::write(file, &text).unwrap()) as Write;
    let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let good = Certificates::new().ca;
    vec![
        ("nothing", text(String::new()), "has no certificate"),
        ("garbage", text("\u{0}\u{1}canary".repeat(100)), "has no certificate"),
        ("no base64", text(format!("{good}{}", pem("canary!"))), "has a damaged certificate, number 2"),
        ("no certificate", text(format!("{good}{}", pem("Y2FuYXJ5"))), "has a damaged certificate, number 2"),
        ("an end that is cut off", text(good[..good.len() - 30].to_owned()), "damaged certificate, number 1"),
        ("too many", text(good.repeat(1001)), "has more than 1000 certificates"),
        ("too much", text(format!("{good}{}", " ".repeat(1 << 20))), "has more than 1048576 bytes"),
        ("no file", Box::new(|_: &Path| {}), "does not exist: before 1.37, Kubernetes leaves it out"),
        ("a directory", Box::new(|file: &Path| fs::create_dir(file).unwrap()), "is not a file"),
    ]
}

#[tokio::test]
async fn p3_the_last_good_authorities_stay_while_the_file_is_bad() {
    let (old, new) = (Certificates::new(), Certificates::new());
    for (name, write, problem) in bad_files() {
        let store = Store::start(&old, false).await;
        let bundle = Bundle::with(&old.ca);
        let client = store.client(&bundle);
        ask(&client).await.unwrap();
        let (log, listening) = Log::listen(Level::INFO);
        for _ in 0..3 {
            bundle.project(&write);
            ask(&client).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let text = log.text();
        assert_eq!(text.matches("the last good ones stay in force").count(), 1, "once for {name}: {text}");
        assert!(text.contains(problem) && text.contains(" WARN ") && !text.contains("canary"), "{name}: {text}");

        bundle.write(&new.ca);
        let told = refusal(ask(&client).await);
        assert!(told.contains("unknown authority"), "{name}: {told}");
        store.show(&new);
        ask(&client).await.unwrap();
        let text = log.text();
        for part in ["other authorities are in force from now on", "the file of authorities can be read again"] {
            assert_eq!(text.matches(part).count(), 1, "{name}: {text}");
        }
        drop(listening);
    }
}

#[tokio::test]
async fn before_there_is_a_good_file_nobody_is_trusted_and_then_it_is_taken() {
    let certificates = Certificates::new();
    let store = Store::start(&certificates, false).await;
    for (name, write, problem) in bad_files() {
        let bundle = Bundle::empty();
        bundle.project(&write);
        let client = store.client(&bundle);
        let before = store.handshakes();
        let told = refusal(ask(&client).await);
        let place = format!("{} cannot be verified: caBundle: {} ", store.url, bundle.file().display());
        assert!(told.starts_with(&place) && told.contains(problem) && !told.contains("canary"), "{name}: {told}");
        assert_eq!(store.handshakes(), before, "{name}");
        bundle.write(&certificates.ca);
        ask(&client).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn a_bundle_without_the_stores_authority_refuses_it() {
    let store = Store::start(&Certificates::new(), false).await;
    let bundle = Bundle::with(&Certificates::new().ca);
    let told = refusal(ask(&store.client(&bundle)).await);
    assert!(told.contains("shows a certificate of an unknown authority: add the authority's"), "{told}");
    assert_eq!(store.handshakes(), 0, "nothing was said to it");
}
