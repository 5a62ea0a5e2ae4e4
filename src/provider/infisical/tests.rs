use super::*;

const ID: &str = "5f1d3a70-0b52-4c5e-9b0a-3f4e1d2c7a11";

fn settings(json: &str) -> InfisicalSettings {
    serde_json::from_str(json).unwrap()
}

fn with(rest: &str) -> InfisicalSettings {
    settings(&format!(r#"{{"address":"https://app.example",{rest}}}"#))
}

/// Of the usual settings.
fn usual() -> InfisicalSettings {
    with(&format!(r#""project":"{ID}","projectSlug":"shop-x1","environment":"prod""#))
}

/// Tenants may choose where.
fn open() -> InfisicalSettings {
    InfisicalSettings { allow_params: vec![PlaceParam::Env, PlaceParam::Project], ..usual() }
}

fn resolve(settings: &InfisicalSettings, reference: &str) -> Result<Request, ParseError> {
    settings.resolve("infisical", &reference.parse().unwrap())
}

#[test]
fn aliases_of_a_request_become_one() {
    for (reference, canonical) in [
        ("/inference#HF_TOKEN", "infisical:/inference"),
        ("/inference", "infisical:/inference"),
        ("inference", "infisical:/inference"),
        ("//inference//models/", "infisical:/inference/models"),
        ("%2Finference", "infisical:/inference"),
        ("/", "infisical:/"),
        ("/a?recursive=false", "infisical:/a"),
        ("/a?recursive=true", "infisical:/a?recursive=true"),
        ("/a?tags=b,a,%20b", "infisical:/a?tags=a,b"),
        ("/a?env=prod", "infisical:/a"),
        ("/a?env=dev", "infisical:/a?env=dev"),
        ("/a?project=shop-x1", "infisical:/a"),
        ("/a?project=5f1d3a70-0b52-4c5e-9b0a-3f4e1d2c7a11", "infisical:/a"),
        ("/a?project=other", "infisical:/a?project=other"),
        ("/a?unresolved=keep#K", "infisical:/a?unresolved=keep"),
        ("/a?version=3#K", "infisical:/a?secret=K&version=3"),
        ("/a?version=003#/K/password", "infisical:/a?secret=K&version=3"),
        ("/a?secret=K&version=3", "infisical:/a?secret=K&version=3"),
        ("/a?secret=K#K", "infisical:/a?secret=K"),
        ("/a?dynamic=Postgres&ttl=1h#DB_USERNAME", "infisical:/a?dynamic=postgres&ttl=3600s"),
        ("/a?dynamic=postgres&ttl=60m", "infisical:/a?dynamic=postgres&ttl=3600s"),
        ("/a?dynamic=postgres", "infisical:/a?dynamic=postgres"),
    ] {
        assert_eq!(resolve(&open(), reference).unwrap().to_string(), canonical, "{reference}");
    }
}

#[test]
fn p9_what_infisical_cannot_mean_is_refused_in_a_sentence() {
    for (reference, part) in [
        ("/a/../b", "'..'"),
        ("/a/%2e/b", "'.'"),
        ("/a%00", "control character"),
        ("/a?path=/b", "expected one of env, project"),
        ("/a?versoin=3#K", "did you mean \"version\"?"),
        ("/a?recursive=yes", "expected true or false"),
        ("/a?unresolved=drop", "unresolved=keep"),
        ("/a?tags=", "tags=first,second"),
        ("/a?tags=a,,b", "tags=first,second"),
        ("/a?version=3", "?version=<number>#<KEY>"),
        ("/a?version=0#K", "above zero"),
        ("/a?version=latest#K", "above zero"),
        ("/a?version=%2B1#K", "above zero"),
        ("/a?secret=", "invalid secret name"),
        ("/a?secret=b/K", "invalid secret name"),
        ("/a?secret=K#L", "\"K\" and takes #L"),
        ("/a?secret=K&recursive=true", "secret and recursive"),
        ("/a?version=1&tags=x#K", "secret and tags"),
        ("/a?dynamic=db&version=1#K", "dynamic and secret"),
        ("/a?dynamic=db&recursive=true", "dynamic and recursive"),
        ("/a?dynamic=", "invalid name of a dynamic secret"),
        ("/a?dynamic=../x", "invalid name of a dynamic secret"),
        ("/a?ttl=1h", "ttl is for dynamic secrets"),
        ("/a?dynamic=db&ttl=30s", "a minute to ten years"),
        ("/a?dynamic=db&ttl=1w", "a minute to ten years"),
        ("/a?dynamic=db&ttl=", "a minute to ten years"),
        ("/a?dynamic=db&ttl=99999999999999999999d", "a minute to ten years"),
        ("/a?env=", "expected a slug"),
        ("/a?env=a/b", "expected a slug"),
    ] {
        let message = resolve(&open(), reference).unwrap_err().to_string();
        assert!(message.contains(part), "{reference}: {message}");
    }
}

#[test]
fn p6_tenants_choose_only_what_the_operator_lets_them() {
    let only_env = InfisicalSettings { allow_params: vec![PlaceParam::Env], ..usual() };
    for (settings, reference, part) in [
        (usual(), "/a?env=dev", "operator does not let references choose ?env="),
        (usual(), "/a?project=other", "?project="),
        (only_env.clone(), "/a?project=other", "?project="),
    ] {
        let message = resolve(&settings, reference).unwrap_err().to_string();
        assert!(message.contains(part), "{reference}: {message}");
    }
    resolve(&usual(), "/a?env=prod&project=shop-x1").unwrap();
    resolve(&only_env, "/a?env=dev").unwrap();
}

#[test]
fn a_namespace_knows_its_own_place_and_no_other() {
    let settings = with(
        r#""project":"default","environment":"prod","namespaces":{"team-a":{"project":"alpha"},"team-b":{"environment":"dev"}}"#,
    );
    for (namespace, project, environment) in
        [("team-a", "alpha", "prod"), ("team-b", "default", "dev"), ("team-c", "default", "prod")]
    {
        let own = settings.in_namespace(namespace).unwrap();
        assert_eq!((own.project.as_deref(), own.environment.as_deref()), (Some(project), Some(environment)));
        let json = serde_json::to_string(&own).unwrap();
        assert!(!json.contains("namespaces") && !json.contains("alpha") || namespace == "team-a", "{json}");
    }
    assert_eq!(usual().in_namespace("team-a"), None, "nothing to leave out");
    let slugged = InfisicalSettings { project_slug: Some("default-slug".to_owned()), ..settings };
    assert_eq!(slugged.in_namespace("team-a").unwrap().project_slug, None, "a slug belongs to its project");
}

#[test]
fn p9_a_namespace_without_a_place_is_told_who_has_to_act() {
    let nowhere = with(r#""namespaces":{"team-a":{"project":"alpha","environment":"prod"}}"#);
    nowhere.validate().unwrap();
    resolve(&nowhere.in_namespace("team-a").unwrap(), "/a").unwrap();
    let other = nowhere.in_namespace("team-b").unwrap();
    assert!(resolve(&other, "/a").unwrap_err().to_string().contains("the operator has to set project"));
    let open = InfisicalSettings { allow_params: vec![PlaceParam::Env, PlaceParam::Project], ..other };
    assert!(resolve(&open, "/a?project=x").unwrap_err().to_string().contains("write ?env="));
    resolve(&open, "/a?project=x&env=dev").unwrap();
}

#[test]
fn leases_are_told_by_their_parameter() {
    assert!(usual().is_leased(&resolve(&usual(), "/a?dynamic=db").unwrap()));
    assert!(!usual().is_leased(&resolve(&usual(), "/dynamic").unwrap()));
}

#[test]
fn methods_say_what_they_need() {
    for (method, audience, needs_role) in [
        ("kubernetes", Some("infisical"), true),
        ("oidc", Some("infisical"), true),
        ("jwt", Some("infisical"), true),
        ("universal", None, false),
        ("token", None, false),
    ] {
        let settings = with(&format!(r#""auth":{{"method":"{method}"}}"#));
        assert_eq!(settings.default_audience(), audience, "{method}");
        assert_eq!(settings.needs_role(), needs_role, "{method}");
        assert_eq!(settings.auth.method.to_string(), method);
    }
    assert_eq!(usual().auth.method, Method::Kubernetes);
    assert_eq!(usual().default_refresh(), Duration::from_mins(5));
}

#[test]
fn settings_survive_the_plan_and_leave_out_what_is_not_set() {
    let json =
        r#"{"address":"https://app.example","project":"shop-x1","environment":"prod","auth":{"method":"kubernetes"}}"#;
    let parsed = settings(json);
    assert_eq!(serde_json::to_string(&parsed).unwrap(), json);
    let full = with(
        r#""organization":"acme","namespaces":{"a":{"environment":"dev"}},"allowParams":["env","project"],"events":true"#,
    );
    assert_eq!(settings(&serde_json::to_string(&full).unwrap()), full);
}

#[test]
fn p9_settings_that_cannot_work_name_the_field() {
    let json = |rest: &str| format!(r#"{{"address":"https://app.example",{rest}}}"#);
    for (json, part) in [
        (r#"{"address":"http://infisical.svc"}"#.to_owned(), "address"),
        (r#"{"address":"https://app.example/api/"}"#.to_owned(), "/api"),
        (json(r#""ca":"""#), "ca has no certificate"),
        (json(r#""project":"my project""#), "project"),
        (json(r#""environment":"""#), "environment"),
        (json(r#""projectSlug":"x""#), "project's id too"),
        (json(r#""project":"x","projectSlug":"y""#), "leave projectSlug out"),
        (json(r#""organization":"a b""#), "organization"),
        (json(r#""namespaces":{"team-a":{}}"#), "namespaces.team-a: is empty"),
        (
            json(r#""namespaces":{"team-a":{"environment":"a/b"}}"#),
            "namespaces.team-a.environment: invalid environment",
        ),
        (json(r#""auth":{"clientIdFile":"a"}"#), "auth.clientIdFile"),
        (json(r#""auth":{"method":"universal","clientIdFile":"a"}"#), "belong together"),
        (json(r#""auth":{"method":"universal","tokenFile":"a"}"#), "auth.tokenFile"),
    ] {
        let message = settings(&json).validate().unwrap_err().to_string();
        assert!(message.contains(part), "{json}: {message}");
    }
    for rest in [
        r#""auth":{"method":"universal"}"#,
        r#""auth":{"method":"universal","clientIdFile":"a","clientSecretFile":"b"}"#,
        r#""auth":{"method":"token","tokenFile":"/run/token"}"#,
    ] {
        with(rest).validate().unwrap();
    }
    assert!(serde_json::from_str::<InfisicalSettings>(&json(r#""adress":1"#)).is_err(), "unknown fields are errors");
}
