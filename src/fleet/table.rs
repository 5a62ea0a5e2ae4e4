//! Statuses for people and for scripts.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::inventory::PodStatus;
use super::live::Live;
use super::safe::shown;
use crate::generation::GenerationId;
use crate::report::line::{FailingProvider, Problem, ReportLine, Variables, ascii};
use crate::sentence::counted;

/// Characters of a cell.
const MOST_CELL: usize = 200;
/// What a cell says of what is not known.
const UNKNOWN: &str = "-";

/// The statuses as JSON, for scripts: src/fleet.md, JSON.
pub(super) fn json(statuses: &[PodStatus], live: Option<&[Live]>) -> String {
    pretty(&json!({"schema": 1, "pods": statuses, "live": live}))
}

/// JSON on many lines, in ASCII.
pub(super) fn pretty(value: &impl Serialize) -> String {
    // Every key is text.
    let mut text = ascii(&serde_json::to_string_pretty(value).unwrap_or_default());
    text.push('\n');
    text
}

/// A line for each pod, and for each volume of one that has several.
pub(super) fn text(statuses: &[PodStatus], is_wide: bool, has_namespaces: bool, live: Option<&[Live]>) -> String {
    if statuses.is_empty() {
        return "no pods with secrets of hushpod\n".to_owned();
    }
    let now = now();
    let mut head = vec!["POD", "MODE", "GENERATION", "SINCE", "NEWEST", "STATE"];
    if has_namespaces {
        head.insert(0, "NAMESPACE");
    }
    if is_wide {
        head.extend(["NODE", "FILES", "BYTES", "NEXT", "LEASE", "RUNNING", "WAVE", "VOLUME"]);
    }
    if live.is_some() {
        head.push("LIVE");
    }
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for status in statuses {
        let none = ReportLine::default();
        let reports = if status.reports.is_empty() { std::slice::from_ref(&none) } else { &status.reports };
        for report in reports {
            let mut row = Vec::new();
            if has_namespaces {
                row.push(status.pod.namespace.clone());
            }
            row.extend([status.pod.name.clone(), status.pod.mode.as_str().to_owned()]);
            row.extend([id(report.generation.as_ref()), age(report.since.as_deref(), now), newest(report)]);
            row.push(state(status, report, now));
            if is_wide {
                row.extend(wide(status, report, now));
            }
            if let Some(live) = live {
                row.push(live.iter().find(|live| live.uid == status.pod.uid).map_or(UNKNOWN.to_owned(), Live::shown));
            }
            rows.push(row);
        }
    }
    aligned(&rows)
}

fn wide(status: &PodStatus, report: &ReportLine, now: i64) -> [String; 8] {
    let number = |number: Option<u64>| number.map_or(UNKNOWN.to_owned(), |number| number.to_string());
    let running = report.variables.as_ref().and_then(|variables| variables.running.as_ref()).map(|running| {
        let ids: Vec<_> = running.iter().map(|GenerationId(id)| id.as_str()).collect();
        if ids.is_empty() { "none".to_owned() } else { ids.join(",") }
    });
    let wave = report
        .advance
        .as_ref()
        .map(|asked| if asked.done { asked.id.clone() } else { format!("{} (not yet)", asked.id) });
    [
        status.pod.node.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        number(report.files.map(|files| files as u64)),
        number(report.bytes),
        ahead(report.next_due.as_deref(), now),
        ahead(report.lease_end.as_deref(), now),
        running.unwrap_or_else(|| UNKNOWN.to_owned()),
        wave.unwrap_or_else(|| UNKNOWN.to_owned()),
        report.volume.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
    ]
}

/// Columns with two blanks between them; the last one is not filled up.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| shown(cell, MOST_CELL)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn id(id: Option<&GenerationId>) -> String {
    id.map_or_else(|| UNKNOWN.to_owned(), |GenerationId(id)| id.clone())
}

fn newest(report: &ReportLine) -> String {
    match &report.newest {
        Some(newest) if report.generation.as_ref() == Some(newest) => "same".to_owned(),
        newest => id(newest.as_ref()),
    }
}

/// In words: what keeps the pod from what is newest, and what fails.
pub(super) fn state(status: &PodStatus, report: &ReportLine, now: i64) -> String {
    if let Some(problem) = &status.problem {
        return if status.pod.is_deleting { format!("being deleted: {problem}") } else { problem.clone() };
    }
    let ReportLine { generation, newest, held, pinned, problem, behind, denied, failing, failing_left_out, .. } =
        report;
    let mut words = Vec::new();
    if status.pod.is_deleting {
        words.push("being deleted".to_owned());
    }
    if generation.is_none() {
        words.push("waiting for the first files".to_owned());
    }
    if *held {
        words.push("held".to_owned());
    }
    words.extend(pinned.as_ref().map(|_| "pinned".to_owned()));
    words.extend(report.pin_refused.as_ref().map(|GenerationId(id)| format!("cannot go back to {id}")));
    words.extend(problem.map(|problem| {
        match problem {
            Problem::Unusable => "the newest makes no files",
            Problem::Unwritable => "the newest cannot be written",
        }
        .to_owned()
    }));
    if generation.is_some()
        && newest.is_some()
        && newest != generation
        && !held
        && pinned.is_none()
        && problem.is_none()
    {
        words.push("behind".to_owned());
    }
    if *behind > 0 {
        words.push(format!("{} behind", counted(*behind, "file")));
    }
    words.extend(denied.as_ref().map(|rules| format!("denied by {rules}")));
    let is_told = |one: &&FailingProvider| denied.is_none() || one.kind.as_deref() != Some("denied");
    words.extend(failing.iter().filter(is_told).map(|FailingProvider { provider, kind, since }| {
        let kind = kind.as_deref().unwrap_or("failing");
        format!("{provider} {kind} for {}", age(Some(since), now))
    }));
    if *failing_left_out > 0 {
        words.push(format!("{} more failing", counted(*failing_left_out, "provider")));
    }
    if let Some(Variables { restart_due: Some(due), .. }) = &report.variables {
        words.push(format!("restarts in {}", ahead(Some(due), now)));
    }
    words.extend(report.advance.iter().filter(|asked| !asked.done).map(|asked| format!("wave {} not yet", asked.id)));
    if words.is_empty() {
        words.push(if newest.is_some() { "current" } else { "not heard from the stores yet" }.to_owned());
    }
    words.join(", ")
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A point in time as seconds since 1970.
pub(super) fn seconds(text: &str) -> Option<i64> {
    Some(OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp())
}

/// How long ago that was.
pub(super) fn age(text: Option<&str>, now: i64) -> String {
    text.and_then(seconds).map_or(UNKNOWN.to_owned(), |at| span(now.saturating_sub(at)))
}

/// In how long it will be.
fn ahead(text: Option<&str>, now: i64) -> String {
    text.and_then(seconds).map_or(UNKNOWN.to_owned(), |at| span(at.saturating_sub(now)))
}

/// As kubectl writes it, in one unit.
fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::our_pod::OurPod;
    use crate::options::Mode;
    use crate::report::line::Asked;

    fn id(text: &str) -> GenerationId {
        GenerationId(text.to_owned())
    }

    fn status(reports: Vec<ReportLine>) -> PodStatus {
        let pod = OurPod {
            namespace: "team-a".into(),
            name: "web-1".into(),
            uid: "u1".into(),
            node: Some("n1".into()),
            mode: Mode::Sidecar,
            phase: "Running".into(),
            is_ready: true,
            is_deleting: false,
            created: 0,
            annotations: std::collections::BTreeMap::new(),
        };
        let problem = reports.is_empty().then(|| "no report\u{1b}[2J".to_owned());
        PodStatus { pod, reports, problem }
    }

    #[test]
    fn a_state_says_what_is_in_the_way() {
        let now = seconds("2026-01-01T01:00:00Z").unwrap();
        let current = || ReportLine { generation: Some(id("g1")), newest: Some(id("g1")), ..ReportLine::default() };
        let failing = FailingProvider {
            provider: "vault".into(),
            kind: Some("denied".into()),
            since: "2026-01-01T00:55:00Z".into(),
        };
        for (report, expected) in [
            (current(), "current"),
            (ReportLine { newest: None, ..current() }, "not heard from the stores yet"),
            (ReportLine::default(), "waiting for the first files"),
            (ReportLine { newest: Some(id("g2")), ..current() }, "behind"),
            (ReportLine { newest: Some(id("g2")), held: true, ..current() }, "held"),
            (ReportLine { pinned: Some(id("g1")), ..current() }, "pinned"),
            (ReportLine { problem: Some(Problem::Unusable), ..current() }, "the newest makes no files"),
            (ReportLine { behind: 2, ..current() }, "2 files behind"),
            (ReportLine { behind: 1, ..current() }, "1 file behind"),
            (ReportLine { failing_left_out: 1, ..current() }, "1 provider more failing"),
            (ReportLine { failing: vec![failing.clone()], ..current() }, "vault denied for 5m"),
            (
                ReportLine { failing: vec![failing], denied: Some("deny[0]".into()), newest: None, ..current() },
                "denied by deny[0]",
            ),
            (ReportLine { advance: Some(Asked { id: "w1".into(), done: false }), ..current() }, "wave w1 not yet"),
        ] {
            assert_eq!(state(&status(vec![report.clone()]), &report, now), expected);
        }
    }

    #[test]
    fn a_pod_on_its_way_out_says_so() {
        let held = ReportLine { generation: Some(id("g1")), held: true, ..ReportLine::default() };
        for (reports, expected) in [(vec![held], "being deleted, held"), (vec![], "being deleted: no report\u{1b}[2J")]
        {
            let mut status = status(reports);
            status.pod.is_deleting = true;
            let report = status.reports.first().cloned().unwrap_or_default();
            assert_eq!(state(&status, &report, 0), expected);
        }
    }

    #[test]
    fn p5_what_tenants_name_gives_the_terminal_no_orders() {
        let mut hostile =
            status(vec![ReportLine { generation: Some(id("\u{1b}]0;x\u{7}\u{202e}")), ..ReportLine::default() }]);
        hostile.pod.name = "a\u{1b}[2J".into();
        for text in [text(&[hostile.clone(), status(vec![])], true, true, None), json(&[hostile], None)] {
            assert!(!text.replace('\n', "").contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["A", "B"], ["long", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "A     B\nlong  x\n");
    }
}
