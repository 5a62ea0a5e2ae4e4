//! The metrics of the operator's configuration: what is in force since when, and what was refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};

use crate::metrics::catalogue::{CONFIG_INFO, CONFIG_LOADED, CONFIG_REFUSED, CONFIG_RELOADS};
use crate::metrics::{Counters, Registry, count, seconds};

/// Bytes of a digest that are shown: enough to tell a cluster's configurations apart.
const SHOWN_BYTES: usize = 8;

/// What is counted of a configuration's file. Clones share it.
#[derive(Debug, Clone)]
pub struct ConfigMetrics {
    reloads: Counters,
    now: Arc<Mutex<InForce>>,
}

#[derive(Debug)]
struct InForce {
    since: SystemTime,
    /// Of the file that says what is in force.
    digest: String,
    /// The file that is there cannot be used.
    is_outdated: bool,
}

// === impl ConfigMetrics ===

impl ConfigMetrics {
    /// Adds them to `registry`, of a configuration that was read just now out of this `text`.
    #[must_use]
    pub fn new(registry: &Registry, text: &str) -> Self {
        let now = Arc::new(Mutex::new(InForce::now(text)));
        let (loaded, refused, shown) = (Arc::clone(&now), Arc::clone(&now), Arc::clone(&now));
        registry.read(&CONFIG_LOADED, move || seconds(lock(&loaded).since));
        registry.read(&CONFIG_REFUSED, move || Some(count(lock(&refused).is_outdated.into())));
        registry.read_all(&CONFIG_INFO, move || vec![(vec![lock(&shown).digest.clone()], 1.0)]);
        Self { reloads: registry.counters(&CONFIG_RELOADS, &[]), now }
    }

    /// Another one is in force.
    pub(super) fn loaded(&self, text: &str) {
        self.reloads.increment(&["ok"]);
        *lock(&self.now) = InForce::now(text);
    }

    /// The file cannot be used.
    pub(super) fn refused(&self) {
        self.reloads.increment(&["error"]);
        lock(&self.now).is_outdated = true;
    }

    /// The file says again what is in force, in whatever words.
    pub(super) fn unchanged(&self, text: &str) {
        let mut now = lock(&self.now);
        *now = InForce { since: now.since, ..InForce::now(text) };
    }
}

// === impl InForce ===

impl InForce {
    fn now(text: &str) -> Self {
        let mut digest = hex::encode(digest(&SHA256, text.as_bytes()));
        digest.truncate(2 * SHOWN_BYTES);
        Self { since: SystemTime::now(), digest, is_outdated: false }
    }
}

fn lock(now: &Mutex<InForce>) -> MutexGuard<'_, InForce> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::samples;

    #[test]
    fn each_reading_moves_its_series() {
        type Act = fn(&ConfigMetrics, &str);
        let (loaded, unchanged): (Act, Act) = (ConfigMetrics::loaded, ConfigMetrics::unchanged);
        let refused: Act = |metrics, _| metrics.refused();
        let registry = Registry::default();
        let metrics = ConfigMetrics::new(&registry, "");
        let before = lock(&metrics.now).since;
        // what happened, with which text → ok, error, refused, whether another is in force; as `sha256sum` has it
        for (act, text, expected, digest) in [
            (refused, "bad", (0.0, 1.0, 1.0, false), "e3b0c44298fc1c14"),
            (refused, "bad", (0.0, 2.0, 1.0, false), "e3b0c44298fc1c14"),
            (unchanged, "", (0.0, 2.0, 0.0, false), "e3b0c44298fc1c14"),
            (refused, "bad", (0.0, 3.0, 1.0, false), "e3b0c44298fc1c14"),
            (loaded, "abc", (1.0, 3.0, 0.0, true), "ba7816bf8f01cfea"),
            (unchanged, "abc\n", (1.0, 3.0, 0.0, true), "edeaaff3f1774ad2"),
        ] {
            act(&metrics, text);
            let shown = samples(&registry.to_string());
            let found = (
                shown["hushpod_config_reload_total{outcome=\"ok\"}"],
                shown["hushpod_config_reload_total{outcome=\"error\"}"],
                shown["hushpod_config_refused"],
                lock(&metrics.now).since > before,
            );
            assert_eq!(found, expected);
            assert!(shown["hushpod_config_loaded_timestamp_seconds"] > 1.7e9);
            let infos: Vec<_> = shown.iter().filter(|(series, _)| series.starts_with("hushpod_config_info")).collect();
            assert_eq!(
                infos,
                [(&format!("hushpod_config_info{{digest=\"{digest}\"}}"), &1.0)],
                "one, whatever was before"
            );
        }
    }
}
