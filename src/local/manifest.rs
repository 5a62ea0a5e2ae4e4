//! Kubernetes' manifests: the pods in them that ask for secrets, as the API server would make them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde_json::Value;

use super::error::LocalError;
use super::source_file::SourceFile;
use crate::annotations::{self, opts_in};
use crate::bundle::{Bundle, parse_yaml_documents};
use crate::config::Identity;
use crate::contract::PREFIX;
use crate::options::Options;
use crate::parse_error::{ParseError, rule, unknown};
use crate::sentence::list;
use crate::webhook::review::{ANNOTATIONS_PLACE, account_of};

/// Where each kind has its pod.
const KINDS: [(&str, &str); 9] = [
    ("Pod", ""),
    ("PodTemplate", "/template"),
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];
/// Where whatever is an object of Kubernetes has its labels.
const LABELS: &str = ".metadata.labels";
/// Most objects of a file.
const MAX_OBJECTS: usize = 10_000;

/// An object of Kubernetes in a file.
#[derive(Debug)]
pub(super) struct ManifestObject {
    pub(super) kind: String,
    /// Which of the file's documents, of those that are not empty.
    pub(super) document: usize,
    /// Where in it: an object of a list has a path.
    pub(super) path: String,
    pub(super) value: Value,
}

/// A pod that a manifest makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ManifestPod {
    /// Kind and name of the object.
    name: String,
    annotations: BTreeMap<String, String>,
    /// An annotation of ours that no API server takes.
    not_text: Option<String>,
    pub(super) identity: Identity,
    containers: Vec<String>,
}

/// Whether a file's text is Kubernetes', not a project's.
pub(super) fn is_manifest(file: &SourceFile) -> bool {
    file.has(".apiVersion") || file.has(".kind")
}

/// The one pod of a file that asks for secrets: with `container`, the one that has it.
///
/// # Errors
/// One sentence that names the file, if it is not YAML, or if no pod or several ask.
pub(super) fn pod_of(file: &SourceFile, container: Option<&str>) -> Result<ManifestPod, LocalError> {
    let wrong = |problem: String| LocalError::usage(format!("{}: {problem}", file.shown));
    let documents = parse_yaml_documents(&file.text).map_err(|error| file.malformed(&error))?;
    let objects = objects(documents).map_err(|error| wrong(error.to_string()))?;
    let pods = |object: &ManifestObject| {
        let templates = object.templates().into_iter();
        templates.map(|(_, template)| ManifestPod::of(object, template)).collect::<Vec<_>>()
    };
    let mut asking: Vec<_> = objects.iter().flat_map(pods).collect();
    let has_ours = asking.iter().any(|pod| pod.annotations.keys().any(|key| key.starts_with(PREFIX)));
    asking.retain(|pod| opts_in(&pod.annotations) || pod.not_text.is_some());
    if asking.is_empty() {
        return Err(wrong(if has_ours {
            format!("the pods in it ask for no secrets: they have {PREFIX}{}: \"false\"", annotations::INJECT)
        } else {
            format!("no pod in it has an annotation {PREFIX}…")
        }));
    }
    let known: Vec<_> = asking.iter().flat_map(|pod| pod.containers.clone()).collect();
    if let Some(name) = container {
        asking.retain(|pod| pod.containers.iter().any(|known| known == name));
    }
    match (asking.pop(), asking.as_slice()) {
        (Some(pod), []) => Ok(pod),
        (Some(last), others) => {
            let names: Vec<_> = others.iter().chain([&last]).map(|pod| pod.name.as_str()).collect();
            let several = list(&names);
            Err(wrong(format!(
                "several pods ask for secrets, of {several}: name a container that only one has with --container"
            )))
        }
        (None, _) => {
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            Err(wrong(unknown("container", container.unwrap_or_default(), &known).to_string()))
        }
    }
}

/// Every object of a file's documents, those of lists one by one.
///
/// # Errors
/// [`ParseError`], if there are too many.
pub(super) fn objects(documents: Vec<Value>) -> Result<Vec<ManifestObject>, ParseError> {
    let mut found = Vec::new();
    let mut left: Vec<_> = documents.into_iter().enumerate().map(|(at, value)| (at, String::new(), value)).collect();
    left.reverse();
    let mut count = 0;
    while let Some((document, path, mut value)) = left.pop() {
        count += 1;
        if count > MAX_OBJECTS {
            return Err(rule(format!("has more than {MAX_OBJECTS} objects: make several files of it")));
        }
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(of_items) = kind.strip_suffix("List")
            && let Some(Value::Array(items)) = value.get_mut("items").map(Value::take)
        {
            let items = items.into_iter().enumerate().rev();
            left.extend(items.map(|(at, mut item)| {
                // An API server's own list says it once (`kubectl get --raw`).
                if let Value::Object(fields) = &mut item
                    && !of_items.is_empty()
                {
                    fields.entry("kind").or_insert_with(|| of_items.into());
                }
                (document, format!("{path}.items[{at}]"), item)
            }));
            continue;
        }
        found.push(ManifestObject { kind, document, path, value });
    }
    Ok(found)
}

/// Shows `look` each value with its path, as long as it says that what is in that one is of interest, too.
fn visit<'a>(path: &mut String, value: &'a Value, look: &mut impl FnMut(&str, &'a Value) -> bool) {
    if !look(path, value) {
        return;
    }
    let length = path.len();
    let mut deeper = |step: fmt::Arguments<'_>, value| {
        // Nothing fails that writes to a text.
        let _ = path.write_fmt(step);
        visit(path, value, look);
        path.truncate(length);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| deeper(format_args!(".{name}"), value)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| deeper(format_args!("[{index}]"), value));
        }
        _ => {}
    }
}

// === impl ManifestObject ===

impl ManifestObject {
    /// The pods that it makes, and where in the object each is. Those of kinds that are not Kubernetes' own (Rollouts,
    /// Services of Knative, JobSets and the like) are wherever there are a `spec` and containers in it.
    pub(super) fn templates(&self) -> Vec<(String, &Value)> {
        if let Some((_, place)) = KINDS.iter().find(|(kind, _)| *kind == self.kind) {
            let template = self.value.pointer(place).map(|template| (place.replace('/', "."), template));
            return template.into_iter().collect();
        }
        let mut found = Vec::new();
        visit(&mut String::new(), &self.value, &mut |path, value| {
            let is_pod = !path.is_empty() && value.pointer("/spec/containers").is_some_and(Value::is_array);
            if is_pod {
                found.push((path.to_owned(), value));
            }
            !is_pod
        });
        found
    }

    /// Annotations of ours that are neither its own nor of one of `templates`: paths of maps, and keys in them.
    pub(super) fn stray_annotations(&self, templates: &[(String, &Value)]) -> Vec<(String, &str)> {
        let is_known = |path: &str| {
            let of_pods = templates.iter().map(|(place, _)| place.as_str());
            of_pods.chain([""]).any(|place| path.strip_prefix(place) == Some(ANNOTATIONS_PLACE))
        };
        self.keys_where(|path| path.ends_with(".annotations") && !is_known(path), |key| key.starts_with(PREFIX))
    }

    /// Annotations of ours that are written as labels: paths of maps, and keys in them.
    pub(super) fn labels(&self) -> Vec<(String, &str)> {
        self.keys_where(|path| path.ends_with(LABELS), annotations::is_known)
    }

    fn keys_where(&self, is_map: impl Fn(&str) -> bool, is_key: impl Fn(&str) -> bool) -> Vec<(String, &str)> {
        let mut found = Vec::new();
        visit(&mut String::new(), &self.value, &mut |path, value| {
            if let Some(fields) = value.as_object().filter(|_| is_map(path)) {
                let keys = fields.keys().filter(|key| is_key(key));
                found.extend(keys.map(|key| (path.to_owned(), key.as_str())));
            }
            true
        });
        found
    }

    /// Its own name, or the beginning of it.
    pub(super) fn name(&self) -> &str {
        let name = self.value.pointer("/metadata/name").or_else(|| self.value.pointer("/metadata/generateName"));
        name.and_then(Value::as_str).unwrap_or_default()
    }

    /// The namespace that it says, if it says one.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.value.pointer("/metadata/namespace").and_then(Value::as_str)
    }
}

// === impl ManifestPod ===

impl ManifestPod {
    /// A pod that an object makes.
    pub(super) fn of(object: &ManifestObject, template: &Value) -> Self {
        let text = |at: &str, of: &Value| of.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let annotations = template.pointer("/metadata/annotations").and_then(Value::as_object);
        let annotations = annotations.into_iter().flatten();
        let names = |field: &str| {
            let containers = template.pointer(field).and_then(Value::as_array).into_iter().flatten();
            containers.filter_map(|container| text("/name", container)).collect::<Vec<_>>()
        };
        Self {
            name: format!("{} {}", object.kind, object.name()),
            not_text: annotations
                .clone()
                .find(|(key, value)| key.starts_with(PREFIX) && !value.is_string())
                .map(|(key, _)| key.clone()),
            annotations: annotations
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            identity: Identity {
                namespace: object.namespace().unwrap_or("default").to_owned(),
                service_account: account_of(template.get("spec").unwrap_or(&Value::Null)).to_owned(),
            },
            containers: [names("/spec/containers"), names("/spec/initContainers")].concat(),
        }
    }

    /// As they are written.
    pub(super) fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// What it asks for. Its roles are a pod's and are left out: the third are the annotations that say them.
    ///
    /// # Errors
    /// One sentence that names the annotation, or says that `container` gets nothing.
    pub(super) fn bundle(
        &self,
        file: &SourceFile,
        container: Option<&str>,
    ) -> Result<(Bundle, Options, Vec<String>), LocalError> {
        let wrong = |problem: String| LocalError::usage(format!("{}: {}: {problem}", file.shown, self.name));
        if let Some(key) = &self.not_text {
            return Err(wrong(format!("annotation {key}: is not text: put it in quotes")));
        }
        let (bundle, mut options) = annotations::parse(&self.annotations).map_err(|error| wrong(error.to_string()))?;
        if let (Some(name), Some(selected)) = (container, &options.containers)
            && !selected.contains(name)
        {
            return Err(wrong(format!("container {name:?} gets no secrets: {PREFIX}containers does not name it")));
        }
        let roles = std::mem::take(&mut options.roles);
        let ignored = roles.into_keys().map(|provider| format!("{PREFIX}{}{provider}", annotations::ROLE)).collect();
        Ok((bundle, options, ignored))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn file(text: &str) -> SourceFile {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yaml");
        fs::write(&path, text).unwrap();
        SourceFile::read(&path).unwrap()
    }

    const POD: &str = "metadata: {annotations: {hushpod.dev/env.A: 'vault:secret/data/a#a', hushpod.dev/role.vault: web}}, \
                       spec: {serviceAccountName: web, containers: [{name: app}, {name: side}]}";

    #[test]
    fn every_kind_has_its_pod_where_the_api_server_looks_for_it() {
        let pod = format!("{{{POD}}}");
        for text in [
            format!("{{kind: Pod, {POD}}}"),
            format!("{{kind: Deployment, metadata: {{name: web}}, spec: {{template: {pod}}}}}"),
            format!("{{kind: StatefulSet, spec: {{template: {pod}}}}}"),
            format!("{{kind: DaemonSet, spec: {{template: {pod}}}}}"),
            format!("{{kind: Job, spec: {{template: {pod}}}}}"),
            format!("{{kind: CronJob, spec: {{jobTemplate: {{spec: {{template: {pod}}}}}}}}}"),
            format!("{{kind: Rollout, spec: {{template: {pod}}}}}"),
            format!("{{kind: PodTemplate, template: {pod}}}"),
            format!("{{kind: ScaledJob, spec: {{jobTargetRef: {{template: {pod}}}}}}}"),
            format!("{{kind: JobSet, spec: {{replicatedJobs: [{{template: {{spec: {{template: {pod}}}}}}}]}}}}"),
            format!("{{kind: PodList, items: [{{{POD}}}]}}"),
            format!("kind: ConfigMap\n---\n{{kind: List, items: [{{kind: Service}}, {{kind: Pod, {POD}}}]}}"),
        ] {
            let file = file(&text);
            assert!(is_manifest(&file), "{text}");
            let pod = pod_of(&file, Some("app")).unwrap();
            assert_eq!(pod.identity.service_account, "web", "{text}");
            let (bundle, options, ignored) = pod.bundle(&file, Some("app")).unwrap();
            assert_eq!((bundle.items.len(), options.environment.len(), options.roles.len()), (1, 1, 0));
            assert_eq!(ignored, ["hushpod.dev/role.vault"]);
        }
        assert!(!is_manifest(&file("providers: {}")));
    }

    #[test]
    fn p9_a_file_has_so_many_objects_and_not_one_more() {
        // The list is one of them.
        let list = |items| vec![json!({"kind": "List", "items": vec![json!({"kind": "Service"}); items]})];
        assert_eq!(objects(list(MAX_OBJECTS - 1)).unwrap().len(), MAX_OBJECTS - 1);
        let problem = objects(list(MAX_OBJECTS)).unwrap_err().to_string();
        assert!(problem.contains("more than 10000 objects: make several files"), "{problem}");
    }

    #[test]
    fn p9_a_file_that_is_not_about_one_pod_says_so() {
        let two = format!("{{kind: Pod, {POD}}}\n---\n{{kind: Job, spec: {{template: {{{POD}}}}}}}");
        for (text, container, part) in [
            ("kind: Service\n", None, "no pod in it has an annotation hushpod.dev/"),
            (&two, None, "of Pod , Job "),
            (&two, Some("app"), "several pods ask"),
            (&format!("{{kind: Pod, {POD}}}"), Some("ap"), "did you mean \"app\"?"),
            ("kind: [\n", None, "is not YAML"),
            (
                "{kind: Pod, metadata: {annotations: {hushpod.dev/env.A: a, hushpod.dev/inject: 'false'}}}",
                None,
                "they have hushpod.dev/inject: \"false\"",
            ),
        ] {
            let error = pod_of(&file(text), container).unwrap_err().problem;
            assert!(error.contains(part) && error.contains("web.yaml"), "{text}: {error}");
        }
        for (annotations, part) in [
            ("hushpod.dev/fiel.a: x", "did you mean"),
            ("hushpod.dev/env.A: 5", "annotation hushpod.dev/env.A: is not text: put it in quotes"),
            ("hushpod.dev/env.A: a, hushpod.dev/hold: true", "annotation hushpod.dev/hold: is not text"),
        ] {
            let file = file(&format!("{{kind: Pod, metadata: {{annotations: {{{annotations}}}}}}}"));
            let error = pod_of(&file, None).unwrap().bundle(&file, None).unwrap_err().problem;
            assert!(error.contains(part), "{annotations}: {error}");
        }
    }
}
