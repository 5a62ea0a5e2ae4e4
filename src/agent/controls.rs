//! Live controls: annotations of the running pod, which kubelet carries into a downward API volume within a second.
//! Who may set them is Kubernetes RBAC; the agent needs no right and no port for it.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::annotations::DENY;
use crate::bounded_read::{BoundedReadError, read_text};
use crate::contract::{ANNOTATIONS_FILE, PREFIX};
use crate::deliver::controls::{Control, LiveControls, Wanted};
use crate::process::watch::Watch;

/// Bytes of that file: annotations have at most 256 KiB together, and quoted they take up to ten times as many.
const MAX_BYTES: usize = 4 << 20;

/// The controls directory, watched.
#[derive(Debug)]
pub struct Controls {
    file: PathBuf,
    watch: Option<Watch>,
    live: LiveControls,
    /// The rules that stop the pod.
    denied: Option<String>,
}

/// Characters of the rules: reports repeat them.
const MOST_RULES: usize = 120;

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
        let mut controls =
            Self { file: dir.join(ANNOTATIONS_FILE), watch, live: LiveControls::default(), denied: None };
        controls.read();
        let wanted = controls.wanted().clone();
        let advanced = wanted.advance.clone();
        controls.live = LiveControls::starting_with(wanted, advanced);
        controls
    }

    /// Of the waves, this one was gone along with before: any other that stands there is yet to be.
    pub fn resume(&mut self, advanced: Option<String>) {
        self.live = LiveControls::starting_with(self.wanted().clone(), advanced);
    }

    /// What the annotations ask for, as far as they mean something.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        self.live.wanted()
    }

    /// The rules of the operator's that stop the pod, if its annotation says so.
    #[must_use]
    pub fn denied(&self) -> Option<&str> {
        self.denied.as_deref()
    }

    /// Waits until the annotations ask for something else, or deny something else, which [`Controls::denied`] tells;
    /// pends for ever without a directory. Another `pin`, or another `refresh-now`, within five seconds of the last
    /// waits for their end, and all of them wait while the pod is denied. Cancel safe.
    pub async fn changed(&mut self) -> Vec<Control> {
        let denied = self.denied.clone();
        loop {
            let now = Instant::now();
            let changes = if self.denied.is_none() { self.live.due(now) } else { Vec::new() };
            if !changes.is_empty() || self.denied != denied {
                return changes;
            }
            let next = self.live.next(now).filter(|_| self.denied.is_none());
            let Some(watch) = &mut self.watch else { return std::future::pending().await };
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

    fn read(&mut self) {
        let text = match read_text(File::open(&self.file), MAX_BYTES) {
            Ok(text) => text,
            Err(BoundedReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                warn!(%error, path = %self.file.display(), "the live controls cannot be read: they stay as they are");
                return;
            }
        };
        self.live.update(annotations(&text));
        self.denied = annotations(&text).find(|(name, _)| *name == DENY).and_then(|(_, text)| rules(&text));
    }
}

/// What stands there, in the place of rules: one who may set it has said enough, whatever it is.
fn rules(text: &str) -> Option<String> {
    let is_plain = |c: char| c == ' ' || c.is_ascii_graphic();
    let plain = text.trim().chars().take(MOST_RULES).map(|c| if is_plain(c) { c } else { '?' }).collect::<String>();
    (!plain.is_empty()).then_some(plain)
}

/// Our annotations in a downward API file: `key="value"` lines, values quoted as Go's `strconv.Quote` does
/// (kubernetes/pkg/fieldpath, `FormatMap`).
fn annotations(text: &str) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    text.lines().filter_map(|line| {
        let (key, quoted) = line.strip_prefix(PREFIX)?.split_once('=')?;
        Some((key, unquote(quoted)?.into()))
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
