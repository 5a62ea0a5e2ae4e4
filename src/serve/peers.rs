//! Who is connected, what each has in flight, and who makes room when there is none.
//!
//! Nobody is told apart by address: API servers may share one with others behind it. What counts is what a
//! connection does: one that is idle goes before one that is busy, and a slow body before a fast one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Notify};
use tokio::time::{Instant, timeout};

use super::exchange::{HeldExchange, HttpExchange, Stop};
use super::limits::{Limits, PATIENCE, SILENT};

/// How often a connection is looked at, at least: what became due in between is found so late.
const TICK: Duration = Duration::from_secs(1);

/// All connections of a server.
#[derive(Debug)]
pub(super) struct Peers {
    limits: Limits,
    /// Those whose first words are not whole, or who wait for their turn, first come first: they cost nothing but their
    /// place here.
    silent: Mutex<VecDeque<Arc<Peer>>>,
    inside: Mutex<Vec<Arc<Peer>>>,
    /// Someone left, or may have to.
    changed: Notify,
    /// Those whose first words are whole come in, in turn.
    entrance: Turn<()>,
    /// Bytes charged against [`Limits::shared`].
    shared: AtomicUsize,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Peer {
    peers: Arc<Peers>,
    state: Mutex<PeerState>,
    /// It has to make room.
    leave: Notify,
    /// Bytes charged against [`Limits::own`].
    own: AtomicUsize,
}

#[derive(Debug)]
struct PeerState {
    /// Since when it does what it does.
    since: Instant,
    has_asked: bool,
    is_http2: bool,
    is_leaving: bool,
    exchanges: Vec<Arc<HttpExchange>>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Peer>);

/// Of which connections there may be no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    All,
    /// Without a first request yet.
    Waiting,
    Http2,
}

// === impl Peers ===

impl Peers {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            silent: Mutex::default(),
            inside: Mutex::default(),
            changed: Notify::new(),
            entrance: Turn::new(()),
            shared: AtomicUsize::new(0),
        })
    }

    /// A place for a new connection, which has said nothing yet: the one that is silent for longest leaves for it.
    pub(super) fn enter(self: &Arc<Self>) -> Seat {
        let state = PeerState {
            since: Instant::now(),
            has_asked: false,
            is_http2: false,
            is_leaving: false,
            exchanges: Vec::new(),
        };
        let peer = Arc::new(Peer {
            peers: Arc::clone(self),
            state: Mutex::new(state),
            leave: Notify::new(),
            own: AtomicUsize::new(0),
        });
        let mut silent = self.silent();
        silent.push_back(Arc::clone(&peer));
        if silent.len() > SILENT
            && let Some(first) = silent.pop_front()
        {
            first.leave.notify_one();
        }
        drop(silent);
        Seat(peer)
    }

    /// Waits until every group has room for one more, which `join` makes of it.
    async fn when_there_is_room(&self, groups: &[Group], join: impl Fn(&mut Vec<Arc<Peer>>)) {
        loop {
            let changed = self.changed.notified();
            {
                let mut inside = self.inside();
                let Some(full) = groups.iter().find(|group| !group.has_room(&inside, &self.limits)) else {
                    return join(&mut inside);
                };
                full.make_room(&inside, Instant::now());
            }
            // Who is safe now will not be for long.
            let _ = timeout(PATIENCE / 4, changed).await;
        }
    }

    /// Charges bytes that all connections share. The slowest body of all goes if there is no room: it may be the one that
    /// asks.
    fn take_shared(&self, bytes: usize) -> Result<(), Stop> {
        let limit = self.limits.shared;
        let take = |taken: usize| taken.checked_add(bytes).filter(|&sum| sum <= limit);
        while self.shared.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            if !self.stop_slowest() {
                return Err(Stop::NoRoom);
            }
        }
        Ok(())
    }

    /// Frees what the slowest body holds of the shared bytes; false if none holds any.
    fn stop_slowest(&self) -> bool {
        let now = Instant::now();
        let inside = self.inside();
        let all = inside.iter().flat_map(|peer| {
            let exchanges = peer.state().exchanges.clone();
            exchanges.into_iter().map(move |exchange| (peer, exchange))
        });
        let arriving = all.filter_map(|(peer, exchange)| {
            let held = exchange.held();
            let rate = (held.is_arriving && held.shared > 0).then(|| held.rate(exchange.started, now))?;
            drop(held);
            Some((rate, peer, exchange))
        });
        let Some((_, peer, slowest)) = arriving.min_by_key(|(rate, ..)| *rate) else { return false };
        peer.stop(&slowest, Stop::NoRoom);
        true
    }

    fn silent(&self) -> MutexGuard<'_, VecDeque<Arc<Peer>>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inside(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Group ===

impl Group {
    fn has_room(self, inside: &[Arc<Peer>], limits: &Limits) -> bool {
        let limit = match self {
            Self::All => limits.connections,
            Self::Waiting => limits.waiting,
            Self::Http2 => limits.http2,
        };
        inside.iter().filter(|peer| self.has(&peer.state())).count() < limit
    }

    fn has(self, state: &PeerState) -> bool {
        match self {
            Self::All => true,
            Self::Waiting => !state.has_asked,
            Self::Http2 => state.is_http2,
        }
    }

    /// Tells the one to leave that does the least: it is idle for longest, or has not asked yet, or sends its body
    /// slowest. Nobody if one is leaving already, or all do what they should.
    fn make_room(self, inside: &[Arc<Peer>], now: Instant) {
        let mut least = None;
        for peer in inside {
            let state = peer.state();
            if !self.has(&state) {
                continue;
            }
            if state.is_leaving {
                return;
            }
            let Some(worth) = state.worth(now) else { continue };
            if least.as_ref().is_none_or(|(other, _)| worth < *other) {
                least = Some((worth, peer));
            }
        }
        if let Some((_, peer)) = least {
            peer.state().is_leaving = true;
            peer.leave.notify_one();
        }
    }
}

// === impl PeerState ===

impl PeerState {
    /// Less is worth less; `None` if it must not be asked to leave.
    fn worth(&self, now: Instant) -> Option<(u8, u128)> {
        let nanoseconds = now.saturating_duration_since(self.since).as_nanos();
        let longest_first = u128::MAX - nanoseconds;
        if self.exchanges.is_empty() {
            let may_go = self.has_asked || nanoseconds >= PATIENCE.as_nanos();
            return may_go.then_some((u8::from(!self.has_asked), longest_first));
        }
        let rates = self.exchanges.iter().map(|exchange| {
            let held = exchange.held();
            let is_slow = held.is_arriving && now.saturating_duration_since(exchange.started) >= PATIENCE;
            is_slow.then(|| held.rate(exchange.started, now))
        });
        // One that is being decided, or answered, keeps its connection.
        let fastest = rates.collect::<Option<Vec<_>>>()?.into_iter().max()?;
        Some((2, fastest))
    }
}

// === impl Peer ===

impl Peer {
    /// Its first words are whole: waits for room among those who are served.
    pub(super) async fn heard(self: &Arc<Self>) {
        let _turn = self.peers.entrance.lock().await;
        let join = |inside: &mut Vec<Arc<Self>>| {
            self.state().since = Instant::now();
            inside.push(Arc::clone(self));
        };
        self.peers.when_there_is_room(&[Group::Waiting, Group::All], join).await;
        self.peers.silent().retain(|other| !Arc::ptr_eq(other, self));
    }

    /// The TLS handshake is over. An HTTP/2 connection waits until there is room for another such.
    pub(super) async fn greeted(self: &Arc<Self>, is_http2: bool) {
        self.state().since = Instant::now();
        if is_http2 {
            let join = |_: &mut Vec<Arc<Self>>| self.state().is_http2 = true;
            self.peers.when_there_is_room(&[Group::Http2], join).await;
        }
    }

    /// Returns when it has to make room for others.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// A request's head is complete.
    pub(super) fn begin(&self) -> Arc<HttpExchange> {
        let exchange = HttpExchange::new(Instant::now());
        let mut state = self.state();
        let is_first = !std::mem::replace(&mut state.has_asked, true);
        state.exchanges.push(Arc::clone(&exchange));
        drop(state);
        if is_first {
            self.peers.changed.notify_waiters();
        }
        exchange
    }

    /// Nothing is left of it.
    pub(super) fn end(&self, exchange: &Arc<HttpExchange>) {
        self.release(&mut exchange.held());
        let mut state = self.state();
        state.exchanges.retain(|other| !Arc::ptr_eq(other, exchange));
        if state.exchanges.is_empty() {
            state.since = Instant::now();
        }
        drop(state);
        self.peers.changed.notify_waiters();
    }

    /// Charges bytes of an exchange: against the connection's own as long as they last, then against all connections'.
    pub(super) fn charge(&self, exchange: &HttpExchange, bytes: usize) -> Result<(), Stop> {
        let limit = self.peers.limits.own;
        let mut own = 0;
        let take = |taken: usize| {
            own = bytes.min(limit.saturating_sub(taken));
            Some(taken + own)
        };
        let _ = self.own.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let shared = bytes - own;
        let outcome = if shared == 0 { Ok(()) } else { self.peers.take_shared(shared) };
        let mut held = exchange.held();
        held.own += own;
        if outcome.is_ok() {
            held.shared += shared;
        }
        match held.stopped {
            // Meanwhile, and what it had until then was given back.
            Some(stop) => {
                self.release(&mut held);
                Err(stop)
            }
            None => outcome,
        }
    }

    /// Gives back all that was charged.
    pub(super) fn release(&self, held: &mut HeldExchange) {
        self.own.fetch_sub(std::mem::take(&mut held.own), Ordering::Relaxed);
        self.peers.shared.fetch_sub(std::mem::take(&mut held.shared), Ordering::Relaxed);
    }

    /// Stops bodies that come too slowly. Says when to look again, or why the connection ends.
    pub(super) fn look(&self) -> Result<Instant, &'static str> {
        let limits = &self.peers.limits;
        let now = Instant::now();
        let (since, has_asked, exchanges) = {
            let state = self.state();
            (state.since, state.has_asked, state.exchanges.clone())
        };
        let mut due = now + TICK;
        if exchanges.is_empty() {
            let (limit, reason) =
                if has_asked { (limits.idle, "idle") } else { (limits.first_request, "no request in time") };
            if now >= since + limit {
                return Err(reason);
            }
            due = due.min(since + limit);
        }
        for exchange in exchanges {
            let held = exchange.held();
            let last = exchange.started + limits.request;
            let end = if held.is_arriving { last.min(held.needed_by(exchange.started)) } else { last + limits.answer };
            let is_arriving = held.is_arriving;
            drop(held);
            if now < end {
                due = due.min(end);
            } else if is_arriving {
                self.stop(&exchange, Stop::Slow);
            } else {
                return Err("an answer took too long");
            }
        }
        Ok(due)
    }

    /// Frees what the exchange holds, and wakes its task.
    fn stop(&self, exchange: &HttpExchange, stop: Stop) {
        let mut held = exchange.held();
        let freed = held.stop(stop);
        self.release(&mut held);
        drop(held);
        drop(freed);
    }

    fn state(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Seat {
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Self(peer) = self;
        peer.peers.silent().retain(|other| !Arc::ptr_eq(other, peer));
        peer.peers.inside().retain(|other| !Arc::ptr_eq(other, peer));
        peer.peers.changed.notify_waiters();
    }
}
