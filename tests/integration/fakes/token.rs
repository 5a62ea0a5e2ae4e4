//! JWTs that a real Vault accepts.

use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

static KEY: LazyLock<rcgen::KeyPair> = LazyLock::new(|| rcgen::KeyPair::generate().unwrap());

/// The key that verifies them, PEM.
pub(crate) static PUBLIC_KEY: LazyLock<String> = LazyLock::new(|| KEY.public_key_pem());

/// The same as an issuer's key set (RFC 7517, RFC 7518).
pub(crate) fn key_set() -> Value {
    // A point that is not compressed: 4, x and y.
    let (x, y) = KEY.public_key_raw()[1..].split_at(32);
    let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
    json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y}]})
}

/// A JWT with these claims that expires in so many seconds.
pub(crate) fn sign(claims: &Value, expires_in: i64) -> String {
    let now = i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let mut all = json!({"iat": now - 600, "nbf": now - 600, "exp": now + expires_in});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(&json!({"alg": "ES256", "typ": "JWT"})), encode(&all));
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &KEY.serialize_der()).unwrap();
    let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The claims of a JWT that [`sign`] made; `None` if somebody else did.
pub(crate) fn verified(jwt: &str) -> Option<Value> {
    let (message, signature) = parts(jwt)?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, KEY.public_key_raw());
    key.verify(message.as_bytes(), &signature).ok()?;
    claims(message)
}

/// The claims of a JWT that one of a cluster's keys signed (RFC 7517; an API server's `/openid/v1/jwks`): RSA, or
/// elliptic curve P-256.
pub(crate) fn verified_by(keys: &Value, jwt: &str) -> Option<Value> {
    let (message, signature) = parts(jwt)?;
    let is_signed = |key: &Value| -> Option<()> {
        let number = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?).ok();
        let message = message.as_bytes();
        if key["kty"] == "EC" {
            let point = [vec![4], number("x")?, number("y")?].concat();
            return UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, &signature).ok();
        }
        let key = RsaPublicKeyComponents { n: number("n")?, e: number("e")? };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, message, &signature).ok()
    };
    keys["keys"].as_array()?.iter().find_map(is_signed)?;
    claims(message)
}

/// What is signed, and the signature.
fn parts(jwt: &str) -> Option<(&str, Vec<u8>)> {
    let (message, signature) = jwt.rsplit_once('.')?;
    Some((message, URL_SAFE_NO_PAD.decode(signature).ok()?))
}

fn claims(message: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(message.split_once('.')?.1).ok()?).ok()
}
