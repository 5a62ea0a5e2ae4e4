//! The example store in process, and in the suite of all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hushpod::provider::Provider;
use hushpod::provider::http::Limits;
use serde_json::json;

use super::*;
use crate::contract::Subject;
use crate::fakes::server::{FakeServer, Received, Reply};
use crate::fakes::token;

/// The store's end of the protocol.
#[derive(Default)]
struct World {
    /// Every version of each value.
    values: BTreeMap<String, Vec<String>>,
    logins: u32,
    /// The last login that is of no use any more.
    ended: u32,
}

/// A store, and a pod that may read all but `closed`.
pub(crate) struct Shared {
    server: FakeServer,
    world: Arc<Mutex<World>>,
    token_file: PathBuf,
    _dir: tempfile::TempDir,
}

// === impl World ===

impl World {
    fn answer(&mut self, received: &Received) -> Reply {
        let refused = |status, code: &str| Reply::json(status, &json!({"code": code}));
        if received.path == "/login" {
            let claims = token::verified(received.json()["jwt"].as_str().unwrap_or_default());
            if claims.is_none_or(|claims| claims["aud"] != json!(["example"])) {
                return refused(403, "bad_proof");
            }
            self.logins += 1;
            return Reply::json(200, &json!({"token": format!("canary-{}", self.logins), "seconds": 600}));
        }
        let bearer = received.header("authorization").and_then(|text| text.strip_prefix("Bearer canary-"));
        if bearer.and_then(|number| number.parse::<u32>().ok()).is_none_or(|number| number <= self.ended) {
            return refused(401, "bad_token");
        }
        let name = received.path.trim_start_matches("/values/");
        if name == "closed" {
            return refused(403, "no_right");
        }
        let versions = self.values.get(name).map(Vec::as_slice).unwrap_or_default();
        let wanted = received.params().get("version").map_or(versions.len(), |number| number.parse().unwrap());
        match wanted.checked_sub(1).and_then(|at| versions.get(at)) {
            None => refused(404, "no_value"),
            Some(_) if received.header("if-none-match") == Some(&wanted.to_string()) => Reply::json(304, &json!(null)),
            Some(value) => Reply::json(200, &json!({"value": value, "version": wanted})),
        }
    }
}

impl Subject for Shared {
    type Settings = ExampleSettings;

    async fn fake() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        std::fs::write(&token_file, token::sign(&json!({"aud": ["example"]}), 600)).unwrap();
        let world = Arc::new(Mutex::new(World::default()));
        let answering = Arc::clone(&world);
        let server = FakeServer::start(move |received| answering.lock().unwrap().answer(received)).await;
        Self { server, world, token_file, _dir: dir }
    }

    fn server(&self) -> Option<&FakeServer> {
        Some(&self.server)
    }

    fn settings(&self, ca: Option<&str>) -> ExampleSettings {
        ExampleSettings { address: self.server.url(), ca: ca.map(str::to_owned) }
    }

    fn connect(&self, settings: &ExampleSettings, limits: Limits) -> Box<dyn Provider> {
        let login = Login { provider: "example".into(), role: None, token: self.token_file.clone().into() };
        Box::new(connect(settings, login, Reach { limits, ..Reach::default() }).unwrap())
    }

    async fn put(&self, name: &str, value: &str) -> String {
        self.world.lock().unwrap().values.entry(name.to_owned()).or_default().push(value.to_owned());
        name.to_owned()
    }

    async fn remove(&self, name: &str) {
        self.world.lock().unwrap().values.remove(name);
    }

    async fn denied(&self) -> String {
        "closed".to_owned()
    }

    async fn end_logins(&self) -> bool {
        let mut world = self.world.lock().unwrap();
        world.ended = world.logins;
        true
    }

    fn is_read(received: &Received) -> bool {
        received.path.starts_with("/values/")
    }

    fn carries_no_value(received: &[Received]) -> bool {
        received.iter().all(|received| received.header("if-none-match").is_some())
    }

    async fn pin(&self, _name: &str, nth: u32) -> Option<String> {
        Some(format!("version={nth}"))
    }
}

const PAGE: &str = include_str!("../../../../src/provider/README.md");
const EXAMPLE: &str = include_str!("../example.rs");

#[test]
fn the_page_counts_the_example_right() {
    let (before, _) = PAGE.split_once(" lines, and passes the contract suite").expect("the page's claim");
    let claim: usize = before.rsplit(' ').next().unwrap().parse().unwrap();
    let lines = EXAMPLE.lines().count();
    assert!(lines <= claim && claim <= 300, "{lines} lines, and the page says fewer than {claim}");
}

#[test]
fn the_page_names_all_that_a_store_may_say() {
    let session = include_str!("../../../../src/provider/session/store.rs");
    let (_, store) = session.split_once("pub trait Store").unwrap();
    let (store, _) = store.split_once("\n}\n").unwrap();
    let functions = store.lines().filter_map(|line| line.strip_prefix("    fn ")?.split_once('('));
    let names: Vec<_> = functions.map(|(name, _)| name).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names.into_iter().chain(["KEEPS_LOGINS"]) {
        assert!(PAGE.contains(&format!("| `{name}`")), "the page says nothing of {name}");
    }
    let failure = include_str!("../../../../src/provider/http/failure.rs");
    let (_, scope) = failure.split_once("pub enum Scope {").unwrap();
    let (scope, _) = scope.split_once("\n}\n").unwrap();
    for name in scope.lines().filter_map(|line| line.trim().strip_suffix(',')) {
        assert!(PAGE.contains(&format!("| `{name}`")), "the page says nothing of {name}");
    }
}
