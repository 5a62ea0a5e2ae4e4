//! What the chart says twice is what the code says.

use std::collections::BTreeSet;
use std::fs;

use hushpod::annotations::{ENV, ENV_VARIABLE, INIT_ORDER, INJECT, KEYS, PREFIX};
use hushpod::config::Config;
use hushpod::provider::ProviderSettings;
use hushpod::webhook::containers::{
    BIN_VOLUME, INIT, LIVE, PLAN_VARIABLE, PROGRAM, SECRETS_VOLUME, SIDECAR, VOLUME_PREFIX,
};
use serde_json::Value;

fn chart(file: &str) -> String {
    fs::read_to_string(format!("{}/charts/hushpod/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_schema_knows_what_the_configuration_knows() {
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).unwrap();
    let config = &schema["properties"]["config"]["properties"];
    let defaults = KEYS.iter().filter(|key| key.has_operator_default).map(|key| key.name).collect::<BTreeSet<_>>();
    assert_eq!(keys(&config["defaults"]["properties"]), defaults);
    let types = &config["providers"]["additionalProperties"]["properties"]["type"]["enum"];
    assert_eq!(*types, serde_json::json!(ProviderSettings::TYPES));
    // An unknown field's error names all those that are known.
    let error = Config::from_yaml("{image: x, noSuchField: 1}").unwrap_err().to_string();
    for field in keys(config) {
        assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
    }
}

#[test]
fn p7_webhook_and_policy_ask_for_the_same_pods_by_the_same_names() {
    let condition = chart("templates/_helpers.tpl");
    for part in [format!("k.startsWith('{PREFIX}')"), format!("[?'{PREFIX}{INJECT}']")] {
        assert!(condition.contains(&part), "{part}");
    }
    for template in ["templates/webhook.yaml", "templates/policy.yaml"] {
        assert!(chart(template).contains(r#"include "hushpod.matchConditions""#), "{template}");
    }
    let policy = chart("templates/policy.yaml");
    for part in [
        format!("['{SIDECAR}', '{INIT}']"),
        format!("e.name == '{PLAN_VARIABLE}'"),
        format!("m.name == '{SECRETS_VOLUME}'"),
        format!("startsWith('{VOLUME_PREFIX}')"),
        format!("== '{LIVE}'"),
        format!("[?'{PREFIX}{INIT_ORDER}']"),
        format!("m.name == '{BIN_VOLUME}'"),
        format!("w.contains('{PROGRAM}')"),
        format!("k == '{PREFIX}{ENV}' || k.startsWith('{PREFIX}{ENV_VARIABLE}')"),
    ] {
        assert!(policy.contains(&part), "{part}");
    }
}
