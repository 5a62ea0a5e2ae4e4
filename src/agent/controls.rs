//! Live controls: annotations of the running pod, which kubelet carries into a downward API volume within a second.
//! Who may set them is Kubernetes RBAC; the agent needs no right and no port for it.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::annotations::{HOLD, PIN, REFRESH_NOW, parse_bool};
use crate::contract::{ANNOTATIONS_FILE, PREFIX};
use crate::generation::GenerationId;
use crate::process::watch::Watch;

/// What the annotations ask for now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Keep the present generation.
    pub hold: bool,
    /// Return to this generation and stay there.
    pub pin: Option<GenerationId>,
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
    /// `refresh-now` has a new text.
    RefreshNow,
}

/// The controls directory, watched.
#[derive(Debug)]
pub struct Controls {
    file: PathBuf,
    watch: Option<Watch>,
    /// What the annotations ask for now …
    wanted: Wanted,
    /// … and as far as the agent was told.
    told: Wanted,
    /// When it was last told of what makes it ask stores.
    pinned: Option<Instant>,
    refreshed: Option<Instant>,
}

struct NoGenerationId;

/// Annotations can be changed as fast as kubelet carries them, and a store's limits are shared by many pods: each
/// control that makes the agent ask a store does so this seldom. The last one counts.
const PATIENCE: Duration = Duration::from_secs(5);

// === impl Controls ===

impl Controls {
    /// Reads what stands in `dir` now. Controls are a convenience: without them (no such directory, no more watches)
    /// the agent works on, and says so.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        // Watched before it is read, so no change falls between.
        let watch = Watch::directory(dir)
            .map_err(
                |error| warn!(%error, path = %dir.display(), "live controls are off: the directory cannot be watched"),
            )
            .ok();
        let (wanted, told) = (Wanted::default(), Wanted::default());
        let mut controls =
            Self { file: dir.join(ANNOTATIONS_FILE), watch, wanted, told, pinned: None, refreshed: None };
        controls.read();
        controls.told = controls.wanted.clone();
        controls
    }

    /// What the annotations ask for, as far as they mean something.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Waits until the annotations ask for something else; pends for ever without a directory. Another `pin`, or another
    /// `refresh-now`, within five seconds of the last waits for their end. Cancel safe.
    pub async fn changed(&mut self) -> Vec<Control> {
        loop {
            let now = Instant::now();
            let changes = self.due(now);
            if !changes.is_empty() {
                return changes;
            }
            let Some(watch) = &mut self.watch else { return std::future::pending().await };
            let wait = [self.pinned, self.refreshed].into_iter().flatten().map(|last| last + PATIENCE);
            let next = wait.filter(|at| *at > now).min().filter(|_| self.wanted != self.told);
            let alarm = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = watch.changed() => self.read(),
                () = alarm => {}
            }
        }
    }

    /// What the agent is to be told now.
    fn due(&mut self, now: Instant) -> Vec<Control> {
        let Self { wanted, told, pinned, refreshed, .. } = self;
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
        // Taking the annotation away asks for nothing.
        if wanted.refresh_now.is_none() {
            told.refresh_now = None;
        } else if wanted.refresh_now != told.refresh_now && may(refreshed) {
            *refreshed = Some(now);
            told.refresh_now.clone_from(&wanted.refresh_now);
            changes.push(Control::RefreshNow);
        }
        changes
    }

    fn read(&mut self) {
        let text = match fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                warn!(%error, path = %self.file.display(), "the live controls cannot be read: they stay as they are");
                return;
            }
        };
        self.wanted = std::mem::take(&mut self.wanted).updated(&text);
    }
}

// === impl Wanted ===

impl Wanted {
    /// What `text` (the downward API's file) asks for. An invalid value is logged, and changes nothing: a
    /// typing error must not release a hold.
    #[must_use]
    fn updated(mut self, text: &str) -> Self {
        let mut found = Self::default();
        for (name, value) in annotations(text) {
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
                REFRESH_NOW => found.refresh_now = Some(value),
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

/// Our annotations in a downward API file: `key="value"` lines, values quoted as Go's `strconv.Quote` does
/// (kubernetes/pkg/fieldpath, `FormatMap`).
fn annotations(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.lines().filter_map(|line| {
        let (key, quoted) = line.strip_prefix(PREFIX)?.split_once('=')?;
        Some((key, unquote(quoted)?))
    })
}

/// The inverse of Go's `strconv.Quote`; `None` if `quoted` is not of that form.
fn unquote(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        let plain = match c {
            '"' => return None,
            '\\' => match rest.next()? {
                'x' => {
                    // One byte, of a string that is not UTF-8.
                    bytes.push(u8::try_from(hex(&mut rest, 2)?).ok()?);
                    continue;
                }
                'u' => char::from_u32(hex(&mut rest, 4)?)?,
                'U' => char::from_u32(hex(&mut rest, 8)?)?,
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            },
            c => c,
        };
        bytes.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn hex(rest: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0, |number, _| Some(number * 16 + rest.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests;
