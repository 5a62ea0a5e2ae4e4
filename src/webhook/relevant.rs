//! Parsing what injection looks at, and passing over the rest: most of a usual pod is of no interest here, and making
//! values of it would be half of the work.
//!
//! The patch is made of single operations, so that what is not seen here is not touched either.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::mutate::MIRROR;
use crate::annotations::{PREFIX, asks_for_variables};

/// What our containers and volumes are named with.
const OUR_PREFIX: &str = "hushpod";

/// A pod, as far as injection looks at it.
#[derive(Debug, Default)]
pub struct RelevantPod(pub Value);

/// Where in a pod a value stands.
#[derive(Debug, Clone, Copy)]
enum Place {
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

impl Place {
    /// The place of a field; `None` if it is passed over. Of containers and volumes that are known to be others', little
    /// is looked at.
    fn field(self, name: &str, is_others: bool) -> Option<Self> {
        let is_kept = match self {
            Self::Pod => match name {
                "metadata" => return Some(Self::Metadata),
                // Annotations may come later, and ask for them.
                "spec" => return Some(Self::Spec(Commands::Seen)),
                _ => false,
            },
            Self::Metadata => match name {
                "annotations" => return Some(Self::Annotations),
                _ => name == "generateName",
            },
            Self::Annotations => name.starts_with(PREFIX) || name == MIRROR,
            Self::Spec(commands) => match name {
                "containers" | "initContainers" | "ephemeralContainers" => return Some(Self::Container(commands)),
                "volumes" => return Some(Self::Volume),
                "securityContext" => return Some(Self::SecurityContext),
                "resources" => return Some(Self::Resources),
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
                        | "serviceAccountName"
                        | "shareProcessNamespace"
                        | "terminationGracePeriodSeconds"
                ),
            },
            Self::Container(commands) if is_others => match (name, commands) {
                ("name" | "targetContainerName" | "volumeMounts", _) | ("args" | "command", Commands::Seen) => true,
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
            Self::Presence | Self::Resources => false,
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

impl<'de> Deserialize<'de> for RelevantPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Place::Pod.deserialize(deserializer).map(Self)
    }
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Self::Whole => Value::deserialize(deserializer),
            Self::Presence => IgnoredAny::deserialize(deserializer).map(|_| Value::Null),
            _ => deserializer.deserialize_any(self),
        }
    }
}

/// What should be an object or a list and is neither is kept: what looks at it will say so.
impl<'de> Visitor<'de> for Place {
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
        while let Some(value) = items.next_element_seed(self)? {
            if !self.is_nothing(&value) {
                values.push(value);
            }
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        // API servers write the name first; fields before it are kept.
        let mut is_others = false;
        while let Some(Name(name)) = fields.next_key()? {
            let Some(place) = self.field(&name, is_others) else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            let place = match place {
                // API servers write the annotations first, so that it is known by now what they ask for.
                Self::Spec(_) if values.get("metadata").is_some_and(|metadata| !asks_for_commands(metadata)) => {
                    Self::Spec(Commands::PassedOver)
                }
                place => place,
            };
            let value = fields.next_value_seed(place)?;
            if place.is_nothing(&value) {
                continue;
            }
            if self.has_names() && name == "name" {
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
                "tolerations": [],
            },
            "status": {"phase": "Pending"},
        });
        let RelevantPod(seen) = serde_json::from_str(&pod.to_string()).unwrap();
        let expected = json!({
            "metadata": {"annotations": {"hushpod.dev/mode": "init"}},
            "spec": {
                // Sorted, `env` comes before `name` here.
                "containers": [{"name": "web", "env": [], "image": "x", "volumeMounts": [mount]}, ours],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "hushpod-state", "emptyDir": {}}],
                "restartPolicy": "Always",
                "resources": {"limits": {"cpu": "1", "memory": 2}},
            },
        });
        assert_eq!(seen, expected);
        let as_sent = r#"{"spec": {"containers": [{"name": "web", "image": "x", "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "1"}}, "ports": [{"containerPort": 80, "name": "a"}], "volumeDevices": [{"devicePath": "/x", "name": "b"}], "command": ["a"], "env": [{"name": "A", "value": "b", "valueFrom": {}}]}], "volumes": [{"name": "a", "b": 1}, {"name": "c", "configMap": {"name": "d"}}], "securityContext": {"fsGroup": 1, "sysctls": []}}}"#;
        let RelevantPod(seen) = serde_json::from_str(as_sent).unwrap();
        assert_eq!(
            seen,
            json!({"spec": {"containers": [{"name": "web", "resources": {"requests": {"cpu": "1"}}, "ports": [{"containerPort": 80}], "volumeDevices": [{"devicePath": "/x"}], "command": ["a"], "env": [{"name": "A"}]}], "volumes": [{"name": "a"}, {"name": "c", "configMap": null}], "securityContext": {"fsGroup": 1}}})
        );
    }

    #[test]
    fn commands_are_looked_at_only_if_variables_are_asked_for() {
        let spec = r#""spec": {"containers": [{"name": "web", "args": ["a"], "command": ["b"], "env": [{"name": "A", "value": "c"}]}]}"#;
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
            let RelevantPod(seen) = serde_json::from_str(&text).unwrap();
            let whole = json!([{"name": "web", "args": ["a"], "command": ["b"], "env": [{"name": "A"}]}]);
            let expected = if are_seen { whole } else { json!([{"name": "web"}]) };
            assert_eq!(seen["spec"]["containers"], expected, "{text}");
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
            let RelevantPod(seen) = serde_json::from_str(&format!("{{{metadata}, {spec}}}")).unwrap();
            assert_eq!(seen["spec"][list], json!([{"name": "web", "env": [taken]}]), "{list}");
        }
        let target = r#"{"spec": {"ephemeralContainers": [{"name": "debug", "targetContainerName": "hushpod"}]}}"#;
        let RelevantPod(seen) = serde_json::from_str(target).unwrap();
        assert_eq!(seen["spec"]["ephemeralContainers"][0]["targetContainerName"], "hushpod");
    }

    #[test]
    fn what_is_no_json_is_refused_wherever_it_stands() {
        for text in [r#"{"status": [1,]}"#, r#"{"spec": {"containers": [{"name": "a", "env": tru}]}}"#] {
            assert!(serde_json::from_str::<RelevantPod>(text).is_err(), "{text}");
        }
        for text in
            ["null", "1", "-1", "0.5", "true", "\"a\"", "[]", "{\"spec\": null}", "{\"spec\": {\"containers\": 7}}"]
        {
            let RelevantPod(seen) = serde_json::from_str(text).unwrap();
            assert_eq!(seen, serde_json::from_str::<Value>(text).unwrap());
        }
    }
}
