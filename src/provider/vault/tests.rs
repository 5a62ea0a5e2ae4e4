use super::*;

fn settings(json: &str) -> VaultSettings {
    serde_json::from_str(json).unwrap()
}

fn kubernetes() -> VaultSettings {
    settings(r#"{"address":"https://vault:8200"}"#)
}

fn resolve(reference: &str) -> Result<Request, ParseError> {
    kubernetes().resolve("vault", &reference.parse().unwrap())
}

#[test]
fn aliases_of_a_path_become_one_request() {
    for (reference, canonical) in [
        ("secret/data/db", "vault:secret/data/db"),
        ("/secret/data/db", "vault:secret/data/db"),
        ("v1/secret/data/db", "vault:secret/data/db"),
        ("/v1/secret//data/db/", "vault:secret/data/db"),
        ("secret%2Fdata%2Fdb", "vault:secret/data/db"),
        ("secret/data/db?version=007", "vault:secret/data/db?version=7"),
        ("pki/issue/web?ttl=1h&common_name=a.svc", "vault:pki/issue/web?common_name=a.svc&ttl=1h"),
        ("identity/oidc/token/web", "vault:identity/oidc/token/web"),
    ] {
        assert_eq!(resolve(reference).unwrap().to_string(), canonical, "{reference}");
    }
}

#[test]
fn p9_paths_that_vault_cannot_mean_are_refused_in_a_sentence() {
    for (reference, part) in [
        ("/", "such as secret/data/db"),
        ("v1/", "such as secret/data/db"),
        ("secret/../sys/raw/x", "'..'"),
        ("secret/%2e%2e/sys/raw/x", "'..'"),
        ("secret/./x", "'.'"),
        ("secret/a%00b", "control character"),
        ("sys/mounts", "Vault's administration"),
        ("/v1//sys/mounts", "Vault's administration"),
        ("v1/v1/x", "stands there once"),
        ("auth/token/create", "logins"),
        ("cubbyhole/x", "private"),
        ("secret/data/db?version=0", "above zero"),
        ("secret/data/db?version=latest", "above zero"),
        ("secret/data/db?version=-1", "above zero"),
        ("secret/data/db?version=%2B1", "above zero"),
        ("secret/data/db?version=99999999999", "above zero"),
    ] {
        let message = resolve(reference).unwrap_err().to_string();
        assert!(message.contains(part), "{reference}: {message}");
    }
}

#[test]
fn p9_a_parameter_that_a_kv_engine_would_store_is_refused_before_it_is_sent() {
    let listed = settings(r#"{"address":"https://vault:8200","writableMounts":["pki","team/data/pki"]}"#);
    for (reference, part, part_if_listed) in [
        ("secret/data/db?version=3", None, None),
        ("secret/data/db?verison=3", Some("did you mean \"version\"?"), Some("did you mean \"version\"?")),
        ("kv1/db?Version=3", Some("did you mean \"version\"?"), Some("did you mean \"version\"?")),
        ("kv1/db?versions=3", Some("did you mean \"version\"?"), Some("did you mean \"version\"?")),
        ("kv1/db?vrsion=3&ttl=1h", Some("unknown parameter \"vrsion\""), Some("unknown parameter \"vrsion\"")),
        ("secret/data/db?ttl=1h", Some("takes no parameter but version"), Some("writableMounts")),
        ("secret/data/db?version=3&ttl=1h", Some("parameter \"ttl\""), Some("parameter \"ttl\"")),
        ("team/kv/data/db?ttl=1h", Some("team/kv/data/db has the form"), Some("writableMounts")),
        ("team/data/pki/issue/web?ttl=1h", Some("writableMounts"), None),
        ("team/data/pkix/issue/web?ttl=1h", Some("writableMounts"), Some("writableMounts")),
        ("pki/issue/web?common_name=a.svc", None, None),
        ("data/issue/web?ttl=1h", None, None),
        ("transit/datakey/plaintext/web?bits=256", None, None),
    ] {
        for (settings, part) in [(&kubernetes(), part), (&listed, part_if_listed)] {
            let outcome = settings.resolve("vault", &reference.parse().unwrap());
            match part {
                None => assert!(outcome.is_ok(), "{reference}: {outcome:?}"),
                Some(part) => {
                    assert!(outcome.as_ref().is_err_and(|e| e.to_string().contains(part)), "{reference}: {outcome:?}");
                }
            }
        }
    }
    assert!(listed.is_writable("pki/issue/web") && !listed.is_writable("pki") && !listed.is_writable("pkix/issue"));
}

#[test]
fn leases_are_told_by_path_as_far_as_possible() {
    for (reference, is_leased) in [
        ("database/creds/web", true),
        ("team/a/database/creds/web", true),
        ("ssh/creds/otp?ip=10.0.0.1", true),
        ("secret/data/creds/web", false),
        ("secret/data/db", false),
        ("pki/issue/web?common_name=x", false),
        ("database/static-creds/web", false),
        ("creds/web", false),
    ] {
        assert_eq!(kubernetes().is_leased(&resolve(reference).unwrap()), is_leased, "{reference}");
    }
}

#[test]
fn methods_say_what_they_need() {
    for (method, audience, needs_role) in [
        ("kubernetes", Some("vault"), true),
        ("jwt", Some("vault"), true),
        ("token", None, false),
        ("approle", None, false),
    ] {
        let settings = settings(&format!(r#"{{"address":"https://vault","auth":{{"method":"{method}"}}}}"#));
        assert_eq!(settings.default_audience(), audience, "{method}");
        assert_eq!(settings.needs_role(), needs_role, "{method}");
        assert_eq!(settings.auth.mount(), method);
    }
    assert_eq!(kubernetes().auth.method, Method::Kubernetes);
}

#[test]
fn settings_survive_the_plan_and_leave_out_what_is_not_set() {
    let json = r#"{"address":"https://vault:8200","auth":{"method":"kubernetes"}}"#;
    assert_eq!(serde_json::to_string(&kubernetes()).unwrap(), json);
    assert_eq!(settings(json), kubernetes());
}

#[test]
fn p9_settings_that_cannot_work_name_the_field() {
    let with = |rest: &str| format!(r#"{{"address":"https://vault:8200",{rest}}}"#);
    for (json, part) in [
        (r#"{"address":"http://vault.vault.svc:8200"}"#.to_owned(), "address"),
        (r#"{"address":"https://vault:8200/v1"}"#.to_owned(), "address ends in /v1"),
        (r#"{"address":"https://vault:8200/prefix/v1/"}"#.to_owned(), "leave /v1 out"),
        (with(r#""ca":"""#), "ca has no certificate"),
        (
            with(r#""ca":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----""#),
            "ca has a damaged certificate, number 1",
        ),
        (with(r#""namespace":"/""#), "namespace"),
        (with(r#""namespace":"a\nb""#), "namespace"),
        (with(r#""writableMounts":["pki/"]"#), "writableMounts"),
        (with(r#""writableMounts":["/pki"]"#), "such as pki"),
        (with(r#""writableMounts":["v1/pki"]"#), "writableMounts"),
        (with(r#""writableMounts":[""]"#), "writableMounts"),
        (with(r#""auth":{"mount":"auth/kubernetes"}"#), "auth.mount"),
        (with(r#""auth":{"mount":"a/../b"}"#), "auth.mount"),
        (with(r#""auth":{"method":"token","mount":"token"}"#), "auth.mount"),
        (with(r#""auth":{"method":"approle","secretIdFile":"a"}"#), "auth.roleIdFile"),
        (with(r#""auth":{"method":"approle","roleIdFile":"a"}"#), "auth.secretIdFile"),
        (with(r#""auth":{"roleIdFile":"a"}"#), "auth.roleIdFile"),
        (with(r#""auth":{"method":"approle","roleIdFile":"a","secretIdFile":"b","tokenFile":"c"}"#), "auth.tokenFile"),
    ] {
        let message = settings(&json).validate().unwrap_err().to_string();
        assert!(message.contains(part), "{json}: {message}");
    }
    for json in [
        with(r#""namespace":"admin/team","auth":{"mount":"clusters/eu-1"}"#),
        with(r#""auth":{"method":"token","tokenFile":"/run/token"}"#),
        r#"{"address":"http://127.0.0.1:8200"}"#.to_owned(),
    ] {
        settings(&json).validate().unwrap();
    }
    assert!(serde_json::from_str::<VaultSettings>(&with(r#""adress":1"#)).is_err(), "unknown fields are errors");
}
