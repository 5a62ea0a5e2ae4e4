//! The patch: what was changed on a raw pod, operation by operation.
//!
//! Only `add`, `replace` and `remove` of single places: fields that our types do not know are never touched. A diff of
//! re-serialised typed objects would delete them.

use std::collections::HashMap;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::reference::escape;
use crate::steps;

/// A raw object, and the operations that made it from the original.
#[derive(Debug)]
pub(super) struct Patched {
    object: Value,
    patch: Patch,
}

/// A JSON patch (RFC 6902) as text, written as it is made: the values themselves are in the object.
#[derive(Debug, Default)]
pub struct Patch {
    /// The list, still open.
    json: Vec<u8>,
    count: usize,
}

/// What a patch for a handful of files takes.
const USUAL_BYTES: usize = 4096;

/// One operation, as it is written.
#[derive(Serialize)]
struct Operation<'a, V> {
    op: &'static str,
    path: Pointer<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<V>,
}

/// RFC 6901.
struct Pointer<'a>(&'a [Step<'a>]);

/// One step into an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    /// A field.
    Field(&'a str),
    /// An index of a list.
    Index(usize),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(field: &'a str) -> Self {
        Self::Field(field)
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A path into the object: `at!["spec", "containers", 0]`.
macro_rules! at {
    ($($step:expr),* $(,)?) => { [$($crate::webhook::patch::Step::from($step)),*] };
}
pub(crate) use at;

// === impl Patched ===

impl Patched {
    /// Starts from the object as the API server sent it.
    #[must_use]
    pub(super) fn new(object: Value) -> Self {
        Self { object, patch: Patch::default() }
    }

    /// The object as it is after the operations so far.
    #[must_use]
    pub(super) fn object(&self) -> &Value {
        &self.object
    }

    /// The operations so far.
    #[must_use]
    pub(super) fn into_patch(self) -> Patch {
        self.patch
    }

    /// The value at a path.
    #[must_use]
    pub(super) fn get(&self, path: &[Step<'_>]) -> Option<&Value> {
        path.iter().try_fold(&self.object, |value, step| match step {
            Step::Field(name) => value.get(*name),
            Step::Index(index) => value.get(*index),
        })
    }

    /// The list at a path; empty if there is none.
    #[must_use]
    pub(super) fn list(&self, path: &[Step<'_>]) -> &[Value] {
        self.get(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Sets a field, unless it has this value; makes the objects on its way.
    pub(super) fn set(&mut self, path: &[Step<'_>], value: Value) {
        self.make_parents(path);
        if self.get(path) != Some(&value) {
            self.put(self.word(path), path, value.clone(), value);
        }
    }

    /// What giving a field its value is called.
    fn word(&self, path: &[Step<'_>]) -> &'static str {
        if self.get(path).is_some() { "replace" } else { "add" }
    }

    fn make_parents(&mut self, path: &[Step<'_>]) {
        for depth in 1..path.len() {
            let parent = path.get(..depth).unwrap_or(path);
            if self.get(parent).is_none_or(Value::is_null) {
                self.put("add", parent, Map::new(), Value::Object(Map::new()));
            }
        }
    }

    /// Puts an item into a list, making the list if there is none; at its end if `index` lies beyond it. `seen` is as
    /// much of it as later steps look at: what is not a value yet need not become one.
    pub(super) fn insert(&mut self, list: &[Step<'_>], index: usize, item: impl Serialize, seen: Value) {
        let Some(index) = self.index_in(list, index) else {
            self.make_parents(list);
            return self.put(self.word(list), list, [item], Value::Array(vec![seen]));
        };
        if let Some(Value::Array(items)) = get_mut(&mut self.object, list) {
            self.patch.push("add", &below(list, Step::Index(index)), Some(item));
            items.insert(index, seen);
        }
    }

    /// Where an item goes that is to have this index; `None` if there is no list.
    fn index_in(&self, list: &[Step<'_>], index: usize) -> Option<usize> {
        Some(self.get(list)?.as_array()?.len().min(index))
    }

    /// Takes away what stands at a path.
    pub(super) fn remove(&mut self, path: &[Step<'_>]) {
        let Some((last, parents)) = path.split_last() else { return };
        let was_there = match (get_mut(&mut self.object, parents), last) {
            (Some(Value::Object(fields)), Step::Field(name)) => fields.remove(*name).is_some(),
            (Some(Value::Array(items)), Step::Index(index)) if *index < items.len() => {
                items.remove(*index);
                true
            }
            _ => false,
        };
        if was_there {
            self.patch.push("remove", path, None::<()>);
        }
    }

    /// Makes everything in `wanted` hold at `path`, and leaves what stands there beside it: fields that the API server
    /// or another webhook filled in stay. Lists whose items are named are converged item by item.
    pub(super) fn converge(&mut self, path: &[Step<'_>], wanted: &Value) {
        match (wanted, self.get(path)) {
            (Value::Object(fields), Some(Value::Object(_))) => {
                for (name, value) in fields {
                    self.converge(&below(path, Step::Field(name)), value);
                }
            }
            (Value::Array(items), Some(Value::Array(present))) if items.iter().all(Value::is_object) => {
                let places = places(items, present);
                for (item, place) in items.iter().zip(places) {
                    match place {
                        Some(index) => self.converge(&below(path, Step::Index(index)), item),
                        None => self.insert(path, usize::MAX, item, item.clone()),
                    }
                }
            }
            (wanted, _) => self.set(path, wanted.clone()),
        }
    }

    /// Adds or replaces a field. If there is no object for it to be in, which callers have looked for, nothing is done:
    /// the pod that the patch describes and the one that we look at must not part.
    fn put(&mut self, op: &'static str, path: &[Step<'_>], value: impl Serialize, seen: Value) {
        let Some((Step::Field(name), parents)) = path.split_last() else { return };
        if let Some(Value::Object(fields)) = get_mut(&mut self.object, parents) {
            self.patch.push(op, path, Some(value));
            fields.insert((*name).to_owned(), seen);
        }
    }
}

fn get_mut<'a>(object: &'a mut Value, path: &[Step<'_>]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => value.get_mut(*name),
        Step::Index(index) => value.get_mut(*index),
    })
}

// === impl Patch ===

impl Patch {
    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The JSON text.
    #[must_use]
    pub fn into_json(self) -> Vec<u8> {
        let mut json = self.json;
        json.extend_from_slice(if self.count == 0 { b"[]" } else { b"]" });
        json
    }

    fn push(&mut self, op: &'static str, path: &[Step<'_>], value: Option<impl Serialize>) {
        if self.json.is_empty() {
            self.json.reserve(USUAL_BYTES);
        }
        let length = self.json.len();
        self.json.push(if self.count == 0 { b'[' } else { b',' });
        match serde_json::to_writer(&mut self.json, &Operation { op, path: Pointer(path), value }) {
            Ok(()) => self.count += 1,
            // Values have strings for keys, and memory takes what is written.
            Err(_) => self.json.truncate(length),
        }
        steps::spend(1 + (self.json.len() - length) / 64);
    }
}

// === impl Pointer ===

impl Serialize for Pointer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Pointer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Index(index) => write!(f, "/{index}"),
            Step::Field(name) => {
                f.write_str("/")?;
                f.write_str(&escape(name))
            }
        })
    }
}

/// A path one step longer.
pub(super) fn below<'a>(path: &[Step<'a>], step: Step<'a>) -> Vec<Step<'a>> {
    let mut deeper = Vec::with_capacity(path.len() + 1);
    deeper.extend_from_slice(path);
    deeper.push(step);
    deeper
}

/// What Kubernetes merges items of lists by: a field, and where in it they are told apart. Ours of a downward API has
/// one file, and the API server writes more about it.
const MERGE_KEYS: [(&str, &str); 5] =
    [("mountPath", ""), ("name", ""), ("path", ""), ("serviceAccountToken", "/path"), ("downwardAPI", "/items/0/path")];

fn told_by<'a>(item: &'a Value, field: &str, pointer: &str) -> Option<&'a Value> {
    item.get(field)?.pointer(pointer)
}

/// Where each of the wanted items is among the present ones.
fn places(items: &[Value], present: &[Value]) -> Vec<Option<usize>> {
    let mut places = vec![None; items.len()];
    for (field, pointer) in MERGE_KEYS {
        let is_first = |item: &Value| {
            MERGE_KEYS.iter().find(|(field, _)| item.get(field).is_some()).is_some_and(|(first, _)| *first == field)
        };
        if !items.iter().any(is_first) {
            continue;
        }
        steps::spend(present.len());
        let mut index = HashMap::new();
        for (at, other) in present.iter().enumerate() {
            if let Some(value) = told_by(other, field, pointer) {
                index.entry(value).or_insert(at);
            }
        }
        for (item, place) in items.iter().zip(&mut places).filter(|(item, _)| is_first(item)) {
            *place = told_by(item, field, pointer).and_then(|value| index.get(value).copied());
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(original: &Value, patched: Patched) -> Vec<Value> {
        let expected = patched.object().clone();
        let patch: json_patch::Patch = serde_json::from_slice(&patched.into_patch().into_json()).unwrap();
        let mut applied = original.clone();
        json_patch::patch(&mut applied, &patch).unwrap();
        assert_eq!(applied, expected, "the patch describes the object");
        serde_json::to_value(&patch).unwrap().as_array().unwrap().clone()
    }

    #[test]
    fn set_makes_parents_and_is_silent_about_what_holds() {
        let original = json!({"spec": {"a/b~": 1, "madeUp": [1]}});
        let mut patched = Patched::new(original.clone());
        patched.set(&at!["spec", "a/b~"], json!(1));
        patched.set(&at!["spec", "x", "y"], json!("z"));
        patched.set(&at!["spec", "a/b~"], json!(2));
        let operations = check(&original, patched);
        assert_eq!(
            operations,
            [
                json!({"op": "add", "path": "/spec/x", "value": {}}),
                json!({"op": "add", "path": "/spec/x/y", "value": "z"}),
                json!({"op": "replace", "path": "/spec/a~1b~0", "value": 2}),
            ]
        );
    }

    #[test]
    fn converge_adds_what_is_wanted_and_keeps_what_is_there() {
        let original = json!({"c": {"name": "x", "madeUp": true, "env": [{"name": "OTHER", "value": "1"}, {"name": "P", "value": "old"}],
            "command": ["a", "b"], "terminationMessagePath": "/dev/x"}});
        let mut patched = Patched::new(original.clone());
        let wanted = json!({"name": "x", "env": [{"name": "P", "value": "new"}, {"name": "Q", "value": "q"}]});
        patched.converge(&at!["c"], &wanted);
        let operations = check(&original, patched);
        assert_eq!(
            operations,
            [
                json!({"op": "replace", "path": "/c/env/1/value", "value": "new"}),
                json!({"op": "add", "path": "/c/env/2", "value": {"name": "Q", "value": "q"}}),
            ]
        );
    }
}
