//! Logging in, and staying so.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method as HttpMethod;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Method;
use super::client::{Infisical, to_json};
use super::complaint::{foreign, login_failed, login_refused, throttled};
use super::limits::Kind;
use crate::provider::http::{Call, Failure, Response, Scope};
use crate::provider::{ErrorKind, Extended, Session, auth};
use crate::secret::SecretValue;

/// The environment variables that Infisical's own command line uses.
const CLIENT_ID_VARIABLE: &str = "INFISICAL_UNIVERSAL_AUTH_CLIENT_ID";
const CLIENT_SECRET_VARIABLE: &str = "INFISICAL_UNIVERSAL_AUTH_CLIENT_SECRET";
const TOKEN_VARIABLE: &str = "INFISICAL_TOKEN";

/// A login held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) token: SecretValue,
    /// `None` for ever.
    ends: Option<Instant>,
    /// What a renewal brings.
    granted: Duration,
    renewals: Renewals,
}

/// Whether a login can be renewed.
#[derive(Debug, Clone, Copy)]
enum Renewals {
    /// Not, or nobody knows: another process made the login.
    Never,
    /// So long as it does not pass this point. Older servers end a login that tries to.
    Until(Instant),
    Always,
}

/// A login that was refused, and until when that answer stands.
#[derive(Debug)]
pub(super) struct Refusal {
    until: Instant,
    failure: Failure,
}

/// What a login and a renewal answer. Times are in seconds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    access_token: SecretValue,
    /// 0 for ever.
    expires_in: u64,
    /// From the login on; 0 for no end.
    #[serde(rename = "accessTokenMaxTTL", default)]
    max_ttl: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JwtLogin<'a> {
    identity_id: &'a str,
    jwt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_slug: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UniversalLogin<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_slug: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenCall<'a> {
    access_token: &'a str,
}

// === impl Held ===

impl Held {
    /// `sent`: a life counts from when it was asked for, since nobody knows how long the answer was on its way.
    fn new(granted: Granted, sent: Instant, renewals: Option<Renewals>) -> Self {
        let Granted { access_token, expires_in, max_ttl } = granted;
        let life = seconds(expires_in);
        let renewals = renewals.unwrap_or(match max_ttl {
            0 => Renewals::Always,
            max => Renewals::Until(sent + seconds(max)),
        });
        let ends = (expires_in > 0).then(|| sent + life);
        Self { token: access_token, ends, granted: life, renewals }
    }

    fn ready_made(token: SecretValue) -> Self {
        Self { token, ends: None, granted: Duration::ZERO, renewals: Renewals::Never }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }

    fn can_be_renewed(&self) -> bool {
        !self.has_ended()
            && match self.renewals {
                Renewals::Never => false,
                Renewals::Until(latest) => Instant::now() + self.granted <= latest,
                Renewals::Always => true,
            }
    }
}

fn seconds(number: u64) -> Duration {
    // Periodic logins say a thousand million: no point in time may run over.
    Duration::from_secs(number).min(Duration::from_hours(50 * 365 * 24))
}

impl From<Session> for Held {
    fn from(session: Session) -> Self {
        let Session { token, ttl, .. } = session;
        let ends = ttl.map(|ttl| Instant::now() + ttl);
        Self { token, ends, granted: ttl.unwrap_or_default(), renewals: Renewals::Never }
    }
}

impl From<&Held> for Session {
    fn from(held: &Held) -> Self {
        let ttl = held.ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        Self { token: held.token.clone(), ttl, renewable: held.can_be_renewed() }
    }
}

// === impl Infisical ===

impl Infisical {
    /// Logs in, whatever login is held; or says again that it is refused, if that was just so.
    pub(super) async fn log_in(&mut self) -> Result<(), Failure> {
        if let Some(refusal) = self.refusal.as_ref().filter(|refusal| refusal.until > Instant::now()) {
            return Err(refusal.failure.clone());
        }
        self.refusal = None;
        let method = self.settings.auth.method;
        let sent = Instant::now();
        let held = if method == Method::Token {
            Held::ready_made(self.ready_made_token()?)
        } else {
            let call = self.login_call()?;
            let response = self.send(Kind::Write, call).await?;
            Held::new(self.take_login(&response)?, sent, None)
        };
        tracing::info!(provider = %self.login.provider, method = method.as_str(),
            life_seconds = held.granted.as_secs(), renewable = held.can_be_renewed(), "logged in to Infisical");
        self.adopt(held);
        Ok(())
    }

    fn login_call(&self) -> Result<Call, Failure> {
        let settings = &self.settings.auth;
        let organization_slug = self.settings.organization.as_deref();
        let (path, body) = match settings.method {
            Method::Universal => {
                let client_id = of_file_or(settings.client_id_file.as_ref(), CLIENT_ID_VARIABLE, "client id")?;
                let secret = of_file_or(settings.client_secret_file.as_ref(), CLIENT_SECRET_VARIABLE, "client secret")?;
                let (client_id, client_secret) = (text(&client_id, "client id")?, text(&secret, "client secret")?);
                ("universal-auth", to_json(&UniversalLogin { client_id, client_secret, organization_slug }))
            }
            method => {
                let jwt = match &settings.token_file {
                    Some(file) => auth::secret_file(file, "JWT"),
                    None => auth::projected_token(&self.login.token_file),
                }?;
                let identity_id = self.login.role.as_deref().unwrap_or_default();
                let body = to_json(&JwtLogin { identity_id, jwt: text(&jwt, "JWT")?, organization_slug });
                let path = match method {
                    Method::Oidc => "oidc-auth",
                    Method::Jwt => "jwt-auth",
                    _ => "kubernetes-auth",
                };
                (path, body)
            }
        };
        Ok(Call::new(HttpMethod::POST, format!("api/v1/auth/{path}/login")).json(body))
    }

    fn take_login(&mut self, response: &Response) -> Result<Granted, Failure> {
        let address = self.client.address();
        let what = "the login";
        match response.status.as_u16() {
            200 => serde_json::from_slice(&response.body).map_err(|_| self.garbage(what)),
            _ if throttled(response, address).is_some() => Err(self.refused(response, what)),
            400 | 401 | 403 | 404 | 422 => {
                let method = self.settings.auth.method.as_str();
                let (failure, hold) = login_refused(response, address, &self.who(), method);
                self.refusal = Some(Refusal { until: Instant::now() + hold, failure: failure.clone() });
                Err(failure)
            }
            _ => Err(login_failed(&self.refused(response, what), self.settings.auth.method.as_str())),
        }
    }

    fn ready_made_token(&self) -> Result<SecretValue, Failure> {
        of_file_or(self.settings.auth.token_file.as_ref(), TOKEN_VARIABLE, "Infisical access token")
    }

    /// Renews the login held, or logs in anew where that is not safe.
    pub(super) async fn extend(&mut self) -> Result<Extended, Failure> {
        let Some(held) = self.session.clone() else {
            self.log_in().await?;
            return Ok(Extended::Replaced);
        };
        if held.ends.is_none() {
            return Ok(Extended::Renewed);
        }
        if held.can_be_renewed() && self.renew_token(&held).await? {
            return Ok(Extended::Renewed);
        }
        self.log_in().await?;
        Ok(Extended::Replaced)
    }

    /// Whether the server renewed it. What it answers is another token more often than not, and the old one is then
    /// not the one that lives on.
    async fn renew_token(&mut self, held: &Held) -> Result<bool, Failure> {
        let sent = Instant::now();
        let body = to_json(&TokenCall { access_token: text(&held.token, "access token")? });
        let call = Call::new(HttpMethod::POST, "api/v1/auth/token/renew").json(body);
        let response = self.send(Kind::Write, call).await?;
        let address = self.client.address();
        if let Some(failure) = throttled(&response, address).or_else(|| foreign(&response, address, "the renewal")) {
            return Err(failure);
        }
        match serde_json::from_slice::<Granted>(&response.body) {
            Ok(granted) if response.status.as_u16() == 200 => {
                self.adopt(Held::new(granted, sent, Some(held.renewals)));
                Ok(true)
            }
            // Whatever it says: the token may be worth nothing now.
            _ => Ok(false),
        }
    }

    /// Ends a login of our own making. A person's token is theirs.
    pub(super) async fn end(&mut self, token: &SecretValue) -> Result<(), Failure> {
        if self.settings.auth.method == Method::Token {
            return Ok(());
        }
        let body = to_json(&TokenCall { access_token: text(token, "access token")? });
        let call = Call::new(HttpMethod::POST, "api/v1/auth/token/revoke").json(body);
        let response = self.send(Kind::Write, call).await?;
        match self.refused(&response, "the end of its login") {
            _ if response.status.is_success() => Ok(()),
            // One that the server does not know has ended already.
            failure if matches!(failure.error.kind, ErrorKind::Denied | ErrorKind::NotFound) => Ok(()),
            failure => Err(failure),
        }
    }
}

fn of_file_or(file: Option<&PathBuf>, variable: &str, what: &str) -> Result<SecretValue, Failure> {
    if let Some(file) = file {
        return Ok(auth::secret_file(file, what)?);
    }
    auth::environment(variable).ok_or_else(|| {
        let message = format!("there is no {what}: set {variable}, or a file for it in auth");
        Failure::new(ErrorKind::Invalid, message).with(Scope::Store)
    })
}

fn text<'a>(secret: &'a SecretValue, what: &str) -> Result<&'a str, Failure> {
    secret
        .expose_str()
        .ok_or_else(|| Failure::new(ErrorKind::Invalid, format!("{what} is not text")).with(Scope::Store))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_login_is_renewed_only_as_long_as_that_fits_under_its_maximum() {
        // (life, maximum, seconds later) → can it be renewed?
        for (expires_in, max_ttl, later, renews) in [
            (3600, 7200, 0, true),
            (3600, 7200, 3599, true),
            (3600, 7200, 3601, false), // has ended
            (3600, 5400, 1800, true),
            (3600, 5400, 1801, false),
            (2_592_000, 2_592_000, 1, false), // the server's defaults
            (3600, 0, 3599, true),
            (600, 1_000_000_000, 599, true), // periodic
            (u64::MAX, u64::MAX, 1, false),
            (0, 0, 100_000_000, true),
        ] {
            let granted = Granted { access_token: "canary".into(), expires_in, max_ttl };
            let held = Held::new(granted, Instant::now(), None);
            advance(Duration::from_secs(later)).await;
            assert_eq!(held.can_be_renewed(), renews, "{expires_in} of {max_ttl} after {later}");
            assert!(!format!("{held:?} {:?}", Session::from(&held)).contains("canary"));
        }
    }
}
