//! Vault in the suite of all.

use super::super::Subject;
use super::*;
use crate::fakes::server::{FakeServer, Received};

/// A KV version 2 engine, and a pod that may read half of it.
pub(crate) struct Shared {
    store: Store,
    pod: Pod,
    kv: String,
}

impl Shared {
    pub(crate) async fn real() -> Self {
        Self::of(Store::real()).await
    }

    async fn of(store: Store) -> Self {
        let kv = store.kv2().await;
        let pod = store
            .pod(&[(&format!("{kv}/data/open-*"), &["read"]), (&format!("{kv}/metadata/open-*"), &["read"])])
            .await;
        Self { store, pod, kv }
    }
}

impl Subject for Shared {
    type Settings = VaultSettings;

    async fn fake() -> Self {
        Self::of(Store::fake().await).await
    }

    fn server(&self) -> Option<&FakeServer> {
        self.store.fake.as_deref()
    }

    fn ca(&self) -> Option<String> {
        self.store.ca.clone()
    }

    fn settings(&self, ca: Option<&str>) -> VaultSettings {
        VaultSettings { ca: ca.map(str::to_owned), ..self.pod.settings.clone() }
    }

    fn connect(&self, settings: &VaultSettings, limits: Limits) -> Box<dyn Provider> {
        let reach = Reach { limits, ..self.pod.reach.clone() };
        Box::new(Vault::connect(settings, self.pod.login.clone(), reach).unwrap())
    }

    async fn put(&self, name: &str, value: &str) -> String {
        let path = format!("{}/data/open-{name}", self.kv);
        self.store.write(&path, json!({"data": {"value": value}})).await;
        format!("{path}#value")
    }

    async fn remove(&self, name: &str) {
        self.store.admin(Method::DELETE, &format!("{}/data/open-{name}", self.kv), Value::Null).await;
    }

    async fn denied(&self) -> String {
        let path = format!("{}/data/closed", self.kv);
        self.store.write(&path, json!({"data": {"value": "canary"}})).await;
        format!("{path}#value")
    }

    async fn end_logins(&self) -> bool {
        self.store.admin(Method::PUT, &format!("sys/leases/revoke-prefix/auth/{}", self.pod.auth), Value::Null).await.0
            == 204
    }

    fn is_read(received: &Received) -> bool {
        received.path.contains("/data/") && received.method == Method::GET
    }

    async fn pin(&self, _name: &str, nth: u32) -> Option<String> {
        Some(format!("version={nth}"))
    }
}
