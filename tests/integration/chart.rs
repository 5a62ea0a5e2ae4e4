//! What the chart says twice is what the code says.

use std::collections::BTreeSet;
use std::fs;

use hushpod::annotations::{ENV, ENV_VARIABLE, INIT_ORDER, INJECT, KEYS};
use hushpod::contract::{
    BIN_VOLUME, CA_VOLUME, INIT, LIVE, PLAN_VARIABLE, PREFIX, PROGRAM, SECRETS_VOLUME, SIDECAR, VOLUME_PREFIX,
};
use hushpod::provider::ProviderSettings;
use serde_json::{Value, json};

use crate::readme::{accepted, provider_fields};

fn chart(file: &str) -> String {
    fs::read_to_string(format!("{}/charts/hushpod/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// What providers can say and the schema refuses, each with the reason: types, how it is written in
/// [`provider_fields`], why.
const NOT_IN_PODS: &[(&[&str], &[&str], &str)] = &[
    (&["file"], &["audience"], "a store of files takes no token: the code refuses every one"),
    (&["file"], &["proxy", "noProxy"], "files are not reached over a network"),
    (
        &["file"],
        &[
            "caBundle",
            "caBundle.name",
            "caBundle.signerName",
            "caBundle.labelSelector",
            "caBundle.labelSelector.matchLabels",
            "caBundle.labelSelector.matchExpressions",
            "caBundle.labelSelector.matchExpressions.key",
            "caBundle.labelSelector.matchExpressions.operator",
            "caBundle.labelSelector.matchExpressions.operator=In",
            "caBundle.labelSelector.matchExpressions.operator=NotIn",
            "caBundle.labelSelector.matchExpressions.operator=Exists",
            "caBundle.labelSelector.matchExpressions.operator=DoesNotExist",
            "caBundle.labelSelector.matchExpressions.values",
        ],
        "the same: nobody vouches for files",
    ),
    (&["vault", "azure", "gcp", "aws", "ssm", "infisical"], &["auth.tokenFile"], "a pod's token is its projected one"),
    (&["vault"], &["auth=token"], "a person's token, or a CI job's"),
    (&["vault"], &["auth=approle", "auth.roleIdFile", "auth.secretIdFile"], "the agent's image has no such files"),
    (&["infisical"], &["auth=token"], "a person's token, or a CI job's"),
    (
        &["infisical"],
        &["auth=universal", "auth.clientIdFile", "auth.clientSecretFile"],
        "the agent's image has no such files",
    ),
    (&["aws", "ssm", "azure"], &["auth=environment"], "the agent's environment is not the operator's"),
    (
        &["aws", "ssm"],
        &["auth=profile", "auth.profile", "auth.credentialsFile", "auth.configFile"],
        "the files of AWS's command line are a person's",
    ),
    (
        &["gcp"],
        &["auth=application-default-credentials", "auth.file"],
        "the file of gcloud is a person's, or a CI job's",
    ),
];

/// What a schema lets an object say, as [`provider_fields`] writes it.
fn known_fields(object: &Value, place: &str, known: &mut BTreeSet<String>) {
    for (name, field) in object["properties"].as_object().unwrap() {
        let path = format!("{place}{name}");
        for inner in [field, &field["items"], &field["additionalProperties"]] {
            if inner["properties"].is_object() {
                known_fields(inner, &format!("{path}."), known);
            }
            // serde tells of an unknown method without its field's name.
            let words = inner["enum"].as_array().into_iter().flatten().map(|word| word.as_str().unwrap());
            known.extend(words.map(|word| format!("{}={word}", path.trim_end_matches(".method"))));
        }
        known.insert(path);
    }
}

#[test]
fn the_schema_knows_what_the_configuration_knows() {
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).unwrap();
    let config = &schema["properties"]["config"]["properties"];
    let defaults = KEYS.iter().filter(|key| key.has_operator_default).map(|key| key.name).collect::<BTreeSet<_>>();
    assert_eq!(keys(&config["defaults"]["properties"]), defaults);
    assert_eq!(keys(config), accepted("noSuchField: 1").iter().map(String::as_str).collect());
    let types = &config["providers"]["additionalProperties"]["properties"]["type"]["enum"];
    assert_eq!(*types, json!(ProviderSettings::TYPES));
}

#[test]
fn the_schema_knows_what_each_type_of_store_knows() {
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).unwrap();
    let provider = &schema["properties"]["config"]["properties"]["providers"]["additionalProperties"];
    for kind in ProviderSettings::TYPES {
        let meets = |branch: &&Value| {
            let of = &branch["if"]["properties"]["type"];
            of["const"] == kind || of["enum"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)))
        };
        let branches: Vec<_> = provider["allOf"].as_array().unwrap().iter().filter(meets).collect();
        let [branch] = branches[..] else { panic!("{kind}: {branches:?}") };
        assert_eq!(branch["then"]["additionalProperties"], false, "{kind}");
        let mut known = BTreeSet::new();
        known_fields(&branch["then"], "", &mut known);
        known.retain(|field| field != "type" && !field.starts_with("type="));
        let rows = NOT_IN_PODS.iter().filter(|(kinds, ..)| kinds.contains(&kind));
        let exceptions: BTreeSet<_> = rows.flat_map(|(_, fields, _)| *fields).map(|&field| field.to_owned()).collect();
        assert!(known.is_disjoint(&exceptions), "{kind}: {known:?}");
        known.extend(exceptions);
        assert_eq!(known, provider_fields(kind), "{kind}");
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
        format!("v.name != '{CA_VOLUME}' || (has(v.projected)"),
        format!("w.contains('{PROGRAM}')"),
        format!("k == '{PREFIX}{ENV}' || k.startsWith('{PREFIX}{ENV_VARIABLE}')"),
    ] {
        assert!(policy.contains(&part), "{part}");
    }
}

#[test]
fn the_admin_port_is_closed_unless_it_is_said_to_whom_it_is_open() {
    let values = chart("values.yaml");
    assert!(values.contains("networkPolicy:\n  enabled: true\n"));
    let policy = chart("templates/networkpolicy.yaml");
    assert!(policy.contains("- ports: [{port: https}]\n"), "API servers have no address");
    assert!(
        policy.contains("{{- with .Values.networkPolicy.metricsFrom }}\n    - ports: [{port: admin}]\n      from:")
    );
    let monitor = chart("templates/podmonitor.yaml");
    assert!(monitor.contains(r#"{{- fail "metrics.podMonitor needs networkPolicy.metricsFrom: "#));
}
