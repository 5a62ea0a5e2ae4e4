//! The patch: what was changed on a raw pod, operation by operation.
//!
//! Only `add`, `replace` and `remove` of single places: fields that our types do not know are never touched. A diff of
//! re-serialised typed objects would delete them.

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Map, Value};

/// A raw object, and the operations that made it from the original.
#[derive(Debug)]
pub struct Patched {
    object: Value,
    operations: Vec<PatchOperation>,
}

/// One step into an object.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
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
    pub fn new(object: Value) -> Self {
        Self { object, operations: Vec::new() }
    }

    /// The object as it is after the operations so far.
    #[must_use]
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// The operations so far.
    #[must_use]
    pub fn into_patch(self) -> Patch {
        Patch(self.operations)
    }

    /// The value at a path.
    #[must_use]
    pub fn get(&self, path: &[Step<'_>]) -> Option<&Value> {
        path.iter().try_fold(&self.object, |value, step| match step {
            Step::Field(name) => value.get(*name),
            Step::Index(index) => value.get(*index),
        })
    }

    /// The list at a path; empty if there is none.
    #[must_use]
    pub fn list(&self, path: &[Step<'_>]) -> &[Value] {
        self.get(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Sets a field, unless it has this value; makes the objects on its way.
    pub fn set(&mut self, path: &[Step<'_>], value: Value) {
        let Some((_, parents)) = path.split_last() else { return };
        for depth in 1..=parents.len() {
            let parent = parents.get(..depth).unwrap_or(parents);
            if self.get(parent).is_none_or(Value::is_null) {
                self.apply(parent, |path| PatchOperation::Add(AddOperation { path, value: Value::Object(Map::new()) }));
            }
        }
        match self.get(path) {
            Some(present) if *present == value => {}
            Some(_) => self.apply(path, |path| PatchOperation::Replace(ReplaceOperation { path, value })),
            None => self.apply(path, |path| PatchOperation::Add(AddOperation { path, value })),
        }
    }

    /// Puts an item into a list, making the list if there is none; at its end if `index` lies beyond it.
    pub fn insert(&mut self, list: &[Step<'_>], index: usize, item: Value) {
        let length = match self.get(list) {
            Some(Value::Array(items)) => items.len(),
            _ => return self.set(list, Value::Array(vec![item])),
        };
        let place = below(list, Step::Index(index.min(length)));
        self.apply(&place, |path| PatchOperation::Add(AddOperation { path, value: item }));
    }

    /// Takes away what stands at a path.
    pub fn remove(&mut self, path: &[Step<'_>]) {
        if self.get(path).is_some() {
            self.apply(path, |path| PatchOperation::Remove(RemoveOperation { path }));
        }
    }

    /// Makes everything in `wanted` hold at `path`, and leaves what stands there beside it: fields that the API server
    /// or another webhook filled in stay. Lists whose items are named are converged item by item.
    pub fn converge(&mut self, path: &[Step<'_>], wanted: &Value) {
        match (wanted, self.get(path)) {
            (Value::Object(fields), Some(Value::Object(_))) => {
                for (name, value) in fields {
                    self.converge(&below(path, Step::Field(name)), value);
                }
            }
            (Value::Array(items), Some(Value::Array(present))) if items.iter().all(Value::is_object) => {
                let places: Vec<_> =
                    items.iter().map(|item| present.iter().position(|other| same_item(item, other))).collect();
                for (item, place) in items.iter().zip(places) {
                    match place {
                        Some(index) => self.converge(&below(path, Step::Index(index)), item),
                        None => self.insert(path, usize::MAX, item.clone()),
                    }
                }
            }
            (wanted, _) => self.set(path, wanted.clone()),
        }
    }

    /// Every operation is made for a place that was just looked up, so that it cannot fail; if it did, the pod that the
    /// patch describes and the one that we look at would part: better none of it.
    fn apply(&mut self, path: &[Step<'_>], operation: impl FnOnce(PointerBuf) -> PatchOperation) {
        let pointer = PointerBuf::from_tokens(path.iter().map(|step| match step {
            Step::Field(name) => Token::new(*name),
            Step::Index(index) => Token::from(*index),
        }));
        let operation = operation(pointer);
        let Some((last, parents)) = path.split_last() else { return };
        let parent = parents.iter().try_fold(&mut self.object, |value, step| match step {
            Step::Field(name) => value.get_mut(*name),
            Step::Index(index) => value.get_mut(*index),
        });
        let is_done = match (parent, *last) {
            (Some(Value::Object(fields)), Step::Field(name)) => apply_to_field(fields, name, &operation),
            (Some(Value::Array(items)), Step::Index(index)) => apply_to_item(items, index, &operation),
            _ => false,
        };
        if is_done {
            self.operations.push(operation);
        }
    }
}

fn apply_to_field(fields: &mut Map<String, Value>, name: &str, operation: &PatchOperation) -> bool {
    match operation {
        PatchOperation::Add(AddOperation { value, .. }) | PatchOperation::Replace(ReplaceOperation { value, .. }) => {
            fields.insert(name.to_owned(), value.clone());
            true
        }
        PatchOperation::Remove(_) => fields.remove(name).is_some(),
        _ => false,
    }
}

fn apply_to_item(items: &mut Vec<Value>, index: usize, operation: &PatchOperation) -> bool {
    match operation {
        PatchOperation::Add(AddOperation { value, .. }) if index <= items.len() => items.insert(index, value.clone()),
        PatchOperation::Replace(ReplaceOperation { value, .. }) if index < items.len() => {
            items.get_mut(index).into_iter().for_each(|item| item.clone_from(value));
        }
        PatchOperation::Remove(_) if index < items.len() => drop(items.remove(index)),
        _ => return false,
    }
    true
}

/// A path one step longer.
pub(super) fn below<'a>(path: &[Step<'a>], step: Step<'a>) -> Vec<Step<'a>> {
    let mut deeper = Vec::with_capacity(path.len() + 1);
    deeper.extend_from_slice(path);
    deeper.push(step);
    deeper
}

/// Whether two items of a list are the same thing, by the field that Kubernetes merges such lists by.
fn same_item(a: &Value, b: &Value) -> bool {
    const MERGE_KEYS: [&str; 4] = ["mountPath", "name", "path", "serviceAccountToken"];
    match MERGE_KEYS.iter().find(|key| a.get(key).is_some()) {
        Some(&"serviceAccountToken") => {
            a.pointer("/serviceAccountToken/path") == b.pointer("/serviceAccountToken/path")
        }
        Some(key) => a.get(key) == b.get(key),
        None => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(original: &Value, patched: Patched) -> Vec<Value> {
        let expected = patched.object().clone();
        let patch = patched.into_patch();
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
