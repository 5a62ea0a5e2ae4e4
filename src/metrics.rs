//! Counters, gauges and histograms of every process, and their text form for Prometheus.
//!
//! Written by hand because there are some dozens of series, most of them known at start: an update is one relaxed atomic
//! add with no map and no lock on the way, and the text form is a page of code
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4). Their names, labels and meanings
//! stand in [`catalogue`].

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::catalogue::{BUILD_INFO, LOG_DROPPED_LINES, Metric};

pub mod board;
pub mod catalogue;

/// What a server says of the text form.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that `/metrics` shows. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Vec<Family>>>);

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// The counters of one metric, one for each combination of its labels' words.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<[(Vec<String>, Arc<Counter>)]>);

/// How often something took how long.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above the last.
    buckets: Vec<AtomicU64>,
    nanoseconds: AtomicU64,
}

/// One number of a metric: the values of its labels, in their order.
pub type Sample = (Vec<String>, f64);

/// Samples of one name.
#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    series: Vec<Series>,
}

enum Series {
    Counter(Vec<String>, Arc<Counter>),
    Read(Box<dyn Fn() -> Vec<Sample> + Send>),
    Histogram(Arc<Histogram>),
}

/// Seconds since 1970, as gauges show moments; `None` before that.
#[must_use]
pub fn seconds(time: SystemTime) -> Option<f64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| count(since.as_secs()))
}

/// A number of things, as gauges show it.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and nothing that is counted comes to 2^53")]
pub fn count(number: u64) -> f64 {
    number as f64
}

// === impl Registry ===

impl Registry {
    /// A registry that says which version this is.
    #[must_use]
    pub fn of_this_build() -> Self {
        let registry = Self::default();
        registry.read_all(&BUILD_INFO, || vec![(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)]);
        registry
    }

    /// The same, of a program whose log drops lines that nobody reads in time: how many by now.
    #[must_use]
    pub fn of_server(dropped_lines: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        let registry = Self::of_this_build();
        registry.read(&LOG_DROPPED_LINES, move || u32::try_from(dropped_lines()).ok().map(f64::from));
        registry
    }

    /// The counter with these values of the metric's labels: a new one, or the one that is there.
    #[must_use]
    pub fn counter(&self, metric: &'static Metric, values: &[&str]) -> Arc<Counter> {
        self.with_family(metric, |family| {
            let known = family.series.iter().find_map(|series| match series {
                Series::Counter(known, counter) if known == values => Some(Arc::clone(counter)),
                _ => None,
            });
            known.unwrap_or_else(|| {
                let counter = Arc::<Counter>::default();
                let values = values.iter().map(|value| (*value).to_owned()).collect();
                family.series.push(Series::Counter(values, Arc::clone(&counter)));
                counter
            })
        })
    }

    /// A counter for each combination of the words that the catalogue has for the metric's labels; `first` are the values
    /// of those in front of them, which may have any.
    #[must_use]
    pub fn counters(&self, metric: &'static Metric, first: &[&str]) -> Counters {
        let mut all: Vec<Vec<&str>> = vec![first.to_vec()];
        for label in metric.labels.iter().skip(first.len()) {
            let longer =
                |values: &Vec<_>| label.words.iter().map(|word| [values.as_slice(), &[*word]].concat()).collect();
            all = all.iter().flat_map(|values| -> Vec<Vec<&str>> { longer(values) }).collect();
        }
        let counter = |values: Vec<&str>| {
            let counter = self.counter(metric, &values);
            let words = values.iter().skip(first.len()).map(|word| (*word).to_owned()).collect();
            (words, counter)
        };
        Counters(all.into_iter().map(counter).collect())
    }

    /// A number that somebody else keeps, read whenever it is asked for; shown only while there is one. `read` may not use
    /// the registry.
    pub fn read(&self, metric: &'static Metric, read: impl Fn() -> Option<f64> + Send + 'static) {
        self.read_all(metric, move || read().map(|value| (Vec::new(), value)).into_iter().collect());
    }

    /// The same, with labels.
    pub fn read_all(&self, metric: &'static Metric, read: impl Fn() -> Vec<Sample> + Send + 'static) {
        self.with_family(metric, |family| family.series.push(Series::Read(Box::new(read))));
    }

    /// A new histogram with buckets up to `bounds` (seconds, ascending) and one above them.
    #[must_use]
    pub fn histogram(&self, metric: &'static Metric, bounds: &'static [f64]) -> Arc<Histogram> {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        let histogram = Arc::new(Histogram { bounds, buckets, nanoseconds: AtomicU64::default() });
        self.with_family(metric, |family| family.series.push(Series::Histogram(Arc::clone(&histogram))));
        histogram
    }

    fn with_family<T>(&self, metric: &'static Metric, act: impl FnOnce(&mut Family) -> T) -> T {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(family) = families.iter_mut().find(|family| family.metric.name == metric.name) {
            return act(family);
        }
        let mut family = Family { metric, series: Vec::new() };
        let done = act(&mut family);
        families.push(family);
        done
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().try_for_each(|family| family.write(f))
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

// === impl Counters ===

impl Counters {
    /// One more with these words. Others than the catalogue's are not counted.
    pub fn increment(&self, words: &[&str]) {
        if let Some(counter) = self.of(words) {
            counter.increment();
        }
    }

    /// The counter with these words.
    #[must_use]
    pub fn of(&self, words: &[&str]) -> Option<&Arc<Counter>> {
        self.0.iter().find(|(known, _)| known == words).map(|(_, counter)| counter)
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
        let Self { metric: metric @ Metric { name, help, .. }, series } = self;
        writeln!(f, "# HELP {name} {help}\n# TYPE {name} {}", metric.kind.as_str())?;
        for series in series {
            match series {
                Series::Counter(..) if metric.is_sparse && series.is_zero() => {}
                Series::Counter(values, counter) => self.sample(values, counter.get(), f)?,
                Series::Read(read) => {
                    // What cannot be told is left out.
                    let known = read().into_iter().filter(|(_, value)| value.is_finite());
                    known.into_iter().try_for_each(|(values, value)| self.sample(&values, value, f))?;
                }
                Series::Histogram(histogram) => histogram.write(name, f)?,
            }
        }
        Ok(())
    }

    fn sample(&self, values: &[String], value: impl fmt::Display, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric.name)?;
        for (index, (label, value)) in self.metric.labels.iter().zip(values).enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            write!(f, "{before}{}=\"", label.name)?;
            value.chars().try_for_each(|c| match c {
                '\\' => f.write_str("\\\\"),
                '"' => f.write_str("\\\""),
                '\n' => f.write_str("\\n"),
                c => f.write_char(c),
            })?;
            f.write_char('"')?;
        }
        let end = if values.is_empty() { "" } else { "}" };
        writeln!(f, "{end} {value}")
    }
}

// === impl Series ===

impl Series {
    fn is_zero(&self) -> bool {
        matches!(self, Self::Counter(_, counter) if counter.get() == 0)
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Series")
    }
}

#[cfg(test)]
pub(crate) mod tests;
