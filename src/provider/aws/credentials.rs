//! Credentials: where they come from, and how long they live.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use hyper::Method as HttpMethod;
use hyper::header::AUTHORIZATION;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::keys::Keys;
use super::profile::{self, Profile, SsoProfile};
use super::settings::{AwsAuth, AwsSettings, Method};
use super::sso::{self, SsoLogin};
use super::sts;
use crate::provider::auth::oauth::tell_login;
use crate::provider::auth::tool::Tool;
use crate::provider::http::{Call, Client, Failure, Reach, secret_header};
use crate::provider::session::Token;
use crate::provider::{ErrorKind, Login, auth};
use crate::secret::SecretValue;

/// What AWS's own program prints for others.
///
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Exported {
    access_key_id: SecretValue,
    secret_access_key: SecretValue,
    #[serde(default)]
    session_token: Option<SecretValue>,
    #[serde(default)]
    expiration: Option<String>,
}

/// What the agent on the node answers.
///
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Handed {
    access_key_id: SecretValue,
    secret_access_key: SecretValue,
    token: SecretValue,
    expiration: String,
}

const KEY_ID_VARIABLE: &str = "AWS_ACCESS_KEY_ID";

/// Looks a variable of the environment up.
type Environment<'a> = &'a dyn Fn(&str) -> Option<SecretValue>;

/// A service that exchanges a token for credentials, and what that takes.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) settings: AwsSettings,
    pub(super) login: Login,
    /// STS, or the agent on the node; methods without either have STS.
    pub(super) client: Client,
    pub(super) reach: Reach,
}

// === impl Issuer ===

impl Issuer {
    /// Gets credentials, whatever is held.
    pub(super) async fn log_in(&self) -> Result<Token, Failure> {
        let token = self.credentials().await?;
        tell_login("AWS", &self.login.provider, self.settings.auth.method, &token);
        Ok(token)
    }

    async fn credentials(&self) -> Result<Token, Failure> {
        match self.settings.auth.method {
            Method::WebIdentity => {
                let token = auth::proof(&self.login, self.settings.auth.token_file.as_deref())?;
                let no_role = || Failure::invalid("web-identity needs the ARN of a role to log in as");
                sts::assume_role(&self.client, self.login.role.as_ref().ok_or_else(no_role)?, &token).await
            }
            Method::PodIdentity => self.ask_agent().await,
            Method::Environment => from_environment(&auth::environment).map(|keys| keys.for_ever()),
            Method::Profile => match profile_of(&self.settings.auth)? {
                Profile::Keys(keys) => Ok(keys.for_ever()),
                Profile::WebIdentity { role, token_file } => {
                    // The path stands in a file of secrets, and is told no more than they are.
                    let token = auth::secret_file(&token_file, "JWT").map_err(|error| {
                        Failure::new(error.kind, "the profile's web_identity_token_file has no token: check the path")
                    })?;
                    sts::assume_role(&self.client, &role, &token).await
                }
                Profile::Sso(profile) => self.by_sso(&profile).await,
                Profile::Elsewhere => self.by_cli("aws sts get-caller-identity").await,
            },
        }
    }

    async fn by_sso(&self, profile: &SsoProfile) -> Result<Token, Failure> {
        let login = self.settings.auth.described("aws sso login");
        let no_login = || Failure::denied(format!("there is no AWS login, or it has ended: run `{login}`"));
        match sso::login(profile) {
            SsoLogin::Good(token) => {
                let client = self.reach.client(&self.settings.sso_endpoint(&profile.region))?;
                sso::credentials(&client, profile, &token, no_login).await
            }
            SsoLogin::Ended => self.by_cli("aws sso login").await,
            SsoLogin::None => Err(no_login()),
        }
    }

    /// Asks AWS's own program, which goes ways that we do not, and renews logins. `login` is what to run if it has none.
    ///
    /// <https://docs.aws.amazon.com/cli/latest/reference/configure/export-credentials.html>
    async fn by_cli(&self, login: &str) -> Result<Token, Failure> {
        let settings = &self.settings.auth;
        if settings.credentials_file.is_some() || settings.config_file.is_some() {
            // A program that such a file names would be run.
            let problem = "the profile's credentials come from elsewhere, which is done for profiles of AWS's own files \
                           alone: leave auth.credentialsFile and auth.configFile out";
            return Err(Failure::invalid(problem));
        }
        let mut arguments: Vec<_> = ["configure", "export-credentials", "--format=process"].map(str::to_owned).into();
        arguments.push(format!("--profile={}", settings.profile_name()));
        let login = settings.described(login);
        let tool = Tool { program: "aws", arguments, environment: &[("AWS_PAGER", "")], login };
        let printed = tool.print().await?;
        let keys = serde_json::from_slice::<Exported>(printed.expose()).ok();
        let token = keys.and_then(|Exported { access_key_id, secret_access_key, session_token, expiration }| {
            let keys = Keys { id: access_key_id, secret: secret_access_key, token: session_token };
            match expiration {
                // In whatever zone, since it is Python's.
                Some(end) => keys.until(&end),
                None => Some(keys.for_ever()),
            }
        });
        token.ok_or_else(|| tool.no_login("aws prints something other than credentials").into())
    }

    async fn ask_agent(&self) -> Result<Token, Failure> {
        let token = auth::projected_token(&self.login.token)?;
        let (_, path) = self.settings.auth.agent();
        let call = Call::new(HttpMethod::GET, path.trim_start_matches('/'));
        let call = call.header(AUTHORIZATION, secret_header(&token, "service-account token")?);
        let response = self.client.send(call).await?;
        let address = self.client.address();
        let failed = |kind, problem: &str| Failure::new(kind, format!("the pod identity agent at {address} {problem}"));
        match response.status.as_u16() {
            200 => {}
            429 => {
                let kind = ErrorKind::Throttled { retry_after: response.retry_after };
                return Err(failed(kind, "asks for patience"));
            }
            // It hands on what EKS Auth says: 400 for tokens that it does not take.
            400 | 401 | 403 | 404 => {
                let problem = "gives this pod no credentials: associate a role with its service account \
                               (eks create-pod-identity-association), and let the role trust pods.eks.amazonaws.com";
                return Err(failed(ErrorKind::Denied, problem));
            }
            _ => return Err(failed(ErrorKind::Unavailable, "fails: see the log of eks-pod-identity-agent")),
        }
        let garbage = || failed(ErrorKind::Unavailable, "answers something other than credentials");
        let Handed { access_key_id, secret_access_key, token, expiration } = response.parse().ok_or_else(garbage)?;
        let keys = Keys { id: access_key_id, secret: secret_access_key, token: Some(token) };
        keys.until(&expiration).ok_or_else(garbage)
    }
}

fn named(variable: &str) -> Option<String> {
    auth::environment(variable).and_then(|value| value.expose_str().map(str::to_owned))
}

// === impl AwsAuth ===

impl AwsAuth {
    /// The profile that the settings or the environment name.
    fn profile_name(&self) -> String {
        self.profile.clone().or_else(|| named("AWS_PROFILE")).unwrap_or_else(|| "default".to_owned())
    }

    /// A command of AWS's program for that profile, to be typed.
    fn described(&self, command: &str) -> String {
        format!("{command} --profile {}", quoted(&self.profile_name()))
    }
}

fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@/+:".contains(c);
    if word.chars().all(is_plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")).into() }
}

/// What the profile says.
fn profile_of(settings: &AwsAuth) -> Result<Profile, Failure> {
    let name = settings.profile_name();
    let file = |set: &Option<PathBuf>, variable: &str, usual: &str| {
        let elsewhere = set.clone().or_else(|| named(variable).map(PathBuf::from));
        elsewhere.or_else(|| std::env::home_dir().map(|home| home.join(".aws").join(usual)))
    };
    let credentials = file(&settings.credentials_file, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
    let config = file(&settings.config_file, "AWS_CONFIG_FILE", "config");
    let credentials = read(credentials.as_deref())?;
    let config = read(config.as_deref())?;
    Ok(profile::find(&name, &credentials, &config)?)
}

/// What tells a login from another one: an access key's id, or the role of a profile.
pub(super) fn credential(settings: &AwsAuth) -> Option<SecretValue> {
    match settings.method {
        Method::Environment => auth::environment(KEY_ID_VARIABLE),
        Method::Profile => profile_of(settings).ok().map(|profile| match profile {
            Profile::Keys(keys) => keys.id,
            Profile::WebIdentity { role, .. } => role.into(),
            // Tokens come and go with the hour; who is logged in as what is the same.
            Profile::Sso(profile) => format!("{} {profile:?}", sso::is_logged_in(&profile)).into(),
            Profile::Elsewhere => settings.profile_name().into(),
        }),
        Method::WebIdentity => auth::secret_file(settings.token_file.as_deref()?, "JWT").ok(),
        Method::PodIdentity => None,
    }
}

/// A file of profiles; one that is not there has none.
fn read(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let Some(file) = file.filter(|file| file.exists()) else { return Ok(Zeroizing::default()) };
    let text = auth::secret_file(file, "AWS profiles").or_else(|error| match error.kind {
        // Empty.
        ErrorKind::Invalid if file.metadata().is_ok_and(|metadata| metadata.len() < 16) => Ok(SecretValue::from("")),
        _ => Err(error),
    })?;
    let text =
        text.expose_str().ok_or_else(|| Failure::invalid(format!("AWS profiles: {} is not UTF-8", file.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn from_environment(environment: Environment<'_>) -> Result<Keys, Failure> {
    let needed = |name: &str| {
        environment(name).ok_or_else(|| {
            Failure::denied(format!(
                "there are no AWS credentials: {name} is not set (`aws configure export-credentials --format env` \
                 prints it)"
            ))
        })
    };
    Ok(Keys {
        id: needed(KEY_ID_VARIABLE)?,
        secret: needed("AWS_SECRET_ACCESS_KEY")?,
        token: environment("AWS_SESSION_TOKEN"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_asked_for_each_part() {
        let with = |names: &'static [&'static str]| {
            move |name: &str| names.contains(&name).then(|| SecretValue::from(format!("canary-{name}")))
        };
        let all = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        let (two, one): (&'static [&str], &'static [&str]) =
            (&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], &["AWS_ACCESS_KEY_ID"]);
        let lookup = |name: &str| all.contains(&name).then(|| SecretValue::from(format!("canary-{name}")));
        let keys = from_environment(&lookup).unwrap();
        assert!(keys.token.is_some_and(|token| token.expose() == b"canary-AWS_SESSION_TOKEN"));
        assert!(from_environment(&with(two)).unwrap().token.is_none());
        for (lookup, missing) in [(with(one), "AWS_SECRET_ACCESS_KEY is not set"), (with(&[]), "AWS_ACCESS_KEY_ID is")]
        {
            let error = from_environment(&lookup).unwrap_err().error;
            assert!(error.kind == ErrorKind::Denied && error.message.contains(missing), "{error}");
            assert!(!error.message.contains("canary"), "{error}");
        }
    }
}
