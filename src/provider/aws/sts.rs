//! The Security Token Service: a role's credentials for a token of somebody whom the account trusts.
//!
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>

use hyper::Method as HttpMethod;

use super::keys::Keys;
use crate::provider::http::{Address, Call, Client, Failure, Response};
use crate::provider::session::Token;
use crate::secret::SecretValue;

/// What the account's logs call a session. They name the service account beside it, as the token's subject.
const SESSION_NAME: &str = "hushpod";

/// Exchanges a token for the role's credentials. They live for an hour, whatever the role allows.
pub(super) async fn assume_role(client: &Client, role: &str, token: &SecretValue) -> Result<Token, Failure> {
    let Some(token) = token.expose_str() else { return Err(Failure::invalid("the token is not text")) };
    let fields = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role),
        ("RoleSessionName", SESSION_NAME),
        ("WebIdentityToken", token),
    ];
    let response = client.send(Call::new(HttpMethod::POST, "").form(&fields).throttled_if(is_throttling)).await?;
    let address = client.address();
    if response.status.as_u16() != 200 {
        return Err(refused(&response, role, address));
    }
    let garbage = || Failure::unavailable(format!("{address} answers a login with something that is not STS's XML"));
    credentials(&response.body).ok_or_else(garbage)
}

fn credentials(xml: &[u8]) -> Option<Token> {
    let keys = Keys {
        id: element(xml, "AccessKeyId")?.into(),
        secret: element(xml, "SecretAccessKey")?.into(),
        token: Some(element(xml, "SessionToken")?.into()),
    };
    keys.until(element(xml, "Expiration")?)
}

/// The text of the first element of this name, which has no attributes and no entities in it.
fn element<'a>(xml: &'a [u8], name: &str) -> Option<&'a str> {
    let xml = std::str::from_utf8(xml).ok()?;
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.trim();
    (!text.is_empty() && !text.contains(['<', '&'])).then_some(text)
}

fn is_throttling(response: &Response) -> bool {
    let status = response.status.as_u16();
    let code = || element(&response.body, "Code").unwrap_or_default();
    status == 429 || (status != 200 && matches!(code(), "Throttling" | "ThrottlingException"))
}

/// Why there are no credentials, told as what an administrator can check.
fn refused(response: &Response, role: &str, address: &Address) -> Failure {
    let code = element(&response.body, "Code").unwrap_or_default();
    let status = response.status.as_u16();
    if is_throttling(response) {
        return Failure::throttled(response, format!("{address} asks for patience at logins"));
    }
    let hint = match code {
        "InvalidIdentityToken" if response.contains("audience") => {
            "its trust policy or the identity provider wants another audience than the token has: make them and the \
             provider's audience the same"
        }
        "InvalidIdentityToken" if response.contains("verification key") => {
            let message = format!("{address} cannot fetch the keys of the cluster's token issuer: is it public?");
            return Failure::unavailable(message);
        }
        "InvalidIdentityToken" => {
            "the account has no IAM identity provider for the cluster's token issuer, or does not take this token"
        }
        "ExpiredTokenException" | "ExpiredToken" => "the token has expired: check the clocks",
        "IDPRejectedClaim" => "the token's issuer refuses its claims",
        "IDPCommunicationError" => {
            let message = format!("{address} cannot reach the cluster's token issuer now");
            return Failure::unavailable(message);
        }
        "RegionDisabledException" => "STS is not active in this region for the account",
        "ValidationError" => "it is not the ARN of a role: expected arn:aws:iam::<account>:role/<name>",
        "AccessDenied" | "AccessDeniedException" => {
            "there is no such role, or its trust policy does not name this service account (…:sub) and the cluster's \
             identity provider"
        }
        code if matches!(status, 400 | 401 | 403) && !code.is_empty() => {
            "check the role, its trust policy and the account's identity provider"
        }
        _ => {
            let message = format!("{address} fails at the login with status {status}");
            return Failure::unavailable(message);
        }
    };
    Failure::denied(format!("login as role {role:?} is refused: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_from_xml() {
        let answer = |token: &str, expiration: &str| {
            format!(
                "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n\
                 <AssumeRoleWithWebIdentityResult><Credentials>\n  <AccessKeyId>ASIAcanary</AccessKeyId>\
                 <SecretAccessKey>canary/+=</SecretAccessKey><SessionToken>\n{token}\n</SessionToken>\
                 <Expiration>{expiration}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
                 </AssumeRoleWithWebIdentityResponse>"
            )
        };
        let token = credentials(answer("canary==", "2099-01-01T00:00:00Z").as_bytes()).unwrap();
        let keys = Keys::unpack(&token.value).unwrap();
        assert!(keys.token == Some("canary==".into()) && keys.secret == "canary/+=".into());
        for (token, expiration) in
            [("", "2099-01-01T00:00:00Z"), ("a&amp;b", "2099-01-01T00:00:00Z"), ("canary", "soon")]
        {
            assert!(credentials(answer(token, expiration).as_bytes()).is_none(), "{token} {expiration}");
        }
    }
}
