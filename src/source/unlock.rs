//! Lanes that are locked: their provider cannot read without another provider's secret. That one is read and polled as
//! any other, and is part of no generation.

use super::Source;
use super::lease::Slot;
use super::poll::Lane;
use crate::plan::Take;
use crate::provider::{ErrorKind, ProviderError, ReadResult, Reading};
use crate::reference::{Key, Request};
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::Sentence;

/// What a lane is opened with.
pub(super) struct Lock {
    request: Request,
    part: Option<Key>,
    /// What the provider was given last; nothing is asked of it before.
    given: Option<SecretValue>,
}

/// The value that opens a lane, out of a store's answer.
fn part_of(tree: &SecretTree, part: Option<&Key>) -> Result<SecretValue, ProviderError> {
    let invalid = |problem: Sentence| ProviderError::new(ErrorKind::Invalid, problem.behind("as an identity: "));
    let found = match part {
        None => Ok(tree.clone()),
        Some(Key::Literal(key)) => tree.key(key),
        Some(Key::Pointer(tokens)) => tree.pointer(tokens),
    };
    let found = found.map_err(|error| invalid(error.sentence()))?;
    if let Some(why) = found.withheld() {
        return Err(invalid(why.into()));
    }
    let value = found.as_value().ok_or_else(|| invalid("is a document: name one of its keys behind '#'".into()))?;
    Ok(value.clone())
}

// === impl Source ===

impl Source {
    /// Hands over what locked lanes wait for, or what is another than before.
    pub(super) fn unlock(&mut self) {
        let new = |(name, lane): (&String, &Lane)| {
            let Lock { request, part, given } = lane.lock.as_ref()?;
            let slot = self.lanes.get(&request.provider)?.slots.get(request)?;
            let value = part_of(&slot.held.as_ref()?.tree, part.as_ref()).ok()?;
            (given.as_ref() != Some(&value)).then(|| (name.clone(), value))
        };
        let new: Vec<_> = self.lanes.iter().filter_map(new).collect();
        for (name, value) in new {
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.unlock(value);
            }
        }
    }
}

// === impl Lock ===

impl Lock {
    pub(super) fn new(take: &Take) -> Self {
        Self { request: take.request.clone(), part: take.key.clone(), given: None }
    }
}

// === impl Lane ===

impl Lane {
    pub(super) fn is_locked(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.given.is_none())
    }

    /// While something is in flight there is nobody to give it to: what lands then brings us back here.
    fn unlock(&mut self, value: SecretValue) {
        if let (Some(lock), Some(provider)) = (&mut self.lock, &mut self.provider) {
            provider.unlock(value.clone());
            lock.given = Some(value);
            self.poll_now();
        }
    }
}

// === impl Slot ===

impl Slot {
    /// An answer that does not have what another provider is unlocked with is none.
    pub(super) fn checked(&self, result: ReadResult) -> ReadResult {
        if let Ok(Reading::Fresh(answer)) = &result {
            self.unlocks.iter().try_for_each(|part| part_of(&answer.tree, part.as_ref()).map(drop))?;
        }
        result
    }
}
