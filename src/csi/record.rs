//! What the driver knows of a volume, and keeps in mind.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::deliver::Owner;
use crate::deliver::controls::Wanted;
use crate::plan::Plan;

/// A volume: who, what, where. Without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// kubelet's name of it.
    pub(super) volume: String,
    /// Where it is mounted.
    pub(super) target: PathBuf,
    /// Whose it is.
    pub(super) pod: PodRef,
    /// The service account's UID, as the token has it: an account that is made anew under the same name is another one.
    pub(super) account: Option<String>,
    /// Whose the files are.
    pub(super) owner: Owner,
    /// Whether its answers are nobody else's: it has leases, and does not share them.
    pub(super) is_own: bool,
    /// Who looks after it.
    pub(super) feed: FeedKey,
    /// What the pod's annotations asked for when they were last looked at: a hold outlives the driver's process.
    pub(super) wanted: Wanted,
    /// The last wave that the volume has gone along with.
    pub(super) advanced: Option<String>,
    /// What to deliver: of all volumes of a feed the same one.
    pub(super) plan: Arc<Plan>,
}

/// A pod, as kubelet knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PodRef {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// Whose, and what: pods of another account, or with another plan, never share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct FeedKey(pub(super) String);

// === impl Record ===

impl Record {
    /// Digest of the pod's identity and these, in hex.
    pub(super) fn digest_with(&self, parts: &[&[u8]]) -> String {
        self.pod.digest_with(self.account.as_deref(), parts)
    }
}

// === impl PodRef ===

impl PodRef {
    /// Digest of the identity of a pod of this account and these, in hex. Without a token nobody knows the account's UID:
    /// then the pod shares with nobody.
    pub(super) fn digest_with(&self, account: Option<&str>, parts: &[&[u8]]) -> String {
        let who = account.map_or_else(|| format!("pod {}", self.uid), |uid| format!("account {uid}"));
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [self.namespace.as_bytes(), who.as_bytes()].iter().chain(parts) {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        hex::encode(context.finish())
    }
}

// === impl FeedKey ===

impl FeedKey {
    /// What this program calls the feed of such a volume, unless it [has a name](Record::feed) already.
    pub(super) fn of(record: &Record) -> Self {
        let Record { volume, pod, account, is_own, plan, .. } = record;
        let plan = plan.to_json().unwrap_or_default();
        Self::named(pod, account.as_deref(), is_own.then_some(volume), &plan)
    }

    /// The name, by the plan as it is written; of a feed of this volume alone, if one is given.
    pub(super) fn named(pod: &PodRef, account: Option<&str>, own: Option<&String>, plan: &str) -> Self {
        let volume = own.map(String::as_str).unwrap_or_default();
        Self(pod.digest_with(account, &[volume.as_bytes(), plan.as_bytes()]))
    }
}
