use super::*;

const VERSION: &str = "d9f2f96f120d4537ba7d82fecd913043";

fn settings(yaml: &str) -> AzureSettings {
    serde_saphyr::from_str(yaml).unwrap()
}

fn usual() -> AzureSettings {
    settings("{address: 'https://shop.vault.azure.net', tenant: 72f988bf-86f1-41af-91ab-2d7cd011db47}")
}

fn resolve(reference: &str) -> Result<Request, ParseError> {
    usual().resolve("azure", &reference.parse().unwrap())
}

#[test]
fn aliases_of_one_secret_are_one_request() {
    let plain = "azure:db-password".to_owned();
    let pinned = format!("azure:db-password?version={VERSION}");
    let named_keys = "azure:keys".to_owned();
    for (reference, request) in [
        ("db-password".to_owned(), &plain),
        ("DB-Password".to_owned(), &plain),
        ("secrets/db-password".to_owned(), &plain),
        ("/secrets/db-password".to_owned(), &plain),
        ("Certificates/db-password#key".to_owned(), &plain),
        ("azure:https://shop.vault.azure.net/secrets/db-password".to_owned(), &plain),
        ("azure:https://SHOP.vault.azure.net:443/secrets/db-password".to_owned(), &plain),
        (format!("db-password?version={VERSION}"), &pinned),
        (format!("secrets/db-password/{}", VERSION.to_ascii_uppercase()), &pinned),
        (format!("azure:https://shop.vault.azure.net/secrets/DB-password/{VERSION}"), &pinned),
        (format!("certificates/db-password/{VERSION}?version={VERSION}"), &pinned),
        ("secrets/keys".to_owned(), &named_keys),
        ("keys".to_owned(), &named_keys),
    ] {
        assert_eq!(&resolve(&reference).unwrap().to_string(), request, "{reference}");
    }
}

#[test]
fn p9_what_a_vault_cannot_mean_says_what_to_write() {
    let other = VERSION.replace('d', "e");
    for (reference, part) in [
        ("db_password", "letters, digits"),
        ("db/password", "expected its name"),
        ("secrets/", "invalid secret name"),
        ("secrets//", "invalid secret name"),
        ("secrets/db/../x", "expected its name"),
        ("secrets/..", "invalid secret name"),
        ("keys/db", "never leaves its vault"),
        ("azure:https://other.vault.azure.net/secrets/db", "another vault"),
        ("azure:https://shop.vault.azure.net.evil.example/secrets/db", "another vault"),
        ("db?version=1", "32 hexadecimal"),
        ("db?version=latest", "32 hexadecimal"),
        ("db?stage=x", "expected version"),
        (&format!("secrets/db/{VERSION}?version={other}"), "two versions"),
        (&"x".repeat(128), "at most 127"),
    ] {
        let problem = resolve(reference).unwrap_err().to_string();
        assert!(problem.contains(part), "{reference}: {problem}");
    }
}

#[test]
fn the_cloud_is_told_by_the_vaults_address() {
    for (address, scope, resource, authority) in [
        (
            "https://shop.vault.azure.net",
            "https://vault.azure.net/.default",
            "https://vault.azure.net",
            "https://login.microsoftonline.com",
        ),
        (
            "https://Shop.Vault.Azure.cn/",
            "https://vault.azure.cn/.default",
            "https://vault.azure.cn",
            "https://login.chinacloudapi.cn",
        ),
        (
            "https://shop.vault.usgovcloudapi.net",
            "https://vault.usgovcloudapi.net/.default",
            "https://vault.usgovcloudapi.net",
            "https://login.microsoftonline.us",
        ),
    ] {
        let settings = AzureSettings { address: address.to_owned(), ..usual() };
        let found = (settings.scope(), settings.resource());
        assert_eq!((found.0.as_str(), found.1.as_str(), settings.authority()), (scope, resource, authority));
    }
    let own = settings(
        "{address: 'https://v.example', tenant: t.example, scope: 'https://v.example/.default', authority: 'https://a.example'}",
    );
    assert_eq!((own.resource().as_str(), own.authority()), ("https://v.example", "https://a.example"));
}

#[test]
fn p9_bad_settings_name_the_field() {
    let tenant = "tenant: 72f988bf-86f1-41af-91ab-2d7cd011db47";
    for (yaml, part) in [
        (format!("{{address: 'http://shop.vault.azure.net', {tenant}}}"), "https://<host>"),
        ("{address: 'https://shop.vault.azure.net'}".to_owned(), "tenant: is missing"),
        ("{address: 'https://shop.vault.azure.net', tenant: ../x}".to_owned(), "directory's id"),
        (format!("{{address: 'https://v', {tenant}, authority: 'http://a'}}"), "authority: "),
        (format!("{{address: 'https://v', {tenant}, scope: 'https://v'}}"), "/.default"),
        (format!("{{address: 'https://v', {tenant}, ca: x}}"), "ca has no certificate"),
        (format!("{{address: 'https://v', {tenant}, auth: {{metadata: 'http://127.0.0.1'}}}}"), "auth.metadata"),
        (
            "{address: 'https://v', auth: {method: managed-identity, metadata: 'http://imds'}}".to_owned(),
            "auth.metadata",
        ),
        ("{address: 'https://v', auth: {method: environment, tokenFile: /x}}".to_owned(), "auth.tokenFile"),
    ] {
        let problem = settings(&yaml).validate().unwrap_err().to_string();
        assert!(problem.contains(part), "{yaml}: {problem}");
    }
    for yaml in [
        "{address: 'https://v', auth: {method: managed-identity}}",
        "{address: 'https://v', auth: {method: environment}}",
    ] {
        settings(yaml).validate().unwrap();
    }
    assert!(serde_saphyr::from_str::<AzureSettings>("{address: 'https://v', auth: {method: password}}").is_err());
}

#[test]
fn only_a_federated_login_needs_a_token_and_a_role() {
    for (method, audience) in
        [("workload-identity", Some("api://AzureADTokenExchange")), ("managed-identity", None), ("environment", None)]
    {
        let settings = settings(&format!("{{address: 'https://v', auth: {{method: {method}}}}}"));
        assert_eq!((settings.default_audience(), settings.needs_role()), (audience, audience.is_some()), "{method}");
        assert_eq!(settings.auth.method.to_string(), method);
    }
}
