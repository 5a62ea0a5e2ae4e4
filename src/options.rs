//! How a bundle is delivered: what a tenant may choose, and the operator may set defaults for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bundle::{FileMode, VolumePath};
use crate::parse_error::{ParseError, invalid, rule, unknown};
use crate::quantity::Amount;

/// `restart` and `restart-all` without a jitter of their own. Twenty replicas that take five seconds each to be back have
/// more than four down at once in one rotation out of two hundred then; see src/exec.md for others.
pub const DEFAULT_JITTER: Duration = Duration::from_mins(5);

/// How a bundle is delivered; what is `None` is left to the operator's defaults, then to ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Default provider for references.
    pub provider: Option<String>,
    /// Roles by provider.
    pub roles: BTreeMap<String, String>,
    /// Which containers are injected.
    pub mode: Option<Mode>,
    /// Absolute mount path.
    pub mount_path: Option<String>,
    /// Names of the containers that get the mount; `None` is all but injected ones.
    pub containers: Option<BTreeSet<String>>,
    /// Place among init containers.
    pub init_order: Option<InitOrder>,
    /// Poll interval.
    pub refresh: Option<Duration>,
    /// Whom to tell after a change.
    pub notify: Vec<Notify>,
    /// Permission bits of every file without its own.
    pub file_mode: Option<FileMode>,
    /// Uid of the agent.
    pub run_as_user: Option<i64>,
    /// Gid of the agent.
    pub run_as_group: Option<i64>,
    /// Most bytes of one generation.
    pub size_limit: Option<u64>,
    /// Resources of each injected container.
    pub resources: Resources,
    /// What becomes environment variables of the selected containers; of one name, the last one counts.
    pub environment: Vec<EnvironmentSource>,
    /// What happens to those containers after a change.
    pub on_change: OnChange,
    /// Within which time.
    pub on_change_jitter: Option<Duration>,
    /// Where the sidecar serves metrics.
    pub metrics_port: Option<u16>,
    /// Whether pods of one identity and plan on a node get the same leases.
    pub share_leases: bool,
}

/// A file or directory of the bundle whose entries become environment variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSource {
    /// Where it is, relative to the volume.
    pub path: VolumePath,
    /// Whether it may be left out.
    pub optional: bool,
}

/// What happens to a process whose variables were changed in the store: its own cannot change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnChange {
    /// Nothing, until it is started anew.
    #[default]
    None,
    /// It is ended, and its container with it; kubelet starts it again.
    Restart,
    /// kubelet restarts all containers of the pod, which stays.
    RestartAll,
    /// It is told.
    Signal(Signal),
}

/// What each injected container is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU request.
    pub cpu_request: Option<Amount>,
    /// CPU limit.
    pub cpu_limit: Option<Amount>,
    /// Memory request.
    pub memory_request: Option<Amount>,
    /// Memory limit.
    pub memory_limit: Option<Amount>,
}

/// Which containers are injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One native sidecar that is init container and sidecar in one.
    Sidecar,
    /// An init container, then a sidecar.
    InitAndSidecar,
    /// An init container alone.
    Init,
    /// No container: a volume of the CSI driver.
    Csi,
}

/// The agent's place among init containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitOrder {
    /// Before all others.
    First,
    /// After all others.
    Last,
    /// Right after the named one.
    After(String),
}

/// Whom to tell after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Notify {
    /// Send a signal to every process of this name (as in `/proc/<pid>/comm`).
    Signal {
        /// Which.
        signal: Signal,
        /// At most 15 bytes, as the kernel keeps names.
        process: String,
    },
    /// POST to a server in the same pod.
    Http {
        /// An `http://` URL whose host is localhost, 127.0.0.1 or [::1].
        url: String,
    },
}

/// What stands in the URL of [`Notify::Http`].
#[derive(Debug, PartialEq, Eq)]
pub struct LocalUrl<'a> {
    /// Host and port as they are written.
    pub authority: &'a str,
    /// localhost, 127.0.0.1 or ::1.
    pub host: &'a str,
    /// 80 if none is written.
    pub port: u16,
    /// Path and query; maybe empty.
    pub path: &'a str,
}

/// Signals that make a program read its files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Hup,
    /// SIGUSR1
    Usr1,
    /// SIGUSR2
    Usr2,
    /// SIGWINCH
    Winch,
    /// SIGINT
    Int,
    /// SIGTERM
    Term,
    /// SIGQUIT
    Quit,
}

// === impl Options ===

impl Options {
    /// These options, and `defaults` where they say nothing.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        let Self { provider, roles, mode, mount_path, containers, init_order, refresh, notify, file_mode, .. } = self;
        Self {
            provider: provider.or_else(|| defaults.provider.clone()),
            roles,
            mode: mode.or(defaults.mode),
            mount_path: mount_path.or_else(|| defaults.mount_path.clone()),
            containers,
            init_order: init_order.or_else(|| defaults.init_order.clone()),
            refresh: refresh.or(defaults.refresh),
            notify,
            file_mode: file_mode.or(defaults.file_mode),
            run_as_user: self.run_as_user.or(defaults.run_as_user),
            run_as_group: self.run_as_group.or(defaults.run_as_group),
            size_limit: self.size_limit.or(defaults.size_limit),
            resources: self.resources.or(&defaults.resources),
            environment: self.environment,
            on_change: self.on_change,
            on_change_jitter: self.on_change_jitter.or(defaults.on_change_jitter),
            metrics_port: self.metrics_port.or(defaults.metrics_port),
            share_leases: self.share_leases,
        }
    }
}

impl Resources {
    fn or(self, defaults: &Self) -> Self {
        let or = |mine: Option<Amount>, theirs: &Option<Amount>| mine.or_else(|| theirs.clone());
        Self {
            cpu_request: or(self.cpu_request, &defaults.cpu_request),
            cpu_limit: or(self.cpu_limit, &defaults.cpu_limit),
            memory_request: or(self.memory_request, &defaults.memory_request),
            memory_limit: or(self.memory_limit, &defaults.memory_limit),
        }
    }
}

// === impl Mode ===

impl Mode {
    /// As the annotation writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::InitAndSidecar => "init+sidecar",
            Self::Init => "init",
            Self::Csi => "csi",
        }
    }
}

impl FromStr for Mode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "sidecar" => Ok(Self::Sidecar),
            "init+sidecar" => Ok(Self::InitAndSidecar),
            "init" => Ok(Self::Init),
            "csi" => Ok(Self::Csi),
            _ => Err(invalid("mode", text, "sidecar, init+sidecar, init or csi")),
        }
    }
}

// === impl InitOrder ===

impl FromStr for InitOrder {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match (text, text.strip_prefix("after:")) {
            ("first", _) => Ok(Self::First),
            ("last", _) => Ok(Self::Last),
            (_, Some(name)) if !name.is_empty() => Ok(Self::After(name.to_owned())),
            _ => Err(invalid("order", text, "first, last or after:<init container>")),
        }
    }
}

// === impl OnChange ===

impl FromStr for OnChange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match (text, text.split_once(':')) {
            ("none", _) => Ok(Self::None),
            ("restart", _) => Ok(Self::Restart),
            ("restart-all", _) => Ok(Self::RestartAll),
            (_, Some(("signal", signal))) => signal.parse().map(Self::Signal),
            _ => Err(invalid("reaction", text, "none, restart, restart-all or signal:<SIGNAL>")),
        }
    }
}

impl fmt::Display for OnChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Restart => f.write_str("restart"),
            Self::RestartAll => f.write_str("restart-all"),
            Self::Signal(signal) => write!(f, "signal:{signal}"),
        }
    }
}

// === impl Signal ===

impl Signal {
    const NAMES: [(&'static str, Self); 7] = [
        ("HUP", Self::Hup),
        ("USR1", Self::Usr1),
        ("USR2", Self::Usr2),
        ("WINCH", Self::Winch),
        ("INT", Self::Int),
        ("TERM", Self::Term),
        ("QUIT", Self::Quit),
    ];
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, signal)| signal == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Signal {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bare = text.strip_prefix("SIG").unwrap_or(text);
        if let Some((_, signal)) = Self::NAMES.iter().find(|(name, _)| *name == bare) {
            Ok(*signal)
        } else {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            Err(unknown("signal", text, &names))
        }
    }
}

// === impl LocalUrl ===

impl<'a> LocalUrl<'a> {
    /// Takes a URL apart. The fragment is left out, as of every request.
    ///
    /// # Errors
    /// One sentence, if it leads elsewhere, or could end a request's line.
    pub fn parse(url: &'a str) -> Result<Self, ParseError> {
        let rest = url.strip_prefix("http://").ok_or_else(|| rule(format!("{url:?} does not begin with http://")))?;
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(rule(format!("{url:?} has a character that no URL has: write it as %XX")));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':').map(str::parse) {
            None if port.is_empty() => Some(80),
            Some(Ok(port)) if port > 0 => Some(port),
            _ => None,
        };
        match port {
            Some(port) if matches!(host, "localhost" | "127.0.0.1" | "::1") => {
                Ok(Self { authority, host, port, path: path.split('#').next().unwrap_or_default() })
            }
            _ => Err(rule(format!("{url:?} is not on localhost: expected http://localhost:<port>/<path>"))),
        }
    }
}

// === impl Notify ===

impl FromStr for Notify {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let form = "signal:<SIGNAL>:<process> or http:<url on localhost>";
        match text.split_once(':') {
            Some(("signal", rest)) => {
                let (signal, process) =
                    rest.split_once(':').ok_or_else(|| rule(format!("{text:?} names no process: expected {form}")))?;
                if process.is_empty() || process.len() > 15 || process.contains('/') {
                    return Err(invalid("process name", process, "1 to 15 bytes, as `ps -o comm` shows it"));
                }
                Ok(Self::Signal { signal: signal.parse()?, process: process.to_owned() })
            }
            Some(("http", rest)) => parse_notify_url(if rest.starts_with("//") { text } else { rest }),
            Some(("exec", _)) => Err(rule(format!("there is no shell to exec in: expected {form}"))),
            _ => Err(invalid("notification", text, form)),
        }
    }
}

fn parse_notify_url(url: &str) -> Result<Notify, ParseError> {
    LocalUrl::parse(url)?;
    Ok(Notify::Http { url: url.to_owned() })
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { signal, process } => write!(f, "signal:{signal}:{process}"),
            Self::Http { url } => write!(f, "http:{url}"),
        }
    }
}

impl TryFrom<String> for Notify {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Notify> for String {
    fn from(notify: Notify) -> Self {
        notify.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_to_tell_is_on_localhost_and_one_word() {
        let parts = |authority, host, port, path| Ok(LocalUrl { authority, host, port, path });
        for (url, expected) in [
            ("http://localhost", parts("localhost", "localhost", 80, "")),
            ("http://localhost:8080/-/a?b=c#d", parts("localhost:8080", "localhost", 8080, "/-/a?b=c")),
            ("http://127.0.0.1:1?x", parts("127.0.0.1:1", "127.0.0.1", 1, "?x")),
            ("http://[::1]:9/", parts("[::1]:9", "::1", 9, "/")),
            ("https://localhost/", Err("does not begin with http://")),
            ("http://localhost:0/", Err("is not on localhost")),
            ("http://localhost:65536/", Err("is not on localhost")),
            ("http://localhost:8080x/", Err("is not on localhost")),
            ("http://user@localhost/", Err("is not on localhost")),
            ("http://localhost.example/", Err("is not on localhost")),
            ("http://::1/", Err("is not on localhost")),
            ("http://[::1]x/", Err("is not on localhost")),
            ("http://localhost/a\r\nb: c", Err("write it as %XX")),
            ("http://localhost/a b", Err("write it as %XX")),
            ("http://localhost/\u{7f}", Err("write it as %XX")),
        ] {
            match (LocalUrl::parse(url), expected) {
                (Ok(found), expected) => assert_eq!(Ok(found), expected, "{url:?}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{url:?}: {error}"),
                (Err(error), Ok(_)) => panic!("{url:?}: {error}"),
            }
        }
    }
}
