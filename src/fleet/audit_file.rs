//! Audit lines of a file, for `who --from-audit`: which pods ever had a secret. The lines are told on src/audit.md.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};

use serde::Deserialize;

use super::error::FleetError;
use crate::audit::SCHEMA;

/// Bytes of a line; our own have a few KiB.
const MOST_LINE: u64 = 64 * 1024;
/// Pods that are kept in mind.
const MOST_PODS: usize = 1_000_000;
/// What our lines have, and what of others' would be taken for one.
#[derive(Deserialize)]
struct Line {
    audit: String,
    time: String,
    event: String,
    outcome: String,
    #[serde(default)]
    namespace: String,
    pod: Option<String>,
    uid: Option<String>,
    reference: Option<String>,
    version: Option<String>,
    count: Option<u64>,
}

/// A pod that had a secret in one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AccessLine {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) reference: String,
    pub(super) version: Option<String>,
}

/// When, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Accesses {
    pub(super) first: String,
    pub(super) last: String,
    pub(super) count: u64,
}

/// Deliveries that went well, of what is wanted. Lines of others are passed over, and counted.
///
/// # Errors
/// A file that cannot be read, or with too many pods.
pub(super) fn read(
    file: impl BufRead,
    is_wanted: impl Fn(&str, Option<&str>) -> bool,
) -> Result<BTreeMap<AccessLine, Accesses>, FleetError> {
    let start = format!("{{\"audit\":\"{SCHEMA}\"");
    let mut found: BTreeMap<AccessLine, Accesses> = BTreeMap::new();
    let mut file = file;
    let mut line = Vec::new();
    loop {
        line.clear();
        let failed = |error: io::Error| FleetError::Failed(format!("the audit file cannot be read: {}", error.kind()));
        if (&mut file).take(MOST_LINE).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(found);
        }
        // Collectors put words of their own before it.
        let Some(text) = std::str::from_utf8(&line).ok().and_then(|text| text.get(text.find(&start)?..)) else {
            continue;
        };
        let mut lines = serde_json::Deserializer::from_str(text).into_iter::<Line>();
        let Some(Ok(Line { audit, time, event, outcome, namespace, pod, uid, reference, version, count })) =
            lines.next()
        else {
            continue;
        };
        let (Some(pod), Some(reference)) = (pod, reference) else { continue };
        if audit != SCHEMA || event != "delivery" || outcome != "ok" || !is_wanted(&reference, version.as_deref()) {
            continue;
        }
        let access = AccessLine { namespace, pod, uid: uid.unwrap_or_default(), reference, version };
        if found.len() >= MOST_PODS && !found.contains_key(&access) {
            return Err(FleetError::Failed(format!("more than {MOST_PODS} pods: name a version")));
        }
        let accesses = found.entry(access).or_default();
        accesses.count += count.unwrap_or(1);
        if accesses.first.is_empty() || time < accesses.first {
            accesses.first.clone_from(&time);
        }
        if time > accesses.last {
            accesses.last = time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_had_a_secret_are_counted_and_other_lines_passed_over() {
        let line = |event: &str, outcome: &str, pod: &str, version: &str, time: &str| {
            format!(
                "{{\"audit\":\"{SCHEMA}\",\"time\":\"{time}\",\"event\":\"{event}\",\"outcome\":\"{outcome}\",\"namespace\":\"a\",\
                 \"pod\":\"{pod}\",\"uid\":\"u-{pod}\",\"reference\":\"vault:x\",\"version\":\"{version}\"}}"
            )
        };
        let text = [
            line("delivery", "ok", "web-1", "1", "2026-01-02"),
            format!("[pod/web-1/hushpod] {}", line("delivery", "ok", "web-1", "1", "2026-01-01")),
            line("delivery", "ok", "web-1", "2", "2026-01-03"),
            line("delivery", "not_delivered", "web-2", "1", "2026-01-03"),
            line("read", "ok", "web-3", "1", "2026-01-03"),
            "2026 INFO something else".to_owned(),
            "x".repeat(200_000),
            line("delivery", "ok", "web-4", "1", "2026-01-03").replace("vault:x", "vault:y"),
            line("delivery", "ok", "web-5", "1", "2026-01-03").replace('}', ",\"count\":7}"),
        ]
        .join("\n");
        let found = read(text.as_bytes(), |reference, _| reference == "vault:x").unwrap();
        let found: Vec<_> = found
            .into_iter()
            .map(|(access, Accesses { first, last, count })| {
                (access.pod, access.version.unwrap_or_default(), first, last, count)
            })
            .collect();
        let row = |pod: &str, version: &str, first: &str, last: &str, count| {
            (pod.to_owned(), version.to_owned(), first.to_owned(), last.to_owned(), count)
        };
        assert_eq!(
            found,
            [
                row("web-1", "1", "2026-01-01", "2026-01-02", 2),
                row("web-1", "2", "2026-01-03", "2026-01-03", 1),
                row("web-5", "1", "2026-01-03", "2026-01-03", 7),
            ]
        );
    }
}
