//! Connections that are kept for a while, and let go when other authorities are in force.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use super::address::Address;
use super::authorities::{Authorities, Trust, TrustError};
use super::connect::Connector;
use crate::provider::interface::ProviderError;

/// A connection is kept for the next request of the same batch, not for the next poll: its buffers are memory in
/// every pod.
const IDLE: Duration = Duration::from_secs(5);

/// What hyper may hold of one answer's head; bodies are handed on in pieces.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Sends requests over connections of its own.
pub(super) type Sender = legacy::Client<Connector, Full<Bytes>>;

/// The connections to one store.
pub(super) struct Pool {
    way: Way,
    held: Mutex<Option<InUse>>,
}

enum Way {
    /// Without TLS.
    Plain(Connector),
    /// Trusts nobody by itself: what is trusted is asked for each request.
    Tls(Connector, Trust),
}

struct InUse {
    config: Option<Arc<ClientConfig>>,
    sender: Sender,
}

// === impl Pool ===

impl Pool {
    /// # Errors
    /// `Invalid`, if authorities or proxy cannot be used.
    pub(super) fn new(
        address: &Address,
        authorities: &Authorities,
        limit: Duration,
        proxy: &Matcher,
    ) -> Result<Self, ProviderError> {
        let connector = Connector::new(address, limit, proxy).map_err(ProviderError::invalid)?;
        let way = if address.is_https() {
            let trust = authorities.trust().map_err(|error| ProviderError::invalid(error.to_string()))?;
            Way::Tls(connector, trust)
        } else {
            Way::Plain(connector)
        };
        Ok(Self { way, held: Mutex::default() })
    }

    /// What sends the next request. Whenever other authorities are in force than the last time, it is a new one, and
    /// the connections that the old ones vouched for end with the requests that they carry.
    ///
    /// # Errors
    /// [`TrustError`], if nobody is known yet who could vouch for the store.
    pub(super) fn sender(&self) -> Result<Sender, TrustError> {
        let config = match &self.way {
            Way::Plain(_) => None,
            Way::Tls(_, trust) => Some(trust.now()?),
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = &*held
            && held.config.as_ref().map(Arc::as_ptr) == config.as_ref().map(Arc::as_ptr)
        {
            return Ok(held.sender.clone());
        }
        let connector = match (&self.way, &config) {
            (Way::Tls(connector, trust), Some(config)) => connector.trusting(Arc::clone(config), trust.remedy()),
            (Way::Plain(connector) | Way::Tls(connector, _), _) => connector.clone(),
        };
        let sender = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .http1_max_buf_size(READ_BUFFER_BYTES)
            .build(connector);
        *held = Some(InUse { config, sender: sender.clone() });
        Ok(sender)
    }
}
