//! Both stores in the suite of all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::Subject;
use super::*;
use crate::fakes::server::FakeServer;

/// Secrets Manager, and a pod that may read half of it.
pub(crate) struct Secrets {
    store: Store,
    pod: Pod,
    /// What all names begin with.
    prefix: String,
}

/// Parameter Store, and a pod that may read half of it.
pub(crate) struct Parameters(Secrets);

impl Parameters {
    pub(crate) async fn real() -> Self {
        Self(Secrets::of(Store::real(), "/").await)
    }
}

impl Secrets {
    pub(crate) async fn real() -> Self {
        Self::of(Store::real(), "").await
    }

    async fn of(store: Store, root: &str) -> Self {
        let prefix = format!("{root}{}", store.name("suite"));
        let pod = store.pod(&format!("{prefix}/open-")).await;
        Self { store, pod, prefix }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/open-{name}", self.prefix)
    }

    fn with_ca(&self, ca: Option<&str>) -> AwsSettings {
        AwsSettings { ca: ca.map(str::to_owned), ..self.pod.settings.clone() }
    }

    fn expire_keys(&self) -> bool {
        self.store.fake.as_ref().map(FakeAws::expire_keys).is_some()
    }

    fn skew(&self, seconds: i64) -> bool {
        self.store.fake.as_ref().map(|fake| fake.skew(seconds)).is_some()
    }
}

impl Subject for Secrets {
    type Settings = AwsSettings;

    async fn fake() -> Self {
        Self::of(Store::fake().await, "").await
    }

    fn server(&self) -> Option<&FakeServer> {
        self.store.fake.as_deref()
    }

    fn ca(&self) -> Option<String> {
        self.store.ca.clone()
    }

    fn settings(&self, ca: Option<&str>) -> AwsSettings {
        self.with_ca(ca)
    }

    fn connect(&self, settings: &AwsSettings, limits: Limits) -> Box<dyn Provider> {
        let reach = Reach { limits, ..Reach::default() };
        Box::new(SecretsManager::connect(settings, self.pod.login.clone(), reach).unwrap())
    }

    async fn put(&self, name: &str, value: &str) -> String {
        let path = self.path(name);
        self.store.put_text(&path, value).await;
        path
    }

    async fn put_bytes(&self, name: &str, value: &[u8]) -> Option<String> {
        let path = self.path(name);
        self.store.put_secret(&path, json!({"SecretBinary": STANDARD.encode(value)})).await;
        Some(path)
    }

    async fn remove(&self, name: &str) {
        self.store.delete_secret(&self.path(name)).await;
    }

    fn has_policies(&self) -> bool {
        self.store.has_rights
    }

    async fn denied(&self) -> String {
        let path = format!("{}/closed", self.prefix);
        self.store.put_text(&path, "canary").await;
        path
    }

    async fn end_logins(&self) -> bool {
        self.expire_keys()
    }

    async fn skew_clock(&self, seconds: i64) -> bool {
        self.skew(seconds)
    }

    fn is_read(received: &Received) -> bool {
        matches!(operation(received).as_str(), "GetSecretValue" | "BatchGetSecretValue")
    }

    async fn pin(&self, name: &str, nth: u32) -> Option<String> {
        let nth = usize::try_from(nth).unwrap() - 1;
        Some(format!("version={}", self.store.versions.borrow()[&self.path(name)][nth]))
    }
}

impl Subject for Parameters {
    type Settings = SsmSettings;

    async fn fake() -> Self {
        Self(Secrets::of(Store::fake().await, "/").await)
    }

    fn server(&self) -> Option<&FakeServer> {
        self.0.server()
    }

    fn ca(&self) -> Option<String> {
        self.0.ca()
    }

    fn settings(&self, ca: Option<&str>) -> SsmSettings {
        SsmSettings(self.0.with_ca(ca))
    }

    fn connect(&self, settings: &SsmSettings, limits: Limits) -> Box<dyn Provider> {
        let reach = Reach { limits, ..Reach::default() };
        Box::new(ParameterStore::connect(settings, self.0.pod.login.clone(), reach).unwrap())
    }

    async fn put(&self, name: &str, value: &str) -> String {
        let path = self.0.path(name);
        self.0.store.put_parameter(&path, "SecureString", value).await;
        path
    }

    async fn remove(&self, name: &str) {
        self.0.store.delete_parameter(&self.0.path(name)).await;
    }

    fn has_policies(&self) -> bool {
        // ministack looks at no names of parameters.
        self.0.store.fake.is_some()
    }

    async fn denied(&self) -> String {
        let path = format!("{}/closed", self.0.prefix);
        self.0.store.put_parameter(&path, "SecureString", "canary").await;
        path
    }

    async fn end_logins(&self) -> bool {
        self.0.expire_keys()
    }

    async fn skew_clock(&self, seconds: i64) -> bool {
        self.0.skew(seconds)
    }

    /// Without decryption, a `SecureString` is not shown.
    fn is_read(received: &Received) -> bool {
        operation(received).starts_with("GetParameters") && received.json()["WithDecryption"] == json!(true)
    }

    async fn pin(&self, _: &str, nth: u32) -> Option<String> {
        Some(format!("version={nth}"))
    }
}
