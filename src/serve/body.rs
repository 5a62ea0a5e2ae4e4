//! Bodies as they come, and answers until they are gone.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Bytes;
use axum::http::StatusCode;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};

use super::exchange::{HttpExchange, Stop};
use super::peers::Peer;

/// A request in its own task's hands. Ends its exchange when it is dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    peer: Arc<Peer>,
    exchange: Arc<HttpExchange>,
}

/// An answer's bytes, and its request until they are gone.
struct Answer {
    bytes: Bytes,
    _in_flight: InFlight,
}

// === impl InFlight ===

impl InFlight {
    /// The head is complete.
    pub(super) fn begin(peer: &Arc<Peer>) -> Self {
        Self { peer: Arc::clone(peer), exchange: peer.begin() }
    }

    /// The whole body, of `limit` bytes at most. Bytes are charged when they are here, whatever was announced.
    pub(super) async fn read(&self, mut body: Incoming, limit: usize) -> Result<Bytes, Stop> {
        let room = body.size_hint().exact().map_or(limit, |exact| usize::try_from(exact).unwrap_or(usize::MAX));
        if room > limit {
            return Err(Stop::TooLarge);
        }
        while !body.is_end_stream() {
            let frame = poll_fn(|context| match self.exchange.poll_stopped(context) {
                Poll::Ready(stop) => Poll::Ready(Err(stop)),
                Poll::Pending => Pin::new(&mut body).poll_frame(context).map(Ok),
            });
            let frame = match frame.await? {
                None => break,
                Some(frame) => frame.map_err(|_| Stop::Broken)?,
            };
            // Trailers are of no use here.
            let Ok(part) = frame.into_data() else { continue };
            let received = self.exchange.received(part.len());
            if received > limit {
                return Err(Stop::TooLarge);
            }
            self.peer.charge(&self.exchange, part.len())?;
            if received == part.len() && body.is_end_stream() {
                // All in one: usual, and not copied.
                self.exchange.complete()?;
                return Ok(part);
            }
            self.exchange.append(&part, room)?;
        }
        self.exchange.complete().map(Bytes::from)
    }

    /// What is sent, which stays charged until the client has taken it. The request's body is gone.
    pub(super) fn answer(self, bytes: Bytes) -> Result<Full<Bytes>, Stop> {
        self.peer.release(&mut self.exchange.held());
        if bytes.is_empty() {
            return Ok(Full::default());
        }
        self.peer.charge(&self.exchange, bytes.len())?;
        Ok(Full::new(Bytes::from_owner(Answer { bytes, _in_flight: self })))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.peer.end(&self.exchange);
    }
}

// === impl Answer ===

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl Stop ===

impl Stop {
    /// What its client is told, if it still listens.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}
