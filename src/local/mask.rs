//! Values in what a command prints, replaced by their names: also as base64, percent-encoded, and in JSON.
//!
//! What is found has to come within [`HOLD`]: a value that a command prints in pieces further apart is not seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::error::LocalError;
use super::files::NamedValues;
use finder::NeedleFinder;

mod finder;

pub(super) use finder::LEAST_BYTES;

/// How long a piece of output may wait for what follows it.
pub(super) const HOLD: Duration = Duration::from_millis(50);
/// RFC 3986, 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is looked for, and what each is called.
pub(super) struct Needles {
    finder: NeedleFinder,
    names: Vec<String>,
    longest: usize,
}

/// One stream, masked as it goes by.
pub(super) struct Masker {
    needles: Arc<Needles>,
    /// What may be the beginning of a value.
    held: Zeroizing<Vec<u8>>,
}

/// The lines of a value: each may stand in a log by itself.
pub(super) fn lines(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty())
}

/// The forms in which a text is found.
fn forms(text: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![text.to_vec()];
    for before in 0..3_usize {
        let padded: Zeroizing<Vec<u8>> =
            Zeroizing::new(std::iter::repeat_n(0, before).chain(text.iter().copied()).collect());
        // Characters that bytes before and behind have no part in.
        let (first, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&*padded);
            forms.extend(encoded.get(first..end).map(|part| part.as_bytes().to_vec()));
        }
    }
    forms.push(percent_encode(text, RESERVED).to_string().into_bytes());
    if let Some(json) = std::str::from_utf8(text).ok().and_then(|text| serde_json::to_string(text).ok()) {
        forms.extend(json.get(1..json.len() - 1).map(|inner| inner.as_bytes().to_vec()));
    }
    forms
}

// === impl Needles ===

impl Needles {
    /// Those of each value and of each of its lines, and the names of values that have a shorter line.
    ///
    /// # Errors
    /// One sentence, if there is too much to look for.
    pub(super) fn of(found: &NamedValues) -> Result<(Self, Vec<String>), LocalError> {
        let mut named: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let mut names = Vec::new();
        let mut unmasked = Vec::new();
        for (name, value) in found {
            let whole = value.expose();
            let lines = lines(whole);
            if lines.clone().any(|line| line.len() < LEAST_BYTES) {
                unmasked.push(name.clone());
            }
            for text in lines.chain([whole]).filter(|text| text.len() >= LEAST_BYTES) {
                for form in forms(text) {
                    named.entry(form).or_insert(names.len());
                }
            }
            names.push(name.clone());
        }
        let finder = NeedleFinder::new(named.keys());
        let finder = finder.map_err(|_| LocalError::failed("the values are too much to mask: take --only"))?;
        let longest = named.keys().map(Vec::len).max().unwrap_or_default();
        // In the order in which the finder has them.
        let names = named.values().filter_map(|index| names.get(*index).cloned()).collect();
        Ok((Self { finder, names, longest }, unmasked))
    }
}

// === impl Masker ===

impl Masker {
    pub(super) fn new(needles: Arc<Needles>) -> Self {
        Self { needles, held: Zeroizing::default() }
    }

    /// Whether something is held back.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes output, and gives what is certain of it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        // A value that begins before has come as a whole.
        let limit = (self.held.len() + 1).saturating_sub(self.needles.longest.max(1));
        self.release(limit)
    }

    /// Gives all that is held.
    pub(super) fn flush(&mut self) -> Vec<u8> {
        self.release(self.held.len())
    }

    fn release(&mut self, limit: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(limit);
        let mut at = 0;
        while let Some(found) = self.needles.finder.find(&self.held, at) {
            if found.start() >= limit {
                break;
            }
            out.extend_from_slice(self.held.get(at..found.start()).unwrap_or_default());
            let name = self.needles.names.get(found.pattern().as_usize()).map_or("", String::as_str);
            out.extend_from_slice(format!("<{name}>").as_bytes());
            at = found.end();
        }
        if at < limit {
            out.extend_from_slice(self.held.get(at..limit).unwrap_or_default());
            at = limit;
        }
        self.held.drain(..at);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretValue;

    fn masker(pairs: &[(&str, &str)]) -> Masker {
        let found = pairs.iter().map(|(name, value)| ((*name).to_owned(), SecretValue::from(*value))).collect();
        Masker::new(Arc::new(Needles::of(&found).unwrap().0))
    }

    fn masked(masker: &mut Masker, pieces: &[&[u8]]) -> String {
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| masker.push(piece)).collect();
        out.extend(masker.flush());
        String::from_utf8_lossy(&out).into_owned()
    }

    const VALUE: &str = "can/ary+\"5d1e\" \u{e4}";

    #[test]
    fn p5_a_value_is_masked_in_every_form_and_however_it_is_cut() {
        let mut one = masker(&[("A", VALUE)]);
        let json = serde_json::to_string(VALUE).unwrap();
        for text in [
            format!("x {VALUE} y"),
            format!("{{\"a\":{json}}}"),
            format!("url?x={}", percent_encode(VALUE.as_bytes(), RESERVED)),
        ] {
            for cut in 0..=text.len() {
                let (a, b) = text.as_bytes().split_at(cut);
                let out = masked(&mut one, &[a, b]);
                assert!(out.contains("<A>") && !out.contains("ary"), "{text} at {cut}: {out}");
            }
        }
        for before in ["", "u", "us", "user:"] {
            for behind in ["", "x", "xy"] {
                for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                    let encoded = engine.encode(format!("{before}{VALUE}{behind}"));
                    let out = masked(&mut one, &[encoded.as_bytes()]);
                    assert!(out.contains("<A>") && out.len() < 20, "{before} {behind}: {encoded}: {out}");
                }
            }
        }
        assert_eq!(masked(&mut one, &[b"nothing of it"]), "nothing of it");
    }

    #[test]
    fn the_longest_value_counts_and_each_line_of_one() {
        let mut two = masker(&[("A", "canary"), ("B", "canary-long"), ("C", "first line\nsecond line")]);
        assert_eq!(masked(&mut two, &[b"canary canary-lon canary-long"]), "<A> <A>-lon <B>");
        assert_eq!(masked(&mut two, &[b"first line\n", b"second line, first line"]), "<C>, <C>");
    }

    #[test]
    fn short_values_are_not_masked_and_told() {
        let found = NamedValues::from([
            ("A".to_owned(), SecretValue::from("12345")),
            ("B".to_owned(), SecretValue::from("")),
            ("C".to_owned(), SecretValue::from("123456")),
        ]);
        let (needles, unmasked) = Needles::of(&found).unwrap();
        assert_eq!(unmasked, ["A"]);
        let mut masker = Masker::new(Arc::new(needles));
        assert_eq!(masked(&mut masker, &[b"12345 123456"]), "12345 <C>");
        let mut nothing = Masker::new(Arc::new(Needles::of(&NamedValues::new()).unwrap().0));
        assert_eq!(nothing.push(b"all of it"), b"all of it");
    }

    #[test]
    fn no_more_is_held_back_than_may_be_the_beginning_of_a_value() {
        let mut one = masker(&[("A", "canary")]);
        let longest = one.needles.longest;
        let out = one.push(&[b'x'; 1000]);
        assert_eq!(out.len(), 1000 - (longest - 1));
        assert!(one.is_holding() && one.flush().len() == longest - 1 && !one.is_holding());
    }
}
