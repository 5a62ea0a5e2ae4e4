//! The JWT that a service account's key signs to ask for a token (RFC 7523, 2.1; RFC 7515 for its form).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::provider::{ErrorKind, ProviderError};
use crate::secret::SecretValue;

/// Google takes none that lives longer.
const LIFE: Duration = Duration::from_hours(1);

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

/// Who asks whom for what.
pub(super) struct Assertion<'a> {
    /// The service account's address.
    pub(super) issuer: &'a str,
    /// The key's id.
    pub(super) key_id: Option<&'a str>,
    /// What the token shall be good for.
    pub(super) scope: &'a str,
    /// The URL it is sent to.
    pub(super) audience: &'a str,
}

// === impl Assertion ===

impl Assertion<'_> {
    /// Signed by `key`, a PKCS#8 RSA key in PEM (RFC 7468).
    pub(super) fn sign(&self, key: &SecretValue) -> Result<SecretValue, ProviderError> {
        let invalid = || {
            let message = "the service account's private_key is not an RSA key in PKCS#8 PEM: download the key again";
            ProviderError::new(ErrorKind::Invalid, message)
        };
        let pair = RsaKeyPair::from_pkcs8(&pem_body(key).ok_or_else(invalid)?).map_err(|_| invalid())?;
        let iat = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims {
            iss: self.issuer,
            scope: self.scope,
            aud: self.audience,
            iat: iat.as_secs(),
            exp: (iat + LIFE).as_secs(),
        };
        let header = Header { alg: "RS256", typ: "JWT", kid: self.key_id };
        let jwt = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), jwt.as_bytes(), &mut signature).map_err(|_| invalid())?;
        // Without its end, the signature, the rest is not a secret.
        let mut signed = String::with_capacity(jwt.len() + 2 + signature.len() * 4 / 3 + 4);
        signed.push_str(&jwt);
        signed.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut signed);
        Ok(signed.into())
    }
}

fn part(value: &impl Serialize) -> String {
    // Structs of text and numbers cannot fail to become JSON; if one did, the token service would refuse the JWT.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap_or_default())
}

/// What is between BEGIN and END of a private key.
fn pem_body(key: &SecretValue) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = key.expose_str()?.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let mut text = Zeroizing::new(Vec::with_capacity(body.len()));
    text.extend(body.bytes().filter(|b| !b.is_ascii_whitespace()));
    let mut der = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(text.len())));
    STANDARD.decode_vec(&*text, &mut der).ok()?;
    Some(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_a_key_that_is_none_is_not_shown() {
        let assertion = Assertion { issuer: "a@b", key_id: None, scope: "s", audience: "https://t/token" };
        for key in [
            "canary",
            "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nY2FuYXJ5\n-----END RSA PRIVATE KEY-----\n",
        ] {
            let error = assertion.sign(&key.into()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.message.contains("PKCS#8") && !error.message.contains("canary"), "{error}");
        }
    }
}
