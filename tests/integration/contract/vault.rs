//! What is Vault's alone: engines, leases, logins, namespaces; and Vault in the suite of all.
//!
//! Against a real Vault: set `HUSHPOD_CONTRACT_VAULT` to its address, `HUSHPOD_CONTRACT_VAULT_TOKEN` to a root token and
//! `HUSHPOD_CONTRACT_VAULT_CACERT` to a file with its authority. The suite makes mounts, policies and auth mounts named
//! `hushpod-…` there and removes them.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use hushpod::provider::http::{Address, Call, Client, Limits, Reach, secret_header};
use hushpod::provider::vault::{Vault, VaultSettings};
use hushpod::provider::{
    Answer, ErrorKind, Known, Lease, Login, Provider, ProviderError, ReadResult, Reading, Settings as _, Version,
};
use hushpod::reference::{Reference, Request};
use hushpod::secret::SecretTree;
use hyper::Method;
use hyper_util::client::proxy::matcher::Matcher;
use serde_json::{Value, json};

use super::{assert_error, fresh};
use crate::fakes::token;
use crate::fakes::vault::{FakeVault, ROOT, Seen};

mod connection;
mod faults;
mod leases;
mod sessions;
mod subject;
mod values;

pub(crate) use subject::Shared;

/// Runs each case against the fake, and against the real server if there is one.
macro_rules! on_vault {
    ($($case:ident),* $(,)?) => {
        mod fake {
            $(#[tokio::test] async fn $case() { super::super::Store::fake().await.run(super::$case).await })*
        }
        mod real {
            $(#[tokio::test] #[ignore = "wants a server: .ci/run contract starts it"] async fn $case() {
                super::super::Store::real().run(super::$case).await;
            })*
        }
    };
}
use on_vault;

/// A Vault, and its root.
struct Store {
    address: String,
    ca: Option<String>,
    root: String,
    client: Client,
    fake: Option<FakeVault>,
    /// Makes names of this case unlike those of all others.
    id: String,
    counter: Cell<u32>,
    made: RefCell<Vec<String>>,
}

/// A pod that may use a store.
struct Pod {
    settings: VaultSettings,
    login: Login,
    token_file: PathBuf,
    reach: Reach,
    /// Where the auth method is mounted.
    auth: String,
    _dir: tempfile::TempDir,
}

const SUBJECT: &str = "system:serviceaccount:shop:web";

// === impl Store ===

impl Store {
    async fn fake() -> Self {
        Self::of(FakeVault::start().await)
    }

    fn of(fake: FakeVault) -> Self {
        let address = format!("https://{}", fake.address);
        let ca = Some(fake.certificates.ca.clone());
        Self { fake: Some(fake), ..Self::new(address, ca, ROOT.to_owned()) }
    }

    fn real() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = variable("HUSHPOD_CONTRACT_VAULT").expect("HUSHPOD_CONTRACT_VAULT: a Vault's address");
        let root = variable("HUSHPOD_CONTRACT_VAULT_TOKEN").expect("HUSHPOD_CONTRACT_VAULT_TOKEN: its root's token");
        let ca = variable("HUSHPOD_CONTRACT_VAULT_CACERT").map(|file| std::fs::read_to_string(file).unwrap());
        Self::new(address, ca, root)
    }

    fn new(address: String, ca: Option<String>, root: String) -> Self {
        let parsed = Address::parse(&address).unwrap();
        let client = Client::new(parsed, ca.as_deref(), Limits::default(), &Matcher::builder().build()).unwrap();
        let id = format!("{:x}", std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos());
        Self { address, ca, root, client, fake: None, id, counter: Cell::new(0), made: RefCell::default() }
    }

    async fn run(self, case: impl AsyncFnOnce(&Self)) {
        case(&self).await;
        for path in self.made.take() {
            self.admin(Method::DELETE, &path, Value::Null).await;
        }
    }

    /// What only a fake can do; `None` for the real server.
    fn faker(&self) -> Option<&FakeVault> {
        self.fake.as_ref()
    }

    /// The requests since the last time, if they can be known.
    fn seen(&self) -> Option<Vec<Seen>> {
        self.faker().map(FakeVault::take_seen)
    }

    async fn admin(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let token = secret_header(&self.root.as_str().into(), "root token").unwrap();
        let mut call = Call::new(method, format!("v1/{path}")).header("x-vault-token".parse().unwrap(), token);
        if !body.is_null() {
            call = call.json(&body);
        }
        let response = self.client.send(call).await.unwrap();
        (response.status.as_u16(), serde_json::from_slice(&response.body).unwrap_or(Value::Null))
    }

    async fn write(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.admin(Method::POST, path, body).await;
        assert!(matches!(status, 200 | 204), "{path}: {status} {answer}");
        answer
    }

    /// A name that no other case has.
    fn name(&self, kind: &str) -> String {
        self.counter.set(self.counter.get() + 1);
        format!("hushpod-{kind}-{}-{}", self.id, self.counter.get())
    }

    /// Mounts an engine; `None` options for those that have none.
    async fn mount(&self, body: Value) -> String {
        let mount = self.name(body["type"].as_str().unwrap());
        self.write(&format!("sys/mounts/{mount}"), body).await;
        self.made.borrow_mut().push(format!("sys/mounts/{mount}"));
        mount
    }

    async fn kv2(&self) -> String {
        let mount = self.mount(json!({"type": "kv", "options": {"version": "2"}})).await;
        // A KV version 2 engine sets itself up after it is mounted, and refuses until then.
        for _ in 0..100 {
            let (status, _) = self.admin(Method::POST, &format!("{mount}/data/ready"), json!({"data": {}})).await;
            if status == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        mount
    }

    async fn kv1(&self) -> String {
        self.mount(json!({"type": "kv", "options": {"version": "1"}})).await
    }

    async fn policy(&self, rules: &[(&str, &[&str])]) -> String {
        let name = self.name("policy");
        let paths: serde_json::Map<_, _> = rules
            .iter()
            .map(|&(path, capabilities)| (path.to_owned(), json!({"capabilities": capabilities})))
            .collect();
        self.set_policy(&name, &Value::Object(paths)).await;
        self.made.borrow_mut().push(format!("sys/policies/acl/{name}"));
        name
    }

    async fn set_policy(&self, name: &str, paths: &Value) {
        self.write(&format!("sys/policies/acl/{name}"), json!({"policy": json!({"path": paths}).to_string()})).await;
    }

    /// A pod that logs in with a JWT to a role of these rights.
    async fn pod(&self, rules: &[(&str, &[&str])]) -> Pod {
        self.pod_with_role(rules, json!({"token_ttl": "1h"})).await
    }

    async fn pod_with_role(&self, rules: &[(&str, &[&str])], role: Value) -> Pod {
        let policy = self.policy(rules).await;
        let auth = self.name("jwt");
        self.write(&format!("sys/auth/{auth}"), json!({"type": "jwt"})).await;
        self.made.borrow_mut().push(format!("sys/auth/{auth}"));
        let key = json!({"jwt_validation_pubkeys": [token::PUBLIC_KEY.as_str()]});
        self.write(&format!("auth/{auth}/config"), key).await;
        let mut fields = json!({"role_type": "jwt", "bound_audiences": ["vault"], "bound_subject": SUBJECT,
            "user_claim": "sub", "token_policies": [policy]});
        fields.as_object_mut().unwrap().extend(role.as_object().unwrap().clone());
        self.write(&format!("auth/{auth}/role/web"), fields).await;
        self.pod_that(json!({"method": "jwt", "mount": auth}), Some("web"))
    }

    /// A pod with these auth settings.
    fn pod_that(&self, auth: Value, role: Option<&str>) -> Pod {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        std::fs::write(&token_file, token::sign(&json!({"aud": ["vault"], "sub": SUBJECT}), 600)).unwrap();
        let mount = auth["mount"].as_str().unwrap_or_default().to_owned();
        let settings = json!({"address": self.address, "ca": self.ca, "auth": auth});
        Pod {
            settings: serde_json::from_value(settings).unwrap(),
            login: Login {
                provider: "vault".to_owned(),
                role: role.map(str::to_owned),
                token: token_file.clone().into(),
            },
            token_file,
            reach: Reach::default(),
            auth: mount,
            _dir: dir,
        }
    }
}

// === impl Pod ===

impl Pod {
    fn vault(&self) -> Vault {
        Vault::connect(&self.settings, self.login.clone(), self.reach.clone()).unwrap()
    }

    /// Shows another token at its next login.
    fn show(&self, jwt: &str) {
        std::fs::write(&self.token_file, jwt).unwrap();
    }

    fn request(&self, reference: &str) -> Request {
        self.settings.resolve("vault", &reference.parse::<Reference>().unwrap()).unwrap()
    }

    async fn read(&self, vault: &mut Vault, reference: &str) -> ReadResult {
        self.read_again(vault, reference, None).await
    }

    /// Reads what is held in a version already.
    async fn read_again(&self, vault: &mut Vault, reference: &str, version: Option<&Version>) -> ReadResult {
        let request = self.request(reference);
        let known: Known = version.map(|version| (request.clone(), version.clone())).into_iter().collect();
        let mut results = vault.read(&[request], &known).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    async fn fresh(&self, vault: &mut Vault, reference: &str) -> Answer {
        fresh(self.read(vault, reference).await)
    }

    async fn refused(&self, vault: &mut Vault, reference: &str) -> ProviderError {
        match self.read(vault, reference).await {
            Ok(reading) => panic!("{reference} was answered: {reading:?}"),
            Err(error) => error,
        }
    }
}

/// What a document holds under a key, in the open.
fn shown(tree: &SecretTree, key: &str) -> String {
    let value = tree.key(key).unwrap();
    value.as_value().unwrap().expose_str().unwrap().to_owned()
}

fn lease(answer: &Answer) -> &Lease {
    answer.lease.as_ref().expect("a lease")
}
