//! The schema of a line, and how it is written.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::generation::{Access, GenerationId};
use crate::reference::{Request, Version};
use crate::report::rfc3339;
use crate::sentence::fitting;

/// What the field `audit` of each line says: the schema, and its version.
pub const SCHEMA: &str = "hushpod.dev/v1";

/// The events of the log that are audit lines already: they are written as they are, whatever the log's format and level.
pub const TARGET: &str = "hushpod::audit";

/// Most bytes of one text of a line. What is cut ends in an ellipsis.
pub const MOST_TEXT: usize = 1024;

/// Most bytes of a name: what Kubernetes takes.
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>)
pub const MOST_NAME: usize = 253;

/// Most bytes of all references of an admission: a line of the log is split at 16 KiB by container runtimes.
const MOST_REQUESTED: usize = 8 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditLine {
    /// [`SCHEMA`].
    pub audit: String,
    /// When it was written: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// The program that wrote it.
    pub by: Program,
    /// What happened.
    pub event: AuditEvent,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// Whom it was for.
    #[serde(flatten)]
    pub who: Who,
    /// Id of the access: a read, and the deliveries of what was read, have one id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Who asked the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The store, by the operator's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The role that was logged in as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The canonical request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The store's name for the state of the secret; none if it has none, or if it is a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The generation that was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<GenerationId>,
    /// What a pod asks for, and the rules that let it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<AskedRequest>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
    /// Why a pod was denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How many accesses the line stands for.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u64,
    /// When the first of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Programs that write lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// `hushpod webhook`.
    Webhook,
    /// `hushpod-agent`, in the pod.
    Agent,
    /// `hushpod csi`, on the pod's node.
    Csi,
}

/// What there are lines for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditEvent {
    /// A pod asked for secrets, and was let or denied.
    Admission,
    /// A login at a store. Renewals do not count.
    Login,
    /// Values came from a store, or were asked for in vain. A check whether a version is still the present one does not count.
    Read,
    /// Values became a pod's files.
    Delivery,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It was done.
    Ok,
    /// The pod may have what it asks for.
    Allowed,
    /// The operator's rules, or the store's, are against it.
    Denied,
    /// There is no such secret or version.
    NotFound,
    /// It makes no sense to the store, or is no pod that can be injected.
    Invalid,
    /// The store asks for patience.
    Throttled,
    /// The store cannot be reached, or answers nothing that can be used.
    Unavailable,
    /// The files could not be made or written: the last good ones stay.
    NotDelivered,
}

/// Whom an access is for. What nobody knows is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Who {
    /// Namespace of the pod.
    #[serde(default)]
    pub namespace: String,
    /// Its service account.
    #[serde(default)]
    pub account: String,
    /// Its name. With csi, a login or read is for all pods of the account that want the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedRequest {
    /// The canonical request.
    pub reference: String,
    /// The place of the rule in the configuration, such as `providers.vault.allow[0]`; none if there are no rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// All that a pod asks for, as far as it fits into a line: made once, and written for each pod that asks for the same.
#[derive(Debug, Default)]
pub struct AskedRequests {
    listed: Vec<AskedRequest>,
    more: usize,
}

/// What is asked of the webhook.
#[derive(Debug, Default)]
pub struct Admission<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Its service account.
    pub account: &'a str,
    /// Its name, as far as it has one.
    pub pod: &'a str,
    /// Who asked the API server.
    pub user: &'a str,
    /// What for; `None` if nobody knows.
    pub requests: Option<&'a AskedRequests>,
    /// Why not, if not.
    pub problem: Option<&'a str>,
}

/// An [`AuditLine`] of an admission, as it is written: every review writes one, and copies nothing for it.
#[derive(Serialize)]
struct AdmissionLine<'a> {
    audit: &'static str,
    time: &'a str,
    by: Program,
    event: AuditEvent,
    outcome: AuditOutcome,
    namespace: Cow<'a, str>,
    account: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: Cow<'a, str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    requests: &'a [AskedRequest],
    #[serde(skip_serializing_if = "is_zero")]
    more: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Cow<'a, str>>,
}

/// Writes the line of the webhook's decision about a pod.
pub fn write_admission(admission: &Admission<'_>, outcome: AuditOutcome) {
    let Admission { namespace, account, pod, user, requests, problem } = admission;
    let line = AdmissionLine {
        audit: SCHEMA,
        time: &to_the_millisecond(SystemTime::now()),
        by: Program::Webhook,
        event: AuditEvent::Admission,
        outcome,
        namespace: fitting(namespace, MOST_NAME),
        account: fitting(account, MOST_NAME),
        pod: fitting(pod, MOST_NAME),
        user: fitting(user, MOST_TEXT),
        requests: requests.map_or(&[], |requests| &requests.listed),
        more: requests.map_or(0, |requests| requests.more),
        problem: problem.map(|problem| fitting(problem, MOST_TEXT)),
    };
    put(&line);
}

/// Puts a line into the log.
pub(super) fn write(line: &AuditLine) {
    put(line);
}

fn put(line: &impl Serialize) {
    // Texts and numbers always make JSON.
    let json = serde_json::to_string(line).unwrap_or_default();
    tracing::info!(target: TARGET, "{json}");
}

/// RFC 3339 in UTC, to the millisecond.
fn to_the_millisecond(time: SystemTime) -> String {
    let milliseconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_millis());
    let mut text = rfc3339(time);
    text.pop();
    // A String takes whatever is written.
    let _ = write!(text, ".{milliseconds:03}Z");
    text
}

/// The beginning of a text that is longer than [`MOST_TEXT`].
pub(super) fn cut(text: &str) -> String {
    fitting(text, MOST_TEXT).into_owned()
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field as it is")]
fn is_one(count: &u64) -> bool {
    *count == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field as it is")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

// === impl AskedRequests ===

impl AskedRequests {
    /// As many as fit into a line, and the number of the others.
    #[must_use]
    pub fn new(asked: Vec<AskedRequest>) -> Self {
        let all = asked.len();
        let mut left = MOST_REQUESTED;
        let fits = |asked: &AskedRequest| {
            left = left.saturating_sub(asked.bytes());
            left > 0
        };
        let cut = |AskedRequest { reference, rule }| AskedRequest { reference: cut(&reference), rule };
        let listed: Vec<_> = asked.into_iter().map(cut).take_while(fits).collect();
        Self { more: all - listed.len(), listed }
    }

    /// Bytes that they take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.listed.iter().map(AskedRequest::bytes).sum()
    }
}

// === impl AskedRequest ===

impl AskedRequest {
    /// With what escapes them, and what stands between.
    fn bytes(&self) -> usize {
        let escaped = |byte: u8| if byte.is_ascii() && !matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f) { 1 } else { 2 };
        let texts = self.reference.bytes().chain(self.rule.iter().flat_map(|rule| rule.bytes()));
        texts.map(escaped).sum::<usize>() + 32
    }
}

// === impl Who ===

impl Who {
    /// Names of Kubernetes are short; what only says that it is one need not be.
    pub(super) fn cut(mut self) -> Self {
        let optional = [&mut self.pod, &mut self.uid, &mut self.node].into_iter().flatten();
        for text in optional.chain([&mut self.namespace, &mut self.account]) {
            if text.len() > MOST_NAME {
                *text = fitting(text, MOST_NAME).into_owned();
            }
        }
        self
    }
}

// === impl AuditLine ===

impl AuditLine {
    pub(super) fn new(by: Program, event: AuditEvent, who: Who, outcome: AuditOutcome) -> Self {
        Self {
            audit: SCHEMA.to_owned(),
            time: to_the_millisecond(SystemTime::now()),
            by,
            event,
            outcome,
            who,
            access: None,
            user: None,
            provider: None,
            role: None,
            reference: None,
            version: None,
            generation: None,
            requests: Vec::new(),
            more: 0,
            problem: None,
            count: 1,
            since: None,
        }
    }

    pub(super) fn about(mut self, request: &Request) -> Self {
        self.provider = Some(request.provider.clone());
        self.reference = Some(cut(&request.to_string()));
        self
    }

    /// Reads a line of a log, also behind what collectors and `kubectl logs --timestamps` put before it; `None` if it is
    /// no audit line of this schema.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let json = line.get(line.find("{\"audit\":")?..)?;
        serde_json::from_str::<Self>(json).ok().filter(|line| line.audit == SCHEMA)
    }
}
