//! The login of Infisical's own command line.
//!
//! <https://infisical.com/docs/cli/commands/user>

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::provider::ProviderError;
use crate::provider::auth;
use crate::provider::auth::tool::Tool;
use crate::provider::http::{Address, date};
use crate::provider::session::{Renewal, Token};
use crate::secret::SecretValue;

/// Where it keeps who is logged in, and where; the token itself is in a keyring.
const HOME_FILE: &str = ".infisical/infisical-config.json";
/// Where a login is of that says nothing of it.
const CLOUD: &str = "https://app.infisical.com";

#[derive(Deserialize)]
struct LoggedInUser {
    #[serde(rename = "loggedInUserEmail", default)]
    email: String,
    #[serde(rename = "LoggedInUserDomain", default)]
    domain: String,
}

/// A token's own words (RFC 7519, 4.1.4).
#[derive(Deserialize)]
struct EndClaim {
    exp: u64,
}

/// Who is logged in.
pub(super) fn user() -> Option<SecretValue> {
    auth::home_file(HOME_FILE, "Infisical's login").ok().flatten()
}

/// Asks `infisical` for its login at that address. A login elsewhere is not sent there.
pub(super) async fn log_in(address: &Address) -> Result<Token, ProviderError> {
    let mut arguments: Vec<_> = ["user", "get", "token", "--plain", "--silent"].map(str::to_owned).into();
    // Without it, a `.infisical.json` of the working directory says where the token is sent to be looked at.
    arguments.push(format!("--domain={address}"));
    let tool = Tool {
        program: "infisical",
        arguments,
        environment: &[("INFISICAL_DISABLE_UPDATE_CHECK", "true")],
        login: format!("infisical login --domain={address}"),
    };
    // Asked for a login that it does not have, it begins one.
    let there = user().and_then(|user| serde_json::from_slice::<LoggedInUser>(user.expose()).ok());
    let Some(user) = there.filter(|user| !user.email.is_empty()) else {
        return Err(tool.no_login("nobody is logged in with Infisical's command line"));
    };
    if !is_at(&user.domain, address) {
        return Err(tool.no_login("Infisical's command line is logged in elsewhere"));
    }
    let printed = tool.print().await?;
    let Some(end) = end_of(&printed) else {
        return Err(tool.no_login("infisical prints something other than a token"));
    };
    match end.checked_mul(1000).and_then(date::until) {
        Some(life) => Ok(Token::new(printed, Some(life), Renewal::Never)),
        None => Err(tool.no_login("the login of Infisical's command line has ended")),
    }
}

fn is_at(domain: &str, address: &Address) -> bool {
    let domain = if domain.is_empty() { CLOUD } else { domain };
    let domain = domain.trim_end_matches('/').trim_end_matches("/api");
    Address::parse(domain).is_ok_and(|domain| domain == *address)
}

/// When a token ends, in seconds since 1970. That it is genuine is the server's to say.
fn end_of(token: &SecretValue) -> Option<u64> {
    let [_, claims, _] = token.expose_str()?.split('.').collect::<Vec<_>>()[..] else { return None };
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims).ok()?);
    serde_json::from_slice::<EndClaim>(&claims).ok().map(|claims| claims.exp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_of_the_address_that_it_was_made_at() {
        let is_at = |domain: &str, address: &str| is_at(domain, &Address::parse(address).unwrap());
        for (domain, address, expected) in [
            ("https://app.infisical.com/api", "https://app.infisical.com", true),
            ("", "https://app.infisical.com/", true),
            ("https://infisical.example:8443/api/", "https://infisical.example:8443", true),
            ("https://app.infisical.com/api", "https://eu.infisical.com", false),
            ("https://infisical.example/api", "https://infisical.example:8443", false),
            ("http://infisical.example/api", "https://infisical.example", false),
            ("canary", "https://app.infisical.com", false),
        ] {
            assert_eq!(is_at(domain, address), expected, "{domain} {address}");
        }
    }

    #[test]
    fn a_tokens_end_is_read_and_garbage_is_not() {
        let jwt = |claims: &str| format!("e30.{}.canary", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(end_of(&jwt(r#"{"userId":"u","exp":1795258786}"#).into()), Some(1_795_258_786));
        for text in ["canary", "a.b", "a.!.c", &jwt("{}"), &jwt(r#"{"exp":"soon"}"#), &jwt(r#"{"exp":-1}"#)] {
            assert_eq!(end_of(&text.to_string().into()), None, "{text}");
        }
    }
}
