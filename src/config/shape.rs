//! Fields into the types that hold them, and what to say where they do not fit: the field, and nothing of what stands
//! there. A file that is given by mistake may be a token.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::{ConfigError, Faults};
use crate::parse_error::unknown;

/// Most bytes of what may be a field's name.
const MAX_NAME_BYTES: usize = 40;

/// Why fields do not fit.
struct Misfit {
    error: ConfigError,
    /// The field without which there is another problem, or none.
    culprit: Option<String>,
}

/// Reads fields, and tells of each that does not fit, in our own words, with the place behind that of the fields. What is
/// returned is made of the others; `None` if nothing can be.
pub(super) fn read_all<T: DeserializeOwned>(fields: &Map<String, Value>, faults: &mut Faults) -> Option<T> {
    let mut left = fields.clone();
    let mut is_whole = true;
    loop {
        let Misfit { error, culprit } = match try_read(&left) {
            Ok(read) => return Some(read),
            Err(misfit) => misfit,
        };
        let removed = culprit.and_then(|name| left.remove(&name));
        // That one is missing which was taken away is no news.
        if removed.is_some() || is_whole {
            faults.push(error);
        }
        removed.as_ref()?;
        is_whole = false;
    }
}

fn try_read<T: DeserializeOwned>(fields: &Map<String, Value>) -> Result<T, Misfit> {
    let told = match serde_json::from_value(Value::Object(fields.clone())) {
        Ok(read) => return Ok(read),
        Err(error) => error.to_string(),
    };
    // The one without which there is another problem, or none.
    let same_without = |name: &str| {
        let mut without = fields.clone();
        without.remove(name);
        serde_json::from_value::<T>(Value::Object(without)).is_err_and(|error| error.to_string() == told)
    };
    let culprit = || fields.keys().find(|name| !same_without(name)).cloned();
    if let Some(rest) = told.strip_prefix("unknown field `") {
        let (name, known) = rest.split_once('`').unwrap_or_default();
        let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
        let problem = match field_name(name) {
            Some(name) => unknown("field", name, &known).to_string(),
            None => format!("has an unknown field: expected one of {}", known.join(", ")),
        };
        if fields.contains_key(name) {
            return Err(Misfit { error: ConfigError::new("", problem).of(name), culprit: Some(name.to_owned()) });
        }
        // It stands deeper.
        let culprit = culprit();
        let place = culprit.as_deref().and_then(field_name).map_or_else(String::new, |name| format!(".{name}"));
        return Err(Misfit { error: ConfigError::new(place, problem).of(name), culprit });
    }
    if let Some(rest) = told.strip_prefix("missing field `") {
        let name = rest.split('`').next().unwrap_or_default();
        return Err(Misfit { error: ConfigError::new(format!(".{name}"), "is missing"), culprit: None });
    }
    let culprit = culprit();
    let name = culprit.as_deref();
    let place = name.and_then(field_name).map_or_else(String::new, |name| format!(".{name}"));
    let expected = told.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    let is_plain = name.and_then(|name| fields.get(name)).is_some_and(|value| value.is_number() || value.is_boolean());
    Err(Misfit { error: ConfigError::new(place, said(expected, is_plain)), culprit })
}

/// What was expected, of what serde says.
fn said(expected: &str, is_plain: bool) -> String {
    if expected.contains("string") && is_plain {
        return "is not text: put it in quotes".to_owned();
    }
    let words: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
    match expected {
        _ if !words.is_empty() => format!("is not one of {}", words.join(", ")),
        "a boolean" => "is neither true nor false".to_owned(),
        "a sequence" => "is not a list: expected [a, b]".to_owned(),
        "a map" => "has no fields: write {name: value}".to_owned(),
        _ if expected.starts_with("struct") || expected.contains("enum") => {
            "has no fields of its own: write {name: value}".to_owned()
        }
        _ if expected.contains("string") => "is not text".to_owned(),
        _ if expected.starts_with(['i', 'u']) => "is not a whole number in range".to_owned(),
        _ => "has a value that is not understood there".to_owned(),
    }
}

/// A name, if it looks like a field's.
pub(super) fn field_name(name: &str) -> Option<&str> {
    let is_name =
        name.len() <= MAX_NAME_BYTES && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    is_name.then_some(name)
}

/// The same sentence without the scalars of the file: of those that it quotes there is an ellipsis left, and of long
/// ones wherever they stand.
pub(super) fn without_scalars(sentence: &str, value: &Value) -> String {
    const LONG: usize = 8;
    // What is suggested is ours.
    let end = ["; did you mean ", ": expected one of "].iter().filter_map(|ours| sentence.find(ours)).min();
    let (left, ours) = sentence.split_at(end.unwrap_or(sentence.len()));
    let mut left = left.to_owned();
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        let scalar = match value {
            Value::Array(items) => {
                waiting.extend(items);
                continue;
            }
            Value::Object(fields) => {
                waiting.extend(fields.values());
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(_) | Value::Null => continue,
        };
        if scalar.is_empty() {
            continue;
        }
        left = left.replace(&format!("{scalar:?}"), "\"…\"");
        if scalar.len() >= LONG {
            left = left.replace(&scalar, "…");
        }
    }
    left + ours
}
