//! The client: reads, renews, revokes.

use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};
use hyper_util::client::proxy::matcher::Matcher;
use serde::Serialize;
use zeroize::Zeroizing;

use super::VaultSettings;
use super::answer::{Envelope, former_version, number_of};
use super::complaint::{NO_NAMESPACE, foreign, store_failure};
use super::kv::Engines;
use super::session::Held;
use crate::provider::http::{Address, Call, Client, Failure, Limits, Response, Scope, says, secret_header};
use crate::provider::{
    Answer, ErrorKind, Extended, Known, Lease, Login, Pending, Provider, ProviderError, ReadResult, Reading, Session,
    Settings as _, Version,
};
use crate::reference::{Request, VERSION_PARAM};
use crate::secret::{DocumentError, SecretValue};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Vault refuses requests without it where an agent is told to, against request forgery.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// One Vault, as one pod identity sees it.
///
/// A read that is denied (403) logs in once more, since the login may have been revoked or its role given more rights;
/// [`Provider::session`] then shows another token, and the next [`Provider::extend_session`] says `Replaced`.
#[derive(Debug)]
pub struct Vault {
    pub(super) settings: VaultSettings,
    pub(super) login: Login,
    pub(super) client: Client,
    pub(super) session: Option<Held>,
    /// A read has replaced the session, and the source was not told yet.
    replaced: bool,
    pub(super) engines: Engines,
}

#[derive(Serialize)]
struct LeaseCall<'a> {
    lease_id: &'a str,
}

/// JSON that is wiped after use.
pub(super) fn to_json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // Room for a long token, so that growing leaves no copy behind.
    let mut json = Zeroizing::new(Vec::with_capacity(8 * 1024));
    // Structs of text cannot fail to become JSON; if one did, the store would refuse the empty body.
    let _ = serde_json::to_writer(&mut *json, value);
    json
}

// === impl Vault ===

impl Vault {
    /// A client that has not yet logged in.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect(settings: &VaultSettings, login: Login, proxy: &Matcher) -> Result<Self, ProviderError> {
        Self::connect_with(settings, login, Limits::default(), proxy)
    }

    /// As [`Self::connect`], with other limits than the usual.
    ///
    /// # Errors
    /// `Invalid` if a setting cannot be used.
    pub fn connect_with(
        settings: &VaultSettings,
        login: Login,
        limits: Limits,
        proxy: &Matcher,
    ) -> Result<Self, ProviderError> {
        settings.validate().map_err(|problem| ProviderError::new(ErrorKind::Invalid, problem))?;
        let address =
            Address::parse(&settings.address).map_err(|problem| ProviderError::new(ErrorKind::Invalid, problem))?;
        let client = Client::new(address, settings.ca.as_deref(), limits, proxy)?;
        let engines = Engines::default();
        Ok(Self { settings: settings.clone(), login, client, session: None, replaced: false, engines })
    }

    /// A call by whoever is logged in.
    pub(super) fn call(&self, method: Method, path: &str) -> Result<Call, Failure> {
        match &self.session {
            Some(held) => self.call_as(method, path, &held.token),
            None => self.anonymous_call(method, path),
        }
    }

    pub(super) fn call_as(&self, method: Method, path: &str, token: &SecretValue) -> Result<Call, Failure> {
        Ok(self.anonymous_call(method, path)?.header(TOKEN, secret_header(token, "Vault token")?))
    }

    pub(super) fn anonymous_call(&self, method: Method, path: &str) -> Result<Call, Failure> {
        let call = Call::new(method, format!("v1/{path}")).header(REQUEST, HeaderValue::from_static("true"));
        let Some(namespace) = &self.settings.namespace else { return Ok(call) };
        let value = HeaderValue::from_str(namespace)
            .map_err(|_| Failure::new(ErrorKind::Invalid, "namespace cannot be sent in a header"))?;
        Ok(call.header(NAMESPACE, value))
    }

    /// Sends a call. A refusal that is not Vault's own is a failure of whatever stands in front of it.
    pub(super) async fn send(&self, call: Call, what: &str) -> Result<Response, Failure> {
        let response = self.client.send(call).await?;
        match foreign(&response, self.client.address(), what) {
            Some(failure) => Err(failure),
            None => Ok(response),
        }
    }

    pub(super) fn store_failure(&self, response: &Response, what: &str) -> Failure {
        store_failure(response, self.client.address(), what)
    }

    pub(super) fn garbage(&self, what: &str) -> Failure {
        let message = format!("{} answers {what} with something that is not Vault's JSON", self.client.address());
        Failure::new(ErrorKind::Unavailable, message)
    }

    /// It is JSON, and cannot be taken.
    pub(super) fn unusable(&self, what: &str, error: &DocumentError) -> Failure {
        Failure::new(
            ErrorKind::Invalid,
            format!("{} answers {what} with a document that {error}", self.client.address()),
        )
    }

    /// The frame of a successful answer.
    pub(super) fn parse<'a>(&self, response: &'a Response, what: &str) -> Result<Envelope<'a>, Failure> {
        if response.status.as_u16() != 200 {
            return Err(self.store_failure(response, what));
        }
        serde_json::from_slice(&response.body).map_err(|_| self.garbage(what))
    }

    /// Takes a new login over; whatever the old one could not see may be in sight now.
    pub(super) fn adopt(&mut self, fresh: Held) {
        self.session = Some(fresh);
        self.engines.forget_denials();
    }

    async fn read_all(&mut self, requests: &[Request], known: &Known) -> Vec<ReadResult> {
        if self.session.as_ref().is_some_and(Held::has_ended) {
            self.session = None;
            self.replaced = true;
        }
        let was_logged_in = self.session.is_some();
        if !was_logged_in {
            match self.log_in().await {
                Ok(held) => self.adopt(held),
                Err(failure) => return requests.iter().map(|_| Err(failure.error.clone())).collect(),
            }
        }
        let mut down = None;
        let mut results = Vec::with_capacity(requests.len());
        for request in requests {
            results.push(match &down {
                Some(failure) => Err(Failure::clone(failure)),
                None => self.read_one(request, known.get(request)).await,
            });
            if let Some(Err(failure)) = results.last()
                && failure.scope == Scope::Store
            {
                down = Some(failure.clone());
            }
        }
        if was_logged_in {
            self.try_denied_again(requests, known, &mut results).await;
        }
        results.into_iter().map(|result| result.map_err(|failure| failure.error)).collect()
    }

    /// Logs in once more for what was denied. If the old login is alive and the new one sees no more, the old one and
    /// its leases stay.
    async fn try_denied_again(
        &mut self,
        requests: &[Request],
        known: &Known,
        results: &mut [Result<Reading, Failure>],
    ) {
        let is_denied = |result: &Result<_, Failure>| matches!(result, Err(f) if f.scope == Scope::Session);
        let Some(old) = self.session.clone().filter(|_| results.iter().any(is_denied)) else { return };
        let is_alive = self.is_alive(&old.token).await;
        let fresh = match (is_alive, self.settings.auth.method) {
            // The same token again would be no news.
            (Ok(true), super::Method::Token) => return,
            (Ok(is_alive), _) => self.log_in().await.map(|fresh| (is_alive, fresh)),
            (Err(failure), _) => Err(failure),
        };
        let (is_alive, fresh) = match fresh {
            Ok(found) => found,
            Err(failure) => {
                for result in results.iter_mut().filter(|result| is_denied(result)) {
                    *result = Err(failure.clone());
                }
                return;
            }
        };
        let was_replaced = std::mem::replace(&mut self.replaced, true);
        let token = fresh.token.clone();
        self.adopt(fresh);
        let mut has_gained = false;
        for (request, result) in requests.iter().zip(results.iter_mut()).filter(|(_, result)| is_denied(result)) {
            *result = self.read_one(request, known.get(request)).await;
            has_gained |= !is_denied(result);
        }
        if is_alive && !has_gained {
            self.session = Some(old);
            self.replaced = was_replaced;
            // It is one more login at the store until it ends by itself; the denial matters more.
            let _ = self.end(&token).await;
        }
    }

    async fn read_one(&mut self, request: &Request, known: Option<&Version>) -> Result<Reading, Failure> {
        let path = request.path.as_str();
        let is_write = request.params.keys().any(|name| name != VERSION_PARAM);
        let mut call = if is_write {
            self.check_writable(path).await?;
            self.call(Method::POST, path)?.json(to_json(&request.params))
        } else {
            self.call(Method::GET, path)?
        };
        let pinned = request.version().map(number_of);
        match (known, pinned) {
            // A version never changes.
            (Some(known), Some(pinned)) if number_of(&known.0) == pinned && !is_write => {
                return Ok(Reading::NotModified);
            }
            (Some(known), None) if !is_write && self.current_version(path).await?.as_ref() == Some(known) => {
                return Ok(Reading::NotModified);
            }
            _ => {}
        }
        if let Some(version) = pinned.filter(|_| !is_write) {
            call = call.query(VERSION_PARAM, version);
        }
        let response = self.send(call, path).await?;
        let answer = self.take_answer(&response, request, is_write)?;
        if known.is_some() && answer.version.as_ref() == known {
            // Only a full read could tell: metadata are out of reach, so that asking for them again is of no use.
            self.engines.unconditional.insert(path.to_owned());
            return Ok(Reading::NotModified);
        }
        Ok(Reading::Fresh(answer))
    }

    /// A KV engine would take parameters for the new values of the secret, so that they are sent only to what is known
    /// to be none. It is asked each time: what was mounted there yesterday may be another engine today.
    async fn check_writable(&mut self, path: &str) -> Result<(), Failure> {
        match self.look_up_mount(path).await? {
            Some(mount) if mount.is_kv => Err(Failure::new(
                ErrorKind::Invalid,
                format!("{path} is in a KV engine, which takes no parameter but version: leave the others out"),
            )),
            Some(_) => Ok(()),
            None if self.settings.is_writable(path) => Ok(()),
            None => Err(Failure::new(
                ErrorKind::Denied,
                format!(
                    "{path} is asked with parameters, which would overwrite a secret if a KV engine is mounted there, and \
                     this login may not see what is: allow it to read sys/internal/ui/mounts/{path}, or have the \
                     operator list the mount in writableMounts"
                ),
            )),
        }
    }

    fn take_answer(&self, response: &Response, request: &Request, is_write: bool) -> Result<Answer, Failure> {
        let path = request.path.as_str();
        let invalid = |problem| Err(Failure::new(ErrorKind::Invalid, format!("{path} {problem}")));
        match response.status.as_u16() {
            200 => {
                let answer = self.parse(response, path)?.into_answer(path);
                answer.map_err(|error| self.unusable(path, &error))?.ok_or_else(|| self.garbage(path))
            }
            204 => invalid("answers nothing that could be delivered"),
            400 if is_write && says(&response.body, "beyond the expiration of the CA") => invalid(
                "would give a certificate that outlives the one that signs it: ask for a shorter ttl, or renew the CA",
            ),
            400 if is_write => invalid("refuses these parameters: see what its engine's API takes"),
            400 => invalid("is refused as a bad request: see what its engine's API takes"),
            403 => Err(Failure { scope: Scope::Session, ..self.denied(path) }),
            404 => Err(absent(response, request)),
            405 if is_write => invalid("cannot be written to, so it takes no parameters but version"),
            405 => invalid("cannot be read, only asked with parameters, such as ?common_name=…"),
            _ => Err(self.store_failure(response, path)),
        }
    }

    fn denied(&self, path: &str) -> Failure {
        let who = match (&self.login.role, self.settings.needs_role()) {
            (Some(role), true) => format!("role {role:?} at auth/{}", self.settings.auth.mount()),
            _ => "this login".to_owned(),
        };
        let message = format!("{path} is denied to {who}: a policy of that login must allow it (or no such mount is)");
        Failure::new(ErrorKind::Denied, message)
    }

    async fn lease_call(&self, verb: &str, lease: &Lease) -> Result<Response, Failure> {
        let Some(lease_id) = lease.id.expose_str() else {
            return Err(Failure::new(ErrorKind::Invalid, "the lease is none of Vault's"));
        };
        // Without an increment, the engine's own ttl counts: one of ours could only shrink it.
        let call = self.call(Method::PUT, &format!("sys/leases/{verb}"))?.json(to_json(&LeaseCall { lease_id }));
        self.send(call, &format!("sys/leases/{verb}")).await
    }

    async fn renew_lease(&mut self, lease: &Lease) -> Result<Lease, Failure> {
        let name = lease_name(lease);
        if !lease.renewable {
            return Err(Failure::new(ErrorKind::Invalid, format!("the lease of {name} cannot be renewed")));
        }
        let response = self.lease_call("renew", lease).await?;
        match response.status.as_u16() {
            400 if says(&response.body, "not renewable") => {
                Err(Failure::new(ErrorKind::Invalid, format!("the lease of {name} cannot be renewed")))
            }
            400 | 404 => {
                Err(Failure::new(ErrorKind::NotFound, format!("the lease of {name} has ended or was revoked")))
            }
            403 => Err(self.denied("sys/leases/renew")),
            _ => {
                let what = format!("the renewal of the lease of {name}");
                let Envelope { lease_id, lease_duration, renewable, .. } = self.parse(&response, &what)?;
                let ttl = std::time::Duration::from_secs(lease_duration);
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
            _ => Err(self.store_failure(&response, &format!("the end of the lease of {}", lease_name(lease)))),
        }
    }
}

impl Provider for Vault {
    fn read<'a>(&'a mut self, requests: &'a [Request], known: &'a Known) -> Pending<'a, Vec<ReadResult>> {
        Box::pin(self.read_all(requests, known))
    }

    fn renew<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<Lease, ProviderError>> {
        Box::pin(async move { self.renew_lease(lease).await.map_err(|failure| failure.error) })
    }

    fn revoke<'a>(&'a mut self, lease: &'a Lease) -> Pending<'a, Result<(), ProviderError>> {
        Box::pin(async move { self.revoke_lease(lease).await.map_err(|failure| failure.error) })
    }

    fn session(&self) -> Option<Session> {
        self.session.as_ref().map(Session::from)
    }

    fn resume(&mut self, session: Session) {
        self.adopt(session.into());
    }

    fn extend_session(&mut self) -> Pending<'_, Result<Extended, ProviderError>> {
        Box::pin(async move {
            let extended = self.extend().await.map_err(|failure| failure.error)?;
            let was_replaced = std::mem::take(&mut self.replaced);
            Ok(if was_replaced { Extended::Replaced } else { extended })
        })
    }

    fn end_session(&mut self) -> Pending<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            let Some(held) = self.session.take() else { return Ok(()) };
            self.end(&held.token).await.map_err(|failure| failure.error)
        })
    }
}

fn absent(response: &Response, request: &Request) -> Failure {
    let path = &request.path;
    if says(&response.body, NO_NAMESPACE) {
        let message = format!("{path}: there is no such namespace: check the provider's namespace");
        return Failure::new(ErrorKind::Invalid, message);
    }
    let message = if says(&response.body, "versioned K/V") {
        format!("{path} is in a KV version 2 engine: write <mount>/data/<path>")
    } else if says(&response.body, "no handler for route") {
        format!("{path}: no engine is mounted there")
    } else {
        match (former_version(&response.body), request.version()) {
            (Some(former), _) => format!("{path}: {former}"),
            (None, Some(version)) => format!("{path} has no version {}", number_of(version)),
            (None, None) => format!("{path} does not exist"),
        }
    };
    Failure::new(ErrorKind::NotFound, message)
}

/// The part of a lease id that is no secret: what it was made from.
fn lease_name(lease: &Lease) -> &str {
    lease.id.expose_str().and_then(|id| id.rsplit_once('/')).map_or("this request", |(path, _)| path)
}
