//! What every store has in common: the trait, its answers, its errors, and what an operator sets.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

use super::faults::SettingsFaults;
use crate::parse_error::ParseError;
use crate::reference::{Reference, Request, VERSION_PARAM, Version};
use crate::secret::{SecretTree, SecretValue};
use crate::sentence::Sentence;

/// A boxed future, so a source can hold providers of several types.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Versions that the caller already holds: a request whose version is still this one is answered `NotModified`.
pub type Known = BTreeMap<Request, Version>;

/// One store, as one pod identity sees it.
pub trait Provider: Send {
    /// Reads a batch; the answers stand in the order of the requests. Logs in first if there is no session; a
    /// `Denied` logs in again once before it is reported.
    fn read<'a>(&'a mut self, requests: &'a [Request], known: &'a Known) -> Pending<'a, Vec<ReadResult>>;

    /// Extends a lease; the answer replaces it (its id and life may differ). `Invalid` at stores without leases.
    fn renew<'a>(&'a mut self, _lease: &'a Lease) -> Pending<'a, Result<Lease, ProviderError>> {
        Box::pin(std::future::ready(no_leases()))
    }

    /// Ends a lease before its time. `Invalid` at stores without leases.
    fn revoke<'a>(&'a mut self, _lease: &'a Lease) -> Pending<'a, Result<(), ProviderError>> {
        Box::pin(std::future::ready(no_leases()))
    }

    /// Completes when the store says that something may have changed; pends for ever on stores that cannot push.
    /// Cancel safe.
    fn changed(&mut self) -> Pending<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Takes what [`Settings::unlocked_by`] refers to: before the first read, and whenever it changed.
    fn set_decryption_key(&mut self, _identity: SecretValue) {}

    /// The login held now, for the hand-over to another process, and how long it lives.
    fn session(&self) -> Option<Session> {
        None
    }

    /// Takes over a login that another process made.
    fn resume(&mut self, _session: Session) {}

    /// Extends the login before it ends: renews it, or logs in anew where it cannot be renewed.
    fn extend_session(&mut self) -> Pending<'_, Result<Extended, ProviderError>> {
        Box::pin(std::future::ready(Ok(Extended::Renewed)))
    }

    /// What came of the logins that were tried since this was asked last, in their order. Renewals do not count.
    fn take_logins(&mut self) -> Vec<Result<(), ProviderError>> {
        Vec::new()
    }

    /// Whether leases live on when the login that made them ends or becomes another.
    fn leases_outlive_logins(&self) -> bool {
        false
    }

    /// How far apart polls should be, going by how busy the store says it is; `None` if it does not say.
    fn pace(&self) -> Option<Duration> {
        None
    }

    /// Ends the login held, and every lease that hangs on it; `Ok` if there is none, or none of our own making. Most
    /// stores let a login end itself where they do not let it end single leases.
    fn end_session(&mut self) -> Pending<'_, Result<(), ProviderError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What one request of a batch came to.
pub type ReadResult = Result<Reading, ProviderError>;

/// A store's answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The version that the caller knows is still the present one.
    NotModified,
    /// Values.
    Fresh(Answer),
}

/// Values and their life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The values: a document, or a single value.
    pub tree: SecretTree,
    /// The store's version, if it has versions.
    pub version: Option<Version>,
    /// When the values stop being valid, if the store says so and there is no lease.
    pub expires_in: Option<Duration>,
    /// The lease that keeps the values valid, if there is one.
    pub lease: Option<Lease>,
}

/// A credential's life at the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The store's handle. Kept out of logs, since its holder may be able to revoke it.
    pub id: SecretValue,
    /// How long it lives from now on.
    pub ttl: Duration,
    /// Whether the store lets it be renewed.
    pub renewable: bool,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The store's token.
    pub token: SecretValue,
    /// How long it lives from now on; `None` for ever.
    pub ttl: Option<Duration>,
    /// Whether it can be renewed instead of replaced.
    pub renewable: bool,
}

/// How a session was extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    /// The same login lives on, and its leases with it.
    Renewed,
    /// A new login: leases of the old one end with it and must be replaced before.
    Replaced,
}

/// Why a store did not answer with values. The message is in our own words: never a store's, which might show a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", &**message)]
pub struct ProviderError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// One sentence: what failed, and what to check. Shown as logs have it; see [`Sentence::public`].
    pub message: Sentence,
}

/// Kinds of failure, by what the caller does about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such secret or version. Permanent.
    NotFound,
    /// The identity may not read it, or may not log in. Permanent until an administrator acts.
    Denied,
    /// The store asks for patience.
    Throttled {
        /// How long, if it says.
        retry_after: Option<Duration>,
    },
    /// Unreachable, sealed, failing, too slow or answering garbage. Temporary.
    Unavailable,
    /// The request makes no sense to this store. Permanent.
    Invalid,
}

/// What a type of store knows about references and logins without asking anybody.
pub trait Settings {
    /// The one form of `reference` that this store knows, so policy cannot be bypassed by an alias.
    ///
    /// # Errors
    /// One sentence that says what this store cannot mean by it.
    fn resolve(&self, provider: &str, reference: &Reference) -> Result<Request, ParseError>;

    /// What the parameters of references do here.
    fn parameters(&self) -> Parameters {
        Parameters { narrowing: &[VERSION_PARAM], widening: Some(&[]) }
    }

    /// Whether answers to this request always carry a lease, as far as its path tells.
    fn is_leased(&self, _request: &Request) -> bool {
        false
    }

    /// Whether each read may make another credential, so two readers must not take each other's for their own.
    fn is_generated(&self, request: &Request) -> bool {
        self.is_leased(request)
    }

    /// The pod's own volume that this request reads, if that is where this store is.
    fn volume<'a>(&self, _request: &'a Request) -> Option<&'a str> {
        None
    }

    /// The reference to another provider's secret that this store cannot be read without, as the operator wrote it.
    fn unlocked_by(&self) -> Option<&str> {
        None
    }

    /// Audience of the projected token if the operator names none; `None` if the store needs no token.
    fn default_audience(&self) -> Option<&str> {
        None
    }

    /// Whether a login needs a role.
    fn needs_role(&self) -> bool {
        false
    }

    /// How often to ask if something changed, where neither tenant nor operator says. Where events tell, this is for
    /// one that was lost.
    fn default_refresh(&self) -> Duration {
        Duration::from_mins(1)
    }

    /// PEM of the authorities that the operator wrote into the settings.
    fn ca(&self) -> Option<&str> {
        None
    }

    /// Files and directories that it is read with, beside the pod's token for it; `None` where a person's environment
    /// may name any.
    fn reads(&self) -> Option<Vec<PathBuf>> {
        Some(Vec::new())
    }

    /// What tells a person's login from another one: the token, id or file that they log in with, as their environment and
    /// files have it now; `None` if there is none, or it cannot be read.
    fn credential(&self) -> Option<SecretValue> {
        None
    }

    /// Finds all that is wrong which the type system could not see.
    fn check(&self, faults: &mut SettingsFaults);

    /// As [`Settings::check`], where the first fault is enough.
    ///
    /// # Errors
    /// One sentence that names the field.
    fn validate(&self) -> Result<(), ParseError> {
        let mut faults = SettingsFaults::default();
        self.check(&mut faults);
        faults.first()
    }

    /// Whether it is reached over a network, and so perhaps through a proxy.
    fn is_remote(&self) -> bool {
        true
    }
}

/// A store's parameters, by what they do to a request. Rules about requests must name those that widen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Those that ask for less than the path alone, or for another state of it.
    pub narrowing: &'static [&'static str],
    /// Those that may ask for more, or for something else; `None` is every other.
    pub widening: Option<&'static [&'static str]>,
}

/// Who logs in, for [`ProviderSettings::connect`].
#[derive(Debug, Clone)]
pub struct Login {
    /// The provider's name in the operator's configuration, for messages.
    pub provider: String,
    /// Role or identity at the store, where its auth method needs one.
    pub role: Option<String>,
    /// The pod's projected token for this provider; looked at again at each login, since kubelet rotates it.
    pub token: TokenSource,
}

/// Where a pod's service-account token comes from.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// A file that kubelet replaces.
    File(PathBuf),
    /// What kubelet hands over from time to time; `None` until it did.
    Channel(watch::Receiver<Option<SecretValue>>),
}

impl<P: Into<PathBuf>> From<P> for TokenSource {
    fn from(file: P) -> Self {
        Self::File(file.into())
    }
}

pub(super) fn no_leases<T>() -> Result<T, ProviderError> {
    Err(ProviderError::invalid("this store has no leases"))
}

// === impl ErrorKind ===

impl ErrorKind {
    /// Whether trying again without anyone's action is of no use.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::NotFound | Self::Denied | Self::Invalid)
    }

    /// A word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
        }
    }
}

// === impl ProviderError ===

impl ProviderError {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<Sentence>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A request or a setting that makes no sense to the store.
    pub fn invalid(message: impl Into<Sentence>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
}

// === impl Parameters ===

impl Parameters {
    /// Whether a parameter asks for no more than the path alone.
    #[must_use]
    pub fn narrows(&self, name: &str) -> bool {
        self.narrowing.contains(&name)
    }
}

// === impl Version ===

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
