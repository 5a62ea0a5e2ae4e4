//! Live controls: what a pod's annotations ask of its running delivery, and how often that may be.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::annotations::{ADVANCE, HOLD, PIN, REFRESH_NOW, parse_bool};
use crate::contract::PREFIX;
use crate::generation::GenerationId;

/// Annotations can be changed as fast as Kubernetes carries them, and a store's limits are shared by many pods: each
/// control that makes us ask a store does so this seldom. The last one counts.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What the annotations ask for now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Keep the present generation.
    pub hold: bool,
    /// Return to this generation and stay there.
    pub pin: Option<GenerationId>,
    /// Take the newest once, hold or not: the name of the wave that asks for it.
    pub advance: Option<String>,
    /// Any new text fetches at once.
    pub refresh_now: Option<String>,
}

/// One thing that changed in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// `hold` was set or released.
    Hold(bool),
    /// `pin` names another generation, or none any more.
    Pin(Option<GenerationId>),
    /// `advance` names another wave, or none any more.
    Advance(Option<String>),
    /// `refresh-now` has this new text.
    RefreshNow(String),
}

/// The annotations of one pod, and what became of them.
#[derive(Debug, Clone, Default)]
pub struct LiveControls {
    /// What they ask for now …
    wanted: Wanted,
    /// … and as far as the delivery was told.
    told: Wanted,
    /// When it was last told of what makes it ask stores.
    pinned: Option<Instant>,
    advanced: Option<Instant>,
    refreshed: Option<Instant>,
}

/// Bytes of a wave's name.
const MOST_WAVE: usize = 63;

struct NoGenerationId;
struct NoWave;

// === impl LiveControls ===

impl LiveControls {
    /// What stands there at the start is no change: who makes the delivery asks for it by [`LiveControls::wanted`].
    /// Except for `advance`: of the waves, that one alone counts as told which an earlier process, or none, went along
    /// with.
    #[must_use]
    pub fn starting_with(wanted: Wanted, advanced: Option<String>) -> Self {
        let told = Wanted { advance: advanced, ..wanted.clone() };
        Self { wanted, told, ..Self::default() }
    }

    /// What the annotations ask for, as far as they mean something.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Takes in the annotations as they are now: names without our prefix.
    pub fn update<'a>(&mut self, annotations: impl Iterator<Item = (&'a str, Cow<'a, str>)>) {
        self.wanted = std::mem::take(&mut self.wanted).updated(annotations);
    }

    /// What the delivery is to be told now.
    pub fn due(&mut self, now: Instant) -> Vec<Control> {
        let Self { wanted, told, pinned, advanced, refreshed } = self;
        let may = |last: &Option<Instant>| last.is_none_or(|last| now >= last + PATIENCE);
        let mut changes = Vec::new();
        // Letting go of a pin asks nothing of a store.
        if wanted.pin != told.pin && (wanted.pin.is_none() || may(pinned)) {
            if wanted.pin.is_some() {
                *pinned = Some(now);
            }
            told.pin.clone_from(&wanted.pin);
            changes.push(Control::Pin(wanted.pin.clone()));
        }
        if wanted.hold != told.hold {
            told.hold = wanted.hold;
            changes.push(Control::Hold(wanted.hold));
        }
        if wanted.advance != told.advance && (wanted.advance.is_none() || may(advanced)) {
            if wanted.advance.is_some() {
                *advanced = Some(now);
            }
            told.advance.clone_from(&wanted.advance);
            changes.push(Control::Advance(wanted.advance.clone()));
        }
        // Taking the annotation away asks for nothing.
        if wanted.refresh_now.is_none() {
            told.refresh_now = None;
        } else if let Some(text) = wanted.refresh_now.as_ref().filter(|_| wanted.refresh_now != told.refresh_now)
            && may(refreshed)
        {
            *refreshed = Some(now);
            changes.push(Control::RefreshNow(text.clone()));
            told.refresh_now.clone_from(&wanted.refresh_now);
        }
        changes
    }

    /// When something that is withheld will be due, if anything is.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let ends = [self.pinned, self.advanced, self.refreshed].into_iter().flatten().map(|last| last + PATIENCE);
        ends.filter(|at| *at > now).min().filter(|_| self.wanted != self.told)
    }
}

// === impl Wanted ===

impl Wanted {
    /// What these annotations (without our prefix) ask for. An invalid value is logged, and changes nothing: a typing
    /// error must not release a hold.
    #[must_use]
    pub fn updated<'a>(mut self, annotations: impl Iterator<Item = (&'a str, Cow<'a, str>)>) -> Self {
        let mut found = Self::default();
        for (name, value) in annotations {
            match name {
                HOLD => {
                    found.hold = parse_bool(&value).unwrap_or_else(|_| {
                        ignored(HOLD, "expected \"true\" or \"false\"");
                        self.hold
                    });
                }
                PIN => {
                    found.pin = parse_pin(&value).unwrap_or_else(|NoGenerationId| {
                        ignored(PIN, "expected a generation id: the agent's log lines name those that exist");
                        self.pin.take()
                    });
                }
                ADVANCE => {
                    found.advance = parse_wave(&value).unwrap_or_else(|NoWave| {
                        ignored(ADVANCE, "expected 1 to 63 letters, digits, '.', '_' and '-'");
                        self.advance.take()
                    });
                }
                REFRESH_NOW => found.refresh_now = Some(value.into_owned()),
                _ => {}
            }
        }
        found
    }
}

/// The value stays untold: it may be anything that somebody pasted.
fn ignored(name: &str, problem: &str) {
    warn!(annotation = format_args!("{PREFIX}{name}"), problem, "an invalid live control is ignored");
}

/// Whether a wave may have this name, which reports repeat.
#[must_use]
pub fn is_wave(name: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MOST_WAVE).contains(&name.len()) && name.bytes().all(is_fine)
}

fn parse_wave(text: &str) -> Result<Option<String>, NoWave> {
    match text.trim() {
        "" => Ok(None),
        wave if is_wave(wave) => Ok(Some(wave.to_owned())),
        _ => Err(NoWave),
    }
}

/// The id of a generation, as `pin` takes it.
#[must_use]
pub fn parse_generation(text: &str) -> Option<GenerationId> {
    parse_pin(text).ok().flatten()
}

/// A generation id, which becomes part of a path: a digest and perhaps a counter, and nothing else.
fn parse_pin(text: &str) -> Result<Option<GenerationId>, NoGenerationId> {
    // `ls -a` shows a generation's directory with two dots before its id.
    let text = text.trim().trim_start_matches("..");
    if text.is_empty() {
        return Ok(None);
    }
    let (digest, counter) = text.split_once('-').unwrap_or((text, "0"));
    let are_all = |text: &str, is: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|byte| is(&byte));
    if text.len() > 128 || !are_all(digest, u8::is_ascii_hexdigit) || !are_all(counter, u8::is_ascii_digit) {
        return Err(NoGenerationId);
    }
    Ok(Some(GenerationId(text.to_owned())))
}

#[cfg(test)]
mod tests;
