//! Counters, gauges and histograms, and their text form for Prometheus.
//!
//! Written by hand because there are a handful of series, all known at start: an update is one or two relaxed atomic
//! adds with no map and no lock on the way, and the text form is a page of code
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Everything that `/metrics` shows. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Vec<Family>>>);

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// How often something took how long.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above the last.
    buckets: Vec<AtomicU64>,
    nanoseconds: AtomicU64,
}

/// Readings of the operator's configuration, by what came of them.
#[derive(Debug, Clone)]
pub struct ReloadCounters {
    good: Arc<Counter>,
    bad: Arc<Counter>,
}

/// Samples of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    /// Each with its labels, as they are written.
    series: Vec<(String, Series)>,
}

enum Series {
    Counter(Arc<Counter>),
    Gauge(Box<dyn Fn() -> Option<f64> + Send>),
    Histogram(Arc<Histogram>),
}

// === impl Registry ===

impl Registry {
    /// A new counter. `labels` are names and values; neither may need escaping.
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Arc<Counter> {
        let counter = Arc::<Counter>::default();
        self.add(name, help, labels, Series::Counter(Arc::clone(&counter)));
        counter
    }

    /// A new gauge, read whenever it is asked for; shown only while there is a value.
    pub fn gauge(&self, name: &'static str, help: &'static str, read: impl Fn() -> Option<f64> + Send + 'static) {
        self.add(name, help, &[], Series::Gauge(Box::new(read)));
    }

    /// A new histogram with buckets up to `bounds` (seconds, ascending) and one above them.
    #[must_use]
    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> Arc<Histogram> {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        let histogram = Arc::new(Histogram { bounds, buckets, nanoseconds: AtomicU64::default() });
        self.add(name, help, &[], Series::Histogram(Arc::clone(&histogram)));
        histogram
    }

    fn add(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)], series: Series) {
        let labels = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect::<Vec<_>>().join(",");
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.series.push((labels, series)),
            None => families.push(Family { name, help, series: vec![(labels, series)] }),
        }
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().try_for_each(|family| family.write(f))
    }
}

// === impl ReloadCounters ===

impl ReloadCounters {
    /// Adds them to `registry`.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let reloads = |outcome| {
            let labels = [("outcome", outcome)];
            registry.counter("hushpod_config_reload_total", "Readings of the operator's configuration.", &labels)
        };
        Self { good: reloads("ok"), bad: reloads("error") }
    }

    /// Counts one reading.
    pub fn count(&self, is_good: bool) {
        if is_good { &self.good } else { &self.bad }.increment();
    }
}

// === impl Counter ===

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Histogram ===

impl Histogram {
    /// One more, which took `duration`.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|&bound| bound < seconds);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut count = 0;
        let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, bucket) in bounds.zip(&self.buckets) {
            count += bucket.load(Ordering::Relaxed);
            writeln!(f, "{name}_bucket{{le=\"{bound}\"}} {count}")?;
        }
        let sum = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        writeln!(f, "{name}_sum {sum}\n{name}_count {count}")
    }
}

// === impl Family ===

impl Family {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, help, series } = self;
        let Some((_, first)) = series.first() else { return Ok(()) };
        writeln!(f, "# HELP {name} {help}\n# TYPE {name} {}", first.kind())?;
        for (labels, series) in series {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            match series {
                Series::Counter(counter) => writeln!(f, "{name}{labels} {}", counter.get())?,
                Series::Gauge(read) => read().map_or(Ok(()), |value| writeln!(f, "{name}{labels} {value}"))?,
                Series::Histogram(histogram) => histogram.write(name, f)?,
            }
        }
        Ok(())
    }
}

// === impl Series ===

impl Series {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        let registry = Registry::default();
        let ok = registry.counter("x_total", "Things.", &[("outcome", "ok")]);
        let bad = registry.counter("x_total", "Things.", &[("outcome", "bad")]);
        registry.gauge("x_limit", "Most things.", || Some(1.5));
        registry.gauge("x_unknown", "Not known yet.", || None);
        let took = registry.histogram("x_seconds", "Time.", &[0.001, 0.01]);
        ok.increment();
        ok.increment();
        bad.increment();
        // On a bound counts as below it: `le` is "less or equal".
        for micros in [1000, 2000, 500_000] {
            took.observe(Duration::from_micros(micros));
        }
        let expected = "\
# HELP x_total Things.
# TYPE x_total counter
x_total{outcome=\"ok\"} 2
x_total{outcome=\"bad\"} 1
# HELP x_limit Most things.
# TYPE x_limit gauge
x_limit 1.5
# HELP x_unknown Not known yet.
# TYPE x_unknown gauge
# HELP x_seconds Time.
# TYPE x_seconds histogram
x_seconds_bucket{le=\"0.001\"} 1
x_seconds_bucket{le=\"0.01\"} 2
x_seconds_bucket{le=\"+Inf\"} 3
x_seconds_sum 0.503
x_seconds_count 3
";
        assert_eq!(registry.to_string(), expected);
    }
}
