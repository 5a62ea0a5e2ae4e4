//! Alerts and dashboard ask for series that there are, and each alert has its case, its row and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::chart::{chart, made};
use crate::pages::files;
use crate::readme::page;

const RUNBOOK: &str = "deploy/runbook.md";
const KINDS: [&str; 2] = ["monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule"];

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// The alerts of a file of rules, or of a PrometheusRule's spec, by their names.
fn alerts(rules: &Value) -> BTreeMap<String, Value> {
    let groups = rules["groups"].as_array().unwrap().iter();
    let alerts = groups.flat_map(|group| group["rules"].as_array().unwrap());
    alerts.map(|alert| (alert["alert"].as_str().unwrap().to_owned(), alert.clone())).collect()
}

fn written() -> BTreeMap<String, Value> {
    alerts(&yaml(&chart("files/alerts.yaml")))
}

fn text<'a>(alert: &'a Value, pointer: &str) -> &'a str {
    alert.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Every query of the dashboard.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&chart("files/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// What a query reads of ours.
fn series(query: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    query.split(|c| !is_word(c)).filter(|word| word.starts_with("hushpod_")).map(str::to_owned).collect()
}

/// What the page says there is: a histogram's parts by their names.
fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for row in page("src/metrics.md").lines().filter(|line| line.starts_with("| `hushpod_")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').to_owned();
        if cells[2] == "histogram" {
            known.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        } else {
            known.insert(name);
        }
    }
    known
}

#[test]
fn alerts_and_dashboard_read_series_that_there_are() {
    let known = known();
    assert!(known.len() > 30, "{known:?}");
    let mut shown = BTreeSet::new();
    for query in queries().into_iter().chain(written().values().map(|alert| text(alert, "/expr").to_owned())) {
        let read = series(&query);
        let strange: Vec<_> = read.difference(&known).collect();
        assert!(strange.is_empty(), "src/metrics.md has no {strange:?}: {query}");
        shown.extend(read);
    }
    assert!(shown.len() > 30, "{shown:?}");
}

#[test]
fn each_alert_has_a_row_and_says_what_to_do() {
    let chart_page = chart("README.md");
    let (_, rest) = chart_page.split_once("<!-- alerts: tested by tests/integration/alerts.rs -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    let rows: BTreeSet<_> =
        table.trim().lines().skip(2).map(|row| row.rsplit_once(" | ").unwrap().0.to_owned()).collect();
    let runbook = page(RUNBOOK);
    let mut expected = BTreeSet::new();
    for (name, alert) in written() {
        let place = format!("{RUNBOOK}#{}", name.to_lowercase());
        assert_eq!(text(&alert, "/annotations/runbook_url"), place);
        let severity = text(&alert, "/labels/severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        assert!(text(&alert, "/annotations/summary").ends_with('.'), "{name}: a sentence");
        let after = alert.get("for").map_or("at once", |after| after.as_str().unwrap());
        expected.insert(format!("| {severity} | [{name}](../../{place}) | {after}"));
        let (_, section) =
            runbook.split_once(&format!("\n### {name}\n")).unwrap_or_else(|| panic!("{RUNBOOK}: no {name}"));
        let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
        for part in ["**Meaning.** ", "**First look.**", "```sh ", "**Cure.** "] {
            assert!(section.contains(part), "{RUNBOOK}: {name} lacks {part}");
        }
    }
    assert_eq!(rows, expected);
    let sections = runbook.lines().filter(|line| line.starts_with("### ")).count();
    assert_eq!(sections, expected.len(), "{RUNBOOK} has sections of alerts that there are not");
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let (mut fires, mut is_quiet) = (BTreeSet::new(), BTreeSet::new());
    let cases = files("tests/metrics", ".test.yaml");
    assert!(!cases.is_empty());
    for file in cases {
        for case in yaml(&page(&file))["tests"].as_array().unwrap() {
            for look in case["promql_expr_test"].as_array().unwrap() {
                let asked = look["expr"].as_str().unwrap();
                let name = asked.split('"').nth(1).unwrap().to_owned();
                assert_eq!(asked, format!(r#"ALERTS{{alertname="{name}",alertstate="firing"}}"#), "{}", case["name"]);
                let into = if look["exp_samples"] == json!([]) { &mut is_quiet } else { &mut fires };
                into.insert(name);
            }
        }
    }
    let all: BTreeSet<_> = written().into_keys().collect();
    assert_eq!((&fires, &is_quiet), (&all, &all));
}

/// All that there is, of an operator with wishes.
fn wishes() -> Value {
    let common = json!({"example.com/team": "platform"});
    json!({
        "commonLabels": common, "commonAnnotations": common, "csi": {"enabled": true, "namespace": "nodes"},
        "networkPolicy": {"metricsFrom": [{"podSelector": {}}]}, "config": {"csi": {"bytesPerNode": "2Gi"}},
        "metrics": {
            "podMonitor": {"enabled": true, "labels": {"release": "p"}},
            "rules": {"enabled": true, "alertLabels": {"team": "t"}, "disabled": ["HushpodSwappable"]},
            "dashboard": {"enabled": true, "namespace": "monitoring", "annotations": {"folder": "f"}},
        },
    })
}

/// What the chart makes for metrics, as KIND/NAMESPACE/NAME, on a cluster that has the Prometheus operator, or not.
fn on_cluster(values: &Value, has_operator: bool) -> Result<BTreeMap<String, Value>, String> {
    let mut options = vec!["--kube-version", "1.37"];
    if has_operator {
        options.extend(KINDS.iter().flat_map(|kind| ["--api-versions", kind]));
    }
    let mut found = BTreeMap::new();
    for object in made(values, &options)? {
        let name = ["/kind", "/metadata/namespace", "/metadata/name"].map(|place| text(&object, place)).join("/");
        if ["PodMonitor/", "PrometheusRule/"].iter().any(|kind| name.starts_with(kind)) || name.ends_with("dashboard") {
            found.insert(name, object);
        }
    }
    Ok(found)
}

#[test]
#[ignore = "wants helm: HUSHPOD_HELM, as .ci/run chart sets it"]
fn the_chart_makes_what_its_values_want() {
    let found = on_cluster(&wishes(), true).unwrap();
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    let expected = [
        "ConfigMap/monitoring/hushpod-dashboard",
        "PodMonitor/hushpod/hushpod-agents",
        "PodMonitor/hushpod/hushpod-webhook",
        "PodMonitor/nodes/hushpod-csi",
        "PrometheusRule/hushpod/hushpod",
    ];
    assert_eq!(names, expected);
    for (name, object) in &found {
        for field in ["labels", "annotations"] {
            assert_eq!(object["metadata"][field]["example.com/team"], "platform", "{field} of {name}");
        }
    }
    let dashboard = &found["ConfigMap/monitoring/hushpod-dashboard"];
    assert_eq!(dashboard["data"]["hushpod.json"].as_str().unwrap().trim(), chart("files/dashboard.json").trim());
    assert_eq!(dashboard["metadata"]["annotations"]["folder"], "f");
    let agents = &found["PodMonitor/hushpod/hushpod-agents"]["spec"];
    assert_eq!(agents["podMetricsEndpoints"][0]["port"], "hushpod-metrics");
    assert_eq!(agents["namespaceSelector"], json!({"any": true}));
    let rules = alerts(&found["PrometheusRule/hushpod/hushpod"]["spec"]);
    let mut expected = written();
    expected.remove("HushpodSwappable").unwrap();
    assert_eq!(rules.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert_eq!(rules["HushpodStoreDown"]["labels"], json!({"severity": "critical", "team": "t"}));
    assert_eq!(text(&rules["HushpodDriverNearlyFull"], "/expr"), "hushpod_csi_reserved_bytes > 0.9 * 2147483648");
    for each in ["HushpodStoreFails", "HushpodDriverDown"] {
        assert_eq!(rules[each]["annotations"], expected[each]["annotations"], "what Prometheus fills in is left to it");
    }
}

#[test]
#[ignore = "wants helm: HUSHPOD_HELM, as .ci/run chart sets it"]
fn the_chart_leaves_out_what_is_not_there() {
    let without_operator = on_cluster(&wishes(), false).unwrap();
    assert_eq!(without_operator.into_keys().collect::<Vec<_>>(), ["ConfigMap/monitoring/hushpod-dashboard"]);
    let mut less = wishes();
    less["csi"]["enabled"] = json!(false);
    less["replicaCount"] = json!(1);
    less["metrics"]["podMonitor"]["agents"] = json!(false);
    let found = on_cluster(&less, true).unwrap();
    assert_eq!(found.keys().filter(|name| name.starts_with("PodMonitor/")).count(), 1, "{:?}", found.keys());
    let rules = alerts(&found["PrometheusRule/hushpod/hushpod"]["spec"]);
    assert!(rules.contains_key("HushpodWebhookDown"));
    for gone in ["HushpodDriverDown", "HushpodVolumesWait", "HushpodWebhookReplicaMissing"] {
        assert!(!rules.contains_key(gone), "{gone}");
    }
    // What nobody could mean.
    less["metrics"]["rules"]["disabled"] = json!(["HushpodSwapable"]);
    let sentence = on_cluster(&less, true).unwrap_err();
    assert!(sentence.contains("metrics.rules.disabled: unknown alert \"HushpodSwapable\""), "{sentence}");
}
