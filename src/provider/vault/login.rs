//! Logging in, and staying so.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method as HttpMethod;
use serde::Serialize;

use super::api::Api;
use super::api_types::number;
use super::errors::{is_refusal, login_refused};
use super::settings::{Method, VaultAuth};
use crate::provider::http::{Call, Failure};
use crate::provider::session::{Renewal, Token};
use crate::provider::{Login, auth};
use crate::secret::{SecretTree, SecretValue};

/// The environment variable and the file that Vault's own command line uses.
const TOKEN_VARIABLE: &str = "VAULT_TOKEN";
const TOKEN_HOME_FILE: &str = ".vault-token";

/// Usual names of variables with an AppRole's ids; Vault's command line has none.
const ROLE_ID_VARIABLE: &str = "VAULT_ROLE_ID";
const SECRET_ID_VARIABLE: &str = "VAULT_SECRET_ID";

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

/// Who logs in, and how.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) auth: VaultAuth,
    pub(super) login: Login,
}

const LOOK_UP: &str = "the look-up of its token";

/// A token that lives for so many seconds; 0 is for ever.
fn token(value: SecretValue, life_seconds: u64, renewable: bool) -> Token {
    let life = (life_seconds > 0).then(|| Duration::from_secs(life_seconds));
    Token::new(value, life, if renewable { Renewal::Always } else { Renewal::Never })
}

fn look_up(api: &Api, token: &SecretValue) -> Result<Call, Failure> {
    api.call_as(HttpMethod::GET, "auth/token/lookup-self", token)
}

/// Whether Vault still knows a token.
pub(super) async fn is_alive(api: &Api, token: &SecretValue) -> Result<bool, Failure> {
    let response = api.send(look_up(api, token)?, LOOK_UP).await?;
    match response.status.as_u16() {
        200 => Ok(true),
        400..=404 => Ok(false),
        _ => Err(api.store_failure(&response, LOOK_UP)),
    }
}

/// Renews a login; `None` if Vault does not.
pub(super) async fn renew(api: &Api, held: &Token) -> Result<Option<Token>, Failure> {
    const WHAT: &str = "the renewal of its token";
    // Without an increment, the role's own period or ttl counts.
    let call = api.call_as(HttpMethod::POST, "auth/token/renew-self", &held.value)?.json(&serde_json::json!({}));
    let response = api.send(call, WHAT).await?;
    if is_refusal(response.status) {
        return Ok(None);
    }
    let auth = api.parse_auth(&response, WHAT)?;
    Ok(Some(token(held.value.clone(), auth.lease_duration, auth.renewable)))
}

/// A token made elsewhere.
fn ready_made_token(settings: &VaultAuth) -> Result<SecretValue, Failure> {
    if let Some(file) = &settings.token_file {
        return Ok(auth::secret_file(file, "Vault token")?);
    }
    if let Some(token) = auth::environment(TOKEN_VARIABLE) {
        return Ok(token);
    }
    auth::home_file(TOKEN_HOME_FILE, "Vault token")?.ok_or_else(|| {
        Failure::denied(format!(
            "there is no Vault token: log in with `vault login`, set {TOKEN_VARIABLE}, or set auth.tokenFile"
        ))
    })
}

/// A part of an AppRole's login.
fn id(file: Option<&PathBuf>, variable: &str, what: &str) -> Result<SecretValue, Failure> {
    match file {
        Some(file) => auth::secret_file(file, what).map_err(Failure::from),
        None => auth::environment(variable)
            .ok_or_else(|| Failure::invalid(format!("there is no {what}: set {variable}, or a file for it in auth"))),
    }
}

fn role_id(settings: &VaultAuth) -> Result<SecretValue, Failure> {
    id(settings.role_id_file.as_ref(), ROLE_ID_VARIABLE, "role id")
}

/// What tells a login from another one.
pub(super) fn credential(settings: &VaultAuth) -> Option<SecretValue> {
    match settings.method {
        Method::Kubernetes | Method::Jwt => auth::secret_file(settings.token_file.as_deref()?, "JWT").ok(),
        Method::Approle => role_id(settings).ok(),
        Method::Token => ready_made_token(settings).ok(),
    }
}

// === impl Issuer ===

impl Issuer {
    /// Logs in, whatever login is held.
    pub(super) async fn log_in(&self, api: &Api) -> Result<Token, Failure> {
        let Self { auth: settings, login } = self;
        let token = match settings.method {
            Method::Kubernetes | Method::Jwt => {
                let jwt = auth::proof(login, settings.token_file.as_deref())?;
                let body = JwtLogin { role: login.role.as_deref(), jwt: auth::text(&jwt, "JWT")? };
                self.log_in_with(api, &body).await?
            }
            Method::Approle => {
                let role_id = role_id(settings)?;
                let secret_id = id(settings.secret_id_file.as_ref(), SECRET_ID_VARIABLE, "secret id")?;
                let (role_id, secret_id) = (auth::text(&role_id, "role id")?, auth::text(&secret_id, "secret id")?);
                self.log_in_with(api, &AppRoleLogin { role_id, secret_id }).await?
            }
            Method::Token => self.ready_made(api).await?,
        };
        tracing::info!(provider = %login.provider, method = settings.method.to_string(),
            life_seconds = token.granted_seconds(), renewable = token.is_renewable(), "logged in to Vault");
        Ok(token)
    }

    async fn log_in_with(&self, api: &Api, body: &impl Serialize) -> Result<Token, Failure> {
        let mount = self.auth.mount();
        let call = api.anonymous_call(HttpMethod::POST, &format!("auth/{mount}/login"))?.json(body);
        let what = format!("the login at auth/{mount}");
        let response = api.send(call, &what).await?;
        if is_refusal(response.status) {
            return Err(login_refused(&response, &mount, self.login.role.as_deref()));
        }
        let auth = api.parse_auth(&response, &what)?;
        if auth.client_token.is_empty() {
            let message = format!("login at auth/{mount} wants a second factor, which a machine does not have");
            return Err(Failure::denied(message));
        }
        Ok(token(auth.client_token, auth.lease_duration, auth.renewable))
    }

    /// If a token made elsewhere may not ask how long it lives, reads will show what it is good for.
    async fn ready_made(&self, api: &Api) -> Result<Token, Failure> {
        let value = ready_made_token(&self.auth)?;
        let response = api.send(look_up(api, &value)?, LOOK_UP).await?;
        if is_refusal(response.status) {
            return Ok(token(value, 0, false));
        }
        let data = api.parse_data(&response, LOOK_UP)?;
        let field = |name| data.as_ref().and_then(|data| data.key(name).ok());
        let life = field("ttl").as_ref().and_then(number).unwrap_or_default();
        let renewable = matches!(field("renewable"), Some(SecretTree::Literal(value)) if value.expose() == b"true");
        Ok(token(value, life, renewable))
    }

    /// Ends a login of our own making. A person's token is theirs.
    pub(super) async fn end(&self, api: &Api, token: &SecretValue) -> Result<(), Failure> {
        if self.auth.method == Method::Token {
            return Ok(());
        }
        let call = api.call_as(HttpMethod::POST, "auth/token/revoke-self", token)?;
        let response = api.send(call, "the end of its login").await?;
        // One that Vault does not know has ended already.
        if response.status.is_success() || is_refusal(response.status) {
            return Ok(());
        }
        Err(api.store_failure(&response, "the end of its login"))
    }
}
