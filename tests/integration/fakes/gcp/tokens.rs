//! Token services, and the machine's metadata service.

use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::server::{Received, Reply};
use super::super::token;
use super::{ACCOUNT, ISSUER, KEY, POOL_PROVIDER, Principal, REFRESH_TOKEN, SCOPE, SUBJECT, World};
use super::{rfc3339, status, unauthenticated};

// === impl World ===

impl World {
    pub(super) fn exchange(&mut self, received: &Received) -> Reply {
        let form = received.form();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if received.header("content-type") != Some("application/x-www-form-urlencoded")
            || field("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange"
            || field("requested_token_type") != "urn:ietf:params:oauth:token-type:access_token"
            || field("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt"
        {
            return refuse(400, "invalid_request", "Invalid grant type, requested or subject token type.");
        }
        if field("scope") != SCOPE {
            return refuse(400, "invalid_scope", "Some requested scopes were invalid.");
        }
        if field("audience") != format!("//{POOL_PROVIDER}") {
            return refuse(
                400,
                "invalid_target",
                "The target service indicated by the \"audience\" parameters is invalid. This might either be because \
                 the pool or provider is disabled or deleted or because it doesn't exist.",
            );
        }
        let Some(claims) = token::verified(field("subject_token")) else {
            return refuse(400, "invalid_grant", "Unable to verify the token's signature: canary");
        };
        let names: Vec<_> = match &claims["aud"] {
            Value::Array(names) => names.clone(),
            name => vec![name.clone()],
        };
        let allowed = [format!("https://{POOL_PROVIDER}"), format!("//{POOL_PROVIDER}")];
        if claims["iss"] != ISSUER {
            refuse(400, "invalid_grant", "The issuer in ID Token canary does not match the expected ones.")
        } else if !names.iter().any(|name| allowed.iter().any(|allowed| name == allowed)) {
            let text = "The audience in ID Token [canary] does not match the expected audience.";
            refuse(400, "invalid_grant", text)
        } else if claims["exp"].as_i64().unwrap_or_default() < self.now() {
            refuse(400, "invalid_grant", "ID Token issued at 1 is stale to sign-in.")
        } else if claims["sub"] != SUBJECT {
            refuse(401, "unauthorized_client", "The given credential is rejected by the attribute condition.")
        } else {
            let access_token = self.new_token(3599, Principal::Federated);
            let issued = "urn:ietf:params:oauth:token-type:access_token";
            Reply::json(
                200,
                &json!({"access_token": access_token, "issued_token_type": issued, "token_type": "Bearer",
                "expires_in": 3599}),
            )
        }
    }

    pub(super) fn oauth(&mut self, received: &Received) -> Reply {
        let form = received.form();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let principal = match field("grant_type") {
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => match self.check_assertion(received, field("assertion")) {
                Ok(()) => Principal::Account,
                Err(text) => return refuse(400, "invalid_grant", text),
            },
            "refresh_token" => {
                if field("client_id") != "client" || field("client_secret") != "canary-client" {
                    return refuse(401, "invalid_client", "The OAuth client was not found.");
                }
                if field("refresh_token") != REFRESH_TOKEN {
                    return refuse(400, "invalid_grant", "Token has been expired or revoked.");
                }
                Principal::Person
            }
            _ => return refuse(400, "unsupported_grant_type", "Invalid grant_type"),
        };
        let access_token = self.new_token(3599, principal);
        Reply::json(200, &json!({"access_token": access_token, "expires_in": 3599, "token_type": "Bearer"}))
    }

    fn check_assertion(&self, received: &Received, jwt: &str) -> Result<(), &'static str> {
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let parsed = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).ok();
        let taken = || {
            let (message, signature) = jwt.rsplit_once('.')?;
            let (header, claims) = message.split_once('.')?;
            let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, KEY.public_key().as_ref());
            key.verify(message.as_bytes(), &decode(signature)?).ok()?;
            Some((parsed(header)?, parsed(claims)?))
        };
        let Some((header, claims)) = taken() else { return Err("Invalid JWT Signature.") };
        if header["alg"] != "RS256" || header["typ"] != "JWT" || header["kid"] != "key-1" {
            return Err("Invalid JWT Signature.");
        }
        let host = received.header("host").unwrap_or_default();
        let (issued, ends) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        if claims["iss"] != ACCOUNT {
            return Err("Invalid grant: account not found");
        }
        if claims["aud"] != format!("https://{host}/token") || claims["scope"] != SCOPE {
            return Err("Failed audience check.");
        }
        // Google forgives ten minutes.
        if ends - issued > 3600 || (issued - self.now()) > 600 || ends < self.now() {
            return Err("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.");
        }
        Ok(())
    }

    pub(super) fn impersonate(&mut self, received: &Received, call: &str) -> Reply {
        let Some(caller) = self.bearer(received).cloned() else { return unauthenticated() };
        let Some(email) = call.strip_suffix(":generateAccessToken") else {
            return status(404, "NOT_FOUND", "Method not found.", None);
        };
        if email != ACCOUNT || caller.principal == Principal::Person {
            let text = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).";
            return status(403, "PERMISSION_DENIED", text, Some("IAM_PERMISSION_DENIED"));
        }
        let body = received.json();
        if body["scope"] != json!([SCOPE]) || body["lifetime"] != "3600s" {
            return status(400, "INVALID_ARGUMENT", "Request contains an invalid argument.", None);
        }
        let life = self.token_seconds.unwrap_or(3600);
        let access_token = self.new_token(life, Principal::Account);
        Reply::json(200, &json!({"accessToken": access_token, "expireTime": rfc3339(self.now() + life)}))
    }

    pub(super) fn metadata(&mut self, received: &Received) -> Reply {
        self.counter += 1;
        let text = |status: u16, text: &str| Reply {
            status,
            headers: vec![("content-type", "text/html; charset=UTF-8".to_owned())],
            body: axum::body::Body::from(text.to_owned()),
        };
        if received.header("metadata-flavor") != Some("Google") {
            return text(403, "<html>Missing required header: Metadata-Flavor: Google canary</html>");
        }
        let reply = if received.path == "/computeMetadata/v1/instance/service-accounts/default/token" {
            let token = self.new_token(3599, Principal::Account);
            Reply::json(200, &json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}))
        } else {
            text(404, "<html>canary</html>")
        };
        reply.header("metadata-flavor", "Google").header("server", "Metadata Server for VM")
    }
}

/// RFC 6749, 5.2.
fn refuse(code: u16, error: &str, text: &str) -> Reply {
    Reply::json(code, &json!({"error": error, "error_description": text}))
}
