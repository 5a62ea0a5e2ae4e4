//! What is AWS's alone: names, stages, batches, trees, logins; and both of its stores in the suite of all.
//!
//! Against moto: set `HUSHPOD_CONTRACT_AWS` to its address and, if that is no `http://`, `HUSHPOD_CONTRACT_AWS_CACERT` to
//! a file with its authority. The suite makes secrets and parameters named `hushpod-…` there, and leaves them. moto looks
//! at no signature, no right and no token: what is about those is the fake's alone. A server that looks at rights, as
//! ministack does, is told with `HUSHPOD_CONTRACT_AWS_IAM=yes`: the suite then makes its roles there, too.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hushpod::provider::aws::{AwsSettings, ParameterStore, SecretsManager, SsmSettings};
use hushpod::provider::http::{Address, Call, Client, Limits, Reach};
use hushpod::provider::{
    ErrorKind, Extended, Known, Lease, Login, Provider, ProviderError, ReadResult, Reading, Version,
};
use hushpod::reference::Request;
use hyper::Method;
use hyper_util::client::proxy::matcher::Matcher;
use serde_json::{Value, json};

use super::{assert_error, fresh, shown};
use crate::fakes::aws::{ACCOUNT, ADMIN, FakeAws, REGION, signature};
use crate::fakes::server::Received;
use crate::fakes::token;

mod logins;
mod parameters;
mod secrets;
mod subject;

pub(crate) use subject::{Parameters, Secrets};

/// Runs each case against the fake, and against moto if there is one; those of rights where rights are looked at.
macro_rules! on_aws {
    ($($case:ident),* $(,)?) => {
        mod fake {
            $(#[tokio::test] async fn $case() { super::$case(&super::Store::fake().await).await })*
        }
        mod real {
            $(#[tokio::test] #[ignore = "wants a server: .ci/run contract starts it"] async fn $case() { super::$case(&super::Store::real()).await })*
        }
    };
    (of_rights: $($case:ident),* $(,)?) => {
        mod fake_rights {
            $(#[tokio::test] async fn $case() { super::$case(&super::Store::fake().await).await })*
        }
        mod real_rights {
            $(#[tokio::test] #[ignore = "wants a server: .ci/run contract starts it"] async fn $case() {
                let store = super::Store::real();
                assert!(store.has_rights, "this server looks at nobody's rights: --skip real_rights");
                super::$case(&store).await;
            })*
        }
    };
}
use on_aws;

/// The account's services, and an administrator.
struct Store {
    address: String,
    ca: Option<String>,
    client: Client,
    fake: Option<FakeAws>,
    /// Whether it looks at what a role may do.
    has_rights: bool,
    /// Makes names of this case unlike those of all others.
    id: String,
    counter: Cell<u32>,
    /// By name, the ids of its versions.
    versions: RefCell<BTreeMap<String, Vec<String>>>,
}

/// A pod that may use them.
struct Pod {
    settings: AwsSettings,
    login: Login,
    limits: Limits,
    token_file: PathBuf,
    dir: tempfile::TempDir,
}

const SUBJECT: &str = "system:serviceaccount:shop:web";

/// Who signs the tokens, without `https://`.
const ISSUER: &str = "issuer.test";

/// All that the policies of src/provider/aws.md allow, and no more.
const RIGHTS: [&str; 6] = [
    "secretsmanager:GetSecretValue",
    "secretsmanager:DescribeSecret",
    "secretsmanager:BatchGetSecretValue",
    "ssm:GetParameters",
    "ssm:GetParametersByPath",
    "kms:Decrypt",
];

// === impl Store ===

impl Store {
    async fn fake() -> Self {
        let fake = FakeAws::start().await;
        let store = Self::new(fake.url(), Some(fake.certificates.ca.clone()));
        Self { fake: Some(fake), has_rights: true, ..store }
    }

    fn real() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = variable("HUSHPOD_CONTRACT_AWS").expect("HUSHPOD_CONTRACT_AWS: the address of an imitation");
        let ca = variable("HUSHPOD_CONTRACT_AWS_CACERT").map(|file| std::fs::read_to_string(file).unwrap());
        Self { has_rights: variable("HUSHPOD_CONTRACT_AWS_IAM").is_some(), ..Self::new(address, ca) }
    }

    fn new(address: String, ca: Option<String>) -> Self {
        let parsed = Address::parse(&address).unwrap();
        let client = Client::new(parsed, ca.as_deref(), Limits::default(), &Matcher::builder().build()).unwrap();
        let id = format!("{:x}", std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos());
        let (counter, versions) = (Cell::new(0), RefCell::default());
        Self { address, ca, client, fake: None, has_rights: false, id, counter, versions }
    }

    /// The requests since the last time, if they can be known.
    fn seen(&self) -> Option<Vec<Received>> {
        Some(self.fake.as_ref()?.take_seen())
    }

    /// The operations that were called since the last time, if they can be known.
    fn operations(&self) -> Option<Vec<String>> {
        Some(self.seen()?.iter().map(operation).collect())
    }

    async fn admin(&self, service: &str, operation: &str, body: Value) -> (u16, Value) {
        let target = format!("{}.{operation}", if service == "ssm" { "AmazonSSM" } else { service });
        let host = self.address.split("://").nth(1).unwrap();
        let body = body.to_string().into_bytes();
        let headers = signature::sign_call(ADMIN, (REGION, service), host, Some(&target), &body);
        let mut call = Call::new(Method::POST, "").body(body.into(), "application/x-amz-json-1.1");
        for (name, value) in headers {
            call = call.header(name.parse().unwrap(), value.parse().unwrap());
        }
        let response = self.client.send(call).await.unwrap();
        (response.status.as_u16(), serde_json::from_slice(&response.body).unwrap_or(Value::Null))
    }

    /// A call to IAM, which speaks forms and is in one region for all.
    async fn must_manage(&self, operation: &str, fields: &[(&str, &str)]) {
        let all = [("Action", operation), ("Version", "2010-05-08")];
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        let pairs = all.iter().chain(fields).map(|(name, value)| format!("{name}={}", encode(value)));
        let body = pairs.collect::<Vec<_>>().join("&").into_bytes();
        let host = self.address.split("://").nth(1).unwrap();
        let headers = signature::sign_call(ADMIN, ("us-east-1", "iam"), host, None, &body);
        let mut call = Call::new(Method::POST, "").body(body.into(), "application/x-www-form-urlencoded");
        for (name, value) in headers {
            call = call.header(name.parse().unwrap(), value.parse().unwrap());
        }
        let response = self.client.send(call).await.unwrap();
        assert_eq!(response.status.as_u16(), 200, "{operation}: {}", String::from_utf8_lossy(&response.body));
    }

    async fn must(&self, service: &str, operation: &str, body: Value) -> Value {
        let (status, answer) = self.admin(service, operation, body).await;
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    /// A name that no other case has.
    fn name(&self, kind: &str) -> String {
        self.counter.set(self.counter.get() + 1);
        format!("hushpod-{}-{}-{kind}", self.id, self.counter.get())
    }

    /// Puts a secret, anew or as the next version; says its ARN.
    async fn put_secret(&self, name: &str, value: Value) -> String {
        let mut body = json!({"SecretId": name, "Name": name});
        body.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        let is_new = !self.versions.borrow().contains_key(name);
        let operation = if is_new { "CreateSecret" } else { "PutSecretValue" };
        body.as_object_mut().unwrap().remove(if is_new { "SecretId" } else { "Name" });
        let answer = self.must("secretsmanager", operation, body).await;
        let version = answer["VersionId"].as_str().unwrap().to_owned();
        self.versions.borrow_mut().entry(name.to_owned()).or_default().push(version);
        answer["ARN"].as_str().unwrap().to_owned()
    }

    async fn put_text(&self, name: &str, value: &str) -> String {
        self.put_secret(name, json!({"SecretString": value})).await
    }

    async fn delete_secret(&self, name: &str) {
        self.must("secretsmanager", "DeleteSecret", json!({"SecretId": name, "RecoveryWindowInDays": 7})).await;
    }

    async fn put_parameter(&self, name: &str, kind: &str, value: &str) {
        let body = json!({"Name": name, "Type": kind, "Value": value, "Overwrite": true});
        self.must("ssm", "PutParameter", body).await;
    }

    async fn delete_parameter(&self, name: &str) {
        self.must("ssm", "DeleteParameter", json!({"Name": name})).await;
    }

    /// A pod that may read everything whose name begins so.
    async fn pod(&self, prefix: &str) -> Pod {
        let rights = RIGHTS.map(|action| (action, if action.ends_with(":BatchGetSecretValue") { "" } else { prefix }));
        self.pod_with(&rights).await
    }

    /// A pod with these rights.
    async fn pod_with(&self, rights: &[(&str, &str)]) -> Pod {
        let name = self.name("role");
        let role = format!("arn:aws:iam::{ACCOUNT}:role/{name}");
        if let Some(fake) = &self.fake {
            fake.put_role(&role, SUBJECT, rights);
        } else if self.has_rights {
            self.must_manage("CreateRole", &[("RoleName", &name), ("AssumeRolePolicyDocument", &trust())]).await;
            let policy =
                json!({"Version": "2012-10-17", "Statement": rights.iter().map(statement).collect::<Vec<_>>()});
            let policy =
                [("RoleName", name.as_str()), ("PolicyName", "suite"), ("PolicyDocument", &policy.to_string())];
            self.must_manage("PutRolePolicy", &policy).await;
        }
        self.pod_that(json!({}), Some(&role), "sts.amazonaws.com")
    }

    /// A pod with these auth settings.
    fn pod_that(&self, auth: Value, role: Option<&str>, audience: &str) -> Pod {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        std::fs::write(
            &token_file,
            token::sign(&json!({"iss": format!("https://{ISSUER}"), "aud": [audience], "sub": SUBJECT}), 600),
        )
        .unwrap();
        let settings = json!({"region": REGION, "endpoint": self.address, "stsEndpoint": self.address, "ca": self.ca,
            "auth": auth});
        let role = role.map(str::to_owned);
        Pod {
            settings: serde_json::from_value(settings).unwrap(),
            login: Login { provider: "aws".to_owned(), role, token: token_file.clone().into() },
            limits: Limits::default(),
            token_file,
            dir,
        }
    }
}

// === impl Pod ===

impl Pod {
    fn secrets(&self) -> SecretsManager {
        SecretsManager::connect(&self.settings, self.login.clone(), self.reach()).unwrap()
    }

    fn parameters(&self) -> ParameterStore {
        let settings = SsmSettings(self.settings.clone());
        ParameterStore::connect(&settings, self.login.clone(), self.reach()).unwrap()
    }

    fn reach(&self) -> Reach {
        Reach { limits: self.limits, ..Reach::default() }
    }

    fn secret(&self, reference: &str) -> Request {
        super::request(&self.settings, reference)
    }

    fn parameter(&self, reference: &str) -> Request {
        super::request(&SsmSettings(self.settings.clone()), reference)
    }

    /// Shows another token at its next login.
    fn show(&self, claims: &Value, expires_in: i64) {
        std::fs::write(&self.token_file, token::sign(claims, expires_in)).unwrap();
    }
}

/// Lets the pod's service account take a role.
fn trust() -> String {
    let provider = format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER}");
    let subject = json!({format!("{ISSUER}:sub"): SUBJECT});
    // Kubernetes writes audiences as a list, which AWS takes as one text where it is one, and ministack does not.
    let audience = json!({format!("{ISSUER}:aud"): "sts.amazonaws.com"});
    let claims = json!({"StringEquals": subject, "ForAnyValue:StringEquals": audience});
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": provider}, "Condition": claims}]})
    .to_string()
}

/// The right to an action on all secrets whose names begin so; of parameters ministack looks at no names.
fn statement(&(action, prefix): &(&str, &str)) -> Value {
    let resource = match action.split_once(':').unwrap().0 {
        "secretsmanager" if !prefix.is_empty() => format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{prefix}*"),
        _ => "*".to_owned(),
    };
    json!({"Effect": "Allow", "Action": action, "Resource": resource})
}

/// What a request asked for.
fn operation(received: &Received) -> String {
    match received.header("x-amz-target") {
        Some(target) => target.split('.').nth(1).unwrap().to_owned(),
        None if received.method == Method::GET => "agent".to_owned(),
        None => received.form().get("Action").cloned().unwrap_or_default(),
    }
}

/// Reads a batch of which some is held in a version.
async fn read_all(provider: &mut dyn Provider, requests: &[Request], held: &[Option<Version>]) -> Vec<ReadResult> {
    let known: Known =
        requests.iter().zip(held).filter_map(|(request, version)| Some((request.clone(), version.clone()?))).collect();
    provider.read(requests, &known).await
}

async fn read(provider: &mut dyn Provider, request: &Request) -> ReadResult {
    super::read(provider, request, None).await
}

async fn refused(provider: &mut dyn Provider, request: &Request) -> ProviderError {
    match read(provider, request).await {
        Ok(reading) => panic!("{request} was answered: {reading:?}"),
        Err(error) => error,
    }
}

/// The text that a request is answered with, in the open.
async fn text(provider: &mut dyn Provider, request: &Request) -> String {
    let answer = fresh(read(provider, request).await);
    String::from_utf8(shown(&answer, "x")).unwrap()
}

/// Neither store leases: an answer has no end, and a lease made elsewhere is none here.
async fn assert_no_leases(provider: &mut dyn Provider, request: &Request) {
    let answer = fresh(read(provider, request).await);
    assert_eq!((answer.lease, answer.expires_in), (None, None));
    let lease = Lease { id: "canary".into(), ttl: Duration::from_secs(1), renewable: true };
    assert_error(&provider.renew(&lease).await.unwrap_err(), ErrorKind::Invalid, &["no leases"]);
    assert_error(&provider.revoke(&lease).await.unwrap_err(), ErrorKind::Invalid, &["no leases"]);
}
