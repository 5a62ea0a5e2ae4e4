//! Logging in.

use hyper::Method as HttpMethod;
use hyper::header::{HeaderName, HeaderValue};

use super::errors::{CallContext, login_failure, metadata_failure};
use super::settings::{AzureAuth, AzureSettings, Method, is_tenant};
use crate::parse_error::invalid;
use crate::provider::auth::oauth::{ask_for_token, tell_login};
use crate::provider::http::{Address, Call, Failure, Reach};
use crate::provider::names::is_uuid;
use crate::provider::session::Token;
use crate::provider::{Login, auth};
use crate::secret::SecretValue;

/// A machine's own metadata service; it answers none but the machine.
const METADATA: &str = "http://169.254.169.254";
const METADATA_VERSION: &str = "2018-02-01";

const CLIENT_ID_VARIABLE: &str = "AZURE_CLIENT_ID";

/// RFC 7523, 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Who logs in, and how.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) settings: AzureSettings,
    pub(super) login: Login,
    pub(super) reach: Reach,
}

/// What tells a login from another one.
pub(super) fn credential(settings: &AzureAuth) -> Option<SecretValue> {
    match settings.method {
        Method::WorkloadIdentity => auth::secret_file(settings.token_file.as_deref()?, "JWT").ok(),
        Method::Environment => auth::environment(CLIENT_ID_VARIABLE),
        Method::ManagedIdentity => None,
    }
}

// === impl Issuer ===

impl Issuer {
    /// For messages about a call to that address.
    pub(super) fn asked<'a>(&'a self, address: &'a Address) -> CallContext<'a> {
        CallContext { settings: &self.settings, role: self.login.role.as_deref(), address }
    }

    /// Logs in, whatever login is held.
    pub(super) async fn log_in(&self) -> Result<Token, Failure> {
        let token = match self.settings.auth.method {
            Method::WorkloadIdentity => self.by_assertion().await?,
            Method::ManagedIdentity => self.by_metadata().await?,
            Method::Environment => self.by_environment().await?,
        };
        tell_login("Entra ID", &self.login.provider, self.settings.auth.method, &token);
        Ok(token)
    }

    /// <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow#third-case-access-token-request-with-a-federated-credential>
    async fn by_assertion(&self) -> Result<Token, Failure> {
        let jwt = auth::proof(&self.login, self.settings.auth.token_file.as_deref())?;
        let tenant = self.settings.tenant.as_deref().ok_or_else(|| Failure::invalid("tenant is missing"))?;
        let no_role = || Failure::invalid("the role, which is the client id, is missing");
        let client_id = self.client_id()?.ok_or_else(no_role)?;
        let assertion = [("client_assertion_type", JWT_BEARER), ("client_assertion", auth::text(&jwt, "JWT")?)];
        self.ask_authority(tenant, client_id, &assertion).await
    }

    async fn by_environment(&self) -> Result<Token, Failure> {
        let tenant = match &self.settings.tenant {
            Some(tenant) => SecretValue::from(tenant.as_str()),
            None => variable("AZURE_TENANT_ID")?,
        };
        let (client_id, secret) = (variable(CLIENT_ID_VARIABLE)?, variable("AZURE_CLIENT_SECRET")?);
        let tenant = auth::text(&tenant, "AZURE_TENANT_ID")?;
        if !is_tenant(tenant) {
            return Err(Failure::invalid("invalid AZURE_TENANT_ID: expected the directory's id or domain"));
        }
        let secret = [("client_secret", auth::text(&secret, "AZURE_CLIENT_SECRET")?)];
        self.ask_authority(tenant, auth::text(&client_id, CLIENT_ID_VARIABLE)?, &secret).await
    }

    async fn ask_authority(&self, tenant: &str, client_id: &str, proof: &[(&str, &str)]) -> Result<Token, Failure> {
        let client = self.reach.client(self.settings.authority())?;
        let scope = self.settings.scope();
        let form = [("client_id", client_id), ("scope", &scope), ("grant_type", "client_credentials")];
        let form = [form.as_slice(), proof].concat();
        let call = Call::new(HttpMethod::POST, format!("{tenant}/oauth2/v2.0/token")).form(&form);
        ask_for_token(&client, call, |refusal| login_failure(refusal, self.asked(client.address()))).await
    }

    /// <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#get-a-token-using-http>
    async fn by_metadata(&self) -> Result<Token, Failure> {
        let client = self.reach.client(self.settings.auth.metadata.as_deref().unwrap_or(METADATA))?;
        let mut call = Call::new(HttpMethod::GET, "metadata/identity/oauth2/token")
            .query("api-version", METADATA_VERSION)
            .query("resource", &self.settings.resource())
            .header(HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
        if let Some(client_id) = self.client_id()? {
            call = call.query("client_id", client_id);
        }
        ask_for_token(&client, call, |refusal| metadata_failure(refusal, self.asked(client.address()))).await
    }

    /// The role, which tenants may write.
    fn client_id(&self) -> Result<Option<&str>, Failure> {
        match self.login.role.as_deref() {
            Some(role) if !is_uuid(role) => {
                let what = "the client id of an app registration or managed identity (8-4-4-4-12 hexadecimal digits)";
                Err(Failure::invalid(invalid("role", role, what)))
            }
            role => Ok(role),
        }
    }
}

fn variable(name: &str) -> Result<SecretValue, Failure> {
    let message = || Failure::invalid(format!("{name} is not set: method environment needs it"));
    auth::environment(name).ok_or_else(message)
}
