//! Authorities that may change while a pod runs: a volume of their own, for the agent alone.

use super::*;

/// Stores with and without one; the one that unlocks `sops` has one, too.
const BUNDLES: &str = r#"
image: registry/hushpod:0.1.0
defaultProvider: vault
providers:
  vault: {type: vault, address: "https://vault.example:8200", role: web, caBundle: {name: "example.com:stores:vault"}}
  second: {type: vault, address: "https://second.example:8200", role: web, caBundle: {signerName: example.com/stores,
    labelSelector: {matchLabels: {store: second}, matchExpressions: [{key: live, operator: NotIn, values: ["no", "off"]}, {key: x, operator: Exists}]}}}
  all: {type: infisical, address: "https://infisical.example", role: web, project: p, environment: e, caBundle: {signerName: example.com/stores, labelSelector: {}}}
  plain: {type: vault, address: "https://plain.example:8200", role: web}
  sops: {type: file, volumes: true, identity: "second:secret/data/age#key"}
"#;

fn bundled(pod: &Value) -> Decided {
    decide_with(BUNDLES, &review("CREATE", "", pod))
}

fn admitted_with(pod: &Value) -> Value {
    let Decided { outcome, response, pod, .. } = bundled(pod);
    assert_eq!(outcome, Outcome::Injected, "{response}");
    pod
}

/// A pod that asks those stores.
fn asking(stores: &[&str], mode: &str) -> Value {
    let pod = with(pod(), "/metadata/annotations", json!({"hushpod.dev/mode": mode}));
    stores.iter().fold(pod, |pod, store| {
        let path = if *store == "all" { "all:/a#k".to_owned() } else { format!("{store}:secret/data/a#k") };
        annotated(pod, &[(&format!("file.{store}"), &path)])
    })
}

fn sources(pod: &Value) -> Option<Value> {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    Some(volumes.iter().find(|volume| volume["name"] == "hushpod-ca")?["projected"]["sources"].clone())
}

fn named_bundle() -> Value {
    json!({"clusterTrustBundle": {"path": "vault", "name": "example.com:stores:vault"}})
}

fn selected_bundle() -> Value {
    json!({"clusterTrustBundle": {"path": "second", "signerName": "example.com/stores", "labelSelector": {
        "matchLabels": {"store": "second"},
        "matchExpressions": [
            {"key": "live", "operator": "NotIn", "values": ["no", "off"]}, {"key": "x", "operator": "Exists"},
        ],
    }}})
}

#[test]
fn each_stores_bundle_is_a_file_of_the_agents_volume() {
    let all = json!({"clusterTrustBundle": {"path": "all", "signerName": "example.com/stores", "labelSelector": {}}});
    for (stores, expected) in [
        (&["plain"][..], None),
        (&["vault"], Some(json!([named_bundle()]))),
        (&["vault", "plain", "second"], Some(json!([selected_bundle(), named_bundle()]))),
        (&["all"], Some(json!([all]))),
    ] {
        for mode in ["sidecar", "init+sidecar", "init"] {
            let pod = admitted_with(&asking(stores, mode));
            assert_eq!(sources(&pod), expected, "{stores:?} {mode}");
            let mount = json!({"name": "hushpod-ca", "mountPath": "/run/hushpod/ca", "readOnly": true});
            for container in pod["spec"]["initContainers"].as_array().unwrap() {
                assert_eq!(has_mount(container, &mount), expected.is_some(), "{stores:?} {mode}");
                let plan = Plan::from_json(container["env"][0]["value"].as_str().unwrap()).unwrap();
                let following: Vec<_> = plan.providers.iter().filter(|(_, planned)| planned.ca_bundle).collect();
                assert_eq!(following.len(), expected.as_ref().map_or(0, |list| list.as_array().unwrap().len()));
            }
            let app = named(&pod, "containers", "app")["volumeMounts"].to_string();
            assert!(!app.contains("hushpod-ca"), "{app}");
            assert_eq!(bundled(&pod).patch, [] as [Value; 0], "a second pass finds nothing to do: {stores:?} {mode}");
        }
    }
}

#[test]
fn the_store_that_unlocks_another_brings_its_bundle() {
    let pod = admitted_with(&with_sources());
    assert_eq!(sources(&pod), Some(json!([selected_bundle()])));
    assert!(bundled(&pod).patch.is_empty());
}

#[test]
fn a_second_pass_over_a_bundles_volume_replaces_what_others_wrote_alone() {
    let once = admitted_with(&asking(&["vault", "second"], "sidecar"));
    let index = once["spec"]["volumes"].as_array().unwrap().iter().position(|v| v["name"] == "hushpod-ca").unwrap();
    let change = |pointer: &str, value: Value| {
        let mut pod = once.clone();
        let place = format!("/spec/volumes/{index}/projected{pointer}");
        let (parent, field) = place.rsplit_once('/').unwrap();
        match pod.pointer_mut(parent).unwrap() {
            Value::Array(items) => items[field.parse::<usize>().unwrap()] = value,
            object => object[field] = value,
        }
        pod
    };
    // What, and whether it stays.
    for (pointer, value, stays) in [
        ("/defaultMode", json!(420), true),
        ("/defaultMode", json!(0o444), false),
        ("/sources/1/clusterTrustBundle/optional", json!(false), true),
        ("/sources/1/clusterTrustBundle/optional", json!(true), false),
        ("/sources/1/clusterTrustBundle/name", json!("evil"), false),
        ("/sources/0/clusterTrustBundle/signerName", json!("evil.example/x"), false),
        ("/sources/0/clusterTrustBundle/labelSelector/matchLabels/store", json!("evil"), false),
        ("/sources/1", json!({"configMap": {"name": "evil", "items": [{"key": "a", "path": "vault"}]}}), false),
        ("/sources/1", json!({}), false),
    ] {
        let pod = change(pointer, value.clone());
        let again = bundled(&pod);
        if stays {
            assert!(again.patch.is_empty(), "{pointer} {value}: {:?}", again.patch);
        } else {
            assert_eq!(again.pod["spec"], once["spec"], "{pointer} {value}");
            assert!(!again.patch.is_empty());
        }
    }
}

#[test]
fn p6_a_tenant_neither_brings_nor_mounts_the_volume() {
    let with_volume = |volume: Value| with(asking(&["vault"], "sidecar"), "/spec/volumes/1", volume);
    let own = json!({"name": "hushpod-ca", "configMap": {"name": "evil"}});
    let message = bundled(&with_volume(own)).response["status"]["message"].to_string();
    assert!(message.contains("hushpod-ca") && message.contains("hushpod's own"), "{message}");
    // One of the same kind is replaced.
    let own = json!({"name": "hushpod-ca", "projected": {"sources": [{"configMap": {"name": "evil"}}]}});
    assert_eq!(sources(&admitted_with(&with_volume(own.clone()))), Some(json!([named_bundle()])));
    // Where no store has a bundle, there is no such volume.
    let pod = with(asking(&["plain"], "sidecar"), "/spec/volumes/1", own);
    let message = bundled(&pod).response["status"]["message"].to_string();
    assert!(message.contains("hushpod-ca") && message.contains("hushpod's own"), "{message}");
    for (list, name) in [("containers", "app"), ("initContainers", "late")] {
        let mount = json!({"name": "hushpod-ca", "mountPath": "/ca", "readOnly": true});
        let container = json!({"name": name, "image": "x", "volumeMounts": [mount]});
        let pod = with(asking(&["vault"], "sidecar"), &format!("/spec/{list}"), json!([container]));
        let message = bundled(&pod).response["status"]["message"].to_string();
        assert!(message.contains("mounts") && message.contains("hushpod-ca"), "{message}");
    }
}
