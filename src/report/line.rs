//! A report as one line of a container's log, for programs: `kubectl hushpod` reads what a pod holds there. The page with
//! its fields: src/fleet.md, Report lines.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::generation::GenerationId;

/// The target of its events, whose sentence is the whole line: whatever the log's format and level.
pub const TARGET: &str = "hushpod::report-line";
/// The format that this program writes. It understands later ones as far as their fields have the same names.
pub const SCHEMA: u32 = 1;
/// Bytes of a line. Runtimes cut lines of a log at 16 KiB.
pub const MAX_BYTES: usize = 4096;
/// What every line begins with.
const START: &str = r#"{"event":"report","schema":"#;
/// Room for digits of counts that grow while lists are cut.
const SPARE: usize = 32;
/// Characters of a text that stores or people chose.
const MOST_TEXT: usize = 128;
/// Generations of running processes that are listed.
const MOST_RUNNING: usize = 8;

/// What a pod's volume holds, and what is in the way. Never a value, nor a name that only the store knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportLine {
    /// `report`: what kind of line this is.
    pub event: String,
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it was written: RFC 3339, UTC.
    pub timestamp: String,
    /// Whose files they are.
    pub pod: ReportedPod,
    /// Which process of ours looks after them.
    pub writer: Writer,
    /// kubelet's name of a volume of the CSI driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The generation in the files; `null` before the first.
    pub generation: Option<GenerationId>,
    /// Since when: RFC 3339.
    pub since: Option<String>,
    /// The newest that the stores have; `null` while this process has not heard from all of them.
    pub newest: Option<GenerationId>,
    /// Files, as far as this process wrote them.
    pub files: Option<usize>,
    /// Bytes of all of them together.
    pub bytes: Option<u64>,
    /// Files of the generation that are older than it, or missing: their values do not make files.
    pub behind: usize,
    /// Why the newest is not in the files, beside `held` and `pinned`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Whether `hold` freezes it.
    pub held: bool,
    /// Where `pin` freezes it.
    pub pinned: Option<GenerationId>,
    /// What `pin` names and cannot be gone back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_refused: Option<GenerationId>,
    /// The wave that asked last.
    pub advance: Option<Asked>,
    /// The `refresh-now` that asked last.
    pub refresh: Option<Asked>,
    /// The rules of the operator's `deny` that stop it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// Providers whose last answer was an error.
    pub failing: Vec<FailingProvider>,
    /// How many more of them there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub failing_left_out: usize,
    /// When a store is asked next.
    pub next_due: Option<String>,
    /// When the first lease ends, unless it is renewed.
    pub lease_end: Option<String>,
    /// What is known of processes that run with variables.
    pub variables: Option<Variables>,
    /// What the generation was made of.
    pub secrets: Vec<HeldSecret>,
    /// How many more of them there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub secrets_left_out: usize,
}

/// A pod, as far as the process that writes knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportedPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its UID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its service account.
    pub account: String,
}

/// Which process of ours writes the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Writer {
    /// The agent that runs beside the application.
    #[default]
    Sidecar,
    /// The agent that ends before the application starts.
    Init,
    /// The driver on the node.
    Csi,
}

/// Why the newest generation is not in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Problem {
    /// Its values do not make the files that were asked for.
    Unusable,
    /// They cannot be written.
    Unwritable,
}

/// What someone asked for by a name, and whether it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The annotation's text.
    pub id: String,
    /// Whether it is.
    pub done: bool,
}

/// A provider whose last answer was an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailingProvider {
    /// Its name.
    pub provider: String,
    /// What kind of error: `not_found`, `denied`, `throttled`, `unavailable`, `invalid` or `login`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Since when.
    pub since: String,
}

/// Processes that run with variables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Variables {
    /// The generations that they run with; of pods with a metrics port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Vec<GenerationId>>,
    /// When all containers are restarted for changed variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_due: Option<String>,
    /// How often they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u64>,
}

/// One request of the plan, and what the store had for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldSecret {
    /// Its canonical form.
    pub reference: String,
    /// The store's version; `null` of leases and of stores without versions.
    pub version: Option<String>,
    /// Whether it is a credential that was made for this pod.
    #[serde(skip_serializing_if = "is_false")]
    pub lease: bool,
}

// === impl ReportLine ===

impl ReportLine {
    /// The line, without a line's end: JSON in ASCII, at most [`MAX_BYTES`]. Lists are cut, and say so.
    #[must_use]
    pub fn to_text(mut self) -> String {
        "report".clone_into(&mut self.event);
        self.schema = SCHEMA;
        self.cut_texts();
        let (failing, secrets) = (std::mem::take(&mut self.failing), std::mem::take(&mut self.secrets));
        self.failing_left_out = self.failing_left_out.saturating_add(failing.len());
        self.secrets_left_out = self.secrets_left_out.saturating_add(secrets.len());
        let mut room = MAX_BYTES.saturating_sub(encoded(&self).len() + SPARE);
        let mut fits = |size: usize| {
            let left = room.checked_sub(size + 1);
            room = left.unwrap_or(room);
            left.is_some()
        };
        self.failing.extend(failing.into_iter().filter(|provider| fits(encoded(provider).len())));
        self.secrets.extend(secrets.into_iter().filter(|secret| fits(encoded(secret).len())));
        self.failing_left_out -= self.failing.len();
        self.secrets_left_out -= self.secrets.len();
        encoded(&self)
    }

    /// The report of a log's line; `None` if the line is something else, or not ours to read.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end();
        // No container of ours writes longer ones.
        if !line.starts_with(START) || line.len() > 2 * MAX_BYTES {
            return None;
        }
        serde_json::from_str(line).ok()
    }

    /// Whether both say the same of the pod, whenever it was written.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let lasting = |line: &Self| Self { timestamp: String::new(), next_due: None, lease_end: None, ..line.clone() };
        lasting(self) == lasting(other)
    }

    /// Texts of others are as long as others like.
    fn cut_texts(&mut self) {
        for asked in [&mut self.advance, &mut self.refresh].into_iter().flatten() {
            cut(&mut asked.id);
        }
        self.denied.iter_mut().for_each(cut);
        let pod = [&mut self.pod.name, &mut self.pod.uid, &mut self.volume].into_iter().flatten();
        pod.chain([&mut self.pod.namespace, &mut self.pod.account]).for_each(cut_name);
        self.secrets.iter_mut().filter_map(|secret| secret.version.as_mut()).for_each(cut);
        if let Some(running) = self.variables.as_mut().and_then(|variables| variables.running.as_mut()) {
            running.truncate(MOST_RUNNING);
        }
    }
}

fn cut(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(MOST_TEXT) {
        text.truncate(at);
        text.push('…');
    }
}

/// Kubernetes' names have at most 253 bytes.
fn cut_name(text: &mut String) {
    text.truncate(text.floor_char_boundary(253));
}

fn encoded(value: &impl Serialize) -> String {
    // Every key is text.
    ascii(&serde_json::to_string(value).unwrap_or_default())
}

/// The same JSON in ASCII: no terminal takes anything in it for an order.
#[must_use]
pub fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field as it is")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field as it is")]
fn is_false(truth: &bool) -> bool {
    !*truth
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The reports in what tests' own subscriber wrote.
    pub(crate) fn lines_of(log: &str) -> Vec<ReportLine> {
        log.lines().filter_map(|line| ReportLine::parse(line.get(line.find(START)?..)?)).collect()
    }

    fn id(text: &str) -> GenerationId {
        GenerationId(text.to_owned())
    }

    fn secret(reference: &str, version: &str) -> HeldSecret {
        HeldSecret { reference: reference.to_owned(), version: Some(version.to_owned()), lease: false }
    }

    /// A line with all that it may have.
    fn whole() -> ReportLine {
        ReportLine {
            pod: ReportedPod { namespace: "team-a".into(), account: "web".into(), ..ReportedPod::default() },
            generation: Some(id("4f1c")),
            advance: Some(Asked { id: "w1".into(), done: true }),
            failing: vec![FailingProvider {
                provider: "vault".into(),
                kind: Some("denied".into()),
                ..FailingProvider::default()
            }],
            variables: Some(Variables { running: Some(vec![id("4f1c")]), ..Variables::default() }),
            secrets: vec![secret("vault:secret/data/db", "3")],
            ..ReportLine::default()
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let text = whole().to_text();
        assert!(text.starts_with(START), "{text}");
        let read = ReportLine::parse(&format!("{text}\n")).unwrap();
        assert_eq!(read, ReportLine { event: "report".into(), schema: SCHEMA, ..whole() });
        let later = text.replace("\"schema\":1", "\"schema\":9,\"more\":{}");
        assert_eq!(ReportLine::parse(&later).unwrap().generation, Some(id("4f1c")));
    }

    #[test]
    fn a_line_is_bounded_and_says_what_it_left_out() {
        let secrets: Vec<_> = (0..500).map(|n| secret(&format!("vault:secret/data/{n}/é"), &"9".repeat(400))).collect();
        let failing = FailingProvider { provider: "p".repeat(63), ..FailingProvider::default() };
        let mut line = ReportLine {
            secrets,
            failing: vec![failing; 40],
            refresh: Some(Asked { id: "é\u{1b}[2J\u{202e}".repeat(4000), done: false }),
            volume: Some("v".repeat(4000)),
            denied: Some("\u{7}é".repeat(4000)),
            variables: Some(Variables { running: Some(vec![id(&"f".repeat(30)); 900]), ..Variables::default() }),
            ..whole()
        };
        for long_reference in [false, true] {
            if long_reference {
                line.secrets.insert(0, secret(&"x".repeat(4096), "1"));
            }
            let count = line.secrets.len();
            let text = line.clone().to_text();
            assert!(text.len() <= MAX_BYTES && text.is_ascii() && !text.contains(char::is_control), "{text}");
            let read = ReportLine::parse(&text).unwrap();
            assert_eq!(read.secrets.len() + read.secrets_left_out, count);
            assert_eq!(read.failing.len() + read.failing_left_out, 40);
            assert!(read.secrets_left_out > 0 && !read.failing.is_empty());
            assert_eq!(read.variables.as_ref().unwrap().running.as_ref().map(Vec::len), Some(MOST_RUNNING));
            assert_eq!(read.to_text(), text, "once more it is the same");
        }
    }

    #[test]
    fn what_is_not_a_report_is_passed_over() {
        let text = whole().to_text();
        for line in [
            "",
            "{}",
            r#"{"event":"report","schema":"#,
            r#"{"event":"report","schema":1,"generation":7}"#,
            r#"{"schema":1,"event":"report"}"#,
            &format!(" {text}"),
            &text.replace("\"held\":false", &format!("\"held\":false,\"x\":\"{}\"", "x".repeat(9000))),
        ] {
            assert_eq!(ReportLine::parse(line), None, "{line}");
        }
    }

    #[test]
    fn times_of_the_next_look_are_no_news() {
        let line = whole();
        let later = ReportLine { timestamp: "2026".into(), next_due: Some("2027".into()), ..whole() };
        assert!(line.says_the_same(&later));
        assert!(!line.says_the_same(&ReportLine { held: true, ..whole() }));
    }
}
