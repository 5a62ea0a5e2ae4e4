use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Level};
use tracing_subscriber::fmt::MakeWriter;

use super::node::{Ask, FILE, KV, Node, USER, seconds};
use crate::provider::ErrorKind;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Every file below, with its mode.
fn files(dir: &Path, found: &mut Vec<(String, u32, String)>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            found.push((path.display().to_string(), mode, String::from_utf8(fs::read(&path).unwrap()).unwrap()));
        }
    }
}

/// A text, and what stands in it as base64.
fn readable(text: &str) -> String {
    let decoded = text.split('"').filter_map(|part| String::from_utf8(STANDARD.decode(part).ok()?).ok());
    decoded.fold(text.to_owned(), |all, part| all + "\n" + &part)
}

#[tokio::test(start_paused = true)]
async fn p5_no_token_and_no_value_is_told_or_written_down_but_for_the_next_process() {
    let log = Lines::default();
    // With a single subscriber, tracing would remember what that of another test said.
    let _second = Dispatch::new(NoSubscriber::default());
    let subscriber = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(log.clone());
    let _listening = tracing::subscriber::set_default(subscriber.finish());
    let node = Node::new();
    node.store.state().secrets.get_mut("database/creds/web").unwrap().json = r#"{"user":"canary-$ID"}"#.to_owned();
    let mut life = node.start();
    let mut told = Vec::new();
    let ask = Ask::new(1, &[FILE, USER]);
    life.publish(&ask).await.unwrap();
    assert!(node.file(&ask, "user").starts_with("canary-"));
    life.publish(&Ask { token: "canary-newer".to_owned(), ..ask.clone() }).await.unwrap();
    node.store.put(KV, "2", r#"{"password":"canary-v2"}"#);
    node.store.state().failing = Some(ErrorKind::Unavailable);
    seconds(60).await;
    told.push(life.publish(&Ask::new(2, &[FILE, ("file.x", "secret/data/db#none")])).await.unwrap_err().to_string());
    node.store.state().failing = None;
    told.push(life.publish(&Ask::new(3, &[("file.x", "secret/data/db#none")])).await.unwrap_err().to_string());
    told.push(life.publish(&Ask::new(4, &[("fil.x", "secret/data/db#none")])).await.unwrap_err().to_string());
    told.push(format!("{:?}", ask.request(node.root())));
    told.extend(std::iter::from_fn(|| life.trouble()));
    life.end().await;
    let life = node.start();
    seconds(60).await;
    let mut state = Vec::new();
    files(&node.state(), &mut state);
    assert!(state.len() >= 2);
    let mut with_secrets = 0;
    for (path, mode, text) in state {
        assert_eq!(mode, 0o600, "{path}");
        let text = readable(&text);
        let is_secret = text.contains("canary");
        assert!(!is_secret || path.contains("/feeds/"), "{path}");
        // kubelet's tokens are written nowhere.
        assert!(!text.contains("canary-token") && !text.contains("canary-newer"), "{path}");
        with_secrets += usize::from(is_secret);
    }
    assert!(with_secrets > 0, "or this would show nothing");
    life.unpublish(&ask).await.unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("the first files are in place"), "or this would show nothing");
    for text in told.iter().chain([&log]) {
        assert!(!text.contains("canary") && !text.contains("e30."), "{text}");
    }
}
