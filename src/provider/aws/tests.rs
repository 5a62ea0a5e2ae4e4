use super::*;

const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:";
const PARAMETER: &str = "arn:aws:ssm:eu-west-1:123456789012:parameter";

fn settings(rest: &str) -> AwsSettings {
    serde_json::from_str(&format!(r#"{{"region":"eu-west-1"{rest}}}"#)).unwrap()
}

fn secret(rest: &str, reference: &str) -> Result<Request, ParseError> {
    settings(rest).resolve("aws", &reference.parse().unwrap())
}

fn parameter(rest: &str, reference: &str) -> Result<Request, ParseError> {
    SsmSettings(settings(rest)).resolve("ssm", &reference.parse().unwrap())
}

const OWN: &str = r#","account":"123456789012""#;

#[test]
fn aliases_of_a_secret_become_one_request() {
    for (account, reference, canonical) in [
        ("", "prod/db".to_owned(), "aws:prod/db".to_owned()),
        ("", "prod%2Fdb".to_owned(), "aws:prod/db".to_owned()),
        ("", "prod/db?version=AWSCURRENT".to_owned(), "aws:prod/db".to_owned()),
        ("", "prod/db?version=AWSPREVIOUS".to_owned(), "aws:prod/db?version=AWSPREVIOUS".to_owned()),
        // What ends like an ARN's suffix is still a name.
        ("", "prod/db-AbCdEf".to_owned(), "aws:prod/db-AbCdEf".to_owned()),
        (OWN, format!("aws:{ARN}prod/db-AbCdEf"), "aws:prod/db".to_owned()),
        (OWN, format!("aws:{ARN}prod/db"), "aws:prod/db".to_owned()),
        (OWN, format!("aws:{ARN}prod/db-AbCdEf-GhIjKl"), "aws:prod/db-AbCdEf".to_owned()),
        ("", format!("aws:{ARN}prod/db-AbCdEf"), format!("aws:{ARN}prod/db-AbCdEf")),
        (r#","account":"999999999999""#, format!("aws:{ARN}prod/db-AbCdEf"), format!("aws:{ARN}prod/db-AbCdEf")),
    ] {
        assert_eq!(secret(account, &reference).unwrap().to_string(), canonical, "{reference}");
    }
}

#[test]
fn p9_what_secrets_manager_cannot_mean_is_refused_in_a_sentence() {
    for (account, reference, part) in [
        ("", "prod/db%20x".to_owned(), "such as prod/db"),
        ("", "x".repeat(513), "such as prod/db"),
        ("", format!("aws:{ARN}prod/db"), "six characters"),
        (r#","account":"999999999999""#, format!("aws:{ARN}prod/db"), "six characters"),
        ("", format!("aws:{}", ARN.replace("eu-west-1", "us-east-1")) + "db-AbCdEf", "region \"us-east-1\""),
        (
            "",
            format!("aws:{}", ARN.replace("arn:aws:", "arn:aws-cn:")) + "db-AbCdEf",
            "expected arn:aws:secretsmanager",
        ),
        ("", format!("aws:{}", ARN.replace("123456789012", "1")) + "db-AbCdEf", "expected arn:aws:secretsmanager"),
        ("", format!("aws:{PARAMETER}/prod/db"), "expected arn:aws:secretsmanager"),
        ("", "aws:arn:aws".to_owned(), "expected arn:aws:secretsmanager"),
        (OWN, format!("aws:{ARN}"), "such as prod/db"),
        (OWN, format!("aws:{ARN}a:b"), "such as prod/db"),
        ("", "prod/db?version=".to_owned(), "staging label"),
        ("", "prod/db?version=a%20b".to_owned(), "staging label"),
        ("", "prod/db?stage=AWSPREVIOUS".to_owned(), "remove \"stage=…\""),
    ] {
        let message = secret(account, &reference).expect_err(&reference).to_string();
        assert!(message.contains(part), "{reference}: {message}");
    }
}

#[test]
fn aliases_of_a_parameter_become_one_request() {
    for (account, reference, canonical) in [
        ("", "/prod/web/db".to_owned(), "ssm:/prod/web/db".to_owned()),
        ("", "db".to_owned(), "ssm:db".to_owned()),
        ("", "/db".to_owned(), "ssm:/db".to_owned()),
        ("", "/prod/web/".to_owned(), "ssm:/prod/web/".to_owned()),
        ("", "/prod/web/db?version=007".to_owned(), "ssm:/prod/web/db?version=7".to_owned()),
        ("", "/prod/web/db?version=stable".to_owned(), "ssm:/prod/web/db?version=stable".to_owned()),
        (OWN, format!("ssm:{PARAMETER}/prod/web/db"), "ssm:/prod/web/db".to_owned()),
        (OWN, format!("ssm:{PARAMETER}/prod/web/"), "ssm:/prod/web/".to_owned()),
        ("", format!("ssm:{PARAMETER}/prod/web/db?version=3"), format!("ssm:{PARAMETER}/prod/web/db?version=3")),
        ("", format!("ssm:{PARAMETER}/db"), format!("ssm:{PARAMETER}/db")),
    ] {
        assert_eq!(parameter(account, &reference).unwrap().to_string(), canonical, "{reference}");
    }
}

#[test]
fn p9_what_parameter_store_cannot_mean_is_refused_in_a_sentence() {
    for (account, reference, part) in [
        ("", "/".to_owned(), "such as /prod/web/db-password"),
        ("", "//".to_owned(), "such as /prod/web/db-password"),
        ("", "/prod//db".to_owned(), "such as /prod/web/db-password"),
        ("", "prod/db".to_owned(), "such as /prod/web/db-password"),
        ("", "/prod/web//".to_owned(), "such as /prod/web/db-password"),
        ("", "/prod/a+b".to_owned(), "such as /prod/web/db-password"),
        ("", "/prod/db%3A3".to_owned(), "?version="),
        ("", format!("ssm:{PARAMETER}/prod/db%3A3"), "?version="),
        ("", "/aws/reference/secretsmanager/prod/db".to_owned(), "type aws"),
        ("", "/aws/reference/secretsmanager/".to_owned(), "type aws"),
        ("", format!("ssm:{PARAMETER}/aws/reference/secretsmanager/prod/db"), "type aws"),
        ("", format!("ssm:{PARAMETER}/prod/web/"), "one by one"),
        (OWN, format!("ssm:{PARAMETER}/db"), "write the parameter's name"),
        ("", format!("ssm:{ARN}db-AbCdEf"), "expected arn:aws:ssm"),
        ("", "/prod/web/?version=3".to_owned(), "has no versions"),
        ("", "/prod/db?version=0".to_owned(), "above zero"),
        ("", "/prod/db?version=%2B1".to_owned(), "above zero"),
        ("", "/prod/db?version=1st".to_owned(), "above zero"),
        ("", "/prod/db?version=a%3Ab".to_owned(), "above zero"),
        ("", "/prod/db?label=x".to_owned(), "remove \"label=…\""),
    ] {
        let message = parameter(account, &reference).expect_err(&reference).to_string();
        assert!(message.contains(part), "{reference}: {message}");
    }
}

#[test]
fn methods_say_what_they_need() {
    for (auth, audience, needs_role) in [
        ("{}", Some("sts.amazonaws.com"), true),
        (r#"{"method":"web-identity"}"#, Some("sts.amazonaws.com"), true),
        (r#"{"method":"web-identity","tokenFile":"/run/token"}"#, None, true),
        (r#"{"method":"pod-identity"}"#, Some("pods.eks.amazonaws.com"), false),
        (r#"{"method":"environment"}"#, None, false),
        (r#"{"method":"profile","profile":"people"}"#, None, false),
    ] {
        let aws = settings(&format!(r#","auth":{auth}"#));
        let ssm = SsmSettings(aws.clone());
        let (aws, ssm): (&dyn Settings, &dyn Settings) = (&aws, &ssm);
        for settings in [aws, ssm] {
            settings.validate().unwrap();
            assert_eq!(settings.default_audience(), audience, "{auth}");
            assert_eq!(settings.needs_role(), needs_role, "{auth}");
        }
    }
}

#[test]
fn endpoints_follow_the_region() {
    for (region, address, partition) in [
        ("eu-west-1", "https://secretsmanager.eu-west-1.amazonaws.com", "aws"),
        ("us-gov-west-1", "https://secretsmanager.us-gov-west-1.amazonaws.com", "aws-us-gov"),
        ("cn-north-1", "https://secretsmanager.cn-north-1.amazonaws.com.cn", "aws-cn"),
    ] {
        let settings = AwsSettings { region: region.to_owned(), ..settings("") };
        settings.validate().unwrap();
        assert_eq!(settings.endpoint("secretsmanager"), address);
        assert_eq!(settings.sts_endpoint(), address.replace("secretsmanager", "sts"));
        assert_eq!(settings.partition(), partition);
    }
    let other = settings(r#","endpoint":"https://vpce-1.example","stsEndpoint":"https://vpce-2.example""#);
    assert_eq!(
        (other.endpoint("ssm"), other.sts_endpoint()),
        ("https://vpce-1.example".into(), "https://vpce-2.example".into())
    );
}

#[test]
fn the_agent_is_an_address_and_a_path() {
    for (agent, parts) in [
        (None, ("http://169.254.170.23", "/v1/credentials")),
        (Some("http://[fd00:ec2::23]/v1/credentials"), ("http://[fd00:ec2::23]", "/v1/credentials")),
        (Some("https://127.0.0.1:8443"), ("https://127.0.0.1:8443", "")),
        (Some("nonsense"), ("nonsense", "")),
    ] {
        let auth = AwsAuth { agent: agent.map(str::to_owned), ..AwsAuth::default() };
        assert_eq!(auth.agent(), parts);
    }
}

#[test]
fn settings_survive_the_plan_and_leave_out_what_is_not_set() {
    let json = r#"{"type":"ssm","region":"eu-west-1","auth":{"method":"pod-identity"}}"#;
    let settings: crate::provider::ProviderSettings = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&settings).unwrap(), json);
}

#[test]
fn p9_settings_that_cannot_work_name_the_field() {
    for (rest, part) in [
        (r#","account":"12345""#, "twelve digits, in quotes"),
        (r#","endpoint":"http://secretsmanager.example""#, "endpoint: address"),
        (r#","stsEndpoint":"sts""#, "stsEndpoint: address"),
        (r#","ca":"""#, "ca has no certificate"),
        (r#","auth":{"agent":"http://169.254.170.23"}"#, "auth.agent"),
        (r#","auth":{"method":"pod-identity","agent":"http://agent.example"}"#, "auth.agent: address"),
        (r#","auth":{"method":"pod-identity","tokenFile":"/x"}"#, "auth.tokenFile"),
        (r#","auth":{"profile":"x"}"#, "auth.profile"),
        (r#","auth":{"method":"environment","credentialsFile":"/x"}"#, "auth.credentialsFile"),
        (r#","auth":{"method":"environment","configFile":"/x"}"#, "auth.configFile"),
    ] {
        let message = settings(rest).validate().unwrap_err().to_string();
        assert!(message.contains(part), "{rest}: {message}");
    }
    for region in ["", "europe", "EU-WEST-1", "eu-west-1.evil.example", "eu-west-1/"] {
        let message = AwsSettings { region: region.to_owned(), ..settings("") }.validate().unwrap_err().to_string();
        assert!(message.contains("such as eu-west-1"), "{message}");
    }
    for rest in [r#","auth":{"method":"pod-identity","agent":"http://[fd00:ec2::23]/v1/credentials"}"#, OWN] {
        settings(rest).validate().unwrap();
    }
    let unknown = r#"{"type":"ssm","region":"eu-west-1","address":"https://x"}"#;
    assert!(serde_json::from_str::<crate::provider::ProviderSettings>(unknown).is_err(), "unknown fields are errors");
}
