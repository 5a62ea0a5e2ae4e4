//! What the clients of one server may take: each, and all together.
//!
//! Memory is the sum that matters: one client can ask for all of it at once. A connection has a fixed part, and what
//! may grow is charged against [`Limits::own`] and [`Limits::shared`]. The tests below add up the worst.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Threads that answer requests: more would only be more reviews in memory at once.
pub(crate) const WORKERS: usize = 2;

/// As many of them as this machine has use for.
#[must_use]
pub fn workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS)
}

/// Bytes of the kernel's buffers of a connection, each way, as they are asked for; Linux takes double (socket(7)).
pub(super) const SOCKET: u32 = 32 * 1024;

/// The same of a client whose first words are not whole.
pub(super) const OPENING_SOCKET: u32 = 8 * 1024;

/// Bytes of first words that are enough to be let in, whole or not: a TLS client begins with 300 bytes to 2 KiB.
pub(super) const OPENING: usize = 4 * KIB;

/// The largest record of TLS, with its header (RFC 8446 §5.2).
pub(super) const RECORD: usize = 5 + (16 * KIB) + 256;

/// Bytes that rustls may keep to send.
pub(super) const TLS_SEND: usize = 16 * KIB;

/// Bytes of an HTTP/1 request's head; also the most that is read of a body at a time, and that is written ahead.
pub(super) const HEAD: usize = 16 * KIB;

/// Requests at once on an HTTP/2 connection: API servers call over HTTP/1.1, and open another connection if they need
/// one.
pub(super) const STREAMS: u32 = 16;

/// Bytes of an HTTP/2 request's head, as RFC 9113 §6.5.2 counts them.
pub(super) const HEADER_LIST: u32 = 4 * 1024;

/// Bytes that an HTTP/2 client may send ahead of being read, on a connection and on a stream: the least that RFC 9113
/// §6.9.2 lets a connection start with.
pub(super) const WINDOW: u32 = 65_535;

/// The longest handshake message that rustls puts together, at any time (its `MAX_HANDSHAKE_SIZE`).
const HANDSHAKE: usize = 0xffff;

/// A connection's task and its place among the others, with what the runtime and rustls keep for each.
const TASK: usize = 16 * KIB;

/// The same of a connection whose first words are not whole.
const SILENT_TASK: usize = 2 * KIB;

/// What a head takes, times its bytes on the wire: each field has an entry of its own, however short it is.
const PARSED: usize = 4;

/// How long a body may take whatever its rate; after that it needs [`LEAST_RATE`] on average.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Bytes of a body a second.
pub(super) const LEAST_RATE: usize = 64 * KIB;

/// Connections whose first words are not whole, or who wait for their turn: they wait in a list, and have no buffers of
/// ours.
pub(super) const SILENT: usize = 256;

/// How long a client that was let in is safe from having to make room: a handshake takes a few milliseconds, and many
/// at once a few more.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the first words, and again for the TLS handshake.
    pub handshake: Duration,
    /// From the handshake to the end of the first request's head.
    pub first_request: Duration,
    /// From an answer to the end of the next request's head, whatever else is sent meanwhile. Longer than
    /// kube-apiserver keeps idle connections (90 s, `SetTransportDefaults` in apimachinery), so it is seldom we who
    /// close one just as it is used.
    pub idle: Duration,
    /// From a request's head to its answer, its body included.
    pub request: Duration,
    /// From then on, to the answer's last byte.
    pub answer: Duration,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of bodies and answers that each connection may hold whatever others do: its first body of this size is
    /// never refused.
    pub own: usize,
    /// Bytes of bodies and answers beyond that, of all connections together. The slowest body makes room for others.
    pub shared: usize,
    /// Open connections. The one that is idle for longest makes room for another.
    pub connections: usize,
    /// Of them, connections without a first request yet.
    pub waiting: usize,
    /// Of them, connections that speak HTTP/2, which can hold more.
    pub http2: usize,
    /// Whether a connection may have another request.
    pub keep_alive: bool,
}

// === impl Limits ===

impl Limits {
    /// For probes and metrics.
    pub const ADMIN: Self = Self {
        handshake: Duration::from_secs(1),
        first_request: Duration::from_secs(1),
        idle: Duration::from_secs(1),
        request: Duration::from_secs(2),
        answer: Duration::from_secs(2),
        body: 0,
        own: 4 * KIB,
        // Metrics of 64 stores, each of whose requests came to all that they can come to, are 200 KiB.
        shared: 640 * KIB,
        connections: 16,
        waiting: 12,
        http2: 0,
        keep_alive: false,
    };

    /// For the webhook.
    pub const WEBHOOK: Self = Self {
        handshake: Duration::from_secs(5),
        first_request: Duration::from_secs(5),
        idle: Duration::from_mins(2),
        request: Duration::from_secs(10),
        answer: Duration::from_secs(5),
        body: 3 * MIB,
        own: 256 * KIB,
        shared: 10 * MIB,
        connections: 56,
        waiting: 40,
        http2: 12,
        keep_alive: true,
    };

    /// Bytes that clients can make a server hold at once, at most: of the kernel, of TLS if it speaks that, of HTTP,
    /// and what is charged.
    #[must_use]
    pub const fn most_memory(&self, is_tls: bool) -> usize {
        // Linux doubles what is asked for, for the sake of its own structures; both ways.
        let transport = 2 * 2 * SOCKET as usize + TASK;
        // Read from the socket, put together, decrypted, and to be sent.
        let tls = if is_tls { RECORD + HANDSHAKE + 2 * RECORD + TLS_SEND + RECORD } else { 0 };
        // Being read, handed on as a part of a body, as fields, and to be written.
        let http1 = 2 * HEAD + PARSED * HEAD + HEAD;
        // A window, and half of it for what small frames cost (h2's `data_frame_budget`); a frame being read, and one
        // being written; HPACK's tables; a task and a head of each stream.
        let stream = PARSED * HEADER_LIST as usize + TASK / 4;
        let http2 = WINDOW as usize * 3 / 2 + 2 * 16 * KIB + 2 * 4 * KIB + STREAMS as usize * stream;
        // What they sent so far is in the kernel, and none of what we send.
        let silent = SILENT * (SILENT_TASK + 2 * OPENING_SOCKET as usize);
        silent + self.connections * (transport + tls + http1 + self.own) + self.http2 * http2 + self.shared
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::WEBHOOK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_go_together() {
        for limits in [Limits::WEBHOOK, Limits::ADMIN] {
            assert!(limits.waiting < limits.connections && limits.http2 < limits.connections, "{limits:?}");
            // The largest body of all fits while another one arrives.
            assert!(limits.body <= limits.own + limits.shared / 2, "{limits:?}");
        }
        const { assert!(Limits::WEBHOOK.own >= 256 * KIB) };
    }
}
