//! A page's Markdown as sections of text, code and tables, and how a terminal shows them.
//!
//! Pages are our own, so this knows what they use: headings, paragraphs, lists, fences, tables, links.

use std::fmt::Write as _;

use crate::process::terminal::wrap;

/// A heading and what stands below it, up to the next one.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) level: usize,
    pub(super) title: String,
    pub(super) parts: Vec<PagePart>,
}

/// What a section is made of.
#[derive(Debug)]
pub(super) enum PagePart {
    Paragraph(String),
    /// An entry of a list, with its mark.
    Entry(String),
    /// Lines of a fenced block.
    Code(Vec<String>),
    Table(Table),
}

/// Cells, without the line below the head.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// A page's sections, in order.
pub(super) fn parse(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let marks = line.bytes().take_while(|byte| *byte == b'#').count();
        if marks > 0 {
            let title = plain(line.trim_start_matches('#').trim());
            sections.push(Section { level: marks, title, parts: Vec::new() });
            continue;
        }
        let Some(section) = sections.last_mut() else { continue };
        if line.starts_with("```") {
            let code = lines.by_ref().take_while(|line| !line.starts_with("```")).map(str::to_owned).collect();
            section.parts.push(PagePart::Code(code));
        } else if line.starts_with('|') {
            let mut rows = vec![cells(line)];
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                rows.push(cells(row));
            }
            let head = rows.remove(0);
            rows.retain(|row| !row.iter().all(|cell| cell.starts_with("---")));
            section.parts.push(PagePart::Table(Table { head, rows }));
        } else if !line.is_empty() && !line.starts_with("<!--") {
            let mut text = line.to_owned();
            while let Some(more) = lines.next_if(|next| goes_on(next)) {
                text.push(' ');
                text.push_str(more.trim_start());
            }
            let is_entry = is_entry(&text);
            let text = plain(&text);
            section.parts.push(if is_entry { PagePart::Entry(text) } else { PagePart::Paragraph(text) });
        }
    }
    sections
}

/// Whether a line belongs to the paragraph or entry above it.
fn goes_on(line: &str) -> bool {
    !line.is_empty() && !line.starts_with(['#', '|', '`', '<']) && !is_entry(line)
        || line.starts_with('`') && !line.starts_with("```")
}

fn is_entry(line: &str) -> bool {
    let is_number = |mark: &str| mark.ends_with('.') && mark.trim_end_matches('.').parse::<u8>().is_ok();
    line.split_once(' ').is_some_and(|(mark, _)| mark == "-" || is_number(mark))
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| plain(cell.trim())).collect()
}

/// Links become their texts, emphasis goes; backticks stay, since they say what is written so.
fn plain(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        found.push_str(before);
        match link.split_once("](").and_then(|(label, target)| Some((label, target.split_once(')')?.1))) {
            // A bracket within is not a link's.
            Some((label, after)) if !label.contains('[') => {
                found.push_str(label);
                rest = after;
            }
            _ => {
                found.push('[');
                rest = link;
            }
        }
    }
    found.push_str(rest);
    found.replace("**", "")
}

/// What a heading is asked for by.
pub(super) fn slug(title: &str) -> String {
    let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    title.trim().to_lowercase().chars().filter(is_kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

// === impl Section ===

impl Section {
    /// The section's text in lines of at most `width` columns, as far as words let it.
    pub(super) fn show(&self, width: usize, out: &mut String) {
        let line = if self.level == 1 { '=' } else { '-' };
        let underline: String = self.title.chars().map(|_| line).collect();
        push(out, &format!("{}\n{underline}\n", self.title));
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                PagePart::Paragraph(text) => push(out, &format!("{}\n", wrap(text, width, 0))),
                PagePart::Entry(text) => push(out, &wrap(text, width, 2)),
                PagePart::Code(lines) => {
                    for line in lines {
                        push(out, format!("    {line}").trim_end());
                    }
                    push(out, "");
                }
                PagePart::Table(table) => {
                    for row in &table.rows {
                        table.show(row, width, out);
                    }
                    push(out, "");
                }
            }
            if matches!(part, PagePart::Entry(_)) && !matches!(parts.peek(), Some(PagePart::Entry(_))) {
                push(out, "");
            }
        }
    }
}

// === impl Table ===

impl Table {
    /// A row as a list: a table's columns would not fit.
    pub(super) fn show(&self, row: &[String], width: usize, out: &mut String) {
        let mut cells = self.head.iter().zip(row);
        if let Some((_, first)) = cells.next() {
            push(out, &wrap(first, width, 0));
        }
        for (index, (head, cell)) in cells.enumerate() {
            let is_obvious = head.is_empty() || (index == 0 && (self.head.len() == 2 || head == "meaning"));
            let text = if is_obvious { format!("    {cell}") } else { format!("    {head}: {cell}") };
            push(out, &wrap(&text, width, 4));
        }
    }
}

fn push(out: &mut String, line: &str) {
    // A `String` takes everything.
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_emphasis_go_and_what_is_written_so_stays() {
        for (text, shown) in [
            ("see [the page](a.md#b) and `[x]`", "see the page and `[x]`"),
            ("[`aws`, `ssm`](src/aws.md) | **no**", "`aws`, `ssm` | no"),
            ("`{namespaces: [GLOB], roles: [GLOB]}`", "`{namespaces: [GLOB], roles: [GLOB]}`"),
            ("[provider:]path[#key] [a](b)", "[provider:]path[#key] a"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn a_page_is_shown_in_the_width_that_there_is() {
        let page = "# T\n\nOne two\nthree.\n- an entry\n  that goes on\n- next\n\n<!-- c -->\n| a | meaning | default |\n|---|---|---|\n\
                    | `x` | what it is | 1 |\n\n```sh not-run\ncp a  b\n```\n";
        let sections = parse(page);
        let mut out = String::new();
        sections[0].show(14, &mut out);
        let expected = "T\n=\n\nOne two three.\n\n- an entry\n  that goes on\n- next\n\n`x`\n    what it is\n    default: 1\n\n    cp a  b\n\n";
        assert_eq!(out, expected);
    }
}
