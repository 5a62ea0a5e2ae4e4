//! The contract suite: what every provider promises to the source. The same cases run against each provider's in-process
//! fake, and against the real server where CI has one, so a fake cannot drift from the truth.

use std::time::Duration;

use hushpod::provider::http::Limits;
use hushpod::provider::{Answer, ErrorKind, Known, Provider, ProviderError, ReadResult, Reading, Settings, Version};
use hushpod::reference::{Reference, Request};

use crate::fakes::server::{FakeServer, Fault, Received};
use crate::fakes::tls::Certificates;

mod aws;
mod azure;
mod example;
mod file;
mod gcp;
mod infisical;
mod requests;
mod suite;
mod vault;

/// A store that the suite can use, with an identity that may read what [`Subject::put`] stores.
///
/// Every secret value that the suite or a fake makes has `canary` in it, tokens and error bodies too.
pub(crate) trait Subject: Sized + 'static {
    /// What the operator sets.
    type Settings: Settings;

    /// A fake of its own for each case.
    async fn fake() -> Self;

    /// The fake's server; `None` for the real one.
    fn server(&self) -> Option<&FakeServer>;

    /// How the operator configures this store, with `ca` for its authority.
    fn settings(&self, ca: Option<&str>) -> Self::Settings;

    /// The authority that vouches for the store.
    fn ca(&self) -> Option<String> {
        self.server().map(|server| server.certificates.ca.clone())
    }

    /// A client that has not logged in yet, with these settings.
    fn connect(&self, settings: &Self::Settings, limits: Limits) -> Box<dyn Provider>;

    /// Stores a text value, anew or as the next version, and says the reference that reads it (without provider's
    /// name, with `#key` if the store answers documents).
    async fn put(&self, name: &str, value: &str) -> String;

    /// Stores bytes that are no UTF-8, as [`Subject::put`] does; `None` if the store takes only text.
    async fn put_bytes(&self, _name: &str, _value: &[u8]) -> Option<String> {
        None
    }

    /// Takes a secret away that [`Subject::put`] stored.
    async fn remove(&self, name: &str);

    /// Whether the server looks at what an identity may do; a stand-in for the real one may not.
    fn has_policies(&self) -> bool {
        true
    }

    /// A reference to a secret that exists and that this identity may not read.
    async fn denied(&self) -> String;

    /// Every login made until now is worth nothing any more; `false` if there are none, or it cannot be done.
    async fn end_logins(&self) -> bool;

    /// The store's clock goes wrong by so many seconds; `false` if it makes no difference, or it cannot be done.
    async fn skew_clock(&self, _seconds: i64) -> bool {
        false
    }

    /// Whether this is a request that reads a secret's value (not a login, not a look at metadata).
    fn is_read(received: &Received) -> bool;

    /// Whether an answer to an unchanged secret carries no value: what the store was asked since the last look.
    fn carries_no_value(received: &[Received]) -> bool {
        !received.iter().any(Self::is_read)
    }

    /// The parameter that pins `name` to the version that was put `nth` (1 is the first); `None` without versions.
    async fn pin(&self, name: &str, nth: u32) -> Option<String>;
}

/// Runs the suite for each store, and once more on a real server where CI has one.
macro_rules! contract {
    ($($store:ident: $($server:ident)? <$subject:ty>),* $(,)?) => {
        $(mod $store { $crate::contract::suite::cases!($($server)? $subject); })*
    };
}

contract! {
    of_vault: real <crate::contract::vault::Shared>,
    of_aws: real <crate::contract::aws::Secrets>,
    of_ssm: real <crate::contract::aws::Parameters>,
    of_infisical: <crate::contract::infisical::Shared>,
    of_azure: <crate::contract::azure::Shared>,
    of_gcp: <crate::contract::gcp::Shared>,
    of_example: <crate::contract::example::Shared>,
}

/// Says which case a test runs that [`run_again`] started.
const CASE: &str = "HUSHPOD_CONTRACT_CASE";

/// Runs a test of this program once more in a process of its own: an environment cannot be changed while others read it.
/// `None` takes a variable away.
async fn run_again(test: &str, case: &str, variables: &[(&str, Option<&str>)]) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test]).env(CASE, case);
    for (name, value) in variables {
        match value {
            Some(value) => child.env(name, value),
            None => child.env_remove(name),
        };
    }
    let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{case}: {told}");
}

/// The canonical request of a reference.
fn request(settings: &dyn Settings, reference: &str) -> Request {
    settings.resolve("store", &reference.parse::<Reference>().unwrap()).unwrap()
}

/// Reads one request that may be held in a version already.
async fn read(provider: &mut dyn Provider, request: &Request, held: Option<&Version>) -> ReadResult {
    let known: Known = held.map(|version| (request.clone(), version.clone())).into_iter().collect();
    let mut results = provider.read(std::slice::from_ref(request), &known).await;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

fn fresh(result: ReadResult) -> Answer {
    match result {
        Ok(Reading::Fresh(answer)) => answer,
        other => panic!("no values: {other:?}"),
    }
}

/// The bytes that a reference stands for, in the open.
fn shown(answer: &Answer, reference: &str) -> Vec<u8> {
    let key = reference.parse::<Reference>().unwrap().key;
    let tree = match &key {
        None => answer.tree.clone(),
        Some(hushpod::reference::Key::Literal(key)) => answer.tree.key(key).unwrap(),
        Some(hushpod::reference::Key::Pointer(tokens)) => answer.tree.pointer(tokens).unwrap(),
    };
    tree.as_value().expect("a value").expose().to_vec()
}

#[track_caller]
fn assert_error(error: &ProviderError, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind, kind, "{error}");
    for part in parts {
        assert!(error.message.contains(part), "{part:?} is not in: {error}");
    }
    assert!(!error.message.contains("canary"), "{error}");
}

fn version(number: &str) -> Version {
    Version(number.to_owned())
}
