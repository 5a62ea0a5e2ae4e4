//! The README's tables say what the code says.

use hushpod::annotations::{KEYS, PREFIX};
use hushpod::provider::ProviderSettings;

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
