//! What an answer changes of what is known of its request.

use tokio::time::Instant;

use super::ApplyContext;
use crate::provider::{Answer, ErrorKind, ProviderError, ReadResult, Reading, Version};
use crate::reference::Request;
use crate::secret::document::MAX_VALUES;
use crate::source::history::Origin;
use crate::source::request_state::{CachedAnswer, Demand, RequestState};
use crate::source::retired_lease::RetiredLease;
use crate::source::told::ToldAccesses;

/// Most bytes of a version's name. Stores' own have up to a hundred.
const MAX_VERSION: usize = 1024;

/// The results of a batch, and what stands for those that are missing.
pub(super) fn answers(results: Vec<ReadResult>) -> impl Iterator<Item = ReadResult> {
    let short = || Err(ProviderError::new(ErrorKind::Unavailable, "the provider left this request unanswered"));
    results.into_iter().chain(std::iter::repeat_with(short))
}

/// Tells of values that were taken in, or that nobody needs. A look that brought none is no access.
pub(super) fn tell_read(told: ToldAccesses<'_>, state: &mut RequestState, request: &Request, taken: &AnswerChange) {
    if taken.is_absent {
        return told.failed(request, &ProviderError::new(ErrorKind::NotFound, ""), None);
    }
    if !taken.is_read {
        return;
    }
    let origin = state.origin();
    let version = if let Origin::Version(version) = &origin { Some(version) } else { None };
    let access = told.read(request, version, taken.changed);
    // The same values are still those of the access that brought them first.
    if let Some(cached) = state.cached.as_mut().filter(|cached| cached.access.is_none()) {
        cached.access = access;
    }
}

/// What an answer changed.
#[expect(clippy::struct_excessive_bools, reason = "each is told of by itself")]
pub(super) struct AnswerChange {
    /// Values came.
    pub(super) is_read: bool,
    /// The store has no such secret, and none is needed.
    pub(super) is_absent: bool,
    pub(super) changed: bool,
    pub(super) uncounted: bool,
    pub(super) replaced: Option<CachedAnswer>,
}

/// Puts a good answer into the state.
pub(super) fn take_in(
    state: &mut RequestState,
    request: &Request,
    result: ReadResult,
    (started, login): (Instant, u64),
    context: &mut ApplyContext<'_>,
) -> Result<AnswerChange, ProviderError> {
    let nothing = AnswerChange { is_read: false, is_absent: false, changed: false, uncounted: false, replaced: None };
    let answer = match result {
        // It is kept for every generation that is remembered.
        Ok(Reading::Fresh(answer)) if answer.version.as_ref().is_some_and(|Version(name)| name.len() > MAX_VERSION) => {
            return Err(ProviderError::new(ErrorKind::Unavailable, "the store names a version with more than 1 KiB"));
        }
        Ok(Reading::Fresh(answer)) if answer.tree.count() > MAX_VALUES => {
            let message = format!("{request} has more than {MAX_VALUES} values: ask for less of it");
            return Err(ProviderError::new(ErrorKind::Invalid, message));
        }
        Ok(Reading::Fresh(answer)) => Answer { tree: state.only(answer.tree), ..answer },
        Ok(Reading::NotModified) if state.cached.is_some() => return Ok(nothing),
        Ok(Reading::NotModified) => {
            return Err(ProviderError::new(
                ErrorKind::Unavailable,
                "the store says \"not modified\" of what was never read",
            ));
        }
        // Once it was there, "not found" is not a reason to take it away: the last good answer stays.
        Err(error)
            if error.kind == ErrorKind::NotFound && state.demand == Demand::Optional && state.cached.is_none() =>
        {
            let changed = !std::mem::replace(&mut state.absent, true);
            return Ok(AnswerChange { is_absent: true, changed, ..nothing });
        }
        Err(error) => return Err(error),
    };
    let had_entries = match (&state.cached, &state.digest) {
        (Some(cached), _) => cached.tree.has_entries(),
        (None, digest) => digest.as_ref().is_some_and(|digest| digest.had_entries),
    };
    if had_entries && answer.tree.is_empty() {
        let problem = "the secret is suddenly empty; what it was stays, until it has entries again";
        return Err(ProviderError::new(ErrorKind::Unavailable, problem));
    }
    context.memory.replace(state.cached.as_ref().map(|cached| &*cached.tree), &answer.tree)?;
    let same = match (&state.cached, &state.digest) {
        (Some(cached), _) => *cached.tree == answer.tree,
        (None, Some(digest)) => context.fingerprints.of(request, &answer.tree) == digest.fingerprint,
        (None, None) => false,
    };
    let mut cached = CachedAnswer::new(answer, started, login);
    let (same_version, was_held) = match &state.cached {
        Some(old) => (old.version == cached.version, true),
        None => (true, false),
    };
    if was_held && same_version && cached.version.is_some() && !same {
        state.untrusted = true;
    }
    state.absent = false;
    state.digest = None;
    if same && same_version {
        cached.access = state.cached.as_ref().and_then(|old| old.access.clone());
    }
    // The same values under another lease: revoking the first might end them.
    let replaced = state.cached.replace(cached).filter(|_| !same);
    let counted = matches!(state.origin(), Origin::Version(_));
    let changed = !was_held || !same || !same_version;
    Ok(AnswerChange { is_read: true, changed, uncounted: !same && !counted, replaced, ..nothing })
}

// === impl CachedAnswer ===

impl CachedAnswer {
    /// What is left to do about a replaced answer. One that no application can have seen need not wait.
    pub(super) fn into_retired(self, now: Instant) -> Option<RetiredLease> {
        let validity = self.validity?;
        let lease = validity.lease?;
        Some(RetiredLease {
            lease: lease.id,
            ends: validity.ends,
            revoke_at: (!validity.delivered).then_some(now),
            failures: 0,
        })
    }
}
