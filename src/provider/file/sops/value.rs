//! One encrypted value: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`.

use aes_gcm::aead::consts::U32;
use aes_gcm::aes::Aes256;
use aes_gcm::{AeadInPlace, AesGcm, KeyInit, Nonce, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::form::ENCRYPTED;
use super::node::Typed;
use crate::secret::{SecretTree, SecretValue};

/// AES-256-GCM with SOPS' nonces of 256 bits.
pub(super) struct DataKey(AesGcm<Aes256, U32>);

/// A value's type, which SOPS writes beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Float,
    Bool,
    Comment,
}

/// A value that was encrypted.
pub(super) struct Leaf {
    /// What it is for us; `None` for a comment.
    pub(super) tree: Option<SecretTree>,
    /// What it is in the MAC.
    pub(super) in_mac: SecretValue,
}

/// Decrypts a value that is bound to `place`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decrypt(sealed: &str, key: &DataKey, place: &str) -> Result<(Kind, SecretValue), &'static str> {
    const FORM: &str = "is not ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]";
    let inner = sealed.strip_prefix(ENCRYPTED).and_then(|rest| rest.strip_suffix(']')).ok_or(FORM)?;
    let mut parts = inner.split(',');
    let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name)).ok_or(FORM);
    let (data, nonce, tag, kind) = (part("data:")?, part("iv:")?, part("tag:")?, part("type:")?);
    let mut data = Zeroizing::new(STANDARD.decode(data).map_err(|_| FORM)?);
    let nonce: [u8; 32] =
        STANDARD.decode(nonce).ok().and_then(|n| n.try_into().ok()).ok_or("has no nonce of 32 bytes")?;
    let tag: [u8; 16] = STANDARD.decode(tag).ok().and_then(|t| t.try_into().ok()).ok_or("has no tag of 16 bytes")?;
    let kind = match kind {
        // SOPS writes points in time in one way only.
        "str" | "bytes" | "time" => Kind::Text,
        "int" => Kind::Int,
        "float" => Kind::Float,
        "bool" => Kind::Bool,
        "comment" => Kind::Comment,
        _ => return Err("is of a type that this agent does not know"),
    };
    key.0
        .decrypt_in_place_detached(Nonce::from_slice(&nonce), place.as_bytes(), &mut data, Tag::from_slice(&tag))
        .map_err(|_| "cannot be decrypted: it was changed or moved without sops, or is of another file")?;
    Ok((kind, SecretValue::new(std::mem::take(&mut *data))))
}

/// What a decrypted value is for us, and in the MAC.
///
/// # Errors
/// If it is not of its type.
pub(super) fn leaf(kind: Kind, text: SecretValue) -> Result<Leaf, &'static str> {
    let known = || text.expose_str().ok_or("is not of its type");
    let (tree, in_mac) = match kind {
        Kind::Comment => return Ok(Leaf { tree: None, in_mac: SecretValue::new(Vec::new()) }),
        Kind::Text => (SecretTree::from(text.clone()), text),
        Kind::Int => {
            let value: i64 = known()?.parse().map_err(|_| "is not a whole number")?;
            (SecretTree::plain(text), value.to_string().into())
        }
        Kind::Float => {
            let value: f64 = known()?.parse().map_err(|_| "is not a number")?;
            (SecretTree::plain(text), float(value).into())
        }
        Kind::Bool => match known()? {
            "True" | "true" => (SecretTree::Literal("true".into()), "True".into()),
            "False" | "false" => (SecretTree::Literal("false".into()), "False".into()),
            _ => return Err("is neither true nor false"),
        },
    };
    Ok(Leaf { tree: Some(tree), in_mac })
}

/// What a scalar in the open is in the MAC; `None` for null, which is in none.
pub(super) fn in_mac(typed: Typed, text: &SecretValue) -> Option<SecretValue> {
    Some(match typed {
        Typed::Null => return None,
        Typed::Bool(true) => "True".into(),
        Typed::Bool(false) => "False".into(),
        Typed::Int(value) => value.to_string().into(),
        Typed::Float(value) => float(value).into(),
        Typed::Text => text.clone(),
    })
}

/// As Go's `strconv.FormatFloat(value, 'f', -1, 64)`: the fewest digits that mean it, no exponent.
fn float(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string().replace("inf", "Inf") }
}

// === impl DataKey ===

impl DataKey {
    /// `None` unless it has 256 bits.
    pub(super) fn new(key: &SecretValue) -> Option<Self> {
        AesGcm::new_from_slice(key.expose()).ok().map(Self)
    }
}
