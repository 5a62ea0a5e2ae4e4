//! Templates: minijinja over secret trees.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter};

use super::{Buffer, Entries, format};
use crate::annotations::{PREFIX, SIZE_LIMIT};
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::{Sentence, store_names};

/// Instructions that one template may take: far above any configuration file, and over in a fraction of a second.
const FUEL: u64 = 1_000_000;

/// A document or list as minijinja sees it. Only what the template touches becomes a minijinja value: those are plain
/// strings, which it frees without wiping.
#[derive(Debug)]
struct Node(SecretTree);

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
/// end stays. `true` and `false` are written as JSON has them, `null` as nothing, documents as compact JSON.
///
/// # Errors
/// One sentence with the line. minijinja's own details may quote values, so only the kind of its error is used.
pub(super) fn render(text: &str, context: Entries, limit: u64) -> Result<SecretValue, Sentence> {
    let known = store_names(context.keys().map(String::as_str));
    let context = SecretTree::Map(context);
    format::check_text(&context)?;
    let mut out = Limited { out: Buffer::default(), limit };
    run(text, context, &mut out).map_err(|error| sentence(&error, &known))?;
    Ok(out.out.into_value())
}

fn run(text: &str, context: SecretTree, out: &mut Limited) -> Result<(), Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => Ok(()),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "true" } else { "false" })?),
        _ => escape_formatter(out, state, value),
    });
    let template = environment.template_from_str(text)?;
    TOUCHED_WITHHELD.set(None);
    template.render_captured_to(Value::from_object(Node(context)), out)?;
    TOUCHED_WITHHELD.take().map_or(Ok(()), |why| Err(withheld(&why)))
}

fn sentence(error: &Error, known: &str) -> Sentence {
    let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        let limit = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref).and_then(|e| e.downcast_ref());
        if let Some(TooLarge(bytes)) = limit {
            return format!("template: {}", TooLarge(*bytes)).into();
        }
        if let Some(Withheld(why)) = inner.downcast_ref() {
            return format!("template{line}: a value that it takes {why}").into();
        }
        cause = inner.source();
    }
    match error.kind() {
        ErrorKind::UndefinedError => {
            let said = format!("template{line}: a name is not defined");
            Sentence::hiding(format!("{said}; at the top there are: {known}"), said)
        }
        ErrorKind::OutOfFuel => format!("template{line}: runs too long (over {FUEL} instructions)").into(),
        kind => format!("template{line}: {kind}").into(),
    }
}

fn withheld(why: &Arc<str>) -> Error {
    Error::new(ErrorKind::InvalidOperation, "withheld").with_source(Withheld(Arc::clone(why)))
}

fn value_of(tree: &SecretTree) -> Value {
    match tree {
        SecretTree::Literal(value) => literal(value.expose_str().unwrap_or_default()),
        SecretTree::Text(value) | SecretTree::Binary(value) => Value::from(value.expose_str().unwrap_or_default()),
        SecretTree::List(_) | SecretTree::Map(_) => Value::from_object(Node(tree.clone())),
        SecretTree::Withheld(why) => {
            TOUCHED_WITHHELD.set(Some(Arc::clone(why)));
            Value::from(withheld(why))
        }
    }
}

/// A JSON literal with its type. Digits that a 64-bit number would lose are kept as text.
fn literal(text: &str) -> Value {
    match text {
        "null" => Value::from(()),
        "true" => Value::from(true),
        "false" => Value::from(false),
        number => match (number.parse::<i64>(), number.parse::<f64>()) {
            (Ok(whole), _) => Value::from(whole),
            (_, Ok(float)) if float.to_string() == number => Value::from(float),
            _ => Value::from(number),
        },
    }
}

impl Object for Node {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if matches!(self.0, SecretTree::List(_)) { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match &self.0 {
            SecretTree::List(items) => items.get(key.as_usize()?).map(value_of),
            _ => self.get_value_by_str(key.as_str()?),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match &self.0 {
            SecretTree::Map(entries) => entries.get(key).map(value_of),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match &self.0 {
            SecretTree::List(items) => Enumerator::Seq(items.len()),
            SecretTree::Map(entries) => {
                Enumerator::Values(entries.keys().map(|key| Value::from(key.as_str())).collect())
            }
            _ => Enumerator::NonEnumerable,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = self.0.withheld() {
            TOUCHED_WITHHELD.set(Some(why.into()));
            return Ok(());
        }
        let mut out = Buffer::default();
        // Cannot fail: `check_text` went before. An error here would make `to_string` panic inside minijinja.
        if format::json(&mut out, &self.0).is_ok() {
            f.write_str(out.into_value().expose_str().unwrap_or_default())?;
        }
        Ok(())
    }
}

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
