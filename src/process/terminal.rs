//! Text for standard output, and for a terminal of a certain width.

use std::io::{self, Write as _};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Writes to standard output at once: what follows may take its time. A reader that closed the pipe has seen enough.
///
/// # Errors
/// If it cannot be written.
pub fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    // What was written before, in its place; and then past Rust's own buffer, which forgets how much is written if the
    // pipe is full.
    match out.flush().and_then(|()| write_whole(&out, bytes)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes all of it, and waits where there is no room: somebody else who has the same pipe or terminal may have said that
/// nobody waits there (`O_NONBLOCK`), as Node does.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(to: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        match rustix::io::write(&to, left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => left = left.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&to, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            },
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Columns of the terminal that standard output is; `None` if it is not one.
#[must_use]
pub fn width_of_stdout() -> Option<usize> {
    let columns = rustix::termios::tcgetwinsize(io::stdout()).ok()?.ws_col;
    (columns > 0).then_some(usize::from(columns))
}

/// Breaks lines at blanks where they would not fit; further lines begin in column `hanging`. A word that is longer than a
/// line stays whole.
#[must_use]
pub fn wrap(text: &str, width: usize, hanging: usize) -> String {
    let lines = text.split('\n').map(|line| {
        let (mut wrapped, mut column) = (String::new(), 0);
        for (index, word) in line.split(' ').enumerate() {
            let columns = columns(word);
            if column > hanging && column + 1 + columns > width {
                wrapped.truncate(wrapped.trim_end().len());
                wrapped.push('\n');
                wrapped.push_str(&" ".repeat(hanging));
                column = hanging;
            } else if index > 0 {
                wrapped.push(' ');
                column += 1;
            }
            wrapped.push_str(word);
            column += columns;
        }
        wrapped
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Columns that a word takes, without its colours.
fn columns(word: &str) -> usize {
    let mut is_colour = false;
    let is_seen = |character: &char| {
        let was_colour = is_colour;
        is_colour = if was_colour { *character != 'm' } else { *character == '\x1b' };
        !was_colour && !is_colour
    };
    word.chars().filter(is_seen).count()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::thread;

    use super::*;

    #[test]
    fn a_pipe_that_is_full_and_does_not_wait_gets_all_of_it() {
        let (mut from, to) = io::pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&to).unwrap();
        rustix::fs::fcntl_setfl(&to, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        // More than a pipe holds.
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|at| at.to_le_bytes()[0]).collect();
        let expected = bytes.clone();
        let writer = thread::spawn(move || write_whole(&to, &bytes));
        let mut read = Vec::new();
        from.read_to_end(&mut read).unwrap();
        assert!(writer.join().unwrap().is_ok() && read == expected, "{} bytes", read.len());
        let (from, to) = io::pipe().unwrap();
        drop(from);
        assert_eq!(write_whole(&to, b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn lines_are_broken_at_blanks_where_they_would_not_fit() {
        for (text, width, hanging, expected) in [
            ("", 10, 2, ""),
            ("a b", 10, 2, "a b"),
            ("one two three", 7, 2, "one two\n  three"),
            ("one two three", 8, 0, "one two\nthree"),
            ("  what   text of several words", 16, 9, "  what   text of\n         several\n         words"),
            ("/a/path/longer/than/a/line b", 10, 2, "/a/path/longer/than/a/line\n  b"),
            ("a/path/longer", 5, 2, "a/path/longer"),
            ("\nabc def\n  ghi jkl", 6, 2, "\nabc\n  def\n  ghi\n  jkl"),
            ("\x1b[32mok\x1b[0m ab cd", 8, 0, "\x1b[32mok\x1b[0m ab cd"),
            ("≤ → …", 5, 0, "≤ → …"),
        ] {
            assert_eq!(wrap(text, width, hanging), expected, "{text:?} in {width}");
        }
    }
}
