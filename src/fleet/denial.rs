//! `explain-denial`: which annotation, rule or field a sentence is about, and where to read on. A manifest is looked at as
//! the webhook would. No cluster is asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use super::arguments::DenialArgs;
use super::error::FleetError;
use super::safe::shown;
use crate::annotations::{self, KEYS};
use crate::bounded_read::read_text;
use crate::config::{Config, Identity, NamespaceLabels};
use crate::contract::{PREFIX, VOLUME_PREFIX};
use crate::plan::Plan;
use crate::steps;

/// Bytes of a file.
const MOST: usize = 4 << 20;
/// Characters of a sentence that is repeated.
const MOST_SHOWN: usize = 2000;
/// Pods of one file.
const MOST_PODS: usize = 1000;

/// Words of a denial, what they are about, and the topic of `hushpod explain` that goes on.
const PHRASES: &[(&str, &str, &str)] = &[
    (
        "the operator's allow rules",
        "a rule of the operator's: `allow` of the provider that the sentence names",
        "allow",
    ),
    ("the operator's rule deny[", "a rule of the operator's: `deny` of the configuration, by its number", "deny"),
    ("runtimeClasses", "the pod's runtimeClassName, and `runtimeClasses` of the configuration", "runtimeClasses"),
    ("ephemeral container", "an ephemeral container", "what-it-creates"),
    ("native sidecars", "the pod's restartPolicy", "modes"),
    ("by fileKeyRef", "a container's env", "variables"),
    ("has no command", "a container's command", "variables"),
    ("runs before the agent", "the order of the pod's init containers", "init-order"),
    ("does not get the files", "a container's volumeMounts", "containers"),
    ("csi.unavailable", "`csi.unavailable` of the configuration", "csi.unavailable"),
    ("does not inject pods of namespace", "the pod's namespace: it is excluded", "values"),
    ("they came after the webhook's turn", "annotations that another webhook, or an update, added", "what-it-creates"),
    ("in the metadata of a workload", "annotations beside the pod template", "what-it-creates"),
    ("Windows", "the pod's operating system", "readme"),
    ("static pods", "a pod that no API server was asked about", "readme"),
    ("has two containers of the name", "the pod's containers", "containers"),
    ("is hushpod's own", "a name of hushpod's in the pod's spec", "what-it-creates"),
    ("more than one review may take", "how much is annotated", "all-annotations"),
    (
        "hushpod-etcd-secrets",
        "the policy about Secrets in variables: `etcdSecrets` of the chart",
        "teams-that-leave-secrets-behind",
    ),
    ("csi.hushpod.dev not found", "the CSI driver, which kubelet does not know on that node", "when-something-fails"),
    ("failed to create subPath directory", "the gate: the files are not there yet, and kubelet waits for them", "gate"),
    ("failed calling webhook", "the way from the API server to the webhook: no pod was looked at", "platforms"),
];

/// What a sentence is about.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    about: String,
    topic: String,
}

/// Explains a file.
///
/// # Errors
/// One that cannot be read, or a denial that is not hushpod's.
pub(super) fn explain(asked: &DenialArgs) -> Result<String, FleetError> {
    let DenialArgs { file, config, identity } = asked;
    let text = if file == Path::new("-") { read(Ok(io::stdin().lock()), file)? } else { open(file)? };
    let config = config.as_deref().map(configuration).transpose()?;
    let documents = documents(&text).unwrap_or_default();
    let pods = pods(&documents);
    if pods.is_empty() {
        let sentence = message(&documents).unwrap_or(text);
        let found = find(&sentence);
        if found.is_empty() {
            return Err(FleetError::Failed(
                "no annotation, rule or field of hushpod is in it: expected the text of a denial, or a manifest"
                    .to_owned(),
            ));
        }
        return Ok(told(&sentence, &found));
    }
    let mut out = String::new();
    for pod in pods.iter().take(MOST_PODS) {
        out.push_str(&pod.look(config.as_ref(), identity));
    }
    Ok(out)
}

/// The operator's configuration, by itself or in the chart's values.
///
/// # Errors
/// A file that cannot be read, or all that is wrong with it.
pub(super) fn configuration(path: &Path) -> Result<Config, FleetError> {
    let read = Config::read_written(&open(path)?);
    read.map(|(config, _)| config).map_err(|faults| FleetError::Usage(faults.of_file(path)))
}

fn open(path: &Path) -> Result<String, FleetError> {
    read(File::open(path), path)
}

fn read(source: io::Result<impl Read>, path: &Path) -> Result<String, FleetError> {
    read_text(source, MOST).map_err(|error| FleetError::Usage(format!("{}: {error}", path.display())))
}

// --- sentences ---

/// All that a sentence is about: its annotations first, then what its words tell.
fn find(sentence: &str) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for key in keys(sentence, PREFIX).chain(keys(sentence, "volumeAttributes: ")) {
        let known = KEYS.iter().find(|known| match known.name.strip_suffix('.') {
            Some(_) => key.starts_with(known.name),
            None => known.name == key,
        });
        let finding = match known {
            Some(known) => Finding {
                about: format!("annotation {PREFIX}{key}: {}", known.meaning.replace('`', "")),
                topic: format!("{PREFIX}{}", known.name.trim_end_matches('.')),
            },
            None => Finding {
                about: format!("annotation {PREFIX}{key}: there is no such key"),
                topic: "all-annotations".to_owned(),
            },
        };
        if !found.contains(&finding) {
            found.push(finding);
        }
    }
    for (_, about, topic) in PHRASES.iter().filter(|(words, ..)| sentence.contains(words)) {
        found.push(Finding { about: (*about).to_owned(), topic: (*topic).to_owned() });
    }
    if found.is_empty() && sentence.contains(VOLUME_PREFIX) {
        let about = "a volume or container of hushpod's that is not as the webhook made it".to_owned();
        found.push(Finding { about, topic: "what-it-creates".to_owned() });
    }
    found
}

/// Keys behind a prefix.
fn keys<'a>(sentence: &'a str, prefix: &str) -> impl Iterator<Item = &'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let after = sentence.split(prefix).skip(1).collect::<Vec<_>>().into_iter();
    let keys = after.map(move |rest| rest.split(|c| !is_part(c)).next().unwrap_or_default().trim_end_matches('.'));
    keys.filter(|key| !key.is_empty()).take(64)
}

fn told(sentence: &str, found: &[Finding]) -> String {
    let mut out = format!("{}\n", shown(sentence.trim(), MOST_SHOWN));
    for Finding { about, topic } in found {
        let _ = writeln!(out, "  about  {}\n  more   hushpod explain {topic}", shown(about, MOST_SHOWN));
    }
    out
}

/// The sentence in what the API server answers: `Status`, or the response of a review.
fn message(documents: &[Value]) -> Option<String> {
    let places = ["/message", "/response/status/message"];
    let found = documents.iter().find_map(|document| places.iter().find_map(|place| document.pointer(place)));
    Some(found?.as_str()?.to_owned())
}

// --- manifests ---

/// A pod, or what will make one.
struct Manifest<'a> {
    name: String,
    namespace: Option<&'a str>,
    account: Option<&'a str>,
    annotations: BTreeMap<String, String>,
    /// Whether annotations stand where they have no effect.
    is_beside: bool,
}

/// Documents of a YAML or JSON file; `None` if it is none.
fn documents(text: &str) -> Option<Vec<Value>> {
    if let Ok(document) = serde_json::from_str::<Value>(text) {
        return document.is_object().then(|| vec![document]);
    }
    let parts = format!("\n{text}");
    let parts =
        parts.split("\n---").map(|part| part.trim_start_matches([' ', '\r'])).filter(|part| !part.trim().is_empty());
    let documents: Result<Vec<Value>, _> = parts.map(serde_saphyr::from_str).collect();
    documents.ok().filter(|documents| documents.iter().all(Value::is_object))
}

fn pods(documents: &[Value]) -> Vec<Manifest<'_>> {
    let mut found = Vec::new();
    for document in documents {
        let items = document.get("items").and_then(Value::as_array);
        let objects = items.map_or_else(|| vec![document], |items| items.iter().collect());
        for object in objects {
            let object = object.pointer("/request/object").unwrap_or(object);
            found.extend(Manifest::of(object));
        }
    }
    found
}

impl<'a> Manifest<'a> {
    fn of(object: &'a Value) -> Option<Self> {
        let templates = ["/spec/jobTemplate/spec/template", "/spec/template"];
        let template = templates.iter().find_map(|place| object.pointer(place));
        let pod = template.unwrap_or(object);
        pod.pointer("/spec/containers")?;
        let text = |value: &'a Value, place: &str| value.pointer(place).and_then(Value::as_str);
        let annotations = |value: &Value| {
            let all = value.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten();
            let texts = all.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            texts.collect::<BTreeMap<_, _>>()
        };
        let kind = text(object, "/kind").unwrap_or("Pod");
        let name = text(object, "/metadata/name").or(text(object, "/metadata/generateName")).unwrap_or_default();
        let is_beside = template.is_some() && annotations(object).keys().any(|key| key.starts_with(PREFIX));
        Some(Self {
            name: format!("{kind}/{name}"),
            namespace: text(object, "/metadata/namespace"),
            account: text(pod, "/spec/serviceAccountName"),
            annotations: annotations(pod),
            is_beside,
        })
    }

    /// What there is to say of it.
    fn look(&self, config: Option<&Config>, identity: &Identity) -> String {
        let name = shown(&self.name, 300);
        let mut out = String::new();
        if self.is_beside {
            let sentence = "annotations in the metadata of a workload have no effect: write them into its pod template";
            let _ = write!(out, "{name}: {}", told(sentence, &find(sentence)));
        }
        if !annotations::opts_in(&self.annotations) {
            let _ = writeln!(out, "{name}: it asks for nothing: no annotation of {PREFIX}, or inject is false");
            return out;
        }
        match self.denial(config, identity) {
            Some(denial) => drop(write!(out, "{name}: {}", told(&denial, &find(&denial)))),
            None if config.is_some() => {
                let _ = writeln!(out, "{name}: annotations, configuration and rules have nothing against it");
            }
            None => {
                let _ = writeln!(out, "{name}: the annotations are fine; say --config FILE to ask the rules, too");
            }
        }
        out
    }

    /// The sentence that its author would see.
    fn denial(&self, config: Option<&Config>, identity: &Identity) -> Option<String> {
        let look = || {
            let (bundle, options) = annotations::parse(&self.annotations).map_err(|error| error.to_string())?;
            let Some(config) = config else { return Ok(()) };
            let identity = Identity {
                namespace: self.namespace.unwrap_or(&identity.namespace).to_owned(),
                service_account: self.account.unwrap_or(&identity.service_account).to_owned(),
            };
            let options = options.or(&config.defaults);
            let labels = NamespaceLabels::Unknown("hushpod check takes them with --namespace-labels".into());
            let planned = Plan::build_with_warnings(identity, &labels, &bundle, &options, config);
            planned.map(drop).map_err(|error| error.to_string())
        };
        steps::within(steps::REVIEW, look).0.err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(sentence: &str) -> Vec<String> {
        find(sentence).into_iter().map(|finding| finding.topic).collect()
    }

    #[test]
    fn a_sentence_is_about_annotations_rules_or_fields() {
        for (sentence, topic) in [
            ("annotation hushpod.dev/notify: invalid value", "hushpod.dev/notify"),
            ("annotation hushpod.dev/file.db-password: white space", "hushpod.dev/file"),
            ("annotation hushpod.dev/fiel.x: unknown key; did you mean \"file.x\"?", "all-annotations"),
            ("volumeAttributes: notify: it says something of the pod", "hushpod.dev/notify"),
            ("namespace \"a\" may not use provider \"v\" (the operator's allow rules)", "allow"),
            ("runtimeClassName \"kata\" is not in the operator's runtimeClasses", "runtimeClasses"),
            ("the volume hushpod-secrets is not the emptyDir in memory that the webhook made", "what-it-creates"),
            (
                "the pod has annotations of hushpod.dev/, but not the agent: they came after the webhook's turn",
                "what-it-creates",
            ),
            ("Internal error occurred: failed calling webhook \"hushpod.dev\": timeout", "platforms"),
            (
                "ValidatingAdmissionPolicy 'hushpod-etcd-secrets' with binding 'hushpod-etcd-secrets' denied request",
                "teams-that-leave-secrets-behind",
            ),
            ("driver name csi.hushpod.dev not found in the list of registered CSI drivers", "when-something-fails"),
            ("Error: failed to create subPath directory for volumeMount \"hushpod-secrets\"", "gate"),
        ] {
            assert!(topics(sentence).contains(&topic.to_owned()), "{sentence}: {:?}", topics(sentence));
        }
        assert!(topics("pods \"x\" is forbidden: exceeded quota").is_empty());
    }

    const CONFIG: &str = "image: x\ndefaultProvider: vault\nproviders:\n  vault: {type: vault, address: 'https://v', role: web, allow: [{namespaces: [a]}]}\n";

    fn look(manifest: &str, identity: &str) -> String {
        let config = Config::from_yaml(CONFIG).unwrap();
        let documents = documents(manifest).unwrap();
        pods(&documents).iter().map(|pod| pod.look(Some(&config), &identity.parse().unwrap())).collect()
    }

    #[test]
    fn a_manifest_is_looked_at_as_the_webhook_would() {
        let spec = "spec: {containers: [{name: app}]}";
        let pod =
            |annotation: &str| format!("kind: Pod\nmetadata: {{name: x, annotations: {{{annotation}}}}}\n{spec}\n");
        let fine = "hushpod.dev/file.x: secret/data/x#y";
        for (manifest, identity, part) in [
            (pod(fine), "a/web", "nothing against it"),
            (pod(fine), "b/web", "hushpod explain allow"),
            (pod("hushpod.dev/fiel.x: secret"), "a/web", "did you mean"),
            (pod("x: z"), "a/web", "asks for nothing"),
            (
                format!(
                    "kind: AdmissionReview\nrequest:\n  object:\n    metadata: {{annotations: {{hushpod.dev/mode: x}}}}\n    {spec}\n"
                ),
                "a/web",
                "hushpod.dev/mode",
            ),
            (
                format!(
                    "kind: Deployment\nmetadata: {{name: w, annotations: {{{fine}}}}}\nspec: {{template: {{metadata: {{}}, {spec}}}}}\n"
                ),
                "a/web",
                "no effect",
            ),
            (format!("{}---\n{}", pod(fine), pod("hushpod.dev/hold: perhaps")), "a/web", "hushpod.dev/hold"),
        ] {
            let told = look(&manifest, identity);
            assert!(told.contains(part), "{manifest}: {told}");
        }
    }

    #[test]
    fn what_is_repeated_gives_the_terminal_no_orders() {
        let sentence = "annotation hushpod.dev/mode: \u{1b}[2J\nx";
        assert!(!told(sentence, &find(sentence)).replace('\n', "").contains(char::is_control));
    }
}
