//! Requests become generations: polls, renews, replaces, backs off. A relay would be another way to the same.
//!
//! A [`Source`] owns the providers and what they answered. Each provider works in a lane of its own, so that a slow or
//! failing store never holds back what another one has to say. The last good answers stay whatever fails.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::provider::{Provider, ProviderError, Version};
use crate::reference::Request;
use crate::secret::SecretTree;

mod handover;
mod history;

pub use handover::{Draining, HandOver, HandedAnswer, HandedLease, HandedSession, Seen};
pub use history::{Origin, PastGeneration, PinError};

/// Name of a generation: a digest of (canonical request, version) pairs, never of values, which could be guessed from
/// it. The same versions have the same id on every replica. A `-N` at its end is a counter: some request has neither
/// version nor lease that would name its state, so only this pod knows what the id means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenerationId(pub String);

/// A complete and consistent set of answers.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Its name.
    pub id: GenerationId,
    /// The answer to each request of the plan; absent are those that only optional items wanted and no store has.
    pub answers: BTreeMap<Request, Arc<SecretTree>>,
    /// The versions it is made of, for the way back (`pin`); absent for stores without versions.
    pub versions: BTreeMap<Request, Version>,
}

/// What [`Source::next`] has to say. After any of them the [`HandOver`] may be another one: a login was made or a lease
/// renewed.
#[derive(Debug)]
pub enum Event {
    /// There is a new generation. The first complete set of a process is always one, also after [`Source::resume`]:
    /// whether its bytes are new is the volume's to say.
    Changed(Generation),
    /// Something was read or renewed, and no generation came of it. Also while the first one is still incomplete.
    Unchanged,
    /// Something failed; it is tried again by itself. Already logged.
    Failed(Vec<Failure>),
}

/// One thing that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The provider's name.
    pub provider: String,
    /// The request; `None` if the login failed to be extended.
    pub request: Option<Request>,
    /// Why. Until the first generation, [`crate::provider::ErrorKind::is_permanent`] means that waiting is of no use.
    pub error: ProviderError,
    /// When it is tried again.
    pub retry_in: Option<Duration>,
}

/// Providers, what they answered, and when to ask again.
pub struct Source {}

// === impl Source ===

impl Source {
    /// A source for the plan's requests. Asks nothing before [`Source::next`].
    #[must_use]
    pub fn new(plan: &Plan, providers: BTreeMap<String, Box<dyn Provider>>) -> Self {
        let _ = (plan, providers);
        todo!()
    }

    /// Waits until something is due or pushed, asks, renews and replaces, and says what came of it.
    ///
    /// Cancel safe: what is in flight goes on with the next call.
    pub async fn next(&mut self) -> Event {
        todo!()
    }

    /// Everything that is read by polling is due now, and so are leases whose renewal or replacement failed.
    ///
    /// A healthy lease is left alone: reading it would make another credential.
    pub fn refresh_now(&mut self) {
        todo!()
    }

    /// Tells that the files of this generation are in place. Credentials that it replaced are revoked a drain time
    /// (10 s) after this call, and not before: applications under `hold`, or whose volume is full, still use them. Call it
    /// after each write that succeeded, also if no byte changed.
    pub fn delivered(&mut self, id: &GenerationId) {
        let _ = id;
        todo!()
    }

    /// What the next process needs to go on with the same logins and leases.
    #[must_use]
    pub fn hand_over(&self) -> HandOver {
        todo!()
    }

    /// Goes on where another process stopped; to be called before the first [`Source::next`]. Leased requests are not
    /// read again as long as their lease lives; all others are due at once.
    pub fn resume(&mut self, hand_over: HandOver) {
        let _ = hand_over;
        todo!()
    }

    /// The answers of an earlier generation, read by their versions. Does not change what [`Source::next`] holds.
    ///
    /// # Errors
    /// [`PinError`] if the id is not known (any more), a store has no versions, a lease is involved, or a read fails.
    pub async fn read_again(&mut self, id: &GenerationId) -> Result<Generation, PinError> {
        let _ = id;
        todo!()
    }

    /// Revokes every lease of the providers whose plan says `revokeOnExit`. Best effort, and unbounded in time: the
    /// caller bounds it.
    pub async fn revoke_all(&mut self) {
        todo!()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
