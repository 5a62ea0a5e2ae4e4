//! What people write: references, annotations, bundles, the operator's configuration; and the plan that is made of them.

use std::collections::BTreeMap;

use hushpod::annotations;
use hushpod::bundle::Bundle;
use hushpod::config::{Config, Identity};
use hushpod::contract::PREFIX;
use hushpod::csi::plan_of_context;
use hushpod::plan::{Plan, PlannedItem};
use hushpod::provider::ProviderSettings;
use hushpod::reference::{Reference, Request};
use hushpod::report::line::{MAX_BYTES, ReportLine};
use hushpod::sentence::one_line;

use crate::MARKER;

/// One store of each type, as an operator writes them.
const CONFIG: &str = include_str!("config.yaml");

thread_local! {
    static CONFIGURED: Config = Config::from_yaml(CONFIG).expect("config.yaml is good");
}

/// The operator's configuration that targets share.
pub(crate) fn with_config<T>(use_it: impl FnOnce(&Config) -> T) -> T {
    CONFIGURED.with(use_it)
}

fn identity() -> Identity {
    Identity { namespace: "team-a".to_owned(), service_account: "web".to_owned() }
}

/// One sentence on one line.
fn assert_sentence(message: &str) {
    assert!(!message.trim().is_empty() && !message.contains('\n'), "no sentence: {message:?}");
}

/// A reference survives being shown; a canonical request is canonical: asked for again, it is itself.
pub(crate) fn reference(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let parsed = match text.parse::<Reference>() {
        Ok(parsed) => parsed,
        Err(error) => return assert_sentence(&error.to_string()),
    };
    let shown = parsed.to_string();
    assert_eq!(shown.parse::<Reference>().as_ref(), Ok(&parsed), "shown as {shown:?}");
    with_config(|config| {
        for (name, provider) in &config.providers {
            resolve(name, &provider.settings, &parsed);
        }
    });
}

fn resolve(name: &str, settings: &ProviderSettings, reference: &Reference) {
    let settings = settings.as_settings();
    let request = match settings.resolve(name, reference) {
        Ok(request) => request,
        // The plan's error puts it on one line.
        Err(problem) => return assert!(!problem.to_string().is_empty()),
    };
    assert_eq!(request.provider, name);
    let Request { path, params, .. } = request.clone();
    let again = Reference { provider: None, path, params, key: None };
    assert_eq!(settings.resolve(name, &again).as_ref(), Ok(&request), "the request {request}, given again");
    let shown: Reference = request.to_string().parse().unwrap_or_else(|error| panic!("{request:?}: {error}"));
    assert_eq!(settings.resolve(name, &shown).as_ref(), Ok(&request), "the request {request}, read again");
    settings.is_leased(&request);
}

/// Pods that name what is wrong: an error is one sentence with the annotation's key; what is understood becomes a plan
/// that survives its way to the agent, or an error that names the place.
///
/// `key=value` lines; a line that begins with a blank goes on with the value above.
pub(crate) fn annotations(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let mut pod: BTreeMap<String, String> = BTreeMap::new();
    let mut last = String::new();
    for line in text.split('\n') {
        if let (true, Some(value)) = (line.starts_with(' '), pod.get_mut(&last)) {
            value.push('\n');
            value.push_str(line);
        } else if let Some((key, value)) = line.split_once('=') {
            last = if key.contains('/') { key.to_owned() } else { format!("{PREFIX}{key}") };
            pod.insert(last.clone(), value.to_owned());
        }
    }
    let (bundle, options) = match annotations::parse(&pod) {
        Ok(parsed) => parsed,
        Err(error) => {
            let message = error.to_string();
            assert_sentence(&message);
            let names_one = pod.keys().any(|key| key.starts_with(PREFIX) && message.contains(&one_line(key)));
            assert!(names_one || message.contains(annotations::SECRETS), "{message:?} names no annotation");
            return;
        }
    };
    with_config(|config| {
        let options = options.or(&config.defaults);
        match Plan::build(identity(), &bundle, &options, config) {
            Ok(plan) => assert_travels(&plan),
            Err(error) => {
                let message = error.to_string();
                assert_sentence(&message);
                assert!(message.contains(PREFIX), "{message:?} names no annotation");
            }
        }
    });
}

/// Inline volumes of the CSI driver, as the annotations above: what kubelet says of its pod may be anything, too, and is
/// good where the input does not say it. A plan that is made survives; a sentence is one that an event takes.
pub(crate) fn attributes(input: &[u8]) {
    const KUBELETS: &str = "csi.storage.k8s.io/";
    const TOKENS: &str =
        r#"{"vault":{"token":"e30.eyJrdWJlcm5ldGVzLmlvIjp7InNlcnZpY2VhY2NvdW50Ijp7InVpZCI6InUifX19.canary"}}"#;
    thread_local! {
        static WITH_DRIVER: Config = Config::from_yaml(&format!("{CONFIG}csi: {{}}\n")).expect("config.yaml is good");
    }
    let Ok(text) = str::from_utf8(input) else { return };
    let good = [
        ("pod.name", "web-0"),
        ("pod.namespace", "team-a"),
        ("pod.uid", "u"),
        ("serviceAccount.name", "web"),
        ("serviceAccount.tokens", TOKENS),
        ("ephemeral", "true"),
    ];
    let mut context: BTreeMap<String, String> =
        good.iter().map(|(key, value)| (format!("{KUBELETS}{key}"), (*value).to_owned())).collect();
    let mut group = String::new();
    let mut last = String::new();
    for line in text.split('\n') {
        if let (true, Some(value)) = (line.starts_with(' '), context.get_mut(&last)) {
            value.push('\n');
            value.push_str(line);
        } else if let Some((key, value)) = line.split_once('=') {
            match key {
                "fsGroup" => value.clone_into(&mut group),
                _ => {
                    key.clone_into(&mut last);
                    context.insert(last.clone(), value.to_owned());
                }
            }
        }
    }
    let said_by_input = text.contains(MARKER);
    match WITH_DRIVER.with(|config| plan_of_context(context, &group, config)) {
        Ok(json) if json.is_empty() => {}
        Ok(json) => assert_travels(&Plan::from_json(&json).expect("a plan is readable")),
        Err(sentence) => {
            assert_sentence(&sentence);
            assert!(sentence.len() < 1024, "too long for an event: {}", sentence.len());
            assert!(said_by_input || !sentence.contains(MARKER), "a token in a sentence: {sentence:?}");
        }
    }
}

/// No two items of a bundle share a path; an error is one sentence.
pub(crate) fn bundle(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match Bundle::from_yaml(text) {
        Ok(bundle) => {
            for (index, item) in bundle.items.iter().enumerate() {
                let clashes = bundle.items.iter().skip(index + 1).any(|other| other.target == item.target);
                assert!(!clashes, "{:?} twice", item.target);
            }
        }
        Err(error) => assert_sentence(&error.to_string()),
    }
}

/// A configuration that is accepted has settings that are valid, also after their way through a plan.
pub(crate) fn config(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let config = match Config::from_yaml(text) {
        Ok(config) => config,
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("configuration"), "{message:?}");
            return assert_sentence(&message);
        }
    };
    config.warnings().iter().for_each(|warning| assert_sentence(warning));
    for provider in config.providers.values() {
        assert_eq!(provider.settings.as_settings().validate(), Ok(()));
        let json = serde_json::to_string(&provider.settings).expect("settings are JSON");
        assert_eq!(serde_json::from_str::<ProviderSettings>(&json).ok().as_ref(), Some(&provider.settings), "{json}");
    }
}

/// What the agent reads, it would write again.
pub(crate) fn plan(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match Plan::from_json(text) {
        Ok(plan) => {
            for request in plan.requests() {
                let takes = |item: &PlannedItem| item.from.references().any(|take| take.request == *request);
                let is_needed = plan.items.iter().any(|item| takes(item) && !item.optional);
                assert_eq!(plan.is_optional(request), !is_needed);
            }
            assert_travels(&plan);
        }
        Err(error) => assert_sentence(&error.to_string()),
    }
}

fn assert_travels(plan: &Plan) {
    match plan.to_json() {
        Ok(json) => assert_eq!(Plan::from_json(&json).as_ref(), Ok(plan), "{json}"),
        Err(error) => assert_sentence(&error.to_string()),
    }
}

/// Of a container's log: a line that is taken for a report can be written anew, in ASCII, and says the same then.
pub(crate) fn report(input: &[u8]) {
    let Some(line) = str::from_utf8(input).ok().and_then(ReportLine::parse) else { return };
    let text = line.clone().to_text();
    assert!(text.is_ascii() && !text.contains(|c: char| c.is_control()), "{text:?}");
    // Texts that our programs never make long are not cut.
    if text.len() > MAX_BYTES {
        return;
    }
    let again = ReportLine::parse(&text).expect("what is written is read");
    assert_eq!(again.to_text(), text);
}
