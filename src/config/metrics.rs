//! The metrics of the operator's configuration: what is in force since when, and what was refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::metrics::catalogue::{CONFIG_LOADED, CONFIG_REFUSED, CONFIG_RELOADS};
use crate::metrics::{Counters, Registry, count, seconds};

/// What is counted of a configuration's file. Clones share it.
#[derive(Debug, Clone)]
pub struct ConfigMetrics {
    reloads: Counters,
    now: Arc<Mutex<InForce>>,
}

#[derive(Debug)]
struct InForce {
    since: SystemTime,
    /// The file that is there cannot be used.
    is_outdated: bool,
}

// === impl ConfigMetrics ===

impl ConfigMetrics {
    /// Adds them to `registry`, of a configuration that was read just now.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let now = Arc::new(Mutex::new(InForce { since: SystemTime::now(), is_outdated: false }));
        let (loaded, refused) = (Arc::clone(&now), Arc::clone(&now));
        registry.read(&CONFIG_LOADED, move || seconds(lock(&loaded).since));
        registry.read(&CONFIG_REFUSED, move || Some(count(lock(&refused).is_outdated.into())));
        Self { reloads: registry.counters(&CONFIG_RELOADS, &[]), now }
    }

    /// Another one is in force.
    pub(super) fn loaded(&self) {
        self.reloads.increment(&["ok"]);
        *lock(&self.now) = InForce { since: SystemTime::now(), is_outdated: false };
    }

    /// The file cannot be used.
    pub(super) fn refused(&self) {
        self.reloads.increment(&["error"]);
        lock(&self.now).is_outdated = true;
    }

    /// The file says again what is in force.
    pub(super) fn unchanged(&self) {
        lock(&self.now).is_outdated = false;
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
        let registry = Registry::default();
        let metrics = ConfigMetrics::new(&registry);
        let before = lock(&metrics.now).since;
        // what happened → ok, error, refused, whether another is in force
        for (act, expected) in [
            (ConfigMetrics::refused as fn(&ConfigMetrics), (0.0, 1.0, 1.0, false)),
            (ConfigMetrics::refused, (0.0, 2.0, 1.0, false)),
            (ConfigMetrics::unchanged, (0.0, 2.0, 0.0, false)),
            (ConfigMetrics::refused, (0.0, 3.0, 1.0, false)),
            (ConfigMetrics::loaded, (1.0, 3.0, 0.0, true)),
        ] {
            act(&metrics);
            let shown = samples(&registry.to_string());
            let found = (
                shown["hushpod_config_reload_total{outcome=\"ok\"}"],
                shown["hushpod_config_reload_total{outcome=\"error\"}"],
                shown["hushpod_config_refused"],
                lock(&metrics.now).since > before,
            );
            assert_eq!(found, expected);
            assert!(shown["hushpod_config_loaded_timestamp_seconds"] > 1.7e9);
        }
    }
}
