//! Reports: who holds which generation since when, and what is in the way. One shape, logged at each change of state.
//! Never a value.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use tracing::{info, warn};

use self::line::Asked;
use crate::generation::GenerationId;

pub mod line;

/// What the pod holds. [`Report::info`] and [`Report::warn`] log it with one event and one sentence for people.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The generation in the volume.
    pub generation: Option<GenerationId>,
    /// When it was put there.
    #[serde(serialize_with = "as_time")]
    pub since: Option<SystemTime>,
    /// The newest that the stores have, if it is another one.
    pub newest: Option<GenerationId>,
    /// Files of the generation, as far as this process wrote it.
    pub files: Option<usize>,
    /// Bytes of all of them together.
    pub bytes: Option<u64>,
    /// Files of it that are older than it, or missing: their values do not make files.
    pub behind: usize,
    /// Whether `hold` freezes it.
    pub held: bool,
    /// Whether `pin` freezes it, and where.
    pub pinned: Option<GenerationId>,
    /// What `pin` names and cannot be gone back to.
    pub pin_refused: Option<GenerationId>,
    /// The wave that asked last for the newest, hold or not.
    pub advance: Option<Asked>,
    /// The `refresh-now` that asked last.
    pub refresh: Option<Asked>,
    /// Providers whose last answer was an error, and since when.
    #[serde(serialize_with = "as_times")]
    pub failing: BTreeMap<String, SystemTime>,
    /// What the operator's `deny` refuses by now: of such a volume no store is asked.
    #[serde(skip)]
    pub denied: Option<Denial>,
    /// When all containers are restarted for changed variables.
    #[serde(serialize_with = "as_time")]
    pub restart_due: Option<SystemTime>,
    /// How often they were, where they may be.
    pub restarts: Option<u64>,
}

/// What the operator's `deny` refuses of what a pod was planned to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denial {
    /// The rules, such as `deny[0]`.
    pub rules: String,
    /// Why, in a sentence for each provider.
    pub providers: BTreeMap<String, String>,
}

/// What becomes of a volume that is denied.
const STAYS: &str = "nothing of it is read or renewed any more: the last good files stay";

/// The fields of every report.
macro_rules! report {
    ($level:ident, $status:expr, $event:expr, $problem:expr, $sentence:expr) => {{
        let Report { generation, since, newest, files, bytes, held, pinned, failing, restart_due, restarts, .. } =
            $status;
        let failing = failing_since(failing);
        $level!(
            event = $event,
            generation = generation.as_ref().map(|id| id.0.as_str()),
            since = since.map(rfc3339),
            newest = newest.as_ref().map(|id| id.0.as_str()),
            files,
            bytes,
            held,
            pinned = pinned.as_ref().map(|id| id.0.as_str()),
            failing,
            restart_due = restart_due.map(rfc3339),
            restarts,
            problem = $problem,
            "{}",
            $sentence
        );
    }};
}

// === impl Report ===

impl Report {
    /// The newest generation that the stores have, as far as is known: the one in the volume, if there is no other.
    #[must_use]
    pub fn newest_known(&self) -> Option<&GenerationId> {
        self.newest.as_ref().or(self.generation.as_ref())
    }

    /// Takes in which providers fail now; those that failed before keep their beginning.
    pub fn note_failing(&mut self, failing: &BTreeSet<&str>) {
        self.failing.retain(|provider, _| failing.contains(provider.as_str()));
        for provider in failing {
            self.failing.entry((*provider).to_owned()).or_insert_with(SystemTime::now);
        }
    }

    /// Takes in what is refused from now on, or that nothing is any more, and reports it. What is refused is told once
    /// more, for those who read no log.
    pub fn note_denied(&mut self, denied: Option<Denial>) -> Option<String> {
        let before = std::mem::replace(&mut self.denied, denied);
        let Some(Denial { providers, .. }) = self.denied.clone() else {
            self.note_failing(&BTreeSet::new());
            if before.is_some() {
                self.info("allowed_again", "the operator's rules refuse nothing of it any more: it is read now");
            }
            return None;
        };
        self.note_failing(&providers.keys().map(String::as_str).collect());
        let why = self.denied.as_ref().map(Denial::why).unwrap_or_default();
        self.warn("denied", &why, STAYS);
        Some(format!("{why}; {STAYS}"))
    }

    /// Reports a change for the good, or one that someone asked for.
    pub fn info(&self, event: &'static str, sentence: &str) {
        report!(info, self, event, None::<&str>, sentence);
    }

    /// Reports that something is in the way.
    pub fn warn(&self, event: &'static str, problem: &str, sentence: &str) {
        report!(warn, self, event, Some(problem), sentence);
    }
}

// === impl Denial ===

impl Denial {
    /// All sentences, each once.
    #[must_use]
    pub fn why(&self) -> String {
        let sentences: BTreeSet<&str> = self.providers.values().map(String::as_str).collect();
        sentences.into_iter().collect::<Vec<_>>().join("; ")
    }
}

fn failing_since(failing: &BTreeMap<String, SystemTime>) -> Option<String> {
    let each: Vec<_> =
        failing.iter().map(|(provider, since)| format!("{provider} since {}", rfc3339(*since))).collect();
    (!each.is_empty()).then(|| each.join(", "))
}

/// RFC 3339 in UTC, to the second.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since 1970 as a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[expect(clippy::ref_option, reason = "serde passes the field as it is")]
fn as_time<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}

fn as_times<S: Serializer>(times: &BTreeMap<String, SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(times.iter().map(|(name, time)| (name, rfc3339(*time))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
    #[test]
    fn a_report_is_written_as_it_is_logged() {
        let time = UNIX_EPOCH + Duration::from_secs(951_782_399);
        let report = Report {
            generation: Some(GenerationId("4f1c".to_owned())),
            since: Some(time),
            failing: BTreeMap::from([("vault".to_owned(), time)]),
            ..Report::default()
        };
        let expected = serde_json::json!({
            "generation": "4f1c", "since": "2000-02-28T23:59:59Z", "newest": null, "files": null, "bytes": null,
            "behind": 0, "held": false, "pinned": null, "pin_refused": null, "advance": null, "refresh": null, "failing": {"vault": "2000-02-28T23:59:59Z"},
            "restart_due": null, "restarts": null,
        });
        assert_eq!(serde_json::to_value(report).unwrap(), expected);
    }
}
