//! The bytes of one secret.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// Bytes of a secret, wiped when the last holder lets go.
///
/// Clones share one buffer, so a value stands in memory once however many files it goes into.
///
/// ```
/// # fn at(place: usize) -> [u8; 512] {
/// #     use std::os::unix::fs::FileExt as _;
/// #     let mut bytes = [0; 512];
/// #     std::fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, place as u64).unwrap();
/// #     bytes
/// # }
/// # use hushpod::secret::SecretValue;
/// # // An allocator may write into what it got back, but not all over it.
/// # let is_there = |place| at(place).windows(16).any(|bytes| bytes == [b'c'; 16]);
/// let value = SecretValue::new(vec![b'c'; 512]);
/// # let place = value.expose().as_ptr() as usize;
/// let other = value.clone();
/// drop(value);
/// # assert!(is_there(place));
/// assert_eq!(other.expose(), [b'c'; 512]);
/// drop(other); // and now it is nowhere
/// # assert!(!is_there(place));
/// # let plain = vec![b'c'; 512];
/// # let place = plain.as_ptr() as usize;
/// # drop(plain);
/// # assert!(is_there(place), "or this would show nothing");
/// ```
///
/// What shows or writes things takes no secret, unless somebody exposes it:
///
/// ```
/// fn show(_: &impl std::fmt::Display) {}
/// fn write(_: &impl serde::Serialize) {}
/// let value = hushpod::secret::SecretValue::from("x");
/// show(&value.expose_str().unwrap());
/// write(&value.expose_str().unwrap());
/// ```
///
/// ```compile_fail,E0277
/// # fn show(_: &impl std::fmt::Display) {}
/// let value = hushpod::secret::SecretValue::from("x");
/// show(&value);
/// ```
///
/// ```compile_fail,E0277
/// # fn write(_: &impl serde::Serialize) {}
/// let value = hushpod::secret::SecretValue::from("x");
/// write(&value);
/// ```
#[derive(Clone)]
pub struct SecretValue(Arc<Zeroizing<Vec<u8>>>);

// === impl SecretValue ===

impl SecretValue {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes. The caller answers for where they go.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are UTF-8.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for SecretValue {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl From<String> for SecretValue {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl PartialEq for SecretValue {
    fn eq(&self, other: &Self) -> bool {
        // Time must not tell how long the common prefix is.
        self.len() == other.len() && self.expose().iter().zip(other.expose()).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }
}

impl Eq for SecretValue {}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}
