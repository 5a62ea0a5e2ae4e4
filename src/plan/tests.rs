use super::*;
use crate::annotations;

const CONFIG: &str = r#"
image: registry/hushpod:0.1.0
defaultProvider: vault
providers:
  vault:
    type: vault
    address: https://vault.example:8200
    role: "{{namespace}}-{{service_account}}"
    refresh: 30s
    allow:
      - {namespaces: ["*"], requests: ["secret/data/{{namespace}}/*", "pki/*", "database/creds/*"]}
  other: {type: vault, address: "https://other.example:8200", audience: other, allow: [{namespaces: [ops]}]}
  roleless: {type: vault, address: "https://third.example:8200"}
  files: {type: file, path: /srv/secrets}
  placed:
    type: infisical
    address: https://app.example
    project: common
    environment: prod
    role: "{{service_account}}"
    namespaces:
      team-a: {project: alpha}
      team-b: {project: beta}
  sops: {type: file, volumes: true, identity: "vault:/v1/secret/data/{{namespace}}/age#key", allow: [{namespaces: [team-a], requests: ["app*", "shared/{{namespace}}.yaml"]}]}
  forbidden: {type: file, volumes: true, identity: "vault:secret/data/others/age#key"}
  orphan: {type: file, path: /srv/x, identity: "roleless:secret/data/age#key"}
"#;

fn build(pairs: &[(&str, &str)]) -> Result<Plan, PlanError> {
    let annotations = pairs.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
    let (bundle, options) = annotations::parse(&annotations).unwrap();
    let identity = Identity { namespace: "team-a".to_owned(), service_account: "web".to_owned() };
    let plan = Plan::build(identity, &bundle, &options, &Config::from_yaml(CONFIG).unwrap())?;
    plan.to_json().map(|_| plan)
}

#[test]
fn a_plan_fills_defaults_and_survives_its_json() {
    let plan = build(&[
        ("file.a", "secret/data/team-a/db#password"),
        ("file.b", "vault:secret/data/team-a/db#user"),
        ("file.c", "files:c"),
        ("refresh", "5s"),
    ])
    .unwrap();
    assert_eq!(plan.requests().len(), 2, "equal requests are one");
    let vault = &plan.providers["vault"];
    assert_eq!(vault.role.as_deref(), Some("team-a-web"));
    assert_eq!(vault.audience.as_deref(), Some("vault"));
    assert_eq!(vault.refresh_seconds, 5);
    assert_eq!(plan.providers["files"].audience, None);
    assert_eq!(plan.providers.len(), 2, "only what is used");
    assert_eq!(plan.size_limit, DEFAULT_SIZE_LIMIT);
    assert_eq!(Plan::from_json(&plan.to_json().unwrap()).unwrap(), plan);
}

#[test]
fn p9_what_is_no_plan_is_told_on_one_line() {
    let error = Plan::from_json(r#"{"version":1,"identity":{"x\ny":1}}"#).unwrap_err().to_string();
    assert!(error.contains("line 1") && !error.contains('\n'), "{error}");
}

#[test]
fn p6_a_plan_knows_nothing_of_other_namespaces() {
    let json = build(&[("file.a", "placed:/a#K")]).unwrap().to_json().unwrap();
    assert!(json.contains("alpha") && !json.contains("beta") && !json.contains("common"), "{json}");
}

#[test]
fn p6_an_alias_does_not_get_around_the_policy() {
    for path in ["/v1/secret/data/team-b/db", "secret/data/team-a/../team-b/db", "secret//data/team-b/db"] {
        let error = build(&[("file.a", path)]).unwrap_err();
        assert_eq!(error.place, "hushpod.dev/file.a");
    }
    build(&[("file.a", "/v1/secret/data/team-a/db#x")]).unwrap();
}

#[test]
fn p9_what_cannot_be_planned_names_the_annotation() {
    let entry = |n| format!("- {{file: file-{n}, from: \"secret/data/team-a/{n:060}#k\"}}\n");
    let many = (0..999).map(entry).collect::<Vec<_>>().concat();
    for (pairs, place, part) in [
        (&[("file.a", "valut:x")][..], "file.a", "did you mean \"vault\"?"),
        (&[("file.a", "secret/data/team-b/db")], "file.a", "may not request vault:secret/data/team-b/db"),
        (&[("file.a", "other:x/y")], "file.a", "may not use provider \"other\""),
        (&[("file.a", "roleless:x/y")], "file.a", "role.roleless"),
        (&[("file.a", "files:c"), ("role.valut", "x")], "role.valut", "did you mean \"vault\"?"),
        (&[("file.a", "files:c?version=1")], "file.a", "version"),
        (&[("file.a", "sops:other/x")], "file.a", "may not request sops:other/x"),
        (&[("file.a", "sops:.")], "file.a", "write <volume>/<path in it>"),
        (
            &[("file.a", "forbidden:v/x")],
            "file.a",
            "unlocked by vault:secret/data/others/age: namespace \"team-a\" may not",
        ),
        (
            &[("file.a", "orphan:x")],
            "file.a",
            "unlocked by roleless:secret/data/age: provider \"roleless\" needs a role",
        ),
        (&[("file.a", "database/creds/web"), ("mode", "init")], "file.a", "mode init leaves nobody to renew"),
        (
            &[("secrets", "- {file: a, from: \"files:x\"}\n- {file: b, from: \"nope:x\"}")],
            "secrets[1]",
            "unknown provider",
        ),
        (&[("secrets", many.as_str())], "secrets", "over the limit of 98304"),
    ] {
        let error = build(pairs).unwrap_err();
        assert_eq!(error.place, format!("{PREFIX}{place}"), "{error}");
        assert!(error.problem.contains(part), "{error}");
    }
}

#[test]
fn what_unlocks_a_provider_is_planned_and_is_no_request_of_an_item() {
    let plan = build(&[("file.a", "sops:app-sops/prod.enc.yaml"), ("file.b", "sops:shared/team-a.yaml#k")]).unwrap();
    assert_eq!(plan.providers.keys().collect::<Vec<_>>(), ["sops", "vault"], "the pod logs in for the identity alone");
    let unlock = plan.providers["sops"].unlock.as_ref().unwrap();
    assert_eq!(unlock.request.to_string(), "vault:secret/data/team-a/age");
    assert_eq!(unlock.key, Some(Key::Literal("key".to_owned())));
    assert_eq!(plan.providers["vault"].role.as_deref(), Some("team-a-web"));
    assert_eq!(plan.providers["vault"].unlock, None);
    assert_eq!(plan.requests().len(), 2);
    assert_eq!(plan.volumes().into_iter().collect::<Vec<_>>(), ["app-sops", "shared"]);
    assert_eq!(Plan::from_json(&plan.to_json().unwrap()).unwrap(), plan);
    let plain = build(&[("file.a", "files:app-sops/x")]).unwrap();
    assert!(plain.volumes().is_empty() && plain.providers["files"].unlock.is_none());
}

#[test]
fn an_agent_refuses_a_plan_of_another_version() {
    let json = build(&[("file.a", "files:c")]).unwrap().to_json().unwrap();
    let later = json.replacen("\"version\":1", "\"version\":2", 1);
    assert_ne!(json, later);
    assert!(Plan::from_json(&later).unwrap_err().to_string().contains("different versions"));
    assert!(Plan::from_json("{").unwrap_err().to_string().contains("is damaged at line 1, column 1"));
}
