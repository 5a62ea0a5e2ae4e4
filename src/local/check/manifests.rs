//! Kubernetes' objects: what the webhook would say to the pods that they make, and annotations that no pod gets.

use std::collections::BTreeMap;

use serde_json::Value;

use super::files::FoundFile;
use super::findings::{Checked, FindingKind};
use super::live::LiveCheck;
use crate::annotations::opts_in;
use crate::bundle::{Places, TextPosition, parse_yaml_documents};
use crate::config::{Config, NamespaceLabels};
use crate::contract::PREFIX;
use crate::local::error::LocalError;
use crate::local::manifest::{ManifestObject, ManifestPod, objects};
use crate::local::source_file::{FileFault, SourceFile};
use crate::webhook::review::{ANNOTATIONS_PLACE, LintedPod, Linter, PodFault};

/// The kind whose labels rules may ask for.
const NAMESPACE: &str = "Namespace";
/// The label that the API server gives each namespace.
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-metadata-name>)
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The operator's configuration, and what is known of namespaces.
pub(super) struct CheckedBy {
    linter: Linter,
    namespace: String,
    /// What the command line says of all namespaces.
    labels: NamespaceLabels,
    /// What manifests say of theirs.
    known: BTreeMap<String, NamespaceLabels>,
}

/// A pod that an object of a file makes.
struct FoundTemplate<'a> {
    file: &'a SourceFile,
    object: &'a ManifestObject,
    /// Where in the object it is.
    path: &'a str,
    value: &'a Value,
}

/// Says what is wrong with every object of a file.
pub(super) fn check(
    file: &SourceFile,
    documents: Vec<Value>,
    by: &CheckedBy,
    mut live: Option<&mut LiveCheck>,
    checked: &mut Checked,
) {
    let objects = match objects(documents) {
        Ok(objects) => objects,
        Err(problem) => return checked.fault(file, FindingKind::Yaml, file.fault("", problem)),
    };
    for object in &objects {
        let templates = object.templates();
        misplaced(file, object, &templates, checked);
        let namespace = object.namespace().unwrap_or(&by.namespace);
        for (path, value) in &templates {
            let template = FoundTemplate { file, object, path, value };
            let LintedPod { faults, warnings } = by.linter.lint(value, namespace, by.labels_of(namespace));
            for fault in faults {
                checked.fault(file, FindingKind::of_reason(fault.reason), template.placed(fault));
            }
            for warning in warnings {
                checked.warn(file, FindingKind::of_reason(warning.reason), template.placed(warning));
            }
            let pod = ManifestPod::of(object, value);
            if !opts_in(pod.annotations()) {
                continue;
            }
            checked.pods += 1;
            if let Some(live) = &mut live {
                let at = |key: &str, inside: &str| template.position(&format!("{ANNOTATIONS_PLACE}.{key}"), inside);
                live.add_pod(file, &pod, namespace, at);
            }
        }
    }
}

/// Annotations that no pod gets, or of which nobody knows whether one does: on an object itself, somewhere else in it, or
/// written as labels.
fn misplaced(file: &SourceFile, object: &ManifestObject, templates: &[(String, &Value)], checked: &mut Checked) {
    let kind = &object.kind;
    let mut warn = |path: &str, key: &str, problem: String| {
        let at = file.position(object.document, &format!("{}{path}.{key}", object.path));
        checked.warn(file, FindingKind::Misplaced, FileFault { at, problem });
    };
    let place = templates.first().map(|(path, _)| format!("{path}{ANNOTATIONS_PLACE}"));
    let place = place.as_deref().map(|place| place.trim_start_matches('.'));
    let is_pod = templates.first().is_some_and(|(path, _)| path.is_empty());
    let own = object.value.pointer("/metadata/annotations").and_then(Value::as_object).filter(|_| !is_pod);
    for key in own.into_iter().flat_map(|all| all.keys()).filter(|key| key.starts_with(PREFIX)) {
        let problem = match place {
            Some(place) => {
                format!("annotation {key}: stands on the {kind} itself, whose pods do not get it: write it to {place}")
            }
            None => format!("annotation {key}: stands on a {kind}, which makes no pods: write it to what does"),
        };
        warn(ANNOTATIONS_PLACE, key, problem);
    }
    for (path, key) in object.stray_annotations(templates) {
        let told = path.trim_start_matches('.');
        let pods = place.map(|place| format!(": pods have theirs in {place}")).unwrap_or_default();
        warn(&path, key, format!("annotation {key}: stands in {told} of a {kind}, and was not checked{pods}"));
    }
    for (path, key) in object.labels() {
        warn(&path, key, format!("label {key}: is an annotation: write it below annotations, beside these labels"));
    }
}

// === impl FoundTemplate ===

impl FoundTemplate<'_> {
    fn placed(&self, fault: PodFault) -> FileFault {
        FileFault { at: self.position(&fault.path, &fault.inside), problem: fault.sentence }
    }

    /// The place of a field of the pod. What is in the text of an annotation has one, too, where its lines stand as they
    /// are.
    fn position(&self, path: &str, inside: &str) -> Option<TextPosition> {
        let Self { file, object, path: template, value } = self;
        let whole = format!("{}{template}{path}", object.path);
        let (at, places, _) = file.places().get(object.document)?.follow(&whole);
        let text = || {
            let key = path.strip_prefix(ANNOTATIONS_PLACE)?.strip_prefix('.')?;
            value.pointer("/metadata/annotations")?.get(key)?.as_str()
        };
        let deeper = || inside_lines(&file.text, at, places, text()?, inside);
        Some(deeper().filter(|_| !inside.is_empty()).unwrap_or(at))
    }
}

/// The place of what is inside a block of lines (`|`) below its key, by its place in the block's text.
fn inside_lines(file: &str, (key, _): TextPosition, places: &Places, text: &str, inside: &str) -> Option<TextPosition> {
    if !places.is_lines() {
        return None;
    }
    let (line, column) = Places::of_documents(text).first()?.follow(inside).0;
    let indentation = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let is_filled = |line: &&str| !line.trim().is_empty();
    let written = indentation(file.lines().skip(usize::try_from(key).ok()?).find(is_filled)?);
    let removed = written.checked_sub(indentation(text.lines().find(is_filled)?))?;
    Some((key + line, column + removed as u64))
}

/// Labels of the namespaces that a file makes.
fn labels_of(listed: &FoundFile) -> Vec<(String, NamespaceLabels)> {
    let Ok(Some(file)) = listed.read(&mut Checked::default()) else { return Vec::new() };
    if !file.text.contains(NAMESPACE) {
        return Vec::new();
    }
    let objects = parse_yaml_documents(&file.text).ok().and_then(|documents| objects(documents).ok());
    let namespaces = objects.unwrap_or_default().into_iter().filter(|object| object.kind == NAMESPACE);
    let labels = |object: ManifestObject| {
        let labels = object.value.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        let own = [(NAME_LABEL.to_owned(), object.name().to_owned())];
        (object.name().to_owned(), NamespaceLabels::known(labels.filter_map(text).chain(own).collect()))
    };
    namespaces.map(labels).collect()
}

// === impl CheckedBy ===

impl CheckedBy {
    /// By an operator's configuration, or by none; `labels` are those of all namespaces, if they are known.
    ///
    /// # Errors
    /// None, but for a mistake of ours.
    pub(super) fn new(config: Option<Config>, namespace: String, labels: NamespaceLabels) -> Result<Self, LocalError> {
        let linter = Linter::new(config)?;
        let labels = if linter.asks_for_labels() { labels } else { NamespaceLabels::NotAsked };
        Ok(Self { linter, namespace, labels, known: BTreeMap::new() })
    }

    /// Remembers the labels of the namespaces that a file makes, if some rule asks for labels.
    pub(super) fn learn(&mut self, listed: &FoundFile) {
        if self.linter.asks_for_labels() {
            self.known.extend(labels_of(listed));
        }
    }

    fn labels_of(&self, namespace: &str) -> &NamespaceLabels {
        match &self.labels {
            NamespaceLabels::Unknown(_) => self.known.get(namespace).unwrap_or(&self.labels),
            labels => labels,
        }
    }
}
