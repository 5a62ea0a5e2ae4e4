//! The only place where secret bytes live.
//!
//! Every value that a store hands us is held by [`SecretValue`]; a whole answer is a [`SecretTree`] of them. Neither
//! has `Display` or `Serialize`, both print as `<redacted>`, and reading one is an explicit, greppable `expose()`.

pub(crate) mod document;
pub(crate) mod sealed;
mod tree;
mod value;

pub use document::DocumentError;
pub use tree::{LookupError, SecretTree};
pub use value::SecretValue;
