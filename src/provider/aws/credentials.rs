//! Credentials: where they come from, and how long they live.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hyper::Method as HttpMethod;
use hyper::header::AUTHORIZATION;
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::profile::{self, Profile};
use super::{AwsSettings, Method, sts};
use crate::provider::http::{Call, Client, Failure, secret_header};
use crate::provider::{ErrorKind, Login, Session, auth};
use crate::secret::SecretValue;

/// What requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Keys {
    pub(super) id: SecretValue,
    pub(super) secret: SecretValue,
    /// Of temporary credentials.
    #[serde(default)]
    pub(super) token: Option<SecretValue>,
}

/// Credentials held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) keys: Keys,
    /// `None` for ever, or for as long as nobody knows.
    pub(super) ends: Option<Instant>,
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

/// Looks a variable of the environment up.
type Environment<'a> = &'a dyn Fn(&str) -> Option<SecretValue>;

/// Whoever exchanges a token for credentials, and what that takes.
pub(super) struct Issuer<'a> {
    pub(super) settings: &'a AwsSettings,
    pub(super) login: &'a Login,
    /// STS, or the agent on the node.
    pub(super) client: &'a Client,
}

// === impl Keys ===

impl Keys {
    /// As JSON, for whoever goes on with them. By hand, since secrets do not serialize.
    fn pack(&self) -> SecretValue {
        let fields = [("id", Some(&self.id)), ("secret", Some(&self.secret)), ("token", self.token.as_ref())];
        // Room for all of it, so that growing leaves no copy behind.
        let length = fields.iter().filter_map(|(_, value)| value.as_ref()).map(|value| value.len()).sum::<usize>();
        let mut json = Vec::with_capacity(length * 2 + 64);
        for (name, value) in fields {
            let Some(text) = value.and_then(|value| value.expose_str()) else { continue };
            json.extend_from_slice(if json.is_empty() { b"{\"" } else { b",\"" });
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(b"\":");
            // Text always becomes JSON, and into memory.
            let _ = serde_json::to_writer(&mut json, text);
        }
        json.push(b'}');
        SecretValue::new(json)
    }
}

// === impl Held ===

impl Held {
    pub(super) fn for_ever(keys: Keys) -> Self {
        Self { keys, ends: None }
    }

    /// With an end as AWS writes it (ISO 8601, UTC).
    pub(super) fn until(keys: Keys, expiration: &str) -> Option<Self> {
        let format = aws_smithy_types::date_time::Format::DateTime;
        let ends = aws_smithy_types::DateTime::from_str(expiration, format).ok()?;
        let ends = Duration::from_secs(u64::try_from(ends.secs()).ok()?);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // By a clock that is fast they have ended already: AWS will say what it thinks of signatures of that time.
        let life = ends.checked_sub(now).unwrap_or(Duration::from_mins(1));
        Some(Self { keys, ends: Some(Instant::now() + life.min(Duration::from_hours(48))) })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }

    /// Takes over what [`Session`] was made from elsewhere.
    pub(super) fn unpack(session: &Session) -> Option<Self> {
        let keys = serde_json::from_slice(session.token.expose()).ok()?;
        Some(Self { keys, ends: session.ttl.map(|ttl| Instant::now() + ttl) })
    }

    pub(super) fn seconds(&self) -> Option<u64> {
        self.ends.map(|ends| ends.saturating_duration_since(Instant::now()).as_secs())
    }
}

impl From<&Held> for Session {
    fn from(held: &Held) -> Self {
        let ttl = held.ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        Self { token: held.keys.pack(), ttl, renewable: false }
    }
}

// === impl Issuer ===

impl Issuer<'_> {
    /// Gets credentials, whatever is held.
    pub(super) async fn credentials(&self) -> Result<Held, Failure> {
        match self.settings.auth.method {
            Method::WebIdentity => {
                let token = match &self.settings.auth.token_file {
                    Some(file) => auth::secret_file(file, "JWT")?,
                    None => auth::projected_token(&self.login.token_file)?,
                };
                let Some(role) = &self.login.role else {
                    return Err(Failure::new(ErrorKind::Invalid, "web-identity needs the ARN of a role to log in as"));
                };
                sts::assume_role(self.client, role, &token).await
            }
            Method::PodIdentity => self.ask_agent().await,
            Method::Environment => from_environment(&auth::environment).map(Held::for_ever),
            Method::Profile => match self.profile()? {
                Profile::Keys(keys) => Ok(Held::for_ever(keys)),
                Profile::WebIdentity { role, token_file } => {
                    let token = auth::secret_file(&token_file, "JWT")?;
                    sts::assume_role(self.client, &role, &token).await
                }
            },
        }
    }

    async fn ask_agent(&self) -> Result<Held, Failure> {
        let token = auth::projected_token(&self.login.token_file)?;
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
        let garbage = || failed(ErrorKind::Unavailable, "answers something that is no credentials");
        let handed: Handed = serde_json::from_slice(&response.body).map_err(|_| garbage())?;
        let Handed { access_key_id, secret_access_key, token, expiration } = handed;
        let keys = Keys { id: access_key_id, secret: secret_access_key, token: Some(token) };
        Held::until(keys, &expiration).ok_or_else(garbage)
    }

    fn profile(&self) -> Result<Profile, Failure> {
        let settings = &self.settings.auth;
        let named = |name: &str| auth::environment(name).and_then(|value| value.expose_str().map(str::to_owned));
        let name = settings.profile.clone().or_else(|| named("AWS_PROFILE")).unwrap_or_else(|| "default".to_owned());
        let file = |set: &Option<PathBuf>, variable: &str, usual: &str| {
            let elsewhere = set.clone().or_else(|| named(variable).map(PathBuf::from));
            elsewhere.or_else(|| std::env::home_dir().map(|home| home.join(".aws").join(usual)))
        };
        let credentials = file(&settings.credentials_file, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let config = file(&settings.config_file, "AWS_CONFIG_FILE", "config");
        let credentials = read(credentials.as_deref())?;
        let config = read(config.as_deref())?;
        profile::find(&name, &credentials, &config).map_err(|problem| Failure::new(ErrorKind::Invalid, problem))
    }
}

/// A file of profiles; one that is not there has none.
fn read(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let Some(file) = file.filter(|file| file.exists()) else { return Ok(Zeroizing::default()) };
    let text = crate::provider::auth::secret_file(file, "AWS profiles").or_else(|error| match error.kind {
        // Empty.
        ErrorKind::Invalid if file.metadata().is_ok_and(|metadata| metadata.len() < 16) => Ok(SecretValue::from("")),
        _ => Err(error),
    })?;
    let text = text
        .expose_str()
        .ok_or_else(|| Failure::new(ErrorKind::Invalid, format!("AWS profiles: {} is not UTF-8", file.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn from_environment(environment: Environment<'_>) -> Result<Keys, Failure> {
    let needed = |name: &str| {
        environment(name).ok_or_else(|| {
            let message = format!(
                "there are no AWS credentials: {name} is not set (`aws configure export-credentials --format env` \
                 prints it)"
            );
            Failure::new(ErrorKind::Invalid, message)
        })
    };
    Ok(Keys {
        id: needed("AWS_ACCESS_KEY_ID")?,
        secret: needed("AWS_SECRET_ACCESS_KEY")?,
        token: environment("AWS_SESSION_TOKEN"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(token: Option<&str>) -> Keys {
        Keys { id: "AKIAcanary".into(), secret: "canary\"\\/+=".into(), token: token.map(SecretValue::from) }
    }

    #[test]
    fn p4_credentials_survive_the_hand_over() {
        for token in [None, Some("canary-token==")] {
            let held = Held { keys: keys(token), ends: Some(Instant::now() + Duration::from_mins(5)) };
            let session = Session::from(&held);
            assert_eq!(session.token, Session::from(&held).token, "one login has one token");
            let resumed = Held::unpack(&session).unwrap();
            assert_eq!(resumed.keys, held.keys);
            assert!(resumed.seconds().is_some_and(|left| (290..=300).contains(&left)));
        }
        let strange = Session { token: "canary".into(), ttl: None, renewable: false };
        assert!(Held::unpack(&strange).is_none());
    }

    #[test]
    fn p5_nothing_shows_keys() {
        let held = Held::for_ever(keys(Some("canary-token")));
        assert!(!format!("{held:?} {:?}", Session::from(&held)).contains("canary"));
    }

    #[test]
    fn ends_are_points_in_utc() {
        let format = aws_smithy_types::date_time::Format::DateTime;
        let in_ten_minutes = aws_smithy_types::DateTime::from(SystemTime::now() + Duration::from_mins(10));
        let held = Held::until(keys(None), &in_ten_minutes.fmt(format).unwrap()).unwrap();
        assert!(held.seconds().is_some_and(|left| (595..=600).contains(&left)), "{:?}", held.seconds());
        let past = Held::until(keys(None), "2011-07-11T19:55:29.611Z").unwrap();
        assert!(!past.has_ended(), "it is tried once");
        for garbage in ["", "canary", "1970", "-0001-01-01T00:00:00Z"] {
            assert!(Held::until(keys(None), garbage).is_none(), "{garbage}");
        }
    }

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
            assert!(error.kind == ErrorKind::Invalid && error.message.contains(missing), "{error}");
            assert!(!error.message.contains("canary"), "{error}");
        }
    }
}
