use std::collections::{BTreeMap, BTreeSet};

use super::catalogue::{ALL, MetricKind, MetricLabel};
use super::*;

const PAGE: &str = include_str!("../metrics.md");

/// Reads the text form as strictly as it is written: every family announced once and all its samples behind it, every
/// series once, names and labels those of the catalogue. What it says, by series.
pub(crate) fn samples(text: &str) -> BTreeMap<String, f64> {
    checked(text, ALL).unwrap_or_else(|problem| panic!("{problem} in:\n{text}"))
}

fn checked(text: &str, catalogue: &[&Metric]) -> Result<BTreeMap<String, f64>, String> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut family: Option<&Metric> = None;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("no line's end".to_owned());
    }
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("HELP without words")?;
            let metric = catalogue.iter().find(|metric| metric.name == name).ok_or(format!("unknown {name}"))?;
            let kind = format!("# TYPE {name} {}", metric.kind.as_str());
            let is_good = seen.insert(name) && help == metric.help && lines.next() == Some(&kind);
            family = is_good.then_some(*metric);
            if !is_good {
                return Err(format!("{name} is announced badly"));
            }
            continue;
        }
        let metric = family.ok_or("a sample before its family")?;
        let (series, value) = line.rsplit_once(' ').ok_or(format!("no value: {line}"))?;
        let value: f64 = value.parse().map_err(|_| format!("no number: {line}"))?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, labels(rest.strip_suffix('}').ok_or(format!("open labels: {line}"))?)?),
            None => (series, Vec::new()),
        };
        let ends: &[&str] = if metric.kind == MetricKind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        if !ends.iter().any(|end| name.strip_prefix(metric.name) == Some(end)) {
            return Err(format!("{line} is not of {}", metric.name));
        }
        let is_bucket = name.ends_with("_bucket") && metric.kind == MetricKind::Histogram;
        let expected: Vec<&str> =
            metric.labels.iter().map(|label| label.name).chain(is_bucket.then_some("le")).collect();
        let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
        let is_word = |(label, (_, value)): (&MetricLabel, &(String, String))| {
            label.words.is_empty() || label.words.contains(&value.as_str())
        };
        if names != expected || !metric.labels.iter().zip(&labels).all(is_word) {
            return Err(format!("labels of {line}"));
        }
        if metric.kind == MetricKind::Counter && (value < 0.0 || value.fract() != 0.0) {
            return Err(format!("a counter: {line}"));
        }
        if found.insert(series.to_owned(), value).is_some() {
            return Err(format!("twice: {series}"));
        }
    }
    Ok(found)
}

/// Names and values, unescaped.
fn labels(mut text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").ok_or("a label without value")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().ok_or("an open value")? {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    _ => return Err("an unknown escape".to_owned()),
                },
                (_, c) => value.push(c),
            }
        };
        found.push((name.to_owned(), value));
        text = &rest[end..];
        if !text.is_empty() {
            text = text.strip_prefix(',').ok_or("no comma between labels")?;
        }
    }
    Ok(found)
}

static THINGS: Metric = Metric {
    name: "x_things_total",
    kind: MetricKind::Counter,
    help: "Things.",
    labels: &[MetricLabel { name: "outcome", words: &["ok", "bad"] }],
    is_sparse: false,
};
static RARE: Metric = Metric {
    name: "x_rare_total",
    labels: &[MetricLabel { name: "who", words: &[] }, MetricLabel { name: "outcome", words: &["ok", "bad"] }],
    is_sparse: true,
    ..THINGS
};
static LIMIT: Metric =
    Metric { name: "x_limit", kind: MetricKind::Gauge, help: "Most things.", labels: &[], is_sparse: false };
static UNKNOWN: Metric = Metric { name: "x_unknown", help: "Not known yet.", ..LIMIT };
static BY_NAME: Metric =
    Metric { name: "x_by_name", help: "By name.", labels: &[MetricLabel { name: "name", words: &[] }], ..LIMIT };
static TIME: Metric = Metric { name: "x_seconds", kind: MetricKind::Histogram, help: "Time.", ..LIMIT };

#[test]
fn text_form() {
    let registry = Registry::default();
    let things = registry.counters(&THINGS, &[]);
    let rare = registry.counters(&RARE, &["me"]);
    registry.read(&LIMIT, || Some(1.5));
    registry.read(&UNKNOWN, || None);
    registry.read_all(&BY_NAME, || {
        vec![(vec!["a\"b\\c\nd,e={}".to_owned()], count(1 << 40)), (vec!["over".to_owned()], f64::INFINITY)]
    });
    let took = registry.histogram(&TIME, &[0.001, 0.01]);
    things.increment(&["ok"]);
    registry.counter(&THINGS, &["ok"]).increment();
    things.increment(&["bad"]);
    things.increment(&["unheard of"]);
    rare.increment(&["bad"]);
    // Another process' worth of the same series counts on.
    registry.counters(&RARE, &["me"]).increment(&["bad"]);
    // On a bound counts as below it: `le` is "less or equal".
    for micros in [1000, 2000, 500_000] {
        took.observe(Duration::from_micros(micros));
    }
    let expected = r#"# HELP x_things_total Things.
# TYPE x_things_total counter
x_things_total{outcome="ok"} 2
x_things_total{outcome="bad"} 1
# HELP x_rare_total Things.
# TYPE x_rare_total counter
x_rare_total{who="me",outcome="bad"} 2
# HELP x_limit Most things.
# TYPE x_limit gauge
x_limit 1.5
# HELP x_unknown Not known yet.
# TYPE x_unknown gauge
# HELP x_by_name By name.
# TYPE x_by_name gauge
x_by_name{name="a\"b\\c\nd,e={}"} 1099511627776
# HELP x_seconds Time.
# TYPE x_seconds histogram
x_seconds_bucket{le="0.001"} 1
x_seconds_bucket{le="0.01"} 2
x_seconds_bucket{le="+Inf"} 3
x_seconds_sum 0.503
x_seconds_count 3
"#;
    assert_eq!(registry.to_string(), expected);
    let all = [&THINGS, &RARE, &LIMIT, &UNKNOWN, &BY_NAME, &TIME];
    assert_eq!(checked(expected, &all).unwrap().len(), 10);
}

#[test]
fn what_is_not_the_text_form_is_found() {
    let good = "# HELP x_things_total Things.\n# TYPE x_things_total counter\nx_things_total{outcome=\"ok\"} 2\n";
    assert!(checked(good, &[&THINGS]).is_ok());
    for (from, to) in [
        ("} 2\n", "} 2"),
        ("} 2", "} two"),
        ("} 2", "} -2"),
        ("} 2", " 2"),
        ("} 2\n", "} 2\nx_things_total{outcome=\"ok\"} 3\n"),
        ("\"ok\"", "\"fine\""),
        ("\"ok\"", "\"o\\k\""),
        ("outcome", "result"),
        ("{outcome=\"ok\"}", ""),
        ("TYPE x_things_total counter", "TYPE x_things_total gauge"),
        ("HELP x_things_total", "HELP x_other_total"),
        ("# HELP x_things_total Things.\n# TYPE x_things_total counter\n", ""),
        ("# HELP", "# HELP x_things_total Things.\n# TYPE x_things_total counter\n# HELP"),
        ("x_things_total{", "x_things{"),
    ] {
        assert!(good.contains(from));
        let bad = good.replacen(from, to, 1);
        assert!(checked(&bad, &[&THINGS]).is_err(), "{bad}");
    }
}

/// What is wrong with a name or a sentence (<https://prometheus.io/docs/practices/naming/>, and `promtool check metrics`).
fn complaint(metric: &Metric) -> Option<&'static str> {
    /// Of before the catalogue: they are API.
    const OLD: [&str; 2] = ["hushpod_log_dropped_lines", "hushpod_webhook_certificate_expiry_seconds"];
    let Metric { name, kind, help, labels, .. } = metric;
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let is_total = name.ends_with("_total");
    let words: Vec<&str> = name.split('_').collect();
    let bad_unit =
        ["milliseconds", "ms", "minutes", "hours", "days", "kilobytes", "megabytes", "percent", "info_total"];
    if !is_word(name) || !name.starts_with("hushpod_") || words.contains(&"") {
        Some("hushpod_<noun>_<unit>, in lower case")
    } else if (*kind == MetricKind::Counter) != is_total {
        Some("counters end in _total, and nothing else does")
    } else if ["_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)) {
        Some("the end is a histogram's")
    } else if words.iter().any(|word| bad_unit.contains(word)) {
        Some("base units")
    } else if *kind == MetricKind::Histogram && !name.ends_with("_seconds") {
        Some("durations are seconds")
    } else if *kind == MetricKind::Gauge
        && name.ends_with("_seconds")
        && !name.ends_with("_timestamp_seconds")
        && !OLD.contains(name)
    {
        Some("a moment is a timestamp")
    } else if words.iter().any(|word| ["counter", "gauge", "histogram", "metric"].contains(word)) {
        Some("no type in the name")
    } else if !help.ends_with('.') || help.contains(['\n', '\\']) {
        Some("a sentence in one line")
    } else if labels.iter().any(|label| !is_word(label.name) || label.name == "le") {
        Some("labels are words of ours")
    } else if labels.iter().flat_map(|label| label.words).any(|word| !is_word(word)) {
        Some("values are words")
    } else {
        None
    }
}

#[test]
fn names_are_what_prometheus_advises() {
    for metric in ALL {
        assert_eq!(complaint(metric), None, "{}", metric.name);
    }
    let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), ALL.len(), "one name, one metric");
    for bad in [
        Metric { name: "hushpod_Things_total", ..THINGS },
        Metric { name: "things_total", ..THINGS },
        Metric { name: "hushpod_things", ..THINGS },
        Metric { name: "hushpod_things_total", ..LIMIT },
        Metric { name: "hushpod_things_count", ..LIMIT },
        Metric { name: "hushpod_age_minutes", ..LIMIT },
        Metric { name: "hushpod_age_seconds", ..LIMIT },
        Metric { name: "hushpod_took", ..TIME },
        Metric { name: "hushpod_gauge", ..LIMIT },
        Metric { name: "hushpod_things", help: "no sentence", ..LIMIT },
        Metric { name: "hushpod_x", labels: &[MetricLabel { name: "le", words: &[] }], ..LIMIT },
        Metric { name: "hushpod_x", labels: &[MetricLabel { name: "a", words: &["Not good"] }], ..LIMIT },
    ] {
        assert!(complaint(&bad).is_some(), "{}", bad.name);
    }
}

/// Of a page: by name, the type and the labels as they are written there.
fn rows(page: &str) -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut found: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let &[name, kind, labels, meaning] = cells.as_slice() else { panic!("{line}") };
        assert!(!meaning.is_empty(), "{line}");
        found.entry(name.trim_matches('`').to_owned()).or_default().insert((kind.to_owned(), labels.to_owned()));
    }
    found
}

fn written(labels: &[MetricLabel]) -> String {
    let quoted = |text: &str| format!("`{text}`");
    let label = |MetricLabel { name, words }: &MetricLabel| {
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        if words.is_empty() { quoted(name) } else { format!("{}: {}", quoted(name), words.join(", ")) }
    };
    let all: Vec<_> = labels.iter().map(label).collect();
    if all.is_empty() { "–".to_owned() } else { all.join("; ") }
}

#[test]
fn the_page_and_the_catalogue_have_the_same_metrics_types_and_labels() {
    let of_code = ALL.iter().map(|Metric { name, kind, labels, .. }| {
        ((*name).to_owned(), BTreeSet::from([(kind.as_str().to_owned(), written(labels))]))
    });
    assert_eq!(rows(PAGE), of_code.collect::<BTreeMap<_, _>>());
}

/// The names under a heading of the page.
pub(crate) fn names_of(process: &str) -> BTreeSet<&'static str> {
    let (_, section) = PAGE.split_once(&format!("\n## {process}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let known = rows(section);
    ALL.iter().map(|metric| metric.name).filter(|name| known.contains_key(*name)).collect()
}

/// The names that a process announces.
pub(crate) fn announced(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect()
}
