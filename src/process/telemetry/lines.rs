//! One event, one line, whatever is in it: each field is cut and escaped before it is written, so nobody who names a
//! pod writes lines of our log, and none is longer than its fields' names allow.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::audit;
use crate::report::line;

/// Bytes of a field's text; what is cut ends in an ellipsis.
pub(super) const FIELD: usize = 1024;

/// What stands in front of the fields' name of the event's sentence.
const MESSAGE: &str = "message";

/// Lines for people, or JSON objects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lines {
    Text { colour: bool },
    Json,
}

/// Takes the text of one field, escaped, and refuses what is too much: a long value is not even formatted to its end.
struct Cut<'a> {
    out: &'a mut String,
    left: usize,
    escape: fn(char, &mut String) -> bool,
}

/// Takes the event's sentence as it is, which is a line by itself: JSON, of texts that are cut already.
struct WholeLine<'a, 'writer>(&'a mut Writer<'writer>);

struct LineFields<'a> {
    lines: Lines,
    out: &'a mut String,
    /// A field's text, before it is known whether it needs quotes.
    scratch: String,
}

// === impl Lines ===

/// Fields of spans: written as an event's, when the span begins.
impl<'writer> FormatFields<'writer> for Lines {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut out = String::new();
        fields.record(&mut LineFields { lines: *self, out: &mut out, scratch: String::new() });
        writer.write_str(&out)
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        if [audit::TARGET, line::TARGET].contains(&metadata.target()) {
            event.record(&mut WholeLine(&mut writer));
            return writer.write_char('\n');
        }
        let mut line = String::with_capacity(256);
        let mut time = String::with_capacity(32);
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        match self {
            Self::Json => write!(line, r#"{{"timestamp":"{time}","level":"{}""#, metadata.level())?,
            Self::Text { colour: false } => write!(line, "{time} {:>5}", metadata.level().as_str())?,
            Self::Text { colour: true } => {
                let code = colour_of(*metadata.level());
                write!(line, "\x1b[2m{time}\x1b[0m \x1b[{code}m{:>5}\x1b[0m", metadata.level().as_str())?;
            }
        }
        event.record(&mut LineFields { lines: *self, out: &mut line, scratch: String::new() });
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                line.push_str(&fields.fields);
            }
        }
        if matches!(self, Self::Json) {
            write!(line, r#","target":"{}"}}"#, metadata.target())?;
        }
        line.push('\n');
        writer.write_str(&line)
    }
}

/// As tracing's own lines have them: ECMA-48's codes of red, yellow, green, blue and magenta.
fn colour_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

// === impl WholeLine ===

impl Visit for WholeLine<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == MESSAGE {
            // The layer's buffer takes whatever is written.
            let _ = write!(HiddenInJson(self.0), "{value:?}");
        }
    }
}

/// JSON in which no character is hidden: such ones stand in its texts alone.
struct HiddenInJson<'a, 'writer>(&'a mut Writer<'writer>);

impl Write for HiddenInJson<'_, '_> {
    fn write_str(&mut self, json: &str) -> fmt::Result {
        // As nearly all are: other control characters than DEL are escaped in JSON.
        if json.is_ascii() && !json.contains('\u{7f}') {
            return self.0.write_str(json);
        }
        for character in json.chars() {
            if is_hidden(character) {
                write!(self.0, "\\u{:04x}", u32::from(character))?;
            } else {
                self.0.write_char(character)?;
            }
        }
        Ok(())
    }
}

// === impl LineFields ===

impl LineFields<'_> {
    /// A text; `is_word` if it may stand without quotes.
    fn text(&mut self, field: &Field, value: &dyn fmt::Display, is_word: bool) {
        self.name(field.name());
        match self.lines {
            Lines::Json => {
                self.out.push('"');
                cut(self.out, value, escape_in_json);
                self.out.push('"');
            }
            Lines::Text { .. } if field.name() == MESSAGE => cut(self.out, value, escape_control),
            Lines::Text { .. } => {
                self.scratch.clear();
                cut(&mut self.scratch, value, escape_quoted);
                if is_word && is_plain(&self.scratch) {
                    self.out.push_str(&self.scratch);
                } else {
                    self.out.push('"');
                    self.out.push_str(&self.scratch);
                    self.out.push('"');
                }
            }
        }
    }

    /// A number or a truth: as it is in both forms.
    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field.name());
        // A String takes whatever is written.
        let _ = write!(self.out, "{value}");
    }

    fn name(&mut self, name: &str) {
        let _ = match self.lines {
            Lines::Json => write!(self.out, r#","{name}":"#),
            Lines::Text { .. } if name == MESSAGE => write!(self.out, " "),
            Lines::Text { .. } => write!(self.out, " {name}="),
        };
    }
}

impl Visit for LineFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, &format_args!("{value:?}"), true);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, &value, false);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &value, true);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no numbers for the others (RFC 8259 §6).
        if value.is_finite() { self.bare(field, value) } else { self.text(field, &value, true) }
    }
}

// === impl Cut ===

fn cut(out: &mut String, value: &dyn fmt::Display, escape: fn(char, &mut String) -> bool) {
    let mut cut = Cut { out, left: FIELD, escape };
    // It fails only to stop.
    if write!(cut, "{value}").is_err() {
        out.push('…');
    }
}

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let before = self.out.len();
            if !(self.escape)(character, self.out) {
                self.out.push(character);
            }
            let Some(left) = self.left.checked_sub(self.out.len() - before) else {
                self.out.truncate(before);
                self.left = 0;
                return Err(fmt::Error);
            };
            self.left = left;
        }
        Ok(())
    }
}

/// Control characters and those that turn the line around or break it (Unicode's Bidi_Control, U+2028, U+2029), as Rust
/// writes them.
fn escape_control(character: char, out: &mut String) -> bool {
    let is_escaped = is_hidden(character);
    if is_escaped {
        out.extend(character.escape_default());
    }
    is_escaped
}

fn escape_quoted(character: char, out: &mut String) -> bool {
    if matches!(character, '"' | '\\') {
        out.push('\\');
        return false;
    }
    escape_control(character, out)
}

/// RFC 8259 §7, and the same characters as in text.
fn escape_in_json(character: char, out: &mut String) -> bool {
    match character {
        '"' | '\\' => {
            out.push('\\');
            return false;
        }
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        // All of them are in the Basic Multilingual Plane.
        hidden if is_hidden(hidden) => {
            let _ = write!(out, "\\u{:04x}", u32::from(hidden));
        }
        _ => return false,
    }
    true
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether an escaped value is one word, in which nothing can be taken for the end of it.
fn is_plain(escaped: &str) -> bool {
    !escaped.is_empty() && !escaped.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '='))
}
