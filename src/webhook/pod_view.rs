//! Reads only the fields of a pod that injection looks at: building values for the rest would double the cost of a
//! request.
//!
//! The patch is made of single operations, so what is not seen here is not touched either.
//!
//! Values are counted as they are made: three megabytes of text could be a quarter of a
//! gigabyte of them.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::pod::MIRROR;
use crate::annotations::asks_for_variables;
use crate::contract::{CSI_DAEMON_SET_ANNOTATION, PREFIX};
use crate::steps;

/// What our containers and volumes are named with.
const OUR_PREFIX: &str = "hushpod";

/// Most values of a pod that are kept: what Kubernetes would store has fewer, and an object takes up to 700 bytes here.
pub const MAX_NODES: usize = 50_000;

/// A pod, as far as injection looks at it; `None` if that is more than [`MAX_NODES`].
#[derive(Debug, Default)]
pub(super) struct PodView(pub Option<Value>);

/// A place, and how many values were kept before.
#[derive(Clone, Copy)]
struct Seed<'a> {
    place: PodPlace,
    nodes: &'a Cell<usize>,
}

/// Where in a pod a value stands.
#[derive(Debug, Clone, Copy)]
enum PodPlace {
    Pod,
    Metadata,
    /// Those of others may be large: what was applied last, for one.
    Annotations,
    Spec(Commands),
    Container(Commands),
    Volume,
    /// A container's environment, or one variable of it: what it takes out of a volume, and its name where that is
    /// looked at.
    Environment(Commands),
    /// Where a variable's value comes from: of interest is a file of a volume.
    VariableSource,
    /// A pod's, or another's container's.
    SecurityContext,
    /// A pod's, or another's container's: what it has of CPU and memory.
    Resources,
    Quantities,
    /// A container's ports, or one of them.
    Ports,
    /// A container's block devices, or one of them.
    Devices,
    /// Hardly any configuration asks about it: the text is kept.
    Text,
    /// Only whether it is there.
    Presence,
    /// All of it is kept.
    Whole,
}

/// Whether the commands and variables of others' containers are looked at.
#[derive(Debug, Clone, Copy)]
enum Commands {
    Seen,
    PassedOver,
}

impl PodPlace {
    /// The place of a field; `None` if it is passed over. Of containers and volumes that are known to be others', little
    /// is looked at.
    fn field(self, name: &str, is_others: bool) -> Option<Self> {
        let is_kept = match self {
            Self::Pod if name == "metadata" => return Some(Self::Metadata),
            // Annotations may come later, and ask for them.
            Self::Pod if name == "spec" => return Some(Self::Spec(Commands::Seen)),
            Self::Metadata if name == "annotations" => return Some(Self::Annotations),
            Self::Metadata if name == "labels" => return Some(Self::Text),
            Self::Metadata => name == "generateName",
            Self::Annotations => name.starts_with(PREFIX) || name == MIRROR || name == CSI_DAEMON_SET_ANNOTATION,
            Self::Spec(commands) => match name {
                "containers" | "initContainers" | "ephemeralContainers" => return Some(Self::Container(commands)),
                "volumes" => return Some(Self::Volume),
                "securityContext" => return Some(Self::SecurityContext),
                "resources" => return Some(Self::Resources),
                "tolerations" => return Some(Self::Text),
                _ => matches!(
                    name,
                    "automountServiceAccountToken"
                        | "hostNetwork"
                        | "hostPID"
                        | "imagePullSecrets"
                        | "nodeSelector"
                        | "os"
                        | "restartPolicy"
                        | "runtimeClassName"
                        | "serviceAccount"
                        | "serviceAccountName"
                        | "shareProcessNamespace"
                        | "terminationGracePeriodSeconds"
                ),
            },
            Self::Container(commands) if is_others => match (name, commands) {
                ("name" | "restartPolicy" | "targetContainerName" | "volumeMounts", _)
                | ("args" | "command", Commands::Seen) => true,
                ("resources", _) => return Some(Self::Resources),
                ("ports", _) => return Some(Self::Ports),
                ("volumeDevices", _) => return Some(Self::Devices),
                ("securityContext", _) => return Some(Self::SecurityContext),
                ("env", commands) => return Some(Self::Environment(commands)),
                _ => false,
            },
            Self::Volume if is_others => match name {
                "configMap" | "downwardAPI" | "projected" | "secret" => return Some(Self::Presence),
                _ => name == "name",
            },
            Self::Environment(commands) => match (name, commands) {
                ("valueFrom", _) => return Some(Self::VariableSource),
                ("name", Commands::Seen) => true,
                _ => false,
            },
            Self::VariableSource => name == "fileKeyRef",
            Self::Resources if matches!(name, "limits" | "requests") => return Some(Self::Quantities),
            Self::Quantities => matches!(name, "cpu" | "memory"),
            Self::Ports => matches!(name, "containerPort" | "protocol"),
            Self::Devices => name == "devicePath",
            Self::SecurityContext => matches!(name, "fsGroup" | "runAsGroup" | "runAsUser"),
            Self::Container(_) | Self::Volume | Self::Whole => true,
            Self::Pod | Self::Presence | Self::Resources | Self::Text => false,
        };
        is_kept.then_some(Self::Whole)
    }

    /// Whether a value here is one of which nothing was of interest: most variables are.
    fn is_nothing(self, value: &Value) -> bool {
        matches!(self, Self::Environment(Commands::PassedOver) | Self::VariableSource)
            && match value {
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => false,
            }
    }

    fn has_names(self) -> bool {
        matches!(self, Self::Container(_) | Self::Volume)
    }
}

impl<'de> Deserialize<'de> for PodView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let nodes = Cell::new(0);
        let pod = Seed { place: PodPlace::Pod, nodes: &nodes }.deserialize(deserializer)?;
        steps::spend(nodes.get());
        Ok(Self((nodes.get() <= MAX_NODES).then_some(pod)))
    }
}

impl Seed<'_> {
    fn is_full(&self) -> bool {
        self.nodes.get() > MAX_NODES
    }

    /// Variables that are of interest only where one comes out of a file: hardly any pod's do, and most text of a usual
    /// pod is here.
    fn variables<E: Error>(self, variables: &RawValue) -> Result<Value, E> {
        let text = variables.get();
        // An escape could spell the word otherwise.
        if !text.contains("fileKeyRef") && !text.contains('\\') {
            self.nodes.set(self.nodes.get() + 1);
            return Ok(Value::Array(Vec::new()));
        }
        self.deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(E::custom)
    }

    fn text(self, value: &RawValue) -> Value {
        self.nodes.set(self.nodes.get() + 1);
        value.get().into()
    }

    /// What was read is not kept after all.
    fn forget(self) {
        if !self.is_full() {
            self.nodes.set(self.nodes.get() - 1);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.nodes.set(self.nodes.get() + 1);
        if matches!(self.place, PodPlace::Presence) || self.is_full() {
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

/// What should be an object or a list and is neither is kept: what looks at it will say so.
impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while !self.is_full() {
            let Some(value) = items.next_element_seed(self)? else { return Ok(Value::Array(values)) };
            if self.place.is_nothing(&value) {
                self.forget();
            } else {
                values.push(value);
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        // API servers write the name first; fields before it are kept.
        let mut is_others = false;
        while let Some(Name(name)) = fields.next_key()? {
            let Some(place) = self.place.field(&name, is_others).filter(|_| !self.is_full()) else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            let place = match place {
                // API servers write the annotations first, so it is known by now what they ask for.
                PodPlace::Spec(_) if values.get("metadata").is_some_and(|metadata| !asks_for_commands(metadata)) => {
                    PodPlace::Spec(Commands::PassedOver)
                }
                place => place,
            };
            let seed = Seed { place, ..self };
            let value = match place {
                PodPlace::Environment(Commands::PassedOver) => seed.variables(fields.next_value()?)?,
                PodPlace::Text => seed.text(fields.next_value()?),
                _ => fields.next_value_seed(seed)?,
            };
            if place.is_nothing(&value) {
                self.forget();
                continue;
            }
            if self.place.has_names() && name == "name" {
                is_others = value.as_str().is_some_and(|name| !name.starts_with(OUR_PREFIX));
            }
            values.insert(name.into_owned(), value);
        }
        Ok(Value::Object(values))
    }
}

fn asks_for_commands(metadata: &Value) -> bool {
    let annotations = metadata.get("annotations").and_then(Value::as_object);
    annotations.is_some_and(|annotations| asks_for_variables(annotations.keys()))
}

/// A field's name, borrowed if it can be: serde lends to `Cow` only if told so.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(text: &str) -> Value {
        serde_json::from_str::<PodView>(text).unwrap().0.unwrap()
    }

    #[test]
    fn what_injection_does_not_look_at_is_passed_over() {
        let mount = json!({"name": "data", "mountPath": "/data"});
        let ours = json!({"name": "hushpod", "env": [{"name": "é\n", "value": null}], "madeUp": [1, -2, 0.5, true]});
        let pod = json!({
            "metadata": {"annotations": {"a": "b", "hushpod.dev/mode": "init"}, "labels": {"a": "b"}, "managedFields": [{}]},
            "spec": {
                "containers": [{"name": "web", "env": [], "image": "x", "volumeMounts": [mount]}, ours],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "hushpod-state", "emptyDir": {}}],
                "restartPolicy": "Always",
                "resources": {"limits": {"cpu": "1", "memory": 2, "hugepages-2Mi": "4Mi"}, "claims": [{"name": "x"}]},
                "tolerations": [{"key": "a", "operator": "Exists"}],
            },
            "status": {"phase": "Pending"},
        });
        let first = seen(&pod.to_string());
        let expected = json!({
            "metadata": {"annotations": {"hushpod.dev/mode": "init"}, "labels": r#"{"a":"b"}"#},
            "spec": {
                // Sorted, `env` comes before `name` here.
                "containers": [{"name": "web", "env": [], "image": "x", "volumeMounts": [mount]}, ours],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "hushpod-state", "emptyDir": {}}],
                "restartPolicy": "Always",
                "resources": {"limits": {"cpu": "1", "memory": 2}},
                "tolerations": r#"[{"key":"a","operator":"Exists"}]"#,
            },
        });
        assert_eq!(first, expected);
        let as_sent = r#"{"spec": {"containers": [{"name": "web", "image": "x", "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "1"}}, "ports": [{"containerPort": 80, "name": "a"}], "volumeDevices": [{"devicePath": "/x", "name": "b"}], "command": ["a"], "env": [{"name": "A", "value": "b", "valueFrom": {}}]}], "volumes": [{"name": "a", "b": 1}, {"name": "c", "configMap": {"name": "d"}}], "securityContext": {"fsGroup": 1, "sysctls": []}}}"#;
        assert_eq!(
            seen(as_sent),
            json!({"spec": {"containers": [{"name": "web", "resources": {"requests": {"cpu": "1"}}, "ports": [{"containerPort": 80}], "volumeDevices": [{"devicePath": "/x"}], "command": ["a"], "env": [{"name": "A"}]}], "volumes": [{"name": "a"}, {"name": "c", "configMap": null}], "securityContext": {"fsGroup": 1}}})
        );
    }

    #[test]
    fn commands_are_looked_at_only_if_variables_are_asked_for() {
        let spec = r#""spec": {"containers": [{"name": "web", "args": ["a"], "command": ["b"], "restartPolicy": "Always", "env": [{"name": "A", "value": "c"}]}]}"#;
        let metadata = |key: &str| format!(r#""metadata": {{"annotations": {{"{key}": "x"}}}}"#);
        let (plain, asks) = (metadata("hushpod.dev/environment"), metadata("hushpod.dev/env.A"));
        for (text, are_seen) in [
            (format!("{{{plain}, {spec}}}"), false),
            (format!(r#"{{"metadata": {{"name": "x"}}, {spec}}}"#), false),
            (format!("{{{asks}, {spec}}}"), true),
            (format!("{{{}, {spec}}}", metadata("hushpod.dev/env")), true),
            // It is not known yet.
            (format!("{{{spec}, {plain}}}"), true),
            (format!("{{{spec}, {asks}}}"), true),
            (format!("{{{spec}}}"), true),
        ] {
            let pod = seen(&text);
            let whole = json!([{"name": "web", "args": ["a"], "command": ["b"], "restartPolicy": "Always", "env": [{"name": "A"}]}]);
            let expected = if are_seen { whole } else { json!([{"name": "web", "restartPolicy": "Always"}]) };
            assert_eq!(pod["spec"]["containers"], expected, "{text}");
        }
    }

    #[test]
    fn variables_out_of_volumes_are_looked_at_in_any_case() {
        let key = r#"{"name": "K", "valueFrom": {"fileKeyRef": {"volumeName": "v"}}}"#;
        let others = r#"{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "c"}}}"#;
        let taken = json!({"valueFrom": {"fileKeyRef": {"volumeName": "v"}}});
        for (list, annotation) in
            [("containers", "hushpod.dev/mode"), ("initContainers", "x"), ("ephemeralContainers", "x")]
        {
            let metadata = format!(r#""metadata": {{"annotations": {{"{annotation}": "x"}}}}"#);
            let spec = format!(r#""spec": {{"{list}": [{{"name": "web", "env": [{others}, {key}]}}]}}"#);
            let pod = seen(&format!("{{{metadata}, {spec}}}"));
            assert_eq!(pod["spec"][list], json!([{"name": "web", "env": [taken]}]), "{list}");
        }
        let target = r#"{"spec": {"ephemeralContainers": [{"name": "debug", "targetContainerName": "hushpod"}]}}"#;
        assert_eq!(seen(target)["spec"]["ephemeralContainers"][0]["targetContainerName"], "hushpod");
    }

    #[test]
    fn values_are_counted_while_they_are_read() {
        let pod = |list: &str, item: &str, count: usize| {
            let items = vec![item; count].join(",");
            format!(
                r#"{{"spec": {{"{list}": [{items}]}}, "metadata": {{"annotations": {{"hushpod.dev/mode": "init"}}}}}}"#
            )
        };
        // The pod, its spec, the list; metadata, annotations and their one.
        let around = 6;
        for (list, item, nodes) in [
            ("imagePullSecrets", "0", 1),
            ("imagePullSecrets", "[]", 1),
            ("imagePullSecrets", r#"{"a":[{}]}"#, 3),
            ("volumes", r#"{"name":"a"}"#, 2),
            ("containers", r#"{"name":"a","image":"x","volumeMounts":[0,0,0]}"#, 6),
            ("containers", r#"{"env":[{"name":"a","value":"b"}]}"#, 5),
            ("initContainers", r#"{"name":"hushpod","madeUp":{"a":{"b":[null]}}}"#, 6),
        ] {
            let most = (MAX_NODES - around) / nodes;
            let read = |count| serde_json::from_str::<PodView>(&pod(list, item, count)).unwrap().0;
            assert!(read(most).is_some_and(|pod| pod["spec"][list].as_array().unwrap().len() == most), "{list} {item}");
            assert_eq!(read(most + 1), None, "{list} {item}");
        }
        let passed_over = pod("topologySpreadConstraints", "0", 2 * MAX_NODES);
        assert!(seen(&passed_over)["spec"].as_object().unwrap().is_empty());
        assert!(serde_json::from_str::<PodView>(&pod("volumes", "tru", 2)).is_err());
        let late = pod("volumes", "0", 2 * MAX_NODES).replace("0]", "tru]");
        assert!(serde_json::from_str::<PodView>(&late).is_err(), "what is not kept is read all the same");
    }

    #[test]
    fn what_is_no_json_is_refused_wherever_it_stands() {
        for text in [r#"{"status": [1,]}"#, r#"{"spec": {"containers": [{"name": "a", "env": tru}]}}"#] {
            assert!(serde_json::from_str::<PodView>(text).is_err(), "{text}");
        }
        for text in
            ["null", "1", "-1", "0.5", "true", "\"a\"", "[]", "{\"spec\": null}", "{\"spec\": {\"containers\": 7}}"]
        {
            assert_eq!(seen(text), serde_json::from_str::<Value>(text).unwrap());
        }
    }
}
