//! Logging in, and staying so.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method as HttpMethod;
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Method;
use super::answer::{Auth, Envelope, number};
use super::client::{Vault, to_json};
use super::complaint::{is_refusal, login_refused};
use crate::provider::http::{Failure, Response};
use crate::provider::{ErrorKind, Extended, Session, auth};
use crate::secret::{SecretTree, SecretValue};

/// A renewal that brings less than this part of what a login brought is near the token's maximum: log in anew.
const WORTHWHILE_PART: u32 = 3;

/// The environment variable and the file that Vault's own command line uses.
const TOKEN_VARIABLE: &str = "VAULT_TOKEN";
const TOKEN_HOME_FILE: &str = ".vault-token";

/// A login held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) token: SecretValue,
    /// `None` for ever, or beyond what a clock can tell.
    ends: Option<Instant>,
    /// The longest life it was ever given at once.
    granted: Duration,
    renewable: bool,
}

#[derive(Serialize)]
struct JwtLogin<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    jwt: &'a str,
}

#[derive(Serialize)]
struct AppRoleLogin<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

// === impl Held ===

impl Held {
    fn new(token: SecretValue, life_seconds: u64, renewable: bool) -> Self {
        let granted = Duration::from_secs(life_seconds);
        let ends = if life_seconds > 0 { Instant::now().checked_add(granted) } else { None };
        Self { token, ends, granted, renewable }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }
}

impl From<Session> for Held {
    fn from(session: Session) -> Self {
        let Session { token, ttl, renewable } = session;
        let ends = ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        Self { token, ends, granted: ttl.unwrap_or_default(), renewable }
    }
}

impl From<&Held> for Session {
    fn from(held: &Held) -> Self {
        let ttl = held.ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        Self { token: held.token.clone(), ttl, renewable: held.renewable }
    }
}

// === impl Vault ===

impl Vault {
    /// Logs in, whatever login is held.
    pub(super) async fn log_in(&self) -> Result<Held, Failure> {
        let held = match self.settings.auth.method {
            Method::Kubernetes | Method::Jwt => {
                let jwt = match &self.settings.auth.token_file {
                    Some(file) => auth::secret_file(file, "JWT"),
                    None => auth::projected_token(&self.login.token_file),
                };
                let jwt = jwt.map_err(Failure::from)?;
                let body = to_json(&JwtLogin { role: self.login.role.as_deref(), jwt: text(&jwt, "JWT")? });
                self.log_in_with(body).await?
            }
            Method::Approle => {
                let settings = &self.settings.auth;
                let read = |file: &Option<PathBuf>, what| match file {
                    Some(file) => auth::secret_file(file, what).map_err(Failure::from),
                    None => Err(Failure::new(ErrorKind::Invalid, format!("{what}: no file is set"))),
                };
                let role_id = read(&settings.role_id_file, "role id")?;
                let secret_id = read(&settings.secret_id_file, "secret id")?;
                let (role_id, secret_id) = (text(&role_id, "role id")?, text(&secret_id, "secret id")?);
                self.log_in_with(to_json(&AppRoleLogin { role_id, secret_id })).await?
            }
            Method::Token => self.look_up(self.ready_made_token()?).await?,
        };
        tracing::info!(provider = %self.login.provider, method = self.settings.auth.method.as_str(),
            life_seconds = held.granted.as_secs(), renewable = held.renewable, "logged in to Vault");
        Ok(held)
    }

    async fn log_in_with(&self, body: Zeroizing<Vec<u8>>) -> Result<Held, Failure> {
        let mount = self.settings.auth.mount();
        let call = self.anonymous_call(HttpMethod::POST, &format!("auth/{mount}/login"))?.json(body);
        let what = format!("the login at auth/{mount}");
        let response = self.send(call, &what).await?;
        if is_refusal(response.status) {
            return Err(login_refused(&response, mount, self.login.role.as_deref()));
        }
        let auth = self.parse_auth(&response, &what)?;
        if auth.client_token.is_empty() {
            let message = format!("login at auth/{mount} wants a second factor, which a machine does not have");
            return Err(Failure::new(ErrorKind::Denied, message));
        }
        Ok(Held::new(auth.client_token, auth.lease_duration, auth.renewable))
    }

    fn ready_made_token(&self) -> Result<SecretValue, Failure> {
        if let Some(file) = &self.settings.auth.token_file {
            return Ok(auth::secret_file(file, "Vault token")?);
        }
        if let Some(token) = auth::environment(TOKEN_VARIABLE) {
            return Ok(token);
        }
        auth::home_file(TOKEN_HOME_FILE, "Vault token")?.ok_or_else(|| {
            let message = format!(
                "there is no Vault token: log in with `vault login`, set {TOKEN_VARIABLE}, or set auth.tokenFile"
            );
            Failure::new(ErrorKind::Invalid, message)
        })
    }

    /// How long a token made elsewhere lives. If it may not ask that, reads will show what it is good for.
    async fn look_up(&self, token: SecretValue) -> Result<Held, Failure> {
        const WHAT: &str = "the look-up of its token";
        let response = self.send(self.call_as(HttpMethod::GET, "auth/token/lookup-self", &token)?, WHAT).await?;
        if is_refusal(response.status) {
            return Ok(Held::new(token, 0, false));
        }
        let data = self.parse(&response, WHAT)?.data().map_err(|error| self.unusable(WHAT, &error))?;
        let field = |name| data.as_ref().and_then(|data| data.key(name).ok());
        let life = field("ttl").as_ref().and_then(number).unwrap_or_default();
        let renewable = matches!(field("renewable"), Some(SecretTree::Literal(value)) if value.expose() == b"true");
        Ok(Held::new(token, life, renewable))
    }

    /// Whether Vault still knows a token.
    pub(super) async fn is_alive(&self, token: &SecretValue) -> Result<bool, Failure> {
        const WHAT: &str = "the look-up of its token";
        let response = self.send(self.call_as(HttpMethod::GET, "auth/token/lookup-self", token)?, WHAT).await?;
        match response.status.as_u16() {
            200 => Ok(true),
            400..=404 => Ok(false),
            _ => Err(self.store_failure(&response, WHAT)),
        }
    }

    /// Renews the login held, or logs in anew where that is of little or no use.
    pub(super) async fn extend(&mut self) -> Result<Extended, Failure> {
        let Some(held) = self.session.clone() else {
            self.session = Some(self.log_in().await?);
            return Ok(Extended::Replaced);
        };
        if held.ends.is_none() {
            return Ok(Extended::Renewed);
        }
        if held.renewable && !held.has_ended() && self.renew_token(&held).await? {
            return Ok(Extended::Renewed);
        }
        let fresh = self.log_in().await?;
        let is_same = fresh.token == held.token;
        self.adopt(fresh);
        Ok(if is_same { Extended::Renewed } else { Extended::Replaced })
    }

    /// Whether the renewal was worthwhile.
    async fn renew_token(&mut self, held: &Held) -> Result<bool, Failure> {
        const WHAT: &str = "the renewal of its token";
        // Without an increment, the role's own period or ttl counts.
        let call = self.call_as(HttpMethod::POST, "auth/token/renew-self", &held.token)?.json(b"{}".to_vec().into());
        let response = self.send(call, WHAT).await?;
        if is_refusal(response.status) {
            return Ok(false);
        }
        let auth = self.parse_auth(&response, WHAT)?;
        let renewed = Held::new(held.token.clone(), auth.lease_duration, auth.renewable);
        let granted = held.granted.max(renewed.granted);
        let is_worthwhile = renewed.ends.is_none() || renewed.granted.saturating_mul(WORTHWHILE_PART) >= granted;
        self.session = Some(Held { granted, ..renewed });
        Ok(is_worthwhile)
    }

    /// Ends a login of our own making. A person's token is theirs.
    pub(super) async fn end(&self, token: &SecretValue) -> Result<(), Failure> {
        if self.settings.auth.method == Method::Token {
            return Ok(());
        }
        let call = self.call_as(HttpMethod::POST, "auth/token/revoke-self", token)?;
        let response = self.send(call, "the end of its login").await?;
        // One that Vault does not know has ended already.
        if response.status.is_success() || is_refusal(response.status) {
            return Ok(());
        }
        Err(self.store_failure(&response, "the end of its login"))
    }

    fn parse_auth(&self, response: &Response, what: &str) -> Result<Auth, Failure> {
        let Envelope { auth, .. } = self.parse(response, what)?;
        auth.ok_or_else(|| self.garbage(what))
    }
}

fn text<'a>(secret: &'a SecretValue, what: &str) -> Result<&'a str, Failure> {
    secret.expose_str().ok_or_else(|| Failure::new(ErrorKind::Invalid, format!("{what} is not text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn p3_a_life_that_no_clock_can_tell_is_one_without_end() {
        let held = Held::new("t".into(), u64::MAX, true);
        assert!(!held.has_ended());
        let session = Session::from(&held);
        assert_eq!(session.ttl, None);
        let told = Session { ttl: Some(Duration::MAX), ..session };
        assert!(!Held::from(told).has_ended());
    }
}
