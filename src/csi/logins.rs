//! One login for all feeds of one identity at one store: leases may be each volume's own, logins need not be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::record::Record;
use crate::plan::PlannedProvider;
use crate::source::HandedSession;

/// The logins that feeds hold now, by who and where.
#[derive(Debug, Default)]
pub(super) struct Logins {
    held: Mutex<BTreeMap<String, SharedLogin>>,
    /// Counts changes of it, for those who wait for one.
    changes: watch::Sender<u64>,
    /// Feeds so far.
    shares: AtomicU64,
}

#[derive(Debug, Default)]
struct SharedLogin {
    feeds: usize,
    session: Option<HandedSession>,
    /// The feed that logs in: the others wait for what comes of it.
    first: Option<u64>,
}

/// A feed's part in them, until this is dropped.
#[derive(Debug)]
pub(super) struct LoginShare {
    logins: Arc<Logins>,
    id: u64,
    /// By the provider's name.
    keys: BTreeMap<String, String>,
}

// === impl Logins ===

impl Logins {
    /// Takes part in the logins that this volume's identity has at its stores.
    pub(super) fn share(self: &Arc<Self>, record: &Record) -> LoginShare {
        let shared = record.plan.providers.iter().filter(|(_, provider)| !provider.revoke_on_exit);
        let keys: BTreeMap<_, _> = shared.map(|(name, provider)| (name.clone(), key(record, name, provider))).collect();
        let mut logins = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys.values() {
            logins.entry(key.clone()).or_default().feeds += 1;
        }
        drop(logins);
        LoginShare { logins: Arc::clone(self), id: self.shares.fetch_add(1, Ordering::Relaxed), keys }
    }
}

/// Who and where: a login of another role, or at another address, is another one.
fn key(record: &Record, name: &str, provider: &PlannedProvider) -> String {
    let settings = serde_json::to_vec(&provider.settings).unwrap_or_default();
    let role = provider.role.as_deref().unwrap_or_default();
    record.digest_with(&[name.as_bytes(), &settings, role.as_bytes()])
}

// === impl SharedLogin ===

impl SharedLogin {
    /// The login, as long as it lives.
    fn present(&self) -> Option<&HandedSession> {
        let now = SystemTime::now();
        self.session.as_ref().filter(|session| session.ends.is_none_or(|ends| ends > now))
    }
}

// === impl LoginShare ===

impl LoginShare {
    /// Logins that another feed has made.
    pub(super) fn sessions(&self) -> Vec<HandedSession> {
        let logins = self.logins.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.keys.values().filter_map(|key| logins.get(key)?.present().cloned()).collect()
    }

    /// Completes when no other feed is about to log in as the same identity. From then on this one is, where there is no
    /// login yet, until it [passes](Self::pass). Cancel safe.
    pub(super) async fn turn(&self) {
        let mut changes = self.logins.changes.subscribe();
        while !self.takes_turn() {
            // Its sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    fn takes_turn(&self) -> bool {
        let mut logins = self.logins.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free =
            |shared: &SharedLogin| shared.present().is_some() || shared.first.is_none_or(|first| first == self.id);
        if !self.keys.values().filter_map(|key| logins.get(key)).all(is_free) {
            return false;
        }
        for key in self.keys.values() {
            if let Some(shared) = logins.get_mut(key).filter(|shared| shared.present().is_none()) {
                shared.first = Some(self.id);
            }
        }
        true
    }

    /// Whatever came of it, it is another's turn.
    pub(super) fn pass(&self) {
        let mut logins = self.logins.held.lock().unwrap_or_else(PoisonError::into_inner);
        for key in self.keys.values() {
            if let Some(shared) = logins.get_mut(key).filter(|shared| shared.first == Some(self.id)) {
                shared.first = None;
            }
        }
        drop(logins);
        self.logins.changes.send_modify(|changes| *changes += 1);
    }

    /// Lets others have these.
    pub(super) fn offer(&self, sessions: &[HandedSession]) {
        let mut logins = self.logins.held.lock().unwrap_or_else(PoisonError::into_inner);
        for session in sessions {
            if let Some(shared) = self.keys.get(&session.provider).and_then(|key| logins.get_mut(key)) {
                shared.session = Some(session.clone());
            }
        }
    }
}

impl Drop for LoginShare {
    fn drop(&mut self) {
        self.pass();
        let mut logins = self.logins.held.lock().unwrap_or_else(PoisonError::into_inner);
        for key in self.keys.values() {
            if let Some(shared) = logins.get_mut(key) {
                shared.feeds -= 1;
                if shared.feeds == 0 {
                    logins.remove(key);
                }
            }
        }
    }
}
