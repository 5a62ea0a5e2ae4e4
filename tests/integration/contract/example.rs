//! The provider of `src/provider/README.md`: a small key/value store that is reached over HTTP. It is no product's, and
//! all that a provider needs.
//!
//! | call | answer |
//! |---|---|
//! | `POST /login` with `{"jwt": …}` | `{"token": …, "seconds": …}` |
//! | `GET /values/<name>[?version=<number>]` with `If-None-Match` | `{"value": …, "version": …}`, or 304 |
//! | either | `{"code": "bad_token" \| "no_right" \| "no_value" \| "bad_proof"}` |

use std::time::Duration;

use hushpod::parse_error::{ParseError, invalid, unknown};
use hushpod::provider::http::{self, Call, Client, Failure, Reach, Response, Scope, bearer};
use hushpod::provider::session::{LoggedIn, Outcome, Renewal, Store, Token};
use hushpod::provider::{Answer, Login, ProviderError, Reading, Settings, SettingsFaults, Version, auth};
use hushpod::reference::{Reference, Request, VERSION_PARAM};
use hushpod::secret::{SecretTree, SecretValue};
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderValue, IF_NONE_MATCH};
use serde::{Deserialize, Serialize};

mod subject;

pub(crate) use subject::Shared;

// 1. What the operator sets, and what a reference means. Nobody is asked yet.

/// Where the store is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ExampleSettings {
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

impl Settings for ExampleSettings {
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, ParseError> {
        let path = reference.path.trim_matches('/').to_owned();
        if path.is_empty() || path.contains('/') {
            return Err(invalid("name", &path, "one word"));
        }
        if let Some(other) = reference.params.keys().find(|param| *param != VERSION_PARAM) {
            return Err(unknown("parameter", other, &[VERSION_PARAM]));
        }
        Ok(Request { provider: provider.to_owned(), path, params: reference.params.clone() })
    }

    fn default_audience(&self) -> Option<&str> {
        Some("example")
    }

    fn check(&self, faults: &mut SettingsFaults) {
        faults.of("address", http::check_address(Some(&self.address)));
        faults.of("ca", self.ca.as_deref().map_or(Ok(()), http::check_ca));
    }
}

// 2. What goes over the wire. Secrets are read straight into `SecretValue`.

#[derive(Serialize)]
struct LoginCall<'a> {
    jwt: &'a str,
}

#[derive(Deserialize)]
struct LoginAnswer {
    token: SecretValue,
    seconds: u64,
}

#[derive(Deserialize)]
struct ValueAnswer {
    value: SecretValue,
    version: u64,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
}

// 3. The store: how to log in, and how to read. When to do so again is the session's business.

/// One example store, as one pod identity sees it.
pub(crate) type Example = LoggedIn<ExampleStore>;

#[derive(Debug)]
pub(crate) struct ExampleStore {
    login: Login,
    client: Client,
    token: Option<SecretValue>,
}

/// A client that has not yet logged in.
pub(crate) fn connect(settings: &ExampleSettings, login: Login, reach: Reach) -> Result<Example, ProviderError> {
    settings.validate().map_err(ProviderError::invalid)?;
    let client = reach.with_ca(settings.ca.as_deref()).client(&settings.address)?;
    Ok(LoggedIn::new(ExampleStore { login, client, token: None }))
}

impl Store for ExampleStore {
    async fn log_in(&mut self) -> Result<Token, Failure> {
        let jwt = auth::proof(&self.login, None)?;
        let call = Call::new(Method::POST, "login").json(&LoginCall { jwt: auth::text(&jwt, "JWT")? });
        let response = self.client.send(call).await?;
        if response.status.as_u16() != 200 {
            return Err(self.failure(&response, "the login"));
        }
        let LoginAnswer { token, seconds } = response.parse().ok_or_else(|| self.garbage("the login"))?;
        tracing::info!(provider = %self.login.provider, life_seconds = seconds, "logged in to the example store");
        Ok(Token::new(token, Some(Duration::from_secs(seconds)), Renewal::Never))
    }

    fn use_token(&mut self, token: &SecretValue) {
        self.token = Some(token.clone());
    }

    async fn read_one(&mut self, request: &Request, known: Option<&Version>) -> Outcome {
        let name = request.path.as_str();
        let mut call = Call::new(Method::GET, format!("values/{name}"));
        if let Some(token) = &self.token {
            call = call.header(AUTHORIZATION, bearer(token, "the token")?);
        }
        if let Some(version) = request.version() {
            call = call.query(VERSION_PARAM, version);
        }
        if let Some(version) = known.and_then(|known| HeaderValue::from_str(&known.0).ok()) {
            call = call.header(IF_NONE_MATCH, version);
        }
        let what = request.version().map_or_else(|| name.to_owned(), |version| format!("version {version} of {name}"));
        let response = self.client.send(call).await?;
        match response.status.as_u16() {
            304 if known.is_some() => Ok(Reading::NotModified),
            200 => {
                let ValueAnswer { value, version } = response.parse().ok_or_else(|| self.garbage(&what))?;
                let version = Some(Version(version.to_string()));
                let tree = SecretTree::Text(value);
                Ok(Reading::Fresh(Answer { tree, version, expires_in: None, lease: None }))
            }
            _ => Err(self.failure(&response, &what)),
        }
    }
}

// 4. What a refusal means: its kind for the source, its scope for the session, a sentence for people. The store's own
// text is compared, and never passed on; what is not the store's own says nothing of what it has.

impl ExampleStore {
    fn garbage(&self, what: &str) -> Failure {
        Failure::garbage(self.client.address(), what, "the example store's")
    }

    fn failure(&self, response: &Response, what: &str) -> Failure {
        let (address, status) = (self.client.address(), response.status.as_u16());
        let code = http::frame::<Refusal>(&response.body).map(|refusal| refusal.code).unwrap_or_default();
        match (status, code.as_str()) {
            (429, _) => Failure::throttled(response, format!("{address} asks for patience (429)")).with(Scope::Store),
            (401, "bad_token") => Failure::denied(format!("{address} does not accept the login")).with(Scope::Login),
            (403, "bad_proof") => Failure::denied(format!("{what} is refused: check the token's audience")),
            (403, "no_right") => Failure::denied(format!("{what} is denied to this login")).with(Scope::Right),
            (404, "no_value") => Failure::not_found(format!("{what} does not exist")),
            _ => Failure::unavailable(format!("{address} fails at {what} with status {status}: check address")),
        }
    }
}
