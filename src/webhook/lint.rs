//! All that stands in a pod's way, not only the first: what `hushpod check` says of a manifest before anything is applied.
//!
//! The code that decides on pods stops at the first refusal. Here what is refused is taken out of the pod, and it is
//! asked again: what it was about is what makes the sentence vanish when it is not there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::mutate::{AskedPod, Injector, Mutation};
use super::pod::{LISTS, account_of, containers, env_of, name_of, take_annotations};
use super::pod_view::PodView;
use super::refusal::Refusal;
use crate::annotations::{self, SECRETS};
use crate::bundle::{Bundle, From};
use crate::config::{Config, ConfigError, Identity, NamespaceLabels};
use crate::contract::PREFIX;
use crate::options::Options;
use crate::plan::Plan;
use crate::steps;

/// Where in a pod its annotations are.
pub const ANNOTATIONS_PLACE: &str = ".metadata.annotations";

/// A cluster that can all, and a store that has all: where no operator's configuration is known.
const ANY_CONFIG: &str = "{image: any, defaultProvider: any, providers: {any: {type: file, path: /any}}, csi: {}}";
/// What everything is a reference to there.
const ANY: &str = "any";
/// Most refusals of one pod: who fixed so many asks again.
const MOST: usize = 50;
/// A field that the operator has to list the values of.
const RUNTIME_CLASS: &str = "runtimeClassName";
/// Fields of a pod's `spec` that may stand in the way.
const FIELDS: [&str; 7] =
    [RUNTIME_CLASS, "shareProcessNamespace", "hostPID", "os", "nodeSelector", "restartPolicy", "hostNetwork"];

/// Looks at pods as the webhook would.
#[derive(Debug)]
pub struct Linter {
    injector: Injector,
    /// Whether it is the operator's own, so what it says of stores counts.
    is_operators: bool,
}

/// Something that is wrong with a pod, or that its author should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodFault {
    /// What in the pod it is about, such as `.spec.containers[0].volumeMounts[1]`.
    pub path: String,
    /// What in an annotation's value, such as `[2].format`; empty if it is all of it.
    pub inside: String,
    /// As [`Refusal::reason`] has it.
    pub reason: &'static str,
    /// For its author.
    pub sentence: String,
}

/// What there is to say of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LintedPod {
    /// Each of them would deny it.
    pub faults: Vec<PodFault>,
    /// It is admitted with these.
    pub warnings: Vec<PodFault>,
}

/// A pod as it is written, less what was found wrong with it so far.
#[derive(Debug, Clone)]
struct Draft {
    /// Without its annotations.
    pod: Value,
    annotations: BTreeMap<String, String>,
    /// Places of items that no store can have.
    left_out: BTreeSet<String>,
}

/// One thing less in a pod.
#[derive(Debug)]
enum Repair {
    Annotation(String),
    /// A command, where there is none.
    Command(&'static str, usize),
    /// An entry of a container's list.
    Entry(&'static str, usize, &'static str, usize),
    /// A container that does nothing, of the same name or not.
    Container(&'static str, usize, bool),
    Volume(usize),
    Field(&'static str),
}

// === impl Linter ===

impl Linter {
    /// One that decides by the operator's configuration. Without it the names of stores, and what they take, are not
    /// judged, and the cluster is taken for one that has native sidecars and the CSI driver.
    ///
    /// # Errors
    /// None, but for a mistake of ours.
    pub fn new(config: Option<Config>) -> Result<Self, ConfigError> {
        let is_operators = config.is_some();
        let config = config.map_or_else(|| Config::from_yaml(ANY_CONFIG), Ok)?;
        Ok(Self { injector: Injector::forgetful(config), is_operators })
    }

    /// Whether some rule asks for the labels of namespaces.
    #[must_use]
    pub fn asks_for_labels(&self) -> bool {
        self.injector.asks_for_labels()
    }

    /// All that is wrong with a pod, or with the template of one; nothing, if it does not ask for secrets.
    #[must_use]
    pub fn lint(&self, pod: &Value, namespace: &str, labels: &NamespaceLabels) -> LintedPod {
        let mut linted = LintedPod::default();
        let written = pod.pointer("/metadata/annotations").and_then(Value::as_object);
        let ours = || written.into_iter().flatten().filter(|(key, _)| key.starts_with(PREFIX));
        let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        let annotations: BTreeMap<_, _> = written.into_iter().flatten().filter_map(text).collect();
        for (key, _) in ours().filter(|(_, value)| !value.is_string()) {
            let sentence = format!("annotation {key}: is not text: put it in quotes");
            linted.faults.push(PodFault::of_annotation(key, "", "annotation", sentence));
        }
        if !annotations::opts_in(&annotations) {
            return linted;
        }
        let mut draft = Draft {
            pod: json!({"metadata": {"labels": pod.pointer("/metadata/labels")}, "spec": pod.get("spec")}),
            annotations,
            left_out: BTreeSet::new(),
        };
        // Which of them a cluster's operator lists is not known.
        if let (false, Some(Value::Object(spec))) = (self.is_operators, draft.pod.get_mut("spec")) {
            spec.remove(RUNTIME_CLASS);
        }
        let (bundle, options, wrong) = steps::within(steps::REVIEW, || annotations::parse_all(&draft.annotations)).0;
        for error in &wrong {
            let key = format!("{PREFIX}{}", error.name());
            linted.faults.push(PodFault::of_annotation(&key, error.place(), "annotation", error.to_string()));
            if error.place().is_empty() {
                draft.annotations.remove(&key);
            }
        }
        if self.is_operators {
            self.check_plan(&mut draft, &bundle, &options, namespace, labels, &mut linted);
        }
        self.check_pod(draft, namespace, labels, &mut linted);
        linted
    }

    /// What no store, or no rule of the operator's, lets it have.
    fn check_plan(
        &self,
        draft: &mut Draft,
        bundle: &Bundle,
        options: &Options,
        namespace: &str,
        labels: &NamespaceLabels,
        linted: &mut LintedPod,
    ) {
        let config = self.injector.config();
        let account = account_of(draft.spec()).to_owned();
        let identity = Identity { namespace: namespace.to_owned(), service_account: account };
        let options = options.clone().or(&config.defaults);
        let plan = || Plan::faults(&identity, labels, bundle, &options, config);
        for error in steps::within(steps::REVIEW, plan).0 {
            let (key, inside) = split_place(&error.place);
            let is_unknown = labels.unknown().is_some_and(|why| error.is_denied && error.problem.ends_with(why));
            let reason = if error.is_denied { "policy" } else { "plan" };
            let fault = PodFault::of_annotation(key, inside, reason, error.to_string());
            // That may be so, and it may not.
            if is_unknown {
                linted.warnings.push(fault);
            } else {
                linted.faults.push(fault);
            }
            if inside.is_empty() {
                draft.annotations.remove(key);
            }
            draft.left_out.insert(error.place);
        }
    }

    /// What in the pod stands in the way, one by one.
    fn check_pod(&self, mut draft: Draft, namespace: &str, labels: &NamespaceLabels, linted: &mut LintedPod) {
        for _ in 0..MOST {
            let refusal = match self.decide(&draft, namespace, labels) {
                Ok(mutation) => {
                    linted.warnings.extend(mutation.warnings.into_iter().map(|sentence| draft.warning(sentence)));
                    return;
                }
                Err(refusal) => refusal,
            };
            let sentence = refusal.to_string();
            let is_told = |draft: &Draft| {
                self.decide(draft, namespace, labels).is_err_and(|refusal| refusal.to_string() == sentence)
            };
            let repairs = draft.repairs(&sentence);
            let mut repaired = repairs.iter().map(|repair| (repair.path(), draft.repaired(repair)));
            let (path, next) = match repaired.find(|(_, repaired)| !is_told(repaired)) {
                Some((path, next)) => (path, Some(next)),
                None if matches!(refusal, Refusal::Pod(_)) => (".spec".to_owned(), None),
                None => (ANNOTATIONS_PLACE.to_owned(), None),
            };
            linted.faults.push(PodFault { path, inside: String::new(), reason: refusal.reason(), sentence });
            let Some(next) = next else { return };
            draft = next;
        }
    }

    /// As the webhook does.
    fn decide(&self, draft: &Draft, namespace: &str, labels: &NamespaceLabels) -> Result<Mutation, Refusal> {
        let decided = || {
            let (mut bundle, mut options, _) = annotations::parse_all(&draft.annotations);
            bundle.items.retain(|item| !draft.left_out.contains(&item.place));
            if !self.is_operators {
                take_from_any(&mut bundle, &mut options)?;
            }
            let view = serde_json::from_str::<PodView>(&draft.text()).unwrap_or_default();
            let mut pod =
                view.0.ok_or_else(|| Refusal::Pod("the pod has more values than hushpod looks at".to_owned()))?;
            take_annotations(&mut pod);
            let asked = AskedPod { annotations: draft.annotations.clone(), bundle, options };
            self.injector.inject(pod, asked, namespace, labels.clone())
        };
        steps::within(steps::REVIEW, decided).0
    }
}

/// The annotation's key, and the place in its value, of an item's place.
#[must_use]
pub fn split_place(place: &str) -> (&str, &str) {
    let list = PREFIX.len() + SECRETS.len();
    match place.split_at_checked(list) {
        Some((key, inside)) if inside.starts_with('[') && key.strip_prefix(PREFIX) == Some(SECRETS) => (key, inside),
        _ => (place, ""),
    }
}

/// References to stores that nobody here knows.
fn take_from_any(bundle: &mut Bundle, options: &mut Options) -> Result<(), Refusal> {
    for item in &mut bundle.items {
        let reference = ANY.parse().map_err(|error| Refusal::Pod(format!("{error}")))?;
        item.from = From::One(reference);
    }
    options.roles.clear();
    options.provider = None;
    Ok(())
}

// === impl PodFault ===

impl PodFault {
    fn of_annotation(key: &str, inside: &str, reason: &'static str, sentence: String) -> Self {
        Self { path: format!("{ANNOTATIONS_PLACE}.{key}"), inside: inside.to_owned(), reason, sentence }
    }
}

// === impl Draft ===

impl Draft {
    fn spec(&self) -> &Value {
        self.pod.get("spec").unwrap_or(&Value::Null)
    }

    /// As the API server would send it.
    fn text(&self) -> String {
        let metadata = json!({"annotations": self.annotations, "labels": self.pod.pointer("/metadata/labels")});
        json!({"metadata": metadata, "spec": self.spec()}).to_string()
    }

    /// Annotations of ours whose names a sentence has at its beginning, or anywhere.
    fn annotations_in(&self, sentence: &str, is_beginning: bool) -> Vec<Repair> {
        let family = format!("{PREFIX}resources.");
        let is_meant = |key: &&String| {
            let mut ends = sentence.match_indices(key.as_str()).map(|(at, _)| (at, sentence.get(at + key.len()..)));
            let is_whole = |rest: Option<&str>| {
                !rest
                    .unwrap_or_default()
                    .starts_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '/'))
            };
            let is_family = key.starts_with(&family) && sentence.contains(&format!("{family}*"));
            is_family || ends.any(|(at, rest)| is_whole(rest) && (!is_beginning || at <= "annotation ".len()))
        };
        let ours = self.annotations.keys().filter(|key| key.starts_with(PREFIX));
        ours.filter(is_meant).map(|key| Repair::Annotation(key.clone())).collect()
    }

    /// Containers that a sentence names; the last first: of two by one name it is too many.
    fn containers_in(&self, sentence: &str) -> Vec<(&'static str, usize, &Value)> {
        let all = LISTS.into_iter().flat_map(|list| {
            containers(self.spec(), list).iter().enumerate().map(move |(index, container)| (list, index, container))
        });
        let is_named = |(_, _, container): &(_, _, &Value)| is_in(name_of(container), sentence);
        let mut found: Vec<_> = all.filter(is_named).collect();
        found.reverse();
        found
    }

    /// What could be meant by a sentence, the most likely first.
    fn repairs(&self, sentence: &str) -> Vec<Repair> {
        let mut repairs = self.annotations_in(sentence, true);
        let containers_in = self.containers_in(sentence);
        for (list, index, container) in &containers_in {
            let entries = |field| container.get(field).and_then(Value::as_array).into_iter().flatten().enumerate();
            let of = |field, at| Repair::Entry(list, *index, field, at);
            let mounts = entries("volumeMounts").filter(|(_, mount)| is_in(name_of(mount), sentence));
            let path =
                |device: &Value| is_in(device.get("devicePath").and_then(Value::as_str).unwrap_or_default(), sentence);
            let devices = entries("volumeDevices").filter(|(_, device)| path(device));
            let variables = env_of(container).iter().enumerate().filter(|(_, variable)| {
                let is_from_file = variable.get("valueFrom").is_some_and(|from| from.get("fileKeyRef").is_some());
                is_from_file || sentence.contains(name_of(variable))
            });
            repairs.extend(mounts.map(|(at, _)| of("volumeMounts", at)));
            repairs.extend(devices.map(|(at, _)| of("volumeDevices", at)));
            repairs.extend(variables.map(|(at, _)| of("env", at)));
            if sentence.contains("has no command") {
                repairs.push(Repair::Command(list, *index));
            }
        }
        for has_name in [true, false] {
            repairs.extend(containers_in.iter().map(|(list, index, _)| Repair::Container(list, *index, has_name)));
        }
        let volumes = containers(self.spec(), "volumes").iter().enumerate();
        repairs.extend(volumes.filter(|(_, it)| is_in(name_of(it), sentence)).map(|(at, _)| Repair::Volume(at)));
        let fields = FIELDS.into_iter().filter(|field| self.spec().get(field).is_some());
        repairs.extend(fields.map(Repair::Field));
        repairs.extend(self.annotations_in(sentence, false));
        repairs
    }

    fn repaired(&self, repair: &Repair) -> Self {
        let mut draft = self.clone();
        let at = |list: &str, index: usize| format!("/spec/{list}/{index}");
        let mut set = |path: &str, value: Value| {
            // What is left keeps its place.
            if let Some(entry) = draft.pod.pointer_mut(path) {
                *entry = value;
            }
        };
        match repair {
            Repair::Annotation(key) => drop(draft.annotations.remove(key)),
            Repair::Command(list, index) => {
                if let Some(Value::Object(container)) = draft.pod.pointer_mut(&at(list, *index)) {
                    container.insert("command".to_owned(), json!([ANY]));
                }
            }
            Repair::Entry(list, index, field, entry) => {
                set(&format!("{}/{field}/{entry}", at(list, *index)), json!({}));
            }
            Repair::Container(list, index, has_name) => {
                let container = self.pod.pointer(&at(list, *index)).unwrap_or(&Value::Null);
                let name = if *has_name { name_of(container).to_owned() } else { format!("{ANY}-{index}") };
                let bare = json!({"name": name, "command": [ANY], "securityContext": container.get("securityContext")});
                set(&at(list, *index), bare);
            }
            Repair::Volume(index) => set(&at("volumes", *index), json!({})),
            Repair::Field(field) => {
                if let Some(Value::Object(spec)) = draft.pod.get_mut("spec") {
                    spec.remove(*field);
                }
            }
        }
        draft
    }

    /// A sentence with the place that it is about, as far as it says so.
    fn warning(&self, sentence: String) -> PodFault {
        let mut repairs = self.annotations_in(&sentence, true);
        repairs.extend(
            self.containers_in(&sentence).into_iter().map(|(list, index, _)| Repair::Container(list, index, true)),
        );
        let path = repairs.first().map_or_else(|| ANNOTATIONS_PLACE.to_owned(), Repair::path);
        PodFault { path, inside: String::new(), reason: "advice", sentence }
    }
}

/// Whether a sentence names something.
fn is_in(name: &str, sentence: &str) -> bool {
    !name.is_empty() && sentence.contains(&format!("{name:?}"))
}

// === impl Repair ===

impl Repair {
    fn path(&self) -> String {
        match self {
            Self::Annotation(key) => format!("{ANNOTATIONS_PLACE}.{key}"),
            Self::Command(list, index) | Self::Container(list, index, _) => format!(".spec.{list}[{index}]"),
            Self::Entry(list, index, field, entry) => format!(".spec.{list}[{index}].{field}[{entry}]"),
            Self::Volume(index) => format!(".spec.volumes[{index}]"),
            Self::Field(field) => format!(".spec.{field}"),
        }
    }
}
