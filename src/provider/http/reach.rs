//! How stores are reached.

use std::fmt;
use std::sync::Arc;

use hyper_util::client::proxy::matcher::Matcher;

use super::address::{Address, split_endpoint};
use super::authorities::{Authorities, CaFile};
use super::client::{Client, Limits};
use super::meter::StoreMeter;
use crate::provider::ProviderError;

/// What is the same for all addresses that one store takes: its own, and those that give logins.
#[derive(Clone)]
pub struct Reach {
    /// Who vouches for them.
    pub authorities: Authorities,
    /// Bounds of each exchange.
    pub limits: Limits,
    /// Which addresses are reached through an HTTP proxy.
    pub proxy: Arc<Matcher>,
    /// Counts the requests.
    pub meter: StoreMeter,
}

// === impl Reach ===

impl Reach {
    /// With the public authorities, through what proxies there are.
    #[must_use]
    pub fn through(proxy: Matcher) -> Self {
        Self { proxy: Arc::new(proxy), ..Self::default() }
    }

    /// The same with these certificates, if there are any, in place of the authorities so far.
    #[must_use]
    pub fn with_ca(self, ca: Option<&str>) -> Self {
        match ca {
            Some(pem) => Self { authorities: Authorities::Given(pem.to_owned()), ..self },
            None => self,
        }
    }

    /// The same with those certificates that are in the file at the time, if there is one to follow.
    #[must_use]
    pub fn with_ca_file(self, file: Option<Arc<CaFile>>) -> Self {
        match file {
            Some(file) => Self { authorities: Authorities::Followed(file), ..self },
            None => self,
        }
    }

    /// The same, counted.
    #[must_use]
    pub fn counted_by(self, meter: StoreMeter) -> Self {
        Self { meter, ..self }
    }

    /// A client for that address. One for a login is to be dropped after it: its buffers are memory in every pod.
    ///
    /// # Errors
    /// `Invalid` if the address or the certificates cannot be used.
    pub fn client(&self, address: &str) -> Result<Client, ProviderError> {
        let address = Address::parse(address).map_err(ProviderError::invalid)?;
        let client = Client::trusting(address, &self.authorities, self.limits, &self.proxy)?;
        Ok(client.counted_by(self.meter.clone()))
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
        Self {
            authorities: Authorities::default(),
            limits: Limits::default(),
            proxy: Arc::new(Matcher::builder().build()),
            meter: StoreMeter::default(),
        }
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach").field("limits", &self.limits).finish_non_exhaustive()
    }
}
