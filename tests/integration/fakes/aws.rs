//! Secrets Manager, Parameter Store, STS, IAM Identity Center's portal and the EKS Pod Identity agent as far as the contract suite needs them, by their
//! published protocols; the same cases run against moto (see `contract/aws.rs`), but for what moto does not do: it looks
//! at no signature and at no right.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::{Value, json};

use super::server::{FakeServer, Received, Reply};

mod identity;
mod parameters;
mod secrets;
pub(crate) mod signature;

pub(crate) const REGION: &str = "eu-west-1";
pub(crate) const ACCOUNT: &str = "123456789012";

/// An administrator's credentials.
pub(crate) const ADMIN: (&str, &str) = ("AKIAADMINCANARY", "canary-admin-secret");

/// What a person has who is logged in to IAM Identity Center.
pub(crate) const SSO_TOKEN: &str = "canary-sso-token";

/// A running server for all of them.
pub(crate) struct FakeAws {
    server: FakeServer,
    state: Arc<Mutex<Server>>,
}

#[derive(Default)]
struct Server {
    /// How many seconds later it is here than elsewhere.
    later: i64,
    counter: u64,
    /// By access key id.
    keys: BTreeMap<String, identity::Key>,
    /// By ARN.
    roles: BTreeMap<String, identity::Role>,
    secrets: BTreeMap<String, secrets::Secret>,
    parameters: BTreeMap<String, Vec<parameters::Version>>,
}

/// A refusal: an error's name and its text.
type Refusal = (&'static str, String);

// === impl FakeAws ===

impl FakeAws {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(Server::default()));
        state.lock().unwrap().keys.insert(ADMIN.0.to_owned(), identity::Key::of_admin(ADMIN.1));
        let shared = Arc::clone(&state);
        let server = FakeServer::start(move |received| shared.lock().unwrap().answer(received)).await;
        Self { server, state }
    }

    fn state(&self) -> MutexGuard<'_, Server> {
        self.state.lock().unwrap()
    }

    /// Makes a role that tokens of this audience and subject may take, with the right to these actions on names that
    /// begin so.
    pub(crate) fn put_role(&self, arn: &str, subject: &str, rights: &[(&str, &str)]) {
        let rights = rights.iter().map(|&(action, prefix)| (action.to_owned(), prefix.to_owned())).collect();
        self.state().roles.insert(arn.to_owned(), identity::Role { subject: subject.to_owned(), rights });
    }

    /// Makes a secret.
    pub(crate) fn put_secret(&self, name: &str, text: &str) {
        let body = json!({"Name": name, "SecretString": text});
        self.state().secrets_call(&identity::Caller::Admin, "CreateSecret", &body).unwrap();
    }

    /// Every key made by a login is expired.
    pub(crate) fn expire_keys(&self) {
        self.state().keys.values_mut().for_each(identity::Key::expire);
    }

    /// Every key made by a login was never heard of.
    pub(crate) fn forget_keys(&self) {
        self.state().keys.retain(|_, key| key.is_admin());
    }

    pub(crate) fn skew(&self, seconds: i64) {
        self.state().later = seconds;
    }
}

impl Deref for FakeAws {
    type Target = FakeServer;

    fn deref(&self) -> &FakeServer {
        &self.server
    }
}

// === impl Server ===

impl Server {
    fn now(&self) -> i64 {
        DateTime::from(std::time::SystemTime::now()).secs() + self.later
    }

    /// A name that nothing else has.
    fn unique(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn answer(&mut self, received: &Received) -> Reply {
        if received.path == "/v1/credentials" {
            return self.hand_credentials_out(received);
        }
        if received.path == "/federation/credentials" {
            return self.role_credentials(received);
        }
        if received.header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
            return self.assume_role(received);
        }
        match self.call(received) {
            Ok(body) => json_reply(200, &body),
            Err((code, message)) => {
                let status = if code.starts_with("Internal") { 500 } else { 400 };
                let member = if code.contains("Parameter") { "message" } else { "Message" };
                json_reply(status, &json!({"__type": code, member: message}))
            }
        }
    }

    fn call(&mut self, received: &Received) -> Result<Value, Refusal> {
        let unknown = || ("UnknownOperationException", String::new());
        let (target, operation) =
            received.header("x-amz-target").and_then(|t| t.split_once('.')).ok_or_else(unknown)?;
        let service = match target {
            "secretsmanager" => "secretsmanager",
            "AmazonSSM" => "ssm",
            _ => return Err(unknown()),
        };
        assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", "/"));
        assert_eq!(received.header("content-type"), Some("application/x-amz-json-1.1"));
        let caller = self.authenticate(received, service)?;
        let body = received.json();
        if body.is_null() {
            return Err(("SerializationException", String::new()));
        }
        if service == "ssm" {
            self.parameters_call(&caller, operation, &body)
        } else {
            self.secrets_call(&caller, operation, &body)
        }
    }
}

fn json_reply(status: u16, body: &Value) -> Reply {
    let mut reply = Reply::json(status, body).header("x-amzn-requestid", "04102947-d63c-27d5-03a1-1d6cb1c3a1eb");
    reply.headers.retain(|(name, _)| *name != "content-type");
    reply.header("content-type", "application/x-amz-json-1.1")
}

/// ISO 8601 in UTC.
fn iso(seconds: i64) -> String {
    DateTime::from_secs(seconds).fmt(Format::DateTime).unwrap()
}

/// A text field that must be there.
fn field<'a>(body: &'a Value, name: &str) -> Result<&'a str, Refusal> {
    body[name].as_str().ok_or_else(|| ("ValidationException", format!("Value null at '{name}'")))
}
