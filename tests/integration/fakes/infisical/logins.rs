//! Machine identities, their logins and tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::server::Reply;
use super::super::token;
use super::{Answer, Call, Limited, Server, Year, error, unauthorized};

/// A machine identity: how it logs in, how long that lasts, and what it may read.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Kubernetes auth: namespaces, service accounts, audience; empty lists allow all.
    /// Kubernetes auth: whether it has a token that may review others, and the authority of the cluster's API server.
    pub(crate) has_reviewer: bool,
    pub(crate) has_ca: bool,
    pub(crate) namespaces: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) audience: String,
    /// OIDC and JWT auth.
    pub(crate) subject: String,
    /// Universal auth.
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    /// Seconds.
    pub(crate) ttl: u64,
    pub(crate) max_ttl: u64,
    /// Seconds; above 0 for tokens that can be renewed for ever.
    pub(crate) period: u64,
    /// Environment, folder prefix, and what may be done there; the longest prefix counts.
    pub(crate) rights: Vec<(String, String, Rights)>,
    /// Whether it may subscribe to events.
    pub(crate) may_subscribe: bool,
    /// Slug of the organization that it has to name.
    pub(crate) organization: Option<String>,
}

/// What may be done with secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    Nothing,
    /// Know that they are there.
    Describe,
    Read,
}

#[derive(Default)]
pub(super) struct Logins {
    pub(super) identities: BTreeMap<String, Identity>,
    tokens: BTreeMap<String, Token>,
    /// Wrong secrets of late, by client id, and until when it is locked.
    wrong: BTreeMap<String, (Vec<Duration>, Duration)>,
    /// Failed logins by universal auth.
    pub(super) refusals: u64,
}

#[derive(Debug, Clone)]
struct Token {
    identity: String,
    created: Duration,
    ends: Option<Duration>,
    is_revoked: bool,
}

// === impl Identity ===

impl Default for Identity {
    fn default() -> Self {
        Self {
            has_reviewer: true,
            has_ca: true,
            namespaces: vec!["shop".to_owned()],
            names: vec!["web".to_owned()],
            audience: "infisical".to_owned(),
            subject: "system:serviceaccount:shop:web".to_owned(),
            client_id: "client-canary-id".to_owned(),
            client_secret: "client-canary-secret".to_owned(),
            ttl: 3600,
            max_ttl: 24 * 3600,
            period: 0,
            rights: vec![("prod".to_owned(), "/".to_owned(), Rights::Read)],
            may_subscribe: true,
            organization: None,
        }
    }
}

// === impl Server ===

impl Server {
    pub(crate) fn set_identity(&mut self, id: &str, identity: Identity) {
        self.logins.identities.insert(id.to_owned(), identity);
    }

    /// Changes an identity.
    pub(crate) fn identity(&mut self, id: &str) -> &mut Identity {
        self.logins.identities.get_mut(id).unwrap()
    }

    /// Revokes every token.
    pub(crate) fn revoke_tokens(&mut self) {
        self.logins.tokens.values_mut().for_each(|token| token.is_revoked = true);
    }

    /// Lets every token's life be over, and nothing else.
    pub(crate) fn expire_tokens(&mut self) {
        let now = self.now();
        self.logins.tokens.values_mut().for_each(|token| token.ends = Some(now));
    }

    /// A token for an identity, as one made elsewhere.
    pub(crate) fn make_token(&mut self, identity: &str) -> String {
        let ttl = self.logins.identities[identity].ttl;
        let created = self.now();
        self.issue(identity, created, ttl)
    }

    /// How many tokens live.
    pub(crate) fn live_tokens(&self) -> usize {
        let now = self.now();
        let lives = |token: &&Token| !token.is_revoked && token.ends.is_none_or(|ends| ends > now);
        self.logins.tokens.values().filter(lives).count()
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.logins.refusals
    }

    pub(super) fn log_in(&mut self, method: &str, call: &Call<'_>) -> Answer {
        let id = match method {
            "universal-auth" => self.check_client(call)?,
            "kubernetes-auth" => self.check_pod(call)?,
            "oidc-auth" | "jwt-auth" => self.check_jwt(call, method)?,
            _ => return Err(error(404, "Not Found", "Route POST:/api/v1/auth not found")),
        };
        let identity = &self.logins.identities[&id];
        if identity.organization.is_some() && identity.organization.as_deref() != call.body["organizationSlug"].as_str()
        {
            return Err(unauthorized("Organization not found"));
        }
        let ttl = if identity.period > 0 { identity.period } else { identity.ttl };
        let created = self.now();
        let token = self.issue(&id, created, ttl);
        Ok(self.granted(&id, &token, ttl))
    }

    fn granted(&self, id: &str, token: &str, expires_in: u64) -> Reply {
        let identity = &self.logins.identities[id];
        let max_ttl = if identity.period > 0 { 1_000_000_000 } else { identity.max_ttl };
        Reply::json(
            200,
            &json!({"accessToken": token, "expiresIn": expires_in, "accessTokenMaxTTL": max_ttl, "tokenType": "Bearer"}),
        )
    }

    fn issue(&mut self, identity: &str, created: Duration, ttl: u64) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let id = self.next_id();
        let now = self.now().as_secs();
        let mut claims = json!({"identityId": identity, "identityAccessTokenId": id, "clientSecretId": "",
            "authTokenType": "identityAccessToken", "iat": now});
        if ttl > 0 {
            claims["exp"] = json!(now + ttl);
        }
        let message = format!("{}.{}", encode(&json!({"alg": "HS256", "typ": "JWT"})), encode(&claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"signing key"), message.as_bytes());
        // A signature that tests can find where it must not be.
        let token = format!("{message}.canary{}", URL_SAFE_NO_PAD.encode(tag));
        let ends = (ttl > 0).then(|| self.now() + Duration::from_secs(ttl));
        let entry = Token { identity: identity.to_owned(), created, ends, is_revoked: false };
        self.logins.tokens.insert(token.clone(), entry);
        token
    }

    fn check_client(&mut self, call: &Call<'_>) -> Result<String, Reply> {
        let now = self.now();
        let (client_id, secret) = (call.text("clientId").to_owned(), call.text("clientSecret"));
        let found = self.logins.identities.iter().find(|(_, identity)| identity.client_id == client_id);
        let Some((id, identity)) = found else {
            return Err(match self.year {
                Year::Y2024 => error(404, "NotFound", "No identity universal auth found with that client ID"),
                _ => unauthorized("Invalid credentials"),
            });
        };
        let (id, is_right) = (id.clone(), identity.client_secret == secret);
        let (times, locked_until) = self.logins.wrong.entry(client_id).or_default();
        if *locked_until > now {
            self.logins.refusals += 1;
            return Err(unauthorized("This identity auth method is temporarily locked, please try again later"));
        }
        if is_right {
            times.clear();
            return Ok(id);
        }
        self.logins.refusals += 1;
        times.retain(|at| now.saturating_sub(*at) < Duration::from_secs(30));
        times.push(now);
        if self.year != Year::Y2024 && times.len() >= 3 {
            *locked_until = now + Duration::from_mins(5);
        }
        Err(unauthorized("Invalid credentials"))
    }

    /// The claims of a JWT that the test's issuer signed and that has not expired.
    fn claims(&self, jwt: &str, name: &str) -> Result<Value, Reply> {
        let claims = self.keys.as_ref().map_or_else(|| token::verified(jwt), |keys| token::verified_by(keys, jwt));
        let claims = claims.ok_or_else(|| unauthorized(&format!("{name}: invalid signature")))?;
        if claims["exp"].as_u64().unwrap() <= self.now().as_secs() {
            return Err(unauthorized("[invalid bearer token, service account token has expired]"));
        }
        Ok(claims)
    }

    fn known_identity(&self, call: &Call<'_>) -> Result<(String, Identity), Reply> {
        let id = call.text("identityId");
        let identity = self.logins.identities.get(id);
        let not_found = || match self.year {
            Year::Y2024 => error(404, "NotFound", "Identity not found"),
            _ => unauthorized("Identity not found"),
        };
        identity.map(|identity| (id.to_owned(), identity.clone())).ok_or_else(not_found)
    }

    fn check_pod(&self, call: &Call<'_>) -> Result<String, Reply> {
        let (id, identity) = self.known_identity(call)?;
        let claims = self.review(call.text("jwt"), &identity)?;
        let subject = claims["sub"].as_str().unwrap_or_default();
        let mut parts = subject.strip_prefix("system:serviceaccount:").unwrap_or_default().split(':');
        let (namespace, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let allows = |list: &[String], item: &str| list.is_empty() || list.iter().any(|one| one == item);
        if !allows(&identity.namespaces, namespace) {
            return Err(unauthorized("Access denied: K8s namespace not allowed"));
        }
        if !allows(&identity.names, name) {
            return Err(unauthorized("Access denied: K8s name not allowed"));
        }
        // As the review's status says it: those that were asked for and are the token's, else the API server's own.
        let reviewed = if self.year == Year::Y2024 { API_SERVER } else { identity.audience.as_str() };
        if !identity.audience.is_empty() && reviewed != identity.audience {
            return Err(unauthorized("Access denied: K8s audience not allowed"));
        }
        Ok(id)
    }

    /// What a cluster's API server says of a token. Without `spec.audiences` it means its own audience
    /// (<https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/>).
    fn review(&self, jwt: &str, identity: &Identity) -> Result<Value, Reply> {
        if !identity.has_ca {
            // No answer at all, since its certificate is not trusted.
            return Err(error(500, "InternalServerError", "Something went wrong"));
        }
        let request_error = |message: &str| error(401, "KubernetesTokenReviewRequestError", message);
        let review_error = |message: &str| error(401, "KubernetesTokenReviewError", message);
        let claims = self
            .claims(jwt, "Kubernetes token review")
            .map_err(|_| review_error("[invalid bearer token, service account token has expired]"))?;
        if !identity.has_reviewer {
            // The token reviews itself: first it has to be one for the API server, and then to have the right.
            return Err(match (self.year, has_audience(&claims, API_SERVER)) {
                (Year::Y2024, _) => self.invalid("tokenReviewerJwt", "Required"),
                (_, false) => request_error("Unauthorized"),
                (_, true) => request_error(
                    "tokenreviews.authentication.k8s.io is forbidden: User \"system:serviceaccount:shop:web\" cannot \
                     create resource \"tokenreviews\" in API group \"authentication.k8s.io\" at the cluster scope",
                ),
            });
        }
        let sends_audiences = self.year != Year::Y2024 && !identity.audience.is_empty();
        let target = if sends_audiences { identity.audience.as_str() } else { API_SERVER };
        if has_audience(&claims, target) {
            return Ok(claims);
        }
        let message = format!(
            "[invalid bearer token, token audiences {} is invalid for the target audiences [{target:?}]]",
            claims["aud"]
        );
        Err(review_error(&message))
    }

    fn check_jwt(&self, call: &Call<'_>, method: &str) -> Result<String, Reply> {
        let (id, identity) = self.known_identity(call)?;
        let name = if method == "oidc-auth" { "OIDC" } else { "JWT" };
        let claims = self.claims(call.text("jwt"), name)?;
        let denied = |what: &str| error(403, "ForbiddenError", &format!("Access denied: {name} {what} not allowed."));
        if claims["sub"] != identity.subject.as_str() {
            return Err(denied("subject"));
        }
        if !has_audience(&claims, &identity.audience) {
            return Err(denied("audience"));
        }
        Ok(id)
    }

    pub(super) fn change_token(&mut self, verb: &str, call: &Call<'_>) -> Answer {
        let token = call.text("accessToken").to_owned();
        let Token { identity: id, created, .. } = self.live_token(&token)?;
        if verb == "revoke" {
            self.logins.tokens.get_mut(&token).unwrap().is_revoked = true;
            return Ok(Reply::json(200, &json!({"message": "Successfully revoked access token"})));
        }
        let Identity { ttl, max_ttl, period, .. } = self.logins.identities[&id];
        let left = (created + Duration::from_secs(max_ttl)).saturating_sub(self.now()).as_secs();
        let past_max = || unauthorized("Failed to renew MI access token past its Max TTL expiration");
        let ttl = match self.year {
            _ if period > 0 => period,
            _ if max_ttl == 0 => ttl,
            Year::Y2024 if ttl > left => {
                self.logins.tokens.remove(&token);
                return Err(past_max());
            }
            Year::Y2024 => ttl,
            _ if left == 0 => return Err(past_max()),
            _ => ttl.min(left),
        };
        let fresh = match self.year {
            Year::Y2024 => {
                let ends = Some(self.now() + Duration::from_secs(ttl));
                self.logins.tokens.get_mut(&token).unwrap().ends = ends;
                token
            }
            // The old one lives on for what it had: the new one has to be used.
            _ => self.issue(&id, created, ttl),
        };
        Ok(self.granted(&id, &fresh, ttl))
    }

    fn live_token(&self, token: &str) -> Result<Token, Reply> {
        let malformed = || error(403, "TokenError", "The provided access token is malformed. canary");
        let _ = token.split('.').nth(2).ok_or_else(malformed)?;
        let known = self.logins.tokens.get(token).ok_or_else(|| unauthorized("No identity access token found"))?;
        if known.ends.is_some_and(|ends| ends <= self.now()) {
            return Err(error(403, "TokenError", "Your token has expired. Please re-authenticate."));
        }
        if known.is_revoked {
            return Err(unauthorized("Failed to authorize revoked access token"));
        }
        Ok(known.clone())
    }

    /// Who calls.
    pub(super) fn caller(&self, call: &Call<'_>) -> Result<String, Reply> {
        let bearer = call.received.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let token = bearer.ok_or_else(|| unauthorized("Token missing"))?;
        self.live_token(token).map(|token| token.identity)
    }

    /// Finds out who calls, counts it, and acts.
    pub(super) fn as_caller(
        &mut self,
        kind: Limited,
        call: &Call<'_>,
        act: impl FnOnce(&mut Self, &str) -> Answer,
    ) -> Answer {
        let caller = self.caller(call)?;
        self.limited(kind, |this| act(this, &caller))
    }

    pub(super) fn rights(&self, identity: &str, environment: &str, path: &str) -> Rights {
        let rights = &self.logins.identities[identity].rights;
        let covers = |prefix: &str| prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"));
        let matching = rights.iter().filter(|(env, prefix, _)| env == environment && covers(prefix));
        matching.max_by_key(|(_, prefix, _)| prefix.len()).map_or(Rights::Nothing, |(_, _, rights)| *rights)
    }
}

/// The audience that an API server takes itself for.
pub(crate) const API_SERVER: &str = "https://kubernetes.default.svc";

fn has_audience(claims: &Value, audience: &str) -> bool {
    claims["aud"].as_array().is_some_and(|list| list.iter().any(|one| one == audience)) || claims["aud"] == audience
}
