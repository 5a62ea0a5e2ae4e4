//! The README's tables say what the code says.

use hushpod::annotations::{KEYS, PREFIX};
use hushpod::provider::ProviderSettings;
use serde_json::json;

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The annotation table as the constants make it.
fn annotation_table() -> String {
    let rows = KEYS.iter().map(|key| {
        let name = if key.name.ends_with('.') { format!("{}<name>", key.name) } else { key.name.to_owned() };
        format!("| `{PREFIX}{name}` | {} | {} |\n", key.meaning, key.default)
    });
    format!("| annotation | meaning | default |\n|---|---|---|\n{}", rows.collect::<String>())
}

#[test]
fn the_annotation_table_is_the_constants() {
    let readme = readme();
    let (_, rest) = readme.split_once("<!-- annotations: tested against src/annotations.rs -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    assert_eq!(table, annotation_table(), "paste this into the README:\n{}", annotation_table());
}

#[test]
fn every_reserved_name_is_listed() {
    for name in hushpod::environment::RESERVED {
        assert!(readme().contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_provider_type_is_described() {
    for name in ProviderSettings::TYPES {
        assert!(readme().contains(&format!("`{name}`")), "{name}");
    }
}

/// Each type with the settings that it cannot do without.
fn smallest_settings() -> Vec<ProviderSettings> {
    let of = |kind: &str| match kind {
        "aws" | "ssm" => json!({"region": "eu-west-1"}),
        "azure" => json!({"address": "https://shop.vault.azure.net", "tenant": "common.example"}),
        "gcp" => json!({"auth": {"audience":
            "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/k8s/providers/shop"}}),
        "file" => json!({"path": "/srv"}),
        _ => json!({"address": "https://store.example"}),
    };
    let settings = ProviderSettings::TYPES.iter().map(|kind| {
        let mut settings = of(kind);
        settings["type"] = json!(kind);
        serde_json::from_value(settings).unwrap_or_else(|error| panic!("{kind}: {error}"))
    });
    settings.collect()
}

#[test]
fn the_table_of_stores_says_what_the_types_say() {
    let readme = readme();
    let (_, rest) = readme.split_once("<!-- stores: tested against src/provider.rs -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    let rows: Vec<Vec<_>> =
        table.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row {name:?}"));
    let kinds: Vec<_> = rows[0][1..].iter().map(|kind| kind.trim_matches('`')).collect();
    let mut types = ProviderSettings::TYPES.to_vec();
    types.sort_unstable();
    let mut sorted = kinds.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, types);
    for (kind, settings) in ProviderSettings::TYPES.iter().zip(smallest_settings()) {
        let column = kinds.iter().position(|shown| shown == kind).unwrap() + 1;
        let settings = settings.as_settings();
        let minutes = settings.default_refresh().as_secs() / 60;
        assert_eq!(row("polled every, unless told")[column], format!("{minutes} min"), "{kind}");
        let shown = match settings.default_audience() {
            None => "–".to_owned(),
            Some(audience) if audience.starts_with("https://iam.googleapis.com/") => "the provider's URL".to_owned(),
            Some(audience) => format!("`{audience}`"),
        };
        assert_eq!(row("audience of the pod's token")[column], shown, "{kind}");
    }
}
