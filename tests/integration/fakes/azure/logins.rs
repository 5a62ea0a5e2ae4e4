//! Entra ID's token endpoint, and the machine's metadata service.

use serde_json::json;

use super::super::server::{Received, Reply};
use super::super::token;
use super::{AUDIENCE, CLIENT_ID, CLIENT_SECRET, ISSUER, RESOURCE, SUBJECT, TENANT, World};

// === impl World ===

impl World {
    pub(super) fn log_in(&mut self, received: &Received, tenant: &str) -> Reply {
        let form = received.form();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let is_form = received.header("content-type") == Some("application/x-www-form-urlencoded");
        if !is_form || field("grant_type") != "client_credentials" {
            return refuse(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type ''.");
        }
        if tenant != TENANT {
            return refuse(400, "invalid_request", 90002, &format!("Tenant '{tenant}' not found."));
        }
        if field("client_id") != CLIENT_ID {
            let text = format!("Application with identifier '{}' was not found in the directory.", field("client_id"));
            return refuse(400, "unauthorized_client", 700_016, &text);
        }
        let refused = match (form.get("client_assertion"), form.get("client_secret")) {
            (Some(assertion), None) => self.check_assertion(field("client_assertion_type"), assertion),
            (None, Some(secret)) if secret == CLIENT_SECRET => Ok(()),
            (None, Some(_)) => Err((7_000_215, "Invalid client secret provided.")),
            _ => Err((7_000_218, "The request body must contain 'client_assertion' or 'client_secret'.")),
        };
        if let Err((code, text)) = refused {
            return refuse(401, "invalid_client", code, text);
        }
        match field("scope").strip_suffix("/.default") {
            None => refuse(400, "invalid_scope", 1_002_012, "The provided value for scope is not valid."),
            Some(RESOURCE) => {
                let life = self.token_seconds.unwrap_or(3599);
                let token = self.new_token(life);
                Reply::json(
                    200,
                    &json!({"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token}),
                )
            }
            Some(other) => {
                let text = format!("The resource principal named {other} was not found in the tenant.");
                refuse(400, "invalid_resource", 500_011, &text)
            }
        }
    }

    fn check_assertion(&self, kind: &str, assertion: &str) -> Result<(), (u32, &'static str)> {
        if kind != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
            return Err((50027, "JWT token is invalid or malformed."));
        }
        let Some(claims) = token::verified(assertion) else {
            return Err((
                700_027,
                "The certificate with identifier used to sign the client assertion is not registered.",
            ));
        };
        let time = |name: &str| claims[name].as_i64().unwrap_or_default();
        if time("exp") < self.now() || time("nbf") > self.now() + 300 {
            return Err((700_024, "Client assertion is not within its valid time range."));
        }
        if claims["iss"] != ISSUER {
            return Err((700_211, "No matching federated identity record found for presented assertion issuer."));
        }
        if claims["sub"] != SUBJECT {
            return Err((700_213, "No matching federated identity record found for presented assertion subject."));
        }
        let is_for_us = claims["aud"] == AUDIENCE || claims["aud"] == json!([AUDIENCE]);
        if is_for_us {
            Ok(())
        } else {
            Err((700_212, "No matching federated identity record found for presented assertion audience."))
        }
    }

    pub(super) fn metadata_token(&mut self, received: &Received) -> Reply {
        let bad = |text: &str| Reply::json(400, &json!({"error": "invalid_request", "error_description": text}));
        let params = received.params();
        if received.header("metadata") != Some("true") {
            return bad("Required metadata header not specified");
        }
        if received.header("x-forwarded-for").is_some() {
            return bad("Requests that came through a proxy are refused");
        }
        if params.get("api-version").is_none_or(|version| version != "2018-02-01") {
            return bad("Required query variable 'api-version' not specified");
        }
        let Some(resource) = params.get("resource") else {
            return bad("Required query variable 'resource' not specified");
        };
        if resource != RESOURCE {
            let body = json!({"error": "invalid_resource", "error_description":
                format!("AADSTS500011: The resource principal named {resource} was not found in the tenant.")});
            return Reply::json(400, &body);
        }
        if params.get("client_id").is_some_and(|id| id != CLIENT_ID) {
            return bad("Identity not found");
        }
        let life = self.token_seconds.unwrap_or(86_399);
        let token = self.cached.clone().unwrap_or_else(|| self.new_token(life));
        self.cached = Some(token.clone());
        let left = self.tokens.get(&token).map_or(0, |ends| ends - self.now());
        let now = self.now();
        let text = |number: i64| number.to_string();
        Reply::json(
            200,
            &json!({"access_token": token, "client_id": CLIENT_ID, "expires_in": text(left),
            "expires_on": text(now + left), "ext_expires_in": text(life), "not_before": text(now - 5),
            "resource": resource, "token_type": "Bearer"}),
        )
    }
}

fn refuse(status: u16, error: &str, code: u32, text: &str) -> Reply {
    let description =
        format!("AADSTS{code}: {text} canary Trace ID: x Correlation ID: y Timestamp: 2026-11-21 10:59:46Z");
    Reply::json(
        status,
        &json!({"error": error, "error_description": description, "error_codes": [code],
        "timestamp": "2026-11-21 10:59:46Z", "trace_id": "0f5f2c1d-8a3b-4c2e-9a51-000000000000",
        "correlation_id": "5c2a9f1e-8a3b-4c2e-9a51-000000000000",
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}")}),
    )
}
