//! Stores in process: the published protocol with its statuses, headers and error bodies, over real TLS.

pub(crate) mod aws;
pub(crate) mod azure;
pub(crate) mod gcp;
pub(crate) mod infisical;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod vault;
