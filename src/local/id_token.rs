//! Tokens that say who a job of CI is, which stores take instead of a long-lived credential.
//!
//! GitHub gives one for each audience to jobs with `permissions: {id-token: write}`
//! (<https://docs.github.com/actions/security-for-github-actions/security-hardening-your-deployments/about-security-hardening-with-openid-connect>);
//! GitLab puts those of `id_tokens:` into the environment
//! (<https://docs.gitlab.com/ci/secrets/id_token_authentication/>).

use std::collections::BTreeMap;

use hyper::Method;
use hyper::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::Value;

use super::error::LocalError;
use crate::plan::Plan;
use crate::provider::http::{Call, Proxy, Reach, bearer};
use crate::provider::{ProviderSettings, auth};
use crate::secret::SecretValue;

/// What GitHub's runner sets: where to ask, and what with.
const REQUEST_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const REQUEST_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
/// Before a provider's name in upper case, `_` for `-`.
pub(super) const TOKEN_PREFIX: &str = "HUSHPOD_ID_TOKEN_";

/// GitHub's answer.
#[derive(Deserialize)]
struct GithubToken {
    value: SecretValue,
}

/// The variable that has the token for a provider.
fn variable(provider: &str) -> String {
    format!("{TOKEN_PREFIX}{}", provider.to_ascii_uppercase().replace('-', "_"))
}

/// Whether this job has a token for a provider, or can get one.
pub(super) fn has_token(provider: &str) -> bool {
    auth::environment(&variable(provider)).is_some() || auth::environment(REQUEST_URL).is_some()
}

/// What a job of CI gets its token for a provider with; `None` where there is no job, or its settings name a file.
pub(super) fn credential(provider: &str, settings: &ProviderSettings) -> Option<SecretValue> {
    let of_job = || auth::environment(&variable(provider)).or_else(|| auth::environment(REQUEST_TOKEN));
    if has_token_file(settings) { None } else { of_job() }
}

/// The tokens for those of a plan's providers that show one.
///
/// # Errors
/// One sentence: what to write where a person has no such token, or why GitHub gives none.
pub(super) async fn gather(plan: &Plan) -> Result<BTreeMap<String, SecretValue>, LocalError> {
    let mut tokens = BTreeMap::new();
    for (name, provider) in &plan.providers {
        tokens.extend(
            of(name, &provider.settings, provider.audience.as_deref()).await?.map(|token| (name.clone(), token)),
        );
    }
    Ok(tokens)
}

/// The token for one provider; `None` if it shows none, or one of a file.
///
/// # Errors
/// As [`gather`].
pub(super) async fn of(
    name: &str,
    settings: &ProviderSettings,
    audience: Option<&str>,
) -> Result<Option<SecretValue>, LocalError> {
    let Some(audience) = audience.filter(|_| !has_token_file(settings)) else { return Ok(None) };
    Ok(Some(match auth::environment(&variable(name)) {
        Some(token) => token,
        None => ask_github(name, audience).await?,
    }))
}

/// Whether its settings name a file with a token, whatever type it is of.
fn has_token_file(settings: &ProviderSettings) -> bool {
    let settings = serde_json::to_value(settings).unwrap_or(Value::Null);
    settings.pointer("/auth/tokenFile").is_some()
}

async fn ask_github(provider: &str, audience: &str) -> Result<SecretValue, LocalError> {
    let (Some(url), Some(token)) = (auth::environment(REQUEST_URL), auth::environment(REQUEST_TOKEN)) else {
        let problem = format!(
            "provider {provider}: its auth.method shows a token of a pod or a CI job, and there is none: write another \
             auth.method for this machine, or set {}",
            variable(provider)
        );
        let hint = "on GitHub, a job gets one with permissions: {id-token: write}";
        return Err(LocalError { provider: Some(provider.to_owned()), ..LocalError::failed(problem).with_hint(hint) });
    };
    let url = url.expose_str().unwrap_or_default().to_owned();
    let refused = |error: &dyn std::fmt::Display| {
        LocalError::failed(format!("provider {provider}: GitHub's id token for audience {audience}: {error}"))
    };
    let (url, query) = url.split_once('?').map_or((url.as_str(), ""), |(url, query)| (url, query));
    let (client, path) =
        Reach::through(Proxy::matcher_of(None)).endpoint(url).map_err(|error| refused(&&*error.message))?;
    let mut call = Call::new(Method::GET, path.trim_start_matches('/'));
    for (name, value) in
        query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| *name != "audience")
    {
        call = call.query(name, value);
    }
    let call = call.query("audience", audience);
    let call = call.header(AUTHORIZATION, bearer(&token, REQUEST_TOKEN).map_err(|error| refused(&&*error.message))?);
    let response = client.send(call).await.map_err(|failed| refused(&&*failed.error.message))?;
    let answered = response.parse::<GithubToken>().filter(|_| response.status.as_u16() == 200);
    let status = response.status.as_u16();
    answered.map(|token| token.value).ok_or_else(|| refused(&format!("answered {status} without a token")))
}
