//! kubelet's tokens of a pod: they show the stores who it is.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::secret::SecretValue;

/// Bytes of the document with all tokens: some for each provider of the configuration.
pub(super) const MAX_TOKENS: usize = 256 * 1024;

/// Tokens by audience.
pub(super) type Tokens = BTreeMap<String, PodToken>;

/// A token that shows who the pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodToken {
    pub(super) value: SecretValue,
    /// `None` if kubelet's word for it is not understood.
    pub(super) ends: Option<SystemTime>,
}

/// The tokens in kubelet's document; `None` if it is not one.
pub(super) fn tokens_in(text: &str) -> Option<Tokens> {
    if text.len() > MAX_TOKENS {
        return None;
    }
    let raw: BTreeMap<String, RawToken> = serde_json::from_str(text).ok()?;
    Some(raw.into_iter().map(|(audience, token)| (audience, token.into())).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawToken {
    token: String,
    #[serde(default)]
    expiration_timestamp: String,
}

impl From<RawToken> for PodToken {
    fn from(RawToken { token, expiration_timestamp }: RawToken) -> Self {
        let ends = OffsetDateTime::parse(&expiration_timestamp, &Rfc3339).ok().map(SystemTime::from);
        Self { value: token.into(), ends }
    }
}

/// The service account's UID in a token's claims. kubelet says it nowhere else; the signature is the stores' business.
pub(super) fn account_of(token: &SecretValue) -> Option<String> {
    #[derive(Deserialize)]
    pub(super) struct Claims {
        #[serde(rename = "kubernetes.io")]
        kubernetes: Bound,
    }
    #[derive(Deserialize)]
    pub(super) struct Bound {
        serviceaccount: Account,
    }
    #[derive(Deserialize)]
    pub(super) struct Account {
        uid: String,
    }
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(token.expose_str()?.split('.').nth(1)?).ok()?);
    let Claims { kubernetes: Bound { serviceaccount: Account { uid } } } = serde_json::from_slice(&claims).ok()?;
    Some(uid).filter(|uid| !uid.is_empty())
}
