//! Values in what a command prints, replaced by their names: also as base64, percent-encoded, and in JSON, as the usual
//! libraries write them.
//!
//! What is found has to come within [`HOLD`]: a value that a command prints in pieces further apart is not seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use self::finder::NeedleFinder;
use super::error::LocalError;
use crate::secret::SecretValue;

mod finder;

/// What is shorter is not masked.
pub(super) const LEAST_BYTES: usize = self::finder::LEAST_BYTES;

/// How long a piece of output may wait for what follows it.
const HOLD: Duration = Duration::from_millis(50);
/// What is percent-encoded by RFC 3986, 2.3 …
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// … by Python's `quote`, which keeps a path's slashes …
const OF_PATHS: &AsciiSet = &RESERVED.remove(b'/');
/// … and by JavaScript's `encodeURIComponent` (ECMA-262, 19.2.6.4).
const OF_JAVASCRIPT: &AsciiSet = &RESERVED.remove(b'!').remove(b'*').remove(b'\'').remove(b'(').remove(b')');

/// What is looked for, and what each is called.
pub(super) struct Needles {
    finder: NeedleFinder,
    names: Vec<String>,
    longest: usize,
}

/// What is looked for now: the values of a command that runs may become others. Clones share it.
#[derive(Clone)]
pub(super) struct PresentNeedles(Arc<Mutex<Arc<Needles>>>);

/// One stream, masked as it goes by.
pub(super) struct Masker {
    present: PresentNeedles,
    needles: Arc<Needles>,
    /// What may be the beginning of a value.
    held: Zeroizing<Vec<u8>>,
    /// When its pieces came, and how many bytes of each are held.
    arrivals: VecDeque<(Instant, usize)>,
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
    forms.extend(percent_forms(text).map(String::into_bytes));
    forms.extend(std::str::from_utf8(text).into_iter().flat_map(json_forms).map(String::into_bytes));
    forms
}

/// The last is that of forms, with `+` for a blank.
fn percent_forms(text: &[u8]) -> impl Iterator<Item = String> {
    let encoded = [RESERVED, OF_PATHS, OF_JAVASCRIPT].map(|set| percent_encode(text, set).to_string());
    let of_forms = encoded[0].replace("%20", "+");
    encoded.into_iter().chain([of_forms])
}

/// Between its quotes, as most libraries write it; as Go's does, for which HTML is no danger then; as Python's does, in
/// ASCII; and as PHP's does.
fn json_forms(text: &str) -> Vec<String> {
    let Ok(quoted) = serde_json::to_string(text) else { return Vec::new() };
    let plain = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    let escaped = |is_escaped: fn(char) -> bool| {
        let mut out = String::with_capacity(plain.len());
        for letter in plain.chars() {
            if is_escaped(letter) {
                out.extend(letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
            } else {
                out.push(letter);
            }
        }
        out
    };
    let of_go = escaped(|letter| matches!(letter, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'));
    let in_ascii = escaped(|letter| !letter.is_ascii());
    let of_php = in_ascii.replace('/', "\\/");
    vec![plain.to_owned(), of_go, in_ascii, of_php]
}

// === impl Needles ===

impl Needles {
    /// Those of each value and of each of its lines, and the names of values that have a shorter line.
    ///
    /// # Errors
    /// One sentence, if there is too much to look for.
    pub(super) fn of<'a>(
        found: impl IntoIterator<Item = (&'a String, &'a SecretValue)>,
    ) -> Result<(Self, Vec<String>), LocalError> {
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

// === impl PresentNeedles ===

impl PresentNeedles {
    pub(super) fn new(needles: Needles) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(needles))))
    }

    /// From now on these are looked for.
    pub(super) fn replace(&self, needles: Needles) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(needles);
    }

    fn get(&self) -> Arc<Needles> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Masker ===

impl Masker {
    pub(super) fn new(present: PresentNeedles) -> Self {
        Self { needles: present.get(), present, held: Zeroizing::default(), arrivals: VecDeque::new() }
    }

    /// When something that is held back has waited for long enough; `None` if nothing is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.arrivals.front().map(|(arrival, _)| *arrival + HOLD)
    }

    /// Takes output, or none, and gives what is certain, or has waited for long enough.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) -> Vec<u8> {
        self.needles = self.present.get();
        if !bytes.is_empty() {
            self.held.extend_from_slice(bytes);
            self.arrivals.push_back((now, bytes.len()));
        }
        // A value that begins before has come as a whole.
        let certain = (self.held.len() + 1).saturating_sub(self.needles.longest.max(1));
        let is_due = |(arrival, _): &&(Instant, usize)| *arrival + HOLD <= now;
        let due = self.arrivals.iter().take_while(is_due).map(|(_, length)| length).sum();
        self.release(certain.max(due))
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
        while let Some((arrival, length)) = self.arrivals.pop_front() {
            if length > at {
                self.arrivals.push_front((arrival, length - at));
                break;
            }
            at -= length;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::files::NamedValues;

    fn masker(pairs: &[(&str, &str)]) -> Masker {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), SecretValue::from(*value)));
        let found: NamedValues = pairs.collect();
        Masker::new(PresentNeedles::new(Needles::of(&found).unwrap().0))
    }

    fn masked(masker: &mut Masker, pieces: &[&[u8]]) -> String {
        let now = Instant::now();
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| masker.push(piece, now)).collect();
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

    /// What `json.dumps`, `json.Marshal`, `json_encode`, `quote`, `quote_plus` and `encodeURIComponent` make of it.
    #[test]
    fn p5_a_value_is_masked_as_the_usual_libraries_write_it() {
        let mut one = masker(&[("A", "p&s/w (1)! \u{e4}\u{1f600}")]);
        for text in [
            r#"{"a": "p&s/w (1)! \u00e4\ud83d\ude00"}"#,
            "{\"a\":\"p\\u0026s/w (1)! \u{e4}\u{1f600}\"}",
            r#"{"a":"p&s\/w (1)! \u00e4\ud83d\ude00"}"#,
            "x=p%26s/w%20%281%29%21%20%C3%A4%F0%9F%98%80",
            "x=p%26s%2Fw+%281%29%21+%C3%A4%F0%9F%98%80&y",
            "x=p%26s%2Fw%20(1)!%20%C3%A4%F0%9F%98%80",
        ] {
            let out = masked(&mut one, &[text.as_bytes()]);
            assert!(out.contains("<A>") && out.len() < 16, "{text}: {out}");
        }
    }

    #[test]
    fn p5_values_that_come_later_are_masked_from_then_on() {
        let mut first = masker(&[("A", "canary")]);
        let now = Instant::now();
        let mut out = first.push(b"canary later", now);
        let both =
            [("A", "canary"), ("A", "later-value")].map(|(name, value)| (name.to_owned(), SecretValue::from(value)));
        let (needles, _) = Needles::of(both.iter().map(|(name, value)| (name, value))).unwrap();
        first.present.replace(needles);
        out.extend(first.push(b", canary later-value", now));
        out.extend(first.flush());
        assert_eq!(String::from_utf8_lossy(&out), "<A> later, <A> <A>");
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
        let mut masker = Masker::new(PresentNeedles::new(needles));
        assert_eq!(masked(&mut masker, &[b"12345 123456"]), "12345 <C>");
        let mut nothing = Masker::new(PresentNeedles::new(Needles::of(&NamedValues::new()).unwrap().0));
        assert_eq!(nothing.push(b"all of it", Instant::now()), b"all of it");
    }

    #[test]
    fn no_more_is_held_back_than_may_be_the_beginning_of_a_value() {
        let mut one = masker(&[("A", "canary")]);
        let longest = one.needles.longest;
        let out = one.push(&[b'x'; 1000], Instant::now());
        assert_eq!(out.len(), 1000 - (longest - 1));
        assert!(one.due().is_some() && one.flush().len() == longest - 1 && one.due().is_none());
    }

    /// Of what trickles, each byte waits for itself.
    #[test]
    fn nothing_waits_longer_than_it_may_though_more_comes_all_the_time() {
        let mut one = masker(&[("A", "canary-that-is-long")]);
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut shown = Vec::new();
        for number in 0..100 {
            shown.extend(one.push(b"x", at(number * 10)));
            // What came 50 ms ago and before.
            let due = usize::try_from(number).unwrap().saturating_sub(4);
            assert!(shown.len() >= due, "{} of {due} after {} ms", shown.len(), number * 10);
        }
        // A value that comes in time is masked, whatever waits before it.
        shown.extend(one.push(b"canary-that-", at(1035)));
        shown.extend(one.push(b"", at(1045)));
        shown.extend(one.push(b"is-long", at(1080)));
        shown.extend(one.flush());
        assert_eq!(String::from_utf8(shown).unwrap(), format!("{}<A>", "x".repeat(100)));
        shown = one.push(b"canary-that-", at(2000));
        assert_eq!(one.due(), Some(at(2050)));
        shown.extend(one.push(b"", at(2050)));
        assert_eq!(shown, b"canary-that-", "what comes later is another piece");
    }
}
