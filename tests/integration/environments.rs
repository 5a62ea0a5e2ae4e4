//! deploy/environments: what one environment's accounts can have of another's secrets, by whatever spelling. Nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use hushpod::annotations;
use hushpod::config::{Config, Identity};
use hushpod::plan::Plan;
use hushpod::reference::Request;
use serde_json::{Value, json};

use crate::pages::root;
use crate::readme::page;
use crate::webhook::admitted;

const ENVIRONMENTS: [(&str, &str); 3] =
    [("dev", "111111111111"), ("staging", "222222222222"), ("prod", "333333333333")];

/// Documents of a file.
fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap());
    documents.filter(|document: &Value| !document.is_null()).collect()
}

fn file(environment: &str, name: &str) -> Vec<Value> {
    documents(&page(&format!("deploy/environments/{environment}/{name}")))
}

/// As kustomize lays a patch over a kind that it does not know: RFC 7386.
fn release(environment: &str) -> Value {
    let mut base = file("base", "release.yaml").remove(0);
    json_patch::merge(&mut base, &file(environment, "release.yaml").remove(0));
    base
}

/// The operator's configuration, with what the chart fills in.
fn configuration(environment: &str) -> String {
    let mut config = release(environment)["spec"]["values"]["config"].clone();
    config["image"] = json!("registry.example/hushpod-agent:0.1.0");
    config["csi"] = json!({});
    let text = config.to_string();
    Config::from_yaml(&text).unwrap_or_else(|error| panic!("{environment}: {error}"));
    text
}

fn pod(annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": annotations},
        "spec": {
            "serviceAccountName": "web", "securityContext": {"runAsUser": 1000, "runAsNonRoot": true},
            "containers": [{"name": "app", "image": "app", "command": ["/app"]}],
        },
    })
}

/// Where a reference can stand.
fn forms(reference: &str) -> [Value; 5] {
    let named = format!("- {{file: x, from: {{a: {}}}, format: json}}", json!(reference));
    [
        json!({"hushpod.dev/secrets": named}),
        json!({"hushpod.dev/file.x": reference}),
        json!({"hushpod.dev/dir.x": reference}),
        json!({"hushpod.dev/dir.x": reference, "hushpod.dev/mode": "csi"}),
        json!({"hushpod.dev/env.X": reference}),
    ]
}

/// What a team of this environment writes for its own secrets, each of which is admitted there.
fn own(environment: &str, account: &str) -> Vec<String> {
    vec![
        format!("secret/data/{environment}/team-a/db#password"),
        format!("vault:secret/data/{environment}/team-a/db"),
        format!("vault:secret/data/{environment}/team-a/db?version=3"),
        "aws:team-a/db#password".to_owned(),
        format!("aws:arn:aws:secretsmanager:eu-west-1:{account}:secret:team-a/db-AbCdEf"),
        "ssm:/team-a/db".to_owned(),
        "ssm:/team-a/".to_owned(),
        format!("ssm:arn:aws:ssm:eu-west-1:{account}:parameter/team-a/db"),
        "infisical:/team-a/db#PASSWORD".to_owned(),
        "azure:team-a--db".to_owned(),
        format!("azure:https://example-{environment}.vault.azure.net/secrets/team-a--db"),
        "gcp:team-a--db".to_owned(),
        format!("gcp:projects/example-{environment}/secrets/team-a--db/versions/3"),
    ]
}

/// Spellings by which somebody might ask for a secret of an environment that is not his. Those that name no environment
/// are another team's, or reach above the team.
#[expect(clippy::too_many_lines, reason = "a table")]
fn foreign(other: &str, account: &str) -> Vec<String> {
    let (upper, first) = (other.to_uppercase(), &other[..1]);
    let hex = format!("%{:02x}", first.as_bytes()[0]);
    let rest = &other[1..];
    vec![
        // As its own team writes them.
        format!("secret/data/{other}/team-a/db#password"),
        format!("vault:secret/data/{other}/team-a/db"),
        format!("vault:secret/data/{other}/team-a/db?version=1"),
        // Paths.
        format!("vault:/secret/data/{other}/team-a/db"),
        format!("vault:secret//data/{other}/team-a/db"),
        format!("vault:secret/data//{other}/team-a/db"),
        format!("vault:secret/data/{other}//team-a/db"),
        format!("vault:secret/data/{other}/team-a/db/"),
        format!("vault:secret/data/./{other}/team-a/db"),
        format!("vault:secret/data/staging/team-a/../../{other}/team-a/db"),
        format!("vault:secret/data/dev/team-a/../../{other}/team-a/db"),
        format!("vault:secret/data/prod/team-a/../../{other}/team-a/db"),
        format!("vault:secret/{other}/team-a/db"),
        format!("vault:secret/metadata/{other}/team-a/db"),
        format!("vault:secret/subkeys/{other}/team-a/db"),
        format!("vault:v1/secret/data/{other}/team-a/db"),
        format!("vault:secret/DATA/{other}/team-a/db"),
        format!("vault:secret/data/{upper}/team-a/db"),
        format!("vault:kv/data/{other}/team-a/db"),
        format!("vault:{other}/secret/data/team-a/db"),
        "vault:secret/data/".to_owned(),
        "vault:secret/data".to_owned(),
        // Encodings.
        format!("vault:secret/data/{hex}{rest}/team-a/db"),
        format!("vault:secret/data/%25{}{rest}/team-a/db", &hex[1..]),
        format!("vault:secret%2Fdata%2F{other}%2Fteam-a%2Fdb"),
        format!("vault:secret/data/staging/team-a/%2e%2e/%2e%2e/{other}/team-a/db"),
        format!("vault:secret/data/staging/team-a/..%2f..%2f{other}/team-a/db"),
        format!("vault:secret/data/dev/team-a/%2E%2E/%2E%2E/{other}/team-a/db"),
        format!("vault:secret/data/{other}%00/team-a/db"),
        format!("vault:secret/data/{other}\u{200b}/team-a/db"),
        format!("vault:secret\\data\\{other}\\team-a\\db"),
        // Parameters.
        format!("vault:secret/data/staging/team-a/db?path={other}"),
        format!("vault:secret/data/dev/team-a/db?namespace={other}"),
        format!("vault:secret/data/prod/team-a/db?mount={other}"),
        // ARNs, of the other's account and of none.
        format!("aws:arn:aws:secretsmanager:eu-west-1:{account}:secret:team-a/db-AbCdEf"),
        format!("aws:arn:aws:secretsmanager:eu-west-1:{account}:secret:team-a/db"),
        format!("aws:arn:aws:secretsmanager:us-east-1:{account}:secret:team-a/db-AbCdEf"),
        format!("aws:arn:aws-cn:secretsmanager:eu-west-1:{account}:secret:team-a/db-AbCdEf"),
        format!("aws:ARN:aws:secretsmanager:eu-west-1:{account}:secret:team-a/db-AbCdEf"),
        format!("aws:arn%3Aaws%3Asecretsmanager%3Aeu-west-1%3A{account}%3Asecret%3Ateam-a/db-AbCdEf"),
        format!("aws:{account}/team-a/db"),
        "aws:arn:aws:secretsmanager:eu-west-1::secret:team-a/db-AbCdEf".to_owned(),
        format!("aws:{other}/team-a/db"),
        "aws:team-b/db".to_owned(),
        "aws:/team-a/db".to_owned(),
        format!("ssm:arn:aws:ssm:eu-west-1:{account}:parameter/team-a/db"),
        format!("ssm:arn:aws:ssm:us-east-1:{account}:parameter/team-a/db"),
        format!("ssm:arn:aws:ssm:eu-west-1:{account}:parameter/team-a/"),
        "ssm:/".to_owned(),
        "ssm:/team-b/db".to_owned(),
        // But a parameter's name may have `..` in it, as may a secret's: /team-a/../db is another name below /team-a.
        "ssm:/aws/reference/secretsmanager/team-b/db".to_owned(),
        // Another environment or project of Infisical's, and folders above one's own.
        format!("infisical:/team-a/db?env={other}#PASSWORD"),
        format!("infisical:/team-a/db?environment={other}#PASSWORD"),
        format!("infisical:/team-a/db?project={other}#PASSWORD"),
        "infisical:/team-a?recursive=true".to_owned(),
        "infisical:/?recursive=true".to_owned(),
        "infisical:/".to_owned(),
        "infisical:/team-b/db#PASSWORD".to_owned(),
        "infisical:/team-a/../team-b/db#PASSWORD".to_owned(),
        "infisical:/team-a/%2e%2e/team-b/db#PASSWORD".to_owned(),
        // Another vault or project, by whole names.
        format!("azure:https://example-{other}.vault.azure.net/secrets/team-a--db"),
        format!("azure:https://EXAMPLE-{upper}.vault.azure.net/secrets/team-a--db"),
        format!("azure://example-{other}.vault.azure.net/secrets/team-a--db"),
        format!("azure:{other}--team-a--db"),
        "azure:team-b--db".to_owned(),
        "azure:TEAM-B--db".to_owned(),
        format!("gcp:projects/example-{other}/secrets/team-a--db"),
        format!("gcp:projects/example-{other}/secrets/team-a--db/versions/1"),
        format!("gcp://secretmanager.googleapis.com/projects/example-{other}/secrets/team-a--db"),
        format!("gcp:/projects/example-{other}/secrets/team-a--db"),
        format!("gcp:projects/example-{other}/locations/europe-west1/secrets/team-a--db"),
        format!("gcp:PROJECTS/example-{other}/secrets/team-a--db"),
        format!("gcp:{other}--team-a--db"),
        "gcp:team-b--db".to_owned(),
        // Providers that are not there.
        format!("{other}:secret/data/{other}/team-a/db"),
        format!("vault-{other}:secret/data/{other}/team-a/db"),
        format!("VAULT:secret/data/{other}/team-a/db"),
        format!("file:/secret/data/{other}/team-a/db"),
    ]
}

#[test]
fn each_environment_has_its_own_secrets() {
    for (environment, account) in ENVIRONMENTS {
        let config = configuration(environment);
        for reference in own(environment, account) {
            for (index, annotations) in forms(&reference).iter().enumerate() {
                let (denial, is_patched) = admitted(&config, &pod(annotations));
                // One value is no directory, and a document is no variable: the first form takes both.
                assert!(index > 0 || (denial.is_none() && is_patched), "{environment}: {annotations}: {denial:?}");
                for word in ["unknown", "may not", "expected name"] {
                    assert!(denial.as_ref().is_none_or(|denial| !denial.contains(word)), "{annotations}: {denial:?}");
                }
            }
        }
    }
}

#[test]
fn no_spelling_gets_another_environments_secret() {
    let (mut refused, mut admitted_too) = (0, Vec::new());
    for (environment, _) in ENVIRONMENTS {
        let config = configuration(environment);
        for (other, account) in ENVIRONMENTS.iter().filter(|(other, _)| *other != environment) {
            for reference in foreign(other, account) {
                for annotations in forms(&reference) {
                    let (denial, is_patched) = admitted(&config, &pod(&annotations));
                    if denial.is_none() || is_patched {
                        admitted_too.push(format!("{environment} gets {annotations}"));
                    }
                    refused += 1;
                }
            }
        }
    }
    assert!(admitted_too.is_empty(), "{admitted_too:#?}");
    assert!(refused > 2000, "{refused}");
}

/// The same reference in other letters: what somebody tries who hopes that two parsers disagree.
fn respelled(reference: &str) -> Vec<String> {
    let (provider, rest) = reference.split_once(':').unwrap_or(("vault", reference));
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (path, tail) = rest.split_at(end);
    let each =
        |with: fn(&mut String, u8)| path.bytes().fold(String::new(), |mut text, byte| (with(&mut text, byte), text).1);
    let mut paths = vec![
        each(|text, byte| write!(text, "%{byte:02x}").unwrap()),
        each(|text, byte| write!(text, "%{byte:02X}").unwrap()),
        each(|text, byte| write!(text, "%25{byte:02x}").unwrap()),
        each(|text, byte| write!(text, "%c0%{:02x}", byte | 0x80).unwrap()),
        path.to_uppercase(),
        path.to_lowercase(),
    ];
    for (letter, others) in [
        ("/", &["//", "/./", "/%2e/", "/x/../", "/x/%2e%2e/", "%2f", "%2F", "%252f", "\\", "%5c", ";/", "/;", ":"][..]),
        (
            "/",
            &["\u{ff0f}", "\u{2215}", "\u{2044}", "/\u{200b}", "\u{feff}/", "/%00/", "%00/", "/%0a", "/%20", "/\u{a0}"],
        ),
        ("a", &["A", "%61", "%2561", "\u{430}", "\u{ff41}", "a\u{301}", "a\u{ad}", "a%00"]),
        ("-", &["%2d", "\u{2010}", "_", "--", "-%2d"]),
        (".", &["%2e", "%252e", "\u{ff0e}", "\u{2024}"]),
    ] {
        paths.extend(others.iter().filter(|_| path.contains(letter)).map(|other| path.replace(letter, other)));
    }
    let ends = [
        "/", "//", "/.", "/..", "/../", ".", "..", "%2f", "%2e", "/%2e%2e", "%00", "%20", "%0a", "*", "/*", "\\", ";",
        "\u{2024}",
    ];
    paths.extend(ends.iter().map(|end| format!("{path}{end}")));
    let starts =
        ["/", "//", "./", "../", "/../", "%2e%2e/", "\\", "\u{feff}", "*/", "v1/", "v1/v1/", "secrets/", "data/"];
    paths.extend(starts.iter().map(|start| format!("{start}{path}")));
    let mut found: Vec<_> = paths.into_iter().map(|path| format!("{provider}:{path}{tail}")).collect();
    let names =
        [provider.to_uppercase(), format!("{provider}:{provider}"), format!("{provider}."), format!("{provider}/")];
    let odd = [
        format!("%{:02x}{}", provider.as_bytes()[0], &provider[1..]),
        format!("{provider}\u{200b}"),
        format!(" {provider}"),
    ];
    found.extend(names.iter().chain(&odd).map(|provider| format!("{provider}:{path}{tail}")));
    let versions =
        ["1", "0", "%31", "AWSPREVIOUS", "latest", "00000000000000000000000000000000", "..%2f1", "1%26path=x"];
    let (key, sign) = (&tail[tail.find('#').unwrap_or(tail.len())..], if tail.starts_with('?') { '&' } else { '?' });
    let params = &tail[..tail.len() - key.len()];
    found.extend(versions.iter().map(|version| format!("{provider}:{path}{params}{sign}version={version}{key}")));
    found
}

/// Whether a request is for what is the team's own, in whatever store: below its prefix, and not back out of it.
fn is_own(environment: &str, provider: &str, path: &str) -> bool {
    let prefix = match provider {
        "vault" => format!("secret/data/{environment}/team-a/"),
        "aws" => "team-a/".to_owned(),
        "ssm" | "infisical" => "/team-a/".to_owned(),
        "azure" => "team-a--".to_owned(),
        _ => format!("projects/example-{environment}/secrets/team-a--"),
    };
    // AWS' names are no paths: `team-a/../x` is one that begins with `team-a/`.
    let climbs = !["aws", "ssm"].contains(&provider) && path.split('/').any(|part| [".", ".."].contains(&part));
    path.starts_with(&prefix) && !climbs
}

/// The plan of a pod of the team that writes this reference; `None` if it is denied. Without the webhook around it, since
/// there are thousands.
fn planned(config: &Config, reference: &str) -> Option<Plan> {
    let written = forms(reference)[0].as_object().unwrap().clone();
    let annotations: BTreeMap<_, _> =
        written.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect();
    let (bundle, options) = annotations::parse(&annotations).ok()?;
    let identity = Identity { namespace: "team-a".to_owned(), service_account: "web".to_owned() };
    Plan::build(identity, &bundle, &options.or(&config.defaults), config).ok()
}

#[test]
fn no_respelling_of_another_environments_secret_is_more_than_a_name_of_ones_own() {
    let (mut refused, mut strange) = (0, Vec::new());
    let (environment, account) = ENVIRONMENTS[1];
    let text = configuration(environment);
    let config = Config::from_yaml(&text).unwrap();
    for (other, others) in ENVIRONMENTS.iter().filter(|(other, _)| *other != environment) {
        for reference in foreign(other, others).iter().flat_map(|reference| respelled(reference)) {
            match planned(&config, &reference) {
                None => refused += 1,
                Some(plan) => {
                    let requests = plan.requests();
                    let is_fine = |request: &&Request| {
                        is_own(environment, &request.provider, &request.path) && !request.params.contains_key("env")
                    };
                    if !requests.iter().all(is_fine) {
                        strange.push(format!("{reference}: {requests:?}"));
                    }
                }
            }
        }
    }
    assert!(strange.is_empty(), "{strange:#?}");
    assert!(refused > 10_000, "{refused}");
    // And it can fail: one's own pass under the same eyes, and a rule that is too wide lets others in.
    for reference in own(environment, account) {
        assert!(planned(&config, &reference).is_some(), "{reference}");
    }
    let wide = text.replace("secret/data/staging/{{namespace}}/*", "secret/data/*");
    let plan = planned(&Config::from_yaml(&wide).unwrap(), "vault:secret/data/prod/team-a/db").unwrap();
    assert!(!plan.requests().iter().all(|request| is_own(environment, &request.provider, &request.path)));
}

#[test]
fn no_role_of_another_environment_may_be_asked_for() {
    for (environment, account) in ENVIRONMENTS {
        let config = configuration(environment);
        for (other, others) in ENVIRONMENTS.iter().filter(|(other, _)| *other != environment) {
            for (provider, mine, role) in [
                ("vault", format!("secret/data/{environment}/team-a/db"), format!("{other}-team-a-web")),
                ("vault", format!("secret/data/{environment}/team-a/db"), format!("{environment}-team-b-web")),
                ("vault", format!("secret/data/{environment}/team-a/db"), format!("{environment}-team-a-other")),
                ("aws", "team-a/db".to_owned(), format!("arn:aws:iam::{others}:role/team-a-web")),
                ("aws", "team-a/db".to_owned(), format!("arn:aws:iam::{account}:role/team-b-web")),
                ("ssm", "/team-a/db".to_owned(), format!("arn:aws:iam::{others}:role/team-a-web")),
            ] {
                let asked = json!({"hushpod.dev/dir.x": format!("{provider}:{mine}"), format!("hushpod.dev/role.{provider}"): role});
                let (denial, _) = admitted(&config, &pod(&asked));
                let denial = denial.unwrap_or_else(|| panic!("{environment}: {asked} is admitted"));
                assert!(denial.contains("for role"), "{denial}");
            }
        }
    }
}

#[test]
fn an_environment_that_forgets_its_rules_is_closed() {
    for (environment, _) in ENVIRONMENTS {
        let providers = file("base", "release.yaml")[0]["spec"]["values"]["config"]["providers"].clone();
        for (name, provider) in providers.as_object().unwrap() {
            assert_eq!(provider["allow"], json!([]), "{name}");
            let mut config: Value = serde_json::from_str(&configuration(environment)).unwrap();
            config["providers"][name]["allow"] = json!([]);
            for reference in own(environment, "222222222222").iter().filter(|one| one.starts_with(name.as_str())) {
                let (denial, _) = admitted(&config.to_string(), &pod(&json!({"hushpod.dev/dir.x": reference})));
                assert!(denial.is_some(), "{environment}: {reference}");
            }
        }
    }
}

#[test]
#[ignore = "wants kubectl: HUSHPOD_KUBECTL, as .ci/run chart sets it"]
fn kustomize_makes_of_the_overlays_what_is_tested() {
    let kubectl = std::env::var("HUSHPOD_KUBECTL").expect("HUSHPOD_KUBECTL is not set");
    for (environment, _) in ENVIRONMENTS {
        let directory = root().join("deploy/environments").join(environment);
        let built = Command::new(&kubectl).arg("kustomize").arg(&directory).output().unwrap();
        assert!(built.status.success(), "{environment}: {}", String::from_utf8_lossy(&built.stderr));
        let objects = documents(&String::from_utf8(built.stdout).unwrap());
        let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        assert_eq!(*of("HelmRelease"), release(environment), "{environment}");
        let annotations = &of("Deployment")["spec"]["template"]["metadata"]["annotations"];
        let (denial, is_patched) = admitted(&configuration(environment), &pod(annotations));
        assert!(denial.is_none() && is_patched, "{environment}: {denial:?}");
        let values = &of("HelmRelease")["spec"]["values"];
        crate::chart::made(values, &["--kube-version", "1.34.0"])
            .unwrap_or_else(|error| panic!("{environment}: {error}"));
    }
}
