//! Logging in.

use hyper::Method as HttpMethod;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::errors::{CallContext, login_failure, metadata_failure};
use super::settings::{AzureAuth, AzureSettings, Method, is_tenant};
use crate::parse_error::invalid;
use crate::provider::auth::oauth::{Whole, ask_for_token, tell_login};
use crate::provider::auth::tool::Tool;
use crate::provider::http::{Address, Call, Failure, Reach, date};
use crate::provider::names::is_uuid;
use crate::provider::session::{Renewal, Token};
use crate::provider::{Login, auth};
use crate::secret::SecretValue;

/// A machine's own metadata service; it answers none but the machine.
const METADATA: &str = "http://169.254.169.254";
const METADATA_VERSION: &str = "2018-02-01";

const CLIENT_ID_VARIABLE: &str = "AZURE_CLIENT_ID";

/// RFC 7523, 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What `az` prints.
///
/// <https://learn.microsoft.com/cli/azure/account#az-account-get-access-token>
#[derive(Deserialize)]
struct AzToken {
    #[serde(rename = "accessToken")]
    access_token: SecretValue,
    /// Seconds since 1970; before 2.54 there is only a time in a zone that it does not name.
    #[serde(default)]
    expires_on: Option<Whole>,
}

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
        Method::Cli => account(),
        Method::ManagedIdentity => None,
    }
}

/// Who is logged in, as `az` has it, with the subscription that is in use.
fn account() -> Option<SecretValue> {
    let directory = auth::settings_directory("AZURE_CONFIG_DIR", ".azure")?;
    auth::secret_file(&directory.join("azureProfile.json"), "az's accounts").ok()
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
            Method::Cli => self.by_cli().await?,
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

    async fn by_cli(&self) -> Result<Token, Failure> {
        let mut arguments: Vec<_> = ["account", "get-access-token", "--output=json"].map(str::to_owned).into();
        // In one word with its option: what begins with '-' is no option of its own.
        arguments.push(format!("--resource={}", self.settings.resource()));
        let tenant = self.settings.tenant.as_deref();
        arguments.extend(tenant.map(|tenant| format!("--tenant={tenant}")));
        let login = tenant.map_or_else(|| "az login".to_owned(), |tenant| format!("az login --tenant {tenant}"));
        let environment = &[("AZURE_CORE_COLLECT_TELEMETRY", "false"), ("AZURE_CORE_NO_COLOR", "true")];
        let tool = Tool { program: "az", arguments, environment, login };
        let printed = tool.print().await?;
        taken(&printed).ok_or_else(|| Failure::from(tool.no_login("az prints something other than a token")))
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

/// The token that `az` prints, if it is one that has yet to end.
fn taken(printed: &SecretValue) -> Option<Token> {
    let AzToken { access_token, expires_on } = serde_json::from_slice(printed.expose()).ok()?;
    let life = match expires_on {
        Some(Whole(seconds)) => Some(date::until(seconds.checked_mul(1000)?)?),
        None => None,
    };
    (!access_token.is_empty()).then(|| Token::new(access_token, life, Renewal::Never))
}

fn variable(name: &str) -> Result<SecretValue, Failure> {
    let message = || Failure::invalid(format!("{name} is not set: method environment needs it"));
    auth::environment(name).ok_or_else(message)
}
