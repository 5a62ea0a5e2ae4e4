//! Templates: minijinja over secret trees.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter};

use super::buffer::Buffer;
use super::format::{self, Entries};
use crate::annotations::SIZE_LIMIT;
use crate::bundle::template::{self, DYNAMIC, Mention};
use crate::contract::PREFIX;
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::{Sentence, store_name, store_names};

mod filters;
mod node;

use node::{BYTES_PER_FUEL, TOUCHED_WITHHELD, TreeObject, Withheld, WrittenBytes, withheld};

/// Bytes that a template may make on its way beside its output: an eighth of what an agent has for itself
/// (`AGENT_LIMIT`). minijinja holds up to three copies of a text while it makes one.
const HEADROOM: u64 = 4 << 20;
/// The output grew over the limit.
#[derive(Debug, thiserror::Error)]
#[error("the output grows over the limit of {0} bytes: raise {PREFIX}{SIZE_LIMIT}")]
struct TooLarge(u64);

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
    let context = format::text_alone(SecretTree::Map(context));
    template::check(text, None).map_err(|problem| format!("template: {problem}"))?;
    let budget = HEADROOM.saturating_add(limit.saturating_mul(2));
    // What is written grows by doubling: half of it stands twice for a moment.
    let written = WrittenBytes { bytes: AtomicU64::new(0), limit: budget / 3 };
    let root = Arc::new(TreeObject::new(context, &Arc::new(written)));
    let mut out = Limited { out: Buffer::default(), limit };
    let result = run(text, Arc::clone(&root), budget, &mut out);
    if root.written.is_too_much() {
        return Err(format!("template: {}", too_much(limit)).into());
    }
    result.map_err(|error| sentence(&error, text, &root.tree, limit))?;
    Ok(out.out.into_value())
}

fn run(text: &str, root: Arc<TreeObject>, budget: u64, out: &mut Limited) -> Result<(), Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
    environment.set_fuel(Some(budget / BYTES_PER_FUEL));
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => Ok(()),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "true" } else { "false" })?),
        // What a filter made of a document is written as a document is.
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable if !is_document(value) => {
            Ok(out.write_str(filters::to_json(state, value)?.as_str().unwrap_or_default())?)
        }
        _ => escape_formatter(out, state, value),
    });
    filters::add(&mut environment);
    let template = environment.template_from_str(text)?;
    TOUCHED_WITHHELD.set(None);
    template.render_captured_to(Value::from_dyn_object(root), out)?;
    TOUCHED_WITHHELD.take().map_or(Ok(()), |why| Err(withheld(&why)))
}

fn is_document(value: &Value) -> bool {
    value.downcast_object_ref::<TreeObject>().is_some()
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
        // Its own words may have values in them.
        ErrorKind::InvalidOperation => format!(
            "template{line}: an operation cannot be done: it has text where a number is meant, divides by zero, or makes \
             a number or a range that is too large"
        )
        .into(),
        kind => format!("template{line}: {kind}").into(),
    }
}

/// Which name is not defined: minijinja says no more than the line, and the text knows what it asks for there.
fn undefined(text: &str, line: Option<usize>, context: &SecretTree) -> Sentence {
    let all = template::mentions(text);
    let of_line: Vec<_> = all.iter().filter(|mention| Some(mention.line) == line).collect();
    for Mention { path, .. } in of_line.iter().filter(|mention| !mention.is_local && !is_dynamic(mention)) {
        if let Err((missing, around)) = find(context, path) {
            let said = format!("{} is not defined", path_text(path.get(..=missing).unwrap_or(path)));
            let SecretTree::Map(entries) = around else { return said.into() };
            let above = path.get(..missing).filter(|above| !above.is_empty());
            let place =
                above.map_or_else(|| "at the top there are".to_owned(), |above| format!("{} has", path_text(above)));
            let known = store_names(entries.keys().map(String::as_str));
            return Sentence::hiding(format!("{said}; {place}: {known}"), said);
        }
    }
    // What is asked for below a name is missing sooner than a name that the template itself sets.
    let is_below = |mention: &Mention| mention.path.len() > 1;
    let any_below = of_line.iter().any(|mention| (mention.is_local || is_dynamic(mention)) && is_below(mention));
    let mut unsure: Vec<_> = of_line
        .iter()
        .filter(|mention| (mention.is_local || is_dynamic(mention)) && is_below(mention) == any_below)
        .map(|mention| path_text(&mention.path))
        .collect();
    unsure.dedup();
    match unsure.as_slice() {
        [] => "a name is not defined".into(),
        [one] => format!("{one} is not defined").into(),
        several => format!("one of {} is not defined", several.join(", ")).into(),
    }
}

fn is_dynamic(mention: &Mention) -> bool {
    mention.path.last().is_some_and(|name| name == DYNAMIC)
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
fn path_text(path: &[String]) -> String {
    let mut text = String::new();
    for (index, name) in path.iter().enumerate() {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        // A `String` takes everything.
        let _ = match (index, is_name) {
            (0, _) => write!(text, "{name}"),
            (_, false) if name == DYNAMIC => write!(text, "[{DYNAMIC}]"),
            (_, true) => write!(text, ".{name}"),
            (_, false) => write!(text, "[{}]", store_name(name)),
        };
    }
    text
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
