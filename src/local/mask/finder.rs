//! Finds the first of many texts in bytes, nearly as fast as they are copied where there is none of them.
//!
//! An automaton takes its next step only when the last one is done, and is too large for the processor's nearest memory
//! once there are some ten values. So most bytes are never shown to it. Whatever is looked for has at least
//! [`LEAST_BYTES`]: of the pieces at every fourth byte, one lies within its first six. Tables of hashes say which pieces
//! begin what, without waiting for each other; only where six bytes fit as well, the automaton decides.

use aho_corasick::{AhoCorasick, Anchored, BuildError, Input, Match, MatchKind, StartKind};

/// What is looked for is at least as long: what is shorter stands in half of all output.
pub(super) const LEAST_BYTES: usize = 6;
/// Bytes of a piece.
const PIECE: usize = 3;
/// From one piece that is looked at to the next.
const STEP: usize = LEAST_BYTES - PIECE + 1;
/// So many pieces are looked at before anything is decided.
const AT_ONCE: usize = 8;
/// One for each hash.
const HASHES: usize = 1 << 16;

/// Texts that are looked for.
pub(super) struct NeedleFinder {
    /// Says which text begins at a place.
    automaton: AhoCorasick,
    /// By a piece's hash, how many bytes before it a text may begin: one bit for each number.
    before: Box<[u8]>,
    /// By the hash of [`LEAST_BYTES`], whether a text may begin with them.
    begins: Box<[bool]>,
}

fn hash_of_piece(piece: [u8; PIECE]) -> usize {
    let [a, b, c] = piece;
    usize::from((u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9E37_79B1) >> 16) as u16)
}

fn hash_of_start(text: &[u8]) -> Option<usize> {
    let start = text.first_chunk::<LEAST_BYTES>()?;
    let number = start.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    Some(usize::from((number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u16))
}

// === impl NeedleFinder ===

impl NeedleFinder {
    /// One for these texts; shorter ones than [`LEAST_BYTES`] are not found.
    ///
    /// # Errors
    /// They are too many, or too long.
    pub(super) fn new<'a>(texts: impl Iterator<Item = &'a Vec<u8>> + Clone) -> Result<Self, BuildError> {
        let mut builder = AhoCorasick::builder();
        let builder = builder.match_kind(MatchKind::LeftmostLongest).start_kind(StartKind::Anchored);
        let automaton = builder.build(texts.clone())?;
        let (mut before, mut begins) = (vec![0; HASHES].into_boxed_slice(), vec![false; HASHES].into_boxed_slice());
        for start in texts.filter_map(|text| text.first_chunk::<LEAST_BYTES>()) {
            if let Some(entry) = hash_of_start(start).and_then(|hash| begins.get_mut(hash)) {
                *entry = true;
            }
            for (offset, piece) in start.array_windows().enumerate() {
                if let Some(entry) = before.get_mut(hash_of_piece(*piece)) {
                    *entry |= 1 << offset;
                }
            }
        }
        Ok(Self { automaton, before, begins })
    }

    /// The first that begins at `from` or behind it; of several there, the longest.
    pub(super) fn find(&self, bytes: &[u8], from: usize) -> Option<Match> {
        const ROW: usize = STEP * AT_ONCE;
        let mut at = from;
        loop {
            let rows = bytes.get(at..)?.chunks_exact(ROW);
            let is_clean = |row: &&[u8]| row.chunks_exact(STEP).fold(0, |all, piece| all | self.before(piece)) == 0;
            at += ROW * rows.take_while(is_clean).count();
            at += STEP * bytes.get(at..)?.chunks(STEP).position(|piece| self.before(piece) != 0)?;
            let offsets = self.before(bytes.get(at..)?);
            let starts = (0..STEP).rev().filter(|offset| offsets & (1 << offset) != 0);
            let mut starts = starts.filter_map(|offset| at.checked_sub(offset)).filter(|start| *start >= from);
            if let Some(found) = starts.find_map(|start| self.at(bytes, start)) {
                return Some(found);
            }
            at += STEP;
        }
    }

    /// How many bytes before these a text may begin.
    fn before(&self, bytes: &[u8]) -> u8 {
        let hash = bytes.first_chunk().map(|piece| hash_of_piece(*piece));
        hash.and_then(|hash| self.before.get(hash)).copied().unwrap_or_default()
    }

    /// The longest text that begins here.
    fn at(&self, bytes: &[u8], start: usize) -> Option<Match> {
        let hash = hash_of_start(bytes.get(start..)?)?;
        self.begins.get(hash).copied().filter(|may_be| *may_be)?;
        self.automaton.find(Input::new(bytes).range(start..).anchored(Anchored::Yes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The automaton alone, which looks at each byte.
    fn slowly(texts: &[Vec<u8>]) -> AhoCorasick {
        AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts).unwrap()
    }

    fn same(texts: &[Vec<u8>], bytes: &[u8], finder: &NeedleFinder) {
        let slow = slowly(texts);
        let mut from = 0;
        loop {
            let expected = slow.find(Input::new(bytes).range(from..));
            assert_eq!(finder.find(bytes, from), expected, "from {from} in {bytes:?} of {texts:?}");
            let Some(found) = expected else { return };
            // Places within a text, too.
            from = found.start() + 1 + from % 3;
        }
    }

    #[test]
    fn a_text_is_found_wherever_it_stands() {
        let texts = vec![b"canary".to_vec(), b"canary-long".to_vec(), b"ary-lon".to_vec(), vec![0; 6]];
        let finder = NeedleFinder::new(texts.iter()).unwrap();
        for text in &texts {
            for before in 0..80 {
                for behind in [0, 1, 2, 3, 40] {
                    let bytes = [&vec![b'x'; before], text.as_slice(), &vec![b'x'; behind]].concat();
                    same(&texts, &bytes, &finder);
                }
            }
        }
        same(&[], b"nothing is looked for", &NeedleFinder::new([].iter()).unwrap());
    }

    /// Of few letters, so beginnings are common and texts overlap.
    #[test]
    fn it_finds_what_the_automaton_finds() {
        let mut state = 1_u32;
        let mut letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + u8::try_from(state >> 31).unwrap()
        };
        for round in 0..30_usize {
            let texts: Vec<Vec<u8>> =
                (0..=round / 5).map(|length| (0..LEAST_BYTES + length % 7).map(|_| letter()).collect()).collect();
            let finder = NeedleFinder::new(texts.iter()).unwrap();
            let bytes: Vec<u8> = (0..2000).map(|_| letter()).collect();
            for end in [0, 5, 6, 7, 31, 32, 33, 2000] {
                same(&texts, &bytes[..end], &finder);
            }
        }
    }
}
