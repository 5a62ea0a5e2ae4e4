//! Who calls, and what they may.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::signature::{self, Authorization};
use super::{ACCOUNT, REGION, Refusal, SSO_TOKEN, Server, iso, json_reply};
use crate::fakes::server::{Received, Reply};

/// How far off a signature's time may be.
const TOLERANCE: i64 = 300;

/// Whom the agent on the node takes tokens for.
const POD_AUDIENCE: &str = "pods.eks.amazonaws.com";

pub(super) struct Key {
    secret: String,
    token: Option<String>,
    /// Seconds since 1970.
    ends: Option<i64>,
    caller: Caller,
}

#[derive(Clone)]
pub(super) enum Caller {
    Admin,
    /// A role, by ARN.
    Role(String),
}

pub(super) struct Role {
    pub(super) subject: String,
    /// Actions, on names that begin so.
    pub(super) rights: Vec<(String, String)>,
}

// === impl Key ===

impl Key {
    pub(super) fn of_admin(secret: &str) -> Self {
        Self { secret: secret.to_owned(), token: None, ends: None, caller: Caller::Admin }
    }

    pub(super) fn is_admin(&self) -> bool {
        matches!(self.caller, Caller::Admin)
    }

    pub(super) fn expire(&mut self) {
        if !self.is_admin() {
            self.ends = Some(0);
        }
    }
}

// === impl Server ===

impl Server {
    pub(super) fn authenticate(&self, received: &Received, service: &str) -> Result<Caller, Refusal> {
        let Some(header) = received.header("authorization") else {
            return Err(("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned()));
        };
        let Some(given) = Authorization::parse(header) else {
            return Err(("IncompleteSignatureException", "canary".to_owned()));
        };
        let bad = |text: &str| Err(("InvalidSignatureException", text.to_owned()));
        let Some(key) =
            self.keys.get(given.key_id).filter(|key| key.token.as_deref() == received.header("x-amz-security-token"))
        else {
            let text = "The security token included in the request is invalid.";
            return Err(("UnrecognizedClientException", text.to_owned()));
        };
        if given.region != REGION || given.service != service {
            return bad("Credential should be scoped to a valid region.");
        }
        let must_be_signed =
            received.headers.keys().map(axum::http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-"));
        if must_be_signed.chain(["host"]).any(|name| !given.signed_headers.contains(&name)) {
            return bad("'Host' or another header must be a 'SignedHeader' in the AWS Authorization.");
        }
        let mut headers = BTreeMap::new();
        for name in &given.signed_headers {
            let Some(value) = received.header(name) else { return bad("A signed header is missing.") };
            headers.insert(*name, value);
        }
        let at = received.header("x-amz-date").unwrap_or_default();
        let Some(seconds) = signature::seconds(at).filter(|_| at.starts_with(given.date)) else {
            return bad("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP");
        };
        let wanted = signature::of(&key.secret, given.region, given.service, &headers, &received.body);
        if wanted != given.signature {
            return bad("The request signature we calculated does not match the signature you provided. canary");
        }
        let now = self.now();
        if seconds < now - TOLERANCE {
            return bad(&format!("Signature expired: {at} is now earlier than {} (- 5 min.)", iso(now - TOLERANCE)));
        }
        if seconds > now + TOLERANCE {
            return bad(&format!("Signature not yet current: {at} is still later than {}", iso(now + TOLERANCE)));
        }
        if key.ends.is_some_and(|ends| ends <= now) {
            return Err(("ExpiredTokenException", "The security token included in the request is expired".to_owned()));
        }
        Ok(key.caller.clone())
    }

    /// Whether the caller may do this with that: a secret's or parameter's name, or `*`.
    pub(super) fn permit(&self, caller: &Caller, action: &str, name: &str) -> Result<(), Refusal> {
        let Caller::Role(arn) = caller else { return Ok(()) };
        let rights = &self.roles[arn].rights;
        let fits = |right: &(String, String)| {
            let is_action = right.0 == action || right.0.strip_suffix('*').is_some_and(|head| action.starts_with(head));
            is_action && name.starts_with(&right.1)
        };
        if rights.iter().any(fits) {
            return Ok(());
        }
        let text = format!(
            "User: {arn}/hushpod is not authorized to perform: {action} on resource: {name} because no identity-based \
             policy allows the {action} action (canary)"
        );
        Err(("AccessDeniedException", text))
    }

    fn issue(&mut self, role: &str, seconds: i64) -> (String, String, String, i64) {
        let number = self.unique();
        let (id, secret) = (format!("ASIACANARY{number}"), format!("canary/secret+{number}="));
        let token = format!("canary//token+{number}==");
        let ends = self.now() + seconds;
        let caller = Caller::Role(role.to_owned());
        let key = Key { secret: secret.clone(), token: Some(token.clone()), ends: Some(ends), caller };
        self.keys.insert(id.clone(), key);
        (id, secret, token, ends)
    }

    /// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>
    pub(super) fn assume_role(&mut self, received: &Received) -> Reply {
        let form = received.form();
        let get = |name: &str| form.get(name).map_or("", String::as_str);
        assert_eq!((get("Action"), get("Version")), ("AssumeRoleWithWebIdentity", "2011-06-15"));
        let session = get("RoleSessionName");
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "_=,.@-".contains(c);
        let role = get("RoleArn");
        if !(2..=64).contains(&session.len()) || !session.chars().all(is_fine) || !role.starts_with("arn:aws:iam::") {
            return refuse(400, "ValidationError", "canary failed to satisfy constraint");
        }
        let Some(claims) = claims(get("WebIdentityToken")) else {
            return refuse(400, "InvalidIdentityToken", "The ID Token provided is not a valid JWT. canary");
        };
        if claims["exp"].as_i64().unwrap() < self.now() {
            return refuse(
                400,
                "ExpiredTokenException",
                "Token expired: current date/time must be before the expiration",
            );
        }
        if claims["aud"] != json!(["sts.amazonaws.com"]) {
            return refuse(400, "InvalidIdentityToken", "Incorrect token audience");
        }
        if self.roles.get(role).is_none_or(|known| claims["sub"] != known.subject.as_str()) {
            return refuse(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity");
        }
        let (id, secret, token, ends) = self.issue(role, 3600);
        let (ends, name) = (iso(ends), role.rsplit('/').next().unwrap());
        let xml = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  \
             <AssumeRoleWithWebIdentityResult>\n    <Audience>sts.amazonaws.com</Audience>\n    <AssumedRoleUser>\n      \
             <AssumedRoleId>AROACANARY:{session}</AssumedRoleId>\n      \
             <Arn>arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}</Arn>\n    </AssumedRoleUser>\n    \
             <Credentials>\n      <AccessKeyId>{id}</AccessKeyId>\n      <SecretAccessKey>{secret}</SecretAccessKey>\n      \
             <SessionToken>{token}</SessionToken>\n      <Expiration>{ends}</Expiration>\n    </Credentials>\n  \
             </AssumeRoleWithWebIdentityResult>\n  <ResponseMetadata>\n    \
             <RequestId>ad4156e9-bce1-11e2-82e6-6b6efEXAMPLE</RequestId>\n  </ResponseMetadata>\n\
             </AssumeRoleWithWebIdentityResponse>\n"
        );
        xml_reply(200, xml)
    }

    /// <https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html>
    pub(super) fn hand_credentials_out(&mut self, received: &Received) -> Reply {
        let claims = received.header("authorization").and_then(claims);
        let is_pods =
            |claims: &&Value| claims["aud"] == json!([POD_AUDIENCE]) && claims["exp"].as_i64() > Some(self.now());
        let Some(claims) = claims.as_ref().filter(is_pods) else {
            return Reply { status: 400, headers: Vec::new(), body: "invalid token canary".into() };
        };
        let role = self.roles.iter().find(|(_, role)| claims["sub"] == role.subject.as_str());
        let Some(role) = role.map(|(arn, _)| arn.clone()) else {
            return Reply { status: 404, headers: Vec::new(), body: "No association canary".into() };
        };
        let (id, secret, token, ends) = self.issue(&role, 6 * 3600);
        json_reply(
            200,
            &json!({"AccessKeyId": id, "SecretAccessKey": secret, "Token": token, "AccountId": ACCOUNT,
                "Expiration": iso(ends)}),
        )
    }

    /// <https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/API_GetRoleCredentials.html>
    pub(super) fn role_credentials(&mut self, received: &Received) -> Reply {
        let refuse = |status, code: &str| json_reply(status, &json!({"__type": code, "message": "canary"}));
        if received.header("x-amz-sso_bearer_token") != Some(SSO_TOKEN) {
            return refuse(401, "UnauthorizedException");
        }
        let params = received.params();
        let (Some(account), Some(role)) = (params.get("account_id"), params.get("role_name")) else {
            return refuse(400, "InvalidRequestException");
        };
        let role = format!("arn:aws:iam::{account}:role/{role}");
        if !self.roles.contains_key(&role) {
            return refuse(403, "ForbiddenException");
        }
        let (id, secret, token, ends) = self.issue(&role, 3600);
        let granted =
            json!({"accessKeyId": id, "secretAccessKey": secret, "sessionToken": token, "expiration": ends * 1000});
        json_reply(200, &json!({"roleCredentials": granted}))
    }
}

fn xml_reply(status: u16, xml: String) -> Reply {
    Reply { status, headers: vec![("content-type", "text/xml".to_owned())], body: xml.into() }
}

fn refuse(status: u16, code: &str, message: &str) -> Reply {
    let xml = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Error>\n    <Type>Sender</Type>\n    \
         <Code>{code}</Code>\n    <Message>{message}</Message>\n  </Error>\n  \
         <RequestId>4b1ab8e9-EXAMPLE</RequestId>\n</ErrorResponse>\n"
    );
    xml_reply(status, xml)
}

fn claims(jwt: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?).ok()
}
