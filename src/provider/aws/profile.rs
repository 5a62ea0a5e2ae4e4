//! The shared files of AWS's command line: the part of them that holds ready-made credentials.
//!
//! <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>

use std::path::PathBuf;

use super::keys::Keys;
use super::settings::{is_account, is_region};
use crate::provider::{ErrorKind, ProviderError};
use crate::secret::SecretValue;

/// What a profile says about where credentials are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Here.
    Keys(Keys),
    /// At STS, for a token.
    WebIdentity { role: String, token_file: PathBuf },
    /// At IAM Identity Center, for what `aws sso login` left.
    Sso(SsoProfile),
    /// Where AWS's own command line finds them.
    Elsewhere,
}

/// A role that IAM Identity Center has for a person.
///
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-sso-credentials.html>
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SsoProfile {
    /// What the file of the login is called by: the session's name, or the address where it begins.
    pub(super) session: String,
    /// Of the access portal.
    pub(super) region: String,
    pub(super) account: String,
    pub(super) role: String,
}

/// Settings that lead to credentials in ways that AWS's own command line goes: programs, chains of roles, the machine's
/// role, console logins.
const ELSEWHERE: [&str; 4] = ["credential_process", "source_profile", "credential_source", "login_session"];

/// Looks a profile up; what the file of credentials says goes before what the file of settings says.
pub(super) fn find(name: &str, credentials: &str, config: &str) -> Result<Profile, ProviderError> {
    let invalid = |problem: String| ProviderError::new(ErrorKind::Invalid, problem);
    let of_settings = if name == "default" { name.to_owned() } else { format!("profile {name}") };
    // `[profile default]` goes before `[default]` there.
    let all = [section(credentials, name), section(config, &format!("profile {name}")), section(config, &of_settings)];
    let get = |setting: &str| all.iter().flatten().find_map(|section| value(section, setting));
    if all.iter().all(Option::is_none) {
        // Nobody has logged in on this machine.
        let problem = format!("there is no AWS profile {name:?}: `aws configure list-profiles` prints those that are");
        return Err(ProviderError::new(ErrorKind::Denied, problem));
    }
    if let (Some(id), Some(secret)) = (get("aws_access_key_id"), get("aws_secret_access_key")) {
        let token = get("aws_session_token").map(SecretValue::from);
        return Ok(Profile::Keys(Keys { id: id.into(), secret: secret.into(), token }));
    }
    if let (Some(role), Some(file)) = (get("role_arn"), get("web_identity_token_file")) {
        // It is told at a refused login: nothing else that stands in a file of secrets may be.
        if !is_role(role) {
            return Err(invalid(format!("the role_arn of AWS profile {name:?} is not the ARN of a role")));
        }
        return Ok(Profile::WebIdentity { role: role.to_owned(), token_file: PathBuf::from(file) });
    }
    let session = get("sso_session");
    if session.or_else(|| get("sso_start_url")).is_some() {
        let of_session = session.and_then(|session| section(config, &format!("sso-session {session}")));
        let shared = |setting: &str| match session {
            Some(_) => value(of_session.as_deref()?, setting),
            None => get(setting),
        };
        let sso = (shared("sso_start_url"), shared("sso_region"), get("sso_account_id"), get("sso_role_name"));
        if let (Some(start), Some(region), Some(account), Some(role)) = sso
            && is_region(region)
            && is_account(account)
            && is_role_name(role)
        {
            let session = session.unwrap_or(start).to_owned();
            let (region, account, role) = (region.to_owned(), account.to_owned(), role.to_owned());
            return Ok(Profile::Sso(SsoProfile { session, region, account, role }));
        }
        return Err(invalid(format!(
            "AWS profile {name:?} lacks one of sso_start_url, sso_region, sso_account_id and sso_role_name, or it is not \
             one: `aws configure sso` writes them"
        )));
    }
    if ELSEWHERE.iter().any(|setting| get(setting).is_some()) {
        return Ok(Profile::Elsewhere);
    }
    Err(invalid(format!("AWS profile {name:?} has no aws_access_key_id and aws_secret_access_key")))
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html>
fn is_role_name(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@-_".contains(&byte))
}

fn is_role(arn: &str) -> bool {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts[..] else { return false };
    let is_number = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    partition.starts_with("aws") && is_number && resource.starts_with("role/")
}

/// The lines of a section. Of two that have the same name, the first counts.
fn section<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let is_header = |line: &str| line.starts_with('[');
    let mut lines = text.lines().skip_while(|line| !header_is(line, name));
    lines.next()?;
    Some(lines.take_while(|line| !is_header(line)).collect())
}

fn header_is(line: &str, name: &str) -> bool {
    let inner = line.strip_prefix('[').and_then(|rest| rest.split(']').next());
    inner.is_some_and(|inner| inner.split_whitespace().eq(name.split_whitespace()))
}

/// A setting's value, if it has one. Lines that begin with blanks belong to a setting above them.
fn value<'a>(section: &[&'a str], setting: &str) -> Option<&'a str> {
    section.iter().filter(|line| !line.starts_with([' ', '\t', '#', ';'])).find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim();
        (name.trim().eq_ignore_ascii_case(setting) && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
# aws_access_key_id = wrong
[default]
aws_access_key_id = AKIAcanary
aws_secret_access_key=canary/a+b=
s3 =
  aws_session_token = wrong

[ temporary ]
AWS_ACCESS_KEY_ID=ASIAcanary
aws_secret_access_key = canary-2
aws_session_token = canary-token==
";
    const CONFIG: &str = "\
[default]
region = eu-west-1
[profile federated]
role_arn = arn:aws:iam::123456789012:role/web
web_identity_token_file = /run/token
[profile people]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = Developer
[sso-session corp]
sso_start_url = https://canary.example
sso_region = eu-west-1
[profile legacy]
sso_start_url = https://canary.example/start
sso_region = cn-north-1
sso_account_id = 123456789012
sso_role_name = Read.Only_1
[profile unknown]
sso_session = nowhere
sso_region = eu-west-1
sso_start_url = https://canary.example
sso_account_id = 123456789012
sso_role_name = r
[profile chained]
role_arn = arn:aws:iam::123456789012:role/web
source_profile = default
[profile program]
credential_process = /bin/canary
[profile empty]
region = eu-west-1
[profile here]
aws_access_key_id = AKIAcanary
aws_secret_access_key = canary-3
";

    #[test]
    fn ready_made_credentials_are_found_in_both_files() {
        for (name, secret, token) in [
            ("default", "canary/a+b=", None),
            ("temporary", "canary-2", Some("canary-token==")),
            ("here", "canary-3", None),
        ] {
            let Profile::Keys(keys) = find(name, CREDENTIALS, CONFIG).unwrap() else { panic!("{name}") };
            assert!(keys.secret == secret.into(), "{name}");
            assert!(keys.token == token.map(SecretValue::from), "{name}");
        }
        let role = "arn:aws:iam::123456789012:role/web".to_owned();
        let federated = Profile::WebIdentity { role, token_file: "/run/token".into() };
        assert_eq!(find("federated", CREDENTIALS, CONFIG).unwrap(), federated);
    }

    #[test]
    fn identity_center_has_two_forms_and_the_rest_is_left_to_awss_own_program() {
        for (name, session, region, role) in [
            ("people", "corp", "eu-west-1", "Developer"),
            ("legacy", "https://canary.example/start", "cn-north-1", "Read.Only_1"),
        ] {
            let [session, region, role] = [session, region, role].map(str::to_owned);
            let expected = SsoProfile { session, region, account: "123456789012".to_owned(), role };
            assert_eq!(find(name, CREDENTIALS, CONFIG).unwrap(), Profile::Sso(expected), "{name}");
        }
        for name in ["chained", "program"] {
            assert_eq!(find(name, CREDENTIALS, CONFIG).unwrap(), Profile::Elsewhere, "{name}");
        }
    }

    /// Somebody pastes into the wrong line, or the wrong file.
    #[test]
    fn p5_nothing_that_stands_in_the_files_is_told() {
        let roles = ["canary", "arn:aws:canary", "arn:aws:iam::123456789012:user/canary", "arn:aws:iam::canary:role/x"];
        for role in roles {
            let config = format!("[profile x]\nrole_arn = {role}\nweb_identity_token_file = /run/canary\n");
            let message = find("x", "", &config).unwrap_err().to_string();
            assert!(message.contains("role_arn") && !message.contains("canary"), "{message}");
        }
        for damaged in [
            "canary",
            "[canary",
            "[x]\ncanary",
            "[x]\ncanary = canary",
            "[x]\naws_access_key_id = canary",
            "[x]\naws_secret_access_key = canary",
            "[x]\n aws_access_key_id = canary\n aws_secret_access_key = canary",
            "[x]\nrole_arn = canary",
            "[x]\nweb_identity_token_file = canary",
            "[x]\nsso_session = canary",
            "[x]\nsso_session = canary\n[sso-session canary]\nsso_start_url = canary\nsso_region = eu-west-1",
            "[x]\nsso_start_url = canary\nsso_region = canary\nsso_account_id = 123456789012\nsso_role_name = r",
            "[x]\nsso_start_url = canary\nsso_region = a-b.canary\nsso_account_id = 123456789012\nsso_role_name = r",
            "[x]\nsso_start_url = canary\nsso_region = eu-west-1\nsso_account_id = canary\nsso_role_name = r",
            "[x]\nsso_start_url = x\nsso_region = eu-west-1\nsso_account_id = 123456789012\nsso_role_name = canary/x",
            "[x canary]\naws_access_key_id = canary",
        ] {
            for (credentials, config) in [(damaged, ""), ("", damaged), (damaged, damaged)] {
                let message = find("x", credentials, config).unwrap_err().to_string();
                assert!(!message.contains("canary"), "{damaged:?}: {message}");
            }
        }
    }

    #[test]
    fn p9_what_is_not_done_says_what_to_do() {
        for (name, part) in [
            ("unknown", "lacks one of sso_start_url"),
            ("empty", "no aws_access_key_id"),
            ("nobody", "no AWS profile \"nobody\""),
        ] {
            let message = find(name, CREDENTIALS, CONFIG).unwrap_err().to_string();
            assert!(message.contains(part) && !message.contains("canary"), "{name}: {message}");
        }
    }
}
