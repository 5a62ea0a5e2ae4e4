//! What a volume's files are made of, by request: so it is told of each answer when it came into them, and of no other.

use std::collections::VecDeque;

use crate::audit::{AuditLog, AuditOutcome};
use crate::generation::{Access, Generation, GenerationId};
use crate::reference::{Request, Version};
use crate::source::{Origin, Source};

/// Generations whose answers are kept in mind: a volume goes back to no others by itself.
const REMEMBERED: usize = 3;

/// The answers in a volume's files, and where deliveries are told.
#[derive(Debug, Default)]
pub(super) struct ShownAnswers {
    audit: AuditLog,
    /// The last is what the files show.
    generations: VecDeque<(GenerationId, ShownSet)>,
}

/// In the order of requests: the driver has one for each of its volumes, and a map takes a kilobyte more.
type ShownSet = Box<[(Request, ShownAnswer)]>;

/// What tells an answer to a request from another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ShownAnswer {
    version: Option<Version>,
    /// `None` if an earlier process read it.
    access: Option<Access>,
}

// === impl ShownAnswer ===

impl ShownAnswer {
    /// Without versions, another access brought other values.
    fn is(&self, other: &Self) -> bool {
        match (&self.version, &other.version) {
            (None, None) => self.access == other.access,
            (version, other) => version == other,
        }
    }
}

// === impl ShownAnswers ===

impl ShownAnswers {
    pub(super) fn told_to(audit: AuditLog) -> Self {
        Self { audit, generations: VecDeque::new() }
    }

    /// The files are there, and are `id`: an earlier process of the pod has told of what is in them.
    pub(super) fn adopt(&mut self, id: &GenerationId, source: &Source) {
        if self.audit.is_on() && self.generations.is_empty() {
            let answers = source.origins(id).map(remembered).unwrap_or_default();
            self.generations.push_back((id.clone(), answers));
        }
    }

    /// The files show this generation.
    pub(super) fn delivered(&mut self, generation: &Generation) {
        if self.audit.is_on() {
            let answers = answers_of(generation);
            self.show(&generation.id, answers);
        }
    }

    /// They show what they showed before, which is still in the volume.
    pub(super) fn rolled_back(&mut self, id: &GenerationId, source: &Source) {
        if self.audit.is_on() {
            let known = self.generations.iter().find(|(known, _)| known == id).map(|(_, answers)| answers.clone());
            let answers = known.or_else(|| source.origins(id).map(remembered)).unwrap_or_default();
            self.show(id, answers);
        }
    }

    /// They should show this generation, and show what they did.
    pub(super) fn not_delivered(&self, generation: &Generation) {
        if !self.audit.is_on() {
            return;
        }
        let present = self.generations.back();
        for (request, answer) in answers_of(generation) {
            let had = present.and_then(|(_, answers)| answer_to(answers, &request));
            if had.is_none_or(|had| !had.is(&answer)) {
                let ShownAnswer { version, access } = &answer;
                let generation = present.map(|(id, _)| id);
                let outcome = AuditOutcome::NotDelivered;
                self.audit.delivery(access.as_ref(), &request, version.as_ref(), generation, outcome);
            }
        }
    }

    fn show(&mut self, id: &GenerationId, answers: ShownSet) {
        let present = self.generations.back();
        // One id is one state of all answers: what an earlier process delivered is not told again.
        let is_another = present.is_none_or(|(known, _)| known != id);
        for (request, answer) in answers.iter().filter(|_| is_another) {
            let had = present.and_then(|(_, answers)| answer_to(answers, request));
            if had.is_none_or(|had| !had.is(answer)) {
                let ShownAnswer { version, access } = answer;
                self.audit.delivery(access.as_ref(), request, version.as_ref(), Some(id), AuditOutcome::Ok);
            }
        }
        self.generations.retain(|(known, _)| known != id);
        self.generations.push_back((id.clone(), answers));
        while self.generations.len() > REMEMBERED {
            self.generations.pop_front();
        }
    }
}

fn answer_to<'a>(answers: &'a ShownSet, request: &Request) -> Option<&'a ShownAnswer> {
    let at = answers.binary_search_by(|(known, _)| known.cmp(request)).ok()?;
    answers.get(at).map(|(_, answer)| answer)
}

fn answers_of(generation: &Generation) -> ShownSet {
    let Generation { answers, versions, accesses, .. } = generation;
    let of = |request: &Request| {
        let (version, access) = (versions.get(request).cloned(), accesses.get(request).cloned());
        (request.clone(), ShownAnswer { version, access })
    };
    answers.keys().map(of).collect()
}

/// What an earlier process had, as far as it was handed over.
fn remembered(origins: &[(Request, Origin)]) -> ShownSet {
    let answer = |(request, origin): &(Request, Origin)| {
        let version = match origin {
            Origin::Version(version) => Some(version.clone()),
            Origin::Lease | Origin::Unversioned => None,
            Origin::Absent => return None,
        };
        Some((request.clone(), ShownAnswer { version, access: None }))
    };
    let mut all: Vec<_> = origins.iter().filter_map(answer).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all.into()
}

#[cfg(test)]
mod tests;
