//! The store: reads, renews, revokes.

use std::time::Duration;

use hyper::Method;
use serde::Serialize;

use super::api::Api;
use super::api_types::{Envelope, former_version, number_of};
use super::errors::NO_NAMESPACE;
use super::kv::{Engines, look_up_mount};
use super::login::{Issuer, is_alive, renew};
use super::settings::VaultSettings;
use crate::provider::http::{Failure, Reach, Response, Scope};
use crate::provider::session::{LoggedIn, Outcome, Store, Token, Worth};
use crate::provider::{Answer, Lease, Login, ProviderError, Reading, Settings as _, Version};
use crate::reference::{Request, VERSION_PARAM};
use crate::secret::SecretValue;

/// One Vault, as one pod identity sees it.
///
/// A read that is denied (403) logs in once more, since the login may have been revoked or its role given more rights.
pub type Vault = LoggedIn<VaultStore>;

/// What is Vault's own.
#[derive(Debug)]
pub struct VaultStore {
    settings: VaultSettings,
    issuer: Issuer,
    api: Api,
    engines: Engines,
}

#[derive(Serialize)]
struct LeaseCall<'a> {
    lease_id: &'a str,
}

// === impl Vault ===

impl Vault {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &VaultSettings, login: Login, reach: Reach) -> Result<Self, ProviderError> {
        settings.validate().map_err(ProviderError::invalid)?;
        let client = reach.with_ca(settings.ca.as_deref()).client(&settings.address)?;
        let api = Api { client, namespace: settings.namespace.clone(), token: None };
        let issuer = Issuer { auth: settings.auth.clone(), login };
        Ok(Self::new(VaultStore { settings: settings.clone(), issuer, api, engines: Engines::default() }))
    }
}

// === impl VaultStore ===

impl VaultStore {
    /// A KV engine would take parameters for the new values of the secret, so they are sent only to what is known
    /// to be none. It is asked each time: what was mounted there yesterday may be another engine today.
    async fn check_writable(&self, path: &str) -> Result<(), Failure> {
        match look_up_mount(&self.api, path).await? {
            Some(mount) if mount.is_kv => Err(Failure::invalid(format!(
                "{path} is in a KV engine, which takes no parameter but version: leave the others out"
            ))),
            Some(_) => Ok(()),
            None if self.settings.is_writable(path) => Ok(()),
            None => Err(Failure::denied(format!(
                "{path} is asked with parameters, which would overwrite a secret if a KV engine is mounted there, and \
                     this login may not see what is: allow it to read sys/internal/ui/mounts/{path}, or have the \
                     operator list the mount in writableMounts"
            ))),
        }
    }

    fn take_answer(&self, response: &Response, request: &Request, is_write: bool) -> Result<Answer, Failure> {
        let path = request.path.as_str();
        let invalid = |problem| Err(Failure::invalid(format!("{path} {problem}")));
        match response.status.as_u16() {
            200 => {
                let answer = self.api.parse(response, path)?.into_answer(path);
                answer.map_err(|error| self.api.unusable(path, &error))?.ok_or_else(|| self.api.garbage(path))
            }
            204 => invalid("answers nothing that could be delivered"),
            400 if is_write && response.contains("beyond the expiration of the CA") => invalid(
                "would give a certificate that outlives the one that signs it: ask for a shorter ttl, or renew the CA",
            ),
            400 if is_write => invalid("refuses these parameters: see what its engine's API takes"),
            400 => invalid("is refused as a bad request: see what its engine's API takes"),
            403 => Err(self.denied(path).with(Scope::Right)),
            404 => Err(absent(response, request)),
            405 if is_write => invalid("cannot be written to, so it takes no parameters but version"),
            405 => invalid("cannot be read, only asked with parameters, such as ?common_name=…"),
            _ => Err(self.api.store_failure(response, path)),
        }
    }

    fn denied(&self, path: &str) -> Failure {
        let who = match (&self.issuer.login.role, self.settings.needs_role()) {
            (Some(role), true) => format!("role {role:?} at auth/{}", self.settings.auth.mount()),
            _ => "this login".to_owned(),
        };
        let message = format!("{path} is denied to {who}: a policy of that login must allow it (or no such mount is)");
        Failure::denied(message)
    }

    async fn lease_call(&self, verb: &str, lease: &Lease) -> Result<Response, Failure> {
        let Some(lease_id) = lease.id.expose_str() else {
            return Err(Failure::invalid("the lease is not Vault's"));
        };
        // Without an increment, the engine's own ttl counts: one of ours could only shrink it.
        let path = format!("sys/leases/{verb}");
        self.api.send(self.api.call(Method::PUT, &path)?.json(&LeaseCall { lease_id }), &path).await
    }
}

impl Store for VaultStore {
    const KEEPS_LOGINS: bool = true;

    async fn log_in(&mut self) -> Result<Token, Failure> {
        self.issuer.log_in(&self.api).await
    }

    fn use_token(&mut self, token: &SecretValue) {
        self.api.token = Some(token.clone());
        self.engines.forget_denials();
    }

    async fn read_one(&mut self, request: &Request, known: Option<&Version>) -> Outcome {
        let path = request.path.as_str();
        let is_write = request.params.keys().any(|name| name != VERSION_PARAM);
        let mut call = if is_write {
            self.check_writable(path).await?;
            self.api.call(Method::POST, path)?.json(&request.params)
        } else {
            self.api.call(Method::GET, path)?
        };
        let pinned = request.version().map(number_of);
        match (known, pinned) {
            // A version never changes.
            (Some(known), Some(pinned)) if number_of(&known.0) == pinned && !is_write => {
                return Ok(Reading::NotModified);
            }
            (Some(known), None)
                if !is_write && self.engines.current_version(&self.api, path).await?.as_ref() == Some(known) =>
            {
                return Ok(Reading::NotModified);
            }
            _ => {}
        }
        if let Some(version) = pinned.filter(|_| !is_write) {
            call = call.query(VERSION_PARAM, version);
        }
        let response = self.api.send(call, path).await?;
        let answer = self.take_answer(&response, request, is_write)?;
        if known.is_some() && answer.version.as_ref() == known {
            // Only a full read could tell: metadata are out of reach, so asking for them again is of no use.
            self.engines.deny_metadata(path);
            return Ok(Reading::NotModified);
        }
        Ok(Reading::Fresh(answer))
    }

    async fn renew(&mut self, token: &Token) -> Result<Option<Token>, Failure> {
        renew(&self.api, token).await
    }

    async fn worth(&mut self, token: &Token) -> Result<Worth, Failure> {
        Ok(match (is_alive(&self.api, &token.value).await?, self.settings.auth.method) {
            (true, super::Method::Token) => Worth::Only,
            (true, _) => Worth::Alive,
            (false, _) => Worth::Nothing,
        })
    }

    async fn end(&mut self, token: &SecretValue) -> Result<(), Failure> {
        self.issuer.end(&self.api, token).await
    }

    async fn renew_lease(&mut self, lease: &Lease) -> Result<Lease, Failure> {
        if !lease.renewable {
            return Err(Failure::invalid("the lease cannot be renewed"));
        }
        let response = self.lease_call("renew", lease).await?;
        match response.status.as_u16() {
            400 if response.contains("not renewable") => Err(Failure::invalid("the lease cannot be renewed")),
            400 | 404 => Err(Failure::not_found("the lease has ended or was revoked")),
            403 => Err(self.denied("sys/leases/renew")),
            _ => {
                let Envelope { lease_id, lease_duration, renewable, .. } =
                    self.api.parse(&response, "sys/leases/renew")?;
                let ttl = Duration::from_secs(lease_duration);
                let id = lease_id.filter(|id| !id.is_empty()).unwrap_or_else(|| lease.id.clone());
                Ok(Lease { id, ttl, renewable })
            }
        }
    }

    async fn revoke_lease(&mut self, lease: &Lease) -> Result<(), Failure> {
        let response = self.lease_call("revoke", lease).await?;
        match response.status.as_u16() {
            // One that Vault does not know has ended already.
            200 | 204 | 400 | 404 => Ok(()),
            403 => Err(self.denied("sys/leases/revoke")),
            _ => Err(self.api.store_failure(&response, "sys/leases/revoke")),
        }
    }
}

fn absent(response: &Response, request: &Request) -> Failure {
    let path = &request.path;
    if response.contains(NO_NAMESPACE) {
        return Failure::invalid(format!("{path}: there is no such namespace: check the provider's namespace"));
    }
    let message = if response.contains("versioned K/V") {
        format!("{path} is in a KV version 2 engine: write <mount>/data/<path>")
    } else if response.contains("no handler for route") {
        format!("{path}: no engine is mounted there")
    } else {
        match (former_version(&response.body), request.version()) {
            (Some(former), _) => format!("{path}: {former}"),
            (None, Some(version)) => format!("{path} has no version {}", number_of(version)),
            (None, None) => format!("{path} does not exist"),
        }
    };
    Failure::not_found(message)
}
