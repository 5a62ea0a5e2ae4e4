//! The chart's table of sizes is what the defaults and the measured figures make.

use hushpod::quantity::parse_duration;
use serde_json::json;

use crate::chart::chart;
use crate::pages::CONFIG;
use crate::readme::page;
use crate::webhook::patched;

const PODS: [u64; 3] = [100, 1_000, 10_000];
const PODS_A_NODE: u64 = 50;
/// Lives of logins as the stores' pages make them.
const VAULT_LOGIN: f64 = 20.0 * 60.0;
const INFISICAL_LOGIN: f64 = 3600.0;
/// Two replicas of two processes.
const PROCESSES: u64 = 4;

/// A number with commas, as pages write it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts = digits.as_bytes().rchunks(3).rev().map(|part| String::from_utf8_lossy(part).into_owned());
    parts.collect::<Vec<_>>().join(",")
}

/// A number of two digits or so.
fn short(number: f64) -> String {
    let places = if number < 0.01 {
        3
    } else if number < 0.1 {
        2
    } else {
        1
    };
    let text = format!("{number:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Requests an hour of one reader of one secret.
fn requests(refresh: &str, login: f64) -> f64 {
    3600.0 / parse_duration(refresh).unwrap().as_secs_f64() + 3600.0 / (login * 2.0 / 3.0)
}

#[test]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
fn the_table_of_sizes_is_computed_of_what_is_measured_and_of_defaults() {
    let of_pods = |cell: &dyn Fn(f64) -> String| PODS.map(|pods| cell(pods as f64));
    let nodes = |pods: f64| pods / PODS_A_NODE as f64;
    let whole = |number: f64| grouped(number.round() as u64);
    let gib = |kib: f64| format!("{:.1} GiB", kib / 1024.0 / 1024.0);
    let rows = [
        ("26,525 reviews", of_pods(&|pods| format!("{} s", short(pods / 26_525.0)))),
        (
            "2 replicas of 2 processes",
            of_pods(&|_| format!("{} cores, {} MiB", short(PROCESSES as f64 / 100.0), PROCESSES * 32)),
        ),
        ("5m, 9,220 KiB", of_pods(&|pods| format!("{} cores, {}", short(pods * 0.005), gib(pods * 9220.0)))),
        (
            "0.148 s of CPU an hour, 1,415 KiB",
            of_pods(&|pods| format!("{} s an hour, {}", whole(pods * 0.148), gib(pods * 1415.0))),
        ),
        (
            "10m, 32 MiB a node",
            of_pods(&|pods| format!("{} cores, {} MiB", short(nodes(pods) * 0.01), whole(nodes(pods) * 32.0))),
        ),
        ("Vault, `sidecar`, every 60 s", of_pods(&|pods| whole(pods * requests("60s", VAULT_LOGIN)))),
        ("Vault, `sidecar`, `refresh: 5m`", of_pods(&|pods| whole(pods * requests("5m", VAULT_LOGIN)))),
        ("Vault, `csi`", of_pods(&|pods| whole(nodes(pods) * requests("60s", VAULT_LOGIN)))),
        ("Infisical, `sidecar`", of_pods(&|pods| whole(pods * requests("5m", INFISICAL_LOGIN)))),
        ("Infisical, `csi`", of_pods(&|pods| whole(nodes(pods) * requests("5m", INFISICAL_LOGIN)))),
        ("tokens", of_pods(&|pods| whole(pods * 3600.0 / (600.0 * 0.8)))),
        ("`kubectl hushpod status`", of_pods(&|pods| whole(pods + (pods / 500.0).ceil()))),
        ("etcd", of_pods(&|_| "0".to_owned())),
    ];
    let text = chart("README.md");
    let (_, rest) = text.split_once("<!-- sizing: computed by tests/integration/sizing.rs -->\n").unwrap();
    let table: Vec<Vec<&str>> = rest
        .split("<!-- end -->")
        .next()
        .unwrap()
        .trim()
        .lines()
        .skip(2)
        .map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(table.len(), rows.len());
    for (cells, (name, numbers)) in table.iter().zip(rows) {
        assert!(cells[0].contains(name), "{name}: {cells:?}");
        assert_eq!(cells[1..], numbers, "{name}");
    }
}

#[test]
fn what_the_sizes_are_computed_of_is_what_was_measured_and_what_is_injected() {
    let (bench, sizes, values) = (page("tests/bench/README.md"), chart("README.md"), chart("values.yaml"));
    for (measured, said) in [
        ("| hushpod | 8 | 26,525 |", "26,525 reviews"),
        ("| sidecar | 1.12 ± 0.04 s | 0.31 ± 0.05 s | 1,415 KiB |", "1,415 KiB each"),
        ("polling every minute | 0.148 s per hour", "0.148 s of CPU an hour"),
        ("| hushpod | 14.3 MiB | 4.3 MiB | 10.1 MiB | 4.5 s |", "it has 14.3 MiB, and takes 4.5 s"),
    ] {
        assert!(bench.contains(measured), "tests/bench/README.md has no {measured:?} any more");
        assert!(sizes.contains(said), "{said}");
    }
    assert_eq!(values.matches("requests: {cpu: 10m, memory: 32Mi}").count(), 2, "webhook and driver");
    assert!(values.contains("\nreplicaCount: 2\n") && values.contains("  twin: true\n"));

    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"annotations": {"hushpod.dev/file.a": "secret/data/a#a"}},
        "spec": {"serviceAccountName": "web", "containers": [{"name": "app", "image": "app"}]},
    });
    let agent = patched(CONFIG, &pod)["spec"]["initContainers"][0].clone();
    let resources = json!({"requests": {"cpu": "5m", "memory": "9220Ki"}, "limits": {"memory": "36880Ki"}});
    assert_eq!(agent["resources"], resources, "{agent}");
}
