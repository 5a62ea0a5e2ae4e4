//! Azure Key Vault, Entra ID's token endpoint and a machine's metadata service, as
//! <https://learn.microsoft.com/rest/api/keyvault/secrets> (7.4),
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow> and
//! <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token> publish them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::UNIX_EPOCH;

use axum::http::Method;
use serde_json::{Value, json};

use super::server::{FakeServer, Received, Reply};

mod logins;

pub(crate) const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
pub(crate) const CLIENT_ID: &str = "6731de76-14a6-49ae-97bc-6eba6914391e";
pub(crate) const CLIENT_SECRET: &str = "canary~client~secret";
pub(crate) const ISSUER: &str = "https://oidc.example/cluster/";
pub(crate) const SUBJECT: &str = "system:serviceaccount:shop:web";
pub(crate) const AUDIENCE: &str = "api://AzureADTokenExchange";
const RESOURCE: &str = "https://vault.azure.net";

/// A vault, its authority and the machine that the client runs on.
pub(crate) struct FakeAzure {
    server: FakeServer,
    state: Arc<Mutex<World>>,
}

#[derive(Default)]
pub(crate) struct World {
    /// How much later it is here than elsewhere, in seconds.
    pub(crate) later: i64,
    /// Secrets that may be read, but whose versions may not be listed.
    pub(crate) unlisted: BTreeSet<String>,
    /// Nobody is let in from this network.
    pub(crate) has_firewall: bool,
    /// The tenant and the resource of the challenge, where they are not this vault's.
    pub(crate) challenge: Option<(String, String)>,
    /// How long tokens live.
    pub(crate) token_seconds: Option<i64>,
    counter: u64,
    tokens: BTreeMap<String, i64>,
    /// What the metadata service gives again and again.
    cached: Option<String>,
    /// By name in lower case, since names are told apart without regard to it.
    secrets: BTreeMap<String, Vec<Stored>>,
}

/// A version of a secret.
#[derive(Clone)]
pub(crate) struct Stored {
    name: String,
    pub(crate) version: String,
    value: String,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) enabled: bool,
    pub(crate) nbf: Option<i64>,
    pub(crate) exp: Option<i64>,
    created: i64,
    pub(crate) updated: i64,
}

/// The claims of a pod's projected token that it takes.
pub(crate) fn claims() -> Value {
    json!({"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE]})
}

// === impl FakeAzure ===

impl FakeAzure {
    /// What an operator writes for it, but for the type.
    pub(crate) fn settings(&self) -> Value {
        json!({"address": self.url(), "authority": self.url(), "tenant": TENANT, "ca": self.certificates.ca})
    }

    pub(crate) async fn start() -> Self {
        let state = Arc::<Mutex<World>>::default();
        let shared = Arc::clone(&state);
        let server = FakeServer::start(move |received| shared.lock().unwrap().answer(received)).await;
        Self { server, state }
    }

    /// The same machine's metadata service, which speaks no TLS.
    pub(crate) async fn start_metadata(&self) -> FakeServer {
        let shared = Arc::clone(&self.state);
        FakeServer::start_plain(move |received| shared.lock().unwrap().answer(received)).await
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.state.lock().unwrap()
    }
}

impl Deref for FakeAzure {
    type Target = FakeServer;

    fn deref(&self) -> &FakeServer {
        &self.server
    }
}

// === impl World ===

impl World {
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap() + self.later
    }

    /// Makes a version.
    pub(crate) fn put(&mut self, name: &str, value: &str) -> &mut Stored {
        self.counter += 1;
        let version = format!("{:016x}{:016x}", self.counter.wrapping_mul(0x9E37_79B9_7F4A_7C15), self.counter + 0x45);
        let now = self.now();
        let versions = self.secrets.entry(name.to_lowercase()).or_default();
        versions.push(Stored {
            name: name.to_owned(),
            version,
            value: value.to_owned(),
            content_type: None,
            enabled: true,
            nbf: None,
            exp: None,
            created: now,
            updated: now,
        });
        versions.last_mut().unwrap()
    }

    /// The versions of a secret, oldest first.
    pub(crate) fn versions(&mut self, name: &str) -> &mut Vec<Stored> {
        self.secrets.get_mut(name).unwrap()
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.secrets.remove(name);
    }

    /// No token that was made until now is accepted any more.
    pub(crate) fn end_tokens(&mut self) {
        self.tokens.clear();
        self.cached = None;
    }

    fn answer(&mut self, received: &Received) -> Reply {
        self.counter += 1;
        let request_id = format!("00000000-0000-4000-8000-{:012x}", self.counter);
        let components: Vec<_> = received.path.trim_start_matches('/').split('/').collect();
        let reply = match (&received.method, components.as_slice()) {
            (&Method::POST, [tenant, "oauth2", "v2.0", "token"]) => self.log_in(received, tenant),
            (&Method::GET, ["metadata", "identity", "oauth2", "token"]) => self.metadata_token(received),
            (_, ["secrets" | "keys" | "certificates", ..]) => self.use_vault(received, &components),
            _ => Reply::json(404, &json!({"Message": "No HTTP resource was found that matches the request URI"})),
        };
        reply
            .header("x-ms-request-id", request_id)
            .header("cache-control", "no-store, no-cache")
            .header("pragma", "no-cache")
            .header("strict-transport-security", "max-age=31536000; includeSubDomains")
            .header("x-content-type-options", "nosniff")
    }

    pub(crate) fn new_token(&mut self, life: i64) -> String {
        let name = format!("eyJ0eXAi.canary-{}", self.counter);
        let ends = self.now() + life;
        self.tokens.insert(name.clone(), ends);
        name
    }

    fn use_vault(&mut self, received: &Received, components: &[&str]) -> Reply {
        let reply = self.vault_reply(received, components).unwrap_or_else(|refusal| refusal);
        reply
            .header("x-ms-keyvault-region", "westeurope")
            .header("x-ms-keyvault-service-version", "1.9.2571.1")
            .header("x-ms-keyvault-network-info", "conn_type=Ipv4;addr=192.0.2.7;act_addr_fam=InterNetwork;")
    }

    fn vault_reply(&mut self, received: &Received, components: &[&str]) -> Result<Reply, Reply> {
        let params = received.params();
        if !params.get("api-version").is_some_and(|version| ["7.3", "7.4", "7.5", "7.6"].contains(&version.as_str())) {
            return Err(complain(400, "BadParameter", "The specified version is not recognized.", None));
        }
        self.authenticate(received)?;
        let host = received.header("host").unwrap_or_default();
        match (&received.method, components) {
            (&Method::GET, ["secrets", name, "versions"]) => self.list(host, name, &params),
            (&Method::GET, ["secrets", name] | ["secrets", name, ""]) => self.get(host, name, None),
            (&Method::GET, ["secrets", name, version]) => self.get(host, name, Some(version)),
            _ => Err(complain(405, "MethodNotAllowed", "The method is not allowed.", None)),
        }
    }

    fn authenticate(&self, received: &Received) -> Result<(), Reply> {
        let (tenant, resource) = self.challenge.clone().unwrap_or((TENANT.to_owned(), RESOURCE.to_owned()));
        let challenge =
            format!(r#"Bearer authorization="https://login.microsoftonline.com/{tenant}", resource="{resource}""#);
        let refuse = |text: &str, more: &str| {
            complain(401, "Unauthorized", text, None).header("www-authenticate", format!("{challenge}{more}"))
        };
        let Some(token) = received.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(refuse("AKV10000: Request is missing a Bearer or PoP token.", ""));
        };
        let lives = self.tokens.get(token).is_some_and(|ends| *ends > self.now());
        if !lives || self.challenge.is_some() {
            let more = r#", error="invalid_token", error_description="Error validating token: 'canary'.""#;
            return Err(refuse("[TokenExpired] Error validating token: 'canary'.", more));
        }
        if self.has_firewall {
            let text =
                "Client address is not authorized and caller is not a trusted service. Client address: 192.0.2.7";
            return Err(complain(403, "Forbidden", text, Some("ForbiddenByFirewall")));
        }
        Ok(())
    }

    fn get(&self, host: &str, name: &str, version: Option<&str>) -> Result<Reply, Reply> {
        permit(name, "getSecret")?;
        let versions = self.secrets.get(&name.to_lowercase()).map(Vec::as_slice).unwrap_or_default();
        let found = match version {
            Some(version) => versions.iter().find(|stored| stored.version == version.to_lowercase()),
            None => versions.last(),
        };
        let Some(stored) = found else {
            let text = format!(
                "A secret with (name/id) {name}/{} was not found in this key vault. If you recently deleted this secret \
                 you may be able to recover it using the correct recovery command.",
                version.unwrap_or_default()
            );
            return Err(complain(404, "SecretNotFound", &text, None));
        };
        if !stored.enabled {
            let text = "Operation get is not allowed on a disabled secret.";
            return Err(complain(403, "Forbidden", text, Some("SecretDisabled")));
        }
        let mut bundle = stored.item(host);
        bundle["value"] = json!(stored.value);
        Ok(Reply::json(200, &bundle))
    }

    fn list(&self, host: &str, name: &str, params: &BTreeMap<String, String>) -> Result<Reply, Reply> {
        permit(name, "readMetadata")?;
        if self.unlisted.contains(name) {
            return Err(forbidden(name, "readMetadata"));
        }
        let Some(size) = params.get("maxresults").map_or(Some(25), |text| text.parse().ok()).filter(|n| *n <= 25)
        else {
            return Err(complain(400, "BadParameter", "maxresults must be an integer between 1 and 25.", None));
        };
        let from = params.get("$skiptoken").map_or(0, |text| text.parse().unwrap());
        let mut versions = self.secrets.get(&name.to_lowercase()).cloned().unwrap_or_default();
        // An order that is always the same, and not that of time.
        versions.sort_by(|a, b| a.version.cmp(&b.version));
        let page: Vec<_> = versions.iter().skip(from).take(size).map(|stored| stored.item(host)).collect();
        let next = (versions.len() > from + size)
            .then(|| format!("https://{host}/secrets/{name}/versions?api-version=7.4&$skiptoken={}", from + size));
        Ok(Reply::json(200, &json!({"value": page, "nextLink": next})))
    }
}

fn permit(name: &str, action: &str) -> Result<(), Reply> {
    if name.to_lowercase().starts_with("closed") { Err(forbidden(name, action)) } else { Ok(()) }
}

// === impl Stored ===

impl Stored {
    /// All but the value.
    fn item(&self, host: &str) -> Value {
        let mut attributes = json!({"enabled": self.enabled, "created": self.created, "updated": self.updated,
            "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90});
        for (name, at) in [("nbf", self.nbf), ("exp", self.exp)] {
            if let Some(at) = at {
                attributes[name] = json!(at);
            }
        }
        let mut item = json!({"id": format!("https://{host}/secrets/{}/{}", self.name, self.version),
            "attributes": attributes, "tags": {}});
        if let Some(content_type) = self.content_type {
            item["contentType"] = json!(content_type);
        }
        item
    }
}

fn complain(status: u16, code: &str, text: &str, inner: Option<&str>) -> Reply {
    let mut error = json!({"code": code, "message": format!("{text} canary")});
    if let Some(inner) = inner {
        error["innererror"] = json!({"code": inner});
    }
    Reply::json(status, &json!({"error": error}))
}

fn forbidden(name: &str, action: &str) -> Reply {
    let text = format!(
        "Caller is not authorized to perform action on resource.\r\nAction: \
         'Microsoft.KeyVault/vaults/secrets/{action}/action'\r\nResource: '/subscriptions/x/secrets/{name}'\r\n\
         Assignment: (not found)\r\n"
    );
    complain(403, "Forbidden", &text, Some("ForbiddenByRbac"))
}
