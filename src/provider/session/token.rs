//! The token that a login brings, and how long it lives.

use std::time::Duration;

use tokio::time::Instant;

use crate::provider::Session;
use crate::secret::SecretValue;

/// What a login brought: a token, or what takes its place, and its life.
#[derive(Debug, Clone)]
pub struct Token {
    /// What calls are made with.
    pub value: SecretValue,
    /// `None` for ever, for as long as nobody says, or beyond what a clock can tell.
    ends: Option<Instant>,
    /// The longest life it was ever given at once.
    granted: Duration,
    renewal: Renewal,
}

/// Whether a login can be renewed.
#[derive(Debug, Clone, Copy)]
pub enum Renewal {
    /// Not, or nobody knows.
    Never,
    /// So long as it does not pass this point.
    Until(Instant),
    /// As often as one likes.
    Always,
}

/// A renewal that brings less than this part of what a login brought is near the login's maximum: log in anew.
const WORTHWHILE_PART: u32 = 3;

// === impl Token ===

impl Token {
    /// A token that lives so long from now on.
    #[must_use]
    pub fn new(value: SecretValue, life: Option<Duration>, renewal: Renewal) -> Self {
        Self::since(Instant::now(), value, life, renewal)
    }

    /// A token that lives so long from `start` on.
    #[must_use]
    pub fn since(start: Instant, value: SecretValue, life: Option<Duration>, renewal: Renewal) -> Self {
        let ends = life.and_then(|life| start.checked_add(life));
        Self { value, ends, granted: life.unwrap_or_default(), renewal }
    }

    /// The same, renewed in that way.
    #[must_use]
    pub fn with(self, renewal: Renewal) -> Self {
        Self { renewal, ..self }
    }

    /// What is left of its life.
    #[must_use]
    pub fn life(&self) -> Option<Duration> {
        self.ends.map(|ends| ends.saturating_duration_since(Instant::now()))
    }

    /// The longest life it was ever given at once, in seconds; 0 if it has no end.
    #[must_use]
    pub fn granted_seconds(&self) -> u64 {
        self.granted.as_secs()
    }

    /// How it can be renewed.
    #[must_use]
    pub fn renewal(&self) -> Renewal {
        self.renewal
    }

    /// Whether it can be renewed now.
    #[must_use]
    pub fn is_renewable(&self) -> bool {
        !self.has_ended()
            && match self.renewal {
                Renewal::Never => false,
                Renewal::Until(latest) => Instant::now().checked_add(self.granted).is_some_and(|ends| ends <= latest),
                Renewal::Always => true,
            }
    }

    /// The renewal of `before`, and whether it was worthwhile.
    pub(super) fn after(self, before: &Self) -> (Self, bool) {
        let granted = before.granted.max(self.granted);
        let is_worthwhile = self.ends.is_none() || self.granted.saturating_mul(WORTHWHILE_PART) >= granted;
        (Self { granted, ..self }, is_worthwhile)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.life().is_some_and(|life| life.is_zero())
    }
}

impl From<Session> for Token {
    fn from(Session { token, ttl, renewable }: Session) -> Self {
        Self::new(token, ttl, if renewable { Renewal::Always } else { Renewal::Never })
    }
}

impl From<&Token> for Session {
    fn from(token: &Token) -> Self {
        Self { token: token.value.clone(), ttl: token.life(), renewable: token.is_renewable() }
    }
}
