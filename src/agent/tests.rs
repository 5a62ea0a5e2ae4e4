use std::collections::BTreeMap;

use super::*;
use crate::bundle::Target;
use crate::deliver::render::RenderError;
use crate::provider::{ErrorKind, ProviderError};
use crate::reference::Request;
use crate::sentence::Sentence;
use crate::source::tests::fake::plan;
use crate::source::{SetupError, SourceFailure, connect};

fn failure(path: &str, message: &str) -> SourceFailure {
    let request = Request { provider: "vault".to_owned(), path: path.to_owned(), params: BTreeMap::new() };
    let error = ProviderError::new(ErrorKind::Denied, message);
    SourceFailure { provider: "vault".to_owned(), request: Some(request), error, retry_in: None }
}

#[test]
fn p9_a_plan_that_cannot_be_used_is_refused_with_a_sentence() {
    let read = |json: Option<&str>| -> Result<Plan, AgentError> {
        Ok(json.ok_or(PlanReadError::Missing).and_then(Plan::from_json)?)
    };
    let newer = serde_json::to_string(&plan(&["a:x"])).unwrap().replace("\"version\":1", "\"version\":99");
    for (json, says) in [
        (None, "there is no plan"),
        (Some(""), "is damaged"),
        (Some("{}"), "is damaged at line 1, column 2"),
        (Some("{\"version\":1}"), "is damaged at line 1"),
        (Some("{\"version\":\"canary\"}"), "is damaged at line 1"),
        (Some(&*newer), "has format 99, and this agent understands 1: webhook and agent image are of different"),
    ] {
        let error = read(json).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(says), "{json:?}: {error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    let good = plan(&["a:x"]);
    assert_eq!(read(Some(&serde_json::to_string(&good).unwrap())).unwrap(), good);
}

#[tokio::test]
async fn a_store_with_a_bundle_is_verified_by_the_file_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let paths = AgentPaths {
        volume: path("volume"),
        state: path("state"),
        controls: path("controls"),
        tokens: path("tokens"),
        authorities: path("ca"),
        bin: path("bin"),
        program: path("program"),
        termination_log: path("termination-log"),
    };
    std::fs::create_dir(&paths.tokens).unwrap();
    std::fs::write(paths.tokens.join("shop"), "token").unwrap();
    for bundle in [true, false] {
        let plan = serde_json::json!({
            "version": 1, "identity": {"namespace": "shop", "serviceAccount": "web"}, "sizeLimit": 65536,
            // Nobody listens there.
            "providers": {"shop": {"settings": {"type": "vault", "address": "https://127.0.0.1:1"}, "role": "web",
                "audience": "vault", "refreshSeconds": 60, "caBundle": bundle}},
            "items": [{"target": {"file": "a"}, "from": {"one": "shop:secret/data/a#k"}, "mode": "0400"}],
        });
        let plan = Plan::from_json(&plan.to_string()).unwrap();
        let mut providers = connect(&plan, |name| paths.tokens.join(name).into(), &paths.authorities).unwrap();
        let request = (*plan.requests().first().unwrap()).clone();
        let provider = providers.get_mut("shop").unwrap();
        let results = provider.read(&[request], &crate::provider::Known::new()).await;
        let told = results.into_iter().next().unwrap().unwrap_err().to_string();
        let place = format!("caBundle: {} does not exist", paths.authorities.join("shop").display());
        assert_eq!(told.contains(&place), bundle, "{told}");
        assert_eq!(told.contains("connection refused"), !bundle, "{told}");
    }
}

#[test]
fn the_termination_message_names_every_refusal_and_is_cut_where_kubelet_would() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("termination-log");
    terminate(&path, &AgentError::Refused(vec![failure("a", "may not log in"), failure("b", "no such secret")]));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "vault:a: may not log in; vault:b: no such secret");
    // A character of two bytes stands across the end.
    terminate(&path, &AgentError::Refused(vec![failure("a", &"ü".repeat(4000))]));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4095);
}

#[test]
fn p5_a_termination_message_has_no_name_that_only_the_store_knows() {
    let named = || Sentence::hiding("STORE_KEY is bad", "a key is bad");
    let refused = |message: Sentence| {
        let mut refused = failure("asked", "");
        refused.error.message = message;
        refused
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("termination-log");
    for error in [
        AgentError::Refused(vec![refused(named()), refused("is not a secret".into())]),
        AgentError::Provider(SetupError {
            provider: "asked".to_owned(),
            error: ProviderError::new(ErrorKind::Invalid, named()),
        }),
        RenderError::new(&Target::File("asked".parse().unwrap()), named()).into(),
    ] {
        terminate(&path, &error);
        let told = std::fs::read_to_string(&path).unwrap();
        assert!(told.contains("a key is bad") && told.contains("asked"), "{told}");
        assert!(!told.contains("STORE_KEY") && error.to_string().contains("STORE_KEY is bad"), "{told}: {error}");
    }
}

#[test]
fn ready_waits_no_longer_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    assert!(!ready(dir.path(), Duration::ZERO));
    assert!(!ready(dir.path(), Duration::from_millis(30)));
    assert!((30..10_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}
