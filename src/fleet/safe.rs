//! Texts of others for a terminal: what tenants name, and what logs hold, gives it no orders.

/// The text with everything that does not show, or turns what is shown around, escaped; of long ones the beginning.
pub(super) fn shown(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == most {
            out.push('…');
            break;
        }
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Control characters, line and paragraph breaks, and Unicode's format characters as far as terminals heed them.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_gives_the_terminal_no_orders() {
        for (text, expected) in [
            ("web-1", "web-1"),
            ("é, 名", "é, 名"),
            ("\u{1b}[2J\u{9b}1m\u{7f}", "\\u{1b}[2J\\u{9b}1m\\u{7f}"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("a\u{202e}b\u{2066}c\u{200b}", "a\\u{202e}b\\u{2066}c\\u{200b}"),
            ("0123456789x", "0123456789…"),
        ] {
            assert_eq!(shown(text, if text.len() == 11 { 10 } else { 100 }), expected);
        }
    }
}
