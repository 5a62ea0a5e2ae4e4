//! Reading what others wrote, up to a bound: the one wording of what goes wrong.

use std::io::{self, Read};

/// Why it is of no use, to stand behind its name. Says nothing of what it holds.
#[derive(Debug, thiserror::Error)]
pub enum BoundedReadError {
    /// The system refuses.
    #[error("cannot be read: {}", why(.0))]
    Io(#[source] io::Error),
    /// It is longer than so many bytes.
    #[error("has more than {0} bytes")]
    TooLong(usize),
    /// It is to be text.
    #[error("is not UTF-8")]
    NotText,
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        kind => kind.to_string(),
    }
}

/// All that a reader has, of at most `most` bytes.
///
/// # Errors
/// [`BoundedReadError`], if there is more, or it cannot be read.
pub fn read_bytes(reader: io::Result<impl Read>, most: usize) -> Result<Vec<u8>, BoundedReadError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    reader.and_then(|reader| reader.take(limit).read_to_end(&mut bytes)).map_err(BoundedReadError::Io)?;
    if bytes.len() > most { Err(BoundedReadError::TooLong(most)) } else { Ok(bytes) }
}

/// The same of text.
///
/// # Errors
/// As [`read_bytes`], and if it is not UTF-8.
pub fn read_text(reader: io::Result<impl Read>, most: usize) -> Result<String, BoundedReadError> {
    String::from_utf8(read_bytes(reader, most)?).map_err(|_| BoundedReadError::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p9_nothing_longer_than_the_bound_is_taken() {
        let missing = || Err(io::ErrorKind::NotFound.into());
        for (reader, outcome) in [
            (Ok(&b"1234"[..]), Ok("1234")),
            (Ok(b""), Ok("")),
            (Ok(b"12345"), Err("has more than 4 bytes")),
            (Ok(b"\xff"), Err("is not UTF-8")),
            (missing(), Err("cannot be read: there is no such file")),
        ] {
            let read = read_text(reader, 4).map_err(|error| error.to_string());
            assert_eq!(read.as_deref().map_err(String::as_str), outcome);
        }
        // It stops at the bound, whatever comes behind it.
        assert!(matches!(read_bytes(Ok(io::repeat(0)), 1000), Err(BoundedReadError::TooLong(1000))));
    }
}
