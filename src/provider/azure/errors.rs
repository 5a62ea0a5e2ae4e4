//! A vault's and an authority's refusals, in our own words.
//!
//! Their texts name callers and may show more, so only codes are read: a vault's `error.code` and
//! `error.innererror.code`, an authority's `error_codes`.

use hyper::header::WWW_AUTHENTICATE;
use serde::Deserialize;

use super::settings::{AzureSettings, DEFAULT_SCOPE, Method};
use crate::provider::Settings as _;
use crate::provider::auth::oauth::is_error_code;
use crate::provider::http::{Address, Failure, Response, Scope, frame};
use crate::provider::names::is_uuid;

/// Who asked whom, for messages.
#[derive(Clone, Copy)]
pub(super) struct CallContext<'a> {
    pub(super) settings: &'a AzureSettings,
    pub(super) role: Option<&'a str>,
    pub(super) address: &'a Address,
}

#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    error: ErrorBody,
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: String,
    #[serde(default, alias = "innerError")]
    innererror: Option<Inner>,
}

#[derive(Default, Deserialize)]
struct Inner {
    #[serde(default)]
    code: String,
}

/// An authority's refusal. Its codes are those of the texts that begin with AADSTS.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_codes: Vec<u32>,
}

/// What to check, by the authority's code:
/// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>
const HINTS: [(&[u32], &str); 9] = [
    (
        &[700_016, 700_023],
        "the tenant has no application of this client id: the role must be the client id of an app registration or \
         managed identity there",
    ),
    (&[90_002, 900_021, 900_023], "there is no such tenant: check tenant, and that authority is that of its cloud"),
    (
        &[70_021, 700_211, 700_212, 700_213, 700_223],
        "no federated credential of the role fits the token: its issuer must be the cluster's, its subject \
         system:serviceaccount:<namespace>:<service account>, its audience the provider's",
    ),
    (&[700_024, 700_222], "the token is outside its time of validity: check the clocks"),
    (
        &[50_013, 50_027, 700_027, 700_030, 5_000_224],
        "the token's signature cannot be verified: the cluster's issuer must be reachable by the authority and show \
         its present keys",
    ),
    (&[7_000_215, 700_001], "the client secret is wrong: it must be the secret's value, not its id"),
    (&[7_000_222], "the client secret has expired"),
    (&[7_000_112, 700_005], "the application is disabled"),
    (&[500_011, 500_014, 70_011], "the tenant does not know what the token is for: check tenant and scope"),
];

/// What an answer that is not a success means; `name` and `version` are what was asked for.
pub(super) fn failure(response: &Response, asked: CallContext<'_>, name: &str, version: Option<&str>) -> Failure {
    let ErrorBody { code, innererror } = frame::<Envelope>(&response.body).unwrap_or_default().error;
    let inner = innererror.unwrap_or_default().code;
    let address = asked.address;
    let what = version.map_or_else(|| name.to_owned(), |version| format!("{name} in version {version}"));
    match (response.status.as_u16(), code.as_str(), inner.as_str()) {
        // What is not a vault answers so, too. A vault's challenge may come without a body.
        (400..=499, "", _) if !matches!(response.status.as_u16(), 429) && !is_challenge(response) => {
            let status = response.status.as_u16();
            Failure::unavailable(format!(
                "{address} answers {name} with a {status} that is not a vault's: check \
                 address"
            ))
        }
        (401, ..) => {
            let why = unaccepted(response, asked.settings);
            Failure::denied(format!("{address} does not accept the login: {why}")).with(Scope::Login)
        }
        (403, _, "SecretDisabled") => {
            Failure::not_found(format!("{what} is disabled: enable that version, or make a new one"))
        }
        (403, _, "ForbiddenByFirewall" | "ForbiddenByConnection") => {
            let message = format!("{address} lets nobody in from this network: allow it in the vault's firewall");
            Failure::denied(message).with(Scope::Store)
        }
        (403, _, inner) => {
            let message = format!("{what} is denied to {}: {}", who(asked), missing_right(inner));
            Failure::denied(message).with(Scope::Right)
        }
        (404, ..) => Failure::not_found(match version {
            Some(version) => format!("{name} has no version {version}"),
            None => format!("{name} does not exist, or was deleted"),
        }),
        (400, ..) => Failure::invalid(format!("{what} is refused as a bad request")),
        (429, ..) => {
            let message = format!("{address} asks for patience (429): the vault's readers ask too much together");
            Failure::throttled(response, message).with(Scope::Store)
        }
        (status @ 501..=599, ..) => {
            Failure::unavailable(format!("{address} is failing at {name} with status {status}")).with(Scope::Store)
        }
        (status, ..) => Failure::unavailable(format!("{address} fails at {name} with status {status}")),
    }
}

fn is_challenge(response: &Response) -> bool {
    response.status.as_u16() == 401 && response.headers.contains_key(WWW_AUTHENTICATE)
}

/// What is wrong with a token, as far as the vault's challenge tells: <https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses>
///
/// It is compared, never followed: a vault must not tell where tokens are to be had.
fn unaccepted(response: &Response, settings: &AzureSettings) -> String {
    let challenge = response.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let field = |name: &str| {
        let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
        rest.split_once('"').map(|(value, _)| value.trim_end_matches('/'))
    };
    let wanted = field("authorization").or_else(|| field("authorization_uri"));
    let wanted = wanted.and_then(|uri| uri.rsplit('/').next()).filter(|tenant| is_uuid(tenant));
    let own = settings.tenant.as_deref().filter(|tenant| is_uuid(tenant));
    if let (Some(wanted), Some(own)) = (wanted, own)
        && !wanted.eq_ignore_ascii_case(own)
    {
        return format!("it belongs to tenant {wanted}, and tenant is set to {own}");
    }
    let scope = settings.scope();
    let resource = scope.strip_suffix(DEFAULT_SCOPE).unwrap_or(&scope);
    if field("resource").is_some_and(|wanted| wanted != resource) {
        return format!("it wants tokens for something else than {scope}: set scope");
    }
    "the token has ended, or is of another tenant: check tenant, and the clocks".to_owned()
}

fn who(asked: CallContext<'_>) -> String {
    match (asked.role, asked.settings.auth.method) {
        (Some(role), _) => format!("the identity of client id {role:?}"),
        (None, Method::ManagedIdentity) => "this machine's managed identity".to_owned(),
        (None, _) => "this login".to_owned(),
    }
}

fn missing_right(inner: &str) -> &'static str {
    match inner {
        "ForbiddenByPolicy" => "an access policy of the vault must give it Get for secrets",
        "ForbiddenByRbac" => "give it the role Key Vault Secrets User at the vault or the secret",
        _ => "give it the role Key Vault Secrets User, or Get in the vault's access policy, whichever the vault uses",
    }
}

/// Why an authority gives no token.
pub(super) fn login_failure(response: &Response, asked: CallContext<'_>) -> Failure {
    let Refusal { error, error_codes } = frame(&response.body).unwrap_or_default();
    let (address, method) = (asked.address, asked.settings.auth.method);
    match (response.status.as_u16(), error.as_str()) {
        (429, _) => Failure::throttled(response, format!("{address} asks for patience (429) at the login")),
        (400 | 401 | 403, "temporarily_unavailable") => {
            Failure::unavailable(format!("{address} is overloaded and gives no login now"))
        }
        (400 | 401 | 403, error) if is_error_code(error) => {
            let known = HINTS.iter().find(|(codes, _)| codes.iter().any(|code| error_codes.contains(code)));
            let hint = known.map_or("see its sign-in log", |(_, hint)| *hint);
            let role = asked.role.filter(|_| asked.settings.needs_role());
            let role = role.map(|role| format!(" as {role:?}")).unwrap_or_default();
            let code = error_codes.first().map(|code| format!(" (AADSTS{code})")).unwrap_or_default();
            Failure::denied(format!("login by {method}{role} is refused{code}: {hint}"))
        }
        (status, _) => {
            Failure::unavailable(format!("{address} fails at the login with status {status}: check authority"))
        }
    }
}

/// Why a machine's metadata service gives no token:
/// <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling>
pub(super) fn metadata_failure(response: &Response, CallContext { role, address, .. }: CallContext<'_>) -> Failure {
    let Refusal { error, .. } = frame(&response.body).unwrap_or_default();
    match response.status.as_u16() {
        400 | 401 | 403 if is_error_code(&error) => {
            let hint = match role {
                Some(role) => format!("no managed identity of client id {role:?} is assigned to this machine"),
                None => "this machine has no managed identity, or several, so the role must name one".to_owned(),
            };
            Failure::denied(format!("login by managed-identity is refused: {hint}"))
        }
        429 => {
            let message = format!("{address} asks for patience (429): too many on this machine ask for tokens");
            Failure::throttled(response, message)
        }
        // It says 404 while identities are being assigned, and 410 while it is updated.
        404 | 410 => Failure::unavailable(format!(
            "{address} has no token now: it is being updated, or is not a metadata \
                 service"
        )),
        status => Failure::unavailable(format!("{address} fails at the login with status {status}")),
    }
}
