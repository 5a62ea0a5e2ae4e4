//! IAM Identity Center: a role's credentials for what `aws sso login` left.
//!
//! <https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/API_GetRoleCredentials.html>. The file is that of
//! AWS's SDKs: <https://docs.aws.amazon.com/sdkref/latest/guide/understanding-sso.html>.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use hyper::Method as HttpMethod;
use hyper::header::HeaderName;
use serde::Deserialize;

use super::keys::Keys;
use super::profile::SsoProfile;
use crate::provider::auth;
use crate::provider::http::{Call, Client, Failure, date, secret_header};
use crate::provider::session::Token;
use crate::secret::SecretValue;

/// What `aws sso login` leaves.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedLogin {
    access_token: SecretValue,
    expires_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortalAnswer {
    role_credentials: RoleCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoleCredentials {
    access_key_id: SecretValue,
    secret_access_key: SecretValue,
    session_token: SecretValue,
    /// Milliseconds since 1970.
    expiration: u64,
}

/// What there is of a login.
pub(super) enum SsoLogin {
    /// A token that has yet to end.
    Good(SecretValue),
    /// One that has ended. AWS's own program may be able to renew it.
    Ended,
    /// None, or a file that is not one.
    None,
}

const TOKEN: HeaderName = HeaderName::from_static("x-amz-sso_bearer_token");
/// Nothing is asked for with what is about to end.
const SPARE: Duration = Duration::from_secs(10);

/// The file of a login, by the digest of its session.
fn file(profile: &SsoProfile) -> Option<PathBuf> {
    let name = hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, profile.session.as_bytes()));
    Some(env::home_dir()?.join(".aws/sso/cache").join(format!("{name}.json")))
}

/// Whether there is a file of a login.
pub(super) fn is_logged_in(profile: &SsoProfile) -> bool {
    file(profile).is_some_and(|file| file.exists())
}

/// The login that is there.
pub(super) fn login(profile: &SsoProfile) -> SsoLogin {
    let read = file(profile).and_then(|file| auth::secret_file(&file, "AWS's login").ok());
    let Some(CachedLogin { access_token, expires_at }) =
        read.and_then(|read| serde_json::from_slice::<CachedLogin>(read.expose()).ok())
    else {
        return SsoLogin::None;
    };
    // Old versions write UTC for Z.
    let end = expires_at.strip_suffix("UTC").map(|at| format!("{at}Z")).unwrap_or(expires_at);
    match date::parse_rfc3339(&end).and_then(date::until) {
        Some(left) if left > SPARE => SsoLogin::Good(access_token),
        _ => SsoLogin::Ended,
    }
}

/// Exchanges a login for the role's credentials; `no_login` says what to run if it has ended.
pub(super) async fn credentials(
    client: &Client,
    profile: &SsoProfile,
    token: &SecretValue,
    no_login: impl FnOnce() -> Failure,
) -> Result<Token, Failure> {
    let SsoProfile { account, role, .. } = profile;
    let call = Call::new(HttpMethod::GET, "federation/credentials").header(TOKEN, secret_header(token, "AWS's login")?);
    let response = client.send(call.query("account_id", account).query("role_name", role)).await?;
    let address = client.address();
    let garbage = || Failure::garbage(address, "a login", "the access portal's");
    match response.status.as_u16() {
        200 => {}
        401 => return Err(no_login()),
        403 | 404 => {
            return Err(Failure::denied(format!(
                "IAM Identity Center has no role {role} in account {account} for this login: have it assigned, or log in \
                 as somebody who has it"
            )));
        }
        429 => return Err(Failure::throttled(&response, format!("{address} asks for patience at logins"))),
        status => return Err(Failure::unavailable(format!("{address} fails at the login with status {status}"))),
    }
    let PortalAnswer { role_credentials: granted } = response.parse().ok_or_else(garbage)?;
    let RoleCredentials { access_key_id, secret_access_key, session_token, expiration } = granted;
    let keys = Keys { id: access_key_id, secret: secret_access_key, token: Some(session_token) };
    Ok(keys.until_millis(expiration))
}
