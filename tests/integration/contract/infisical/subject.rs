//! Infisical in the suite of all.

use super::super::Subject;
use super::*;
use crate::fakes::server::FakeServer;

/// A folder for each secret, and a pod that may read all but `/closed`.
pub(crate) struct Shared(Pod);

impl Subject for Shared {
    type Settings = InfisicalSettings;

    async fn fake() -> Self {
        let pod = Pod::new().await;
        let closed = ("prod".to_owned(), "/closed".to_owned(), Rights::Describe);
        pod.fake.server().identity(IDENTITY).rights.push(closed);
        Self(pod)
    }

    fn server(&self) -> Option<&FakeServer> {
        Some(&self.0.fake)
    }

    fn settings(&self, ca: Option<&str>) -> InfisicalSettings {
        InfisicalSettings { ca: ca.map(str::to_owned), ..self.0.settings.clone() }
    }

    fn connect(&self, settings: &InfisicalSettings, limits: Limits) -> Box<dyn Provider> {
        let reach = Reach { limits, ..Reach::default() };
        Box::new(Infisical::connect(settings, self.0.login.clone(), reach).unwrap())
    }

    async fn put(&self, name: &str, value: &str) -> String {
        self.0.put(&format!("/{name}"), "value", value);
        // What looks like a reference is meant as it stands only if that is said.
        if value.contains("${") { format!("/{name}?unresolved=keep#value") } else { format!("/{name}#value") }
    }

    async fn remove(&self, name: &str) {
        self.0.fake.server().remove("prod", &format!("/{name}"), "value");
    }

    async fn denied(&self) -> String {
        self.0.put("/closed", "value", "canary");
        "/closed#value".to_owned()
    }

    async fn end_logins(&self) -> bool {
        self.0.fake.server().revoke_tokens();
        true
    }

    async fn skew_clock(&self, seconds: i64) -> bool {
        self.0.fake.advance(Duration::from_secs(seconds.unsigned_abs()));
        true
    }

    fn is_read(received: &Received) -> bool {
        received.path.contains("/secrets")
    }

    fn carries_no_value(received: &[Received]) -> bool {
        received.iter().all(|received| received.header("if-none-match").is_some())
    }

    async fn pin(&self, _name: &str, nth: u32) -> Option<String> {
        Some(format!("version={nth}"))
    }
}
