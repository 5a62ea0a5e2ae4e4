//! The demo's output: lines for people as things happen, or one JSON document for scripts.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use json_patch::{Patch, PatchOperation};
use serde_json::{Value, json};

use super::claim::{Claim, pointer};
use super::error::DemoError;
use crate::process::terminal::wrap;

/// How to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One document at the end.
    Json,
    /// Lines.
    Plain,
    /// Lines with colours.
    Colour,
}

/// Claims and figures, and where they are written.
pub(super) struct DemoReport<'a> {
    out: &'a mut (dyn Write + Send),
    style: Style,
    /// Columns of the terminal; lines are as long as they are if there is none.
    width: Option<usize>,
    claims: Vec<Claim>,
    measured: Vec<Value>,
}

// === impl Style ===

impl Style {
    /// Colours on a terminal only (<https://no-color.org>).
    pub(super) fn of_stdout() -> Self {
        if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() { Self::Colour } else { Self::Plain }
    }
}

// === impl DemoReport ===

impl<'a> DemoReport<'a> {
    pub(super) fn new(out: &'a mut (dyn Write + Send), style: Style, width: Option<usize>) -> Self {
        Self { out, style, width, claims: Vec::new(), measured: Vec::new() }
    }

    /// A line for people.
    pub(super) fn line(&mut self, text: &str) -> Result<(), DemoError> {
        self.wrapped(text, 2)
    }

    /// A line whose further lines on a narrow terminal begin in column `hanging`.
    fn wrapped(&mut self, text: &str, hanging: usize) -> Result<(), DemoError> {
        if self.style == Style::Json {
            return Ok(());
        }
        let text = self.width.map_or_else(|| text.to_owned(), |width| wrap(text, width, hanging));
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Result<(), DemoError> {
        writeln!(self.out, "{text}").and_then(|()| self.out.flush()).map_err(|cause| match cause.kind() {
            io::ErrorKind::BrokenPipe => DemoError::Unread,
            _ => DemoError::io("write the report")(cause),
        })
    }

    pub(super) fn heading(&mut self, text: &str) -> Result<(), DemoError> {
        let text = if self.style == Style::Colour { format!("\n\x1b[1m{text}\x1b[0m") } else { format!("\n{text}") };
        self.line(&text)
    }

    pub(super) fn step(&mut self, what: &str, text: &str) -> Result<(), DemoError> {
        self.wrapped(&format!("  {what:<15} {text}"), STEP)
    }

    pub(super) fn claim(&mut self, claim: impl Into<String>, holds: bool, seen: impl Into<String>) {
        self.claims.push(Claim { claim: claim.into(), holds, seen: seen.into() });
    }

    /// The figures of one mode.
    pub(super) fn measured(&mut self, mode: &str, delays: &[Duration], reads: u64, torn: u64) {
        let visible: Vec<_> = delays.iter().map(|delay| delay.as_secs_f64() * 1000.0).collect();
        self.measured.push(json!({"mode": mode, "visible_ms": visible, "reads": reads, "torn_reads": torn}));
    }

    /// Writes the claims; `true` if all of them hold.
    pub(super) fn finish(mut self) -> Result<bool, DemoError> {
        let holds = self.claims.iter().all(|claim| claim.holds);
        if self.style == Style::Json {
            let document = json!({"holds": holds, "claims": self.claims, "modes": self.measured});
            self.write(&format!("{document:#}"))?;
            return Ok(holds);
        }
        self.heading("claims")?;
        for Claim { claim, holds, seen } in self.claims.clone() {
            let word = match (self.style, holds) {
                (Style::Colour, true) => "\x1b[32mok\x1b[0m    ",
                (Style::Colour, false) => "\x1b[31mFAILED\x1b[0m",
                (_, true) => "ok    ",
                (_, false) => "FAILED",
            };
            self.wrapped(&format!("  {word}  {claim} ({seen})"), CLAIM)?;
        }
        let summary = self.summary(holds);
        self.wrapped(&format!("\n{summary}"), 0)?;
        Ok(holds)
    }

    /// What was seen, and what to do next.
    fn summary(&self, holds: bool) -> String {
        if !holds {
            let failed = self.claims.iter().filter(|claim| !claim.holds).count();
            let claims = if failed == 1 { "1 claim does not hold" } else { &format!("{failed} claims do not hold") };
            return format!("{claims}: see FAILED above; next: hushpod demo --json, and tell us what it says");
        }
        let delays = self.measured.iter().flat_map(|mode| mode["visible_ms"].as_array().into_iter().flatten());
        let delays: Vec<_> = delays.filter_map(Value::as_f64).collect();
        let most = delays.iter().copied().fold(0.0, f64::max);
        let reads: u64 = self.measured.iter().filter_map(|mode| mode["reads"].as_u64()).sum();
        format!(
            "every claim holds: {} rotations reached the application, each within {most:.1} ms, and none of {reads} reads \
             was torn; next: your cluster, by README.md, On a cluster",
            delays.len()
        )
    }
}

/// Columns before a step's text, and before a claim's.
const STEP: usize = 18;
const CLAIM: usize = 10;

/// Milliseconds, as people read them.
pub(super) fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// The patch as a person would want to see it: what was added where, not how.
pub(super) fn describe_patch(patch: &Patch, patched: &Value) -> Vec<String> {
    patch.0.iter().flat_map(|operation| describe_operation(operation, patched)).collect()
}

fn describe_operation(operation: &PatchOperation, patched: &Value) -> Vec<String> {
    let PatchOperation::Add(add) = operation else { return vec![format!("~ {}", operation.path())] };
    let path = add.path.to_string();
    let items = match &add.value {
        Value::Array(items) => items.as_slice(),
        item => std::slice::from_ref(item),
    };
    let steps: Vec<_> = path.trim_start_matches("/spec/").split('/').collect();
    let describe = |item: &Value| match steps.as_slice() {
        ["volumes", ..] => describe_volume(item),
        [list @ ("initContainers" | "containers"), index, "volumeMounts", ..] => {
            describe_mount(item, pointer(patched, &format!("/spec/{list}/{index}/name")))
        }
        ["initContainers", ..] => describe_container(item, "init container"),
        ["containers", ..] => describe_container(item, "container"),
        _ => format!("+ {path}"),
    };
    items.iter().map(describe).collect()
}

fn describe_volume(volume: &Value) -> String {
    let kind = if volume.get("emptyDir").is_some() {
        format!("in memory, at most {}", pointer(volume, "/emptyDir/sizeLimit"))
    } else if volume.get("projected").is_some() {
        "one token per provider, for the agent alone".to_owned()
    } else {
        "the pod's annotations, for live controls".to_owned()
    };
    format!("+ volume {:<18} {kind}", pointer(volume, "/name"))
}

fn describe_container(container: &Value, kind: &str) -> String {
    let kind = if container.get("restartPolicy").is_some() { "native sidecar" } else { kind };
    let limits = pointer(container, "/resources/limits/memory");
    let plan = container.pointer("/env/0/value").and_then(Value::as_str).map_or(0, str::len);
    format!(
        "+ {kind} {}: {} {}; non-root, no API token, memory ≤ {limits}, plan of {plan} bytes",
        pointer(container, "/name"),
        pointer(container, "/command/0"),
        pointer(container, "/args/0"),
    )
}

fn describe_mount(mount: &Value, container: &str) -> String {
    let read_only = if mount.get("readOnly") == Some(&json!(true)) { "read-only" } else { "writable" };
    format!(
        "+ mount {} in container {container}: {read_only}, {} of {}",
        pointer(mount, "/mountPath"),
        pointer(mount, "/subPath"),
        pointer(mount, "/name")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_what_was_seen_and_what_is_next() {
        for (holds, parts) in [
            (&[true, true][..], ["every claim holds: 2 rotations", "within 4.0 ms", "100 reads", "next: your cluster"]),
            (&[true, false], ["1 claim does not hold", "FAILED above", "next: ", "--json"]),
            (&[false, false], ["2 claims do not hold", "FAILED above", "next: ", "--json"]),
        ] {
            let mut out = Vec::new();
            let mut report = DemoReport::new(&mut out, Style::Plain, None);
            report.measured("sidecar", &[Duration::from_millis(2), Duration::from_millis(4)], 100, 0);
            for holds in holds {
                report.claim("a", *holds, "b");
            }
            assert_eq!(report.finish().unwrap(), holds.iter().all(|holds| *holds));
            let text = String::from_utf8(out).unwrap();
            let last = text.lines().last().unwrap();
            assert!(parts.iter().all(|part| last.contains(part)), "{last}");
        }
    }
}
