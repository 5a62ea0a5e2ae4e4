//! What both services have in common: a session, signed calls of the JSON protocol, and logging in again.
//!
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use hyper::Method as HttpMethod;
use hyper::header::{HeaderName, HeaderValue};
use hyper_util::client::proxy::matcher::Matcher;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::complaint::{Asked, Complaint};
use super::credentials::{Held, Issuer, Keys};
use super::{AwsSettings, Method};
use crate::provider::http::{Address, Call, Client, Failure, Limits, Scope, secret_header};
use crate::provider::{ErrorKind, Extended, Login, ProviderError, Session};
use crate::secret::SecretValue;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const TARGET: &str = "x-amz-target";

/// Twenty secrets of 64 KiB, with every other character escaped.
const BODY_BYTES: usize = 3 * 1024 * 1024;

/// A service's names.
#[derive(Debug)]
pub(super) struct Service {
    /// In host names, signatures and IAM actions.
    pub(super) name: &'static str,
    /// Before the operation in `X-Amz-Target`.
    pub(super) target: &'static str,
    /// As people call it.
    pub(super) title: &'static str,
}

/// One service, as one pod identity sees it.
#[derive(Debug)]
pub(super) struct Api {
    service: &'static Service,
    settings: AwsSettings,
    login: Login,
    client: Client,
    /// STS, or the agent on the node; methods without either have STS.
    issuer: Client,
    session: Option<Held>,
    /// A call has replaced the session, and the source was not told yet.
    replaced: bool,
    /// The batch may log in once more.
    may_log_in: bool,
    /// What every call of this batch would meet.
    down: Option<Failure>,
    /// How many logins there were: what was denied to one may be allowed to the next.
    pub(super) logins: u64,
}

/// Bounds of an exchange, where nobody sets others.
pub(super) fn limits() -> Limits {
    Limits { body_bytes: BODY_BYTES, ..Limits::default() }
}

// === impl Api ===

impl Api {
    pub(super) fn connect(
        service: &'static Service,
        settings: &AwsSettings,
        login: Login,
        limits: Limits,
        proxy: &Matcher,
    ) -> Result<Self, ProviderError> {
        let invalid = |problem| ProviderError::new(ErrorKind::Invalid, problem);
        settings.validate().map_err(invalid)?;
        let client = |address: &str| {
            let address = Address::parse(address).map_err(invalid)?;
            Client::new(address, settings.ca.as_deref(), limits, proxy)
        };
        let issuer = match settings.auth.method {
            Method::PodIdentity => client(settings.auth.agent().0)?,
            _ => client(&settings.sts_endpoint())?,
        };
        Ok(Self {
            service,
            settings: settings.clone(),
            login,
            client: client(&settings.endpoint(service.name))?,
            issuer,
            session: None,
            replaced: false,
            may_log_in: false,
            down: None,
            logins: 0,
        })
    }

    /// To be called before the calls of a batch.
    pub(super) fn begin(&mut self) {
        self.down = None;
        if self.session.as_ref().is_some_and(Held::has_ended) {
            self.session = None;
            self.replaced = true;
        }
        // A login of this batch is as good as the next one would be.
        self.may_log_in = self.session.is_some();
    }

    /// Calls an operation. Logs in first if there is no session, and once more if AWS no longer knows it; what the whole
    /// store would answer alike is not asked twice in a batch.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        operation: &str,
        body: &impl Serialize,
        what: &str,
    ) -> Result<T, Failure> {
        if let Some(down) = &self.down {
            return Err(down.clone());
        }
        let result = self.try_call(operation, body, what).await;
        if let Err(failure) = &result
            && failure.scope != Scope::Call
        {
            self.down = Some(failure.clone());
        }
        result
    }

    async fn try_call<T: DeserializeOwned>(
        &mut self,
        operation: &str,
        body: &impl Serialize,
        what: &str,
    ) -> Result<T, Failure> {
        let held = match self.session.clone() {
            Some(held) => held,
            None => self.log_in().await?,
        };
        let body = to_json(body);
        let failure = match self.send(operation, &body, what, &held.keys).await {
            Err(failure) if failure.scope == Scope::Session && self.may_log_in => failure,
            result => return result,
        };
        self.may_log_in = false;
        let fresh = self.get_credentials().await?;
        if fresh.keys == held.keys {
            // The same again would be no news.
            return Err(failure);
        }
        self.replaced = true;
        self.adopt(fresh.clone());
        self.send(operation, &body, what, &fresh.keys).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        operation: &str,
        body: &[u8],
        what: &str,
        keys: &Keys,
    ) -> Result<T, Failure> {
        let call = self.signed(operation, body, keys)?;
        let response = self.client.send(call).await?;
        if response.status.as_u16() != 200 {
            return Err(self.explain(&Complaint::of(&response), operation, what));
        }
        serde_json::from_slice(&response.body).map_err(|_| self.garbage(what))
    }

    fn signed(&self, operation: &str, body: &[u8], keys: &Keys) -> Result<Call, Failure> {
        let target = format!("{}.{operation}", self.service.target);
        let unusable = || Failure::new(ErrorKind::Invalid, "the AWS credentials cannot be signed with: are they text?");
        let text = |value: &SecretValue| value.expose_str().map(str::to_owned).ok_or_else(unusable);
        let token = keys.token.as_ref().map(text).transpose()?;
        let identity = Credentials::new(text(&keys.id)?, text(&keys.secret)?, token, None, "hushpod").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.settings.region)
            .name(self.service.name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| unusable())?
            .into();
        let headers = [("content-type", CONTENT_TYPE), (TARGET, target.as_str())];
        let url = format!("{}/", self.client.address());
        let request = SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(body));
        let signature = request.and_then(|request| sign(request, &params)).map_err(|_| unusable())?;
        let (instructions, _) = signature.into_parts();
        let mut call = Call::new(HttpMethod::POST, "").body(Zeroizing::new(body.to_vec()), CONTENT_TYPE);
        call = call.header(HeaderName::from_static(TARGET), HeaderValue::from_str(&target).map_err(|_| unusable())?);
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            call = call.header(name, secret_header(&value.into(), "a signature")?);
        }
        Ok(call)
    }

    /// What a refusal means.
    pub(super) fn explain(&self, complaint: &Complaint<'_>, operation: &str, what: &str) -> Failure {
        let action = format!("{}:{operation}", self.service.name);
        complaint.explain(Asked { action: &action, what, who: self.who(), address: self.client.address() })
    }

    pub(super) fn garbage(&self, what: &str) -> Failure {
        let message = format!(
            "{} answers {what} with something that is not {}'s JSON",
            self.client.address(),
            self.service.title
        );
        Failure::new(ErrorKind::Unavailable, message)
    }

    /// Whom AWS knows the caller as, as far as we know it.
    fn who(&self) -> &str {
        match (&self.login.role, self.settings.auth.method) {
            (Some(role), Method::WebIdentity) => role,
            (_, Method::PodIdentity) => "the role of this pod's pod identity association",
            (_, Method::Environment) => "the credentials of the environment",
            _ => "the profile's credentials",
        }
    }

    async fn get_credentials(&self) -> Result<Held, Failure> {
        let issuer = Issuer { settings: &self.settings, login: &self.login, client: &self.issuer };
        let held = issuer.credentials().await.map_err(|failure| Failure { scope: Scope::Store, ..failure })?;
        tracing::info!(provider = %self.login.provider, method = self.settings.auth.method.as_str(),
            life_seconds = held.seconds(), "logged in to AWS");
        Ok(held)
    }

    async fn log_in(&mut self) -> Result<Held, Failure> {
        let held = self.get_credentials().await?;
        self.adopt(held.clone());
        Ok(held)
    }

    /// Takes a new login over.
    fn adopt(&mut self, held: Held) {
        self.session = Some(held);
        self.logins += 1;
    }

    pub(super) fn session(&self) -> Option<Session> {
        self.session.as_ref().map(Session::from)
    }

    pub(super) fn resume(&mut self, session: &Session) {
        if let Some(held) = Held::unpack(session) {
            self.adopt(held);
        }
    }

    /// Logs in anew, since credentials cannot be renewed.
    pub(super) async fn extend(&mut self) -> Result<Extended, ProviderError> {
        let was_replaced = std::mem::take(&mut self.replaced);
        if self.session.as_ref().is_some_and(|held| held.ends.is_none()) {
            return Ok(if was_replaced { Extended::Replaced } else { Extended::Renewed });
        }
        self.log_in().await.map_err(|failure| failure.error)?;
        Ok(Extended::Replaced)
    }
}

/// JSON that is wiped after use.
fn to_json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut json = Zeroizing::new(Vec::new());
    // Structs of text cannot fail to become JSON; if one did, the store would refuse the empty body.
    let _ = serde_json::to_writer(&mut *json, value);
    json
}
