//! How stores are reached.

use std::fmt;
use std::sync::Arc;

use hyper_util::client::proxy::matcher::Matcher;

use super::address::{Address, split_endpoint};
use super::client::{Client, Limits};
use crate::provider::ProviderError;

/// What is the same for all addresses that one store takes: its own, and those that give logins.
#[derive(Clone)]
pub struct Reach {
    /// PEM certificates that replace the public authorities.
    pub ca: Option<String>,
    /// Bounds of each exchange.
    pub limits: Limits,
    /// Which addresses are reached through an HTTP proxy.
    pub proxy: Arc<Matcher>,
}

// === impl Reach ===

impl Reach {
    /// The same with these certificates.
    #[must_use]
    pub fn with_ca(self, ca: Option<&str>) -> Self {
        Self { ca: ca.map(str::to_owned), ..self }
    }

    /// A client for that address. One for a login is to be dropped after it: its buffers are memory in every pod.
    ///
    /// # Errors
    /// `Invalid` if the address or the CA bundle cannot be used.
    pub fn client(&self, address: &str) -> Result<Client, ProviderError> {
        let address = Address::parse(address).map_err(ProviderError::invalid)?;
        Client::new(address, self.ca.as_deref(), self.limits, &self.proxy)
    }

    /// A client for the one thing at that URL, and its path.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn endpoint(&self, url: &str) -> Result<(Client, String), ProviderError> {
        let (address, path) = split_endpoint(url);
        Ok((self.client(address)?, path.to_owned()))
    }
}

impl Default for Reach {
    /// Public authorities, the usual limits, no proxy.
    fn default() -> Self {
        Self { ca: None, limits: Limits::default(), proxy: Arc::new(Matcher::builder().build()) }
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach").field("limits", &self.limits).finish_non_exhaustive()
    }
}
