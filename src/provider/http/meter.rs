//! What is counted of requests to stores: by what the session does at the time, and by what the store answers.

use std::fmt;
use std::future::Future;

use hyper::StatusCode;

use crate::metrics::catalogue::STORE_REQUESTS;
use crate::metrics::{Counters, Registry};
use crate::provider::ErrorKind;

/// Counts the requests to one store. Clones share it; the default counts nothing.
#[derive(Clone, Default)]
pub struct StoreMeter(Counters);

/// What requests are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreCall {
    /// A login, its renewal, or a question about it.
    Login,
    /// Values.
    Read,
    /// A lease's renewal.
    Renew,
    /// The end of a lease or of a login.
    Revoke,
    /// Events.
    Watch,
}

tokio::task_local! {
    /// What the session does at the time: stores need not say it of each request.
    static CALL: StoreCall;
}

/// Requests that `work` makes are made for this.
pub fn calling<F: Future>(call: StoreCall, work: F) -> impl Future<Output = F::Output> {
    CALL.scope(call, work)
}

// === impl StoreMeter ===

impl StoreMeter {
    /// A meter for the store of this name.
    #[must_use]
    pub fn new(registry: &Registry, provider: &str) -> Self {
        Self(registry.counters(&STORE_REQUESTS, &[provider]))
    }

    /// Counts a request with an answer.
    pub(super) fn answered(&self, status: StatusCode, is_throttling: bool) {
        self.count(match status.as_u16() {
            _ if is_throttling => "throttled",
            429 => "throttled",
            ..400 => "ok",
            401 | 403 => "denied",
            404 | 410 => "not_found",
            400..500 => "invalid",
            _ => "unavailable",
        });
    }

    /// Counts one without a complete answer.
    pub(super) fn failed(&self, kind: ErrorKind) {
        self.count(kind.as_str());
    }

    fn count(&self, outcome: &'static str) {
        let call = CALL.try_with(|call| *call).unwrap_or(StoreCall::Read);
        self.0.increment(&[call.as_str(), outcome]);
    }
}

impl fmt::Debug for StoreMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreMeter")
    }
}

// === impl StoreCall ===

impl StoreCall {
    fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Read => "read",
            Self::Renew => "renew",
            Self::Revoke => "revoke",
            Self::Watch => "watch",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::samples;

    #[tokio::test]
    async fn each_answer_moves_its_series_alone() {
        // (what for, its word, status, the store says that it is throttling) → outcome
        for (call, word, status, is_throttling, outcome) in [
            (Some(StoreCall::Login), "login", 200, false, "ok"),
            (Some(StoreCall::Read), "read", 204, false, "ok"),
            (Some(StoreCall::Read), "read", 304, false, "ok"),
            (None, "read", 404, false, "not_found"),
            (Some(StoreCall::Renew), "renew", 403, false, "denied"),
            (Some(StoreCall::Renew), "renew", 401, false, "denied"),
            (Some(StoreCall::Revoke), "revoke", 400, false, "invalid"),
            (Some(StoreCall::Watch), "watch", 429, false, "throttled"),
            (Some(StoreCall::Read), "read", 400, true, "throttled"),
            (Some(StoreCall::Read), "read", 503, false, "unavailable"),
            (Some(StoreCall::Read), "read", 0, false, "unavailable"),
            (Some(StoreCall::Read), "read", 1, false, "invalid"),
        ] {
            let registry = Registry::default();
            let meter = StoreMeter::new(&registry, "vault");
            let count = async {
                match status {
                    0 => meter.failed(ErrorKind::Unavailable),
                    1 => meter.failed(ErrorKind::Invalid),
                    status => meter.answered(StatusCode::from_u16(status).unwrap(), is_throttling),
                }
            };
            match call {
                Some(call) => calling(call, count).await,
                None => count.await,
            }
            let series =
                format!("hushpod_store_requests_total{{provider=\"vault\",call=\"{word}\",outcome=\"{outcome}\"}}");
            assert_eq!(samples(&registry.to_string()), [(series, 1.0)].into(), "{call:?} {status}");
        }
    }
}
