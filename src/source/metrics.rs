//! What is counted and shown of sources: what came of what was due, who fails, and when logins and leases end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use crate::metrics::board::{Board, BoardPlace};
use crate::metrics::catalogue::{AUTHORITIES_UNREADABLE, LEASE_EXPIRY, LOGIN_EXPIRY, PROVIDER_FAILING, REFRESHES};
use crate::metrics::{Counters, Registry, Sample, count, seconds};
use crate::provider::ErrorKind;
use crate::provider::http::{CaFile, StoreMeter};

/// The metrics of all sources of a process. Clones share them.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    registry: Registry,
    refreshes: Counters,
    providers: Board<BTreeMap<String, ProviderState>>,
    authorities: Arc<Mutex<Vec<FollowedFile>>>,
}

/// A provider's file of authorities, for as long as somebody uses it.
type FollowedFile = (String, Weak<CaFile>);

/// What one source counts, and where it is shown. The default is nowhere.
#[derive(Debug, Default)]
pub(super) struct SourceTally {
    pub(super) refreshes: Refreshes,
    shown: Option<BoardPlace<BTreeMap<String, ProviderState>>>,
}

/// Counts what came of what was due.
#[derive(Debug, Clone, Default)]
pub(super) struct Refreshes(Counters);

/// How a provider stands with one source.
#[derive(Debug, Default)]
pub(super) struct ProviderState {
    pub(super) is_failing: bool,
    pub(super) lease_end: Option<SystemTime>,
    pub(super) login_end: Option<SystemTime>,
}

/// What was due.
#[derive(Debug, Clone, Copy)]
pub(super) enum RefreshKind {
    Read,
    Renew,
    Login,
}

// === impl SourceMetrics ===

impl SourceMetrics {
    /// Adds them to `registry`.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self {
            registry: registry.clone(),
            refreshes: registry.counters(&REFRESHES, &[]),
            providers: Board::default(),
            authorities: Arc::default(),
        };
        let show = |metric, of: fn(&ProviderState) -> Option<f64>, better: fn(f64, f64) -> f64| {
            let providers = metrics.providers.clone();
            registry.read_all(metric, move || by_provider(&providers, of, better));
        };
        show(&PROVIDER_FAILING, |state| Some(count(state.is_failing.into())), f64::max);
        show(&LEASE_EXPIRY, |state| seconds(state.lease_end?), f64::min);
        show(&LOGIN_EXPIRY, |state| seconds(state.login_end?), f64::min);
        let authorities = Arc::clone(&metrics.authorities);
        registry.read_all(&AUTHORITIES_UNREADABLE, move || {
            let mut worst = BTreeMap::new();
            for (provider, file) in &*files(&authorities) {
                let Some(file) = file.upgrade() else { continue };
                let worst = worst.entry(provider.clone()).or_insert(0.0_f64);
                *worst = worst.max(count(file.is_unreadable().into()));
            }
            worst.into_iter().map(|(provider, value)| (vec![provider], value)).collect()
        });
        metrics
    }

    /// Counts the requests to this store.
    #[must_use]
    pub fn meter(&self, provider: &str) -> StoreMeter {
        StoreMeter::new(&self.registry, provider)
    }

    /// Shows whether this file can be used, for as long as somebody does.
    pub(super) fn show_authorities(&self, provider: &str, file: &Arc<CaFile>) {
        let mut files = files(&self.authorities);
        files.retain(|(_, file)| file.strong_count() > 0);
        files.push((provider.to_owned(), Arc::downgrade(file)));
    }

    /// For one more source.
    pub(super) fn tally(&self) -> SourceTally {
        SourceTally { refreshes: Refreshes(self.refreshes.clone()), shown: Some(self.providers.place()) }
    }
}

fn files(files: &Mutex<Vec<FollowedFile>>) -> MutexGuard<'_, Vec<FollowedFile>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of each provider, what is the worst of all sources.
fn by_provider(
    providers: &Board<BTreeMap<String, ProviderState>>,
    of: fn(&ProviderState) -> Option<f64>,
    worse: fn(f64, f64) -> f64,
) -> Vec<Sample> {
    let mut worst: BTreeMap<String, f64> = BTreeMap::new();
    providers.read(|sources| {
        for (provider, state) in sources.flatten() {
            if let Some(value) = of(state) {
                let known = worst.entry(provider.clone()).or_insert(value);
                *known = worse(*known, value);
            }
        }
    });
    worst.into_iter().map(|(provider, value)| (vec![provider], value)).collect()
}

// === impl SourceTally ===

impl SourceTally {
    /// Shows how the providers stand now; `states` is asked only where that is shown.
    pub(super) fn show(&self, states: impl FnOnce() -> BTreeMap<String, ProviderState>) {
        if let Some(shown) = &self.shown {
            shown.tell(states());
        }
    }
}

// === impl Refreshes ===

impl Refreshes {
    pub(super) fn succeeded(&self, kind: RefreshKind, is_changed: bool) {
        self.0.increment(&[kind.as_str(), if is_changed { "changed" } else { "unchanged" }]);
    }

    pub(super) fn failed(&self, kind: RefreshKind, error: ErrorKind) {
        self.0.increment(&[kind.as_str(), error.as_str()]);
    }
}

// === impl RefreshKind ===

impl RefreshKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Renew => "renew",
            Self::Login => "login",
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "samples are whole numbers")]

    use std::time::Duration;

    use super::*;
    use crate::metrics::tests::samples;
    use crate::provider::http::{Call, Limits, Reach};
    use crate::source::tests::fake::{FakeClock, Store, events, source, with_clock};

    /// What each refresh counter shows, by its words.
    fn refreshes(registry: &Registry) -> BTreeMap<String, f64> {
        let of = |(series, number): (String, f64)| {
            let words = series.strip_prefix("hushpod_refreshes_total")?.replace(['"', '{', '}'], "");
            Some((words.replace("kind=", "").replace(",outcome=", " "), number))
        };
        samples(&registry.to_string()).into_iter().filter_map(of).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_event_of_a_store_moves_its_series_alone() {
        type Act = fn(&Store);
        // what the store does, how long it takes to be seen → kind and outcome
        let reads: [(Act, u64, &str); 8] = [
            (|store| store.put("x", "1", r#"{"k":"v"}"#), 1, "read changed"),
            (|_| {}, 10, "read unchanged"),
            (|store| store.put("x", "2", r#"{"k":"w"}"#), 10, "read changed"),
            (|store| store.state().failing = Some(ErrorKind::Denied), 10, "read denied"),
            (|store| store.state().failing = Some(ErrorKind::NotFound), 10, "read not_found"),
            (|store| store.state().failing = Some(ErrorKind::Invalid), 10, "read invalid"),
            (|store| store.state().failing = Some(ErrorKind::Throttled { retry_after: None }), 10, "read throttled"),
            (|store| store.state().failing = Some(ErrorKind::Unavailable), 301, "read unavailable"),
        ];
        let store = Store::default();
        let registry = Registry::default();
        let metrics = SourceMetrics::new(&registry);
        let mut source = source(&["a:x"], &[("a", &store)]).counted_by(&metrics);
        let mut before = refreshes(&registry);
        assert!(before.is_empty(), "{before:?}");
        for (number, (act, seconds, expected)) in reads.into_iter().enumerate() {
            act(&store);
            if number > 0 {
                store.push.notify_one();
            }
            events(&mut source, seconds).await;
            let now = refreshes(&registry);
            let moved: Vec<_> = now.keys().filter(|words| now.get(*words) != before.get(*words)).collect();
            assert_eq!(moved, [expected]);
            before = now;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_and_logins_are_counted_and_their_ends_shown() {
        // (logins can be renewed, what fails) → what a renewal and a login come to
        for (is_renewable, failing, expected) in [
            (true, None, ["login unchanged", "renew unchanged"]),
            (false, None, ["login changed", "renew unchanged"]),
            (true, Some(ErrorKind::Unavailable), ["login unchanged", "renew unavailable"]),
        ] {
            let store = Store::default();
            store.put_leased("db", 600, 100_000, true);
            {
                let mut state = store.state();
                state.logins = Some((1200, is_renewable));
                state.outliving = true;
                state.failing_renewals = failing;
            }
            let registry = Registry::default();
            let mut source =
                with_clock(&["a:db"], &[("a", &store)], &FakeClock::new()).counted_by(&SourceMetrics::new(&registry));
            events(&mut source, 1).await;
            let shown = samples(&registry.to_string());
            // The fake's clock begins at 1,700,000,000.
            assert_eq!(shown["hushpod_lease_expiry_timestamp_seconds{provider=\"a\"}"], 1_700_000_600.0);
            assert_eq!(shown["hushpod_login_expiry_timestamp_seconds{provider=\"a\"}"], 1_700_001_200.0);
            assert_eq!(shown["hushpod_provider_failing{provider=\"a\"}"], 0.0);
            events(&mut source, 900).await;
            let counted = refreshes(&registry);
            for words in expected {
                assert!(counted.contains_key(words), "{words} in {counted:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_worst_of_all_sources_is_shown_and_goes_with_them() {
        let (good, bad) = (Store::default(), Store::default());
        good.put_leased("db", 900, 900, true);
        bad.put_leased("db", 300, 300, true);
        let registry = Registry::default();
        let metrics = SourceMetrics::new(&registry);
        let of = |store| source(&["a:db"], &[("a", store)]).counted_by(&metrics);
        let (mut first, mut second) = (of(&good), of(&bad));
        events(&mut first, 1).await;
        events(&mut second, 1).await;
        bad.state().failing = Some(ErrorKind::Unavailable);
        events(&mut second, 250).await;
        let value =
            |name: &str| samples(&registry.to_string()).get(&format!("hushpod_{name}{{provider=\"a\"}}")).copied();
        assert_eq!(value("provider_failing"), Some(1.0));
        let soonest = value("lease_expiry_timestamp_seconds").unwrap();
        drop(second);
        assert_eq!(value("provider_failing"), Some(0.0));
        assert!(value("lease_expiry_timestamp_seconds").unwrap() > soonest);
        drop(first);
        assert_eq!(value("provider_failing"), None);
    }

    #[tokio::test]
    async fn a_file_of_authorities_that_cannot_be_used_shows() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::default();
        let metrics = SourceMetrics::new(&registry);
        let [used, gone] = ["used", "gone"].map(|name| Arc::new(CaFile::new(dir.path().join(name))));
        metrics.show_authorities("vault", &used);
        metrics.show_authorities("aws", &gone);
        drop(gone);
        let shown = || samples(&registry.to_string());
        let series = |value: f64| [("hushpod_authorities_unreadable{provider=\"vault\"}".to_owned(), value)].into();
        assert_eq!(shown(), series(0.0), "nobody has asked yet");
        let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem();
        // What is there → whether it cannot be used, once a store was to be asked.
        for (content, expected) in [(None, 1.0), (Some(ca.as_str()), 0.0), (Some("rubbish"), 1.0), (Some(&ca), 0.0)] {
            if let Some(content) = content {
                let fresh = dir.path().join("fresh");
                std::fs::write(&fresh, content).unwrap();
                std::fs::rename(fresh, dir.path().join("used")).unwrap();
            }
            let limits = Limits { exchange: Duration::from_millis(200), ..Limits::default() };
            let reach = Reach { limits, ..Reach::default() };
            let client = reach.with_ca_file(Some(Arc::clone(&used))).client("https://127.0.0.1:1").unwrap();
            let call = Call::new(hyper::Method::GET, "x");
            assert!(client.send(call).await.is_err());
            assert_eq!(shown(), series(expected), "{content:?}");
        }
    }
}
