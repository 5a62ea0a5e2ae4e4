//! Where accesses are told: each in one line, those that repeat themselves in one together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::time::Instant;

use super::line::{AuditEvent, AuditLine, AuditOutcome, Program, Who, cut, write};
use crate::generation::{Access, GenerationId};
use crate::reference::{Request, Version};

/// Accesses of this time that are alike make one line more, however many there are.
const TOGETHER: Duration = Duration::from_hours(1);
/// Logins that succeed are rare, unless the store grants them for moments.
const LOGINS_TOGETHER: Duration = Duration::from_mins(1);
/// How often it is seen what is over.
const LOOK: Duration = Duration::from_mins(1);
/// Most kinds of accesses that are kept in mind: beyond, all that is not told yet is told at once.
const MOST_KINDS: usize = 4096;

/// Tells accesses, for one pod or for several. Clones share what was told.
#[derive(Debug, Clone, Default)]
pub struct AuditLog {
    who: Who,
    /// `None` if nothing is told.
    told: Option<Arc<Told>>,
}

#[derive(Debug)]
struct Told {
    by: Program,
    process: String,
    accesses: AtomicU64,
    repeats: Mutex<Repeats>,
}

/// Accesses that were told, and how often they have been repeated since.
#[derive(Debug)]
struct Repeats {
    kinds: BTreeMap<Kind, Repeated>,
    look_at: Instant,
}

/// What is alike: event, whom for, the request or provider, outcome and version.
type Kind = (AuditEvent, Who, String, AuditOutcome, Option<Version>);

#[derive(Debug)]
struct Repeated {
    until: Instant,
    together: Duration,
    /// The last one that is not told yet, with their number.
    waiting: Option<AuditLine>,
}

// === impl AuditLog ===

impl AuditLog {
    /// Tells accesses of `who`.
    #[must_use]
    pub fn new(by: Program, who: Who) -> Self {
        let mut process = [0; 6];
        let _ = getrandom(&mut process, GetRandomFlags::empty());
        let repeats = Repeats { kinds: BTreeMap::new(), look_at: Instant::now() + LOOK };
        let (process, accesses, repeats) = (hex::encode(process), AtomicU64::new(0), Mutex::new(repeats));
        Self { who: who.cut(), told: Some(Arc::new(Told { by, process, accesses, repeats })) }
    }

    /// Tells nothing.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// The same, or one that tells nothing.
    #[must_use]
    pub fn only_if(self, is_told: bool) -> Self {
        Self { told: self.told.filter(|_| is_told), ..self }
    }

    /// The same, about somebody else.
    #[must_use]
    pub fn about(&self, who: Who) -> Self {
        Self { who: who.cut(), told: self.told.clone() }
    }

    /// Whom it is about.
    #[must_use]
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// Whether anything is told.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.told.is_some()
    }

    /// Tells what has waited for its hour: to be called now and then, for what has ceased to repeat itself.
    pub fn look(&self) {
        if let Some(told) = &self.told {
            told.repeats().look(Instant::now());
        }
    }

    /// Tells that a pod may not have its volume, and why.
    pub fn volume_denied(&self, problem: &str, outcome: AuditOutcome) {
        self.tell(Some(TOGETHER), AuditEvent::Admission, outcome, |_, line| AuditLine {
            problem: Some(cut(problem)),
            ..line
        });
    }

    /// Tells of a login.
    pub fn login(&self, provider: &str, role: Option<&str>, outcome: AuditOutcome) {
        let together = if outcome == AuditOutcome::Ok { LOGINS_TOGETHER } else { TOGETHER };
        self.tell(Some(together), AuditEvent::Login, outcome, |told, line| AuditLine {
            access: Some(told.next_access()),
            provider: Some(provider.to_owned()),
            role: role.map(cut),
            ..line
        });
    }

    /// Tells of values that a store gave, and names the access. `is_new` if they are others than those before.
    #[must_use]
    pub fn read(&self, request: &Request, version: Option<&Version>, is_new: bool) -> Option<Access> {
        let access = self.told.as_ref()?.next_access();
        self.tell((!is_new).then_some(TOGETHER), AuditEvent::Read, AuditOutcome::Ok, |_, line| {
            AuditLine { access: Some(access.clone()), version: version.cloned(), ..line }.about(request)
        });
        Some(access)
    }

    /// Tells of values that a store did not give.
    pub fn read_failed(&self, request: &Request, outcome: AuditOutcome) {
        self.tell(Some(TOGETHER), AuditEvent::Read, outcome, |told, line| {
            AuditLine { access: Some(told.next_access()), ..line }.about(request)
        });
    }

    /// Tells that what was read in `access` is part of a pod's files, or should be. `generation` is the one that they
    /// show from then on.
    pub fn delivery(
        &self,
        access: Option<&Access>,
        request: &Request,
        version: Option<&Version>,
        generation: Option<&GenerationId>,
        outcome: AuditOutcome,
    ) {
        let together = (outcome != AuditOutcome::Ok).then_some(TOGETHER);
        self.tell(together, AuditEvent::Delivery, outcome, |_, line| {
            let (access, version, generation) = (access.cloned(), version.cloned(), generation.cloned());
            AuditLine { access, version, generation, ..line }.about(request)
        });
    }

    /// At once, or together with those that are alike.
    fn tell(
        &self,
        together: Option<Duration>,
        event: AuditEvent,
        outcome: AuditOutcome,
        fill: impl FnOnce(&Told, AuditLine) -> AuditLine,
    ) {
        let Some(told) = &self.told else { return };
        let line = fill(told, AuditLine::new(told.by, event, self.who.clone(), outcome));
        let now = Instant::now();
        let mut repeats = told.repeats();
        repeats.look(now);
        if let Some(together) = together {
            repeats.note(line, now, together);
        } else {
            repeats.tell_failures_before(&line);
            write(&line);
        }
    }
}

// === impl Told ===

impl Told {
    fn next_access(&self) -> Access {
        Access(format!("{}-{}", self.process, self.accesses.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.repeats().tell_all();
    }
}

// === impl Repeats ===

impl Repeats {
    fn note(&mut self, line: AuditLine, now: Instant, together: Duration) {
        if line.outcome == AuditOutcome::Ok {
            self.tell_failures_before(&line);
        }
        if self.kinds.len() >= MOST_KINDS {
            self.tell_all();
        }
        let kind = (line.event, line.who.clone(), subject(&line).to_owned(), line.outcome, line.version.clone());
        let Some(known) = self.kinds.get_mut(&kind) else {
            write(&line);
            self.kinds.insert(kind, Repeated { until: now + together, together, waiting: None });
            return;
        };
        let waiting = match known.waiting.take() {
            Some(before) => AuditLine { count: before.count + 1, since: before.since, ..line },
            None => AuditLine { since: Some(line.time.clone()), ..line },
        };
        if now < known.until {
            known.waiting = Some(waiting);
            return;
        }
        known.until = now + known.together;
        waiting.tell();
    }

    /// Tells what waited for long enough, and forgets what does not repeat itself any more.
    fn look(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK;
        self.kinds.retain(|_, known| {
            if now < known.until {
                return true;
            }
            known.until = now + known.together;
            known.waiting.take().map(AuditLine::tell).is_some()
        });
    }

    /// What failed before stands before what works again.
    fn tell_failures_before(&mut self, line: &AuditLine) {
        if self.kinds.is_empty() {
            return;
        }
        let first = (line.event, line.who.clone(), subject(line).to_owned(), AuditOutcome::Ok, None);
        let (event, who, about, ..) = &first;
        let alike = self.kinds.range::<Kind, _>(&first..).map(|(kind, _)| kind);
        let alike = alike.take_while(|kind| (&kind.0, &kind.1, &kind.2) == (event, who, about));
        let over: Vec<_> = alike.filter(|kind| kind.3 != AuditOutcome::Ok).cloned().collect();
        for waiting in over.iter().filter_map(|kind| self.kinds.remove(kind)?.waiting) {
            waiting.tell();
        }
    }

    fn tell_all(&mut self) {
        for waiting in std::mem::take(&mut self.kinds).into_values().filter_map(|known| known.waiting) {
            waiting.tell();
        }
    }
}

/// What a line is about.
fn subject(line: &AuditLine) -> &str {
    line.reference.as_ref().or(line.provider.as_ref()).or(line.problem.as_ref()).map_or("", String::as_str)
}

// === impl AuditLine ===

impl AuditLine {
    fn tell(mut self) {
        if self.count == 1 {
            self.since = None;
        }
        write(&self);
    }
}
