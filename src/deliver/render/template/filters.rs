//! Filters of our own. Their errors are sentences, and none shows a value.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use zeroize::Zeroizing;

use super::node::{BYTES_PER_FUEL, TreeObject, withheld};
use crate::deliver::render::buffer::Buffer;
use crate::deliver::render::format;

/// Lists in lists that `tojson` writes.
const MAX_DEPTH: usize = 64;

/// What a filter refuses. Never what it was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct FilterError(&'static str);

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("join", join);
    environment.add_filter("tojson", to_json);
    environment.add_filter("urlencode", url_encode);
    environment.add_filter("b64encode", base64_encode);
    environment.add_filter("b64decode", base64_decode);
    environment.add_filter("shell_quote", shell_quote);
}

fn refuse<T>(problem: &'static str) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, problem).with_source(FilterError(problem)))
}

/// The text of a single value, as it would be written.
fn text_of(value: &Value, problem: &'static str) -> Result<Zeroizing<String>, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => Ok(Zeroizing::new(text.to_owned())),
        (None, ValueKind::Number) => Ok(Zeroizing::new(value.to_string())),
        (None, ValueKind::Bool) => Ok(Zeroizing::new(if value.is_true() { "true" } else { "false" }.to_owned())),
        (None, ValueKind::None) => Ok(Zeroizing::new(String::new())),
        _ => refuse(problem),
    }
}

/// Bytes that may still be made: what is made stands there three times while it grows.
fn room(state: &State<'_, '_>) -> usize {
    let bytes = state.fuel_levels().map_or(u64::MAX, |(_, left)| left.saturating_mul(BYTES_PER_FUEL) / 3);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// `join`: every element as it would be written, with `joiner` between them. minijinja's own counts only the result.
fn join(state: &State<'_, '_>, value: &Value, joiner: Rest<Value>) -> Result<Value, Error> {
    let room = room(state);
    let mut joiners = joiner.0.into_iter();
    let joiner = match (joiners.next(), joiners.next()) {
        (None, _) => Zeroizing::default(),
        // As an argument that may be missing, it would be none.
        (Some(joiner), None) if joiner.is_undefined() => return Err(ErrorKind::UndefinedError.into()),
        (Some(joiner), None) => text_of(&joiner, "join takes text to stand between the values")?,
        _ => return Err(ErrorKind::TooManyArguments.into()),
    };
    let mut out = Buffer::default();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(&joiner);
        }
        match item.kind() {
            ValueKind::String | ValueKind::Number | ValueKind::Bool | ValueKind::None => {
                out.push_str(&text_of(&item, "join takes values")?);
            }
            ValueKind::Undefined | ValueKind::Invalid => return Err(ErrorKind::UndefinedError.into()),
            _ => write_json(&mut out, &item, room, 0)?,
        }
        if out.len() > room {
            return Err(ErrorKind::OutOfFuel.into());
        }
    }
    Ok(Value::from(out.into_value().expose_str().unwrap_or_default()))
}

/// `tojson`: compact JSON (RFC 8259), keys as they stand, no blanks. Text is quoted, a number of the store keeps its
/// digits, truth values and null keep their type.
pub(super) fn to_json(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    let mut out = Buffer::default();
    write_json(&mut out, value, room(state), 0)?;
    Ok(Value::from(out.into_value().expose_str().unwrap_or_default()))
}

fn write_json(out: &mut Buffer, value: &Value, most: usize, depth: usize) -> Result<(), Error> {
    if out.len() > most {
        return Err(ErrorKind::OutOfFuel.into());
    }
    if depth > MAX_DEPTH {
        return refuse("tojson takes no more than 64 lists in lists");
    }
    if let Some(node) = value.downcast_object_ref::<TreeObject>() {
        if let Some(why) = node.tree.withheld() {
            return Err(withheld(&why.into()));
        }
        return format::json(out, &node.tree).or_else(|_| refuse("tojson takes text, and this is binary"));
    }
    match value.kind() {
        ValueKind::String => match value.as_str().unwrap_or_default() {
            number if value.is_safe() && is_json_number(number) => out.push_str(number),
            text => format::quote(out, text),
        },
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => match value.to_string() {
            number if is_json_number(&number) => out.push_str(&number),
            _ => return refuse("tojson takes finite numbers"),
        },
        ValueKind::Map => {
            out.push_str("{");
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(",");
                }
                let entry = value.get_item(&key)?;
                format::quote(out, &text_of(&key, "tojson takes keys that are text")?);
                out.push_str(":");
                write_json(out, &entry, most, depth + 1)?;
            }
            out.push_str("}");
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push_str("[");
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(",");
                }
                write_json(out, &item, most, depth + 1)?;
            }
            out.push_str("]");
        }
        ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
        _ => return refuse("tojson takes values, lists and documents"),
    }
    Ok(())
}

/// Whether text is a number as RFC 8259 §6 has it.
fn is_json_number(text: &str) -> bool {
    fn digits(text: &str) -> (usize, &str) {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        (text.len() - rest.len(), rest)
    }
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, mut rest) = digits(text);
    if whole == 0 || (whole > 1 && text.starts_with('0')) {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        let (count, behind) = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = behind;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let (count, behind) = digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
        if count == 0 {
            return false;
        }
        rest = behind;
    }
    rest.is_empty()
}

/// `urlencode`: every byte of the UTF-8 text but letters, digits, `-`, `_`, `.` and `~` as `%XX` (RFC 3986 §2.3), so
/// it fits into any part of a URL. A blank is `%20`, `/` is `%2F`.
fn url_encode(value: &Value) -> Result<Value, Error> {
    let text = text_of(value, "urlencode takes text: take one value of the document")?;
    let mut out = Buffer::default();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(&[byte]);
        } else {
            let hex = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 };
            out.push(&[b'%', hex(byte >> 4), hex(byte & 0xf)]);
        }
    }
    Ok(Value::from(out.into_value().expose_str().unwrap_or_default()))
}

/// `b64encode`: the UTF-8 text in base64 (RFC 4648 §4), with padding, on one line.
fn base64_encode(value: &Value) -> Result<Value, Error> {
    let text = text_of(value, "b64encode takes text: take one value of the document, or write | tojson before it")?;
    Ok(Value::from(Zeroizing::new(STANDARD.encode(text.as_bytes())).as_str()))
}

/// `b64decode`: base64 (RFC 4648 §4) back into text; white space anywhere, padding or none.
fn base64_decode(value: &Value) -> Result<Value, Error> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text = text_of(value, "b64decode takes text: take one value of the document")?;
    let dense = Zeroizing::new(text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<_>>());
    let Ok(bytes) = ENGINE.decode(&*dense).map(Zeroizing::new) else {
        return refuse("b64decode takes base64, and this is not");
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Value::from(text)),
        Err(_) => {
            refuse("b64decode gives bytes that are not text: deliver them in a file of their own, with decode: base64")
        }
    }
}

/// `shell_quote`: one word of a POSIX shell (XCU 2.2.2): between single quotes, and a quote in it as `'\''`.
fn shell_quote(value: &Value) -> Result<Value, Error> {
    let text = text_of(value, "shell_quote takes text: take one value of the document, or write | tojson before it")?;
    if text.contains('\0') {
        return refuse("shell_quote takes no NUL byte, which no shell can hold");
    }
    Ok(Value::from(Zeroizing::new(format!("'{}'", text.replace('\'', r"'\''"))).as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_json_says() {
        for number in ["0", "-0", "10", "1.10", "1e5", "-1.5E+10", "98765432109876543210", "1e400"] {
            assert!(is_json_number(number), "{number}");
        }
        for text in ["", "-", "00123", "01", "1.", ".5", "+1", "1e", "0x10", "NaN", "inf", "1 ", "1_000", "1,0"] {
            assert!(!is_json_number(text), "{text}");
        }
    }
}
