//! What is Infisical's alone: folders, imports, references, logins, leases, limits, events; and Infisical in the suite
//! of all. There is no real server in CI: the fake follows what is published.

use std::path::PathBuf;
use std::time::Duration;

use hushpod::provider::http::{Limits, Reach};
use hushpod::provider::infisical::{Infisical, InfisicalSettings};
use hushpod::provider::{
    Answer, ErrorKind, Extended, Known, Lease, Login, Provider, ProviderError, ReadResult, Reading, Settings as _,
    Version,
};
use hushpod::reference::{Reference, Request};
use hushpod::secret::SecretTree;
use serde_json::{Value, json};

use super::{assert_error, fresh};
use crate::fakes::infisical::{
    API_SERVER, Dynamic, FakeInfisical, Identity, Limited, PROJECT, PROJECT_SLUG, Rights, Year,
};
use crate::fakes::server::{Fault, Received};
use crate::fakes::token;

mod events;
mod leases;
mod limits;
mod sessions;
mod subject;
mod values;

pub(crate) use subject::Shared;

/// A pod that may use a server.
struct Pod {
    fake: FakeInfisical,
    settings: InfisicalSettings,
    login: Login,
    token_file: PathBuf,
    limits: Limits,
    dir: tempfile::TempDir,
}

const IDENTITY: &str = "0f0e0d0c-0000-4000-8000-000000000001";
const SUBJECT: &str = "system:serviceaccount:shop:web";

// === impl Pod ===

impl Pod {
    async fn new() -> Self {
        Self::of(Year::Y2026).await
    }

    /// A pod at a server of that year, with an identity that may read all of `prod`.
    async fn of(year: Year) -> Self {
        Self::with(year, json!({})).await
    }

    /// A pod with these settings beside the usual ones.
    async fn with(year: Year, more: Value) -> Self {
        let fake = FakeInfisical::of(year).await;
        // A server of 2024 asks the cluster for its own audience alone.
        let audience = if year == Year::Y2024 { API_SERVER } else { "infisical" };
        fake.server().set_identity(IDENTITY, Identity { audience: audience.to_owned(), ..Identity::default() });
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        let mut settings =
            json!({"address": fake.url(), "ca": fake.certificates.ca, "project": PROJECT, "environment": "prod"});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let login = Login {
            provider: "infisical".to_owned(),
            role: Some(IDENTITY.to_owned()),
            token: token_file.clone().into(),
        };
        let settings = serde_json::from_value(settings).unwrap();
        let pod = Self { fake, settings, login, token_file, limits: Limits::default(), dir };
        pod.show(&json!({}));
        pod
    }

    /// Shows a projected token with these claims at its next login.
    fn show(&self, claims: &Value) {
        let mut all = json!({"aud": [self.fake.server().identity(IDENTITY).audience.clone()], "sub": SUBJECT});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        std::fs::write(&self.token_file, token::sign(&all, 600)).unwrap();
    }

    /// A file beside the token.
    fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    }

    fn infisical(&self) -> Infisical {
        self.infisical_with(&self.settings)
    }

    fn infisical_with(&self, settings: &InfisicalSettings) -> Infisical {
        let reach = Reach { limits: self.limits, ..Reach::default() };
        Infisical::connect(settings, self.login.clone(), reach).unwrap()
    }

    fn put(&self, path: &str, key: &str, value: &str) {
        self.fake.server().put("prod", path, key, value);
    }

    fn request(&self, reference: &str) -> Request {
        self.settings.resolve("infisical", &reference.parse::<Reference>().unwrap()).unwrap()
    }

    async fn read(&self, infisical: &mut Infisical, reference: &str) -> ReadResult {
        self.read_again(infisical, reference, None).await
    }

    /// Reads what is held in a version already.
    async fn read_again(&self, infisical: &mut Infisical, reference: &str, version: Option<&Version>) -> ReadResult {
        let request = self.request(reference);
        super::read(infisical, &request, version).await
    }

    async fn fresh(&self, infisical: &mut Infisical, reference: &str) -> Answer {
        fresh(self.read(infisical, reference).await)
    }

    async fn refused(&self, infisical: &mut Infisical, reference: &str) -> ProviderError {
        match self.read(infisical, reference).await {
            Ok(reading) => panic!("{reference} was answered: {reading:?}"),
            Err(error) => error,
        }
    }

    /// Paths of what came in since the last time, without `/api/`.
    fn seen(&self) -> Vec<String> {
        let path = |received: &Received| received.path.trim_start_matches("/api/").to_owned();
        self.fake.take_seen().iter().map(path).collect()
    }

    /// How many logins came in since the last time.
    fn logins(&self) -> usize {
        self.seen().iter().filter(|path| path.ends_with("/login")).count()
    }
}

/// A document's keys and values, in the open.
fn shown(answer: &Answer) -> Vec<(String, String)> {
    let SecretTree::Map(entries) = &answer.tree else { panic!("no document") };
    let text = |tree: &SecretTree| tree.as_value().unwrap().expose_str().unwrap().to_owned();
    entries.iter().map(|(key, tree)| (key.clone(), text(tree))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}
