//! What is Azure's alone: logins, versions and their attributes, challenges; and Azure in the suite of all.

use std::path::PathBuf;
use std::time::Duration;

use hushpod::provider::azure::{Azure, AzureSettings};
use hushpod::provider::http::{Limits, Reach};
use hushpod::provider::{
    Answer, ErrorKind, Extended, Known, Lease, Login, Provider, ProviderError, ProviderSettings, ReadResult, Reading,
    Settings as _, Version,
};
use hushpod::reference::{Reference, Request};
use serde_json::{Value, json};

use super::{CASE, Subject, assert_error, fresh, run_again};
use crate::fakes::azure::{AUDIENCE, CLIENT_ID, FakeAzure, TENANT, claims};
use crate::fakes::server::{FakeServer, Fault, Received};
use crate::fakes::token;

mod logins;
mod values;

/// A vault, and a pod that may read what is not closed.
pub(crate) struct Shared {
    fake: FakeAzure,
    token_file: PathBuf,
    _dir: tempfile::TempDir,
}

// === impl Shared ===

impl Shared {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        let shared = Self { fake: FakeAzure::start().await, token_file, _dir: dir };
        shared.show(&claims(), 600);
        shared
    }

    /// Shows another token at the next login.
    fn show(&self, claims: &Value, expires_in: i64) {
        std::fs::write(&self.token_file, token::sign(claims, expires_in)).unwrap();
    }

    fn usual(&self) -> AzureSettings {
        self.settings_with(json!({}))
    }

    /// The usual settings with some replaced.
    fn settings_with(&self, fields: Value) -> AzureSettings {
        let mut all = self.fake.settings();
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn azure(&self) -> Azure {
        self.azure_with(&self.usual(), Some(CLIENT_ID))
    }

    fn azure_with(&self, settings: &AzureSettings, role: Option<&str>) -> Azure {
        let login =
            Login { provider: "azure".into(), role: role.map(str::to_owned), token: self.token_file.clone().into() };
        Azure::connect(settings, login, Reach::default()).unwrap()
    }

    fn request(&self, reference: &str) -> Request {
        self.usual().resolve("azure", &reference.parse::<Reference>().unwrap()).unwrap()
    }

    async fn read(&self, azure: &mut Azure, reference: &str, held: Option<&Version>) -> ReadResult {
        super::read(azure, &self.request(reference), held).await
    }

    async fn refused(&self, azure: &mut Azure, reference: &str) -> ProviderError {
        self.read(azure, reference, None).await.unwrap_err()
    }

    /// What was asked of the fake since the last time: methods and paths with their queries.
    fn asked(&self) -> Vec<String> {
        self.fake.take_seen().iter().map(shown_request).collect()
    }
}

fn shown_request(received: &Received) -> String {
    let query = if received.query.is_empty() { String::new() } else { format!("?{}", received.query) };
    format!("{} {}{query}", received.method, received.path)
}

impl Subject for Shared {
    type Settings = AzureSettings;

    async fn fake() -> Self {
        Self::new().await
    }

    fn server(&self) -> Option<&FakeServer> {
        Some(&self.fake)
    }

    fn settings(&self, ca: Option<&str>) -> AzureSettings {
        AzureSettings { ca: ca.map(str::to_owned), ..self.usual() }
    }

    fn connect(&self, settings: &AzureSettings, limits: Limits) -> Box<dyn Provider> {
        let login =
            Login { provider: "azure".into(), role: Some(CLIENT_ID.into()), token: self.token_file.clone().into() };
        Box::new(Azure::connect(settings, login, Reach { limits, ..Reach::default() }).unwrap())
    }

    async fn put(&self, name: &str, value: &str) -> String {
        self.fake.world().put(name, value);
        name.to_owned()
    }

    async fn remove(&self, name: &str) {
        self.fake.world().remove(name);
    }

    async fn denied(&self) -> String {
        self.fake.world().put("closed", "canary");
        "closed".to_owned()
    }

    async fn end_logins(&self) -> bool {
        self.fake.world().end_tokens();
        true
    }

    async fn skew_clock(&self, seconds: i64) -> bool {
        self.fake.world().later += seconds;
        true
    }

    fn is_read(received: &Received) -> bool {
        received.path.starts_with("/secrets/") && !received.path.ends_with("/versions")
    }

    async fn pin(&self, name: &str, nth: u32) -> Option<String> {
        let mut world = self.fake.world();
        Some(format!("version={}", world.versions(name)[usize::try_from(nth).unwrap() - 1].version))
    }
}
