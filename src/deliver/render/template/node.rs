//! Documents as minijinja sees them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use minijinja::{Error, ErrorKind};

use crate::deliver::render::buffer::Buffer;
use crate::deliver::render::format;
use crate::secret::SecretTree;

/// Bytes of data that one fuel pays for; an instruction costs one, too (minijinja 3.1, `src/vm/fuel.rs`).
pub(super) const BYTES_PER_FUEL: u64 = 64;

/// A document or list as minijinja sees it. Only what the template touches becomes a minijinja value, and once: those are
/// plain strings, which it frees without wiping.
pub(super) struct TreeObject {
    pub(super) tree: SecretTree,
    pub(super) taken: Mutex<BTreeMap<String, Value>>,
    pub(super) written: Arc<WrittenBytes>,
}

/// What was written out of documents as a whole. minijinja counts that too late.
pub(super) struct WrittenBytes {
    pub(super) bytes: AtomicU64,
    pub(super) limit: u64,
}

/// A value that cannot be had was touched, and why it cannot.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Withheld(pub(super) Arc<str>);

thread_local! {
    /// Such a value was touched. Not everything that is done with it fails in minijinja: a document with it in it becomes
    /// text, and some filters only pass it on.
    pub(super) static TOUCHED_WITHHELD: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

pub(super) fn withheld(why: &Arc<str>) -> Error {
    Error::new(ErrorKind::InvalidOperation, "withheld").with_source(Withheld(Arc::clone(why)))
}

/// A literal with its type, but for numbers: those keep their digits, as text that `tojson` knows for a number by being
/// marked as safe, which has no effect where nothing is escaped.
fn literal(text: &str) -> Value {
    match text {
        "null" => Value::from(()),
        "true" => Value::from(true),
        "false" => Value::from(false),
        number => Value::from_safe_string(number.to_owned()),
    }
}

// === impl TreeObject ===

impl TreeObject {
    pub(super) fn new(tree: SecretTree, written: &Arc<WrittenBytes>) -> Self {
        Self { tree, taken: Mutex::default(), written: Arc::clone(written) }
    }

    pub(super) fn take(&self, name: &str, tree: &SecretTree) -> Value {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = taken.get(name) {
            return value.clone();
        }
        let value = match tree {
            SecretTree::Literal(value) => literal(value.expose_str().unwrap_or_default()),
            SecretTree::Text(value) | SecretTree::Binary(value) => Value::from(value.expose_str().unwrap_or_default()),
            SecretTree::List(_) | SecretTree::Map(_) => Value::from_object(Self::new(tree.clone(), &self.written)),
            SecretTree::Withheld(why) => {
                TOUCHED_WITHHELD.set(Some(Arc::clone(why)));
                Value::from(withheld(why))
            }
        };
        taken.insert(name.to_owned(), value.clone());
        value
    }
}

impl fmt::Debug for TreeObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Object for TreeObject {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if matches!(self.tree, SecretTree::List(_)) { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match &self.tree {
            SecretTree::List(items) => {
                let index = key.as_usize()?;
                items.get(index).map(|item| self.take(&index.to_string(), item))
            }
            _ => self.get_value_by_str(key.as_str()?),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match &self.tree {
            SecretTree::Map(entries) => entries.get(key).map(|entry| self.take(key, entry)),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match &self.tree {
            SecretTree::List(items) => Enumerator::Seq(items.len()),
            SecretTree::Map(entries) => {
                Enumerator::Values(entries.keys().map(|key| Value::from(key.as_str())).collect())
            }
            _ => Enumerator::NonEnumerable,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = self.tree.withheld() {
            TOUCHED_WITHHELD.set(Some(why.into()));
            return Ok(());
        }
        // An error here would make `to_string` panic inside minijinja.
        if self.written.is_too_much() {
            return Ok(());
        }
        let mut out = Buffer::default();
        // Cannot fail: `text_alone` went before.
        if format::json(&mut out, &self.tree).is_ok() && self.written.count(out.len()) {
            f.write_str(out.into_value().expose_str().unwrap_or_default())?;
        }
        Ok(())
    }
}

// === impl WrittenBytes ===

impl WrittenBytes {
    /// Whether as many bytes more may be written.
    pub(super) fn count(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        !self.is_too_much()
    }

    pub(super) fn is_too_much(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.limit
    }
}
