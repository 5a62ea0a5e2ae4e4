//! One login for all feeds of one identity at one store: leases may be each volume's own, logins need not be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;

use super::attributes::Record;
use crate::plan::PlannedProvider;
use crate::source::HandedSession;

/// The logins that feeds hold now, by who and where.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<BTreeMap<String, SharedLogin>>);

#[derive(Debug, Default)]
struct SharedLogin {
    feeds: usize,
    session: Option<HandedSession>,
}

/// A feed's part in them, until this is dropped.
#[derive(Debug)]
pub(super) struct LoginShare {
    logins: Arc<Logins>,
    /// By the provider's name.
    keys: BTreeMap<String, String>,
}

// === impl Logins ===

impl Logins {
    /// Takes part in the logins that this volume's identity has at its stores.
    pub(super) fn share(self: &Arc<Self>, record: &Record) -> LoginShare {
        let shared = record.plan.providers.iter().filter(|(_, provider)| !provider.revoke_on_exit);
        let keys: BTreeMap<_, _> = shared.map(|(name, provider)| (name.clone(), key(record, name, provider))).collect();
        let mut logins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys.values() {
            logins.entry(key.clone()).or_default().feeds += 1;
        }
        drop(logins);
        LoginShare { logins: Arc::clone(self), keys }
    }
}

/// Who and where: a login of another role, or at another address, is another one. An account without a known UID shares
/// with nobody but its own pod.
fn key(record: &Record, name: &str, provider: &PlannedProvider) -> String {
    let who = record.account.as_ref().unwrap_or(&record.pod.uid);
    let settings = serde_json::to_vec(&provider.settings).unwrap_or_default();
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [record.pod.namespace.as_bytes(), who.as_bytes(), name.as_bytes(), &settings] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.update(provider.role.as_deref().unwrap_or_default().as_bytes());
    hex::encode(context.finish())
}

// === impl LoginShare ===

impl LoginShare {
    /// Logins that another feed has made.
    pub(super) fn sessions(&self) -> Vec<HandedSession> {
        let logins = self.logins.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = std::time::SystemTime::now();
        let held = self.keys.values().filter_map(|key| logins.get(key)?.session.clone());
        held.filter(|session| session.ends.is_none_or(|ends| ends > now)).collect()
    }

    /// Lets others have these.
    pub(super) fn offer(&self, sessions: &[HandedSession]) {
        let mut logins = self.logins.0.lock().unwrap_or_else(PoisonError::into_inner);
        for session in sessions {
            if let Some(shared) = self.keys.get(&session.provider).and_then(|key| logins.get_mut(key)) {
                shared.session = Some(session.clone());
            }
        }
    }
}

impl Drop for LoginShare {
    fn drop(&mut self) {
        let mut logins = self.logins.0.lock().unwrap_or_else(PoisonError::into_inner);
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
