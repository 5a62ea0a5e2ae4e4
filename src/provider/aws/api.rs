//! The part that both services share: signed calls of the JSON protocol.
//!
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use hyper::Method as HttpMethod;
use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::credentials::Issuer;
use super::errors::{CallContext, Refusal};
use super::keys::Keys;
use super::settings::{AwsSettings, Method};
use crate::provider::http::{Call, Client, Failure, Limits, Reach, secret_header, to_json};
use crate::provider::session::{Health, Outcome, Token};
use crate::provider::{Known, Login, ProviderError, Reading, Settings as _};
use crate::reference::Request;
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

/// What came of requests, by request.
pub(super) type Outcomes<'a, T> = BTreeMap<&'a Request, Result<T, Failure>>;

/// One service, and the keys that calls to it are signed with.
#[derive(Debug)]
pub(super) struct Api {
    service: &'static Service,
    issuer: Issuer,
    client: Client,
    keys: Option<Keys>,
    health: Health,
    /// What every call of this batch would meet.
    down: Option<Failure>,
}

/// With bounds of an exchange that a batch of secrets fits in.
#[must_use]
pub fn within_limits(reach: Reach) -> Reach {
    Reach { limits: Limits { body_bytes: BODY_BYTES, ..reach.limits }, ..reach }
}

// === impl Api ===

impl Api {
    pub(super) fn connect(
        service: &'static Service,
        settings: &AwsSettings,
        login: Login,
        reach: Reach,
    ) -> Result<Self, ProviderError> {
        settings.validate().map_err(ProviderError::invalid)?;
        let reach = reach.with_ca(settings.ca.as_deref());
        let issuer = match settings.auth.method {
            Method::PodIdentity => reach.client(settings.auth.agent().0)?,
            _ => reach.client(&settings.sts_endpoint())?,
        };
        let client = reach.client(&settings.endpoint(service.name))?;
        let issuer = Issuer { settings: settings.clone(), login, client: issuer, reach };
        Ok(Self { service, issuer, client, keys: None, health: Health::default(), down: None })
    }

    pub(super) async fn log_in(&self) -> Result<Token, Failure> {
        self.issuer.log_in().await
    }

    pub(super) fn use_token(&mut self, token: &SecretValue) {
        self.keys = Keys::unpack(token);
    }

    /// To be called before the calls of a batch.
    pub(super) fn begin(&mut self) {
        (self.down, self.health) = (None, Health::default());
    }

    /// Calls an operation. What the whole store would answer alike is not asked twice in a batch.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        operation: &str,
        body: &impl Serialize,
        what: &str,
    ) -> Result<T, Failure> {
        if let Some(down) = &self.down {
            return Err(down.clone());
        }
        let result = self.send(operation, &to_json(body), what).await;
        if self.health.is_down_after(result.as_ref().err()) {
            self.down = result.as_ref().err().cloned();
        }
        result
    }

    async fn send<T: DeserializeOwned>(&self, operation: &str, body: &[u8], what: &str) -> Result<T, Failure> {
        let response = self.client.send(self.signed(operation, body)?).await?;
        if response.status.as_u16() != 200 {
            return Err(self.explain(&Refusal::of(&response), operation, what));
        }
        serde_json::from_slice(&response.body).map_err(|_| self.garbage(what))
    }

    fn signed(&self, operation: &str, body: &[u8]) -> Result<Call, Failure> {
        let target = format!("{}.{operation}", self.service.target);
        let unusable = || Failure::invalid("the AWS credentials cannot be signed with: are they text?");
        let text = |value: &SecretValue| value.expose_str().map(str::to_owned).ok_or_else(unusable);
        let keys = self.keys.as_ref().ok_or_else(unusable)?;
        let token = keys.token.as_ref().map(text).transpose()?;
        let identity = Credentials::new(text(&keys.id)?, text(&keys.secret)?, token, None, "hushpod").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.issuer.settings.region)
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
        call = call.throttled_if(|response| Refusal::of(response).is_throttling());
        call = call.header(HeaderName::from_static(TARGET), HeaderValue::from_str(&target).map_err(|_| unusable())?);
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            call = call.header(name, secret_header(&value.into(), "a signature")?);
        }
        Ok(call)
    }

    /// What a refusal means.
    pub(super) fn explain(&self, refusal: &Refusal<'_>, operation: &str, what: &str) -> Failure {
        let action = format!("{}:{operation}", self.service.name);
        refusal.explain(CallContext { action: &action, what, who: self.who(), address: self.client.address() })
    }

    pub(super) fn garbage(&self, what: &str) -> Failure {
        Failure::garbage(self.client.address(), what, &format!("{}'s", self.service.title))
    }

    /// Whom AWS knows the caller as, as far as we know it.
    fn who(&self) -> &str {
        match (&self.issuer.login.role, self.issuer.settings.auth.method) {
            (Some(role), Method::WebIdentity) => role,
            (_, Method::PodIdentity) => "the role of this pod's pod identity association",
            (_, Method::Environment) => "the credentials of the environment",
            _ => "the profile's credentials",
        }
    }

    /// What came of a batch, in its order.
    pub(super) fn in_order(
        &self,
        requests: &[&Request],
        known: &Known,
        outcomes: &Outcomes<'_, Reading>,
    ) -> Vec<Outcome> {
        let outcome = |request: &&Request| match outcomes.get(*request) {
            Some(Ok(Reading::Fresh(answer))) if answer.version.as_ref() == known.get(*request) => {
                Ok(Reading::NotModified)
            }
            Some(outcome) => outcome.clone(),
            None => Err(Failure::unavailable(format!("{} left it unanswered", self.service.title))),
        };
        requests.iter().map(outcome).collect()
    }
}
