//! What the driver knows of a volume, and keeps in mind.

use std::path::PathBuf;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::surroundings::FeedKey;
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
    /// What to deliver.
    pub(super) plan: Plan,
}

/// A pod, as kubelet knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PodRef {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

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
