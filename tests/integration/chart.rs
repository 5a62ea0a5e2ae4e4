//! What the chart says twice is what the code says.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::{env, fs};

use hushpod::annotations::{ENV, ENV_VARIABLE, INIT_ORDER, INJECT, KEYS, MODE};
use hushpod::config::Config;
use hushpod::contract::{
    BIN_VOLUME, CA_PATH, CA_VOLUME, CSI_DRIVER, CSI_PROGRAM_ATTRIBUTE, EXEC, EXEC_COMMAND, INIT, LIVE, NODE_VARIABLE,
    PLAN_VARIABLE, POD_UID_VARIABLE, POD_VARIABLE, PREFIX, PROGRAM, SECRETS_VOLUME, SIDECAR, VOLUME_PREFIX,
};
use hushpod::csi::driver_object;
use hushpod::provider::ProviderSettings;
use serde_json::{Value, json};

use crate::readme::{accepted, provider_fields};

pub(crate) fn chart(file: &str) -> String {
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
    (&["aws", "ssm"], &["ssoEndpoint"], "the access portal gives people their roles"),
    (&["azure", "gcp", "infisical"], &["auth=cli"], "a pod has no program of a store's that somebody logged in with"),
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
        format!("{{'{POD_VARIABLE}': 'metadata.name', '{POD_UID_VARIABLE}': 'metadata.uid', '{NODE_VARIABLE}': "),
        format!("m.name == '{SECRETS_VOLUME}'"),
        format!("startsWith('{VOLUME_PREFIX}')"),
        format!("== '{LIVE}'"),
        format!("[?'{PREFIX}{INIT_ORDER}']"),
        format!("m.name == '{BIN_VOLUME}'"),
        format!("v.name != '{CA_VOLUME}' || (has(v.projected)"),
        format!("w.contains('{PROGRAM}')"),
        format!("k == '{PREFIX}{ENV}' || k.startsWith('{PREFIX}{ENV_VARIABLE}')"),
        format!("[?'{PREFIX}{MODE}']"),
        format!("v.?csi.driver.orValue('') == '{CSI_DRIVER}'"),
        format!("{{'{CSI_PROGRAM_ATTRIBUTE}': '{EXEC_COMMAND}'}}"),
    ] {
        assert!(policy.contains(&part), "{part}");
    }
}

#[test]
fn the_drivers_pods_are_started_as_the_driver_wants_it() {
    let template = chart("templates/csi.yaml");
    for part in [
        format!("name: {CSI_DRIVER}\n"),
        format!("- --program={EXEC}\n"),
        format!("{{name: ca, mountPath: {CA_PATH}, readOnly: true}}"),
        "hostPath: {path: {{ .Values.csi.kubeletRoot }}".to_owned(),
        "mountPath: {{ .Values.csi.kubeletRoot }}, mountPropagation: Bidirectional".to_owned(),
        "- --kubelet-root={{ .Values.csi.kubeletRoot }}\n".to_owned(),
    ] {
        assert!(template.contains(&part), "{part}");
    }
}

#[test]
fn p8_the_driver_alone_is_privileged() {
    for file in crate::pages::files("charts/hushpod/templates", ".yaml") {
        let text = crate::readme::page(&file);
        let runs = text.matches("containers:\n").count();
        let privileged = file.ends_with("/csi.yaml");
        assert_eq!(text.matches("privileged: true").count(), usize::from(privileged), "{file}");
        // Landlock would forbid mount(2) to a program that mounts; what is written on, is on volumes.
        assert_eq!(text.matches("readOnlyRootFilesystem: true").count(), runs, "{file}");
        if !privileged {
            for part in ["runAsNonRoot: true", "seccompProfile: {type: RuntimeDefault}", "capabilities: {drop: [ALL]}"]
            {
                assert_eq!(text.matches(part).count(), runs, "{part}: {file}");
            }
        }
    }
}

/// The chart's objects with these values, beside the image that it wants; or what helm says against them.
pub(crate) fn made(values: &Value, more: &[&str]) -> Result<Vec<Value>, String> {
    made_by("charts/hushpod", values, more)
}

/// The same of another chart, by its path from the root.
pub(crate) fn made_by(chart: &str, values: &Value, more: &[&str]) -> Result<Vec<Value>, String> {
    let helm = env::var("HUSHPOD_HELM").expect("HUSHPOD_HELM is not set");
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut with_image = json!({"image": {"repository": "hushpod"}});
    with_image.as_object_mut().unwrap().extend(values.as_object().unwrap().clone());
    fs::write(file.path(), with_image.to_string()).unwrap();
    let chart = format!("{}/{chart}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(helm)
        .args(["template", "hushpod", &chart, "--namespace", "hushpod", "--values"])
        .arg(file.path())
        .args(more)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    let objects = documents.map(|document| serde_saphyr::from_str(document).unwrap());
    Ok(objects.filter(|object: &Value| !object.is_null()).collect())
}

/// What the chart makes of values, of one template, for a version of Kubernetes.
fn rendered(values: &Value, template: &str, version: &str) -> Vec<Value> {
    let template = format!("templates/{template}");
    made(values, &["--kube-version", version, "--show-only", &template]).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn of_kind(objects: Vec<Value>, kind: &str) -> Value {
    let mut found = objects.into_iter().filter(|object| object["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert_eq!(found.next(), None, "another {kind}");
    one
}

/// Providers of all types with all methods that the schema lets them have, so a new one cannot be forgotten here.
fn providers_of_all_methods() -> BTreeMap<String, Value> {
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).unwrap();
    let branches = &schema["properties"]["config"]["properties"]["providers"]["additionalProperties"]["allOf"];
    let mut providers = BTreeMap::new();
    for kind in ProviderSettings::TYPES {
        let least = match kind {
            "vault" => json!({"address": "https://v"}),
            "infisical" => json!({"address": "https://i", "project": "p", "environment": "prod"}),
            "aws" | "ssm" => json!({"region": "eu-west-1"}),
            "azure" => {
                json!({"address": "https://v.vault.azure.net", "tenant": "00000000-0000-0000-0000-000000000001"})
            }
            "gcp" => json!({"project": "p-12345"}),
            _ => json!({"volumes": true}),
        };
        let of = |branch: &&Value| {
            let of = &branch["if"]["properties"]["type"];
            of["const"] == kind || of["enum"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)))
        };
        let branch = branches.as_array().unwrap().iter().find(of).unwrap();
        let methods = branch["then"]["properties"]["auth"]["properties"]["method"]["enum"].as_array();
        for method in methods.into_iter().flatten().cloned().map(Some).chain([None]) {
            let mut provider = least.clone();
            provider["type"] = json!(kind);
            let name = format!("{kind}-{}", method.as_ref().and_then(Value::as_str).unwrap_or("default"));
            if let Some(method) = &method {
                provider["auth"] = json!({"method": method});
            }
            if kind == "gcp" && method.as_ref().is_none_or(|method| method != "metadata") {
                let pool = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";
                provider["auth"]["audience"] = json!(pool);
            }
            providers.insert(name, provider);
        }
    }
    providers
}

#[test]
#[ignore = "wants helm: HUSHPOD_HELM, as .ci/run chart sets it"]
fn chart_and_program_ask_kubelet_for_the_same_tokens() {
    let all = providers_of_all_methods();
    assert!(all.len() >= 16, "{:?}", all.keys());
    let vault = |more: Value| {
        let mut provider = json!({"type": "vault", "address": "https://v"});
        provider.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        provider
    };
    let mut tables = vec![
        ("none", json!({})),
        ("all", json!(all)),
        ("its own audience", json!({"a": vault(json!({"audience": "https://a:8200/\"x", "tokenSeconds": 900}))})),
        (
            "one audience, the shortest time",
            json!({"a": vault(json!({"tokenSeconds": 900})), "b": vault(json!({"tokenSeconds": 700})), "c": vault(json!({"tokenSeconds": 3600}))}),
        ),
    ];
    tables.extend(all.iter().map(|(name, provider)| (name.as_str(), json!({name.as_str(): provider}))));
    for (case, providers) in tables {
        let text = json!({"image": "i", "providers": providers, "csi": {}}).to_string();
        let config = Config::from_yaml(&text).unwrap_or_else(|error| panic!("{case}: {error}"));
        let printed: Value = serde_json::from_str(&driver_object(&config)).unwrap();
        let has_tokens = printed["spec"]["tokenRequests"] != json!([]);
        for (version, knows_secrets) in [("1.34.0", false), ("1.35.0", true)] {
            let values = json!({"csi": {"enabled": true}, "config": {"providers": providers}});
            let mut object = of_kind(rendered(&values, "csi.yaml", version), "CSIDriver");
            let in_secrets = object["spec"].as_object_mut().unwrap().remove("serviceAccountTokenInSecrets");
            // The program does not know the cluster's version; the API server refuses the field where there are no tokens.
            assert_eq!(in_secrets, (knows_secrets && has_tokens).then_some(json!(true)), "{case} {version}");
            assert_eq!(object["spec"], printed["spec"], "{case} {version}");
            let shown = &object["metadata"]["annotations"]["csi.hushpod.dev/daemon-set"];
            assert_eq!(
                (shown, &printed["metadata"]["annotations"]["csi.hushpod.dev/daemon-set"]),
                (&json!("hushpod/hushpod-csi"), &json!("hushpod-csi"))
            );
            for (label, value) in printed["metadata"]["labels"].as_object().unwrap() {
                assert_eq!(object["metadata"]["labels"][label], *value, "{case} {version}");
            }
        }
    }
}

#[test]
#[ignore = "wants helm: HUSHPOD_HELM, as .ci/run chart sets it"]
fn the_driver_has_memory_for_all_its_volumes() {
    for (csi, resources, limit) in [
        (json!({}), json!({}), "1152Mi"),
        (json!({"bytesPerNode": "256Mi"}), json!({}), "384Mi"),
        (json!({"bytesPerNode": "2G"}), json!({}), "2036Mi"),
        (json!({"bytesPerNode": "1048577"}), json!({}), "130Mi"),
        (json!({"bytesPerNode": "4Gi"}), json!({"limits": {"memory": "5Gi", "cpu": "1"}}), "5Gi"),
        (json!({}), json!({"limits": {"cpu": "1"}}), "1152Mi"),
    ] {
        let values = json!({"csi": {"enabled": true, "resources": resources}, "config": {"csi": csi}});
        let set = of_kind(rendered(&values, "csi.yaml", "1.34.0"), "DaemonSet");
        let found = &set["spec"]["template"]["spec"]["containers"][0]["resources"];
        assert_eq!(found["limits"]["memory"], limit, "{csi} {resources}");
        assert_eq!(found["limits"].get("cpu"), resources.pointer("/limits/cpu"), "{csi} {resources}");
    }
}

#[test]
fn the_admin_port_is_closed_unless_it_is_said_to_whom_it_is_open() {
    let values = chart("values.yaml");
    assert!(values.contains("networkPolicy:\n  enabled: true\n"));
    let policy = chart("templates/networkpolicy.yaml");
    assert!(
        policy.contains("- ports: [{port: https, protocol: TCP}]\n      {{- with .Values.networkPolicy.webhookFrom }}"),
        "API servers seldom have an address"
    );
    let ports = "- ports:\n        {{- range include \"hushpod.adminPorts\" $ | fromJsonArray }}";
    assert!(policy.contains(&format!("{{{{- with .Values.networkPolicy.metricsFrom }}}}\n    {ports}")));
    let monitor = chart("templates/podmonitor.yaml");
    assert!(monitor.contains(r#"{{- fail "metrics.podMonitor needs networkPolicy.metricsFrom: "#));
}

#[test]
#[ignore = "wants helm: HUSHPOD_HELM, as .ci/run chart sets it"]
fn a_replica_has_two_processes_at_one_port_unless_it_is_said_otherwise() {
    for (webhook, processes) in [
        (json!({}), &[("webhook", "admin", 8081), ("twin", "admin-twin", 8082)][..]),
        (json!({"adminPort": 9000}), &[("webhook", "admin", 9000), ("twin", "admin-twin", 9001)]),
        (json!({"twin": false, "port": 8082}), &[("webhook", "admin", 8081)]),
    ] {
        let port = webhook["port"].as_u64().unwrap_or(10250);
        let values = json!({"webhook": webhook, "networkPolicy": {"metricsFrom": [{"podSelector": {}}]}});
        let of = |file, kind| of_kind(rendered(&values, file, "1.34.0"), kind)["spec"].clone();
        let containers = &of("deployment.yaml", "Deployment")["template"]["spec"]["containers"];
        assert_eq!(containers.as_array().unwrap().len(), processes.len());
        for (index, (name, admin, admin_port)) in processes.iter().enumerate() {
            let container = &containers[index];
            assert_eq!(container["name"], *name);
            let has = |argument: String| container["args"].as_array().unwrap().contains(&json!(argument));
            assert!(has(format!("--listen=[::]:{port}")) && has(format!("--admin-listen=[::]:{admin_port}")));
            assert_eq!(has(format!("--container={name}")), processes.len() > 1);
            let own = json!({"name": admin, "containerPort": admin_port});
            // Once: on the node's network a port is one container's.
            let shared = json!({"name": "https", "containerPort": port});
            assert_eq!(container["ports"], if index == 0 { json!([shared, own]) } else { json!([own]) });
            assert_eq!(container["readinessProbe"]["httpGet"]["port"], *admin);
            assert_eq!(container["livenessProbe"]["httpGet"]["port"], *admin);
        }
        let open: Vec<_> = processes.iter().map(|(_, admin, _)| json!({"port": admin, "protocol": "TCP"})).collect();
        assert_eq!(of("networkpolicy.yaml", "NetworkPolicy")["ingress"][1]["ports"], json!(open));
    }
}

#[test]
#[ignore = "wants helm: HUSHPOD_HELM, as .ci/run chart sets it"]
fn the_driver_connects_to_the_cluster_and_elsewhere_to_the_ports_of_its_stores_alone() {
    let policy = |providers: Value, network: Value, proxy: Option<&str>| {
        let mut config = json!({"providers": providers});
        if let Some(proxy) = proxy {
            config["proxy"] = json!(proxy);
        }
        let values = json!({"csi": {"enabled": true}, "config": config, "networkPolicy": network});
        let found = rendered(&values, "networkpolicy.yaml", "1.34.0").into_iter();
        let of_driver = found.filter(|object| object["metadata"]["name"] == "hushpod-csi").collect();
        of_kind(of_driver, "NetworkPolicy")["spec"].clone()
    };
    let address = |url: &str| json!({"v": {"type": "vault", "address": url}});
    let aws = |auth: Value| json!({"a": {"type": "aws", "region": "eu-west-1", "auth": auth}});
    let gcp = |auth: Value| json!({"g": {"type": "gcp", "project": "p-12345", "auth": auth}});
    for (providers, proxy, expected) in [
        (json!({}), None, &[443][..]),
        (address("https://v"), None, &[443]),
        (address("https://v:8200"), None, &[443, 8200]),
        (address("https://[fd00::1]:8200/x"), None, &[443, 8200]),
        (address("https://[fd00::1]"), None, &[443]),
        (address("https://v/a:9"), Some("http://proxy:3128"), &[3128, 443]),
        (aws(json!({"method": "pod-identity"})), None, &[443, 80]),
        (aws(json!({"method": "pod-identity", "agent": "http://[fd00:ec2::23]/v1/credentials"})), None, &[443, 80]),
        (
            json!({"a": {"type": "aws", "region": "eu-west-1", "endpoint": "https://a:4566", "stsEndpoint": "https://a:4567"}}),
            None,
            &[443, 4566, 4567],
        ),
        (gcp(json!({"method": "metadata"})), None, &[443, 80, 988]),
    ] {
        let spec = policy(providers.clone(), json!({}), proxy);
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        let [cluster, api, others] = &spec["egress"].as_array().unwrap()[..] else { panic!("{spec}") };
        assert_eq!(*cluster, json!({"to": [{"namespaceSelector": {}}]}));
        let ports = |rule: &Value| -> BTreeSet<u64> {
            rule["ports"].as_array().unwrap().iter().map(|port| port["port"].as_u64().unwrap()).collect()
        };
        assert_eq!(ports(api), BTreeSet::from([443, 6443, 8443, 16443]));
        let mut expected: BTreeSet<_> = expected.iter().copied().collect();
        expected.insert(53);
        assert_eq!(ports(others), expected, "{providers}");
        assert_eq!(others["ports"][0], json!({"port": 53, "protocol": "UDP"}));
    }
    let peers = json!([{"ipBlock": {"cidr": "10.0.0.0/28"}}]);
    let narrow = policy(json!({}), json!({"egress": {"apiServers": peers}}), None);
    assert_eq!(narrow["egress"][1]["to"], peers);
    let own = json!([{"to": peers}]);
    for (network, types, egress) in [
        (json!({"csiEgress": own}), json!(["Ingress", "Egress"]), own.clone()),
        (json!({"csiEgress": own, "egress": {"enabled": false}}), json!(["Ingress", "Egress"]), own.clone()),
        (json!({"egress": {"enabled": false}}), json!(["Ingress"]), Value::Null),
    ] {
        let spec = policy(json!({}), network.clone(), None);
        assert_eq!((&spec["policyTypes"], &spec["egress"]), (&types, &egress), "{network}");
    }
}

/// Names of fields that a schema wants an address in.
fn addresses(object: &Value, found: &mut BTreeSet<String>) {
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        if field["pattern"].as_str().is_some_and(|pattern| pattern.contains("http")) && name != "audience" {
            found.insert(name.clone());
        }
        addresses(field, found);
    }
}

#[test]
fn no_address_of_a_store_is_forgotten_by_the_drivers_network_policy() {
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).unwrap();
    let provider = &schema["properties"]["config"]["properties"]["providers"]["additionalProperties"];
    let mut found = BTreeSet::new();
    provider["allOf"].as_array().unwrap().iter().for_each(|branch| addresses(&branch["then"], &mut found));
    assert!(found.len() >= 9, "{found:?}");
    let helpers = chart("templates/_helpers.tpl");
    let (_, ports) = helpers.split_once("{{- define \"hushpod.storePorts\" -}}").unwrap();
    let (ports, _) = ports.split_once("{{- define").unwrap();
    for name in found {
        assert!(ports.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[test]
#[ignore = "wants helm: HUSHPOD_HELM, as .ci/run chart sets it"]
fn what_an_operator_adds_to_the_driver_is_there() {
    let values = json!({"csi": {
        "enabled": true, "extraArgs": ["--no-api-server"], "extraEnv": [{"name": "A", "value": "b"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}], "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.2"]},
        "hostAliases": [{"ip": "10.0.0.3", "hostnames": ["vault.example"]}],
    }});
    let set = of_kind(rendered(&values, "csi.yaml", "1.34.0"), "DaemonSet");
    let pod = &set["spec"]["template"]["spec"];
    let last = |list: &Value| list.as_array().unwrap().last().unwrap().clone();
    let container = &pod["containers"][0];
    assert_eq!(last(&container["args"]), "--no-api-server");
    assert_eq!(last(&container["env"])["name"], "A");
    assert_eq!(last(&container["volumeMounts"])["mountPath"], "/more");
    assert_eq!(last(&pod["volumes"])["name"], "more");
    assert_eq!((&pod["dnsPolicy"], &pod["dnsConfig"]["nameservers"][0]), (&json!("None"), &json!("10.0.0.2")));
    assert_eq!(pod["hostAliases"][0]["ip"], "10.0.0.3");
}
