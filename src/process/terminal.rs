//! Text for standard output, and for a terminal of a certain width.

use std::io::{self, Write as _};

/// Writes to standard output at once: what follows may take its time. A reader that closed the pipe has seen enough.
///
/// # Errors
/// If it cannot be written.
pub fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
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
    use super::*;

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
