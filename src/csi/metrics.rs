//! The driver's metrics: sums and extremes of a node, never a series for each pod.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::budget::VolumeBudget;
use super::failure::FailureKind;
use crate::metrics::board::{Board, BoardPlace};
use crate::metrics::catalogue::{
    BEHIND_FILES, CSI_FAILING, CSI_FEEDS, CSI_HELD, CSI_OLDEST, CSI_PENDING, CSI_PINNED, CSI_PUBLISHES,
    CSI_REPUBLISHES, CSI_RESERVED, CSI_TROUBLES, CSI_VOLUMES, CSI_WAITING, DELIVERED_BYTES, DELIVERED_FILES,
};
use crate::metrics::{Counter, Counters, Registry, count, seconds};
use crate::report::Report;

/// What the driver counts. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct DriverMetrics {
    registry: Registry,
    published: Counters,
    pub(super) republished: Arc<Counter>,
    pub(super) troubles: Arc<Counter>,
    feeds: Board<FeedState>,
}

/// The volumes of one feed, or of all together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FeedState {
    volumes: u64,
    waiting: u64,
    held: u64,
    pinned: u64,
    pending: u64,
    files: u64,
    bytes: u64,
    behind: u64,
    /// When the one changed last whose files are the oldest.
    oldest: Option<SystemTime>,
    /// By provider.
    failing: BTreeMap<String, u64>,
}

// === impl DriverMetrics ===

impl DriverMetrics {
    /// Adds the driver's series to `registry`.
    pub(super) fn new(registry: Registry) -> Self {
        let feeds = Board::<FeedState>::default();
        let show = |metric, of: fn(&FeedState) -> Option<f64>| {
            let feeds = feeds.clone();
            registry.read(metric, move || of(&sum(&feeds)));
        };
        show(&CSI_VOLUMES, |all| Some(count(all.volumes)));
        show(&CSI_WAITING, |all| Some(count(all.waiting)));
        show(&CSI_HELD, |all| Some(count(all.held)));
        show(&CSI_PINNED, |all| Some(count(all.pinned)));
        show(&CSI_PENDING, |all| Some(count(all.pending)));
        show(&DELIVERED_FILES, |all| Some(count(all.files)));
        show(&DELIVERED_BYTES, |all| Some(count(all.bytes)));
        show(&BEHIND_FILES, |all| Some(count(all.behind)));
        show(&CSI_OLDEST, |all| seconds(all.oldest?));
        let of_failing = feeds.clone();
        registry.read_all(&CSI_FAILING, move || {
            sum(&of_failing).failing.into_iter().map(|(provider, volumes)| (vec![provider], count(volumes))).collect()
        });
        let of_feeds = feeds.clone();
        registry.read(&CSI_FEEDS, move || Some(count(of_feeds.read(|feeds| feeds.count() as u64))));
        Self {
            published: registry.counters(&CSI_PUBLISHES, &[]),
            republished: registry.counter(&CSI_REPUBLISHES, &[]),
            troubles: registry.counter(&CSI_TROUBLES, &[]),
            feeds,
            registry,
        }
    }

    /// Counts a call for a volume without files.
    pub(super) fn count_publish(&self, failure: Option<FailureKind>) {
        self.published.increment(&[match failure {
            None => "ok",
            Some(FailureKind::Waiting) => "waiting",
            Some(FailureKind::Exhausted) => "exhausted",
            Some(FailureKind::PodGone) => "pod_gone",
            Some(FailureKind::Denied) => "denied",
            Some(FailureKind::NotFound) => "not_found",
            Some(FailureKind::Invalid | FailureKind::Precondition) => "invalid",
        }]);
    }

    /// Shows what volumes may take.
    pub(super) fn show_bytes(&self, limits: Arc<VolumeBudget>) {
        self.registry.read(&CSI_RESERVED, move || Some(count(limits.taken())));
    }

    /// Where one more feed is shown.
    pub(super) fn place(&self) -> BoardPlace<FeedState> {
        let place = self.feeds.place();
        place.tell(FeedState::default());
        place
    }
}

fn sum(feeds: &Board<FeedState>) -> FeedState {
    feeds.read(|feeds| feeds.fold(FeedState::default(), FeedState::and))
}

// === impl FeedState ===

impl FeedState {
    /// Of volumes of which these are the reports, and that these providers fill.
    pub(super) fn of<'a>(
        reports: impl Iterator<Item = &'a Report>,
        providers: impl Iterator<Item = &'a String>,
    ) -> Self {
        let none_fails = Self { failing: providers.map(|name| (name.clone(), 0)).collect(), ..Self::default() };
        reports.fold(none_fails, |sum, report| {
            let is_held = report.held || report.pinned.is_some();
            sum.and(&Self {
                volumes: 1,
                waiting: report.generation.is_none().into(),
                held: is_held.into(),
                pinned: report.pinned.is_some().into(),
                pending: (report.generation.is_some() && report.newest.is_some()).into(),
                files: report.files.unwrap_or_default() as u64,
                bytes: report.bytes.unwrap_or_default(),
                behind: report.behind as u64,
                oldest: report.generation.as_ref().and(report.since),
                failing: report.failing.keys().map(|provider| (provider.clone(), 1)).collect(),
            })
        })
    }

    fn and(mut self, other: &Self) -> Self {
        for (provider, volumes) in &other.failing {
            *self.failing.entry(provider.clone()).or_default() += volumes;
        }
        Self {
            volumes: self.volumes + other.volumes,
            waiting: self.waiting + other.waiting,
            held: self.held + other.held,
            pinned: self.pinned + other.pinned,
            pending: self.pending + other.pending,
            files: self.files + other.files,
            bytes: self.bytes + other.bytes,
            behind: self.behind + other.behind,
            oldest: self.oldest.into_iter().chain(other.oldest).min(),
            failing: self.failing,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "samples are whole numbers")]

    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::config::metrics::ConfigMetrics;
    use crate::generation::GenerationId;
    use crate::metrics::catalogue::LOG_DROPPED_LINES;
    use crate::metrics::tests::{announced, names_of, samples};
    use crate::source::SourceMetrics;

    #[test]
    fn each_outcome_is_one_series_however_often_it_comes() {
        use FailureKind::*;
        let registry = Registry::default();
        let metrics = DriverMetrics::new(registry.clone());
        for failure in [None, Some(Invalid), Some(Precondition), Some(NotFound), Some(Denied), Some(Waiting)]
            .into_iter()
            .chain([Some(Exhausted), Some(PodGone)])
        {
            metrics.count_publish(failure);
        }
        let shown = samples(&registry.to_string());
        let series: BTreeMap<_, _> =
            shown.iter().filter(|(series, _)| series.starts_with("hushpod_csi_publish_total")).collect();
        assert_eq!(series.len(), 7, "{series:?}");
        for (series, times) in series {
            assert_eq!(*times, if series.contains("\"invalid\"") { 2.0 } else { 1.0 }, "{series}");
        }
    }

    #[test]
    fn volumes_are_added_up_whatever_feeds_them_and_forgotten_with_it() {
        let registry = Registry::default();
        let metrics = DriverMetrics::new(registry.clone());
        let id = |text: &str| Some(GenerationId(text.to_owned()));
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        let fails = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), UNIX_EPOCH)).collect();
        let waiting = Report { newest: id("g1"), failing: fails(&["vault", "aws"]), ..Report::default() };
        let held = Report {
            generation: id("g1"),
            since: at(2000),
            newest: id("g2"),
            files: Some(2),
            bytes: Some(10),
            behind: 1,
            held: true,
            failing: fails(&["vault"]),
            ..Report::default()
        };
        let pinned =
            Report { generation: id("g1"), since: at(1000), pinned: id("g1"), bytes: Some(5), ..Report::default() };
        let (one, two) = (metrics.place(), metrics.place());
        let providers = ["vault", "aws", "good"].map(str::to_owned);
        one.tell(FeedState::of([&waiting, &held].into_iter(), providers.iter()));
        two.tell(FeedState::of([&pinned].into_iter(), providers.iter()));
        let expected = |numbers: [(&str, f64); 9]| numbers.map(|(name, number)| (format!("hushpod_{name}"), number));
        let is_shown = |numbers: [(&str, f64); 9]| {
            let shown = samples(&registry.to_string());
            for (name, number) in expected(numbers) {
                assert_eq!(shown.get(&name), Some(&number), "{name} in {shown:?}");
            }
            shown
        };
        let shown = is_shown([
            ("csi_feeds", 2.0),
            ("csi_volumes", 3.0),
            ("csi_waiting_volumes", 1.0),
            ("csi_held_volumes", 2.0),
            ("csi_pinned_volumes", 1.0),
            ("csi_pending_volumes", 1.0),
            ("delivered_files", 2.0),
            ("delivered_bytes", 15.0),
            ("behind_files", 1.0),
        ]);
        assert_eq!(shown["hushpod_csi_oldest_delivered_timestamp_seconds"], 1000.0);
        assert_eq!(shown["hushpod_csi_failing_volumes{provider=\"vault\"}"], 2.0);
        assert_eq!(shown["hushpod_csi_failing_volumes{provider=\"aws\"}"], 1.0);
        assert_eq!(shown["hushpod_csi_failing_volumes{provider=\"good\"}"], 0.0, "shown from the start");
        drop((one, two));
        let shown = is_shown([
            ("csi_feeds", 0.0),
            ("csi_volumes", 0.0),
            ("csi_waiting_volumes", 0.0),
            ("csi_held_volumes", 0.0),
            ("csi_pinned_volumes", 0.0),
            ("csi_pending_volumes", 0.0),
            ("delivered_files", 0.0),
            ("delivered_bytes", 0.0),
            ("behind_files", 0.0),
        ]);
        let gone = |series: &&String| series.contains("failing") || series.contains("oldest");
        assert_eq!(shown.keys().find(gone), None);
    }

    #[test]
    fn the_drivers_metrics_are_those_of_the_page() {
        let registry = Registry::of_this_build();
        let (sources, metrics) = (SourceMetrics::new(&registry), DriverMetrics::new(registry.clone()));
        metrics.show_bytes(Arc::default());
        // The command line's.
        let (_, _) = (sources.meter("vault"), ConfigMetrics::new(&registry, ""));
        registry.read(&LOG_DROPPED_LINES, || None);
        assert_eq!(announced(&registry.to_string()), names_of("The CSI driver"));
    }
}
