//! Templates: minijinja over secret trees.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter};

use super::{Buffer, Entries, format};
use crate::annotations::SIZE_LIMIT;
use crate::bundle::template::{self, Mention};
use crate::contract::PREFIX;
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::{Sentence, store_name, store_names};

mod filters;

/// Bytes that a template may make on its way beside its output: an eighth of what an agent has for itself
/// (`AGENT_LIMIT`). minijinja holds up to three copies of a text while it makes one.
const HEADROOM: u64 = 4 << 20;
/// Bytes of data that one fuel pays for; an instruction costs one, too (minijinja 3.1, `src/vm/fuel.rs`).
const BYTES_PER_FUEL: u64 = 64;

/// A document or list as minijinja sees it. Only what the template touches becomes a minijinja value, and once: those are
/// plain strings, which it frees without wiping.
struct Node {
    tree: SecretTree,
    taken: Mutex<BTreeMap<String, Value>>,
    written: Arc<Written>,
}

/// What was written out of documents as a whole. minijinja counts that too late.
struct Written {
    bytes: AtomicU64,
    limit: u64,
}

/// The output grew over the limit.
#[derive(Debug, thiserror::Error)]
#[error("the output grows over the limit of {0} bytes: raise {PREFIX}{SIZE_LIMIT}")]
struct TooLarge(u64);

/// A value that cannot be had was touched, and why it cannot.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Withheld(Arc<str>);

thread_local! {
    /// Such a value was touched. Not everything that is done with it fails in minijinja: a document with it in it becomes
    /// text, and some filters only pass it on.
    static TOUCHED_WITHHELD: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Stops a template that would fill the memory.
struct Limited {
    out: Buffer,
    limit: u64,
}

/// Renders `text` with `context` as its variables. A missing variable is an error; nothing is escaped; a newline at the
/// end stays. Numbers are text, digit by digit as the store has them; `true` and `false` are truth values and are written
/// as JSON has them, `null` as nothing, documents as compact JSON. `limit` is for the output, in bytes; what else the
/// template makes may take twice that and [`HEADROOM`].
///
/// # Errors
/// One sentence with the line. minijinja's own details may quote values, so only the kind of its error is used.
pub(super) fn render(text: &str, context: Entries, limit: u64) -> Result<SecretValue, Sentence> {
    let context = SecretTree::Map(context);
    format::check_text(&context)?;
    template::check(text, None).map_err(|problem| format!("template: {problem}"))?;
    let budget = HEADROOM.saturating_add(limit.saturating_mul(2));
    // What is written grows by doubling: half of it stands twice for a moment.
    let written = Written { bytes: AtomicU64::new(0), limit: budget / 3 };
    let root = Arc::new(Node::new(context, &Arc::new(written)));
    let mut out = Limited { out: Buffer::default(), limit };
    let result = run(text, Arc::clone(&root), budget, &mut out);
    if root.written.is_too_much() {
        return Err(format!("template: {}", too_much(limit)).into());
    }
    result.map_err(|error| sentence(&error, text, &root.tree, limit))?;
    Ok(out.out.into_value())
}

fn run(text: &str, root: Arc<Node>, budget: u64, out: &mut Limited) -> Result<(), Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
    environment.set_fuel(Some(budget / BYTES_PER_FUEL));
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => Ok(()),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "true" } else { "false" })?),
        _ => escape_formatter(out, state, value),
    });
    filters::add(&mut environment);
    let template = environment.template_from_str(text)?;
    TOUCHED_WITHHELD.set(None);
    template.render_captured_to(Value::from_dyn_object(root), out)?;
    TOUCHED_WITHHELD.take().map_or(Ok(()), |why| Err(withheld(&why)))
}

fn too_much(limit: u64) -> String {
    format!(
        "takes more work or memory than a file of at most {limit} bytes is worth: make less of it, or raise \
         {PREFIX}{SIZE_LIMIT}"
    )
}

fn sentence(error: &Error, text: &str, context: &SecretTree, limit: u64) -> Sentence {
    let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        let too_large = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref).and_then(|e| e.downcast_ref());
        if let Some(TooLarge(bytes)) = too_large {
            return format!("template: {}", TooLarge(*bytes)).into();
        }
        if let Some(Withheld(why)) = inner.downcast_ref() {
            return format!("template{line}: a value that it takes {why}").into();
        }
        if let Some(problem) = inner.downcast_ref::<filters::FilterError>() {
            return format!("template{line}: {problem}").into();
        }
        cause = inner.source();
    }
    let is_operator = error.detail().is_some_and(|detail| detail.starts_with("tried to use "));
    match error.kind() {
        ErrorKind::UndefinedError => undefined(text, error.line(), context).behind(&format!("template{line}: ")),
        ErrorKind::OutOfFuel => format!("template{line}: {}", too_much(limit)).into(),
        ErrorKind::InvalidOperation if is_operator => format!(
            "template{line}: an operator has text where it takes a number: numbers of secrets are text, so write | int \
             behind them, or ~ to join text"
        )
        .into(),
        kind => format!("template{line}: {kind}").into(),
    }
}

fn withheld(why: &Arc<str>) -> Error {
    Error::new(ErrorKind::InvalidOperation, "withheld").with_source(Withheld(Arc::clone(why)))
}

/// Which name is not defined: minijinja says no more than the line, and the text knows what it asks for there.
fn undefined(text: &str, line: Option<usize>, context: &SecretTree) -> Sentence {
    let all = template::mentions(text);
    let of_line: Vec<_> = all.iter().filter(|mention| Some(mention.line) == line).collect();
    for Mention { path, .. } in of_line.iter().filter(|mention| !mention.is_local) {
        if let Err((missing, around)) = find(context, path) {
            let said = format!("{} is not defined", shown(path.get(..=missing).unwrap_or(path)));
            let SecretTree::Map(entries) = around else { return said.into() };
            let above = path.get(..missing).filter(|above| !above.is_empty());
            let place =
                above.map_or_else(|| "at the top there are".to_owned(), |above| format!("{} has", shown(above)));
            let known = store_names(entries.keys().map(String::as_str));
            return Sentence::hiding(format!("{said}; {place}: {known}"), said);
        }
    }
    let mut local: Vec<_> = of_line.iter().filter(|mention| mention.is_local).map(|m| shown(&m.path)).collect();
    local.dedup();
    match local.as_slice() {
        [] => "a name is not defined".into(),
        [one] => format!("{one} is not defined").into(),
        several => format!("one of {} is not defined", several.join(", ")).into(),
    }
}

/// The first step of the path that leads nowhere, and what is there instead.
fn find<'a>(context: &'a SecretTree, path: &[String]) -> Result<(), (usize, &'a SecretTree)> {
    let mut tree = context;
    for (index, name) in path.iter().enumerate() {
        tree = match tree {
            SecretTree::Map(entries) => entries.get(name),
            SecretTree::List(items) => name.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        }
        .ok_or((index, tree))?;
    }
    Ok(())
}

/// The tenant's own words.
fn shown(path: &[String]) -> String {
    let mut text = String::new();
    for (index, name) in path.iter().enumerate() {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        // A `String` takes everything.
        let _ = match (index, is_name) {
            (0, _) => write!(text, "{name}"),
            (_, true) => write!(text, ".{name}"),
            (_, false) => write!(text, "[{}]", store_name(name)),
        };
    }
    text
}

/// A literal with its type, but for numbers: those keep their digits, as text that `tojson` knows for a number by being
/// marked as safe, which means nothing where nothing is escaped.
fn literal(text: &str) -> Value {
    match text {
        "null" => Value::from(()),
        "true" => Value::from(true),
        "false" => Value::from(false),
        number => Value::from_safe_string(number.to_owned()),
    }
}

// === impl Node ===

impl Node {
    fn new(tree: SecretTree, written: &Arc<Written>) -> Self {
        Self { tree, taken: Mutex::default(), written: Arc::clone(written) }
    }

    fn take(&self, name: &str, tree: &SecretTree) -> Value {
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

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Object for Node {
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
        // Cannot fail: `check_text` went before.
        if format::json(&mut out, &self.tree).is_ok() && self.written.count(out.len()) {
            f.write_str(out.into_value().expose_str().unwrap_or_default())?;
        }
        Ok(())
    }
}

// === impl Written ===

impl Written {
    /// Whether as many bytes more may be written.
    fn count(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        !self.is_too_much()
    }

    fn is_too_much(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.limit
    }
}

// === impl Limited ===

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.out.len() + bytes.len()) as u64 > self.limit {
            return Err(io::Error::other(TooLarge(self.limit)));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
