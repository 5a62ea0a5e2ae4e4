//! When a volume's report becomes a line of the log: after each change, and every ten minutes.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::delivery::{Delivery, Volume};
use crate::generation::GenerationId;
use crate::reference::Version;
use crate::report::line::{FailingProvider, HeldSecret, ReportLine, ReportedPod, TARGET, Variables, Writer};
use crate::report::{Report, rfc3339};
use crate::source::{Origin, Source};

/// Between two lines, if nothing changes.
pub const EVERY: Duration = Duration::from_mins(10);
/// Between two lines at least: what flaps is told once a second.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lines of one volume.
#[derive(Debug)]
pub struct Reporting {
    pod: ReportedPod,
    writer: Writer,
    volume: Option<String>,
    last: Option<(Instant, ReportLine)>,
    /// Whether there is news that was withheld.
    is_behind: bool,
}

// === impl Reporting ===

impl Reporting {
    /// Of this pod's volume, which has a name if the driver made it.
    #[must_use]
    pub fn new(pod: ReportedPod, writer: Writer, volume: Option<String>) -> Self {
        Self { pod, writer, volume, last: None, is_behind: false }
    }

    /// Logs a line, if there is something new or it is time to. `running` are the generations that processes run with,
    /// where that is known.
    pub fn tell<V: Volume>(
        &mut self,
        delivery: &Delivery<V>,
        source: &Source,
        running: impl FnOnce() -> Option<Vec<GenerationId>>,
    ) {
        let now = Instant::now();
        let mut line = self.line(delivery, source, now);
        if let Some((at, last)) = &self.last {
            if let (Some(variables), Some(earlier)) = (&mut line.variables, &last.variables) {
                // They start and end without us: known anew with the next line.
                variables.running.clone_from(&earlier.running);
            } else if let Some(earlier) = last.variables.as_ref().filter(|earlier| earlier.running.is_some()) {
                line.variables = Some(Variables { running: earlier.running.clone(), ..Variables::default() });
            }
            let is_same = line.says_the_same(last);
            self.is_behind = !is_same && now < *at + PATIENCE;
            if self.is_behind || (is_same && now < *at + EVERY) {
                return;
            }
        }
        if let Some(running) = running() {
            line.variables.get_or_insert_default().running = Some(running);
        }
        info!(target: TARGET, "{}", line.clone().to_text());
        self.last = Some((now, line));
    }

    /// Logs what is new before the process ends, however short the time since the last line.
    pub fn tell_last<V: Volume>(&mut self, delivery: &Delivery<V>, source: &Source) {
        if let Some((at, _)) = &mut self.last {
            *at = at.checked_sub(PATIENCE).unwrap_or(*at);
        }
        self.tell(delivery, source, || None);
    }

    /// When [`Reporting::tell`] has something to say although nothing happened.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        let (at, _) = self.last.as_ref()?;
        Some(*at + if self.is_behind { PATIENCE } else { EVERY })
    }

    /// Waits for that. Cancel safe.
    pub async fn due(&self) {
        match self.due_at() {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn line<V: Volume>(&self, delivery: &Delivery<V>, source: &Source, now: Instant) -> ReportLine {
        let report = delivery.report();
        let time = SystemTime::now();
        let at = |instant: Instant| rfc3339(time + instant.saturating_duration_since(now));
        let is_denied = |provider| report.denied.as_ref().is_some_and(|denied| denied.providers.contains_key(provider));
        let failing = report.failing.iter().map(|(provider, since)| FailingProvider {
            provider: provider.clone(),
            kind: if is_denied(provider) { Some("denied") } else { source.failure(provider) }.map(str::to_owned),
            since: rfc3339(*since),
        });
        ReportLine {
            timestamp: rfc3339(time),
            pod: self.pod.clone(),
            writer: self.writer,
            volume: self.volume.clone(),
            generation: report.generation.clone(),
            since: report.since.map(rfc3339),
            newest: delivery.newest().cloned(),
            files: report.files,
            bytes: report.bytes,
            behind: report.behind,
            problem: delivery.problem(),
            held: report.held,
            pinned: report.pinned.clone(),
            pin_refused: report.pin_refused.clone(),
            advance: report.advance.clone(),
            refresh: report.refresh.clone(),
            denied: report.denied.as_ref().map(|denied| denied.rules.clone()),
            failing: failing.collect(),
            next_due: source.next_due().filter(|_| report.denied.is_none()).map(at),
            lease_end: source.lease_end().map(at),
            variables: variables(report),
            secrets: report.generation.as_ref().map(|id| secrets(source, id)).unwrap_or_default(),
            ..ReportLine::default()
        }
    }
}

fn variables(report: &Report) -> Option<Variables> {
    let Report { restart_due, restarts, .. } = report;
    let known = restart_due.is_some() || restarts.is_some();
    known.then(|| Variables { running: None, restart_due: restart_due.map(rfc3339), restarts: *restarts })
}

/// What the generation was made of, but for what was absent.
fn secrets(source: &Source, id: &GenerationId) -> Vec<HeldSecret> {
    let origins = source.origins(id).unwrap_or_default().iter();
    let held = origins.filter_map(|(request, origin)| {
        let (version, lease) = match origin {
            Origin::Version(Version(version)) => (Some(version.clone()), false),
            Origin::Lease => (None, true),
            Origin::Unversioned => (None, false),
            Origin::Absent => return None,
        };
        Some(HeldSecret { reference: request.to_string(), version, lease })
    });
    held.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::volume::AtomicVolume;
    use crate::process::testing::log::Log;
    use crate::report::line::tests::lines_of;
    use crate::source::tests::fake::{Store, plan, source};

    #[tokio::test(start_paused = true)]
    async fn what_flaps_is_told_once_a_second_and_what_it_came_to_is_told() {
        let (log, _listening) = Log::listen(tracing::Level::INFO);
        let dir = tempfile::tempdir().unwrap();
        let volume = AtomicVolume::open(dir.path(), Duration::from_millis(1)).unwrap();
        let plan = plan(&["a:x"]);
        let source = source(&["a:x"], &[("a", &Store::default())]);
        let mut delivery = Delivery::new(plan.items.clone(), plan.size_limit, volume);
        let mut reporting = Reporting::new(ReportedPod::default(), Writer::Sidecar, None);
        let none = || None;
        reporting.tell(&delivery, &source, none);
        assert_eq!(reporting.due_at(), Some(Instant::now() + EVERY));
        for change in 0..100 {
            tokio::time::advance(Duration::from_millis(50)).await;
            delivery.hold(change % 2 == 0);
            reporting.tell(&delivery, &source, none);
        }
        delivery.hold(true);
        reporting.tell(&delivery, &source, none);
        reporting.due().await;
        reporting.tell(&delivery, &source, none);
        let lines = lines_of(&log.text());
        assert!((5..=8).contains(&lines.len()), "{lines:?}");
        assert!(lines.last().is_some_and(|line| line.held));
        assert_eq!(reporting.due_at(), Some(Instant::now() + EVERY));
        // An init container is soon done.
        delivery.hold(false);
        reporting.tell(&delivery, &source, none);
        assert_eq!(lines_of(&log.text()).len(), lines.len(), "it is withheld");
        for _ in 0..2 {
            reporting.tell_last(&delivery, &source);
            let told = lines_of(&log.text());
            assert_eq!((told.len(), told.last().unwrap().held), (lines.len() + 1, false));
        }
    }
}
