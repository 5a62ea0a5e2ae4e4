use super::*;

const PROVIDER: &str = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/k8s/providers/main";

fn settings(yaml: &str) -> GcpSettings {
    serde_saphyr::from_str(yaml).unwrap()
}

fn resolve(yaml: &str, reference: &str) -> Result<String, ParseError> {
    settings(yaml).resolve("gcp", &reference.parse().unwrap()).map(|request| request.to_string())
}

#[test]
fn aliases_of_one_secret_are_one_request() {
    let (plain, pinned) = ("gcp:projects/shop/secrets/db", "gcp:projects/shop/secrets/db?version=5");
    for (reference, request) in [
        ("db", plain),
        ("secrets/db", plain),
        ("gcp:projects/shop/secrets/db", plain),
        ("gcp:/projects/shop/secrets/db", plain),
        ("gcp://secretmanager.googleapis.com/projects/shop/secrets/db", plain),
        ("db?version=latest", plain),
        ("gcp:projects/shop/secrets/db/versions/latest", plain),
        ("db?version=5", pinned),
        ("db?version=005", pinned),
        ("secrets/db/versions/5", pinned),
        ("gcp:projects/shop/secrets/db/versions/5", pinned),
        ("gcp:projects/shop/secrets/db/versions/5?version=05", pinned),
        ("db?version=live_Blue-1#password", "gcp:projects/shop/secrets/db?version=live_Blue-1"),
        ("gcp:projects/123456/secrets/db", "gcp:projects/123456/secrets/db"),
        ("DB_x-1", "gcp:projects/shop/secrets/DB_x-1"),
    ] {
        assert_eq!(resolve("{project: shop}", reference).unwrap(), request, "{reference}");
    }
    let regional = "gcp:projects/shop/locations/europe-west3/secrets/db";
    for reference in ["db", "secrets/db", "gcp:projects/shop/locations/europe-west3/secrets/db/versions/latest"] {
        assert_eq!(resolve("{project: shop, location: europe-west3}", reference).unwrap(), regional, "{reference}");
    }
}

#[test]
fn p9_what_secret_manager_cannot_mean_says_what_to_write() {
    let (own, none, regional) = ("{project: shop}", "{}", "{project: shop, location: europe-west3}");
    let longest = format!("db?version={}", "a".repeat(63));
    assert!(resolve(own, &longest).is_ok());
    for (yaml, reference, part) in [
        (none, "db", "no project of its own"),
        (own, &format!("{longest}a"), "number above zero, an alias"),
        (own, "db/password", "projects/<project>/secrets/<name>"),
        (own, "gcp:projects/shop/secrets", "projects/<project>/secrets/<name>"),
        (own, "gcp:projects/shop/secrets/", "invalid secret name"),
        (own, "gcp:projects//secrets/db", "invalid project"),
        (own, "gcp:projects/../secrets/db", "invalid project"),
        (own, "db.password", "letters, digits"),
        (own, "gcp:projects/shop/secrets/../versions/1", "letters, digits"),
        (own, "db?version=0", "number above zero"),
        (own, "db?version=-1", "number above zero"),
        (own, "db?version=1x", "number above zero"),
        (own, "gcp:projects/shop/secrets/db/versions/", "number above zero"),
        (own, "gcp:projects/shop/secrets/db/versions/1?version=2", "two versions"),
        (own, "db?stage=x", "expected version"),
        (own, "gcp:projects/shop/locations/europe-west3/secrets/db", "provider with location"),
        (regional, "gcp:projects/shop/locations/us-east1/secrets/db", "provider with location"),
        (regional, "gcp:projects/shop/secrets/db", "is global"),
    ] {
        let problem = resolve(yaml, reference).unwrap_err().to_string();
        assert!(problem.contains(part), "{reference}: {problem}");
    }
}

#[test]
fn p9_bad_settings_name_the_field() {
    let metadata = "auth: {method: metadata}";
    for (yaml, part) in [
        ("{}".to_owned(), "auth.audience: is missing"),
        ("{auth: {method: metadata, audience: 'PROVIDER'}}".replace("PROVIDER", PROVIDER), "auth.audience"),
        ("{auth: {method: metadata, file: /x}}".to_owned(), "auth.file"),
        ("{auth: {method: metadata, tokenUrl: 'https://x/y'}}".to_owned(), "auth.tokenUrl"),
        ("{auth: {method: metadata, metadata: 'http://metadata.google.internal'}}".to_owned(), "auth.metadata"),
        ("{auth: {method: metadata, impersonationUrl: 'http://x'}}".to_owned(), "auth.impersonationUrl"),
        ("{auth: {method: application-default-credentials, tokenUrl: 'https://x'}}".to_owned(), "auth.tokenUrl"),
        ("{auth: {method: application-default-credentials, tokenFile: /x}}".to_owned(), "auth.tokenFile"),
        (format!("{{address: 'http://secretmanager.googleapis.com', {metadata}}}"), "https://<host>"),
        (format!("{{address: 'https://secretmanager.googleapis.com/v1', {metadata}}}"), "address ends in /v1"),
        (format!("{{location: 'x/y', {metadata}}}"), "europe-west3"),
        (format!("{{project: 'x/y', {metadata}}}"), "project"),
        (format!("{{ca: x, {metadata}}}"), "ca has no certificate"),
    ] {
        let problem = settings(&yaml).validate().unwrap_err().to_string();
        assert!(problem.contains(part), "{yaml}: {problem}");
    }
    for audience in ["//iam.googleapis.com/projects/shop/locations/global/workloadIdentityPools/a/providers/b", "x", ""]
    {
        let error =
            serde_saphyr::from_str::<GcpSettings>(&format!("{{auth: {{audience: '{audience}'}}}}")).unwrap_err();
        assert!(error.to_string().contains("<project number>"), "{error}");
    }
}

#[test]
fn the_address_is_that_of_the_location() {
    for (yaml, address) in [
        ("{}", "https://secretmanager.googleapis.com"),
        ("{location: europe-west3}", "https://secretmanager.europe-west3.rep.googleapis.com"),
        ("{location: europe-west3, address: 'https://psc.example'}", "https://psc.example"),
    ] {
        assert_eq!(settings(yaml).address(), address);
    }
}

#[test]
fn a_federation_is_one_however_it_is_written() {
    let resource = PROVIDER.trim_start_matches("https:");
    for written in [PROVIDER.to_owned(), format!("https:{PROVIDER}")] {
        let settings = settings(&format!("{{auth: {{audience: '{written}'}}}}"));
        settings.validate().unwrap();
        assert_eq!(settings.default_audience(), Some(format!("https:{PROVIDER}").as_str()));
        assert_eq!(settings.auth.audience.as_ref().unwrap().resource(), resource);
        let again = serde_json::from_str::<GcpSettings>(&serde_json::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }
    for method in [Method::Metadata, Method::ApplicationDefaultCredentials] {
        let auth = GcpAuth { method, ..GcpAuth::default() };
        let settings = GcpSettings { auth, ..GcpSettings::default() };
        settings.validate().unwrap();
        assert_eq!((settings.default_audience(), settings.needs_role()), (None, false), "{method}");
    }
}
