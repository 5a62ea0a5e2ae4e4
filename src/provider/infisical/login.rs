//! Logging in, and staying so.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method as HttpMethod;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::api::Api;
use super::cli;
use super::errors::{foreign, login_failed, login_refused, throttled};
use super::limits::Kind;
use super::settings::{InfisicalAuth, InfisicalSettings, Method};
use crate::provider::http::{Call, Failure, Response};
use crate::provider::session::{Renewal, Token};
use crate::provider::{ErrorKind, Login, auth};
use crate::secret::SecretValue;

/// The environment variables that Infisical's own command line uses.
const CLIENT_ID_VARIABLE: &str = "INFISICAL_UNIVERSAL_AUTH_CLIENT_ID";
const CLIENT_SECRET_VARIABLE: &str = "INFISICAL_UNIVERSAL_AUTH_CLIENT_SECRET";
const TOKEN_VARIABLE: &str = "INFISICAL_TOKEN";

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

/// Who logs in, and how.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) settings: InfisicalSettings,
    pub(super) login: Login,
    pub(super) refusal: Option<Refusal>,
}

// === impl Granted ===

impl Granted {
    /// `sent`: a life counts from when it was asked for, since nobody knows how long the answer was on its way.
    fn into_token(self, sent: Instant, renewal: Option<Renewal>) -> Token {
        let renewal = renewal.unwrap_or(match self.max_ttl {
            0 => Renewal::Always,
            max => Renewal::Until(sent + seconds(max)),
        });
        let life = (self.expires_in > 0).then(|| seconds(self.expires_in));
        Token::since(sent, self.access_token, life, renewal)
    }
}

fn seconds(number: u64) -> Duration {
    // Periodic logins say a thousand million: no point in time may run over.
    Duration::from_secs(number).min(Duration::from_hours(50 * 365 * 24))
}

/// Renews a login; `None` if the server does not. What it answers is another token more often than not, and the old one
/// is then not the one that lives on.
pub(super) async fn renew(api: &mut Api, held: &Token) -> Result<Option<Token>, Failure> {
    let sent = Instant::now();
    let body = TokenCall { access_token: auth::text(&held.value, "access token")? };
    let call = Call::new(HttpMethod::POST, "api/v1/auth/token/renew").json(&body);
    let response = api.send(Kind::Write, call).await?;
    let address = api.client.address();
    if let Some(failure) = throttled(&response, address).or_else(|| foreign(&response, address, "the renewal")) {
        return Err(failure);
    }
    // Whatever else it says: the token may be worth nothing now.
    let granted = response.parse::<Granted>().filter(|_| response.status.as_u16() == 200);
    Ok(granted.map(|granted| granted.into_token(sent, Some(held.renewal()))))
}

fn ready_made_token(settings: &InfisicalAuth) -> Result<SecretValue, Failure> {
    of_file_or(settings.token_file.as_ref(), TOKEN_VARIABLE, "Infisical access token")
}

fn client_id(settings: &InfisicalAuth) -> Result<SecretValue, Failure> {
    of_file_or(settings.client_id_file.as_ref(), CLIENT_ID_VARIABLE, "client id")
}

/// What tells a login from another one.
pub(super) fn credential(settings: &InfisicalAuth) -> Option<SecretValue> {
    match settings.method {
        Method::Token => ready_made_token(settings).ok(),
        Method::Universal => client_id(settings).ok(),
        Method::Cli => cli::user(),
        _ => auth::secret_file(settings.token_file.as_deref()?, "JWT").ok(),
    }
}

// === impl Issuer ===

impl Issuer {
    /// Logs in, whatever login is held; or says again that it is refused, if that was just so.
    pub(super) async fn log_in(&mut self, api: &mut Api) -> Result<Token, Failure> {
        if let Some(refusal) = self.refusal.as_ref().filter(|refusal| refusal.until > Instant::now()) {
            return Err(refusal.failure.clone());
        }
        self.refusal = None;
        let method = self.settings.auth.method;
        let sent = Instant::now();
        let token = match method {
            Method::Token => Token::new(ready_made_token(&self.settings.auth)?, None, Renewal::Never),
            Method::Cli => cli::log_in(api.client.address()).await?,
            _ => {
                let response = api.send(Kind::Write, self.login_call()?).await?;
                self.take_login(api, &response)?.into_token(sent, None)
            }
        };
        tracing::info!(provider = %self.login.provider, method = method.to_string(),
            life_seconds = token.granted_seconds(), renewable = token.is_renewable(), "logged in to Infisical");
        Ok(token)
    }

    fn login_call(&self) -> Result<Call, Failure> {
        let settings = &self.settings.auth;
        let organization_slug = self.settings.organization.as_deref();
        let call = |path: &str| Call::new(HttpMethod::POST, format!("api/v1/auth/{path}/login"));
        Ok(match settings.method {
            Method::Universal => {
                let client_id = client_id(settings)?;
                let secret = of_file_or(settings.client_secret_file.as_ref(), CLIENT_SECRET_VARIABLE, "client secret")?;
                let (client_id, client_secret) =
                    (auth::text(&client_id, "client id")?, auth::text(&secret, "client secret")?);
                call("universal-auth").json(&UniversalLogin { client_id, client_secret, organization_slug })
            }
            method => {
                let jwt = auth::proof(&self.login, settings.token_file.as_deref())?;
                let identity_id = self.login.role.as_deref().unwrap_or_default();
                let body = JwtLogin { identity_id, jwt: auth::text(&jwt, "JWT")?, organization_slug };
                let path = match method {
                    Method::Oidc => "oidc-auth",
                    Method::Jwt => "jwt-auth",
                    _ => "kubernetes-auth",
                };
                call(path).json(&body)
            }
        })
    }

    fn take_login(&mut self, api: &Api, response: &Response) -> Result<Granted, Failure> {
        let (address, method) = (api.client.address(), self.settings.auth.method);
        let what = "the login";
        match response.status.as_u16() {
            200 => response.parse().ok_or_else(|| api.garbage(what)),
            _ if throttled(response, address).is_some() => Err(api.refused(response, what)),
            400 | 401 | 403 | 404 | 422 => {
                let (failure, hold) = login_refused(response, address, &api.who, method);
                self.refusal = Some(Refusal { until: Instant::now() + hold, failure: failure.clone() });
                Err(failure)
            }
            _ => Err(login_failed(&api.refused(response, what), method)),
        }
    }

    /// Ends a login of our own making. A person's token is theirs.
    pub(super) async fn end(&self, api: &mut Api, token: &SecretValue) -> Result<(), Failure> {
        if matches!(self.settings.auth.method, Method::Token | Method::Cli) {
            return Ok(());
        }
        let body = TokenCall { access_token: auth::text(token, "access token")? };
        let call = Call::new(HttpMethod::POST, "api/v1/auth/token/revoke").json(&body);
        let response = api.send(Kind::Write, call).await?;
        match api.refused(&response, "the end of its login") {
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
    auth::environment(variable)
        .ok_or_else(|| Failure::invalid(format!("there is no {what}: set {variable}, or a file for it in auth")))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::provider::Session;

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
            let token = granted.into_token(Instant::now(), None);
            advance(Duration::from_secs(later)).await;
            assert_eq!(token.is_renewable(), renews, "{expires_in} of {max_ttl} after {later}");
            assert!(!format!("{token:?} {:?}", Session::from(&token)).contains("canary"));
        }
    }
}
