//! What one process leaves to the next: init container to sidecar, and a sidecar to itself after a restart.
//!
//! Ends are points of the system clock, which both processes share. A written hand-over holds secrets.

use std::time::{Duration, SystemTime};

use super::history::PastGeneration;
use crate::generation::GenerationId;
use crate::reference::Request;
use crate::secret::{SecretTree, SecretValue};

/// Logins, leases and names. Has secrets in it; `Debug` shows none.
#[derive(Debug, Clone, Default)]
pub struct HandOver {
    /// The login held at each provider.
    pub sessions: Vec<HandedSession>,
    /// Answers that a read would make anew, with their values: the next process goes on with them.
    pub leased: Vec<HandedAnswer>,
    /// Replaced credentials that are still to be revoked.
    pub retired: Vec<HandedRetiredLease>,
    /// Providers whose store asked for patience, and until when.
    pub patience: Vec<(String, SystemTime)>,
    /// What is remembered of the other answers; not their values.
    pub digests: Vec<(Request, AnswerDigest)>,
    /// Key of their fingerprints.
    pub salt: Option<SecretValue>,
    /// The counter in ids of generations without versions.
    pub counter: u64,
    /// The last generations, oldest first.
    pub history: Vec<PastGeneration>,
    /// The present generation.
    pub last: Option<GenerationId>,
}

/// A login.
#[derive(Debug, Clone)]
pub struct HandedSession {
    /// The provider's name.
    pub provider: String,
    /// The store's token.
    pub token: SecretValue,
    /// When it ends; `None` for never.
    pub ends: Option<SystemTime>,
    /// Whether it can be renewed.
    pub renewable: bool,
}

/// An answer with a limited life.
#[derive(Debug, Clone)]
pub struct HandedAnswer {
    /// What was asked.
    pub request: Request,
    /// The values.
    pub tree: SecretTree,
    /// When they stop being valid.
    pub ends: SystemTime,
    /// How long they were granted for at first.
    pub granted: Duration,
    /// The lease, if the store gave one.
    pub lease: Option<HandedLease>,
    /// Whether the files with it are known to have been written.
    pub delivered: bool,
}

/// A store's handle on a credential.
#[derive(Debug, Clone)]
pub struct HandedLease {
    /// The handle.
    pub id: SecretValue,
    /// Whether the store lets it be renewed.
    pub renewable: bool,
}

/// A replaced credential.
#[derive(Debug, Clone)]
pub struct HandedRetiredLease {
    /// The provider's name.
    pub provider: String,
    /// The store's handle.
    pub lease: SecretValue,
    /// When it ends by itself.
    pub ends: SystemTime,
    /// When it may be revoked; `None`: not before what replaced it is delivered.
    pub revoke_at: Option<SystemTime>,
}

/// What is remembered of an answer without its values.
#[derive(Debug, Clone)]
pub struct AnswerDigest {
    /// Keyed digest of the answer, to notice a change across a restart. As secret as the values.
    pub fingerprint: SecretValue,
    /// Whether it was a document with entries, which must not become empty.
    pub had_entries: bool,
}
