//! Logging in: a first token, and with a role a service account's in its stead.

use hyper::Method as HttpMethod;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::adc::{self, Credentials, External, ServiceAccount, User};
use super::api_types::parse_impersonation;
use super::assertion::Assertion;
use super::errors::{CallContext, impersonation_failure, metadata_failure, token_failure};
use super::gcloud::{self, GcloudLogin};
use super::settings::{GcpSettings, Method};
use crate::parse_error::invalid;
use crate::provider::auth::oauth::{ask_for_token, no_token, parse_token, tell_login};
use crate::provider::http::{Address, Call, Failure, Reach, bearer};
use crate::provider::session::Token;
use crate::provider::{Login, auth};
use crate::secret::SecretValue;

/// What tokens are asked for; IAM says what they are good for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

const STS: &str = "https://sts.googleapis.com/v1/token";
const OAUTH: &str = "https://oauth2.googleapis.com/token";
const IMPERSONATION: &str = "https://iamcredentials.googleapis.com";

/// By address, since its name resolves only where it is.
const METADATA: &str = "http://169.254.169.254";
const METADATA_NAME: &str = "metadata.google.internal";
const METADATA_VARIABLE: &str = "GCE_METADATA_HOST";
const METADATA_FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

/// RFC 8693, 2.1 and 3.
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// RFC 7523, 2.1.
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A token that is exchanged for one of Google's.
struct Exchange<'a> {
    url: &'a str,
    audience: &'a str,
    subject_token_type: &'a str,
    subject_token: &'a SecretValue,
}

/// Who logs in, and how.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) settings: GcpSettings,
    pub(super) login: Login,
    pub(super) reach: Reach,
    /// Who pays for the requests of the person who is logged in.
    pub(super) quota_project: Option<String>,
}

// === impl Issuer ===

impl Issuer {
    /// For messages about a call to that address.
    pub(super) fn asked<'a>(&'a self, address: &'a Address) -> CallContext<'a> {
        CallContext { method: self.settings.auth.method, role: self.login.role.as_deref(), address }
    }

    /// Logs in, whatever login is held.
    pub(super) async fn log_in(&mut self) -> Result<Token, Failure> {
        let (first, as_whom) = match self.settings.auth.method {
            Method::WorkloadIdentityFederation => (self.by_federation().await?, None),
            Method::Metadata => (self.by_metadata().await?, None),
            Method::ApplicationDefaultCredentials => self.by_file().await?,
            Method::Cli => (self.by_cli().await?, None),
        };
        let as_whom = match &self.login.role {
            Some(role) => Some(self.impersonation_url(role)?),
            None => as_whom,
        };
        let token = match as_whom {
            Some(url) => self.impersonate(&url, &first).await?,
            None => first,
        };
        tell_login("Google", &self.login.provider, self.settings.auth.method, &token);
        Ok(token)
    }

    /// <https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token>
    async fn by_federation(&self) -> Result<Token, Failure> {
        let settings = &self.settings.auth;
        let jwt = auth::proof(&self.login, settings.token_file.as_deref())?;
        let audience = settings.audience.as_ref().ok_or_else(|| Failure::invalid("auth.audience is missing"))?;
        let url = settings.token_url.as_deref().unwrap_or(STS);
        let audience = audience.resource();
        self.exchange(&Exchange { url, audience, subject_token_type: JWT, subject_token: &jwt }).await
    }

    /// The first token, and whose the second shall be.
    async fn by_file(&mut self) -> Result<(Token, Option<String>), Failure> {
        let credentials = adc::load(self.settings.auth.file.as_deref())?;
        self.quota_project = None;
        Ok(match credentials {
            Credentials::ServiceAccount(account) => (self.by_key(&account).await?, None),
            Credentials::User(user) => {
                let token = self.by_refresh_token(&user).await?;
                self.quota_project = user.quota_project_id;
                (token, None)
            }
            Credentials::External(external) => {
                (self.by_external(&external).await?, external.service_account_impersonation_url)
            }
        })
    }

    async fn by_cli(&mut self) -> Result<Token, Failure> {
        let GcloudLogin { token, project } = gcloud::log_in().await?;
        self.quota_project = project.or_else(|| self.settings.project.clone());
        Ok(token)
    }

    async fn by_external(&self, external: &External) -> Result<Token, Failure> {
        let url = self.settings.auth.token_url.as_deref().unwrap_or(&external.token_url);
        let subject_token = external.subject_token()?;
        let (audience, subject_token_type) = (external.audience.as_str(), external.subject_token_type.as_str());
        self.exchange(&Exchange { url, audience, subject_token_type, subject_token: &subject_token }).await
    }

    async fn exchange(&self, exchange: &Exchange<'_>) -> Result<Token, Failure> {
        let form = [
            ("grant_type", TOKEN_EXCHANGE),
            ("audience", exchange.audience),
            ("scope", SCOPE),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token_type", exchange.subject_token_type),
            ("subject_token", auth::text(exchange.subject_token, "JWT")?),
        ];
        self.ask(exchange.url, &form).await
    }

    /// <https://developers.google.com/identity/protocols/oauth2/service-account#httprest>
    async fn by_key(&self, account: &ServiceAccount) -> Result<Token, Failure> {
        let file_url = account.token_uri.as_deref();
        let url = self.settings.auth.token_url.as_deref().or(file_url).unwrap_or(OAUTH);
        let assertion = Assertion {
            issuer: &account.client_email,
            key_id: account.private_key_id.as_deref(),
            scope: SCOPE,
            audience: file_url.unwrap_or(url),
        };
        let jwt = assertion.sign(&account.private_key)?;
        self.ask(url, &[("grant_type", JWT_GRANT), ("assertion", auth::text(&jwt, "JWT")?)]).await
    }

    /// RFC 6749, 6.
    async fn by_refresh_token(&self, user: &User) -> Result<Token, Failure> {
        let form = [
            ("client_id", user.client_id.as_str()),
            ("client_secret", auth::text(&user.client_secret, "client_secret")?),
            ("refresh_token", auth::text(&user.refresh_token, "refresh_token")?),
            ("grant_type", "refresh_token"),
        ];
        self.ask(self.settings.auth.token_url.as_deref().unwrap_or(OAUTH), &form).await
    }

    async fn ask(&self, url: &str, form: &[(&str, &str)]) -> Result<Token, Failure> {
        let (client, path) = self.reach.endpoint(url)?;
        let call = Call::new(HttpMethod::POST, path).form(form);
        ask_for_token(&client, call, |refusal| token_failure(refusal, self.asked(client.address()))).await
    }

    /// <https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys>
    async fn by_metadata(&self) -> Result<Token, Failure> {
        let client = match (&self.settings.auth.metadata, auth::environment(METADATA_VARIABLE)) {
            (Some(address), _) => self.reach.client(address)?,
            (None, Some(host)) if host.expose() != METADATA_NAME.as_bytes() => {
                let address = format!("http://{}", auth::text(&host, METADATA_VARIABLE)?);
                let of_variable = |problem| Failure::invalid(format!("{METADATA_VARIABLE}: {problem}"));
                self.reach.client(&address).map_err(of_variable)?
            }
            (None, _) => self.reach.client(METADATA)?,
        };
        let call = Call::new(HttpMethod::GET, "computeMetadata/v1/instance/service-accounts/default/token")
            .header(METADATA_FLAVOR, HeaderValue::from_static("Google"));
        let response = client.send(call).await?;
        // An answer without it is another machine's, in between.
        let is_google = response.headers.get(METADATA_FLAVOR).is_some_and(|flavor| flavor == "Google");
        match response.status.as_u16() {
            200 if is_google => parse_token(&response, client.address()),
            _ => Err(metadata_failure(&response, is_google, client.address())),
        }
    }

    /// <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>
    async fn impersonate(&self, url: &str, first: &Token) -> Result<Token, Failure> {
        let (client, path) = self.reach.endpoint(url)?;
        let call = Call::new(HttpMethod::POST, path)
            .header(AUTHORIZATION, bearer(&first.value, "the access token")?)
            .json(&serde_json::json!({"scope": [SCOPE], "lifetime": "3600s"}));
        let response = client.send(call).await?;
        match response.status.as_u16() {
            200 => parse_impersonation(&response).ok_or_else(|| no_token(client.address())),
            _ => Err(impersonation_failure(&response, self.asked(client.address()))),
        }
    }

    /// The role is what tenants may write.
    fn impersonation_url(&self, role: &str) -> Result<String, Failure> {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "-._@".contains(c);
        if !role.contains('@') || !role.chars().all(is_fine) {
            let what = "a service account's address, <name>@<project>.iam.gserviceaccount.com";
            return Err(Failure::invalid(invalid("role", role, what)));
        }
        let base = self.settings.auth.impersonation_url.as_deref().unwrap_or(IMPERSONATION).trim_end_matches('/');
        Ok(format!("{base}/v1/projects/-/serviceAccounts/{role}:generateAccessToken"))
    }
}
