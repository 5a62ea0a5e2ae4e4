//! What GitHub's runner reads: commands in the log, and files
//! (<https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>).

use std::io::{self, Write as _};

use super::error::LocalError;
use super::files::NamedValues;
use super::mask::{LEAST_BYTES, lines};
use crate::deliver::render::buffer::Buffer;
use crate::secret::SecretValue;

/// Names of this kind are the runner's own: it refuses or overwrites them.
const RUNNERS_OWN: [&str; 2] = ["GITHUB_", "RUNNER_"];

/// Set to `true` in every step.
const ACTIONS: &str = "GITHUB_ACTIONS";

/// Whether a runner of GitHub reads what this process and those that it starts print.
pub(super) fn is_runner() -> bool {
    std::env::var_os(ACTIONS).is_some_and(|value| value == "true")
}

/// What the runner would decode in the data of a command.
fn escape(c: char) -> Option<&'static str> {
    match c {
        '%' => Some("%25"),
        '\r' => Some("%0D"),
        '\n' => Some("%0A"),
        _ => None,
    }
}

/// A text as the data of a command.
pub(super) fn data(text: &str) -> String {
    let mut data = String::with_capacity(text.len());
    for c in text.chars() {
        match escape(c) {
            Some(text) => data.push_str(text),
            None => data.push(c),
        }
    }
    data
}

/// A text as a property of a command.
pub(super) fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// One `::add-mask::` for each line of each value, and the names of those that have a shorter one.
pub(super) fn masks(found: &NamedValues) -> (SecretValue, Vec<String>) {
    let mut out = Buffer::default();
    let mut unmasked = Vec::new();
    for (name, value) in found {
        let mut is_whole = true;
        for line in lines(value.expose()) {
            if line.len() < LEAST_BYTES {
                is_whole = false;
                continue;
            }
            out.push_str("::add-mask::");
            for byte in line {
                match escape(char::from(*byte)) {
                    Some(text) => out.push_str(text),
                    None => out.push(&[*byte]),
                }
            }
            out.push_str("\n");
        }
        if !is_whole {
            unmasked.push(name.clone());
        }
    }
    (out.into_value(), unmasked)
}

/// Tells the runner what to hide; gives the names of values that have a line which is too short for it.
pub(super) fn tell_masks(found: &NamedValues) -> Vec<String> {
    let (masks, unmasked) = masks(found);
    // On standard error, which the runner reads as well: what a command prints may be taken by a script.
    let _ = io::stderr().write_all(masks.expose());
    unmasked
}

/// `NAME<<DELIMITER` blocks; `delimiter` is nobody's to guess.
///
/// # Errors
/// Every variable that cannot be written, together.
pub(super) fn assignments(found: &NamedValues, delimiter: &str) -> Result<SecretValue, LocalError> {
    let mut out = Buffer::default();
    let mut errors = Vec::new();
    for (name, value) in found {
        let problem = match value.expose_str() {
            None => Some("is not UTF-8, which this file has to be"),
            Some(text) if text.contains('\r') => {
                Some("has a carriage return, which GitHub takes for the end of a line")
            }
            Some(text) if text.contains(delimiter) => Some("has the delimiter in it: run it again for another"),
            Some(_) if RUNNERS_OWN.iter().any(|own| name.starts_with(own)) => {
                Some("is a name of the runner's own: take --prefix, or another name")
            }
            Some(_) => None,
        };
        if let Some(problem) = problem {
            errors.push(LocalError::failed(format!("{name} {problem}")).about(vec![name.clone()]));
            continue;
        }
        out.push_str(&format!("{name}<<{delimiter}\n"));
        out.push(value.expose());
        out.push_str(&format!("\n{delimiter}\n"));
    }
    if errors.is_empty() { Ok(out.into_value()) } else { Err(LocalError::all(errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &[u8])]) -> NamedValues {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), SecretValue::new(value.to_vec()))).collect()
    }

    #[test]
    fn every_line_is_masked_that_is_long_enough_to_be_told_apart() {
        let (masks, short) = masks(&values(&[("A", b"100% canary\nsecond line\r\nabc"), ("B", b""), ("C", b"12345")]));
        assert_eq!(masks.expose_str(), Some("::add-mask::100%25 canary\n::add-mask::second line\n"));
        assert_eq!(short, ["A", "C"]);
    }

    #[test]
    fn p9_what_the_runner_would_read_otherwise_is_refused() {
        let written = assignments(&values(&[("A", b"x\nDELIM2\n")]), "DELIM").unwrap_err();
        assert!(written.problem.contains("the delimiter"), "{written}");
        let written = assignments(&values(&[("A", b"a=b\n\n'c'\n"), ("B", b"")]), "D1").unwrap();
        assert_eq!(written.expose_str(), Some("A<<D1\na=b\n\n'c'\n\nD1\nB<<D1\n\nD1\n"));
        for (name, value, part) in [
            ("A", &b"canary\r\n"[..], "carriage return"),
            ("A", b"canary\xff", "not UTF-8"),
            ("GITHUB_TOKEN", b"canary", "runner's own"),
        ] {
            let error = assignments(&values(&[(name, value)]), "D1").unwrap_err().problem;
            assert!(error.contains(part) && !error.contains("canary"), "{error}");
        }
    }
}
