//! Logging in.

use hyper::Method as HttpMethod;
use hyper::header::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::complaint::{login_failure, metadata_failure};
use super::{Azure, Method, is_guid};
use crate::provider::auth::bearer::{Bearer, Failure};
use crate::provider::auth::oauth::{FORM, form, parse_token};
use crate::provider::http::{Address, Call};
use crate::provider::{ErrorKind, auth};
use crate::secret::SecretValue;
use crate::sentence::Sentence;

/// A machine's own metadata service; it answers none but the machine.
const METADATA: &str = "http://169.254.169.254";
const METADATA_VERSION: &str = "2018-02-01";

/// RFC 7523, 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

// === impl Azure ===

impl Azure {
    /// Logs in, whatever login is held.
    pub(super) async fn make_token(&self) -> Result<Bearer, Failure> {
        let bearer = match self.settings.auth.method {
            Method::WorkloadIdentity => self.by_assertion().await?,
            Method::ManagedIdentity => self.by_metadata().await?,
            Method::Environment => self.by_environment().await?,
        };
        tracing::info!(provider = %self.login.provider, method = self.settings.auth.method.as_str(),
            life_seconds = bearer.life().map(|life| life.as_secs()), "logged in to Entra ID");
        Ok(bearer)
    }

    /// <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow#third-case-access-token-request-with-a-federated-credential>
    async fn by_assertion(&self) -> Result<Bearer, Failure> {
        let jwt = match &self.settings.auth.token_file {
            Some(file) => auth::secret_file(file, "JWT")?,
            None => auth::projected_token(&self.login.token_file)?,
        };
        let tenant = self.settings.tenant.as_deref().ok_or_else(|| invalid("tenant is missing"))?;
        let client_id = self.client_id()?.ok_or_else(|| invalid("the role, which is the client id, is missing"))?;
        self.ask_authority(
            tenant,
            form(&[
                ("client_id", client_id),
                ("scope", &self.settings.scope()),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", auth::text(&jwt, "JWT")?),
                ("grant_type", "client_credentials"),
            ]),
        )
        .await
    }

    async fn by_environment(&self) -> Result<Bearer, Failure> {
        let tenant = match &self.settings.tenant {
            Some(tenant) => SecretValue::from(tenant.as_str()),
            None => variable("AZURE_TENANT_ID")?,
        };
        let (client_id, secret) = (variable("AZURE_CLIENT_ID")?, variable("AZURE_CLIENT_SECRET")?);
        let tenant = auth::text(&tenant, "AZURE_TENANT_ID")?;
        if !super::is_tenant(tenant) {
            return Err(invalid("AZURE_TENANT_ID is no tenant: write the directory's id or domain"));
        }
        self.ask_authority(
            tenant,
            form(&[
                ("client_id", auth::text(&client_id, "AZURE_CLIENT_ID")?),
                ("scope", &self.settings.scope()),
                ("client_secret", auth::text(&secret, "AZURE_CLIENT_SECRET")?),
                ("grant_type", "client_credentials"),
            ]),
        )
        .await
    }

    async fn ask_authority(&self, tenant: &str, body: Zeroizing<Vec<u8>>) -> Result<Bearer, Failure> {
        let client = self.reach.client(self.settings.authority())?;
        let call = Call::new(HttpMethod::POST, format!("{tenant}/oauth2/v2.0/token")).body(body, FORM);
        let response = client.send(call).await?;
        match response.status.as_u16() {
            200 => parse_token(&response.body).ok_or_else(|| no_token(client.address())),
            _ => Err(login_failure(&response, self, client.address())),
        }
    }

    /// <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#get-a-token-using-http>
    async fn by_metadata(&self) -> Result<Bearer, Failure> {
        let client = self.reach.client(self.settings.auth.metadata.as_deref().unwrap_or(METADATA))?;
        let mut call = Call::new(HttpMethod::GET, "metadata/identity/oauth2/token")
            .query("api-version", METADATA_VERSION)
            .query("resource", &self.settings.resource())
            .header(HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
        if let Some(client_id) = self.client_id()? {
            call = call.query("client_id", client_id);
        }
        let response = client.send(call).await?;
        match response.status.as_u16() {
            200 => parse_token(&response.body).ok_or_else(|| no_token(client.address())),
            _ => Err(metadata_failure(&response, self, client.address())),
        }
    }

    /// The role, which tenants may write.
    fn client_id(&self) -> Result<Option<&str>, Failure> {
        match self.login.role.as_deref() {
            Some(role) if !is_guid(role) => {
                let what = "the client id of an app registration or managed identity (8-4-4-4-12 hexadecimal digits)";
                Err(invalid(format!("role {role:?} is none of Azure's: write {what}")))
            }
            role => Ok(role),
        }
    }
}

fn variable(name: &str) -> Result<SecretValue, Failure> {
    let message = || invalid(format!("{name} is not set: method environment needs it"));
    auth::environment(name).ok_or_else(message)
}

fn invalid(message: impl Into<Sentence>) -> Failure {
    Failure::new(ErrorKind::Invalid, message)
}

fn no_token(address: &Address) -> Failure {
    Failure::new(ErrorKind::Unavailable, format!("{address} answers the login with something that has no token in it"))
}
