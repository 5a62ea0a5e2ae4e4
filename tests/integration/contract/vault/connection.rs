//! The way to a store: TLS, proxies, time-outs.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::fakes::tls::Certificates;

async fn secret_and_pod(store: &Store) -> (String, Pod) {
    let kv = store.kv1().await;
    let path = format!("{kv}/db");
    store.write(&path, json!({"password": "p"})).await;
    let pod = store.pod(&[(&path, &["read"])]).await;
    (path, pod)
}

#[tokio::test]
async fn keys_are_exchanged_post_quantum() {
    let store = Store::fake().await;
    let (path, pod) = secret_and_pod(&store).await;
    pod.fresh(&mut pod.vault(), &path).await;
    let groups = store.faker().unwrap().key_exchanges();
    assert_eq!(groups.iter().map(String::as_str).collect::<Vec<_>>(), ["X25519MLKEM768"]);
}

#[tokio::test]
async fn certificates_that_cannot_be_trusted_say_what_to_set() {
    let store = Store::fake().await;
    let (path, mut pod) = secret_and_pod(&store).await;
    let good = pod.settings.clone();
    pod.settings.ca = Some(Certificates::new().ca);
    assert_error(&pod.refused(&mut pod.vault(), &path).await, ErrorKind::Unavailable, &["unknown authority", "set ca"]);
    pod.settings.ca = None;
    assert_error(&pod.refused(&mut pod.vault(), &path).await, ErrorKind::Unavailable, &["unknown authority", "set ca"]);

    // Of several authorities, any may have signed.
    pod.settings.ca = Some(format!("{}\n{}", Certificates::new().ca, good.ca.as_ref().unwrap()));
    pod.fresh(&mut pod.vault(), &path).await;

    pod.settings = good.clone();
    pod.settings.address = good.address.replace("127.0.0.1", "localhost");
    let error = pod.refused(&mut pod.vault(), &path).await;
    assert_error(&error, ErrorKind::Unavailable, &["another name", "https://localhost:"]);
}

#[tokio::test]
async fn an_expired_certificate_says_so() {
    let good = Store::fake().await;
    let fake = FakeVault::start_with(Certificates::valid_until(2020)).await;
    let mut pod = good.pod_that(json!({"method": "jwt"}), Some("web"));
    pod.settings.address = format!("https://{}", fake.address);
    pod.settings.ca = Some(fake.certificates.ca.clone());
    let error = pod.refused(&mut pod.vault(), "secret/data/db").await;
    assert_error(&error, ErrorKind::Unavailable, &["has expired", &pod.settings.address]);
}

/// A server that answers every connection with the same bytes.
async fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = tcp.read(&mut request).await;
            tcp.write_all(bytes).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn what_is_no_vault_is_told_apart() {
    let store = Store::fake().await;
    let mut pod = store.pod_that(json!({"method": "jwt"}), Some("web"));
    pod.reach.limits.connect = Duration::from_millis(300);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    // Accepts in the kernel, and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (address, part) in [
        (format!("https://{closed}"), "connection refused"),
        (format!("https://{}", silent.local_addr().unwrap()), "no connection within 300ms"),
        (format!("https://{}", answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await), "does not speak TLS"),
        (format!("https://{}", answering(b"").await), "closed the connection during the TLS handshake"),
        (format!("http://{}", answering(b"SSH-2.0-OpenSSH\r\n\r\n").await), "not HTTP"),
        (format!("http://{}", answering(b"").await), "closed the connection before it answered"),
    ] {
        pod.settings.address.clone_from(&address);
        let error = pod.refused(&mut pod.vault(), "secret/data/db").await;
        assert_error(&error, ErrorKind::Unavailable, &[&address, part]);
    }
}

#[tokio::test]
async fn a_store_out_of_reach_is_tried_once_for_a_whole_batch() {
    let store = Store::fake().await;
    let (path, pod) = secret_and_pod(&store).await;
    let mut vault = pod.vault();
    pod.fresh(&mut vault, &path).await;
    let session = vault.session().unwrap();
    let attempts = Arc::new(Mutex::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut lost = store.pod_that(json!({"method": "jwt"}), Some("web"));
    lost.settings.address = format!("https://{}", listener.local_addr().unwrap());
    let counter = Arc::clone(&attempts);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            *counter.lock().unwrap() += 1;
        }
    });
    let mut vault = lost.vault();
    vault.resume(session);
    let requests: Vec<_> = (0..4).map(|number| lost.request(&format!("{path}{number}"))).collect();
    for result in vault.read(&requests, &Known::new()).await {
        assert_eq!(result.unwrap_err().kind, ErrorKind::Unavailable);
    }
    assert_eq!(*attempts.lock().unwrap(), 1);
}

/// A proxy that tunnels every host to one address; what it was asked is noted.
async fn proxy(to: std::net::SocketAddr, wants: Option<&'static str>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            notes.lock().unwrap().push(head.lines().next().unwrap().to_owned());
            if wants.is_some_and(|wanted| !head.contains(wanted)) {
                tcp.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
                continue;
            }
            tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            tokio::spawn(async move {
                let mut upstream = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tcp, &mut upstream).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_proxy_tunnels_to_hosts_that_only_it_knows() {
    let store = Store::fake().await;
    let (path, mut pod) = secret_and_pod(&store).await;
    let fake = store.faker().unwrap();
    // "user:canary"
    let (address, asked) = proxy(fake.address, Some("Basic dXNlcjpjYW5hcnk=")).await;
    let port = fake.address.port();
    pod.settings.address = format!("https://vault.test:{port}");
    pod.reach.proxy = Arc::new(Matcher::builder().https(format!("http://user:canary@{address}")).build());
    pod.fresh(&mut pod.vault(), &path).await;
    assert_eq!(asked.lock().unwrap().first().unwrap(), &format!("CONNECT vault.test:{port} HTTP/1.1"));

    pod.reach.proxy = Arc::new(Matcher::builder().https(format!("http://user:canary-wrong@{address}")).build());
    let error = pod.refused(&mut pod.vault(), &path).await;
    assert_error(&error, ErrorKind::Unavailable, &["cannot be reached: the proxy 127.0.0.1:", "user and password"]);
    assert!(!error.message.contains("canary"), "{error}");

    pod.reach.proxy = Arc::new(Matcher::builder().https("socks5://127.0.0.1:1").build());
    let error = Vault::connect(&pod.settings, pod.login.clone(), pod.reach.clone()).unwrap_err();
    assert_error(&error, ErrorKind::Invalid, &["HTTPS_PROXY"]);
}

#[tokio::test]
async fn this_machine_is_reached_without_a_proxy() {
    let store = Store::fake().await;
    let (path, mut pod) = secret_and_pod(&store).await;
    let (address, asked) = proxy(store.faker().unwrap().address, None).await;
    pod.reach.proxy = Arc::new(Matcher::builder().https(format!("http://{address}")).build());
    pod.fresh(&mut pod.vault(), &path).await;
    assert!(asked.lock().unwrap().is_empty());
}
