//! What is Google's alone: logins, aliases, checksums, quotas; and Secret Manager in the suite of all.

use std::path::PathBuf;
use std::time::Duration;

use hushpod::provider::gcp::{Gcp, GcpSettings};
use hushpod::provider::http::{Limits, Reach};
use hushpod::provider::{
    ErrorKind, Extended, Known, Lease, Login, Provider, ProviderError, ProviderSettings, ReadResult, Reading,
    Settings as _, Version,
};
use hushpod::reference::{Reference, Request};
use serde_json::{Value, json};

use super::{CASE, Subject, assert_error, fresh, run_again, version};
use crate::fakes::gcp::{ACCOUNT, FakeGcp, ISSUER, POOL_PROVIDER, PROJECT, SUBJECT, claims};
use crate::fakes::server::{FakeServer, Fault, Received};
use crate::fakes::token;

mod logins;
mod values;

/// A project's secrets, and a pod that may read what is not closed.
pub(crate) struct Shared {
    fake: FakeGcp,
    dir: tempfile::TempDir,
}

// === impl Shared ===

impl Shared {
    async fn new() -> Self {
        let shared = Self { fake: FakeGcp::start().await, dir: tempfile::tempdir().unwrap() };
        shared.show(&claims(), 600);
        shared
    }

    fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// Shows another token at the next login.
    fn show(&self, claims: &Value, expires_in: i64) {
        std::fs::write(self.token_file(), token::sign(claims, expires_in)).unwrap();
    }

    fn usual(&self) -> GcpSettings {
        self.settings_with(json!({}), self.fake.federation())
    }

    fn settings_with(&self, fields: Value, auth: Value) -> GcpSettings {
        let mut all = self.fake.settings();
        all["auth"] = auth;
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn gcp(&self) -> Gcp {
        self.gcp_with(&self.usual(), Some(ACCOUNT))
    }

    fn gcp_with(&self, settings: &GcpSettings, role: Option<&str>) -> Gcp {
        let login = Login { provider: "gcp".into(), role: role.map(str::to_owned), token: self.token_file().into() };
        Gcp::connect(settings, login, Reach::default()).unwrap()
    }

    fn request(&self, reference: &str) -> Request {
        self.usual().resolve("gcp", &reference.parse::<Reference>().unwrap()).unwrap()
    }

    async fn read(&self, gcp: &mut Gcp, reference: &str, held: Option<&Version>) -> ReadResult {
        super::read(gcp, &self.request(reference), held).await
    }

    async fn refused(&self, gcp: &mut Gcp, reference: &str) -> ProviderError {
        self.read(gcp, reference, None).await.unwrap_err()
    }

    /// What was asked of the fake since the last time: methods and paths, without what is always before them.
    fn asked(&self) -> Vec<String> {
        let seen = self.fake.take_seen();
        seen.iter().map(|received| format!("{} {}", received.method, received.path)).collect()
    }
}

impl Subject for Shared {
    type Settings = GcpSettings;

    async fn fake() -> Self {
        Self::new().await
    }

    fn server(&self) -> Option<&FakeServer> {
        Some(&self.fake)
    }

    fn settings(&self, ca: Option<&str>) -> GcpSettings {
        GcpSettings { ca: ca.map(str::to_owned), ..self.usual() }
    }

    fn connect(&self, settings: &GcpSettings, limits: Limits) -> Box<dyn Provider> {
        let login = Login { provider: "gcp".into(), role: Some(ACCOUNT.into()), token: self.token_file().into() };
        Box::new(Gcp::connect(settings, login, Reach { limits, ..Reach::default() }).unwrap())
    }

    async fn put(&self, name: &str, value: &str) -> String {
        self.fake.world().put(name, value.as_bytes());
        name.to_owned()
    }

    async fn put_bytes(&self, name: &str, value: &[u8]) -> Option<String> {
        self.fake.world().put(name, value);
        Some(name.to_owned())
    }

    async fn remove(&self, name: &str) {
        self.fake.world().remove(name);
    }

    async fn denied(&self) -> String {
        self.put("closed", "canary").await
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
        received.path.ends_with(":access")
    }

    async fn pin(&self, _name: &str, nth: u32) -> Option<String> {
        Some(format!("version={nth}"))
    }
}
