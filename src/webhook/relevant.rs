//! Parsing what injection looks at, and passing over the rest: half of a usual pod is of no interest here, and making
//! values of it would be a third of the work.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Whether injection neither reads nor writes a field of this name, wherever it stands. The patch is made of single
/// operations, so that what is not seen here is not touched either.
fn is_passed_over(field: &str) -> bool {
    // Not a list to look the name up in: this is asked for every field, and the compiler looks at the length first.
    matches!(
        field,
        "affinity"
            | "labels"
            | "livenessProbe"
            | "managedFields"
            | "ownerReferences"
            | "ports"
            | "readinessProbe"
            | "startupProbe"
            | "status"
            | "tolerations"
            | "topologySpreadConstraints"
            | "valueFrom"
    )
}

/// A JSON value without the fields that are passed over.
#[derive(Debug, Default)]
pub struct Relevant(pub Value);

struct ValueVisitor;

impl<'de> Deserialize<'de> for Relevant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
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
        while let Some(Relevant(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(Name(name)) = fields.next_key()? {
            if is_passed_over(&name) {
                fields.next_value::<IgnoredAny>()?;
            } else {
                values.insert(name.into_owned(), fields.next_value::<Relevant>()?.0);
            }
        }
        Ok(Value::Object(values))
    }
}

/// A field's name, borrowed if it can be: serde lends to `Cow` only if told so.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_those_of_serde_json_without_what_is_passed_over() {
        let text = r#"{"a": [1, -2, 0.5, true, null, "é\n"], "status": {"a": [1]}, "b": {"ports": 1, "\u0061": {}}}"#;
        let Relevant(value) = serde_json::from_str(text).unwrap();
        assert_eq!(value, json!({"a": [1, -2, 0.5, true, null, "é\n"], "b": {"a": {}}}));
        assert!(serde_json::from_str::<Relevant>(r#"{"status": {"a": [1,]}}"#).is_err());
    }
}
